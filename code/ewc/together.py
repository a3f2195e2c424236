# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Several networks of one shape trained side by side: their weights stacked, one batched product for all.

A network of the book is small, and most of a step goes into starting operations, not into them. M networks whose weights stand
in one tensor, (M, …) for each parameter, take the steps of all in the operations of one. Each has its own images, seed and
penalty, and ends where it would have ended alone, up to rounding.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from .heads import choose
from .passes import Passes, plain_layers
from .tasks import Task
from .training import (
    Descent,
    Optimizer,
    Schedule,
    add_gradient_of,
    only_adds,
    rows_of_batches,
    terminal,
    use_units,
    warn_of_divergence,
)

Precision = Literal["highest", "high", "medium"]


def fit_together(
    models: Sequence[nn.Module],
    tasks: Sequence[Task],
    *,
    penalties: Sequence | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "warm-up",
    optimizer_state: dict | None = None,
    seeds: Sequence[int] | None = None,
    precision: Precision = "highest",
    watch: Callable[[int], None] | None = None,
    label: str = "",
) -> None:
    """What `training.fit` does, for each model with its task, penalty and seed; the models may be looked at from `watch`.

    A penalty that is one parabola a parameter (it has `parabola`) is added to all gradients in one product, one that has
    `add_gradient` adds its own, any other is differentiated. `steps.Proximal` around a parabola takes one step for all.

    Args:
        models: M networks of one shape, without buffers.
        tasks: the M tasks, with equally many images; the same task may stand in several places.
        penalties: M of them, None for a model without.
        seeds: M of them, of the order of the images; 0 for each unless given.
        precision: of `torch.set_float32_matmul_precision` in the steps; ``"medium"`` multiplies matrices in bfloat16.

    Raises:
        ValueError: as `fit`, and where the lengths differ or the models are not of one shape. A loss that is no longer finite
            is no error here, so that one network of many may diverge: see `diverged`.

    Warns:
        RuntimeWarning: as `fit`, for each penalty.
    """
    count = len(models)
    penalties, seeds = penalties or [None] * count, seeds or [0] * count
    for name, values in (("tasks", tasks), ("penalties", penalties), ("seeds", seeds)):
        if len(values) != count or not count:
            raise ValueError(f"{name} has {len(values)} entries for {count} models; each model needs one")
    if len({len(task.train_targets) for task in tasks}) > 1:
        raise ValueError("tasks have different numbers of training images; side by side they must have as many")
    folded = optimizer == "sgd" and optimizer_state is None and all(map(only_adds, penalties))
    with _stacked(models, momentum if folded else 0.0) as stack:
        descent = Descent(
            stack.leaves, optimizer, schedule, learning_rate, momentum, optimizer_state,
            steps=steps, batch_size=batch_size, folded=folded and stack.passes is not None,
        )  # fmt: skip
        for penalty in penalties:
            if penalty is not None and optimizer == "sgd":
                warn_of_divergence(penalty, learning_rate, momentum)
        for model, task in zip(models, tasks, strict=True):
            model.train()
            use_units(model, None if isinstance(task.units, Tensor) else task.units)
        explicit, implicit = _Parabolas(stack, penalties, "parabola"), _Parabolas(stack, penalties, "springs")
        images = _Batches(tasks, seeds, batch_size)
        if watch:
            watch(0)
        bar = tqdm(
            range(1, steps + 1),
            label or tasks[0].name,
            leave=False,
            delay=5,
            file=terminal(),
            disable=terminal() is None,
        )
        for step in bar:
            inputs, targets, units = next(images)
            with with_precision(precision):
                stack.differentiate(inputs, targets, units)
                for place, penalty in enumerate(penalties):
                    if hasattr(penalty, "observe"):
                        penalty.observe()
                    if penalty is None or explicit.hold(penalty):
                        continue
                    add_gradient_of(penalty, inputs[place], stack.passes_of(place, penalty))
            explicit.add_gradient(stack.gradients)
            rate = descent.step()
            implicit.take_step(rate)
            for penalty in penalties:
                if hasattr(penalty, "after_step") and not implicit.hold(penalty):
                    penalty.after_step(rate)
            if watch:
                watch(step)
        descent.keep_averages(optimizer_state)


def diverged(model: nn.Module) -> bool:
    """Whether a weight of the model is beyond ±10⁶ or no number at all: what has run away so far may end just short of infinity."""
    return not all((parameter.abs() <= 1e6).all() for parameter in model.parameters())


