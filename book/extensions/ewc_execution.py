"""Decide when a page is executed again, on which data, and say on the terminal what is going on.

Why: jupyter-cache knows a page by the source of its cells alone. Change `code/ewc`, the papers' records, the locked
packages, the data or the device, and pages would keep their old numbers. So each such state gets a cache folder of its own. The data are
looked for once, here, and every kernel is told what was found: no two pages of a build can disagree.
"""

import hashlib
import os
import platform
import shutil
import sys
import threading
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

PAGES = 2   # executed side by side, each with its share of the cores: much of a page, its figures for one, is work for one core
# Those that train longest begin first, so that no core waits for them at the end.
LONGEST = [
    "elastic/many-tasks", "beyond/what-ewc-cannot-do", "beyond/the-family", "forgetting/tempting-fixes",
    "elastic/reading-other-peoples-ewc", "elastic/choosing-lambda", "elastic/mnist-to-fashion-mnist",
]  # fmt: skip
KEPT = 5   # cache folders of other states: with data, without, and a few to go back to
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
    os.environ.setdefault("EWC_RECORDS", str(Path(app.srcdir, "_build", "records")))
    # torch about itself, when it differentiates twice
    os.environ["PYTHONWARNINGS"] = "ignore:`torch.jit.script` is deprecated:FutureWarning"
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"       # this environment's kernel, not a namesake in the home folder
    os.environ["IPYTHONDIR"] = str(kernel_profile(Path(app.srcdir, "_build", "ipython")))
    os.environ.pop("EWC_TERMINAL", None)
    if sys.stderr.isatty():
        os.environ["EWC_TERMINAL"] = os.ttyname(2)    # kernels draw their progress bars there, and nowhere else

    # A stack's tensors are made anew each step. Memory that goes back to the system in between has to be fetched and cleared again.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**32))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    state = f"{'data' if folder else 'embedded'} {device} python {platform.python_version()}"
    config.nb_execution_cache_path = str(cache_folder(Path(app.srcdir), state))


def cache_folder(project: Path, state: str) -> Path:
    """The folder for this state of code, records, packages, data and device; the oldest of the others are removed."""
    digest = hashlib.sha256(state.encode())
    files = [*sorted(project.glob("code/**/*.py")), *sorted(project.glob("book/records/*/*.json"))]
    for file in [*files, project / "requirements.txt"]:
        digest.update(b"\0%s\0" % file.relative_to(project).as_posix().encode())
        digest.update(file.read_bytes())
    folder = project / "_build" / "executed" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()                                    # its date says when it was last used
    others = sorted((each for each in folder.parent.iterdir() if each != folder), key=lambda each: each.stat().st_mtime)
    for old in others[:-KEPT]:
        shutil.rmtree(old)
    return folder


def kernel_profile(folder: Path) -> Path:
    """A profile of the book's own: nothing from the reader's start-up files, no warnings of the kernel about itself.

    A running average that fades ends among the denormal numbers, with which a CPU computes many times more slowly; pages take
    them for 0. That has to be said before torch starts its threads. A tenth of the time of ten permuted tasks.
    """
    settings = folder / "profile_default" / "ipython_kernel_config.py"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(
        "c = get_config()\nc.IPKernelApp.log_level = 40\nc.HistoryManager.enabled = False\n"
        "c.IPKernelApp.exec_lines = ['__import__(\"torch\").set_flush_denormal(True)']\n"
    )
    return folder


def cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(app: Sphinx, env, docnames):
    """Execute the pages that are not in the cache, side by side. When Sphinx reads them, they are. A page that fails is left to
    myst-nb, which executes it once more and reports where it failed; what was trained until then is not trained again."""
    cache = get_cache(app.config.nb_execution_cache_path)
    missing = {}
    for docname in docnames:
        path = env.doc2path(docname)
        text = Path(path).read_text("utf8")
        if is_myst_markdown_notebook(text):
            page = read_myst_markdown_notebook(text, config=env.myst_config, add_source_map=True, path=path)
            try:
                cache.match_cache_notebook(page)
            except KeyError:
                missing[docname.removeprefix("book/")] = path, page
    if len(missing) < 2 or cores() < 2:
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(cores() // PAGES))
    say(f"Executing {len(missing)} pages, {PAGES} at a time …")
    options = {"timeout": env.mystnb_config.execution_timeout, "allow_errors": env.mystnb_config.execution_allow_errors}
    apart = get_context("spawn")
    with ProcessPoolExecutor(PAGES, apart, initializer=begin, initargs=(apart.Lock(),)) as pool:
        working = {
            pool.submit(single_nb_execution, missing[name][1], str(Path(missing[name][0]).parent), **options): name
            for name in sorted(missing, key=[*LONGEST, *missing].index)
        }
        for number, work in enumerate(as_completed(working), start=1):
            name, done = working[work], work.result()
            if done.err is None:
                cache.cache_notebook_bundle(
                    CacheBundleIn(done.nb, missing[name][0], data={"execution_seconds": done.time}), check_validity=False, overwrite=True
                )
            say(f"page {number} of {len(missing)}  {name} … {'FAILED' if done.err else 'executed'}, {done.time:.1f} s")


def begin(first):
    """How a process begins that executes pages. When the build is killed, it ends, and then its kernel does."""
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
    if not first.acquire(block=False):
        os.environ.pop("EWC_TERMINAL", None)          # two progress bars would write over one another


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


def rewrite_for_assets(app: Sphinx, env):
    """Sphinx copies styles and scripts only when it writes pages, and pages name them by their content."""
    digest = hashlib.sha256()
    for file in sorted(Path(app.srcdir, "book", "assets").iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    if getattr(env, "ewc_assets", None) == digest.hexdigest():
        return []
    env.ewc_assets = digest.hexdigest()
    return list(env.found_docs)


def setup(app: Sphinx):
    app.connect("config-inited", prepare)
    app.connect("env-before-read-docs", execute, priority=800)
    app.connect("env-before-read-docs", count_chapters, priority=900)
    app.connect("source-read", chapter_begins, priority=1)
    app.connect("doctree-read", chapter_ends, priority=900)
    app.connect("env-updated", rewrite_for_assets)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": False}
