"""The experiment of the chapter on choosing λ: one first lesson for each seed, and from its weights a second with each λ.

Runs that differ only in λ, in how the step on the penalty is taken, or in the seed train side by side: `experiments.run_together`.
"""

import copy

import torch
from torch.nn.utils import parameters_to_vector

from ewc.experiments import depends_on
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.steps import Capped, Proximal
from ewc.tasks import joint
from ewc.together import diverged, fit_together
from ewc.training import accuracy

_ROOMS = ("tasks", "models", "training", "metrics", "together", "penalties", "fisher", "steps", "experiments_lambda")
WAYS = ("explicit", "capped", "proximal", "joint")
SECOND = {"cpu": {"steps": 700}, "embedded": {"steps": 400}}


@depends_on(lambda configuration: _ROOMS, sizes=SECOND)
def second_task(
    tasks,
    *,
    strength: float = 0.0,
    way: str = "explicit",
    steps: int | None = None,
    hidden: tuple[int, ...] = (100, 100),
    batch_size: int = 128,
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
    shared = runs[0]
    options = {name: shared[name] for name in ("batch_size", "learning_rate", "momentum")}
    fresh = lambda seed: mlp(shared["hidden"], seed=seed).to(tasks[0].train_inputs.device)  # noqa: E731
    found = [None] * len(runs)
    if places := [place for place, run in enumerate(runs) if run["way"] == "joint"]:
        models, seeds = [fresh(runs[place]["seed"]) for place in places], [runs[place]["seed"] * 1000 for place in places]
        both = joint(tasks)
        fit_together(models, [both] * len(models), steps=2 * shared["steps"], seeds=seeds, label="joint", **options)
        for place, model in zip(places, models, strict=True):
            found[place] = {"before": None, "after": [accuracy(model, task) for task in tasks], "diverged": False}, {}
    places = [place for place, run in enumerate(runs) if run["way"] != "joint"]
    if not places:
        return found
    firsts = {seed: fresh(seed) for seed in sorted({runs[place]["seed"] for place in places})}
    fit_together(
        list(firsts.values()), [tasks[0]] * len(firsts), steps=shared["steps"], seeds=[seed * 1000 for seed in firsts], **options
    )
    known = {}
    for seed, model in firsts.items():
        guard = EWC(model)
        guard.consolidate(tasks[0].train_inputs)
        known[seed] = guard.state_dict(), [accuracy(model, task) for task in tasks]
    models, penalties = [], []
    for place in places:
        run = runs[place]
        models.append(copy.deepcopy(firsts[run["seed"]]))
        guard = EWC(models[-1], run["strength"])
        guard.load_state_dict(known[run["seed"]][0])
        penalties.append(_stepped(guard, run))
    fit_together(
        models,
        [tasks[1]] * len(models),
        penalties=penalties,
        steps=shared["steps"],
        seeds=[runs[place]["seed"] * 1000 + 1 for place in places],
        label="second lesson",
        **options,
    )
    for place, model in zip(places, models, strict=True):
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


def _stepped(guard, run):
    if run["way"] == "explicit":
        return guard
    if run["way"] == "capped":
        return Capped(guard, run["learning_rate"])
    if run["way"] == "proximal":
        return Proximal(guard, run["momentum"])
    raise ValueError(f"way is {run['way']!r}; it may be one of {', '.join(map(repr, WAYS))}")
