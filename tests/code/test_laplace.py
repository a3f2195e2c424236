"""The Gaussian that stands for a posterior, against torch's own distributions, scipy, and posteriors that are Gaussian."""

import pytest
import torch
from ewc.laplace import LaplacePosterior, laplace_approximation
from torch.distributions import MultivariateNormal
from torch.nn.functional import logsigmoid

pytestmark = pytest.mark.usefixtures("float64")


def some_precision(size=4, seed=0):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def posteriors():
    mean, full = torch.arange(4.0, dtype=torch.float64), some_precision()
    diagonal = torch.tensor([0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    return [(LaplacePosterior(mean, full), full), (LaplacePosterior(mean, diagonal), diagonal.diag())]


@pytest.mark.parametrize("place", [0, 1])
def test_the_log_density_is_that_of_the_multivariate_normal(place):
    posterior, precision = posteriors()[place]
    theta = torch.randn(3, 5, 4, dtype=torch.float64)
    wanted = MultivariateNormal(posterior.mean, precision_matrix=precision).log_prob(theta)
    torch.testing.assert_close(posterior.log_density(theta), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("place", [0, 1])
def test_draws_have_the_mean_and_the_covariance(place):
    posterior, precision = posteriors()[place]
    draws = posterior.sample(200_000, torch.Generator().manual_seed(1))
    covariance = torch.linalg.inv(precision)
    error = 5 * covariance.diagonal().sqrt() / 200_000**0.5
    assert ((draws.mean(0) - posterior.mean).abs() < error).all()
    assert ((draws.T.cov() - covariance).abs() < 0.02 * covariance.diagonal().max()).all()


def test_a_generator_makes_draws_reproducible():
    posterior = posteriors()[0][0]
    assert torch.equal(*(posterior.sample(3, torch.Generator().manual_seed(2)) for _ in range(2)))


def test_the_evidence_of_a_linear_regression_is_exact():
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(7, generator=generator, dtype=torch.float64)
    noise, width = 0.7, 1.3
    prior = MultivariateNormal(torch.zeros(3, dtype=torch.float64), width**2 * torch.eye(3, dtype=torch.float64))

    def log_joint(theta):
        return torch.distributions.Normal(X @ theta, noise).log_prob(y).sum() + prior.log_prob(theta)

    posterior = laplace_approximation(log_joint, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(posterior.precision, X.T @ X / noise**2 + torch.eye(3) / width**2, rtol=1e-9, atol=1e-9)
    marginal = MultivariateNormal(torch.zeros(7), noise**2 * torch.eye(7) + width**2 * X @ X.T)
    torch.testing.assert_close(
        posterior.log_evidence(log_joint(posterior.mean)), marginal.log_prob(y), rtol=1e-9, atol=0
    )


def test_a_diagonal_precision_gives_what_the_same_full_one_gives():
    mean, diagonal = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    first, second = LaplacePosterior(mean, diagonal), LaplacePosterior(mean, diagonal.diag())
    theta = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(first.log_density(theta), second.log_density(theta))
    torch.testing.assert_close(first.log_evidence(1.5), second.log_evidence(1.5))


def test_the_prediction_is_the_mean_over_draws():
    posterior = posteriors()[0][0]
    averaged = posterior.predict(lambda theta: theta[:2] ** 2, n=400_000, generator=torch.Generator().manual_seed(4))
    wanted = posterior.mean[:2] ** 2 + torch.linalg.inv(posterior.precision).diagonal()[:2]
    torch.testing.assert_close(averaged, wanted, rtol=2e-2, atol=1e-2)


def test_the_mode_of_a_logistic_regression_is_the_one_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(5)
    X = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    y = (X @ torch.tensor([1.0, -2.0, 0.5]) + torch.randn(60, generator=generator) > 0).double()
    theirs = (
        LogisticRegression(C=4.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(X.numpy(), y.numpy()).coef_[0]
    )

    def log_joint(theta):
        return logsigmoid((2 * y - 1) * (X @ theta)).sum() - theta.square().sum() / (2 * 4.0)

    ours = laplace_approximation(log_joint, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(ours.mean, torch.tensor(theirs), rtol=1e-5, atol=1e-6)
    s = (X @ ours.mean).sigmoid()
    torch.testing.assert_close(
        ours.precision, X.T @ ((s * (1 - s))[:, None] * X) + torch.eye(3) / 4.0, rtol=1e-8, atol=1e-8
    )


def test_a_start_far_from_the_dome_still_climbs():
    ours = laplace_approximation(lambda t: -((t[0] ** 2 - 4) ** 2) / 2, torch.tensor([0.1], dtype=torch.float64))
    torch.testing.assert_close(ours.mean, torch.tensor([2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("mean", "precision", "words"),
    [
        (torch.zeros(2, 2), torch.ones(2), "mean has shape"),
        (torch.zeros(2), torch.ones(3), "precision has shape"),
        (torch.zeros(2), torch.tensor([1.0, 0.0]), "must be positive"),
        (torch.zeros(2), torch.tensor([1.0, float("nan")]), "precision holds a value that is not finite"),
        (torch.tensor([0.0, float("inf")]), torch.ones(2), "mean holds"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
    ],
)
def test_what_is_no_gaussian_is_refused_by_name(mean, precision, words):
    with pytest.raises(ValueError, match=words):
        LaplacePosterior(mean, precision)


def test_other_refusals():
    posterior = posteriors()[0][0]
    with pytest.raises(ValueError, match="theta has shape"):
        posterior.log_density(torch.zeros(3))
    with pytest.raises(ValueError, match="n is 0"):
        posterior.sample(0)
    with pytest.raises(ValueError, match="no mode"):
        laplace_approximation(lambda t: t.sum().exp(), torch.zeros(2, dtype=torch.float64), steps=3)
