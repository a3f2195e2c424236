"""The two builds that the tests look at; each is made once, and only if it is not there yet."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))   # for `building`, which several folders of tests share

from building import ROOT, make_book, make_copy


@pytest.fixture(scope="session")
def real_book():
    """The book on the data that this machine has."""
    return make_book()


@pytest.fixture(scope="session")
def embedded_book():
    """The book as it is built where neither data nor a network are."""
    return make_book(output="_build/embedded", EWC_DATA="embedded")


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
    first = make_copy(folder)
    assert first.status == 0, first.said
    assert first.executed == [], "a moved book is not executed again"
    return folder
