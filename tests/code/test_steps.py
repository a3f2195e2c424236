"""Steps on a stiff penalty: the proximal step is the minimum that it says, rests where loss + penalty is least, and never runs away."""

import copy
from types import SimpleNamespace

import pytest
import torch
from ewc import EWC, L2, accuracy, fit, mlp
from ewc.steps import Capped, Proximal, capped, proximal_step
from ewc.together import diverged, fit_together
from small_tasks import blobs
from torch import nn
from torch.nn.utils import parameters_to_vector


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    model = nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=place))
    return model


def springs(model, scale=1.0, seed=5):
    """An anchor and a stiffness for each parameter, some of it 0."""
    anchor = {name: numbers(*p.shape, seed=seed) for name, p in model.named_parameters()}
    stiffness = {name: scale * numbers(*p.shape, seed=seed + 1).clamp(min=0) for name, p in model.named_parameters()}
    return anchor, stiffness


def vector(model):
    return parameters_to_vector(model.parameters()).detach().clone()


def flat(values):
    return torch.cat([value.flatten() for value in values.values()])


# ---- the proximal step


@pytest.mark.parametrize("step_size", [1e-3, 0.3, 50.0])
def test_a_proximal_step_ends_at_the_minimum_of_distance_and_penalty(step_size):
    model = network()
    anchor, stiffness = springs(model)
    before = vector(model)
    proximal_step(model, anchor, stiffness, step_size)

    # The minimum by brute force: Newton's method on the objective as it is written, from somewhere else.
    def objective(theta):
        near = ((theta - before) ** 2).sum() / (2 * step_size)
        return near + (flat(stiffness) * (theta - flat(anchor)) ** 2).sum() / 2

    theta = numbers(len(before), seed=9)
    for _ in range(2):
        slope = torch.func.grad(objective)(theta)
        theta = theta - torch.linalg.solve(torch.func.hessian(objective)(theta), slope)
    torch.testing.assert_close(vector(model), theta, rtol=1e-10, atol=1e-12)
    nudges = 1e-3 * numbers(20, len(before), seed=3)
    assert all(objective(vector(model) + nudge) > objective(vector(model)) for nudge in nudges)


def test_a_proximal_step_leaves_what_has_no_spring_and_what_is_not_named():
    model = network()
    before = vector(model)
    proximal_step(model, {"weight": numbers(2, 3)}, {"weight": torch.zeros(2, 3, dtype=torch.float64)}, 10.0)
    assert torch.equal(vector(model), before)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e9])
def test_proximal_steps_alone_shorten_every_distance_however_stiff_the_spring(scale):
    model = network()
    anchor, stiffness = springs(model, scale)
    for _ in range(5):
        before = (vector(model) - flat(anchor)).abs()
        proximal_step(model, anchor, stiffness, 0.1)
        after = (vector(model) - flat(anchor)).abs()
        torch.testing.assert_close(after, before / (1 + 0.1 * flat(stiffness)), rtol=1e-9, atol=1e-15)
        assert (after <= before).all()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_descent_with_proximal_steps_rests_where_loss_and_penalty_together_are_least(momentum):
    """On a quadratic loss the minimum of the sum is known in closed form; without 1 / (1 − momentum) the rest would be elsewhere."""
    model = network()
    anchor, stiffness = springs(model)
    root = numbers(8, 8, seed=7)
    curvature, target = root @ root.T / 8 + torch.eye(8, dtype=torch.float64), numbers(8, seed=8)
    wanted = torch.linalg.solve(
        curvature + torch.diag(flat(stiffness)), curvature @ target + flat(stiffness) * flat(anchor)
    )
    penalty = SimpleNamespace(model=model, strength=1.0, parabola=lambda: (anchor, stiffness))
    held = Proximal(penalty, momentum)
    rule = torch.optim.SGD(model.parameters(), lr=0.02, momentum=momentum)
    for _ in range(3000):
        theta = torch.cat([p.flatten() for p in model.parameters()])
        loss = (theta - target) @ curvature @ (theta - target) / 2
        rule.zero_grad()
        loss.backward()
        rule.step()
        held.after_step(0.02)
    torch.testing.assert_close(vector(model), wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("step_size", [-1, float("nan"), float("inf"), "long", None])
def test_a_step_size_that_cannot_be_is_refused(step_size):
    model = network()
    with pytest.raises(ValueError, match="step_size is"):
        proximal_step(model, *springs(model), step_size)
    with pytest.raises(ValueError, match="step_size is"):
        capped(springs(model)[1], step_size)


# ---- the cap


@pytest.mark.parametrize("product", [0.5, 1.0])
def test_no_capped_spring_makes_a_step_overshoot_and_weaker_ones_stay(product):
    _, stiffness = springs(network(), scale=10)
    held = capped(stiffness, 0.2, product)
    for name, value in stiffness.items():
        assert (0.2 * held[name] <= product * (1 + 1e-12)).all()
        weak = 0.2 * value <= product
        assert torch.equal(held[name][weak], value[weak])
        torch.testing.assert_close(held[name][~weak], torch.full_like(value[~weak], product / 0.2))
    assert any((0.2 * value > product).any() for value in stiffness.values())


def test_a_cap_of_nothing_is_refused():
    for product in (0, -1.0, float("inf"), "much"):
        with pytest.raises(ValueError, match="product is"):
            capped({}, 1.0, product)
        with pytest.raises(ValueError, match="product is"):
            Capped(EWC(network()), 1.0, product)


# ---- around a penalty, in training


def guarded(strength, wrap=lambda guard: guard, seed=0):
    task = blobs("first")
    model = mlp((8,), inputs=4, classes=3, seed=seed)
    fit(model, task, steps=60)
    penalty = wrap(EWC(model, strength, anchors="merged"))
    penalty.consolidate(task.train_inputs, task.train_targets)
    return model, penalty


def test_a_capped_penalty_is_the_penalty_with_its_stiffness_capped():
    model, guard = guarded(30.0)
    same, held = guarded(30.0, lambda guard: Capped(guard, 0.5))
    with torch.no_grad():
        for network_ in (model, same):
            for place, parameter in enumerate(network_.parameters()):
                parameter += 0.1 * numbers(*parameter.shape, seed=place).float()
    minimum, stiffness = guard.parabola()
    parameters = dict(model.named_parameters())
    wanted = sum((stiffness[n].clamp(max=2.0) * (parameters[n] - minimum[n]) ** 2).sum() / 2 for n in minimum)
    assert guard.largest_curvature() > 2
    torch.testing.assert_close(held.penalty(), wanted)
    assert held.largest_curvature() == 2
    same.zero_grad()
    held.penalty().backward()
    for name, parameter in same.named_parameters():
        pull = held.parabola()[1][name] * (parameter - held.parabola()[0][name])
        torch.testing.assert_close(parameter.grad, pull)


def test_before_the_first_task_neither_way_adds_anything():
    model = mlp((8,), inputs=4, classes=3)
    for penalty in (Capped(EWC(model), 1.0), Proximal(EWC(model), 0.9)):
        assert penalty.penalty() == 0
    before = vector(model)
    Proximal(EWC(model), 0.9).after_step(0.1)
    assert torch.equal(vector(model), before)


def test_a_momentum_that_cannot_be_is_refused():
    for momentum in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match="momentum is"):
            Proximal(EWC(network()), momentum)


