"""What the chapter sets beside the methods of `sequences`: joint training that has all tasks from the start, and newer relatives.

They meet what those meet: the same permutations, first weights and order of the images for a seed, the same steps.
"""

from ewc.dark_replay import DarkReplay
from ewc.in_turn import learn_together
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.projection import OrthogonalWeights
from ewc.replay import Replay
from ewc.tasks import held_out, joint, permuted, split
from ewc.training import accuracy, fit
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from ewc.workshop.sequences import bytes_carried

_LEARNING = (*LEARNING, "together", "in_turn", "workshop.sequences")
METHODS = {  # and the modules that each runs
    "dark replay": ("dark_replay", "scores", "checks", "evaluating"),
    "ewc and replay": ("replay", *SPRINGS, *FISHER),
    "orthogonal": ("projection", "springs", "checks", "batches", "evaluating"),
}
OWN = ("method", "strength", "replay_strength")


class Both:
    """Two penalties, added up."""

    def __init__(self, *parts):
        self.parts, self.strength = parts, parts[0].strength

    def consolidate(self, inputs, targets):
        for part in self.parts:
            part.consolidate(inputs, targets)

    def penalty(self):
        return sum(part.penalty() for part in self.parts)

    def state_dict(self):
        return {f"{place}/{name}": value for place, part in enumerate(self.parts) for name, value in part.state_dict().items()}


@depends_on(lambda configuration: _LEARNING + METHODS[configuration["method"]])
def permuted_rivals(
    tasks,
    *,
    method: str,
    strength: float,
    replay_strength: float | None = None,
    memory: int = 200,
    count: int = 5,
    hidden: tuple[int, ...] = (100, 100),
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    schedule: str = "linear",
    fisher_examples: int = 10_000,
    tuning: bool = False,
    seed: int = 0,
):
    """`sequences.permuted_tasks` with plain descent, for methods that only this chapter has.

    Args:
        method: a key of METHODS.
        strength: of the method; of ``"ewc and replay"`` EWC's.
        replay_strength: λ of the replay beside EWC.
        memory: how many images of each task are kept.

    Keeps the accuracies on each task when it was learned, before that, and at the end, as a matrix; the accuracies before training
    and what is carried from task to task, in bytes.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _permuted(tasks, [run])[0]


def _permuted(tasks, runs):
    shared, device = runs[0], tasks[0].train_inputs.device
    base = held_out(tasks[0]) if shared["tuning"] else tasks[0]
    known = {run["seed"]: permuted(base, shared["count"], run["seed"]) for run in runs}
    sequences = [known[run["seed"]] for run in runs]
    models = [mlp(shared["hidden"], seed=run["seed"]).to(device) for run in runs]
    first = {run["seed"]: model for run, model in zip(runs, models, strict=True)}
    asked = () if shared["tuning"] else known.items()  # a search asks for the end alone
    untrained = {seed: [accuracy(first[seed], task) for task in sequence] for seed, sequence in asked}
    penalties = [guard(run, model) for run, model in zip(runs, models, strict=True)]
    matrices, _ = learn_together(
        models,
        sequences,
        penalties=penalties,
        seeds=[run["seed"] for run in runs],
        ahead=1,
        between="nothing" if shared["tuning"] else "own",
        idle_at_first=True,
        label=", ".join(sorted({run["method"] for run in runs})),
        **{name: shared[name] for name in ("steps", "batch_size", "learning_rate", "momentum", "schedule")},
    )
    return [
        ({"matrix": matrix.values.tolist(), "untrained": untrained.get(run["seed"]), "bytes": bytes_carried(penalty)}, {})
        for run, matrix, penalty in zip(runs, matrices, penalties, strict=True)
    ]


permuted_rivals.together, permuted_rivals.own = _permuted, OWN


def guard(run, model):
    """What stands in the place of a penalty for the run's method."""
    method, strength = run["method"], run["strength"]
    kept = {"examples": run["memory"], "batch_size": run["batch_size"], "seed": run["seed"]}
    if method == "dark replay":
        return DarkReplay(model, strength, **kept)
    if method == "ewc and replay":
        return Both(EWC(model, strength, anchors="merged", max_examples=run["fisher_examples"]), Replay(model, run["replay_strength"], **kept))
    if method == "orthogonal":
        return OrthogonalWeights(model, strength, max_examples=run["fisher_examples"])
    raise ValueError(f"method is {method!r}; it may be one of {', '.join(map(repr, METHODS))}")


@depends_on(lambda configuration: LEARNING)
def all_at_once(
    tasks,
    *,
    scenario: str | None = None,
    count: int = 5,
    hidden: tuple[int, ...] = (100, 100),
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    optimizer: str = "sgd",
    schedule: str = "linear",
    seed: int = 0,
):
    """Joint training: all tasks together from the first step, in as many steps as the others have in all, `steps` times `count`.

    Args:
        scenario: of `tasks.split`, where the tasks are classes in `count` groups; None for `count` permutations.

    Keeps the accuracy on each task.
    """
    if scenario is None:
        parts, classes = permuted(tasks[0], count, seed), len(tasks[0].classes)
    else:
        parts = split(tasks[0], count, scenario=scenario)
        classes = len(parts[0].classes) if scenario == "domain" else len(tasks[0].classes)
    model = mlp(hidden, classes=classes, units=scenario == "task", seed=seed).to(tasks[0].train_inputs.device)
    fit(
        model,
        joint(parts),
        steps=steps * count,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        optimizer=optimizer,
        schedule=schedule,
        seed=seed * 1000,
        label=f"joint, seed {seed}",
    )
    return {"accuracies": [accuracy(model, task) for task in parts]}, {}
