"""EWC and L2: the formula, its gradient, what is remembered, what is kept on disk, what is refused."""

import math

import pytest
import torch
from by_hand import Function, assert_untouched, squared_scores, whole_state
from ewc import EWC, L2, diagonal_fisher
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")


def network(seed=0, inputs=4, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, classes)).double()


def data(seed, n=6):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def move(model, seed, size=0.3):
    """Stands for training: other weights, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def nudge(model):
    """Weights that are others by a hair: two tasks at next to one place."""
    move(model, 123, 1e-9)


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def learned(penalty, tasks=3):
    """A penalty that has consolidated some tasks at different weights; what a loop remembers of them: [(θ*, F), …]."""
    memory = []
    for task in range(tasks):
        move(penalty.model, task)
        squares, p = squared_scores(penalty.model, data(task))
        fisher = {name: torch.einsum("nc,nc...->...", p, value) / len(p) for name, value in squares.items()}
        memory.append((values(penalty.model), fisher))
        penalty.consolidate(data(task))
    move(penalty.model, tasks)
    return memory


def by_formula(model, strength, memory, anchors, decay):
    total, now = 0.0, values(model)
    for task, (anchor, fisher) in enumerate(memory):
        faded = decay ** (len(memory) - 1 - task)
        kept = memory[-1][0] if anchors == "merged" else anchor
        for name, value in now.items():
            for f, distance in zip(fisher[name].flatten(), (value - kept[name]).flatten(), strict=True):
                total += strength / 2 * faded * float(f) * float(distance) ** 2
    return total


def gradient(penalty):
    return torch.autograd.grad(penalty.penalty(), list(penalty.model.parameters()))


# ---- the formula


@pytest.mark.parametrize("decay", [1.0, 0.6])
@pytest.mark.parametrize("anchors", ["separate", "merged"])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_penalty_is_half_lambda_times_the_fisher_weighted_squares(anchors, decay, tasks):
    penalty = EWC(network(), 7.0, anchors=anchors, decay=decay)
    memory = learned(penalty, tasks)
    wanted = by_formula(penalty.model, 7.0, memory, anchors, decay)
    assert penalty.penalty().shape == ()
    assert penalty.penalty().item() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("decay", [1.0, 0.6])
@pytest.mark.parametrize("anchors", ["separate", "merged"])
def test_gradient_is_lambda_fisher_distance(anchors, decay):
    penalty = EWC(network(), 7.0, anchors=anchors, decay=decay)
    memory = learned(penalty)
    now = values(penalty.model)
    for name, found in zip(now, gradient(penalty), strict=True):
        wanted = sum(
            7
            * decay ** (2 - task)
            * fisher[name]
            * (now[name] - (memory[-1][0] if anchors == "merged" else anchor)[name])
            for task, (anchor, fisher) in enumerate(memory)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("first", ["nothing", "a loss"])
@pytest.mark.parametrize(
    "maker", [lambda m: EWC(m, 3.0), lambda m: EWC(m, 3.0, anchors="merged", decay=0.5), lambda m: L2(m, 3.0)]
)
def test_the_gradient_that_is_added_is_that_of_the_penalty(maker, first, dtype):
    model = network().to(dtype)
    penalty = maker(model)
    for task in range(2):
        move(model, task)
        penalty.consolidate(data(task).to(dtype))
    move(model, 2)
    model[2].bias.requires_grad_(False)  # frozen since: it gets no gradient
    (penalty.penalty() + (model(data(3).to(dtype)).square().mean() if first == "a loss" else 0)).backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    if first == "a loss":
        model(data(3).to(dtype)).square().mean().backward()
    penalty.add_gradient()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            tolerance = 1e-12 if dtype == torch.float64 else 0.02
            torch.testing.assert_close(parameter.grad, gradient, rtol=tolerance, atol=tolerance)
            assert not parameter.grad.requires_grad
    assert model[2].bias.grad is None


def test_before_the_first_task_no_gradient_is_added():
    penalty = EWC(network())
    penalty.add_gradient()
    assert all(parameter.grad is None for parameter in penalty.model.parameters())


@pytest.mark.parametrize(
    "maker", [lambda m: EWC(m, 3.0), lambda m: EWC(m, 3.0, anchors="merged", decay=0.5), lambda m: L2(m, 3.0)]
)
def test_gradient_passes_finite_differences(maker):
    model = network()
    penalty = maker(model)
    learned(penalty, 2)

    def value(*parameters):
        return _value_at(penalty, model, parameters)

    parameters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(value, parameters)
    # and with another factor in front, as a loss may have
    assert torch.autograd.gradcheck(lambda *p: -2.5 * value(*p), parameters)


def _value_at(penalty, model, parameters):
    class Elsewhere:
        """The model with these tensors for parameters."""

        def named_parameters(self):
            return zip(dict(model.named_parameters()), parameters, strict=True)

    original, penalty.model = penalty.model, Elsewhere()
    try:
        return penalty.penalty()
    finally:
        penalty.model = original


@settings(max_examples=20, deadline=None)
@given(strength=st.floats(0, 1e6), factor=st.floats(0.1, 10), seed=st.integers(0, 50))
def test_penalty_is_linear_in_lambda_and_quadratic_in_the_distance(strength, factor, seed):
    model = network(seed)
    penalty = EWC(model, strength)
    penalty.consolidate(data(seed))
    start = values(model)
    move(model, seed + 1)
    once = penalty.penalty().item()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name] + factor * (parameter - start[name]))
    assert penalty.penalty().item() == pytest.approx(factor**2 * once, rel=1e-9)
    assert once >= 0
    penalty.strength = 2 * strength
    assert penalty.penalty().item() == pytest.approx(2 * factor**2 * once, rel=1e-9)


def test_one_task_is_the_same_separate_merged_or_with_decay():
    found = []
    for options in ({}, {"anchors": "merged"}, {"decay": 0.5}, {"anchors": "merged", "decay": 0.5}):
        penalty = EWC(network(), 2.0, **options)
        learned(penalty, 1)
        found.append(penalty.penalty().item())
    assert found == pytest.approx([found[0]] * 4, rel=1e-12)


def test_merged_counts_two_tasks_learned_at_one_place_as_separate_does():
    found = []
    for anchors in ("separate", "merged"):
        penalty = EWC(network(), 2.0, anchors=anchors)
        penalty.consolidate(data(0))
        nudge(penalty.model)
        penalty.consolidate(data(1))
        move(penalty.model, 9)
        found.append(penalty.penalty().item())
    assert found[0] == pytest.approx(found[1], rel=1e-7)


@pytest.mark.parametrize("labels", ["exact", "empirical", "argmax"])
def test_importance_is_the_diagonal_fisher_of_the_labels_asked_for(labels):
    penalty = EWC(network(), labels=labels)
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    penalty.consolidate(data(0), targets)
    wanted = diagonal_fisher(penalty.model, data(0), targets, labels=labels)
    for name, value in wanted.items():
        torch.testing.assert_close(penalty.state_dict()[f"0/importance/{name}"], value)


def test_max_examples_takes_them_evenly_over_those_given():
    penalty = EWC(network(), labels="empirical", max_examples=3)
    x, y = data(0, 9), torch.arange(9) % 3
    penalty.consolidate(x, y)
    wanted = diagonal_fisher(penalty.model, x[[0, 4, 8]], y[[0, 4, 8]], labels="empirical")
    torch.testing.assert_close(penalty.state_dict()["0/importance/0.weight"], wanted["0.weight"])
    whole = EWC(penalty.model, labels="empirical", max_examples=100)
    whole.consolidate(x, y)
    wanted = diagonal_fisher(penalty.model, x, y, labels="empirical")
    torch.testing.assert_close(whole.state_dict()["0/importance/0.weight"], wanted["0.weight"])


# ---- where it is 0 and where it is not


@pytest.mark.parametrize("maker", [EWC, L2, lambda m: EWC(m, anchors="merged")])
def test_penalty_is_exactly_zero_before_the_first_task(maker):
    model = network()
    move(model, 1)
    penalty = maker(model)
    assert penalty.penalty().item() == 0.0
    assert penalty.largest_curvature() == 0.0
    loss = model(data(0)).sum() + penalty.penalty()
    loss.backward()


@pytest.mark.parametrize("maker", [EWC, L2, lambda m: EWC(m, anchors="merged")])
def test_penalty_and_its_gradient_are_exactly_zero_at_the_anchor(maker):
    penalty = maker(network())
    penalty.consolidate(data(0))
    assert penalty.penalty().item() == 0.0
    assert all((part == 0).all() for part in gradient(penalty))


@pytest.mark.parametrize("maker", [EWC, L2, lambda m: EWC(m, anchors="merged")])
def test_penalty_is_above_zero_after_one_step(maker):
    penalty = maker(network())
    penalty.consolidate(data(0))
    optimizer = torch.optim.SGD(penalty.model.parameters(), 0.1)
    (nn.functional.cross_entropy(penalty.model(data(1)), torch.arange(6) % 3) + penalty.penalty()).backward()
    optimizer.step()
    assert penalty.penalty().item() > 0
    assert all(part.abs().max() > 0 for part in gradient(penalty))


def test_a_step_down_the_penalty_leads_towards_the_anchor():
    penalty = EWC(network())
    penalty.consolidate(data(0))
    move(penalty.model, 1)
    before = penalty.penalty().item()
    optimizer = torch.optim.SGD(penalty.model.parameters(), 1 / penalty.largest_curvature())
    penalty.penalty().backward()
    optimizer.step()
    assert penalty.penalty().item() < before


# ---- what is remembered


@pytest.mark.parametrize("anchors", ["separate", "merged"])
def test_a_third_task_still_remembers_the_first(anchors):
    # Three tasks that each look at an input of their own: only the first gives weight to input 0.
    model = nn.Linear(4, 3)
    penalty = EWC(model, anchors=anchors)
    for task in range(3):
        inputs = torch.zeros(5, 4)
        inputs[:, task] = 1
        nudge(model)
        penalty.consolidate(inputs)
    at_rest = penalty.penalty().item()
    with torch.no_grad():
        model.weight[:, 0] += 1
    assert penalty.penalty().item() > at_rest
    with torch.no_grad():
        model.weight[:, 0] -= 1
        model.weight[:, 3] += 1  # no task ever saw this input
    assert penalty.penalty().item() == pytest.approx(at_rest, abs=1e-15)


def test_what_decay_leaves_of_the_first_task():
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)  # so that the three tasks weigh the same
    penalty = EWC(model, anchors="merged", decay=0.5)
    for task in range(3):
        inputs = torch.zeros(5, 4)
        inputs[:, task] = 1
        nudge(model)
        penalty.consolidate(inputs)
    importance = penalty.state_dict()["0/importance/weight"][0]
    torch.testing.assert_close(importance[:3] / importance[2], torch.tensor([0.25, 0.5, 1.0]))


def test_merged_memory_does_not_grow_and_separate_grows_by_a_task():
    def numbers(penalty):
        return sum(value.numel() for value in penalty.state_dict().values() if value.is_floating_point())

    merged, separate = EWC(network(), anchors="merged"), EWC(network())
    sizes = []
    for task in range(4):
        for penalty in (merged, separate):
            nudge(penalty.model)
            penalty.consolidate(data(task))
        sizes.append((numbers(merged), numbers(separate)))
    weights = sum(parameter.numel() for parameter in network().parameters())
    assert sizes == [(2 * weights, 2 * weights * (task + 1)) for task in range(4)]


def test_the_anchor_is_a_copy_that_training_does_not_move():
    penalty = EWC(network())
    penalty.consolidate(data(0))
    before = {name: value.clone() for name, value in penalty.state_dict().items()}
    move(penalty.model, 1)
    assert all(torch.equal(value, before[name]) for name, value in penalty.state_dict().items())


def test_a_head_added_after_the_task_is_free():
    model = Function(lambda m, x: m.heads[m.task](m.body(x)), body=nn.Linear(4, 5), heads=nn.ModuleDict())
    model.heads["a"], model.task = nn.Linear(5, 3), "a"
    penalty = EWC(model, anchors="merged")
    penalty.consolidate(data(0))
    model.heads["b"], model.task = nn.Linear(5, 2), "b"
    with torch.no_grad():
        model.heads["b"].weight += 1
    assert penalty.penalty().item() == 0.0
    penalty.consolidate(data(1))  # now both are held
    with torch.no_grad():
        model.heads["b"].weight += 1
    assert penalty.penalty().item() > 0
    with torch.no_grad():
        model.heads["b"].weight -= 1
        model.heads["a"].weight += 1
    assert penalty.penalty().item() > 0


@pytest.mark.parametrize("anchors", ["separate", "merged"])
def test_a_layer_frozen_for_one_task_is_still_held_when_it_thaws(anchors):
    model = network()
    penalty = EWC(model, anchors=anchors)
    penalty.consolidate(data(0))
    model[0].requires_grad_(False)
    nudge(model[2])
    penalty.consolidate(data(1))
    model[0].requires_grad_(True)
    nudge(model[2])
    penalty.consolidate(data(2))
    fisher = [diagonal_fisher(model, data(task))["0.weight"] for task in (0, 2)]
    with torch.no_grad():
        model[0].weight += 1
    assert penalty.penalty().item() == pytest.approx((fisher[0] + fisher[1]).sum().item() / 2, rel=1e-6)


@pytest.mark.parametrize("anchors", ["separate", "merged"])
def test_a_layer_that_was_frozen_at_the_task_is_free(anchors):
    model = network()
    model[0].requires_grad_(False)
    penalty = EWC(model, anchors=anchors)
    penalty.consolidate(data(0))
    model[0].requires_grad_(True)
    move(model[0], 1)
    assert penalty.penalty().item() == 0.0


def test_half_precision_weights_can_be_held():
    model = network().bfloat16()
    penalty = EWC(model, 2.0)
    penalty.consolidate(data(0).bfloat16())
    move(model, 1)
    penalty.penalty().backward()
    assert penalty.penalty().item() > 0
    assert all(parameter.grad.dtype == torch.bfloat16 for parameter in model.parameters())


@pytest.mark.parametrize("bad", ["NaN inputs", "no targets"])
@pytest.mark.parametrize("anchors", ["separate", "merged"])
def test_a_consolidation_that_fails_changes_nothing(anchors, bad):
    penalty = EWC(network(), anchors=anchors, decay=0.5, labels="empirical")
    penalty.consolidate(data(0), torch.zeros(6).long())
    move(penalty.model, 1)
    state, before = penalty.state_dict(), penalty.penalty().item()
    state = {name: value.clone() for name, value in state.items()}
    with pytest.raises(ValueError):
        if bad == "NaN inputs":
            penalty.consolidate(data(1) * float("nan"), torch.zeros(6).long())
        else:
            penalty.consolidate(data(1))
    assert penalty.penalty().item() == before
    assert state.keys() == penalty.state_dict().keys()
    assert all(torch.equal(value, penalty.state_dict()[name]) for name, value in state.items())


def test_consolidate_and_penalty_leave_the_model_alone():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)).train()
    model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = whole_state(model)
    penalty = EWC(model)
    penalty.consolidate(data(0))
    penalty.penalty()
    assert_untouched(before, whole_state(model))


# ---- kept on disk


def same(one, other):
    """What they keep is the same to the last bit. Their value need not be: a sum's rounding depends on where the numbers lie."""
    kept, wanted = one.state_dict(), other.state_dict()
    assert kept.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in kept.items())
    assert one.penalty().item() == pytest.approx(other.penalty().item(), rel=1e-13)
    assert one.penalty().item() > 0



