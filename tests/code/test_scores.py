"""The labels of the expectation: weighted scores whose outer products sum to the mean over the labels."""

import pytest
import torch
from ewc import diagonal_fisher
from ewc.scores import LABELS, columns, weighted_scores
from torch import nn


def covariance(p):
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def summed(scores):
    return sum(score[:, :, None] * score[:, None, :] for score in scores)


@pytest.mark.parametrize("classes", [2, 3, 10, 40])
@pytest.mark.parametrize("sharpness", [0.1, 1, 20, 300])
def test_one_column_fewer_than_classes_sums_to_the_covariance_of_the_label(classes, sharpness):
    logits = sharpness * torch.randn(7, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(-1)
    found = list(columns(p))
    assert len(found) == classes - 1
    torch.testing.assert_close(summed(found), covariance(p), rtol=1e-10, atol=1e-15)
    single = list(weighted_scores(logits.float(), "exact", None, None))
    torch.testing.assert_close(summed(single).double(), covariance(p), rtol=0, atol=1e-6)


def test_a_rare_class_is_not_lost_beside_a_likely_one():
    # p_j (1 − p_j) of the likely class is the sum of the rare ones, far below the rounding of 1.
    logits = torch.tensor([[0.0, -40.0, -41.0], [-40.0, 0.0, -41.0], [-41.0, -40.0, 0.0]])
    rare = logits.double().softmax(-1)
    found = summed(weighted_scores(logits, "exact", None, None)).double().diagonal(dim1=1, dim2=2)
    wanted = torch.stack([rare[:, [1, 2]].sum(1), rare[:, [0, 2]].sum(1), rare[:, [0, 1]].sum(1)], 1)
    for place in range(3):
        torch.testing.assert_close(found[place, place], wanted[place, place], rtol=1e-5, atol=0)


@pytest.mark.parametrize("logits", [[0.0, -1e4, -2e4], [-1e4, 0.0, -1e4], [-1e4, -1e4, 0.0], [-torch.inf, 0.0, 1.0], [0.0, 1.0, -torch.inf]])
def test_where_a_probability_is_nothing_so_is_the_column(logits):
    logits = torch.tensor([logits])
    found = list(weighted_scores(logits, "exact", None, None))
    assert all(score.isfinite().all() for score in found)
    torch.testing.assert_close(summed(found), covariance(logits.softmax(-1)))


@pytest.mark.parametrize("labels", LABELS)
def test_logits_of_few_bits_have_scores_of_few_bits(labels):
    logits = torch.randn(5, 3).bfloat16()
    for score in weighted_scores(logits, labels, torch.tensor([0, 1, 2, 0, 1]), torch.rand(5, 2)):
        assert score.dtype == torch.bfloat16


def test_samples_share_the_weight():
    draws = torch.rand(5, 4)
    found = list(weighted_scores(torch.zeros(5, 2), "sampled", None, draws))
    assert len(found) == 4
    torch.testing.assert_close(summed(found), torch.tensor([[0.25, -0.25], [-0.25, 0.25]]).expand(5, 2, 2))


def test_targets_of_a_narrow_type_may_name_as_many_classes_as_it_can_count():
    model, inputs = nn.Linear(1, 256), torch.ones(2, 1)
    targets = torch.tensor([7, 255], dtype=torch.uint8)
    found = diagonal_fisher(model, inputs, targets, labels="empirical")
    wanted = diagonal_fisher(model, inputs, targets.long(), labels="empirical")
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    with pytest.raises(ValueError, match="targets runs from 7 to 255; the model's classes are 0 to 254"):
        diagonal_fisher(nn.Linear(1, 255), inputs, targets, labels="empirical")
