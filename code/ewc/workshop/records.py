"""Named experiments: a configuration goes in, a record comes out, and is remembered on disk, so that nothing is trained twice.

A record is found again by its key, a hash of everything that the result depends on: the experiment and its configuration, the
data, the kind of device, the version of torch, and the code of the modules that it runs, as it was when this process began
(comments and docstrings do not count, nor does the version of Python). Change the Fisher, and what was trained with it is
trained again; change a figure, and nothing is. What was trained while a file of that code changed is not kept.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from ewc.datasets import paired
from ewc.metrics import AccuracyMatrix
from ewc.models import mlp
from ewc.tasks import Task
from ewc.training import device
from ewc.workshop import page

# The modules that most experiments run, and those behind one call: the diagonal Fisher, a penalty of springs.
LEARNING = ("tasks", "models", "heads", "passes", "training", "metrics")
READINGS = (
    *("looking", "labels", "likelihoods", "scores", "batches", "readings", "ways", "mixing", "calls", "places", "gradients"),
    *("processes", "evaluating", "checks"),
)
FISHER = ("fisher", "factors", *READINGS)
SPRINGS = ("penalties", "springs", "checks")

_PACKAGE = Path(__file__).parents[1]
# The code as it was imported: a file that is saved while this process runs is not what runs.
_IMPORTED = {
    ".".join(path.relative_to(_PACKAGE).with_suffix("").parts): path.read_text("utf8") for path in _PACKAGE.rglob("*.py")
}


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
        experiment: marked with `@depends_on`.
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
                _keep(record, experiment)
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
    sizes = experiment.sizes
    kind = "embedded" if tasks[0].embedded else "cuda" if device().type == "cuda" and "cuda" in sizes else "cpu"
    size = sizes.get(kind, {})
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
            tensors={name: tensor.detach().cpu() for name, tensor in tensors.items()},  # as they are when they are read back
            together=len(group),
        )


def key_of(experiment: Callable, tasks: list[Task], configuration: dict, seed: int) -> str:
    """The key under which a run is remembered: 16 hexadecimal digits."""
    covered = {
        "experiment": experiment.__name__,
        "modules": {name: meaning(_source(name)) for name in modules_of(experiment, configuration)},
        "configuration": configuration,
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


def modules_of(experiment: Callable, configuration: dict) -> list[str]:
    """The modules that a run executes, by their names within the package: those it is marked with, its own, and those of what it
    begins with."""
    before = modules_of(experiment.begins_with, configuration) if experiment.begins_with else ()
    return sorted({*experiment.modules(configuration), experiment.__module__.removeprefix("ewc."), *before})


def depends_on(modules: Callable[[dict], tuple[str, ...]], *, sizes: dict[str, dict] | None = None, begins_with: Callable | None = None):
    """Mark an experiment with the modules of this package that it runs beside its own, given its configuration, and with its sizes.

    sizes: by ``"cpu"``, ``"embedded"`` and perhaps ``"cuda"``, what the arguments become that are None.
    begins_with: another experiment, whose record under the same configuration and seed this one is given beside the tasks.
    """

    def mark(experiment):
        experiment.modules, experiment.sizes, experiment.begins_with = modules, sizes or {}, begins_with
        return experiment

    return mark


def beginning(experiment: Callable, configuration: dict, seed: int) -> dict:
    """What `run` is to be asked for to obtain the record that this run of the experiment begins with."""
    names = inspect.signature(experiment.begins_with).parameters
    return {name: value for name, value in configuration.items() if name in names} | {"seed": seed}


def records_folder() -> Path:
    """Where records are kept: the folder in EWC_RECORDS, else _build/records of the book, or of the folder one is in."""
    if chosen := os.environ.get("EWC_RECORDS"):
        return Path(chosen)
    book = _PACKAGE.resolve().parents[1]
    return (book if (book / "_toc.yml").exists() else Path.cwd()) / "_build" / "records"


def _read(key):
    """The record under this key; None where it is not there, is damaged, or is not the one that was written there."""
    folder = records_folder() / key
    try:
        kept = json.loads((folder / "record.json").read_text("utf8"))
        tensors = (folder / "tensors.safetensors").read_bytes()
        if kept.pop("checksum") != _checksum(kept, tensors) or kept["key"] != key:
            return None
        return Record(**kept, tensors=load(tensors))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, SafetensorError):
        return None


def _keep(record, experiment):
    """Write the record, unless code that it ran was changed meanwhile: it would be found later as what the new code gives."""
    changed = [name for name in modules_of(experiment, record.configuration) if _on_disk(name) != _source(name)]
    if changed:
        warnings.warn(
            f"code/ewc changed while {record.name} was trained ({', '.join(changed)}): its record is not kept", RuntimeWarning, stacklevel=2
        )
    else:
        _write(record)


def _write(record):
    """Write the record beside its place and move it there in one step: it is there whole or not at all."""
    folder = records_folder()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    try:
        tensors = save({name: tensor.contiguous() for name, tensor in record.tensors.items()})
        (unfinished / "tensors.safetensors").write_bytes(tensors)
        kept = {name: value for name, value in vars(record).items() if name != "tensors"}
        kept["checksum"] = _checksum(kept, tensors)
        (unfinished / "record.json").write_text(json.dumps(kept, indent=1), "utf8")
        shutil.rmtree(folder / record.key, ignore_errors=True)  # a damaged one, if any
        unfinished.replace(folder / record.key)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checksum(kept, tensors):
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode() + b"\0" + tensors).hexdigest()


def _source(module):
    """The code of a module of the package as it was imported; of another, as inspect finds it."""
    return _IMPORTED[module] if module in _IMPORTED else inspect.getsource(sys.modules[module])


def _on_disk(module):
    """The code of a module of the package as it is now; None where it is gone."""
    path = _PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    try:
        return path.read_text("utf8") if module in _IMPORTED else _source(module)
    except OSError:
        return None


@functools.cache
def meaning(source):
    """The code without its comments and docstrings, as a hash that every version of Python makes."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(_plain(tree).encode()).hexdigest()


def _plain(node):
    """A syntax tree as text, the same in every version of Python: `ast.dump` shows what is empty in some and not in others."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(f'{name}={_plain(value)}' for name, value in sorted(fields))})"
    return f"[{', '.join(map(_plain, node))}]" if isinstance(node, list) else repr(node)
