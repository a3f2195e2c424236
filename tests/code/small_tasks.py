"""Tasks small enough to learn in a moment."""

import torch
from ewc import Task


def blobs(name="blobs", shift=0.0, n=90, features=4, classes=3, seed=0):
    """Clouds of points around a corner for each class, `shift` turning the corners: a task that any network can learn."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.eye(features)[:classes].roll(int(shift), 1)
    targets = torch.arange(2 * n) % classes
    inputs = centres[targets] + 0.5 * torch.randn(2 * n, features, generator=generator)
    return Task(
        name=name,
        things="points",
        classes=tuple(str(c) for c in range(classes)),
        train_inputs=inputs[:n],
        train_targets=targets[:n],
        test_inputs=inputs[n:],
        test_targets=targets[n:],
        embedded=True,
        source="drawn here",
        checksum=f"{name} {shift} {n} {seed}",
    )
