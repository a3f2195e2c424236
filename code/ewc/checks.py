# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What the guards ask before they begin: what a model's parameters are called, and whether a number or a state is what it may be.

Part of springs.py, distillation.py and replay.py. This file needs torch and nothing else. From the book Weights that Remember.
"""

import math
from collections.abc import Mapping
from numbers import Integral, Real

from torch import Tensor, nn


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
