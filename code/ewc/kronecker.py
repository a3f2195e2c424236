# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""EWC with the Fisher information of whole layers: what one weight may do depends on what its neighbours do.

The diagonal holds each weight by itself. Here each layer's block of the Fisher is a Kronecker product B ⊗ A of two small
matrices (`fisher.kronecker_fisher`). With Δ = [W | b] − [W | b]*, a matrix with a row for each output of the layer,

    penalty(θ) = λ/2 Σ_layers ⟨Δ, Σ_tasks B Δ A⟩              gradient: λ Σ_tasks B Δ A

and no block is ever written out. The calls are those of `penalties.EWC`.

This file needs torch, and beside it springs.py, checks.py, and fisher.py with what that needs. From the book Weights that Remember.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .checks import checked_number, checked_share, kept_with, named, plainly_named, unwrapped, without_options
    from .factors import Blocks, smallest_and_largest
    from .fisher import Inputs, kronecker_of
    from .looking import Look, checked_options, kept_options
    from .scores import Labels
else:  # copied into a folder, without a package
    import springs
    from checks import checked_number, checked_share, kept_with, named, plainly_named, unwrapped, without_options
    from factors import Blocks, smallest_and_largest
    from fisher import Inputs, kronecker_of
    from looking import Look, checked_options, kept_options
    from scores import Labels

Factors = Literal["kept", "added"]
FACTORS = get_args(Factors)


