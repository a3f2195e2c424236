"""Learning one task and several: steps by hand, seeds, bounds, what is looked at, what is said."""

import copy
import itertools
import re
import warnings
from dataclasses import replace

import numpy
import pytest
import torch
from by_hand import Function
from ewc import EWC, L2, accuracy, fit, joint, learn_in_sequence, mlp, permuted, training
from small_tasks import blobs
from torch import nn

QUICK = {"steps": 60, "batch_size": 16, "learning_rate": 0.1}


def small(seed=0):
    return mlp((8,), inputs=4, classes=3, seed=seed)


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


# ---- one task


def test_a_network_learns_its_task():
    model, task = small(), blobs()
    assert accuracy(model, task) < 0.7
    fit(model, task, **QUICK)
    assert accuracy(model, task) > 0.95


@pytest.mark.parametrize("penalised", [False, True])
def test_steps_are_descent_with_momentum_on_mean_loss_plus_penalty(penalised):
    task, model = blobs(n=20), small()
    penalty = L2(model, 0.7) if penalised else None
    if penalised:
        penalty.consolidate()
    by_hand, anchor = copy.deepcopy(model), weights(model)
    steps, rate, momentum = 10, 0.2, 0.8
    fit(model, task, penalty=penalty, steps=steps, batch_size=20, learning_rate=rate, momentum=momentum)
    velocity = torch.zeros_like(anchor)
    for step in range(steps):  # the whole task in each step, so that the order does not matter
        loss = nn.functional.cross_entropy(by_hand(task.train_inputs), task.train_targets)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(by_hand.parameters()))])
        now = weights(by_hand)
        if penalised:
            gradient = gradient + 0.7 * (now - anchor)
        velocity = momentum * velocity + gradient
        height = min((step + 1) / 2, (steps - step) / 8, 1)  # up over a fifth of the steps, then down to 0
        torch.nn.utils.vector_to_parameters(now - height * rate * velocity, by_hand.parameters())
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-4, atol=1e-5)


class Damps:
    """A penalty that looks at the gradient before it adds to it."""

    def __init__(self, model):
        self.model = model

    def add_gradient(self):
        for parameter in self.model.parameters():
            parameter.grad -= 0.5 * parameter.grad


def test_a_penalty_that_looks_at_the_gradient_sees_no_momentum():
    models = [small(), small()]
    models[1][1].weight.register_hook(lambda gradient: None)  # so that autograd makes its gradients
    fit(models[0], blobs(), penalty=Damps(models[0]), **QUICK)
    half = QUICK | {"learning_rate": QUICK["learning_rate"] / 2}
    fit(models[1], blobs(), **half)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carried", [True, False])
def test_the_optimisers_averages_go_from_task_to_task_where_that_is_asked_for(carried):
    model, lessons, steps = small(), [blobs(n=20, shift=shift) for shift in range(3)], 7
    by_hand, state = copy.deepcopy(model), {}
    for lesson in lessons:
        fit(
            model, lesson, steps=steps, batch_size=20, learning_rate=0.01, optimizer="adam", schedule="constant",
            optimizer_state=state if carried else None,
        )  # fmt: skip
    mean = square = count = 0
    for lesson in lessons:
        if not carried:
            mean = square = count = 0
        for _ in range(steps):
            loss = nn.functional.cross_entropy(by_hand(lesson.train_inputs), lesson.train_targets)
            g = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(by_hand.parameters()))])
            mean, square, count = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2, count + 1
            step = mean / (1 - 0.9**count) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
            torch.nn.utils.vector_to_parameters(weights(by_hand) - 0.01 * step, by_hand.parameters())
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-3, atol=1e-4)


def test_averages_are_carried_past_a_frozen_layer():
    model, state = small(), {}
    model.hidden1.requires_grad_(False)
    for shift in range(2):
        fit(model, blobs(shift=shift), optimizer="adam", optimizer_state=state, **QUICK)
    assert {int(own["step"]) for own in state.values()} == {2 * QUICK["steps"]}
    assert len(state) == 2
    model.hidden1.requires_grad_(True)
    fit(model, blobs(), optimizer="adam", optimizer_state=state, **QUICK)
    assert sorted(int(own["step"]) for own in state.values()) == sorted([QUICK["steps"]] * 2 + [3 * QUICK["steps"]] * 2)


