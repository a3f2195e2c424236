"""Networks trained side by side end where each would have ended alone, and no one of them touches another."""

import copy
import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from ewc import (
    EWC,
    L2,
    Distillation,
    KroneckerEWC,
    MemoryAwareSynapses,
    Replay,
    SynapticIntelligence,
    fit,
    learn_in_sequence,
    learn_together,
    mlp,
    tasks,
)
from ewc.steps import Proximal
from ewc.together import _stacked, diverged, fit_together
from small_tasks import blobs
from torch import nn

QUICK = {"steps": 25, "batch_size": 16, "learning_rate": 0.05}
PENALTIES = {
    "none": lambda model: None,
    "ewc": lambda model: EWC(model, 3.0),
    "merged": lambda model: EWC(model, 10.0, anchors="merged"),
    "online": lambda model: EWC(model, 10.0, anchors="merged", decay=0.5),
    "l2": lambda model: L2(model, 0.3),
    "mas": lambda model: MemoryAwareSynapses(model, 0.5),
    "kronecker": lambda model: KroneckerEWC(model, 3.0),
    "replay": lambda model: Replay(model, 1.0, examples=5, batch_size=8),
    "distillation": lambda model: Distillation(model, 1.0),
    "si": lambda model: SynapticIntelligence(model, 0.5),
    "proximal": lambda model: Proximal(EWC(model, 30.0), 0.9),
    "proximal kronecker": lambda model: Proximal(KroneckerEWC(model, 30.0, factors="added"), 0.9),
}


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def small(seed=0, **options):
    return mlp((8,), **{"inputs": 4, "classes": 3, "seed": seed, **options})


def same(model, other):
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-4, atol=2e-5)


def prepared(names, first=None):
    """Models with a first task behind them, each with its penalty, twice."""
    first = first or blobs("first")
    pairs = []
    for seed, name in enumerate(names):
        model = small(seed)
        fit(model, first, seed=seed, **QUICK)
        twins = [model, copy.deepcopy(model)]
        guards = [PENALTIES[name](twin) for twin in twins]
        for guard in guards:
            if guard is not None:
                guard.consolidate(first.train_inputs, first.train_targets)
        pairs.append((twins, guards))
    alone = [(twins[0], guards[0]) for twins, guards in pairs]
    beside = [(twins[1], guards[1]) for twins, guards in pairs]
    return alone, beside


# ---- one task


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["warm-up", "linear", "constant"])
def test_a_stack_ends_where_its_models_end_alone(optimizer, schedule):
    names, second = ["none", "ewc", "l2", "merged", "replay"], [blobs(shift=s, seed=s) for s in (1, 2)]
    alone, beside = prepared(names)
    options = {
        **QUICK,
        "optimizer": optimizer,
        "schedule": schedule,
        "learning_rate": 0.05 if optimizer == "sgd" else 0.01,
    }
    now = [second[place % 2] for place in range(len(names))]
    for place, (model, guard) in enumerate(alone):
        fit(model, now[place], penalty=guard, seed=place + 3, **options)
    before = [weights(model) for model, _ in beside]
    fit_together(
        [model for model, _ in beside],
        now,
        penalties=[guard for _, guard in beside],
        seeds=[place + 3 for place in range(len(names))],
        **options,
    )
    for (model, _), (other, _), old in zip(alone, beside, before, strict=True):
        same(other, model)
        assert not torch.allclose(weights(other), old, atol=1e-2)  # they have learned something


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_does_beside_others_what_it_does_alone(name):
    second = blobs(shift=1)
    alone, beside = prepared([name, "none", name])
    for place, (model, guard) in enumerate(alone):
        fit(model, second, penalty=guard, seed=place, **QUICK)
    fit_together([m for m, _ in beside], [second] * 3, penalties=[g for _, g in beside], seeds=[0, 1, 2], **QUICK)
    for (model, _), (other, _) in zip(alone, beside, strict=True):
        same(other, model)


def test_a_penalty_beside_others_matters():
    _, beside = prepared(["none", "none", "l2"])
    (model, _), (unheld, _), (held, guard) = beside
    held.load_state_dict(unheld.state_dict())
    guard.consolidate()
    fit_together([model, unheld, held], [blobs(shift=1)] * 3, penalties=[None, None, guard], seeds=[0, 1, 1], **QUICK)
    assert not torch.allclose(weights(held), weights(unheld), atol=1e-2)


