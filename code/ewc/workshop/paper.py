"""The records of the papers' protocols, which are kept in the repository: how they are made, and found. protocols.py lists the runs.

The pages show these records beside the build's own, labelled with where and when they were made.
"""

import functools
import hashlib
import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from ewc.datasets import mnist
from ewc.training import device
from ewc.workshop import page, paper_cifar, sequences
from ewc.workshop.readable import readable
from ewc.workshop.records import Record
from ewc.workshop.tuning import WIDENINGS, Tuned, best

SET = ("van-de-ven-2019-permuted", "van-de-ven-2019-split")  # the protocols whose strengths are set


def folder() -> Path:
    """Where the records are kept, a folder for each protocol: book/records of the book; in the package that it offers, its own copy."""
    package = Path(__file__).resolve().parents[1]
    book = package.parents[1] / "book" / "records"
    return book if book.is_dir() else package / "records"


def records(experiment: Callable | None = None, *, protocol: Callable[[str], bool] = lambda name: True, **conditions) -> list[Record]:
    """The records in the repository of this experiment whose seed and configuration have these values, by seed.

    Args:
        protocol: whether the records of the protocol of this name count; those of all do unless given.

    Raises:
        ValueError: a file is damaged, stands under another name than its key, or is there twice.
    """
    found, wanted, known = [], json.loads(json.dumps(conditions)), {}
    for path in sorted(folder().glob("*/*.json")):
        kept = _read(path, path.stat().st_mtime_ns)
        if kept["key"] in known:
            raise ValueError(f"{known[kept['key']]} and {path} hold the same run; it would count twice: delete one of them")
        known[kept["key"]] = path
        if (experiment is not None and kept["name"] != _name(experiment)) or not protocol(path.parent.name):
            continue
        values = {**_defaults(_experiment(kept["name"])), **kept["configuration"], "seed": kept["seed"]}
        if all(values.get(name) == value for name, value in wanted.items()):
            found.append(Record(**kept, tensors={}))
    found.sort(key=lambda record: record.seed)
    for record in found:
        page.run(vars(record), kept=True)
    return found


@functools.cache
def _read(path, changed):
    """A record's file. A page asks for many records, and to read all files anew each time took it seconds."""
    try:
        kept = json.loads(path.read_text("utf8"))
        del kept["checksum"]
        named = path.stem.endswith(kept["key"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record, or damaged ({error}): take it from the repository again, or delete it") from error
    if not named:
        raise ValueError(f"{path} holds the run {kept['key']}, which its name does not end with: it was copied or renamed")
    return kept


def finals(experiment: Callable, **run) -> list[Record]:
    """The records of this run on the test images, by seed; with the strength that was searched for, where it names none."""
    wanted, _ = complete(experiment, run)
    if "strength" in run:
        return records(experiment, **wanted)
    del wanted["strength"]
    return records(experiment, protocol=lambda name: name not in SET, **wanted)


def grid(experiment: Callable, run: dict, strengths: Sequence[float]) -> tuple[dict[float, Record | None], int]:
    """The strengths to try on held-out images, by a run each, with its record as far as there is one; and how often they were widened.

    They are these, and those that the records so far ask for: where the best of all lies at an edge, the grid is continued there by
    a step of its own, twice at the most.
    """
    wanted, _ = complete(experiment, {**run, "tuning": True})
    del wanted["strength"]
    tried = {record.configuration["strength"]: record for record in records(experiment, **wanted, seed=0)}
    values, widened = tuple(strengths), 0
    while len(values) > 1 and widened < WIDENINGS and tried.keys() >= set(values):
        chosen = best({value: tried[value].matrix.average() for value in values})
        if chosen == values[0]:
            values = (_beyond(values[1], values[0]), *values)
        elif chosen == values[-1]:
            values = (*values, _beyond(values[-2], values[-1]))
        else:
            break
        widened += 1
    return {value: tried.get(value) for value in values}, widened


def search(experiment: Callable, run: dict, strengths: Sequence[float]) -> Tuned | None:
    """The search for a strength that began with these, with its records and those of the runs with what it chose, one a seed.

    None where there was none, or one of its runs has no record.
    """
    tried, widened = grid(experiment, run, strengths)
    if len(strengths) < 2 or None in tried.values():
        return None
    found = Tuned(tuple(tried), tuple((record,) for record in tried.values()), (), widened=widened)
    return replace(found, records=tuple(finals(experiment, **run, strength=found.chosen)))


def _beyond(before, last):
    """The value that follows the last one as that follows the one before."""
    return float(f"{last**2 / before:.2g}")


def complete(experiment: Callable, run: dict) -> tuple[dict, int]:
    """The whole configuration of a run, and its seed. What it leaves open has the experiment's default, not the machine's size."""
    run = {name: value for name, value in run.items() if name != "seed"} | {"seed": run.get("seed", 0)}
    filled = inspect.signature(experiment).bind(None, **run)
    filled.apply_defaults()
    configuration = {name: value for name, value in filled.arguments.items() if name not in ("tasks", "seed")}
    return json.loads(json.dumps(configuration)), run["seed"]


def key_of(experiment: Callable, configuration: dict, seed: int, checksum: str) -> str:
    """The key of a record, 16 hexadecimal digits: experiment, seed, data, and what in the configuration is not the default.

    So an argument that an experiment is given later does not unmake the records from before.
    """
    defaults = _defaults(experiment)
    chosen = {name: value for name, value in configuration.items() if name not in defaults or value != defaults[name]}
    covered = {"experiment": experiment.__name__, "configuration": chosen, "seed": seed, "data": checksum}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def make(runs: dict[str, Iterable[tuple[Callable, dict]]], *, say: Callable[[str], None] = print) -> None:
    """Train the runs that have no record yet, by protocol, and write theirs, each whole or not at all.

    A protocol whose data are not to be had is left out, and said to be.
    """
    missing = set()
    for protocol, experiment, run in ((name, *each) for name, those in runs.items() for each in those):
        if protocol in missing:
            continue
        configuration, seed = complete(experiment, run)
        try:
            data = experiment.data(configuration) if hasattr(experiment, "data") else mnist()
        except FileNotFoundError as error:
            say(f"{protocol} is left out: {error}")
            missing.add(protocol)
            continue
        key = key_of(experiment, configuration, seed, data.checksum)
        path = folder() / protocol / f"{_name(experiment).replace(' ', '-')}-{configuration['method']}-{key}.json"
        if any(folder().glob(f"*/*-{key}.json")):
            continue
        told = ", ".join(
            str(value) if name == "method" else f"{name} {value}" for name, value in run.items() if name not in ("precision",)
        )
        say(f"{_name(experiment)}: {told} …")
        started = time.perf_counter()
        result, _ = experiment([data.to(device())], seed=seed, **configuration)
        seconds, threads = time.perf_counter() - started, torch.get_num_threads()
        kept = {
            "key": key,
            "name": _name(experiment),
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
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(readable(kept), "utf8")
        os.replace(unfinished, path)
        say(f"   {100 * sum(result['matrix'][-1]) / len(result['matrix']):.2f} % in {seconds:.0f} s: {path.name}")
    say(f"Every run has its record in {folder()}")


def _name(experiment):
    return experiment.__name__.replace("_", " ")


def _experiment(name):
    """The experiment whose records have this name."""
    name = name.replace(" ", "_")
    return getattr(sequences, name, None) or getattr(paper_cifar, name)


@functools.cache
def _defaults(experiment):
    """What the experiment takes where nothing is said; None where something must be said."""
    parameters = inspect.signature(experiment).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty and each.name != "tasks"]
    return complete(experiment, {name: None for name in required})[0]
