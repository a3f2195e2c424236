"""A device that stands in for a GPU on machines without one: torch's "meta", which knows shapes and computes nothing.

What would fail on a GPU fails here: an operation between a tensor that was moved there and one that stayed behind. Where a
program asks for a number, it gets one that is made up, and the asking is counted: on a GPU it means to wait.
"""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
DEVICE = torch.device("meta")


class _StandIn(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.asked = Counter()  # what was fetched from the device, by kind

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if not any(_there(each) for each in tensors):
            return operation(*args, **kwargs)
        left_behind = [each for each in tensors if not _there(each) and each.dim() > 0]
        indexing = operation in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
        if left_behind and not indexing and operation not in (aten.copy_.default, aten._to_copy.default):
            found = ", ".join(f"{tuple(each.shape)} on {each.device}" for each in tensors)
            raise RuntimeError(f"{operation} is to work on tensors of two devices: {found}")
        if operation in _ANSWERS:
            self.asked[str(operation)] += 1
            return _ANSWERS[operation](*args, **kwargs)
        if operation is aten._to_copy.default and torch.device(kwargs.get("device") or DEVICE) != DEVICE:
            self.asked["fetched"] += 1
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if operation is aten.copy_.default and not _there(args[0]):
            self.asked["fetched"] += 1
            return args[0].fill_(1)
        if indexing:  # indices may come from elsewhere, and a mask would need a number: how many it lets through
            args = (args[0], [part for index in args[1] for part in _places(index)], *args[2:])
        return operation(*args, **kwargs)


def _there(tensor):
    return tensor.device == DEVICE


def _half(mask):
    """As many as might be true."""
    return max(1, mask.numel() // 2)


def _places(index):
    if index is None:
        return [None]
    if index.dtype is torch.bool:
        return [torch.zeros(_half(index), dtype=torch.long, device=DEVICE)] * index.dim()
    return [index.to(DEVICE) if _there(index) else torch.zeros_like(index, device=DEVICE)]


def _number(tensor):
    return True if tensor.dtype is torch.bool else 1.0 if tensor.is_floating_point() else 1


_ANSWERS = {
    aten._local_scalar_dense.default: _number,
    aten.equal.default: lambda one, other: True,
    aten.nonzero.default: lambda mask: torch.zeros(_half(mask), mask.dim(), dtype=torch.long, device=DEVICE),
    aten.bincount.default: lambda values, weights=None, minlength=0: torch.zeros(minlength, dtype=torch.long, device=DEVICE),
    aten._unique2.default: lambda values, *_, **__: (values.new_zeros(10), *[values.new_zeros(0, dtype=torch.long)] * 2),
}


@contextmanager
def stand_in():
    """While it lasts, tensors on `DEVICE` behave as said above; gives the counter of what was asked."""
    with pytest.MonkeyPatch.context() as patch, _StandIn() as mode:
        for name in ("SGD", "Adam"):  # the fused ones have no shapes of their own
            patch.setattr(torch.optim, name, _unfused(getattr(torch.optim, name)))
        patch.setattr("ewc.chapters.many_tasks.experiments.fisher_overlap", lambda first, second: 0.5)  # it refuses sums of 0
        yield mode.asked


def _unfused(rule):
    return lambda parameters, fused=None, **options: rule(parameters, **options)
