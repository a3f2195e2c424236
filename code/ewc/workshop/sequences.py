"""Many tasks in a row, under every method of the book: permuted and split images, in the size of the build or of the papers.

Runs that differ only in method, strength or seed train side by side: `records.run_together`.
"""

from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from ewc.checks import OPTIONS
from ewc.distillation import Distillation
from ewc.importance import SynapticIntelligence
from ewc.in_turn import learn_together
from ewc.kronecker import KroneckerEWC
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.replay import Replay
from ewc.sensitivity import MemoryAwareSynapses
from ewc.steps import Proximal
from ewc.tasks import held_out, joint, normalized, padded, permuted, split
from ewc.together import diverged
from ewc.training import accuracy
from ewc.workshop.records import FISHER, LEARNING, READINGS, SPRINGS, depends_on

_LEARNING = (*LEARNING, "together", "in_turn")
_USES = {
    "plain": (),
    "joint": (),
    "l2": SPRINGS,
    "ewc": (*SPRINGS, *FISHER),
    "si": ("importance", "springs", "processes", "checks"),
    "mas": ("sensitivity", "springs", *READINGS),
    "kronecker": ("kronecker", "springs", *FISHER),
    "lwf": ("distillation", "scores", "checks"),
    "replay": ("replay", "scores", "checks"),
}

# What may differ between runs that stand in one stack.
OWN = ("method", "strength", "anchors", "decay", "factors", "labels", "memory", "growing", "way")

PERMUTED = {
    "cpu": {"count": 10, "hidden": (400, 100), "steps": 600, "strength": 30.0},
    "embedded": {"count": 5, "hidden": (100, 100), "steps": 240, "strength": 30.0},
    "cuda": {"count": 10, "hidden": (1000, 1000), "steps": 5000, "strength": 30.0},
}
SPLIT = {
    "cpu": {"hidden": (100, 100), "steps": 300, "strength": 1e3},
    "embedded": {"hidden": (100, 100), "steps": 100, "strength": 1e3},
    "cuda": {"hidden": (400, 400), "steps": 2000, "strength": 1e3},
}

# What the methods of the book are compared in, in a build. Stand-ins have few images: there it is shown that everything runs and
# reads true, not who learns best.
COMPARED = {
    "cpu": {"hidden": (100, 100), "steps": 100, "batch_size": 64, "fisher_examples": 2000},
    "embedded": {"hidden": (50, 50), "steps": 40, "batch_size": 64, "fisher_examples": 300},
}

WAYS = ("explicit", "proximal")


def compared(task) -> dict:
    """The configuration that all compared runs share with this data set."""
    return dict(COMPARED["embedded" if task.embedded else "cpu"])


def _modules(configuration):
    return _LEARNING + _USES[configuration["method"]] + (("steps",) if configuration["way"] == "proximal" else ())


