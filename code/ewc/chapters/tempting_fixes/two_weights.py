# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A classifier with two weights, small enough to draw, and descent that keeps the way it went.

Two weights make a plane: the regions in which each task is well served can be drawn, and so can every step. The model is
logistic regression, written as a network with two logits so that everything made for networks works on it.

This file needs torch and nothing else. From the book Weights that Remember.
"""

import torch
from torch import Tensor, nn


class TwoWeights(nn.Module):
    """Logits (0, xᵀθ) for inputs (N, 2): softmax of them is (1 − σ(xᵀθ), σ(xᵀθ)), logistic regression without an intercept."""

    def __init__(self, theta: Tensor):
        super().__init__()
        self.linear = nn.Linear(2, 1, bias=False, dtype=theta.dtype)
        with torch.no_grad():
            self.linear.weight.copy_(theta)

    def forward(self, inputs: Tensor) -> Tensor:
        z = self.linear(inputs)
        return torch.cat([torch.zeros_like(z), z], dim=1)

    def theta(self) -> Tensor:
        """A copy of the two weights, (2,)."""
        return self.linear.weight.detach().flatten().clone()


def tug(curvature: Tensor, wanted: Tensor, stiffness: Tensor, old: Tensor) -> Tensor:
    """Where a weight comes to rest between a bowl of this curvature about `wanted` and a spring of this stiffness to `old`."""
    return (curvature * wanted + stiffness * old) / (curvature + stiffness)


def descend(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, penalty=None, steps: int, learning_rate: float
) -> Tensor:
    """Gradient descent on mean cross-entropy over all examples, plus the penalty: θ before and after each step, (steps + 1, 2).

    Args:
        labels: class indices (N,).
        penalty: anything with a method ``penalty()`` that returns a scalar.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    way = [model.theta()]
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        if penalty is not None:
            loss = loss + penalty.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        way.append(model.theta())
    return torch.stack(way)
