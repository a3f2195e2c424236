"""What a chapter offers to take along, as the built pages offer it: each runs alone in an empty folder, on the package from there.

With EWC_ALONE=1, which `make alone` sets, nothing is found that was trained before, every notebook is run too, and so is what a
reader sees of each page; each in its time. Without, records of the build are found, and one notebook is run.
"""

import ast
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from building import PAGES, ROOT, is_chapter, parsed, soup_of, source

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_takeaway
from ewc_cells import Cell, cells

CHAPTERS = [page for page in PAGES if is_chapter(page)]
ALONE = os.environ.get("EWC_ALONE") == "1"
SECONDS = {"the-family": 90, "what-ewc-cannot-do": 90}   # these train some hundred networks each; 60 for the others
RECORDS = None if ALONE else ROOT / "_build" / "records"
# Runs a file as Python would, with the package of the wheel and nothing of this folder in reach.
RUNNER = """\
import runpy, sys
sys.path.insert(0, {site!r})
import ewc
assert ewc.__file__.startswith({site!r})
runpy.run_path({file!r}, run_name='__main__')
"""


def stem(page):
    return page.rpartition("/")[2]


@pytest.fixture(scope="session")
def taken(embedded_book):
    return embedded_book.html / "take"


@pytest.fixture(scope="session")
def site(taken, tmp_path_factory):
    """The wheel, installed. Its requirements are those of this environment; test_cells holds that it names them."""
    (wheel,) = taken.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--quiet", "--no-index", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True)
    return folder


def environment(data="embedded", records=None):
    """Nothing of this environment's settings but the number of threads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EWC", "PYTHON"))}
    return kept | {"EWC_DATA": data} | ({"EWC_RECORDS": str(records)} if records else {})


def run(file, site, folder, **settings):
    """The file, in the folder: its code, what it said and complained of, and its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-I", "-W", "ignore", "-c", RUNNER.format(site=str(site), file=str(file))]
    done = subprocess.run(command, cwd=folder, env=environment(**settings), capture_output=True, text=True)
    return SimpleNamespace(code=done.returncode, said=done.stdout, complained=done.stderr, seconds=time.monotonic() - began)


@pytest.fixture(scope="session")
def ran(taken, site, tmp_path_factory):
    """By page, what its script did; all at once where records are at hand, and each when it is asked for where it trains."""
    if ALONE or sys.platform != "linux":
        return {page: lambda page=page: run(taken / f"{stem(page)}.py", site, tmp_path_factory.mktemp("alone"), records=RECORDS) for page in CHAPTERS}
    folders = {page: tmp_path_factory.mktemp("alone") for page in CHAPTERS}
    jobs = json.dumps([{"file": str(taken / f"{stem(page)}.py"), "folder": str(folder)} for page, folder in folders.items()])
    command = [sys.executable, "-I", "-W", "ignore", str(Path(__file__).with_name("run_alone.py")), str(site)]
    subprocess.run(command, input=jobs, text=True, env=environment(records=RECORDS), check=True)

    def result(folder):
        code, said, complained = ((folder / name).read_text("utf8") for name in ("code", "said", "complained"))
        return SimpleNamespace(code=int(code), said=said, complained=complained, seconds=0)

    return {page: lambda folder=folder: result(folder) for page, folder in folders.items()}


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_script_runs_alone(ran, page):
    done = ran[page]()
    assert done.code == 0, done.complained[-3000:]
    assert done.seconds < SECONDS.get(stem(page), 60)
    figures = len(re.findall(r"^    name: fig-", source(page), re.M))
    assert len(re.findall(r"^fig-\S+: ", done.said, re.M)) == figures
    print(f"{stem(page)}: {done.seconds:.0f} s")


@pytest.mark.skipif(not os.path.isdir(os.environ.get("EWC_DATA", "")), reason="EWC_DATA names no folder")
@pytest.mark.skipif(not ALONE, reason="make alone runs the scripts on MNIST, with what the build has trained")
@pytest.mark.parametrize("page", CHAPTERS)
def test_the_script_runs_on_mnist(taken, site, tmp_path, page):
    data, records = os.path.abspath(os.environ["EWC_DATA"]), ROOT / "_build" / "records"
    done = run(taken / f"{stem(page)}.py", site, tmp_path, data=data, records=records)
    assert done.code == 0, done.complained[-3000:]


