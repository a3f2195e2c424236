# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Layers that use a weight at many places of one example, and each example's gradient by one small matrix product.

A linear layer on tokens, a convolution at the places r of an image: the output at r is W a_r + b, with a_r the token, or the
patch under the window at r, unfolded into a vector. The gradient of one example is Σ_r δ_r a_rᵀ for the weight and Σ_r δ_r for
the bias. The patches are unfolded once, however many scores there are. A layer that normalises, and then scales and shifts each
feature, has Σ_r δ_r x̂_r and Σ_r δ_r.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, calls.py and batches.py. From the book
Weights that Remember.
"""

import torch
from torch import nn
from torch.nn import functional

if __package__:
    from .calls import plain
else:  # copied into a folder, without a package
    from calls import plain

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)


def has_uses(module):
    """Whether a layer's gradients can be formed in this way."""
    kinds = [kind for kind in (*_MATRICES, *_NORMS, nn.Embedding) if type(module) is kind]
    normalised = not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or module.running_mean is not None
    bounded = isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq)
    return bool(kinds) and normalised and not bounded and plain(module, *kinds)


def gradients_of(module, inputs, deltas):
    """Yield, for each of several scores, each example's gradient by the layer's weight and bias: {parameter: (n, *shape)}.

    An embedding's is sparse, and coalesced. A gradient holds until the next one is asked for: it is written into the same memory, for
    fresh memory would take longer than the product. deltas: the gradients by the layer's output, one tensor a score.
    """
    if isinstance(module, _MATRICES):
        of_one = _of_matrix(module, inputs)
    elif isinstance(module, nn.Embedding):
        of_one = _of_embedding(module, inputs)
    else:
        of_one = _of_norm(module, inputs)
    for delta in deltas:
        weight, bias = of_one(delta)
        yield {module.weight: weight} | ({} if getattr(module, "bias", None) is None else {module.bias: bias})


def _of_matrix(module, a):
    groups, linear = getattr(module, "groups", 1), isinstance(module, nn.Linear)
    a = a.reshape(len(a), -1, a.shape[-1]) if linear else _patches(module, a)
    a = a.reshape(*a.shape[:2], groups, -1).transpose(1, 2).flatten(0, 1)  # (n · groups, places, inputs)
    room = None

    def of_one(delta):
        nonlocal room
        n = len(delta)
        delta = delta.reshape(n, -1, delta.shape[-1]).mT if linear else delta.flatten(2)
        delta = delta.reshape(n * groups, -1, delta.shape[-1])  # (n · groups, outputs, places)
        bias = None if module.bias is None else delta.sum(-1).reshape(n, -1)
        room = torch.bmm(delta, a.to(delta.dtype), out=room)
        return room.reshape(n, *module.weight.shape), bias

    return of_one


def _patches(module, a):
    """What the windows of a convolution see, (n, places, channels · window)."""
    padding, mode = module._reversed_padding_repeated_twice, module.padding_mode
    if any(padding):
        a = functional.pad(a, padding, mode="constant" if mode == "zeros" else mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if a.ndim == 3:  # a signal is an image of one row
        a, kernel, dilation, stride = a[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    return functional.unfold(a, kernel, dilation, stride=stride).mT


def _of_embedding(module, words):
    """Only the rows of words that an example has: a vocabulary is large, and an example short."""
    words = words.reshape(len(words), -1)
    examples = torch.arange(len(words), device=words.device)[:, None].expand_as(words)
    places, rows = torch.stack([examples, words]).flatten(1).unique(dim=1, return_inverse=True)
    size = (len(words), *module.weight.shape)

    def of_one(delta):
        found = delta.new_zeros(places.shape[1], delta.shape[-1]).index_add_(0, rows, delta.reshape(-1, delta.shape[-1]))
        if module.padding_idx is not None:
            found[places[1] == module.padding_idx] = 0
        return torch.sparse_coo_tensor(places, found, size, check_invariants=False, is_coalesced=True), None

    return of_one


def _of_norm(module, a):
    if isinstance(module, nn.LayerNorm):
        normal, kept = functional.layer_norm(a, module.normalized_shape, None, None, module.eps), len(module.normalized_shape)
        places = tuple(range(1, a.ndim - kept))
    else:
        if isinstance(module, nn.GroupNorm):
            normal = functional.group_norm(a, module.num_groups, None, None, module.eps)
        else:
            normal = functional.batch_norm(a, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
        places = tuple(range(2, a.ndim))
    room = None

    def of_one(delta):
        nonlocal room
        room = torch.mul(delta, normal.to(delta.dtype), out=room)
        return (room.sum(places), delta.sum(places)) if places else (room, delta)

    return of_one
