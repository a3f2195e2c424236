# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard and a gradient scaler: unscale first, then the pull, then whatever clips.

    scaler = torch.amp.GradScaler("cuda")
    for inputs, targets in loader:
        step(model, guard, inputs, targets, optimizer, scaler)
"""

import torch
from torch.nn.functional import cross_entropy


def step(model, guard, inputs, targets, optimizer, scaler, *, dtype=torch.float16, longest=None):
    """One step on the loss and the guard's pull, the loss scaled on its way back; none where a gradient overflows.

    longest: the norm to which the gradient is clipped, the pull with it; None to leave it as it is.
    """
    with torch.autocast(inputs.device.type, dtype):
        loss = cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)  # notes whether one overflowed, before anything is added
    if hasattr(guard, "observe"):  # SynapticIntelligence counts the gradient of the loss alone
        guard.observe()
    guard.add_gradient()
    if longest is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), longest)
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


def step_scaled(model, guard, inputs, targets, optimizer, scaler, *, dtype=torch.float16):
    """The same without unscaling, for what is not clipped: the pull is scaled as the loss was. Not for SynapticIntelligence."""
    with torch.autocast(inputs.device.type, dtype):
        loss = cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    guard.add_gradient(scaler.get_scale())
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()
