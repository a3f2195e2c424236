"""Learning without forgetting, held to its formula by a loop in float64; and heads, which replay knows as well."""

import copy
import math

import pytest
import torch
from by_hand import Function
from ewc import Distillation, Replay, mlp
from ewc.checks import OPTIONS
from test_penalties import data, move, network
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

pytestmark = pytest.mark.usefixtures("float64")


def divergence(teacher, student, temperature):
    """Σ_c p log p/q for one example, p and q from logits at a temperature."""
    p, q = ((logits / temperature).exp() / (logits / temperature).exp().sum() for logits in (teacher, student))
    return (p * (p / q).log()).sum()


def by_hand(teacher, model, inputs, strength, temperature, heads):
    total = 0.0
    for x in inputs:
        for head in heads:
            wanted, found = teacher(x[None])[0, list(head)], model(x[None])[0, list(head)]
            total += temperature**2 * divergence(wanted, found, temperature) / len(inputs)
    return strength * total


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_value_is_the_divergence_of_the_softened_outputs_from_the_teachers(temperature):
    guard = Distillation(network(), 1.7, temperature=temperature)
    move(guard.model, 1)
    guard.consolidate()
    teacher = copy.deepcopy(guard.model)
    move(guard.model, 2)
    wanted = by_hand(teacher, guard.model, data(5), 1.7, temperature, [(0, 1, 2)])
    torch.testing.assert_close(guard.penalty(data(5)), wanted, rtol=1e-10, atol=0)


def test_gradient_is_that_of_the_cross_entropy_with_the_teachers_probabilities():
    guard = Distillation(network(), 1.7, temperature=3.0)
    guard.consolidate()
    p = (guard.model(data(5)).detach() / 3).softmax(1)
    move(guard.model, 2)
    parameters = list(guard.model.parameters())
    wanted = torch.autograd.grad(1.7 * 9 * cross_entropy(guard.model(data(5)) / 3, p), parameters)
    for one, other in zip(torch.autograd.grad(guard.penalty(data(5)), parameters), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


def test_the_teacher_is_the_model_after_the_latest_task_in_eval_mode_and_never_learns():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    guard = Distillation(model)
    for task in range(2):
        move(model, task)
        guard.consolidate()
    kept = {name: value.clone() for name, value in guard.state_dict().items()}
    model.eval()
    assert guard.penalty(data(0)).item() == pytest.approx(0, abs=1e-15)  # without dropout it says what it said
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        optimizer.zero_grad()
        guard.penalty(data(step)).backward()
        optimizer.step()
    assert all(torch.equal(value, kept[name]) for name, value in guard.state_dict().items())
    assert len(list(model.parameters())) == 6


@pytest.mark.parametrize(("old", "chosen"), [((0, 1), (0, 1, 2)), ((2, 0), (0, 1, 2, 3)), ((0, 1), None), (None, None)])
def test_new_outputs_may_be_rivals_of_the_old_ones(old, chosen):
    """The divergence of two distributions over all classes in question, the teacher's being 0 on the new ones; by definition."""
    model = mlp((4,), inputs=4, classes=4, units=True)
    guard = Distillation(model, 1.7, temperature=2.0, new="rivals")
    model.units.chosen = old
    guard.consolidate()
    teacher = copy.deepcopy(model)
    teacher.units.chosen = None
    move(model, 1)
    model.units.chosen = chosen
    found = guard.penalty(data(5))
    model.units.chosen = None
    all_units, total = range(4), 0.0
    for x in data(5):
        wanted, said = teacher(x[None])[0] / 2, model(x[None])[0] / 2
        p = {unit: wanted[unit].exp() / sum(wanted[each].exp() for each in old or all_units) for unit in old or all_units}
        q = {unit: said[unit].exp() / sum(said[each].exp() for each in chosen or all_units) for unit in p}
        total = total + 1.7 * 4 * sum(p[unit] * (p[unit] / q[unit]).log() for unit in p) / len(data(5))
    torch.testing.assert_close(found, total, rtol=1e-10, atol=0)
    free = Distillation(model, 1.7, temperature=2.0)
    free.load_state_dict(guard.state_dict())
    if chosen is None and old is None:
        torch.testing.assert_close(free.penalty(data(5)), found)
    else:
        assert free.penalty(data(5)) < found      # the rivals have a share that the teacher gives nothing


def test_outputs_that_the_model_has_got_since_may_be_rivals_too():
    guard = Distillation(network(), new="rivals")
    guard.consolidate()
    last = guard.model[-1]
    wider = nn.Linear(last.in_features, last.out_features + 2)
    with torch.no_grad():
        wider.weight[:3], wider.bias[:3] = last.weight, last.bias
    guard.model[-1] = wider
    given = (guard.model(data(5)).detach() / 2).softmax(1)[:, 3:].sum(1)
    torch.testing.assert_close(guard.penalty(data(5)), -4 * (1 - given).log().mean())


def test_rivals_hold_the_old_units_and_are_the_same_for_every_example():
    model = mlp((4,), inputs=4, classes=4, units=True)
    guard = Distillation(model, new="rivals")
    model.units.chosen = (0, 1)
    guard.consolidate()
    for chosen in ((1, 2), torch.zeros(5, 2, dtype=torch.long)):
        model.units.chosen = chosen
        with pytest.raises(ValueError, match=r"with new='rivals' it must hold the units of the old tasks, \[0, 1\], for all examples alike"):
            guard.penalty(data(5))
    with pytest.raises(ValueError, match="new is 'none'; it may be 'free' or 'rivals'"):
        Distillation(model, new="none")


def test_it_asks_for_the_images_of_the_step():
    assert Distillation.needs_inputs is True


def test_the_mean_over_a_batch_does_not_depend_on_how_it_is_cut():
    guard = Distillation(network())
    guard.consolidate()
    move(guard.model, 1)
    halves = [guard.penalty(half) for half in data(0).split(3)]
    torch.testing.assert_close(guard.penalty(data(0)), sum(halves) / 2)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "2", None])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature is .*; it must be a finite number above 0"):
        Distillation(network(), temperature=temperature)


