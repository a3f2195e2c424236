# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What is learned: images with their class indices, and the sequences of tasks that are made of them.

From one data set come sequences of tasks: `permuted` shuffles the pixels, `split` deals out the classes. `joint` puts tasks
together again, for the network that may see everything at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

_NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(frozen=True, eq=False)
class Task:
    """Something to learn: images (N, 1, 28, 28) in [0, 1], float32, and class indices (N,), for training and for testing."""

    name: str
    things: str  # what the images show, in the plural
    classes: tuple[str, ...]
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    embedded: bool  # a stand-in that the book carries
    source: str
    checksum: str  # of the data, so that a remembered run knows what it was trained on
    units: tuple[int, ...] | Tensor | None = None  # the outputs that it may use, (N, k) where they differ by image; None: all

    def __post_init__(self):
        for name in ("train_targets", "test_targets"):
            targets = getattr(self, name)
            if isinstance(targets, Tensor) and targets.dtype in _NARROW:  # uint8 would be taken for a mask, others for no index
                object.__setattr__(self, name, targets.long())

    def to(self, device: str | torch.device) -> "Task":
        """The same task with its tensors on `device`."""
        names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        if isinstance(self.units, Tensor):
            moved["units"] = self.units.to(device)
        return replace(self, **moved)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The training images of these rows, and their classes."""
        # A half to a quarter of the time of [rows].
        return self.train_inputs.index_select(0, rows), self.train_targets.index_select(0, rows)


class Permuted:
    """A task whose pixels are moved about, in one order or in several: a `Task` in all but that its images are made when asked for.

    Ten permutations of MNIST would be 2 GB of tensors; the images of a batch take a moment. With T orders the training
    images are the T·N of all of them, order by order.
    """

    def __init__(self, base: Task, orders: Tensor, name: str):
        self.base, self.orders, self.name = base, orders, name  # orders: (T, 784), long

    def __getattr__(self, name):  # only for what is not here: things, classes, embedded, source, checksum, units
        if name.startswith("_") or name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    def to(self, device: str | torch.device) -> "Permuted":
        """The same task with its tensors on `device`."""
        return Permuted(self.base.to(device), self.orders.to(device), self.name)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The training images of these rows, and their classes."""
        count = len(self.base.train_targets)
        images, targets = self.base.batch(rows % count if len(self.orders) > 1 else rows)
        if len(self.orders) == 1:
            return self._moved(images, self.orders[0]), targets
        order = rows // count
        return images.flatten(1).gather(1, self.orders[order]).reshape(images.shape), targets

    @property
    def train_inputs(self) -> Tensor:
        """All training images, (T·N, 1, 28, 28)."""
        return self._all(self.base.train_inputs)

    @property
    def train_targets(self) -> Tensor:
        """Their classes, (T·N,)."""
        return self.base.train_targets.repeat(len(self.orders))

    @property
    def test_inputs(self) -> Tensor:
        """All test images, (T·N, 1, 28, 28)."""
        return self._all(self.base.test_inputs)

    @property
    def test_targets(self) -> Tensor:
        """Their classes, (T·N,)."""
        return self.base.test_targets.repeat(len(self.orders))

    def _all(self, images):
        moved = [self._moved(images, order) for order in self.orders]
        return moved[0] if len(moved) == 1 else torch.cat(moved)

    @staticmethod
    def _moved(images, order):
        return images.flatten(1).index_select(1, order).reshape(images.shape)  # five times as fast as [:, order]


def permuted(task: Task, n: int, seed: int = 0, *, square: int | None = None) -> list[Permuted]:
    """n tasks with the images of `task`: first as they are, then with their pixels in n − 1 random orders (Goodfellow et al. 2013).

    Args:
        seed: of the orders.
        square: the side of the central square in which pixels are moved; None for the whole image.

    Raises:
        ValueError: n is below 1, or the square larger than the image.
    """
    height, width = task.train_inputs.shape[-2:]
    square = min(height, width) if square is None else square
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n is {n!r}; it must be a whole number of at least 1")
    if not isinstance(square, Integral) or not 1 <= square <= min(height, width):
        raise ValueError(f"square is {square!r}; it may be from 1 to {min(height, width)}, or None for the whole image")
    top, left = (height - square) // 2, (width - square) // 2
    places = torch.arange(height * width).reshape(height, width)
    inside = places[top : top + square, left : left + square].flatten()
    generator = torch.Generator().manual_seed(int(seed))
    tasks = []
    for number in range(n):
        order = places.flatten().clone()
        if number:
            order[inside] = inside[torch.randperm(len(inside), generator=generator)]
        name = f"{task.name}, permutation {number}" if number else task.name
        tasks.append(Permuted(task, order[None].to(task.train_inputs.device), name))
    return tasks


def padded(task: Task, border: int) -> Task:
    """The task with a border of so many black pixels around each image.

    Raises:
        ValueError: the border is below 0.
    """
    if not isinstance(border, Integral) or border < 0:
        raise ValueError(f"border is {border!r}; it must be a whole number of at least 0")
    if border == 0:
        return task
    sides = (int(border),) * 4
    return replace(
        task,
        train_inputs=functional.pad(task.train_inputs, sides),
        test_inputs=functional.pad(task.test_inputs, sides),
    )


