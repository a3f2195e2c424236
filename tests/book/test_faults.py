"""Pages that fail, are stopped, or are executed while the code changes: what is said, what is kept, and what is left running.

Tried on pages of a few lines, in kernels that import nothing; how a whole book is built is tried in test_caches.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from building import ROOT

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_cache
import ewc_execution
import ewc_kernels
import nbformat
from sphinx.errors import ExtensionError

HEAD = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: Python 3}\n---\n\n# A page\n"


DEVICES = {"forked": "cpu", "fresh": "cuda"}
BOTH = pytest.mark.parametrize("kernels", DEVICES, indirect=True)


@pytest.fixture
def kernels(request, monkeypatch):
    """How kernels begin: as on this machine's CPU, or as asked for."""
    kind = getattr(request, "param", "forked")
    monkeypatch.setattr(ewc_kernels, "IMPORTED", ["ipykernel.kernelapp"])
    ewc_kernels.prepare(DEVICES[kind])
    return kind


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Write pages, each a list of cells; the function executes them as a build does and gives the cache."""
    (tmp_path / "code/ewc").mkdir(parents=True)
    (tmp_path / "code/ewc/fisher.py").write_text("a = 1\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    (tmp_path / "profile").mkdir()
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "profile"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)

    def execute(**pages):
        for name, cells in pages.items():
            blocks = "".join(f"\n```{{code-cell}} ipython3\n{textwrap.dedent(cell).strip()}\n```\n" for cell in cells)
            (tmp_path / f"{name}.md").write_text(HEAD + blocks)
        state = ewc_cache.State(tmp_path, "")
        app = SimpleNamespace(ewc_state=state, config=SimpleNamespace(nb_execution_cache_path=str(state.folder())))
        settings = SimpleNamespace(execution_timeout=60)
        env = SimpleNamespace(doc2path=lambda name: str(tmp_path / f"{name}.md"), myst_config=None, mystnb_config=settings)
        ewc_execution.execute(app, env, list(pages))

    execute.folder = tmp_path
    return execute


def outputs(book):
    """What is in the caches: the printed lines of all pages."""
    pages = [json.loads(file.read_text("utf8")) for file in book.folder.glob("_build/executed/*/executed/*/base.ipynb")]
    streams = [output.get("text", "") for page in pages for cell in page["cells"] for output in cell["outputs"]]
    return "".join("".join(text) for text in streams).split()


def gone(*files):
    """The processes whose numbers stand in these files end, within seconds."""
    running = {int(file.read_text()) for file in files}
    for _ in range(100):
        running = {number for number in running if os.path.exists(f"/proc/{number}") and "Z" not in state_of(number)}
        if not running:
            return True
        time.sleep(0.1)
    return False


def state_of(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@BOTH
def test_a_page_runs_in_this_environment_whatever_jupyter_is_told(book, kernels, monkeypatch):
    other = book.folder / "elsewhere/kernels/python3"
    other.mkdir(parents=True)
    command = [sys.executable, "-c", "raise SystemExit('the kernel of somebody else')"]
    (other / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Mine", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(book.folder / "elsewhere"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(book.folder / "elsewhere"))
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "no-such-provisioner")
    book(one=["import os, sys\nprint(sys.executable, os.getcwd(), os.environ['OMP_NUM_THREADS'])"])
    assert outputs(book) == [sys.executable, str(book.folder), "1"]


def test_a_failing_cell_is_said_with_its_place_and_what_was_done_is_kept(book, kernels, capfd, monkeypatch):
    monkeypatch.setattr(ewc_execution, "PAGES", 1)
    fails = ["a = 1", "print('so far')\nraise ValueError('a purple elephant')"]
    with pytest.raises(ExtensionError) as failure:
        book(one=["print('kept')"], two=fails, three=["print('never begun')"])
    said = str(failure.value)
    assert "two.md:13: this cell fails:" in said
    assert "ValueError: a purple elephant" in said
    assert "one.md" not in said
    assert "\x1b" not in said
    assert outputs(book) == ["kept"]
    book(one=["print('kept')"], two=["a = 1", "print('mended')"])
    assert sorted(outputs(book)) == ["kept", "mended"]
    assert "Executing 1 page …" in capfd.readouterr().err


@BOTH
def test_a_dead_kernel_is_said_with_its_page(book, kernels):
    with pytest.raises(ExtensionError, match=r"one\.md:9: its kernel was ended .* memory"):
        book(one=["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
    assert outputs(book) == []


@BOTH
def test_ctrl_c_ends_the_kernels_at_once_and_what_was_done_is_kept(book, kernels):
    waits = "import os, pathlib, time\npathlib.Path('number{}').write_text(str(os.getpid()))\ntime.sleep(100)"
    numbers = [book.folder / f"number{page}" for page in (2, 3)]

    def interrupt():
        while not all(file.exists() and file.read_text() for file in numbers):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        book(one=["print('kept')"], two=[waits.format(2)], three=[waits.format(3)], four=["print('never begun')"])
    assert time.monotonic() - began < 60
    assert outputs(book) == ["kept"]
    assert gone(*numbers)


@BOTH
def test_kernels_end_with_a_build_that_is_killed(book, kernels):
    """SIGKILL gives the build no time to end anything."""
    program = f"""
        import os, sys
        sys.path.insert(0, {str(ROOT / "book/extensions")!r})
        import ewc_kernels, nbformat
        ewc_kernels.IMPORTED = ["ipykernel.kernelapp"]
        ewc_kernels.prepare({DEVICES[kernels]!r})
        waits = "import os, pathlib, time; pathlib.Path('number').write_text(str(os.getpid())); time.sleep(100)"
        page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(waits)])
        ewc_kernels.execute(page, {str(book.folder)!r}, 60, dict(os.environ))
    """
    build = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=book.folder)
    number = book.folder / "number"
    while not (number.exists() and number.read_text()):
        assert build.poll() is None
        time.sleep(0.05)
    build.kill()
    build.wait()
    assert gone(number)


@pytest.mark.parametrize("undone", [False, True])
def test_what_was_executed_while_the_code_changed_is_not_kept(book, kernels, undone):
    changes = "import pathlib\nfile = pathlib.Path('code/ewc/fisher.py')\nfile.write_text('a = 2')"
    with pytest.raises(ExtensionError, match=r"one: code/ewc/fisher\.py changed meanwhile"):
        book(one=[changes, "file.write_text('a = 1\\n')" if undone else "a = 1", "print('kept')"])
    assert outputs(book) == []


@pytest.fixture
def page():
    cell = nbformat.v4.new_code_cell("print('kept')", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="kept")])
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize("harm", ["cut off", "empty", "gone", "folder gone", "no version", "list damaged"])
def test_what_cannot_be_read_from_the_cache_is_forgotten_and_can_be_kept_again(book, page, harm):
    def opened():
        return ewc_cache.opened(ewc_cache.State(book.folder, "").folder())

    ewc_cache.keep(opened(), page, "one.md", 1.0)
    assert ewc_cache.has(opened(), page)
    (file,) = book.folder.glob("_build/executed/*/executed/*/base.ipynb")
    cache = file.parents[2]
    if harm == "gone":
        file.unlink()
    elif harm == "folder gone":
        shutil.rmtree(file.parent)
    elif harm == "no version":
        (cache / "__version__.txt").unlink()
    elif harm == "list damaged":
        (cache / "global.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    else:
        file.write_text(file.read_text()[:100] if harm == "cut off" else "")
    assert not ewc_cache.has(opened(), page)
    ewc_cache.keep(opened(), page, "one.md", 1.0)
    assert ewc_cache.has(opened(), page)
    assert outputs(book) == ["kept"]


def test_a_page_that_cannot_be_kept_is_said(book, kernels, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ewc_cache, "keep", full)
    with pytest.raises(ExtensionError, match=r"one was executed and could not be kept: .*No space left"):
        book(one=["print('kept')"])
