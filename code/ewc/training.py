# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Learning: one task, or one task after another with a penalty that remembers the ones before."""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from .heads import chosen_by
from .metrics import AccuracyMatrix
from .passes import passes_of, plain_layers
from .tasks import Permuted, Task

Optimizer = Literal["sgd", "adam"]
Schedule = Literal["warm-up", "linear", "constant"]


def fit(
    model: nn.Module,
    task: Task,
    *,
    penalty=None,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    optimizer: Optimizer = "sgd",
    schedule: Schedule = "warm-up",
    optimizer_state: dict | None = None,
    seed: int = 0,
    watch: Callable[[int], None] | None = None,
    label: str = "",
) -> None:
    """Train `model` on the training images of `task`: gradient descent on mean cross-entropy plus the penalty.

    The images are visited in a new random order in each pass.

    Args:
        penalty: anything with a method ``penalty()`` that returns a scalar, `penalties.EWC` for one. If its `needs_inputs`
            is true, it is given the images of the step. If it has `after_step`, as `steps.Proximal`, that is called after each
            step with the step's learning rate.
        steps: gradient steps, each on `batch_size` images.
        momentum: of ``"sgd"``; ``"adam"`` has its own.
        optimizer: ``"sgd"`` or ``"adam"``.
        schedule: of the step size. ``"warm-up"`` lets it rise linearly to `learning_rate` over the first fifth of the steps,
            so that a new task does not begin with a jolt, and then fall linearly to 0; ``"linear"`` only lets it fall;
            ``"constant"`` leaves it.
        optimizer_state: a dictionary in which the optimiser leaves its running averages, and from which it takes up those that
            it left there before: give each task the same one, empty at first. None begins anew.
        seed: of the order of the images.
        watch: called with the number of steps taken, before the first step and after each, to look at the model on the way; not
            at ``.grad``, which may have momentum in it.
        label: named in the progress bar, which is shown on a terminal when training takes more than five seconds.

    Raises:
        ValueError: a number is out of its range, or the loss is no longer finite.

    Warns:
        RuntimeWarning: explicit steps on the penalty alone would diverge, learning_rate · λ max F > 2 (1 + momentum).
    """
    folded = optimizer == "sgd" and optimizer_state is None and only_adds(penalty)
    passes = passes_of(model, momentum if folded else 0.0)
    descent = Descent(
        list(model.parameters()), optimizer, schedule, learning_rate, momentum, optimizer_state,
        steps=steps, batch_size=batch_size, folded=folded and passes is not None,
    )  # fmt: skip
    if penalty is not None and optimizer == "sgd":
        warn_of_divergence(penalty, learning_rate, momentum)
    model.train()
    use_units(model, task.units)
    if watch:
        watch(0)
    batches = _batches(model, task, batch_size, seed)
    for step in tqdm(
        range(1, steps + 1), label or task.name, leave=False, delay=5, file=terminal(), disable=terminal() is None
    ):
        inputs, targets = next(batches)
        if passes is None:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            if penalty is not None:
                loss = loss + penalty_of(penalty, inputs)
            model.zero_grad()
            loss.backward()
        else:  # the same gradients, without autograd
            passes.differentiate(inputs[None], targets[None], _chosen_units(model))
            add_gradient_of(penalty, inputs, passes if getattr(penalty, "model", None) is model else None)
        rate = descent.step()
        if hasattr(penalty, "after_step"):
            penalty.after_step(rate)
        if watch:
            watch(step)
    descent.keep_averages(optimizer_state)
    if passes is not None:  # what stands there may be more than the last gradient
        model.zero_grad()
    # The passes need no loss, and a penalty that has run away has taken the weights along.
    loss = loss if passes is None else nn.functional.cross_entropy(model(inputs), targets)
    if not loss.isfinite():
        raise ValueError(
            f"the loss on {task.name} is {loss.item()} after {steps} steps: learning_rate = {learning_rate} is too large"
            + ("" if penalty is None else f" for a penalty of strength {getattr(penalty, 'strength', '?')}")
        )


