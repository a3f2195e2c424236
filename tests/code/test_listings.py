"""What the pages show of the module is there: a renamed function or a changed line is found before a build finds it."""

import re

import equations  # noqa: F401  # puts the book's extensions on the path
import pytest
from ewc_source import find, find_test, lines_of, the_line
from house import ROOT

LISTINGS = [
    pytest.param(listing, id=f"{page.stem} {listing.split()[1]}")
    for page in sorted(ROOT.glob("book/*/*.md"))
    for listing in re.findall(r"^```\{source\}.*?^```", page.read_text("utf8"), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_shows_lines_that_are_there(listing):
    name, options = listing.split()[1], dict(re.findall(r"^:(\w+): (.+)$", listing, re.MULTILINE))
    file, _, node = find(ROOT / "code", name)
    lines = lines_of(file.read_text("utf8"), node, "docstring" in options)
    if "from" in options:
        lines = lines[the_line(lines, options["from"], "from") :]
    if "to" in options:
        the_line(lines, options["to"], "to")
    if "test" in options:
        find_test(ROOT, options["test"])


def test_there_are_listings():
    assert len(LISTINGS) > 30
