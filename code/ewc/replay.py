# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Replay: keep a few examples of every task and show them again while later ones are learned.

It has the calls of a penalty, so that a training loop takes it in the same place. What it adds to the loss is no stand-in
for the old task's loss but that loss itself, estimated from what was kept:

    penalty(θ) = λ Σ_tasks mean over the kept examples of −log p(y|x, θ)

This file needs torch, and beside it heads.py, scores.py and checks.py. From the book Weights that Remember.
"""

import torch
from torch import Tensor, nn

if __package__:
    from .checks import checked_count, checked_number, kept_with, unwrapped, weight_of, without_options
    from .heads import all_outputs, check_classes, chosen_by
    from .scores import check_logits
else:  # copied into a folder, without a package
    from checks import checked_count, checked_number, kept_with, unwrapped, weight_of, without_options
    from heads import all_outputs, check_classes, chosen_by
    from scores import check_logits


class Replay:
    """λ Σ_tasks (mean cross-entropy over the kept examples), each call estimating it from one random batch of them.

    A model that has `models.Units` as ``model.units`` is asked, for each kept example, with the units of that example's task.

    Args:
        model: a classifier that returns logits (N, C), of two classes or more.
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
        self.model = model
        self.strength = checked_number("strength", strength, lambda value: value >= 0, "a finite number of at least 0")
        self.examples, self.batch_size = checked_count("examples", examples), checked_count("batch_size", batch_size)
        self._generator = torch.Generator().manual_seed(int(seed))
        self._tasks, self._looked_at = 0, False  # how many; whether the model has been seen to return logits for all that is kept
        self._place = self._place_of_the_model()  # when it was last asked
        self.memory: tuple[Tensor, Tensor] | None = None  # inputs and targets, of all tasks
        self.units: Tensor | None = (
            None  # (N, k), the units of each kept example; −1 where there are fewer, or all are meant
        )

    def consolidate(self, inputs: Tensor, targets: Tensor) -> None:
        """Keep `examples` of these, and with them `model.units.chosen`. Call it once for each task: each call counts as one.

        It cannot tell a second call about one task from another task: what it keeps has nothing of the model's weights.

        Raises:
            TypeError, ValueError: inputs or targets are no tensors; there are fewer than `examples`, or not as many targets as
                inputs, or as many rows of units.
        """
        for name, value in (("inputs", inputs), ("targets", targets)):
            if not isinstance(value, Tensor) or value.ndim == 0:
                raise TypeError(f"{name} is {type(value).__name__}; it must be a tensor with the examples along its first axis")
        if len(inputs) < self.examples or len(targets) != len(inputs):
            raise ValueError(
                f"inputs has {len(inputs)} examples and targets {len(targets)}; "
                f"both must have the same number, at least examples = {self.examples}"
            )
        if not targets.is_floating_point():
            targets = targets.long()  # class indices; cross_entropy takes no narrower ones
        if targets.ndim != 1 + targets.is_floating_point() or not (targets >= 0).all():
            found = f"{targets.dtype} of shape {tuple(targets.shape)}, from {targets.min().item():.3g} on"
            raise ValueError(f"targets is {found}; it must hold a class index for each example, or a row of probabilities")
        if self.memory and (inputs.shape[1:], targets.shape[1:]) != tuple(kept.shape[1:] for kept in self.memory):
            found = f"inputs has shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}"
            raise ValueError(f"{found}; an example must look as those of earlier tasks, {tuple(self.memory[0].shape[1:])}")
        units = chosen_by(unwrapped(self.model))
        if isinstance(units, Tensor) and len(units) != len(inputs):
            raise ValueError(
                f"model.units.chosen has {len(units)} rows for {len(inputs)} examples; it must have as many"
            )
        order = torch.randperm(len(inputs), generator=self._generator)
        chosen = order[: self.examples].to(inputs.device)
        self._follow()
        self._keep_units(units[chosen] if isinstance(units, Tensor) else units, inputs.device)
        kept, self._tasks = (inputs[chosen], targets[chosen]), self._tasks + 1
        if self.memory:
            kept = tuple(torch.cat(parts) for parts in zip(self.memory, kept, strict=True))
        self.memory = kept
        self._looked_at = False

    def penalty(self) -> Tensor:
        """λ Σ_tasks mean of −log p(y|x, θ), estimated from one batch of the memory: a scalar, exactly 0 before the first task."""
        self._follow()
        if self.memory is None:
            return torch.zeros((), device=self._place[0])
        inputs, targets, units = self._drawn()
        with all_outputs(unwrapped(self.model)):
            logits = self.model(inputs)
        check_classes("the model", logits)
        if not self._looked_at:
            self._look_at(logits)
        if units is not None:
            logits = _of_units(logits, units)
        return self.strength * self._tasks * nn.functional.cross_entropy(logits, targets)

    def _look_at(self, logits):
        """What is asked once, when the model first answers after a task: whether it returns logits, and has the classes that are kept."""
        check_logits(logits)
        (_, targets), known = self.memory, torch.tensor(logits.shape[1], device=logits.device)
        if self.units is not None:  # a row of −1 stands for all
            own = (self.units >= 0).sum(1)
            known = own.where(own > 0, known)
        if targets.ndim == 1 and not bool((targets < known).all()):
            raise ValueError(f"targets runs to {int(targets.max())}; the model has {int(known.min())} classes")
        # Targets that are probabilities, and units that some examples lack, are left to `penalty`.
        self._plain = targets.ndim == 1 and (self.units is None or bool((self.units >= 0).all()))
        self._looked_at = True

    def shown(self) -> tuple[Tensor, Tensor, Tensor | None, float] | None:
        """The batch of the next call, for a loop that forms gradients by itself: inputs, targets, units and the weight of their mean loss.

        None, and nothing is drawn, where `penalty` has to be asked: first after each task, for what is no plain class index, and where
        somebody has put another `penalty` in the place of this one.
        """
        self._follow()
        own = type(self).penalty is Replay.penalty and "penalty" not in vars(self)
        if self.memory is None or not (own and self._looked_at and self._plain):
            return None
        return *self._drawn(), self.strength * self._tasks

    def _drawn(self):
        """A random batch of what is kept: inputs, targets, and units or None."""
        inputs, targets = self.memory
        batch = torch.randint(len(inputs), (self.batch_size,), generator=self._generator)
        batch = batch.to(inputs.device)
        return inputs[batch], targets[batch], None if self.units is None else self.units[batch]

    def state_dict(self) -> dict[str, Tensor]:
        """What was kept, how many examples of each task, and the state of the draws, as a flat dictionary of tensors."""
        state = {"generator": self._generator.get_state()}
        if self.memory is None:
            return state
        state |= {"inputs": self.memory[0].contiguous(), "targets": self.memory[1], "tasks": torch.tensor(self._tasks)}
        state |= {} if self.units is None else {"units": self.units}
        return kept_with(state, guard="Replay", examples=self.examples)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave; the examples come onto the model's device.

        Raises:
            ValueError: a part is missing or unknown, or the examples are not `examples` a task.
        """
        state = without_options(state, guard="Replay", examples=self.examples)
        parts = state.keys() - {"generator", "units", "tasks"}
        if "generator" not in state or parts not in ({"inputs", "targets"}, set()):
            raise ValueError(
                f"state has {sorted(state)}; it must have the generator, inputs and targets together, and perhaps units"
            )
        self._place = device, _ = self._place_of_the_model()
        kept = {name: state[name].detach().to(device, copy=True) for name in ("inputs", "targets", "units") if name in state}
        lengths = {name: len(value) for name, value in kept.items()}
        if kept and (len(set(lengths.values())) > 1 or lengths["inputs"] % self.examples):
            raise ValueError(
                f"state holds {lengths}; each must hold the same number, examples = {self.examples} for each task"
            )
        tasks = int(state["tasks"]) if "tasks" in state else None  # states of earlier versions have none
        if tasks is not None and tasks * self.examples != lengths.get("inputs", 0):
            raise ValueError(
                f"state holds {lengths.get('inputs', 0)} examples of {tasks} tasks; with examples = {self.examples} for each task it must "
                f"hold {tasks * self.examples}"
            )
        try:
            self._generator.set_state(state["generator"].cpu())
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"state has a generator that is none: {error}") from error
        self.memory, self._looked_at = (kept["inputs"], kept["targets"]) if kept else None, False
        self.units = kept.get("units")
        self._tasks = len(kept["inputs"]) // self.examples if kept else 0

    def _place_of_the_model(self):
        first = weight_of(self.model)
        return first.device, first.dtype

    def _follow(self):
        """Where the model has moved, move what is kept to the same device, and its inputs into the model's type."""
        device, dtype = now = self._place_of_the_model()
        if now != self._place and self.memory is not None:
            inputs, targets = self.memory
            self.memory = inputs.to(device, dtype if inputs.is_floating_point() else None), targets.to(device)
            self.units = None if self.units is None else self.units.to(device)
        self._place = now

    def _keep_units(self, units, device):
        """Another task's units below those of the tasks before, as wide as the widest."""
        if units is None and self.units is None:
            return
        if not isinstance(units, Tensor):
            row = torch.tensor([-1] if units is None else list(units), device=device)
            units = row.expand(self.examples, -1)
        before = torch.full((self.examples * self._tasks, 1), -1, device=device) if self.units is None else self.units
        width = max(before.shape[1], units.shape[1])
        self.units = torch.cat(
            [nn.functional.pad(each, (0, width - each.shape[1]), value=-1) for each in (before, units)]
        )


def _of_units(logits, units):
    """The logits (N, C) of each example's own units (N, k), −∞ in the places where it has fewer; a row of −1 means all."""
    classes = logits.shape[1]
    units = nn.functional.pad(units, (0, max(0, classes - units.shape[1])), value=-1)
    everything = nn.functional.pad(torch.arange(classes, device=units.device), (0, units.shape[1] - classes), value=-1)
    units = torch.where((units < 0).all(1, keepdim=True), everything, units)
    return logits.gather(1, units.clamp(min=0)).masked_fill(units < 0, -torch.inf)
