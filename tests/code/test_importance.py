"""Synaptic Intelligence and Memory Aware Synapses, held to their formulas by loops in float64."""

import copy
import gc
import io
import math
import warnings
import weakref

import pytest
import torch
from by_hand import Function, assert_same
from ewc import MemoryAwareSynapses, SynapticIntelligence, diagonal_fisher
from ewc.checks import OPTIONS
from ewc.importance import _Walk
from ewc.sensitivity import output_sensitivity
from test_penalties import data, move, network, values
from torch import nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")

TARGETS = torch.arange(6) % 3


# ---- Synaptic Intelligence


class Two(nn.Module):
    """Two weights, and a loss that is a parabola in them: ½ (θ − goal)ᵀ curvature (θ − goal)."""

    CURVATURE = torch.tensor([[2.0, 0.8], [0.8, 1.0]], dtype=torch.double)

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.5, -1.0]))

    def loss(self, goal):
        gap = self.theta - torch.tensor(goal)
        return gap @ self.CURVATURE @ gap / 2


GOALS = ([1.0, 0.3], [-0.4, 1.2], [0.9, 0.9])
RATE, STEPS, STRENGTH, DAMPING = 0.2, 7, 1.3, 0.05


def by_hand():
    """Three tasks of plain descent on the loss and the penalty, all numbers written out: (Ω, θ*) after each task."""
    theta, big, anchor, found = [0.5, -1.0], [0.0, 0.0], [0.0, 0.0], []
    (a, b), (_, c) = Two.CURVATURE.tolist()
    for goal in GOALS:
        start, small = list(theta), [0.0, 0.0]
        for _ in range(STEPS):
            gap = [theta[i] - goal[i] for i in (0, 1)]
            task = [a * gap[0] + b * gap[1], b * gap[0] + c * gap[1]]
            step = [-RATE * (task[i] + STRENGTH * big[i] * (theta[i] - anchor[i])) for i in (0, 1)]
            for i in (0, 1):
                small[i] -= task[i] * step[i]
                theta[i] += step[i]
        for i in (0, 1):
            big[i] = max(0.0, big[i] + small[i] / ((theta[i] - start[i]) ** 2 + DAMPING))
        anchor = list(theta)
        found.append((list(big), list(anchor)))
    return found


def zero_before_the_loss(optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def zero_before_backward(optimizer, loss):
    total = loss()
    optimizer.zero_grad(set_to_none=False)
    total.backward()
    optimizer.step()


def zero_after_the_step(optimizer, loss):
    loss().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


def in_two_halves(optimizer, loss):
    optimizer.zero_grad()
    (loss() / 2).backward()
    (loss() / 2).backward()
    optimizer.step()


def after_a_look(optimizer, loss):
    loss().backward()  # a gradient that somebody looks at and throws away
    optimizer.zero_grad(set_to_none=False)
    torch.autograd.grad(loss(), optimizer.param_groups[0]["params"])
    loss().backward()
    torch.autograd.grad(loss(), optimizer.param_groups[0]["params"])
    optimizer.step()
    optimizer.zero_grad()


LOOPS = [zero_before_the_loss, zero_before_backward, zero_after_the_step, in_two_halves, after_a_look]


@pytest.mark.parametrize("loop", LOOPS)
def test_importance_is_the_path_integral_written_out(loop):
    model = Two()
    guard = SynapticIntelligence(model, STRENGTH, damping=DAMPING)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for goal, (importance, anchor) in zip(GOALS, by_hand(), strict=True):
        for _ in range(STEPS):
            loop(optimizer, lambda goal=goal: model.loss(goal) + guard.penalty())
        guard.consolidate()
        state = guard.state_dict()
        torch.testing.assert_close(state["0/importance/theta"], torch.tensor(importance), rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(state["0/anchor/theta"], torch.tensor(anchor), rtol=1e-10, atol=1e-14)
    assert state.keys() == {"0/importance/theta", "0/anchor/theta", OPTIONS}


def test_in_this_problem_some_importance_is_clipped_and_some_is_not():
    found = torch.tensor([importance for importance, _ in by_hand()])
    assert (found > 0).any()
    model = Two()
    guard = SynapticIntelligence(model, damping=DAMPING)
    model.loss([1.0, 0.3]).backward()
    with torch.no_grad():
        model.theta += model.theta.grad * torch.tensor([1.0, -1.0])  # the first weight goes uphill
    guard.consolidate()
    importance = guard.state_dict()["0/importance/theta"]
    assert importance[0] == 0 < importance[1]


@pytest.mark.parametrize("way", ["observe and add", "add alone", "by hand, no backward pass of its own"])
def test_a_loop_that_adds_the_penaltys_gradient_itself_finds_the_same(way):
    model = Two()
    guard = SynapticIntelligence(model, STRENGTH, damping=DAMPING)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for goal, (importance, anchor) in zip(GOALS, by_hand(), strict=True):
        for _ in range(STEPS):
            optimizer.zero_grad()
            if way.startswith("by hand"):
                stand_in = copy.deepcopy(model)
                stand_in.loss(goal).backward()
                model.theta.grad = stand_in.theta.grad
            else:
                model.loss(goal).backward()
            if way != "add alone":
                guard.observe()
            guard.add_gradient()
            optimizer.step()
        guard.consolidate()
        state = guard.state_dict()
        torch.testing.assert_close(state["0/importance/theta"], torch.tensor(importance), rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(state["0/anchor/theta"], torch.tensor(anchor), rtol=1e-10, atol=1e-14)


RULES = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.02),
    "decay": lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1),
}


