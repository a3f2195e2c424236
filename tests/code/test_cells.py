"""What is seen on a page runs in the order seen: no cell that is shown takes a name from one that is not."""

import ast
import re
import sys
import tomllib

import equations  # noqa: F401  # puts the book's extensions on the path
import pytest
from ewc_cells import Cell, cells, givers, kept_from_the_reader, names
from house import ROOT, imports, modules

PAGES = {path.stem: cells(path.read_text("utf8")) for path in sorted(ROOT.glob("book/*/*.md"))}
PAGES = {name: [each for each in page if isinstance(each, Cell)] for name, page in PAGES.items() if any(isinstance(each, Cell) for each in page)}
# What a foreign module is installed as, where that is not its name, or what brings it.
INSTALLED = {"sklearn": "scikit-learn", "PIL": "matplotlib", "fontTools": "fonttools"}


def page_of(*codes):
    """Cells of these codes; one that begins with `-` is kept from the reader."""
    return [Cell(line, code.removeprefix("-"), frozenset({"remove-input"} if code.startswith("-") else ())) for line, code in enumerate(codes)]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_shown_takes_nothing_from_what_is_not(page):
    found = kept_from_the_reader(PAGES[page])
    said = [
        f"line {cell.line}: {name} is given by " + (f"the hidden cell at line {giver.line}: tag that hide-input" if giver else "no cell")
        for cell, name, giver in found
    ]
    assert said == []


@pytest.mark.parametrize("page", PAGES)
def test_each_name_is_given_by_a_cell_above(page):
    assert [(cell.line, name) for cell, name, giver in givers(PAGES[page]) if giver is None] == []


def test_pages_with_cells_are_found():
    assert len(PAGES) >= 16
    assert sum(map(len, PAGES.values())) == sum(path.read_text("utf8").count("{code-cell}") for path in ROOT.glob("book/*/*.md"))


@pytest.mark.parametrize(
    ("codes", "wrong"),
    [
        (["import a", "a.b"], []),
        (["-import a", "a.b"], ["a"]),
        (["a.b"], ["a"]),
        (["a = 1", "-a = 2", "a"], ["a"]),               # the value that is seen is not the one that is used
        (["-a = 1", "def f(b):\n    return a + b"], ["a"]),
        (["-a = 1", "[a for b in range(3)]"], ["a"]),
        (["-a = 1", "[a for a in range(3)]"], []),
        (["-a = 1", "{a: b for a, b in []}, {b for b in {}}"], []),
        (["-a = 1", "{b: a for b in range(3)}"], ["a"]),
        (["-a = 1", "for a in range(3):\n    a"], []),
        (["-a = 1", "for b in range(a):\n    b"], ["a"]),
        (["-a = 1", "if a:\n    c = 1"], ["a"]),
        (["-a = 1", "a += 1"], ["a"]),
        (["-a = [1]", "a[0] = 1"], ["a"]),
        (["-a = 1", "a = a + 1"], ["a"]),
        (["-a = 1", "a = 2\na"], []),
        (["-a = 1", "with a as b:\n    b"], ["a"]),
        (["-a = 1", "f'{a}'"], ["a"]),
        (["-a = 1", "class C(a):\n    pass"], ["a"]),
        (["-a = 1", "@a\ndef f():\n    pass"], ["a"]),
        (["if (a := 1):\n    a"], []),
        (["[a := b for b in range(3)]", "a"], []),
        (["any((a := b) and [c := d for d in {}] for b in {})", "a, c"], []),
        (["-a = 1", "def f(b):\n    return [a := c for c in b]", "a"], ["a"]),     # there it is a name of the function
        (["[(lambda: (a := 1))() for b in {}]", "a"], ["a"]),
    ],
)
def test_the_check_finds_what_is_kept_from_the_reader(codes, wrong):
    assert [name for _, name, _ in kept_from_the_reader(page_of(*codes))] == wrong


def test_what_a_cell_takes_and_gives():
    assert names("import a.b as c, d\nfrom e import f as g\nx, (y, *z) = h\nprint(x)") == ({"h"}, {"c", "d", "g", "x", "y", "z"})


def test_a_cell_is_read_with_its_options():
    text = (
        "# One\n\n```python\n# no heading\n```\n\n```{code-cell} ipython3\n---\nmystnb:\n  figure: {caption: x, name: fig-a}\ntags: [hide-input]\n"
        "---\n\na = 1\n```\n\n````{solution-start} b\n:class: dropdown\n````\n## Two\n```{code-cell} ipython3\n:tags: [remove-cell]\nb = 1\n```\n"
    )
    one, first, two, second = cells(text)
    assert (one, two) == ("# One", "## Two")
    assert (first.code, first.figure, first.shown) == ("a = 1", "fig-a", True)
    assert (second.code, second.line, second.shown) == ("b = 1", text[: text.index("b = 1")].count("\n") + 1, False)
    assert first.title == "the figure fig-a"


def test_what_the_chapters_run_with_is_what_their_extra_names():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    lines = about["dependencies"] + about["optional-dependencies"]["chapters"]
    named = {re.match(r"[\w-]+", line)[0] for line in lines}
    foreign = set().union(*(imports(path)[1] for path in modules().values()))
    for page in PAGES.values():
        for node in (node for cell in page for node in ast.walk(ast.parse(cell.code))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                heads = {(getattr(node, "module", None) or alias.name).partition(".")[0] for alias in node.names}
                foreign |= heads - sys.stdlib_module_names - {"ewc"}
    foreign -= {"IPython"}   # which is asked for, and done without
    assert {INSTALLED.get(each, each) for each in foreign} == named
