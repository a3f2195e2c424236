"""The protocol of van de Ven (2025) on CIFAR: EWC with its Fisher taken exactly, from sampled labels, empirically and by the batch.

Settings are those of the command in the author's repository (GMvandeVen/continual-learning, ICLRblogpost): classes dealt out anew for
each seed, outputs of its own for each task, the reduced ResNet-18, 2,000 steps of Adam on 256 images, which goes on with its running
averages from task to task, and one term of EWC a task. The text of the paper speaks of the online form; the command does not ask for it.
CIFAR-100 is in the same code, but not in that paper: its ten tasks get the same network and steps here.
"""

import torch
from torch.nn.functional import cross_entropy

from ewc import springs
from ewc.cifar import cifar
from ewc.penalties import EWC
from ewc.tasks import held_out, joint, split
from ewc.training import accuracy, fit, use_units
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from ewc.workshop.residual import Reduced
from ewc.workshop.sequences import bytes_carried

# What the paper compares: by name, what the Fisher is told; "batched" squares the mean gradient of 128 images.
FISHERS = {
    "exact": {"labels": "exact"},
    "exact, 500 images": {"labels": "exact", "fisher_examples": 500},
    "sampled": {"labels": "sampled"},
    "empirical": {"labels": "empirical"},
    "batched": {"labels": "batched"},
}
STRENGTHS = tuple(10.0**power for power in range(0, 14))  # the paper's grid, 1 to 10¹³
GROUPS = {10: 5, 100: 10}  # classes → tasks


class BatchedEWC(EWC):
    """EWC whose Fisher is the mean over batches of the square of the batch's mean gradient: not the Fisher, but seen in public code."""

    def __init__(self, model, strength=1.0, *, batch_size: int = 128):
        super().__init__(model, strength, labels="empirical")
        self.batch_size = batch_size

    def consolidate(self, inputs, targets=None):
        springs.check_moved(self.model, self._terms)
        self._terms = [*self._terms, (springs.weights(self.model), squared_batch_means(self.model, inputs, targets, self.batch_size))]


def squared_batch_means(model, inputs, targets, batch_size: int = 128) -> dict[str, torch.Tensor]:
    """For each parameter the mean over batches of (∂/∂θ of the batch's mean loss)², in eval mode."""
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    total, mode = {name: torch.zeros_like(each, requires_grad=False) for name, each in parameters.items()}, model.training
    model.eval()
    batches = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    for images, labels in batches:
        slopes = torch.autograd.grad(cross_entropy(model(images), labels), list(parameters.values()))
        for sum_, slope in zip(total.values(), slopes, strict=True):
            sum_ += slope.square() / len(batches)
    model.train(mode)
    return total


def _modules(configuration):
    return (*LEARNING, *SPRINGS, *FISHER, "workshop.residual", "workshop.sequences")


@depends_on(_modules)
def photographs(
    tasks,
    *,
    method: str = "plain",
    strength: float | None = None,
    labels: str = "exact",
    fisher_examples: int | None = None,
    classes: int = 10,
    groups: int = 5,
    width: int = 20,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    tuning: bool = False,
    seed: int = 0,
):
    """Learn the classes of the first data set in `groups` tasks of a random order, each with outputs of its own.

    Args:
        method: ``"plain"``, ``"ewc"`` or ``"joint"``, which sees all tasks so far at each place.
        labels: of `fisher.diagonal_fisher`; or ``"batched"``, see BatchedEWC.
        classes: how many the data set has; CIFAR-10 is asked for or CIFAR-100.
        fisher_examples: how many images the Fisher is taken on; None for all.
        tuning: test on held-out training images, and train without them.

    Keeps the accuracies after each task on the tasks so far, and what the method carries, in bytes.
    """
    if method not in ("plain", "ewc", "joint"):
        raise ValueError(f"method is {method!r}; it may be 'plain', 'ewc' or 'joint'")
    if len(tasks[0].classes) != classes:
        raise ValueError(f"classes is {classes}; {tasks[0].name} has {len(tasks[0].classes)}")
    base = held_out(tasks[0]) if tuning else tasks[0]
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    parts = split(base, order.reshape(groups, -1).tolist(), scenario="task")
    model = Reduced(classes, width, colours=base.train_inputs.shape[1], seed=seed).to(base.train_targets.device)
    penalty = None
    if method == "ewc":
        penalty = BatchedEWC(model, strength) if labels == "batched" else EWC(model, strength, labels=labels, max_examples=fisher_examples)
    rows, averages = [], {}
    for place, part in enumerate(parts):
        fit(
            model,
            joint(parts[: place + 1]) if method == "joint" else part,
            penalty=penalty,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            optimizer="adam",
            schedule="constant",
            optimizer_state=averages,
            seed=seed * 1000 + place,
            label=f"{base.name}, {method}, task {place + 1} of {groups}",
        )
        rows.append([accuracy(model, other, batch_size=1000) for other in parts[: place + 1]])
        if penalty is not None and place + 1 < groups:
            use_units(model, part.units)
            penalty.consolidate(part.train_inputs, part.train_targets)
    return {"matrix": rows, "bytes": bytes_carried(penalty)}, {}


photographs.data = lambda configuration: cifar(configuration["classes"])


def runs() -> list[tuple[dict, tuple[float, ...]]]:
    """Each method on each of the two data sets, and the strengths that it is tried with."""
    sizes = [{"classes": classes, "groups": groups} for classes, groups in GROUPS.items()]
    fishers = [({"method": "ewc", **fisher}, STRENGTHS) for fisher in FISHERS.values()]
    return [({**size, **own}, strengths) for size in sizes for own, strengths in [*fishers, ({"method": "plain"}, ()), ({"method": "joint"}, ())]]