def learn(guard, rule, tasks=2, observed=False, clip=None):
    """Train with a rule; what a loop beside it finds for Ω, with the task's gradient taken from a copy of the model."""
    model, big = guard.model, {name: torch.zeros_like(value) for name, value in values(guard.model).items()}
    for task in range(tasks):
        optimizer = rule(model.parameters())
        small = {name: torch.zeros_like(value) for name, value in big.items()}
        start = values(model)
        for step in range(6):
            x = data(10 * task + step)
            twin = copy.deepcopy(model)
            wanted = torch.autograd.grad(cross_entropy(twin(x), TARGETS), list(twin.parameters()))
            optimizer.zero_grad()
            loss = cross_entropy(model(x), TARGETS)
            if observed:
                loss.backward()
                guard.observe()
                guard.add_gradient()
            else:
                (loss + guard.penalty()).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            before = values(model)
            optimizer.step()
            for (name, now), gradient in zip(values(model).items(), wanted, strict=True):
                small[name] -= gradient * (now - before[name])
        for name, now in values(model).items():
            big[name] = (big[name] + small[name] / ((now - start[name]) ** 2 + guard.damping)).clamp(min=0)
        guard.consolidate()
    return big


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_any_rule_of_descent_and_no_leak_of_the_penaltys_gradient(rule, observed, clip):
    guard = SynapticIntelligence(network(), 20.0)
    wanted = learn(guard, RULES[rule], observed=observed, clip=clip)
    for name, importance in wanted.items():
        torch.testing.assert_close(guard.state_dict()[f"0/importance/{name}"], importance, rtol=1e-8, atol=1e-12)


def test_the_paths_add_up_to_the_fall_of_the_loss():
    guard = SynapticIntelligence(network())
    optimizer = torch.optim.SGD(guard.model.parameters(), 1e-3)
    x, first = data(0), cross_entropy(guard.model(data(0)), TARGETS).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = cross_entropy(guard.model(x), TARGETS)
        loss.backward()
        optimizer.step()
    paths = sum(value.sum().item() for key, value in guard.state_dict().items() if key.startswith("walk/path/"))
    assert first - cross_entropy(guard.model(x), TARGETS).item() == pytest.approx(paths, rel=2e-3)
    assert paths > 0.05


@pytest.mark.parametrize("between", ["backward and step", "steps"])
def test_a_state_taken_in_the_middle_of_a_task_goes_on_as_if_nothing_had_been(between):
    def run(interrupted):
        model = network()
        guard = SynapticIntelligence(model, 2.0)
        optimizer = torch.optim.SGD(model.parameters(), 0.3)
        for step in range(12):
            optimizer.zero_grad()
            (cross_entropy(model(data(step)), TARGETS) + guard.penalty()).backward()
            if interrupted and step == 8 and between == "steps":
                optimizer.step()
            if interrupted and step == 8:
                gradients = [parameter.grad for parameter in model.parameters()]
                twin = network(seed=5)
                twin.load_state_dict(model.state_dict())
                state = guard.state_dict()
                guard, model = SynapticIntelligence(twin, 2.0), twin
                guard.load_state_dict(state)
                optimizer = torch.optim.SGD(model.parameters(), 0.3)
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.grad = gradient
            if not (interrupted and step == 8 and between == "steps"):
                optimizer.step()
            if step == 5:
                guard.consolidate()
        guard.consolidate()
        return guard.state_dict()

    plain, broken = run(False), run(True)
    for key, value in plain.items():
        torch.testing.assert_close(broken[key], value, rtol=1e-10, atol=1e-14)


