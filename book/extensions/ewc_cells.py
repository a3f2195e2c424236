"""The code cells of a page as text: what each is called, whether a reader sees it, and which names it takes from which other.

Why: what is seen on a page is to run in the order seen. A cell that gives a name to one that is shown must be shown too, folded
where it would be in the way. Nothing here needs Sphinx, so tests and the extension `ewc_takeaway` ask the same questions.
"""

import ast
import builtins
import re
import symtable
from dataclasses import dataclass

import yaml

# A fence of backticks, its cell, and the text's headings outside of fences.
PIECE = re.compile(r"^(?P<fence>`{3,})(?P<kind>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$|^(?P<heading>#{1,4} [^\n]+)$", re.S | re.M)
OPTIONS = re.compile(r"\A(?:---\n(?P<block>.*?)^---\n|(?P<lines>(?::[\w-]+:[^\n]*\n)+))", re.S | re.M)
HIDDEN = {"remove-cell", "remove-input"}


@dataclass(frozen=True)
class Cell:
    """A code cell: the line of the page where its code begins, the code, its tags, the name and caption of its figure."""

    line: int
    code: str
    tags: frozenset
    figure: str = ""

    @property
    def shown(self) -> bool:
        """Whether its code is on the page, open or folded."""
        return not self.tags & HIDDEN

    @property
    def open(self) -> bool:
        """Whether it is on the page without a fold."""
        return self.shown and "hide-input" not in self.tags

    @property
    def title(self) -> str:
        """What it is for, where its code is not simply on the page."""
        if self.figure:
            return f"the figure {self.figure}"
        statements = ast.parse(self.code).body
        if any(isinstance(each, ast.Import | ast.ImportFrom) for each in statements):
            return "set-up"
        if all(is_for_the_text(each) for each in statements):
            return "numbers for the text"
        return "numbers for the text, and their checks" if "page.number" in self.code else "a step on the way"


def is_for_the_text(statement) -> bool:
    """`page.number(…)`, or a loop, a condition, an assertion or a `with` that holds nothing else."""
    if isinstance(statement, ast.For | ast.If | ast.With):
        return all(is_for_the_text(each) for each in statement.body)
    return "page.number" in ast.unparse(statement) and isinstance(statement, ast.Expr | ast.Assign)


def cells(text: str) -> list[Cell | str]:
    """The code cells of a page in their order, and between them its headings, as text."""
    found = []
    for piece in PIECE.finditer(text):
        if piece["heading"]:
            found.append(piece["heading"])
        elif piece["kind"].startswith("{code-cell}"):
            options = OPTIONS.match(piece["body"])
            skipped = options.end() if options else 0
            metadata = read(options) if options else {}
            figure = metadata.get("mystnb", {}).get("figure", {}).get("name", "")
            line = text.count("\n", 0, piece.start("body") + skipped) + 1
            found.append(Cell(line, piece["body"][skipped:].strip("\n"), frozenset(metadata.get("tags", ())), figure))
    return found


def read(options) -> dict:
    if options["block"] is not None:
        return yaml.safe_load(options["block"]) or {}
    return {name: yaml.safe_load(value) for name, value in re.findall(r"^:([\w-]+):(.*)$", options["lines"], re.M)}


def names(code: str) -> tuple[set[str], set[str]]:
    """The names that a cell takes from the cells before it, and those that it gives to the ones after it."""
    taken, given = of_statements(ast.parse(code).body)
    return taken - set(dir(builtins)), given


def of_statements(statements) -> tuple[set[str], set[str]]:
    taken, given = set(), set()
    for each in statements:
        for takes, gives in parts(each):
            taken |= takes - given
            given |= gives
    return taken, given


def parts(statement):
    """What a statement takes and gives, in the order in which it does so."""
    match statement:
        case ast.For(target=target, iter=values):
            yield reads(values), set()
            yield loaded(target), bound(ast.Assign([target], ast.Constant(0), lineno=0))
        case ast.While(test=test) | ast.If(test=test):
            yield reads(test), bound(ast.Expr(test))        # `if found := …`
        case ast.With(items=items):
            yield set().union(*(reads(each.context_expr) for each in items)), {
                each.optional_vars.id for each in items if isinstance(each.optional_vars, ast.Name)
            }
        case ast.Try():
            pass
        case ast.Assign(targets=targets, value=value):
            yield reads(value).union(*map(loaded, targets)), bound(statement)
            return
        case ast.AugAssign(target=target, value=value):
            yield reads(value) | reads(target), bound(statement)
            return
        case _:
            yield reads(statement), bound(statement)
            return
    for block in ("body", "orelse", "finalbody"):
        yield of_statements(getattr(statement, block, []))


def loaded(target) -> set[str]:
    """What `a[i] = …` takes: both."""
    return {each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def reads(node) -> set[str]:
    """The names that it takes, and those that functions, classes and comprehensions in it take from outside."""
    table = scopes_of(node)
    return {each.get_name() for each in table.get_symbols() if each.is_referenced()} | inside(table)


class _Generators(ast.NodeTransformer):
    """Every comprehension as a generator: from Python 3.12 on the names of the others count as those of what is around them."""

    def visit(self, node):
        node = super().visit(node)
        if isinstance(node, ast.ListComp | ast.SetComp):
            return ast.GeneratorExp(node.elt, node.generators)
        if isinstance(node, ast.DictComp):
            return ast.GeneratorExp(ast.Tuple([node.key, node.value], ast.Load()), node.generators)
        return node


def scopes_of(node) -> symtable.SymbolTable:
    """Which names are read and bound in it, and in the functions, classes and comprehensions in it."""
    return symtable.symtable(ast.unparse(_Generators().visit(ast.parse(ast.unparse(node)))), "cell", "exec")


def inside(table) -> set[str]:
    found = set()
    for child in table.get_children():
        found |= {each.get_name() for each in child.get_symbols() if each.is_global() and each.is_referenced()} | inside(child)
    return found


def bound(statement) -> set[str]:
    table = scopes_of(statement)
    own = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported() or each.is_namespace()}
    return own | handed_out(table)


def handed_out(table) -> set[str]:
    """What `:=` in comprehensions names: it is a name of the cell, and not of the comprehension."""
    found = set()
    for child in table.get_children():
        if child.get_name() == "genexpr":
            found |= {each.get_name() for each in child.get_symbols() if each.is_global() and each.is_assigned()} | handed_out(child)
    return found


def givers(page: list[Cell]) -> list[tuple[Cell, str, Cell | None]]:
    """For each cell and each name that it takes, the cell that gave the name last; None where none did."""
    last, found = {}, []
    for cell in page:
        taken, given = names(cell.code)
        found += [(cell, name, last.get(name)) for name in sorted(taken)]
        last |= dict.fromkeys(given, cell)
    return found


def kept_from_the_reader(page: list[Cell]) -> list[tuple[Cell, str, Cell | None]]:
    """What a cell that is shown takes from one that is not, or from none."""
    return [each for each in givers(page) if each[0].shown and (each[2] is None or not each[2].shown)]