@pytest.mark.parametrize("way", ["safetensors", "torch.save"])
@pytest.mark.parametrize("maker", [EWC, lambda m, s: EWC(m, s, anchors="merged", decay=0.5), L2])
def test_a_state_that_was_saved_comes_back_as_it_was(maker, way, tmp_path):
    penalty = maker(network(), 3.0)
    learned(penalty, 3)
    file = tmp_path / "memory"
    if way == "safetensors":
        save_file(penalty.state_dict(), file)
        state = load_file(file)
    else:
        torch.save(penalty.state_dict(), file)
        state = torch.load(file, weights_only=True)
    twin = maker(network(), 3.0)
    twin.model.load_state_dict(penalty.model.state_dict())
    twin.load_state_dict(state)
    same(twin, penalty)
    move(twin.model, 77)
    move(penalty.model, 77)
    twin.consolidate(data(8))
    penalty.consolidate(data(8))
    move(twin.model, 78)
    move(penalty.model, 78)
    same(twin, penalty)


def test_more_than_ten_tasks_come_back_in_their_order():
    penalty = EWC(network(), decay=0.5)
    for task in range(12):
        move(penalty.model, task)
        penalty.consolidate(data(task))
    twin = EWC(network(), decay=0.5)
    state = penalty.state_dict()
    twin.load_state_dict({name: state[name] for name in sorted(state)})
    move(penalty.model, 99)
    twin.model.load_state_dict(penalty.model.state_dict())
    assert twin.penalty().item() == pytest.approx(penalty.penalty().item(), rel=1e-12)
    assert all(torch.equal(value, state[name]) for name, value in twin.state_dict().items())
    assert twin.state_dict().keys() == state.keys()


