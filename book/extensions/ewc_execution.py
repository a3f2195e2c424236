"""Execute the pages that are not in the cache, on which data, and say on the terminal what is going on.

Why: the pages are executed side by side before Sphinx reads the first, and an error is said where it happened. The data are
looked for once, here, and every kernel is told what was found: no two pages of a build can disagree. Nothing of the reader's
own settings, of IPython, Jupyter or matplotlib, reaches a page. See `ewc_cache` and `ewc_kernels`.
"""

import os
import platform
import re
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import ewc_cache
import ewc_kernels
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError, ExtensionError

# Pages executed side by side, each with its share of the cores: much of a page, its figures for one, is work for one core. With a
# GPU more, for a page's small networks leave it idle.
PAGES, PAGES_ON_A_GPU = 2, 6
# Those that train longest begin first, so that no core waits for them at the end.
LONGEST = [
    "beyond/what-ewc-cannot-do", "elastic/many-tasks", "beyond/the-family", "beyond/a-harder-world", "elastic/choosing-lambda",
    "beyond/in-your-own-project", "elastic/reading-other-peoples-ewc", "forgetting/tempting-fixes", "elastic/mnist-to-fashion-mnist",
    "bayes/fisher-information", "bayes/the-shape-of-curvature",
]  # fmt: skip
NO_DATA = """\
Data: MNIST and Fashion-MNIST were neither found nor could they be downloaded. The book is built with embedded
      stand-ins, and each page concerned says so. For the real ones: build with a network, or name the folder that
      holds torchvision's folders MNIST and FashionMNIST:  EWC_DATA=/path/to/folder make book"""


def say(text, end="\n"):
    """Tell the person who waits. Standard error, because the Makefile keeps standard output in a log."""
    print(text, end=end, file=sys.stderr, flush=True)


def prepare(app: Sphinx, config: Config):
    import torch
    from ewc.datasets import find_data

    asked_for_stand_ins = os.environ.get("EWC_DATA") == "embedded"
    try:
        folder = find_data()
    except (OSError, ValueError) as problem:       # a folder without the data, a file that was cut off or altered
        raise ConfigError(str(problem)) from None
    if folder:
        say(f"Data: MNIST and Fashion-MNIST in {folder}")
    else:
        say("Data: embedded stand-ins, as EWC_DATA=embedded asks" if asked_for_stand_ins else NO_DATA)

    os.environ["EWC_DATA"] = str(folder) if folder else "embedded"
    # Each kernel begins in the folder of its page: a relative folder would be another one there.
    os.environ["EWC_RECORDS"] = os.path.abspath(os.environ.get("EWC_RECORDS") or Path(app.srcdir, "_build", "records"))
    # torch about itself, when it differentiates twice; Python about locks of kernels, which are not asked to clear up when they end
    os.environ["PYTHONWARNINGS"] = "ignore:`torch.jit.script` is deprecated:FutureWarning,ignore:resource_tracker:UserWarning"
    os.environ["IPYTHONDIR"] = str(kernel_profile(Path(app.srcdir, "_build", "ipython")))
    os.environ |= plain_matplotlib(Path(app.srcdir, "_build", "matplotlib"))
    os.environ.pop("EWC_TERMINAL", None)
    if sys.stderr.isatty():
        os.environ["EWC_TERMINAL"] = os.ttyname(2)    # kernels draw their progress bars there, and nowhere else

    # Batches are made anew in each step. Memory that goes back to the system in between has to be fetched and cleared again.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**32))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    state = f"{'data' if folder else 'embedded'} {device} python {platform.python_version()}"
    app.ewc_state = ewc_cache.State(Path(app.srcdir), state)
    config.nb_execution_cache_path = str(app.ewc_state.folder())
    ewc_kernels.prepare(str(device))


def kernel_profile(folder: Path) -> Path:
    """A profile of the book's own: nothing from the reader's start-up files, no warnings of the kernel about itself.

    A running average that fades ends among the denormal numbers, with which a CPU computes many times more slowly; pages take
    them for 0. That has to be said before torch starts its threads. A tenth of the time of ten permuted tasks.
    """
    settings = folder / "profile_default" / "ipython_kernel_config.py"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(
        "c = get_config()\nc.IPKernelApp.log_level = 40\nc.IPKernelApp.exec_PYTHONSTARTUP = False\nc.HistoryManager.enabled = False\n"
        "c.IPKernelApp.exec_lines = ['__import__(\"torch\").set_flush_denormal(True)']\n"
    )
    return folder


