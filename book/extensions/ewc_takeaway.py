"""Offer each chapter's code to take along: a notebook, a script, the files that it shows, and the package that they run on.

Why: what stands on a page is a selection. Here is all of it, the cells that the page keeps out of sight included, each named and
folded, so that it runs alone in an empty folder with what its first line says to install. Everything lies in the folder `take`
of the site; nothing comes from another server of ours. The package is offered as a wheel, with the papers' records in it.

Files are written when a page is: the text of a notebook is that of the page, with its numbers and references as they are there.
"""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from docutils import nodes
from ewc_cells import Cell, cells, is_for_the_text
from ewc_markdown import Text
from ewc_source import TAKEN
from sphinx import addnodes
from sphinx.application import Sphinx

# ---- What a file says first ----


def install(wheel: str, *more: str) -> str:
    return " ".join(["pip install", f'"./{wheel}[chapters]"', *more])


# Before a chapter's own code; the build says the same to its kernels.
BEGIN = "import torch\n\ntorch.set_flush_denormal(True)  # numbers next to 0 count as 0: with them a processor computes many times more slowly"
LONGER = ("The family", "What EWC cannot do")   # each trains more than two hundred networks


def about(title: str) -> str:
    """What a reader has to know of the data, of the time that it takes, and of what is kept."""
    minutes = "about two minutes" if title in LONGER else "less than a minute"
    return f"""\
Data: MNIST and Fashion-MNIST in the folder that the environment variable EWC_DATA names, or where torchvision keeps them, or
downloaded by it. Else, and with EWC_DATA=embedded, two stand-ins that need no network; with these it takes {minutes}
on two cores. What is trained is kept in the folder _build/records here, or in the one that EWC_RECORDS names, and found again the
next time. MIT licence, copyright (c) 2026 the authors of Weights that Remember.
"""


def script(title: str, page: list[Cell | str], wheel: str) -> str:
    """All cells of a page as one file. Each has the mark of a cell that editors know; those that the page hides can be folded."""
    parts = [
        f"# {install(wheel)}",
        f'"""All the code of “{title}”, a chapter of the book Weights that Remember, in its order.\n\n{IN_SCRIPT}{about(title)}"""',
        f"# %% set-up\n{BEGIN}\n\n\n{SHOW}",
    ]
    number = 0
    for each in page:
        if isinstance(each, str):
            parts.append(f"# %% [markdown]\n# {each}")
            continue
        number += 1
        code = shown_at_its_end(each, each.figure or f"cell-{number}")
        parts.append(f"# %%\n{code}" if each.open else f"# %% {each.title}\n# region {each.title}\n{code}\n# endregion")
    return "\n\n".join(parts) + "\n"


IN_SCRIPT = """\
Cells that the page does not show stand between `# region` and `# endregion`, where editors fold them. A figure is written into this
folder, and its description is printed.

"""
SHOW = '''\
def show(value, name):
    """What a notebook does with the last line of a cell."""
    if hasattr(value, "save"):
        value.save(f"{name}.svg")
    if value is not None:
        print(f"{name}: {value}")'''


def shown_at_its_end(cell: Cell, name: str) -> str:
    """The code of a cell, whose last line is shown where it is an expression that a notebook would show."""
    code = cell.code
    body = ast.parse(code).body
    silent = "remove-output" in cell.tags or code.rstrip().endswith(";")
    if silent or not body or not isinstance(body[-1], ast.Expr) or is_for_the_text(body[-1]):
        return code
    last = body[-1].value
    if isinstance(last, ast.Call) and ast.unparse(last.func) in ("print", "page.data"):
        return code
    lines = code.encode().splitlines(keepends=True)      # columns are counted in bytes
    start = sum(map(len, lines[: last.lineno - 1])) + last.col_offset
    end = sum(map(len, lines[: last.end_lineno - 1])) + last.end_col_offset
    before, text, after = (each.decode() for each in (code.encode()[:start], code.encode()[start:end], code.encode()[end:]))
    if isinstance(last, ast.Tuple) and not text.startswith("("):
        text = f"({text})"
    return f'{before}show({text}, "{name}"){after}'


# ---- The notebook ----


