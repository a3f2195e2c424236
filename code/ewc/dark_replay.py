# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Dark experience replay: keep a few images of every task, and with each what the network said of it when the task was learned.

Where replay shows the kept images with their labels, this one asks that the logits stay what they were. They say more than a
label: what else an image resembles, and how sure the network was.

    penalty(θ) = λ Σ_tasks mean over the kept examples of ‖z(x, θ) − z*(x)‖²,     z* the logits after the example's task

This file needs torch, and beside it heads.py, scores.py, checks.py and evaluating.py. From the book Weights that Remember.
"""

import torch
from torch import Tensor, nn

if __package__:
    from .checks import (
        checked_count,
        checked_number,
        consolidated_twice,
        kept_with,
        unwrapped,
        weight_of,
        without_options,
    )
    from .evaluating import evaluated
    from .heads import all_outputs, check_classes
    from .scores import check_logits
else:  # copied into a folder, without a package
    from checks import (
        checked_count,
        checked_number,
        consolidated_twice,
        kept_with,
        unwrapped,
        weight_of,
        without_options,
    )
    from evaluating import evaluated
    from heads import all_outputs, check_classes
    from scores import check_logits


class DarkReplay:
    """λ Σ_tasks (mean squared distance of the logits from those kept), each call estimating it from one random batch of them.

    All outputs take part, also of a model that has `models.Units` and answers with some: as in the paper.

    Args:
        model: a classifier that returns logits (N, C), of two classes or more.
        strength: λ ≥ 0. The paper has α in the place of λ times the number of tasks; its authors' code takes the mean over
            the outputs too, so that its α is C times as large.
        examples: how many of each task to keep, drawn at random without repetition.
        batch_size: how many of the kept ones a call looks at, drawn with repetition.
        seed: of both draws.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Buzzega et al., Dark experience for general continual learning, NeurIPS 2020, equation 6. They draw images and
    logits on the way, while tasks are learned; here both are kept when a task has been learned, as `replay.Replay` does.
    """

    def __init__(self, model: nn.Module, strength: float = 1.0, *, examples: int = 200, batch_size: int = 128, seed: int = 0):
        self.model = model
        self.strength = checked_number("strength", strength, lambda value: value >= 0, "a finite number of at least 0")
        self.examples, self.batch_size = checked_count("examples", examples), checked_count("batch_size", batch_size)
        self._generator = torch.Generator().manual_seed(int(seed))
        self.memory: tuple[Tensor, Tensor] | None = None  # inputs and logits, of all tasks

    def consolidate(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Keep `examples` of these and the model's logits for them, in eval mode; the targets are not looked at. Call it once for each task.

        Raises:
            TypeError, ValueError: inputs are no tensor or fewer than `examples`, or the model returns no logits (N, C), or other
                ones than for earlier tasks; or it still says of the images of the last call exactly what it said then, because its
                weights are unchanged, as in `penalties.EWC.consolidate`.
        """
        if not isinstance(inputs, Tensor) or inputs.ndim == 0:
            raise TypeError(f"inputs is {type(inputs).__name__}; it must be a tensor with the examples along its first axis")
        if len(inputs) < self.examples:
            raise ValueError(f"inputs has {len(inputs)} examples; it must have at least examples = {self.examples}")
        self._check_moved(inputs)
        order = torch.randperm(len(inputs), generator=self._generator)
        kept = inputs[order[: self.examples].to(inputs.device)]
        with evaluated(unwrapped(self.model)), torch.no_grad():
            logits = self._logits(kept)
        check_logits(logits)
        found = (kept, logits)
        if self.memory is not None:
            for name, new, old in zip(("inputs", "logits"), found, self.memory, strict=True):
                if new.shape[1:] != old.shape[1:]:
                    shapes = f"{tuple(new.shape[1:])}; those of earlier tasks are {tuple(old.shape[1:])}"
                    raise ValueError(f"{name} of an example are of shape {shapes}, and one memory holds all")
            found = tuple(torch.cat(parts) for parts in zip(self._beside(inputs), found, strict=True))
        self.memory = found

    def penalty(self) -> Tensor:
        """λ Σ_tasks mean of ‖z − z*‖², estimated from one batch of the memory: a scalar, exactly 0 before the first task."""
        place = weight_of(self.model)
        if self.memory is None:
            return torch.zeros((), device=place.device)
        inputs, wanted = self.memory = self._beside(place)
        batch = torch.randint(len(inputs), (self.batch_size,), generator=self._generator).to(inputs.device)
        logits, tasks = self._logits(inputs[batch]), len(inputs) // self.examples
        if logits.shape[1] != wanted.shape[1]:
            raise ValueError(
                f"the model returns logits of shape {tuple(logits.shape[1:])}; those that were kept are {tuple(wanted.shape[1:])}: it has "
                "other outputs since"
            )
        distances = (logits - wanted[batch]).square().sum(1)
        return self.strength * tasks * distances.mean()

    def state_dict(self) -> dict[str, Tensor]:
        """What was kept, how many examples of each task, and the state of the draws, as a flat dictionary of tensors."""
        state = {"generator": self._generator.get_state()}
        if self.memory is None:
            return state
        state |= {"inputs": self.memory[0].contiguous(), "logits": self.memory[1]}
        return kept_with(state, guard="DarkReplay", examples=self.examples)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: a part is missing or unknown, or there are not `examples` a task with a row of logits each.
        """
        state = without_options(state, guard="DarkReplay", examples=self.examples)
        if state.keys() not in ({"generator"}, {"generator", "inputs", "logits"}):
            raise ValueError(f"state has {sorted(state)}; it must have the generator, and inputs and logits together")
        kept = {name: value.detach().clone() for name, value in state.items() if name != "generator"}
        if kept:
            inputs, logits = kept["inputs"], kept["logits"]
            if logits.ndim != 2 or not logits.is_floating_point() or len(inputs) != len(logits) or len(inputs) % self.examples:
                raise ValueError(
                    f"state holds inputs {tuple(inputs.shape)} and logits {tuple(logits.shape)}; it must hold examples = "
                    f"{self.examples} of each task, and a row of logits for each"
                )
        try:
            self._generator.set_state(state["generator"].cpu())
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"state has a generator that is none: {error}") from error
        self.memory = (inputs, logits) if kept else None
        if kept:
            self.memory = self._beside(weight_of(self.model))

    def _check_moved(self, inputs):
        """Refuse what `springs.check_moved` refuses, which here the logits of the last call tell."""
        if self.memory is None or inputs.shape[1:] != self.memory[0].shape[1:]:
            return
        shown, said = (part[-self.examples :] for part in self._beside(weight_of(self.model)))
        with evaluated(unwrapped(self.model)), torch.no_grad():
            says = self._logits(shown)
        if not says.is_meta and torch.equal(says, said):  # on "meta" there are no values
            raise consolidated_twice()

    def _logits(self, inputs):
        with all_outputs(unwrapped(self.model)):
            logits = self.model(inputs)
        check_classes("the model", logits)
        return logits

    def _beside(self, place):
        """What is kept, where the model is now, and of its type."""
        return tuple(
            value.to(place.device, place.dtype if value.is_floating_point() and place.is_floating_point() else None) for value in self.memory
        )
