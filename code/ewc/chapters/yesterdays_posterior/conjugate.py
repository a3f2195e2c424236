# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Three posteriors that stay in their family: learning more data changes a few numbers and nothing else.

    coin                Beta(a, b)      counts add up
    mean of a Gaussian  N(m, 1/α)       precisions add up, and the mean is an average weighted by precision
    linear regression   N(m, Λ⁻¹)       the same, with a matrix for the precision

Each function takes what is believed before, looks at some data, and returns what is believed after, in the same form.
So what comes out can go in again: learned in two halves or in one whole, the result is the same (up to rounding).

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor


def learn_coin(a: float, b: float, tosses: Tensor) -> tuple[float, float]:
    """Beta(a, b) becomes Beta(a + heads, b + tails).

    Args:
        a, b: one more than the heads and the tails behind the present belief; (1, 1) is the flat one. Positive.
        tosses: shape (N,), 1 for heads and 0 for tails.
    """
    if not (a > 0 and b > 0):
        raise ValueError(f"a and b must be positive; they are {a!r} and {b!r}")
    if not ((tosses == 0) | (tosses == 1)).all():
        raise ValueError("tosses holds a value that is neither 0 nor 1")
    heads = int(tosses.sum())
    tails = len(tosses) - heads
    return a + heads, b + tails


def beta_log_density(theta: Tensor, a: float, b: float) -> Tensor:
    """log Beta(θ; a, b) = (a−1) log θ + (b−1) log(1−θ) − log B(a, b), for θ of any shape, between 0 and 1."""
    log_theta = torch.xlogy(torch.tensor(a - 1.0, dtype=theta.dtype), theta)  # 0 · log 0 is 0 here
    log_rest = torch.special.xlog1py(torch.tensor(b - 1.0, dtype=theta.dtype), -theta)
    return log_theta + log_rest - log_beta(a, b)


def log_beta(a: float, b: float) -> float:
    """log B(a, b), where B(a, b) = ∫ θ^(a−1) (1−θ)^(b−1) dθ from 0 to 1, in float64."""
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    return float(torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))


def learn_mean(mean: float, precision: float, values: Tensor, noise_precision: float) -> tuple[float, float]:
    """N(m, 1/α) becomes N(m′, 1/α′) with α′ = α + Nβ and m′ = (αm + β Σ values) / α′.

    Args:
        mean, precision: m and α, the present belief about the mean.
        values: shape (N,), each the mean plus Gaussian noise.
        noise_precision: β, one over the variance of that noise; known, positive.
    """
    if not (precision > 0 and noise_precision > 0):
        raise ValueError(
            f"precision and noise_precision must be positive; they are {precision!r} and {noise_precision!r}"
        )
    together = precision + len(values) * noise_precision
    weighted = precision * mean + noise_precision * float(values.sum())
    return weighted / together, together


def learn_line(
    mean: Tensor, precision: Tensor, inputs: Tensor, targets: Tensor, noise_precision: float
) -> tuple[Tensor, Tensor]:
    """N(m, Λ⁻¹) becomes N(m′, Λ′⁻¹) with Λ′ = Λ + βXᵀX and Λ′m′ = Λm + βXᵀy.

    Args:
        mean, precision: m and Λ, the present belief about the weights, shapes (P,) and (P, P).
        inputs: X, shape (N, P), one row an example; a column of ones makes an intercept.
        targets: y, shape (N,), each a row of X times the weights, plus Gaussian noise.
        noise_precision: β, one over the variance of that noise; known, positive.
    """
    if inputs.shape != (len(targets), len(mean)):
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}; it must be {(len(targets), len(mean))}")
    if not noise_precision > 0:
        raise ValueError(f"noise_precision must be positive; it is {noise_precision!r}")
    together = precision + noise_precision * inputs.T @ inputs
    weighted = precision @ mean + noise_precision * inputs.T @ targets
    return torch.linalg.solve(together, weighted), together
