"""The family's two experiments and its figures."""

import pytest
import torch
from ewc import EWC, Replay, mlp
from ewc.chapters.the_family import experiments, figures, rivals
from ewc.chapters.the_family.experiments import costs, importances
from ewc.workshop.sequences import bytes_carried, permuted_tasks
from tiny_runs import images

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
        ("DER", {"method": "dark replay", "memory": 6}),
        ("OWM", {"method": "orthogonal"}),
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
    number = 8  # how many images of a task are kept
    assert carried["replay"] == 2 * 6 * (4 * 784 + 8) + number + len(torch.Generator().get_state())
    assert carried["DER"] == 2 * 6 * (4 * 784 + 4 * 10) + len(torch.Generator().get_state())
    assert carried["OWM"] == one + 4 * (785**2 + 5**2)
    # While a task is learned, the path needs the start, the last step, the gradient and the sum.
    assert found["SI"]["held"] == 6 * one
    assert found["EWC"]["held"] == carried["EWC"]
    assert all(each["step"] > 0 for each in found.values())



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


# ---- the rivals


def test_joint_training_takes_as_many_steps_as_the_others_in_all_and_meets_every_task_in_the_first(monkeypatch):
    seen = []
    monkeypatch.setattr(rivals, "fit", lambda model, task, **options: seen.append((task, options)))
    result, _ = rivals.all_at_once([images("first", 0)], count=3, steps=7, hidden=(4,), seed=2)
    ((task, options),) = seen
    assert len(task.train_targets) == 3 * 60
    assert options["steps"] == 3 * 7
    assert options["seed"] == 2000
    assert len(result["accuracies"]) == 3


def test_the_rivals_meet_what_the_others_meet():
    """Without a pull, each is plain descent on the same permutations, from the same weights, in the same order."""
    shared = {"count": 2, "hidden": (4,), "steps": 5, "batch_size": 10, "memory": 5, "seed": 3}
    plain, _ = permuted_tasks([images("first", 0)], method="plain", forward=True, **shared)
    for method in rivals.METHODS:
        found, _ = rivals.permuted_rivals([images("first", 0)], method=method, strength=0.0, replay_strength=0.0, **shared)
        torch.testing.assert_close(torch.tensor(found["matrix"]).nan_to_num(), torch.tensor(plain["matrix"]).nan_to_num())
        assert found["untrained"] == plain["untrained"]
        searched, _ = rivals.permuted_rivals([images("first", 0)], method=method, strength=0.0, replay_strength=0.0, tuning=True, **shared)
        assert searched["untrained"] is None            # a search asks for the end alone


def test_ewc_and_replay_is_the_sum_of_the_two():
    model = mlp((4,))
    run = {"strength": 2.0, "replay_strength": 0.5, "memory": 5, "batch_size": 10, "seed": 0, "fisher_examples": 30}
    both = rivals.guard(run | {"method": "ewc and replay"}, model)
    alone = [EWC(model, 2.0, anchors="merged", max_examples=30), Replay(model, 0.5, examples=5, batch_size=10, seed=0)]
    task = images("first", 0)
    for each in (both, *alone):
        each.consolidate(task.train_inputs, task.train_targets)
    with torch.no_grad():
        model.logits.weight += 0.1
    torch.testing.assert_close(both.penalty(), alone[0].penalty() + alone[1].penalty())
    assert bytes_carried(both) == sum(map(bytes_carried, alone))


def test_a_method_that_is_none_is_refused():
    with pytest.raises(ValueError, match="method is 'none'; it may be one of 'dark replay'"):
        rivals.guard({"method": "none", "strength": 1.0, "memory": 5, "batch_size": 10, "seed": 0}, mlp((4,)))