def test_averages_of_another_model_are_refused_and_the_model_is_as_before():
    state, other = {}, mlp((9,), inputs=4, classes=3)
    fit(small(), blobs(), optimizer="adam", optimizer_state=state, **QUICK)
    before = weights(other)
    with pytest.raises(ValueError, match=r"optimizer_state is another model's: .*\(9, 4\)"):
        fit(other, blobs(), optimizer="adam", optimizer_state=state, **QUICK)
    with pytest.raises(ValueError, match="optimizer_state"):
        fit(mlp((8, 8), inputs=4, classes=3), blobs(), optimizer="adam", optimizer_state=state, **QUICK)
    assert torch.equal(weights(other), before)


def test_each_pass_visits_each_image_once_in_a_new_order():
    task, seen = blobs(n=12), []

    def note(m, x):
        seen.append(x.detach().clone())
        return m.a(x)

    fit(Function(note, a=nn.Linear(4, 3)), task, steps=9, batch_size=5, learning_rate=1e-9)
    passes = [torch.cat(seen[start : start + 3]) for start in (0, 3, 6)]
    for images in passes:
        assert torch.equal(images.sort(0).values, task.train_inputs.sort(0).values)
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], task.train_inputs)


def test_training_is_reproducible_by_its_seed_and_draws_nothing_else():
    found = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(noise)
        model = small()
        fit(model, blobs(), seed=seed, **QUICK)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    fit(small(), blobs(), **QUICK)
    assert torch.equal(torch.rand(2), wanted)


def test_frozen_weights_stay_and_batch_statistics_move():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    frozen, statistics, flags = model[0].weight.clone(), model[1].running_mean.clone(), [p.requires_grad for p in model.parameters()]
    fit(model.eval(), blobs(), **QUICK)
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[1].running_mean, statistics)
    assert [p.requires_grad for p in model.parameters()] == flags


def test_the_data_are_left_as_they_were():
    task, same = blobs(), blobs()
    fit(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), task, **QUICK)
    assert torch.equal(task.train_inputs, same.train_inputs)


def test_watch_sees_every_step_from_before_the_first():
    seen, model = [], small()
    start = weights(model)
    fit(model, blobs(), steps=4, batch_size=8, watch=lambda step: seen.append((step, weights(model))))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][1], start)
    assert all(not torch.equal(a, b) for (_, a), (_, b) in itertools.pairwise(seen))


