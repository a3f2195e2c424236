# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A Gaussian in place of a posterior: its mode for a mean, its curvature there for a precision.

Near its mode θ̂ the logarithm of a posterior is a parabola, and the exponential of a parabola is a Gaussian:

    log p(θ|D) ≈ log p(θ̂|D) − ½ (θ − θ̂)ᵀ Λ (θ − θ̂),     Λ = −∇² log p(θ|D) at θ̂

What is left out are the third and higher derivatives. The precision Λ is an inverse variance: sharp peaks, large numbers.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap


class Kronecker:
    """The precision Λ with one block Λ_l = N (B_l ⊗ A_l) + τ I for each layer l, never written out as a matrix.

    With the eigenvectors of the factors, B = U diag(β) Uᵀ and A = V diag(α) Vᵀ, the block is

        (U ⊗ V) diag(N βᵢ αⱼ + τ) (U ⊗ V)ᵀ,

    so that the prior's τ is added exactly, and powers and determinants are had from the numbers N βᵢ αⱼ + τ.

    Args:
        factors: triples (B, A, places), (m, m), (k, k) and (m, k): symmetric and positive semi-definite, and which weights
            of the vector θ they speak of. ``kronecker_fisher(…).values()`` for one.
        examples: N, by which means per example are multiplied.
        prior: τ, the precision of the prior, the same for every weight; at least 0.

    Raises:
        ValueError: shapes do not fit, the places are not 0 to P − 1, each once, a value is not finite, or Λ is not positive definite.
    """

    def __init__(self, factors: Iterable[tuple[Tensor, Tensor, Tensor]], *, examples: float = 1, prior: float = 0.0):
        factors = [tuple(factor) for factor in factors]
        if not factors:
            raise ValueError("factors is empty; it must hold at least one triple (B, A, places)")
        for name, value in (("examples", examples), ("prior", prior)):
            if not (isinstance(value, Real) and math.isfinite(value) and value >= 0) or (value == 0 and name == "examples"):
                raise ValueError(
                    f"{name} is {value!r}; it must be finite and {'above' if name == 'examples' else 'at least'} 0"
                )
        for b, a, places in factors:
            if b.shape != places.shape[:1] * 2 or a.shape != places.shape[1:] * 2:
                raise ValueError(
                    f"factors holds B {tuple(b.shape)}, A {tuple(a.shape)} and places {tuple(places.shape)}; "
                    "they must be (m, m), (k, k) and (m, k)"
                )
            for name, factor in (("B", b), ("A", a)):
                if not factor.isfinite().all():
                    raise ValueError(f"factors holds a {name} with a value that is not finite")
                if not torch.allclose(factor, factor.T, rtol=1e-5, atol=1e-6 * float(factor.abs().max())):
                    raise ValueError(f"factors holds a {name} that is not symmetric")
        order = torch.cat([places.flatten() for _, _, places in factors])
        if not torch.equal(order.sort().values, torch.arange(len(order), device=order.device)):
            raise ValueError(f"factors must have each place from 0 to {len(order) - 1} once among their places")
        self.shape = (len(order), len(order))
        self._blocks = []
        for b, a, places in factors:
            (beta, u), (alpha, v) = torch.linalg.eigh(b), torch.linalg.eigh(a)
            for name, values in (("B", beta), ("A", alpha)):
                if values[0] < -1e-5 * values[-1].abs():
                    raise ValueError(f"factors holds a {name} with the negative eigenvalue {values[0]:.3g}")
            values = examples * torch.outer(beta.clamp(min=0), alpha.clamp(min=0)) + prior
            if not (values > 0).all():
                raise ValueError(
                    f"precision must be positive definite; its smallest eigenvalue is {values.min():.3g}: give a prior above 0"
                )
            self._blocks.append((values, u, v, places))

    def power_times(self, vectors: Tensor, power: float) -> Tensor:
        """Λ^power v for vectors v of shape (…, P): into the eigenvectors, times a power of the eigenvalues, and back."""
        product = torch.empty_like(vectors)
        for values, u, v, places in self._blocks:
            matrix = vectors[..., places]  # (U ⊗ V)ᵀ vec(M) = vec(Uᵀ M V)
            product[..., places] = u @ (values**power * (u.T @ matrix @ v)) @ v.T
        return product

    def log_det(self) -> Tensor:
        """log det Λ, the sum of the logarithms of all eigenvalues."""
        return sum(values.log().sum() for values, _, _, _ in self._blocks)

    def dense(self) -> Tensor:
        """Λ written out, (P, P): for small models, and to check."""
        values = self._blocks[0][0]
        return self.power_times(torch.eye(self.shape[0], dtype=values.dtype, device=values.device), 1)


