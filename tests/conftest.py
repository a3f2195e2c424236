"""The two builds that the tests look at; each is made once, and only if it is not there yet. And what runs beside what."""

import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))   # for `building`, which several folders of tests share

from building import ROOT, make_book

# What a shell begins in the background ignores Ctrl-C, and so would all that the tests begin and stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)   # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """For `pytest -n 2 --dist loadgroup --no-loadscope-reorder`: tests that look at the same thing go to the process that has it open."""
    for item in items:
        named = item.callspec.params if hasattr(item, "callspec") else {}
        if "copy" in item.fixturenames:
            group = "copy"
        elif item.path.parent.name == "book" and item.path.stem in ("test_book", "test_around", "test_finding"):   # they parse all pages
            group = "book"
        elif "page_name" in named:
            group = named["page_name"]
        else:
            group = "-".join([item.path.stem, *(str(named[key]) for key in ("screen", "theme") if key in named)])
        item.add_marker(pytest.mark.xdist_group(group))


def once(folder, name, build):
    """What a build said. Of several processes the first builds; the others wait for it and read what it was told."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return build()
    report = folder.getbasetemp().parent / name
    with FileLock(f"{report}.lock"):
        if not report.exists():
            report.write_bytes(pickle.dumps(build()))
        return pickle.loads(report.read_bytes())


@pytest.fixture(scope="session")
def real_book(tmp_path_factory):
    """The book on the data that this machine has."""
    return once(tmp_path_factory, "real", make_book)


@pytest.fixture(scope="session")
def embedded_book(tmp_path_factory):
    """The book as it is built where neither data nor a network are."""
    return once(tmp_path_factory, "embedded", lambda: make_book(output="_build/embedded", EWC_DATA="embedded"))


@pytest.fixture(scope="session")
def copy(real_book, tmp_path_factory):
    """The tree and what was built from it, copied to a path with a space; its environment is the book's, lent."""
    assert real_book.status == 0, real_book.said
    folder = tmp_path_factory.mktemp("a copy") / "the book"
    left_out = shutil.ignore_patterns(
        ".venv", ".git", "node_modules", "__pycache__", "screenshots", "embedded", "html", "jupyter_execute"
    )
    shutil.copytree(ROOT, folder, ignore=left_out)
    for name in (".venv", "node_modules"):
        (folder / name).symlink_to(ROOT / name)
    return folder
