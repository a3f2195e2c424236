"""The benchmarks of tests/benchmarks one after another, each as the script that it is: one that misses stops no other.

The bars are those of CPUs, where a step's products take most of its time. A GPU is done with these small ones before Python has
asked for the next: there a bar that is missed is said, and is no failure. Lines that begin with » are for the summary.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
# Others' packages that a benchmark compares with; a machine need not have them.
OTHERS = ("backpack", "curvlinops")


def main() -> int:
    only_load, failed = "--only-load" in sys.argv, 0
    there = torch.cuda.is_available()
    paths = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH"))))
    for file in sorted(FOLDER.glob("bench_*.py")):
        command = [sys.executable, str(file)] if not only_load else [sys.executable, "-m", "py_compile", str(file)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
        said, seconds = done.stdout + done.stderr, time.perf_counter() - started
        print(f"{file.name}\n{said}", flush=True)
        lines = said.strip().splitlines() or [""]
        missing = re.findall(rf"No module named '({'|'.join(OTHERS)})[.']", lines[-1])
        missed = [line for line in lines if line.startswith("MISSED")]
        if missing:
            print(f"» {file.stem}: skipped, {missing[0]} is not installed", flush=True)
        elif done.returncode:
            failed += not (there and missed)
            print(f"» {file.stem}: {'; '.join(missed) or lines[-1]} ({seconds:.0f} s)", flush=True)
        else:
            print(f"» {file.stem}: {'can be compiled' if only_load else f'held ({seconds:.0f} s)'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
