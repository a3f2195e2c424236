# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Several networks of one shape that learn tasks in turn, side by side, and are tested between the tasks.

What they have in common is done once: a first task that they learn alike, and the images that their penalties look at.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .batches import evenly
from .metrics import AccuracyMatrix
from .tasks import Task
from .together import diverged, fit_together, with_precision
from .training import accuracy, penalty_of, use_units

Between = Literal["all", "own", "nothing"]


def learn_together(
    models: Sequence[torch.nn.Module],
    sequences: Sequence[Sequence[Task]],
    *,
    penalties: Sequence | None = None,
    tests: Sequence[Sequence[Task]] | None = None,
    look: Sequence[int] = (),
    seeds: Sequence[int] | None = None,
    label: str = "",
    after: Callable[[int], None] | None = None,
    ahead: int | None = None,
    between: Between = "all",
    idle_at_first: bool = False,
    **options,
) -> tuple[list[AccuracyMatrix], list[list[dict]]]:
    """What `training.learn_in_sequence` does, for each model with its sequence of tasks, penalty and seed.

    Args:
        tests: what each model is tested on, where that is not what it learns.
        after: called with the place of each task when it has been learned and before it is consolidated.
        ahead: on how many tasks after the present one a model is tested when it has learned that; None for all. What is not tested
            is NaN in the matrix. No metric needs more than 1.
        between: on which tasks a model is tested when it has learned one that is not the last: ``"all"`` so far, or its ``"own"``,
            and those ahead; or ``"nothing"``. Small networks learn a short lesson faster than they are tested on it.
        idle_at_first: that no penalty does anything before it has consolidated a task, as none of this book's does. Models with the
            same weights, task and seed then learn the first task once: one does, and the others take its weights.
        options: passed on to `fit_together`. Its `precision` is that of the tests too.

    Returns:
        For each model its accuracy matrix and its looks. A model that has diverged is not consolidated any more.

    Raises:
        ValueError: as `fit_together`, between is none of these, or a penalty was not idle at first.
    """
    if between not in get_args(Between):
        raise ValueError(f"between is {between!r}; it may be one of {', '.join(map(repr, get_args(Between)))}")
    count, last = len(models), len(sequences[0]) - 1
    penalties, seeds, tests = penalties or [None] * count, seeds or [0] * count, tests or sequences
    rows, looks = [[] for _ in models], [[] for _ in models]
    precision = options.get("precision", "highest")

    for place in range(last + 1):
        now = [sequence[place] for sequence in sequences]
        # Running averages that go on from task to task are one for each model.
        once = idle_at_first and place == 0 and options.get("optimizer_state") is None
        stand_ins = _stand_ins(models, now, penalties, seeds) if once else list(range(count))
        learners = sorted(set(stand_ins))

        def accuracies(places, learners=learners, stand_ins=stand_ins):
            found = _accuracies([models[each] for each in learners], [tests[each] for each in learners], precision, places)
            return [list(found[learners.index(each)]) for each in stand_ins]

        def observe(step, place=place, accuracies=accuracies):
            if step in look:
                for kept, found in zip(looks, accuracies(range(len(tests[0]))), strict=True):
                    kept.append({"task": place, "step": step, "accuracies": found})

        fit_together(
            [models[each] for each in learners],
            [now[each] for each in learners],
            penalties=[penalties[each] for each in learners],
            seeds=[seeds[each] * 1000 + place for each in learners],
            watch=observe if look else None,
            label=f"{label} task {place + 1} of {last + 1}",
            **options,
        )
        beyond = len(tests[0]) if ahead is None or place == last else place + 1 + ahead
        begin = {"all": 0, "own": place, "nothing": beyond}[between] if place < last else 0
        for kept, found in zip(rows, accuracies(range(begin, beyond)), strict=True):
            kept.append(found)
        for number, each in enumerate(stand_ins):
            if number != each:
                _take_over(models[number], models[each], now[number], penalties[number])
        if after:
            after(place)
        if place < last:
            for task, users in _shared(now):
                keen = [number for number in users if penalties[number] is not None and not diverged(models[number])]
                images = _looked_at(task, [penalties[number] for number in keen])
                for number in keen:
                    penalties[number].consolidate(*images)
    return [AccuracyMatrix(kept) for kept in rows], looks


def _stand_ins(models, tasks, penalties, seeds):
    """For each model the place of the one that learns in its stead: one with its weights, task and seed, or itself."""
    found, known = list(range(len(models))), {}
    # A penalty that watches its model learn must have it learn; behind such a one others may stand.
    watching = [hasattr(penalty, "observe") for penalty in penalties]
    for number in sorted(found, key=lambda place: not watching[place]):
        alike = known.setdefault((id(tasks[number]), seeds[number]), [])
        found[number] = next((each for each in alike if not watching[number] and _same_weights(models[each], models[number])), number)
        if found[number] == number:
            alike.append(number)
    return found


def _same_weights(one, other):
    own, its = dict(one.named_parameters()), dict(other.named_parameters())
    return own.keys() == its.keys() and all(
        own[name].requires_grad == its[name].requires_grad and torch.equal(own[name], its[name]) for name in own
    )


def _take_over(model, learned, task, penalty):
    """Leave a model as if it had learned the task, as the other has, with a penalty that was idle."""
    one, _ = task.batch(torch.zeros(1, dtype=torch.long, device=task.train_targets.device))
    if hasattr(penalty, "penalty") and penalty_of(penalty, one).requires_grad:  # of one that is idle no weight is asked
        raise ValueError(f"idle_at_first is True; {type(penalty).__name__} has a penalty that depends on the weights before the first task")
    model.train()
    use_units(model, None if isinstance(task.units, Tensor) else task.units)
    for parameter, value in zip(model.parameters(), learned.parameters(), strict=True):
        parameter.data = value.detach().clone()


def _looked_at(task, penalties):
    """What the penalties are consolidated on. Where each takes so many examples, these are made alone: all of a permuted task's
    images take longer to make than a few thousand to look at."""
    counts = {getattr(penalty, "max_examples", None) for penalty in penalties}
    if not counts:
        return ()
    targets = task.train_targets
    if len(counts) == 1 and None not in counts and (most := counts.pop()) < len(targets):
        return task.batch(evenly(len(targets), most, targets.device))
    return task.train_inputs, targets


def _accuracies(models, tests, precision, places):
    """For each model its accuracies on its tests in these places, NaN on the others."""
    with with_precision(precision):
        return [
            [accuracy(model, task) if place in places else math.nan for place, task in enumerate(own)]
            for model, own in zip(models, tests, strict=True)
        ]


def _shared(tasks):
    """Each task once, with the places in which it stands."""
    places = {}
    for place, task in enumerate(tasks):
        places.setdefault(id(task), (task, []))[1].append(place)
    return places.values()
