# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Where springs lead when the right answer is known: Gaussian tasks learned one after another, under anchors of each kind.

Of a Gaussian task, linear regression for one, everything is in two things: its best weights and its precision,

    −log p(D_t|θ) = ½ (θ − m_t)ᵀ Λ_t (θ − m_t) + constant.

So each lesson ends where one system of equations says, and the true posterior of all tasks is known: precision Σ Λ_t, mean
(Σ Λ_t)⁻¹ Σ Λ_t m_t.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor


def learn_gaussians(optima: Tensor, precisions: Tensor, *, anchors: str = "merged", decay: float = 1.0) -> Tensor:
    """θ_t, where each lesson ends: the lowest point of the task's own bowl and of all springs together.

    A lesson leaves springs at its end θ_t. ``"separate"``: one set more, of stiffness Λ_t. ``"merged"``: one set in all, of
    the stiffness of the task and all springs. Before the next lesson all fade to γ of what they were. `penalties.EWC` does the
    same with the strength λ = γ: it lets springs fade when a lesson ends, and the new ones not yet.

    Args:
        optima: m_t, the best weights of each task alone, shape (T, P), or (T, P, K) for K problems at once.
        precisions: Λ_t, shape (T, P, P); the first must be invertible.
        decay: γ, above 0 and at most 1.

    Returns:
        θ_t, shaped as `optima`.

    Raises:
        ValueError: the shapes do not fit, or anchors is neither of the two.

    Source: the recursion is Huszár's (2018), with γ that of Schwarz et al. (2018); the separate springs are those of
    Kirkpatrick et al. (2017).
    """
    if precisions.shape != (*optima.shape[:2], optima.shape[1]):
        raise ValueError(f"precisions has shape {tuple(precisions.shape)}; optima {tuple(optima.shape)} ask for (T, P, P)")
    if anchors not in ("merged", "separate"):
        raise ValueError(f"anchors is {anchors!r}; it may be 'merged' or 'separate'")
    springs, ends = [], []
    for optimum, precision in zip(optima, precisions, strict=True):
        springs = [(anchor, decay * held) for anchor, held in springs]
        stiffness = precision + sum(held for _, held in springs)
        pull = precision @ optimum + sum(held @ anchor for anchor, held in springs)
        end = torch.linalg.solve(stiffness, pull)
        springs.append((end, precision))
        if anchors == "merged":
            springs = [(end, sum(held for _, held in springs))]
        ends.append(end)
    return torch.stack(ends)


def shares(precisions: Tensor, *, anchors: str = "merged", decay: float = 1.0) -> Tensor:
    """How much of each task is in the last answer: θ_T = Σ_t S_t m_t, with S_t of shape (P, P) and Σ_t S_t = I.

    Returns:
        S, shape (T, P, P).

    Raises:
        ValueError: as `learn_gaussians`.
    """
    count, size = precisions.shape[:2]
    each = torch.eye(count * size, dtype=precisions.dtype).reshape(count, size, count * size)
    last = learn_gaussians(each, precisions, anchors=anchors, decay=decay)[-1]
    return last.reshape(size, count, size).transpose(0, 1)
