"""Tasks learned in turn side by side: what is tested between them, and a first task that is learned once for all who learn it alike."""

import copy

import pytest
import torch
from ewc import DarkReplay, OrthogonalWeights, SynapticIntelligence, in_turn, learn_together, mlp, split, tasks
from small_tasks import blobs
from test_together import PENALTIES, QUICK, same, small

ALL = PENALTIES | {"dark replay": lambda model: DarkReplay(model, 1.0, examples=5, batch_size=8), "orthogonal": OrthogonalWeights}


@pytest.mark.parametrize("between", ["own", "nothing"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_between_the_tasks_no_more_is_tested_than_was_asked_for(between, ahead, monkeypatch):
    sequence = [blobs(shift=shift) for shift in range(4)]
    (whole,), _ = learn_together([small(0)], [sequence], **QUICK)
    tested, real = [], in_turn.accuracy
    monkeypatch.setattr(in_turn, "accuracy", lambda model, task: tested.append(task) or real(model, task))
    (part,), _ = learn_together([small(0)], [sequence], between=between, ahead=ahead, **QUICK)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[-1] = True
    if between == "own":
        known |= torch.eye(4).bool() | torch.ones(4, 4).triu().tril(ahead).bool()
    assert torch.equal(part.values.isnan(), ~known) and len(tested) == known.sum()
    assert torch.equal(part.values[known], whole.values[known])


def test_what_is_to_be_tested_between_is_one_of_three_words():
    with pytest.raises(ValueError, match="between is 'some'; it may be one of 'all', 'own', 'nothing'"):
        learn_together([small()], [[blobs()]], between="some", **QUICK)


def learned(names, sequences, seeds, **options):
    """The models, their matrices and looks, and how many models learned each of the tasks."""
    models = [small(seed) for seed in seeds]
    penalties = [ALL[name](model) for name, model in zip(names, models, strict=True)]
    counted, real = [], in_turn.fit_together

    def watched(models, *arguments, **named):
        counted.append(len(models))
        return real(models, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_turn, "fit_together", watched)
        matrices, looks = learn_together(models, sequences, penalties=penalties, seeds=seeds, look=(0, 10, 25), **QUICK, **options)
    return models, penalties, matrices, looks, counted


@pytest.mark.parametrize("name", ALL)
def test_a_first_task_that_is_learned_once_is_as_if_each_had_learned_it(name):
    parts = [blobs(shift=shift) for shift in range(3)]
    names, seeds = ["none", name, "ewc", name], [0, 0, 0, 1]
    *alone, apart = learned(names, [parts] * 4, seeds)
    *beside, once = learned(names, [parts] * 4, seeds, idle_at_first=True)
    assert apart == [4, 4, 4]
    assert once == [2, 4, 4]  # one of each seed
    for model, other in zip(alone[0], beside[0], strict=True):
        same(model, other)
    for guard, other in zip(alone[1], beside[1], strict=True):
        state, its = (getattr(each, "state_dict", dict)() for each in (guard, other))
        assert state.keys() == its.keys()
        for key, value in state.items():
            torch.testing.assert_close(its[key], value, rtol=1e-3, atol=1e-5)
    for matrix, other in zip(alone[2], beside[2], strict=True):
        torch.testing.assert_close(matrix.values, other.values, atol=0.03, rtol=0)
    for looks, others in zip(alone[3], beside[3], strict=True):
        assert [{**look, "accuracies": pytest.approx(look["accuracies"], abs=0.03)} for look in looks] == others


def test_a_guard_that_watches_learns_and_others_stand_behind_it():
    parts = [blobs(shift=shift) for shift in range(2)]
    models, guards, *_, counted = learned(["ewc", "si", "l2", "si"], [parts] * 4, [0] * 4, idle_at_first=True)
    assert counted == [2, 4]
    assert all(guards[place].largest_curvature() > 0 for place in (1, 3))
    fresh = small(0)
    guard = SynapticIntelligence(fresh, 0.5)
    learn_together([fresh], [parts], penalties=[guard], seeds=[0], **QUICK)
    for key, value in guard.state_dict().items():
        torch.testing.assert_close(guards[1].state_dict()[key], value)
    same(fresh, models[3])


def test_who_has_other_weights_tasks_or_frozen_layers_learns_for_itself():
    parts, others = ([blobs(shift=shift, seed=seed) for shift in range(2)] for seed in (0, 1))
    assert learned(["none"] * 3, [parts, others, parts], [0, 0, 0], idle_at_first=True)[-1] == [2, 3]
    models = [small(0) for _ in range(3)]
    with torch.no_grad():
        next(models[1].parameters())[0, 0] += 1e-6
    next(models[2].parameters()).requires_grad_(False)
    assert in_turn._stand_ins(models, [parts[0]] * 3, [None] * 3, [0] * 3) == [0, 1, 2]


def test_running_averages_that_go_on_are_each_models_own():
    parts = [blobs(shift=shift) for shift in range(2)]
    options = {"optimizer": "adam", "schedule": "constant", "optimizer_state": {}}
    assert learned(["none", "ewc"], [parts] * 2, [0, 0], idle_at_first=True, **options)[-1] == [2, 2]


def test_a_guard_reads_the_outputs_of_the_task_that_another_learned_in_its_stead():
    base = blobs(classes=4, n=80)
    parts = split(base, 2, scenario="task")
    models = [mlp((5,), inputs=4, classes=4, units=True) for _ in range(2)]
    alone = copy.deepcopy(models)
    for group, idle in ((models, True), (alone, False)):
        guards = [PENALTIES["distillation"](model) for model in group]
        learn_together(group, [parts] * 2, penalties=guards, idle_at_first=idle, **QUICK)
    for model, other in zip(models, alone, strict=True):
        same(model, other)


def test_a_penalty_that_is_not_idle_is_refused():
    class Decay:
        def __init__(self, model):
            self.model, self.strength = model, 1.0

        def penalty(self):
            return sum(parameter.square().sum() for parameter in self.model.parameters())

        def consolidate(self, inputs, targets):
            pass

    models = [small() for _ in range(2)]
    with pytest.raises(ValueError, match="idle_at_first is True; Decay has a penalty that depends on the weights"):
        learn_together(models, [[blobs(), blobs(shift=1)]] * 2, penalties=[None, Decay(models[1])], idle_at_first=True, **QUICK)


def test_joint_tasks_are_learned_once_too():
    parts = [blobs(shift=shift) for shift in range(2)]
    both = [parts[0], tasks.joint(parts)]
    assert learned(["none"] * 2, [both] * 2, [0, 0], idle_at_first=True)[-1] == [1, 2]
