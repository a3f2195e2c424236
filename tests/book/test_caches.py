"""What is done again when something changes, and what is not: tried on a copy of the book, with its own `_build`."""

import importlib.util
import re

import pytest
from building import CHAPTER, ROOT, appended, make_copy, trained


def test_a_second_build_reads_and_executes_nothing(copy):
    before = trained(copy)
    again = make_copy(copy)
    assert again.status == 0, again.said
    assert "chapter 1 of" not in again.said
    assert trained(copy) == before


def test_a_changed_sentence_executes_no_page_and_trains_nothing(copy):
    before = trained(copy)
    with appended(copy, CHAPTER, "\n\nA sentence about a purple elephant.\n"):
        changed = make_copy(copy)
    assert changed.status == 0, changed.said
    assert "chapter 1 of 1 " in changed.said
    assert changed.executed == []
    assert trained(copy) == before
    assert "purple elephant" in (changed.html / f"{CHAPTER}.html").read_text("utf8")


def test_a_failed_build_names_the_place_and_fails_again(failing):
    for failed in failing.builds:
        assert failed.status != 0
        assert not failed.complete
        assert re.search(rf"{CHAPTER}\.md:\d+: .*no-such-number", failed.said)
        assert "no_such_function" in failed.said
        assert failed.executed == []


def test_the_mended_book_is_built_and_not_executed(failing):
    assert failing.mended.status == 0, failing.mended.said
    assert failing.mended.executed == []


@pytest.fixture
def extension():
    spec = importlib.util.spec_from_file_location("ewc_execution", ROOT / "book/extensions/ewc_execution.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    (tmp_path / "code/ewc").mkdir(parents=True)
    (tmp_path / "code/ewc/fisher.py").write_text("a = 1\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    return tmp_path


def test_pages_are_executed_anew_for_other_code_packages_or_data_and_only_then(extension, project):
    def folder(state="data"):
        return extension.cache_folder(project, state)

    seen = [folder()]
    assert folder() == seen[0]
    for name, text in [("code/ewc/fisher.py", "a = 2\n"), ("code/ewc/new.py", ""), ("requirements.txt", "torch==2\n")]:
        (project / name).write_text(text)
        seen.append(folder())
    seen.append(folder("embedded"))
    assert len(set(seen)) == len(seen)


def test_only_the_caches_used_last_are_kept(extension, project):
    folders = [extension.cache_folder(project, str(number)) for number in range(extension.KEPT + 4)]
    left = set((project / "_build/executed").iterdir())
    assert folders[-1] in left
    assert len(left) == extension.KEPT + 1