@pytest.mark.parametrize("page", CHAPTERS if ALONE else ["book/elastic/deriving-ewc"])
def test_the_notebook_runs_alone(taken, site, tmp_path, page, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in {"EWC_DATA": "embedded", "PYTHONPATH": str(site), "EWC_RECORDS": str(RECORDS or tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(taken / f"{stem(page)}.ipynb", 4)
    nbformat.validate(notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(f"assert ewc.__file__.startswith({str(site)!r}) if 'ewc' in dir() else True"))
    began = time.monotonic()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert time.monotonic() - began < SECONDS.get(stem(page), 60) or not ALONE


@pytest.mark.skipif(not ALONE, reason="test_cells holds the same of the names; make alone runs it")
@pytest.mark.parametrize("page", CHAPTERS)
def test_what_is_seen_of_a_page_runs_in_the_order_seen(site, tmp_path, page):
    seen = [each.code for each in cells(source(page)) if isinstance(each, Cell) and each.shown]
    (tmp_path / "seen.py").write_text("\n".join([ewc_takeaway.BEGIN, *seen]), "utf8")
    done = run(tmp_path / "seen.py", site, tmp_path, records=ROOT / "_build" / "records")
    assert done.code == 0, done.complained[-3000:]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("é = 1\né", 'é = 1\nshow(é, "fig-a")'),
        ("f(\n    1,\n)  # f(1)", 'show(f(\n    1,\n), "fig-a")  # f(1)'),
        ("a = 1; a", 'a = 1; show(a, "fig-a")'),
        ("a, b", 'show((a, b), "fig-a")'),
        ("(a, b)", 'show((a, b), "fig-a")'),
        *((same, same) for same in ("a = 1", "a;", "print(a)", "page.data(a)", "page.number('a', a)", "for a in b:\n    a")),
    ],
)
def test_what_a_cell_ends_with_is_shown_by_a_script_too(code, shown):
    assert ewc_takeaway.shown_at_its_end(Cell(1, code, frozenset()), "fig-a") == shown
    assert ewc_takeaway.shown_at_its_end(Cell(1, code, frozenset({"remove-output"})), "fig-a") == code


def test_a_file_that_is_not_on_the_shelf_takes_the_rest_from_the_package(tmp_path):
    (tmp_path / "one.py").write_text('"""One."""\nfrom . import two\nfrom .three import (\n    four,\n)\n')
    text = ewc_takeaway.taken(tmp_path, "one", "ewc.whl")
    assert text == '# pip install "./ewc.whl[chapters]"\n"""One."""\nfrom ewc import two\nfrom ewc.three import (\n    four,\n)\n'


@pytest.mark.parametrize("page", CHAPTERS)
def test_notebook_and_script_hold_every_cell_of_the_page(taken, page):
    code = [each for each in cells(source(page)) if isinstance(each, Cell)]
    notebook = json.loads((taken / f"{stem(page)}.ipynb").read_text("utf8"))
    held = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in held)
    for cell, there in zip(code, held[1:], strict=True):
        text = "".join(there["source"])
        assert text == (cell.code if cell.open else f"# {cell.title}\n{cell.code}")
        assert there["metadata"].get("jupyter", {}).get("source_hidden", False) == (not cell.open)
    script = (taken / f"{stem(page)}.py").read_text("utf8")
    assert without_show(script).endswith(ast.unparse(ast.parse("\n".join(cell.code for cell in code))))
    assert script.count("# region ") == script.count("\n# endregion\n") == sum(not cell.open for cell in code)


def without_show(script):
    """The statements of a script, where what is shown stands as it does in its cell."""

    class Unwrap(ast.NodeTransformer):
        def visit_Expr(self, node):
            shown = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "show"
            return ast.Expr(node.value.args[0]) if shown else node

    return ast.unparse(Unwrap().visit(ast.parse(script)))


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_notebook_has_the_text_of_the_page(taken, page):
    text = "\n".join("".join(cell["source"]) for cell in json.loads((taken / f"{stem(page)}.ipynb").read_text("utf8"))["cells"])
    assert not re.search(r"\{(num|ref|numref|eq|doc|sym|cite[:\w]*|source)\}`", text), "a role of the book in plain Markdown"
    text = text.replace("’", "'")      # as it is set
    assert [line for line in re.findall(r"^## .*", source(page), re.M) if not re.search("[`$]", line) and line not in text] == []