@pytest.mark.filterwarnings("ignore:learning_rate")
def test_where_explicit_steps_run_away_capped_and_proximal_ones_stay_and_forget_less_than_plain_ones():
    first, second = blobs("first"), blobs("second", shift=1)
    plain, _ = guarded(1.0)
    fit(plain, second, steps=200)
    # Far above the bound 2 (1 + .9) / (.06 max F).
    strength = 50 * 3.8 / (0.06 * guarded(1.0)[1].largest_curvature())
    model, guard = guarded(strength)
    with pytest.raises(ValueError, match="the loss on second is"):
        fit(model, second, penalty=guard, steps=200)
    for wrap in (lambda guard: Capped(guard, 0.06), lambda guard: Proximal(guard, 0.9)):
        model, guard = guarded(strength, wrap)
        fit(model, second, penalty=guard, steps=200)
        assert not diverged(model)
        assert accuracy(model, first) > accuracy(plain, first) + 0.2


@pytest.mark.parametrize("wrap", [lambda guard: Capped(guard, 0.06), lambda guard: Proximal(guard, 0.9)])
def test_side_by_side_they_end_where_they_end_alone(wrap):
    alone, guard = guarded(300.0, wrap)
    beside, held = guarded(300.0, wrap)
    other, plain = copy.deepcopy(beside), blobs("second", shift=1)
    fit(alone, plain, penalty=guard, steps=50, seed=3)
    l2 = L2(other, 0.1)
    l2.consolidate()
    fit_together([beside, other], [plain, plain], penalties=[held, l2], steps=50, seeds=[3, 4])
    torch.testing.assert_close(vector(beside), vector(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vector(other), vector(alone), atol=1e-3)


# ---- with the calls of a penalty


@pytest.mark.parametrize("wrap", [lambda guard: Capped(guard, 0.5), lambda guard: Proximal(guard, 0.9)])
def test_what_is_wrapped_keeps_its_state(wrap):
    model, guard = guarded(300.0, wrap)
    twin = wrap(EWC(model, 300.0, anchors="merged"))
    twin.load_state_dict(guard.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
            parameter.grad = torch.zeros_like(parameter)
    assert twin.penalty().item() == guard.penalty().item()
    found = []
    for each in (guard, twin):
        before = vector(model)
        if hasattr(each, "after_step"):
            each.after_step(0.1)
        else:
            each.add_gradient()
        found.append(torch.cat([vector(model), *(p.grad.flatten() for p in model.parameters())]))
        torch.nn.utils.vector_to_parameters(before, model.parameters())
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    assert isinstance(guard, Proximal) or found[0][len(before) :].abs().max() > 0
    assert isinstance(guard, Capped) or not torch.equal(found[0][: len(before)], before)


def test_the_gradient_that_a_capped_penalty_adds_is_that_of_its_value():
    model, guard = guarded(300.0, lambda guard: Capped(guard, 0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    wanted = torch.autograd.grad(guard.penalty(), list(model.parameters()))
    model.zero_grad()
    guard.add_gradient(scale=2.0)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


def test_a_proximal_penalty_adds_nothing():
    model, guard = guarded(300.0, Proximal)
    model.zero_grad()
    guard.add_gradient()
    assert all(parameter.grad is None for parameter in model.parameters())
