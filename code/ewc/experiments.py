"""Named experiments: a configuration goes in, a record comes out, and is remembered on disk, so that nothing is trained twice.

A record is found again by its key, a hash of everything that the result depends on: the experiment's own code and its
configuration, the data, the kind of device, the version of torch, and the code of the modules that it runs (comments and
docstrings do not count). Change the Fisher, and what was trained with it is trained again; change a figure, and nothing is.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ewc import page
from ewc.fisher import LABELS, diagonal_fisher
from ewc.metrics import AccuracyMatrix
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.replay import Replay
from ewc.tasks import Task, paired
from ewc.training import accuracy, device, fit

# What two cores can afford, with the full data and with the embedded stand-ins.
SIZE = {"cpu": {"steps": 1000, "strength": 300.0}, "embedded": {"steps": 700, "strength": 1000.0}}

# At which steps of a task the accuracies are looked at: often where they change fast.
LOOKS = (0, 1, 2, 4, 8, 15, 30, 60, 125, 250, 500, 700, 1000)


@dataclass(frozen=True)
class Record:
    """What one run was and gave: ``result`` holds numbers and lists, ``tensors`` weights and curves, by name."""

    key: str
    name: str
    configuration: dict
    seed: int
    device: str
    data: str
    versions: dict
    seconds: float  # its share, where it was trained beside others
    finished: str
    result: dict
    tensors: dict[str, Tensor] = field(repr=False)
    together: int = 1  # how many runs were trained side by side

    @property
    def matrix(self) -> AccuracyMatrix:
        """The accuracy matrix of a run that learned tasks in sequence."""
        return AccuracyMatrix(self.result["matrix"])

    def model(self, name: str) -> torch.nn.Module:
        """The network of the run, on the CPU, with the weights kept under `name`, for example ``"after 1"``."""
        network = mlp(
            self.configuration["hidden"],
            inputs=(28 + 2 * self.configuration.get("padding", 0)) ** 2,
            classes=2 if self.configuration.get("scenario") == "domain" else 10,
        )
        # A copy: the parameters become views of it, and training them must not write into the record.
        vector_to_parameters(self.tensors[name].clone(), network.parameters())
        return network


def run(experiment: Callable, *, seed: int = 0, **configuration) -> Record:
    """The record of `experiment` under this configuration: read back when it was run before, else run now and kept.

    Args:
        experiment: one of this file's, marked with `@depends_on`.
        seed: of the initial weights, the order of the images, and every other draw.
        configuration: the experiment's keyword arguments; those left out take their defaults and are recorded too.

    Raises:
        TypeError: the experiment has no such argument.
    """
    return run_together(experiment, [{"seed": seed, **configuration}])[0]


def run_together(experiment: Callable, runs: list[dict]) -> list[Record]:
    """The records of several runs of one experiment, each a configuration with its seed; see `run`.

    Those that are missing are trained side by side where the experiment can do that (it has `together`) and they differ only
    in what it lists as `own`; the others one after another. Either way a record is kept under the key of its own run.

    Processes that ask for the same runs at the same time, as the pages of the book do, train them once: the others wait.
    """
    tasks = paired()
    asked = [_filled(experiment, tasks, dict(run)) for run in runs]
    keys = [key_of(experiment, tasks, configuration, seed) for configuration, seed in asked]
    records = {key: _read(key) for key in keys}
    groups: dict[str, list] = {}
    for key, (configuration, seed) in dict(zip(keys, asked, strict=True)).items():
        if records[key] is None:
            shared = {name: value for name, value in configuration.items() if name not in getattr(experiment, "own", configuration)}
            group = json.dumps(shared, sort_keys=True) if hasattr(experiment, "together") else key
            groups.setdefault(group, []).append((key, configuration, seed))
    for name, group in groups.items():
        with _alone(f"{experiment.__name__} {name}"):
            for key, _, _ in group:  # another process may have trained it meanwhile
                records[key] = _read(key)
            missing = [run for run in group if records[run[0]] is None]
            for record in _trained(experiment, tasks, missing) if missing else ():
                _write(record)
                records[record.key] = record
    for key in keys:
        page.run(vars(records[key]))
    return [records[key] for key in keys]


def _alone(name):
    """A lock that one process at a time can hold; it is free again when that process ends, however it ends."""
    folder = records_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / hashlib.sha256(name.encode()).hexdigest()[:16])


def _filled(experiment, tasks, run):
    """The whole configuration of a run and its seed: what is not given takes its default, and that may depend on the size."""
    seed = run.pop("seed", 0)
    given = [tasks, None] if experiment.begins_with else [tasks]
    filled = inspect.signature(experiment).bind(*given, seed=seed, **run)
    filled.apply_defaults()
    configuration = {name: value for name, value in filled.arguments.items() if name not in ("tasks", "first", "seed")}
    sizes = getattr(experiment, "sizes", SIZE)
    kind = "embedded" if tasks[0].embedded else "cuda" if device().type == "cuda" and "cuda" in sizes else "cpu"
    size = sizes[kind]
    if configuration.get("method", "ewc") != "ewc":
        size = {**size, "strength": None}  # the size's is EWC's; what has none is not to be trained again when that changes
    return {name: size.get(name) if value is None else value for name, value in configuration.items()}, seed


def _trained(experiment, tasks, group):
    """The records of runs that are trained now: side by side, or the one that there is."""
    started = time.perf_counter()
    here = [task.to(device()) for task in tasks]
    if hasattr(experiment, "together"):
        results = experiment.together(here, [{**configuration, "seed": seed} for _, configuration, seed in group])
    else:
        ((_, configuration, seed),) = group
        first = [run(experiment.begins_with, **beginning(experiment, configuration, seed))] if experiment.begins_with else []
        started = time.perf_counter()  # what it begins with has seconds of its own
        results = [experiment(here, *first, seed=seed, **configuration)]
    seconds = (time.perf_counter() - started) / len(group)
    for (key, configuration, seed), (result, tensors) in zip(group, results, strict=True):
        yield Record(
            key=key,
            name=experiment.__name__.replace("_", " "),
            configuration=json.loads(json.dumps(configuration)),
            seed=seed,
            device=torch.cuda.get_device_name()
            if device().type == "cuda"
            else f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
            data=" → ".join(task.name for task in tasks),
            versions={"torch": torch.__version__},
            seconds=seconds,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            result=result,
            tensors=tensors,
            together=len(group),
        )


def key_of(experiment: Callable, tasks: list[Task], configuration: dict, seed: int) -> str:
    """The key under which a run is remembered: 16 hexadecimal digits."""
    covered = {
        "experiment": _meaning(inspect.getsource(experiment)),
        "modules": {name: _meaning(_source(name)) for name in experiment.modules(configuration)},
        "configuration": configuration,
        "looks": LOOKS,
        "seed": seed,
        "data": [task.checksum for task in tasks],
        "device": device().type,
        "torch": torch.__version__,
    }
    if experiment.begins_with:
        before = beginning(experiment, configuration, seed)
        seed = before.pop("seed")
        covered["begins with"] = key_of(experiment.begins_with, tasks, before, seed)
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:16]


def depends_on(modules: Callable[[dict], tuple[str, ...]], *, sizes: dict[str, dict] = SIZE, begins_with: Callable | None = None):
    """Mark an experiment with the modules of this package that it runs, given its configuration, and with its sizes.

    sizes: by ``"cpu"``, ``"embedded"`` and perhaps ``"cuda"``, what the arguments become that are None.
    begins_with: another experiment, whose record under the same configuration and seed this one is given beside the tasks.
    """

    def mark(experiment):
        experiment.modules, experiment.sizes, experiment.begins_with = modules, sizes, begins_with
        return experiment

    return mark


def beginning(experiment: Callable, configuration: dict, seed: int) -> dict:
    """What `run` is to be asked for to obtain the record that this run of the experiment begins with."""
    names = inspect.signature(experiment.begins_with).parameters
    return {name: value for name, value in configuration.items() if name in names} | {"seed": seed}


_LEARNING = ("tasks", "models", "training", "metrics")
_PENALTIES = {"plain": (), "l2": ("penalties",), "ewc": ("penalties", "fisher")}


@depends_on(lambda configuration: _LEARNING)
def first_lesson(
    tasks,
    *,
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Learn the first task. `two_tasks` and `second_lessons` go on from its weights, so that it is trained once.

    Keeps the accuracies on both tasks, before and after, and the weights.
    """
    model = mlp(hidden, seed=seed).to(tasks[0].train_inputs.device)
    untrained = [accuracy(model, task) for task in tasks]
    options = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "momentum": momentum}
    fit(model, tasks[0], seed=seed * 1000, label=f"first lesson, seed {seed}", **options)
    weights = parameters_to_vector(model.parameters()).detach().cpu()
    return {"untrained": untrained, "after": [accuracy(model, task) for task in tasks]}, {"after 1": weights}


