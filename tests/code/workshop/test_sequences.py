"""The experiments on sequences of tasks hand the right lessons to the right outputs."""

import numpy as np
import pytest
import torch
from ewc import models, tasks, together
from ewc.workshop import paper, sequences
from tiny_runs import images


@pytest.fixture
def base():
    return images("images", 0)


def test_split_images_get_their_border_and_scale_from_the_images_that_are_learned(base, monkeypatch):
    """Statistics over the held-out images would be a look at them."""
    seen = {}

    def learned(runs, sequences_, **options):
        seen["parts"] = sequences_[0]

    monkeypatch.setattr(sequences, "_learned", learned)
    run = dict(scenario="class", method="l2", groups=5, shuffled=False, padding=2, normalized=True, seen=False, tuning=True, seed=0)
    sequences._split([base], [run])
    wanted = tasks.split(tasks.normalized(tasks.padded(tasks.held_out(base), 2)), 5, scenario="class")
    for part, other in zip(seen["parts"], wanted, strict=True):
        assert torch.equal(part.train_inputs, other.train_inputs)
        assert torch.equal(part.test_inputs, other.test_inputs)


def test_outputs_of_classes_to_come_get_no_lesson(base):
    """Their biases stay where they were, and in tests they take part."""
    run = dict(scenario="class", method="l2", strength=0.0, hidden=(4,), steps=3, seen=True)
    configuration, seed = paper.complete(sequences.split_tasks, {**run, "seed": 0})
    found = {}

    def watched(models, learned, *, tests, **options):
        sizes = [len(task.units) for task in learned[0]]
        for place in range(2):
            together.fit_together(models, [learned[0][place]], steps=3)
        found.update(sizes=sizes, tests=[task.units for task in tests[0]], bias=models[0].logits.bias.detach().clone())
        return real(models, learned, tests=tests, **options)

    real = sequences.learn_together
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "learn_together", watched)
        sequences.split_tasks([base], seed=seed, **configuration)
    first = models.mlp((4,), seed=0).logits.bias
    assert found["sizes"] == [2, 4, 6, 8, 10]
    assert found["tests"] == [None] * 5
    assert torch.equal(found["bias"][4:], first[4:])
    assert not torch.isclose(found["bias"][:4], first[:4]).any()
    for wrong in ({"scenario": "domain"}, {"method": "replay"}, {"method": "joint"}):
        with pytest.raises(ValueError, match="seen is True; it needs scenario 'class'"):
            sequences.split_tasks([base], seed=seed, **{**configuration, **wrong})


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_shuffled_classes_are_dealt_as_the_printed_code_deals_them(base, scenario, monkeypatch):
    """It gives class y the number p[y], p drawn by the seed, and puts the numbers 0 and 1 into the first task, and so on."""
    found = {}
    monkeypatch.setattr(sequences, "_learned", lambda runs, tested, *, lessons, **options: found.update(tested=tested, lessons=lessons))
    shared = dict(scenario=scenario, method="l2", groups=5, shuffled=True, padding=0, normalized=False, seen=scenario == "class", tuning=False)
    sequences._split([base], [{**shared, "seed": seed} for seed in (1, 2)])
    for seed, tested, lessons in zip((1, 2), found["tested"], found["lessons"], strict=True):
        p, known = np.random.RandomState(seed).permutation(list(range(10))), set()
        for place, (task, lesson) in enumerate(zip(tested, lessons, strict=True)):
            own = [(p[y] == 2 * place) | (p[y] == 2 * place + 1) for y in base.train_targets.tolist()]
            numbers = torch.tensor([p[y] - 2 * place for y in base.train_targets.tolist()])[own]
            assert torch.equal(task.train_inputs, base.train_inputs[own])
            assert torch.equal(task.train_targets, numbers if scenario == "domain" else base.train_targets[own])
            known |= set(base.train_targets[own].tolist())
            if scenario == "class":
                assert lesson.units == tuple(sorted(known))
                assert [lesson.units[place] for place in lesson.train_targets] == task.train_targets.tolist()


