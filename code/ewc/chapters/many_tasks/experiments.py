"""The experiment of the chapter on many tasks: how far two tasks rest on the same weights, layer by layer."""

import torch
from ewc.fisher import diagonal_fisher
from ewc.in_turn import learn_together
from ewc.metrics import fisher_overlap
from ewc.models import mlp
from ewc.penalties import EWC
from ewc.tasks import permuted
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on

SIZES = {
    "cpu": {"hidden": (100,) * 6, "steps": 500, "strength": 30.0},
    "embedded": {"hidden": (50,) * 6, "steps": 360, "strength": 8.0},
}
_MODULES = (*LEARNING, *SPRINGS, *FISHER, "together", "in_turn")


@depends_on(lambda configuration: _MODULES, sizes=SIZES)
def overlap_by_layer(
    tasks,
    *,
    square: int,
    strength: float | None = None,
    steps: int | None = None,
    hidden: tuple[int, ...] | None = None,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    schedule: str = "warm-up",
    fisher_examples: int = 10_000,
    seed: int = 0,
):
    """Learn the first data set, then the same with the pixels of a central square moved, under EWC; compare the two Fishers.

    Keeps the accuracy matrix and, for each layer from the pixels on, the overlap of the two tasks' Fishers: ``"end"``, both
    at the weights after the second task; ``"own"``, each at the weights at which its own task was just learned.
    """
    return _overlaps(tasks, [{name: value for name, value in locals().items() if name != "tasks"}])[0]


def _overlaps(tasks, runs):
    shared = runs[0]
    sequences = [permuted(tasks[0], 2, run["seed"], square=run["square"]) for run in runs]
    device = tasks[0].train_targets.device
    models = [mlp(run["hidden"], classes=len(tasks[0].classes), seed=run["seed"]).to(device) for run in runs]
    examples = shared["fisher_examples"]
    fishers = [[] for _ in runs]

    def looked_at(task):  # these alone are made: all images of a task would take longer to move than to look at
        return task.batch(torch.arange(min(examples, len(task.train_targets)), device=device))[0]

    def after(place):
        for model, sequence, found in zip(models, sequences, fishers, strict=True):
            found.append(diagonal_fisher(model, looked_at(sequence[place])))

    matrices, _ = learn_together(
        models,
        sequences,
        penalties=[EWC(model, run["strength"], anchors="merged", max_examples=examples) for model, run in zip(models, runs, strict=True)],
        seeds=[run["seed"] for run in runs],
        after=after,
        idle_at_first=True,
        label="overlap by layer",
        **{name: shared[name] for name in ("steps", "batch_size", "learning_rate", "momentum", "schedule")},
    )
    results = []
    for model, sequence, matrix, (first, second) in zip(models, sequences, matrices, fishers, strict=True):
        again = diagonal_fisher(model, looked_at(sequence[0]))
        layers = [name for name, layer in model.named_children() if isinstance(layer, torch.nn.Linear)]

        def by_layer(one, other, layers=layers):
            return [fisher_overlap(_of(one, layer), _of(other, layer)) for layer in layers]

        result = {
            "matrix": matrix.values.tolist(),
            "layers": layers,
            "overlap": {"end": by_layer(again, second), "own": by_layer(first, second)},
        }
        results.append((result, {}))
    return results


overlap_by_layer.together, overlap_by_layer.own = _overlaps, ("square", "strength")


def _of(fisher, layer):
    return {name: value for name, value in fisher.items() if name.startswith(f"{layer}.")}
