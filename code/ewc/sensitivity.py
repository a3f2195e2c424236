# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The pull of EWC with another answer to which weights matter: those that move the model's output.

The penalty of Memory Aware Synapses is λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the weights θ* after the latest task, where Ωᵢ is how strongly
the weight moves the squared length of the output; it needs no targets. The calls are those of `penalties.EWC`.

This file needs torch, and beside it springs.py, checks.py, looking.py, labels.py, likelihoods.py, scores.py, readings.py,
ways.py, mixing.py, calls.py, gradients.py, places.py, batches.py, processes.py and evaluating.py. From the book Weights that
Remember.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .checks import checked_count, kept_with, named, without_options
    from .gradients import add_linear, zeros
    from .looking import Look, checked_forward, kept_forward
else:  # copied into a folder, without a package
    import springs
    from checks import checked_count, kept_with, named, without_options
    from gradients import add_linear, zeros
    from looking import Look, checked_forward, kept_forward


class MemoryAwareSynapses:
    """λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)², Ωᵢ the mean over examples of how strongly the weight moves the squared length of the output.

        Ωᵢ = Σ_tasks 1/N Σ_n | ∂ ‖f(xₙ, θ)‖² / ∂θᵢ |,     f the logits

    The absolute value is taken example by example. The gradient of one example is δaᵀ in a linear layer, δ that of the
    layer's output, so that the mean of |δ||a|ᵀ over a batch is one matrix product.

    Args:
        model: the network; its parameters that require grad are protected.
        strength: λ ≥ 0. The paper's penalty has no ½: its λ is half of this one.
        max_examples: how many examples Ω is taken over, as in `penalties.EWC`.
        batch_size, forward, progress: of `output_sensitivity`.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Aljundi et al., Memory aware synapses, ECCV 2018, section 4.
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1.0,
        *,
        max_examples: int | None = None,
        batch_size: int | None = None,
        forward: Callable | None = None,
        progress: bool = False,
    ):
        self.model, self.strength = model, springs.checked_strength(strength)
        self.max_examples = springs.checked_most(max_examples)
        self._looking = {"batch_size": batch_size, "forward": checked_forward(forward), "progress": progress}
        if batch_size is not None:
            checked_count("batch_size", batch_size)
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def consolidate(self, inputs: Tensor | tuple | Mapping | Iterable, targets: Tensor | None = None) -> None:
        """Add the importance on `inputs` and take the present weights as θ*; the targets are not looked at.

        Raises:
            ValueError: as `penalties.EWC.consolidate`; nothing has changed then.
        """
        look = Look(self.model, inputs, targets, most=self.max_examples, **self._looking)
        springs.check_moved(self.model, self._terms)
        importance = sensitivity_of(look)
        anchor = springs.weights(self.model)
        for held, old in self._terms:
            importance = old | {name: value + old.get(name, 0) for name, value in importance.items()}
            anchor = held | anchor
        self._terms = [(anchor, importance)]

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        return springs.quadratic(self.model, self.strength, self._terms)

    def add_gradient(self, scale: float = 1.0) -> None:
        """Add λ Ωᵢ (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `EWC.add_gradient`."""
        springs.add_gradient(self.model, self.strength, self._terms, scale)

    def largest_curvature(self) -> float:
        """λ maxᵢ Ωᵢ, as `EWC.largest_curvature`."""
        return springs.largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, λ Ω), as `EWC.parabola`."""
        return springs.parabola(self.strength, springs.beside(named(self.model), self._terms))

    def state_dict(self) -> dict[str, Tensor]:
        """As `EWC.state_dict`; of the options the name of `forward`."""
        return kept_with(springs.state_of(self._terms), **self._kept_options())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As `EWC.load_state_dict`."""
        self._terms = springs.one_term(without_options(state, **self._kept_options()), self.model)

    def _kept_options(self):
        return {"guard": "MemoryAwareSynapses", "forward": kept_forward(self._looking["forward"])}


def output_sensitivity(
    model: nn.Module,
    inputs: Tensor | tuple | Mapping | Iterable,
    *,
    batch_size: int | None = None,
    forward: Callable | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Mean over examples of the absolute gradient of the squared length of the output: 1/N Σ_n | ∂ ‖f(xₙ, θ)‖² / ∂θᵢ |.

    Args:
        model: returns outputs f of shape (examples, …), or has them in ``.logits``; evaluated in eval mode and left as it was.
        inputs, batch_size, forward, progress: as in `fisher.diagonal_fisher`. Targets that come with batches are not looked at.

    Returns:
        One tensor a parameter that requires grad, keyed and shaped as ``model.named_parameters()``, without ``module.``
        and ``_orig_mod.``; non-negative; scale: a mean per example, in squared logits by weight; detached; at least float32.

    Raises:
        ValueError, TypeError: as `fisher.diagonal_fisher`.
    """
    return sensitivity_of(Look(model, inputs, batch_size=batch_size, forward=forward, progress=progress))


def sensitivity_of(look):
    """`output_sensitivity` of what is looked at."""
    with look.begun_unlabelled():
        names = look.names
        total = {name: zeros(parameter.shape, parameter) for parameter, name in names.items()}
        for _, reading in look.plain_readings():
            for deltas, others in reading.passes([2 * reading.logits.detach()]):
                for call, delta in zip(reading.closed, deltas, strict=True):
                    add_linear(total, names, call.module, delta.abs().to(_wide(delta)), call.input.detach().abs())
                for gradients in others:
                    for name, gradient in gradients.items():
                        total[name] += gradient.to_dense().to(total[name].dtype).abs().sum(0)
    total = look.means(total)
    for name, value in total.items():
        if not value.isfinite().all():
            raise ValueError(f"the importance of {name!r} is not finite: the model overflows on these inputs")
    return total


def _wide(value):
    return torch.promote_types(value.dtype, torch.float32)
