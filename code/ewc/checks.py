# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the guards ask before they begin: what a model's parameters are called, and whether a number or a state is what it may be.

A state keeps the options that decide what its numbers mean, as a text in the bytes of one tensor: safetensors takes tensors alone.

Part of springs.py, distillation.py and replay.py. This file needs torch and nothing else. From the book Weights that Remember.
"""

import json
import math
import warnings
from collections.abc import Mapping
from numbers import Integral, Real

import torch
from torch import Tensor, nn

OPTIONS = "options/json"  # where a state has them; no parameter and no layer is called so


def weight_of(model):
    """A weight of the model, which says where it is and of which type; a number on the CPU where it has none."""
    return next((each for each in model.parameters() if each.is_floating_point()), torch.zeros(()))


def unwrapped(model):
    """The model that torch.compile, DataParallel or DistributedDataParallel have wrapped; itself where none has."""
    parts = getattr(model, "_modules", {})
    if "_orig_mod" in parts:
        return unwrapped(parts["_orig_mod"])
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    return model


def plain_name(name):
    """The name of a parameter or module in a model of which no part is compiled."""
    return name.replace("_orig_mod.", "")


def plainly_named(values):
    """Values by name, the names as `named` has them."""
    return {plain_name(name): value for name, value in values.items()}


def named(model):
    """The parameters, by name."""
    return plainly_named(dict(unwrapped(model).named_parameters()))


def trainable(model):
    """The parameters that require grad, by name."""
    return {name: parameter for name, parameter in named(model).items() if parameter.requires_grad}


def consolidated_twice():
    """The error for a second `consolidate` about one task."""
    return ValueError(
        "inputs are consolidated with the weights of the last call unchanged, as in a loop over batches: each call would count as a "
        "task of its own; give all examples of a task in one call"
    )


def checked_number(name, value, fits, words):
    """The value as a float, numpy's numbers too; an error, in these words, where it is no finite number or does not fit."""
    if not (isinstance(value, Real) and math.isfinite(value) and fits(value)):
        raise ValueError(f"{name} is {value!r}; it must be {words}")
    return float(value)


def checked_share(name, value):
    """The value as a float; an error where it is not above 0 and at most 1."""
    return checked_number(name, value, lambda value: 0 < value <= 1, "above 0 and at most 1")


def checked_count(name, value, words="a whole number of at least 1"):
    """The value as an int, numpy's numbers too; an error, in these words, where it is no whole number of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be {words}")
    return int(value)


def checked_state(state):
    """The state; an error where it is no dictionary of tensors, or holds a number that is not finite."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is {type(state).__name__}; it must be the dictionary of tensors that state_dict gave")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TypeError(f"state has {type(value).__name__} in {key!r}; it must be the dictionary of tensors that state_dict gave")
        if not value.isfinite().all():
            raise ValueError(f"state holds a value that is not finite, in {key!r}")
    return state


def kept_with(state, guard, **options):
    """The state of this kind of guard with the options that it was made with; none where nothing was learned yet."""
    if not state:
        return state
    return state | {OPTIONS: torch.tensor(list(json.dumps({"guard": guard, **options}).encode()), dtype=torch.uint8)}


def options_of(state):
    """The options in a state, by name; none in one of an earlier version."""
    if OPTIONS not in state:
        return {}
    try:
        return dict(json.loads(bytes(state[OPTIONS].tolist())))
    except (TypeError, ValueError) as error:
        raise ValueError(f"state has options that cannot be read, in {OPTIONS!r}: {error}") from error


def by_name(function):
    """A function, or an object, as a state keeps it: no more than its name, of which only a warning can come."""
    return {"name": getattr(function, "__name__", type(function).__name__)}


def without_options(state, guard, **options):
    """The state without its options; an error that names the first that is not this guard's, where both have it."""
    kept = options_of(checked_state(state))
    if kept.get("guard", guard) != guard:
        raise ValueError(f"state is another guard's: it was kept by {kept['guard']}, and this is {guard}")
    for name in (name for name in options if name in kept):
        was, own = kept[name], options[name]
        said = f"state was made with {name}={_shown(was)}, and this guard has {name}={_shown(own)}"
        if isinstance(was, dict) or isinstance(own, dict):
            if was != own:
                warnings.warn(f"{said}: its numbers mean the same only if both do the same", stacklevel=3)
        elif was != own and not {*str(was).split(" or ")} & {*str(own).split(" or ")}:
            raise ValueError(f"{said}: its numbers would mean something else; make the guard as the state was made, or consolidate again")
    return {key: value for key, value in state.items() if key != OPTIONS}


def _shown(option):
    return option["name"] if isinstance(option, dict) else repr(option)
