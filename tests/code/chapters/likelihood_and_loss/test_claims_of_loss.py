"""What the chapter on likelihood and loss says: losses are negative log likelihoods, weight decay is a prior, and N has its place."""

import math

import pytest
import torch
from ewc.chapters.likelihood_and_loss.likelihood import gaussian_log_likelihood, log_likelihood, log_softmax
from ewc.chapters.yesterdays_posterior.grid import gaussian_log_prior, logistic_log_likelihood, two_clusters
from ewc.laplace import laplace_approximation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.func import grad
from torch.nn.functional import cross_entropy, logsigmoid

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def some_logits(seed, n=7, classes=5, scale=3.0):
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.01, 30))
@settings(max_examples=50, deadline=None)
def test_softmax_is_the_exponential_over_the_sum_of_exponentials(seed, classes, scale):
    logits = some_logits(seed, classes=classes, scale=scale)
    wanted = torch.stack([row.exp() / sum(z.exp() for z in row) for row in logits]).log()
    torch.testing.assert_close(log_softmax(logits), wanted, **EXACT)
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(-1), **EXACT)


def test_a_difference_of_logits_is_the_logarithm_of_the_ratio_of_probabilities():
    logits = some_logits(0)
    p = log_softmax(logits).exp()
    torch.testing.assert_close((p[:, 1] / p[:, 3]).log(), logits[:, 1] - logits[:, 3], **EXACT)
    torch.testing.assert_close(p.sum(-1), torch.ones(len(p)), **EXACT)


def test_softmax_of_logits_too_large_for_exp_is_finite():
    assert torch.equal(
        log_softmax(torch.tensor([[800.0, 0.0], [-2000.0, -2001.0]])).isfinite(), torch.ones(2, 2, dtype=bool)
    )


def test_the_log_likelihood_is_the_logarithm_of_the_product_of_the_labels_probabilities():
    logits, labels = some_logits(1), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    product = math.prod(float(row.softmax(-1)[label]) for row, label in zip(logits, labels, strict=True))
    assert float(log_likelihood(logits, labels)) == pytest.approx(math.log(product), rel=1e-10)


def test_cross_entropy_is_minus_the_log_likelihood_over_the_number_of_examples():
    logits, labels = some_logits(2), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    torch.testing.assert_close(cross_entropy(logits, labels), -log_likelihood(logits, labels) / 7, **EXACT)
    torch.testing.assert_close(cross_entropy(logits, labels, reduction="sum"), -log_likelihood(logits, labels), **EXACT)


def test_the_log_likelihood_can_be_differentiated_and_gives_probability_less_one_if_it_is_the_label():
    logits, labels = some_logits(3), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    wanted = torch.nn.functional.one_hot(labels, 5) - logits.softmax(-1)
    torch.testing.assert_close(grad(log_likelihood)(logits, labels), wanted, **EXACT)


@given(st.integers(0, 10_000), st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_the_gaussian_log_likelihood_is_that_of_the_normal_distribution(seed, precision):
    outputs, targets = some_logits(seed, n=2, classes=9)
    wanted = sum(Normal(f, precision**-0.5).log_prob(y) for f, y in zip(outputs, targets, strict=True))
    torch.testing.assert_close(gaussian_log_likelihood(outputs, targets, precision), wanted, **EXACT)


def test_the_prior_is_the_normal_distribution_of_each_weight():
    theta, alpha = torch.tensor([0.3, -1.0, 2.0]), 5.0
    wanted = Normal(0.0, alpha**-0.5).log_prob(theta).sum()
    torch.testing.assert_close(gaussian_log_prior(theta, alpha**-0.5), wanted, rtol=1e-6, atol=0)


# ---- weight decay, and N


def problem(n=120):
    return two_clusters(n, centre=(0.6, 0.2), spread=(1.0, 0.8), seed=2)


def peak(inputs, labels, alpha):
    """The mode of likelihood times a prior of precision alpha."""

    def log_joint(theta):
        return logistic_log_likelihood(theta, inputs, labels) - alpha / 2 * theta.square().sum()

    return laplace_approximation(log_joint, torch.zeros(inputs.shape[1])).mean


def mean_loss_slope(theta, inputs, labels):
    return grad(lambda t: -logsigmoid((2 * labels - 1) * (inputs @ t)).mean())(theta)


def test_the_weights_where_decay_balances_the_mean_loss_are_the_peak_of_likelihood_times_prior():
    inputs, labels = problem()
    alpha = 5.0
    theta = peak(inputs, labels, alpha)
    pull = mean_loss_slope(theta, inputs, labels) + alpha / len(labels) * theta
    torch.testing.assert_close(pull, torch.zeros(2), rtol=0, atol=1e-10)
    for wrong in (alpha, alpha / 2 / len(labels), 2 * alpha / len(labels)):
        assert (mean_loss_slope(theta, inputs, labels) + wrong * theta).norm() > 1e-3


def test_torchs_weight_decay_is_a_gaussian_prior_of_precision_n_times_the_decay():
    inputs, labels = problem()
    theta = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([theta], lr=1.0, weight_decay=0.03)
    for _ in range(2000):
        optimizer.zero_grad()
        (-logsigmoid((2 * labels - 1) * (inputs @ theta)).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(theta.detach(), peak(inputs, labels, 0.03 * len(labels)), rtol=1e-9, atol=0)


def test_a_fixed_prior_is_outvoted_by_data_and_a_fixed_decay_is_not():
    inputs, labels = two_clusters(6400, centre=(0.8,), spread=(1.5,), seed=0)
    truth, decay, few = 2 * 0.8 / 1.5**2, 0.2, 25
    fixed_prior, fixed_decay = (float(peak(inputs, labels, alpha)) for alpha in (decay * few, decay * len(labels)))
    assert abs(fixed_prior - truth) < 0.06
    assert fixed_decay < 0.75 * truth


def test_the_prior_added_to_each_batch_sum_is_counted_once_a_batch():
    inputs, labels = problem()
    alpha, batch = 5.0, 20
    theta = peak(inputs, labels, alpha * len(labels) / batch)
    steps = [
        grad(lambda t, x=x, y=y: -logistic_log_likelihood(t, x, y) + alpha / 2 * t.square().sum())(theta)
        for x, y in zip(inputs.split(batch), labels.split(batch), strict=True)
    ]
    torch.testing.assert_close(sum(steps), torch.zeros(2), rtol=0, atol=1e-9)  # a pass leads nowhere: here it ends
    assert peak(inputs, labels, alpha).norm() > 1.3 * theta.norm()