@depends_on(_modules, sizes=PERMUTED)
def permuted_tasks(
    tasks,
    *,
    method: str = "plain",
    strength: float | None = None,
    anchors: str = "merged",
    decay: float = 1.0,
    factors: str = "kept",
    labels: str = "exact",
    memory: int = 200,
    growing: bool = False,
    way: str = "explicit",
    count: int | None = None,
    square: int | None = None,
    padding: int = 0,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    optimizer: str = "sgd",
    schedule: str = "linear",
    carried: bool = False,
    fisher_examples: int = 10_000,
    looks: int = 0,
    between: str = "all",
    forward: bool = False,
    tuning: bool = False,
    precision: str = "highest",
    seed: int = 0,
):
    """Learn `count` permutations of the first data set with one network and one set of outputs.

    Args:
        method: a key of the methods below; strength, anchors, decay and labels are those of `penalties.EWC`, factors of
            `kronecker.KroneckerEWC`.
        memory: how many images of each task ``"replay"`` keeps.
        growing: the strength of ``"lwf"`` is multiplied by the number of tasks learned so far, for all of which its teacher speaks.
        way: ``"explicit"``: the penalty is added to the loss; ``"proximal"``: its step is taken after plain descent's own
            (`steps.Proximal`).
        square: the side of the central square whose pixels move; None for the whole image.
        padding: the width of a black border around the images, which moves with them.
        carried: the optimiser's running averages go on from task to task; otherwise each task has a new optimiser.
        looks: how many times in each task, at equal distances, all accuracies are measured.
        between: what is tested between the tasks, as `in_turn.learn_together` says.
        forward: test each task before it is learned, too: on the untrained network and after the task before. Forward transfer asks.
        tuning: test on held-out training images, after the last task alone, and train without them.
        seed: of the permutations, the weights and the order of the images.

    Keeps the accuracy matrix, the looks, with `forward` the accuracies before training, what the method keeps from task to task,
    in bytes, and the place at which it diverged, if it did; the weights after the last task.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _permuted(tasks, [run])[0]


def _permuted(tasks, runs):
    base = padded(held_out(tasks[0]) if runs[0]["tuning"] else tasks[0], runs[0]["padding"])
    sequences = {
        run["seed"]: permuted(base, runs[0]["count"], run["seed"], square=runs[0]["square"]) for run in runs
    }
    return _learned(runs, [sequences[run["seed"]] for run in runs], classes=len(base.classes))


permuted_tasks.together, permuted_tasks.own = _permuted, OWN


@depends_on(_modules, sizes=SPLIT)
def split_tasks(
    tasks,
    *,
    scenario: str,
    method: str = "plain",
    strength: float | None = None,
    anchors: str = "merged",
    decay: float = 1.0,
    factors: str = "kept",
    labels: str = "exact",
    memory: int = 200,
    growing: bool = False,
    way: str = "explicit",
    groups: int = 5,
    shuffled: bool = False,
    padding: int = 0,
    normalized: bool = False,
    seen: bool = False,
    rivals: bool = False,
    hidden: tuple[int, ...] | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    optimizer: str = "adam",
    schedule: str = "constant",
    carried: bool = False,
    fisher_examples: int = 10_000,
    looks: int = 0,
    between: str = "all",
    tuning: bool = False,
    precision: str = "highest",
    seed: int = 0,
):
    """Learn the classes of the first data set in `groups` tasks, in one of the scenarios of `tasks.split`.

    Args:
        shuffled: whether the seed also draws which classes make a task and which of them is its first; otherwise they come in
            their order. It draws as the code of van de Ven and Tolias (2019) does, so that a seed there has the same tasks here.
        padding: the width of a black border around the images.
        normalized: whether pixels are shifted and scaled to mean 0 and variance 1 (`tasks.normalized`).
        seen: whether the softmax of a lesson is over the outputs of the classes seen so far; in scenario ``"class"`` only. In
            tests it is always over all.
        rivals: with `seen` and ``"lwf"``, the softmax beside the teacher's has the new classes in it too (`Distillation`'s
            ``new="rivals"``), and the strength is divided by the number of its classes, as a mean over outputs does.

    All other arguments and what is kept as `permuted_tasks` with `forward`; in scenario ``"class"`` also the confusion matrix: in row i,
    column j, how many test images of class i are read as class j after the last task.
    """
    run = {name: value for name, value in locals().items() if name != "tasks"}
    return _split(tasks, [run])[0]


def _split(tasks, runs):
    base = padded(held_out(tasks[0]) if runs[0]["tuning"] else tasks[0], runs[0]["padding"])
    if runs[0]["normalized"]:
        base = normalized(base)
    scenario, seen, groups = (runs[0][name] for name in ("scenario", "seen", "groups"))
    dealt = [_dealt(base, run) for run in runs]
    parts = {own: split(base, own, scenario=scenario) for own in set(dealt)}
    classes = len(base.classes) // groups if scenario == "domain" else len(base.classes)
    lessons = parts
    if seen:
        if scenario != "class" or any(run["method"] in ("joint", "replay") for run in runs):
            raise ValueError(
                f"seen is True; it needs scenario 'class', not {scenario!r}, and a method that sees no old images, not joint or replay"
            )
        lessons = {
            own: [_among(part, sorted(chain(*own[: place + 1]))) for place, part in enumerate(found)] for own, found in parts.items()
        }
    sequences, lessons = ([found[own] for own in dealt] for found in (parts, lessons))
    return _learned(runs, sequences, lessons=lessons, classes=classes, units=scenario == "task" or seen)


def _among(part, classes):
    """A lesson whose softmax is over the outputs of these classes alone: targets count within them."""
    places = torch.full((len(part.classes),), -1, device=part.train_targets.device)
    places[classes] = torch.arange(len(classes), device=places.device)
    return replace(part, units=tuple(classes), train_targets=places[part.train_targets])


def _dealt(base, run):
    """The classes of each task of a run."""
    count, groups = len(base.classes), run["groups"]
    if groups < 1 or count % groups:
        raise ValueError(f"groups is {groups}; it must divide the {count} classes of {base.name}")
    # Their code gives each class a new number, and the numbers are what is dealt in order.
    order = np.random.RandomState(run["seed"]).permutation(count).argsort() if run["shuffled"] else np.arange(count)
    return tuple(map(tuple, order.reshape(groups, -1).tolist()))


split_tasks.together, split_tasks.own = _split, OWN


def _learned(runs, sequences, *, classes, lessons=None, units=False):
    """The results of all runs: each learns its `lessons` and is tested on its sequence, which is also what it learns unless given."""
    lessons = lessons or sequences
    # A network that learns jointly has seen all tasks so far at each place: it has more images a task than the others.
    if len({run["method"] == "joint" for run in runs}) > 1:
        cut = [[place for place, run in enumerate(runs) if (run["method"] == "joint") == together] for together in (True, False)]
        found = {}
        for places in cut:
            own, tested, taught = ([values[place] for place in places] for values in (runs, sequences, lessons))
            done = _learned(own, tested, lessons=taught, classes=classes, units=units)
            found |= dict(zip(places, done, strict=True))
        return [found[place] for place in range(len(runs))]
    shared = runs[0]
    device = sequences[0][0].test_targets.device
    pixels = sequences[0][0].test_inputs[0].numel()
    models = [
        mlp(shared["hidden"], inputs=pixels, classes=classes, units=units, seed=run["seed"]).to(device) for run in runs
    ]
    forward = shared.get("forward", True) and not shared["tuning"]  # a search asks for the end alone
    untrained = {}  # by seed, which is all that the first weights and the tasks of these runs depend on
    for run, model, sequence in zip(runs, models, sequences, strict=True):
        if forward and run["seed"] not in untrained:
            untrained[run["seed"]] = [accuracy(model, task) for task in sequence]
    learned = lessons
    if shared["method"] == "joint":
        known = {id(sequence): [joint(sequence[: place + 1]) for place in range(len(sequence))] for sequence in sequences}
        learned = [known[id(sequence)] for sequence in sequences]
    penalties = [penalty_of_run(run, model) for run, model in zip(runs, models, strict=True)]
    lost = [None] * len(runs)

    def after(place):
        for number, (run, model, penalty) in enumerate(zip(runs, models, penalties, strict=True)):
            if lost[number] is None and diverged(model):
                lost[number] = place
            if run.get("growing"):
                penalty.strength = run["strength"] * (place + 1)
            if run.get("rivals") and place + 1 < len(learned[number]):
                penalty.strength /= len(learned[number][place + 1].units)

    steps = shared["steps"]
    matrices, looks = learn_together(
        models,
        learned,
        penalties=penalties,
        tests=sequences,
        look=sorted({round(steps * part / shared["looks"]) for part in range(shared["looks"] + 1)}) if shared["looks"] else (),
        seeds=[run["seed"] for run in runs],
        after=after,
        ahead=int(forward),
        between="nothing" if shared["tuning"] else shared["between"],
        idle_at_first=True,
        optimizer_state={} if shared["carried"] else None,
        label=", ".join(sorted({run["method"] for run in runs})),
        **{name: shared[name] for name in _FIT},
    )
    results = []
    for number, (run, model, penalty) in enumerate(zip(runs, models, penalties, strict=True)):
        result = {
            "matrix": matrices[number].values.tolist(),
            "looks": looks[number],
            "bytes": bytes_carried(penalty),
            "diverged": lost[number],
        }
        if forward:
            result["untrained"] = untrained[run["seed"]]
        if run.get("scenario") == "class":
            result["confusion"] = _confusion(model, sequences[number], classes)
        weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach().cpu()
        results.append((result, {f"after {len(sequences[number])}": weights}))
    return results


_FIT = ("steps", "batch_size", "learning_rate", "momentum", "optimizer", "schedule", "precision")


def penalty_of_run(run, model):
    """The penalty that a run's method asks for, on this model, taken in the way that it says; None for a method that has none."""
    penalty, way = _penalty(run, model), run["way"]
    if run.get("growing") and run["method"] != "lwf":
        raise ValueError(f"growing is True; it needs method 'lwf', not {run['method']!r}")
    if run.get("rivals") and not (run["method"] == "lwf" and run["seen"] and run["growing"]):
        raise ValueError(f"rivals is True; it needs method 'lwf', seen and growing, not {run['method']!r}, {run['seen']} and {run['growing']}")
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; it may be one of {', '.join(map(repr, WAYS))}")
    if way == "explicit" or penalty is None:
        return penalty
    if run["optimizer"] != "sgd" or not (hasattr(penalty, "parabola") or hasattr(penalty, "proximal_step")):
        raise ValueError(
            f"way is 'proximal'; it needs optimizer 'sgd' and a penalty that is a parabola, not {run['optimizer']!r} and {run['method']!r}"
        )
    return Proximal(penalty, run["momentum"])


