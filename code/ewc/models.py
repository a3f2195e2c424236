# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The networks of the book."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from .heads import Units


def mlp(
    hidden: Sequence[int] = (256, 256), *, inputs: int = 784, classes: int = 10, units: bool = False, seed: int = 0
) -> nn.Sequential:
    """A fully connected ReLU network from images to logits; `seed` fixes its initial weights without touching torch's own.

    Its layers are called hidden1, hidden2, …, and logits; with `units`, a last one lets each task have outputs of its own.
    """
    if not hidden or min(*hidden, inputs, classes) < 1:
        raise ValueError(f"hidden is {tuple(hidden)}, inputs {inputs}, classes {classes}; each must be at least 1")
    layers = OrderedDict(flatten=nn.Flatten())
    # Drawn on the CPU, so that every device gets the same; torch.manual_seed would reach into the GPUs' draws.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        for number, (before, width) in enumerate(zip((inputs, *hidden), hidden, strict=False), start=1):
            layers[f"hidden{number}"] = nn.Linear(before, width)
            layers[f"relu{number}"] = nn.ReLU()
        layers["logits"] = nn.Linear(hidden[-1], classes)
    if units:
        layers["units"] = Units()
    return nn.Sequential(layers)