def test_a_stack_keeps_its_written_out_passes_beside_a_guard_that_watches_the_gradients():
    models = [small(0), small(1)]
    SynapticIntelligence(models[1])  # its hooks are on the models' own parameters, where no gradient of a stack passes by
    with _stacked(models) as stack:
        assert stack.passes is not None


def test_a_guard_that_watches_counts_the_same_path_in_a_stack_as_alone():
    alone, beside = prepared(["si", "none"])
    second = blobs(shift=1)
    for place, (model, guard) in enumerate(alone):
        fit(model, second, penalty=guard, seed=place, **QUICK)
    fit_together([model for model, _ in beside], [second] * 2, penalties=[guard for _, guard in beside], seeds=[0, 1], **QUICK)
    (_, single), (_, stacked) = alone[0], beside[0]
    found, wanted = (guard.state_dict() for guard in (stacked, single))
    for key in (key for key in wanted if key.startswith("walk/path/")):
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-3, atol=1e-5)


def test_one_model_is_a_stack_too():
    alone, beside = prepared(["ewc"])
    fit(alone[0][0], blobs(shift=1), penalty=alone[0][1], seed=5, **QUICK)
    fit_together([beside[0][0]], [blobs(shift=1)], penalties=[beside[0][1]], seeds=[5], **QUICK)
    same(beside[0][0], alone[0][0])


def test_the_seed_is_that_of_the_order_of_the_images():
    first, second, third = (small() for _ in range(3))
    fit_together([first, second, third], [blobs()] * 3, seeds=[0, 1, 0], **QUICK)
    same(third, first)
    assert not torch.allclose(weights(second), weights(first), atol=1e-3)


@pytest.mark.parametrize("scenario", tasks.SCENARIOS)
def test_tasks_with_outputs_of_their_own_learn_those_alone(scenario):
    parts = tasks.split(blobs(n=120, features=8, classes=6), 3, scenario=scenario)
    both = tasks.joint(parts)
    classes = 2 if scenario == "domain" else 6
    for now in ([parts[0], parts[2], parts[0]], [both] * 3):
        models = [small(seed, inputs=8, classes=classes, units=scenario == "task") for seed in range(3)]
        alone = copy.deepcopy(models)
        for seed, (model, task) in enumerate(zip(alone, now, strict=True)):
            fit(model, task, seed=seed, **QUICK)
        fit_together(models, now, seeds=[0, 1, 2], **QUICK)
        for model, other in zip(models, alone, strict=True):
            same(model, other)


def test_what_is_frozen_stays_and_the_rest_learns_as_alone():
    models = [small(seed) for seed in range(2)]
    for model in models:
        model.hidden1.requires_grad_(False)
    alone, before = copy.deepcopy(models), [model.hidden1.weight.clone() for model in models]
    for model in alone:
        fit(model, blobs(), **QUICK)
    fit_together(models, [blobs()] * 2, **QUICK)
    same(models[0], alone[0])
    assert torch.equal(models[0].hidden1.weight, before[0])


# ---- one that runs away


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("penalty", ["l2", "replay"])
def test_a_model_that_diverges_does_not_touch_its_neighbours(penalty):
    alone, beside = prepared(["ewc", penalty, "none"])
    beside[1][1].strength = 1e30
    for place in (0, 2):
        fit(alone[place][0], blobs(shift=1), penalty=alone[place][1], seed=place, **QUICK)
    fit_together(
        [m for m, _ in beside], [blobs(shift=1)] * 3, penalties=[g for _, g in beside], seeds=[0, 1, 2], **QUICK
    )
    assert [diverged(model) for model, _ in beside] == [False, True, False]
    for place in (0, 2):
        same(beside[place][0], alone[place][0])


@pytest.mark.filterwarnings("ignore:learning_rate")
def test_in_a_sequence_one_that_has_diverged_is_carried_along_and_the_others_learn_on():
    parts = [blobs(shift=shift) for shift in range(3)]
    models = [small(seed) for seed in range(2)]
    guards = [EWC(models[0], 3.0), EWC(models[1], 1e30)]  # the Fisher of one that has diverged is refused
    alone = small(0)
    wanted, _ = learn_in_sequence(alone, parts, penalty=EWC(alone, 3.0), seed=0, **QUICK)
    matrices, _ = learn_together(models, [parts, parts], penalties=guards, seeds=[0, 1], **QUICK)
    assert [diverged(model) for model in models] == [False, True]
    torch.testing.assert_close(matrices[0].values, wanted.values, atol=0.03, rtol=0)
    same(models[0], alone)
    assert len(matrices[1].values) == 3


