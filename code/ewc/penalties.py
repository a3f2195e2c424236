# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the posterior after one task becomes in the loss of the next: a quadratic pull towards the old weights.

After task A the posterior is approximately Gaussian, with its mode at the weights θ* and the Fisher information as its
precision. Its negative logarithm, up to a constant, is the penalty that the next task's loss carries:

    penalty(θ) = λ/2 Σᵢ Fᵢ (θᵢ − θ*ᵢ)²              gradient: λ Fᵢ (θᵢ − θ*ᵢ)

Every penalty has the same three calls: `consolidate` when a task has been learned, `penalty` in each step of the next (or
`add_gradient`, which is faster), and `state_dict` / `load_state_dict` to keep it. Add it to a loss that is a mean over examples:

    ewc = EWC(model, strength=100)
    for inputs, targets in tasks:
        ...  loss = cross_entropy(model(x), y) + ewc.penalty()  ...
        ewc.consolidate(inputs)

A parameter that was renamed, removed or given another shape since is refused by name; one that moved to another device or type
takes its anchor along. The penalty can be differentiated as often as a polynomial.

This file needs torch, and beside it springs.py, checks.py, and fisher.py with what that needs. From the book Weights that Remember.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .checks import checked_share, kept_with, named, without_options
    from .fisher import Inputs, diagonal_of
    from .looking import Look, checked_options, kept_options
    from .scores import Labels
else:  # copied into a folder, without a package
    import springs
    from checks import checked_share, kept_with, named, without_options
    from fisher import Inputs, diagonal_of
    from looking import Look, checked_options, kept_options
    from scores import Labels

Anchors = Literal["separate", "merged"]
ANCHORS = get_args(Anchors)


class EWC:
    """Elastic weight consolidation: λ/2 Σ_tasks Σᵢ Fᵢ (θᵢ − θ*ᵢ)², with F the diagonal Fisher information of each task.

    Args:
        model: the network; its parameters that require grad are protected.
        strength: λ ≥ 0. With losses that are means over examples, Bayes' rule gives N_old / N_new.
        anchors: ``"separate"`` keeps θ* and F of every task (Kirkpatrick et al. 2017); ``"merged"`` keeps the latest θ* and
            the sum of all F (Huszár 2018), so that memory and time do not grow with the number of tasks.
        decay: γ in (0, 1]. At each consolidation the Fishers of earlier tasks are multiplied by it (online EWC, Schwarz et al. 2018).
        labels, likelihood, samples, batch_size, forward, generator, progress: of `fisher.diagonal_fisher`.
        max_examples: how many examples the Fisher is taken over, spread evenly over those given, or the first of an iterable of
            batches; None for all. Of each process, where several share them out.

    Raises:
        ValueError: an argument is not what it may be.

    Sources: Kirkpatrick et al., PNAS 114(13) 3521; Huszár, PNAS 115(11) E2496; Schwarz et al., ICML 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1.0,
        *,
        anchors: Anchors = "separate",
        decay: float = 1.0,
        labels: Labels | None = None,
        max_examples: int | None = None,
        likelihood: str | object = "categorical",
        samples: int = 1,
        batch_size: int | None = None,
        forward: Callable | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ):
        if anchors not in ANCHORS:
            raise ValueError(f"anchors is {anchors!r}; it may be one of {', '.join(map(repr, ANCHORS))}")
        self.model, self.strength = model, springs.checked_strength(strength)
        self.anchors, self.decay, self.labels = anchors, checked_share("decay", decay), labels
        self.max_examples = springs.checked_most(max_examples)
        self._looking = checked_options(
            likelihood=likelihood,
            labels=labels,
            samples=samples,
            batch_size=batch_size,
            forward=forward,
            generator=generator,
            progress=progress,
        )
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # (θ*, F), one a task, or one in all

    def consolidate(self, inputs: Inputs, targets: Tensor | None = None) -> None:
        """Take the present weights as θ* and their Fisher information on `inputs`. Call it once, when the task has been learned.

        The inputs may be all that `fisher.diagonal_fisher` takes, a DataLoader too. With torch.distributed every process calls it with
        its own share of the examples, and all have the Fisher of all.

        Raises:
            ValueError: as `fisher.diagonal_fisher`; or the weights are still those of the last call, which was about the same
                task then; nothing has changed in either case.
        """
        look = Look(self.model, inputs, targets, most=self.max_examples, **self._looking)
        springs.check_moved(self.model, self._terms)
        fisher = diagonal_of(look)
        faded = [(anchor, {name: self.decay * value for name, value in old.items()}) for anchor, old in self._terms]
        anchor = springs.weights(self.model)
        if self.anchors == "merged":
            for held, old in faded:  # what is frozen now keeps the anchor and importance that it had
                fisher = old | {name: value + old.get(name, 0) for name, value in fisher.items()}
                anchor = held | anchor
            faded = []
        self._terms = [*faded, (anchor, fisher)]

    def penalty(self) -> Tensor:
        """λ/2 Σ_tasks Σᵢ Fᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        return springs.quadratic(self.model, self.strength, self._terms)

    def add_gradient(self, scale: float = 1.0) -> None:
        """Add λ Σ_tasks Fᵢ (θᵢ − θ*ᵢ) to the parameters' ``.grad``: all that descent needs of the penalty, without its value.

        In the place of ``penalty()``, after ``loss.backward()``, as an optimiser adds weight decay. It costs less than half.
        Where processes share out the examples (DistributedDataParallel), `consolidate` gives all the same Fisher, so that each
        adds the same.

        Args:
            scale: what the loss was multiplied by, where the gradient is still multiplied by it: ``scaler.get_scale()`` between
                ``scaler.scale(loss).backward()`` and ``scaler.step``, unless ``scaler.unscale_`` came between.
        """
        springs.add_gradient(self.model, self.strength, self._terms, scale)

    def largest_curvature(self) -> float:
        """λ maxᵢ Σ_tasks Fᵢ, the steepest second derivative of the penalty.

        Plain steps of more than 2 over it run away, with momentum μ of more than 2 (1 + μ) over it. The penalty does not know
        your step: look before you train. `steps.Proximal` and `steps.Capped` take what is stiffer.
        """
        return springs.largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The whole penalty as one parabola a parameter, however many tasks: where its minimum is, and its curvature.

            curvature = λ Σ_tasks Fᵢ        minimum = Σ_tasks Fᵢ θ*ᵢ / Σ_tasks Fᵢ        gradient = curvature · (θᵢ − minimum)

        Returns:
            (minimum, curvature), each one tensor a parameter; empty before the first task. Where the curvature is 0, the
            minimum is the latest anchor.
        """
        return springs.parabola(self.strength, springs.beside(named(self.model), self._terms))

    def state_dict(self) -> dict[str, Tensor]:
        """θ* and F of every term, as a flat dictionary of tensors that safetensors and torch.save both take.

        With them the options that decide what they mean: decay, likelihood, labels, samples where they were asked for, and the
        name of `forward`. The strength is not among them: one state may be tried under many.
        """
        return kept_with(springs.state_of(self._terms), **self._kept_options())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to another model or was made with other options, or has several anchors where this penalty
                merges them.

        Of a function only the name is known: where that is another, a warning says so.
        """
        terms = springs.terms_from(without_options(state, **self._kept_options()), self.model)
        if self.anchors == "merged" and len(terms) > 1:
            raise ValueError(
                f"state has {len(terms)} anchors; anchors='merged' keeps one: load it into anchors='separate'"
            )
        self._terms = terms

    def _kept_options(self):
        return {"guard": "EWC", "decay": self.decay, **kept_options(**self._looking)}


