"""Replay: keep a few examples of every task and show them again while later ones are learned.

It has the calls of a penalty, so that a training loop takes it in the same place. What it adds to the loss is no stand-in
for the old task's loss but that loss itself, estimated from what was kept:

    penalty(θ) = λ Σ_tasks mean over the kept examples of −log p(y|x, θ)

This file needs torch and nothing else. MIT licence; from the book Weights that Remember.
"""

import math

import torch
from torch import Tensor, nn


class Replay:
    """λ Σ_tasks (mean cross-entropy over the kept examples), each call estimating it from one random batch of them.

    Args:
        model: a classifier that returns logits (N, C).
        strength: λ ≥ 0, in the units of `penalties.EWC`: with mean losses, Bayes' rule gives N_old / N_new.
        examples: how many of each task to keep, drawn at random without repetition. The sum over tasks is exact
            because all keep equally many.
        batch_size: how many of the kept ones a call looks at, drawn with repetition.
        seed: of both draws.

    Raises:
        ValueError: an argument is not what it may be.

    Source: the idea is older than the name; Robins, Connection Science 7(2), 1995, calls it rehearsal.
    """

    def __init__(
        self, model: nn.Module, strength: float = 1.0, *, examples: int = 200, batch_size: int = 128, seed: int = 0
    ):
        if not (isinstance(strength, (int, float)) and math.isfinite(strength) and strength >= 0):
            raise ValueError(f"strength is {strength!r}; it must be a finite number of at least 0")
        for name, value in (("examples", examples), ("batch_size", batch_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        self.model, self.strength = model, float(strength)
        self.examples, self.batch_size = examples, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._tasks = 0
        self.memory: tuple[Tensor, Tensor] | None = None  # inputs and targets, of all tasks

    def consolidate(self, inputs: Tensor, targets: Tensor) -> None:
        """Keep `examples` of these. Call it when the task has been learned.

        Raises:
            ValueError: there are fewer than `examples`, or not as many targets as inputs.
        """
        if len(inputs) < self.examples or len(targets) != len(inputs):
            raise ValueError(
                f"inputs has {len(inputs)} examples and targets {len(targets)}; "
                f"both must have the same number, at least examples = {self.examples}"
            )
        order = torch.randperm(len(inputs), generator=self._generator)
        chosen = order[: self.examples].to(inputs.device)
        kept, self._tasks = (inputs[chosen], targets[chosen]), self._tasks + 1
        if self.memory:
            kept = tuple(torch.cat(parts) for parts in zip(self.memory, kept, strict=True))
        self.memory = kept

    def penalty(self) -> Tensor:
        """λ Σ_tasks mean of −log p(y|x, θ), estimated from one batch of the memory: a scalar, exactly 0 before the first task."""
        if self.memory is None:
            return torch.zeros((), device=next(self.model.parameters()).device)
        inputs, targets = self.memory
        batch = torch.randint(len(inputs), (self.batch_size,), generator=self._generator)
        batch = batch.to(inputs.device)
        mean = nn.functional.cross_entropy(self.model(inputs[batch]), targets[batch])
        return self.strength * self._tasks * mean