def test_looking_at_the_state_does_not_change_what_is_found():
    found = []
    for looks in (False, True):
        guard = SynapticIntelligence(Two(), damping=DAMPING)
        optimizer = torch.optim.SGD(guard.model.parameters(), RATE)
        for _ in range(5):
            optimizer.zero_grad()
            guard.model.loss([1.0, 0.3]).backward()
            if looks:
                guard.state_dict()
            optimizer.step()
            if looks:
                guard.state_dict()
        guard.consolidate()
        found.append(guard.state_dict()["0/importance/theta"])
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_a_copy_of_the_model_is_not_watched():
    model = network()
    guard = SynapticIntelligence(model)
    twin = copy.deepcopy(model)
    cross_entropy(twin(data(0)), TARGETS).backward()
    assert guard.state_dict() == {}
    cross_entropy(model(data(0)), TARGETS).backward()
    assert guard.state_dict() != {}


def test_what_is_frozen_is_not_watched_and_what_thaws_is():
    model = network()
    model[0].requires_grad_(False)
    guard = SynapticIntelligence(model)
    rule = lambda p: torch.optim.SGD(p, 0.1)  # noqa: E731

    def train(frozen):
        optimizer = rule([p for p in model.parameters() if p.requires_grad])
        for step in range(4):
            optimizer.zero_grad()
            (cross_entropy(model(data(step)), TARGETS) + guard.penalty()).backward()
            optimizer.step()
        guard.consolidate()

    train(True)
    assert guard.parabola()[1].keys() == {"2.weight", "2.bias"}
    first = guard.parabola()[1]["2.weight"]
    model[0].requires_grad_(True)
    model[2].requires_grad_(False)
    train(False)
    assert guard.parabola()[1]["0.weight"].max() > 0
    assert torch.equal(guard.parabola()[1]["2.weight"], first)  # it keeps what it had
    model[2].requires_grad_(True)
    train(False)
    assert not torch.equal(guard.parabola()[1]["2.weight"], first)


def test_a_weight_without_a_gradient_earns_nothing():
    model = Function(lambda m, x: m.heads[m.task](m.body(x)), body=nn.Linear(4, 5), heads=nn.ModuleDict())
    model.heads["a"], model.heads["b"], model.task = nn.Linear(5, 3), nn.Linear(5, 3), "a"
    guard = SynapticIntelligence(model)
    for observed in (False, True):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(3):
            optimizer.zero_grad()
            cross_entropy(model(data(step)), TARGETS).backward()
            if observed:
                guard.observe()
            optimizer.step()
        guard.consolidate()
        importance = guard.parabola()[1]
        assert importance["heads.a.weight"].max() > 0
        assert (importance["heads.b.weight"] == 0).all()


def test_a_weight_that_moves_without_a_gradient_earns_nothing_by_it():
    model = Two()
    guard = SynapticIntelligence(model)
    model.loss(GOALS[0]).backward()
    guard.observe()
    model.theta.grad = None
    guard.observe()  # a step of another head
    with torch.no_grad():
        model.theta += 1
    guard.consolidate()
    assert (guard.parabola()[1]["theta"] == 0).all()


@pytest.mark.parametrize("observed", [False, True])
def test_a_gradient_changed_in_place_after_it_was_seen_is_not_changed_here(observed):
    found = []
    for spoil in (False, True):
        model = Two()
        guard = SynapticIntelligence(model)
        model.loss(GOALS[0]).backward()
        if observed:
            guard.observe()
        step = 0.1 * model.theta.grad
        if spoil:
            model.theta.grad.mul_(100)
        with torch.no_grad():
            model.theta -= step
        guard.consolidate()
        found.append(guard.parabola()[1]["theta"])
    assert torch.equal(*found)


