"""Two pasts that leave the same weights and the same Fisher information, and ask for different borders: no spring can serve both.

Images are two numbers, left or right and a height. The old lesson has A on the left and B on the right, both at the height −1, or
both at +1. Left and right are mirror images, so the gradients along the height cancel in either past, and a diagonal Fisher has
only the square of the height. The new lesson has C on the left and D on the right, at the height 0.
"""

from collections import OrderedDict

import torch
from ewc.heads import Units
from ewc.penalties import EWC
from ewc.tasks import Task
from ewc.training import fit, use_units
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

CLASSES = ("A", "B", "C", "D")
SIDES = (-1.0, 1.0)


def lessons(height: float, masked: bool) -> list[Task]:
    """The old lesson, at this height, and the new one; if `masked`, each has outputs of its own."""
    return [_lesson(height, (0, 1), masked), _lesson(0.0, (2, 3), masked)]


def network() -> nn.Sequential:
    """One linear layer from two numbers to four logits, in double precision, at zero."""
    layers = OrderedDict(logits=nn.Linear(2, len(CLASSES), dtype=torch.float64), units=Units())
    for parameter in layers["logits"].parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(layers)


def learned(height: float, *, strength: float = 1.0, masked: bool = True, steps: int = 400) -> tuple[nn.Sequential, Tensor, EWC]:
    """The network after both lessons, the second with EWC and twice as long; the weights that EWC held on to; and EWC.

    As long as the first, the second would leave A and C at one height exactly.
    """
    model = network()
    guard = EWC(model, strength)
    old, new = lessons(height, masked)
    options = {"batch_size": 2, "learning_rate": 0.5, "momentum": 0.0, "schedule": "constant"}
    fit(model, old, steps=steps, **options)
    anchor = parameters_to_vector(model.parameters()).detach().clone()
    guard.consolidate(old.train_inputs, old.train_targets)
    fit(model, new, penalty=guard, steps=2 * steps, **options)
    use_units(model, None)
    return model, anchor, guard


def _lesson(height, units, masked):
    inputs = torch.tensor([[side, height] for side in SIDES], dtype=torch.float64)
    targets = torch.tensor((0, 1) if masked else units)
    return Task(
        name=f"{CLASSES[units[0]]}, {CLASSES[units[1]]}", things="points", classes=CLASSES, train_inputs=inputs, train_targets=targets,
        test_inputs=inputs, test_targets=targets, embedded=False, source="", checksum="", units=units if masked else None,
    )  # fmt: skip
