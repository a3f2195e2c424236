"""Replay, the second lessons of the chapter on tempting fixes, and the EWC paper's Figure 1 on two weights."""

import functools
import math

import pytest
import torch
from ewc import EWC, L2, accuracy, diagonal_fisher, fit, mlp
from ewc.chapters.catastrophic_forgetting.experiments import first_lesson, two_tasks
from ewc.chapters.tempting_fixes import experiments
from ewc.chapters.tempting_fixes.experiments import second_lessons
from ewc.chapters.tempting_fixes.two_weights import TwoWeights, descend
from ewc.chapters.yesterdays_posterior.grid import two_clusters
from ewc.replay import Replay
from ewc.workshop.records import Record
from small_tasks import blobs
from torch import nn
from torch.nn.functional import cross_entropy

# ---- replay


def classifier(seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 4, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def examples(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 4


def by_hand(model, inputs, targets):
    """The mean of −log p(y|x, θ), one example at a time."""
    costs = [-(model(x).exp()[y] / model(x).exp().sum()).log() for x, y in zip(inputs, targets, strict=True)]
    return sum(costs) / len(costs)


def test_replay_costs_nothing_before_the_first_task():
    penalty = Replay(classifier()).penalty()
    assert penalty.shape == ()
    assert penalty == 0


def test_replay_of_one_kept_example_is_its_loss_times_the_strength():
    model, (inputs, targets) = classifier(), examples(1)
    memory = Replay(model, 2.5, examples=1, batch_size=7)
    memory.consolidate(inputs, targets)
    torch.testing.assert_close(memory.penalty(), 2.5 * by_hand(model, inputs, targets), rtol=1e-12, atol=0)


def test_replay_is_an_unbiased_estimate_of_the_sum_over_tasks_of_the_mean_loss():
    model, tasks = classifier(), [examples(4, seed) for seed in (1, 2, 3)]
    memory = Replay(model, 0.5, examples=4, batch_size=200_000)
    for task in tasks:
        memory.consolidate(*task)
    wanted = 0.5 * sum(by_hand(model, *task) for task in tasks)
    torch.testing.assert_close(memory.penalty(), wanted, rtol=0.01, atol=0)


def test_replay_keeps_as_many_as_it_was_told_of_each_task_each_with_its_own_label_and_none_twice():
    memory = Replay(classifier(), examples=6)
    tasks = [examples(20, 1), examples(20, 2)]
    for task in tasks:
        memory.consolidate(*task)
    inputs, targets = memory.memory
    assert len(inputs) == len(targets) == 12
    for (given, labels), place in zip(tasks, (slice(0, 6), slice(6, 12)), strict=True):
        found = [int((given == x).all(1).nonzero()) for x in inputs[place]]
        assert len(set(found)) == 6
        assert torch.equal(labels[found], targets[place])


def test_replay_draws_anew_in_each_step_by_its_seed_and_leaves_torchs_own_generator_alone():
    model = classifier()
    before = torch.get_rng_state()

    def three_draws(seed):
        memory = Replay(model, examples=10, batch_size=3, seed=seed)
        memory.consolidate(*examples(40))
        return [memory.penalty().item() for _ in range(3)]

    assert three_draws(0) == three_draws(0) != three_draws(1)
    assert len(set(three_draws(0))) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_replayed_task_is_kept_where_plain_descent_loses_it():
    first, second = blobs("first", 0), blobs("second", 1)
    kept = {}
    for name in ("plain", "replay"):
        model = mlp((16,), inputs=4, classes=3)
        memory = Replay(model, examples=10, batch_size=10)
        fit(model, first, steps=200, batch_size=16)
        memory.consolidate(first.train_inputs, first.train_targets)
        fit(model, second, penalty=memory if name == "replay" else None, steps=200, batch_size=16)
        kept[name] = accuracy(model, first)
    assert kept["plain"] < kept["replay"] - 0.05


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan, "2"])
def test_replay_refuses_a_strength_that_is_none(strength):
    with pytest.raises(ValueError, match="strength is"):
        Replay(classifier(), strength)