def test_weights_that_were_loaded_before_training_are_where_the_path_starts():
    model = network()
    guard = SynapticIntelligence(model)
    other = network(seed=3)
    model.load_state_dict(other.state_dict())
    learnt = learn(guard, RULES["momentum"], tasks=1)
    fresh = SynapticIntelligence(other)
    learn(fresh, RULES["momentum"], tasks=1)
    for name in learnt:
        torch.testing.assert_close(guard.parabola()[1][name], fresh.parabola()[1][name])


def test_a_training_that_diverged_is_not_consolidated():
    guard = SynapticIntelligence(Two())
    guard.model.loss(GOALS[0]).backward()
    with torch.no_grad():
        guard.model.theta += torch.inf
    with pytest.raises(ValueError, match="path of 'theta' is not finite"):
        guard.consolidate()
    assert guard.parabola() == ({}, {})


@pytest.mark.parametrize("damping", [0, -1.0, math.nan, math.inf, "0.1", None])
def test_a_damping_that_is_none_is_refused(damping):
    with pytest.raises(ValueError, match=r"damping is .*; it must be a finite number above 0"):
        SynapticIntelligence(network(), damping=damping)


def trained(guard, steps=STEPS, goal=GOALS[0]):
    optimizer = torch.optim.SGD(guard.model.parameters(), RATE)
    for _ in range(steps):
        zero_before_the_loss(optimizer, lambda: guard.model.loss(goal) + guard.penalty())
    return guard


