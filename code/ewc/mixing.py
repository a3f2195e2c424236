# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Whether a model gives an example the same output alone and beside others: one that does not has no gradients of single examples.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, calls.py, batches.py and evaluating.py.
From the book Weights that Remember.
"""

import warnings
from types import BuiltinFunctionType

import torch
from torch import nn

if __package__:
    from .batches import alone, axes, copy, one_that_differs, said, size, some
    from .calls import forward, of_torch
    from .evaluating import close, keeping_nothing, rounding
else:  # copied into a folder, without a package
    from batches import alone, axes, copy, one_that_differs, said, size, some
    from calls import forward, of_torch
    from evaluating import close, keeping_nothing, rounding

ALONE = 32  # so many examples of a batch are tried by themselves where torch cannot vectorise a model

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
    """Every example by itself has the logits that it has in the batch.

    All at once where torch can vectorise the model. Where it cannot, for a model that decides by its numbers what to do: every
    second example, the others, and a few alone, of a small batch all. A mixing of some few examples may then pass in a large one.
    """
    tolerance, count = tolerance_of(model, logits, calls), size(inputs)
    by_itself = _each_alone(model, inputs)
    if by_itself is not None and _alike(by_itself, logits, tolerance):
        return
    few = torch.randperm(count, generator=generator)[:ALONE].tolist()
    if by_itself is not None and by_itself.shape == logits.shape:  # the one that seems most another is looked at without vectorising
        off = (by_itself.detach().nan_to_num(neginf=0) - logits.detach().nan_to_num(neginf=0)).abs()
        few = [int(off.amax(1).argmax()), *few]
    halves = [slice(0, None, 2), slice(1, None, 2)] if count > len(few) else []
    for places in [*halves, *(slice(place, place + 1) for place in few)]:
        apart(model, inputs, logits, places, tolerance)


def _each_alone(model, inputs):
    """The logits of every example without the others, vectorised; None where torch cannot do that."""
    try:
        with warnings.catch_warnings(), keeping_nothing(model):
            warnings.filterwarnings("ignore", message="There is a performance drop")
            where = axes(inputs)
            return torch.vmap(lambda example: model(alone(example, where))[0], in_dims=(where,))(copy(inputs))
    except Exception:  # whatever torch cannot vectorise; what is wrong with the model itself comes up without it
        return None


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