def notebook(title: str, parts: list[Cell | str], wheel: str) -> dict:
    """A notebook without outputs, of texts and cells in their order."""
    head = f"`{install(wheel, 'jupyterlab')}`"
    first = f'{head}\n\nAll of “{title}”, a chapter of the book *Weights that Remember*, and all of its code. {IN_NOTEBOOK}{about(title)}'
    written = [text_cell(first), code_cell(f"# set-up\n{BEGIN}", **AWAY)]
    for part in parts:
        if isinstance(part, str):
            written.append(text_cell(part))
        else:
            written.append(code_cell(part.code) if part.open else code_cell(f"# {part.title}\n{part.code}", **AWAY))
    for place, cell in enumerate(written):
        cell["id"] = f"cell-{place}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": written, "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}}


AWAY = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}   # folded, as JupyterLab and as other programs are told
IN_NOTEBOOK = """\
The numbers in its text are those of the copy of the book that this comes from. Cells that the page does not show are folded here,
and their first line says what they are for.

"""


def text_cell(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text.strip("\n").splitlines(keepends=True)}


def code_cell(code, **metadata):
    return {"cell_type": "code", "metadata": metadata, "source": code.splitlines(keepends=True), "execution_count": None, "outputs": []}


# ---- Files of the module ----


@functools.cache        # a file is asked once for each page that shows what imports it
def read_module(text: str) -> tuple[str, list[str]]:
    """What a module says of itself, and the modules beside it that it imports."""
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return ast.get_docstring(tree), [name for node in imports for name in ([node.module] if node.module else [alias.name for alias in node.names])]


def beside(code: Path, module: str) -> list[str]:
    """The modules that a file of the shelf imports, and those that these do, in the order in which they are met."""
    _, found = read_module((code / f"{module}.py").read_text("utf8"))
    further = [each for name in found for each in beside(code, name)]
    return list(dict.fromkeys([*found, *further]))


def on_the_shelf(code: Path, module: str) -> bool:
    """Whether a module lies there, and says of itself what it has to be copied with."""
    return "." not in module and "This file needs torch" in read_module((code / f"{module}.py").read_text("utf8"))[0]


def taken(code: Path, module: str, wheel: str) -> str:
    """The file of a module, which says first what it needs. One that is not on the shelf takes from the package what it needs."""
    text = (code / f"{module.replace('.', '/')}.py").read_text("utf8")
    if on_the_shelf(code, module):
        with_it = [f"{each}.py" for each in beside(code, module)]
        return f"# pip install torch{'  (and beside this file: ' * bool(with_it)}{', '.join(with_it)}{')' * bool(with_it)}\n{text}"
    text = re.sub(r"^(\s*from )\.(\w+) import", r"\1ewc.\2 import", text, flags=re.M)
    return f"# {install(wheel)}\n" + re.sub(r"^(\s*from )\. import", r"\1ewc import", text, flags=re.M)