def test_a_state_of_before_the_first_task_is_empty_and_may_be_loaded():
    penalty = EWC(network())
    assert penalty.state_dict() == {}
    penalty.consolidate(data(0))
    penalty.load_state_dict({})
    move(penalty.model, 1)
    assert penalty.penalty().item() == 0.0


def test_a_loaded_state_does_not_share_memory_with_the_file_or_the_giver():
    giver, taker = EWC(network()), EWC(network())
    giver.consolidate(data(0))
    state = giver.state_dict()
    taker.load_state_dict(state)
    for value in state.values():
        value.zero_()
    move(taker.model, 1)
    assert taker.penalty().item() > 0


def changed(maker, **changes):
    penalty = maker(network())
    penalty.consolidate(data(0))
    state = penalty.state_dict() | {
        name.replace("__", "/").replace("_w", ".w"): value for name, value in changes.items()
    }
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"0__anchor__9_weight": torch.zeros(2)}, ["another model", "0/anchor/9.weight"]),
        ({"0__anchor__0_weight": torch.zeros(5, 3)}, ["another model", "'0.weight'", "(5, 3)", "(5, 4)"]),
        ({"0__anchor__0_weight": None}, ["incomplete", "'0.weight'"]),
        ({"0__importance__2_weight": None}, ["incomplete", "task 0", "'2.weight'"]),
        ({"0__importance__0_weight": torch.full((5, 4), torch.inf)}, ["not finite", "0/importance/0.weight"]),
        ({"0__memory__0_weight": torch.zeros(5, 4)}, ["another model", "0/memory/0.weight"]),
        ({"first__anchor__0_weight": torch.zeros(5, 4)}, ["another model", "first/anchor"]),
        ({"weight": torch.zeros(5, 4)}, ["another model", "'weight'"]),
    ],
)
@pytest.mark.parametrize("maker", [EWC, L2])
def test_a_state_of_another_model_is_refused_by_name_and_changes_nothing(maker, changes, words):
    penalty = maker(network())
    learned(penalty, 1)
    before = penalty.penalty().item()
    with pytest.raises(ValueError) as refusal:
        penalty.load_state_dict(changed(maker, **changes))
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert penalty.penalty().item() == before