class KroneckerEWC:
    """λ/2 Σ_layers vec(Δ)ᵀ (Σ_tasks B ⊗ A) vec(Δ) at the weights θ* after the latest task: online Laplace with KFAC.

    A sum of Kronecker products is no Kronecker product. `factors` says what becomes of it:

    - ``"kept"``   the factors of every task; exact. Memory and time of a step grow with the number of tasks.
    - ``"added"``  one pair a layer, which gives the block the partial traces of the sum:

        B ← Σ_tasks tr(A) B        A ← Σ_tasks tr(B) A        Σ_tasks B ⊗ A ≈ B ⊗ A / tr(B)

    Added factors keep the block's trace, its total stiffness, and how it is spread over the layer's outputs and over its
    inputs. They are exact where the tasks' A, or their B, are multiples of one another; else the parts of different tasks mix.

    Args:
        model: all its parameters that require grad belong to nn.Linear and nn.Conv2d, as `fisher.kronecker_fisher` wants,
            and a layer is trained or frozen as a whole.
        strength: λ ≥ 0, as in `penalties.EWC`.
        decay: γ in (0, 1]. At each consolidation the blocks of earlier tasks are multiplied by it.
        factors: ``"kept"`` or ``"added"``.
        max_examples: how many examples the factors are taken over, as in `penalties.EWC`.
        likelihood, labels, samples, batch_size, forward, generator, progress: of `fisher.kronecker_fisher`.

    Raises:
        ValueError: an argument is not what it may be.

    Source: Ritter, Botev & Barber, Online structured Laplace approximations for overcoming catastrophic forgetting, NeurIPS 2018.
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float = 1.0,
        *,
        decay: float = 1.0,
        factors: Factors = "kept",
        max_examples: int | None = None,
        likelihood: str | object = "categorical",
        labels: Labels | None = None,
        samples: int = 1,
        batch_size: int | None = None,
        forward: Callable | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ):
        if factors not in FACTORS:
            raise ValueError(f"factors is {factors!r}; it may be one of {', '.join(map(repr, FACTORS))}")
        self.model, self.strength = model, springs.checked_strength(strength)
        self.decay, self.factors = checked_share("decay", decay), factors
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
        self._anchor: dict[str, Tensor] = {}
        self._blocks: dict[str, Blocks] = {}

    def consolidate(self, inputs: Inputs, targets: Tensor | None = None) -> None:
        """Take the present weights as θ* and their Kronecker factors on `inputs`. Call it once, when the task has been learned.

        Raises:
            ValueError: as `fisher.kronecker_fisher` and `penalties.EWC.consolidate`, or a layer is frozen in part; nothing has
                changed then.
        """
        model = unwrapped(self.model)
        _check_whole(model)
        look = Look(model, inputs, targets, most=self.max_examples, **self._looking)
        springs.check_moved(model, [(self._held(), {})] if self._anchor else [])
        found = kronecker_of(look)
        blocks = {name: old.faded(self.decay) for name, old in self._blocks.items()}
        for name, (b, a, _) in found.items():
            blocks[name] = blocks[name].joined(b, a, self.factors) if name in blocks else Blocks(b[None], a[None])
        self._blocks = blocks
        self._anchor = self._anchor | springs.weights(self.model)

    def penalty(self) -> Tensor:
        """λ/2 Σ_layers ⟨Δ, Σ_tasks B Δ A⟩ at the present weights: a scalar, exactly 0 before the first task."""
        parameters, anchor = named(self.model), self._held()
        if not anchor:
            return springs.nothing(parameters)
        pulls = partial(_by_layer, unwrapped(self.model), self._blocks, Blocks.times)
        return _Kronecker.apply(self.strength, pulls, anchor, *(parameters[name] for name in anchor))

    @torch.no_grad()
    def add_gradient(self, scale: float = 1.0) -> None:
        """Add λ Σ_tasks B Δ A to the parameters' ``.grad``, as `EWC.add_gradient`."""
        factor, parameters = self.strength * springs.checked_scale(scale), named(self.model)
        distances = {name: parameters[name] - anchor for name, anchor in self._held().items()}
        for name, pull in _by_layer(unwrapped(self.model), self._blocks, Blocks.times, distances).items():
            if parameters[name].requires_grad:
                springs.gradient_of(parameters[name]).add_(pull.to(parameters[name].dtype), alpha=factor)

    @torch.no_grad()
    def proximal_step(self, step_size: float) -> None:
        """Move the weights θ′ to where ‖θ − θ′‖² / 2η + penalty(θ) is least, as `steps.proximal_step` for a diagonal.

        In the eigenvectors of B = U diag(β) Uᵀ and A = V diag(α) Vᵀ every number of Δ hangs on a spring of its own:

            Uᵀ Δ V ← Uᵀ Δ′ V / (1 + η λ β αᵀ)

        Args:
            step_size: η, as in `steps.proximal_step`.

        Raises:
            ValueError: step_size is not a finite number of at least 0, or a layer keeps the factors of several tasks, which
                have no eigenvectors in common.
        """
        stiffness = self.strength * checked_number("step_size", step_size, lambda value: value >= 0, "a finite number of at least 0")
        parameters, anchor = named(self.model), self._held()
        distances = {name: parameters[name] - value for name, value in anchor.items()}
        left = _by_layer(
            unwrapped(self.model), self._blocks, lambda blocks, delta: blocks.shrunk(delta, stiffness), distances
        )
        for name, distance in left.items():
            if parameters[name].requires_grad:
                parameters[name].copy_(anchor[name] + distance)

    def largest_curvature(self) -> float:
        """λ max over layers of Σ_tasks (largest eigenvalue of B) · (that of A): no second derivative of the penalty is above it.

        For one task, or factors that were added, it is the largest itself.
        """
        return self.strength * max((float(blocks.steepest.sum()) for blocks in self._blocks.values()), default=0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """θ* and the factors, (tasks, m, m) and (tasks, k, k) a layer, with the options that `penalties.EWC.state_dict` keeps."""
        state = {f"anchor/{name}": value for name, value in self._anchor.items()}
        for name, blocks in self._blocks.items():
            state |= {f"outputs/{name}": blocks.b, f"inputs/{name}": blocks.a}
        return kept_with({key: value.contiguous() for key, value in state.items()}, **self._kept_options())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to another model or was made with other options, or has the factors of several tasks where
                this penalty adds them.
        """
        parameters, modules = named(self.model), plainly_named(dict(unwrapped(self.model).named_modules()))
        anchor, factors = {}, {}
        for key, value in without_options(state, **self._kept_options()).items():
            kind, _, name = key.partition("/")
            if kind in ("outputs", "inputs"):
                factors[kind, name] = value
            else:
                anchor[name] = springs.fitting(key, value, name, parameters.get(name) if kind == "anchor" else None)
        blocks = {}
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in anchor):
            layer = modules[owner]
            for name, _ in layer.named_parameters(owner, recurse=False):
                if name not in anchor:
                    raise ValueError(f"state is incomplete: it lacks the anchor of {name!r}")
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                raise ValueError(f"state is for another model: {owner!r} is {type(layer).__name__} and has no Kronecker factors")
            m, k = layer.weight[: len(layer.weight) // getattr(layer, "groups", 1)].flatten(1).shape
            for name in _groups(layer, owner):
                b, a = (factors.pop((kind, name), None) for kind in ("outputs", "inputs"))
                if b is None or a is None:
                    raise ValueError(f"state is incomplete: layer {name!r} lacks a factor")
                blocks[name] = self._fitting(name, b, a, m, k + (layer.bias is not None), layer.weight.device)
        for kind, name in factors:
            raise ValueError(f"state is for another model: it has {f'{kind}/{name}'!r}, and no anchor for it")
        self._anchor, self._blocks = anchor, blocks

    def _fitting(self, name, b, a, m, k, device):
        if b.shape != (len(b), m, m) or a.shape != (len(b), k, k):
            raise ValueError(
                f"state is for another model: the factors of {name!r} are {tuple(b.shape)} and {tuple(a.shape)}; "
                f"they must be (tasks, {m}, {m}) and (tasks, {k}, {k})"
            )
        for side in (b, a):
            if not side.is_floating_point():
                raise ValueError(f"state has {side.dtype} in the factors of {name!r}; they must be floating-point numbers")
            # Each is a mean of squares, ddᵀ: its eigenvalues are not negative, but for rounding.
            lowest, highest = smallest_and_largest(side)
            if (side - side.mT).abs().max() > 1e-4 * highest.abs().max() or (lowest < -1e-4 * highest.abs()).any():
                raise ValueError(f"state has factors of {name!r} that are not symmetric and positive semi-definite")
        if self.factors == "added" and len(b) > 1:
            raise ValueError(
                f"state has the factors of {len(b)} tasks; factors='added' keeps one pair: load it into factors='kept'"
            )
        return Blocks(*(side.detach().to(device, copy=True) for side in (b, a)))

    def _kept_options(self):
        return {"guard": "KroneckerEWC", "decay": self.decay, **kept_options(**self._looking)}

    def _held(self):
        """θ* beside the parameters, wherever they are now, and with it the factors; an error where one is gone or has another shape."""
        parameters = named(self.model)
        springs.beside(parameters, [(self._anchor, {})])
        for name, blocks in self._blocks.items():
            device = next(value.device for key, value in self._anchor.items() if key.rpartition(".")[0] == name.partition("[")[0])
            if blocks.b.device != device:
                self._blocks[name] = blocks.to(device)
        return self._anchor


def _by_layer(model, blocks, change, distances):
    """What `change` makes of each layer's blocks and Δ, for each parameter, from its θ − θ*."""
    changed, modules = {}, plainly_named(dict(model.named_modules()))
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in distances):
        prefix = f"{owner}." if owner else ""
        weight, bias = distances[f"{prefix}weight"], distances.get(f"{prefix}bias")
        names = _groups(modules[owner], owner)
        delta = weight.flatten(1) if bias is None else torch.cat([weight.flatten(1), bias[:, None]], 1)
        parts = delta.chunk(len(names))
        whole = torch.cat([change(blocks[name], part) for name, part in zip(names, parts, strict=True)])
        inputs = weight[0].numel()
        changed[f"{prefix}weight"] = whole[:, :inputs].reshape(weight.shape)
        if bias is not None:
            changed[f"{prefix}bias"] = whole[:, inputs]
    return changed