def build_wheel(project: Path, folder: Path) -> str:
    """The package as a file for pip, made in a copy: what setuptools leaves behind is not to lie in the project."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "ewc")
        left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(project / "code", copy / "code", ignore=left_out)
        shutil.copytree(project / "book" / "records", copy / "code" / "ewc" / "records", ignore=left_out)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(project / name, copy)
        make = "import sys, setuptools.build_meta as build; print(build.build_wheel(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-P", "-c", make, str(folder.absolute())], cwd=copy, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the package could not be made into a wheel:\n{done.stdout}{done.stderr}")
        return done.stdout.split()[-1]


# ---- On the page ----


def begin(app: Sphinx):
    """The name of the wheel is known before the first page is written; it costs two seconds."""
    folder = Path(app.outdir, TAKEN)
    folder.mkdir(parents=True, exist_ok=True)
    app.ewc_wheel = build_wheel(Path(app.srcdir), folder)


def name_folded_cells(app: Sphinx, doctree):
    """A folded cell is announced by what it is for."""
    found = [node for node in doctree.findall(nodes.container) if node.get("nb_element") == "cell_code" and node.get("hide_mode")]
    for node in found:
        code = next(node.findall(nodes.literal_block)).astext()
        figure = node["cell_metadata"].get("mystnb", {}).get("figure", {}).get("name", "")
        what = "of this figure" if figure else f"· {Cell(0, code, frozenset()).title}"
        node["prompt_show"] = node["prompt_hide"] = f"Code {what}"


def modules_shown(text: str, code: Path) -> list[str]:
    """The modules of whose code a page shows something, by their names within the package."""
    found = []
    for name in re.findall(r"^```\{source\} ewc\.(\S+)", text, re.M):
        parts = name.split(".")
        lengths = range(len(parts), 0, -1)
        found.append(next(".".join(parts[:each]) for each in lengths if code.joinpath(*parts[:each]).with_suffix(".py").is_file()))
    return list(dict.fromkeys(found))


def offer(app: Sphinx, doctree, docname):
    source = Path(app.env.doc2path(docname))
    text = source.read_text("utf8")
    page = cells(text)
    code_cells = [each for each in page if isinstance(each, Cell)]
    if not code_cells or docname == app.config.root_doc:      # the landing page shows what a chapter offers
        return
    code, folder, stem = Path(app.srcdir, "code", "ewc"), Path(app.outdir, TAKEN), docname.rpartition("/")[2]
    title = app.env.titles[docname].astext()
    executed = json.loads(Path(app.env.mystnb_config.output_folder, f"{docname}.ipynb").read_text("utf8"))["cells"]
    parts = Text(code_cells, [cell["cell_type"] for cell in executed]).of(doctree)
    (folder / f"{stem}.py").write_text(script(title, page, app.ewc_wheel), "utf8")
    text_of_notebook = json.dumps(notebook(title, parts, app.ewc_wheel), ensure_ascii=False, indent=0)
    (folder / f"{stem}.ipynb").write_text(text_of_notebook + "\n", "utf8")
    modules = modules_shown(text, code)
    needed = [each for shown in modules if on_the_shelf(code, shown) for each in beside(code, shown)]
    needed = [each for each in dict.fromkeys(needed) if each not in modules]
    for module in (*modules, *needed):
        (folder / f"{module.rpartition('.')[2]}.py").write_text(taken(code, module, app.ewc_wheel), "utf8")
    section = next(doctree.findall(nodes.section))
    for place in (1, len(section) + 1):
        section.insert(place, offers(docname, stem, modules, needed, app.ewc_wheel))


def offers(docname, stem, modules, needed, wheel):
    """One line: the chapter in two forms, what both run on, the files that the page shows, and those that these need beside them."""
    up = "../" * docname.count("/") + TAKEN

    def link(name, words):
        return addnodes.download_reference("", "", words, refuri=f"{up}/{name}")

    line = nodes.paragraph("", "", nodes.strong("", "Take it along: "))
    line += [nodes.Text("this chapter as a "), link(f"{stem}.ipynb", nodes.inline("", "notebook")), nodes.Text(" or a ")]
    line += [link(f"{stem}.py", nodes.inline("", "script")), nodes.Text(", and the "), link(wheel, nodes.inline("", "package"))]
    line += nodes.Text(" that both run on." if not modules else " that both run on; the files that it shows, ")
    for place, module in enumerate(modules):
        line += [nodes.Text(", " * bool(place)), link(f"{module.rpartition('.')[2]}.py", nodes.literal("", f"{module.rpartition('.')[2]}.py"))]
    for place, module in enumerate(needed):
        line += [nodes.Text(", " if place else ", with "), link(f"{module}.py", nodes.literal("", f"{module}.py"))]
    line += nodes.Text("." * bool(modules))
    return nodes.container("", line, classes=["take-along"])


def setup(app: Sphinx):
    app.connect("builder-inited", begin)
    app.connect("doctree-read", name_folded_cells)
    app.connect("doctree-resolved", offer, priority=950)      # the page as it will be, with all that is put in late
    parts = [Path(__file__), *(Path(__file__).with_name(f"{name}.py") for name in ("ewc_cells", "ewc_markdown"))]
    return {"version": "1", "env_version": zlib.crc32(b"".join(part.read_bytes() for part in parts)),
            "parallel_read_safe": False}  # fmt: skip
