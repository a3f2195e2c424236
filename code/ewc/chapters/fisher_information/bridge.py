# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the Fisher information is to a posterior, and what becomes of it with the labels of the data.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor


def posterior_precision(fisher: Tensor, examples: int, prior: float) -> Tensor:
    """N F + α I, the precision that the Fisher information (P, P), a mean over N examples, gives a posterior.

    Args:
        prior: α, the precision of the Gaussian prior on each weight; 0 for a flat one.
    """
    return examples * fisher + prior * torch.eye(len(fisher), dtype=fisher.dtype)


def of_two_labels(p: Tensor) -> tuple[Tensor, Tensor]:
    """Exact and empirical Fisher of the difference of two outputs, where the right label has the probability p."""
    exact = p * (1 - p) ** 2 + (1 - p) * p**2
    empirical = (1 - p) ** 2
    return exact, empirical
