"""The numbers of continual learning, worked by hand, and the overlap of two Fishers."""

import math

import pytest
import torch
from ewc import AccuracyMatrix, fisher_overlap
from hypothesis import given, settings
from hypothesis import strategies as st

HAND = [
    [0.9, 0.2, 0.1],
    [0.6, 0.8, 0.3],
    [0.5, 0.9, 0.7],
]


def test_average_is_the_mean_of_the_last_row():
    assert AccuracyMatrix(HAND).average() == pytest.approx((0.5 + 0.9 + 0.7) / 3)


def test_backward_transfer_is_the_change_since_each_task_was_learned():
    assert AccuracyMatrix(HAND).backward_transfer() == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)


def test_forward_transfer_is_the_gain_over_an_untrained_network_before_learning():
    found = AccuracyMatrix(HAND).forward_transfer([0.15, 0.05, 0.2])
    assert found == pytest.approx(((0.2 - 0.05) + (0.3 - 0.2)) / 2)


def test_forgetting_is_the_fall_from_the_best_before_the_last_task():
    assert AccuracyMatrix(HAND).forgetting() == pytest.approx(((0.9 - 0.5) + (0.8 - 0.9)) / 2)


def test_forgetting_looks_at_all_earlier_tasks_not_at_the_diagonal_alone():
    values = [[0.7, 0, 0], [0.9, 0.8, 0], [0.4, 0.8, 0.8]]
    assert AccuracyMatrix(values).forgetting() == pytest.approx(((0.9 - 0.4) + 0) / 2)
    assert AccuracyMatrix(values).backward_transfer() == pytest.approx(((0.4 - 0.7) + 0) / 2)


@pytest.mark.parametrize("values", [torch.tensor(HAND), HAND, torch.tensor(HAND).numpy(), [[1]]])
def test_values_may_be_a_tensor_a_list_or_an_array(values):
    matrix = AccuracyMatrix(values)
    assert matrix.values.dtype == torch.float64
    assert 0 <= matrix.average() <= 1


square = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)
)


@settings(max_examples=60, deadline=None)
@given(square)
def test_all_numbers_stay_in_their_ranges_and_forgetting_is_at_least_the_loss(values):
    matrix = AccuracyMatrix(values)
    assert 0 <= matrix.average() <= 1
    assert -1 <= matrix.backward_transfer() <= 1
    assert -1 <= matrix.forgetting() <= 1
    assert -1 <= matrix.forward_transfer([0.5] * len(values)) <= 1
    assert matrix.forgetting() >= -matrix.backward_transfer() - 1e-12  # the best is at least the value on the diagonal


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_what_never_changes_is_neither_forgotten_nor_transferred(row):
    matrix = AccuracyMatrix([row] * len(row))
    assert matrix.backward_transfer() == 0
    assert matrix.forgetting() == 0
    assert matrix.forward_transfer(row) == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0.5, 0.5]], ["values has shape (1, 2)", "square"]),
        ([0.5], ["values has shape (1,)"]),
        (torch.zeros(0, 0), ["values has shape (0, 0)"]),
        ([[1.1]], ["between 0 and 1", "1.1"]),
        ([[-0.1]], ["between 0 and 1", "-0.1"]),
        ([[97.0]], ["between 0 and 1", "97"]),
        ([[math.nan]], ["between 0 and 1"]),
    ],
)
def test_what_is_no_accuracy_matrix_is_refused_by_name(values, words):
    with pytest.raises(ValueError) as refusal:
        AccuracyMatrix(values)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_one_task_has_no_transfer_and_a_baseline_must_fit():
    one = AccuracyMatrix([[0.5]])
    for call, name in (
        (one.backward_transfer, "backward transfer"),
        (one.forgetting, "forgetting"),
        (lambda: one.forward_transfer([0.1]), "forward transfer"),
    ):
        with pytest.raises(ValueError, match=f"{name} compares tasks; values has only one"):
            call()
    with pytest.raises(ValueError, match=r"baseline has shape \(2,\); it must be \(3,\)"):
        AccuracyMatrix(HAND).forward_transfer([0.1, 0.1])


# ---- overlap

entries = st.lists(st.floats(0, 1e6), min_size=6, max_size=6).filter(lambda values: sum(values) > 1e-3)


def fisher(values):
    values = torch.tensor(values, dtype=torch.float64)
    return {"weight": values[:4].reshape(2, 2), "bias": values[4:]}


@settings(max_examples=60, deadline=None)
@given(entries, entries, st.floats(1e-6, 1e6))
def test_overlap_is_symmetric_between_0_and_1_and_blind_to_scale(first, second, scale):
    found = fisher_overlap(fisher(first), fisher(second))
    assert -1e-12 <= found <= 1 + 1e-12
    assert fisher_overlap(fisher(second), fisher(first)) == pytest.approx(found, abs=1e-12)
    scaled = {name: scale * value for name, value in fisher(second).items()}
    assert fisher_overlap(fisher(first), scaled) == pytest.approx(found, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(entries, st.floats(1e-6, 1e6))
def test_overlap_of_identical_and_of_proportional_fishers_is_one(values, scale):
    scaled = {name: scale * value for name, value in fisher(values).items()}
    assert fisher_overlap(fisher(values), fisher(values)) == pytest.approx(1, abs=1e-12)
    assert fisher_overlap(fisher(values), scaled) == pytest.approx(1, abs=1e-9)


def test_overlap_of_fishers_on_different_weights_is_zero():
    assert fisher_overlap(fisher([1, 2, 0, 0, 0, 0]), fisher([0, 0, 3, 0, 1, 9])) == 0


def test_overlap_is_worked_by_hand():
    # f̂ = (1/2, 1/2) and (1/5, 4/5): √(1/10) + √(4/10).
    found = fisher_overlap({"a": torch.tensor([3.0, 3.0])}, {"a": torch.tensor([1.0, 4.0])})
    assert found == pytest.approx(math.sqrt(0.1) + math.sqrt(0.4), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(entries, entries)
def test_overlap_is_the_papers_trace_formula_with_whole_matrices(first, second):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (torch.cat([part.flatten() for part in fisher(values).values()]).diag() for values in (first, second))
    a, b = a / a.trace(), b / b.trace()
    root = torch.as_tensor(linalg.sqrtm((a @ b).numpy())).real
    wanted = 1 - 0.5 * (a + b - 2 * root).trace().item()
    assert fisher_overlap(fisher(first), fisher(second)) == pytest.approx(wanted, abs=1e-6)


def test_overlap_does_not_depend_on_the_order_of_the_names():
    first, second = fisher([1, 2, 3, 4, 5, 6]), fisher([6, 5, 4, 3, 2, 1])
    turned = dict(reversed(second.items()))
    assert fisher_overlap(first, turned) == fisher_overlap(first, second)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, ["first and second", "one model"]),
        ({"a": torch.ones(2)}, {"a": torch.ones(3)}, ["first and second", "one model"]),
        ({"a": torch.zeros(2)}, {"a": torch.ones(2)}, ["first must be", "not all zero"]),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, -1.0])}, ["second must be", "non-negative"]),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, math.nan])}, ["second must be", "finite"]),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, math.inf])}, ["second must be", "finite"]),
    ],
)
def test_what_are_no_two_fishers_of_one_model_is_refused(first, second, words):
    with pytest.raises(ValueError) as refusal:
        fisher_overlap(first, second)
    assert all(word in str(refusal.value) for word in words), refusal.value
