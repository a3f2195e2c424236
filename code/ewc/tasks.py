"""The data: each task is a handful of tensors, 28 × 28 images with values from 0 to 1 and their class indices.

MNIST and Fashion-MNIST are looked for in the folder that the environment variable EWC_DATA names (torchvision's layout), in
torchvision's cache folder, and last on the network, by torchvision's own download. Where all three fail, two embedded
data sets stand in: scikit-learn's handwritten digits, and letters drawn in the fonts that matplotlib ships.

From one data set come sequences of tasks: `permuted` shuffles the pixels, `split` deals out the classes. `joint` puts tasks
together again, for the network that may see everything at once.
"""

import hashlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

# SHA-256 of the published files, uncompressed, in the order _FILES.
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_PUBLISHED = {
    "MNIST": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "FashionMNIST": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

_DIGITS = tuple("0123456789")
_LETTERS = tuple("ABCDEFGHIJ")
_CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)


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

    def to(self, device: str | torch.device) -> "Task":
        """The same task with its tensors on `device`."""
        names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
        moved = {name: getattr(self, name).to(device) for name in names}
        if isinstance(self.units, Tensor):
            moved["units"] = self.units.to(device)
        return replace(self, **moved)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The training images of these rows, and their classes."""
        return self.train_inputs[rows], self.train_targets[rows]


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
        order, row = rows // len(self.base.train_targets), rows % len(self.base.train_targets)
        images, targets = self.base.train_inputs[row], self.base.train_targets[row]
        if len(self.orders) == 1:
            return self._moved(images, self.orders[0]), targets
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
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n is {n!r}; it must be a whole number of at least 1")
    if not 1 <= square <= min(height, width):
        raise ValueError(f"square is {square!r}; it may be from 1 to {min(height, width)}, or None for the whole image")
    top, left = (height - square) // 2, (width - square) // 2
    places = torch.arange(height * width).reshape(height, width)
    inside = places[top : top + square, left : left + square].flatten()
    generator = torch.Generator().manual_seed(seed)
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
    if not isinstance(border, int) or border < 0:
        raise ValueError(f"border is {border!r}; it must be a whole number of at least 0")
    if border == 0:
        return task
    sides = (border,) * 4
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


SCENARIOS = ("task", "domain", "class")


def split(task: Task, groups: int | Sequence[Sequence[int]] = 5, *, scenario: str = "task") -> list[Task]:
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
    if isinstance(groups, int):
        if groups < 1 or count % groups:
            raise ValueError(f"groups is {groups}; it must divide the {count} classes of {task.name}")
        groups = torch.arange(count).reshape(groups, -1).tolist()
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
    if not 0 < share < 1:
        raise ValueError(f"share is {share!r}; it must lie between 0 and 1")
    kept = len(task.train_targets) - round(share * len(task.train_targets))
    return replace(
        task,
        train_inputs=task.train_inputs[:kept],
        train_targets=task.train_targets[:kept],
        test_inputs=task.train_inputs[kept:],
        test_targets=task.train_targets[kept:],
    )


def paired() -> tuple[Task, Task]:
    """The book's two tasks: MNIST and Fashion-MNIST where they can be had, else digits and letters."""
    return (digits(), letters()) if find_data() is None else (mnist(), fashion_mnist())


def mnist() -> Task:
    """MNIST: 60,000 handwritten digits to learn from and 10,000 to test with (LeCun, Cortes and Burges).

    Raises:
        FileNotFoundError: the files are in none of the places and cannot be downloaded.
        ValueError: a file is truncated or altered; the message names it.
    """
    return _published("MNIST", "MNIST", "digits", _DIGITS)


def fashion_mnist() -> Task:
    """Fashion-MNIST: 60,000 pictures of clothing to learn from and 10,000 to test with (Xiao, Rasul and Vollgraf 2017).

    Raises:
        As `mnist`.
    """
    return _published("FashionMNIST", "Fashion-MNIST", "pieces of clothing", _CLOTHES)