def test_merged_refuses_several_anchors_and_separate_takes_the_merged_one():
    separate, merged = EWC(network()), EWC(network(), anchors="merged")
    learned(separate, 3)
    learned(merged, 3)
    with pytest.raises(ValueError, match=r"state has 3 anchors; anchors='merged' keeps one"):
        merged.load_state_dict(separate.state_dict())
    separate.load_state_dict(merged.state_dict())
    assert separate.penalty().item() == merged.penalty().item()


# ---- the steepest curvature


@pytest.mark.parametrize("options", [{}, {"decay": 0.5}, {"anchors": "merged"}])
def test_largest_curvature_is_the_largest_entry_of_the_penaltys_hessian(options):
    penalty = EWC(network(), 7.0, **options)
    memory = learned(penalty)
    decay = options.get("decay", 1)
    sums = {name: sum(decay ** (2 - task) * f[name] for task, (_, f) in enumerate(memory)) for name in memory[0][1]}
    assert penalty.largest_curvature() == pytest.approx(
        7 * max(value.max().item() for value in sums.values()), rel=1e-10
    )


def test_largest_curvature_of_l2_is_its_strength():
    penalty = L2(network(), 4.0)
    learned(penalty, 2)
    assert penalty.largest_curvature() == 4.0


# ---- L2


