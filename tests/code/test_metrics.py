"""The metrics of continual learning on tables worked by hand; the overlap of Fishers against its definition by matrices."""

import numpy
import pytest
import torch
from ewc.metrics import AccuracyMatrix, fisher_overlap
from hypothesis import given, settings
from hypothesis import strategies as some

R = [[0.9, 0.1, 0.2], [0.7, 0.8, 0.3], [0.6, 0.5, 0.95]]


def test_a_table_worked_by_hand():
    matrix = AccuracyMatrix(R)
    assert matrix.average() == pytest.approx((0.6 + 0.5 + 0.95) / 3)
    assert matrix.backward_transfer() == pytest.approx(((0.6 - 0.9) + (0.5 - 0.8)) / 2)
    assert matrix.forward_transfer([0.0, 0.05, 0.1]) == pytest.approx(((0.1 - 0.05) + (0.3 - 0.1)) / 2)
    assert matrix.forgetting() == pytest.approx(((0.9 - 0.6) + (0.8 - 0.5)) / 2)


def test_forgetting_looks_at_the_best_and_not_at_the_first():
    matrix = AccuracyMatrix([[0.5, 0.0, 0.0], [0.7, 0.6, 0.0], [0.4, 0.6, 0.9]])
    assert matrix.forgetting() == pytest.approx((0.7 - 0.4 + 0.0) / 2)
    assert matrix.backward_transfer() == pytest.approx((0.4 - 0.5 + 0.0) / 2)