def test_a_penalty_needs_one_method_only():
    model = small()
    anchor = weights(model)

    class Mine:
        def penalty(self):
            return 50 * sum((p - a.view_as(p)).square().sum() for p, a in zip(model.parameters(), parts, strict=True))

    parts = anchor.split([p.numel() for p in model.parameters()])
    free = copy.deepcopy(model)
    fit(free, blobs(), **(QUICK | {"learning_rate": 0.01}))
    fit(model, blobs(), penalty=Mine(), **(QUICK | {"learning_rate": 0.01}))
    assert (weights(model) - anchor).norm() < 0.2 * (weights(free) - anchor).norm()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, ["steps is 0", "at least 1"]),
        ({"steps": 2.5}, ["steps is 2.5", "whole number"]),
        ({"batch_size": 0}, ["batch_size is 0", "at least 1"]),
        ({"learning_rate": 0}, ["learning_rate is 0", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate is nan"]),
        ({"momentum": 1.0}, ["momentum is 1.0", "below 1"]),
        ({"momentum": -0.1}, ["momentum is -0.1", "at least 0"]),
        ({"learning_rate": 1e12, "steps": 50}, ["loss on blobs", "learning_rate = 1000000000000.0 is too large"]),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(options, words):
    with pytest.raises(ValueError) as refusal:
        fit(small(), blobs(), **options)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_a_loss_that_the_penalty_blew_up_is_reported_with_its_strength():
    model = small()
    penalty = L2(model, 1e6)
    penalty.consolidate()
    with (
        pytest.warns(RuntimeWarning, match="diverge"),
        pytest.raises(ValueError, match=r"too large for a penalty of strength 1000000\.0"),
    ):
        fit(model, blobs(), penalty=penalty, steps=200)


# ---- the step size at which the penalty alone diverges


def heavy_ball(penalty, model, rate, momentum, steps=3000):
    """How far from the anchor steps of constant size on the penalty alone lead, from 1e-3 away along the steepest weight."""
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-3
    for _ in range(steps):
        optimizer.zero_grad()
        value = penalty.penalty()
        if not value < 1e6:
            return float("inf")
        value.backward()
        optimizer.step()
    return value.item()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_bound_of_the_warning_is_true(momentum):
    torch.manual_seed(0)
    found = []
    for factor in (0.99, 1.01):
        model = nn.Linear(2, 2).double()
        penalty = EWC(model, 5.0)
        penalty.consolidate(torch.randn(20, 2, dtype=torch.float64))
        bound = 2 * (1 + momentum) / penalty.largest_curvature()
        found.append(heavy_ball(penalty, model, factor * bound, momentum))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            training.warn_of_divergence(penalty, factor * bound, momentum)
        assert bool(said) == (factor > 1)
    assert found[0] < 1e-7
    assert found[1] == float("inf")


def test_the_warning_names_the_learning_rate_and_the_strength_that_would_do():
    model = small()
    penalty = L2(model, 100.0)
    penalty.consolidate()
    with pytest.warns(RuntimeWarning) as said:
        fit(model, blobs(), penalty=penalty, steps=1, learning_rate=0.5, momentum=0.9)
    (message,) = (str(warning.message) for warning in said)
    rate, strength = map(float, re.search(r"learning_rate below ([\d.e+-]+), or strength below ([\d.e+-]+)", message).groups())
    assert "max F = 50" in message
    assert rate == pytest.approx(3.8 / 100)
    assert strength == pytest.approx(3.8 / 0.5)
    assert said[0].filename == __file__


def test_no_warning_before_the_first_task():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(small(), blobs(), penalty=EWC(small(), 1e9), steps=1)


# ---- several tasks


def test_the_matrix_holds_the_accuracy_on_each_task_after_each():
    model, tasks, seen = small(), [blobs("a"), blobs("b", shift=1), blobs("c", shift=2)], {}

    def watch(place, step):
        if step == QUICK["steps"]:
            seen[place] = [accuracy(model, task) for task in tasks]

    matrix, looks = learn_in_sequence(model, tasks, watch=watch, **QUICK)
    assert matrix.values.tolist() == [seen[place] for place in range(3)]
    assert looks == []
    assert matrix.values.diagonal().min() > 0.9
    assert matrix.backward_transfer() < -0.3  # and it forgets


def test_learning_in_sequence_is_fit_after_fit_with_seeds_of_their_own():
    tasks = [blobs("a"), blobs("b", shift=1)]
    one, other = small(), small()
    learn_in_sequence(one, tasks, seed=7, **QUICK)
    for place, task in enumerate(tasks):
        fit(other, task, seed=7000 + place, **QUICK)
    assert torch.equal(weights(one), weights(other))


def test_looks_are_taken_at_the_steps_asked_for():
    model, tasks = small(), [blobs("a"), blobs("b", shift=1)]
    untrained = [accuracy(model, task) for task in tasks]
    matrix, looks = learn_in_sequence(model, tasks, look=(0, 3, 60, 999), **QUICK)
    assert [(look["task"], look["step"]) for look in looks] == [(0, 0), (0, 3), (0, 60), (1, 0), (1, 3), (1, 60)]
    assert looks[0]["accuracies"] == untrained
    assert looks[2]["accuracies"] == looks[3]["accuracies"] == matrix.values[0].tolist()
    assert looks[-1]["accuracies"] == matrix.values[1].tolist()


def test_looking_changes_nothing():
    tasks, found = [blobs("a"), blobs("b", shift=1)], []
    for look in ((), range(60)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        learn_in_sequence(model, tasks, look=look, **QUICK)
        found.append(weights(model))
    assert torch.equal(*found)


def test_each_task_is_consolidated_once_after_it_was_learned():
    model, tasks, calls = small(), [blobs("a"), blobs("b", shift=1)], []

    class Spy(L2):
        def consolidate(self, inputs, targets):
            calls.append((inputs, targets, weights(self.model)))
            super().consolidate(inputs, targets)

    ends = {}

    def watch(place, step):
        ends[place] = weights(model)

    learn_in_sequence(model, tasks, penalty=Spy(model, 0.1), watch=watch, **QUICK)
    assert len(calls) == 2
    for place, (inputs, targets, at) in enumerate(calls):
        assert inputs is tasks[place].train_inputs
        assert targets is tasks[place].train_targets
        assert torch.equal(at, ends[place])


def test_ewc_keeps_the_first_task_where_plain_descent_forgets_it():
    # The second task asks about other inputs, with the classes turned round: there is room for both.
    tasks = [blobs("a", features=8), blobs("b", features=8, shift=4, seed=1)]
    kept = {}
    for strength in (0.0, 30.0):
        model = mlp((8,), inputs=8, classes=3)
        matrix, _ = learn_in_sequence(model, tasks, penalty=EWC(model, strength), **(QUICK | {"steps": 200}))
        kept[strength] = matrix.values[1, 0].item()
    assert kept[30.0] > kept[0.0] + 0.1


def test_no_task_is_refused():
    with pytest.raises(ValueError, match="tasks is empty"):
        learn_in_sequence(small(), [])


# ---- accuracy


def test_accuracy_is_the_share_of_right_answers():
    task = blobs(n=10)
    model = Function(lambda m, x: m.table[: len(x)], table=nn.Parameter(nn.functional.one_hot(task.test_targets, 3).float()))
    assert accuracy(model, task) == 1.0
    with torch.no_grad():
        model.table[:4] = -model.table[:4]
    assert accuracy(model, task) == pytest.approx(0.6)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 1000])
def test_accuracy_does_not_depend_on_the_batch_size(batch_size):
    model, task = small(), blobs()
    assert accuracy(model, task, batch_size=batch_size) == accuracy(model, task)


def test_accuracy_is_taken_in_eval_mode_and_leaves_every_mode_and_buffer():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 3)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert accuracy(model, blobs()) == accuracy(model, blobs())
    assert [part.training for part in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_accuracy_leaves_the_modes_after_an_error_too():
    model = nn.Sequential(nn.Linear(5, 3)).train()
    with pytest.raises(RuntimeError):
        accuracy(model, blobs())
    assert model.training
    assert model[0].training


ASKED = {
    "plain": lambda: mlp((8,), inputs=36, classes=3),
    "with outputs to choose": lambda: mlp((8, 5), inputs=36, classes=3, units=True),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3)),
    "a convolution": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)),
    "rows as examples": lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)),
    "another first layer": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("units", [None, (0, 2)])