def test_l2_holds_every_weight_equally_at_the_latest_anchor():
    penalty = L2(network(), 3.0)
    memory = learned(penalty, 3)
    now = values(penalty.model)
    wanted = 1.5 * sum(((now[name] - memory[-1][0][name]) ** 2).sum().item() for name in now)
    assert penalty.penalty().item() == pytest.approx(wanted, rel=1e-12)


def test_l2_needs_no_data():
    penalty = L2(network())
    penalty.consolidate()
    move(penalty.model, 1)
    assert penalty.penalty().item() > 0


# ---- what is refused


@pytest.mark.parametrize("maker", [EWC, L2])
@pytest.mark.parametrize("strength", [-1, -1e-9, math.nan, math.inf, -math.inf, "10", None])
def test_a_strength_that_is_negative_not_finite_or_no_number_is_refused(maker, strength):
    with pytest.raises(ValueError, match=r"strength is .*; it must be a finite number of at least 0"):
        maker(network(), strength)


def test_strength_zero_is_no_penalty():
    penalty = EWC(network(), 0)
    learned(penalty, 1)
    assert penalty.penalty().item() == 0.0
    assert all((part == 0).all() for part in gradient(penalty))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anchors": "both"}, ["anchors is 'both'", "'separate'", "'merged'"]),
        ({"decay": 0}, ["decay is 0", "above 0", "at most 1"]),
        ({"decay": 1.1}, ["decay is 1.1"]),
        ({"decay": math.nan}, ["decay is nan"]),
        ({"labels": "true"}, ["labels is 'true'", "'exact'", "'empirical'"]),
        ({"max_examples": 0}, ["max_examples is 0", "at least 1"]),
    ],
)
def test_other_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as refusal:
        EWC(network(), **options)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_learning_task_b_with_ewc_keeps_task_a():
    """The whole point, in the smallest: two tasks on two inputs of one linear model, learned to their ends."""
    torch.manual_seed(0)
    a, b = torch.randn(200, 4), torch.randn(200, 4)
    targets_a, targets_b = (a[:, 0] > 0).long(), (b[:, 1] > 0).long()

    def right_on_a(strength):
        torch.manual_seed(1)
        model = nn.Linear(4, 2)
        penalty = EWC(model, strength)
        optimizer = torch.optim.SGD(model.parameters(), 0.3)
        for inputs, targets in ((a, targets_a), (b, targets_b)):
            for _ in range(150):
                optimizer.zero_grad()
                (nn.functional.cross_entropy(model(inputs), targets) + penalty.penalty()).backward()
                optimizer.step()
            penalty.consolidate(inputs)
        return (model(a).argmax(1) == targets_a).double().mean().item()

    assert right_on_a(30) > 0.9 > 0.85 > right_on_a(0)
