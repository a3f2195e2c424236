"""What every method that remembers must do, and must not, whatever its formula."""

import math

import pytest
import torch
from by_hand import assert_untouched, whole_state
from ewc import (
    EWC,
    L2,
    DarkReplay,
    Distillation,
    KroneckerEWC,
    MemoryAwareSynapses,
    Replay,
    SynapticIntelligence,
    Task,
    fit,
    learn_together,
    mlp,
)
from ewc.checks import OPTIONS
from safetensors.torch import load_file, save_file
from small_tasks import blobs
from test_penalties import data, move, network, nudge, values
from torch import nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")

QUADRATIC = {
    "EWC": EWC,
    "EWC merged": lambda m, s=1.0: EWC(m, s, anchors="merged", decay=0.5),
    "L2": L2,
    "SI": SynapticIntelligence,
    "MAS": MemoryAwareSynapses,
    "Kronecker": KroneckerEWC,
    "Kronecker added": lambda m, s=1.0: KroneckerEWC(m, s, factors="added", decay=0.5),
}
METHODS = {
    **QUADRATIC,
    "distillation": Distillation,
    "replay": lambda m, s=1.0: Replay(m, s, examples=4, batch_size=6),
    "dark replay": lambda m, s=1.0: DarkReplay(m, s, examples=4, batch_size=6),
}
DIAGONAL = [name for name in QUADRATIC if "Kronecker" not in name]
TARGETS = torch.arange(6) % 3


def in_float64(task):
    changed = {name: getattr(task, name).double() for name in ("train_inputs", "test_inputs")}
    return Task(**vars(task) | changed)


def value(penalty, inputs=None):
    return (
        penalty.penalty(data(9) if inputs is None else inputs)
        if hasattr(penalty, "needs_inputs")
        else penalty.penalty()
    )


def learn(penalty, task, steps=5, consolidate=True):
    """A few steps of plain training with the penalty in the loss, and then the task is kept."""
    optimizer = torch.optim.SGD(penalty.model.parameters(), 0.1)
    x = data(task)
    for _ in range(steps):
        optimizer.zero_grad()
        (cross_entropy(penalty.model(x), TARGETS) + value(penalty, x)).backward()
        optimizer.step()
    if consolidate:
        penalty.consolidate(x, TARGETS)
    return penalty


def gradient_of(penalty):
    return torch.autograd.grad(value(penalty), list(penalty.model.parameters()))


@pytest.mark.parametrize("name", METHODS)
def test_it_is_exactly_zero_before_the_first_task(name):
    penalty = METHODS[name](network())
    move(penalty.model, 1)
    assert value(penalty).shape == ()
    assert value(penalty).item() == 0.0
    assert not value(penalty).requires_grad


@pytest.mark.parametrize("name", [name for name in METHODS if name != "replay"])
def test_it_is_zero_with_zero_gradient_where_the_task_was_learned_and_above_zero_after_a_step(name):
    penalty = learn(METHODS[name](network()), 0)
    assert value(penalty).item() == pytest.approx(0, abs=1e-15)
    assert all(part.abs().max() < 1e-15 for part in gradient_of(penalty))
    learn(penalty, 1, steps=1, consolidate=False)
    assert value(penalty).item() > 1e-12
    assert any(part.abs().max() > 1e-9 for part in gradient_of(penalty))


