# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Learning without forgetting: the network as it was before the task is a teacher, asked about the new task's own images.

No importance and no anchor: what is held is not the weights but what the network says. The teacher's softened probabilities
on the images of the step are targets beside the labels:

    penalty(θ) = λ τ² Σ_heads mean over the batch of KL( p_teacher(·|x; τ) ‖ p(·|x, θ; τ) ),     p(·; τ) = softmax(logits / τ)

This file needs torch, and beside it heads.py, scores.py and checks.py. From the book Weights that Remember.
"""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if __package__:
    from .checks import checked_number, kept_with, plain_name, plainly_named, unwrapped, without_options
    from .heads import all_outputs, check_classes, chosen_by
    from .scores import check_logits
else:  # copied into a folder, without a package
    from checks import checked_number, kept_with, plain_name, plainly_named, unwrapped, without_options
    from heads import all_outputs, check_classes, chosen_by
    from scores import check_logits


New = Literal["free", "rivals"]


class Distillation:
    """λ τ² Σ_heads mean KL(teacher ‖ model) at temperature τ, on the images of each step; a frozen copy of the model teaches.

    The gradient is that of the cross-entropy with the teacher's probabilities as targets, which the paper writes; the
    divergence differs from it by a constant, and is 0 where the model still says what the teacher says. The factor τ² makes
    up for the gradient, which shrinks as 1/τ².

    A model that has `models.Units` as ``model.units`` is distilled head by head, over the units of each task learned so far;
    a head whose units all belong to another counts with that one. Without `units`, or where they were None, all outputs are
    one head. Outputs that the model has got since, beyond those that the teacher has, are free.

    Args:
        model: a classifier that returns logits (N, C), of two classes or more.
        strength: λ ≥ 0; the paper uses 1.
        temperature: τ > 0; above 1 it lets the small probabilities count. The paper uses 2.
        new: what the outputs of new classes are to the old ones. ``"free"``: they take no part in the model's softmax beside the
            teacher's. ``"rivals"``: that softmax is over all outputs that the model has or is limited to at the moment. The teacher
            gives the new ones nothing, so they are pushed down on the images of the new task.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Li & Hoiem, Learning without forgetting, ECCV 2016; the softened targets: Hinton, Vinyals & Dean, arXiv 1503.02531.
    """

    needs_inputs = True  # a training loop passes the images of the step to `penalty`

    def __init__(self, model: nn.Module, strength: float = 1.0, *, temperature: float = 2.0, new: New = "free"):
        self.model = model
        self.strength = checked_number("strength", strength, lambda value: value >= 0, "a finite number of at least 0")
        self.temperature = checked_number("temperature", temperature, lambda value: value > 0, "a finite number above 0")
        if new not in get_args(New):
            raise ValueError(f"new is {new!r}; it may be 'free' or 'rivals'")
        self.new = new
        self._teacher: nn.Module | None = None
        self._looked_at = False  # whether the teacher has been seen to return logits
        self._heads: list[tuple[int, ...] | None] = []

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Keep a copy of the model as it is now, for a teacher; the data are not looked at. Call it when the task has been learned.

        Raises:
            ValueError: the units of `model.units` differ from example to example, or are fewer than two.
        """
        chosen = chosen_by(unwrapped(self.model))
        if isinstance(chosen, Tensor):
            raise ValueError("model.units.chosen is a tensor with units for each example; a head has one tuple for all")
        head = None if chosen is None else tuple(int(unit) for unit in chosen)
        if head is not None and len(head) < 2:
            raise ValueError(f"model.units.chosen is {head}; a head must have two units or more: the softmax over one is 1 whatever it says")
        if not any(_within(head, old) for old in self._heads):
            self._heads = [old for old in self._heads if not _within(old, head)] + [head]
        self._teacher, self._looked_at = _teacher_from(self.model), False

    def penalty(self, inputs: Tensor) -> Tensor:
        """λ τ² Σ_heads mean KL over these images, (N, …): a scalar, exactly 0 before the first task.

        The model looks at the images once more, in the mode that it is in.

        Raises:
            ValueError: model or teacher does not return logits (N, C) of two classes or more, the teacher returns probabilities, or
                the model has fewer outputs than the teacher; or new is "rivals", and the model is limited to units without the old ones.
        """
        if self._teacher is None:
            return torch.zeros((), device=inputs.device)
        self._follow()
        with all_outputs(self._teacher), torch.no_grad():
            wanted = self._teacher(inputs)
        if not self._looked_at:
            check_classes("the teacher", wanted)
            check_logits(wanted)
            self._looked_at = True
        wanted = wanted / self.temperature
        with all_outputs(unwrapped(self.model)):
            found = self.model(inputs) / self.temperature
        total, known = 0, _shared(wanted, found)
        for head in self._heads:
            units = known if head is None else list(head)
            p = wanted[:, units].log_softmax(1)
            q = self._beside(found, units)  # the model's, of the same outputs
            none, least = p.isneginf(), torch.finfo(p.dtype).min  # a class that the teacher rules out adds nothing: p log p is 0 there
            p, q = (each.masked_fill(none, least) for each in (p, q))  # and not 0 times infinity
            total = total + nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
        return self.strength * self.temperature**2 * total

    def _beside(self, found, units):
        """The model's log-probabilities of these units, among themselves or with the new ones as rivals."""
        if self.new == "free":
            return found[:, units].log_softmax(1)
        chosen = chosen_by(unwrapped(self.model))
        if chosen is None:
            return found.log_softmax(1)[:, units]
        if isinstance(chosen, Tensor) or not set(range(found.shape[1])[units] if isinstance(units, slice) else units) <= set(chosen):
            raise ValueError(
                f"model.units.chosen is {chosen}; with new='rivals' it must hold the units of the old tasks, {units}, for all examples alike"
            )
        return found[:, units] - found[:, list(chosen)].logsumexp(1, keepdim=True)

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher's weights and buffers, the units of each head (none for all outputs), and the temperature: a flat dictionary of tensors."""
        if self._teacher is None:
            return {}
        own = self._teacher.state_dict().items()
        teacher = {f"teacher/{plain_name(name)}": value.clone(memory_format=torch.contiguous_format) for name, value in own}
        heads = {f"head/{place}": torch.tensor(head or (), dtype=torch.long) for place, head in enumerate(self._heads)}
        return kept_with(teacher | heads, guard="Distillation", temperature=self.temperature)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to another model, or was made with another temperature.
        """
        state = without_options(state, guard="Distillation", temperature=self.temperature)
        if not state:
            self._teacher, self._heads = None, []
            return
        weights, heads = {}, {}
        teacher = _teacher_from(self.model)
        names = {plain_name(name): (name, value) for name, value in teacher.state_dict().items()}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind not in ("teacher", "head") or (kind == "head" and not name.isdigit()):
                raise ValueError(f"state is for another model: it has {key!r}, which is neither a teacher's nor a head")
            if kind == "head":
                heads[int(name)] = _head_from(key, value)
                continue
            own, beside = names.get(name, (name, value))
            if value.is_floating_point() != beside.is_floating_point():
                raise ValueError(f"state has {value.dtype} in {key!r}; the model has {beside.dtype} there")
            weights[own] = value
        if not heads:
            raise ValueError("state is incomplete: it has a teacher and no head")
        try:
            teacher.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"state is for another model: {error}") from error
        self._looked_at = False
        self._teacher, self._heads = teacher, [heads[place] for place in sorted(heads)]

    def _follow(self):
        """Move the teacher's weights and buffers to where the model's are now, and into their types."""
        own = plainly_named(dict(_tensors(unwrapped(self.model))))
        for name, value in list(_tensors(self._teacher)):
            beside = own.get(plain_name(name), value)
            if value.device != beside.device or value.dtype != beside.dtype:
                owner, _, last = name.rpartition(".")
                module, moved = self._teacher.get_submodule(owner), value.detach().to(beside)
                if isinstance(value, nn.Parameter):
                    module._parameters[last] = nn.Parameter(moved, requires_grad=False)
                else:
                    module._buffers[last] = moved


def _tensors(model):
    """Parameters and buffers, with their names."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _shared(wanted, found):
    """The outputs that the teacher has, which the model must have too."""
    check_classes("the teacher", wanted)
    check_classes("the model", found)
    if found.shape[1] < wanted.shape[1]:
        raise ValueError(f"the model returns logits {tuple(found.shape)} and the teacher {tuple(wanted.shape)}: outputs are gone")
    return slice(wanted.shape[1])


def _head_from(key, value):
    """The units of a head, from a state."""
    if value.ndim != 1 or value.is_floating_point() or len(value) == 1 or (value < 0).any():
        raise ValueError(f"state has {value.tolist()} in {key!r}; it must hold two or more units, or none for all outputs")
    return tuple(value.tolist()) or None


def _within(head, other):
    """Whether all units of a head are units of the other; None has all."""
    return other is None or (head is not None and set(head) <= set(other))


class _Detached(TorchFunctionMode):
    """Lets `copy.deepcopy` take what a model keeps of its last pass, features for one, without the way that led there."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is Tensor.__deepcopy__ and not arguments[0].is_leaf:
            tensor, memo = arguments
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*arguments, **(options or {}))


def _teacher_from(model):
    with _Detached():
        return copy.deepcopy(unwrapped(model)).eval().requires_grad_(False)