# ---- heads


def headed(classes=6):
    return mlp((5,), inputs=4, classes=classes, units=True).double()


HEADS = {
    "a head a task": ([(0, 1), (2, 3)], [(0, 1), (2, 3)]),
    "the same head": ([(0, 1), (0, 1)], [(0, 1)]),
    "all outputs": ([None, None], [range(6)]),
    "growing": ([(0, 1), (0, 1, 2, 3)], [(0, 1, 2, 3)]),
    "all at last": ([(0, 1), (4, 5), None], [range(6)]),
    "in another order": ([(0, 3), (3, 0)], [(0, 3)]),
    "all at first": ([None, (2, 3)], [range(6)]),
}


@pytest.mark.parametrize("case", HEADS)
def test_every_old_head_is_distilled_over_its_own_units(case):
    seen, heads = HEADS[case]
    model = headed()
    guard = Distillation(model, 0.8)
    for task, chosen in enumerate(seen):
        model.units.chosen = chosen
        move(model, task)
        guard.consolidate(data(task))
    teacher = copy.deepcopy(model)
    move(model, 9)
    model.units.chosen = (4, 5)  # the task at hand
    found = guard.penalty(data(5))
    assert model.units.chosen == (4, 5)
    model.units.chosen = teacher.units.chosen = None
    torch.testing.assert_close(found, by_hand(teacher, model, data(5), 0.8, 2.0, heads), rtol=1e-10, atol=0)


def test_heads_come_back_from_a_state():
    model = headed()
    guard = Distillation(model)
    for chosen in ((0, 1), (2, 3)):
        model.units.chosen = chosen
        guard.consolidate()
    twin = Distillation(model)
    twin.load_state_dict(guard.state_dict())
    move(model, 1)
    assert twin.penalty(data(0)).item() == guard.penalty(data(0)).item() > 0


def test_units_that_differ_from_example_to_example_are_no_head():
    model = headed()
    model.units.chosen = torch.zeros(6, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="a head has one tuple for all"):
        Distillation(model).consolidate(data(0))


def test_a_part_called_units_that_chooses_nothing_is_left_alone():
    model = nn.Sequential()
    model.add_module("units", nn.Linear(4, 3))
    for guard in (Distillation(model), Replay(model, examples=3)):
        guard.consolidate(data(0), torch.arange(6) % 3)
    assert guard.units is None


# ---- what is no classifier, and what has changed since


class Keeps(nn.Linear):
    def forward(self, x):
        self.features = super().forward(x)
        self.more = {"list": [self.features, (self.features * 2,)]}
        return self.features


