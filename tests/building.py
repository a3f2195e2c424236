"""What the tests of the book and of the site share: the list of pages, and a way to build them."""

import functools
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


def is_chapter(page):
    """A page with cells that says something of its own; the landing page, the preface and the appendix report on the others."""
    return page != TOC["root"] and "{code-cell}" in source(page)


def source(page):
    return (ROOT / f"{page}.md").read_text("utf8")


def soup_of(book, page):
    """A page of a build, to be looked into and not to be changed: many tests ask for it, and to parse it takes half a second."""
    return parsed(book.html / f"{page}.html")


@functools.cache
def parsed(file):
    return BeautifulSoup(file.read_text("utf8"), "html.parser")


CHAPTERS = [chapter["file"] for part in TOC["parts"] if part.get("numbered", True) for chapter in part["chapters"]]
CHAPTER = next(page for page in PAGES if is_chapter(page))


def make_book(*options, output=".", cwd=ROOT, **environment):
    """`make book`, as a reader runs it; the pages and all that it said."""
    done = subprocess.run(
        ["make", "--no-print-directory", *options, "book", f"OUTPUT={output}"],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    return SimpleNamespace(
        status=done.returncode,
        said=said,
        executed=re.findall(r"(\S+) … executed", said),
        build=Path(cwd, output, "_build"),
        html=Path(cwd, output, "_build", "html"),
    )


def make_copy(folder):
    # The lent environment must not be told that the package lives here now (`-o setup`); PYTHONPATH says it instead.
    paths = {"PYTHONPATH": str(folder / "code"), "EWC_RECORDS": str(records(folder))}
    return make_book("-o", "setup", cwd=folder, **paths)


def records(folder):
    return folder / "_build" / "records"


def trained(folder):
    return {file: file.stat().st_mtime_ns for file in records(folder).rglob("*") if file.is_file()}


@contextmanager
def appended(folder, page, text, ending=".md"):
    """A page with something at its end, and afterwards as it was."""
    file = folder / f"{page}{ending}"
    before = file.read_text("utf8")
    file.write_text(before + text, "utf8")
    try:
        yield
    finally:
        file.write_text(before, "utf8")