def test_accuracy_on_moved_pixels_is_that_on_the_images_made(name, units):
    """Though for plain networks the weights are moved and not the images."""
    torch.manual_seed(5)
    base = blobs(n=300, features=36)
    base = replace(base, train_inputs=torch.randn(300, 1, 6, 6), test_inputs=torch.randn(300, 1, 6, 6), units=units)
    tasks, model = permuted(base, 3), ASKED[name]()
    for each in model.parameters():
        nn.init.normal_(each)
    before = weights(model)
    for task in [*tasks, joint(tasks)]:
        made = replace(base, test_inputs=task.test_inputs, test_targets=task.test_targets)
        assert accuracy(model, task) == accuracy(model, made)
    assert len({accuracy(model, task) for task in tasks}) > 1
    assert torch.equal(weights(model), before)


# ---- what is said


@pytest.fixture
def eager_bar(monkeypatch):
    """The progress bar without its delay of five seconds."""
    real = training.tqdm
    monkeypatch.setattr(training, "tqdm", lambda *a, **k: real(*a, **(k | {"delay": 0, "mininterval": 0})))


def test_without_a_terminal_nothing_is_said(eager_bar, monkeypatch, capfd):
    monkeypatch.delenv("EWC_TERMINAL", raising=False)
    fit(small(), blobs(), **QUICK)
    assert capfd.readouterr() == ("", "")


def test_the_bar_goes_to_the_terminal_that_the_build_names_with_its_label(eager_bar, monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("EWC_TERMINAL", str(tmp_path / "terminal"))
    learn_in_sequence(small(), [blobs()], label="plain, seed 0:", **QUICK)
    assert capfd.readouterr() == ("", "")
    assert "plain, seed 0: blobs" in (tmp_path / "terminal").read_text()


def test_a_short_training_shows_no_bar_even_on_a_terminal(monkeypatch, tmp_path):
    monkeypatch.setenv("EWC_TERMINAL", str(tmp_path / "terminal"))
    fit(small(), blobs(), **QUICK)
    assert (tmp_path / "terminal").read_text().strip() == ""


# ---- what batch normalisation cannot take


@pytest.mark.parametrize(("count", "sizes"), [(65, [64 + 1]), (66, [64, 2]), (64, [64]), (129, [64, 65])])
def test_one_example_left_over_joins_the_batch_before_it_where_batches_are_normalised(count, sizes):
    task, seen = blobs(n=count), []
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    assert len(task.train_targets) == count
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    fit(model, task, steps=2 * len(sizes), batch_size=64)
    assert seen == sizes * 2
    without, alone = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)), []
    without.register_forward_pre_hook(lambda _, inputs: alone.append(len(inputs[0])))
    fit(without, task, steps=-(-count // 64), batch_size=64)
    assert alone == [len(rows) for rows in torch.arange(count).split(64)]


def test_numpys_numbers_are_numbers():
    fit(small(), blobs(), steps=numpy.int64(2), batch_size=numpy.int64(16), learning_rate=numpy.float32(0.1), momentum=numpy.float32(0.5))
