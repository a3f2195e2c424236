"""Four floors, shelf, learning, workshop and chapters: a module imports only from its own floor or from below."""

import ast
import functools
import re
import tomllib

import ewc
import pytest
from house import FLOORS, PACKAGE, ROOT, floor, imports, modules

MODULES = modules()
# What each floor may use of other people's. Everything else is for the site and the tests.
MAY_USE = {
    "shelf": {"torch"},
    "learning": {"torch", "tqdm", "torchvision", "sklearn", "matplotlib", "PIL"},  # all but two are for data sets alone
    "workshop": {"torch", "numpy", "matplotlib", "fontTools", "safetensors", "filelock", "IPython", "scipy"},
    "chapters": {"torch", "matplotlib"},
}
LINES = {"shelf": 300, "learning": 400, "workshop": 400, "chapters": 400}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_own_floor_or_from_below(name):
    own, foreign = imports(MODULES[name])
    assert all(FLOORS.index(floor(other)) <= FLOORS.index(floor(name)) for other in own), own
    assert foreign <= MAY_USE[floor(name)]


def test_imports_go_round_in_no_circle():
    needs = {name: imports(path)[0] for name, path in MODULES.items()}

    def walk(name, way=()):
        assert name not in way, f"{' → '.join((*way, name))} goes round in a circle"
        for other in needs[name]:
            walk(other, (*way, name))

    for name in MODULES:
        walk(name)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_read_in_one_sitting(name):
    assert len(MODULES[name].read_text("utf8").splitlines()) <= LINES[floor(name)]


def test_nothing_of_the_package_reads_the_books_pages_but_the_records():
    for name, path in MODULES.items():
        assert name == "workshop.paper" or '"book"' not in path.read_text("utf8"), name


def test_a_chapters_folder_is_named_as_its_page():
    pages = {path.stem.replace("-", "_") for path in ROOT.glob("book/*/*.md")}
    folders = {path.name for path in (PACKAGE / "chapters").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders - {"refreshers"} <= pages


def test_the_tests_have_the_same_folders():
    folders = {path.relative_to(ROOT / "tests/code") for path in (ROOT / "tests/code").rglob("test_*.py")}
    assert all((PACKAGE / folder).parent.is_dir() for folder in folders)


def test_what_the_package_says_of_its_modules_is_what_there_is():
    said = set(re.findall(r"`(\w+)`", ewc.__doc__))
    assert said == {name for name in MODULES if "." not in name} | {"workshop", "chapters"}


def test_the_lists_of_modules_agree():
    """CONTRIBUTING has the whole map; README and Preface name what is of use by itself, README's table what it needs beside it."""
    text = {name: (ROOT / name).read_text("utf8") for name in ("CONTRIBUTING.md", "README.md", "book/preface.md")}
    map_of_all = set(re.findall(r"`(\w+)`", text["CONTRIBUTING.md"].partition("## Where things are")[2].partition("## ")[0]))
    last = {name.rpartition(".")[2] for name in MODULES if not name.startswith("chapters.")}
    assert last <= map_of_all <= last | {"tests"}
    table = set(re.findall(r"^\| \[`(\w+)\.py`\]", text["README.md"], re.M))
    sentence = set(re.findall(r"`(\w+)`", re.search(r"take the code away:(.*?)under the MIT licence", text["book/preface.md"], re.S)[1]))
    assert table == sentence
    parts = {other for name in table for other in needed(name)} - table
    assert table | parts == {name for name in MODULES if floor(name) == "shelf"}


@functools.cache
def needed(name):
    """A module and all that it imports, and what these do."""
    return {name}.union(*(needed(other) for other in imports(MODULES[name])[0]))


def test_the_version_is_said_once():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    assert "version" in about["dynamic"]
    assert f"\n## {ewc.__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf8")
    assert f"version: {ewc.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf8")


def test_what_is_taken_needs_three_packages_and_the_book_the_rest():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    needs = [re.match(r"[\w-]+", line)[0] for line in about["dependencies"]]
    assert sorted(needs) == ["numpy", "torch", "tqdm"]


@pytest.mark.parametrize("name", [name for name in MODULES if floor(name) in ("shelf", "learning")])
def test_what_is_public_says_what_it_is(name):
    body = ast.parse(MODULES[name].read_text("utf8")).body
    public = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_every_file_that_the_readme_shows_or_links_to_is_there():
    text = (ROOT / "README.md").read_text("utf8")
    linked = [path for path in re.findall(r"\]\(([^)#]+)", text) if "://" not in path]
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").exists()


def test_the_folder_code_is_no_package():
    # It would shadow Python's own module `code`.
    assert not (ROOT / "code/__init__.py").exists()
    assert PACKAGE == ROOT / "code/ewc"
