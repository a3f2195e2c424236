"""What public code computes where the Fisher information should stand, each slip as short as it can be said.

The diagonal of the Fisher information is F = 1/N Σ_n Σ_c p(c|xₙ) s(xₙ, c)², with s(x, y) = ∂ log p(y|x, θ) / ∂θ. A slip has
another label, another weight, or the square in another place. `FISHERS` holds them by name, the right one first; each is
called with (model, inputs, targets) and returns one tensor a parameter, as `fisher.diagonal_fisher` does. Below them are
slips that no formula shows: penalties that lose their anchor, their first task or their effect.

None of this is to be used. It is here to be recognised, measured, and tried on `review.review`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from ewc.evaluating import evaluated
from ewc.fisher import diagonal_fisher
from ewc.gradients import add_linear, zeros
from ewc.looking import Look
from ewc.penalties import EWC
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

# ---- other labels, other weights


def exact(model: nn.Module, inputs: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
    """1/N Σ_n Σ_c p(c|xₙ) s(xₙ, c)²: no slip."""
    return diagonal_fisher(model, inputs)


def one_sampled_label(model: nn.Module, inputs: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
    """1/N Σ_n s(xₙ, y)², y drawn from p(·|xₙ): no slip either, right on average and noisy. Draws from torch's own generator."""
    draws = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return diagonal_fisher(model, inputs, labels="sampled", generator=draws)


def empirical(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """1/N Σ_n s(xₙ, yₙ)²: the labels of the data."""
    return diagonal_fisher(model, inputs, targets, labels="empirical")


def argmax(model: nn.Module, inputs: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
    """1/N Σ_n s(xₙ, ŷₙ)²: the label that the model finds most probable."""
    return diagonal_fisher(model, inputs, labels="argmax")


def own_label_weighted(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 1024
) -> dict[str, Tensor]:
    """1/N Σ_n p(yₙ|xₙ) s(xₙ, yₙ)²: one of the C terms of the sum over labels, that of the data's label."""
    look = Look(model, inputs, targets, batch_size=batch_size)
    with look.begun_unlabelled():
        total = {name: zeros(parameter.shape, parameter) for parameter, name in look.names.items()}
        for own, reading in look.plain_readings():
            p = reading.logits.detach().softmax(1)
            label = one_hot(own, p.shape[1])
            weight = (p * label).sum(1, keepdim=True)
            for deltas, others in reading.passes([weight.sqrt() * (label - p)]):
                for call, delta in zip(reading.closed, deltas, strict=True):
                    add_linear(total, look.names, call.module, delta**2, call.input.detach() ** 2)
                for gradients in others:
                    for name, gradient in gradients.items():
                        total[name] += (gradient**2).sum(0)
    return {name: value / len(inputs) for name, value in total.items()}


# ---- the square in another place


def square_of_batch_mean(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 128
) -> dict[str, Tensor]:
    """Mean over batches of ( 1/B Σ_{n in batch} s(xₙ, yₙ) )²: ``.grad ** 2`` after the mean loss of a batch."""
    total: dict[str, Tensor] = {}
    batches = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    with evaluated(model):
        for x, y in batches:
            for name, gradient in _gradient(model, cross_entropy(model(x), y)).items():
                total[name] = total.get(name, 0) + gradient**2 / len(batches)
    return total


def square_of_whole_mean(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """( 1/N Σ_n s(xₙ, yₙ) )²: one square, of the gradient that training has just brought near 0."""
    return square_of_batch_mean(model, inputs, targets, batch_size=len(inputs))


def every_label_of_the_batch(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 128
) -> dict[str, Tensor]:
    """( 1/N Σ_n 1/B Σ_{m in n's batch} s(xₙ, y_m) )²: every image of a batch with every label of it, and one square at the end.

    It comes of indexing the log-probabilities (B, C) with ``[:, targets]``: that picks B columns for each row, (B, B).
    """
    with evaluated(model):
        total = 0
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            total = total + model(x).log_softmax(-1)[:, y].mean(1).sum()
        return {name: gradient**2 for name, gradient in _gradient(model, total / len(inputs)).items()}


def _gradient(model, value):
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))


FISHERS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "exact": exact,
    "one sampled label": one_sampled_label,
    "empirical": empirical,
    "argmax": argmax,
    "p(y) · g²": own_label_weighted,
    "batch mean, squared": square_of_batch_mean,
    "whole mean, squared": square_of_whole_mean,
    "B × B, squared": every_label_of_the_batch,
}