def test_each_first_line_says_what_to_install(taken):
    (wheel,) = (file.name for file in taken.glob("*.whl"))
    assert len(list(taken.glob("*.ipynb"))) == len(CHAPTERS)
    for file in taken.glob("*.ipynb"):
        first = json.loads(file.read_text("utf8"))["cells"][0]["source"][0]
        assert first == f'`pip install "./{wheel}[chapters]" jupyterlab`\n'
    for file in taken.glob("*.py"):
        first = file.read_text("utf8").splitlines()[0]
        assert first.startswith(("# pip install torch", f'# pip install "./{wheel}[chapters]"')), file


def test_each_file_of_the_module_runs_alone_with_what_its_first_line_names(taken, site, tmp_path):
    """Each in a process that is forked when torch is there, in a folder of its own."""
    offered = sorted(file for file in taken.glob("*.py") if file.stem not in map(stem, PAGES))
    assert len(offered) > 20
    for file in offered:
        folder = tmp_path / file.stem
        folder.mkdir()
        for name in [file.name, *re.findall(r"\w+\.py", file.read_text("utf8").splitlines()[0])]:
            (folder / name).write_text((taken / name).read_text("utf8"), "utf8")
    code = f"""
import os, runpy, sys, torch
for file in {[str(tmp_path / file.stem / file.name) for file in offered]}:
    child = os.fork()
    if not child:
        folder = os.path.dirname(file)
        os.chdir(folder)
        sys.path[:0] = [folder] if "pip install torch" in open(file).readline() else [folder, {str(site)!r}]
        if "pip install torch" in open(file).readline():
            sys.modules["ewc"] = None     # not installed
        runpy.run_path(file)     # not as a program: that of the papers would train them for hours
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(file)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_package_is_whole_and_has_the_papers_records(taken):
    (wheel,) = taken.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT / "code").as_posix() for path in (ROOT / "code/ewc").rglob("*.py")}
    kept = {f"ewc/records/{path.relative_to(ROOT / 'book/records').as_posix()}" for path in ROOT.glob("book/records/*/*.json")}
    assert ours | kept | {"ewc/py.typed"} <= held
    assert any(name.endswith("LICENSE") for name in held)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_code_offers_it_at_its_top_and_at_its_foot(embedded_book, page):
    article = soup_of(embedded_book, page).find("article")
    offers = article.select(".take-along")
    if not is_chapter(page):
        assert offers == []
        return
    top, foot = offers
    words = [each for each in article.find("h1").find_all_next() if each.name in ("p", "pre")]
    assert words[0] in top.find_all("p")
    assert not foot.find_all_next("h2")
    assert str(top) == str(foot)
    names = [link["href"].rpartition("/")[2] for link in top.select("a")]
    assert names[:2] == [f"{stem(page)}.ipynb", f"{stem(page)}.py"]
    assert names[2].endswith(".whl")
    shown = {place.get_text().rpartition("/")[2] for place in article.select(".from-file a:first-of-type code")}
    needed = {f"{each}.py" for name in shown if on_the_shelf(name) for each in ewc_takeaway.beside(ROOT / "code/ewc", name.removesuffix(".py"))}
    assert set(names[3:]) == shown | needed
    for link in article.select(".take-along a, .from-file a"):
        path, _, anchor = link["href"].partition("#")
        target = (embedded_book.html / f"{page}.html").parent / path if path else embedded_book.html / f"{page}.html"
        assert target.is_file(), link
        assert not anchor or parsed(target.resolve()).find(id=anchor), link


def on_the_shelf(name):
    return (ROOT / "code/ewc" / name).is_file() and ewc_takeaway.on_the_shelf(ROOT / "code/ewc", name.removesuffix(".py"))


@pytest.mark.parametrize("page", CHAPTERS)
def test_no_module_is_offered_under_the_name_of_another(embedded_book, page):
    """`grid.py` of one chapter and `grid.py` of another would be one file."""
    code = ROOT / "code/ewc"
    shown = {module for each in CHAPTERS for module in ewc_takeaway.modules_shown(source(each), code)}
    assert len({module.rpartition(".")[2] for module in shown}) == len(shown)