def _penalty(run, model):
    method, strength = run["method"], run["strength"]
    if method in ("plain", "joint"):
        return None
    if strength is None:
        raise ValueError(f"strength is None; method {method!r} needs a number")
    if method == "l2":
        return L2(model, strength)
    if method == "ewc":
        return EWC(
            model, strength, anchors=run["anchors"], decay=run["decay"], labels=run["labels"], max_examples=run["fisher_examples"]
        )
    if method == "si":
        return SynapticIntelligence(model, strength)
    if method == "mas":
        return MemoryAwareSynapses(model, strength, max_examples=run["fisher_examples"])
    if method == "kronecker":
        return KroneckerEWC(model, strength, decay=run["decay"], factors=run["factors"], max_examples=run["fisher_examples"])
    if method == "lwf":
        return Distillation(model, strength, new="rivals" if run.get("rivals") else "free")
    if method == "replay":
        return Replay(model, strength, examples=run["memory"], batch_size=run["batch_size"], seed=run["seed"])
    raise ValueError(f"method is {method!r}; it may be one of {', '.join(map(repr, _USES))}")


def bytes_carried(penalty):
    """The bytes of what a method carries from task to task, beside the network itself."""
    state = {} if penalty is None else penalty.state_dict()
    return sum(value.numel() * value.element_size() for key, value in state.items() if not key.endswith(OPTIONS))


@torch.no_grad()
def _confusion(model, tasks, classes):
    counts = torch.zeros(classes, classes, dtype=torch.long)
    for task in tasks:
        read = model(task.test_inputs).argmax(1)
        counts += torch.bincount(task.test_targets * classes + read, minlength=classes**2).reshape(classes, -1).cpu()
    return counts.tolist()
