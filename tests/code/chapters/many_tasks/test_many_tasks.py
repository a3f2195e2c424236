"""The chapter on many tasks: the double count where the truth is known, one parabola for many springs, decay, overlap by layer."""

import math
from dataclasses import replace

import pytest
import torch
from ewc import EWC, diagonal_fisher, fit, mlp, permuted
from ewc.chapters.many_tasks.anchors import learn_gaussians, shares
from ewc.chapters.many_tasks.experiments import _of, overlap_by_layer
from ewc.chapters.many_tasks.figures import by_task, searches
from ewc.chapters.yesterdays_posterior.conjugate import learn_line
from ewc.metrics import AccuracyMatrix, fisher_overlap
from ewc.workshop.tables import Rows, made, told
from ewc.workshop.tuning import Tuned
from hypothesis import given, settings
from hypothesis import strategies as some
from small_tasks import blobs

pytestmark = pytest.mark.usefixtures("float64")


def regressions(count, size, seed=0, rows=9):
    """Tasks of linear regression, each alone, and the posterior of all of them together."""
    draws = torch.Generator().manual_seed(seed)
    nothing = torch.zeros(size), torch.zeros(size, size)
    X, y = torch.randn(count, rows, size, generator=draws), torch.randn(count, rows, generator=draws)
    alone = [learn_line(*nothing, inputs, targets, 2.0) for inputs, targets in zip(X, y, strict=True)]
    optima, precisions = (torch.stack(part) for part in zip(*alone, strict=True))
    return optima, precisions, learn_line(*nothing, X.flatten(0, 1), y.flatten(), 2.0)


# ---- the double count


