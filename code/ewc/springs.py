# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the penalties share: springs λ/2 Σ_terms Σᵢ Fᵢ (θᵢ − θ*ᵢ)², each term a pair of an anchor θ* and importances F.

A term is two dictionaries of one tensor a parameter, keyed as ``model.named_parameters()``. Only what the anchor knows is
pulled: a head that was added, or a layer that was unfrozen, after the task is free.

Part of penalties.py, which says more. This file needs torch and nothing else. From the book Weights that Remember.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Quadratic(torch.autograd.Function):
    """λ/2 Σᵢ Fᵢ dᵢ², d = θ − θ*, with its gradient λ F d kept from the forward pass: half the time of autograd's own."""

    @staticmethod
    def forward(context, strength, anchors, importances, *parameters):
        pulls, total = [], 0
        for parameter, anchor, importance in zip(parameters, anchors, importances, strict=True):
            distance = parameter - anchor
            pull = importance * distance
            total = total + torch.dot(pull.flatten(), distance.flatten().to(pull.dtype))
            pulls.append(pull)
        context.strength, context.pulls = strength, pulls
        return strength / 2 * total

    @staticmethod
    @once_differentiable
    def backward(context, gradient):
        scale = context.strength * gradient
        return None, None, None, *(scale * pull for pull in context.pulls)


def quadratic(model, strength, terms, parameters=None):
    """λ/2 Σ_terms Σᵢ Fᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 without a term.

    parameters: what stands for the model's own, by name, where their gradients are to be told apart.
    """
    parameters = parameters or dict(model.named_parameters())
    if not terms:
        return torch.zeros((), device=next(iter(parameters.values())).device)
    # Only what the anchor knows is pulled: a head that was added, or a layer unfrozen, after the task is free.
    return sum(
        _Quadratic.apply(
            strength, list(anchor.values()), [fisher[name] for name in anchor], *(parameters[name] for name in anchor)
        )
        for anchor, fisher in terms
    )


@torch.no_grad()
def add_gradient(model, strength, terms):
    """Add λ Σ_terms Fᵢ (θᵢ − θ*ᵢ) to the ``.grad`` of the parameters that require grad."""
    parameters = trainable(model)
    for anchor, fisher in terms:
        for name in anchor.keys() & parameters.keys():
            parameter = parameters[name]
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.addcmul_(fisher[name], parameter - anchor[name], value=strength)


def spread(most, inputs, targets):
    """At most so many of the examples, evenly over those given; all where it is None."""
    if most is None or most >= len(inputs):
        return inputs, targets
    spread = torch.linspace(0, len(inputs) - 1, most, device=inputs.device).round().long()
    return inputs[spread], None if targets is None else targets[spread]


def trainable(model):
    """The parameters that require grad, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def weights(model):
    """Copies of the trainable parameters, by name: an anchor θ*."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def largest_curvature(strength, terms):
    """λ maxᵢ Σ_terms Fᵢ; 0 without a term."""
    if not terms:
        return 0.0
    sums = {
        name: sum(importance[name] for _, importance in terms if name in importance)
        for _, fisher in terms
        for name in fisher
    }
    return strength * max(float(value.max()) for value in sums.values())


def parabola(strength, terms):
    """All terms as one parabola a parameter, (minimum, curvature), as `penalties.EWC.parabola` says."""
    minimum, curvature = {}, {}
    for (
        anchor,
        importance,
    ) in terms:  # each term moves the minimum towards its own anchor, by its share of the curvature
        for name, value in importance.items():
            curvature[name] = curvature.get(name, 0) + value
            share = torch.where(curvature[name] > 0, value / curvature[name], 1)
            before = minimum.get(name, anchor[name])
            minimum[name] = torch.where(share == 1, anchor[name], before + share * (anchor[name] - before))
    return minimum, {name: strength * value for name, value in curvature.items()}


def checked_strength(strength):
    """λ as a float; an error where it is no finite number of at least 0."""
    if not (isinstance(strength, (int, float)) and math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is {strength!r}; it must be a finite number of at least 0")
    return float(strength)


def checked_most(max_examples):
    """The most examples that are looked at, or None for all; an error where that is below 1."""
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"max_examples is {max_examples!r}; it must be at least 1, or None for all")
    return max_examples


def state_of(terms):
    """The terms as a flat dictionary of tensors, ``task/anchor/name`` and ``task/importance/name``."""
    return {
        f"{task}/{kind}/{name}": value
        for task, (anchor, importance) in enumerate(terms)
        for kind, values in (("anchor", anchor), ("importance", importance))
        for name, value in values.items()
    }


def checked_state(state):
    """The state; an error where it is no dictionary."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is {type(state).__name__}; it must be the dictionary of tensors that state_dict gave")
    return state


def fitting(key, value, name, parameter):
    """A value of a state as a copy beside the parameter that it speaks of; an error where it does not fit, or there is none."""
    if parameter is None:
        raise ValueError(f"state is for another model: it has {key!r}, and this model no such parameter")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"state has {found} in {key!r}; it must be a tensor of floating-point numbers")
    if value.shape != parameter.shape:
        shapes = f"{tuple(value.shape)} in the state and {tuple(parameter.shape)} in the model"
        raise ValueError(f"state is for another model: {name!r} is {shapes}")
    if not value.isfinite().all():
        raise ValueError(f"state holds a value that is not finite, in {key!r}")
    return value.detach().to(parameter.device, copy=True)


def terms_from(state, model):
    """The terms that `state_of` made this state of; an error that names what does not fit the model, or cannot be."""
    parameters = dict(model.named_parameters())
    terms: dict[int, dict[str, dict[str, Tensor]]] = {}
    for key, value in checked_state(state).items():
        task, kind, name = [*key.split("/", 2), "", ""][:3]
        known = task.isdigit() and kind in ("anchor", "importance")
        value = fitting(key, value, name, parameters.get(name) if known else None)
        if kind == "importance" and not (value >= 0).all():
            raise ValueError(f"state has a negative importance, {float(value.min()):.3g}, in {key!r}: it would push weights away from θ*")
        terms.setdefault(int(task), {"anchor": {}, "importance": {}})[kind][name] = value
    for task, term in terms.items():
        missing = term["anchor"].keys() ^ term["importance"].keys()
        if missing:
            raise ValueError(
                f"state is incomplete: task {task} lacks the anchor or the importance of {sorted(missing)[0]!r}"
            )
    return [(terms[task]["anchor"], terms[task]["importance"]) for task in sorted(terms)]


def one_term(state, model):
    """`terms_from`, for a penalty that keeps one anchor."""
    terms = terms_from(state, model)
    if len(terms) > 1:
        raise ValueError(f"state has {len(terms)} anchors; this penalty keeps one")
    return terms
