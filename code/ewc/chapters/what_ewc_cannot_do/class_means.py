# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A classifier that keeps no image and forgets nothing: of each class the mean of its features, of all classes one covariance.

Of the features a of class k, a vector each, three things are kept,

    n_k = number of them,    μ_k = their mean,    S = Σ_k Σ_{a of k} (a − μ_k)(a − μ_k)ᵀ,

S for all classes together. A batch with m_k features of class k, of mean ν_k and scatter T, makes of them

    S ← S + T + Σ_k n_k m_k / (n_k + m_k) · (ν_k − μ_k)(ν_k − μ_k)ᵀ,    μ_k ← μ_k + m_k / (n_k + m_k) · (ν_k − μ_k),    n_k ← n_k + m_k,

which is what all features at once would have given, whatever came in which batch (Chan, Golub and LeVeque 1983). So the order of the
classes leaves no trace, as long as the features of an image stay what they are.

An image is answered by the class whose Gaussian N(μ_k, Σ) holds its features for the most likely: linear discriminant analysis
(Fisher 1936), streaming (Hayes and Kanan 2020). With Σ a multiple of the identity that is the nearest mean.
"""

import torch
from torch import Tensor


class ClassMeans:
    """Counts (K,), means (K, D) and the common scatter (D, D) of the features of K classes, gathered in one pass.

    Args:
        features: how many numbers describe an image, D.
        classes: how many classes there may be, K.
        dtype, device: of what is kept. In float32 the sums of many images lose digits.

    Raises:
        ValueError: features or classes is below 1.
    """

    def __init__(self, features: int, classes: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None):
        for name, value in (("features", features), ("classes", classes)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        self.counts = torch.zeros(classes, dtype=dtype, device=device)
        self.means = torch.zeros(classes, features, dtype=dtype, device=device)
        self.scatter = torch.zeros(features, features, dtype=dtype, device=device)

    @property
    def numbers(self) -> int:
        """How many different numbers are kept: the scatter is symmetric."""
        classes, features = self.means.shape
        return classes * (features + 1) + features * (features + 1) // 2

    @torch.no_grad()
    def learn(self, features: Tensor, targets: Tensor) -> None:
        """Take in a batch of features (B, D) with their classes (B,); it is not needed again.

        Raises:
            ValueError: the shapes do not fit, or a class is not between 0 and K − 1.
        """
        classes, size = self.means.shape
        if features.shape != (len(targets), size) or targets.dim() != 1:
            raise ValueError(
                f"features is of shape {tuple(features.shape)} and targets of {tuple(targets.shape)}; they must be (B, {size}) and (B,)"
            )
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < classes):
            raise ValueError(f"targets holds {int(targets.min())} to {int(targets.max())}; a class may be from 0 to {classes - 1}")
        which = torch.nn.functional.one_hot(targets, classes).to(features)
        fresh = which.sum(0)
        means = which.mT @ features / fresh.clamp(min=1)[:, None]
        around = features - means[targets]
        fresh, means = fresh.to(self.means), means.to(self.means)
        total = self.counts + fresh
        share = fresh / total.clamp(min=1)  # 0 for a class that is not in the batch: its row of means says nothing
        gaps = means - self.means
        # Within the batch in the precision of the features, which is twice as fast, and added up in that of what is kept.
        self.scatter += (around.mT @ around).to(self.means) + gaps.mT @ ((self.counts * share)[:, None] * gaps)
        self.means += share[:, None] * gaps
        self.counts = total

    def covariance(self, shrinkage: float = 1e-4) -> Tensor:
        """The covariance of features about the mean of their class, Σ = (1 − ρ) S/N + ρ v I, with v the mean variance, tr S/(N D).

        The part ρ, `shrinkage`, gives a variance also to features that have none. At ρ = 1 all features have the same.

        Raises:
            ValueError: shrinkage is not above 0 and at most 1, or nothing was learned that varies.
        """
        if not 0 < shrinkage <= 1:
            raise ValueError(f"shrinkage is {shrinkage!r}; it must be above 0 and at most 1")
        variances = self.scatter.diagonal()
        if not variances.sum() > 0:
            raise ValueError("no class has two features that differ; a covariance needs some")
        found = self.scatter / self.counts.sum()
        return (1 - shrinkage) * found + shrinkage * found.diagonal().mean() * torch.eye(len(found)).to(found)

    @torch.no_grad()
    def logits(self, features: Tensor, shrinkage: float = 1e-4) -> Tensor:
        """(B, D) features to (B, K): the log of each class's Gaussian, less what is the same for all; −∞ for a class that never came.

        z_k = μ_kᵀ Σ⁻¹ a − ½ μ_kᵀ Σ⁻¹ μ_k. The largest names the class, all being as frequent. At shrinkage 1 it is the nearest mean.
        """
        weights = torch.linalg.solve(self.covariance(shrinkage), self.means.mT)
        biases = -(self.means.mT * weights).sum(0) / 2
        return (features.to(self.means) @ weights + biases).masked_fill(self.counts == 0, -torch.inf)
