# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Whatever a model takes, batch by batch: a tensor, several in a tuple or by name, or an iterable of batches of these.

Nothing here looks at more than one batch of an iterable, and each is asked for once.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py. From the book Weights that Remember.
"""

import sys
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

if __package__:
    from .checks import checked_count
else:  # copied into a folder, without a package
    from checks import checked_count

_MAY_BE = (
    "it must be a tensor with the examples along its first axis, a tuple of such (the model's arguments) or a dictionary of such "
    "(its arguments by name), or an iterable of batches: each of these, or a pair of one with targets"
)


class Asked(nn.Module):
    """A model as a function of one batch, whatever it takes and returns: (examples, numbers). `shape` is that of one example's outputs."""

    def __init__(self, model, how=None):
        super().__init__()
        self.model, self.how, self.shape = model, how, None

    def forward(self, batch):
        if self.how is not None:
            outputs = self.how(self.model, batch)
        elif isinstance(batch, Mapping):
            outputs = self.model(**batch)
        else:
            outputs = self.model(*batch) if isinstance(batch, tuple) else self.model(batch)
        if not isinstance(outputs, Tensor) and isinstance(getattr(outputs, "logits", None), Tensor):
            outputs = outputs.logits
        if not isinstance(outputs, Tensor) or outputs.ndim == 0:
            raise ValueError(
                f"model must return logits, as a tensor with the examples first or under the name .logits; it returned "
                f"{'one number' if isinstance(outputs, Tensor) else type(outputs).__name__}: say with "
                "forward=lambda model, batch: … what its outputs are"
            )
        self.shape = outputs.shape[1:]
        return outputs if outputs.ndim == 2 else outputs.flatten(1) if outputs.ndim > 2 else outputs[:, None]


class Batches:
    """The examples, batch by batch: `inputs` that are there at once are one batch, an iterable gives as many as it has.

    most: how many examples are taken; evenly spread over those that are there at once, the first of an iterable. `count`: how many
    there were, known at the end.
    """

    def __init__(self, inputs, targets=None, *, device=None, batch_size=None, most=None, progress=False):
        self.inputs, self.targets, self.device, self.most = inputs, targets, device, most
        self.batch_size = None if batch_size is None else checked_count("batch_size", batch_size)
        self.at_once, self.count, self.bar = isinstance(inputs, Tensor | tuple | Mapping), 0, Bar() if progress else None
        if targets is not None and not isinstance(targets, Tensor):
            raise TypeError(f"targets is {type(targets).__name__}; it must be a tensor with the targets of the examples along its first axis")
        if self.at_once:
            self.inputs, self.targets = checked(inputs, targets, device)
            if most is not None and most < size(self.inputs):
                self.inputs, self.targets = spread(self.inputs, self.targets, most)
        elif isinstance(inputs, str) or not isinstance(inputs, Iterable):
            raise TypeError(f"inputs is {type(inputs).__name__}; {_MAY_BE}")
        elif targets is not None:
            raise ValueError("targets is given beside an iterable of batches; each batch must bring its own: (inputs, targets)")

    def __iter__(self):
        """Yield (inputs, targets); targets is None where there are none."""
        if self.at_once:
            self.count = size(self.inputs)
            yield _free(self.inputs), self.targets
            return
        for batch in self.inputs:
            inputs, targets = checked(*_parted(batch, type(self.inputs).__name__, self.device))
            if self.most is not None and self.count + size(inputs) > self.most:
                rest = slice(0, self.most - self.count)
                inputs, targets = some(inputs, rest), None if targets is None else targets[rest]
            if size(inputs):
                self.count += size(inputs)
                yield _free(inputs), targets
            if self.count == self.most:
                break
        if not self.count:
            raise ValueError("inputs gave no batch; it must hold at least one example. Was it an iterator that had come to its end?")

    def seen(self, examples):
        """Say to whoever watches that so many more examples are done."""
        if self.bar is not None:
            total = size(self.inputs) if self.at_once else None
            self.bar.step(examples, total)


class Bar:
    """A line on the terminal that says how far a long pass is; nothing in the first two seconds."""

    def __init__(self):
        self.done, self.started, self.said = 0, time.monotonic(), 0.0

    def step(self, examples, total):
        self.done, now = self.done + examples, time.monotonic()
        over = self.done == total
        if now - self.started < 2 or (now - self.said < 0.5 and not (over and self.said)):
            return
        self.said, spent = now, now - self.started
        left, rest = (f" of {total:,}", f", {spent * (total / self.done - 1):.0f} s left") if total else ("", "")
        print(f"\r{self.done:,}{left} examples, {spent:.0f} s{rest}   ", end="\n" if over else "", file=sys.stderr, flush=True)


