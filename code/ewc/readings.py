# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Batch by batch, a way to the gradients of its examples that is known to be right for this batch (ways.py).

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, ways.py, mixing.py, calls.py, gradients.py,
places.py, batches.py and evaluating.py. From the book Weights that Remember.
"""

import warnings
from itertools import chain, islice

import torch
from torch import nn

if __package__:
    from . import gradients
    from .batches import Asked, Batches, size, some
    from .calls import Unreadable, forward, owners
    from .evaluating import full_precision
    from .mixing import check_apart, check_examples, row_by_row
    from .ways import WAYS, FromLayers, Unused
else:  # copied into a folder, without a package
    import gradients
    from batches import Asked, Batches, size, some
    from calls import Unreadable, forward, owners
    from evaluating import full_precision
    from mixing import check_apart, check_examples, row_by_row
    from ways import WAYS, FromLayers, Unused


def readings(model: Asked, names, data: Batches, ways=None, scores_of=None):
    """Yield, a few examples at a time, their targets, a reading and scores.

    A reading has `logits`, (examples, numbers), and `passes` from which gradients come.

    model: as `batches.Asked` asks it. names: the parameters that require grad, each with its name. data: the examples. ways: which of
    `WAYS` may be gone, the first that is right for the batch; a slower one with a warning, once. scores_of: the scores of these logits,
    from their targets; none where it is None.

    Raises:
        ValueError: the inputs do not fit the model, or it mixes the examples of a batch, or it is random, or no way is right, or
            no logit depends on a parameter.
    """
    generator, told, step = torch.Generator().manual_seed(0), [], None
    layers, held, used = owners(model), False, False
    in_place = any(getattr(part, "inplace", False) for part in model.modules())
    for inputs, targets in data:
        known = model.how is None and row_by_row(model.model, inputs)
        copies = in_place or not known
        if step is None:
            with full_precision():  # with fewer bits one example and two may seem to give different outputs
                check_examples(model, inputs)
            step = data.batch_size or _examples_at_once(model, layers, inputs)
        for start in range(0, size(inputs), step):
            places = slice(start, start + step)
            batch = some(inputs, places)
            logits, calls = forward(model, layers, batch, copies)
            if not known:
                check_apart(model, batch, logits, calls)
            own = None if targets is None else targets[places]
            data.seen(len(logits))
            scores = iter(() if scores_of is None else scores_of(logits, own))
            if not logits.requires_grad:
                yield own, Unused(logits), scores
                continue
            first = list(islice(scores, 2))
            only = first[0] if len(first) == 1 else None
            reading = _first_right(ways or WAYS, (model, batch, logits, calls, names, generator, only, known), held or known, told)
            if known and type(reading) is FromLayers:
                reading.write_out()
            held, used = held or type(reading) is FromLayers, True
            yield own, reading, chain(first, scores)
    if not used:
        raise ValueError(
            "model returned logits that do not depend on its parameters: was it run under torch.no_grad()?"
        )


def _first_right(ways, look, held, told):
    reason = ""
    for way in ways:
        try:
            reading = way(*look)
            if way is FromLayers and not held:
                reading.check_sum()
            break
        except Unreadable as found:
            reason = str(found)
    else:
        raise ValueError(f"model cannot be read {ways[-1].how}, or not example by example: {reason}")
    if reason and not told:
        told.append(reason)
        warnings.warn(f"the gradients of the examples are formed {reading.how}, which is slower: {reason}", stacklevel=6)
    return reading


def _examples_at_once(model, layers, inputs):
    """As many examples as hold so many numbers on their way, and no more than 2,048, on a GPU 16,384: more would not be faster."""
    logits, calls = forward(model, layers, some(inputs, slice(0, 1)))
    numbers = 4 * logits.numel()
    for call in calls:
        for part in (call.input, call.output):
            numbers += part.numel() if isinstance(part, torch.Tensor) else 0
        if isinstance(call.module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and call.output is not None:  # what its windows see
            numbers += call.module.weight[0].numel() * call.output[0, 0].numel()
    most = 16_384 if logits.is_cuda else 2048
    # A batch costs some passes over the weights themselves, which a few examples more make up for.
    room = max(gradients.numbers_at_once(logits.device) // 2, 4 * sum(each.numel() for each in model.parameters()))
    return max(1, min(most, room // numbers))