def test_what_has_run_away_is_called_so_before_it_is_infinite():
    """Units that have died stop a network on its way, with weights that are finite still: nothing can be measured on it."""
    model = small()
    assert not diverged(model)
    with torch.no_grad():
        model.hidden1.weight[0, 0] = -1e7
    assert diverged(model)


# ---- what is given back


def test_models_are_given_back_whole():
    """The same parameter objects, with memory of their own and no gradient, ready to be trained, copied and saved alone."""
    models = [small(seed) for seed in range(3)]
    owned = [list(model.parameters()) for model in models]
    fit_together(models, [blobs()] * 3, **QUICK)
    for model, parameters in zip(models, owned, strict=True):
        assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
        for parameter in model.parameters():
            assert parameter.is_leaf and parameter.requires_grad and parameter.grad is None
            assert parameter.data.storage_offset() == 0
            assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
    others = [weights(model) for model in models[1:]]
    fit(models[0], blobs(shift=1), **QUICK)
    assert all(torch.equal(weights(model), old) for model, old in zip(models[1:], others, strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_models_are_given_back_also_when_training_is_interrupted(count):
    models = [small(seed) for seed in range(count)]

    def interrupt(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together(models, [blobs()] * count, watch=interrupt, **QUICK)
    for model in models:
        for parameter in model.parameters():
            assert parameter.grad is None
            assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()


def test_watch_sees_each_model_at_each_step():
    models, seen = [small(seed) for seed in range(2)], []
    fit_together(models, [blobs()] * 2, watch=lambda step: seen.append((step, weights(models[1]))), **QUICK)
    assert [step for step, _ in seen] == list(range(26))
    assert all(not torch.equal(a, b) for (_, a), (_, b) in itertools.pairwise(seen))
    assert torch.equal(seen[-1][1], weights(models[1]))


# ---- in sequence


@pytest.mark.parametrize(
    "names",
    [["none", "ewc", "merged"], ["online", "l2", "mas"], ["kronecker", "replay", "distillation"], ["si", "si", "none"]],
)
def test_learning_together_is_learning_in_sequence(names):
    sequences = [[blobs(shift=shift, seed=seed) for shift in range(3)] for seed in range(2)]
    sequences.append(sequences[0])
    models = [small(seed) for seed in range(3)]
    alone = copy.deepcopy(models)
    penalties = [PENALTIES[name](model) for name, model in zip(names, models, strict=True)]
    matrices, looks = learn_together(models, sequences, penalties=penalties, look=(0, 10, 25), seeds=[4, 5, 6], **QUICK)
    for place, name in enumerate(names):
        wanted, seen = learn_in_sequence(
            alone[place],
            sequences[place],
            penalty=PENALTIES[name](alone[place]),
            look=(0, 10, 25),
            seed=4 + place,
            **QUICK,
        )
        same(models[place], alone[place])
        torch.testing.assert_close(matrices[place].values, wanted.values, atol=0.03, rtol=0)
        assert [(look["task"], look["step"]) for look in looks[place]] == [
            (look["task"], look["step"]) for look in seen
        ]
        for look, other in zip(looks[place], seen, strict=True):
            assert look["accuracies"] == pytest.approx(other["accuracies"], abs=0.03)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_tasks_further_ahead_than_asked_for_are_not_tested(ahead):
    sequence = [blobs(shift=shift) for shift in range(4)]
    (whole,), _ = learn_together([small(0)], [sequence], **QUICK)
    (part,), _ = learn_together([small(0)], [sequence], ahead=ahead, **QUICK)
    far = torch.ones(4, 4).triu(ahead + 1).bool()
    assert part.values[far].isnan().all()
    assert torch.equal(part.values[~far], whole.values[~far])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_averages_are_carried_side_by_side_as_alone(optimizer, count):
    sequence = [blobs(shift=shift) for shift in range(3)]
    models = [small(seed) for seed in range(count)]
    alone, fresh = copy.deepcopy(models), copy.deepcopy(models)
    options = QUICK | {"optimizer": optimizer, "schedule": "constant"}
    learn_together(models, [sequence] * count, optimizer_state={}, **options)
    learn_together(fresh, [sequence] * count, **options)
    for model, other, new in zip(models, alone, fresh, strict=True):
        learn_in_sequence(other, sequence, optimizer_state={}, **options)
        same(model, other)
        assert (weights(new) - weights(other)).abs().max() > 1e-3


def test_of_a_permuted_task_the_images_alone_are_made_that_the_penalties_look_at(monkeypatch):
    flat = blobs()
    square = replace(flat, train_inputs=flat.train_inputs.reshape(-1, 1, 2, 2), test_inputs=flat.test_inputs.reshape(-1, 1, 2, 2))
    sequence = tasks.permuted(square, 3)
    alone = small()
    guard = EWC(alone, 3.0, max_examples=7)
    learn_in_sequence(alone, sequence, penalty=guard, seed=0, **QUICK)  # is given all, and takes seven

    def all_of_them(task):
        raise RuntimeError("all images were made")

    monkeypatch.setattr(tasks.Permuted, "train_inputs", property(all_of_them))
    models = [small(), small(1)]
    guards = [EWC(models[0], 3.0, max_examples=7), Proximal(EWC(models[1], 3.0, max_examples=7), 0.9)]
    learn_together(models, [sequence] * 2, penalties=guards, **QUICK)
    same(models[0], alone)
    for name, value in guards[0].state_dict().items():
        torch.testing.assert_close(value, guard.state_dict()[name], rtol=1e-3, atol=1e-5)
    for others in ([EWC(models[0], 3.0, max_examples=7), Replay(models[1], 1.0, examples=5, batch_size=8)], [EWC(models[0]), L2(models[1])]):
        with pytest.raises(RuntimeError, match="all images"):
            learn_together(models, [sequence] * 2, penalties=others, **QUICK)


def test_tests_may_be_others_than_what_is_learned():
    parts = [blobs(shift=shift) for shift in range(2)]
    both = [parts[0], tasks.joint(parts)]
    (matrix,), _ = learn_together([small()], [both], tests=[parts], **QUICK)
    (joined,), _ = learn_together([small()], [both], **QUICK)
    assert matrix.values[0, 0] == joined.values[0, 0]
    assert joined.values[1, 1] == pytest.approx(float(matrix.values[1].mean()))


# ---- what cannot be


def test_lists_of_other_lengths_are_refused():
    models = [small(), small(1)]
    for name, wrong in (
        ("tasks", {"tasks": [blobs()]}),
        ("penalties", {"penalties": [None]}),
        ("seeds", {"seeds": [0, 1, 2]}),
    ):
        given = {"tasks": [blobs()] * 2, **wrong}
        with pytest.raises(ValueError, match=f"{name} has {len(wrong[name])} entries for 2 models"):
            fit_together(models, given.pop("tasks"), **given, **QUICK)
    with pytest.raises(ValueError, match="0 models"):
        fit_together([], [], **QUICK)


def test_models_of_different_shapes_or_with_buffers_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        fit_together([small(), mlp((9,), inputs=4, classes=3)], [blobs()] * 2, **QUICK)
    batched = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) for _ in range(2)]
    with pytest.raises(ValueError, match="buffers"):
        fit_together(batched, [blobs()] * 2, **QUICK)
    frozen = small(1)
    frozen.hidden1.requires_grad_(False)
    with pytest.raises(ValueError, match="different shapes"):
        fit_together([small(), frozen], [blobs()] * 2, **QUICK)


def test_tasks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="different numbers of training images"):
        fit_together([small(), small(1)], [blobs(), blobs(n=30)], **QUICK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"schedule": "cosine"}, "schedule is 'cosine'"),
        ({"momentum": 1.0}, "momentum is 1.0"),
    ],
)
def test_what_fit_refuses_is_refused_and_the_models_are_as_before(wrong, message):
    models = [small(seed) for seed in range(2)]
    before = [weights(model) for model in models]
    with pytest.raises(ValueError, match=message):
        fit_together(models, [blobs()] * 2, **{**QUICK, **wrong})
    assert all(torch.equal(weights(model), old) for model, old in zip(models, before, strict=True))