def _parted(batch, kind, device):
    """The inputs and targets of what an iterable gave, on this device."""
    if not tensors(batch):
        raise TypeError(f"inputs is {kind}; {_MAY_BE}. It gave {type(batch).__name__} without a tensor")
    if isinstance(batch, list):
        batch = tuple(batch)  # a DataLoader makes lists of pairs
    targets = None
    if isinstance(batch, tuple) and len(batch) == 1:
        (batch,) = batch
    elif isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], Tensor):
        batch, targets = batch
    elif isinstance(batch, tuple):
        raise ValueError(
            f"inputs gave a batch of {len(batch)} parts; it must be a tensor, a dictionary, or a pair (inputs, targets). Where the model "
            "takes several tensors, the pair is ((first, second), targets)"
        )
    if device is not None:
        batch, targets = changed(batch, lambda each: each.to(device)), None if targets is None else targets.to(device)
    return batch, targets


def checked(inputs, targets, device=None):
    """Refuse inputs and targets that are not as many examples, at least one, on the device; return them, dictionaries and lists plain."""
    found = tensors(inputs)
    if not found:
        raise TypeError(f"inputs is {type(inputs).__name__} without a tensor; {_MAY_BE}")
    shapes = ", ".join(str(tuple(each.shape)) for each in found)
    alone = isinstance(inputs, Tensor)
    if any(each.ndim < 1 for each in found[:1]) or (alone and inputs.ndim < 2 and inputs.is_floating_point()) or not all(map(len, found)):
        raise ValueError(f"inputs has shape {shapes}; it must hold at least one example along its first axis")
    if len({len(each) for each in found}) > 1:
        raise ValueError(f"inputs holds tensors of shapes {shapes}; each must have the same examples along its first axis")
    for each in found if device is not None else ():
        if each.device != device:
            raise ValueError(f"inputs is on {each.device}; it must be on the model's device, {device}")
    if targets is not None:
        if targets.shape[:1] != found[0].shape[:1]:
            raise ValueError(f"targets has shape {tuple(targets.shape)} and inputs {shapes}; there must be one target for each example")
        if targets.device != found[0].device:
            raise ValueError(f"targets is on {targets.device}; it must be on the inputs' device, {found[0].device}")
    return changed(inputs, Tensor.detach), targets


def _free(inputs):
    """The inputs, those made in inference mode copied: only what was made out of it can be on the way of a gradient."""
    return changed(inputs, lambda each: each.clone() if each.is_inference() else each)


def spread(inputs, targets, most):
    """So many of the examples, evenly over those given."""
    rows = evenly(size(inputs), most, tensors(inputs)[0].device)
    return some(inputs, rows), None if targets is None else targets[rows]


def evenly(count, most, device=None):
    """So many of the numbers below `count`, evenly spread: the rows of `spread`."""
    # In float32 whole numbers are exact up to 2^24 only.
    exact = torch.float32 if count < 2**20 else torch.float64
    return torch.linspace(0, count - 1, most, dtype=exact, device=device).round().long()


def changed(batch, change):
    """The batch with each of its tensors changed; a dictionary stays one, a list becomes a tuple, what is no tensor stays."""
    if isinstance(batch, Tensor):
        return change(batch) if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {name: changed(value, change) for name, value in batch.items()}
    return tuple(changed(value, change) for value in batch) if isinstance(batch, tuple | list) else batch


def tensors(batch):
    """All tensors of a batch that have an axis; alone, also a single number."""
    if isinstance(batch, Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return [each for part in parts for each in tensors(part) if each.ndim]


def size(batch):
    """How many examples a batch has."""
    return len(tensors(batch)[0])


def some(batch, places):
    """Some examples of a batch: their places as an index, or a slice."""
    return changed(batch, lambda each: each[places])


def copy(batch):
    """A copy of a batch: a model may write into what it is given."""
    return changed(batch, Tensor.clone)


def axes(batch):
    """Where the examples are, for torch.vmap: 0 for each tensor, None for what has none."""
    if isinstance(batch, Tensor):
        return 0 if batch.ndim else None
    if isinstance(batch, Mapping):
        return {name: axes(value) for name, value in batch.items()}
    return tuple(map(axes, batch)) if isinstance(batch, tuple | list) else None


def alone(example, where):
    """One example, without the axis of examples, as a batch of one; `where` is what `axes` said of the batch."""
    if isinstance(example, Mapping):
        return {name: alone(value, where[name]) for name, value in example.items()}
    if isinstance(example, tuple | list):
        return tuple(alone(value, axis) for value, axis in zip(example, where, strict=True))
    return example if where is None else example[None].clone()  # a model may write into what it is given


def one_that_differs(batch):
    """The place of the first example that is not as the first one; 0 where all are alike."""
    count = size(batch)
    differs = [(each != each[0]).reshape(count, -1).any(1) for each in tensors(batch)]
    return int(torch.stack(differs).any(0).int().argmax())


def said(batch):
    """A batch in words: shape and type."""
    return ", ".join(f"shape {tuple(each.shape)} and type {each.dtype}" for each in tensors(batch))