@depends_on(lambda configuration: _LEARNING + _PENALTIES[configuration["method"]], begins_with=first_lesson)
def two_tasks(
    tasks,
    first: Record,
    *,
    method: str = "plain",
    strength: float | None = None,
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """After the first task learn the second, with ``"plain"`` descent, ``"l2"`` or ``"ewc"``; the same ten outputs for both.

    Keeps the accuracy matrix, the accuracies on the way through the second task, those of the untrained network, the weights
    after each task, and for the first seed the weights on the way.
    """
    model = first.model("after 1").to(tasks[0].train_inputs.device)
    makers = {
        "plain": lambda: None,
        "l2": lambda: L2(model, strength),
        "ewc": lambda: EWC(model, strength, anchors="merged"),
    }
    penalty = makers[method]()
    if penalty is not None:
        penalty.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
    weights, looks = {"after 1": first.tensors["after 1"]}, []

    def look(step):
        if step == steps or (step in LOOKS and method != "l2"):  # no page shows L2 on its way
            looks.append({"task": 1, "step": step, "accuracies": [accuracy(model, task) for task in tasks]})
            if step == steps or seed == 0:
                weights["after 2" if step == steps else f"step {step}"] = parameters_to_vector(model.parameters()).detach().cpu()

    fit(
        model,
        tasks[1],
        penalty=penalty,
        watch=look,
        seed=seed * 1000 + 1,
        label=f"{method}, seed {seed}",
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
    )
    matrix = [first.result["after"], looks[-1]["accuracies"]]
    return {"matrix": matrix, "looks": looks, "untrained": first.result["untrained"]}, weights


@depends_on(lambda configuration: (*_LEARNING, "fisher"))
def fisher_of_labels(
    tasks,
    *,
    examples: int = 8000,
    passes: int = 40,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 128,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """Train on a part of the first task until it is fitted, and take the Fisher with each kind of labels on the way.

    Keeps, at each look, the pass, the accuracy on the part, and the trace of each Fisher.
    """
    part = tasks[0].train_inputs[:examples], tasks[0].train_targets[:examples]
    task = Task(**{**vars(tasks[0]), "train_inputs": part[0], "train_targets": part[1]})
    seen = Task(**{**vars(task), "test_inputs": part[0], "test_targets": part[1]})
    model = mlp(hidden, seed=seed).to(part[0].device)
    length = -(-len(part[0]) // batch_size)
    looks = []

    def look(step):
        if step % length or step // length not in (0, 1, 2, 3, 5, 8, 12, 18, 26, passes):
            return
        draws = torch.Generator().manual_seed(seed)
        traces = {}
        for labels in LABELS:
            fisher = diagonal_fisher(model, *part, labels=labels, generator=draws)
            traces[labels] = float(sum(value.double().sum() for value in fisher.values()))
        looks.append({"pass": step // length, "accuracy": accuracy(model, seen), "traces": traces})

    fit(
        model,
        task,
        steps=passes * length,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        seed=seed,
        watch=look,
        label=f"labels of the Fisher, seed {seed}",
    )
    return {"looks": looks, "examples": len(part[0])}, {}


@depends_on(lambda configuration: (*_LEARNING, "replay"), begins_with=first_lesson)
def second_lessons(
    tasks,
    first: Record,
    *,
    ways: tuple[tuple[str, float], ...],
    steps: int | None = None,
    hidden: tuple[int, ...] = (256, 256),
    batch_size: int = 64,
    learning_rate: float = 0.06,
    momentum: float = 0.9,
    seed: int = 0,
):
    """After the first task learn the second in several ways, each from the same weights.

    A way is a name and an amount: ``("slower", 0.1)`` takes steps of a tenth of the size, ``("freeze", 1)`` holds the first
    layer still, ``("replay", 200)`` keeps that many images of the first task. Keeps both accuracies before and after each.
    """
    options = {"steps": steps, "batch_size": batch_size, "momentum": momentum}
    after = []
    for way, amount in ways:
        model = first.model("after 1").to(tasks[0].train_inputs.device)
        layers = [layer for layer in model if list(layer.parameters())]
        penalty, rate, frozen = None, learning_rate, 0
        if way == "slower":
            rate = amount * learning_rate
        elif way == "freeze":
            frozen = amount
        elif way == "replay":
            penalty = Replay(model, examples=amount, batch_size=batch_size, seed=seed)
            penalty.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
        else:
            raise ValueError(f"a way is {way!r}; it may be 'slower', 'freeze' or 'replay'")
        for place, layer in enumerate(layers):
            layer.requires_grad_(place >= frozen)
        label = f"{way} {amount}, seed {seed}"
        fit(model, tasks[1], penalty=penalty, learning_rate=rate, seed=seed * 1000 + 1, label=label, **options)
        after.append([accuracy(model, task) for task in tasks])
    return {"before": first.result["after"], "after": after}, {}


def records_folder() -> Path:
    """Where records are kept: the folder in EWC_RECORDS, else _build/records of the book, or of the folder one is in."""
    if chosen := os.environ.get("EWC_RECORDS"):
        return Path(chosen)
    book = Path(__file__).resolve().parents[2]
    return (book if (book / "_toc.yml").exists() else Path.cwd()) / "_build" / "records"


def _read(key):
    folder = records_folder() / key
    try:
        kept = json.loads((folder / "record.json").read_text("utf8"))
        return Record(**kept, tensors=load_file(folder / "tensors.safetensors"))
    except (OSError, ValueError, TypeError, SafetensorError):  # not there, or damaged: it is made again
        return None


def _write(record):
    """Write the record beside its place and move it there in one step: it is there whole or not at all."""
    folder = records_folder()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in record.tensors.items()}, unfinished / "tensors.safetensors"
        )
        kept = {name: value for name, value in vars(record).items() if name != "tensors"}
        (unfinished / "record.json").write_text(json.dumps(kept, indent=1), "utf8")
        shutil.rmtree(folder / record.key, ignore_errors=True)  # a damaged one, if any
        unfinished.replace(folder / record.key)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _source(module):
    return Path(__file__).with_name(f"{module}.py").read_text("utf8")


@functools.cache
def _meaning(source):
    """The code without its comments and docstrings, as a hash."""
    tree = ast.parse(inspect.cleandoc(source) if source[:1].isspace() else source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
