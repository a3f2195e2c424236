# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Learning without forgetting: the network as it was before the task is a teacher, asked about the new task's own images.

No importance and no anchor: what is held is not the weights but what the network says. The teacher's softened probabilities
on the images of the step are targets beside the labels:

    penalty(θ) = λ τ² Σ_heads mean over the batch of KL( p_teacher(·|x; τ) ‖ p(·|x, θ; τ) ),     p(·; τ) = softmax(logits / τ)

This file needs torch, and beside it heads.py. From the book Weights that Remember.
"""

import copy
import math

import torch
from torch import Tensor, nn

if __package__:
    from .heads import all_outputs
else:  # copied into a folder, without a package
    from heads import all_outputs


class Distillation:
    """λ τ² Σ_heads mean KL(teacher ‖ model) at temperature τ, on the images of each step; a frozen copy of the model teaches.

    The gradient is that of the cross-entropy with the teacher's probabilities as targets, which the paper writes; the
    divergence differs from it by a constant, and is 0 where the model still says what the teacher says. The factor τ² makes
    up for the gradient, which shrinks as 1/τ².

    A model that has `models.Units` as ``model.units`` is distilled head by head, over the units of each task learned so far;
    a head whose units all belong to another counts with that one. Without `units`, or where they were None, all outputs are
    one head.

    Args:
        model: a classifier that returns logits (N, C).
        strength: λ ≥ 0; the paper uses 1.
        temperature: τ > 0; above 1 it lets the small probabilities count. The paper uses 2.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Li & Hoiem, Learning without forgetting, ECCV 2016; the softened targets: Hinton, Vinyals & Dean, arXiv 1503.02531.
    """

    needs_inputs = True  # a training loop passes the images of the step to `penalty`

    def __init__(self, model: nn.Module, strength: float = 1.0, *, temperature: float = 2.0):
        for name, value, low in (("strength", strength, "of at least 0"), ("temperature", temperature, "above 0")):
            fits = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
            if not fits or (value == 0 and name == "temperature"):
                raise ValueError(f"{name} is {value!r}; it must be a finite number {low}")
        self.model, self.strength, self.temperature = model, float(strength), float(temperature)
        self._teacher: nn.Module | None = None
        self._heads: list[tuple[int, ...] | None] = []

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Keep a copy of the model as it is now, for a teacher; the data are not looked at. Call it when the task has been learned.

        Raises:
            ValueError: the units of `model.units` differ from example to example.
        """
        chosen = getattr(getattr(self.model, "units", None), "chosen", None)
        if isinstance(chosen, Tensor):
            raise ValueError("model.units.chosen is a tensor with units for each example; a head has one tuple for all")
        head = None if chosen is None else tuple(int(unit) for unit in chosen)
        if not any(_within(head, old) for old in self._heads):
            self._heads = [old for old in self._heads if not _within(old, head)] + [head]
        self._teacher = _teacher_from(self.model)

    def penalty(self, inputs: Tensor) -> Tensor:
        """λ τ² Σ_heads mean KL over these images, (N, …): a scalar, exactly 0 before the first task.

        The model looks at the images once more, in the mode that it is in.
        """
        if self._teacher is None:
            return torch.zeros((), device=inputs.device)
        with all_outputs(self._teacher), torch.no_grad():
            wanted = self._teacher(inputs) / self.temperature
        with all_outputs(self.model):
            found = self.model(inputs) / self.temperature
        total = 0
        for head in self._heads:
            units = slice(None) if head is None else list(head)
            p, q = (logits[:, units].log_softmax(1) for logits in (wanted, found))
            total = total + nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
        return self.strength * self.temperature**2 * total

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher's weights and buffers, and the units of each head (none for all outputs), as a flat dictionary of tensors."""
        if self._teacher is None:
            return {}
        teacher = {f"teacher/{name}": value.clone() for name, value in self._teacher.state_dict().items()}
        return teacher | {
            f"head/{place}": torch.tensor(head or (), dtype=torch.long) for place, head in enumerate(self._heads)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to another model.
        """
        if not isinstance(state, dict):
            raise TypeError(f"state is {type(state).__name__}; it must be the dictionary of tensors that state_dict gave")
        if not state:
            self._teacher, self._heads = None, []
            return
        weights, heads, own = {}, {}, self.model.state_dict()
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind not in ("teacher", "head") or (kind == "head" and not name.isdigit()):
                raise ValueError(f"state is for another model: it has {key!r}, which is neither a teacher's nor a head")
            if kind == "teacher" and not value.isfinite().all():
                raise ValueError(f"state holds a value that is not finite, in {key!r}")
            if kind == "teacher" and name in own and value.is_floating_point() != own[name].is_floating_point():
                raise ValueError(f"state has {value.dtype} in {key!r}; the model has {own[name].dtype} there")
            if kind == "teacher":
                weights[name] = value
            else:
                heads[int(name)] = tuple(value.tolist()) or None
        if not heads:
            raise ValueError("state is incomplete: it has a teacher and no head")
        teacher = _teacher_from(self.model)
        try:
            teacher.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"state is for another model: {error}") from error
        self._teacher, self._heads = teacher, [heads[place] for place in sorted(heads)]


def _within(head, other):
    """Whether all units of a head are units of the other; None has all."""
    return other is None or (head is not None and set(head) <= set(other))


def _teacher_from(model):
    return copy.deepcopy(model).eval().requires_grad_(False)
