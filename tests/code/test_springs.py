"""What all guards do when the model is no longer what it was, and with numbers, data and states as people have them."""

import math

import numpy
import pytest
import torch
from by_hand import Function
from ewc import EWC, L2, Distillation, KroneckerEWC, MemoryAwareSynapses, Replay, SynapticIntelligence
from ewc.batches import spread
from ewc.checks import OPTIONS, named, unwrapped
from ewc.steps import Capped, Proximal
from safetensors.torch import load, save
from test_penalties import data, move, network, nudge, values
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

pytestmark = pytest.mark.usefixtures("float64")

TARGETS = torch.arange(6) % 3
GUARDS = {
    "EWC": EWC,
    "EWC merged": lambda m, s=1.0: EWC(m, s, anchors="merged"),
    "L2": L2,
    "SI": SynapticIntelligence,
    "MAS": MemoryAwareSynapses,
    "Kronecker": KroneckerEWC,
    "Kronecker added": lambda m, s=1.0: KroneckerEWC(m, s, factors="added"),
    "capped": lambda m, s=1.0: Capped(EWC(m, s), 0.1),
}
FISHER = ["EWC", "EWC merged", "MAS", "Kronecker", "Kronecker added", "capped"]


def held(name, model=None, strength=3.0, tasks=1):
    """A guard that has consolidated, its weights a way off; SI has seen a step of each task."""
    guard = GUARDS[name](network() if model is None else model, strength)
    for task in range(tasks):
        guard.model.zero_grad()
        cross_entropy(guard.model(data(task)), TARGETS).backward()
        with torch.no_grad():
            for parameter in guard.model.parameters():
                parameter -= 0.1 * parameter.grad
        guard.consolidate(data(task), TARGETS)
    guard.model.zero_grad()
    move(guard.model, 9)
    return guard


def pull(guard):
    return torch.autograd.grad(guard.penalty(), list(guard.model.parameters()))


# ---- the second derivative


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("name", GUARDS)
def test_the_gradient_can_be_differentiated_again(name, tasks):
    guard = held(name, tasks=tasks)
    parameters = list(guard.model.parameters())
    slopes = torch.autograd.grad(guard.penalty(), parameters, create_graph=True)
    for slope, plain in zip(slopes, pull(guard), strict=True):
        assert torch.equal(slope, plain)
    way = [torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) for p in parameters]
    along = sum((slope * step).sum() for slope, step in zip(slopes, way, strict=True))
    bends = torch.autograd.grad(along, parameters)
    before = pull(guard)
    with torch.no_grad():
        for parameter, step in zip(parameters, way, strict=True):
            parameter += step
    for bend, one, other in zip(bends, before, pull(guard), strict=True):  # it is a parabola: the difference is the derivative
        torch.testing.assert_close(bend, other - one, rtol=1e-9, atol=1e-11)
    assert max(bend.abs().max() for bend in bends) > 0


def test_the_hessian_of_loss_and_penalty_is_the_sum_of_theirs():
    model = nn.Linear(2, 2)
    guard = EWC(model, 7.0)
    guard.consolidate(torch.randn(6, 2))
    move(model, 1)
    x, y = torch.randn(6, 2), torch.arange(6) % 2

    def second(value):
        slopes = torch.cat([slope.flatten() for slope in torch.autograd.grad(value, list(model.parameters()), create_graph=True)])
        return torch.stack([torch.cat([b.flatten() for b in torch.autograd.grad(s, list(model.parameters()), retain_graph=True)]) for s in slopes])

    curvature = torch.cat([value.flatten() for value in guard.parabola()[1].values()])
    loss = cross_entropy(model(x), y)
    torch.testing.assert_close(second(loss + guard.penalty()), second(loss) + curvature.diag())


# ---- what has changed since


def grow(model):
    model[2] = nn.Linear(5, 4)


def narrow(model):
    model[2] = nn.Linear(5, 1)  # one row would broadcast against any number


