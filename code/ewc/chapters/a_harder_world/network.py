"""The convolutional network of the chapter: small enough for a build, and with weights that are used at many places of an image."""

from collections import OrderedDict

import torch
from ewc.heads import Units
from torch import nn


def convolutional(channels: tuple[int, int] = (8, 16), hidden: int = 32, *, classes: int = 10, units: bool = False, seed: int = 0) -> nn.Sequential:
    """Two convolutions, a hidden layer and logits, for images of 28 × 28; `seed` fixes its initial weights without touching torch's own.

    Each convolution takes every second place, in height and in width: 28 × 28 becomes 14 × 14 and then 7 × 7. So the network needs no
    pooling, and the first layer, which would cost most, a quarter of the time. With `units`, each task may have outputs of its own.

    A negative sum is handed on as a tenth of itself. With ReLU, so small a network can fail to learn a later pair in a lesson as short
    as the chapter's; an exercise there counts it.
    """
    first, second = channels
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        layers = OrderedDict(
            convolution1=nn.Conv2d(1, first, 5, stride=2, padding=2),
            leaky1=nn.LeakyReLU(0.1),
            convolution2=nn.Conv2d(first, second, 3, stride=2, padding=1),
            leaky2=nn.LeakyReLU(0.1),
            flatten=nn.Flatten(),
            hidden=nn.Linear(49 * second, hidden),
            leaky3=nn.LeakyReLU(0.1),
            logits=nn.Linear(hidden, classes),
        )
    if units:
        layers["units"] = Units()
    return nn.Sequential(layers)