@pytest.mark.parametrize("make", [lambda: Keeps(4, 3), lambda: prune.identity(nn.Linear(4, 3), "weight")])
def test_a_model_that_keeps_what_it_found_can_teach(make):
    model = make()
    wanted = model(data(0)).detach()
    guard = Distillation(model)
    guard.consolidate()
    assert torch.equal(guard._teacher(data(0)), wanted)
    if isinstance(model, Keeps):
        kept = guard._teacher.more["list"][0]
        assert not kept.requires_grad
        assert model.features.requires_grad
    move(model, 1)
    guard.penalty(data(0)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


OUTPUTS = {
    "a label for each token": lambda m, x: m.a(x)[:, None].expand(-1, 3, -1),
    "one output": lambda m, x: m.a(x)[:, :1],
    "no class axis": lambda m, x: m.a(x)[:, 0],
    "two outputs": lambda m, x: (m.a(x), x),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_returns_no_row_of_classes_is_refused(kind):
    model = Function(OUTPUTS[kind], a=nn.Linear(4, 3))
    guard, memory = Distillation(model), Replay(model, examples=6)
    guard.consolidate()
    memory.consolidate(data(0), torch.arange(6) % 3)
    with pytest.raises(ValueError, match=r"model returns .*logits \(N, C\).*two classes or more") as refusal:
        memory.penalty()
    if kind != "two outputs":
        with pytest.raises(ValueError, match=r"the teacher returns .*logits \(N, C\).*two classes or more"):
            guard.penalty(data(0))
        assert str(tuple(model(data(0)).shape))[2:] in str(refusal.value)


def test_a_head_of_one_unit_is_refused():
    model = headed()
    model.units.chosen = (3,)
    with pytest.raises(ValueError, match=r"chosen is \(3,\); a head must have two units or more"):
        Distillation(model).consolidate()


def test_outputs_that_are_new_are_free_and_outputs_that_are_gone_are_refused():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    guard = Distillation(model)
    guard.consolidate()
    old = model[2]
    model[2] = nn.Linear(5, 5)
    with torch.no_grad():
        model[2].weight[:3], model[2].bias[:3] = old.weight, old.bias
    assert guard.penalty(data(0)).item() == pytest.approx(0, abs=1e-15)
    guard.penalty(data(0)).backward()
    assert (model[2].weight.grad[3:] == 0).all()
    model[2] = nn.Linear(5, 2)
    with pytest.raises(ValueError, match=r"model returns logits \(6, 2\) and the teacher \(6, 3\)"):
        guard.penalty(data(0))


def test_teacher_and_memory_go_where_the_model_goes():
    model = network()
    guard, memory = Distillation(model), Replay(model, examples=6, batch_size=50)
    guard.consolidate()
    memory.consolidate(data(0), torch.arange(6) % 3)
    before = memory.penalty().item()
    move(model, 1)
    wanted = guard.penalty(data(0)).item()
    model.float()
    assert guard.penalty(data(0).float()).item() == pytest.approx(wanted, rel=1e-4)
    assert memory.penalty().dtype == torch.float32
    assert before > 0
    model.to("meta")
    for value in (guard.penalty(data(0).float().to("meta")), memory.penalty()):
        assert value.device.type == "meta"


def test_consolidated_again_with_the_same_weights_it_is_what_it_was():
    guard = Distillation(network(), 2.0)
    guard.consolidate()
    state = guard.state_dict()
    guard.consolidate()
    assert guard.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in guard.state_dict().items())
    move(guard.model, 1)
    once = Distillation(guard.model, 2.0)
    once.load_state_dict(state)
    assert guard.penalty(data(0)).item() == once.penalty(data(0)).item() > 0


def test_a_wrapped_model_is_asked_by_its_heads():
    model = headed()
    plain, wrapped = Distillation(model), Distillation(nn.DataParallel(model))
    model.units.chosen = (0, 1)
    for guard in (plain, wrapped):
        guard.consolidate()
    memory = Replay(nn.DataParallel(model), examples=4)
    memory.consolidate(data(0), torch.arange(6) % 2)
    assert memory.units is not None
    move(model, 1)
    model.units.chosen = (2, 3)
    assert wrapped.penalty(data(0)).item() == pytest.approx(plain.penalty(data(0)).item(), rel=1e-12)
    assert memory.penalty().isfinite()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head/0": torch.tensor([1.0, 2.0])}, "head/0"),
        ({"head/0": torch.tensor([1])}, "two or more units"),
        ({"head/0": torch.tensor([-1, 2])}, "two or more units"),
        ({"teacher/0.weight": torch.zeros(5, 3)}, "another model"),
        ({"teacher/9.weight": torch.zeros(5, 3)}, "another model"),
        ({"teacher/0.weight": torch.zeros(5, 4, dtype=torch.long)}, "teacher/0.weight"),
        ({"weight": torch.zeros(5, 4)}, "'weight'"),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(changes, words):
    guard = Distillation(network())
    guard.consolidate()
    state = guard.state_dict()
    with pytest.raises(ValueError, match=words):
        guard.load_state_dict(state | changes)
    assert all(torch.equal(value, state[key]) for key, value in guard.state_dict().items())


# ---- replay


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_indices_may_be_narrow(dtype):
    narrow, wide = Replay(network(), examples=6), Replay(network(), examples=6)
    narrow.consolidate(data(0), (torch.arange(6) % 3).to(dtype))
    wide.consolidate(data(0), torch.arange(6) % 3)
    assert narrow.penalty().item() == wide.penalty().item() > 0


def test_a_state_of_another_number_of_examples_a_task_is_refused():
    model = network()
    guard, _ = Replay(model, examples=4), [0, 1]
    for task in range(2):
        guard.consolidate(data(task), torch.arange(6) % 3)
    old = {key: value for key, value in guard.state_dict().items() if key != OPTIONS}  # as an earlier version kept it
    with pytest.raises(ValueError, match=r"8 examples of 2 tasks; with examples = 2 for each task it must hold 4"):
        Replay(model, examples=2).load_state_dict(old)
    del old["tasks"]  # and one before that
    twin = Replay(model, examples=4, batch_size=128)
    twin.load_state_dict(old)
    assert twin.penalty().item() == guard.penalty().item()
    with pytest.raises(ValueError, match="generator that is none"):
        guard.load_state_dict(guard.state_dict() | {"generator": torch.zeros(3)})


def test_what_is_no_tensor_is_not_kept():
    guard = Replay(network(), examples=2)
    for inputs, targets in (([1.0, 2.0], torch.zeros(2)), (data(0), [0] * 6), (data(0), None)):
        with pytest.raises(TypeError, match=r"(inputs|targets) is (list|NoneType); it must be a tensor"):
            guard.consolidate(inputs, targets)


def memory(model, chosen_of_tasks, examples=4):
    """A replay of all that it keeps, and (x, y, units) of each kept example."""
    guard = Replay(model, 0.5, examples=examples, batch_size=50_000)
    kept = []
    for task, chosen in enumerate(chosen_of_tasks):
        model.units.chosen = chosen
        x = data(task, examples)
        width = 6 if chosen is None else chosen.shape[1] if isinstance(chosen, torch.Tensor) else len(chosen)
        y = torch.arange(examples) % width
        guard.consolidate(x, y)
        for place in range(examples):
            units = chosen[place].tolist() if isinstance(chosen, torch.Tensor) else chosen
            kept.append((x[place], y[place], list(range(6)) if units is None else list(units)))
    return guard, kept


PER_EXAMPLE = torch.tensor([[0, 3], [1, 4], [5, 2], [2, 0]])
UNITS = {
    "a head a task": [(0, 1), (2, 3), (5, 4)],
    "heads of different sizes": [(0, 1), (2, 3, 4)],
    "all and then a head": [None, (2, 3)],
    "a head and then all": [(2, 3), None],
    "all": [None, None],
    "an example a head": [PER_EXAMPLE, (1, 2)],
}


@pytest.mark.parametrize("case", UNITS)
def test_each_kept_example_is_asked_with_the_units_of_its_task(case):
    model = headed()
    guard, kept = memory(model, UNITS[case])
    model.units.chosen = (4, 5)
    found = guard.penalty()
    assert model.units.chosen == (4, 5)
    model.units.chosen = None
    losses = [cross_entropy(model(x[None])[:, units], y[None]) for x, y, units in kept]
    wanted = 0.5 * len(UNITS[case]) * sum(losses) / len(losses)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)
    # and exactly, for one example of the memory at a time
    inputs, targets = guard.memory
    for place in range(len(inputs)):
        alone = Replay(model, 1.0, examples=1, batch_size=1)
        alone.memory, alone._tasks = (inputs[[place]], targets[[place]]), 1
        alone.units = None if guard.units is None else guard.units[[place]]
        (wanted,) = [
            cross_entropy(model(x[None])[:, units], y[None]) for x, y, units in kept if torch.equal(x, inputs[place])
        ]
        torch.testing.assert_close(alone.penalty(), wanted, rtol=1e-12, atol=0)


