# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Two ways to descend with a stiff penalty and not run away: cap its stiffness, or take its step implicitly.

A penalty of one parabola a weight, ½ Σᵢ kᵢ (θᵢ − θ*ᵢ)² with kᵢ = λ Fᵢ for EWC, makes explicit steps of size η overshoot where
η kᵢ > 1, and grow without end where η kᵢ > 2. `capped` makes no weight stiffer than a step can bear. `proximal_step` leaves
the penalty as it is, puts its pull at the end of the step in place of its beginning, and is stable for every stiffness:

    guard = EWC(model, strength=1e4)
    ...  loss.backward(); optimizer.step(); proximal_step(model, *guard.parabola(), step_size)  ...

`Capped` and `Proximal` do the same around a penalty that is handed to a training loop. This file needs torch, and beside it
springs.py and checks.py. From the book Weights that Remember. Stability of EWC's steps: Kutalev and Lapina, arXiv 2109.10021.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .checks import checked_number, named
else:  # copied into a folder, without a package
    import springs
    from checks import checked_number, named


@torch.no_grad()
def proximal_step(
    model: nn.Module, minimum: Mapping[str, Tensor], stiffness: Mapping[str, Tensor], step_size: float
) -> None:
    """Move the model's parameters θ′ to where ‖θ − θ′‖² / 2η + ½ Σᵢ kᵢ (θᵢ − θ*ᵢ)² is least:

        θᵢ = (θ′ᵢ + η kᵢ θ*ᵢ) / (1 + η kᵢ)

    Call it after the optimiser's step on the loss alone. It shortens each distance to θ*ᵢ by the factor 1 / (1 + η kᵢ).

    Args:
        minimum: θ*, by parameter name; parameters that it does not name stay, and so do those that are frozen.
        stiffness: k ≥ 0, by parameter name; λ F for EWC. `penalties.EWC.parabola` gives both.
        step_size: η. For gradient descent with momentum μ it is the learning rate / (1 − μ), since a steady gradient moves
            the weights by that much a step; only then is it the minimum of loss + penalty where the steps come to rest.

    Raises:
        ValueError: step_size is not a finite number of at least 0, or a parameter is gone or has another shape.
    """
    step_size = checked_number("step_size", step_size, lambda value: value >= 0, "a finite number of at least 0")
    parameters = named(model)
    springs.beside(parameters, [(minimum, stiffness)])
    for name, anchor in minimum.items():
        if parameters[name].requires_grad:
            pull = step_size * stiffness[name]
            parameters[name].addcmul_(pull, anchor).div_(1 + pull)


def capped(stiffness: Mapping[str, Tensor], step_size: float, product: float = 1.0) -> dict[str, Tensor]:
    """min(kᵢ, product / η) for each weight: no explicit step of size η on the penalty has η kᵢ above `product`.

    Args:
        stiffness: k, by parameter name; λ F for EWC.
        step_size: η, the longest step that will be taken.
        product: at 1 a step ends in the minimum and does not overshoot; from 2 on steps no longer shrink.

    Raises:
        ValueError: step_size or product is not a finite number above 0.
    """
    step_size = checked_number("step_size", step_size, lambda value: value > 0, "a finite number above 0")
    product = checked_number("product", product, lambda value: value > 0, "a finite number above 0")
    return {name: value.clamp(max=product / step_size) for name, value in stiffness.items()}


class Capped:
    """A penalty with `parabola`, its stiffness capped for steps of `step_size`; see `capped`."""

    def __init__(self, penalty, step_size: float, product: float = 1.0):
        self._penalty, self._step_size, self._product = penalty, step_size, product
        self.model, self.strength = penalty.model, penalty.strength
        self.max_examples = getattr(penalty, "max_examples", None)
        self._take()

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """As the penalty's own; then what it has become is capped."""
        self._penalty.consolidate(inputs, targets)
        self._take()

    def _take(self):
        minimum, stiffness = self._penalty.parabola()
        self._terms = [(minimum, capped(stiffness, self._step_size, self._product))]

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, the capped stiffness)."""
        return springs.beside(named(self.model), self._terms)[0]

    def penalty(self) -> Tensor:
        """½ Σᵢ min(kᵢ, product / η) (θᵢ − θ*ᵢ)² at the present weights."""
        return springs.quadratic(self.model, 1.0, self._terms)

    def add_gradient(self, scale: float = 1.0) -> None:
        """Add min(kᵢ, product / η) (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `penalties.EWC.add_gradient`."""
        springs.add_gradient(self.model, 1.0, self._terms, scale)

    def largest_curvature(self) -> float:
        """maxᵢ min(kᵢ, product / η)."""
        return springs.largest_curvature(1.0, self._terms)

    def state_dict(self) -> dict[str, Tensor]:
        """As the penalty's own; the cap is not in it."""
        return self._penalty.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As the penalty's own; then what it has become is capped."""
        self._penalty.load_state_dict(state)
        self._take()


class Proximal:
    """A penalty, left out of the loss and taken as a `proximal_step` after each step of the optimiser: call `after_step` there.

    penalty: has `parabola`, as `penalties.EWC`, or a `proximal_step` of its own, as `kronecker.KroneckerEWC`.
    momentum: of the optimiser; the penalty's step is as much longer as a steady gradient's, 1 / (1 − momentum) times.
    """

    def __init__(self, penalty, momentum: float = 0.0):
        momentum = checked_number("momentum", momentum, lambda value: 0 <= value < 1, "at least 0 and below 1")
        self._penalty, self._momentum = penalty, momentum
        self.model, self.strength = penalty.model, penalty.strength
        self.max_examples = getattr(penalty, "max_examples", None)
        self._take()

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """As the penalty's own."""
        self._penalty.consolidate(inputs, targets)
        self._take()

    def _take(self):
        self._springs = None
        if not hasattr(self._penalty, "proximal_step"):
            minimum, stiffness = self._penalty.parabola()
            self._springs = minimum, {name: value / (1 - self._momentum) for name, value in stiffness.items()}

    def springs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """(θ*, k / (1 − momentum)), for proximal steps as long as the learning rate; None where they are not one a weight."""
        return None if self._springs is None else springs.beside(named(self.model), [self._springs])[0]

    def penalty(self) -> Tensor:
        """0: nothing is added to the loss."""
        return springs.nothing(named(self.model))

    def add_gradient(self, scale: float = 1.0) -> None:
        """Nothing is added to the gradient."""

    def after_step(self, learning_rate: float) -> None:
        """The penalty's share of a step that the optimiser has taken with this learning rate."""
        if self._springs is None:
            self._penalty.proximal_step(learning_rate / (1 - self._momentum))
        else:
            proximal_step(self.model, *self._springs, learning_rate)

    def state_dict(self) -> dict[str, Tensor]:
        """As the penalty's own."""
        return self._penalty.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As the penalty's own."""
        self._penalty.load_state_dict(state)
        self._take()
