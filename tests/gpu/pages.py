"""The code of the book's pages, run as a reader would run it, without Jupyter: so every experiment runs as its page asks for it.

Each page in a process of its own, several at a time; records are kept in the folder EWC_RECORDS, and their descriptions are
copied to --into. Lines that begin with » are for the summary.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```\s*$", re.S | re.M)
HEAD = re.compile(r"\A(?:---\n.*?^---\n|(?::[\w-]+:[^\n]*\n)+)", re.S | re.M)


def pages() -> list[str]:
    """The pages with cells, those that ask for most runs first."""
    names = re.findall(r"^\s*-? ?(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf8"), re.M)
    texts = {name: (ROOT / f"{name}.md").read_text("utf8") for name in names}
    wanted = [name for name, text in texts.items() if cells(text)]
    return sorted(wanted, key=lambda name: -len(re.findall(r"\b(?:run|run_together|tuned)\(", texts[name])))


def cells(text: str) -> list[tuple[int, str]]:
    """The line at which each cell's code begins, and the code, without the cell's options."""
    found = []
    for match in CELL.finditer(text):
        head = HEAD.match(match[1])
        skipped = head.end() if head else 0
        found.append((text.count("\n", 0, match.start(1) + skipped), match[1][skipped:]))
    return found


def run_page(name: str, most: int | None = None) -> int:
    """Run the cells of a page, or the first of them, in one namespace; what a cell ends with is shown as in a notebook, to nobody."""
    started, space, faults = time.perf_counter(), {"__name__": "__main__"}, []
    for line, code in (found := cells((ROOT / f"{name}.md").read_text("utf8"))[:most]):
        try:
            tree = ast.parse("\n" * line + code, f"{name}.md")
            last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, f"{name}.md", "exec"), space)
            value = None if last is None else eval(compile(last, f"{name}.md", "eval"), space)
            if hasattr(value, "_repr_html_"):
                value._repr_html_()
        except Exception as error:
            traceback.print_exc()
            here = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == f"{name}.md"]
            text = (ROOT / f"{name}.md").read_text("utf8").splitlines()
            said = " ".join(str(error).split()) or (text[here[-1] - 1].strip() if here else "")
            faults.append(f"line {here[-1] if here else line}: {type(error).__name__}: {said}"[:300])
    seconds = time.perf_counter() - started
    print(f"» {name}: {len(found)} cells in {seconds:.1f} s" + (f", {len(faults)} failed" if faults else ""), flush=True)
    for fault in faults[:3]:  # what follows from the first is seldom news
        print(f"»   {fault}", flush=True)
    return int(bool(faults))


def run_all(names: list[str], side_by_side: int, seconds: float, logs: Path, most: int | None) -> int:
    """Each page in a process of its own, `side_by_side` at a time; those that are not done when the time is up are ended."""
    ends, waiting, running, failed = time.monotonic() + seconds, list(names), {}, 0
    threads = str(max(1, (os.cpu_count() or 1) // side_by_side))
    while waiting or running:
        while waiting and len(running) < side_by_side and time.monotonic() < ends:
            name = waiting.pop(0)
            log = (logs / f"page-{Path(name).name}.log").open("w+", encoding="utf8")
            child = subprocess.Popen(
                [sys.executable, __file__, "--one", name, *(["--cells", str(most)] if most else [])], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
            )  # fmt: skip
            running[name] = child, log
        time.sleep(0.1)
        late = time.monotonic() > ends
        for name, (child, log) in list(running.items()):
            if child.poll() is None and late:
                child.kill()
                child.wait()
                print(f"» {name}: not done after {seconds:.0f} s, and ended", flush=True)
            if child.poll() is not None:
                failed += child.returncode != 0
                log.seek(0)
                print(log.read(), flush=True)
                log.close()
                del running[name]
        if late and waiting:
            print(f"» not begun: {', '.join(waiting)}", flush=True)
            return failed + len(waiting)
    return failed


def kept_records(into: Path, since: float) -> int:
    """Copy the description of every record and say what each experiment took; one that a GPU should have trained must say so."""
    import torch
    from ewc.workshop.records import records_folder

    into.mkdir(parents=True, exist_ok=True)
    found, elsewhere, before = defaultdict(list), 0, 0
    for path in sorted(records_folder().glob("*/record.json")):
        kept = json.loads(path.read_text("utf8"))
        (into / f"{kept['name'].replace(' ', '-')}-{kept['key']}.json").write_text(json.dumps(kept, indent=1), "utf8")
        found[kept["name"]].append(kept)
        elsewhere += torch.cuda.is_available() and kept["device"] != torch.cuda.get_device_name()
        before += path.stat().st_mtime < since
    for name, many in sorted(found.items()):
        sizes = {f"{each['configuration'].get('steps')} steps of {each['configuration'].get('hidden')}" for each in many}
        total = sum(each["seconds"] for each in many)
        print(f"» {name}: {len(many)} runs, {total:.1f} s of training; {'; '.join(sorted(sizes))}")
    if before:
        print(f"» {before} of these records were there from before: their seconds are not of this time")
    if elsewhere:
        print(f"» {elsewhere} records say that they were trained elsewhere than on the GPU")
    return elsewhere


def tiny() -> int:
    """Every experiment in a form that takes a moment, on tasks that are drawn here."""
    sys.path.insert(0, str(ROOT / "tests" / "code"))
    import warnings

    from ewc.workshop import records
    from tiny_runs import MARKED, TINY, images

    warnings.simplefilter("ignore", RuntimeWarning)
    pair = images("first", 0), images("second", 1)
    records.paired, failed = lambda: pair, 0
    for name, configurations in TINY.items():
        try:
            records.run_together(MARKED[name], [dict(configurations[-1])])
        except Exception:
            traceback.print_exc()
            print(f"» {name}: failed")
            failed += 1
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="run this page, here")
    parser.add_argument("--only", nargs="*", help="these pages; all unless given")
    parser.add_argument("--cells", type=int, help="only so many cells of each page")
    parser.add_argument("--side-by-side", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--tiny", action="store_true", help="first every experiment in a form that takes a moment")
    parser.add_argument("--into", type=Path, default=ROOT / "_build" / "gpu")
    asked = parser.parse_args()
    if asked.one:
        return run_page(asked.one, asked.cells)
    started, since = time.monotonic(), time.time()
    asked.into.mkdir(parents=True, exist_ok=True)
    failed = tiny() if asked.tiny else 0
    failed += run_all(pages() if asked.only is None else asked.only, asked.side_by_side, asked.seconds, asked.into, asked.cells)
    print(f"» all pages: {time.monotonic() - started:.0f} s")
    failed += kept_records(asked.into / "records", since)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
