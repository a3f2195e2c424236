# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The pull of EWC with another answer to which weights matter: what each earned on its path while the task was learned.

The penalty of Synaptic Intelligence is λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the weights θ* after the latest task, where Ωᵢ is how much of
the loss's fall the weight earned on its way, by the distance that it went. The calls are those of `penalties.EWC`.

This file needs torch, and beside it springs.py, processes.py and checks.py. From the book Weights that Remember.
"""

import warnings
import weakref

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .checks import checked_number, kept_with, named, trainable, without_options
    from .processes import averaged
else:  # copied into a folder, without a package
    import springs
    from checks import checked_number, kept_with, named, trainable, without_options
    from processes import averaged


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
    A parameter that is added or thawed later is watched from the next call of `penalty`, `add_gradient` or `observe` on.

    Args:
        model: the network; its parameters that require grad are watched and protected. A copy of the model is not watched; a
            copy of the guard watches the model that is copied with it.
        strength: λ ≥ 0.
        damping: ξ > 0, in the units of a squared weight; it bounds Ω where a weight has hardly moved.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Zenke, Poole & Ganguli, Continual learning through synaptic intelligence, ICML 2017, equations 3 to 5.
    """

    def __init__(self, model: nn.Module, strength: float = 1.0, *, damping: float = 0.1):
        self.model, self.strength = model, springs.checked_strength(strength)
        self.damping = checked_number("damping", damping, lambda value: value > 0, "a finite number above 0")
        self._terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self._walks: dict[str, _Walk] = {}
        self._begin()

    def _begin(self):
        self._watched: dict[str, Tensor] = {}
        self._shares: dict[str, Tensor] = {}  # what of the gradient on its way is the penalty's
        # The rest of it, whether it is the first since zero_grad, and the walk, which stands where the weight was at that time.
        self._arriving: dict[str, tuple[Tensor, bool, _Walk]] = {}
        self._handles: dict[str, tuple] = {}
        weakref.finalize(self, _remove, self._handles).atexit = False
        if hasattr(self.model, "_parameters"):  # a model that keeps its guard is not whole yet while both are copied
            self._watch()

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in _OF_THE_HOOKS}

    def __setstate__(self, state):
        vars(self).update(state)
        self._terms, self._walks = list(self._terms), {name: walk.copy() for name, walk in self._walks.items()}
        self._begin()

    def consolidate(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Turn the path since the last call into importance and take the present weights as θ*; the data are not looked at.

        With torch.distributed every process calls it: the gradient of a step is the mean of theirs, and so is the path.

        Raises:
            ValueError: a path is not finite, because training was not; nothing has changed then.
        """
        parameters = named(self.model)
        unseen = [name for name, parameter in trainable(self.model).items() if name not in self._watched and parameter.grad is not None]
        if unseen:
            warnings.warn(
                f"{unseen[0]!r} has learned unseen, and earns nothing: it was added or thawed after the last call of penalty, "
                "add_gradient or observe, one of which has to be called in each step",
                RuntimeWarning,
                stacklevel=2,
            )
        self._watch()
        springs.beside(parameters, [*self._terms, ({name: walk.start for name, walk in self._walks.items()}, {})])
        held, old = self._terms[0] if self._terms else ({}, {})
        anchor = springs.weights(self.model)
        importance = old | {name: old.get(name, torch.zeros_like(value)) for name, value in anchor.items()}
        for name, walk in self._walks.items():
            now = parameters[name].detach()
            walk.settle(now)
            earned = averaged(walk.path) / ((now - walk.start).square() + self.damping)
            importance[name] = (old.get(name, 0) + earned).clamp(min=0)
            anchor.setdefault(name, now.clone())  # frozen since it was trained
            if not importance[name].isfinite().all():
                raise ValueError(f"the path of {name!r} is not finite: training has diverged")
        self._terms = [(held | anchor, importance)]
        self._walks = {}

    def penalty(self) -> Tensor:
        """λ/2 Σᵢ Ωᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 before the first task."""
        self._watch(gradients=True)
        # Each parameter goes in through a view, where its share of the gradient can be told apart.
        parts = {name: parameter.view_as(parameter) for name, parameter in named(self.model).items()}
        for name, part in parts.items():
            if part.requires_grad:
                part.register_hook(lambda gradient, name=name: self._of_the_penalty(name, gradient))
        return springs.quadratic(self.model, self.strength, self._terms, parts)

    def add_gradient(self, scale: float = 1.0) -> None:
        """Add λ Ωᵢ (θᵢ − θ*ᵢ) to the parameters' ``.grad``, as `EWC.add_gradient`; it is not taken for the task's.

        Raises:
            ValueError: the gradients are scaled; what was seen of them would be too large by as much.
        """
        if springs.checked_scale(scale) != 1:
            raise ValueError(
                f"scale is {scale!r}; it must be 1 here, where the gradients themselves count: call scaler.unscale_(optimizer), then "
                "observe(), then add_gradient()"
            )
        self._watch(gradients=True)
        springs.add_gradient(self.model, self.strength, self._terms)

    @torch.no_grad()
    def observe(self) -> None:
        """Say that ``.grad`` now holds the gradient of the task's loss alone, and that a step will follow.

        Call it after ``loss.backward()``, before the penalty's gradient is added and before the optimiser's step. It stands
        in the place of what the hooks took in this step. A parameter without a gradient has none.
        """
        self._watch()
        for name, parameter in trainable(self.model).items():
            if parameter.grad is not None:
                self._take(name, parameter)
            elif name in self._walks:
                self._walks[name].settle(parameter)
                self._walks[name].gradient = None

    def largest_curvature(self) -> float:
        """λ maxᵢ Ωᵢ, as `EWC.largest_curvature`."""
        return springs.largest_curvature(self.strength, self._terms)

    def parabola(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(θ*, λ Ω), as `EWC.parabola`."""
        return springs.parabola(self.strength, springs.beside(named(self.model), self._terms))

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """As `EWC.state_dict`, the damping as its option, and with it the path of a task that is being learned."""
        walks, parameters = {}, named(self.model)
        for name, walk in self._walks.items():
            if name in parameters and parameters[name].shape == walk.start.shape:
                walk.settle(parameters[name])
            walks |= {f"walk/{kind}/{name}": value.contiguous() for kind, value in vars(walk).items() if value is not None}
        return kept_with(springs.state_of(self._terms) | walks, guard="SynapticIntelligence", damping=self.damping)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As `EWC.load_state_dict`; the model should have the weights of when the state was taken."""
        parameters = named(self.model)
        walks: dict[str, dict[str, Tensor]] = {}
        state = without_options(state, guard="SynapticIntelligence", damping=self.damping)
        for key, value in state.items():
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

    def _watch(self, gradients=False):
        """Hooks on the parameters that have none: all at the start, later what was added or thawed.

        gradients: whether to take what has arrived at such a parameter already, which no hook has seen.
        """
        me = weakref.ref(self)  # the hooks must not keep a guard that nobody else keeps
        for name, parameter in trainable(self.model).items():
            known = self._watched.get(name)
            if known is not parameter:
                if known is not None:  # another parameter has taken the place
                    self._walks.pop(name, None)
                    _remove({name: self._handles[name]})
                self._watched[name] = parameter
                self._handles[name] = (
                    parameter.register_hook(lambda gradient, name=name: _call(me, "_on_its_way", name, gradient)),
                    parameter.register_post_accumulate_grad_hook(lambda _, name=name: _call(me, "_arrived", name)),
                )
                if gradients and parameter.grad is not None:
                    self._take(name, parameter)

    # In a backward pass these three are called in this order; in torch.autograd.grad the last is not.

    def _of_the_penalty(self, name, gradient):
        self._shares[name] = self._shares.get(name, 0) + gradient.detach()

    @torch.no_grad()
    def _on_its_way(self, name, gradient):
        parameter, share = self._watched[name], self._shares.pop(name, None)
        alone = _dense(gradient).clone(memory_format=torch.contiguous_format)
        if share is not None:
            alone -= share
        # The step may be taken before the last of the three is called, by a hook of an optimiser's.
        walk = self._walks.get(name) or _Walk.begin(parameter)
        walk.settle(parameter)
        # A gradient of zeros stands for none: zero_grad may leave either.
        first = parameter.grad is None or not _dense(parameter.grad).any()
        self._arriving[name] = alone, first, walk

    @torch.no_grad()
    def _arrived(self, name):
        if name in self._arriving:
            gradient, first, walk = self._arriving.pop(name)
            walk.take(gradient, first)
            self._walks[name] = walk

    @torch.no_grad()
    def _take(self, name, parameter):
        """What is in ``.grad`` is the gradient of the coming step."""
        if name not in self._walks:
            self._walks[name] = _Walk.begin(parameter)
        self._walks[name].settle(parameter)
        self._walks[name].take(parameter.grad, first=True)


_OF_THE_HOOKS = ("_watched", "_shares", "_arriving", "_handles")


def _call(reference, method, *arguments):
    guard = reference()
    if guard is not None:
        getattr(guard, method)(*arguments)


def _remove(handles):
    for handle in (handle for both in handles.values() for handle in both):
        handle.remove()


def _dense(gradient):
    """A gradient as it is, written out where it is sparse."""
    return gradient.detach() if gradient.layout == torch.strided else gradient.detach().to_dense()


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

    def copy(self):
        return _Walk(**{name: None if value is None else value.clone() for name, value in vars(self).items()})

    @torch.no_grad()
    def settle(self, now):
        """Count the step since the last gradient: ω −= g Δθ. Without a step nothing is counted, so it may be called often."""
        if now.device != self.path.device or now.dtype != self.before.dtype:
            self._move(now)
        if self.gradient is not None:  # an infinite one, for which a gradient scaler has taken no step, counts nothing either
            step = self.before.sub_(now)  # in place: memory that is at hand is fast
            self.path.addcmul_(self.gradient.where(step != 0, step), step)
        self.before.copy_(now)

    def take(self, gradient, first):
        """The gradient of the coming step, or, where it is gathered in several backward passes, a further part of it."""
        if self.gradient is None:
            self.gradient = _dense(gradient).clone(memory_format=torch.contiguous_format)
        elif first:
            self.gradient.copy_(_dense(gradient))
        else:
            self.gradient += gradient

    def _move(self, now):
        """To where the parameter is now, and into its type."""
        self.start, self.before = self.start.to(now), self.before.to(now)
        self.path = self.path.to(now.device, torch.promote_types(now.dtype, torch.float32))
        self.gradient = None if self.gradient is None else self.gradient.to(now)
