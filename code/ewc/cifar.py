# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""CIFAR-10 and CIFAR-100: photographs of 32 × 32 pixels in three colours, for the papers' protocols alone.

They are looked for where MNIST is: in the folder that EWC_DATA names, in torchvision's cache folder, and last on the network. No
stand-in takes their place.
"""

import functools
import hashlib
import os
import socket
from pathlib import Path

import torch

from .tasks import Task


@functools.cache
def cifar(classes: int = 10) -> Task:
    """50,000 photographs to learn from and 10,000 to test with, of 10 or of 100 kinds of things (Krizhevsky 2009).

    The values of each colour are shifted and scaled to mean 0 and variance 1 over the training images.

    Raises:
        ValueError: classes is not 10 or 100.
        FileNotFoundError: the files are in none of the places, or altered, and cannot be downloaded.
    """
    if classes not in (10, 100):
        raise ValueError(f"classes is {classes!r}; it may be 10 or 100")
    name, found = f"CIFAR-{classes}", _found(classes)
    tensors = []
    for part in found:
        images = torch.as_tensor(part.data).permute(0, 3, 1, 2).contiguous()
        tensors += [images.float().div_(255), torch.tensor(part.targets)]
    checksum = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
    mean, deviation = tensors[0].mean((0, 2, 3), keepdim=True), tensors[0].std((0, 2, 3), correction=0, keepdim=True)
    for images in tensors[::2]:
        images.sub_(mean).div_(deviation)
    kinds = tuple(str(kind) for kind in found[0].classes)
    return Task(name, "photographs", kinds, *tensors, embedded=False, source="the published files", checksum=checksum)


def _found(classes):
    """The two parts as torchvision reads them, which compares each file with its published digest."""
    from torchvision import datasets

    maker = getattr(datasets, f"CIFAR{classes}")
    chosen = os.environ.get("EWC_DATA")
    if chosen == "embedded":
        raise FileNotFoundError(f"EWC_DATA is 'embedded'; there is no stand-in for CIFAR-{classes}: name a folder that holds it, or unset it")
    cache = Path(torch.hub.get_dir()).parent / "datasets"
    before = socket.getdefaulttimeout()
    for folder, download in ((chosen, False),) if chosen else ((cache, False), (cache, True)):
        socket.setdefaulttimeout(20)  # a network that swallows packets must not hold the run for ever
        try:
            return [maker(str(Path(folder).expanduser()), train=train, download=download) for train in (True, False)]
        except (OSError, RuntimeError):
            continue
        finally:
            socket.setdefaulttimeout(before)
    raise FileNotFoundError(
        f"CIFAR-{classes} was not found whole in {chosen or cache}"
        + ("" if chosen else " and could not be downloaded")
        + "; EWC_DATA may name a folder that holds it in torchvision's layout"
    )
