# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the penalties share: springs λ/2 Σ_terms Σᵢ Fᵢ (θᵢ − θ*ᵢ)², each term a pair of an anchor θ* and importances F.

A term is two dictionaries of one tensor a parameter, keyed as ``model.named_parameters()``, without what torch.compile and
DistributedDataParallel put before the names. Only what the anchor knows is pulled: a head that was added, or a layer that was
unfrozen, after the task is free. What it knows and the model no longer has is an error.

Part of penalties.py, which says more. This file needs torch, and beside it checks.py. From the book Weights that Remember.
"""

import torch
from torch import Tensor

if __package__:
    from .checks import checked_count, checked_number, checked_state, consolidated_twice, named, trainable
else:  # copied into a folder, without a package
    from checks import checked_count, checked_number, checked_state, consolidated_twice, named, trainable


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
        context.save_for_backward(*parameters)
        context.strength, context.springs, context.pulls = strength, (anchors, importances), pulls
        return strength / 2 * total

    @staticmethod
    def backward(context, gradient):
        scale = context.strength * gradient
        # Where the gradient is to be differentiated too, autograd has to see how the pull came from θ.
        pulls = _pulls_of(*context.springs, context.saved_tensors) if torch.is_grad_enabled() else context.pulls
        return None, None, None, *(scale * pull for pull in pulls)


def _pulls_of(anchors, importances, parameters):
    return [
        importance * (parameter - anchor)
        for parameter, anchor, importance in zip(parameters, anchors, importances, strict=True)
    ]


def quadratic(model, strength, terms, parameters=None):
    """λ/2 Σ_terms Σᵢ Fᵢ (θᵢ − θ*ᵢ)² at the present weights: a scalar, exactly 0 without a term.

    parameters: what stands for the model's own, by name, where their gradients are to be told apart.
    """
    parameters = parameters or named(model)
    if not terms:
        return nothing(parameters)
    # Only what the anchor knows is pulled: a head that was added, or a layer unfrozen, after the task is free.
    return sum(
        _Quadratic.apply(
            strength, list(anchor.values()), [fisher[name] for name in anchor], *(parameters[name] for name in anchor)
        )
        for anchor, fisher in beside(parameters, terms)
    )


@torch.no_grad()
def add_gradient(model, strength, terms, scale=1.0):
    """Add λ Σ_terms Fᵢ (θᵢ − θ*ᵢ), times `scale`, to the ``.grad`` of the parameters that require grad."""
    factor = strength * checked_scale(scale)
    parameters = named(model)
    for anchor, fisher in beside(parameters, terms):
        for name, parameter in parameters.items():
            if name in anchor and parameter.requires_grad:
                gradient_of(parameter).addcmul_(fisher[name], parameter - anchor[name], value=factor)


def gradient_of(parameter):
    """The ``.grad`` of a parameter as a tensor to add to: zeros where it has none, and written out where it is sparse."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif parameter.grad.layout != torch.strided:  # a pull moves all rows, not only those of the batch
        parameter.grad = parameter.grad.to_dense()
    return parameter.grad


def nothing(parameters):
    """The penalty before the first task: 0, where the parameters are."""
    return torch.zeros((), device=next((parameter.device for parameter in parameters.values()), None))


def beside(parameters, terms):
    """The terms, each anchor moved to where its parameter is now and into its type.

    Raises:
        ValueError: a parameter that an anchor knows is gone, or has another shape.
    """
    for anchor, importance in terms:
        for name, value in anchor.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise ValueError(
                    f"model has no parameter {name!r}, which is held where it was after an earlier task: it was renamed or removed "
                    "since; what is to go on without it has to be taken out of state_dict() and loaded again"
                )
            if parameter.shape != value.shape:
                raise ValueError(
                    f"model has {name!r} with shape {tuple(parameter.shape)}; it had {tuple(value.shape)} when it was consolidated, "
                    "and cannot be held in part: give what is new a layer of its own"
                )
            if parameter.dtype != value.dtype or parameter.device != value.device:
                anchor[name] = value.to(parameter)
                if name in importance:
                    importance[name] = importance[name].to(parameter.device)
    return terms


def weights(model):
    """Copies of the trainable parameters, by name: an anchor θ*."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def check_moved(model, terms):
    """Refuse to consolidate weights that were consolidated before: they are one task, whose examples belong into one call."""
    beside(named(model), terms)
    now, anchor = trainable(model), terms[-1][0] if terms else {}
    known = bool(now) and all(name in anchor and not value.is_meta for name, value in now.items())  # on "meta" there are no values
    if known and all(torch.equal(value, anchor[name].to(value.device)) for name, value in now.items()):
        raise consolidated_twice()


def largest_curvature(strength, terms):
    """λ maxᵢ Σ_terms Fᵢ; 0 without a term."""
    if not terms:
        return 0.0
    sums = {
        name: sum(importance[name] for _, importance in terms if name in importance)
        for _, fisher in terms
        for name in fisher
    }
    return strength * max((float(value.max()) for value in sums.values() if value.numel()), default=0.0)


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
    return checked_number("strength", strength, lambda value: value >= 0, "a finite number of at least 0")


def checked_scale(scale):
    """What a loss was multiplied with; an error where it is no finite number above 0."""
    return scale if scale == 1.0 else checked_number("scale", scale, lambda value: value > 0, "a finite number above 0")


def checked_most(max_examples):
    """The most examples that are looked at, or None for all; an error where that is below 1."""
    if max_examples is None:
        return None
    return checked_count("max_examples", max_examples, "a whole number of at least 1, or None for all")


def state_of(terms):
    """The terms as a flat dictionary of tensors, ``task/anchor/name`` and ``task/importance/name``."""
    return {
        f"{task}/{kind}/{name}": value.contiguous()  # safetensors takes no other
        for task, (anchor, importance) in enumerate(terms)
        for kind, values in (("anchor", anchor), ("importance", importance))
        for name, value in values.items()
    }


def fitting(key, value, name, parameter):
    """A value of a state as a copy beside the parameter that it speaks of; an error where it does not fit, or there is none."""
    if parameter is None:
        raise ValueError(f"state is for another model: it has {key!r}, and this model no such parameter")
    if not value.is_floating_point():
        raise ValueError(f"state has {value.dtype} in {key!r}; it must be a tensor of floating-point numbers")
    if value.shape != parameter.shape:
        shapes = f"{tuple(value.shape)} in the state and {tuple(parameter.shape)} in the model"
        raise ValueError(f"state is for another model: {name!r} is {shapes}")
    return value.detach().to(parameter.device, copy=True)


def terms_from(state, model):
    """The terms that `state_of` made this state of; an error that names what does not fit the model, or cannot be."""
    parameters = named(model)
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