@pytest.mark.parametrize("name", ["examples", "batch_size"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_replay_refuses_a_number_that_is_not_whole_and_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        Replay(classifier(), **{name: value})


def test_replay_refuses_too_few_examples_and_targets_that_do_not_match():
    memory, (inputs, targets) = Replay(classifier(), examples=5), examples(8)
    for wrong in ((inputs[:4], targets[:4]), (inputs, targets[:7])):
        with pytest.raises(ValueError, match="same number, at least examples = 5"):
            memory.consolidate(*wrong)
    assert memory.penalty() == 0


# ---- the second lessons

TINY = {"steps": 20, "hidden": (6, 5), "batch_size": 16, "learning_rate": 0.06, "momentum": 0.9}


@pytest.fixture(scope="module")
def pair():
    return [
        blobs(name, shift, n=60, features=784, classes=10, seed=seed)
        for name, shift, seed in (("a", 0, 0), ("b", 1, 1))
    ]


@pytest.fixture(scope="module")
def first(pair):
    """The record that both experiments begin with, for a seed and for options."""

    def learned(seed=0, **options):
        result, tensors = first_lesson(pair, seed=seed, **options)
        told = dict.fromkeys(("key", "name", "device", "data", "versions", "seconds", "finished"))
        return Record(**told, configuration=options, seed=seed, result=result, tensors=tensors)

    return learned


def test_steps_of_the_full_size_are_plain_descent(pair, first):
    plain, _ = two_tasks(pair, first(3, **TINY), method="plain", seed=3, **TINY)
    lessons, _ = second_lessons(pair, first(3, **TINY), ways=(("slower", 1.0),), seed=3, **TINY)
    assert lessons["before"] == plain["matrix"][0]
    assert lessons["after"] == [plain["matrix"][1]]


def test_every_way_starts_from_the_same_weights_with_nothing_frozen(pair, first):
    ways = (("freeze", 2), ("replay", 5), ("slower", 1.0), ("freeze", 1))
    together, _ = second_lessons(pair, first(**TINY), ways=ways, **TINY)
    alone = [second_lessons(pair, first(**TINY), ways=(way,), **TINY)[0]["after"][0] for way in ways]
    assert together["after"] == alone
    assert len({tuple(after) for after in alone}) > 1


def test_with_every_layer_frozen_nothing_is_learned_and_nothing_forgotten(pair, first):
    model = mlp(TINY["hidden"])
    layers = sum(isinstance(layer, nn.Linear) for layer in model)
    # One layer must be free, or there is nothing to take a gradient of: a step of next to no size in its place.
    few = {**TINY, "learning_rate": 1e-12}
    lessons, _ = second_lessons(pair, first(**few), ways=(("freeze", layers - 1),), **few)
    assert lessons["after"] == [lessons["before"]]


@pytest.mark.parametrize(("frozen", "held"), [(1, {"hidden1"}), (2, {"hidden1", "hidden2"})])
def test_freezing_counts_layers_from_the_input(pair, first, monkeypatch, frozen, held):
    seen = []

    def watched(model, task, **_):
        seen.append({name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad})

    start = first(**TINY)
    monkeypatch.setattr(experiments, "fit", watched)
    second_lessons(pair, start, ways=(("freeze", frozen), ("slower", 0.5)), **TINY)
    assert seen == [held, set()]


def test_a_way_that_is_none_is_refused(pair, first):
    with pytest.raises(ValueError, match="'slower', 'freeze' or 'replay'"):
        second_lessons(pair, first(**TINY), ways=(("pray", 1),), **TINY)


# ---- two weights


def tasks_of_figure_1():
    """The two tasks of the page."""
    a = two_clusters(100, (0.8, 0.0), spread=(1.5, 0.15), seed=1)
    b = two_clusters(100, (0.3, 0.6), spread=(0.5, 0.5), seed=11)
    return tuple((inputs, labels.long()) for inputs, labels in (a, b))


def test_two_weights_are_logistic_regression():
    theta = torch.tensor([0.7, -1.2], dtype=torch.float64)
    inputs = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    beliefs = TwoWeights(theta)(inputs).softmax(-1)
    wanted = 1 / (1 + (-(inputs * theta).sum(1)).exp())
    torch.testing.assert_close(beliefs, torch.stack([1 - wanted, wanted], 1), rtol=1e-12, atol=1e-14)
    assert torch.equal(TwoWeights(theta).theta(), theta)


def slope(theta, inputs, labels):
    """The gradient of logistic regression's mean loss, written out: the mean of (p − y) x."""
    return ((1 / (1 + (-(inputs @ theta)).exp()) - labels)[:, None] * inputs).mean(0)


def test_descent_takes_the_steps_of_the_formula_with_and_without_springs():
    (inputs_a, _), (inputs, labels) = tasks_of_figure_1()
    start = torch.tensor([0.6, 0.1], dtype=torch.float64)
    for strength in (0.0, 0.8):
        model = TwoWeights(start)
        guard = EWC(model, strength)
        guard.consolidate(inputs_a)
        F = diagonal_fisher(model, inputs_a)["linear.weight"].flatten()
        way = descend(model, inputs, labels, penalty=guard, steps=4, learning_rate=0.7)
        theta = [start]
        for _ in range(4):
            theta.append(theta[-1] - 0.7 * (slope(theta[-1], inputs, labels) + strength * F * (theta[-1] - start)))
        torch.testing.assert_close(way, torch.stack(theta), rtol=1e-10, atol=1e-12)


@functools.cache
def bests_of_figure_1():
    """Where the loss of A is least, and that of B."""
    task_a, task_b = tasks_of_figure_1()
    start = descend(TwoWeights(torch.zeros(2).double()), *task_a, steps=400, learning_rate=2.0)[-1]
    return start, descend(TwoWeights(start), *task_b, steps=4000, learning_rate=3.0)[-1]


def ends_of_figure_1(strength, names=("plain", "L2", "EWC")):
    """Where plain descent, L2 and EWC end, and how far either task's loss is above its best there."""
    task_a, task_b = tasks_of_figure_1()
    start, best_b = bests_of_figure_1()
    F = diagonal_fisher(TwoWeights(start), task_a[0])["linear.weight"].flatten()
    makers = {
        "plain": lambda _: None,
        "L2": lambda m: L2(m, strength * float(F.mean())),
        "EWC": lambda m: EWC(m, strength),
    }
    ends, rises = {}, {}
    for name in names:
        model = TwoWeights(start)
        guard = makers[name](model)
        if guard:
            guard.consolidate(task_a[0])
        ends[name] = descend(model, *task_b, penalty=guard, steps=800, learning_rate=3 / (1 + strength))[-1]
        rises[name] = [
            (cross_entropy(TwoWeights(ends[name])(x), y) - cross_entropy(TwoWeights(best)(x), y)).item()
            for (x, y), best in ((task_a, start), (task_b, best_b))
        ]
    return start, F, ends, rises


def test_in_figure_1_ewc_ends_in_the_overlap_plain_descent_leaves_a_and_l2_stays_too_near_a():
    tolerance, (start, _, ends, rises) = 0.05, ends_of_figure_1(1.0)
    assert rises["plain"][0] > tolerance > rises["plain"][1]
    assert rises["L2"][0] < tolerance < rises["L2"][1]
    assert rises["EWC"][0] < tolerance > rises["EWC"][1]
    assert (ends["L2"] - start).norm() < (ends["EWC"] - start).norm()


def test_in_figure_1_no_strength_takes_l2_into_the_overlap():
    for strength in (0.02, 0.1, 0.2, 0.5, 2.0, 10.0):
        assert max(ends_of_figure_1(strength, names=("L2",))[3]["L2"]) > 0.05


def test_the_ends_of_figure_1_are_where_the_pulls_of_the_new_task_and_of_the_springs_cancel():
    task_b = tasks_of_figure_1()[1]
    start, F, ends, _ = ends_of_figure_1(1.0)
    for name, stiffness in (("plain", 0 * F), ("L2", F.mean().expand(2)), ("EWC", F)):
        pull = slope(ends[name], *task_b) + stiffness * (ends[name] - start)
        torch.testing.assert_close(pull, torch.zeros_like(pull), rtol=0, atol=1e-9)


def test_with_round_bowls_l2_ends_on_the_straight_line_and_each_weight_at_the_average_by_stiffness():
    """(k θᴮ + c θ*) / (k + c), against descent on the two bowls."""
    k, c = torch.tensor([2.0, 0.5]).double(), torch.tensor([0.3, 1.7]).double()
    old, new = torch.tensor([1.0, -2.0]).double(), torch.tensor([4.0, 3.0]).double()
    theta = old.clone()
    for _ in range(500):
        theta = theta - 0.3 * (k * (theta - new) + c * (theta - old))
    torch.testing.assert_close(theta, (k * new + c * old) / (k + c), rtol=1e-10, atol=0)
