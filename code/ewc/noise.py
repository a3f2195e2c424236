# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Noise on the weights of a trained network: how it is drawn, what the Fisher says that it costs, and what it costs.

Three noises of one length. The uniform one treats all weights alike; the shaped one is what a Laplace posterior with the
diagonal Fisher takes for harmless; the null one touches only weights whose Fisher is next to nothing. Weights that cannot
matter, because they read an input that is 0 in all examples, are left alone by all three.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import math
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

Kind = Literal["uniform", "shaped", "null"]
KINDS = get_args(Kind)


def scales(
    fisher: Tensor, kind: Kind, *, damping: float = 1e-3, share: float = 0.25, used: Tensor | None = None
) -> Tensor:
    """The standard deviation of each weight's noise, up to one factor for all: (P,), 0 where a weight is left alone.

        uniform  1          shaped  1 / √(Fᵢ + ν),  ν = damping · mean F          null  1 where Fᵢ is among the smallest

    Args:
        fisher: the diagonal Fisher information, (P,).
        damping: ν, as a multiple of the mean of F over the weights in use.
        share: of the weights in use, those with the smallest F that count as null.
        used: which weights are in use, (P,) of booleans; all unless given.

    Raises:
        ValueError: the kind is none of `KINDS`, a number is out of its range, or fisher and used are no vectors of one length.

    Source: Kirkpatrick et al., PNAS 114(13) 3521, 2017, Figure 3C; there the null space is taken without a threshold being given.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it may be one of {', '.join(map(repr, KINDS))}")
    for name, value, most in (("damping", damping, math.inf), ("share", share, 1)):
        if not (isinstance(value, Real) and 0 < value <= most):
            raise ValueError(f"{name} is {value!r}; it must be above 0{'' if most == math.inf else ' and at most 1'}")
    if fisher.ndim != 1 or not ((fisher >= 0) & fisher.isfinite()).all():
        raise ValueError(f"fisher has shape {tuple(fisher.shape)}; it must be a vector (P,) of finite numbers of at least 0")
    if used is not None and (used.shape != fisher.shape or used.dtype != torch.bool):
        raise ValueError(f"used is {used.dtype} of shape {tuple(used.shape)}; it must be {tuple(fisher.shape)} of booleans, as fisher")
    used = torch.ones_like(fisher, dtype=torch.bool) if used is None else used
    if not used.any():
        raise ValueError("used marks no weight; there must be one at least that the noise may touch")
    if kind == "shaped" and not fisher[used].any():
        raise ValueError("fisher is 0 for every weight in use; shaped noise must know of one that matters")
    if kind == "uniform":
        return used.to(fisher.dtype)
    if kind == "shaped":
        return used / (fisher + damping * fisher[used].mean()).sqrt()
    smallest = torch.zeros_like(used)
    places = used.nonzero().squeeze(1)
    smallest[places[fisher[used].argsort()[: max(1, round(share * len(places)))]]] = True
    return smallest.to(fisher.dtype)


def direction(scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A draw u / ‖u‖ with independent uᵢ ~ N(0, scaleᵢ²): (P,), of length 1."""
    device = "cpu" if generator is None else generator.device
    draw = scale * torch.randn(scale.shape, generator=generator, dtype=scale.dtype, device=device).to(scale.device)
    return draw / draw.norm()


def in_use(model: nn.Module, inputs: Tensor) -> Tensor:
    """Which weights of an `mlp` can matter for these inputs: all but those of the first layer that read what is always 0.

    Returns:
        (P,) of booleans, for the weights that require grad, as the Fisher information has them.

    Raises:
        ValueError: the first layer with weights is not a linear one that reads each input once.
    """
    alive = (inputs.flatten(1) != 0).any(0)
    first = next((module for module in model.modules() if next(module.parameters(recurse=False), None) is not None), model)
    if not isinstance(first, nn.Linear) or first.in_features != len(alive):
        raise ValueError(
            f"model begins with {first} and inputs have {len(alive)} features; the first layer must be nn.Linear on all of them: "
            "leave `used` out for another network"
        )
    marks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in _weights(model).items()}
    for name, parameter in model.named_parameters():
        if parameter is first.weight and name in marks:
            marks[name] &= alive
    return torch.cat([mark.flatten() for mark in marks.values()])


@torch.no_grad()
def turned(model: nn.Module, inputs: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The logits z and Jd, both (N, C): how fast the logits change when the weights set out along the step d, (P,).

    P counts the weights that require grad, as in the Fisher information; frozen ones stay.

    Raises:
        ValueError: the step is not one number a weight.
    """
    weights = _weights(model)
    moves = dict(zip(weights, _pieces(model, step), strict=True))
    return jvp(lambda values: functional_call(model, values, (inputs,)), (weights,), (moves,))


def curvature_along(model: nn.Module, inputs: Tensor, step: Tensor) -> float:
    """dᵀFd for a step d of the weights, (P,), with the whole exact Fisher F, mean per example: no matrix is formed.

    The step changes the logits of an image by Jd. Its score for label y changes by (Jd)_y less its mean under p, so that

        dᵀFd = mean over examples of  Σ_k p_k (Jd)_k² − (Σ_k p_k (Jd)_k)²,

    the variance of (Jd)_k under the model's own labels. One forward pass with a tangent.
    """
    logits, slopes = turned(model, inputs, step)
    p = logits.softmax(1)
    return float(((p * slopes**2).sum(1) - (p * slopes).sum(1) ** 2).mean())


@torch.no_grad()
def divergence(model: nn.Module, inputs: Tensor, step: Tensor) -> float:
    """Mean over examples of KL(p(y|x, θ) ‖ p(y|x, θ + d)) for a step d of the weights, (P,), which stay where they are."""
    weights = _weights(model)
    moved = {name: value + move for (name, value), move in zip(weights.items(), _pieces(model, step), strict=True)}
    return mean_kl(functional_call(model, weights, (inputs,)), functional_call(model, moved, (inputs,)))


def mean_kl(before: Tensor, after: Tensor) -> float:
    """Mean over examples of the KL divergence of the predictions with the second logits from those with the first, (N, C)."""
    before, after = before.log_softmax(-1), after.log_softmax(-1)
    terms = before.exp() * (before - after)
    return float(terms.masked_fill(before.isneginf(), 0).sum(-1).mean())  # p log p is 0 where a class is ruled out


def cost_of_a_shift(probability: Tensor, shift: float | Tensor) -> Tensor:
    """KL from the old prediction when the logit of one class rises by c: log(1 + p (eᶜ − 1)) − p c, p its old probability."""
    return torch.log1p(probability * torch.expm1(torch.as_tensor(shift, dtype=probability.dtype))) - probability * shift


def _weights(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _pieces(model, step):
    weights = _weights(model).values()
    count = sum(weight.numel() for weight in weights)
    if step.shape != (count,):
        raise ValueError(f"step has shape {tuple(step.shape)}; it must be ({count},), a number for each weight that requires grad")
    return [piece.view(weight.shape) for piece, weight in zip(step.split([weight.numel() for weight in weights]), weights, strict=True)]