def test_the_gradient_of_heads_of_different_sizes_is_finite():
    guard, _ = memory(headed(), [(0, 1), (2, 3, 4)])
    guard.penalty().backward()
    assert all(parameter.grad.isfinite().all() for parameter in guard.model.parameters())
    assert (guard.model.logits.bias.grad[:5] != 0).all()
    assert guard.model.logits.bias.grad[5] == 0  # no task has this unit


@pytest.mark.parametrize("chosen", [[None, None], [(0, 1), None, (2, 3)]])
def test_a_replay_goes_on_from_its_state_with_the_same_draws(chosen):
    guard, _ = memory(headed(), chosen)
    guard.penalty()
    twin = Replay(guard.model, 0.5, examples=4, batch_size=50_000, seed=5)
    twin.load_state_dict(guard.state_dict())
    assert twin.penalty().item() == guard.penalty().item()
    for each in (guard, twin):
        each.model.units.chosen = (4, 5)
        each.consolidate(data(9), torch.arange(6) % 2)
    assert twin.penalty().item() == guard.penalty().item()


def test_a_replay_of_nothing_has_a_state_too():
    guard, twin = Replay(headed(), examples=4), Replay(headed(), examples=4, seed=3)
    twin.consolidate(data(0), torch.arange(6))
    twin.load_state_dict(guard.state_dict())
    assert twin.penalty().item() == 0
    for each in (guard, twin):
        each.consolidate(data(0), torch.arange(6))
    assert torch.equal(guard.memory[0], twin.memory[0])