def plain_matplotlib(folder: Path) -> dict:
    """matplotlib as it comes: no settings of the reader's, and its list of fonts in a folder that can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "matplotlibrc"
    settings.write_text("")
    backend = "module://matplotlib_inline.backend_inline"
    return {"MPLCONFIGDIR": str(folder), "MATPLOTLIBRC": str(settings), "MPLBACKEND": backend}


def cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pages_at_a_time() -> int:
    import torch

    return max(1, min(PAGES_ON_A_GPU, cores() // 2) if torch.cuda.is_available() else min(PAGES, cores()))


def execute(app: Sphinx, env, docnames):
    """Execute the pages that are not in the cache. When Sphinx reads them, they are. Each is kept as soon as it is done; when one
    fails, those that run are waited for, no other begins, and the build ends with what went wrong."""
    cache = ewc_cache.opened(app.config.nb_execution_cache_path)
    missing = {}
    for docname in docnames:
        path = env.doc2path(docname)
        text = Path(path).read_text("utf8")
        if is_myst_markdown_notebook(text):
            page = read_myst_markdown_notebook(text, config=env.myst_config, add_source_map=True, path=path)
            if not ewc_cache.has(cache, page):
                missing[docname.removeprefix("book/")] = path, page
    if not missing:
        return
    at_a_time = min(pages_at_a_time(), len(missing))
    os.environ.setdefault("OMP_NUM_THREADS", str(cores() // at_a_time))
    import matplotlib.font_manager  # noqa: F401  its list of fonts is made here once, not by each page, which would show how long it takes

    say(f"Executing {len(missing)} page{'s' * (len(missing) > 1)}{f', {at_a_time} at a time' * (at_a_time > 1)} …")
    faults, number, stopping, draws = [], 0, threading.Event(), threading.Lock()
    with ThreadPoolExecutor(at_a_time, initializer=begin, initargs=(draws,)) as pool:
        try:
            working = {
                pool.submit(executed, *missing[name], env.mystnb_config.execution_timeout, stopping): name
                for name in sorted(missing, key=[*LONGEST, *missing].index)
            }
            for work in as_completed(working):
                name, done = working[work], work.result()
                if done is None:      # not begun
                    continue
                (path, page), (seconds, fault), number = missing[name], done, number + 1
                if fault is None and (changed := app.ewc_state.changed()):
                    fault = f"{name}: {', '.join(changed)} changed meanwhile. What it shows may be of the old code or of the new: build again"
                elif fault is None:
                    try:
                        ewc_cache.keep(cache, page, path, seconds)
                    except Exception as problem:
                        fault = f"{name} was executed and could not be kept: {problem}"
                say(f"page {number} of {len(missing)}  {name} … {'FAILED' if fault else 'executed'}, {seconds:.1f} s")
                if fault:
                    faults.append(fault)
                    stopping.set()
        except BaseException:                 # Ctrl-C, or make was ended
            stopping.set()
            ewc_kernels.end_all()
            raise
    if faults:
        raise ExtensionError("\n\n".join(faults))


_worker = threading.local()


def begin(first):
    """How a thread begins that executes pages. One of them has the terminal: two progress bars would write over one another."""
    _worker.environment = dict(os.environ)
    if not first.acquire(blocking=False):
        _worker.environment.pop("EWC_TERMINAL", None)


def executed(path, page, timeout, stopping):
    """The seconds that the page took, and what went wrong, if anything; None for a page that need not begin any more."""
    if stopping.is_set():
        return None
    began, fault = time.perf_counter(), None
    try:
        ewc_kernels.execute(page, str(Path(path).parent), timeout, _worker.environment)
    except CellExecutionError as problem:
        fault = f"{place(path, page)}: this cell fails:\n\n{plain(problem.traceback)}"
    except CellTimeoutError:
        fault = f"{place(path, page)}: this cell took longer than {timeout} s"
    except DeadKernelError:
        fault = f"{place(path, page)}: {ewc_kernels.DEAD}"
    except Exception as problem:
        fault = f"{os.path.relpath(path)}: {type(problem).__name__}: {problem}"
    if fault:
        stopping.set()
    return time.perf_counter() - began, fault


def place(path, page):
    """File and line of the cell at which a page stopped: the last that began."""
    cells = [number for number, cell in enumerate(page.cells) if cell.cell_type == "code"]
    began = [number for number in cells if page.cells[number].execution_count is not None]
    return f"{os.path.relpath(path)}:{page.metadata.source_map[(began or cells[:1])[-1]] + 1}"


def plain(text):
    """Without colours where what is said goes into a file."""
    return text if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text)


def only_pages(app: Sphinx, config: Config):
    """Nothing but what _toc.yml lists. What it does not list is told by a pattern of the folder's whole path, which fails where that
    has brackets in it."""
    config.include_patterns = [f"{page}.*" for page in config.external_site_map]


def count_chapters(app: Sphinx, env, docnames):
    """Only the pages that this build reads are counted, and they are read in the order of the book."""
    order = list(app.config.external_site_map)
    docnames.sort(key=order.index)
    app.ewc_to_read = list(docnames)


def chapter_begins(app: Sphinx, docname, source):
    place = app.ewc_to_read.index(docname) + 1
    app.ewc_began = time.time()
    say(f"chapter {place} of {len(app.ewc_to_read)}  {docname.removeprefix('book/')} … ", end="")


def chapter_ends(app: Sphinx, doctree):
    run = app.env.nb_metadata[app.env.docname].get("exec_data")
    if run is None:
        how = "no code"
    elif not run["succeeded"]:
        how = f"FAILED: {run['error']}"
    else:
        how = "executed" if run["mtime"] >= app.ewc_began else "from the cache"
    say(f"{how}, {time.time() - app.ewc_began:.1f} s")


def setup(app: Sphinx):
    app.connect("config-inited", prepare)
    app.connect("config-inited", only_pages, priority=950)     # the list is read at 900
    app.connect("env-before-read-docs", execute, priority=800)
    app.connect("env-before-read-docs", count_chapters, priority=900)
    app.connect("source-read", chapter_begins, priority=1)
    app.connect("doctree-read", chapter_ends, priority=900)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": False}
