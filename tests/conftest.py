"""The two builds that the tests look at; each is made once, and only if it is not there yet."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))   # for `building`, which several folders of tests share

from building import make_book


@pytest.fixture(scope="session")
def real_book():
    """The book on the data that this machine has."""
    return make_book()


@pytest.fixture(scope="session")
def embedded_book():
    """The book as it is built where neither data nor a network are."""
    return make_book(output="_build/embedded", EWC_DATA="embedded")
