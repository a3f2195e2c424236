"""The chapters' numbered equations, read from their TeX and computed; and what binds one to the code that computes it.

`Equation.side(k, names)` evaluates a side of the equation as it stands in the chapter, with tensors, numbers and functions
for its symbols. So a test that compares it with a function fails when either changes, and `changed` and `changed_code`
change both on purpose.
"""

import ast
import contextlib
import copy
import inspect
import math
import re
import sys
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book/extensions"))

from ewc_tex import Table, tokens  # noqa: E402

DROPPED = {
    r"\,", r"\;", r"\:", r"\!", r"\\", r"\quad", "&", r"\left", r"\right", r"\textstyle", r"\displaystyle", r"\limits", r"\cdot",
    *(rf"\{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in "lr"),
}  # fmt: skip
BETWEEN_SIDES = {"=", r"\approx", r"\qquad", r"\\", r"\Rightarrow", r"\leftarrow", r"\to"}
OPENING, CLOSING = {"{", "(", "["}, {"}", ")", "]"}
ENDING = {"+", "-", "=", "<", ",", "|", r"\mid", r"\rVert", r"\rvert", r"\otimes", *CLOSING}
BOUND = {}  # name of the test → (label, check, functions)


@cache
def table():
    return Table(ROOT / "book/symbols.yml")


@cache
def numbered():
    """Label → TeX without macros, of every numbered equation of the book."""
    found = {}
    for page in sorted((ROOT / "book").glob("*/*.md")):
        text = re.sub(r"^(`{3,}).*?^\1\s*$", "", page.read_text("utf8"), flags=re.MULTILINE | re.DOTALL)
        for tex, label in re.findall(r"\$\$((?:(?!\$\$).)+?)\$\$ \((eq-[a-z-]+)\)", text, flags=re.DOTALL):
            found[label] = table().read(tex, page.stem).plain
    return found


def bound(label, *functions):
    """Mark a check of an `Equation` as the test that binds the numbered equation `label` to the functions that compute it."""

    def mark(check):
        def test():
            check(Equation.of(label))

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        BOUND[check.__name__] = label, check, functions
        return test

    return mark


def same(found, wanted, tolerance=1e-9):
    """Equal within `tolerance` of the largest entry, in float64."""
    found, wanted = (torch.as_tensor(value, dtype=torch.float64).squeeze() for value in (found, wanted))
    assert found.shape == wanted.shape, f"shapes {tuple(found.shape)} and {tuple(wanted.shape)}"
    difference, size = float((found - wanted).abs().max()), float(wanted.abs().max())
    assert difference <= tolerance * max(size, 1e-3), f"off by {difference:.3g} of {size:.3g}"


class Equation:
    """One numbered equation; `used` remembers the tokens of the sides that were evaluated."""

    def __init__(self, label, pieces):
        self.label, self.pieces, self.used = label, pieces, set()

    @classmethod
    def of(cls, label):
        return cls(label, [piece for piece in tokens(numbered()[label]) if not re.match(r"\\(begin|end|text)\b", piece)])

    def sides(self):
        """Stretches of tokens between =, ≈ and the like, outside all brackets: (first, last + 1)."""
        depth, start, found = 0, 0, []
        for place, piece in enumerate(self.pieces):
            depth += (piece in OPENING) - (piece in CLOSING)
            goes_on = piece == r"\\" and next((each for each in self.pieces[place + 1 :] if each not in DROPPED), "") in "+-"
            if depth == 0 and piece in BETWEEN_SIDES and not goes_on:
                found.append((start, place))
                start = place + 1
        found = [*found, (start, len(self.pieces))]
        return [stretch for stretch in found if set(self.pieces[slice(*stretch)]) - DROPPED - {",", "."}]

    def side(self, number, names, **ranges):
        """The value of a side. `names`: TeX of a symbol → its value; `ranges`: how far an index runs in a sum without bounds."""
        first, last = self.sides()[number]
        self.used |= set(range(first, last))
        pieces = [piece for piece in self.pieces[first:last] if piece not in DROPPED]
        while pieces and pieces[-1] in (",", ".", ";"):
            pieces.pop()
        builtin = {r"\pi": math.pi, "e": math.e}
        return scalar(Reader(pieces, builtin | names, ranges).whole())


class Reader:
    """A recursive-descent reader of a formula, which gives a function from the values of the symbols to the value."""

    def __init__(self, pieces, names, ranges):
        self.pieces, self.at, self.names, self.ranges = unbraced(pieces), 0, names, ranges
        drawn = names.get(r"\operatorname{E}", [(1, {})])[0][1]
        self.patterns = [(unbraced(tokens(tex)), tex) for tex in (*names, *drawn) if tex != r"\operatorname{E}"]
        self.patterns.sort(key=lambda each: -len(each[0]))

    def whole(self):
        value = self.expression()
        if self.at != len(self.pieces):
            raise SyntaxError(f"cannot read {' '.join(self.pieces[self.at :])!r} of {' '.join(self.pieces)!r}")
        return value(dict(self.names))

    def peek(self):
        return self.pieces[self.at] if self.at < len(self.pieces) else None

    def take(self, wanted=None):
        piece = self.peek()
        if piece is None or (wanted is not None and piece != wanted):
            raise SyntaxError(f"{wanted!r} was expected in {' '.join(self.pieces)!r}, not {piece!r}")
        self.at += 1
        return piece

    def expression(self):
        terms = []
        sign = 1
        if self.peek() in ("+", "-"):
            sign = -1 if self.take() == "-" else 1
        while True:
            terms.append((sign, self.term()))
            if self.peek() not in ("+", "-"):
                break
            sign = -1 if self.take() == "-" else 1

        def value(names):
            if len(terms) == 1 and terms[0][0] == 1:
                return terms[0][1](names)
            total = None
            for sign, term in terms:
                here = sign * term(names)
                total = here if total is None else add(total, here)
            return total

        return value

    def term(self):
        value = self.product()
        while self.peek() == r"\otimes":
            self.take()
            value = (lambda left, right: lambda names: torch.kron(column(left(names)), column(right(names))))(
                value, self.product()
            )
        return value

    def product(self):
        value = self.factor()
        while self.peek() is not None and self.peek() not in ENDING:
            if self.peek() == "/":
                self.take()
                value = (lambda above, below: lambda names: above(names) / below(names))(value, self.factor())
            else:
                value = (lambda left, right: lambda names: times(left(names), right(names)))(value, self.factor())
        return value

    def factor(self):
        piece = self.peek()
        if piece in (r"\sum", r"\max"):
            return self.over_an_index(max if self.take() == r"\max" else sum)
        if piece in (r"\log", r"\det"):
            self.take()
            function = torch.log if piece == r"\log" else torch.linalg.det
            inner = self.factor() if piece == r"\det" or self.peek() == "(" else self.term()
            return lambda names: function(torch.as_tensor(inner(names), dtype=torch.float64))
        return self.with_scripts(self.primary())

    def over_an_index(self, gather):
        self.take("_")
        braced = self.peek() == "{" and self.take()
        index = self.take()
        while self.peek() == "'":
            index += self.take()
        low, high = (lambda names: 1), None
        if self.peek() == "=":
            self.take()
            low = self.expression()
        elif self.peek() == "<":
            self.take()
            below = self.expression()
            high = lambda names: below(names) - 1  # noqa: E731
        if braced:
            self.take("}")
        if self.peek() == "^":
            self.take()
            high = self.argument()
        elif high is None:
            high = lambda names: self.ranges[index]  # noqa: E731
        self.patterns = sorted([*self.patterns, (tokens(index), index)], key=lambda each: -len(each[0]))
        body = self.term() if gather is sum else self.factor()

        def value(names):
            found = [body(names | {index: each}) for each in range(int(low(names)), int(high(names)) + 1)]
            return sum(found[1:], found[0]) if gather is sum else max(found)

        return value

    def primary(self):
        for pattern, tex in self.patterns:
            if self.pieces[self.at : self.at + len(pattern)] == pattern:
                self.at += len(pattern)
                return lambda names: names[tex]
        piece = self.take()
        if re.fullmatch(r"[\d.]+", piece):
            return lambda names: float(piece)
        if piece in (r"\frac", r"\tfrac"):
            above, below = self.argument(), self.argument()
            return lambda names: above(names) / below(names)
        if piece == r"\sqrt":
            inside = self.argument()
            return lambda names: torch.as_tensor(inside(names), dtype=torch.float64).sqrt()
        if piece in ("(", "{"):
            inside = self.expression()
            self.take(")" if piece == "(" else "}")
            return inside
        if piece == r"\operatorname{E}":  # over what the test gives: pairs of a probability and the values of the symbols
            self.take("[")
            inside = self.expression()
            self.take("]")
            return lambda names: sum(weight * inside(names | sample) for weight, sample in names[piece])
        if piece == "[":  # Iverson's bracket, or an ordinary one
            inside = self.expression()
            if self.peek() == "=":
                self.take()
                other = self.expression()
                self.take("]")
                return lambda names: float(inside(names) == other(names))
            self.take("]")
            return inside
        if piece == r"\lVert":
            inside = self.expression()
            self.take(r"\rVert")
            return lambda names: torch.linalg.vector_norm(inside(names))
        if piece == r"\lvert":
            inside = self.expression()
            self.take(r"\rvert")
            return lambda names: abs(inside(names))
        if piece == r"\underbrace":
            inside = self.argument()
            if self.peek() == "_":
                self.take()
                self.argument(skip=True)
            return inside
        raise SyntaxError(f"{piece!r} has no value; the names are {', '.join(self.names)}")

    def argument(self, skip=False):
        """A group in braces, or a single token; of \\frac12 each digit."""
        if self.peek() != "{":
            piece = self.peek()
            if re.fullmatch(r"\d\d+", piece or ""):
                self.pieces[self.at : self.at + 1] = [piece[0], piece[1:]]
            return self.primary()
        if skip:
            depth = 0
            while True:
                piece = self.take()
                depth += (piece == "{") - (piece == "}")
                if depth == 0:
                    return None
        self.take("{")
        inside = self.expression()
        self.take("}")
        return inside

    def with_scripts(self, base):
        """Indices, powers, and the arguments of what is a function: `s_i(x, y)^2`."""
        function = callable(self.known(base))
        places = []
        while self.peek() in ("_", "^", "("):
            if self.peek() == "_":
                self.take()
                places += self.subscript()
                if not function:
                    base, places = indexed(base, places), []
            elif self.peek() == "(":
                if not function:
                    break
                base, function, places = indexed(self.called(base), places), False, []
            else:
                self.take()
                base = self.raised(base)
        return base

    def known(self, base):
        try:
            return base(self.names)
        except (KeyError, TypeError, IndexError):
            return None

    def called(self, function):
        self.take("(")
        arguments = [self.expression()]
        while self.peek() in (",", r"\mid"):
            self.take()
            arguments.append(self.expression())
        self.take(")")
        return lambda names: function(names)(*(argument(names) for argument in arguments))

    def subscript(self):
        """The indices of a script: `Tj` are two, and so are `j-1,j`."""
        if self.peek() != "{":
            return [self.primary()]
        self.take("{")
        found = []
        while self.peek() != "}":
            found.append(self.primary())
            while self.peek() in ("+", "-"):
                found[-1] = shifted(found[-1], 1 if self.take() == "+" else -1, self.primary())
            if self.peek() == ",":
                self.take()
        self.take("}")
        return found

    def raised(self, base):
        """After ^: a transpose, an inverse, or a power."""
        if self.peek() == r"\top":
            self.take()
            return lambda names: column(base(names)).T
        if self.pieces[self.at : self.at + 4] == ["{", "-", r"\top", "}"]:
            self.at += 4
            return lambda names: torch.linalg.inv(base(names)).T
        power = self.argument()

        def value(names):
            here, exponent = base(names), power(names)
            inverse = exponent == -1 and getattr(here, "ndim", 0) == 2
            return torch.linalg.inv(here) if inverse else here**exponent

        return value


def shifted(index, sign, by):
    return lambda names: index(names) + sign * by(names)


def indexed(base, places):
    if not places:
        return base
    return lambda names: at(base(names), [place(names) for place in places])


def at(value, places):
    for place in places:
        if int(place) < 1:
            raise IndexError("indices count from 1")
        value = value[int(place) - 1]
    return value


def unbraced(pieces):
    """A script of one token needs no braces, and empty ones say nothing."""
    found = list(pieces)
    for place in range(len(found) - 2, -1, -1):
        if found[place : place + 2] == ["{", "}"]:
            del found[place : place + 2]
    for place in range(len(found) - 3, 0, -1):
        if found[place - 1] in ("^", "_") and found[place] == "{" and found[place + 2] == "}":
            found[place : place + 3] = [found[place + 1]]
    return found


def column(value):
    value = torch.as_tensor(value, dtype=torch.float64)
    return value[:, None] if value.ndim == 1 else value


def scalar(value):
    return value.reshape(()) if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def dimensions(value):
    return getattr(value, "ndim", 0)


def times(left, right):
    if dimensions(left) == 0 or dimensions(right) == 0:
        return left * right
    return scalar(column(left) @ column(right))


def add(left, right):
    if dimensions(left) != dimensions(right) and dimensions(left) and dimensions(right):
        left, right = column(left), column(right)
    return left + right


def changed(equation):
    """The equation with one sign, number or index changed, within the sides that were evaluated; each with a word for it."""
    for place in sorted(equation.used):
        piece = equation.pieces[place]
        scripts = equation.pieces[max(0, place - 1) : place] == ["_"]
        replacements = {"+": ["-"], "-": ["+"]}.get(piece, [])
        if re.fullmatch(r"\d+", piece):
            replacements = [piece[:k] + str((int(piece[k]) + 1) % 10) + piece[k + 1 :] for k in range(len(piece))]
        if scripts and piece.isalpha():
            replacements = ["1"]
        for other in replacements:
            pieces = [*equation.pieces[:place], other, *equation.pieces[place + 1 :]]
            yield f"{piece} became {other} at {place}", Equation(equation.label, pieces)
        two = equation.pieces[place : place + 4]
        if scripts and len(two) == 4 and two[0] == "{" and two[3] == "}" and two[1] != two[2]:
            pieces = [*equation.pieces[: place + 1], two[2], two[1], *equation.pieces[place + 3 :]]
            yield f"{two[1]}{two[2]} became {two[2]}{two[1]}", Equation(equation.label, pieces)


def bindings():
    """Every {source} directive of the book that binds: the name shown, its equations, and its options."""
    for page in sorted((ROOT / "book").glob("*/*.md")):
        for directive in re.findall(r"^```\{source\}.*?^```", page.read_text("utf8"), flags=re.MULTILINE | re.DOTALL):
            options = dict(re.findall(r"^:(\w+): (.+)$", directive, flags=re.MULTILINE))
            if "equation" in options:
                yield re.match(r"```\{source\} (\S+)", directive)[1], options["equation"].split(), options


def shown_lines(label, function):
    """The numbers of the lines of `function` that the page shows as the code of the equation `label`."""
    function = inspect.unwrap(function)
    name = f"{function.__module__}.{function.__qualname__}"
    for shown, labels, options in bindings():
        if label in labels and shown == name:
            lines, first = inspect.getsourcelines(function)
            start = next(at for at, line in enumerate(lines) if options.get("from", "") in line)
            end = next((at for at, line in enumerate(lines) if at >= start and options.get("to", "\0") in line), len(lines))
            return range(first + start, first + end + 1)
    raise LookupError(f"no page shows {name} as the code of {label}")


class _Change(ast.NodeTransformer):
    """Change the `wanted`-th sign, number or operation on some lines of a function; checks of the arguments are left alone."""

    def __init__(self, wanted, lines):
        self.wanted, self.lines, self.seen, self.what = wanted, lines, -1, ""

    def _now(self, what, node):
        if node.lineno not in self.lines:
            return False
        self.seen += 1
        if self.seen == self.wanted:
            self.what = f"line {node.lineno}: {what}"
        return self.seen == self.wanted

    def visit_If(self, node):
        return node if any(isinstance(each, ast.Raise) for each in node.body) else self.generic_visit(node)

    def visit_Raise(self, node):
        return node

    def visit_Expr(self, node):
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        other = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}.get(type(node.op))
        if other and self._now(f"{ast.unparse(node)}: {type(node.op).__name__} became {other.__name__}", node):
            node.op = other()
        return node

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Add) and self._now(f"{ast.unparse(node)}: += became -=", node):
            node.op = ast.Sub()
        return node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.USub) and self._now(f"{ast.unparse(node)}: the minus went", node):
            return node.operand
        return node

    def visit_Constant(self, node):
        number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        if number and self._now(f"{node.value} became {node.value + 1}", node):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node


def changed_code(function, lines):
    """Context managers under which `function` has one sign, number or operation of `lines` changed; each with a word for it."""
    function = inspect.unwrap(function)
    module = ast.parse(Path(inspect.getsourcefile(function)).read_text("utf8"))
    path = function.__qualname__.split(".")
    for number in range(1000):
        tree = copy.deepcopy(module)
        node = tree
        for name in path:
            node = next(each for each in node.body if getattr(each, "name", None) == name)
        change = _Change(number, lines)
        node.body = [change.visit(statement) for statement in node.body]
        if not change.what:
            return
        code = compile(ast.fix_missing_locations(tree), inspect.getsourcefile(function), "exec")
        for name in path:
            code = next(each for each in code.co_consts if inspect.iscode(each) and each.co_name == name)
        yield change.what, _with_code(function, code)


@contextlib.contextmanager
def _with_code(function, code):
    kept = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = kept
