# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Kronecker factors of a layer's Fisher information: which layers have them, what a layer's uses put into them, and sums of
them over tasks.

Part of fisher.py, which says more (`kronecker_fisher`). This file needs torch, and beside it checks.py, calls.py and
batches.py. From the book Weights that Remember.
"""

import functools
from typing import Literal, get_args

import torch
from torch import nn

if __package__:
    from .calls import plain, untouched
    from .checks import plain_name
else:  # copied into a folder, without a package
    from calls import plain, untouched
    from checks import plain_name

Sharing = Literal["expand", "reduce"]
SHARING = get_args(Sharing)


def factored_layers(model):
    """The layers that own parameters, with their names; an error that names those that have no Kronecker factors."""
    names, unfit, owners = {}, [], {}
    for name, module in model.named_modules():
        own = {key: value for key, value in module.named_parameters(recurse=False) if value.requires_grad}
        if own and not plain(module, nn.Linear, nn.Conv2d):
            kind = type(module).__name__ + ("" if untouched(module) else ", with hooks or a forward of its own")
            unfit.append(f"{name or 'the model itself'} ({kind})")
        elif own:
            names[module] = plain_name(name)
        for parameter in own.values():
            if parameter in owners:
                raise ValueError(
                    f"layers {owners[parameter]!r} and {name!r} share a parameter; its scores add up before they are "
                    "squared, and Kronecker factors do not hold them: use diagonal_fisher or full_fisher"
                )
            owners[parameter] = name
    if unfit:
        raise ValueError(
            f"model has parameters in {', '.join(unfit)}; Kronecker factors are defined for nn.Linear and nn.Conv2d: "
            "freeze the others with requires_grad_(False), or use diagonal_fisher or full_fisher"
        )
    return names


def check_each_used_once(reading, layers):
    """Refuse a forward pass whose layers are used more than once, or on something else than the examples as they come."""
    for place, call in enumerate(reading.calls):
        if any(call.module is other.module for other in reading.calls[:place]):
            raise ValueError(
                f"layer {layers[call.module]!r} is used more than once in a forward pass; its scores add up before "
                "they are squared, and Kronecker factors do not hold them: use diagonal_fisher or full_fisher"
            )
    if not reading.in_order:
        raise ValueError(
            "model has layers whose rows are not the examples of a batch, each of them and in order; Kronecker factors are "
            "means over all examples: use diagonal_fisher or full_fisher"
        )


def places_of(model, layers):
    """Where the entries of each layer's [W | b] stand in the vector of all parameters: (groups, outputs, inputs)."""
    starts, start = {}, 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            starts[parameter] = torch.arange(start, start := start + parameter.numel(), device=parameter.device)
    return {
        layer: torch.cat(
            [
                starts[parameter].reshape(groups, len(parameter) // groups, -1)
                for parameter in (layer.weight, layer.bias)
                if parameter is not None and parameter in starts
            ],
            -1,
        )
        for layer in layers
        for groups in [getattr(layer, "groups", 1)]
    }


def uses_of_input(layer, a, sharing):
    """What the rows of [W | b] are multiplied with, one row a use: (groups, examples · uses, inputs)."""
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, nn.Conv2d):
        zeros = layer.padding_mode == "zeros"
        padded = nn.functional.pad(
            a, layer._reversed_padding_repeated_twice, mode="constant" if zeros else layer.padding_mode
        )
        a = nn.functional.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride).mT
    a = a.reshape(len(a), -1, groups, a.shape[-1] // groups)
    one = torch.ones_like(a[..., :1])
    bias = layer.bias is not None and layer.bias.requires_grad
    a = torch.cat([a] * layer.weight.requires_grad + [one] * bias, -1)
    if sharing == "reduce":
        a = a.mean(1, keepdim=True)
    return a.flatten(0, 1).movedim(1, 0).to(torch.promote_types(a.dtype, torch.float32))


def uses_of_output(layer, delta, sharing):
    """The scores of a layer's output, one row a use: (groups, examples · uses, outputs). For "expand" divided by √R."""
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, nn.Conv2d):
        delta = delta.flatten(2).mT
    delta = delta.reshape(len(delta), -1, groups, delta.shape[-1] // groups)
    delta = delta.sum(1, keepdim=True) if sharing == "reduce" else delta / delta.shape[1] ** 0.5
    return delta.flatten(0, 1).movedim(1, 0).to(torch.promote_types(delta.dtype, torch.float32))


class Blocks:
    """A layer's Σ_tasks B ⊗ A: the factors of all tasks stacked, (tasks, m, m) and (tasks, k, k)."""

    def __init__(self, b, a, steepest=None):
        self.b, self.a, self._steepest = b, a, steepest

    @property
    def steepest(self):
        """The largest eigenvalue of each task's B ⊗ A, found when it is first asked for, as it is before plain descent: (tasks,)."""
        if self._steepest is None:
            self._steepest = smallest_and_largest(self.b)[1] * smallest_and_largest(self.a)[1]
        return self._steepest

    def faded(self, decay):
        return Blocks(decay * self.b, self.a, None if self._steepest is None else decay * self._steepest)

    def to(self, device):
        return Blocks(*(None if side is None else side.to(device) for side in (self.b, self.a, self._steepest)))

    def joined(self, b, a, factors):
        if factors == "kept":
            new = Blocks(b[None], a[None])
            steepest = None if self._steepest is None else torch.cat([self._steepest, new.steepest])
            return Blocks(torch.cat([self.b, new.b]), torch.cat([self.a, new.a]), steepest)
        (old_b,), (old_a,) = self.b, self.a
        trace = old_b.trace() * old_a.trace() + b.trace() * a.trace()
        outputs = old_a.trace() * old_b + a.trace() * b
        inputs = old_b.trace() * old_a + b.trace() * a
        return Blocks(outputs[None], (inputs / trace if trace > 0 else inputs)[None])

    def times(self, delta):
        """Σ_tasks B Δ A: as two products of large matrices, or task by task without the inputs that it never used."""
        delta = delta.to(self.b.dtype)
        if self._used is not None:
            total = torch.zeros_like(delta)
            for b, (inputs, a) in zip(self.b, self._used, strict=True):
                total.index_add_(1, inputs, b @ delta.index_select(1, inputs) @ a)
            return total
        left = self.b.flatten(0, 1) @ delta
        if len(self.a) == 1:
            return left @ self.a[0]
        left = left.unflatten(0, self.b.shape[:2]).transpose(0, 1).flatten(1)  # the tasks side by side
        return left @ self.a.flatten(0, 1)

    @functools.cached_property
    def _used(self):
        """For each task the inputs that were not always 0, as dark pixels are, and A of these alone; None where that spares little."""
        if self.a.is_meta:  # there are no values
            return None
        inputs = [a.any(1).nonzero().flatten() for a in self.a]
        if sum(len(own) ** 2 for own in inputs) > 0.8 * self.a.numel():
            return None
        return [(own, a.index_select(0, own).index_select(1, own)) for own, a in zip(inputs, self.a, strict=True)]

    def shrunk(self, delta, stiffness):
        """The Δ at which ‖Δ − delta‖² / 2 + stiffness/2 ⟨Δ, B Δ A⟩ is least."""
        u, v, eigenvalues = self._eigen
        turned = u.mT @ delta.to(u.dtype) @ v
        return u @ turned.div_(eigenvalues.mul(stiffness).add_(1)) @ v.mT

    @functools.cached_property
    def _eigen(self):
        """The eigenvectors of B and of A, and β αᵀ, found once. In float64: many of A's eigenvalues are next to 0, as of dark pixels."""
        if len(self.a) > 1:
            raise ValueError(
                f"factors of {len(self.a)} tasks are kept; a proximal step needs one pair a layer: KroneckerEWC(…, factors='added')"
            )
        (beta, u), (alpha, v) = (torch.linalg.eigh(side[0].double()) for side in (self.b, self.a))
        eigenvalues = torch.outer(beta.clamp(min=0), alpha.clamp(min=0))
        return tuple(value.to(self.b.dtype) for value in (u, v, eigenvalues))


def smallest_and_largest(matrices):
    """The outermost eigenvalues of each. In float32 the search may not converge where many are next to 0, as of dark pixels."""
    try:
        values = torch.linalg.eigvalsh(matrices)
    except torch.linalg.LinAlgError:
        values = torch.linalg.eigvalsh(matrices.double()).to(matrices.dtype)
    return values[:, 0], values[:, -1]
