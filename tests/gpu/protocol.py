"""Of the papers' protocols the shortest that lacks records: its runs are trained, and their records written to --into.

Lines that begin with » are for the summary; the exit status is 77 where there is nothing to do.
"""

import argparse
import itertools
import json
import math
import sys
from pathlib import Path

from ewc.datasets import find_data, mnist
from ewc.workshop import paper

NOTHING_TO_DO = 77


def work(experiment, run) -> float:
    """How long a run takes, in no unit: steps, times the multiplications of each."""
    configuration, _ = paper.complete(experiment, run)
    side = 28 + 2 * configuration["padding"]
    widths = (side * side, *configuration["hidden"], 10)
    tasks = configuration.get("count") or configuration.get("groups")
    return tasks * configuration["steps"] * sum(math.prod(pair) for pair in itertools.pairwise(widths))


def lacking(checksum: str) -> dict[str, list]:
    """By protocol, the runs without a record that can be trained as things stand."""
    known = {json.loads(path.read_text("utf8"))["key"] for path in paper.folder().glob("*/*.json")}
    found = {}
    for name, runs in paper.protocols().items():
        for experiment, run in runs:
            if paper.key_of(experiment, *paper.complete(experiment, run), checksum) not in known:
                found.setdefault(name, []).append((experiment, run))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    into = parser.parse_args().into
    if find_data() is None:
        print("» skipped: the protocols are for MNIST, which is not here; EWC_DATA may name its folder")
        return NOTHING_TO_DO
    found = lacking(mnist().checksum)
    if not found:
        print("» skipped: every run of every protocol has its record")
        return NOTHING_TO_DO
    name = min(found, key=lambda each: sum(work(*run) for run in found[each]))
    print(f"» {name} lacks {len(found[name])} runs, the least work of {', '.join(found)}", flush=True)
    into.mkdir(parents=True, exist_ok=True)
    paper.folder = lambda: into  # each is written when it is done: what the time does not suffice for is trained another day
    paper.make({name: found[name]}, say=lambda text: print(f"» {text}", flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
