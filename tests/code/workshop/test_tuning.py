"""The protocol of comparison: the same budget to begin with, a rule of choice that is the one stated, and grids that are widened."""

import math
from dataclasses import dataclass, field

import pytest
from ewc import AccuracyMatrix
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
    "above": ({"method": "si", "best": 1e4}, 100.0),
    "outside": ({"method": "l2", "best": 1e6}, 0.1),
    "below": ({"method": "mas", "best": 1e-3}, 0.01),
}


def searched(found):
    """A search with these accuracies of its seeds, by strength."""
    runs = [tuple(type("Ran", (), {"matrix": AccuracyMatrix([[value]])})() for value in its) for its in found.values()]
    return tuning.Tuned(tuple(found), tuple(runs), ())


def test_a_grid_has_as_many_values_as_asked_for_around_its_centre():
    assert tuning.grid(10.0) == (1.0, 3.0, 10.0, 30.0, 100.0)
    assert tuning.grid(0.3, 3) == (0.09, 0.3, 0.9)
    assert tuning.grid(30) == (3.0, 9.0, 30.0, 90.0, 300.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "centre is"), ((-1.0,), "centre is"), ((math.inf,), "centre is"), ((1.0, 4), "count is"), ((1.0, 0), "count is")],
)
def test_a_grid_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuning.grid(*arguments)


def test_every_rival_with_a_strength_begins_with_as_many_trials_and_only_on_held_out_images(asked):
    tuning.tuned(None, RIVALS, values=5, search_seeds=(0, 1), steps=7)
    begin, *wider, finals = asked
    assert all(run["tuning"] and run["steps"] == 7 for search in (begin, *wider) for run in search)
    count = {method: sum(run["method"] == method for run in begin) for method in ("plain", "ewc", "si", "l2", "mas")}
    assert count == {"plain": 0, "ewc": 10, "si": 10, "l2": 10, "mas": 10}
    assert {(run["strength"], run["seed"]) for run in begin if run["method"] == "ewc"} == {
        (value, seed) for value in (1.0, 3.0, 10.0, 30.0, 100.0) for seed in (0, 1)
    }
    assert not any(run.get("tuning") for run in finals)


def test_a_grid_is_widened_by_a_decade_where_its_best_lies_until_it_lies_inside_and_twice_at_most(asked):
    found = tuning.tuned(None, RIVALS)
    _, first, second, _ = asked
    assert [(run["method"], run["strength"]) for run in first] == [
        ("si", 3e3), ("si", 1e4), ("l2", 3.0), ("l2", 10.0), ("mas", 1e-4), ("mas", 3e-4),
    ]  # fmt: skip
    # The second round goes on where the first ended at an edge again: SI's best of all is its last value.
    assert sorted((run["method"], run["strength"]) for run in second) == [("l2", 30.0), ("l2", 100.0), ("si", 3e4), ("si", 1e5)]
    assert {name: (each.widened, each.at_the_edge, each.chosen) for name, each in found.items()} == {
        "plain": (0, False, None),
        "inside": (0, False, 3.0),
        "above": (2, False, 1e4),
        "outside": (2, True, 100.0),
        "below": (1, False, 1e-3),
    }
    assert found["below"].values == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1) and found["below"].centre == 0.01
    assert found["above"].values == (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
    for each in found.values():  # the records of a search stand beside the values that they were run with
        assert [tried[0].run["strength"] for tried in each.search] == list(each.values)


def test_a_search_that_may_not_be_widened_says_that_it_ends_at_the_edge(asked):
    found = tuning.tuned(None, RIVALS, widenings=0)
    assert len(asked) == 2
    assert found["outside"].at_the_edge and found["outside"].chosen == found["outside"].values[-1] == 1.0
    assert found["below"].at_the_edge and found["below"].chosen == found["below"].values[0]
    assert not found["inside"].at_the_edge and not any(each.widened for each in found.values())
    assert found["plain"].chosen is None and not found["plain"].at_the_edge and found["plain"].found == ()


def test_the_best_of_the_search_and_no_other_meets_the_test_images(asked):
    found = tuning.tuned(None, RIVALS, seeds=(0, 1, 2))
    finals = asked[-1]
    assert found["inside"].chosen == 3.0 == found["inside"].values[found["inside"].found.index(max(found["inside"].found))]
    assert [run["strength"] for run in finals if run["method"] == "ewc"] == [3.0] * 3
    assert [run["strength"] for run in finals if run["method"] == "si"] == [1e4] * 3
    assert sorted(run["seed"] for run in finals if run["method"] == "plain") == [0, 1, 2]
    assert "strength" not in next(run for run in finals if run["method"] == "plain")
    assert [record.run["method"] for record in found["outside"].records] == ["l2"] * 3


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({1.0: 0.5, 3.0: 0.7, 10.0: 0.6}, 3.0),
        ({1.0: 0.7, 3.0: 0.5, 10.0: 0.6}, 1.0),
        ({1.0: 0.5, 3.0: 0.7, 10.0: 0.7, 30.0: 0.6}, 3.0),  # of equal ones the smaller
        ({1.0: 0.7, 3.0: 0.7, 10.0: 0.7}, 3.0),  # one inside goes before a smaller one at the edge
        ({1.0: 0.7, 3.0: 0.5, 10.0: 0.7}, 1.0),  # and of two at the edges the smaller
        ({1.0: 0.6, 3.0: 0.1 + 0.2, 10.0: 0.5, 30.0: 0.6 + 1e-12}, 1.0),  # rounding decides nothing
        ({1.0: 0.6, 3.0: 0.1, 10.0: 0.5, 30.0: 0.6 + 1e-6}, 30.0),  # and a real difference does
        ({10.0: 0.6, 1.0: 0.6, 3.0: 0.6}, 3.0),  # whatever their order
    ],
)
def test_the_rule_of_choice_is_the_one_that_is_stated(found, chosen):
    assert tuning.best(found) == chosen
    assert searched({value: (accuracy,) for value, accuracy in sorted(found.items())}).chosen == chosen


