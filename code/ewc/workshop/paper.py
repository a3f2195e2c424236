"""The papers' protocols: which runs they are, and their records, which are kept in the repository.

`python -m ewc.workshop.paper` (`make paper`) trains what has no record yet, one run after another, and writes a file for each; it can
be stopped and started again. The pages show these records beside the build's own, labelled with where and when they were made.

A strength is chosen among a few on held-out training images, by a run for each, and these runs are records too.
"""

import functools
import hashlib
import inspect
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch

from ewc.datasets import mnist
from ewc.training import device
from ewc.workshop import page, paper_cifar, sequences
from ewc.workshop.readable import readable
from ewc.workshop.records import Record
from ewc.workshop.tuning import best

SEEDS = (0, 1, 2)

# van de Ven and Tolias (2019): ten permutations, 2 × 1000 units, 5,000 steps of Adam on 128 images a task. Their images have
# a border of two pixels, 32 × 32 in all, and that matters: fewer inputs are shared by two permutations. Their Adam is not made
# anew for each task, and that matters too: it goes on with the running averages of the task before.
PERMUTED = {
    "count": 10,
    "padding": 2,
    "hidden": (1000, 1000),
    "steps": 5000,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "schedule": "constant",
    "carried": True,
    "precision": "medium",
}
# The same network and number of steps, with a descent of our choice; and that with one thing left out.
OURS = {**PERMUTED, "optimizer": "sgd", "learning_rate": 0.05, "schedule": "linear", "carried": False}
# Each with the default of the authors' code since 2022, which has the exact Fisher, as here: λ = 100, and for SI c = 10, half of λ.
PERMUTED_METHODS = (
    ({"method": "ewc"}, (100.0,)),
    ({"method": "ewc", "anchors": "separate"}, (100.0,)),
    ({"method": "si"}, (20.0,)),
    ({"method": "joint"}, ()),
    ({"method": "plain"}, ()),
)
OURS_STRENGTHS = (30.0,)
LEFT_OUT = {
    "the falling step": {"schedule": "constant"},
    "momentum": {"momentum": 0.0},
    "descent without Adam": {"optimizer": "adam", "learning_rate": 1e-4},
}

# van de Ven and Tolias (2019): two classes a task, 2 × 400 units, 2,000 steps of Adam on 128 images.
SPLIT = {
    "hidden": (400, 400),
    "steps": 2000,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "carried": True,
    "precision": "medium",
}
SPLIT_METHODS = {
    "task": {"ewc": (1e4, 1e5), "l2": (1e-2, 1e-1), "si": (20.0, 1e3), "replay": (1.0,), "joint": ()},
    "domain": {"ewc": (1e6, 1e8), "l2": (0.1, 0.3, 1.0, 3.0), "si": (1e4, 1e5), "replay": (1.0,), "joint": ()},
    "class": {"ewc": (1e4, 1e6), "l2": (0.1, 1.0), "si": (1e3, 1e4), "replay": (1.0,), "joint": ()},
}

# The same two protocols with the settings of the code that made the print, the branch preprints of GMvandeVen/continual-learning at
# a02db26 (param_values.py, continual_learner.py): the Fisher of the most probable label; EWC keeps a set of springs for each task,
# online EWC one set that fades by γ, with a second γ before the penalty, so that its λ is here λγ; for SI λ = 2c. In scenario
# "class" a lesson's softmax is over the classes seen so far. These strengths are set and not searched for.
ARGMAX = {"method": "ewc", "labels": "argmax"}


def printed(ewc: float, online: float, gamma: float, c: float, lwf: dict | None = None) -> tuple[tuple[dict, tuple[float, ...]], ...]:
    """The methods of 2019 with their λ, online λ, γ and c, in the terms of this book: pairs of a configuration and a strength.

    LwF weighs the loss of task t by 1/t and its teacher by 1 − 1/t. Adam does not see a factor that both have: t − 1 beside 1.
    Where each task has outputs of its own, the teacher counts by the mean over them, so that each has 1. In scenario "class" their
    softmax has the new classes in it too, which no configuration of ours has.
    """
    return (
        ({**ARGMAX, "anchors": "separate"}, (ewc,)),
        ({**ARGMAX, "decay": gamma}, (online * gamma,)),
        ({"method": "si"}, (2 * c,)),
        *(() if lwf is None else (({"method": "lwf", **lwf}, (1.0,)),)),
    )


