# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The posterior of a model with one or two weights, on a grid: slow, and true; what approximations are held to.

Also the model that the book tries them on, a logistic regression without an intercept.

This file needs torch and nothing else. From the book Weights that Remember.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.functional import logsigmoid


class Grid:
    """Points at equal distances: `points`, shape (sides…, P), and the `area` (length, volume) that each stands for."""

    def __init__(self, *axes: Tensor):
        for axis in axes:
            if axis.ndim != 1 or len(axis) < 3 or not torch.allclose(axis.diff(), axis[1] - axis[0]):
                raise ValueError("each axis must be a vector of at least three numbers at equal distances")
        self.axes = axes
        self.points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        self.area = float(torch.stack([axis[1] - axis[0] for axis in axes]).prod())

    def values(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`function` of one θ, shape (P,), at every point: shape (sides…)."""
        flat = self.points.flatten(end_dim=-2)
        return vmap(function, chunk_size=10_000)(flat).reshape(self.points.shape[:-1])

    def log_integral(self, log_values: Tensor) -> Tensor:
        """log ∫ exp(log_values) dθ, as the sum over the points. Of log p(D|θ) + log p(θ) it is the log evidence."""
        return log_values.flatten().logsumexp(0) + torch.tensor(self.area).log()

    def normalised(self, log_values: Tensor) -> Tensor:
        """The log density that is proportional to exp(log_values)."""
        return log_values - self.log_integral(log_values)

    def kl(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """KL(p‖q) = ∫ p log(p/q) dθ, in nats, of two log densities at the points."""
        return (log_p.exp() * (log_p - log_q)).sum() * self.area

    def mean(self, log_p: Tensor, values: Tensor) -> Tensor:
        """∫ values(θ) p(θ) dθ; `values` has the shape of the grid, and any axes after it."""
        weights = (log_p.exp() * self.area).flatten()
        return torch.tensordot(weights, values.flatten(end_dim=log_p.ndim - 1), dims=([0], [0]))


def logistic_log_likelihood(theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Σₙ log p(yₙ|xₙ, θ) with p(1|x, θ) = σ(xᵀθ), for theta (P,), inputs (N, P) and labels (N,) of 0 and 1.

    One formula for both labels: log σ(±xᵀθ), plus for 1 and minus for 0, since 1 − σ(u) = σ(−u).
    """
    return logsigmoid((2 * labels - 1) * (inputs @ theta)).sum()


def gaussian_log_prior(theta: Tensor, width: float) -> Tensor:
    """log N(θ; 0, width² I) = −½ ‖θ‖²/width² − P log width − P/2 log 2π, for theta of shape (P,)."""
    size = len(theta)
    constant = size * torch.tensor(width, dtype=theta.dtype).log() + size / 2 * torch.tensor(2 * torch.pi).log()
    return -theta.square().sum() / (2 * width**2) - constant


def two_clusters(n: int, centre: tuple[float, ...], spread: tuple[float, ...], seed: int) -> tuple[Tensor, Tensor]:
    """n examples, every second around `centre` with label 1 and the others around its mirror image −centre with label 0.

    Args:
        centre: one number for each input.
        spread: the standard deviation of each input around it.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % 2).double()
    noise = torch.randn(n, len(centre), generator=generator, dtype=torch.float64)
    centre, spread = torch.tensor(centre, dtype=torch.float64), torch.tensor(spread, dtype=torch.float64)
    return (2 * labels - 1)[:, None] * centre + spread * noise, labels