def pickled(guard):
    file = io.BytesIO()
    torch.save(guard, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


@pytest.mark.parametrize("seen", [0, 3])
@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
def test_a_copy_of_the_guard_watches_its_own_model_and_goes_on_where_it_was(way, seen):
    guard = trained(SynapticIntelligence(Two(), STRENGTH, damping=DAMPING), seen)
    twin = way(guard)
    assert twin.model is not guard.model
    for each in (twin, guard):
        trained(each, STEPS - seen).consolidate()
        torch.testing.assert_close(each.parabola()[1]["theta"], STRENGTH * torch.tensor(by_hand()[0][0]), rtol=1e-10, atol=0)


def test_a_shallow_copy_and_its_giver_do_not_count_the_same_steps_twice():
    guard = trained(SynapticIntelligence(Two(), STRENGTH, damping=DAMPING), 3)
    twin = copy.copy(guard)
    optimizer = torch.optim.SGD(guard.model.parameters(), RATE)
    for _ in range(STEPS - 3):
        in_two_halves(optimizer, lambda: guard.model.loss(GOALS[0]))
    for each in (guard, twin):
        each.consolidate()
        torch.testing.assert_close(each.parabola()[1]["theta"], STRENGTH * torch.tensor(by_hand()[0][0]), rtol=1e-10, atol=0)


@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
def test_a_model_that_keeps_its_guard_is_copied_with_it(way):
    model = Two()
    model.guard = SynapticIntelligence(model, STRENGTH, damping=DAMPING)
    twin = way(model)
    assert twin.guard.model is twin
    trained(twin.guard).consolidate()
    torch.testing.assert_close(twin.guard.parabola()[1]["theta"], STRENGTH * torch.tensor(by_hand()[0][0]), rtol=1e-10, atol=0)


def test_a_layer_that_is_replaced_while_a_task_is_learned_is_consolidated_as_it_is():
    model = nn.Sequential(nn.Linear(4, 3))
    guard = SynapticIntelligence(model)
    cross_entropy(model(data(0)), TARGETS).backward()
    model[0] = nn.Linear(4, 5)
    guard.consolidate()
    assert guard.parabola()[0]["0.weight"].shape == (5, 4)


def test_a_guard_that_nobody_keeps_goes_and_takes_its_hooks_along():
    model, alive = Two(), []
    for _ in range(5):
        guard = SynapticIntelligence(model)
        alive.append(weakref.ref(guard))
    del guard
    gc.collect()
    assert not any(each() for each in alive)
    assert not model.theta._backward_hooks and not model.theta._post_accumulate_grad_hooks
    model.loss(GOALS[0]).backward()


@pytest.mark.parametrize("way", ["penalty", "add_gradient", "observe", "penalty by itself"])
def test_a_head_that_comes_later_earns_from_its_first_step_on(way):
    def earned(guard):
        if guard.model.__class__ is nn.ModuleList:
            guard.consolidate()
            guard.model.append(nn.Linear(1, 2))
        head = guard.model[-1]
        nn.init.constant_(head.weight, 0.3)
        nn.init.zeros_(head.bias)
        rule = torch.optim.SGD(head.parameters(), lr=0.1)
        for _ in range(5):
            rule.zero_grad()
            loss = cross_entropy(head(torch.ones(1, 1)), torch.tensor([0]))
            if way == "penalty":
                (loss + guard.penalty()).backward()
            else:
                loss.backward()
            if way == "penalty by itself" and (value := guard.penalty()).requires_grad:
                value.backward()
            if way in ("add_gradient", "observe"):
                getattr(guard, way)()
            rule.step()
        guard.consolidate()
        return guard.parabola()[1]

    later = earned(SynapticIntelligence(nn.ModuleList([nn.Linear(1, 2)])))
    start = earned(SynapticIntelligence(nn.Sequential(nn.Linear(1, 2))))
    torch.testing.assert_close(later["1.weight"], start["0.weight"], rtol=1e-10, atol=0)
    assert start["0.weight"].sum() > 0.1


def test_a_head_that_learned_unseen_is_told_of():
    heads = nn.ModuleList([nn.Linear(1, 2)])
    guard = SynapticIntelligence(heads)
    heads.append(nn.Linear(1, 2))
    cross_entropy(heads[1](torch.ones(1, 1)), torch.tensor([0])).backward()
    with pytest.warns(RuntimeWarning, match=r"'1\.weight' has learned unseen.*penalty, add_gradient or observe"):
        guard.consolidate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.consolidate()


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("first", ["guard", "optimiser"])
def test_steps_that_are_taken_inside_the_backward_pass_are_counted_as_they_are(first, held):
    model = Two()
    guard = SynapticIntelligence(model, STRENGTH, damping=DAMPING) if first == "guard" else None
    rule = torch.optim.SGD(model.parameters(), RATE)

    def step(_):
        rule.step()
        rule.zero_grad()

    model.theta.register_post_accumulate_grad_hook(step)
    guard = guard or SynapticIntelligence(model, STRENGTH, damping=DAMPING)
    for goal, (importance, anchor) in zip(GOALS[: 1 + held], by_hand(), strict=False):
        for _ in range(STEPS):
            (model.loss(goal) + guard.penalty()).backward()
        guard.consolidate()
        state = guard.state_dict()
        torch.testing.assert_close(state["0/importance/theta"], torch.tensor(importance), rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(state["0/anchor/theta"], torch.tensor(anchor), rtol=1e-10, atol=1e-14)


def test_a_parameter_that_takes_anothers_place_is_watched_from_its_own_start():
    model = nn.Sequential(nn.Linear(4, 3))
    guard = SynapticIntelligence(model)
    old = model[0]
    cross_entropy(model(data(0)), TARGETS).backward()
    model[0] = nn.Linear(4, 3)
    guard.penalty()
    cross_entropy(old(data(0)), TARGETS).backward()  # the old one is nobody's business any more
    assert guard.state_dict() == {}
    assert not old.weight._backward_hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_path_goes_on_in_another_type(dtype):
    guard = trained(SynapticIntelligence(Two(), STRENGTH, damping=DAMPING), 3)
    guard.model.to(dtype)
    for _ in range(STEPS - 3):
        guard.model.zero_grad()
        gap = guard.model.theta - torch.tensor(GOALS[0], dtype=dtype)
        (gap @ Two.CURVATURE.to(dtype) @ gap / 2).backward()
        with torch.no_grad():
            guard.model.theta -= RATE * guard.model.theta.grad
    guard.consolidate()
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(guard.parabola()[1]["theta"].double(), STRENGTH * torch.tensor(by_hand()[0][0]), rtol=tolerance, atol=0)
    assert guard.state_dict()["0/anchor/theta"].dtype == dtype


def test_a_path_goes_on_on_another_device():
    walk = _Walk.begin(torch.zeros(2))
    walk.take(torch.ones(2), first=True)
    walk.settle(torch.ones(2, device="meta"))
    assert {value.device.type for value in vars(walk).values()} == {"meta"}


def test_a_sparse_gradient_earns_as_a_dense_one():
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = Function(lambda m, w: m.embed(w).sum(1), embed=nn.Embedding(4, 2, sparse=sparse))
        guard = SynapticIntelligence(model)
        rule = torch.optim.SGD(model.parameters(), 0.5)
        for step in range(4):
            model.zero_grad(set_to_none=step % 2 == 0)
            (cross_entropy(model(torch.tensor([[0, 1], [1, 2]])), torch.tensor([0, 1]))).backward()
            rule.step()
        guard.consolidate()
        found.append(guard.parabola()[1]["embed.weight"])
    assert found[0][:3].max() > 0
    torch.testing.assert_close(*found)


# ---- Memory Aware Synapses


def sensitivity_by_hand(model, inputs):
    model.eval()
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    for example in inputs:
        length = model(example[None]).square().sum()
        gradients = torch.autograd.grad(length, list(wanted.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(wanted, gradients, strict=True):
            total[name] += gradient.abs()
    return {name: value / len(inputs) for name, value in total.items()}


def _tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    return model


SHAPES = {
    "linear": (network, (4,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)), (4,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)),
        (2, 4, 4),
    ),
    "norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.LayerNorm(5), nn.Linear(5, 3)), (4,)),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(15, 3)), (3, 4)),
    "tied": (_tied, (4,)),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("batch_size", [1, 3, 1024])
def test_sensitivity_is_the_mean_absolute_gradient_by_a_loop_over_examples(kind, batch_size):
    torch.manual_seed(1)
    build, shape = SHAPES[kind]
    model = build()
    inputs = torch.randn(7, *shape)
    assert_same(output_sensitivity(model, inputs, batch_size=batch_size), sensitivity_by_hand(model, inputs))


def test_the_absolute_value_stands_inside_the_mean():
    model = network()
    of_mean = torch.autograd.grad(model(data(0)).square().sum(1).mean(), model[0].weight)[0].abs()
    found = output_sensitivity(model, data(0))["0.weight"]
    assert (found >= of_mean - 1e-12).all()
    assert found.sum() > 1.1 * of_mean.sum()


def test_a_frozen_layer_has_no_sensitivity():
    model = network()
    model[0].requires_grad_(False)
    assert output_sensitivity(model, data(0)).keys() == {"2.weight", "2.bias"}


def test_importance_adds_up_over_tasks_at_the_latest_anchor():
    guard = MemoryAwareSynapses(network(), 3.0)
    total = {name: torch.zeros_like(value) for name, value in values(guard.model).items()}
    for task in range(3):
        move(guard.model, task)
        for name, value in sensitivity_by_hand(guard.model, data(task)).items():
            total[name] += value
        guard.consolidate(data(task))
    anchor = values(guard.model)
    move(guard.model, 9)
    wanted = sum(1.5 * (total[name] * (now - anchor[name]) ** 2).sum() for name, now in values(guard.model).items())
    assert guard.penalty().item() == pytest.approx(wanted.item(), rel=1e-10)
    assert {key.split("/")[0] for key in guard.state_dict()} == {"0", "options"}


def test_max_examples_takes_them_evenly_over_those_given():
    guard = MemoryAwareSynapses(network(), max_examples=3)
    x = data(0, 9)
    guard.consolidate(x)
    wanted = sensitivity_by_hand(guard.model, x[[0, 4, 8]])
    torch.testing.assert_close(guard.state_dict()["0/importance/0.weight"], wanted["0.weight"])
    with pytest.raises(ValueError, match="max_examples is 0"):
        MemoryAwareSynapses(network(), max_examples=0)


def test_what_the_output_does_not_depend_on_is_free():
    model = nn.Linear(4, 3)
    inputs = data(0)
    inputs[:, 1] = 0
    guard = MemoryAwareSynapses(model)
    guard.consolidate(inputs)
    with torch.no_grad():
        model.weight[:, 1] += 5
    assert guard.penalty().item() == 0
    assert diagonal_fisher(model, inputs)["weight"][:, 1].max() == 0  # as with the Fisher


def test_a_penalty_that_keeps_one_anchor_refuses_two():
    two = {"0/anchor/0.bias": torch.zeros(5), "0/importance/0.bias": torch.zeros(5)}
    two |= {key.replace("0/", "1/", 1): value for key, value in two.items()}
    for guard in (MemoryAwareSynapses(network()), SynapticIntelligence(network())):
        with pytest.raises(ValueError, match="state has 2 anchors; this penalty keeps one"):
            guard.load_state_dict(two)
