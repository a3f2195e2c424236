"""The experiment of Fisher information: what each kind of labels says of a network while it is fitted."""

import torch
from ewc.fisher import diagonal_fisher
from ewc.models import mlp
from ewc.scores import LABELS
from ewc.tasks import Task
from ewc.training import accuracy, fit
from ewc.workshop.records import FISHER, LEARNING, depends_on

SIZES = {"cpu": {"examples": 5000, "hidden": (256, 256)}, "embedded": {"examples": 5000, "hidden": (64, 64)}}


@depends_on(lambda configuration: (*LEARNING, *FISHER), sizes=SIZES)
def fisher_of_labels(
    tasks,
    *,
    examples: int | None = None,
    passes: int = 40,
    hidden: tuple[int, ...] | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Train on a part of the first task until it is fitted, and take the Fisher with each kind of labels on the way.

    Keeps, at each look, the pass, the accuracy on the part, and the trace of each Fisher.
    """
    part = tasks[0].train_inputs[:examples], tasks[0].train_targets[:examples]
    task = Task(**{**vars(tasks[0]), "train_inputs": part[0], "train_targets": part[1]})
    seen = Task(**{**vars(task), "test_inputs": part[0], "test_targets": part[1]})
    model = mlp(hidden, seed=seed).to(part[0].device)
    length = -(-len(part[0]) // batch_size)
    looks = []

    def look(step):
        if step % length or step // length not in (0, 1, 2, 3, 5, 8, 12, 18, 26, passes):
            return
        draws = torch.Generator().manual_seed(seed)
        traces = {}
        for labels in LABELS:
            fisher = diagonal_fisher(model, *part, labels=labels, generator=draws)
            traces[labels] = float(sum(value.double().sum() for value in fisher.values()))
        looks.append({"pass": step // length, "accuracy": accuracy(model, seen), "traces": traces})

    fit(
        model,
        task,
        steps=passes * length,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        seed=seed,
        watch=look,
        label=f"labels of the Fisher, seed {seed}",
    )
    return {"looks": looks, "examples": len(part[0])}, {}
