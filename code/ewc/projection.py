# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Steps that old inputs do not feel: each layer's gradient is projected away from what the layer was shown in earlier tasks.

A linear layer's answer to an old input x changes by ΔW x. So ΔW x is to be small for all old x. Orthogonal weights modification
multiplies the gradient of W from the right by a matrix that leaves nothing of the directions in which the old inputs lie,

    P = I − X (Xᵀ X + α I)⁻¹ Xᵀ = (I + X Xᵀ / α)⁻¹          ∂L/∂W ← ∂L/∂W P

with the old inputs in the columns of X. Only the sum X Xᵀ is kept, as large as the layer has inputs, squared.

This file needs torch, and beside it springs.py, batches.py, checks.py, evaluating.py. From the book Weights that Remember.
"""

import torch
from torch import Tensor, nn

if __package__:
    from . import springs
    from .batches import spread
    from .checks import checked_count, kept_with, named, plain_name, plainly_named, unwrapped, without_options
    from .evaluating import evaluated
else:  # copied into a folder, without a package
    import springs
    from batches import spread
    from checks import checked_count, kept_with, named, plain_name, plainly_named, unwrapped, without_options
    from evaluating import evaluated


class OrthogonalWeights:
    """Orthogonal weights modification: the gradient of each linear layer times P = (I + λ Σ_tasks mean over examples of x xᵀ)⁻¹.

    It adds nothing to the loss. Call `add_gradient` after ``loss.backward()`` and before the optimiser's step, which must be a
    multiple of the gradients so far: plain descent, with momentum or without. Adam divides weight by weight, and what was
    taken out comes back. The bias counts as the weight of an input that is always 1.

    Args:
        model: all its parameters that require grad belong to nn.Linear.
        strength: λ ≥ 0. With N examples a task it is N / α of the paper.
        max_examples: how many examples the inputs are taken of, spread evenly over those given; None for all.

    Raises:
        ValueError: an argument is not what it may be, or the model has other parameters to be trained.

    Source: Zeng, Chen, Cui & Yu, Continual learning of context-dependent processing in neural networks, Nature Machine
    Intelligence 1, 2019. They bring P up to date in every step, with the mean input of the batch, while a task is learned.
    """

    def __init__(self, model: nn.Module, strength: float = 1.0, *, max_examples: int | None = None):
        self.model, self.strength = model, springs.checked_strength(strength)
        self.max_examples = springs.checked_most(max_examples)
        self._moments: dict[str, Tensor] = {}  # Σ_tasks mean x xᵀ, (inputs + 1, inputs + 1) a layer, without the 1 where it has no bias
        self._projectors: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}  # of the last call, by which a second one about the same task is known
        self._layers()

    @torch.no_grad()
    def consolidate(self, inputs: Tensor, targets: Tensor | None = None, *, batch_size: int = 1024) -> None:
        """Add what each layer is shown for these examples to what later gradients must avoid. Call it once for each task.

        Raises:
            TypeError, ValueError: inputs are no tensor or none, or a layer is shown something that is not finite, or nothing; or
                the weights are still those of the last call, as in `penalties.EWC.consolidate`. Nothing has changed then.
        """
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs is {type(inputs).__name__}; it must be a tensor with the examples along its first axis")
        if inputs.ndim == 0 or len(inputs) == 0:
            raise ValueError("inputs has no example; it must have at least one")
        batch_size = checked_count("batch_size", batch_size)
        if self.max_examples is not None and self.max_examples < len(inputs):
            inputs, _ = spread(inputs, None, self.max_examples)
        layers, found = self._layers(), {}
        springs.check_moved(self.model, self._unchanged_in_shape())

        def note(name):
            def hook(layer, shown, named, _):
                x = next(iter((*shown, *named.values()))).detach().flatten(0, -2)
                x = x.to(torch.promote_types(x.dtype, torch.float32))  # few bits are no matrix to be inverted
                x = x if layer.bias is None else torch.cat([x, x.new_ones(len(x), 1)], 1)
                found[name] = found.get(name, 0) + x.mT @ x / len(inputs)

            return hook

        model = unwrapped(self.model)
        with evaluated(model), torch.no_grad():
            hooks = [layer.register_forward_hook(note(name), with_kwargs=True) for name, layer in layers.items()]
            try:
                for batch in inputs.split(batch_size):
                    model(batch)
            finally:
                for hook in hooks:
                    hook.remove()
        for name in layers:
            if name not in found or not found[name].isfinite().all():
                raise ValueError(f"layer {name!r} is shown nothing for these inputs, or something that is not finite")
            self._check_fits(name, layers[name])
        # What is frozen now keeps what it was shown.
        self._moments |= {name: value + (self._moments[name].to(value) if name in self._moments else 0) for name, value in found.items()}
        self._weights = springs.weights(self.model)
        self._project()

    def _unchanged_in_shape(self):
        """The weights of the last call as springs' terms, without those that have other outputs since: these are not held."""
        now = named(self.model)
        held = {name: value for name, value in self._weights.items() if name in now and now[name].shape == value.shape}
        return [(held, {})] if held else []

    def _project(self):
        self._projectors = {}
        for name, moment in self._moments.items():
            identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
            self._projectors[name] = torch.linalg.inv(identity + self.strength * moment)

    def penalty(self) -> Tensor:
        """0: nothing is added to the loss."""
        return springs.nothing(named(self.model))

    @torch.no_grad()
    def add_gradient(self, scale: float = 1.0) -> None:
        """Take out of the parameters' ``.grad`` what old inputs would feel: [∂L/∂W | ∂L/∂b] ← [∂L/∂W | ∂L/∂b] P.

        Args:
            scale: as `EWC.add_gradient`; a gradient that is a multiple of itself is projected as itself.
        """
        springs.checked_scale(scale)
        layers = self._layers()
        modules = plainly_named(dict(unwrapped(self.model).named_modules()))
        for name, projector in self._projectors.items():
            self._check_fits(name, modules.get(name))
            layer = layers.get(name)
            if layer is None or all(each.grad is None for each in layer.parameters()):
                continue
            weight = springs.gradient_of(layer.weight)
            if layer.bias is None:
                weight.copy_(weight.to(projector.dtype) @ projector.to(weight.device))
                continue
            bias = springs.gradient_of(layer.bias)
            both = torch.cat([weight, bias[:, None]], 1).to(projector.dtype) @ projector.to(weight.device)
            weight.copy_(both[:, :-1])
            bias.copy_(both[:, -1])

    def projectors(self) -> dict[str, Tensor]:
        """P of each layer, by the layer's name; empty before the first task."""
        return dict(self._projectors)

    def state_dict(self) -> dict[str, Tensor]:
        """Σ_tasks mean x xᵀ of each layer, by its name, and the weights of the last call, ``weights/name``."""
        weights = {f"weights/{name}": value for name, value in self._weights.items()}
        return kept_with({name: value.contiguous() for name, value in (self._moments | weights).items()}, guard="OrthogonalWeights")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave. Layers may be frozen or thawed since: what is frozen keeps what it was shown.

        Raises:
            ValueError: the state belongs to another model, or is no sum of x xᵀ.
        """
        modules, moments, weights = plainly_named(dict(unwrapped(self.model).named_modules())), {}, {}
        for name, value in without_options(state, guard="OrthogonalWeights").items():
            if name.startswith("weights/"):
                weights[name.partition("/")[2]] = value
                continue
            layer = modules.get(name)
            if type(layer) is not nn.Linear:
                raise ValueError(f"state is for another model: it has {tuple(value.shape)} in {name!r}, and this model no nn.Linear of that name")
            size = _inputs_of(layer)
            if value.shape != (size, size) or not value.is_floating_point():
                found = f"{value.dtype} of shape {tuple(value.shape)}"
                raise ValueError(f"state is for another model: it has {found} in {name!r}, which must be floating-point numbers ({size}, {size})")
            if not torch.allclose(value, value.mT, rtol=1e-4, atol=1e-6) or (torch.linalg.eigvalsh(value) < -1e-4 * value.abs().max()).any():
                raise ValueError(f"state has {name!r}, which is not symmetric and positive semi-definite")
            moments[name] = value.detach().to(layer.weight.device, copy=True)
        for name, value in weights.items():
            layer, _, _ = name.rpartition(".")
            if layer not in moments:
                raise ValueError(f"state is incomplete: it has the weights of {name!r}, and not what its layer was shown")
            weights[name] = value.detach().to(moments[layer].device, copy=True)
        self._moments, self._weights = moments, weights
        self._project()

    def _check_fits(self, name, layer):
        """Refuse a layer that earlier tasks showed something else than it can be shown now, or that is gone."""
        size = _inputs_of(layer) if type(layer) is nn.Linear else None
        if name in self._moments and len(self._moments[name]) != size:
            now = "is no nn.Linear of the model now" if size is None else f"has {size} inputs, a bias counted"
            raise ValueError(f"layer {name!r} {now}; it had {len(self._moments[name])} when a task was consolidated, and cannot be projected")

    def _layers(self):
        """The linear layers that are trained, by name; an error that names what has no projection, or is frozen in part."""
        layers = {}
        for name, module in unwrapped(self.model).named_modules():
            own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
            if not any(own):
                continue
            if type(module) is not nn.Linear or not all(own):
                said = "is frozen in part" if type(module) is nn.Linear else f"is {type(module).__name__}"
                raise ValueError(
                    f"layer {name or 'the model itself'!r} {said}; gradients are projected for whole nn.Linear: freeze others with "
                    "requires_grad_(False)"
                )
            layers[plain_name(name)] = module
        return layers


def _inputs_of(layer):
    """How many inputs a linear layer has, a bias counted."""
    return layer.in_features + (layer.bias is not None)