def learn_in_sequence(
    model: nn.Module,
    tasks: Sequence[Task],
    *,
    penalty=None,
    look: Sequence[int] = (),
    watch: Callable[[int, int], None] | None = None,
    seed: int = 0,
    label: str = "",
    **options,
) -> tuple[AccuracyMatrix, list[dict]]:
    """Learn the tasks one after another, never looking back at the data of an earlier one; the same output units for all.

    After each task `penalty` consolidates it on the task's training images.

    Args:
        look: at which steps of each task to measure the accuracy on every task, besides the end.
        watch: called with the task's place in the sequence and the steps taken in it.
        options: passed on to `fit`.

    Returns:
        The accuracy matrix, and the looks: dictionaries with ``task`` (its place), ``step`` and ``accuracies``.
    """
    if not tasks:
        raise ValueError("tasks is empty; it must hold at least one task")
    rows, looks = [], []
    for place, task in enumerate(tasks):

        def observe(step, place=place):
            if step in look:
                looks.append({"task": place, "step": step, "accuracies": [accuracy(model, other) for other in tasks]})
            if watch:
                watch(place, step)

        fit(
            model,
            task,
            penalty=penalty,
            seed=seed * 1000 + place,
            watch=observe,
            label=f"{label} {task.name}".strip(),
            **options,
        )
        rows.append([accuracy(model, other) for other in tasks])
        if penalty is not None:
            penalty.consolidate(task.train_inputs, task.train_targets)
    return AccuracyMatrix(rows), looks


def accuracy(model: nn.Module, task: Task, *, batch_size: int = 2000) -> float:
    """The share of the task's test images that the model puts into the right class, in eval mode; the model's mode is kept.

    A model with `Units` answers with those of the task.
    """
    modes = {module: module.training for module in model.modules()}  # a part of the model may be frozen in eval mode
    model.eval()
    units = use_units(model, task.units)
    ask, images = _with_moved_weights(model, task)
    try:
        with torch.no_grad():
            right = sum(
                (ask(inputs).argmax(1) == targets).sum()
                for inputs, targets in zip(images.split(batch_size), task.test_targets.split(batch_size), strict=True)
            )
    finally:
        for module, mode in modes.items():
            module.training = mode
        use_units(model, units)
    return right.item() / len(task.test_targets)


def _with_moved_weights(model, task):
    """What is asked, and about which test images. For images whose pixels were moved: about the images as they were, the model with
    the columns of its first matrix moved the other way. That is the same sum, and fewer numbers are moved."""
    layers = plain_layers(model) if isinstance(task, Permuted) and len(task.orders) == 1 else None
    name, first = next((found for found in layers or () if isinstance(found[1], nn.Linear)), (None, None))
    if first is None or first.in_features != len(task.orders[0]):
        return model, task.test_inputs
    moved = torch.empty_like(first.weight.detach()).index_copy_(1, task.orders[0], first.weight.detach())
    return functools.partial(functional_call, model, {f"{name}.weight": moved}), task.base.test_inputs


