"""Dark experience replay, held to its formula by a loop in float64. What it shares with all methods is in test_methods."""

import pytest
import torch
from ewc import DarkReplay, Distillation, Replay, mlp
from ewc.checks import OPTIONS
from test_penalties import data, move, network, nudge
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")


def test_the_mean_over_many_draws_is_the_sum_over_tasks_of_the_mean_squared_distance():
    guard = DarkReplay(network(), 0.7, examples=6, batch_size=60_000)
    wanted, parts = 0.0, []
    for task in range(2):
        move(guard.model, task)
        guard.consolidate(data(task))
        parts.append([(x, guard.model(x[None])[0].detach()) for x in data(task)])
    move(guard.model, 5)
    for part in parts:
        wanted += 0.7 * sum(((guard.model(x[None])[0].detach() - z) ** 2).sum() for x, z in part) / len(part)
    assert guard.penalty().item() == pytest.approx(float(wanted), rel=0.02)


def test_the_logits_are_those_of_eval_mode_when_the_task_was_learned_and_the_mode_is_kept():
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    guard = DarkReplay(model, examples=6)
    guard.consolidate(data(0))
    assert model.training and model[1].training
    model.eval()
    inputs, logits = guard.memory
    torch.testing.assert_close(logits, model(inputs).detach())
    assert not logits.requires_grad


def test_examples_are_drawn_without_repetition_and_each_goes_with_its_own_logits():
    guard = DarkReplay(network(), examples=4)
    guard.consolidate(data(0))
    inputs, logits = guard.memory
    assert len({tuple(row.tolist()) for row in inputs}) == 4
    assert {tuple(row.tolist()) for row in inputs} < {tuple(row.tolist()) for row in data(0)}
    torch.testing.assert_close(logits, guard.model(inputs).detach())


def test_all_outputs_take_part_whichever_the_model_is_limited_to():
    model = mlp((5,), inputs=4, classes=6, units=True).double()
    model.units.chosen = (0, 1)
    guard = DarkReplay(model, examples=6)
    guard.consolidate(data(0))
    assert guard.memory[1].shape == (6, 6)
    with torch.no_grad():
        model.logits.bias[5] += 2.0
    assert guard.penalty().item() == pytest.approx(4.0)
    assert model.units.chosen == (0, 1)


def test_the_memory_goes_where_the_model_goes():
    model = network()
    guard = DarkReplay(model, examples=6)
    guard.consolidate(data(0))
    model.float()
    assert guard.penalty().dtype == torch.float32
    guard.consolidate(data(1).float())
    assert [part.dtype for part in guard.memory] == [torch.float32] * 2
    assert len(guard.memory[0]) == 12


def test_a_second_call_with_the_same_weights_is_refused_and_changes_nothing():
    guard = DarkReplay(network(), examples=3)
    guard.consolidate(data(0))
    twin = DarkReplay(guard.model, examples=3)
    twin.load_state_dict(guard.state_dict())
    for each in (guard, guard, twin):
        before = each.state_dict()
        with pytest.raises(ValueError, match=r"weights of the last call unchanged.*all examples of a task in one call"):
            each.consolidate(data(1))
        assert all(torch.equal(value, before[name]) for name, value in each.state_dict().items())
    nudge(guard.model)
    guard.consolidate(data(1))
    with pytest.raises(ValueError, match="unchanged"):
        guard.consolidate(data(0))
    assert len(guard.memory[0]) == 6


def test_a_state_comes_to_where_the_model_is():
    guard = DarkReplay(network(), examples=6)
    guard.consolidate(data(0))
    there = DarkReplay(network().to("meta"), examples=6)
    there.load_state_dict(guard.state_dict())
    assert all(kept.is_meta for kept in there.memory)


def test_a_state_goes_on_as_the_original_would():
    guard, twin = (DarkReplay(network(), examples=3) for _ in range(2))
    guard.consolidate(data(0))
    twin.load_state_dict(guard.state_dict())
    move(guard.model, 1)
    move(twin.model, 1)
    assert [twin.penalty().item() for _ in range(3)] == [guard.penalty().item() for _ in range(3)]
    twin.load_state_dict(DarkReplay(network()).state_dict())
    assert twin.memory is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("logits"), "inputs and logits together"),
        (lambda state: state.pop("generator"), "must have the generator"),
        (lambda state: state.update(logits=state["logits"][:2]), "examples = 3 of each task"),
        (lambda state: state.update(logits=state["logits"][:, 0]), "examples = 3 of each task"),
        (lambda state: state.update(logits=torch.zeros(3, 3, dtype=torch.long)), "examples = 3 of each task"),
        (lambda state: state.update(generator=torch.zeros(3)), "a generator that is none"),
    ],
)
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(change, words):
    guard = DarkReplay(network(), examples=3)
    guard.consolidate(data(0))
    state, kept = guard.state_dict(), guard.memory[1].clone()
    change(state)
    with pytest.raises(ValueError, match=words):
        guard.load_state_dict(state)
    assert torch.equal(guard.memory[1], kept)


def test_replay_does_not_take_logits_for_targets():
    guard = DarkReplay(network(), examples=3)
    guard.consolidate(data(0))
    state = guard.state_dict()
    with pytest.raises(ValueError, match="kept by DarkReplay, and this is Replay"):
        Replay(network(), examples=3).load_state_dict(state)
    del state[OPTIONS]
    with pytest.raises(ValueError, match="inputs and targets together"):
        Replay(network(), examples=3).load_state_dict(state)


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match=r"inputs has 6 examples; it must have at least examples = 7"):
        DarkReplay(network(), examples=7).consolidate(data(0))
    with pytest.raises(TypeError, match="inputs is list"):
        DarkReplay(network(), examples=1).consolidate([1.0])
    with pytest.raises(ValueError, match="must return logits"):
        DarkReplay(nn.Flatten(0), examples=2).consolidate(data(0))


def test_an_example_or_outputs_of_another_shape_are_refused_by_both_shapes():
    guard = DarkReplay(network(), examples=3)
    guard.consolidate(data(0))
    kept = guard.memory[0].clone()
    guard.model[2] = nn.Linear(5, 4)
    with pytest.raises(ValueError, match=r"logits of shape \(4,\); those that were kept are \(3,\)"):
        guard.penalty()
    with pytest.raises(ValueError, match=r"logits of an example are of shape \(4,\); those of earlier tasks are \(3,\)"):
        guard.consolidate(data(1))
    guard.model[0] = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(ValueError, match=r"inputs of an example are of shape \(2, 2\); those of earlier tasks are \(4,\)"):
        guard.consolidate(data(1).view(6, 2, 2))
    assert torch.equal(guard.memory[0], kept)


def test_probabilities_are_no_logits():
    model = nn.Sequential(network(), nn.Softmax(1))
    with pytest.raises(ValueError, match="probabilities"):
        DarkReplay(model, examples=3).consolidate(data(0))
    replay, teacher = Replay(model, examples=3), Distillation(model)
    replay.consolidate(data(0), torch.zeros(6, dtype=torch.long))
    teacher.consolidate()
    for penalty in (replay.penalty, lambda: teacher.penalty(data(0))):
        with pytest.raises(ValueError, match="probabilities"):
            penalty()
        with pytest.raises(ValueError, match="probabilities"):
            penalty()