@pytest.mark.parametrize("name", METHODS)
def test_it_is_proportional_to_its_strength(name):
    found = []
    for strength in (0.0, 1.5, 3.0):
        penalty = learn(METHODS[name](network(), 0.7), 0)
        move(penalty.model, 1)
        penalty.strength = strength
        found.append(value(penalty).item())
    assert found[0] == 0.0
    assert found[2] == pytest.approx(2 * found[1], rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("strength", [-1, math.nan, math.inf, "10", None])
def test_a_strength_that_is_none_is_refused(name, strength):
    with pytest.raises(ValueError, match=r"strength is .*; it must be a finite number of at least 0"):
        METHODS[name](network(), strength)


@pytest.mark.parametrize("name", METHODS)
def test_looking_at_a_task_changes_nothing_about_the_model(name):
    model = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5, affine="Kronecker" not in name), nn.Dropout(), nn.Linear(5, 3)
    )
    model.train()
    model[1].eval()
    penalty = METHODS[name](model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = whole_state(model)
    penalty.consolidate(data(0), TARGETS)
    value(penalty)
    assert_untouched(before, whole_state(model))
    assert len(list(model.parameters())) == len(before["parameters"])


@pytest.mark.parametrize("name", METHODS)
def test_what_was_kept_does_not_move_with_the_model(name):
    penalty = learn(METHODS[name](network()), 0)
    before = {key: kept.clone() for key, kept in penalty.state_dict().items()}
    move(penalty.model, 1)
    assert all(torch.equal(kept, before[key]) for key, kept in penalty.state_dict().items())


@pytest.mark.parametrize("name", ["EWC", "EWC merged", "MAS", "Kronecker", "Kronecker added"])
def test_three_tasks_later_the_first_is_still_remembered(name):
    # Three tasks that each look at an input of their own: only the first gives weight to input 0.
    model = nn.Linear(4, 3, bias=False)
    penalty = METHODS[name](model)
    for task in range(3):
        inputs = torch.zeros(5, 4)
        inputs[:, task] = 1
        nudge(model)
        penalty.consolidate(inputs)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert penalty.penalty().item() > 0.01
    with torch.no_grad():
        model.weight[0, 0] -= 1
        model.weight[0, 3] += 1  # no task ever saw this input
    assert penalty.penalty().item() == pytest.approx(0, abs=1e-15)


def test_three_tasks_later_the_first_is_still_remembered_by_the_path_of_its_weights():
    model = nn.Linear(4, 3, bias=False)
    penalty = SynapticIntelligence(model, damping=1e-3)
    for task in range(3):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        inputs = torch.zeros(6, 4)
        inputs[:, task] = 1
        for _ in range(5):
            optimizer.zero_grad()
            (cross_entropy(model(inputs), TARGETS * 0) + penalty.penalty()).backward()
            optimizer.step()
        penalty.consolidate()
    curvature = penalty.parabola()[1]["weight"]
    assert (curvature[:, :3] > 0.01).all()
    assert (curvature[:, 3] == 0).all()


@pytest.mark.parametrize("name", QUADRATIC)
@pytest.mark.parametrize("first", ["nothing", "a loss"])
def test_the_gradient_that_is_added_is_that_of_the_penalty(name, first):
    penalty = QUADRATIC[name](network(), 3.0)
    model = penalty.model
    for task in range(3):
        learn(penalty, task)
    move(model, 2)
    wanted = gradient_of(penalty)
    model.zero_grad()
    if first == "a loss":
        cross_entropy(model(data(3)), TARGETS).backward()
    start = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model[2].bias.requires_grad_(False)  # frozen since: it gets no gradient
    penalty.add_gradient()
    for parameter, before, gradient in zip(model.parameters(), start, wanted, strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, before + gradient, rtol=1e-10, atol=1e-12)
            assert not parameter.grad.requires_grad
    assert model[2].bias.grad is None or torch.equal(model[2].bias.grad, start[-1])


@pytest.mark.parametrize("name", QUADRATIC)
def test_before_the_first_task_no_gradient_is_added_and_nothing_curves(name):
    penalty = QUADRATIC[name](network())
    penalty.add_gradient()
    assert all(parameter.grad is None for parameter in penalty.model.parameters())
    assert penalty.largest_curvature() == 0


@pytest.mark.parametrize("name", QUADRATIC)
def test_gradient_is_that_of_the_value_by_finite_differences(name):
    penalty = QUADRATIC[name](network(), 3.0)
    for task in range(2):
        learn(penalty, task)
    move(penalty.model, 3)
    for parameter, gradient in zip(penalty.model.parameters(), gradient_of(penalty), strict=True):
        for place in (0, parameter.numel() // 2):
            found = []
            for step in (1e-4, -2e-4):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                found.append(penalty.penalty().item())
            with torch.no_grad():
                parameter.view(-1)[place] += 1e-4
            assert gradient.flatten()[place].item() == pytest.approx((found[0] - found[1]) / 2e-4, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", QUADRATIC)
def test_a_factor_in_front_of_the_penalty_reaches_its_gradient(name):
    penalty = learn(QUADRATIC[name](network(), 3.0), 0)
    move(penalty.model, 3)
    once, twice = gradient_of(penalty), torch.autograd.grad(-2 * penalty.penalty(), list(penalty.model.parameters()))
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(two, -2 * one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", QUADRATIC)
def test_half_precision_weights_can_be_held(name):
    model = network().bfloat16()
    penalty = QUADRATIC[name](model, 2.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (cross_entropy(model(data(0).bfloat16()), TARGETS) + penalty.penalty()).backward()
        optimizer.step()
    penalty.consolidate(data(0).bfloat16(), TARGETS)
    move(model, 1)
    penalty.penalty().backward()
    penalty.add_gradient()
    assert penalty.penalty().item() > 0
    assert all(parameter.grad.dtype == torch.bfloat16 for parameter in model.parameters())


# ---- one parabola


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("name", DIAGONAL)
def test_the_parabola_has_the_gradient_of_the_penalty(name, tasks):
    penalty = QUADRATIC[name](network(), 3.0)
    assert penalty.parabola() == ({}, {})
    for task in range(tasks):
        learn(penalty, task)
    move(penalty.model, 7)
    minimum, curvature = penalty.parabola()
    assert minimum.keys() == curvature.keys() == values(penalty.model).keys()
    for (key, now), gradient in zip(values(penalty.model).items(), gradient_of(penalty), strict=True):
        torch.testing.assert_close(curvature[key] * (now - minimum[key]), gradient, rtol=1e-9, atol=1e-13)
    assert max(part.max().item() for part in curvature.values()) == pytest.approx(penalty.largest_curvature())


def test_the_parabola_of_separate_anchors_stands_at_their_weighted_mean_or_where_nothing_curves_at_the_latest():
    model = nn.Linear(4, 3)
    penalty = EWC(model, 2.0)
    anchors, fishers = [], []
    for task in range(3):
        inputs = torch.zeros(5, 4)
        inputs[:, [0, task]] = 1  # the last input is seen by no task, the first by all, and two by one or two
        move(model, task)
        penalty.consolidate(inputs)
        anchors.append(model.weight.detach().clone())
        fishers.append(EWC(model))
        fishers[-1].consolidate(inputs)
    fishers = [each.state_dict()["0/importance/weight"] for each in fishers]
    minimum, curvature = (part["weight"] for part in penalty.parabola())
    total = sum(fishers)
    torch.testing.assert_close(curvature, 2 * total)
    wanted = sum(f * anchor for f, anchor in zip(fishers, anchors, strict=True))[:, :3] / total[:, :3]
    torch.testing.assert_close(minimum[:, :3], wanted, rtol=1e-10, atol=1e-12)
    assert (curvature[:, 3] == 0).all()
    assert torch.equal(minimum[:, 3], anchors[-1][:, 3])


def test_the_parabola_knows_only_what_a_task_held():
    model = network()
    model[0].requires_grad_(False)
    penalty = EWC(model)
    penalty.consolidate(data(0))
    assert penalty.parabola()[0].keys() == {"2.weight", "2.bias"}
    model[0].requires_grad_(True)
    penalty.consolidate(data(1))
    assert torch.equal(penalty.parabola()[0]["0.weight"], model[0].weight)


def test_online_ewc_is_the_recursion_of_schwarz():
    # F*ₜ = γ F*ₜ₋₁ + Fₜ, one anchor, the latest: equations 8 and 9 of their paper
    penalty = EWC(network(), 5.0, anchors="merged", decay=0.7)
    importance = {name: torch.zeros_like(part) for name, part in values(penalty.model).items()}
    for task in range(4):
        move(penalty.model, task)
        alone = EWC(penalty.model)
        alone.consolidate(data(task))
        penalty.consolidate(data(task))
        for name in importance:
            importance[name] = 0.7 * importance[name] + alone.state_dict()[f"0/importance/{name}"]
        minimum, curvature = penalty.parabola()
        for name, now in values(penalty.model).items():
            torch.testing.assert_close(curvature[name], 5 * importance[name], rtol=1e-12, atol=0)
            assert torch.equal(minimum[name], now)


# ---- kept on disk


@pytest.mark.parametrize("way", ["safetensors", "torch.save"])
@pytest.mark.parametrize("name", METHODS)
def test_a_state_that_was_saved_comes_back_as_it_was(name, way, tmp_path):
    penalty = METHODS[name](network(), 3.0)
    for task in range(3):
        learn(penalty, task)
    learn(penalty, 3, consolidate=False)  # in the middle of a task
    file = tmp_path / "memory"
    if way == "safetensors":
        save_file(penalty.state_dict(), file)
        state = load_file(file)
    else:
        torch.save(penalty.state_dict(), file)
        state = torch.load(file, weights_only=True)
    twin = METHODS[name](network(), 3.0)
    twin.model.load_state_dict(penalty.model.state_dict())
    twin.load_state_dict(state)
    wanted = value(penalty).item()
    assert value(twin).item() == pytest.approx(wanted, rel=1e-10)
    assert wanted > 0
    for each in (twin, penalty):
        learn(each, 3)
        learn(each, 4, consolidate=False)
    wanted = value(penalty).item()
    assert value(twin).item() == pytest.approx(wanted, rel=1e-10)
    assert wanted > 0
    for one, other in zip(twin.model.parameters(), penalty.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_a_loaded_state_shares_no_memory_with_the_giver(name):
    giver, taker = learn(METHODS[name](network()), 0), METHODS[name](network())
    state = giver.state_dict()
    taker.load_state_dict(state)
    before = {key: kept.clone() for key, kept in taker.state_dict().items()}
    for kept in state.values():
        kept.zero_()
    assert all(torch.equal(kept, before[key]) for key, kept in taker.state_dict().items())


@pytest.mark.parametrize("name", [name for name in METHODS if "replay" not in name])
def test_the_empty_state_of_before_the_first_task_may_be_loaded(name):
    penalty = METHODS[name](network())
    assert penalty.state_dict() == {}
    learn(penalty, 0)
    penalty.load_state_dict({})
    move(penalty.model, 1)
    assert value(penalty).item() == 0.0


@pytest.mark.parametrize("name", [name for name in METHODS if "replay" not in name])
@pytest.mark.parametrize("width", [6, 2])
def test_a_state_of_another_model_is_refused_and_changes_nothing(name, width):
    other = learn(METHODS[name](nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))), 0)
    penalty = learn(METHODS[name](network()), 0)
    move(penalty.model, 1)
    before = value(penalty).item()
    for state in (other.state_dict(), {"anchor/elsewhere.weight": torch.zeros(2), "weight": torch.zeros(2)}):
        with pytest.raises(ValueError, match="state"):
            penalty.load_state_dict(state)
    assert value(penalty).item() == before


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("state", [None, [], "a file", torch.zeros(2)])
def test_a_state_that_is_no_dictionary_is_refused(name, state):
    with pytest.raises(TypeError, match="state is"):
        METHODS[name](network()).load_state_dict(state)


@pytest.mark.parametrize("name", [name for name in METHODS if "replay" not in name])
def test_a_state_of_whole_numbers_is_refused(name):
    penalty = learn(METHODS[name](network()), 0)
    state, before = penalty.state_dict(), value(penalty).item()
    for key in (key for key in state if "head/" not in key and state[key].is_floating_point()):
        with pytest.raises(ValueError, match=r"state .*" if name == "distillation" else r"state (has torch.int64|holds a value)"):
            penalty.load_state_dict(state | {key: state[key].long()})
    assert value(penalty).item() == before


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("replay", "dark replay", "distillation")])
def test_a_state_with_importances_that_push_is_refused(name):
    """A negative importance would drive weights away from θ*, and a factor that is not semi-definite some of its directions."""
    penalty = learn(METHODS[name](network()), 0)
    state, before = penalty.state_dict(), value(penalty).item()
    for key in (key for key in state if "importance/" in key or key.startswith(("inputs/", "outputs/"))):
        if state[key].ndim > 1:
            with pytest.raises(ValueError, match=r"state has (a negative importance|factors of .* that are not symmetric)"):
                penalty.load_state_dict(state | {key: -1 - state[key]})
            if key.startswith(("inputs/", "outputs/")):
                with pytest.raises(ValueError, match="not symmetric and positive"):
                    penalty.load_state_dict(state | {key: state[key] + torch.ones_like(state[key]).triu(1)})
    assert value(penalty).item() == before


@pytest.mark.parametrize("name", [name for name in METHODS if "replay" not in name])
def test_a_state_that_lacks_a_part_or_is_not_finite_is_refused(name):
    penalty = learn(METHODS[name](network()), 0)
    move(penalty.model, 1)
    state, before = penalty.state_dict(), value(penalty).item()
    for key in state:
        if key not in ("head/0",) and state[key].is_floating_point():
            with pytest.raises(ValueError, match="state"):
                penalty.load_state_dict(state | {key: torch.full_like(state[key], math.nan)})
        if key != OPTIONS:  # what was kept before there were options has none
            with pytest.raises(ValueError, match="state"):
                penalty.load_state_dict({other: kept for other, kept in state.items() if other != key})
    assert value(penalty).item() == before


@pytest.mark.parametrize("name", ["EWC", "MAS", "Kronecker", "Kronecker added"])
def test_a_consolidation_that_fails_changes_nothing(name):
    penalty = learn(METHODS[name](network()), 0)
    move(penalty.model, 1)
    before = value(penalty).item()
    with pytest.raises(ValueError):
        penalty.consolidate(data(1) * math.nan, TARGETS)
    assert value(penalty).item() == before


# ---- trained by the book's own loops


@pytest.mark.parametrize("name", METHODS)
def test_side_by_side_it_is_what_it_is_alone(name):
    def ready(seed):
        model = mlp((6,), inputs=4, classes=3, seed=seed).double()
        return model, METHODS[name](model, 0.5)

    # whole numbers of batches, so that both loops see the same images
    sequence = [in_float64(blobs(f"task {shift}", shift, seed=shift)) for shift in (0, 1, 2)]
    options = {"steps": 8, "batch_size": 30, "learning_rate": 0.05}
    alone = [ready(seed) for seed in (0, 1)]
    for seed, (model, penalty) in enumerate(alone):
        for place, task in enumerate(sequence):
            fit(model, task, penalty=penalty, seed=seed * 1000 + place, **options)
            if place < 2:
                penalty.consolidate(task.train_inputs, task.train_targets)
    beside = [ready(seed) for seed in (0, 1)]
    learn_together(
        [model for model, _ in beside],
        [sequence, sequence],
        penalties=[penalty for _, penalty in beside],
        seeds=(0, 1),
        **options,
    )
    for (one, guard), (other, twin) in zip(alone, beside, strict=True):
        for first, second in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-11)
        # and what it has seen of the last task, which Synaptic Intelligence will need
        state, wanted = twin.state_dict(), guard.state_dict()
        assert state.keys() == wanted.keys()
        for key, kept in wanted.items():
            torch.testing.assert_close(state[key], kept, rtol=1e-7, atol=1e-10)
