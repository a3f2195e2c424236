"""The experiments of the chapter on EWC's relatives: their importances on one network, and what each costs.

The comparison itself is `sequences.permuted_tasks` and `sequences.split_tasks`, tuned by `tuning.tuned`.
"""

import time
from statistics import median

import torch
from ewc.chapters.the_family import rivals
from ewc.fisher import diagonal_fisher
from ewc.importance import SynapticIntelligence
from ewc.models import mlp
from ewc.sensitivity import output_sensitivity
from ewc.tasks import permuted
from ewc.together import fit_together
from ewc.training import fit
from ewc.workshop.records import FISHER, LEARNING, SPRINGS, depends_on
from ewc.workshop.sequences import bytes_carried, penalty_of_run
from torch.nn.functional import cross_entropy

_IMPORTANCES = (*LEARNING, *FISHER, "springs", "importance", "sensitivity")
_COSTS = (*_IMPORTANCES, *SPRINGS, "together", "workshop.sequences", "kronecker", "factors", "distillation", "heads")
_COSTS = (*_COSTS, "replay", "dark_replay", "projection", "chapters.the_family.rivals")
STEPS = {"cpu": {"steps": 400}, "embedded": {"steps": 150}}
TIMED = {"cpu": {"steps": 40, "repeats": 7}, "embedded": {"steps": 20, "repeats": 3}}


@depends_on(lambda configuration: _IMPORTANCES, sizes=STEPS)
def importances(
    tasks,
    *,
    steps: int | None = None,
    hidden: tuple[int, ...] = (100, 100),
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    optimizer: str = "sgd",
    damping: float = 0.1,
    seed: int = 0,
):
    """Learn the first task and weigh its weights by the Fisher, by Synaptic Intelligence and by Memory Aware Synapses.

    Keeps the mean loss on the training images before and after, the sum Σᵢ ωᵢ of what the weights earned on the way, and
    each importance as one vector.
    """
    task = tasks[0]
    model = mlp(hidden, seed=seed).to(task.train_inputs.device)
    watcher = SynapticIntelligence(model, damping=damping)

    def loss():
        with torch.no_grad():
            return cross_entropy(model(task.train_inputs), task.train_targets).item()

    before = loss()
    options = {"batch_size": batch_size, "learning_rate": learning_rate, "momentum": momentum, "optimizer": optimizer}
    schedule = "linear" if optimizer == "sgd" else "constant"
    fit(model, task, penalty=watcher, steps=steps, schedule=schedule, seed=seed * 1000, label=f"importances, seed {seed}", **options)
    earned = sum(value.double().sum().item() for key, value in watcher.state_dict().items() if key.startswith("walk/path/"))
    watcher.consolidate()
    _, path = watcher.parabola()
    found = {
        "fisher": diagonal_fisher(model, task.train_inputs),
        "path": path,
        "output": output_sensitivity(model, task.train_inputs),
    }
    tensors = {name: torch.cat([value.flatten() for value in each.values()]).cpu() for name, each in found.items()}
    return {"before": before, "after": loss(), "earned": earned}, tensors


@depends_on(lambda configuration: _COSTS, sizes=TIMED)
def costs(
    tasks,
    *,
    methods: tuple[tuple[str, dict], ...],
    count: int = 5,
    hidden: tuple[int, ...] = (100, 100),
    steps: int | None = None,
    repeats: int | None = None,
    batch_size: int = 64,
    fisher_examples: int = 10_000,
    seed: int = 0,
):
    """What each method costs once it remembers `count` − 1 permutations of the first data set.

    Args:
        methods: pairs of a name and what sets the method: ``method``, and where it matters ``anchors``, ``factors``, ``memory``.
        steps: so many are timed at once, and right after them as many of plain descent. Every method has its turn before the
            first has another, `repeats` times, so that a machine that is busy for a while is slow for all; the median ratio counts.

    Keeps for each name a step's time over that of plain descent, the bytes that are carried from task to task, and those that are
    held while a task is learned.
    """
    sequence = permuted(tasks[0], count, seed)
    usual = {"strength": 0.01, "anchors": "merged", "decay": 1.0, "factors": "kept", "labels": "exact", "memory": 200, "way": "explicit"}
    usual |= {"fisher_examples": fisher_examples, "batch_size": batch_size, "seed": seed, "replay_strength": 0.01}

    def seconds(model, penalty):
        started = now()
        fit_together([model], [sequence[-1]], penalties=[penalty], steps=steps, batch_size=batch_size, learning_rate=1e-3)
        return now() - started

    alone, racing = mlp(hidden, seed=seed).to(tasks[0].train_inputs.device), {}
    for name, method in methods:
        model = mlp(hidden, seed=seed).to(tasks[0].train_inputs.device)
        racing[name] = model, (rivals.guard if method["method"] in rivals.METHODS else penalty_of_run)(usual | method, model)
    for task in sequence[:-1]:
        inputs = task.train_inputs  # made once for all: it takes longer than most of them take with it
        for model, penalty in racing.values():
            with torch.no_grad():  # no lesson is learned here, and no task has the weights of the one before
                next(model.parameters()).mul_(0.999)
            penalty.consolidate(inputs, task.train_targets)
    found = {name: {"carried": bytes_carried(penalty)} for name, (_, penalty) in racing.items()}
    rounds = [{name: seconds(*each) / seconds(alone, None) for name, each in racing.items()} for _ in range(repeats)]
    for name, (_, penalty) in racing.items():
        found[name] |= {"step": median(each[name] for each in rounds), "held": bytes_carried(penalty)}
    return found, {}


def now():
    """The time in seconds once all that was begun is done: a call that a GPU is to work on returns at once."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
