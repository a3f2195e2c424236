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
    from .evaluating import keeping_nothing, rounding
else:  # copied into a folder, without a package
    from batches import alone, axes, copy, one_that_differs, said, size, some
    from calls import forward, of_torch
    from evaluating import keeping_nothing, rounding

_ROW_BY_ROW = (
    nn.Linear, nn.Identity, nn.Dropout, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.GroupNorm,
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
_AXES = {nn.Conv1d: 3, nn.Conv2d: 4}  # with one less the first would be the channels
# What these layers call, by name; anybody can put a function of his own into its place.
_FUNCTIONS = (
    "linear", "dropout", "relu", "gelu", "silu", "leaky_relu", "elu", "conv1d", "conv2d", "batch_norm", "group_norm",
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
)  # fmt: skip


def row_by_row(model, inputs):
    """Whether a model, in eval mode, is a chain of torch's layers that take every example by itself: no other can make a difference to it."""
    if not (of_torch(model) and all(_own(getattr(nn.functional, name)) for name in _FUNCTIONS)):
        return False
    axes = inputs.ndim if isinstance(inputs, torch.Tensor) else None
    for _, part in model.named_modules(remove_duplicate=False):  # in their order; a layer that stands in two places, in both
        if isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) == (1, -1):
            axes = None
        elif isinstance(part, tuple(_AXES)):
            if any(isinstance(part, kind) and axes != wanted for kind, wanted in _AXES.items()):
                return False
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            if part.running_mean is None or part.running_var is None:  # then the batch's own statistics are taken
                return False
        elif not isinstance(part, (nn.Sequential, *_ROW_BY_ROW)):
            return False
    return True


def _own(function):
    """Whether it is torch's."""
    return isinstance(function, BuiltinFunctionType) or getattr(function, "__globals__", {}).get("__name__", "").startswith("torch.")


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
        pair = isinstance(inputs, tuple) and len(inputs) == 2
        hint = ". A tuple holds several inputs of each example; targets are an argument of their own" if pair else ""
        raise ValueError(f"inputs of {said(inputs)} do not fit the model: {error}{hint}") from error


def check_apart(model, inputs, logits, calls):
    """Every example by itself has the logits that it has in the batch.

    All at once where torch can vectorise the model. Where it cannot, for a model that decides by its numbers what to do, one
    after the other: a mixing of some few would pass unseen among others.
    """
    tolerance, by_itself = tolerance_of(model, logits, calls), _each_alone(model, inputs)
    places = range(size(inputs))
    if by_itself is not None and by_itself.shape == logits.shape:  # what seems another is looked at without vectorising
        places = (~_alike(by_itself, logits, slice(None), tolerance)).nonzero().flatten().tolist()
    for place in places:
        apart(model, inputs, logits, slice(place, place + 1), tolerance)


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
    if found.shape != logits[places].shape or not _alike(found, logits, places, tolerance).all():
        again = model(copy(inputs))
        if again.shape != logits.shape or not _alike(again, logits, slice(None), tolerance).all():
            raise ValueError(
                "model is random in eval mode: it gives the same examples another output each time (a functional.dropout "
                "without training=self.training?)"
            )
        raise ValueError(
            "model gives an example another output when a second one stands beside it: it mixes the examples of a batch"
        )
    return found


def _alike(found, logits, places, tolerance):
    """Which of these rows are as in the batch but for rounding, (n,): a share of the row's largest, or of what a row of it mostly has.

    A row whose terms cancel to nearly 0 is off by a share of its terms.
    """
    found, logits = (each.detach().nan_to_num(neginf=0) for each in (found, logits))
    sizes = _largest(logits)
    scale = sizes[places].clamp(min=sizes.sort().values[len(sizes) // 2])
    return _largest(found.sub_(logits[places])) <= tolerance * scale + torch.finfo(torch.float32).tiny


def _largest(rows):
    """The largest entry of each row."""
    return rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))


def tolerance_of(model, logits, calls=()):
    """By which share the logits, and the gradients by the parameters, may be off: the fewest bits on the way count."""
    return rounding(logits, *model.parameters(), *(call.output for call in calls if call.output is not None))
