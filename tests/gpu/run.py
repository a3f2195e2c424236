"""All that a machine with a GPU is asked, in one go: `make gpu`. It needs no network and no .venv, and changes nothing but --into.

Each part is a process with a time limit of its own, and one that fails stops no other. What they say in full is in a file each;
summary.txt says what ran, where, how long it took, what failed and what was left out. The exit status is 1 where a part failed.

Without CUDA it says so and tries itself in miniature: the same parts, on the CPU, in sizes that take a moment.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEFT_OUT = 77  # the exit status of a part that had nothing to do
NEEDED = ("torch", "torchvision", "matplotlib", "sklearn", "safetensors", "tqdm", "filelock", "pytest")
FOR_THE_BOOK = ("jupyter_book", "ipykernel", "sphinx_design", "sphinx_exercise", "sphinx_proof", "sphinxcontrib.bibtex")
BOOK = "import sys; from jupyter_book.cli.main import main; sys.argv[0] = 'jupyter-book'; main()"

# What is asked of torch before anything else, in a process of its own: a driver that is ill may hang.
MACHINE = """
import json, platform, torch
there = torch.cuda.is_available()
said = {"torch": torch.__version__, "CUDA of torch": torch.version.cuda, "cuda": there, "hub": torch.hub.get_dir()}
if there:
    about = torch.cuda.get_device_properties(0)
    assert float((torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")).sum()) == 64**3
    said |= {
        "GPU": f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability {about.major}.{about.minor}",
        "GPUs": torch.cuda.device_count(), "cuDNN": torch.backends.cudnn.version(),
    }
print(json.dumps(said))
"""


@dataclass
class Part:
    """Something to run, the seconds that it may take, and afterwards what came of it."""

    name: str
    command: list[str]
    limit: float
    instead: str = ""  # why it is not run
    came: str = "not run"
    seconds: float = 0.0
    said: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.came not in ("done", "left out")


def run(part: Part, seconds_left: float, into: Path, environment: dict) -> None:
    """Run a part, its output into a file of its name; ended with all that it started when its time is up."""
    limit, started = min(part.limit, seconds_left), time.monotonic()
    if part.instead or limit < 5:
        part.came, part.said = "left out", (part.instead or "no time was left",)
        return
    path = into / f"{part.name}.log"
    with path.open("w", encoding="utf8") as log:
        child = subprocess.Popen(
            part.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        except BaseException:
            _end(child)
            raise
        _end(child)
    part.seconds = time.monotonic() - started
    part.said = worth_saying(path.read_text("utf8", errors="replace"))
    done = {0: "done", LEFT_OUT: "left out", None: f"ended after {limit:.0f} s, unfinished"}
    part.came = done.get(status, f"failed, exit status {status}")
    if part.failed and not part.said:
        part.said = tuple(path.read_text("utf8", errors="replace").strip().splitlines()[-5:])


def _end(child):
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def worth_saying(output: str) -> tuple[str, ...]:
    """The lines of an output that are for the summary: those behind », and of pytest what failed and the last line."""
    kept = [line.removeprefix("» ") for line in output.splitlines() if re.match(r"» |FAILED |ERROR |=+ .* in [\d.]+s", line)]
    return tuple(line.strip("= ") if line.startswith("=") else line for line in kept)


def machine() -> dict:
    """What torch says of the machine, or, under "trouble", why it says nothing."""
    try:
        done = subprocess.run([sys.executable, "-c", MACHINE], capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"cuda": False, "trouble": "torch did not answer within 120 s"}
    except (ValueError, IndexError):
        return {"cuda": False, "trouble": "\n".join(done.stderr.strip().splitlines()[-3:]) or "torch said nothing"}


def data(hub: str) -> str:
    """What EWC_DATA is to be: as it is, else torchvision's own folder where both data sets are in it, else the stand-ins: nothing is fetched."""
    if chosen := os.environ.get("EWC_DATA"):
        return chosen if chosen == "embedded" else str(Path(chosen).expanduser().resolve())
    folder = Path(hub).parent / "datasets"
    there = all((folder / name / "raw" / "train-images-idx3-ubyte").is_file() for name in ("MNIST", "FashionMNIST"))
    return str(folder) if there else "embedded"


def parts(into: Path, *, small: bool, only: tuple[str, ...]) -> list[Part]:
    """All parts in their order: the most wanted first, for the time may not suffice."""

    def script(name, *options):
        return [sys.executable, str(HERE / f"{name}.py"), *map(str, options)]

    tests = [sys.executable, "-m", "pytest", "tests/gpu", "-ra", "--durations=5", "--import-mode=importlib", "-o", "addopts="]
    tests += ["-p", "no:cacheprovider", f"--confcutdir={HERE}", f"--basetemp={into / 'tests'}"]
    tests += ["-k", "cpu and (separate or laplaces) and not together"] if small else ["-m", "cuda"]
    pages = ["--tiny", "--only", "book/appendix/pytorch", "--cells", 3] if small else ["--side-by-side", min(6, max(1, (os.cpu_count() or 2) // 2))]
    missing = [name for name in FOR_THE_BOOK if not _installed(name)]
    found = [
        Part("tests", tests, 150),
        Part("experiments", script("pages", "--into", into, "--seconds", 225, *pages), 240),
        Part("protocol", script("protocol", "--into", into / "paper", "--side-by-side", max(1, (os.cpu_count() or 2) - 2)), 240),
        Part("profile", script("profiled", "--into", into, *["--small"] * small), 60),
        Part("benchmarks", script("benchmarks", *["--only-load"] * small), 120),
        Part(
            "book", [sys.executable, "-c", BOOK, "build", ".", "--path-output", str(into / "book"), "-n", "--keep-going", "-q"], 300,
            instead="it is not built in miniature" if small else f"{', '.join(missing)} is not installed" if missing else "",
        ),
    ]  # fmt: skip
    for part in found:
        if only and part.name not in only:
            part.instead = "not asked for"
    return found


def _installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def summary(about: dict, ran: list[Part], *, small: bool, seconds: float, chosen: str) -> str:
    """What a person wants to know, as text."""
    lines = ["A GPU, prepared: what ran", ""]
    if "trouble" in about:
        lines += ["torch cannot be used here:", *about["trouble"].splitlines(), ""]
    if small:
        lines += ["There is no CUDA here: the command tried itself in miniature, on the CPU. No number below says anything of a GPU.", ""]
    told = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "CPU": f"{os.cpu_count()} cores",
        "Python": sys.version.split()[0],
        **{name: value for name, value in about.items() if name not in ("cuda", "hub", "trouble")},
        "driver": _driver() if about["cuda"] else "none",
        "data": "embedded stand-ins; MNIST is not here" if chosen == "embedded" else "MNIST and Fashion-MNIST, from EWC_DATA or torchvision's folder",
        "missing": ", ".join(name for name in NEEDED if not _installed(name)) or "nothing",
    }
    lines += [f"{name:16}{value}" for name, value in told.items()]
    lines += ["", f"{'part':16}{'seconds':>8}  what came of it"]
    lines += [f"{part.name:16}{part.seconds:8.1f}  {part.came}" for part in ran]
    lines += [f"{'all':16}{seconds:8.1f}"]
    for part in ran:
        lines += ["", f"{part.name}: {part.came}", *(f"  {line}" for line in part.said)]
    failed = [part.name for part in ran if part.failed]
    lines += ["", f"Failed: {', '.join(failed)}." if failed else "Nothing failed."]
    return "\n".join(lines) + "\n"


def _driver():
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "_build" / "gpu", help="the folder for all that comes of it")
    parser.add_argument("--seconds", type=float, default=570, help="after which nothing more is begun or goes on")
    parser.add_argument("--only", nargs="*", default=(), help="these parts")
    asked = parser.parse_args()
    into, started = asked.into.resolve(), time.monotonic()
    into.mkdir(parents=True, exist_ok=True)
    about = machine()
    small = not about["cuda"]
    chosen = data(about.get("hub", "/nowhere/here"))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "code"), os.environ.get("PYTHONPATH")))),
        "EWC_DATA": chosen,
        "EWC_RECORDS": str(into / "work" if small else ROOT / "_build" / "gpu-work"),  # with the weights, which are large
        "MPLBACKEND": "Agg",
    }  # fmt: skip
    if small:
        environment |= {"OMP_NUM_THREADS": "1"}
        print("There is no CUDA here: in miniature, on the CPU.", flush=True)
    ran = parts(into, small=small, only=tuple(asked.only))
    for part in ran:
        print(f"{part.name} …", flush=True)
        if "trouble" in about:
            part.instead = "torch cannot be used"
        run(part, asked.seconds - (time.monotonic() - started), into, environment)
        said = summary(about, ran, small=small, seconds=time.monotonic() - started, chosen=chosen)
        (into / "summary.txt").write_text(said, "utf8")  # after each part, in case that this process is ended
    print("\n" + said, flush=True)
    return int("trouble" in about or any(part.failed for part in ran))


if __name__ == "__main__":
    sys.exit(main())
