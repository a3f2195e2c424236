"""Build the pages with Jupyter Book; what `make book` runs.

Why: Sphinx renders anew what it takes for changed, page by page and by dates. But the number of an equation, the title of a page
and the text of a reference stand on other pages too. So all pages are rendered anew when the content of any file that they are
made from differs, or when a file that was written is no longer as it was written: half a minute. What cells and trainings gave is not
touched (_build/executed, _build/records). The pages of the last good build stay until there are new ones.
"""

import gc
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

# What pages are made from. The listings show lines of the code and of its tests; the last three are in the package that pages offer.
INPUTS = (
    "_config.yml", "_toc.yml", "index.md", "CITATION.cff", "requirements.txt", "book", "code/ewc", "tests/code", "package-lock.json",
    "pyproject.toml", "README.md", "LICENSE",
)  # fmt: skip


def digests(folder, names):
    """Path → SHA-256 of every file of these names and in these folders, without hidden ones and what Python compiled."""
    found = {}
    for name in names:
        place = Path(folder, name)
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            parts = file.relative_to(place).parts
            if file.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
                found[file.relative_to(folder).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def inputs():
    settings = {name: os.environ.get(name, "") for name in ("EWC_DATA", "BOOK_ADDRESS", "BOOK_REPOSITORY")}
    return {"python": platform.python_version(), **settings, **digests(".", INPUTS)}


def written(built):
    return digests(built, ("html", ".doctrees"))


def is_whole(built, made_from):
    """Whether the last build ended well, was made from the same, and what it wrote is still so."""
    try:
        kept = json.loads((built / ".complete").read_text("utf8"))
        return kept == {"made from": made_from, "written": written(built)}
    except (OSError, ValueError):
        return False


def build(output):
    """Render, and say whether it went well."""
    built, made_from = Path(output, "_build"), inputs()
    built.mkdir(parents=True, exist_ok=True)
    html, last = built / "html", built / "html.last"
    anew = not is_whole(built, made_from)
    if anew:
        if last.exists():                    # killed while it rendered: what is in html is half a book
            shutil.rmtree(html, ignore_errors=True)
        elif html.exists():
            html.rename(last)
        for name in (".doctrees", "jupyter_execute"):
            shutil.rmtree(built / name, ignore_errors=True)
    (built / ".complete").unlink(missing_ok=True)
    good = False
    try:
        good = render(output, built / "jupyter-book.log")
    finally:
        if good:
            (built / ".complete").write_text(json.dumps({"made from": made_from, "written": written(built)}), "utf8")
            shutil.rmtree(last, ignore_errors=True)
        elif anew:
            shutil.rmtree(html, ignore_errors=True)
            if last.exists():
                last.rename(html)
    return good


def render(output, log):
    """Run Jupyter Book. What it says of itself goes into a log, which is shown when it fails."""
    from jupyter_book.cli.main import main

    sys.stdout.flush()
    gc.disable()                     # looking for circles among the trees of all pages takes a sixth of the time; they are needed to the end
    before = os.dup(1)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
    try:
        main(["build", ".", "--path-output", output, "-W", "-n", "--keep-going", "-q"], standalone_mode=False)
        return True
    except SystemExit as end:        # after warnings
        return not end.code
    except Exception as problem:     # Sphinx has said what went wrong by now
        print(problem)
        return False
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)


class Stopped(BaseException):
    """By Ctrl-C, or by who ended make. Sphinx reports exceptions and interrupts as its own; this passes it by."""


def stop(number, _):
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # once is enough: it takes a second to end the kernels
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped(number)


def end_with(parent):
    """When make is gone, nobody waits for this build."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main(output):
    began = time.monotonic()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    print("Building the book …", flush=True)
    log = Path(output, "_build", "jupyter-book.log")
    try:
        good = build(output)
    except Stopped as stopped:
        print("\nStopped. What was executed and trained is kept: the next build goes on from there.", file=sys.stderr)
        raise SystemExit(128 + stopped.args[0]) from None
    if not good:
        print(log.read_text("utf8"))
        print(f"The book was not built: see above ({time.monotonic() - began:.0f} s).", file=sys.stderr)
        raise SystemExit(1)
    print(f"… done in {time.monotonic() - began:.0f} s. Open {Path(output, '_build', 'html', 'index.html')}")


if __name__ == "__main__":
    main(sys.argv[1])