@pytest.mark.parametrize("found", [{}, {1.0: math.nan}, {1.0: 0.5, 3.0: math.inf}])
def test_what_cannot_be_chosen_from_is_refused(found):
    with pytest.raises(ValueError, match="found is"):
        tuning.best(found)


def test_several_search_seeds_count_by_their_mean_and_tell_what_is_level():
    found = searched({1.0: (0.9, 0.1), 2.0: (0.6, 0.6)})
    assert found.found == pytest.approx((0.5, 0.6)) and found.chosen == 2.0
    found = searched({1.0: (0.70, 0.72, 0.74), 3.0: (0.80, 0.82, 0.84), 10.0: (0.70, 0.92, 0.80), 30.0: (0.81, 0.82, 0.82)})
    # 3 is best; 1 is below it by the same gap each time; 10 with a gap that changes its sign, and 30 by less than that of its seeds.
    assert found.chosen == 3.0 and found.level == (10.0, 30.0)


def test_one_seed_tells_nothing_apart():
    assert searched({1.0: (0.5,), 3.0: (0.9,), 10.0: (0.6,)}).level == (1.0, 10.0)
    assert searched({}).level == ()


def test_what_a_page_says_of_its_searches_is_what_they_were(asked):
    found = tuning.tuned(None, RIVALS)
    assert tuning.edges(found) == (
        "A grid was widened for above (twice), outside (twice) and below (once). At an edge even so lies the choice for outside (100)"
    )
    assert tuning.edges({"inside": found["inside"], "plain": found["plain"]}) == "No grid had to be widened. No choice lies at an edge"


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


@pytest.mark.parametrize("count", [-1, 0.5])
def test_a_count_of_widenings_that_cannot_be_is_refused(asked, count):
    with pytest.raises(ValueError, match="widenings is"):
        tuning.tuned(None, RIVALS, widenings=count)


def test_a_real_search_trains_what_it_says(monkeypatch, tmp_path):
    pair = (images("first", 0), images("second", 1))
    monkeypatch.setattr(workshop_records, "paired", lambda: pair)
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "records"))
    rivals = {"plain": ({"method": "plain"}, None), "EWC": ({"method": "ewc"}, 1.0)}
    found = tuning.tuned(permuted_tasks, rivals, values=3, widenings=1, seeds=(0, 1), count=2, hidden=(4,), steps=3)
    records = [record for tried in found["EWC"].search for record in tried]
    values = [record.configuration["strength"] for record in records]
    assert values == sorted(values) and {0.3, 1.0, 3.0} <= {*values} and len(values) == 3 + 2 * found["EWC"].widened
    assert all(record.configuration["tuning"] for record in records)
    assert [record.seed for record in found["EWC"].records] == [0, 1]
    assert found["EWC"].records[0].configuration["strength"] == found["EWC"].chosen
    assert found["EWC"].found[found["EWC"].values.index(found["EWC"].chosen)] == max(found["EWC"].found)


def test_a_search_alone_meets_no_test_image_and_chooses_as_with_runs_after_it(asked):
    alone = tuning.searched(None, RIVALS)
    assert all(run["tuning"] for runs in asked for run in runs)
    followed = tuning.tuned(None, RIVALS)
    assert {name: (each.values, each.chosen, each.records) for name, each in alone.items()} == {
        name: (each.values, each.chosen, ()) for name, each in followed.items()
    }
