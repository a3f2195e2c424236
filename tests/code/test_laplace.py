"""A Gaussian for a posterior: density, draws, prediction, evidence, and the climb to the mode."""

import math

import numpy as np
import pytest
import torch
from ewc import LaplacePosterior, laplace_approximation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

pytestmark = pytest.mark.usefixtures("float64")


def random_precision(size, seed=0):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.3 * torch.eye(size, dtype=torch.float64)


def regression(n=30, size=3, seed=0):
    """Linear regression with known noise and a Gaussian prior: inputs, targets, noise σ, prior precision α."""
    torch.manual_seed(seed)
    inputs = torch.randn(n, size)
    return inputs, inputs @ torch.randn(size) + 0.4 * torch.randn(n), 0.4, 2.0


def log_joint_of(inputs, targets, sigma, alpha):
    def log_joint(theta):
        fit = -((targets - inputs @ theta) ** 2).sum() / (2 * sigma**2)
        prior = -alpha / 2 * (theta**2).sum() + len(theta) / 2 * math.log(alpha / (2 * math.pi))
        return fit - len(targets) / 2 * math.log(2 * math.pi * sigma**2) + prior

    return log_joint


# ---- density, draws, prediction


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 6), seed=st.integers(0, 99), diagonal=st.booleans())
def test_log_density_is_that_of_torchs_multivariate_normal(size, seed, diagonal):
    precision = random_precision(size, seed)
    if diagonal:
        precision = precision.diagonal().clone()
    mean, theta = torch.randn(size), torch.randn(4, 2, size)
    full = precision.diag() if diagonal else precision
    wanted = MultivariateNormal(mean, precision_matrix=full).log_prob(theta)
    posterior = LaplacePosterior(mean, precision)
    torch.testing.assert_close(posterior.log_density(theta), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.log_density(theta[0, 0]), wanted[0, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("diagonal", [True, False])
def test_density_integrates_to_one_on_a_grid(diagonal):
    precision = torch.tensor([2.0, 0.7]) if diagonal else torch.tensor([[2.0, 0.5], [0.5, 0.7]])
    posterior = LaplacePosterior(torch.tensor([0.3, -1.0]), precision)
    axis = torch.linspace(-14, 14, 561)
    grid = torch.cartesian_prod(axis, axis)
    assert posterior.log_density(grid).exp().sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("diagonal", [True, False])
def test_draws_have_the_mean_and_the_inverse_precision_for_covariance(diagonal):
    precision = random_precision(3, 4)
    covariance = precision.inverse()
    if diagonal:
        precision = precision.diagonal().clone()
        covariance = (1 / precision).diag()
    mean = torch.tensor([1.0, -2.0, 3.0])
    n = 200_000
    draws = LaplacePosterior(mean, precision).sample(n, torch.Generator().manual_seed(0))
    assert draws.shape == (n, 3)
    spread = covariance.diagonal().sqrt()
    assert ((draws.mean(0) - mean).abs() <= 5 * spread / n**0.5).all()
    assert ((draws.T.cov() - covariance).abs() <= 5 * torch.outer(spread, spread) * (2 / n) ** 0.5).all()


def test_draws_are_reproducible():
    posterior = LaplacePosterior(torch.zeros(3), random_precision(3))
    first, again, other = (posterior.sample(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_prediction_is_the_mean_over_the_gaussian():
    mean = torch.tensor([0.5, -0.2])
    posterior = LaplacePosterior(mean, torch.tensor([[4.0, 1.0], [1.0, 2.0]]))
    # A linear function keeps the mean; a square adds the variance.
    found = posterior.predict(lambda theta: torch.stack([theta[0], theta[0] ** 2]), 200_000, torch.Generator().manual_seed(0))
    variance = posterior.precision.inverse()[0, 0]
    torch.testing.assert_close(found, torch.stack([mean[0], mean[0] ** 2 + variance]), rtol=0, atol=0.01)


def test_prediction_is_less_sure_than_that_of_the_mean():
    posterior = LaplacePosterior(torch.tensor([2.0]), torch.tensor([0.5]))
    found = posterior.predict(lambda theta: torch.sigmoid(theta * torch.tensor([1.0, 5.0])), 20_000, torch.Generator().manual_seed(0))
    axis = torch.linspace(-20, 24, 20_001)
    weight = posterior.log_density(axis[:, None]).exp() * (axis[1] - axis[0])
    wanted = (weight[:, None] * torch.sigmoid(axis[:, None] * torch.tensor([1.0, 5.0]))).sum(0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.012)
    assert (found < torch.sigmoid(torch.tensor([2.0, 10.0]))).all()


# ---- evidence


def test_log_evidence_is_exact_for_linear_regression():
    inputs, targets, sigma, alpha = regression()
    log_joint = log_joint_of(inputs, targets, sigma, alpha)
    posterior = laplace_approximation(log_joint, torch.zeros(3))
    covariance = sigma**2 * torch.eye(len(targets)) + inputs @ inputs.T / alpha  # of the targets, weights integrated out
    wanted = MultivariateNormal(torch.zeros(len(targets)), covariance).log_prob(targets)
    torch.testing.assert_close(posterior.log_evidence(log_joint(posterior.mean)), wanted, rtol=1e-10, atol=1e-10)


def test_evidence_and_density_together_give_the_joint():
    # Bayes: log p(D) = log p(D, θ) − log p(θ|D) for every θ, where the posterior is a Gaussian.
    inputs, targets, sigma, alpha = regression(seed=3)
    log_joint = log_joint_of(inputs, targets, sigma, alpha)
    posterior = laplace_approximation(log_joint, torch.zeros(3))
    theta = torch.randn(3)
    evidence = posterior.log_evidence(log_joint(posterior.mean))
    torch.testing.assert_close(log_joint(theta) - posterior.log_density(theta), evidence, rtol=1e-9, atol=1e-9)


def test_a_diagonal_precision_is_the_full_one_with_zeros():
    diagonal = torch.tensor([0.5, 2.0, 9.0])
    one, other = LaplacePosterior(torch.ones(3), diagonal), LaplacePosterior(torch.ones(3), diagonal.diag())
    theta = torch.randn(7, 3)
    torch.testing.assert_close(one.log_density(theta), other.log_density(theta))
    torch.testing.assert_close(one.log_evidence(-3.0), other.log_evidence(-3.0))
    draws = [posterior.sample(6, torch.Generator().manual_seed(2)) for posterior in (one, other)]
    torch.testing.assert_close(*draws)


# ---- the climb to the mode


def test_laplace_is_exact_on_a_gaussian():
    mean, precision = torch.tensor([1.0, -2.0, 0.5]), random_precision(3, 1)
    found = laplace_approximation(MultivariateNormal(mean, precision_matrix=precision).log_prob, torch.zeros(3), steps=3)
    torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.precision, precision, rtol=1e-10, atol=1e-10)


def test_regression_learned_in_two_halves_is_regression_learned_whole():
    inputs, targets, sigma, alpha = regression(40)
    whole = laplace_approximation(log_joint_of(inputs, targets, sigma, alpha), torch.zeros(3))
    first = laplace_approximation(log_joint_of(inputs[:25], targets[:25], sigma, alpha), torch.zeros(3))

    def second(theta):  # yesterday's posterior is today's prior
        return first.log_density(theta) - ((targets[25:] - inputs[25:] @ theta) ** 2).sum() / (2 * sigma**2)

    halves = laplace_approximation(second, torch.zeros(3))
    torch.testing.assert_close(halves.mean, whole.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(halves.precision, whole.precision, rtol=1e-10, atol=1e-10)


def logistic(alpha=0.7):
    torch.manual_seed(0)
    inputs = torch.randn(80, 3)
    targets = (inputs @ torch.tensor([1.5, -1.0, 0.2]) + torch.randn(80) > 0).double()

    def log_joint(theta):
        logits = inputs @ theta
        return (targets * logits - torch.nn.functional.softplus(logits)).sum() - alpha / 2 * (theta**2).sum()

    return inputs, targets, log_joint


def test_mode_of_logistic_regression_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    inputs, targets, log_joint = logistic(0.7)
    found = laplace_approximation(log_joint, torch.zeros(3))
    other = linear_model.LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-12, max_iter=10_000)
    other.fit(inputs.numpy(), targets.numpy())
    np.testing.assert_allclose(found.mean.numpy(), other.coef_[0], rtol=1e-5)
    p = torch.sigmoid(inputs @ found.mean)
    wanted = inputs.T @ ((p * (1 - p))[:, None] * inputs) + 0.7 * torch.eye(3)
    torch.testing.assert_close(found.precision, wanted, rtol=1e-9, atol=1e-9)


def test_mode_of_logistic_regression_is_that_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    _, _, log_joint = logistic()
    found = laplace_approximation(log_joint, torch.tensor([4.0, 4.0, -4.0]))
    other = optimize.minimize(lambda theta: -log_joint(torch.tensor(theta)).item(), np.zeros(3), tol=1e-10)
    np.testing.assert_allclose(found.mean.numpy(), other.x, atol=1e-5)


@pytest.mark.parametrize("start", [[3.0, 3.0], [-3.0, 0.1], [0.01, -3.0], [2.0, 0.0]])
def test_it_climbs_where_the_surface_is_not_a_dome(start):
    # Rosenbrock's banana, upside down: its one mode is at (1, 1), and far from it the Hessian is indefinite.
    def banana(theta):
        return -((1 - theta[0]) ** 2) - 5 * (theta[1] - theta[0] ** 2) ** 2

    torch.testing.assert_close(laplace_approximation(banana, torch.tensor(start)).mean, torch.ones(2), rtol=1e-6, atol=1e-6)


def test_the_start_is_left_as_it_was():
    start = torch.zeros(3)
    laplace_approximation(logistic()[2], start)
    assert torch.equal(start, torch.zeros(3))


def test_it_works_in_float32():
    found = laplace_approximation(lambda theta: -2 * ((theta - 3) ** 2).sum(), torch.zeros(2, dtype=torch.float32))
    torch.testing.assert_close(found.mean, torch.full((2,), 3.0, dtype=torch.float32))
    torch.testing.assert_close(found.precision, 4 * torch.eye(2, dtype=torch.float32))


# ---- what is refused


@pytest.mark.parametrize(
    ("mean", "precision", "words"),
    [
        (torch.zeros(2, 2), torch.ones(2), ["mean has shape (2, 2)", "vector"]),
        (torch.zeros(0), torch.ones(0), ["mean has shape (0,)"]),
        (torch.zeros(3), torch.ones(2), ["precision has shape (2,)", "(3,)", "(3, 3)"]),
        (torch.zeros(3), torch.ones(2, 3), ["precision has shape (2, 3)"]),
        (torch.tensor([0, math.nan]), torch.ones(2), ["mean", "not finite"]),
        (torch.zeros(2), torch.tensor([1, math.inf]), ["precision", "not finite"]),
        (torch.zeros(2), torch.tensor([1.0, 0.0]), ["precision must be positive", "0"]),
        (torch.zeros(2), torch.tensor([1.0, -0.5]), ["precision must be positive", "-0.5"]),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), ["precision must be symmetric"]),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), ["positive definite", "-1"]),
        (torch.zeros(2), torch.tensor([[1.0, 1.0], [1.0, 1.0]]), ["positive definite"]),
    ],
)
def test_what_is_no_gaussian_is_refused_by_name(mean, precision, words):
    with pytest.raises(ValueError) as refusal:
        LaplacePosterior(mean, precision)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_theta_of_another_length_and_no_draws_are_refused():
    posterior = LaplacePosterior(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"theta has shape \(4,\); its last axis must be 3"):
        posterior.log_density(torch.zeros(4))
    with pytest.raises(ValueError, match=r"theta has shape \(\)"):
        posterior.log_density(torch.tensor(1.0))
    with pytest.raises(ValueError, match="n is 0; it must be at least 1"):
        posterior.sample(0)


def test_a_saddle_a_slope_without_end_and_a_plain_are_refused():
    with pytest.raises(ValueError, match="positive definite"):
        laplace_approximation(lambda theta: theta[0] ** 2 - theta[1] ** 2, torch.zeros(2))
    with pytest.raises(ValueError, match="no mode that 20 Newton steps from start reach"):
        laplace_approximation(lambda theta: theta.sum() - theta[1] ** 2, torch.zeros(2), steps=20)
    with pytest.raises(ValueError, match="positive definite"):
        laplace_approximation(lambda theta: -(theta[0] ** 2), torch.zeros(2))
