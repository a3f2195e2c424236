# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Outputs of its own for each task of one network: a last layer that lets through those of the task at hand.

This file needs torch and nothing else. From the book Weights that Remember.
"""

from collections.abc import Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class Units(nn.Module):
    """Lets through the outputs in `chosen`, those of the task at hand; all where it is None. It has no weights.

    `chosen` is a sequence of k positions, or a tensor (N, k) of them where they differ from example to example.
    """

    def __init__(self):
        super().__init__()
        self.chosen = None

    def forward(self, logits: Tensor) -> Tensor:
        """logits (N, C) to (N, k)."""
        return choose(logits, self.chosen)


def choose(logits: Tensor, units: Sequence[int] | Tensor | None) -> Tensor:
    """The outputs `units` of logits (…, N, C), as `Units` does."""
    if units is None:
        return logits
    if isinstance(units, Tensor):
        return logits.gather(-1, units)
    places = list(units)
    if places and places[0] >= 0 and places == list(range(places[0], places[-1] + 1)):
        return logits[..., places[0] : places[-1] + 1]  # a list of places would be sent to a GPU in every step
    return logits[..., places]


def chosen_by(model):
    """The units that the model is limited to at the moment; None where it is to none, or has no `Units`."""
    return getattr(getattr(model, "units", None), "chosen", None)


@contextmanager
def all_outputs(model):
    """The model with all its outputs, whichever it is limited to at the moment."""
    chosen = chosen_by(model)
    if chosen is None:
        yield
        return
    model.units.chosen = None
    try:
        yield
    finally:
        model.units.chosen = chosen


def check_classes(who, logits):
    """Refuse what is not one row of logits an example, for two classes or more."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        found = f"logits of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{who} returns {found}; it must return logits (N, C), one row an example, of two classes or more")