def test_each_penalty_that_would_diverge_is_warned_of():
    _, beside = prepared(["l2", "l2", "none"])
    beside[1][1].strength = 1e4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_together([m for m, _ in beside], [blobs()] * 3, penalties=[g for _, g in beside], **{**QUICK, "steps": 1})
    assert len([w for w in caught if "diverge" in str(w.message)]) == 1


def test_images_that_are_made_when_asked_for_are_made_for_no_test(monkeypatch):
    base = blobs(features=784, classes=10, n=60)
    base = replace(base, **{k: getattr(base, k).view(-1, 1, 28, 28) for k in ("train_inputs", "test_inputs")})
    parts, made = tasks.permuted(base, 2, seed=0), []
    whole = tasks.Permuted._all
    monkeypatch.setattr(tasks.Permuted, "_all", lambda self, images: made.append(len(images)) or whole(self, images))
    models = [mlp((4,), seed=seed) for seed in range(3)]
    penalties = [EWC(model, 1.0) for model in models]
    learn_together(models, [parts] * 3, penalties=penalties, **QUICK)
    assert len(made) == 1  # the first task's images, to be remembered


@pytest.mark.parametrize("scenario", ["domain", "task", "mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_replay_shows_goes_the_way_of_the_written_passes_and_is_what_autograd_gives(scenario, optimizer, monkeypatch):
    """Of "mixed" the first task answers with two outputs and the second with all: there only autograd knows the loss."""
    lessons = tasks.split(blobs("four", classes=4), 2, scenario="task" if scenario == "mixed" else scenario)
    if scenario == "mixed":
        lessons[1] = replace(lessons[1], units=None)
    shown = []
    asked = Replay.shown

    def counted(guard):
        found = asked(guard)
        shown.append(found is not None)
        return found

    def weights(together, by_hand):
        with monkeypatch.context() as patch:
            patch.setattr(Replay, "shown", counted if by_hand else lambda guard: None)
            models = [mlp((7,), inputs=4, classes=4, units=scenario != "domain", seed=seed).double() for seed in (0, 1)]
            guards = [Replay(model, 0.7, examples=9, batch_size=5, seed=3) for model in models]
            for place, lesson in enumerate([*lessons, lessons[0]]):
                lesson = replace(lesson, train_inputs=lesson.train_inputs.double())
                if together:
                    fit_together(models, [lesson] * 2, penalties=guards, seeds=[place, place + 5], optimizer=optimizer, **QUICK)
                else:
                    for number, (model, guard) in enumerate(zip(models, guards, strict=True)):
                        fit(model, lesson, penalty=guard, seed=place + 5 * number, optimizer=optimizer, **QUICK)
                for guard in guards:
                    guard.consolidate(lesson.train_inputs, lesson.train_targets)
        return torch.cat([parameter.detach().flatten() for model in models for parameter in model.parameters()])

    for together in (False, True):
        wanted = weights(together, by_hand=False)
        shown.clear()
        torch.testing.assert_close(weights(together, by_hand=True), wanted, rtol=1e-9, atol=1e-10)
        # Of 25 steps the first after a task asks the model what it returns; before a task there is nothing to show.
        assert sum(shown) == 2 * 2 * 24 * (scenario != "mixed") + 2 * 24 * (scenario == "mixed")


class Doubled(Replay):
    def penalty(self):
        return 2 * super().penalty()


@pytest.mark.parametrize("together", [False, True])
def test_a_replay_whose_penalty_somebody_has_changed_is_asked_for_it(together):
    def weights(make):
        model = mlp((5,), inputs=4, seed=0).double()
        guard = make(model)
        for place in (0, 1):
            lesson = blobs("moved", shift=place)
            lesson = replace(lesson, train_inputs=lesson.train_inputs.double())
            if together:
                fit_together([model], [lesson], penalties=[guard], seeds=[place], **QUICK)
            else:
                fit(model, lesson, penalty=guard, seed=place, **QUICK)
            guard.consolidate(lesson.train_inputs, lesson.train_targets)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def changed(model):
        guard = Replay(model, 1.0, examples=9, batch_size=5)
        asked = guard.penalty
        guard.penalty = lambda: 2 * asked()
        return guard

    wanted = weights(lambda model: Replay(model, 2.0, examples=9, batch_size=5))
    for make in (lambda model: Doubled(model, 1.0, examples=9, batch_size=5), changed):
        torch.testing.assert_close(weights(make), wanted, rtol=1e-9, atol=1e-10)
