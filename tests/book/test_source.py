"""The directive that shows code: it finds what it is asked for, whole, and nothing else."""

import importlib.util

import pytest
from building import ROOT

spec = importlib.util.spec_from_file_location("ewc_source", ROOT / "book/extensions/ewc_source.py")
extension = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extension)

MODULE = '''\
import x


@x.wrapped
def first(a):
    """What it does.

    At length.
    """

    b = a  # the reason
    return b


class Second:
    """A class."""

    def method(self):
        """Says it all."""
'''


@pytest.fixture
def code(tmp_path):
    (tmp_path / "ewc").mkdir()
    (tmp_path / "ewc/module.py").write_text(MODULE)
    return tmp_path


def shown(code, name, docstring=False):
    file, _, node = extension.find(code, name)
    return "\n".join(extension.lines_of(file.read_text(), node, docstring))


def test_a_function_comes_with_its_decorators_and_comments_and_without_its_docstring(code):
    assert shown(code, "ewc.module.first") == "@x.wrapped\ndef first(a):\n    b = a  # the reason\n    return b"


def test_the_docstring_is_kept_when_asked_for_or_when_there_is_nothing_else(code):
    assert "At length." in shown(code, "ewc.module.first", docstring=True)
    assert shown(code, "ewc.module.Second.method") == 'def method(self):\n    """Says it all."""'


@pytest.mark.parametrize("name", ["ewc.module.third", "ewc.module.Second.other", "ewc.nowhere.f", "nothing"])
def test_an_unknown_name_is_refused_by_name(code, name):
    with pytest.raises(LookupError, match=name.rpartition(".")[2] if "nowhere" not in name else "nowhere"):
        extension.find(code, name)


def test_a_text_that_marks_a_line_must_be_found_exactly_once():
    assert extension.the_line(["a", "b = 1", "c"], "b =", "from") == 1
    for text in ("x", ""):
        with pytest.raises(LookupError, match=":from:"):
            extension.the_line(["a", "b"], text, "from")


def test_what_begins_within_a_block_comes_with_the_lines_that_open_it():
    lines = ["def f():", "    a = 1", "    for x in y:", "        b = 2", "        while x:", "            c = 3", "    return a"]
    assert extension.excerpt(lines, 1, 3) == lines[1:4]
    assert extension.excerpt(lines, 5, 5) == lines[5:6]
    assert extension.excerpt(lines, 5, 6) == ["    for x in y:", "        ...", "        while x:", "            c = 3", "    return a"]
    assert extension.excerpt(lines, 4, 6) == ["    for x in y:", "        ...", *lines[4:]]
    several = ["if (", "    a", "    or b", "):", "    return c", "raise x"]
    assert extension.excerpt(several, 4, 5) == several
    branches = ["if a:", "    b", "elif c:", "    d", "else:", "    e"]
    assert extension.excerpt(branches, 4, 5) == ["if a:", "    ...", "elif c:", "    ...", "else:", "    e"]