@pytest.mark.parametrize("key", ["generator", "inputs", "targets"])
def test_a_replay_refuses_a_state_that_lacks_a_part(key):
    guard, _ = memory(headed(), [(0, 1)])
    state = guard.state_dict()
    with pytest.raises(ValueError, match=r"state has .*generator, inputs and targets"):
        guard.load_state_dict({other: value for other, value in state.items() if other != key})
    with pytest.raises(ValueError, match="state has"):
        guard.load_state_dict(state | {"weights": torch.zeros(2)})


@pytest.mark.parametrize("key", ["inputs", "targets", "units"])
def test_a_replay_refuses_a_state_of_other_lengths(key):
    guard, _ = memory(headed(), [(0, 1), (2, 3)])
    state = {key: value for key, value in guard.state_dict().items() if key != OPTIONS}
    with pytest.raises(ValueError, match="examples = 4 for each task"):
        guard.load_state_dict(state | {key: state[key][:4]})
    with pytest.raises(ValueError, match="examples = 3 for each task"):
        Replay(guard.model, examples=3).load_state_dict(state)


def test_a_replay_refuses_units_that_are_not_one_row_an_example():
    model = headed()
    model.units.chosen = PER_EXAMPLE
    with pytest.raises(ValueError, match="has 4 rows for 6 examples"):
        Replay(model, examples=4).consolidate(data(0), torch.arange(6))


def test_a_class_that_is_ruled_out_adds_nothing():
    torch.manual_seed(0)
    model = Function(lambda m, x: m.a(x).masked_fill(torch.tensor([False, False, True]), -torch.inf), a=nn.Linear(4, 3))
    guard, inputs, teacher = Distillation(model, temperature=1.0), torch.randn(5, 4), nn.Linear(4, 2)
    guard.consolidate()
    teacher.load_state_dict({name: value[:2].clone() for name, value in model.a.state_dict().items()})
    with torch.no_grad():
        model.a.weight += torch.randn(3, 4)
    p, q = teacher(inputs).log_softmax(1), model(inputs)[:, :2].log_softmax(1)
    found = guard.penalty(inputs)
    torch.testing.assert_close(found, (p.exp() * (p - q)).sum(1).mean())
    found.backward()
    assert model.a.weight.grad.isfinite().all()


@pytest.mark.parametrize("targets", [torch.tensor([0, 1, -100, 1]), torch.zeros(4), torch.zeros(4, 2).long()])
def test_targets_that_are_no_classes_are_not_kept(targets):
    with pytest.raises(ValueError, match="targets"):
        Replay(nn.Linear(3, 2), examples=2).consolidate(torch.randn(4, 3), targets)


def test_a_class_that_the_model_does_not_have_is_named():
    guard = Replay(nn.Linear(3, 2), examples=2)
    guard.consolidate(torch.randn(2, 3), torch.tensor([0, 7]))
    with pytest.raises(ValueError, match=r"targets runs to 7.*2 classes"):
        guard.penalty()
    model = mlp((3,), inputs=3, classes=4, units=True)
    model.units.chosen = (1, 3)
    guard = Replay(model, examples=2)
    guard.consolidate(torch.randn(2, 3), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"targets runs to 2.*2 classes"):
        guard.penalty()


def test_examples_of_another_shape_are_not_kept():
    guard = Replay(nn.Linear(3, 2), examples=2)
    guard.consolidate(torch.randn(2, 3), torch.tensor([0, 1]))
    before = guard.state_dict()
    with pytest.raises(ValueError, match="inputs has shape"):
        guard.consolidate(torch.randn(2, 4), torch.tensor([0, 1]))
    assert torch.equal(before["inputs"], guard.state_dict()["inputs"])
