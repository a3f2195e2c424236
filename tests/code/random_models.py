"""Random networks: each is a recipe, so that a failure can be read, shrunk and written down.

A recipe names the parts of a network (random_parts.py), the changes made to its layers, and how its examples look.
"""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from random_parts import CHANGES, HEADS, PARTS, POOLS, READERS, TOKENS, WIDTH, WORDS, Kit
from torch import nn

SHAPES = {"vector": (WIDTH,), "tokens": (TOKENS, WIDTH), "image": (2, 4, 4)}

# What the module does not do yet; the tests say so where one of these is in play, and fail when it is mended and still listed.
OPEN = set()


def known(cases, name):
    """The cases of a test, of which those that are open are expected to fail."""
    mark = pytest.mark.xfail(strict=True, reason="open")
    return [pytest.param(case, marks=mark if name(case) & OPEN else ()) for case in cases]


@dataclass(frozen=True)
class Recipe:
    """A network and its examples, as the names of what they are made of."""

    kind: str
    parts: tuple[str, ...] = ()
    pool: str = ""
    after: tuple[str, ...] = ()
    head: str = "plain"
    changes: tuple[tuple[str, int], ...] = ()
    classes: int = 3
    examples: int = 4
    blank: bool = False  # the first example is zero
    twins: bool = False  # the last example is the first one again
    seed: int = 0

    def names(self):
        return {*self.parts, *self.after, self.head}


def one_of_each():
    """Every part, head and change by itself, beside a plain layer."""
    for kind, table in PARTS.items():
        new = [name for name in table if kind == "vector" or table[name] is not PARTS["vector"].get(name)]
        yield from (Recipe(kind, (name,), {"vector": "", "tokens": "mean", "image": "flat"}[kind]) for name in new)
        yield from (Recipe(kind, pool=name) for name in POOLS.get(kind, ()))
    yield from (Recipe("words", (name,), "mean") for name in READERS)
    yield from (Recipe("words", (name,), "mean", head="words_again") for name in ("embedding", "sparse_embedding"))
    yield from (Recipe("vector", ("linear",), head=name) for name in HEADS)
    yield from (Recipe("vector", ("linear", "tanh", "linear"), changes=((name, 0),)) for name in CHANGES)


@st.composite
def recipes(draw):
    """Any network of one to seven parts."""

    def some(table, least, most):
        return tuple(draw(st.lists(st.sampled_from(list(table)), min_size=least, max_size=most)))

    kind = draw(st.sampled_from(["vector", "tokens", "image", "words"]))
    inner = "tokens" if kind == "words" else kind
    before = (draw(st.sampled_from(list(READERS))),) if kind == "words" else ()
    parts = before + some(PARTS[inner], 1, 2)
    pool = "" if kind == "vector" else draw(st.sampled_from(list(POOLS[inner])))
    after = some(PARTS["vector"], 0, 2)
    changes = draw(st.lists(st.tuples(st.sampled_from(list(CHANGES)), st.integers(0, 5)), max_size=2))
    return Recipe(
        kind,
        parts,
        pool,
        after,
        head=draw(st.sampled_from(list(HEADS))),
        changes=tuple(changes),
        classes=draw(st.integers(2, 4)),
        examples=draw(st.integers(1, 6)),
        blank=draw(st.booleans()),
        twins=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def build(recipe):
    """The network of a recipe and its examples, in the default type."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        kit = Kit(recipe.classes)
        inner = "tokens" if recipe.kind == "words" else recipe.kind
        made = [(READERS | PARTS[inner])[name](kit) for name in recipe.parts]
        made += [POOLS[inner][recipe.pool](kit)] if recipe.pool else []
        made += [PARTS["vector"][name](kit) for name in recipe.after]
        network = nn.Sequential(*made, HEADS[recipe.head](kit))
        with torch.no_grad():
            for parameter in network.parameters():  # no weight keeps a special value, such as the ones of a norm
                parameter += 0.2 * torch.randn_like(parameter)
            for name, buffer in network.named_buffers():
                if "running" in name:
                    buffer.uniform_(0.5, 1.5)
        for name, place in recipe.changes:
            if kit.layers:
                CHANGES[name](network, kit.layers[place % len(kit.layers)])
        if not any(parameter.requires_grad for parameter in network.parameters()):
            network.requires_grad_(True)
        words = torch.randint(0, WORDS, (recipe.examples, TOKENS))
        inputs = words if recipe.kind == "words" else torch.randn(recipe.examples, *SHAPES[recipe.kind])
    if recipe.blank:
        inputs[0] = 0
    if recipe.twins:
        inputs[-1] = inputs[0]
    return network, inputs
