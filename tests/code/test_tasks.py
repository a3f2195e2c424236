"""Tasks made of one data set: its pixels permuted, its classes split, all together again, a part held out."""

from dataclasses import replace

import numpy
import pytest
import torch
from ewc import models, tasks
from ewc.tasks import held_out, padded, permuted, split
from ewc.training import accuracy, fit
from small_tasks import blobs
from tiny_runs import images


@pytest.fixture
def base():
    return images("images", 0)


def pixels(task):
    return task.train_inputs.flatten(1)


def test_the_first_permutation_moves_nothing_and_the_others_move_all_images_alike(base):
    first, second, third = tasks.permuted(base, 3, seed=1)
    assert torch.equal(first.train_inputs, base.train_inputs)
    for task in (second, third):
        (order,) = task.orders
        assert order.sort().values.tolist() == list(range(784))
        assert torch.equal(pixels(task), base.train_inputs.flatten(1)[:, order])
        assert torch.equal(task.test_inputs.flatten(1), base.test_inputs.flatten(1)[:, order])
        assert torch.equal(task.train_targets, base.train_targets)
    assert not torch.equal(second.orders, third.orders)


def test_the_orders_follow_the_seed(base):
    orders = [torch.cat([task.orders for task in tasks.permuted(base, 3, seed)]) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0][:2], torch.cat([task.orders for task in tasks.permuted(base, 2, 0)]))


@pytest.mark.parametrize("square", [1, 8, 26])
def test_a_square_moves_its_own_pixels_and_no_other(base, square):
    moved = torch.zeros(28, 28)
    for task in tasks.permuted(base, 5, seed=2, square=square)[1:]:
        moved += (task.orders[0] != torch.arange(784)).reshape(28, 28)
    edge = (28 - square) // 2
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[edge : edge + square, edge : edge + square] = True
    assert not moved[~inside].any()
    assert square == 1 or (moved[inside] > 0).float().mean() > 0.9


def test_a_batch_is_the_same_images_as_all_of_them(base):
    rows = torch.tensor([3, 0, 59, 3])
    parts = tasks.permuted(base, 3, seed=1)
    both = tasks.joint(parts[1:])
    for task, chosen in ((base, rows), (parts[2], rows), (both, torch.tensor([3, 60, 119, 61]))):
        inputs, targets = task.batch(chosen)
        assert torch.equal(inputs, task.train_inputs[chosen])
        assert torch.equal(targets, task.train_targets[chosen])


def test_joint_permutations_are_the_images_of_each(base):
    parts = tasks.permuted(base, 2, seed=1)
    both = tasks.joint(parts)
    for part in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        assert torch.equal(getattr(both, part), torch.cat([getattr(task, part) for task in parts]))
    assert both.things == base.things


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(n=0), "n is 0"), (dict(n=1.5), "n is 1.5"), (dict(n=2, square=29), "square is 29"), (dict(n=2, square=0), "square is 0")],
)
def test_permutations_that_cannot_be_are_refused(base, arguments, message):
    with pytest.raises(ValueError, match=message):
        tasks.permuted(base, **arguments)


def test_a_border_is_black_and_moves_with_the_image(base):
    wide = tasks.padded(base, 2)
    assert wide.train_inputs.shape == (60, 1, 32, 32)
    assert torch.equal(wide.train_inputs[:, :, 2:-2, 2:-2], base.train_inputs)
    assert (wide.test_inputs != 0).sum() == (base.test_inputs != 0).sum()
    moved = tasks.permuted(wide, 2)[1]
    assert moved.train_inputs.shape == (60, 1, 32, 32)
    assert torch.equal(moved.train_inputs.flatten(1).sort(1).values, wide.train_inputs.flatten(1).sort(1).values)
    assert tasks.padded(base, 0) is base
    with pytest.raises(ValueError, match="border is -1"):
        tasks.padded(base, -1)


def test_normalized_pixels_have_mean_0_and_variance_1_over_the_training_images(base):
    even = tasks.normalized(base)
    assert abs(float(even.train_inputs.double().mean())) < 1e-5
    assert abs(float((even.train_inputs.double() ** 2).mean()) - 1) < 1e-5
    mean, deviation = base.train_inputs.double().mean(), base.train_inputs.double().std(correction=0)
    torch.testing.assert_close(even.test_inputs.double(), (base.test_inputs.double() - mean) / deviation, rtol=1e-4, atol=1e-5)
    assert torch.equal(even.train_targets, base.train_targets)
    blank = replace(base, train_inputs=torch.ones_like(base.train_inputs))
    with pytest.raises(ValueError, match="without contrast"):
        tasks.normalized(blank)


# ---- split


@pytest.mark.parametrize("scenario", tasks.SCENARIOS)
def test_each_image_is_in_the_task_of_its_class(base, scenario):
    parts = tasks.split(base, 5, scenario=scenario)
    for number, part in enumerate(parts):
        group = torch.tensor([2 * number, 2 * number + 1])
        for inputs, targets, all_inputs, all_targets in (
            (part.train_inputs, part.train_targets, base.train_inputs, base.train_targets),
            (part.test_inputs, part.test_targets, base.test_inputs, base.test_targets),
        ):
            rows = torch.isin(all_targets, group)
            assert torch.equal(inputs, all_inputs[rows])
            assert torch.equal(targets if scenario == "class" else group[targets], all_targets[rows])
        assert part.units == (tuple(group.tolist()) if scenario == "task" else None)
    assert sum(len(part.train_targets) for part in parts) == len(base.train_targets)