@cache
def digits() -> Task:
    """scikit-learn's 1,797 handwritten digits, 8 × 8 enlarged to 28 × 28: MNIST's embedded stand-in."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = functional.interpolate(
        torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, (28, 28), mode="bilinear"
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return _embedded(
        "digits", "digits", _DIGITS, images[order], torch.tensor(bunch.target)[order], 1437, "scikit-learn"
    )


@cache
def letters() -> Task:
    """The letters A to J in 21 fonts, dark on grey, turned, slanted, scaled and moved by a fixed seed: Fashion-MNIST's embedded stand-in."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    glyphs = []
    for font_name in _FONTS:
        font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", f"{font_name}.ttf")), 44)
        for letter in _LETTERS:
            glyph = Image.new("L", (56, 56))
            ImageDraw.Draw(glyph).text((28, 28), letter, fill=255, font=font, anchor="mm")
            glyphs.append(torch.frombuffer(bytearray(glyph.tobytes()), dtype=torch.uint8).reshape(1, 56, 56))
    variants = 33
    source = torch.stack(glyphs).float().div(255).repeat(variants, 1, 1, 1)
    targets = torch.arange(len(_LETTERS)).repeat(len(_FONTS) * variants)
    generator = torch.Generator().manual_seed(0)

    def between(low, high):
        return low + (high - low) * torch.rand(len(source), generator=generator)

    turn, slant, scale = between(-0.15, 0.15), between(-0.3, 0.3), between(0.85, 1.15)
    place = torch.stack(
        [
            torch.stack([turn.cos(), slant - turn.sin(), between(-0.1, 0.1)], 1),
            torch.stack([turn.sin(), turn.cos(), between(-0.1, 0.1)], 1),
        ],
        1,
    )
    place[:, :, :2] *= scale[:, None, None]
    grid = functional.affine_grid(place, (len(source), 1, 28, 28), align_corners=False)
    ink = functional.grid_sample(source, grid, align_corners=False)
    images = 0.4 * (1 - ink)  # dark on grey: after digits, something else to look at, as clothing is
    order = torch.randperm(len(images), generator=generator)
    return _embedded("letters", "letters", _LETTERS, images[order], targets[order], 6000, "matplotlib's fonts")


@cache
def find_data() -> Path | None:
    """The folder that holds both published data sets, complete and unaltered; None where the stand-ins have to serve.

    ``EWC_DATA=embedded`` asks for the stand-ins. The files are downloaded where no folder has them and there is a network.

    Raises:
        FileNotFoundError: EWC_DATA names a folder that does not hold them.
        ValueError: a file is truncated or altered; the message names it.
    """
    chosen = os.environ.get("EWC_DATA")
    if chosen == "embedded":
        return None
    if chosen:
        folder = Path(chosen).expanduser().resolve()
        missing = [name for name in _PUBLISHED if not _holds(folder, name)]
        if missing:
            raise FileNotFoundError(
                f"EWC_DATA is {chosen!r}, which has no {missing[0]}/raw/{_FILES[0]}; it may be a folder in torchvision's layout, "
                "the word 'embedded' for the built-in stand-ins, or unset"
            )
        return folder
    folder = Path(torch.hub.get_dir()).parent / "datasets"
    return folder if all(_holds(folder, name) or _downloaded(folder, name) for name in _PUBLISHED) else None


def _holds(folder, name):
    """Whether the four files are there; a truncated or altered one is reported, never read."""
    paths = [folder / name / "raw" / file for file in _FILES]
    if not all(path.is_file() for path in paths):
        return False
    for path, published in zip(paths, _PUBLISHED[name], strict=True):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != published:
            raise ValueError(
                f"{path} is not the published file ({path.stat().st_size} bytes, SHA-256 {found[:12]}…): delete it and fetch it again"
            )
    return True


def _downloaded(folder, name):
    from torchvision import datasets

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # a network that swallows packets must not hold the build for ever
    try:
        getattr(datasets, name)(str(folder), download=True)
    except (OSError, RuntimeError):
        return False
    finally:
        socket.setdefaulttimeout(before)
    return _holds(folder, name)


@cache
def _published(folder_name, name, things, classes):
    folder = find_data()
    if folder is None:
        raise FileNotFoundError(
            f"{name} was not found and could not be downloaded; EWC_DATA may name a folder that holds it"
        )
    tensors = []
    for images, labels in (_FILES[:2], _FILES[2:]):
        raw = folder / folder_name / "raw"
        tensors += [_bytes(raw / images, 16).reshape(-1, 1, 28, 28).float().div_(255), _bytes(raw / labels, 8).long()]
    checksum = hashlib.sha256("".join(_PUBLISHED[folder_name]).encode()).hexdigest()
    return Task(name, things, classes, *tensors, embedded=False, source="the published files", checksum=checksum)


def _bytes(path, header):
    """The bytes of a file behind its header. Its length was checked with its SHA-256; to import torchvision takes seconds."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8, offset=header)


def _embedded(name, things, classes, images, targets, train, source):
    checksum = hashlib.sha256(images.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()
    tensors = (images[:train], targets[:train], images[train:], targets[train:])
    return Task(name, things, classes, *tensors, embedded=True, source=source, checksum=checksum)
