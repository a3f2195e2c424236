"""The reduced ResNet-18 of the protocols on CIFAR, built as the code of van de Ven (2025) builds it."""

import torch
from torch import nn

from ewc.heads import Units


class Block(nn.Module):
    """Two convolutions and a way around them; `bent` says whether a ReLU follows."""

    def __init__(self, before: int, width: int, stride: int, bent: bool):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.around = nn.Identity()
        if stride != 1 or before != width:
            self.around = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.bend = nn.ReLU() if bent else nn.Identity()

    def forward(self, inputs):
        return self.bend(self.second(self.first(inputs)) + self.around(inputs))


class Reduced(nn.Module):
    """A convolution, eight blocks, the mean over all places, and logits; `units` lets each task have outputs of its own.

    The width doubles, and height and width halve, in three of the four pairs of blocks. No ReLU follows the last block, as in
    that code.
    """

    def __init__(self, classes: int, width: int = 20, *, colours: int = 3, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            layers, before = [nn.Sequential(nn.Conv2d(colours, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())], width
            for pair, wide in enumerate((width, 2 * width, 4 * width, 8 * width)):
                layers.append(Block(before, wide, 1 if pair == 0 else 2, bent=True))
                layers.append(Block(wide, wide, 1, bent=pair < 3))
                before = wide
            self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.logits = nn.Linear(before, classes)
        self.units = Units()

    def forward(self, images):
        return self.units(self.logits(self.features(images)))