@functools.cache
def device() -> torch.device:
    """Where the book trains: on a CUDA device if there is one, else on the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Gradients are formed in a thread of autograd's. Where a matrix product is the first that it asks of the device, torch warns.
    torch.ones(1, device="cuda", requires_grad=True).exp().backward()
    return torch.device("cuda")


def terminal():
    """The terminal to show progress on; None where there is none. Pages are executed without one of their own: the build names it."""
    if name := os.environ.get("EWC_TERMINAL"):
        return open(name, "w")  # kept open as long as the bar lives
    return sys.stderr if sys.stderr.isatty() else None


class Descent:
    """The update rule over these parameters and the schedule of its step size, as `fit` describes them; its errors are `fit`'s.

    folded: the gradients that it will find have their momentum in them already (`passes.Passes`), so that a step is
        θ ← θ − η · gradient. Where a network is small, an optimiser of torch's takes as long to begin that as to do it.
    """

    def __init__(self, parameters, optimizer, schedule, learning_rate, momentum, state=None, *, steps, batch_size, folded=False):
        for name, value, low in (("steps", steps, 1), ("batch_size", batch_size, 1)):
            if not isinstance(value, Integral) or value < low:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {low}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate is {learning_rate!r}; it must be above 0")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum!r}; it must be at least 0 and below 1")
        if optimizer not in get_args(Optimizer):
            raise ValueError(f"optimizer is {optimizer!r}; it may be 'sgd' or 'adam'")
        if schedule not in _SCHEDULES:
            raise ValueError(f"schedule is {schedule!r}; it may be one of {', '.join(map(repr, _SCHEDULES))}")
        self.parameters, self.taken, self.rule = parameters, 0, None
        self.values = [parameter.detach() for parameter in parameters]
        self.rate_at = lambda step: learning_rate * _SCHEDULES[schedule](step, steps)
        if optimizer == "adam":
            self.rule = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        elif not folded:
            self.rule = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, fused=True)
        if state:
            self._take_up(state)

    def step(self) -> float:
        """Take the next step, and return its size η."""
        rate = self.rate_at(self.taken)
        self.taken += 1
        if self.rule is None:
            for parameter, value in zip(self.parameters, self.values, strict=True):
                value.add_(parameter.grad, alpha=-rate)
        else:
            for group in self.rule.param_groups:
                group["lr"] = rate
            self.rule.step()
        return rate

    def keep_averages(self, state):
        """Leave the running averages of the rule in the dictionary, if there is one."""
        if state is not None:
            state.update(self.rule.state_dict()["state"])

    def _take_up(self, state):
        found = {number: [average.shape for average in own.values() if average.dim()] for number, own in state.items()}
        wanted = [parameter.shape for parameter in self.parameters]
        # A parameter that was frozen so far has no averages.
        if any(number >= len(wanted) or {*shapes} != {wanted[number]} for number, shapes in found.items()):
            raise ValueError(
                f"optimizer_state is another model's: it has averages of the shapes {[tuple(s) for own in found.values() for s in own[:1]]}, "
                f"and the parameters are {[tuple(shape) for shape in wanted]}"
            )
        self.rule.load_state_dict({"state": state, "param_groups": self.rule.state_dict()["param_groups"]})


_SCHEDULES = {
    "warm-up": lambda step, steps: min((step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps), 1),
    "linear": lambda step, steps: (steps - step) / steps,
    "constant": lambda step, steps: 1,
}


def rows_of_batches(task, size, seed, least=1):
    """Without end: the rows of the next batch, in a new random order in each pass; fewer than `least` join the batch before."""
    generator = torch.Generator().manual_seed(int(seed))
    count, device = len(task.train_targets), task.train_targets.device
    while True:
        batches = torch.randperm(count, generator=generator).to(device).split(int(size))
        yield from batches if len(batches[-1]) >= least else (*batches[:-2], torch.cat(batches[-2:]))


def _batches(model, task, size, seed):
    """Without end: the next images and their classes; a model whose outputs differ from image to image is told which to use."""
    # Batch normalisation takes no batch of one.
    least = 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) else 1
    for rows in rows_of_batches(task, size, seed, least):
        if isinstance(task.units, Tensor):
            use_units(model, task.units[rows])
        yield task.batch(rows)


def use_units(model, units):
    """Let a model that has `Units` answer with these; return those that it used before."""
    layer = getattr(model, "units", None)
    if layer is None:
        return None
    before, layer.chosen = layer.chosen, units
    return before


def _chosen_units(model):
    """What `use_units` has set, for one network in a stack of one."""
    units = chosen_by(model)
    return units[None] if isinstance(units, Tensor) else units


def only_adds(penalty):
    """Whether a penalty is known to add to ``.grad`` without a look at what stands there, so that momentum may stand there too."""
    springs = hasattr(penalty, "parabola") or hasattr(penalty, "proximal_step")
    return not hasattr(penalty, "observe") and (springs or not hasattr(penalty, "add_gradient"))


def add_gradient_of(penalty, inputs, passes=None):
    """Add the gradient of a penalty to the parameters': by itself where it can do that, else by autograd. None adds nothing.

    passes: of the penalty's model, where they are written out: a penalty that is a loss on examples of its own goes the same way.
    """
    if hasattr(penalty, "add_gradient"):
        penalty.add_gradient()
    elif passes is not None and hasattr(penalty, "shown") and (shown := penalty.shown()):
        examples, targets, units, weight = shown
        passes.differentiate(examples[None], targets[None], units if units is None else units[None], more=weight)
    elif penalty is not None:
        value = penalty_of(penalty, inputs)
        if value.requires_grad:
            value.backward()


def penalty_of(penalty, inputs):
    """The value of a penalty, which is given the images of the step if it says that it needs them."""
    return penalty.penalty(inputs) if getattr(penalty, "needs_inputs", False) else penalty.penalty()


def warn_of_divergence(penalty, learning_rate, momentum):
    """Warn where steps of plain descent on the penalty alone would grow without end."""
    if not hasattr(penalty, "largest_curvature"):
        return
    curvature = penalty.largest_curvature()
    bound = 2 * (1 + momentum)
    if learning_rate * curvature > bound:
        warnings.warn(
            f"learning_rate · strength · max F = {learning_rate * curvature:.3g}, and above {bound:.3g} steps on the penalty "
            f"alone diverge; keep learning_rate below {bound / curvature:.3g}, or strength below "
            f"{bound / (learning_rate * curvature) * penalty.strength:.3g}",
            RuntimeWarning,
            stacklevel=3,
        )