class Likeness(NamedTuple):
    """How an importance compares with the exact Fisher."""

    scale: float  # its sum, divided by that of the exact one
    order: float  # Spearman's correlation of the two rankings, over the weights that the exact one does not give 0


def likeness(found: dict[str, Tensor], right: dict[str, Tensor]) -> Likeness:
    """Scale and order of `found` beside `right`, the exact Fisher of the same network."""
    a, b = (torch.cat([values[name].flatten().double() for name in right]) for values in (found, right))
    some = b > 0
    ranks = torch.stack([_ranks(a[some]), _ranks(b[some])])
    return Likeness(float(a.sum() / b.sum()), float(torch.corrcoef(ranks)[0, 1]))


def _ranks(values):
    """The place of each value in ascending order; equal values share the mean of their places."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


# ---- slips outside the formula


class EWCWith(EWC):
    """EWC with another importance in the place of the Fisher information, `fisher`, one of `FISHERS`; an anchor a task."""

    def __init__(self, model: nn.Module, strength: float = 1.0, *, fisher: Callable[..., dict[str, Tensor]]):
        super().__init__(model, strength)
        self.fisher = fisher

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """As `EWC.consolidate`, with the importance of `fisher`."""
        state = self.state_dict()
        tasks = {key.partition("/")[0] for key in state} - {"options"}
        self.load_state_dict(state | term(self.model, self.fisher(self.model, inputs, targets), task=len(tasks)))


def term(model: nn.Module, importance: dict[str, Tensor], *, task: int = 0) -> dict[str, Tensor]:
    """The state of an `EWC` that holds the model at its present weights, each by its importance."""
    anchor = {name: value.detach().clone() for name, value in model.named_parameters() if name in importance}
    return {
        f"{task}/{kind}/{name}": value
        for kind, values in (("anchor", anchor), ("importance", importance))
        for name, value in values.items()
    }


class Overwritten(EWC):
    """The buffers of the task before are written over: there is one anchor and one Fisher, those of the latest task."""

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """As `EWC.consolidate`, and all that was known before is gone."""
        self.load_state_dict({})
        super().consolidate(inputs, targets)


class Rebuilt:
    """EWC made anew inside the training loop, after every `every` steps: the anchor follows the weights.

    It looks at the images of the old tasks again, to take their Fisher at the present weights.
    """

    def __init__(self, model: nn.Module, strength: float = 1.0, *, every: int):
        self.model, self.strength, self.every = model, strength, every
        self.steps, self.old, self.now = 0, None, EWC(model, strength)

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """The images of the old tasks, kept for the next time."""
        self.old = inputs if self.old is None else torch.cat([self.old, inputs])
        self._rebuild()

    def penalty(self) -> Tensor:
        """Of the EWC of the moment. Each call counts as a step."""
        if self.old is not None and self.steps and self.steps % self.every == 0:
            self._rebuild()
        self.steps += 1
        return self.now.penalty()

    def _rebuild(self):
        self.now = EWC(self.model, self.strength)
        self.now.consolidate(self.old)


class SameTensor:
    """The anchor is not a copy of the weights but the weights themselves: the penalty is always 0."""

    def __init__(self, model: nn.Module, strength: float = 1.0):
        self.model, self.strength, self.anchor = model, strength, {}

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """`detach` gives another name to the same memory; `clone` would have copied it."""
        self.anchor = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        self.fisher = diagonal_fisher(self.model, inputs)

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ Fᵢ (θᵢ − θᵢ)²."""
        parameters = dict(self.model.named_parameters())
        return self.strength / 2 * sum(
            (self.fisher[name] * (parameters[name] - anchor) ** 2).sum() for name, anchor in self.anchor.items()
        )  # fmt: skip


def in_whatever_mode(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """1/N Σ_n s(xₙ, yₙ)², image by image, in the mode in which training has left the model.

    Batch normalisation then takes its statistics from the one image, and moves its running mean and variance towards them.
    """
    total: dict[str, Tensor] = {}
    for x, y in zip(inputs, targets, strict=True):
        for name, gradient in _gradient(model, cross_entropy(model(x[None]), y[None])).items():
            total[name] = total.get(name, 0) + gradient**2 / len(inputs)
    return total