def test_a_teachers_weight_grows_with_the_tasks_that_it_speaks_for(base, monkeypatch):
    seen, real = [], sequences.Distillation.penalty
    monkeypatch.setattr(sequences.Distillation, "penalty", lambda self, inputs: seen.append(self.strength) or real(self, inputs))
    run = dict(method="lwf", strength=0.5, count=4, hidden=(4,), steps=2)
    for growing, wanted in ((True, [0.5, 0.5, 1.0, 1.5]), (False, [0.5] * 4)):
        seen.clear()
        configuration, seed = paper.complete(sequences.permuted_tasks, {**run, "growing": growing})
        sequences.permuted_tasks([base], seed=seed, **configuration)
        assert seen == [strength for strength in wanted for _ in range(2)]
    with pytest.raises(ValueError, match="growing is True; it needs method 'lwf', not 'ewc'"):
        sequences.permuted_tasks([base], seed=seed, **{**configuration, "growing": True, "method": "ewc"})


def test_a_teacher_beside_whose_classes_new_ones_stand_weighs_as_in_the_printed_code(base, monkeypatch):
    """There the loss of task t has the weight 1/t and the teacher's, a mean over the 2t outputs, 1 − 1/t: (t − 1) / 2t beside 1."""
    seen, real = [], sequences.Distillation.penalty
    monkeypatch.setattr(sequences.Distillation, "penalty", lambda self, x: seen.append((self.strength, self.new)) or real(self, x))
    run = dict(scenario="class", method="lwf", strength=1.0, hidden=(4,), steps=1, seen=True, growing=True, rivals=True)
    configuration, seed = paper.complete(sequences.split_tasks, run)
    sequences.split_tasks([base], seed=seed, **configuration)
    assert seen[1:] == [(pytest.approx((t - 1) / (2 * t)), "rivals") for t in (2, 3, 4, 5)]
    for missing in ({"method": "ewc", "growing": False}, {"seen": False}, {"growing": False}):
        with pytest.raises(ValueError, match="rivals is True; it needs method 'lwf', seen and growing"):
            sequences.split_tasks([base], seed=seed, **{**configuration, **missing})


@pytest.mark.parametrize("experiment", [sequences.permuted_tasks, sequences.split_tasks])
def test_a_search_is_tested_at_its_end_and_a_run_between_as_it_asks(experiment, base):
    run = {"scenario": "class"} if experiment is sequences.split_tasks else {"count": 5, "batch_size": 20}
    small, known = {**run, "method": "l2", "strength": 1.0, "hidden": (4,), "steps": 2}, {}
    ahead = {} if experiment is sequences.split_tasks else {"forward": True}        # there it is always so
    for asked in ({"tuning": True}, {"between": "nothing"}, {"between": "own"}, {}):
        configuration, seed = paper.complete(experiment, {**small, **ahead, **asked})
        result, _ = experiment([base], seed=seed, **configuration)
        known[str(asked)] = ~torch.tensor(result["matrix"]).isnan()
        assert len(result.get("untrained", ())) == (0 if asked == {"tuning": True} else 5)
    searched, end, own, every = known.values()
    last = torch.zeros(5, 5, dtype=torch.bool).index_fill_(0, torch.tensor(4), True)
    assert torch.equal(searched, last) and torch.equal(end, last)
    assert torch.equal(own, last | torch.ones(5, 5).triu().tril(1).bool())
    assert torch.equal(every, torch.ones(5, 5).tril(1).bool())
    if ahead:       # forward transfer asks for what lies ahead, nothing else does
        configuration, seed = paper.complete(experiment, small)
        result, _ = experiment([base], seed=seed, **configuration)
        assert torch.equal(~torch.tensor(result["matrix"]).isnan(), torch.ones(5, 5).tril().bool()) and "untrained" not in result
