# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The pull of EWC with another answer to which weights matter: what each earned on its path while the task was learned.

The penalty of Synaptic Intelligence is λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the weights θ* after the latest task, where Ωᵢ is how much of
the loss's fall the weight earned on its way, by the distance that it went. The calls are those of `penalties.EWC`.

This file needs torch, and beside it springs.py. From the book Weights that Remember.
"""

import math

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
else:  # copied into a folder, without a package
    import springs


class SynapticIntelligence:
    """λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)², Ωᵢ from the path of each weight: the share that it had in the fall of the task's loss.

        ωᵢ = −Σ_steps gᵢ Δθᵢ,   g the gradient of the task's loss alone          (units of the loss)
        Ωᵢ ← max(0, Ωᵢ + ωᵢ / ((θᵢ − θᵢ at the task's start)² + damping))        when the task has been learned

    For small steps Σᵢ ωᵢ is the fall of the loss. The paper's c is λ/2. Clipping the sum at 0 is not in the paper's
    formula; its authors' code has it, and without it a weight that went uphill would be pushed away from θ*.

    It watches training. In a loop that knows only ``(loss + guard.penalty()).backward()`` and a step, nothing has to be
    done: hooks on the parameters take each gradient as it arrives, less the part that came from `penalty`. A loop that adds
    the penalty's gradient itself may call `observe`; one whose gradients do not arrive at the model's own parameters in a
    backward pass of its own, or are scaled or averaged after it (mixed precision, several machines), has to.

    Args:
        model: the network; its parameters that require grad are watched and protected. A copy of it is not watched.
        strength: λ ≥ 0.
        damping: ξ > 0, in the units of a squared weight; it bounds Ω where a weight has hardly moved.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Zenke, Poole & Ganguli, Continual learning through synaptic intelligence, ICML 2017, equations 3 to 5.
    """

    def __init__(self, model: nn.Module, strength: float = 1.0, *, damping: float = 0.1):
        if not (isinstance(damping, (int, float)) and math.isfinite(damping) and damping > 0):
            raise ValueError(f"damping is {damping!r}; it must be a finite number above 0")
        self.model, self.strength = model, springs.checked_strength(strength)
        self.damping = float(damping)
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self._walks: dict[str, _Walk] = {}
        self._watched: dict[str, Tensor] = {}
        self._shares: dict[str, Tensor] = {}  # what of the gradient on its way is the penalty's
        self._arriving: dict[
            str, tuple[Tensor, bool]
        ] = {}  # the rest of it, and whether it is the first since zero_grad
        self._watch()

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Turn the path since the last call into importance and take the present weights as θ*; the data are not looked at.

        Raises:
            ValueError: a path is not finite, because training was not; nothing has changed then.
        """
        parameters = dict(self.model.named_parameters())
        held, old = self._terms[0] if self._terms else ({}, {})
        anchor = springs.weights(self.model)
        importance = old | {name: old.get(name, torch.zeros_like(value)) for name, value in anchor.items()}
        for name, walk in self._walks.items():
            now = parameters[name].detach()
            walk.settle(now)
            earned = walk.path / ((now - walk.start).square() + self.damping)
            importance[name] = (old.get(name, 0) + earned).clamp(min=0)
            anchor.setdefault(name, now.clone())  # frozen since it was trained
            if not importance[name].isfinite().all():
                raise ValueError(f"the path of {name!r} is not finite: training has diverged")
        self._terms = [(held | anchor, importance)]
        self._walks = {}
        self._watch()

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        self._watch()
        # Each parameter goes in through a view, where its share of the gradient can be told apart.
        parts = {name: parameter.view_as(parameter) for name, parameter in self.model.named_parameters()}
        for name, part in parts.items():
            if part.requires_grad:
                part.register_hook(lambda gradient, name=name: self._of_the_penalty(name, gradient))
        return springs.quadratic(self.model, self.strength, self._terms, parts)

    def add_gradient(self) -> None:
        """Add λ Ωᵢ (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `EWC.add_gradient`; it is not taken for the task's."""
        springs.add_gradient(self.model, self.strength, self._terms)

    @torch.no_grad()
    def observe(self) -> None:
        """Say that ``.grad`` now holds the gradient of the task's loss alone, and that a step will follow.

        Call it after ``loss.backward()``, before the penalty's gradient is added and before the optimiser's step. It stands
        in the place of what the hooks took in this step. A parameter without a gradient has none.
        """
        self._watch()
        for name, parameter in springs.trainable(self.model).items():
            if parameter.grad is not None:
                self._take(name, parameter, parameter.grad, first=True)
            elif name in self._walks:
                self._walks[name].settle(parameter)
                self._walks[name].gradient = None

    def largest_curvature(self) -> float:
        """λ maxᵢ Ωᵢ, as `EWC.largest_curvature`."""
        return springs.largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, λ Ω), as `EWC.parabola`."""
        return springs.parabola(self.strength, self._terms)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """As `EWC.state_dict`, and with it the path of a task that is being learned."""
        walks = {}
        for name, walk in self._walks.items():
            walk.settle(self.model.get_parameter(name))
            walks |= {f"walk/{kind}/{name}": value for kind, value in vars(walk).items() if value is not None}
        return springs.state_of(self._terms) | walks

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As `EWC.load_state_dict`; the model should have the weights of when the state was taken."""
        parameters = dict(self.model.named_parameters())
        walks: dict[str, dict[str, Tensor]] = {}
        for key, value in springs.checked_state(state).items():
            head, kind, name = [*key.split("/", 2), "", ""][:3]
            if head == "walk":
                known = kind in ("start", "before", "path", "gradient")
                value = springs.fitting(key, value, name, parameters.get(name) if known else None)
                walks.setdefault(name, {})[kind] = value
        for name, parts in walks.items():
            missing = {"start", "before", "path"} - parts.keys()
            if missing:
                raise ValueError(f"state is incomplete: the walk of {name!r} lacks its {sorted(missing)[0]}")
        self._terms = springs.one_term({key: value for key, value in state.items() if not key.startswith("walk/")}, self.model)
        self._walks = {name: _Walk(**parts) for name, parts in walks.items()}

    def _watch(self):
        """Hooks on the parameters that have none: all at the start, later what was added or thawed."""
        for name, parameter in springs.trainable(self.model).items():
            if self._watched.get(name) is not parameter:
                self._watched[name] = parameter
                self._walks.pop(name, None)
                parameter.register_hook(lambda gradient, name=name: self._on_its_way(name, gradient))
                parameter.register_post_accumulate_grad_hook(
                    lambda parameter, name=name: self._arrived(name, parameter)
                )

    # In a backward pass these three are called in this order; in torch.autograd.grad the last is not.

    def _of_the_penalty(self, name, gradient):
        self._shares[name] = self._shares.get(name, 0) + gradient.detach()

    def _on_its_way(self, name, gradient):
        parameter, share = self._watched[name], self._shares.pop(name, None)
        alone = gradient.detach().clone(memory_format=torch.contiguous_format)
        if share is not None:
            alone -= share
        # A gradient of zeros stands for none: zero_grad may leave either.
        self._arriving[name] = alone, parameter.grad is None or not parameter.grad.any()

    @torch.no_grad()
    def _arrived(self, name, parameter):
        gradient, first = self._arriving.pop(name)
        self._take(name, parameter, gradient, first)

    def _take(self, name, parameter, gradient, first):
        if name not in self._walks:
            self._walks[name] = _Walk.begin(parameter)
        self._walks[name].take(gradient, parameter, first)


class _Walk:
    """The way of one parameter through a task: where it started, what it earned, and the gradient of the step under way."""

    def __init__(self, start, before, path, gradient=None):
        self.start, self.before, self.path, self.gradient = start, before, path, gradient

    @classmethod
    def begin(cls, parameter):
        wide = torch.promote_types(parameter.dtype, torch.float32)  # small numbers are summed over many steps
        return cls(
            parameter.detach().clone(), parameter.detach().clone(), torch.zeros_like(parameter, dtype=wide).detach()
        )

    @torch.no_grad()
    def settle(self, now):
        """Count the step since the last gradient: ω −= g Δθ. Without a step nothing is counted, so it may be called often."""
        if self.gradient is not None:
            self.path.addcmul_(self.gradient, self.before.sub_(now))  # in place: memory that is at hand is fast
        self.before.copy_(now)

    def take(self, gradient, now, first):
        """The gradient of the coming step, or, where it is gathered in several backward passes, a further part of it."""
        self.settle(now)
        if self.gradient is None:
            self.gradient = gradient.detach().clone(memory_format=torch.contiguous_format)
        elif first:
            self.gradient.copy_(gradient)
        else:
            self.gradient += gradient
