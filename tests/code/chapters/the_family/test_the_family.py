"""The searches behind the family's table, and its two experiments."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from ewc import AccuracyMatrix, mlp
from ewc.chapters.the_family import experiments, figures
from ewc.chapters.the_family.experiments import costs, importances
from ewc.workshop import records as workshop_records
from ewc.workshop import tuning
from ewc.workshop.sequences import permuted_tasks
from tiny_runs import images


@dataclass
class Ran:
    """A run as the searches see it: its accuracy is `height` at the strength `best`, and falls off on both sides."""

    run: dict
    best: float = 10.0
    height: float = 0.9
    seen: list = field(default_factory=list)

    @property
    def matrix(self):
        strength = self.run.get("strength", self.best)
        return AccuracyMatrix([[self.height - 0.1 * abs(math.log10(strength / self.best))]])


@pytest.fixture
def asked(monkeypatch):
    """Each call of `run_together`, as a list of runs; nothing is trained."""
    calls = []

    def run_together(experiment, runs):
        calls.append(runs)
        return [Ran(run, best=run["best"]) for run in runs]

    monkeypatch.setattr(tuning, "run_together", run_together)
    return calls


RIVALS = {
    "plain": ({"method": "plain", "best": 1.0}, None),
    "inside": ({"method": "ewc", "best": 3.0}, 10.0),
    "outside": ({"method": "l2", "best": 1e6}, 0.1),
}


def test_a_grid_has_as_many_values_as_asked_for_around_its_centre():
    assert tuning.grid(10.0) == (1.0, 3.0, 10.0, 30.0, 100.0)
    assert tuning.grid(0.3, 3) == (0.09, 0.3, 0.9)
    assert tuning.grid(30) == (3.0, 9.0, 30.0, 90.0, 300.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "centre is"), ((-1.0,), "centre is"), ((1.0, 4), "count is"), ((1.0, 0), "count is")],
)
def test_a_grid_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuning.grid(*arguments)


def test_every_rival_with_a_strength_is_tried_equally_often_and_only_on_held_out_images(asked):
    tuning.tuned(None, RIVALS, values=5, search_seeds=(0, 1), steps=7)
    search, finals = asked
    assert all(run["tuning"] and run["steps"] == 7 for run in search)
    count = {method: sum(run["method"] == method for run in search) for method in ("plain", "ewc", "l2")}
    assert count == {"plain": 0, "ewc": 10, "l2": 10}
    assert {(run["strength"], run["seed"]) for run in search if run["method"] == "ewc"} == {
        (value, seed) for value in (1.0, 3.0, 10.0, 30.0, 100.0) for seed in (0, 1)
    }
    assert not any(run.get("tuning") for run in finals)


def test_the_best_of_the_search_and_no_other_meets_the_test_images(asked):
    found = tuning.tuned(None, RIVALS, seeds=(0, 1, 2))
    _, finals = asked
    assert found["inside"].chosen == 3.0 == found["inside"].values[found["inside"].found.index(max(found["inside"].found))]
    assert [run["strength"] for run in finals if run["method"] == "ewc"] == [3.0] * 3
    assert sorted(run["seed"] for run in finals if run["method"] == "plain") == [0, 1, 2]
    assert "strength" not in next(run for run in finals if run["method"] == "plain")
    assert [record.run["method"] for record in found["outside"].records] == ["l2"] * 3


def test_a_search_says_whether_its_best_lies_at_the_edge(asked):
    found = tuning.tuned(None, RIVALS)
    assert found["outside"].at_the_edge and found["outside"].chosen == found["outside"].values[-1]
    assert not found["inside"].at_the_edge
    assert found["plain"].chosen is None and not found["plain"].at_the_edge and found["plain"].found == ()


def test_several_search_seeds_count_by_their_mean():
    def tried(*accuracies):
        return tuple(type("Ran", (), {"matrix": AccuracyMatrix([[value]])})() for value in accuracies)

    found = tuning.Tuned((1.0, 2.0), (tried(0.9, 0.1), tried(0.6, 0.6)), ())
    assert found.found == pytest.approx((0.5, 0.6)) and found.chosen == 2.0


@pytest.mark.parametrize(
    ("rival", "shared", "message"),
    [({"strength": 1.0}, {}, "strength"), ({}, {"tuning": True}, "tuning"), ({}, {"seed": 1}, "seed")],
)
def test_what_the_search_sets_may_not_be_set_by_others(asked, rival, shared, message):
    with pytest.raises(ValueError, match=message):
        tuning.tuned(None, {"one": ({"method": "l2", **rival}, 1.0)}, **shared)


@pytest.mark.parametrize("name", ["seeds", "search_seeds"])
def test_no_seed_is_refused(asked, name):
    with pytest.raises(ValueError, match="at least one"):
        tuning.tuned(None, RIVALS, **{name: ()})


def test_a_real_search_trains_what_it_says(monkeypatch, tmp_path):
    pair = (images("first", 0), images("second", 1))
    monkeypatch.setattr(workshop_records, "paired", lambda: pair)
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "records"))
    rivals = {"plain": ({"method": "plain"}, None), "EWC": ({"method": "ewc"}, 1.0)}
    found = tuning.tuned(permuted_tasks, rivals, values=3, seeds=(0, 1), count=2, hidden=(4,), steps=3)
    records = [record for tried in found["EWC"].search for record in tried]
    assert [record.configuration["strength"] for record in records] == [0.3, 1.0, 3.0]
    assert all(record.configuration["tuning"] for record in records)
    assert [record.seed for record in found["EWC"].records] == [0, 1]
    assert found["EWC"].records[0].configuration["strength"] == found["EWC"].chosen
    assert found["EWC"].chosen == max(records, key=lambda record: record.matrix.average()).configuration["strength"]


# ---- the experiments


def test_what_the_weights_earned_is_the_fall_of_the_loss_when_steps_are_small_and_see_all_images(monkeypatch):
    def smooth(*arguments, **options):
        network = mlp(*arguments, **options)
        network.relu1 = torch.nn.Tanh()  # with ReLUs descent slides along kinks, and a part of the gap stays
        return network

    monkeypatch.setattr(experiments, "mlp", smooth)
    gaps = []
    for steps, rate in ((20, 0.2), (200, 0.02)):
        result, _ = importances([images("first", 0)], steps=steps, hidden=(4,), batch_size=60, learning_rate=rate, momentum=0.0)
        gaps.append(abs(result["earned"] / (result["before"] - result["after"]) - 1))
    assert gaps[1] < 0.02
    assert gaps[1] < 0.2 * gaps[0]


def test_the_three_importances_are_of_the_same_weights():
    task = images("first", 0)
    task.train_inputs[..., :9] = 0
    _, tensors = importances([task], steps=5, hidden=(4,))
    weights = 784 * 4 + 4 + 4 * 10 + 10
    assert {name: len(value) for name, value in tensors.items()} == {"fisher": weights, "path": weights, "output": weights}
    assert all((value >= 0).all() for value in tensors.values())
    # A pixel that is dark in every image moves nothing, whoever is asked.
    dark = (task.train_inputs.flatten(1) == 0).all(0)
    assert dark.sum() == 9 * 28
    for value in tensors.values():
        assert not value[: 784 * 4].reshape(4, 784)[:, dark].any()


def test_the_bytes_are_those_of_the_tensors_that_each_method_needs():
    methods = (
        ("L2", {"method": "l2"}),
        ("EWC", {"method": "ewc"}),
        ("EWC separate", {"method": "ewc", "anchors": "separate"}),
        ("SI", {"method": "si"}),
        ("LwF", {"method": "lwf"}),
        ("replay", {"method": "replay", "memory": 6}),
        ("Kronecker", {"method": "kronecker", "factors": "added"}),
    )
    found, _ = costs([images("first", 0)], methods=methods, count=3, hidden=(4,), steps=1, repeats=1)
    weights = 784 * 4 + 4 + 4 * 10 + 10
    one = 4 * weights
    carried = {name: each["carried"] for name, each in found.items()}
    assert carried["L2"] == carried["EWC"] == 2 * one
    assert carried["EWC separate"] == 2 * 2 * one
    assert carried["SI"] == 2 * one
    assert carried["LwF"] == one
    assert carried["Kronecker"] == one + 4 * (785**2 + 4**2 + 5**2 + 10**2)
    assert carried["replay"] == 2 * 6 * (4 * 784 + 8) + len(torch.Generator().get_state())
    # While a task is learned, the path needs the start, the last step, the gradient and the sum.
    assert found["SI"]["held"] == 6 * one
    assert found["EWC"]["held"] == carried["EWC"]
    assert all(each["step"] > 0 and each["consolidation"] >= 0 for each in found.values())



# ---- the figures


def test_the_standings_say_each_mean_with_its_standard_error_from_the_best_down():
    board = {"EWC": [0.80, 0.84], "plain": [0.5, 0.5], "joint": [0.9, 0.9]}
    keeps = {"EWC": "weights", "plain": "nothing", "joint": "images"}
    alt = figures.standings({"permuted": board}, keeps).alt
    assert "permuted: joint 90.0 ± 0.0 %, EWC 82.0 ± 2.0 %, plain 50.0 ± 0.0 %." in alt


def test_the_areas_of_the_figure_are_what_the_weights_earned():
    path = torch.tensor([[0.0, 0.0], [1.0, 0.5], [1.5, 0.75]])
    slopes = torch.tensor([[-0.4, -0.1], [-0.2, -0.2], [0.0, 0.0]])
    alt = figures.earned(path, slopes, ("one", "other")).alt
    assert f"{0.4 * 1 + 0.2 * 0.5:.2g} for the one and {0.1 * 0.5 + 0.2 * 0.25:.2g} for the other" in alt
