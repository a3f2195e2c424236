# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What a loss says in probabilities: the logarithm of how probable the labels are, given the inputs and the weights.

A loss that is a negative log likelihood can be divided by N, multiplied by a learning rate and forgotten about. Once a
second term stands beside it, a prior or the penalty of an old task, its scale matters, and this is the scale: sums.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import math

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """log p(y|x, θ) for every class y: z_y − log Σ_k exp z_k, for logits z of shape (…, C); returns (…, C).

    The largest logit is taken out of the sum and put back, so that exp does not overflow.
    """
    largest = logits.amax(-1, keepdim=True)
    log_sum = largest + (logits - largest).exp().sum(-1, keepdim=True).log()
    return logits - log_sum


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(D|θ) = Σₙ log p(yₙ|xₙ, θ), a sum over examples, for logits (N, C) and class indices (N,).

    Minus this, divided by N, is the cross-entropy that a training loop minimises.
    """
    of_each = log_softmax(logits)[torch.arange(len(labels)), labels]
    return of_each.sum()


def prior_precision_of(decay: float, examples: int) -> float:
    """1/σ² = N w: the precision of the Gaussian prior that a weight decay w in the mean loss over N examples is."""
    return examples * decay


def gaussian_log_likelihood(outputs: Tensor, targets: Tensor, precision: float) -> Tensor:
    """Σₙ log N(yₙ; f(xₙ), 1/β) = −β/2 Σₙ (yₙ − f(xₙ))² + N/2 log β − N/2 log 2π, for outputs and targets (N,).

    Args:
        precision: β, one over the variance of the noise.
    """
    squares = (targets - outputs).square().sum()
    constant = len(targets) / 2 * (math.log(precision) - math.log(2 * math.pi))
    return -precision / 2 * squares + constant
