"""The family's two experiments and its figures."""

import torch
from ewc import mlp
from ewc.chapters.the_family import experiments, figures
from ewc.chapters.the_family.experiments import costs, importances
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
