"""The search for the λ of two lessons: what it tries is what the chapter on forgetting runs, and it sees no test image."""

from dataclasses import replace

import pytest
import torch
from ewc.chapters.catastrophic_forgetting.experiments import first_lesson, two_tasks
from ewc.chapters.choosing_lambda.two_lessons import two_lessons
from ewc.workshop.records import Record
from tiny_runs import images

PAIR = [images("first", 0), images("second", 1)]
TINY = {"steps": 6, "hidden": (4,), "batch_size": 8}


@pytest.mark.parametrize(("method", "strength"), [("ewc", 30.0), ("l2", 0.5)])
def test_a_trial_is_the_run_of_the_chapter(method, strength):
    result, tensors = first_lesson(PAIR, seed=3, **TINY)
    first = Record("", "first lesson", {"hidden": TINY["hidden"]}, 3, "", "", {}, 0.0, "", result, tensors)
    expected, _ = two_tasks(PAIR, first, method=method, strength=strength, seed=3, **TINY)
    found, _ = two_lessons(PAIR, method=method, strength=strength, seed=3, **TINY)
    torch.testing.assert_close(torch.tensor(found["matrix"]), torch.tensor(expected["matrix"]))


def test_trials_side_by_side_are_those_that_each_gives_alone():
    runs = [
        {"method": method, "strength": strength, "tuning": True, "learning_rate": 0.06, "momentum": 0.9, "seed": seed, **TINY}
        for method, strength, seed in (("ewc", 0.0, 0), ("ewc", 1e3, 0), ("l2", 1e3, 0), ("l2", 1.0, 1))
    ]
    together = two_lessons.together(PAIR, runs)
    alone = [two_lessons(PAIR, **run) for run in runs]
    assert [found["matrix"] for found, _ in together] == [found["matrix"] for found, _ in alone]


def test_a_trial_neither_learns_nor_tests_on_test_images():
    garbled = [replace(task, test_inputs=task.test_inputs * float("nan"), test_targets=-task.test_targets - 1) for task in PAIR]
    given = {"method": "ewc", "strength": 1.0, "tuning": True, **TINY}
    assert two_lessons(garbled, **given)[0] == two_lessons(PAIR, **given)[0]


def test_a_method_that_has_no_strength_is_refused():
    with pytest.raises(ValueError, match="method is 'si'"):
        two_lessons(PAIR, method="si", strength=1.0, **TINY)
