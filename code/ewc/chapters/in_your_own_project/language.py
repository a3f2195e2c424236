"""Two texts that every machine with this book has, and a small transformer that learns to write them.

The English is that of docstrings in installed packages, the Python is that of the standard library without its docstrings. Both
are read from the files that are there: nothing is fetched, and nothing of them comes with the book.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import platform
import re
import string
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGES = ("numpy", "sklearn")  # whose authors write whole sentences, and many
DISTRIBUTIONS = ("numpy", "scikit-learn")
ALPHABET = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))
_NO_WORDS = re.compile(r"[^A-Za-z ,.]")
_LETTERS = 900_000  # of a text at most: reading them takes seconds, and no lesson on a CPU comes to the end


def versions() -> str:
    """What the texts are made of. Another version has other sentences, and what was learned from it is another record."""
    return ", ".join([*(f"{name} {importlib.metadata.version(name)}" for name in DISTRIBUTIONS), f"Python {platform.python_version()}"])


@functools.cache
def english() -> Tensor:
    """The prose of docstrings, paragraph by paragraph, as places in `ALPHABET`: (letters,), int64."""
    folders = [Path(importlib.util.find_spec(name).submodule_search_locations[0]) for name in PACKAGES]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py")) if "tests" not in file.relative_to(folder).parts]
    found = (paragraph for file in files for paragraph in _prose(file.read_text("utf8")))
    return encoded("\n".join(dict.fromkeys(found)))  # many a paragraph stands in ten docstrings


@functools.cache
def python() -> Tensor:
    """The modules of the standard library, without comments and docstrings, as places in `ALPHABET`: (letters,), int64."""
    found, letters = [], 0
    for code in map(_bare, sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))):
        if code.isascii():
            found.append(code)
            letters += len(code)
        if letters > _LETTERS:
            break
    return encoded("\n".join(found))


def _prose(source):
    for node in _documented(ast.parse(source)):
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            text = " ".join(paragraph.split())
            if len(text) > 100 and text.isascii() and len(_NO_WORDS.sub("", text)) > 0.95 * len(text):
                yield text


def _documented(node):
    """A module, and the classes and functions in it, which may have docstrings. What stands under an `if` is left out: looking there costs more."""
    yield node
    for inside in node.body:
        if isinstance(inside, ast.ClassDef | ast.FunctionDef):
            yield from _documented(inside)


def _bare(file):
    tree = ast.parse(file.read_text("utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def encoded(text: str) -> Tensor:
    """Places in `ALPHABET`; a tab and the like is a space, and what is not ASCII a question mark."""
    places = torch.full((128,), ALPHABET.index(" "))
    places[[ord(letter) for letter in ALPHABET]] = torch.arange(len(ALPHABET))
    return places[list(text[:_LETTERS].encode("ascii", "replace"))]


def decoded(places: Tensor) -> str:
    """The text of places in `ALPHABET`."""
    return "".join(ALPHABET[place] for place in places.tolist())


def parts(text: Tensor) -> dict[str, Tensor]:
    """The first nine tenths to learn from, the next twentieth to choose by, the last to report on."""
    cuts = [len(text) * 90 // 100, len(text) * 95 // 100]
    return dict(zip(("learned", "held out", "reported"), text.tensor_split(cuts), strict=True))


def sequences(text: Tensor, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stretches of the text from random places on, and each one's next letters: both (count, length)."""
    starts = torch.randint(len(text) - length, (count, 1), generator=generator).to(text.device)
    found = text[starts + torch.arange(length + 1, device=text.device)]
    return found[:, :-1], found[:, 1:]


class Writer(nn.Module):
    """A transformer that gives each place of a text the logits of the letter that follows: (N, T) → (N, T, letters).

    The table that letters are looked up in is also the last layer: the two share their weights.
    """

    def __init__(self, *, width: int = 96, heads: int = 4, blocks: int = 2, length: int = 64):
        super().__init__()
        self.letters = nn.Embedding(len(ALPHABET), width)
        nn.init.normal_(self.letters.weight, std=0.1)  # small: an untrained last layer should say next to nothing
        self.blocks = nn.Sequential(*(_Block(width, heads, length) for _ in range(blocks)))
        self.norm, self.next = nn.LayerNorm(width), nn.Linear(width, len(ALPHABET), bias=False)
        self.next.weight = self.letters.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.next(self.norm(self.blocks(self.letters(inputs))))


class _Block(nn.Module):
    """Each place looks at those before it, then thinks by itself; both are added to what it was.

    A head sees what is far away less, by a slope of its own (Press et al. 2022). So places need no table, and the nearest letters
    count from the first step on, which a lesson of minutes needs.
    """

    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        back = torch.arange(length)[:, None] - torch.arange(length)
        slopes = 2.0 ** (1 - 2 * torch.arange(heads))
        self.register_buffer("far", (-slopes[:, None, None] * back).masked_fill(back < 0, float("-inf")), persistent=False)
        self.norm_looking, self.norm_thinking = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.looked = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.thinking = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        query, key, value = self.asked(self.norm_looking(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.far[None, :, : x.shape[1], : x.shape[1]])
        x = x + self.looked(seen.transpose(1, 2).flatten(2))
        return x + self.thinking(self.norm_thinking(x))


def bits_per_character(model: nn.Module, text: Tensor, *, length: int = 64, count: int = 512) -> float:
    """Mean of −log₂ p of the next letter, over `count` stretches that are the same for every model."""
    inputs, wanted = sequences(text, count, length, torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = sum(
            nn.functional.cross_entropy(model(some).flatten(0, 1), next_ones.flatten(), reduction="sum")
            for some, next_ones in zip(inputs.split(64), wanted.split(64), strict=True)
        )
    return float(nats) / wanted.numel() / torch.log(torch.tensor(2.0)).item()


def bits_of_counting(text: Tensor) -> float:
    """The bits a letter of a text whose letters are only counted: what is known before anything is learned from their order."""
    shares = torch.bincount(text).double() / len(text)
    return float(-(shares * shares.clamp(min=1e-300).log2()).sum())


def written(model: nn.Module, start: str, count: int, *, length: int = 64, seed: int = 0) -> str:
    """What the model writes after `start`, letter by letter, each drawn from its probabilities made a little sharper (p^1.25)."""
    generator, text = torch.Generator().manual_seed(seed), encoded(start)
    device = next(model.parameters()).device
    for _ in range(count):
        with torch.no_grad():
            p = (1.25 * model(text[None, -length:].to(device))[0, -1]).softmax(-1).cpu()
        text = torch.cat([text, torch.multinomial(p, 1, generator=generator)])
    return decoded(text)