PERMUTED_PRINTED = printed(ewc=500.0, online=1000.0, gamma=0.9, c=5.0, lwf={"growing": True})
SPLIT_PRINTED = {
    "task": printed(ewc=1e7, online=1e8, gamma=0.8, c=50.0, lwf={}),
    "domain": printed(ewc=1e6, online=1e8, gamma=0.7, c=500.0, lwf={"growing": True}),
    "class": printed(ewc=1e8, online=1e9, gamma=0.8, c=0.5),
}
SHUFFLES = range(1, 21)  # the seeds of their script, by which it also shuffles the digits before it makes pairs of them
SET = ("van-de-ven-2019-permuted", "van-de-ven-2019-split")  # the protocols whose strengths are set

# Hsu et al. (2018): the same network, four passes over the images of a pair. Their images have a border, and their pixels are
# normalized. That makes no other functions possible, but L2, which holds every weight alike, holds fewer of them.
HSU = {**SPLIT, "steps": 375, "padding": 2, "normalized": True}
HSU_METHODS = {
    "task": {
        **{"plain": (), "l2": (0.01, 0.1, 1.0, 10.0), "ewc": (1e2, 1e3, 1e4, 1e5), "si": (10.0, 1e2, 1e3, 1e4)},
        **{"mas": (0.01, 0.1, 1.0, 10.0), "replay": (1.0,), "joint": ()},
    },
    "domain": {
        **{"plain": (), "l2": (0.5, 1.0, 2.0, 4.0), "ewc": (1e3, 1e4, 1e5, 1e6), "si": (1e2, 1e3, 1e4, 1e5)},
        **{"mas": (0.1, 1.0, 10.0, 100.0), "replay": (1.0,), "joint": ()},
    },
    "class": {
        **{"plain": (), "l2": (2.0, 20.0, 200.0, 2000.0), "ewc": (1e2, 1e3, 1e4, 1e5), "si": (1e2, 1e3, 1e4, 1e5)},
        **{"mas": (0.1, 1.0, 10.0, 100.0), "replay": (1.0,), "joint": ()},
    },
}

# Ritter, Botev and Barber (2018) reach over 90 % on fifty permutations with Kronecker factors.
# Springs add up over fifty tasks. Explicit steps of plain descent run away from them: at 0.01 and λ = 3 in the 38th. Proximal
# steps have no such bound.
FIFTY = {
    "count": 50,
    "steps": 938,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "schedule": "linear",
    "way": "proximal",
    "precision": "medium",
}
FIFTY_HIDDEN = ((100, 100), (200, 200))
FIFTY_METHODS = (({"method": "kronecker", "factors": "added"}, (1.0, 3.0, 10.0)), ({"method": "ewc"}, (1.0, 10.0, 100.0)))

# The board of the family, in lessons of a whole pass over the images: ten times as long as in a build.
ONE_PASS = {"count": 5, "hidden": (100, 100), "steps": 938, "batch_size": 64, "fisher_examples": 2000}
ONE_PASS_METHODS = (
    ({"method": "plain"}, ()),
    ({"method": "ewc"}, (3.0, 10.0, 30.0, 100.0, 300.0)),
    ({"method": "l2"}, (0.003, 0.01, 0.03, 0.1, 0.3)),
    ({"method": "replay"}, (0.03, 0.1, 0.3, 1.0, 3.0)),
)


def hsu(scenario: str, method: str) -> dict:
    """The run of Hsu et al. with this method: what they did beyond HSU for some of them."""
    # Naive rehearsal has 1,100 images in all, 275 of each of four pairs when the fifth is learned.
    own = {"memory": 275} if method == "replay" else {}
    # Outputs of classes that have not come yet take no part in a lesson.
    if scenario == "class" and method not in ("replay", "joint"):
        own["seen"] = True
    return {**HSU, "scenario": scenario, "method": method, **own}


