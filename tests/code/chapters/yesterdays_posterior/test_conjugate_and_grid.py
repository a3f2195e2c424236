"""What the Bayes chapters say is equal: two halves and one whole; and the grid against what is known."""

import pytest
import torch
from ewc.chapters.yesterdays_posterior.conjugate import beta_log_density, learn_coin, learn_line, learn_mean
from ewc.chapters.yesterdays_posterior.grid import Grid, gaussian_log_prior, logistic_log_likelihood, two_clusters
from hypothesis import given, settings
from hypothesis import strategies as some
from torch.distributions import Beta, MultivariateNormal, Normal

pytestmark = pytest.mark.usefixtures("float64")
examples = settings(max_examples=40, deadline=None)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(some.lists(some.booleans(), max_size=60), some.integers(0, 60), some.floats(0.1, 20), some.floats(0.1, 20))
@examples
def test_a_coin_learned_in_two_halves_is_the_coin_learned_whole(tosses, cut, a, b):
    tosses = torch.tensor(tosses, dtype=torch.float64)
    halves = learn_coin(*learn_coin(a, b, tosses[:cut]), tosses[cut:])
    assert halves == pytest.approx(learn_coin(a, b, tosses), abs=1e-10)


def test_the_density_of_a_coin_is_that_of_torch():
    theta = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    wanted = Beta(torch.tensor(3.5).double(), torch.tensor(2.0).double()).log_prob(theta)
    torch.testing.assert_close(beta_log_density(theta, 3.5, 2.0), wanted, rtol=1e-10, atol=1e-10)


@given(
    some.integers(0, 10_000), some.integers(1, 30), some.integers(0, 30), some.floats(0.01, 10), some.floats(0.1, 10)
)
@examples
def test_a_mean_learned_in_two_halves_is_the_mean_learned_whole(seed, count, cut, precision, noise):
    values = 5 + draw(seed, count)
    halves = learn_mean(*learn_mean(1.0, precision, values[:cut], noise), values[cut:], noise)
    assert halves == pytest.approx(learn_mean(1.0, precision, values, noise), abs=1e-10, rel=1e-12)


def test_a_mean_is_the_posterior_by_brute_force():
    values = 2 + draw(0, 6)
    mean, precision = learn_mean(1.0, 0.5, values, 3.0)
    line = Grid(torch.linspace(-6, 8, 8001, dtype=torch.float64))
    theta = line.points[..., 0]
    log_joint = Normal(1.0, 0.5**-0.5).log_prob(theta) + Normal(theta[:, None], 3.0**-0.5).log_prob(values).sum(-1)
    torch.testing.assert_close(
        line.normalised(log_joint), Normal(mean, precision**-0.5).log_prob(theta), rtol=1e-8, atol=1e-8
    )


@given(some.integers(0, 10_000), some.integers(1, 20), some.integers(0, 20), some.integers(1, 4), some.floats(0.1, 10))
@examples
def test_a_line_learned_in_two_halves_is_the_line_learned_whole(seed, count, cut, size, noise):
    X, y = draw(seed, count, size), draw(seed + 1, count)
    prior = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    halves = learn_line(*learn_line(*prior, X[:cut], y[:cut], noise), X[cut:], y[cut:], noise)
    for two, one in zip(halves, learn_line(*prior, X, y, noise), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)


def test_a_line_is_the_joint_gaussian_conditioned_on_its_targets():
    X, y, noise = draw(1, 6, 2), draw(2, 6), 2.0
    mean, precision = learn_line(torch.zeros(2).double(), torch.eye(2).double(), X, y, noise)
    gain = X.T @ torch.linalg.inv(X @ X.T + torch.eye(6) / noise)  # conditioning, with no precision in sight
    torch.testing.assert_close(mean, gain @ y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.linalg.inv(precision), torch.eye(2) - gain @ X, rtol=1e-9, atol=1e-9)


def test_refusals_name_what_was_wrong():
    with pytest.raises(ValueError, match="a and b must be positive"):
        learn_coin(0, 1, torch.zeros(2))
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        learn_coin(1, 1, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="precision and noise_precision"):
        learn_mean(0.0, -1.0, torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="inputs has shape"):
        learn_line(torch.zeros(2), torch.eye(2), torch.zeros(3, 3), torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="noise_precision must be positive"):
        learn_line(torch.zeros(2), torch.eye(2), torch.zeros(3, 2), torch.zeros(3), 0.0)
    with pytest.raises(ValueError, match="equal distances"):
        Grid(torch.tensor([0.0, 1.0, 3.0]))


def test_a_grid_integrates_and_measures_gaussians():
    axis = torch.linspace(-9, 9, 301, dtype=torch.float64)
    grid = Grid(axis, axis)
    precision = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    one = MultivariateNormal(torch.tensor([0.5, -0.5]).double(), precision_matrix=precision)
    two = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    first, second = one.log_prob(grid.points), two.log_prob(grid.points)
    assert abs(grid.log_integral(first)) < 1e-9
    torch.testing.assert_close(
        grid.kl(first, second), torch.distributions.kl_divergence(one, two), rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(grid.mean(first, grid.points), one.mean, rtol=1e-8, atol=1e-9)


def test_a_logistic_likelihood_is_the_product_over_its_examples():
    inputs, labels = two_clusters(8, (1.0, 0.2), (0.5, 0.5), seed=0)
    theta = torch.tensor([0.7, -1.2], dtype=torch.float64)
    p = (inputs @ theta).sigmoid()
    wanted = torch.where(labels == 1, p, 1 - p).log().sum()
    torch.testing.assert_close(logistic_log_likelihood(theta, inputs, labels), wanted)
    prior = MultivariateNormal(torch.zeros(2).double(), 9 * torch.eye(2).double())
    torch.testing.assert_close(gaussian_log_prior(theta, 3.0), prior.log_prob(theta), rtol=1e-6, atol=1e-6)