class _Kronecker(torch.autograd.Function):
    """λ/2 ⟨Δ, pull(Δ)⟩, its gradient λ pull(Δ) kept from the forward pass."""

    @staticmethod
    def forward(context, strength, pulls_of, anchors, *parameters):
        distances = _distances(anchors, parameters)
        pulls = pulls_of(distances)
        total = sum(
            torch.dot(pulls[name].flatten(), value.flatten().to(pulls[name].dtype)) for name, value in distances.items()
        )
        context.save_for_backward(*parameters)
        context.strength, context.pulls, context.pulls_of, context.anchors = strength, pulls, pulls_of, anchors
        return strength / 2 * total

    @staticmethod
    def backward(context, gradient):
        pulls = context.pulls
        if torch.is_grad_enabled():  # it is to be differentiated again, as in `springs`
            pulls = context.pulls_of(_distances(context.anchors, context.saved_tensors))
        return None, None, None, *(context.strength * gradient * pulls[name] for name in context.anchors)


def _distances(anchors, parameters):
    return {name: parameter - anchor for (name, anchor), parameter in zip(anchors.items(), parameters, strict=True)}


def _groups(layer, name):
    """The names that `fisher.kronecker_fisher` gives to a layer: one, or one a group of a convolution."""
    groups = getattr(layer, "groups", 1)
    return [name] if groups == 1 else [f"{name}[{group}]" for group in range(groups)]


def _check_whole(model):
    for name, layer in model.named_modules():
        own = [parameter.requires_grad for parameter in layer.parameters(recurse=False)]
        if any(own) and not all(own):
            raise ValueError(
                f"layer {name or 'the model itself'!r} is frozen in part; Kronecker factors hold a layer's weight and bias together: "
                "freeze both or none"
            )
