# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""How much was learned, kept and lost: the numbers of continual learning, and how far two Fishers share their weights.

The accuracy matrix R has in row i, column j the accuracy on task j after learning tasks 0 … i (Lopez-Paz & Ranzato 2017,
arXiv 1706.08840). With T tasks:

    ACC = 1/T      Σ_j        R[T−1, j]                     what is known at the end
    BWT = 1/(T−1)  Σ_{j<T−1}  R[T−1, j] − R[j, j]           what later tasks did to earlier ones; negative is forgetting
    FWT = 1/(T−1)  Σ_{j>0}    R[j−1, j] − b[j]              what earlier tasks did for later ones; b: an untrained network

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor


class AccuracyMatrix:
    """Accuracies of a sequence of T tasks: ``values[i, j]`` in [0, 1] is the accuracy on task j after task i, shape (T, T).

    NaN or None says that a task was not tested, which it must have been after the last one. A measure that needs what was not
    tested says so. Rows may end where what was tested ends: ``[[.9], [.7, .8]]``.

    Raises:
        ValueError: values is not square, holds a number outside [0, 1], or lacks one in its last row.
    """

    def __init__(self, values):
        try:
            values = _square(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"values holds what is no number: {error}") from error
        if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) == 0:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; it must be square, a row and a column for each task"
            )
        last = len(values) - 1
        _need("values", values, [(last, task) for task in range(len(values))])
        known = values[~values.isnan()]
        if not ((known >= 0) & (known <= 1 + _ROUNDING)).all():
            raise ValueError(f"values must lie between 0 and 1; they run from {known.min():.3g} to {known.max():.3g}")
        self.values = values.clamp(max=1)

    def average(self) -> float:
        """ACC: the mean accuracy over all tasks, after the last one."""
        return self.values[-1].mean().item()

    def backward_transfer(self) -> float:
        """BWT: the mean change of a task's accuracy from when it was learned to the end; negative is forgetting."""
        self._need_two("backward transfer")
        _need("backward transfer", self.values, [(task, task) for task in range(len(self.values))])
        return (self.values[-1] - self.values.diagonal())[:-1].mean().item()

    def forward_transfer(self, baseline) -> float:
        """FWT: the mean accuracy on a task before it is learned, above `baseline`, that of an untrained network, shape (T,)."""
        self._need_two("forward transfer")
        try:
            baseline = torch.as_tensor(baseline, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"baseline holds what is no number: {error}") from error
        if baseline.shape != self.values.shape[:1]:
            raise ValueError(
                f"baseline has shape {tuple(baseline.shape)}; it must be ({len(self.values)},), one accuracy a task"
            )
        if self.values.diagonal(1).isnan().any():
            task = int(self.values.diagonal(1).isnan().nonzero()[0]) + 1
            raise ValueError(f"task {task} was not tested before it was learned: values[{task - 1}, {task}] is not known")
        if not ((baseline >= 0) & (baseline <= 1 + _ROUNDING)).all():
            raise ValueError(f"baseline is {baseline.tolist()}; it must hold accuracies between 0 and 1")
        return (self.values.diagonal(1) - baseline[1:]).mean().item()

    def forgetting(self) -> float:
        """The mean fall from a task's best accuracy before the last task to its accuracy after it (Chaudhry et al. 2018)."""
        self._need_two("forgetting")
        _need("forgetting", self.values, [(learned, task) for learned in range(len(self.values)) for task in range(learned + 1)])
        best = self.values[:-1].nan_to_num().amax(0)  # NaN: not tested
        return (best - self.values[-1])[:-1].mean().item()

    def _need_two(self, what):
        if len(self.values) < 2:
            raise ValueError(f"{what} compares tasks; values has only one")


def _need(what, values, places):
    """Refuse to go on where one of these accuracies is not known."""
    for learned, task in places:
        if values[learned, task].isnan():
            raise ValueError(f"{what} needs the accuracy on task {task} after task {learned}: [{learned}, {task}] must lie between 0 and 1")


_ROUNDING = 1e-6  # a mean in float32 may lie just above 1


def _square(values):
    """The values as a tensor, rows that end early filled up with NaN."""
    if not isinstance(values, list | tuple):
        return torch.as_tensor(values).detach().to("cpu", torch.float64)
    rows = [[torch.nan if value is None else value for value in row] if isinstance(row, list | tuple) else row for row in values]
    rows = [torch.as_tensor(row, dtype=torch.float64) for row in rows]
    if rows and all(row.ndim == 1 and len(row) <= len(rows) for row in rows):
        rows = [torch.nn.functional.pad(row, (0, len(rows) - len(row)), value=torch.nan) for row in rows]
    return torch.stack(rows) if rows and len({row.shape for row in rows}) == 1 else torch.empty(len(rows), 0)


def fisher_overlap(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """How far two diagonal Fishers rest on the same weights: 0 for no weight in common, 1 for proportional ones.

    1 − ½ tr( F̂₁ + F̂₂ − 2 (F̂₁F̂₂)^½ ) with F̂ = F / tr F, which for diagonals is Σᵢ √(f̂₁ᵢ f̂₂ᵢ).

    Raises:
        ValueError: the two are of different models, negative, or all zero.

    Source: Kirkpatrick et al. (2017), Materials and Methods 4.3, whose second form lacks a square on the norm.
    """
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        raise ValueError("first and second must be Fishers of one model: their parameters have other names or shapes")
    flat = [torch.cat([fisher[name].flatten().double() for name in sorted(fisher)]) for fisher in (first, second)]
    for name, values in zip(("first", "second"), flat, strict=True):
        if not (values >= 0).all() or not values.isfinite().all() or values.sum() == 0:
            raise ValueError(f"{name} must be finite, non-negative and not all zero")
    return (flat[0] / flat[0].sum() * (flat[1] / flat[1].sum())).sqrt().sum().item()