def test_groups_may_be_named_and_leave_classes_out(base):
    first, second = tasks.split(base, [(7, 1, 4), (0, 2)], scenario="task")
    assert first.classes == ("7", "1", "4")
    assert first.units == (7, 1, 4)
    assert torch.equal(torch.tensor(first.units)[first.train_targets].unique(), torch.tensor([1, 4, 7]))
    assert second.units == (0, 2)


@pytest.mark.parametrize(
    ("groups", "scenario", "message"),
    [
        (3, "task", "groups is 3; it must divide the 10 classes"),
        (0, "task", "groups is 0"),
        ([(0, 1), (1, 2)], "task", "each class"),
        ([(0, 10)], "task", "each class"),
        ([(0, 1), ()], "task", "each class"),
        ([(0, 1), (2,)], "domain", "same size"),
        (5, "classes", "scenario is 'classes'"),
    ],
)
def test_groups_that_cannot_be_are_refused(base, groups, scenario, message):
    with pytest.raises(ValueError, match=message):
        tasks.split(base, groups, scenario=scenario)


@pytest.mark.parametrize("scenario", tasks.SCENARIOS)
def test_split_tasks_are_together_what_they_were(base, scenario):
    parts = tasks.split(base, 5, scenario=scenario)
    whole = tasks.joint(parts)
    assert torch.equal(whole.train_inputs, torch.cat([part.train_inputs for part in parts]))
    if scenario == "task":
        assert whole.units.shape == (len(base.train_targets), 2)
        assert torch.equal(whole.units.gather(1, whole.train_targets[:, None]).squeeze(1).sort().values, base.train_targets.sort().values)


def test_tasks_of_two_scenarios_cannot_be_joined(base):
    with pytest.raises(ValueError, match="one scenario"):
        tasks.joint([tasks.split(base, 5, scenario="task")[0], tasks.split(base, 5, scenario="class")[1]])
    with pytest.raises(ValueError, match="empty"):
        tasks.joint([])


def test_what_is_held_out_is_tested_on_and_not_learned(base):
    part = tasks.held_out(base, 0.25)
    assert torch.equal(torch.cat([part.train_inputs, part.test_inputs]), base.train_inputs)
    assert torch.equal(torch.cat([part.train_targets, part.test_targets]), base.train_targets)
    assert len(part.test_targets) == 15
    with pytest.raises(ValueError, match="share is 1"):
        tasks.held_out(base, 1)


# ---- outputs of one's own


def test_a_task_is_learned_and_read_with_its_own_outputs(base):
    first, second = tasks.split(base, 5, scenario="task")[:2]
    model = models.mlp((8,), units=True)
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(model, first, steps=30)
    other = [0, 1]
    assert torch.equal(model.logits.bias[2:], before["logits.bias"][2:])
    assert not torch.equal(model.logits.bias[other], before["logits.bias"][other])
    assert model(first.test_inputs).shape[1] == 2
    with torch.no_grad():
        by_hand = (model[:-1](second.test_inputs)[:, 2:4].argmax(1) == second.test_targets).float().mean()
    assert accuracy(model, second) == pytest.approx(float(by_hand))
    assert model.units.chosen == first.units  # as it was before it was tested


def test_outputs_may_differ_from_example_to_example():
    layer, logits = models.Units(), torch.arange(12.0).reshape(3, 4)
    assert torch.equal(layer(logits), logits)
    layer.chosen = torch.tensor([[0, 1], [2, 3], [3, 0]])
    assert layer(logits).tolist() == [[0, 1], [6, 7], [11, 8]]
    layer.chosen = (1, 3)
    assert layer(logits).tolist() == [[1, 3], [5, 7], [9, 11]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_indices_may_be_narrow(dtype):
    wide = blobs()
    narrow = replace(wide, train_targets=wide.train_targets.to(dtype), test_targets=wide.test_targets.to(dtype))
    assert narrow.train_targets.dtype == narrow.test_targets.dtype == torch.long
    for one, other in zip(split(narrow, [[0, 2], [1]]), split(wide, [[0, 2], [1]]), strict=True):
        assert torch.equal(one.train_targets, other.train_targets)
        assert torch.equal(one.test_inputs, other.test_inputs)


def test_numpys_numbers_are_numbers():
    task = replace(blobs(), train_inputs=torch.rand(90, 1, 4, 4), test_inputs=torch.rand(90, 1, 4, 4))
    two = numpy.int64(2)
    assert len(permuted(task, two, seed=two, square=two)) == 2
    assert padded(task, two).train_inputs.shape == (90, 1, 8, 8)
    assert len(split(task, numpy.int64(3))) == 3
    assert split(task, [numpy.array([0, 2])])[0].units == (0, 2)
    assert len(held_out(task, numpy.float32(0.5)).train_targets) == 45
    for wrong in (2.5, "2"):
        with pytest.raises(ValueError, match="square is"):
            permuted(task, 2, square=wrong)
    with pytest.raises(ValueError, match="share is"):
        held_out(task, "0.5")