class _Stack:
    """The parameters of M models in one tensor each, and their gradients; the models' own are windows onto them."""

    def __init__(self, models, momentum=0.0):
        first = models[0]
        if any(True for _ in first.buffers()):
            raise ValueError("models have buffers; side by side only networks without them can be trained")
        shapes = [[(name, parameter.shape) for name, parameter in _free(model).items()] for model in models]
        if any(other != shapes[0] for other in shapes):
            raise ValueError("models are of different shapes; side by side they must have the same parameters")
        kinds = [[type(module) for module in model.modules()] for model in models]
        if any(other != kinds[0] for other in kinds):
            raise ValueError("models have different layers; side by side each must do what the first does")
        if len(models) == 1:  # no second copy, no vmap
            self.alone = {name: parameter.detach().requires_grad_() for name, parameter in _free(first).items()}
            self.values = {name: leaf.detach()[None] for name, leaf in self.alone.items()}
            self.leaves = list(self.alone.values())
        else:
            self.values = {
                name: torch.stack([_free(model)[name].detach() for model in models]).requires_grad_()
                for name, _ in shapes[0]
            }
            self.leaves = list(self.values.values())
        self.models, self.parameters = models, [_free(model) for model in models]
        for number, own in enumerate(self.parameters):
            for name, parameter in own.items():
                parameter.data = self.values[name].detach()[number]
        self.gradients, self.passes, self.own = {}, None, {}
        if layers := all(map(plain_layers, models)) and plain_layers(first):
            self.gradients = {name: torch.zeros_like(value, requires_grad=False) for name, value in self.values.items()}
            values = {name: value.detach() for name, value in self.values.items()}
            self.passes = Passes(layers, values, self.gradients, momentum)
            for (name, _), leaf in zip(self.values.items(), self.leaves, strict=True):
                leaf.grad = self.gradients[name].view_as(leaf)
            self._hand_out()

    def differentiate(self, inputs, targets, units):
        """The gradients of all losses, where leaves and models see them."""
        if self.passes:
            self.passes.differentiate(inputs, targets, units)
            return
        logits = choose(self._logits(inputs), units)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / targets.shape[1]
        for leaf in self.leaves:  # in new tensors: to add to old ones takes three times as long
            leaf.grad = None
        loss.backward()
        for (name, value), leaf in zip(self.values.items(), self.leaves, strict=True):
            if leaf.grad is None:  # a parameter that the loss does not depend on
                leaf.grad = torch.zeros_like(leaf, requires_grad=False)
            self.gradients[name] = leaf.grad.view_as(value)
        self._hand_out()

    def passes_of(self, place, penalty):
        """The passes of one of the models, if they are written out and it is the one that the penalty holds."""
        if not self.passes or getattr(penalty, "model", None) is not self.models[place]:
            return None
        if place not in self.own:
            values, gradients = ({name: of[name].detach()[place : place + 1] for name in of} for of in (self.values, self.gradients))
            self.own[place] = Passes(plain_layers(self.models[place]), values, gradients)
        return self.own[place]

    def _hand_out(self):
        for number, own in enumerate(self.parameters):
            for name, parameter in own.items():
                parameter.grad = self.gradients[name][number]

    def _logits(self, inputs):
        """(M, B, …) images to (M, B, C) logits of all outputs."""
        first = self.models[0]
        units = use_units(first, None)
        try:
            if len(self.models) == 1:
                return functional_call(first, self.alone, (inputs[0],))[None]
            return vmap(lambda weights, images: functional_call(first, weights, (images,)))(self.values, inputs)
        finally:
            use_units(first, units)


@contextlib.contextmanager
def _stacked(models, momentum=0.0):
    stack = _Stack(models, momentum)
    try:
        yield stack
    finally:
        for model in models:
            for parameter in _free(model).values():
                parameter.data, parameter.grad = parameter.data.clone(), None


class _Parabolas:
    """The penalties that are one parabola a parameter, stacked: curvature · (θ − minimum) for all models in one product.

    kind: the method that gives minimum and curvature, ``"parabola"`` for what is added to the loss, ``"springs"`` for what is
        taken as a proximal step. A penalty without it, or where it gives None, is not held.
    """

    def __init__(self, stack, penalties, kind):
        found = [getattr(penalty, kind)() if hasattr(penalty, kind) else None for penalty in penalties]
        self.held = [penalty for penalty, parabola in zip(penalties, found, strict=True) if parabola is not None]
        self.terms = []
        found = [parabola or ({}, {}) for parabola in found]
        for name, value in stack.values.items():
            if any(name in minimum for minimum, _ in found):
                gaps = torch.zeros_like(value[0], requires_grad=False)
                minimum = torch.stack([minimum.get(name, gaps) for minimum, _ in found])
                curvature = torch.stack([curvature.get(name, gaps) for _, curvature in found])
                self.terms.append((name, value.detach(), minimum, curvature, torch.empty_like(minimum)))

    def hold(self, penalty):
        return any(penalty is held for held in self.held)

    def add_gradient(self, gradients):
        for name, value, minimum, curvature, room in self.terms:
            torch.sub(value, minimum, out=room)
            gradients[name].addcmul_(curvature, room)

    def take_step(self, step_size):
        """`steps.proximal_step` for all models."""
        for _, value, minimum, curvature, room in self.terms:
            torch.mul(curvature, step_size, out=room)
            value.addcmul_(room, minimum).div_(room.add_(1))


class _Batches:
    """The next batches of all models, (M, B, …), their targets and units; what several share is looked up once."""

    def __init__(self, tasks, seeds, size):
        self.sources, self.which, self.rooms = [], [], {}
        known = {}
        for task, seed in zip(tasks, seeds, strict=True):
            if (id(task), seed) not in known:
                known[id(task), seed] = len(self.sources)
                self.sources.append((task, rows_of_batches(task, size, seed)))
            self.which.append(known[id(task), seed])

    def __next__(self):
        found, units = [], []
        for task, rows in self.sources:
            now = next(rows)
            found.append(task.batch(now))
            if task.units is None:
                units.append(None)
            elif isinstance(task.units, Tensor):
                units.append(task.units[now])
            else:
                units.append(torch.tensor(task.units, device=now.device).expand(len(now), -1))
        if len(found) == 1:  # all learn from the same images, which need no copies
            inputs, targets = (part.expand(len(self.which), *part.shape) for part in found[0])
        else:
            images, targets = ([found[place][part] for place in self.which] for part in (0, 1))
            size = len(images[0])
            if size not in self.rooms:  # fresh memory each step would take as long as the copies
                self.rooms[size] = torch.stack(images)
            inputs, targets = torch.stack(images, out=self.rooms[size]), torch.stack(targets)
        units = None if units[0] is None else torch.stack([units[place] for place in self.which])
        return inputs, targets, units


@contextlib.contextmanager
def with_precision(name: Precision):
    """A context in which float32 matrices are multiplied with this precision, as `torch.set_float32_matmul_precision` says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _free(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