class L2:
    """The control for EWC: every weight is held equally, λ/2 Σᵢ (θᵢ − θ*ᵢ)², at the weights after the latest task."""

    def __init__(self, model: nn.Module, strength: float = 1.0):
        self.model, self.strength = model, springs.checked_strength(strength)
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Take the present weights as θ*; the data are not looked at."""
        terms = springs.beside(named(self.model), self._terms)
        known = {name: value for held, _ in terms for name, value in held.items()}  # what is frozen now stays where it was
        anchor = known | springs.weights(self.model)
        self._terms = [(anchor, {name: torch.ones_like(value) for name, value in anchor.items()})]

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        return springs.quadratic(self.model, self.strength, self._terms)

    def add_gradient(self, scale: float = 1.0) -> None:
        """Add λ (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `EWC.add_gradient`."""
        springs.add_gradient(self.model, self.strength, self._terms, scale)

    def largest_curvature(self) -> float:
        """λ once a task has been learned, 0 before."""
        return springs.largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, λ) for every parameter, as `EWC.parabola`."""
        return springs.parabola(self.strength, springs.beside(named(self.model), self._terms))

    def state_dict(self) -> dict[str, Tensor]:
        """As `EWC.state_dict`."""
        return kept_with(springs.state_of(self._terms), guard="L2")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As `EWC.load_state_dict`; a state whose importances are not all 1 is another penalty's, and refused."""
        terms = springs.one_term(without_options(state, guard="L2"), self.model)
        for name, value in (item for _, importance in terms for item in importance.items()):
            if not (value == 1).all():
                raise ValueError(f"state is another penalty's: it has importances of {name!r} that are not 1; L2 holds every weight equally")
        self._terms = terms
