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
    """Each example's gradient by the layer's weight and bias, a row for each example and score.

    deltas: the gradients by the layer's output, one tensor a score.
    """
    deltas = torch.stack(deltas, 1)  # (n, scores, …)
    if isinstance(module, _MATRICES):
        weight, bias = _of_matrix(module, inputs, deltas)
    elif isinstance(module, nn.Embedding):
        weight, bias = _of_embedding(module, inputs, deltas), None
    else:
        weight, bias = _of_norm(module, inputs, deltas)
    found = {module.weight: weight} | ({} if getattr(module, "bias", None) is None else {module.bias: bias})
    return {parameter: value.flatten(0, 1) for parameter, value in found.items() if parameter is not None}


def _of_matrix(module, a, deltas):
    count, scores = deltas.shape[:2]
    groups = getattr(module, "groups", 1)
    if isinstance(module, nn.Linear):
        a, deltas = a.reshape(count, -1, a.shape[-1]), deltas.reshape(count, scores, -1, deltas.shape[-1]).mT
    else:
        a, deltas = _patches(module, a), deltas.flatten(3)
    # (n, groups, scores · outputs, places) times (n, groups, places, inputs)
    places, outputs = deltas.shape[3], deltas.shape[2] // groups
    deltas = deltas.reshape(count, scores, groups, outputs, places).transpose(1, 2)
    own = a.reshape(count, places, groups, -1).transpose(1, 2) if groups > 1 else a[:, None]
    found = (deltas.flatten(2, 3) @ own.to(deltas.dtype)).unflatten(2, (scores, outputs)).transpose(1, 2)
    bias = None if module.bias is None else deltas.sum(-1).transpose(1, 2).flatten(2)
    return found.reshape(count, scores, *module.weight.shape), bias


def _patches(module, a):
    """What the windows of a convolution see, (n, places, channels · window)."""
    padding, mode = module._reversed_padding_repeated_twice, module.padding_mode
    if any(padding):
        a = functional.pad(a, padding, mode="constant" if mode == "zeros" else mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if a.ndim == 3:  # a signal is an image of one row
        a, kernel, dilation, stride = a[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    return functional.unfold(a, kernel, dilation, stride=stride).mT


def _of_embedding(module, words, deltas):
    count, scores, width = len(words), deltas.shape[1], deltas.shape[-1]
    found = deltas.new_zeros(count, len(module.weight), scores, width)
    rows = (torch.arange(count, device=words.device)[:, None] * len(module.weight) + words.reshape(count, -1)).flatten()
    found.view(-1, scores, width).index_add_(0, rows, deltas.reshape(count, scores, -1, width).transpose(1, 2).flatten(0, 1))
    if module.padding_idx is not None:
        found[:, module.padding_idx] = 0
    return found.transpose(1, 2)


def _of_norm(module, a, deltas):
    if isinstance(module, nn.LayerNorm):
        normal, kept = functional.layer_norm(a, module.normalized_shape, None, None, module.eps), len(module.normalized_shape)
        places = tuple(range(2, deltas.ndim - kept))
    else:
        if isinstance(module, nn.GroupNorm):
            normal = functional.group_norm(a, module.num_groups, None, None, module.eps)
        else:
            normal = functional.batch_norm(a, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
        places = tuple(range(3, deltas.ndim))
    scaled = deltas * normal[:, None].to(deltas.dtype)
    return (scaled.sum(places), deltas.sum(places)) if places else (scaled, deltas)