@given(some.integers(1, 8), some.integers(1, 4), some.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_merged_anchors_end_on_the_true_posteriors_mean(count, size, seed):
    optima, precisions, (mean, precision) = regressions(count, size, seed)
    torch.testing.assert_close(precisions.sum(0), precision, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(learn_gaussians(optima, precisions)[-1], mean, rtol=1e-10, atol=1e-10)


def test_two_tasks_are_the_same_under_both_kinds_of_anchors_and_the_third_is_not():
    optima, precisions, _ = regressions(3, 2)
    merged, separate = (learn_gaussians(optima, precisions, anchors=anchors) for anchors in ("merged", "separate"))
    torch.testing.assert_close(merged[:2], separate[:2], rtol=1e-12, atol=1e-12)
    assert (merged[2] - separate[2]).abs().max() > 1e-3


def test_each_lesson_ends_where_descent_on_its_bowl_and_all_springs_ends():
    optima, precisions, _ = regressions(4, 2, seed=3)
    ends = learn_gaussians(optima, precisions, anchors="separate", decay=0.7)
    for t in range(4):
        theta = ends[t].clone().requires_grad_()
        pulls = [(optima[t], precisions[t]), *((ends[s], 0.7 ** (t - s) * precisions[s]) for s in range(t))]
        loss = sum((theta - anchor) @ held @ (theta - anchor) / 2 for anchor, held in pulls)
        (slope,) = torch.autograd.grad(loss, theta)
        torch.testing.assert_close(slope, torch.zeros(2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 10, 25])
def test_of_equal_tasks_the_first_keeps_half_of_the_answer_under_separate_anchors_however_many_come(count):
    equal = torch.eye(1).repeat(count, 1, 1)
    formula = [1 / 2, *(1 / (t * (t + 1)) for t in range(2, count)), 1 / count]
    torch.testing.assert_close(shares(equal, anchors="separate").flatten(), torch.tensor(formula), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shares(equal).flatten(), torch.full((count,), 1 / count), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("anchors", ["merged", "separate"])
def test_the_shares_put_the_last_answer_together_and_add_up_to_one(anchors):
    optima, precisions, _ = regressions(5, 3, seed=1)
    found = shares(precisions, anchors=anchors, decay=0.8)
    torch.testing.assert_close(found.sum(0), torch.eye(3), rtol=1e-10, atol=1e-10)
    together = sum(share @ optimum for share, optimum in zip(found, optima, strict=True))
    torch.testing.assert_close(together, learn_gaussians(optima, precisions, anchors=anchors, decay=0.8)[-1], rtol=1e-10, atol=1e-10)


def test_a_task_that_lies_k_lessons_back_counts_gamma_to_the_k():
    found = shares(torch.eye(2).repeat(6, 1, 1), decay=0.5)[:, 0, 0]
    torch.testing.assert_close(found[1:] / found[:-1], torch.full((5,), 2.0), rtol=1e-10, atol=0)


@pytest.mark.parametrize("anchors", ["merged", "separate"])
def test_the_penalty_of_a_network_treats_its_springs_as_the_bowls_do(anchors):
    # One linear layer without inputs to mix: descent on bowls and springs of EWC itself, against learn_gaussians.
    optima, decay = torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0]]), 0.6
    precisions = torch.stack([torch.diag(torch.tensor(values)) for values in ([1.0, 2.0], [3.0, 0.5], [1.5, 1.0])])
    wanted = learn_gaussians(optima, precisions, anchors=anchors, decay=decay)
    model = torch.nn.Linear(2, 1, bias=False).double()
    guard = EWC(model, strength=decay, anchors=anchors, decay=decay)  # γ stands before all springs, the newest too
    for optimum, precision, end in zip(optima, precisions, wanted, strict=True):
        minimum, curvature = guard.parabola()
        rest = minimum.get("weight", torch.zeros(1, 2)).flatten(), curvature.get("weight", torch.zeros(1, 2)).flatten()
        theta = (precision.diagonal() * optimum + rest[1] * rest[0]) / (precision.diagonal() + rest[1])
        torch.testing.assert_close(theta, end, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            model.weight.copy_(theta[None])
        _consolidate_with(guard, precision.diagonal())


def _consolidate_with(guard, importance):
    """`consolidate` with a Fisher that is known: the outputs of a softmax over one class have none, so it is put in."""
    from ewc import penalties

    real = penalties.diagonal_fisher
    penalties.diagonal_fisher = lambda model, *_, **__: {"weight": importance[None].clone()}
    try:
        guard.consolidate(torch.zeros(1, 2))
    finally:
        penalties.diagonal_fisher = real


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": torch.ones(3, 2)}, r"precisions has shape \(3, 2\)"),
        ({"precisions": torch.ones(2, 2, 2)}, r"precisions has shape \(2, 2, 2\)"),
        ({"precisions": torch.eye(2).repeat(3, 1, 1), "anchors": "joined"}, "anchors is 'joined'"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        learn_gaussians(torch.zeros(3, 2), **arguments)


# ---- a network cannot see the order of the pixels


def test_a_permuted_task_is_learned_exactly_as_the_original_by_a_network_with_permuted_columns():
    task = blobs("images", n=60, features=784, classes=10, seed=0)
    shape = {k: getattr(task, k).view(-1, 1, 28, 28).double() for k in ("train_inputs", "test_inputs")}
    task = replace(task, **shape)
    moved = permuted(task, 2, seed=1)[1]
    one, other = mlp((6,)).double(), mlp((6,)).double()
    with torch.no_grad():
        other.hidden1.weight.copy_(one.hidden1.weight[:, moved.orders[0]])
    fit(one, task, steps=20, batch_size=16)
    fit(other, moved, steps=20, batch_size=16)
    torch.testing.assert_close(other.hidden1.weight, one.hidden1.weight[:, moved.orders[0]], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other(moved.test_inputs), one(task.test_inputs), rtol=1e-10, atol=1e-12)


# ---- the overlap by layer


def test_the_papers_second_form_needs_a_square_on_the_norm():
    draws = torch.Generator().manual_seed(0)
    F, G = (torch.rand(7, generator=draws) for _ in range(2))
    first, second = F / F.sum(), G / G.sum()
    distance = (torch.diag(first + second) - 2 * torch.diag((first * second).sqrt())).trace() / 2
    norm = torch.linalg.matrix_norm(torch.diag(first.sqrt() - second.sqrt()))
    torch.testing.assert_close(distance, norm**2 / 2, rtol=1e-12, atol=0)
    assert abs(distance - norm / 2) > 0.01
    assert fisher_overlap({"w": F}, {"w": G}) == pytest.approx(float(1 - distance), rel=1e-12)


def test_the_overlap_is_taken_layer_by_layer_at_both_places():
    task = blobs("images", n=60, features=784, classes=10, seed=0)
    shape = {k: getattr(task, k).view(-1, 1, 28, 28).double() for k in ("train_inputs", "test_inputs")}
    task = replace(task, **shape)
    options = {"square": 20, "strength": 1.0, "steps": 4, "hidden": (5, 4), "fisher_examples": 30}
    result, _ = overlap_by_layer([task], seed=2, **options)
    assert result["layers"] == ["hidden1", "hidden2", "logits"]
    same, _ = overlap_by_layer([task], seed=2, **{**options, "square": 1})
    assert same["overlap"]["end"] == pytest.approx([1, 1, 1], abs=1e-6)  # a square of one pixel moves nothing
    assert min(same["overlap"]["own"]) < 0.9999  # at other weights, other Fishers
    assert result["overlap"]["end"][0] < 0.999
    fisher = diagonal_fisher(mlp((5, 4)), task.train_inputs[:30])
    assert _of(fisher, "hidden2").keys() == {"hidden2.weight", "hidden2.bias"}


# ---- what is told


class Run:
    def __init__(self, accuracy, strength=30.0, device="CPU", day="2026-01-02", seconds=120):
        self.matrix = type("Matrix", (), {"average": lambda _: accuracy})()
        self.configuration, self.device, self.finished, self.seconds = {"strength": strength}, device, f"{day}T03:04", seconds


def test_runs_are_told_by_their_mean_and_standard_error_and_none_as_none():
    assert told([]) == ["–", "–", "0"]
    assert told([Run(0.95, None)]) == ["95.00", "–", "1"]
    assert told([Run(0.94), Run(0.95), Run(0.96)]) == [f"95.00 ± {1 / math.sqrt(3):.2f}", "30", "3"]


def test_where_and_when_runs_were_made_is_said_once_for_a_table():
    assert made([]) == "None of these runs is in this copy."
    assert made([Run(0.9), Run(0.9)]) == "Made on CPU, 2026-01-02, 2 min a run."
    runs = [Run(0.9, seconds=600), Run(0.9, device="GPU", day="2026-01-05", seconds=31)]
    assert made(runs) == "Made on CPU and GPU, 2026-01-02 to 2026-01-05, 31 s to 10 min a run."
    table = Rows(["a"], [["1"]], "under <it>")
    assert table._repr_html_().endswith("</div><p>under &lt;it&gt;</p>")
    assert repr(table) == "a\n1\nunder <it>"
    assert Rows(["a"], [["1"]])._repr_html_().endswith("</div>")


def test_a_table_shows_its_rows_and_escapes_what_is_in_them():
    shown = Rows(["a", "b"], [["1", "<2>"]])._repr_html_()
    assert "<th scope=\"col\">a</th>" in shown
    assert "<td>&lt;2&gt;</td>" in shown


def test_a_picture_by_task_says_every_number():
    alt = by_task({"one": torch.tensor([0.9, 0.8]), "other": torch.tensor([0.5, 0.7])}).alt
    assert "one: 90%, 80%; other: 50%, 70%" in alt


def test_a_picture_of_searches_says_every_trial_and_the_choice():
    def tried(accuracy):
        return (type("Ran", (), {"matrix": AccuracyMatrix([[accuracy]])})(),)

    rising = Tuned((1.0, 3.0, 10.0), (tried(0.5), tried(0.75), tried(0.625)), ())
    alt = searches({"EWC": rising, "another": Tuned((0.1,), (tried(0.25),), ())}).alt
    assert "EWC: 50.0% at 1, 75.0% at 3, 62.5% at 10; chosen is 3." in alt
    assert "another: 25.0% at 0.1; chosen is 0.1." in alt
