"""What is done again when something changes, and what is not: tried on a copy of the book, with its own `_build`."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from building import CHAPTER, PAGES, ROOT

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_cache
import ewc_execution


def test_a_failed_build_names_the_place_and_is_not_taken_for_a_good_one(failing):
    assert failing.failed.status != 0
    assert not failing.complete
    assert re.search(rf"{CHAPTER}\.md:\d+: .*no-such-number", failing.failed.said)
    assert "no_such_function" in failing.failed.said


def test_a_book_that_was_moved_is_not_executed_again(failing):
    assert failing.failed.executed == []


def test_a_second_build_reads_and_executes_nothing(failing):
    assert failing.again.status == 0, failing.again.said
    assert "chapter 1 of" not in failing.again.said
    assert not failing.trained


def test_a_mended_book_with_a_changed_sentence_is_built_and_neither_executed_nor_trained(failing):
    assert failing.mended.status == 0, failing.mended.said
    assert f"chapter 1 of {len(PAGES)} " in failing.mended.said, "numbers and titles stand on other pages too"
    assert failing.mended.executed == []
    assert not failing.trained
    assert "purple elephant" in (failing.mended.html / f"{CHAPTER}.html").read_text("utf8")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "code/ewc").mkdir(parents=True)
    (tmp_path / "code/ewc/fisher.py").write_text("a = 1\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    return tmp_path


def test_pages_are_executed_anew_for_other_code_packages_or_data_and_only_then(project):
    def folder(state="data"):
        return ewc_cache.State(project, state).folder()

    seen = [folder()]
    assert folder() == seen[0]
    for name, text in [("code/ewc/fisher.py", "a = 2\n"), ("code/ewc/new.py", ""), ("requirements.txt", "torch==2\n")]:
        (project / name).write_text(text)
        seen.append(folder())
    seen.append(folder("embedded"))
    assert len(set(seen)) == len(seen)
    before = folder()
    (project / "code/ewc/fisher.py").write_text('"""Says what it is."""\n\na = 2    # a comment\n')
    assert folder() == before
    (project / "code/ewc/fisher.py").write_text("a = 2 +\n")     # no Python: what imports it says so
    assert folder() != before


def test_only_the_caches_used_last_are_kept(project):
    folders = [ewc_cache.State(project, str(number)).folder() for number in range(ewc_cache.KEPT + 4)]
    left = set((project / "_build/executed").iterdir())
    assert folders[-1] in left
    assert len(left) == ewc_cache.KEPT + 1


# ---- What is rendered again, and what stands when a build fails: `book/build.py` with another program in Jupyter Book's place

INPUTS = ["_config.yml", "_toc.yml", "book/page.md", "book/references.bib", "book/assets/book.css", "code/ewc/fisher.py",
          "tests/code/test_fisher.py", "package-lock.json", "requirements.txt"]  # fmt: skip


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build from small files. `rendered` counts what was rendered anew, `fails` makes the next build fail half way."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "book/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EWC_DATA", "embedded")
    for name in INPUTS:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("a")
    state = SimpleNamespace(rendered=0, fails=None, html=Path("_build/html"), module=module)

    def render(output, log):
        if not (state.html / "page.html").exists():
            state.rendered += 1
            state.html.mkdir(parents=True)
            (state.html / "page.html").write_text(f"page {state.rendered}")
            if state.fails:
                raise state.fails
            (state.html / "other.html").write_text("other")
            Path("_build/.doctrees").mkdir()
            Path("_build/.doctrees/page").write_text("tree")
        return state.fails is None

    monkeypatch.setattr(module, "render", render)
    state.build = lambda: module.build(".")
    return state


@pytest.mark.parametrize("name", INPUTS)
def test_all_is_rendered_anew_when_any_file_differs_in_content(build, name):
    assert build.build() and build.build() and build.rendered == 1
    file = Path(name)
    file.touch()
    assert build.build() and build.rendered == 1, "a date says nothing"
    before = file.stat()
    file.write_text("b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert build.build() and build.rendered == 2, "nor does an old one"
    if file.parent != Path("."):
        file.unlink()
        assert build.build() and build.rendered == 3


def test_other_data_are_rendered_anew(build, monkeypatch):
    assert build.build()
    monkeypatch.setenv("EWC_DATA", "elsewhere")
    assert build.build() and build.rendered == 2


@pytest.mark.parametrize("name", ["html/page.html", "html/other.html", ".doctrees/page", ".complete"])
@pytest.mark.parametrize("harm", ["cut off", "gone"])
def test_what_was_written_and_is_no_longer_whole_is_rendered_anew(build, name, harm):
    assert build.build()
    file = Path("_build", name)
    file.write_text(file.read_text()[:-1]) if harm == "cut off" else file.unlink()
    assert build.build() and build.rendered == 2
    assert (build.html / "page.html").read_text() == "page 2"


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), SystemExit(2)])
def test_a_build_that_fails_leaves_the_last_good_pages_and_is_tried_again(build, problem):
    assert build.build()
    for _ in range(2):
        Path("book/page.md").write_text("changed")
        build.fails = problem
        with pytest.raises(type(problem)):
            build.build()
        assert (build.html / "page.html").read_text() == "page 1"
        assert (build.html / "other.html").exists()
        assert not Path("_build/.complete").exists()
    build.fails = None
    assert build.build()
    assert (build.html / "page.html").read_text() == "page 4"
    assert sorted(path.name for path in Path("_build").iterdir()) == [".complete", ".doctrees", "html"]


def test_a_build_that_was_killed_is_not_taken_for_a_good_one(build):
    assert build.build()
    Path("_build/html").rename("_build/html.last")     # as SIGKILL leaves it while it renders
    build.html.mkdir()
    (build.html / "page.html").write_text("half a page")
    Path("_build/.complete").unlink()
    build.fails = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        build.build()
    assert (build.html / "page.html").read_text() == "page 1"


@pytest.mark.parametrize("ended", ["build", "parent"])
def test_a_build_ends_when_it_or_who_began_it_is_ended(build, tmp_path, ended):
    """make hands on SIGTERM to the shell that it runs, and that ends without a word to the build."""
    Path("run.py").write_text(
        f"import importlib.util, pathlib, time\n"
        f"spec = importlib.util.spec_from_file_location('build', {str(ROOT / 'book/build.py')!r})\n"
        f"build = importlib.util.module_from_spec(spec); spec.loader.exec_module(build)\n"
        f"def render(output, log):\n"
        f"    pathlib.Path('number').write_text(str(__import__('os').getpid())); time.sleep(100)\n"
        f"build.render = render; build.main('.')\n"
    )
    shell = subprocess.Popen(["bash", "-c", f"'{sys.executable}' run.py 2>said; true"])
    number = Path("number")
    while not (number.exists() and number.read_text()):
        time.sleep(0.05)
    os.kill(int(number.read_text()) if ended == "build" else shell.pid, signal.SIGTERM)
    shell.wait()
    for _ in range(100):
        if "Stopped." in Path("said").read_text():
            return
        time.sleep(0.1)
    raise AssertionError(Path("said").read_text())


# ---- Nothing of the reader's own settings reaches a page


def test_pages_see_no_settings_of_the_readers(tmp_path, monkeypatch):
    """Those of matplotlib, of Python's interactive start, and a relative folder for the records, which each page would seek beside itself."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/matplotlibrc").write_text("font.size: 30\ntext.usetex: True\n")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ |= {"EWC_DATA": "embedded", "EWC_RECORDS": "mine/records", "MPLBACKEND": "svg"}
    os.environ |= {"MPLCONFIGDIR": str(tmp_path / "mine"), "MATPLOTLIBRC": str(tmp_path / "mine/matplotlibrc")}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").touch()
    config = SimpleNamespace()
    ewc_execution.prepare(SimpleNamespace(srcdir=str(tmp_path)), config)
    seen = subprocess.run(
        [sys.executable, "-c", "import matplotlib as m; print(m.rcParams['font.size'], m.rcParams['text.usetex'], m.get_configdir())"],
        env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout.split() == ["10.0", "False", str(tmp_path / "_build/matplotlib")]
    assert os.environ["EWC_RECORDS"] == str(tmp_path / "mine/records")
    assert "matplotlib_inline" in os.environ["MPLBACKEND"]
    assert "exec_PYTHONSTARTUP = False" in Path(os.environ["IPYTHONDIR"], "profile_default/ipython_kernel_config.py").read_text()
    assert Path(config.nb_execution_cache_path).is_dir()
