"""Claims of the two Bayes chapters beside the equalities: what a card must hold, and how far a bell is from the truth."""

import math

import pytest
import torch
from ewc.chapters.yesterdays_posterior.conjugate import beta_log_density, learn_coin, learn_line, log_beta
from ewc.chapters.yesterdays_posterior.grid import Grid, gaussian_log_prior, logistic_log_likelihood, two_clusters
from ewc.laplace import LaplacePosterior, laplace_approximation
from hypothesis import given, settings
from hypothesis import strategies as st

EXACT = {"rtol": 1e-10, "atol": 1e-10}
positive = st.floats(0.01, 100)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def small_tasks():
    return (
        two_clusters(20, centre=(1.0, 0.1), spread=(1.0, 0.3), seed=3),
        two_clusters(20, centre=(0.1, 1.0), spread=(0.3, 1.0), seed=13),
    )


def whole(tasks):
    return tuple(torch.cat(parts) for parts in zip(*tasks, strict=True))


@given(positive, positive, st.lists(st.booleans(), max_size=60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_bayes_rule_with_its_divisor_gives_the_coins_density_at_every_point(a, b, tosses, cut):
    tosses, theta = double([float(toss) for toss in tosses]), torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    noon = learn_coin(a, b, tosses[:cut])
    evening = learn_coin(*noon, tosses[cut:])
    heads, tails = tosses[cut:].sum(), (1 - tosses[cut:]).sum()
    divisor = log_beta(*evening) - log_beta(*noon)
    in_two = heads * theta.log() + tails * (-theta).log1p() + beta_log_density(theta, *noon) - divisor
    torch.testing.assert_close(in_two, beta_log_density(theta, *evening), rtol=1e-9, atol=1e-9)


def test_a_grid_posterior_learned_in_two_halves_equals_one_whole():
    axis = torch.linspace(-9, 11, 81, dtype=torch.float64)
    grid, tasks = Grid(axis, axis), small_tasks()
    log_prior = grid.values(lambda theta: gaussian_log_prior(theta, 2.0))
    log_a, log_b, log_all = (
        grid.values(lambda theta, task=task: logistic_log_likelihood(theta, *task)) for task in (*tasks, whole(tasks))
    )
    evening = grid.normalised(grid.normalised(log_prior + log_a) + log_b)
    torch.testing.assert_close(evening.exp(), grid.normalised(log_prior + log_all).exp(), **EXACT)


def test_the_flat_prior_of_a_coin_is_flat_up_to_both_ends():
    assert torch.equal(beta_log_density(double([0.0, 0.3, 1.0]), 1, 1), torch.zeros(3, dtype=torch.float64))


def test_linear_regression_has_its_mean_where_the_log_posterior_is_level():
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(9, 3, generator=generator).double(), torch.randn(9, generator=generator).double()
    prior = double([0.5, -1.0, 2.0]), 2 * torch.eye(3, dtype=torch.float64)

    def log_joint(theta):
        return LaplacePosterior(*prior).log_density(theta) - 4 / 2 * (targets - inputs @ theta).square().sum()

    bell = laplace_approximation(log_joint, torch.zeros(3, dtype=torch.float64))
    mean, precision = learn_line(*prior, inputs, targets, 4.0)
    torch.testing.assert_close(bell.mean, mean, **EXACT)
    torch.testing.assert_close(bell.precision, precision, **EXACT)


def coin_and_gaussian(tosses, heads, theta):
    """KL of the bell from a coin's posterior after a flat prior, and the bell."""
    card = learn_coin(1, 1, double([1.0] * heads + [0.0] * (tosses - heads)))
    line = Grid(theta)
    bell = laplace_approximation(lambda t: beta_log_density(t[0], *card), double([0.5]))
    truth = line.normalised(beta_log_density(theta, *card))
    return float(line.kl(truth, bell.log_density(theta[:, None]))), bell


def test_multiplying_two_posteriors_counts_the_prior_twice():
    one, other = learn_coin(5, 5, double([1.0, 0.0, 0.0])), learn_coin(5, 5, double([1.0, 1.0]))
    theta = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    both = learn_coin(5, 5, double([1.0, 0.0, 0.0, 1.0, 1.0]))
    product = beta_log_density(theta, *one) + beta_log_density(theta, *other)
    mended = product - beta_log_density(theta, 5, 5) - beta_log_density(theta, *both)
    assert mended.max() - mended.min() < 1e-10  # equal up to a constant
    assert (product - beta_log_density(theta, *both)).std() > 0.1


@pytest.mark.parametrize("centred", [True, False])
def test_a_diagonal_card_is_exact_when_the_first_half_is_centred_and_not_otherwise(centred):
    x = torch.linspace(-2, -0.8, 7, dtype=torch.float64)
    x = x - x.mean() if centred else x
    later = torch.linspace(0.8, 2, 7, dtype=torch.float64)
    X, Z = (torch.stack([torch.ones_like(each), each], 1) for each in (x, later))
    y, z = x.sin(), later.cos()
    mean, precision = learn_line(torch.zeros(2).double(), torch.eye(2).double() / 4, X, y, 4.0)
    full, _ = learn_line(mean, precision, Z, z, 4.0)
    kept, _ = learn_line(mean, precision.diagonal().diag(), Z, z, 4.0)
    assert ((full - kept).abs().max() < 1e-10) == centred


def test_laplace_of_a_coin_has_the_precision_of_the_formula():
    heads, tails = 48, 16
    _, bell = coin_and_gaussian(heads + tails, heads, torch.linspace(0.001, 0.999, 999, dtype=torch.float64))
    mode = heads / (heads + tails)
    assert float(bell.mean) == pytest.approx(mode, rel=1e-10)
    assert float(bell.precision) == pytest.approx((heads + tails) / (mode * (1 - mode)), rel=1e-8)


def test_the_gaussians_divergence_from_a_coin_falls_as_one_over_the_tosses():
    theta = torch.linspace(0.0005, 0.9995, 4000, dtype=torch.float64)
    few, many = (coin_and_gaussian(n, 3 * n // 4, theta)[0] for n in (256, 1024))
    assert math.log(many / few) / math.log(4) == pytest.approx(-1, abs=0.05)


def test_laplace_of_the_small_tasks_is_close_to_the_grid_and_a_gaussian_at_noon_costs_more():
    tasks = small_tasks()

    def log_joint(theta, task):
        return logistic_log_likelihood(theta, *task) + gaussian_log_prior(theta, 2.0)

    axis = torch.linspace(-9, 11, 161, dtype=torch.float64)
    grid = Grid(axis, axis)
    log_values = grid.values(lambda theta: log_joint(theta, whole(tasks)))
    truth = grid.normalised(log_values)
    start = torch.zeros(2, dtype=torch.float64)
    at_once = laplace_approximation(lambda theta: log_joint(theta, whole(tasks)), start)
    noon = laplace_approximation(lambda theta: log_joint(theta, tasks[0]), start)
    in_two = laplace_approximation(
        lambda theta: logistic_log_likelihood(theta, *tasks[1]) + noon.log_density(theta), start
    )
    best, later = (float(grid.kl(truth, bell.log_density(grid.points))) for bell in (at_once, in_two))
    assert 0.1 < best < later < 0.5
    evidence = at_once.log_evidence(log_joint(at_once.mean, whole(tasks)))
    assert float(evidence) == pytest.approx(float(grid.log_integral(log_values)), abs=0.1)


def test_the_mean_loss_needs_the_number_of_examples_and_weight_decay_is_a_prior_precision_divided_by_it():
    inputs, labels = whole(small_tasks())
    n, width = len(labels), 2.0
    start = torch.zeros(2, dtype=torch.float64)
    bell = laplace_approximation(
        lambda t: logistic_log_likelihood(t, inputs, labels) + gaussian_log_prior(t, width), start
    )

    def loss(theta):  # a mean, with the decay that optimisers know
        return -logistic_log_likelihood(theta, inputs, labels) / n + 1 / (width**2 * n) / 2 * theta.square().sum()

    assert torch.func.grad(loss)(bell.mean).abs().max() < 1e-10
    torch.testing.assert_close(n * torch.func.hessian(loss)(bell.mean), bell.precision, **EXACT)


def test_a_posterior_with_two_equal_humps_gets_half_of_its_evidence():
    """Log evidence is short by log 2, since the other hump is not seen; the rest is the curvature's own error."""
    axis = torch.linspace(-5, 5, 4001, dtype=torch.float64)
    line = Grid(axis)

    def squared(theta):
        return -25 * (theta[..., 0] ** 2 - 4) ** 2 / 2

    bell = laplace_approximation(squared, double([1.0]))
    assert float(bell.mean) == pytest.approx(2, abs=1e-8)
    missing = line.log_integral(squared(line.points)) - bell.log_evidence(squared(bell.mean))
    assert float(missing) == pytest.approx(math.log(2), abs=0.01)


def test_a_second_weight_earns_its_evidence_on_both_tasks_and_not_on_the_first():
    """By Laplace and by the grid, which agree to a few hundredths."""
    tasks, axis = small_tasks(), torch.linspace(-9, 11, 161, dtype=torch.float64)

    def evidences(task, weights):
        def log_joint(theta):
            return logistic_log_likelihood(theta, task[0][:, :weights], task[1]) + gaussian_log_prior(theta, 2.0)

        bell, grid = laplace_approximation(log_joint, torch.zeros(weights).double()), Grid(*[axis] * weights)
        return double([bell.log_evidence(log_joint(bell.mean)), grid.log_integral(grid.values(log_joint))])

    on_a, on_both = (evidences(task, 2) - evidences(task, 1) for task in (tasks[0], whole(tasks)))
    assert ((on_a > -1) & (on_a < 0)).all()
    assert (on_both > 3).all()
    assert (on_a[0] - on_a[1]).abs() < 0.05
    assert (on_both[0] - on_both[1]).abs() < 0.05
