"""The first steps of the second lesson are those of the lesson, looked at more often."""

from types import SimpleNamespace

import pytest
from ewc.chapters.catastrophic_forgetting.experiments import first_lesson, two_tasks
from ewc.chapters.mnist_to_fashion_mnist import experiments, figures
from ewc.chapters.mnist_to_fashion_mnist.experiments import first_steps
from ewc.workshop.records import Record
from tiny_runs import images

TASKS = [images("first", 0), images("second", 1)]


def first(**changes):
    configuration = {"steps": 8, "hidden": (4,), **changes}
    return Record("", "", configuration, 0, "", "", {}, 0.0, "", *first_lesson(TASKS, **configuration))


@pytest.mark.parametrize(("method", "strength"), [("plain", None), ("ewc", 50.0)])
def test_the_accuracies_are_those_of_the_lesson_itself(method, strength, monkeypatch):
    monkeypatch.setattr(experiments, "LOOKS", (0, 1, 2, 4))  # of eight steps: the schedule must be the whole lesson's
    options = {"method": method, "strength": strength, "steps": 8, "hidden": (4,), "batch_size": 10, "learning_rate": 0.3}
    begun, _ = first_steps(TASKS, first(), second_rate=0.3, **options)
    whole, _ = two_tasks(TASKS, first(), **options)
    looks = [look["accuracies"][0] for look in whole["looks"] if look["step"] in (0, 1, 2, 4)]
    assert begun["steps"] == [0, 1, 2, 4]
    assert begun["first"] == pytest.approx(looks)
    assert len(set(looks)) > 1


def test_the_steps_that_are_watched_may_be_others_than_the_first_lessons(monkeypatch):
    monkeypatch.setattr(experiments, "LOOKS", (0, 4))
    seen = []
    learn = experiments.fit
    monkeypatch.setattr(experiments, "fit", lambda *given, **options: seen.append(options) or learn(*given, **options))
    first_steps(TASKS, first(), method="ewc", strength=1.0, proximal=True, steps=8, hidden=(4,), second_rate=0.2, second_momentum=0.5)
    assert (seen[0]["learning_rate"], seen[0]["momentum"], seen[0]["steps"]) == (0.2, 0.5, 8)
    assert seen[0]["penalty"]._momentum == 0.5


def test_the_figure_says_how_deep_each_way_dips():
    run = SimpleNamespace(result={"steps": [0, 1, 2], "first": [0.9, 0.5, 0.8]})
    picture = figures.gap({name: [run, run] for name in ("plain", "EWC")}, TASKS)
    assert "EWC from 90% to 50% and then 80%" in picture.alt
    assert "first 2 steps" in picture.alt