def protocols() -> dict[str, Iterable[tuple[Callable, dict]]]:
    """All runs by protocol, the most wanted first, each an experiment and its configuration with the seed.

    A protocol's name is that of its folder of records. Where a strength is to be chosen, the runs that choose it come before those
    that use it.
    """
    return {
        "van-de-ven-permuted": _each(PERMUTED, PERMUTED_METHODS),
        "our-descent": _our_descent(),
        "van-de-ven-split": _van_de_ven_split(),
        "hsu-split": _hsu_split(),
        "ritter-fifty": _ritter_fifty(),
        "van-de-ven-2019-split": _split_printed(),
        "van-de-ven-2019-permuted": _each(PERMUTED, PERMUTED_PRINTED),
        "van-de-ven-fisher": (each for run in paper_cifar.runs() for each in _tuned(paper_cifar.photographs, *run)),
        "one-pass": _each(ONE_PASS, ONE_PASS_METHODS),
    }


def _each(base, methods):
    for own, strengths in methods:
        yield from _tuned(sequences.permuted_tasks, {**base, **own}, strengths)


def _our_descent():
    run = {**OURS, "method": "ewc"}
    yield from _tuned(sequences.permuted_tasks, run, OURS_STRENGTHS)
    chosen = _best(sequences.permuted_tasks, run, OURS_STRENGTHS)
    if chosen is not None:
        for without in LEFT_OUT.values():
            yield sequences.permuted_tasks, {**run, "strength": chosen, **without, "seed": 0}


def _van_de_ven_split():
    for scenario, methods in SPLIT_METHODS.items():
        for method, strengths in methods.items():
            yield from _tuned(sequences.split_tasks, {**SPLIT, "scenario": scenario, "method": method}, strengths)


def _hsu_split():
    for scenario, methods in HSU_METHODS.items():
        for method, strengths in methods.items():
            yield from _tuned(sequences.split_tasks, hsu(scenario, method), strengths)


def _ritter_fifty():
    for hidden in FIFTY_HIDDEN:
        for own, strengths in FIFTY_METHODS:
            yield from _tuned(sequences.permuted_tasks, {**FIFTY, "hidden": hidden, **own}, strengths, seeds=(0,))


def _split_printed():
    for scenario, methods in SPLIT_PRINTED.items():
        seen = {"seen": True} if scenario == "class" else {}
        for own, strengths in methods:
            yield from _tuned(sequences.split_tasks, {**SPLIT, "scenario": scenario, **seen, **own}, strengths)
    for own, strengths in SPLIT_PRINTED["domain"]:  # where it matters which digits share an output
        yield from _tuned(sequences.split_tasks, {**SPLIT, "scenario": "domain", "shuffled": True, **own}, strengths, SHUFFLES)


def _tuned(experiment, run, strengths, seeds=SEEDS):
    """First the runs on held-out images, with each of the strengths; then one for each seed, with the best of them."""
    for strength in strengths if len(strengths) > 1 else ():
        yield experiment, {**run, "strength": strength, "tuning": True, "seed": 0}
    chosen = _best(experiment, run, strengths)
    if chosen is not None or not strengths:
        for seed in seeds:
            yield experiment, {**run, "strength": chosen, "seed": seed}


def _best(experiment, run, strengths):
    """The strength that `tuning.best` chooses, once all have been tried on held-out images; the only one, where there is one."""
    if len(strengths) == 1:
        return strengths[0]
    wanted, _ = complete(experiment, {**run, "tuning": True})
    wanted.pop("strength")
    searched = {
        record.configuration["strength"]: record.matrix.average()
        for record in records(experiment, **wanted, seed=0)
        if record.configuration["strength"] in strengths
    }
    return best(searched) if len(searched) == len(strengths) > 0 else None


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


if __name__ == "__main__":
    # Running averages that fade end among the denormal numbers, with which a CPU computes many times more slowly.
    torch.set_flush_denormal(True)
    make(protocols(), say=lambda text: print(text, file=sys.stderr, flush=True))