CHANGES = {
    "grown": (grow, ["'2.weight'", "(4, 5)", "(3, 5)"]),
    "narrowed": (narrow, ["'2.weight'", "(1, 5)", "(3, 5)"]),
    "pruned": (lambda model: prune.identity(model[0], "weight"), ["'0.weight'"]),
    "normed": (lambda model: parametrizations.weight_norm(model[0]), ["'0.weight'"]),
    "removed": (lambda model: model.pop(0), ["'0.weight'"]),
    "replaced": (lambda model: model.__setitem__(0, nn.Identity()), ["'0.weight'"]),
    "without bias": (lambda model: model[0].register_parameter("bias", None), ["'0.bias'"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", GUARDS)
def test_what_the_anchor_knows_and_the_model_has_no_more_is_refused_by_name(name, change):
    guard, (make, words) = held(name), CHANGES[change]
    make(guard.model)
    uses = [guard.penalty, guard.add_gradient, lambda: guard.consolidate(data(1), TARGETS)]
    if hasattr(guard, "parabola"):
        uses.append(guard.parabola)
    if hasattr(guard, "proximal_step"):
        uses.append(lambda: guard.proximal_step(0.1))
    for use in uses:
        with pytest.raises(ValueError) as refusal:
            use()
        assert all(word in str(refusal.value) for word in words), refusal.value


def test_proximal_steps_refuse_it_too_and_leave_what_is_frozen():
    guard = Proximal(EWC(network(), 1e3))
    guard.consolidate(data(0))
    move(guard.model, 1)
    guard.model[0].requires_grad_(False)
    frozen, free = guard.model[0].weight.clone(), guard.model[2].weight.clone()
    guard.after_step(0.1)
    assert torch.equal(guard.model[0].weight, frozen)
    assert not torch.equal(guard.model[2].weight, free)
    grow(guard.model)
    for use in (lambda: guard.after_step(0.1), guard.springs):
        with pytest.raises(ValueError, match=r"'2\.weight'.*\(4, 5\).*\(3, 5\)"):
            use()


@pytest.mark.parametrize("name", GUARDS)
def test_what_is_taken_out_of_the_state_is_let_go(name):
    guard = held(name)
    state = guard.state_dict()
    guard.model.pop(2)
    guard.load_state_dict({key: value for key, value in state.items() if "/2" not in key})
    assert guard.penalty().item() > 0


@pytest.mark.parametrize("name", GUARDS)
def test_a_frozen_layer_gets_no_gradient_and_the_rest_stays_held(name):
    guard = held(name)
    wanted = pull(guard)[2:]
    guard.model[0].requires_grad_(False)
    guard.add_gradient()
    assert guard.model[0].weight.grad is None
    for parameter, gradient in zip(guard.model[2].parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("name", GUARDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_anchor_takes_the_type_that_the_model_takes(name, dtype):
    guard = held(name)
    wanted, old = guard.penalty().item(), values(guard.model)
    move_back = guard.state_dict()
    anchor = {key.split("/")[-1]: value for key, value in move_back.items() if "anchor" in key}
    guard.model.to(dtype)
    assert guard.penalty().item() == pytest.approx(wanted, rel=1e-5 if dtype == torch.float32 else 0.1)
    guard.add_gradient()
    assert all(parameter.grad.dtype == dtype for parameter in guard.model.parameters())
    with torch.no_grad():
        for key, parameter in guard.model.named_parameters():
            parameter.copy_(anchor[key].to(dtype))
    assert guard.penalty().item() == 0  # the anchor was rounded as the weights were
    guard.model.double()
    assert old.keys() == anchor.keys()
    assert guard.penalty().item() == 0


@pytest.mark.parametrize("name", GUARDS)
def test_the_anchor_goes_where_the_model_goes(name):
    guard = held(name)
    guard.model.to("meta")
    assert guard.penalty().device.type == "meta"
    guard.add_gradient()
    if hasattr(guard, "parabola"):
        assert {value.device.type for part in guard.parabola() for value in part.values()} == {"meta"}


@pytest.mark.parametrize("name", ["L2", "EWC merged", "SI", "MAS", "Kronecker"])
def test_what_was_frozen_for_a_task_is_still_held_when_it_thaws(name):
    guard = held(name)
    guard.model[0].requires_grad_(False)
    move(guard.model[2], 3)
    guard.consolidate(data(1), TARGETS)
    guard.model[0].requires_grad_(True)
    with torch.no_grad():
        guard.model[2].weight.zero_(), guard.model[2].bias.zero_()
    before = guard.penalty().item()
    with torch.no_grad():
        guard.model[0].weight += 10
    assert guard.penalty().item() > before


# ---- the same weights twice


@pytest.mark.parametrize("name", FISHER)
def test_a_loop_over_batches_that_consolidates_each_is_refused(name):
    guard = held(name)
    guard.consolidate(data(0), TARGETS)
    kept = {key: value.clone() for key, value in guard.state_dict().items()}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"weights of the last call unchanged.*all examples of a task in one call"):
            guard.consolidate(data(1), TARGETS)
    assert all(torch.equal(value, kept[key]) for key, value in guard.state_dict().items())
    twin = GUARDS[name](guard.model)
    twin.load_state_dict(kept)
    with pytest.raises(ValueError, match="unchanged"):
        twin.consolidate(data(1), TARGETS)
    nudge(guard.model)
    guard.consolidate(data(1), TARGETS)


@pytest.mark.parametrize("name", ["L2", "SI"])
def test_where_it_changes_nothing_it_may_be_consolidated_again(name):
    guard = held(name)
    guard.consolidate()
    before = {key: value.clone() for key, value in guard.state_dict().items()}
    guard.consolidate()
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())


def test_a_head_that_is_new_makes_it_another_task():
    heads = nn.ModuleDict({"a": nn.Linear(4, 3)})
    model = Function(lambda m, x: sum(head(x)[:, :2] for head in m.heads.values()), heads=heads)
    guard = EWC(model)
    guard.consolidate(data(0))
    heads["b"] = nn.Linear(4, 2)
    guard.consolidate(data(0))
    assert sum("/importance/" in key for key in guard.state_dict()) == 2 + 4


# ---- gradients that are scaled, or sparse


@pytest.mark.parametrize("name", [name for name in GUARDS if name != "SI"])
def test_a_scaled_loss_gets_a_scaled_pull(name):
    guard = held(name)
    guard.add_gradient(scale=numpy.float32(1024))
    for parameter, gradient in zip(guard.model.parameters(), pull(guard), strict=True):
        torch.testing.assert_close(parameter.grad, 1024 * gradient)
    for wrong in (0, -1.0, math.nan, "8"):
        with pytest.raises(ValueError, match=r"scale is .*; it must be a finite number above 0"):
            guard.add_gradient(scale=wrong)


def test_synaptic_intelligence_takes_no_scaled_gradients():
    guard = held("SI")
    with pytest.raises(ValueError, match=r"scale is 1024.*unscale_.*observe"):
        guard.add_gradient(scale=1024)


def test_under_a_gradient_scaler_a_step_is_what_it_is_without():
    model = nn.Linear(1, 1, bias=False).float()
    guard = L2(model, 1.0)
    nn.init.ones_(model.weight)
    guard.consolidate()
    nn.init.constant_(model.weight, 2.0)
    rule, scaler = torch.optim.SGD(model.parameters(), lr=0.5), torch.amp.GradScaler("cpu", init_scale=65536.0)
    scaler.scale(0 * model.weight.sum()).backward()
    guard.add_gradient(scale=scaler.get_scale())
    scaler.step(rule)
    assert model.weight.item() == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize("make", [L2, SynapticIntelligence])
def test_a_sparse_gradient_takes_the_pull_on_all_rows(make):
    model = Function(lambda m, w: m.embed(w).sum(1), embed=nn.Embedding(4, 2, sparse=True))
    guard = make(model, 2.0)
    words, labels = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1])
    for _ in range(2):
        model.zero_grad()
        cross_entropy(model(words), labels).backward()
        torch.optim.SGD(model.parameters(), 0.5).step()
    guard.consolidate()
    move(model, 1)
    model.zero_grad()
    loss = cross_entropy(model(words), labels)
    (alone,) = torch.autograd.grad(loss, model.embed.weight, retain_graph=True)
    loss.backward()
    assert model.embed.weight.grad.is_sparse
    (wanted,) = torch.autograd.grad(guard.penalty(), model.embed.weight)
    guard.add_gradient()
    torch.testing.assert_close(model.embed.weight.grad, alone.to_dense() + wanted)
    assert (wanted[:3] != 0).any()
    assert make is SynapticIntelligence or (wanted[3] != 0).all()


@pytest.mark.parametrize("make", [L2, SynapticIntelligence])
def test_a_sparse_gradient_and_the_penaltys_come_together_in_one_pass(make):
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = Function(lambda m, w: m.embed(w).sum(1), embed=nn.Embedding(4, 2, sparse=sparse))
        guard = make(model, 2.0)
        for _ in range(2):
            for _ in range(3):
                model.zero_grad()
                (cross_entropy(model(torch.tensor([[0, 1], [1, 2]])), torch.tensor([0, 1])) + guard.penalty()).backward()
                torch.optim.SGD(model.parameters(), 0.5).step()
            guard.consolidate()
            move(model, 1)
        found.append(guard.penalty().item())
    assert found[0] == pytest.approx(found[1], rel=1e-10)
    assert found[0] > 0


# ---- names


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = torch.compile(nn.Sequential(nn.Linear(4, 5)), backend="eager"), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x).tanh())


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "data parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [*GUARDS, "distillation"])
def test_a_wrapped_models_parameters_keep_their_names(name, wrapper):
    make = Distillation if name == "distillation" else GUARDS[name]
    bare = network()
    plain, wrapped = make(bare), make(WRAPPERS[wrapper](bare))
    for guard in (plain, wrapped):
        guard.consolidate(data(0), TARGETS)
    state = wrapped.state_dict()
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    wrapped.load_state_dict(load(save(plain.state_dict())))
    move(bare, 1)
    arguments = (data(1),) if name == "distillation" else ()
    assert wrapped.penalty(*arguments).item() == pytest.approx(plain.penalty(*arguments).item(), rel=1e-12)
    assert unwrapped(wrapped.model) is bare


