"""The Gaussian that stands for a posterior, against torch's own distributions, scipy, and posteriors that are Gaussian."""

import numpy
import pytest
import torch
from ewc import full_fisher, kronecker_fisher
from ewc.laplace import Kronecker, LaplacePosterior, laplace_approximation
from torch import nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import logsigmoid

pytestmark = pytest.mark.usefixtures("float64")


def some_precision(size=4, seed=0):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def posteriors():
    mean, full = torch.arange(4.0, dtype=torch.float64), some_precision()
    diagonal = torch.tensor([0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    kronecker, written_out = kronecker_and_dense([(2, 1), (1, 2)])
    return [
        (LaplacePosterior(mean, full), full),
        (LaplacePosterior(mean, diagonal), diagonal.diag()),
        (LaplacePosterior(mean, kronecker), written_out),
    ]


def kronecker_and_dense(shapes, examples=7.0, prior=0.4, seed=5):
    """A Kronecker precision of layers (m, k), its weights scattered over the vector, and the same matrix written out."""
    generator = torch.Generator().manual_seed(seed)
    size = sum(m * k for m, k in shapes)
    order = torch.randperm(size, generator=generator).split([m * k for m, k in shapes])
    dense, factors = prior * torch.eye(size), []
    for (m, k), places in zip(shapes, order, strict=True):
        roots = [torch.randn(n, max(1, n - 1), generator=generator) for n in (m, k)]  # without the prior, singular
        b, a = (root @ root.T for root in roots)
        dense[places[:, None], places] += examples * torch.kron(b, a)
        factors.append((b, a, places.reshape(m, k)))
    return Kronecker(factors, examples=examples, prior=prior), dense


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_log_density_is_that_of_the_multivariate_normal(place):
    posterior, precision = posteriors()[place]
    theta = torch.randn(3, 5, 4, dtype=torch.float64)
    wanted = MultivariateNormal(posterior.mean, precision_matrix=precision).log_prob(theta)
    torch.testing.assert_close(posterior.log_density(theta), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_draws_have_the_mean_and_the_covariance(place):
    posterior, precision = posteriors()[place]
    draws = posterior.sample(200_000, torch.Generator().manual_seed(1))
    covariance = torch.linalg.inv(precision)
    error = 5 * covariance.diagonal().sqrt() / 200_000**0.5
    assert ((draws.mean(0) - posterior.mean).abs() < error).all()
    assert ((draws.T.cov() - covariance).abs() < 0.02 * covariance.diagonal().max()).all()


@pytest.mark.parametrize("prior", [0.4, 1e3, 1e-3])
@pytest.mark.parametrize("shapes", [[(3, 4)], [(1, 1)], [(4, 3), (2, 5), (3, 1)]])
def test_a_kronecker_precision_is_its_matrix_written_out(shapes, prior):
    precision, dense = kronecker_and_dense(shapes, prior=prior)
    torch.testing.assert_close(precision.dense(), dense, rtol=1e-8, atol=1e-10 * float(dense.abs().max()))
    torch.testing.assert_close(precision.log_det(), torch.logdet(dense), rtol=1e-8, atol=1e-8)
    vectors = torch.randn(2, 3, len(dense), generator=torch.Generator().manual_seed(1))
    inverse = torch.linalg.inv(dense)
    scale = 1e-8 * float(inverse.abs().max())
    torch.testing.assert_close(precision.power_times(vectors, -1), vectors @ inverse, rtol=1e-8, atol=scale)
    half = precision.power_times(precision.power_times(vectors, 0.5), 0.5)
    torch.testing.assert_close(half, vectors @ dense, rtol=1e-8, atol=1e-8 * float(dense.abs().max()))
    posterior = LaplacePosterior(torch.arange(float(len(dense))), precision)
    whole = LaplacePosterior(posterior.mean, dense)
    torch.testing.assert_close(posterior.log_density(vectors), whole.log_density(vectors), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(posterior.log_evidence(2.5), whole.log_evidence(2.5), rtol=1e-8, atol=1e-8)


def test_kronecker_draws_have_the_covariance_of_the_matrix_written_out_in_exact_arithmetic():
    # A draw is a linear map of the noise; the map, applied to the identity, times its transpose is the covariance.
    precision, dense = kronecker_and_dense([(3, 2), (2, 2)])
    root = precision.power_times(torch.eye(len(dense)), -0.5)
    torch.testing.assert_close(root @ root.T, torch.linalg.inv(dense), rtol=1e-8, atol=1e-10)
    posterior = LaplacePosterior(torch.zeros(len(dense)), precision)
    noise = torch.randn(5, len(dense), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        posterior.sample(5, torch.Generator().manual_seed(2)), noise @ root.T, rtol=1e-8, atol=1e-10
    )


def test_a_network_of_one_example_has_the_kronecker_posterior_that_its_full_fisher_gives():
    # For one example the factors are exact, layer by layer; what lies between the layers is set to zero by hand.
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(1, 3)
    whole = 50 * full_fisher(model, inputs)
    whole[:16, 16:] = whole[16:, :16] = 0
    precision = Kronecker(kronecker_fisher(model, inputs).values(), examples=50, prior=2.0)
    dense = whole + 2.0 * torch.eye(len(whole))
    torch.testing.assert_close(precision.dense(), dense, rtol=1e-8, atol=1e-9)
    mean = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    theta = mean + torch.randn(4, len(mean))
    found, wanted = (LaplacePosterior(mean, each).log_density(theta) for each in (precision, dense))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    theirs = MultivariateNormal(mean, precision_matrix=dense).log_prob(theta)
    torch.testing.assert_close(found, theirs, rtol=1e-8, atol=1e-8)


def test_the_prediction_of_a_kronecker_posterior_is_the_mean_over_draws():
    precision, dense = kronecker_and_dense([(2, 2)])
    posterior = LaplacePosterior(torch.arange(4.0), precision)
    averaged = posterior.predict(lambda theta: theta**2, n=400_000, generator=torch.Generator().manual_seed(4))
    wanted = posterior.mean**2 + torch.linalg.inv(dense).diagonal()
    torch.testing.assert_close(averaged, wanted, rtol=2e-2, atol=1e-2)


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


ONE, PLACE = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0]])


@pytest.mark.parametrize(
    ("factors", "keywords", "words"),
    [
        ([], {"prior": 1.0}, "factors is empty"),
        ([(ONE, torch.ones(2, 2), PLACE)], {}, r"A \(2, 2\) and places \(1, 1\)"),
        ([(torch.ones(1, 2), ONE, PLACE)], {}, r"B \(1, 2\)"),
        ([(ONE, ONE, PLACE + 1)], {}, "each place from 0 to 0 once"),
        ([(ONE, ONE, PLACE), (ONE, ONE, PLACE)], {}, "each place from 0 to 1 once"),
        ([(ONE * float("nan"), ONE, PLACE)], {}, "a B with a value that is not finite"),
        ([(ONE, -ONE, PLACE)], {}, "an? A with the negative eigenvalue -1"),
        (
            [(torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64), ONE, torch.tensor([[0], [1]]))],
            {},
            "a B that is not symmetric",
        ),
        ([(ONE * 0, ONE, PLACE)], {}, "positive definite.*prior above 0"),
        ([(ONE, ONE, PLACE)], {"prior": -1.0}, "prior is -1.0"),
        ([(ONE, ONE, PLACE)], {"examples": 0}, "examples is 0"),
    ],
)
def test_what_is_no_kronecker_precision_is_refused_by_name(factors, keywords, words):
    with pytest.raises(ValueError, match=words):
        Kronecker(factors, **keywords)


def test_a_kronecker_precision_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"precision has shape \(1, 1\); it may be \(2,\) or \(2, 2\)"):
        LaplacePosterior(torch.zeros(2), Kronecker([(ONE, ONE, PLACE)]))


def test_numpys_numbers_are_numbers_and_words_are_not():
    one, two = torch.ones(1, 1), numpy.int64(2)
    kronecker = Kronecker([(one, one, torch.tensor([[0]]))], examples=two, prior=numpy.float32(0.5))
    assert kronecker.dense().item() == 2.5
    posterior = LaplacePosterior(torch.zeros(1), torch.ones(1))
    assert posterior.sample(two).shape == (2, 1)
    for wrong in (2.5, "2", 0):
        with pytest.raises(ValueError, match=r"n is .*whole number"):
            posterior.sample(wrong)
        with pytest.raises(ValueError, match=r"steps is .*whole number"):
            laplace_approximation(lambda theta: -(theta**2).sum(), torch.ones(1), steps=wrong)
    for options in ({"examples": "2"}, {"examples": 0}, {"prior": "1"}, {"prior": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            Kronecker([(one, one, torch.tensor([[0]]))], **options)
