# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The Fisher of a layer whose weights are used at several places of one example, such as a convolution.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor


def block_of_uses(delta: Tensor, a: Tensor) -> Tensor:
    """E[Σ_r Σ_r′ δ_r δ_r′ᵀ ⊗ a_r a_r′ᵀ], the mean over examples, (mk, mk), for delta (N, R, m) and a (N, R, k).

    The uses add up to the example's score before anything is squared, so that the R² terms are never formed.
    """
    scores = torch.einsum("nrj,nrk->njk", delta, a).flatten(1)
    return scores.T @ scores / len(scores)
