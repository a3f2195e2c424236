"""Read formulas: their tokens, and which symbol of the table `book/symbols.yml` each of them is.

Why: one table stands behind equation, code and prose. An author writes ordinary TeX (`F_i`) or the symbol's name as a
macro (`\\fisher_i`); both are looked up here, and what is in no entry stops the build. No Sphinx in this file: the
tests evaluate the chapters' equations with it.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import yaml

TOKEN = re.compile(
    r"\\(?:text|textbf|begin|end|tag|label)\s*\{[^{}]*\}"  # words, not symbols
    r"|\\(?:mathrm|operatorname|mathbf|mathcal|mathbb|hat|bar|tilde)\s*(?:\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z])"
    r"|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.",
    re.DOTALL,
)
# Commands that arrange symbols and are none.
STRUCTURE = set(
    re.findall(
        r"\\(?:[A-Za-z]+|.)",
        r"""\frac \tfrac \dfrac \sqrt \left \right \bigl \bigr \Bigl \Bigr \biggl \biggr \big \Big \mid \| \, \; \: \! \  \\ \{ \} \cdot
        \cdots \dots \ldots \vdots \quad \qquad \underbrace \overbrace \underset \approx \sim \simeq \to \mapsto \Rightarrow
        \Longrightarrow \leftarrow \rightarrow \pm \mp \times \le \leq \ge \geq \ne \neq \ll \gg \in \subset \limits \nolimits
        \textstyle \displaystyle \Vert \lVert \rVert \lvert \rvert \langle \rangle \propto \equiv \text \lfloor \rfloor \middle \vert \iff \colon
        \hphantom \phantom \smash \substack \mathop \circ \odot""",
    )
)
# What stands right behind this is an argument, and a command with arguments of its own needs braces there.
ARGUMENT = re.compile(r"([\^_]|\\[td]?frac\s*(\d|\{[^{}]*\}|[A-Za-z]|\\[A-Za-z]+)?|\\sqrt)\s*$")
FIELDS = {"tex", "name", "reading", "meaning", "shape", "code", "code_on", "value", "introduced", "explained", "pages"}


@dataclass(frozen=True)
class Symbol:
    """One entry of the table."""

    id: str
    tex: str
    name: str
    reading: str
    meaning: str
    shape: str
    introduced: str
    code: tuple[str, ...] = ()  # names that mean it wherever they stand
    code_on: dict = field(default_factory=dict)  # name → the places at which it does: pages, sections, functions
    explained: str = ""  # the page that explains it in full, where that is not the one that introduces it
    value: str = ""  # the name of a published number that is its value in this run
    pages: tuple[str, ...] = ()  # where the bare TeX has this meaning; everywhere if empty

    @property
    def macro(self):
        return "\\" + self.id.replace("-", "")

    @cached_property
    def pattern(self):
        return tuple(token for token in tokens(self.tex) if token not in "{}")

def tokens(tex):
    """The formula in pieces, without white space; `\\hat{\\theta}` and `\\hat \\theta` are one and the same piece."""
    return [canonical(token) for token in TOKEN.findall(tex) if not token.isspace()]


@cache
def canonical(token):
    found = re.fullmatch(r"(\\(?:hat|bar|tilde))\s*\{?\s*([^{}]*?)\s*\}?", token)
    if found:
        return found[1] + (found[2] if found[2].startswith("\\") else f" {found[2]}")
    found = re.fullmatch(r"(\\(?:mathrm|operatorname|mathbf|mathcal|mathbb))\s*\{?\s*([^{}]*?)\s*\}?", token)
    return f"{found[1]}{{{found[2]}}}" if found else token


class Table:
    """The entries of `symbols.yml`, and what a formula's pieces are on a given page."""

    def __init__(self, file: Path):
        self.symbols = {}
        for name, entry in yaml.safe_load(file.read_text("utf8")).items():
            if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name):
                raise ValueError(f"symbols.yml: {name!r} must be lower-case words joined by hyphens")
            unknown, missing = entry.keys() - FIELDS, FIELDS - {"code", "code_on", "value", "explained", "pages"} - entry.keys()
            if unknown or missing:
                raise ValueError(f"symbols.yml: {name} has unknown fields {sorted(unknown)} and lacks {sorted(missing)}")
            lists = {key: tuple(entry.get(key) or ()) for key in ("code", "pages")}
            self.symbols[name] = Symbol(name, **entry | lists)
        self._by_first_piece = {}
        self.macros = {}
        for symbol in self.symbols.values():
            if symbol.macro in STRUCTURE or symbol.macro in self.macros:
                raise ValueError(f"symbols.yml: the macro {symbol.macro} of {symbol.id} is taken")
            self.macros[symbol.macro] = symbol

    def bare_on(self, page):
        """Pattern → symbol for the bare TeX on this page; and what two entries claim there."""
        everywhere = [(symbol.pattern, symbol) for symbol in self.symbols.values() if not symbol.pages]
        here = [(symbol.pattern, symbol) for symbol in self.symbols.values() if page in symbol.pages]
        return _resolved(everywhere, here)

    def _bare_by_first_piece(self, page):
        """First piece → the patterns that begin with it, the longest first, each with its symbol; a page has hundreds of formulas."""
        if page not in self._by_first_piece:
            found = self._by_first_piece[page] = defaultdict(list)
            for pattern, symbol in sorted(self.bare_on(page)[0].items(), key=lambda item: -len(item[0])):
                found[pattern[0]].append((pattern, symbol))
        return self._by_first_piece[page]

    def names_at(self, places, among):
        """Code name → symbol at a place that lies within all of `places`, the nearest last; of these the symbols `among`.

        Returns also what two entries claim at one of the places.
        """
        here = [symbol for symbol in self.symbols.values() if symbol.id in among]
        everywhere = [(name, symbol) for symbol in here for name in symbol.code]
        nearer = [[(name, symbol) for symbol in here for name, at in symbol.code_on.items() if place in at] for place in places]
        return _resolved(everywhere, *nearer)

    def read(self, tex, page):
        """The formula as a `Formula`: marked, plain, the symbols in it, and the pieces that are none."""
        longest_first = self._bare_by_first_piece(page)
        pieces = [piece for raw in TOKEN.findall(tex) for piece in self._expanded(raw)]
        marked, plain, used, unknown = [], [], [], []
        place = 0
        while place < len(pieces):
            token, named = pieces[place]
            if named:
                end, symbol, atoms = place + 1, named, [place]
            else:
                end, symbol, atoms = self._match(pieces, place, longest_first[canonical(token)])
            for at in range(place, end):
                piece = pieces[at][0]
                plain.append(piece)
                wrapped = f"\\class{{sym sym-{symbol.id}}}{{{piece}}}" if symbol and at in atoms else piece
                alone = ARGUMENT.search("".join(plain[:-1])) and wrapped is not piece
                marked.append(f"{{{wrapped}}}" if alone else wrapped)
            if symbol:
                used.append(symbol.id)
            elif is_symbol(token):
                unknown.append(token)
            place = end
        return Formula("".join(marked), "".join(plain), used, unknown)

    def _expanded(self, raw):
        """A macro of the table becomes the pieces of its TeX, each of which knows its symbol."""
        symbol = self.macros.get(raw)
        if symbol is None or symbol.tex == raw:
            return [(raw, None)]
        inner = TOKEN.findall(symbol.tex)
        atoms = [(piece, symbol if piece not in ("^", "_", "{", "}") else None) for piece in inner]
        return [*atoms, (" ", None)] if inner[-1].startswith("\\") else atoms

    @staticmethod
    def _match(pieces, place, longest_first):
        for pattern, symbol in longest_first:
            at, atoms = place, []
            for wanted in pattern:
                # White space does not count, nor do the braces around a script.
                while at < len(pieces) and atoms and (pieces[at][0].isspace() or pieces[at][0] == "{"):
                    at += 1
                if at >= len(pieces) or pieces[at][1] or canonical(pieces[at][0]) != wanted:
                    break
                if wanted not in ("^", "_"):
                    atoms.append(at)
                at += 1
            else:
                if sum(piece == "{" for piece, _ in pieces[place:at]):  # a script in braces holds this and nothing else
                    while at < len(pieces) and pieces[at][0].isspace():
                        at += 1
                    if at >= len(pieces) or pieces[at][0] != "}":
                        continue
                    at += 1
                return at, symbol, atoms
        return place + 1, None, []


def _resolved(*levels):
    """An entry for a nearer place goes before one for a wider place; two for one place are a fault."""
    found, twice = {}, []
    for level in levels:
        claimed = {}
        for key, symbol in level:
            if claimed.setdefault(key, symbol) is not symbol:
                twice.append((claimed[key].id, symbol.id, key if isinstance(key, str) else symbol.tex))
        found |= claimed
    return found, twice


@dataclass(frozen=True)
class Formula:
    """A formula in which every symbol has its class, the same in plain TeX, its symbols, and the pieces that are none."""

    marked: str
    plain: str
    used: list[str]
    unknown: list[str]


def is_symbol(token):
    """Whether a piece of a formula is something that a reader may ask about."""
    if token.startswith(("\\text", "\\begin", "\\end", "\\tag", "\\label")):
        return False
    return token == "*" or (token.startswith("\\") and token not in STRUCTURE) or token.isalpha()
