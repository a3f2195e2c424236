"""The papers' protocols: which runs they are. `make paper` trains those that have no record in the repository yet (paper.py).

`python -m ewc.workshop.protocols` does the same, one run after another, and can be stopped and started again.
"""

import sys
from collections.abc import Callable, Iterable

import torch

from ewc.workshop import paper, paper_cifar, sequences

SEEDS = (0, 1, 2)
MORE_SEEDS = range(10)  # where a run takes half a minute

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
OURS_STRENGTHS = (10.0, 30.0, 100.0)
LEFT_OUT_AT = 30.0  # the λ at which all of it and what is left without one thing stand side by side
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
# Each method begins with four strengths, and its grid is continued where the best of them lies at an edge (paper.grid).
SPLIT_METHODS = {
    "task": {"ewc": (1e4, 1e5, 1e6, 1e7), "l2": (0.01, 0.1, 1.0, 10.0), "si": (2.0, 20.0, 200.0, 2000.0), "replay": (1.0,), "joint": ()},
    "domain": {"ewc": (1e6, 1e7, 1e8, 1e9), "l2": (0.1, 0.3, 1.0, 3.0), "si": (1e3, 1e4, 1e5, 1e6), "replay": (1.0,), "joint": ()},
    "class": {"ewc": (1e3, 1e4, 1e5, 1e6), "l2": (0.01, 0.1, 1.0, 10.0), "si": (1e2, 1e3, 1e4, 1e5), "replay": (1.0,), "joint": ()},
}

# The same two protocols with the settings of the code that made the print, the branch preprints of GMvandeVen/continual-learning at
# a02db26 (param_values.py, continual_learner.py): the Fisher of the most probable label; EWC keeps a set of springs for each task,
# online EWC one set that fades by γ, with a second γ before the penalty, so that its λ is here λγ; for SI λ = 2c. In scenario
# "class" a lesson's softmax is over the classes seen so far. These strengths are set and not searched for.
ARGMAX = {"method": "ewc", "labels": "argmax"}


def printed(
    ewc: float, online: float, gamma: float, c: float, lwf: dict | None = None, outputs: int = 2
) -> tuple[tuple[dict, tuple[float, ...]], ...]:
    """The methods of 2019 with their λ, online λ, γ and c, in the terms of this book: pairs of a configuration and a strength.

    LwF weighs the loss of task t by 1/t and its teacher by 1 − 1/t. Adam does not see a factor that both have: t − 1 beside 1.
    Where each task has outputs of its own, the teacher counts by the mean over them, so that each has 1. What is printed was made
    before the commit 26f00db of May 2019, which summed the divergence over the outputs; until then it was their mean, 1 / `outputs`
    of that. In scenario "class" their softmax has the new classes in it too, and the outputs become more: `rivals` divides by them.
    """
    return (
        ({**ARGMAX, "anchors": "separate"}, (ewc,)),
        ({**ARGMAX, "decay": gamma}, (online * gamma,)),
        ({"method": "si"}, (2 * c,)),
        *(() if lwf is None else (({"method": "lwf", **lwf}, (1 / outputs,)),)),
    )


PERMUTED_PRINTED = printed(ewc=500.0, online=1000.0, gamma=0.9, c=5.0, lwf={"growing": True}, outputs=10)
SPLIT_PRINTED = {
    "task": printed(ewc=1e7, online=1e8, gamma=0.8, c=50.0, lwf={}),
    "domain": printed(ewc=1e6, online=1e8, gamma=0.7, c=500.0, lwf={"growing": True}),
    "class": printed(ewc=1e8, online=1e9, gamma=0.8, c=0.5, lwf={"growing": True, "rivals": True}, outputs=1),
}
SHUFFLES = range(1, 21)  # the seeds of their script, by which it also shuffles the digits before it makes pairs of them

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


def van_de_ven(scenario: str, method: str) -> dict:
    """The run of van de Ven and Tolias on split MNIST with this method."""
    return {**SPLIT, "scenario": scenario, "method": method}


def hsu(scenario: str, method: str) -> dict:
    """The run of Hsu et al. with this method: what they did beyond HSU for some of them."""
    # Naive rehearsal has 1,100 images in all, 275 of each of four pairs when the fifth is learned.
    own = {"memory": 275} if method == "replay" else {}
    # Outputs of classes that have not come yet take no part in a lesson.
    if scenario == "class" and method not in ("replay", "joint"):
        own["seen"] = True
    return {**HSU, "scenario": scenario, "method": method, **own}


def runs() -> dict[str, Iterable[tuple[Callable, dict]]]:
    """All runs by protocol, the most wanted first, each an experiment and its configuration with the seed.

    A protocol's name is that of its folder of records. Where a strength is to be chosen, the runs that choose it come before those
    that use it.
    """
    return {
        "van-de-ven-permuted": _each(PERMUTED, PERMUTED_METHODS),
        "our-descent": _our_descent(),
        "van-de-ven-split": _split(SPLIT_METHODS, van_de_ven),
        "hsu-split": _split(HSU_METHODS, hsu),
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
    yield from _tuned(sequences.permuted_tasks, run, (LEFT_OUT_AT,))
    for without in LEFT_OUT.values():
        yield sequences.permuted_tasks, {**run, "strength": LEFT_OUT_AT, **without, "seed": 0}


def _split(methods, run):
    for scenario, own in methods.items():
        for method, strengths in own.items():
            yield from _tuned(sequences.split_tasks, run(scenario, method), strengths, MORE_SEEDS)


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
    """First the runs on held-out images, with each strength of the grid as they widen it; then one for each seed, with the best of them."""
    asked = []
    while len(strengths) > 1 and (more := [each for each in paper.grid(experiment, run, strengths)[0] if each not in asked]):
        for strength in more:
            yield experiment, {**run, "strength": strength, "tuning": True, "seed": 0}
        asked += more
    chosen = _chosen(experiment, run, strengths)
    if chosen is not None or not strengths:
        for seed in seeds:
            yield experiment, {**run, "strength": chosen, "seed": seed}


def _chosen(experiment, run, strengths):
    """The strength that the search chose; the only one, where there is one; None where there is none, or the search has not ended."""
    found = paper.search(experiment, run, strengths)
    return strengths[0] if len(strengths) == 1 else found and found.chosen


if __name__ == "__main__":
    # Running averages that fade end among the denormal numbers, with which a CPU computes many times more slowly.
    torch.set_flush_denormal(True)
    paper.make(runs(), say=lambda text: print(text, file=sys.stderr, flush=True))
