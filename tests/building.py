"""What the tests of the book and of the site share: the list of pages, and a way to build them."""

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import yaml

ROOT = Path(__file__).parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


def is_chapter(page):
    """A page with cells; the preface and the appendix only report on the others."""
    return "{code-cell}" in source(page)


def source(page):
    return (ROOT / f"{page}.md").read_text("utf8")


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