@given(some.integers(2, 6), some.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_nothing_lost_is_nothing_forgotten(tasks, seed):
    row = torch.rand(tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = AccuracyMatrix(row.expand(tasks, tasks))
    assert matrix.backward_transfer() == 0 and matrix.forgetting() == 0
    assert matrix.average() == pytest.approx(row.mean().item())
    assert matrix.forward_transfer(row) == 0


@pytest.mark.parametrize("values", [[[0.1, 0.2]], [], [[1.2]], [[float("nan")]], torch.zeros(2, 2, 2)])
def test_what_is_no_table_of_accuracies_is_refused(values):
    with pytest.raises(ValueError, match="values"):
        AccuracyMatrix(values)


NAN = float("nan")
WHOLE = [[0.9, 0.1, 0.3, 0.2], [0.8, 0.7, 0.2, 0.1], [0.5, 0.9, 0.8, 0.3], [0.4, 0.6, 0.7, 0.9]]


def cut(beyond):
    """The table with NaN for the tasks that lie more than so many ahead."""
    return [[value if j <= i + beyond else NAN for j, value in enumerate(row)] for i, row in enumerate(WHOLE)]


TABLES = {
    "one ahead": cut(1),
    "none ahead": cut(0),
    "rows that end": [row[: i + 1] for i, row in enumerate(WHOLE)],
    "rows that end one ahead": [row[: i + 2] for i, row in enumerate(WHOLE)],
    "tensors that end": [torch.tensor(row[: i + 1], dtype=torch.float64) for i, row in enumerate(WHOLE)],
    "an array": numpy.array(cut(0)),
    "none where untested": [[None if value != value else value for value in row] for row in cut(0)],
}


@pytest.mark.parametrize("name", TABLES)
def test_tasks_that_were_not_learned_yet_may_be_untested(name):
    part = AccuracyMatrix(TABLES[name])
    for ask in ("average", "backward_transfer", "forgetting"):
        assert getattr(part, ask)() == pytest.approx(getattr(AccuracyMatrix(WHOLE), ask)(), rel=1e-12), ask
    if name in ("one ahead", "rows that end one ahead"):
        assert part.forward_transfer([0.1] * 4) == AccuracyMatrix(WHOLE).forward_transfer([0.1] * 4)
    else:
        with pytest.raises(ValueError, match=r"task 1 was not tested before it was learned: values\[0, 1\]"):
            part.forward_transfer([0.1] * 4)


def test_a_measure_that_needs_what_was_not_tested_says_so():
    for i in range(4):
        for j in range(i + 1):
            holed, missing = cut(1), rf"needs the accuracy on task {j} after task {i}: \[{i}, {j}\]"
            holed[i][j] = NAN
            if i == 3:
                with pytest.raises(ValueError, match=f"values {missing}"):
                    AccuracyMatrix(holed)
                continue
            part = AccuracyMatrix(holed)
            assert part.average() == AccuracyMatrix(WHOLE).average()
            with pytest.raises(ValueError, match=f"forgetting {missing}"):
                part.forgetting()
            if i == j:
                with pytest.raises(ValueError, match=f"backward transfer {missing}"):
                    part.backward_transfer()
            else:
                assert part.backward_transfer() == AccuracyMatrix(WHOLE).backward_transfer()
    with pytest.raises(ValueError, match="values needs the accuracy on task 1 after task 1"):
        AccuracyMatrix([[0.9], [0.7]])
    with pytest.raises(ValueError, match="values has shape"):
        AccuracyMatrix([[0.9, 0.1, 0.2], [0.7, 0.8]])
    with pytest.raises(ValueError, match="baseline is"):
        AccuracyMatrix(WHOLE).forward_transfer([0.1, NAN, 0.1, 0.1])


def test_a_mean_in_float32_may_lie_just_above_one():
    assert AccuracyMatrix([[1.0000001192092896, 0.2], [0.7, 0.8]]).values.max() == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        AccuracyMatrix([[1.001, 0.2], [0.7, 0.8]])


def test_one_task_has_nothing_to_compare():
    for ask in ("backward_transfer", "forgetting"):
        with pytest.raises(ValueError, match="only one"):
            getattr(AccuracyMatrix([[0.9]]), ask)()
    with pytest.raises(ValueError, match="baseline has shape"):
        AccuracyMatrix(R).forward_transfer([0.1])


def fishers(seed):
    generator = torch.Generator().manual_seed(seed)
    return [{"a": torch.rand(3, 2, generator=generator), "b": torch.rand(4, generator=generator)} for _ in range(2)]


def test_the_overlap_is_one_minus_half_the_trace_of_the_definition():
    from scipy.linalg import sqrtm

    first, second = fishers(0)
    one, two = (torch.cat([v.flatten() for v in f.values()]).double().diag() for f in (first, second))
    one, two = one / one.trace(), two / two.trace()
    wanted = 1 - 0.5 * torch.trace(one + two - 2 * torch.tensor(sqrtm((one @ two).numpy()).real))
    assert fisher_overlap(first, second) == pytest.approx(wanted.item(), rel=1e-8)


@given(some.integers(0, 10_000), some.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_the_overlap_is_symmetric_within_0_and_1_and_blind_to_scale(seed, scale):
    first, second = fishers(seed)
    overlap = fisher_overlap(first, second)
    assert 0 <= overlap <= 1 + 1e-12
    assert overlap == pytest.approx(fisher_overlap(second, first))
    assert fisher_overlap(first, {name: scale * value for name, value in first.items()}) == pytest.approx(1)


def test_weights_in_common_or_not():
    left, right = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}
    assert fisher_overlap(left, right) == 0 and fisher_overlap(left, left) == 1


@pytest.mark.parametrize(
    "other", [{"v": torch.ones(2)}, {"w": torch.ones(3)}, {"w": torch.zeros(2)}, {"w": torch.tensor([-1.0, 1.0])}]
)
def test_fishers_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError, match="second"):
        fisher_overlap({"w": torch.ones(2)}, other)


@pytest.mark.parametrize("baseline", [[0.1, 10.0], [0.1, -0.1], [0.1, float("nan")], None, ["a", "b"]])
def test_a_baseline_that_is_no_accuracy_is_refused(baseline):
    with pytest.raises(ValueError, match="baseline"):
        AccuracyMatrix([[0.9, 0.1], [0.7, 0.8]]).forward_transfer(baseline)


def test_words_are_no_accuracies():
    with pytest.raises(ValueError, match="values holds what is no number"):
        AccuracyMatrix([["high", "low"], ["low", "high"]])
