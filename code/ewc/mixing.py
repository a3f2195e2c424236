# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Whether a model gives an example the same output alone and beside others: one that does not has no gradients of single examples.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, calls.py, batches.py and evaluating.py.
From the book Weights that Remember.
"""

from types import BuiltinFunctionType

import torch
from torch import nn

if __package__:
    from .batches import copy, one_that_differs, said, size, some
    from .calls import forward, of_torch
    from .evaluating import close, rounding
else:  # copied into a folder, without a package
    from batches import copy, one_that_differs, said, size, some
    from calls import forward, of_torch
    from evaluating import close, rounding

_ROW_BY_ROW = (nn.Linear, nn.Identity, nn.Dropout, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU)


def row_by_row(model):
    """Whether a model is a chain of torch's layers that take every example by itself: no other can make a difference to it."""
    linear_of_torch = isinstance(nn.functional.linear, BuiltinFunctionType)  # and nobody's who has put another into its place
    return linear_of_torch and of_torch(model) and all(
        isinstance(part, (nn.Sequential, *_ROW_BY_ROW))
        or (isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) == (1, -1))
        for part in model.modules()
    )


def check_examples(model, inputs):
    """The first example alone and beside one that differs from it: a model that can be looked at gives it one output."""
    try:
        # Beside the first example one that differs from it, or else its mean with its neighbour is itself.
        both = some(inputs, [0, one_that_differs(some(inputs, slice(0, 128)))])
        forward(model, [], some(inputs, slice(0, 1)))
        pair, _ = forward(model, [], both)
        apart(model, both, pair, slice(0, 1), tolerance_of(model, pair))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):  # a BatchNorm that takes its statistics from the batch
            raise ValueError(
                f"model cannot take one example alone: it mixes the examples of a batch ({error})"
            ) from error
        raise
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"inputs of {said(inputs)} do not fit the model: {error}"
        ) from error


def check_apart(model, inputs, logits, calls, generator):
    """Every second example without those between them, the others, the last one and a few random ones: they have the batch's logits.

    A model may mix the examples of few places, or of many at once. One alone does not show that; of up to four all are tried.
    """
    tolerance, count = tolerance_of(model, logits, calls), size(inputs)
    some = [*torch.randperm(count - 1, generator=generator)[:3].tolist(), count - 1]
    halves = [slice(0, None, 2), slice(1, None, 2)] if count > len(some) else []
    for places in [*halves, *(slice(place, place + 1) for place in some)]:
        apart(model, inputs, logits, places, tolerance)


def apart(model, inputs, logits, places, tolerance):
    """The logits of some examples without the others; an error where they are others than in their batch."""
    found = model(copy(some(inputs, places)))
    if not _alike(found, logits[places], tolerance):
        if not _alike(model(copy(inputs)), logits, tolerance):
            raise ValueError(
                "model is random in eval mode: it gives the same examples another output each time (a functional.dropout "
                "without training=self.training?)"
            )
        raise ValueError(
            "model gives an example another output when a second one stands beside it: it mixes the examples of a batch"
        )
    return found


def _alike(first, second, tolerance):
    return close(first.detach().nan_to_num(neginf=0), second.detach().nan_to_num(neginf=0), tolerance)


def tolerance_of(model, logits, calls=()):
    """By which share the logits, and the gradients by the parameters, may be off: the fewest bits on the way count."""
    return rounding(logits, *model.parameters(), *(call.output for call in calls if call.output is not None))