@pytest.mark.parametrize("name", GUARDS)
def test_a_part_that_is_compiled_leaves_no_trace_in_the_names(name):
    model = Inner()
    guard = GUARDS[name](model)
    guard.consolidate(data(0), TARGETS)
    assert not any("_orig_mod" in key for key in guard.state_dict())
    assert list(named(model)) == ["body.0.weight", "body.0.bias", "head.weight", "head.bias"]
    move(model, 1)
    guard.add_gradient()
    assert guard.penalty().item() >= 0


# ---- data


def test_more_examples_than_single_precision_can_count_are_spread_evenly():
    inputs = torch.zeros(1, 1).expand(2**24 + 4, 1)
    rows, _ = spread(inputs, None, 3)
    assert len(rows) == 3
    EWC(nn.Linear(1, 2), max_examples=2).consolidate(inputs)


@pytest.mark.parametrize("count", [9, 100, 60_000])
def test_so_many_examples_are_spread_from_the_first_to_the_last(count):
    rows, again = spread(torch.arange(count), torch.arange(count), 7)
    assert rows[0] == 0 and rows[-1] == count - 1 and torch.equal(rows, again)
    gaps = rows.diff()
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("name", ["EWC", "MAS", "Kronecker"])
def test_data_that_are_something_else_are_refused_by_name(name, most):
    guard = GUARDS[name](network())
    guard.max_examples = most
    for wrong in (3.0, "a file", [1, 2, 3]):
        with pytest.raises(TypeError, match=rf"inputs is {type(wrong).__name__}; it must be a tensor"):
            guard.consolidate(wrong)
    with pytest.raises(TypeError, match="targets is list"):
        guard.consolidate(data(0), [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"targets has shape \(9,\).*one target for each example"):
        guard.consolidate(data(0), torch.zeros(9, dtype=torch.long))
    assert guard.state_dict() == {}


# ---- numbers


@pytest.mark.parametrize("name", GUARDS)
def test_numpys_numbers_are_numbers(name):
    assert GUARDS[name](network(), numpy.float32(3)).strength == 3
    assert GUARDS[name](network(), numpy.int64(3)).strength == 3


def test_numpys_numbers_are_numbers_elsewhere():
    half, two = numpy.float32(0.5), numpy.int64(2)
    assert EWC(network(), decay=half, max_examples=two).max_examples == 2
    assert KroneckerEWC(network(), decay=half, max_examples=two).decay == 0.5
    assert MemoryAwareSynapses(network(), max_examples=two).max_examples == 2
    assert SynapticIntelligence(network(), damping=half).damping == 0.5
    guard = Distillation(network(), half, temperature=two)
    assert (guard.strength, guard.temperature) == (0.5, 2)
    memory = Replay(network(), half, examples=two, batch_size=two, seed=two)
    memory.consolidate(data(0), TARGETS)
    assert memory.penalty().item() > 0
    capped = Capped(held("EWC"), half, two)
    assert capped.largest_curvature() <= 4
    Proximal(held("EWC"), half).after_step(half)


@pytest.mark.parametrize("wrong", [2.5, "3", True - 1, torch.tensor(2.0)])
def test_a_number_of_examples_is_whole(wrong):
    for make in (EWC, MemoryAwareSynapses, KroneckerEWC):
        with pytest.raises(ValueError, match=r"max_examples is .*whole number"):
            make(network(), max_examples=wrong)


@pytest.mark.parametrize("wrong", ["0.5", None, math.nan, 0, 1.5])
def test_a_decay_is_a_share(wrong):
    for make in (EWC, KroneckerEWC):
        with pytest.raises(ValueError, match=r"decay is .*above 0 and at most 1"):
            make(network(), decay=wrong)


# ---- states


@pytest.mark.parametrize("name", [*GUARDS, "distillation", "replay"])
def test_a_state_is_a_dictionary_of_tensors(name):
    makers = GUARDS | {"distillation": Distillation, "replay": lambda model: Replay(model, examples=2)}
    guard = makers[name](network())
    guard.consolidate(data(0), TARGETS)
    state = guard.state_dict()
    for wrong in (None, [state], list(state.items()), "state"):
        with pytest.raises(TypeError, match=r"state is .*dictionary of tensors"):
            guard.load_state_dict(wrong)
    key = next(key for key, value in state.items() if value.is_floating_point())
    for value in (1.0, state[key].numpy(), None):
        with pytest.raises(TypeError, match=r"state has .*dictionary of tensors"):
            guard.load_state_dict(state | {key: value})
    with pytest.raises(ValueError, match="not finite"):
        guard.load_state_dict(state | {key: state[key] * math.nan})
    with pytest.raises(TypeError, match="state has"):
        guard.load_state_dict({7: state[key]})


@pytest.mark.parametrize("name", [name for name in GUARDS if "Kronecker" not in name])
def test_a_negative_importance_is_refused(name):
    guard = held(name)
    state = guard.state_dict()
    with pytest.raises(ValueError, match="negative importance"):
        guard.load_state_dict(state | {"0/importance/0.weight": -torch.ones(5, 4)})


def test_l2_takes_no_other_penaltys_state():
    for name in ("EWC", "MAS", "SI"):
        guard = held(name)
        old = {key: value for key, value in guard.state_dict().items() if key != OPTIONS and "walk" not in key}
        with pytest.raises(ValueError, match=r"another penalty's.*not 1"):
            L2(guard.model).load_state_dict(old)
    separate = held("EWC", tasks=2)
    old = {key: value for key, value in separate.state_dict().items() if key != OPTIONS}
    with pytest.raises(ValueError, match="2 anchors"):
        L2(separate.model).load_state_dict(old)


@pytest.mark.parametrize("name", [*GUARDS, "distillation", "replay"])
def test_safetensors_takes_the_state_of_a_channels_last_network(name):
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 3)).to(memory_format=torch.channels_last)
    makers = GUARDS | {"distillation": Distillation, "replay": lambda model: Replay(model, examples=2)}
    images = torch.randn(6, 2, 3, 3).to(memory_format=torch.channels_last)
    guard, twin = makers[name](model), makers[name](model)
    cross_entropy(model(images), TARGETS).backward()
    guard.consolidate(images, TARGETS)
    twin.load_state_dict(load(save(guard.state_dict())))
    move(model, 1)
    arguments = (images,) if name == "distillation" else ()
    assert twin.penalty(*arguments).item() == pytest.approx(guard.penalty(*arguments).item(), rel=1e-12)


def test_a_head_without_classes_has_no_curvature():
    model = Function(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=nn.Linear(1, 2), b=nn.Linear(1, 0))
    even, twin = L2(model, 2.0), EWC(model, 2.0)
    even.consolidate(torch.ones(2, 1))
    twin.load_state_dict({key: value for key, value in even.state_dict().items() if key != OPTIONS})
    move(model, 1)
    for guard in (even, twin):
        assert guard.largest_curvature() == 2
        assert 0 < guard.penalty().item() < math.inf


def test_a_model_without_parameters_costs_nothing():
    assert L2(nn.Sequential()).penalty().item() == 0
