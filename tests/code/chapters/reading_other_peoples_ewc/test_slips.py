"""Each slip computes what its docstring says, by the plainest loop; and the review finds each, and lets EWC pass."""

import copy
import math

import pytest
import torch
from by_hand import assert_same, assert_untouched, mean_over, squared_scores, whole_state
from ewc import EWC, KroneckerEWC, MemoryAwareSynapses, mlp
from ewc.chapters.reading_other_peoples_ewc import slips
from ewc.chapters.reading_other_peoples_ewc.slips import FISHERS, EWCWith, likeness, term
from ewc.review import CHECKS, learn, review
from torch import nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")
N = 10


def linear():
    return mlp((5, 4), inputs=6, classes=3, seed=1).double()


def convolution():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))


NETWORKS = {"linear": (linear, (6,)), "convolution": (convolution, (1, 4, 4))}


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network in train mode, inputs and targets."""
    build, shape = NETWORKS[request.param]
    draws = torch.Generator().manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # sure enough that the labels matter
    return model, torch.randn(N, *shape, generator=draws), torch.randint(3, (N,), generator=draws)


def gradient(model, value):
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(value, list(model.parameters())), strict=True))


def added(first, second):
    return second if first is None else {name: value + second[name] for name, value in first.items()}


def label_rows(labels):
    return torch.eye(3)[labels]


@pytest.mark.parametrize("name", ["exact", "empirical", "argmax", "p(y) · g²"])
def test_a_slip_of_the_label_is_the_weighted_mean_of_squares_that_it_says(case, name):
    model, inputs, targets = case
    squares, p = squared_scores(copy.deepcopy(model), inputs)
    weights = {
        "exact": p,
        "empirical": label_rows(targets),
        "argmax": label_rows(p.argmax(1)),
        "p(y) · g²": p * label_rows(targets),
    }[name]
    assert_same(FISHERS[name](model, inputs, targets), mean_over(squares, weights))


def test_p_times_g_squared_does_not_depend_on_how_many_images_are_held_in_memory(case):
    model, inputs, targets = case
    assert_same(slips.own_label_weighted(model, inputs, targets, batch_size=3), slips.own_label_weighted(*case))


def test_one_sampled_label_is_right_on_average_and_follows_torchs_own_seed(case):
    model, inputs, targets = case
    torch.manual_seed(3)
    draws = [slips.one_sampled_label(model, inputs, targets) for _ in range(1500)]
    torch.manual_seed(3)
    assert_same(slips.one_sampled_label(model, inputs, targets), draws[0])
    assert any(not torch.equal(draws[0][name], draws[1][name]) for name in draws[0])
    right = slips.exact(model, inputs)
    for name, value in right.items():
        values = torch.stack([draw[name] for draw in draws])
        error = values.std(0) / math.sqrt(len(values))
        assert ((values.mean(0) - value).abs() <= 5 * error + 1e-3 * value.max()).all(), name


@pytest.mark.parametrize("size", [1, 3, 5, N, 99])
def test_the_square_of_the_batch_mean_squares_after_the_mean(case, size):
    model, inputs, targets = case
    model_, squares, batches = copy.deepcopy(model).eval(), None, 0
    for start in range(0, N, size):
        mean = None
        rows = range(start, min(start + size, N))
        for row in rows:
            log_p = model_(inputs[row : row + 1]).log_softmax(1)[0, targets[row]]
            mean = added(mean, {name: value / len(rows) for name, value in gradient(model_, log_p).items()})
        squares, batches = added(squares, {name: value**2 for name, value in mean.items()}), batches + 1
    wanted = {name: value / batches for name, value in squares.items()}
    assert_same(slips.square_of_batch_mean(model, inputs, targets, batch_size=size), wanted)
    if size >= N:
        assert_same(slips.square_of_whole_mean(model, inputs, targets), wanted)
    if size == 1:
        assert_same(wanted, slips.empirical(model, inputs, targets))


@pytest.mark.parametrize("size", [1, 4, N])
def test_every_label_of_the_batch_pairs_each_image_with_each_label_and_squares_once(case, size):
    model, inputs, targets = case
    model_, mean = copy.deepcopy(model).eval(), None
    for row in range(N):
        batch = range(row // size * size, min(row // size * size + size, N))
        for other in batch:
            log_p = model_(inputs[row : row + 1]).log_softmax(1)[0, targets[other]]
            mean = added(mean, {name: value / N / len(batch) for name, value in gradient(model_, log_p).items()})
    wanted = {name: value**2 for name, value in mean.items()}
    assert_same(slips.every_label_of_the_batch(model, inputs, targets, batch_size=size), wanted)


@pytest.mark.parametrize("name", FISHERS)
def test_a_slip_leaves_the_model_as_it_was(case, name):
    model, inputs, targets = case
    model.train()
    cross_entropy(model(inputs), targets).backward()
    before = whole_state(model)
    FISHERS[name](model, inputs, targets)
    assert_untouched(before, whole_state(model))


def test_in_whatever_mode_a_pass_over_the_images_changes_the_buffers_and_in_eval_mode_it_is_the_empirical_fisher():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))
    inputs, targets = torch.randn(N, 1, 4, 4), torch.arange(N) % 3
    before = model[1].running_mean.clone()
    slips.in_whatever_mode(model, inputs, targets)
    # Ten images, each a batch of one: running ← .9 running + .1 (mean of the image).
    expected = before
    for image in inputs:
        expected = 0.9 * expected + 0.1 * model[0](image[None]).mean((0, 2, 3))
    torch.testing.assert_close(model[1].running_mean, expected)
    model.eval()
    assert_same(slips.in_whatever_mode(model, inputs, targets), slips.empirical(model, inputs, targets))


# ---- likeness


def test_the_scale_is_the_ratio_of_sums_and_the_order_that_of_the_rankings():
    right = {"a": torch.tensor([1.0, 2.0, 3.0, 0.0]), "b": torch.tensor([4.0])}
    found = {"a": torch.tensor([2.0, 4.0, 6.0, 100.0]), "b": torch.tensor([8.0])}
    # Where the exact is 0, order does not count.
    assert likeness(found, right) == (pytest.approx(12.0), pytest.approx(1.0))
    turned = {"a": torch.tensor([4.0, 3.0, 2.0, 0.0]), "b": torch.tensor([1.0])}
    assert likeness(turned, right) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_equal_values_share_the_mean_of_their_places():
    from scipy.stats import spearmanr

    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randint(1, 5, (40,), generator=draws).double() for _ in range(2))
    assert likeness({"a": a}, {"a": b}).order == pytest.approx(spearmanr(a, b).statistic, rel=1e-12)


# ---- penalties


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(20, 3), torch.arange(20) % 3


def moved(model, by=0.1):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by


def test_ewc_with_the_exact_fisher_is_ewc_over_two_tasks():
    model, inputs, targets = small()
    ours, theirs = EWCWith(model, 2.0, fisher=slips.exact), EWC(model, 2.0)
    for shift in (0.1, 0.3):
        for penalty in (ours, theirs):
            penalty.consolidate(inputs, targets)
        moved(model, shift)
        torch.testing.assert_close(ours.penalty(), theirs.penalty(), rtol=1e-12, atol=0)
    assert ours.penalty() > 0


def test_twice_the_strength_is_the_penalty_without_its_half():
    model, inputs, _ = small()
    twice = EWC(model, 2 * 3.0)
    twice.consolidate(inputs)
    fisher = slips.exact(model, inputs)
    moved(model)
    assert twice.penalty().item() == pytest.approx(3.0 * 0.1**2 * sum(float(value.sum()) for value in fisher.values()))


def test_a_term_is_a_state_of_ewc_with_the_anchor_at_the_present_weights():
    model, _, _ = small()
    importance = {name: torch.full_like(value, 2.0).detach() for name, value in model.named_parameters()}
    penalty = EWC(model, 1.0)
    penalty.load_state_dict(term(model, importance))
    assert penalty.penalty() == 0
    moved(model)
    count = sum(value.numel() for value in model.parameters())
    assert penalty.penalty().item() == pytest.approx(count * 0.1**2)


def test_overwritten_is_ewc_of_the_latest_task_alone():
    model, inputs, _ = small()
    penalty = slips.Overwritten(model, 1.0)
    penalty.consolidate(inputs)
    moved(model)
    latest = EWC(model, 1.0)
    for each in (penalty, latest):
        each.consolidate(inputs[:5])
    moved(model)
    assert penalty.penalty() == latest.penalty() > 0


def test_rebuilt_is_zero_again_after_so_many_steps():
    model, inputs, _ = small()
    penalty = slips.Rebuilt(model, 1.0, every=3)
    penalty.consolidate(inputs)
    values = []
    for _ in range(7):
        moved(model, 0.01)
        values.append(penalty.penalty().item())
    assert [value == 0 for value in values] == [False, False, False, True, False, False, True]


def test_the_same_tensor_as_its_own_anchor_gives_no_penalty_wherever_it_goes():
    model, inputs, _ = small()
    penalty = slips.SameTensor(model, 1e6)
    penalty.consolidate(inputs)
    moved(model)
    assert penalty.penalty() == 0


# ---- the review


def findings(make_penalty, **options):
    torch.set_default_dtype(torch.float32)  # as its readers run it
    try:
        found = review(make_penalty, **options)
    finally:
        torch.set_default_dtype(torch.float64)
    return {check.__name__: said for check, said in zip(CHECKS, found.values(), strict=True)}


def caught(make_penalty, **options):
    return {name for name, found in findings(make_penalty, **options).items() if found is not None}


RIGHT = {
    "EWC": EWC,
    "merged": lambda model: EWC(model, anchors="merged"),
    "online": lambda model: EWC(model, anchors="merged", decay=0.9),
    "sampled": lambda model: EWC(model, labels="sampled"),
    "with the exact": lambda model: EWCWith(model, fisher=slips.exact),
}
SLIPS = {
    "empirical": {"scale"},
    "argmax": {"scale"},
    "p(y) · g²": {"scale"},
    "batch mean, squared": {"scale", "one_image_at_a_time"},
    "whole mean, squared": {"scale", "one_image_at_a_time"},
    "B × B, squared": {"scale", "one_image_at_a_time"},
}
OTHERS = {
    "no half": (lambda model: EWC(model, 2.0), {"scale"}),
    "overwritten": (slips.Overwritten, {"third_task"}),
    "rebuilt": (lambda model: slips.Rebuilt(model, every=25), {"anchor_stays"}),
    "same tensor": (slips.SameTensor, {"pulls_back", "scale", "one_image_at_a_time", "third_task"}),
    "whatever mode": (lambda model: EWCWith(model, fisher=slips.in_whatever_mode), {"scale", "leaves_the_model"}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_review_finds_nothing_in(name):
    assert caught(RIGHT[name]) == set()


@pytest.mark.parametrize("name", SLIPS)
def test_the_review_finds_the_slip(name):
    assert caught(lambda model: EWCWith(model, fisher=FISHERS[name])) == SLIPS[name]


@pytest.mark.parametrize("name", OTHERS)
def test_the_review_finds_the_slip_outside_the_formula(name):
    make_penalty, wanted = OTHERS[name]
    assert caught(make_penalty) == wanted


def test_every_slip_is_tried_on_the_review():
    assert {*SLIPS, "exact", "one sampled label"} == FISHERS.keys()


def test_the_review_finds_the_slip_in_a_loop_that_is_handed_to_it():
    def loop(model, penalty, inputs, targets):
        learn(model, penalty, inputs, targets)
        penalty.consolidate(inputs, targets)  # before the old weights are put back: another anchor

    assert caught(EWC, learn=loop) == {"anchor_stays"}


def test_the_review_finds_a_penalty_that_is_looked_at_and_pulls_nothing():
    class Detached(EWC):
        def penalty(self):
            return super().penalty().detach()

    assert caught(Detached) == {"pulls_back"}


def test_the_review_finds_one_that_pushes():
    class Pushing(EWC):
        def penalty(self):
            value = super().penalty()
            return 2 * value.detach() - value

    assert caught(Pushing) == {"pulls_back"}


def test_the_review_finds_one_that_leaves_the_model_in_eval_mode_or_without_its_weights():
    class Evaluated(EWC):
        def consolidate(self, inputs, targets=None):
            super().consolidate(inputs)
            self.model.eval()

    assert caught(Evaluated) == {"leaves_the_model"}


def test_what_the_penalty_raises_is_a_finding():
    class Broken(EWC):
        def consolidate(self, inputs, targets=None):
            raise AttributeError("no such buffer")

    found = findings(Broken)
    assert found["scale"] == "AttributeError: no such buffer"


def test_penalties_that_are_no_fisher_are_found_by_their_scale_alone():
    assert caught(MemoryAwareSynapses) == {"scale"}
    assert "third_task" not in caught(KroneckerEWC)


def test_the_review_says_the_same_each_time_and_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    first = review(lambda model: EWC(model, 2.0))
    assert review(lambda model: EWC(model, 2.0)) == first
    assert torch.equal(torch.get_rng_state(), before)