class LaplacePosterior:
    """The Gaussian N(θ̂, Λ⁻¹) with its mean θ̂, shape (P,), and its precision Λ: diagonal, shape (P,), full, (P, P), or `Kronecker`.

    Raises:
        ValueError: shapes do not fit, a value is not finite, or the precision is not positive definite.
    """

    def __init__(self, mean: Tensor, precision: Tensor | Kronecker):
        if mean.ndim != 1 or len(mean) == 0:
            raise ValueError(f"mean has shape {tuple(mean.shape)}; it must be a vector (P,)")
        if precision.shape not in (mean.shape, (len(mean), len(mean))):
            raise ValueError(
                f"precision has shape {tuple(precision.shape)}; it may be {(len(mean),)} or {(len(mean), len(mean))}"
            )
        self.mean, self.precision = mean, precision
        kronecker = isinstance(precision, Kronecker)
        for name, value in (("mean", mean), *([] if kronecker else [("precision", precision)])):
            if not value.isfinite().all():
                raise ValueError(f"{name} holds a value that is not finite")
        if kronecker:
            self._root = None  # it has its own powers, and has been checked
        elif precision.ndim == 1:
            if not (precision > 0).all():
                raise ValueError(f"precision must be positive; its smallest entry is {precision.min():.3g}")
            self._root = precision.sqrt()
        else:
            if not torch.allclose(precision, precision.T, rtol=1e-5, atol=1e-6 * float(precision.abs().max())):
                raise ValueError("precision must be symmetric")
            self._root, failed = torch.linalg.cholesky_ex(precision)  # Λ = LLᵀ
            if failed:
                smallest = torch.linalg.eigvalsh(precision).min()
                raise ValueError(f"precision must be positive definite; its smallest eigenvalue is {smallest:.3g}")

    def log_density(self, theta: Tensor) -> Tensor:
        """log N(θ; θ̂, Λ⁻¹) = −½ (θ−θ̂)ᵀΛ(θ−θ̂) + ½ log det Λ − P/2 log 2π, for theta of shape (…, P); returns (…,)."""
        if theta.shape[-1:] != self.mean.shape:
            raise ValueError(f"theta has shape {tuple(theta.shape)}; its last axis must be {len(self.mean)}")
        distance = theta - self.mean
        if self._root is None:
            scaled = self.precision.power_times(distance, 0.5)
        else:
            scaled = distance * self._root if self._root.ndim == 1 else distance @ self._root
        return -scaled.square().sum(-1) / 2 + self._log_det() / 2 - len(self.mean) / 2 * math.log(2 * math.pi)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, shape (n, P): θ̂ + L⁻ᵀε for standard normal ε, whose covariance is (LLᵀ)⁻¹ = Λ⁻¹; or θ̂ + Λ^(−½)ε."""
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n is {n!r}; it must be a whole number of at least 1")
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(int(n), len(self.mean), generator=generator, dtype=self.mean.dtype, device=device).to(self.mean.device)
        if self._root is None:
            return self.mean + self.precision.power_times(noise, -0.5)
        if self._root.ndim == 1:
            return self.mean + noise / self._root
        return self.mean + torch.linalg.solve_triangular(self._root.T, noise.T, upper=True).T

    def log_evidence(self, log_joint: Tensor | float) -> Tensor:
        """log p(D) ≈ log p(D, θ̂) + P/2 log 2π − ½ log det Λ, given `log_joint` = log p(D|θ̂) + log p(θ̂) at the mean."""
        return log_joint + len(self.mean) / 2 * math.log(2 * math.pi) - self._log_det() / 2

    def predict(
        self, probabilities: Callable[[Tensor], Tensor], n: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """∫ probabilities(θ) N(θ; θ̂, Λ⁻¹) dθ, as the mean over n draws of a function of one θ, shape (P,)."""
        return vmap(probabilities)(self.sample(n, generator)).mean(0)

    def _log_det(self):
        if self._root is None:
            return self.precision.log_det()
        return 2 * (self._root.log().sum() if self._root.ndim == 1 else self._root.diagonal().log().sum())


def laplace_approximation(
    log_joint: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 100
) -> LaplacePosterior:
    """Climb from `start` to a mode of `log_joint` by Newton's method and put the Gaussian of its curvature there.

    Args:
        log_joint: log p(D|θ) + log p(θ), or that up to a constant, of one θ of shape (P,); twice differentiable by torch.
        start: where to begin, shape (P,); float64 is advised.
        steps: the most Newton steps.

    Raises:
        ValueError: no mode was reached, or the curvature there is not that of a peak.
    """
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"steps is {steps!r}; it must be a whole number of at least 1")
    theta = start.detach().clone()
    for _ in range(steps):
        slope, curvature = grad(log_joint)(theta), -hessian(log_joint)(theta)
        values, vectors = torch.linalg.eigh(curvature)
        # Where the surface is not yet a dome, |eigenvalues| still point uphill.
        step = vectors @ ((vectors.T @ slope) / values.abs().clamp(min=1e-8))
        here, length = log_joint(theta), 1.0
        while not log_joint(theta + length * step) >= here and length > 1e-12:
            length /= 2
        theta = theta + length * step
        if (slope @ step).abs() < 1e-20 * (1 + here.abs()) or (length * step).abs().max() < 1e-12 * (
            1 + theta.abs().max()
        ):
            return LaplacePosterior(theta, -hessian(log_joint)(theta))
    raise ValueError(
        f"log_joint has no mode that {steps} Newton steps from start reach; the last slope was {slope.abs().max():.3g}"
    )