def normalized(task: Task) -> Task:
    """The task with its pixels shifted and scaled, so that over all training images they have mean 0 and variance 1.

    Raises:
        ValueError: all training pixels are equal.
    """
    mean, deviation = task.train_inputs.mean(), task.train_inputs.std(correction=0)
    if not deviation > 0:
        raise ValueError(f"task {task.name!r} has training images without contrast; to be normalized, pixels must differ")
    return replace(
        task, train_inputs=(task.train_inputs - mean) / deviation, test_inputs=(task.test_inputs - mean) / deviation
    )


Scenario = Literal["task", "domain", "class"]
SCENARIOS = get_args(Scenario)


def split(task: Task, groups: int | Sequence[Sequence[int]] = 5, *, scenario: Scenario = "task") -> list[Task]:
    """The classes of `task` dealt out to several tasks, in one of three scenarios (van de Ven and Tolias 2019).

    Args:
        groups: the classes of each task, or into how many equal groups to cut them, in their order.
        scenario: what is known when an image is to be read. ``"task"``: of which task it is, so that each task has outputs
            of its own, `units`, and targets count within them; ``"domain"``: not of which, and nor does it matter: all
            tasks share as many outputs as a group has classes; ``"class"``: nothing; there is an output for each class.

    Raises:
        ValueError: groups repeat a class, name one that is not there, are of different sizes (in ``"domain"``), or the
            number does not divide the classes.
    """
    count = len(task.classes)
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario is {scenario!r}; it may be one of {', '.join(map(repr, SCENARIOS))}")
    if isinstance(groups, Integral):
        if groups < 1 or count % groups:
            raise ValueError(f"groups is {groups}; it must divide the {count} classes of {task.name}")
        groups = torch.arange(count).reshape(int(groups), -1).tolist()
    groups = [[int(number) for number in group] for group in groups]
    named = [number for group in groups for number in group]
    if not named or len(set(named)) < len(named) or not set(named) <= set(range(count)) or min(map(len, groups)) < 1:
        raise ValueError(f"groups is {groups!r}; each class from 0 to {count - 1} may stand in one group, none empty")
    if scenario == "domain" and len(set(map(len, groups))) > 1:
        raise ValueError(f"groups is {groups!r}; in scenario 'domain' all must have the same size")
    tasks = []
    for group in groups:
        new = torch.full((count,), -1, device=task.train_targets.device)
        new[list(group)] = torch.tensor(list(group) if scenario == "class" else range(len(group)), device=new.device)
        parts = {}
        for part in ("train", "test"):
            inputs, targets = getattr(task, f"{part}_inputs"), getattr(task, f"{part}_targets")
            rows = (new[targets] >= 0).nonzero().squeeze(1)
            parts |= {f"{part}_inputs": inputs[rows], f"{part}_targets": new[targets[rows]]}
        names = tuple(task.classes[number] for number in group)
        tasks.append(
            replace(
                task,
                name=f"{task.name} {', '.join(names)}",
                classes=task.classes if scenario == "class" else names,
                units=tuple(group) if scenario == "task" else None,
                **parts,
            )
        )
    return tasks


def joint(tasks: Sequence[Task]) -> Task:
    """All the tasks as one, whose images come in a mixed order: what a network may learn that never has to remember.

    Raises:
        ValueError: there are none, or some name their outputs and some do not.
    """
    if not tasks:
        raise ValueError("tasks is empty; it must hold at least one task")
    name = " + ".join(task.name for task in tasks)
    if all(isinstance(task, Permuted) and task.base is tasks[0].base for task in tasks):
        return Permuted(tasks[0].base, torch.cat([task.orders for task in tasks]), name)
    if len({task.units is None for task in tasks}) > 1:
        raise ValueError("tasks: some have outputs of their own and some have not; all must be of one scenario")
    parts = {
        part: torch.cat([getattr(task, part) for task in tasks])
        for part in ("train_inputs", "train_targets", "test_inputs", "test_targets")
    }
    units = tasks[0].units
    if units is not None:
        device = parts["train_targets"].device
        units = torch.cat(
            [torch.tensor(task.units, device=device).expand(len(task.train_targets), -1) for task in tasks]
        )
    return replace(tasks[0], name=name, units=units, **parts)


def held_out(task: Task, share: float = 1 / 6) -> Task:
    """The task with its last training images for testing, to choose hyperparameters by: the real test images are not touched.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not (isinstance(share, Real) and 0 < share < 1):
        raise ValueError(f"share is {share!r}; it must lie between 0 and 1")
    kept = len(task.train_targets) - round(share * len(task.train_targets))
    return replace(
        task,
        train_inputs=task.train_inputs[:kept],
        train_targets=task.train_targets[:kept],
        test_inputs=task.train_inputs[kept:],
        test_targets=task.train_targets[kept:],
    )
