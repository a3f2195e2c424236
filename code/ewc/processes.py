# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Sums over the processes that train one model together, each with its own share of the examples.

Without torch.distributed, or with one process, these do nothing. Otherwise every process has to call them, as it has to call
every step: whoever consolidates on the first process alone waits for the others.

Part of fisher.py, which says more. This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import distributed


def processes():
    """How many processes work together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@torch.no_grad()
def summed(totals, count):
    """Totals over this process's `count` examples, as means over the examples of all: {name: tensor}."""
    if processes() > 1:
        everyone = torch.tensor([float(count)], dtype=torch.float64)
        totals = {name: _sum(total) for name, total in totals.items()}
        count = int(_sum(everyone.to(next(iter(totals.values())).device) if totals else everyone))
    return {name: total / count for name, total in totals.items()}


def averaged(tensor):
    """The mean over the processes, each with the same weight."""
    return _sum(tensor) / processes() if processes() > 1 else tensor


def _sum(tensor):
    tensor = tensor.contiguous().clone()
    distributed.all_reduce(tensor)
    return tensor
