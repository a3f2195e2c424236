"""The papers' protocols: which runs they are, and their records, which are kept in the repository.

`python -m ewc.paper` (`make paper`) trains what is missing, one run after another, and writes a file for each; it can be
stopped and started again. The pages show these records beside the build's own, labelled with where and when they were made. A record's
key covers experiment, configuration, seed and data: a changed experiment is to be run anew, by deleting its files.
"""

import hashlib
import inspect
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from ewc import experiments, page, sequences
from ewc.experiments import Record
from ewc.tasks import mnist
from ewc.training import device

_SEEDS = (0, 1, 2)

# van de Ven and Tolias (2019): ten permutations, 2 × 1000 units, 5,000 steps of Adam 1e-4 on 128 images a task.
PERMUTED = {
    "count": 10,
    "hidden": (1000, 1000),
    "steps": 5000,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "schedule": "constant",
    "precision": "medium",
}
# The same network and number of steps, descent of our choice.
OURS = {**PERMUTED, "optimizer": "sgd", "learning_rate": 0.05, "schedule": "linear"}


def protocols():
    """All runs, as (experiment, configuration with its seed), the most wanted first."""
    runs = []
    for seed in _SEEDS:
        for own in (
            {"method": "ewc", "strength": 100.0, "anchors": "separate"},
            {"method": "ewc", "strength": 100.0},
            {"method": "plain"},
            {"method": "joint"},
        ):
            runs.append((sequences.permuted_tasks, {**PERMUTED, **own, "seed": seed}))
    return runs


def folder() -> Path:
    """Where the records are kept: book/records of the book."""
    return Path(__file__).resolve().parents[2] / "book" / "records"


def complete(experiment, run: dict) -> tuple[dict, int]:
    """The whole configuration of a run of a protocol, and its seed. Sizes are the protocol's own, not the machine's."""
    run = dict(run)
    seed = run.pop("seed")
    filled = inspect.signature(experiment).bind(None, seed=seed, **run)
    filled.apply_defaults()
    configuration = {name: value for name, value in filled.arguments.items() if name not in ("tasks", "seed")}
    return json.loads(json.dumps(configuration)), seed


def key_of(name: str, configuration: dict, seed: int, data: str) -> str:
    """The key of a record: 16 hexadecimal digits of a hash of what was run. `data` is the checksum of the data set."""
    covered = {"experiment": name, "configuration": configuration, "seed": seed, "data": data}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def records(experiment=None, **conditions) -> list[Record]:
    """The records in the repository of this experiment whose configuration has these values, by seed."""
    found = []
    for path in sorted(folder().glob("*.json")):
        kept = json.loads(path.read_text("utf8"))
        kept.pop("checksum")
        if experiment is not None and kept["name"] != experiment.__name__.replace("_", " "):
            continue
        if all(kept["configuration"].get(name) == json.loads(json.dumps(value)) for name, value in conditions.items()):
            found.append(Record(**kept, tensors={}))
    found.sort(key=lambda record: record.seed)
    for record in found:
        page.run(vars(record))
    return found


def make(runs, *, say=print) -> None:
    """Train the runs that have no record yet, and write theirs."""
    data = mnist()
    folder().mkdir(exist_ok=True)
    missing = []
    for experiment, run in runs:
        configuration, seed = complete(experiment, run)
        key = key_of(experiment.__name__, configuration, seed, data.checksum)
        path = folder() / f"{experiment.__name__.replace('_', '-')}-{configuration['method']}-{key}.json"
        if not path.exists():
            missing.append((experiment, configuration, seed, key, path))
    say(f"{len(runs)} runs, {len(missing)} without a record")
    for number, (experiment, configuration, seed, key, path) in enumerate(missing, start=1):
        told = ", ".join(f"{name} {value}" for name, value in configuration.items() if name in sequences.OWN)
        say(f"{number} of {len(missing)}: {experiment.__name__.replace('_', ' ')}, {told}, seed {seed} …")
        started = time.perf_counter()
        result, _ = experiment([data.to(device())], seed=seed, **configuration)
        seconds = time.perf_counter() - started
        threads = torch.get_num_threads()
        kept = {
            "key": key,
            "name": experiment.__name__.replace("_", " "),
            "configuration": configuration,
            "seed": seed,
            "device": torch.cuda.get_device_name()
            if device().type == "cuda"
            else f"CPU ({platform.machine()}), {threads} thread{'s' * (threads > 1)}",
            "data": data.name,
            "checksum": data.checksum,
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "result": result,
        }
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(_json(kept), "utf8")
        os.replace(unfinished, path)
        final = result["matrix"][-1]
        say(f"   {100 * sum(final) / len(final):.2f} % after the last task, {seconds:.0f} s: {path.name}")


def _json(value):
    """JSON that a person can read and a difference can show: a line for each entry, and numbers to six digits."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))
    return json.dumps(rounded, indent=1).replace("\n   ", " ").replace("\n  ]", " ]").replace("\n  }", " }") + "\n"


def main() -> None:
    """Train what is missing of the protocols whose names stand on the command line, or of all."""
    make(protocols(), say=lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
