# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The data: each task is a handful of tensors, 28 × 28 images with values from 0 to 1 and their class indices.

MNIST and Fashion-MNIST are looked for in the folder that the environment variable EWC_DATA names (torchvision's layout), in
torchvision's cache folder, and last on the network, by torchvision's own download. Where all three fail, two embedded
data sets stand in: scikit-learn's handwritten digits, and letters drawn in the fonts that matplotlib ships.
"""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional

from .tasks import Task

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
        for name in _PUBLISHED:
            if not _holds(folder, name):
                raise FileNotFoundError(
                    f"EWC_DATA is {chosen!r}, {_lack(folder, name)}; it may be a folder in torchvision's layout, "
                    "the word 'embedded' for the built-in stand-ins, or unset"
                )
        return folder
    folder = Path(torch.hub.get_dir()).parent / "datasets"
    return folder if all(_holds(folder, name) or _downloaded(folder, name) for name in _PUBLISHED) else None


def _lack(folder, name):
    """What is wrong with the first of the files that is not there, in the words of a sentence that goes on."""
    place, path = next((f"{name}/raw/{file}", folder / name / "raw" / file) for file in _FILES if not (folder / name / "raw" / file).is_file())
    if path.is_dir():
        return f"where {place} is a folder and has to be a file"
    if path.with_name(f"{path.name}.gz").is_file():
        return f"which has {place}.gz and needs it unpacked (gunzip --keep)"
    return f"which has no {place}" if folder.is_dir() else "which is no folder"


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
                f"{path} is not the published file ({path.stat().st_size} bytes, SHA-256 {found[:12]}…): delete it and fetch it again, "
                "which happens by itself where EWC_DATA is unset and there is a network"
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
