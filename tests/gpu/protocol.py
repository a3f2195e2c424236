"""The papers' protocols that lack records: their runs are trained side by side, the shortest protocol first, and their records
written to --into, each when it is done. What the time does not suffice for is trained another day.

Lines that begin with » are for the summary; the exit status is 77 where there is nothing to do.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from ewc.datasets import find_data, mnist
from ewc.workshop import paper, protocols

NOTHING_TO_DO = 77


def work(experiment, run) -> float:
    """How long a run takes, in no unit: steps, times the multiplications of each."""
    configuration, _ = paper.complete(experiment, run)
    side = 28 + 2 * configuration["padding"]
    widths = (side * side, *configuration["hidden"], 10)
    tasks = configuration.get("count") or configuration.get("groups")
    return tasks * configuration["steps"] * sum(math.prod(pair) for pair in itertools.pairwise(widths))


def lacking(checksum: str) -> dict[str, list]:
    """By protocol, the runs on the digits without a record that can be trained as things stand, the least work first."""
    known = {json.loads(path.read_text("utf8"))["key"] for path in paper.folder().glob("*/*.json")}
    found = {}
    for name, runs in protocols.runs().items():
        for experiment, run in runs:
            if hasattr(experiment, "data"):  # photographs, which no machine without a network has
                continue
            if paper.key_of(experiment, *paper.complete(experiment, run), checksum) not in known:
                found.setdefault(name, []).append((experiment, run))
    return dict(sorted(found.items(), key=lambda each: sum(work(*run) for run in each[1])))


def train(name: str, place: int, into: Path) -> int:
    """Train the run at this place of a protocol's list, in this process."""
    runs = lacking(mnist().checksum)[name][place : place + 1]
    into.mkdir(parents=True, exist_ok=True)
    paper.folder = lambda: into
    paper.make({name: runs}, say=lambda text: print(f"» {name}, {text}" if " % in " in text else text, flush=True))
    return 0


def train_all(wanted: list[tuple[str, int]], side_by_side: int, into: Path) -> int:
    """Each run in a process of its own, `side_by_side` at a time: small networks leave most of a GPU idle."""
    running, failed = [], 0
    while wanted or running:
        while wanted and len(running) < side_by_side:
            name, place = wanted.pop(0)
            command = [sys.executable, __file__, "--into", str(into), "--one", name, str(place)]
            running.append((name, place, subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})))
        time.sleep(0.2)
        for name, place, child in [each for each in running if each[2].poll() is not None]:
            running.remove((name, place, child))
            if child.returncode:
                failed += 1
                print(f"» {name}, run {place}: failed, exit status {child.returncode}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--side-by-side", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("PROTOCOL", "PLACE"), help="train one run, here")
    asked = parser.parse_args()
    if find_data() is None:
        print("» skipped: the protocols are for MNIST, which is not here; EWC_DATA may name its folder")
        return NOTHING_TO_DO
    if asked.one:
        return train(asked.one[0], int(asked.one[1]), asked.into)
    found = lacking(mnist().checksum)
    if not found:
        print("» skipped: every run of every protocol has its record")
        return NOTHING_TO_DO
    print("» without a record:", "; ".join(f"{len(runs)} runs of {name}" for name, runs in found.items()), flush=True)
    wanted = [(name, place) for name, runs in found.items() for place in range(len(runs))]
    return int(train_all(wanted, asked.side_by_side, asked.into) > 0)


if __name__ == "__main__":
    sys.exit(main())
