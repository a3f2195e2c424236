"""The experiments of the chapter on choosing λ: two tasks, and permutations of one, learned with EWC of many strengths.

Runs that differ only in λ, in how the step on the penalty is taken, or in the seed train side by side: `records.run_together`.
"""

import contextlib
import copy
import warnings

import torch
from ewc.in_turn import learn_together
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.steps import Capped, Proximal
from ewc.tasks import held_out, joint, permuted
from ewc.together import diverged, fit_together
from ewc.training import accuracy
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from torch.nn.utils import parameters_to_vector

_ROOMS = (*LEARNING, *SPRINGS, *FISHER, "together", "in_turn", "steps")
WAYS = ("explicit", "capped", "proximal", "joint")
SECOND = {
    "cpu": {"hidden": (100, 100), "steps": 500},
    "embedded": {"hidden": (50, 50), "steps": 150},
}
PERMUTED = {
    "cpu": {"hidden": (100, 100), "count": 4, "steps": 250},
    "embedded": {"hidden": (50, 50), "count": 4, "steps": 80},
}


@depends_on(lambda configuration: _ROOMS, sizes=SECOND)
def second_task(
    tasks,
    *,
    strength: float = 0.0,
    way: str = "explicit",
    steps: int | None = None,
    hidden: tuple[int, ...] | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Learn the first task, then the second with EWC of this strength.

    Args:
        way: how the penalty's step is taken: ``"explicit"``, its gradient added to the loss's; ``"capped"`` so that no weight's
            learning rate · λ F is above 1; ``"proximal"``, implicitly. ``"joint"`` learns both tasks at once from the start,
            in as many steps, and has no penalty.

    Keeps the accuracies on both tasks before and after the second lesson, learning rate · λ max F, for how many of the weights
    it is above the bound of divergence, and whether the run diverged; for the first seed the weights before and after.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _second(tasks, [run])[0]


def _second(tasks, runs):
    shared, found = runs[0], [None] * len(runs)
    options = {name: shared[name] for name in ("batch_size", "learning_rate", "momentum")}
    both, guarded = _apart(runs)
    if both:
        models, seeds = (
            _fresh(tasks[0], [runs[place] for place in both]),
            [runs[place]["seed"] * 1000 for place in both],
        )
        fit_together(
            models, [joint(tasks)] * len(both), steps=2 * shared["steps"], seeds=seeds, label="joint", **options
        )
        for place, model in zip(both, models, strict=True):
            found[place] = {"after": [accuracy(model, task) for task in tasks]}, {}
    if not guarded:
        return found
    # One first lesson for each seed, for however many second ones.
    firsts = {runs[place]["seed"]: runs[place] for place in guarded}
    firsts = dict(zip(firsts, _fresh(tasks[0], firsts.values()), strict=True))
    seeds = [seed * 1000 for seed in firsts]
    fit_together(
        list(firsts.values()),
        [tasks[0]] * len(firsts),
        steps=shared["steps"],
        seeds=seeds,
        label="first lesson",
        **options,
    )
    known = {}
    for seed, model in firsts.items():
        guard = EWC(model)
        guard.consolidate(tasks[0].train_inputs)
        known[seed] = guard.state_dict(), [accuracy(model, task) for task in tasks]
    models, penalties = [], []
    for run in (runs[place] for place in guarded):
        models.append(copy.deepcopy(firsts[run["seed"]]))
        guard = EWC(models[-1], run["strength"])
        guard.load_state_dict(known[run["seed"]][0])
        penalties.append(_stepped(guard, run))
    seeds = [runs[place]["seed"] * 1000 + 1 for place in guarded]
    with _meant_to_diverge():
        fit_together(
            models,
            [tasks[1]] * len(models),
            penalties=penalties,
            steps=shared["steps"],
            seeds=seeds,
            label="second lesson",
            **options,
        )
    for place, model in zip(guarded, models, strict=True):
        run = runs[place]
        state, before = known[run["seed"]]
        stiff = torch.cat([value.flatten() for name, value in state.items() if "/importance/" in name])
        products = run["learning_rate"] * run["strength"] * stiff
        weights = {"after 1": firsts[run["seed"]], "after 2": model} if run["seed"] == 0 else {}
        found[place] = (
            {
                "before": before,
                "after": [accuracy(model, task) for task in tasks],
                "diverged": diverged(model),
                "product": float(products.max()),
                "above": int((products > 2 * (1 + run["momentum"])).sum()),
            },
            {name: parameters_to_vector(network.parameters()).detach().cpu() for name, network in weights.items()},
        )
    return found


second_task.together, second_task.own = _second, ("strength", "way")


@depends_on(lambda configuration: _ROOMS, sizes=PERMUTED)
def permutations(
    tasks,
    *,
    strength: float = 0.0,
    way: str = "explicit",
    count: int | None = None,
    steps: int | None = None,
    hidden: tuple[int, ...] | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    fisher_examples: int = 2000,
    tuning: bool = False,
    seed: int = 0,
):
    """Learn `count` permutations of the first task one after another with EWC of this strength and merged anchors.

    Args:
        way: as in `second_task`; ``"joint"`` sees all permutations at once, in as many steps as the others take together.
        tuning: test on held-out training images, and train without them.

    Keeps the accuracies on all of them at the end, and whether the run diverged; for the first seed the last weights.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _permutations(tasks, [run])[0]


def _permutations(tasks, runs):
    shared, found = runs[0], [None] * len(runs)
    options = {name: shared[name] for name in ("batch_size", "learning_rate", "momentum")} | {"schedule": "linear"}
    base = held_out(tasks[0]) if shared["tuning"] else tasks[0]
    orders = {run["seed"]: permuted(base, shared["count"], run["seed"]) for run in runs}
    both, guarded = _apart(runs)
    models = dict(zip([*both, *guarded], _fresh(tasks[0], [runs[place] for place in (*both, *guarded)]), strict=True))
    if both:
        fit_together(
            [models[place] for place in both],
            [joint(orders[runs[place]["seed"]]) for place in both],
            steps=shared["count"] * shared["steps"],
            seeds=[runs[place]["seed"] * 1000 for place in both],
            label="joint",
            **options,
        )
    after = {place: [accuracy(models[place], task) for task in orders[runs[place]["seed"]]] for place in both}
    if guarded:
        own = [EWC(models[place], runs[place]["strength"], anchors="merged", max_examples=shared["fisher_examples"]) for place in guarded]
        with _meant_to_diverge():
            matrices, _ = learn_together(
                [models[place] for place in guarded],
                [orders[runs[place]["seed"]] for place in guarded],
                penalties=[_stepped(guard, runs[place]) for guard, place in zip(own, guarded, strict=True)],
                seeds=[runs[place]["seed"] for place in guarded],
                steps=shared["steps"],
                between="nothing",
                idle_at_first=True,
                label="permutations",
                **options,
            )
        after |= {place: matrix.values[-1].tolist() for place, matrix in zip(guarded, matrices, strict=True)}
    for place, model in models.items():
        weights = parameters_to_vector(model.parameters()).detach().cpu()
        found[place] = (
            {"after": after[place], "diverged": diverged(model)},
            {f"after {shared['count']}": weights} if runs[place]["seed"] == 0 else {},
        )
    return found


permutations.together, permutations.own = _permutations, ("strength", "way")


def _apart(runs):
    """The places of the runs that learn all at once, and of those that learn one task after another."""
    return [[place for place, run in enumerate(runs) if (run["way"] == "joint") == both] for both in (True, False)]


def _fresh(task, runs):
    return [mlp(run["hidden"], seed=run["seed"]).to(task.train_targets.device) for run in runs]


def _stepped(guard, run):
    if run["way"] == "explicit":
        return guard
    if run["way"] == "capped":
        return Capped(guard, run["learning_rate"])
    if run["way"] == "proximal":
        return Proximal(guard, run["momentum"])
    raise ValueError(f"way is {run['way']!r}; it may be one of {', '.join(map(repr, WAYS))}")


@contextlib.contextmanager
def _meant_to_diverge():
    """Some of the runs are there to show it: `fit` need not warn of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "learning_rate · strength", RuntimeWarning)
        yield
