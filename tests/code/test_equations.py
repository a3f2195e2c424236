"""Every numbered equation that has code, evaluated from its TeX in the chapter and held to the function that computes it.

Pages show these tests under the code that they bind. The last two tests change each equation and each function on purpose:
a sign, a number, an index; the test that binds them must notice.
"""

import itertools
import math
import re
import warnings
from unittest import mock

import pytest
import torch
from equations import BOUND, Equation, bindings, bound, changed, changed_code, numbered, same, shown_lines
from ewc import EWC, L2, AccuracyMatrix, diagonal_fisher, fisher_overlap, full_fisher, kronecker_fisher, mlp
from ewc.chapters.fisher_information.bridge import of_two_labels, posterior_precision
from ewc.chapters.laplace_approximation.error import divergence_of_the_cube
from ewc.chapters.likelihood_and_loss.likelihood import (
    gaussian_log_likelihood,
    log_likelihood,
    log_softmax,
    prior_precision_of,
)
from ewc.chapters.many_tasks.anchors import learn_gaussians, shares
from ewc.chapters.reading_other_peoples_ewc.slips import own_label_weighted, square_of_batch_mean
from ewc.chapters.tempting_fixes.two_weights import tug
from ewc.chapters.the_family.variational import Gaussians, _Divergence, divergence
from ewc.chapters.the_family.variational import bound as variational_bound
from ewc.chapters.the_shape_of_curvature.uses import block_of_uses
from ewc.chapters.what_ewc_cannot_do.class_means import ClassMeans
from ewc.chapters.yesterdays_posterior.conjugate import beta_log_density, learn_coin, learn_line, learn_mean, log_beta
from ewc.chapters.yesterdays_posterior.grid import Grid, gaussian_log_prior, logistic_log_likelihood
from ewc.dark_replay import DarkReplay
from ewc.distillation import Distillation
from ewc.factors import Blocks
from ewc.fisher import kronecker_of
from ewc.gradients import SumsOfSquares, add_linear
from ewc.importance import SynapticIntelligence, _Walk
from ewc.laplace import Kronecker, LaplacePosterior, laplace_approximation
from ewc.likelihoods import Categorical
from ewc.noise import cost_of_a_shift, curvature_along
from ewc.projection import OrthogonalWeights
from ewc.scores import weighted_scores
from ewc.sensitivity import MemoryAwareSynapses, output_sensitivity, sensitivity_of
from ewc.springs import _Quadratic, add_gradient, largest_curvature, parabola
from ewc.steps import capped, proximal_step
from ewc.training import warn_of_divergence
from torch import nn
from torch.nn.utils import parameters_to_vector

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(*shape, seed=0):
    return normal(*shape, seed=seed).abs() + 0.1


def definite(size, seed=0):
    root = normal(size, size, seed=seed)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


# ---- Catastrophic forgetting ----

ACCURACIES = torch.tensor(
    [[0.9, 0.97, 0.1, 0.3], [0.6, 0.8, 0.15, 0.05], [0.7, 0.5, 0.95, 0.4], [0.35, 0.45, 0.65, 0.85]], dtype=torch.float64
)
UNTRAINED = torch.tensor([0.12, 0.07, 0.09, 0.11], dtype=torch.float64)


@bound("eq-acc", AccuracyMatrix.average)
def test_eq_acc(equation):
    same(AccuracyMatrix(ACCURACIES).average(), equation.side(1, {"R": ACCURACIES, "T": 4}))


@bound("eq-bwt", AccuracyMatrix.backward_transfer)
def test_eq_bwt(equation):
    same(AccuracyMatrix(ACCURACIES).backward_transfer(), equation.side(1, {"R": ACCURACIES, "T": 4}))


@bound("eq-fwt", AccuracyMatrix.forward_transfer)
def test_eq_fwt(equation):
    wanted = equation.side(1, {"R": ACCURACIES, "T": 4, "b": UNTRAINED})
    same(AccuracyMatrix(ACCURACIES).forward_transfer(UNTRAINED), wanted)


@bound("eq-forgetting", AccuracyMatrix.forgetting)
def test_eq_forgetting(equation):
    same(AccuracyMatrix(ACCURACIES).forgetting(), equation.side(1, {"R": ACCURACIES, "T": 4}))


# ---- Tempting fixes ----


@bound("eq-leash", L2.penalty)
def test_eq_leash(equation):
    guard, names = held_evenly()
    names |= {"L_B": lambda theta: 0.25}
    same(0.25 + guard.penalty().detach(), equation.side(1, names, i=len(names["F"])))


@bound("eq-tug", tug)
def test_eq_tug(equation):
    k, wanted, c, old = positive(3), normal(3), positive(3, seed=1), normal(3, seed=2)
    theta = tug(k, wanted, c, old)
    names = {"k": k, r"\theta^B": wanted, "c": c, r"\theta^*": old, r"\theta": theta}
    for i in (1, 2, 3):
        same(equation.side(0, names | {"i": i}), equation.side(1, names | {"i": i}))
        same(theta[i - 1], equation.side(3, names | {"i": i}))


# ---- Likelihood and loss ----


@bound("eq-softmax", log_softmax)
def test_eq_softmax(equation):
    logits = normal(4)
    for label in (1, 3):
        wanted = equation.side(1, {"z": logits, "y": label}, k=4)
        same(log_softmax(logits[None])[0, label - 1].exp(), wanted)
    assert log_softmax(torch.tensor([800.0, 0.0])).isfinite().all()


@bound("eq-log-likelihood", log_likelihood)
def test_eq_log_likelihood(equation):
    logits, labels = normal(5, 3), torch.tensor([0, 2, 1, 1, 0])

    def p(label, example, theta):
        return logits.softmax(-1)[int(example) - 1, int(label) - 1]

    names = {"N": 5, "y": labels + 1, "x": torch.arange(1, 6), r"\theta": None, "p": p}
    same(log_likelihood(logits, labels), equation.side(1, names))


@bound("eq-gaussian-likelihood", gaussian_log_likelihood)
def test_eq_gaussian_likelihood(equation):
    outputs, targets = normal(5), normal(5, seed=1)
    names = {"x": torch.arange(1, 6), "f": lambda example, theta: outputs[int(example) - 1], r"\theta": None}
    names |= {"y": targets, "N": 5, r"\beta": torch.tensor(0.7)}
    same(gaussian_log_likelihood(outputs, targets, 0.7), equation.side(1, names, n=5), tolerance=1e-7)


# ---- Yesterday's posterior is today's prior ----


@bound("eq-coin-update", learn_coin)
def test_eq_coin_update(equation):
    names = {"a": 2.5, "b": 1.5, "h": 3, "t": 2}
    tosses = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    same(torch.tensor(learn_coin(2.5, 1.5, tosses)), torch.tensor([equation.side(1, names), equation.side(3, names)]))


@bound("eq-beta", beta_log_density)
def test_eq_beta(equation):
    def beta(a, b):
        return torch.tensor(log_beta(a, b), dtype=torch.float64).exp()

    for theta in (0.2, 0.7):
        names = {r"\theta": theta, "a": 2.5, "b": 4.0, "B": beta}
        same(beta_log_density(torch.tensor(theta, dtype=torch.float64), 2.5, 4.0), equation.side(1, names))


@bound("eq-measurement-update", learn_mean)
def test_eq_measurement_update(equation):
    values = torch.tensor([103.1, 105.8, 104.0], dtype=torch.float64)
    mean, precision = learn_mean(100.0, 0.01, values, 0.4)
    names = {r"\alpha": 0.01, "m": 100.0, r"\beta": 0.4, "N": 3, "v": values, r"\alpha'": precision}
    same(precision, equation.side(1, names))
    same(mean, equation.side(3, names, n=3))


@bound("eq-line-update", learn_line)
def test_eq_line_update(equation):
    X, y, mean, precision = normal(5, 2), normal(5, seed=1), normal(2, seed=2), definite(2)
    new_mean, new_precision = learn_line(mean, precision, X, y, 0.7)
    names = {r"\Lambda": precision, "m": mean, r"\beta": 0.7, "X": X, "y": y}
    same(new_precision, equation.side(1, names))
    same(new_precision @ new_mean, equation.side(3, names))


@bound("eq-logistic-likelihood", logistic_log_likelihood)
def test_eq_logistic_likelihood(equation):
    inputs, labels, theta = normal(6, 2), torch.tensor([0.0, 1, 1, 0, 1, 0]), normal(2, seed=1)
    names = {"x": inputs, "y": labels, r"\theta": theta, r"\sigma": torch.sigmoid}
    same(logistic_log_likelihood(theta, inputs, labels), equation.side(1, names, n=6))


@bound("eq-grid-evidence", Grid.log_integral)
def test_eq_grid_evidence(equation):
    grid = Grid(torch.linspace(-1, 1, 4, dtype=torch.float64), torch.linspace(0, 5, 3, dtype=torch.float64))
    values = normal(4, 3)
    names = {"g": values.flatten(), r"\Delta": 2 / 3 * 2.5}
    same(grid.log_integral(values), equation.side(1, names, k=12))


# ---- Laplace approximation ----


@bound("eq-kl-grid", Grid.kl)
def test_eq_kl_grid(equation):
    grid = Grid(torch.linspace(-1, 1, 5, dtype=torch.float64))
    log_p, log_q = normal(5), normal(5, seed=1)
    names = {"p": log_p.exp(), "q": log_q.exp(), r"\Delta": 0.5}
    same(grid.kl(log_p, log_q), equation.side(2, names, k=5))


@bound("eq-laplace-many", laplace_approximation)
def test_eq_laplace_many(equation):
    precision, centre = definite(3), normal(3, seed=1)

    def log_joint(theta):
        return -(theta - centre) @ precision @ (theta - centre) / 2 - (theta**4).sum()

    posterior = laplace_approximation(log_joint, torch.zeros(3, dtype=torch.float64))
    names = {r"\nabla^2 g": torch.func.hessian(log_joint), r"\hat\theta": posterior.mean}
    same(posterior.precision, equation.side(1, names))
    assert torch.func.grad(log_joint)(posterior.mean).abs().max() < 1e-9


@bound("eq-laplace-density", LaplacePosterior.log_density)
def test_eq_laplace_density(equation):
    mean, precision, theta = normal(3), definite(3), normal(3, seed=2)
    names = {r"\theta": theta, r"\hat\theta": mean, r"\Lambda": precision, "P": 3}
    same(LaplacePosterior(mean, precision).log_density(theta), equation.side(1, names))
    names[r"\Lambda"] = precision.diagonal().diag()
    same(LaplacePosterior(mean, precision.diagonal()).log_density(theta), equation.side(1, names))
    factored = Kronecker([(definite(1), definite(3), torch.arange(3)[None])], prior=0.2)
    names[r"\Lambda"] = factored.dense()
    same(LaplacePosterior(mean, factored).log_density(theta), equation.side(1, names))


@bound("eq-laplace-sample", LaplacePosterior.sample)
def test_eq_laplace_sample(equation):
    mean, precision = normal(3), definite(3)
    draws = LaplacePosterior(mean, precision).sample(2, torch.Generator().manual_seed(5))
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    names = {r"\hat\theta": mean, "L": torch.linalg.cholesky(precision), r"\epsilon": noise[1]}
    same(draws[1], equation.side(1, names))
    same(precision, equation.side(3, names))
    diagonal = LaplacePosterior(mean, precision.diagonal()).sample(2, torch.Generator().manual_seed(5))
    same(diagonal[1], equation.side(1, names | {"L": precision.diagonal().sqrt().diag()}))
    factored = Kronecker([(definite(1), definite(3), torch.arange(3)[None])], prior=0.2)
    drawn = LaplacePosterior(mean, factored).sample(2, torch.Generator().manual_seed(5))
    values, vectors = torch.linalg.eigh(factored.dense())
    root = vectors @ values.sqrt().diag() @ vectors.T  # symmetric: another root of Λ than Cholesky's, and as good
    same(drawn[1], equation.side(1, names | {"L": root}))


@bound("eq-laplace-predict", LaplacePosterior.predict)
def test_eq_laplace_predict(equation):
    posterior, x = LaplacePosterior(normal(2), definite(2)), normal(2, seed=3)
    draws = posterior.sample(5, torch.Generator().manual_seed(7))
    names = {"S": 5, "x": x, "y": 1, r"\theta": draws, "p": lambda _, x, theta: torch.sigmoid(x @ theta)}
    found = posterior.predict(lambda theta: torch.sigmoid(x @ theta), 5, torch.Generator().manual_seed(7))
    same(found, equation.side(1, names))


@bound("eq-gaussian-log-prior", gaussian_log_prior)
def test_eq_gaussian_log_prior(equation):
    theta = normal(3)
    same(gaussian_log_prior(theta, 1.7), equation.side(1, {r"\theta": theta, r"\sigma": torch.tensor(1.7), "P": 3}, i=3))


@bound("eq-laplace-error", divergence_of_the_cube)
def test_eq_laplace_error(equation):
    names = {r"g'''": lambda theta: torch.tensor(-7.0), r"\hat\theta": None, r"\Lambda": 3.5}
    same(divergence_of_the_cube(-7.0, 3.5), equation.side(2, names))
    d = torch.linspace(-8, 8, 20001, dtype=torch.float64) / 3.5**0.5  # half the variance of the cube, as a sum over a grid
    q = (-3.5 * d**2 / 2).exp()
    q, cube = q / q.sum(), -7.0 * d**3 / 6
    same(divergence_of_the_cube(-7.0, 3.5), ((q * cube**2).sum() - (q * cube).sum() ** 2) / 2)


@bound("eq-weight-decay", prior_precision_of)
def test_eq_weight_decay(equation):
    same(prior_precision_of(0.3, 7), equation.side(1, {"N": 7, "w": 0.3}))


@bound("eq-evidence", LaplacePosterior.log_evidence)
def test_eq_evidence(equation):
    precision = definite(3)
    names = {"D": None, "p": lambda *_: torch.tensor(0.3).double(), r"\hat\theta": None, r"\Lambda": precision, "P": 3}
    found = LaplacePosterior(normal(3), precision).log_evidence(torch.tensor(0.3, dtype=torch.float64).log())
    same(found, equation.side(1, names), tolerance=1e-7)


# ---- Fisher information ----


def small_network():
    network = mlp((4,), inputs=5, classes=3).double()
    inputs, labels = normal(6, 5), torch.tensor([0, 2, 1, 1, 0, 2])
    return network, inputs, labels


def with_network(network, inputs, labels):
    """The symbols of the Fisher's equations, each by its definition: one call of autograd an image and label."""

    def p(label, image, theta):
        return network(image[None]).softmax(-1)[0, int(label) - 1].detach()

    def s(image, label):
        log_p = network(image[None]).log_softmax(-1)[0, int(label) - 1]
        return parameters_to_vector(torch.autograd.grad(log_p, list(network.parameters())))

    theta = parameters_to_vector(network.parameters()).detach()
    return {"x": inputs, "y": labels + 1, r"\theta": theta, "p": p, "s": s, "N": len(inputs)}


@bound("eq-output-score", weighted_scores)
def test_eq_output_score(equation):
    logits = normal(1, 4)
    p = logits.softmax(-1)[0]
    wanted = []
    for label in (1, 2, 3, 4):
        names = {"y": label, "x": None, r"\theta": None, "p": lambda label, *_: p[int(label) - 1]}
        wanted.append(torch.stack([torch.as_tensor(equation.side(1, names | {"k": k})) for k in (1, 2, 3, 4)]))
        free = logits.clone().requires_grad_()
        same(wanted[-1], torch.autograd.grad(free.log_softmax(-1)[0, label - 1], free)[0])
    drawn = weighted_scores(logits, "sampled", None, torch.tensor([[0.0, 0.999999]]))
    for score, label in zip(drawn, (1, 4), strict=True):
        same(score[0], wanted[label - 1] / 2**0.5)
    most = int(p.argmax())
    for labels, targets in (("argmax", None), ("empirical", torch.tensor([most]))):
        (score,) = weighted_scores(logits, labels, targets, None)
        same(score[0], wanted[most])
    columns = torch.cat(list(weighted_scores(logits, "exact", None, None)))
    assert len(columns) == 3
    same(columns.T @ columns, sum(p[y] * torch.outer(score, score) for y, score in enumerate(wanted)))


@bound("eq-fisher-diagonal", SumsOfSquares.add)
def test_eq_fisher_diagonal(equation):
    network, inputs, labels = small_network()
    names = with_network(network, inputs, labels)
    fisher = parameters_to_vector(diagonal_fisher(network, inputs, batch_size=4).values())
    for i in (1, 8, 23, 30, len(fisher)):
        same(fisher[i - 1], equation.side(1, names | {"i": i}, y=3))


@bound("eq-fisher-whole", full_fisher)
def test_eq_fisher_whole(equation):
    network, inputs, labels = small_network()
    same(full_fisher(network, inputs, batch_size=4), equation.side(1, with_network(network, inputs, labels), y=3))


@bound("eq-empirical-fisher", weighted_scores)
def test_eq_empirical_fisher(equation):
    network, inputs, labels = small_network()
    names = with_network(network, inputs, labels)
    fisher = parameters_to_vector(diagonal_fisher(network, inputs, labels, labels="empirical").values())
    for i in (1, 8, 23, 30, len(fisher)):
        same(fisher[i - 1], equation.side(0, names | {"i": i}))
    test_eq_output_score()  # the other labels of the same lines


@bound("eq-empirical-vanishes", of_two_labels)
def test_eq_empirical_vanishes(equation):
    for p in (0.3, 0.9):
        z = torch.tensor(math.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
        logs = torch.stack([nn.functional.logsigmoid(z), nn.functional.logsigmoid(-z)])
        right, wrong = (torch.autograd.grad(each, z, retain_graph=True)[0] for each in logs)
        exact, empirical = of_two_labels(torch.tensor(p, dtype=torch.float64))
        same(exact, p * right**2 + (1 - p) * wrong**2)
        same(empirical, right**2)
        for side, wanted in ((0, exact), (1, exact), (2, empirical), (4, empirical / exact)):
            same(equation.side(side, {"p": p}), wanted)


@bound("eq-laplace-fisher", posterior_precision)
def test_eq_laplace_fisher(equation):
    fisher = definite(3)
    names = {"N": 7, "F": fisher, r"\alpha": 0.3, "I": torch.eye(3, dtype=torch.float64)}
    same(posterior_precision(fisher, 7, 0.3), equation.side(1, names))


@bound("eq-own-label", own_label_weighted)
def test_eq_own_label(equation):
    network, inputs, labels = small_network()
    names = with_network(network, inputs, labels)
    found = parameters_to_vector(own_label_weighted(network, inputs, labels, batch_size=4).values())
    for i in (1, 8, 23, 30, len(found)):
        same(found[i - 1], equation.side(0, names | {"i": i}))


@bound("eq-batch-square", square_of_batch_mean)
def test_eq_batch_square(equation):
    network, inputs, labels = small_network()
    found = parameters_to_vector(square_of_batch_mean(network, inputs, labels, batch_size=2).values())
    batches = [with_network(network, inputs[rows], labels[rows]) for rows in (slice(0, 2), slice(2, 4), slice(4, 6))]
    for i in (1, 8, 23, 30, len(found)):
        same(found[i - 1], sum(equation.side(0, names | {"B": 2, "i": i}) for names in batches) / 3)


@bound("eq-closed-form", add_linear)
def test_eq_closed_form(equation):
    layer, delta, inputs = nn.Linear(3, 2).double(), normal(5, 2), normal(5, 3, seed=1)
    found = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    add_linear(found, {layer.weight: "weight", layer.bias: "bias"}, layer, delta**2, inputs**2)
    names = {r"\delta": delta, "a": inputs}
    for j in (1, 2):
        same(found["bias"][j - 1], (delta[:, j - 1] ** 2).sum())
        for k in (1, 2, 3):
            for side in (0, 1, 2):
                same(found["weight"][j - 1, k - 1], equation.side(side, names | {"j": j, "k": k}, n=5))


@bound("eq-overlap", fisher_overlap)
def test_eq_overlap(equation):
    first, second = positive(6), positive(6, seed=1)
    found = fisher_overlap({"a": first[:2], "b": first[2:]}, {"a": second[:2], "b": second[2:]})
    same(found, equation.side(0, {"F": first, "G": second}, i=6, j=6))


# ---- The shape of curvature ----


def layer_samples(network, inputs):
    """For the first layer of `small_network`: every image and label with its weight, its input a with a 1, and its score δ."""
    samples = []
    for image in inputs:
        log_p = network(image[None]).log_softmax(-1)[0]
        for log in log_p:
            (delta,) = torch.autograd.grad(log, network.hidden1.bias, retain_graph=True)
            a = torch.cat([image, torch.ones(1)])
            samples.append((log.exp().detach() / len(inputs), {r"\delta": delta, "a": a}))
    return samples


@bound("eq-kronecker", kronecker_of)
def test_eq_kronecker(equation):
    network, inputs, _ = small_network()
    b, a, places = kronecker_fisher(network, inputs, batch_size=4)["hidden1"]
    names = {r"\operatorname{E}": layer_samples(network, inputs), "B": b, "A": a}
    rows = places.flatten()
    same(full_fisher(network, inputs)[rows][:, rows], equation.side(1, names))
    for side in (2, 3):
        same(torch.kron(b, a), equation.side(side, names))


@bound("eq-diagonal-of-block", add_linear)
def test_eq_diagonal_of_block(equation):
    network, inputs, _ = small_network()
    names = {r"\operatorname{E}": layer_samples(network, inputs)}
    fisher = diagonal_fisher(network, inputs)
    for j in (1, 4):
        same(fisher["hidden1.weight"][j - 1, 2], equation.side(1, names | {"j": j, "k": 3}))
        same(fisher["hidden1.bias"][j - 1], equation.side(1, names | {"j": j, "k": 6}))


@bound("eq-kronecker-eigen", Kronecker.power_times)
def test_eq_kronecker_eigen(equation):
    b, a = definite(2), definite(3, seed=1)
    places, vectors = torch.tensor([[3, 0, 5], [1, 4, 2]]), normal(4, 6)
    precision = Kronecker([(b, a, places)], examples=7, prior=0.3)
    names = {"N": 7, "B": b, "A": a, r"\alpha": 0.3, "I": torch.eye(6)}
    rows = places.flatten()
    dense = equation.side(0, names)
    same(precision.power_times(vectors, 1)[:, rows], vectors[:, rows] @ dense)
    same(precision.power_times(vectors, -1)[:, rows], vectors[:, rows] @ torch.linalg.inv(dense))


@bound("eq-many-uses", block_of_uses)
def test_eq_many_uses(equation):
    delta, a = normal(4, 3, 2), normal(4, 3, 5, seed=1)
    names = {r"\operatorname{E}": [(1 / 4, {r"\delta": d, "a": inputs}) for d, inputs in zip(delta, a, strict=True)]}
    same(block_of_uses(delta, a), equation.side(1, names, **{"r": 3, "r'": 3}))


# ---- Deriving EWC ----


def held_network():
    """A network moved away from where EWC holds it: the network, the guard, and θ, θ* and F as vectors."""
    network, inputs, _ = small_network()
    guard = EWC(network, strength=3.5)
    guard.consolidate(inputs)
    anchor = parameters_to_vector(network.parameters()).detach().clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * normal(*parameter.shape, seed=parameter.numel())
    moved = parameters_to_vector(network.parameters())
    fisher = parameters_to_vector(diagonal_fisher_at(network, anchor, inputs))
    return network, guard, {r"\theta": moved.detach(), r"\theta^*": anchor, "F": fisher, r"\lambda": 3.5}


def held_evenly():
    """The same network, moved in the same way, held by L2: the guard, and the symbols."""
    network, _, names = held_network()
    torch.nn.utils.vector_to_parameters(names[r"\theta^*"].clone(), network.parameters())
    guard = L2(network, strength=0.7)
    guard.consolidate()
    torch.nn.utils.vector_to_parameters(names[r"\theta"].clone(), network.parameters())
    return guard, names | {r"\lambda": 0.7}


def diagonal_fisher_at(network, weights, inputs):
    kept = [parameter.detach().clone() for parameter in network.parameters()]
    torch.nn.utils.vector_to_parameters(weights.clone(), network.parameters())
    fisher = list(diagonal_fisher(network, inputs).values())
    for parameter, value in zip(network.parameters(), kept, strict=True):
        parameter.data = value
    return fisher


@bound("eq-ewc", _Quadratic.forward)
def test_eq_ewc(equation):
    network, guard, names = held_network()
    images, labels = normal(4, 5, seed=9), torch.tensor([0, 1, 2, 0])
    loss = nn.functional.cross_entropy(network(images), labels)
    names |= {"L_B": lambda theta: loss.detach(), "N_A": 7.0, "N_B": 2.0}
    same((loss + guard.penalty()).detach(), equation.side(1, names, i=len(names["F"])))
    same(EWC(network, strength=7 / 2).strength, equation.side(3, names))


@bound("eq-ewc-gradient", _Quadratic.backward, add_gradient)
def test_eq_ewc_gradient(equation):
    network, guard, names = held_network()
    (2 * guard.penalty()).backward()  # twice the penalty: the factor from outside must come through
    guard.add_gradient()  # and once more, onto what is there
    guard.add_gradient(scale=4.0)  # and four times, as for a loss that was multiplied by four
    gradient = parameters_to_vector(parameter.grad for parameter in network.parameters()) / 7
    for i in (1, 8, 23, len(gradient)):
        same(gradient[i - 1], equation.side(1, names | {"i": i}))


@bound("eq-online", EWC.consolidate)
def test_eq_online(equation):
    network, first, _ = small_network()
    second = normal(7, 5, seed=4)
    guard = EWC(network, anchors="merged", decay=0.6)
    guard.consolidate(first)
    old = parameters_to_vector(diagonal_fisher(network, first).values())
    with torch.no_grad():
        network.logits.weight += 0.2
    new = parameters_to_vector(diagonal_fisher(network, second).values())
    guard.consolidate(second)
    state = guard.state_dict()
    held = parameters_to_vector(state[f"0/importance/{name}"] for name, _ in network.named_parameters())
    same(held, equation.side(1, {"F": old, "F^B": new, r"\gamma": 0.6}))
    assert torch.equal(state["0/anchor/logits.weight"], network.logits.weight)
    network.logits.bias.requires_grad_(False)  # what was frozen in one task and not in the next has no old Fisher
    thawed = EWC(network, anchors="merged")
    thawed.consolidate(first)
    network.logits.bias.requires_grad_(True)
    thawed.consolidate(second)
    same(thawed.state_dict()["0/importance/logits.bias"], new[-3:])
    few = EWC(network, max_examples=2)  # spread over all: the first and the last
    few.consolidate(first)
    same(few.state_dict()["0/importance/logits.bias"], diagonal_fisher(network, first[[0, -1]])["logits.bias"])


@bound("eq-l-two", L2.consolidate)
def test_eq_l_two(equation):
    guard, names = held_evenly()
    same(guard.penalty().detach(), equation.side(0, names, i=len(names["F"])))


@bound("eq-largest-curvature", largest_curvature)
def test_eq_largest_curvature(equation):
    _, guard, names = held_network()
    assert EWC(mlp((4,), inputs=5)).largest_curvature() == 0
    assert largest_curvature(2.0, [({"none": torch.zeros(0)}, {"none": torch.zeros(0)})]) == 0
    wanted = names[r"\lambda"] * names["F"].max()
    same(guard.largest_curvature(), wanted)
    same(guard.largest_curvature(), equation.side(0, names, i=len(names["F"])))


@bound("eq-step-bound", warn_of_divergence)
def test_eq_step_bound(equation):
    _, guard, names = held_network()
    longest = float(equation.side(1, names | {r"\mu": 0.9}, i=len(names["F"])))
    caught = {}
    for factor in (0.999, 1.001):
        with warnings.catch_warnings(record=True) as caught[factor]:
            warnings.simplefilter("always")
            warn_of_divergence(guard, factor * longest, 0.9)
    assert [len(warned) for warned in caught.values()] == [0, 1]
    stays, weaker = (float(number) for number in re.findall(r"below ([\d.e+-]+\d)", str(caught[1.001][0].message))[-2:])
    same(stays, longest, tolerance=0.01)
    same(weaker, guard.strength / 1.001, tolerance=0.01)


# ---- Many tasks ----


def lessons(anchors):
    """What the two equations of a lesson speak of, for three tasks of two weights."""
    optima, precisions = normal(3, 2), torch.stack([definite(2, seed) for seed in (1, 2, 3)])
    ends = learn_gaussians(optima, precisions, anchors=anchors)
    return ends, {r"\Lambda": precisions, "m": optima, r"\theta": ends}


@bound("eq-separate-lesson", learn_gaussians)
def test_eq_separate_lesson(equation):
    ends, names = lessons("separate")
    for t in (2, 3):
        stiffness = sum(names[r"\Lambda"][:t])
        same(equation.side(0, names | {"t": t}), stiffness @ ends[t - 1])
        same(ends[t - 1], torch.linalg.solve(stiffness, equation.side(1, names | {"t": t}).squeeze()))


@bound("eq-merged-lesson", learn_gaussians)
def test_eq_merged_lesson(equation):
    ends, names = lessons("merged")
    for t in (2, 3):
        stiffness = sum(names[r"\Lambda"][:t])
        same(equation.side(0, names | {"t": t}), stiffness @ ends[t - 1])
        same(ends[t - 1], torch.linalg.solve(stiffness, equation.side(1, names | {"t": t}).squeeze()))
    same(learn_gaussians(names["m"], names[r"\Lambda"], anchors="separate")[:2], ends[:2])


@bound("eq-faded-shares", shares)
def test_eq_faded_shares(equation):
    precisions = torch.stack([definite(2, seed) for seed in range(4)])
    found = shares(precisions, decay=0.6)
    for t in (1, 2, 4):
        same(found[t - 1], equation.side(1, {r"\Lambda": precisions, r"\gamma": 0.6, "T": 4, "t": t}))


@bound("eq-common-anchor", parabola)
def test_eq_common_anchor(equation):
    terms = [({"w": normal(4, seed=seed)}, {"w": positive(4, seed=seed)}) for seed in (1, 2, 3)]
    # Where no task minds, the latest anchor, to the last bit.
    for (anchor, importance), there in zip(terms, (0.3, 1e17, 0.1), strict=True):
        anchor["w"][3], importance["w"][3] = there, 0
    minimum, curvature = parabola(2.0, terms)
    theta, F = (torch.stack([term[part]["w"] for term in terms]) for part in (0, 1))
    for i in (0, 1, 2):
        same(minimum["w"][i], equation.side(1, {"F": F[:, i], r"\theta": theta[:, i]}, t=3))
        same(curvature["w"][i], 2 * F[:, i].sum())
    assert minimum["w"][3] == 0.1
    assert curvature["w"][3] == 0


@bound("eq-overlap-norm", fisher_overlap)
def test_eq_overlap_norm(equation):
    first, second = positive(6), positive(6, seed=1)
    found = fisher_overlap({"a": first[:2], "b": first[2:]}, {"a": second[:2], "b": second[2:]})
    names = {r"\hat F": first / first.sum(), r"\hat G": second / second.sum()}
    for side in (0, 1):
        same(found, equation.side(side, names, i=6))


# ---- Choosing λ ----


@bound("eq-capped", capped)
def test_eq_capped(equation):
    stiffness, names = positive(7), {r"\min": min, r"\kappa": 0.7, r"\eta": 0.9}
    wanted = [equation.side(1, {**names, "c": stiffness, "i": place}) for place in range(1, 8)]
    assert 0 < sum(float(value) == 0.7 / 0.9 for value in wanted) < 7  # some are capped and some are not
    same(capped({"c": stiffness}, 0.9, 0.7)["c"], torch.stack([torch.as_tensor(value) for value in wanted]))


@bound("eq-proximal-step", proximal_step)
def test_eq_proximal_step(equation):
    model = nn.Linear(5, 1, bias=False)
    names = {r"\tilde\theta": normal(5), r"\theta^*": normal(5, seed=1), "c": positive(5, seed=2), r"\eta": 0.3}
    with torch.no_grad():
        model.weight.copy_(names[r"\tilde\theta"][None])
    proximal_step(model, {"weight": names[r"\theta^*"][None]}, {"weight": names["c"][None]}, 0.3)
    wanted = torch.stack([torch.as_tensor(equation.side(1, {**names, "i": place})) for place in range(1, 6)])
    same(model.weight.detach(), wanted)


# ---- The family ----


@bound("eq-family", MemoryAwareSynapses.penalty)
def test_eq_family(equation):
    network, inputs, _ = small_network()
    guard = MemoryAwareSynapses(network, strength=0.7)
    guard.consolidate(inputs)
    importance = torch.cat([value.flatten() for value in output_sensitivity(network, inputs).values()])
    old = parameters_to_vector(network.parameters()).detach()
    theta = old + 0.1 * normal(len(old))
    torch.nn.utils.vector_to_parameters(theta.clone(), network.parameters())
    names = {r"\lambda": 0.7, r"\Omega": importance, r"\theta": theta, r"\theta^*": old}
    same(guard.penalty().detach(), equation.side(0, names, i=len(old)))


@bound("eq-earned", _Walk.settle)
def test_eq_earned(equation):
    gradients, moves, weights = normal(4, 3), normal(4, 3, seed=1), normal(3, seed=2)
    walk = _Walk.begin(weights)
    for gradient, move in zip(gradients, moves, strict=True):
        walk.take(gradient, first=True)
        weights = weights + move
        walk.settle(weights)
    for i in (1, 2, 3):
        same(walk.path[i - 1], equation.side(1, {"g": gradients, r"\Delta\theta": moves, "i": i}, t=4))
    before = walk.path.clone()
    walk.take(torch.full_like(weights, torch.inf), first=True)  # a gradient scaler takes no step after it
    walk.settle(weights)
    same(walk.path, before)


@bound("eq-si", SynapticIntelligence.consolidate)
def test_eq_si(equation):
    network, inputs, labels = small_network()
    guard = SynapticIntelligence(network, damping=0.3)
    before = torch.zeros(len(parameters_to_vector(network.parameters())))
    for _ in range(2):  # the second task adds to the first
        start = parameters_to_vector(network.parameters()).detach()
        for _ in range(3):
            network.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter -= 0.2 * parameter.grad
        state = guard.state_dict()
        earned = torch.cat([state[f"walk/path/{name}"].flatten() for name, _ in network.named_parameters()])
        guard.consolidate()
        found = torch.cat([value.flatten() for value in guard.parabola()[1].values()])
        now = parameters_to_vector(network.parameters()).detach()
        assert (earned >= 0).all() and (earned > 0).any()
        for i in torch.arange(1, len(now) + 1)[earned > 0][::5]:
            names = {r"\Omega": before, r"\omega": earned, r"\theta^*": now, r"\theta^0": start, r"\xi": 0.3, "i": i}
            same(found[i - 1], equation.side(1, names))
        before = found


@bound("eq-mas-layer", sensitivity_of)
def test_eq_mas_layer(equation):
    network, inputs, _ = small_network()
    reached = network.hidden1(inputs)
    hidden = reached.relu()
    logits = network.logits(hidden)
    (inner,) = torch.autograd.grad(logits.square().sum(), reached, retain_graph=True)
    found = output_sensitivity(network, inputs)
    for name, delta, a in (("hidden1", inner, inputs), ("logits", 2 * logits, hidden)):
        weight = found[f"{name}.weight"]
        for j, k in ((1, 1), (2, 3), (3, 4)):
            names = {r"\delta": delta.detach(), "a": a.detach(), "N": len(inputs), "j": j, "k": k}
            same(weight[j - 1, k - 1], equation.side(1, names, n=len(inputs)))


@bound("eq-kronecker-pull", Blocks.times)
def test_eq_kronecker_pull(equation):
    delta = normal(3, 4)
    for tasks in (1, 2):
        b = torch.stack([definite(3, seed=task) for task in range(tasks)])
        a = torch.stack([definite(4, seed=10 + task) for task in range(tasks)])
        names = {r"\lambda": 0.7, "B": b, "A": a, r"\Delta": delta}
        same(0.7 * Blocks(b, a).times(delta), equation.side(0, names, t=tasks))


@bound("eq-kronecker-proximal", Blocks.shrunk)
def test_eq_kronecker_proximal(equation):
    b, a, moved = definite(3), definite(4, seed=10), normal(3, 4)
    (beta, u), (rho, v) = torch.linalg.eigh(b), torch.linalg.eigh(a)
    names = {r"\eta": 0.3, r"\lambda": 0.7, r"\beta": beta, r"\rho": rho, r"\tilde E": u.mT @ moved @ v}
    turned = u.mT @ Blocks(b[None], a[None]).shrunk(moved, 0.3 * 0.7) @ v
    wanted = [[equation.side(1, {**names, "j": j, "k": k}) for k in range(1, 5)] for j in range(1, 4)]
    same(turned, torch.tensor(wanted))


@bound("eq-lwf", Distillation.penalty)
def test_eq_lwf(equation):
    network, inputs, _ = small_network()
    guard = Distillation(network, strength=0.7, temperature=2.5)
    guard.consolidate()
    old = network(inputs).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * normal(*parameter.shape)
    new = network(inputs).detach()

    def softened(logits):
        return lambda label, image: (logits / 2.5).softmax(-1)[int(image) - 1, int(label) - 1]

    places = torch.arange(1, len(inputs) + 1)
    names = {r"\lambda": 0.7, r"\tau": 2.5, "N": len(inputs), "x": places, "p^*": softened(old), "p": softened(new)}
    same(guard.penalty(inputs).detach(), equation.side(0, names, n=len(inputs), y=3))


def two_gaussians():
    return (Gaussians(normal(1, 5, seed=seed), normal(1, 5, seed=seed + 1)) for seed in (1, 3))


@bound("eq-vcl", variational_bound)
def test_eq_vcl(equation):
    q, prior = two_gaussians()
    logits, labels = normal(1, 4, 3, seed=5), torch.tensor([2, 1, 1, 3])
    found = variational_bound(logits, labels[None] - 1, q, prior, torch.tensor([0.7]), 4)

    def p(label, image, theta):  # of the one draw that these logits are
        return theta[int(image) - 1].softmax(-1)[int(label) - 1]

    names = {r"\operatorname{E}": [(1, {r"\theta": logits[0]})], "p": p, "y": labels, "x": torch.arange(1, 5), "N": 4, r"\lambda": 0.7}
    same(found, equation.side(0, names | {r"\mathrm{KL}(q\|q_{t-1})": divergence(q, prior)[0]}, n=4))


@bound("eq-vcl-divergence", _Divergence.forward)
def test_eq_vcl_divergence(equation):
    q, prior = two_gaussians()
    names = {"m": q.means[0], r"\theta^*": prior.means[0], r"\Lambda": torch.exp(-q.logs[0]), r"\Lambda^*": torch.exp(-prior.logs[0])}
    same(divergence(q, prior), equation.side(1, names, i=5))


@bound("eq-owm", OrthogonalWeights._project)
def test_eq_owm(equation):
    layer, inputs = nn.Linear(4, 3, bias=False).double(), normal(4, 4)  # as many images as pixels: one size of identity for both
    guard = OrthogonalWeights(layer, strength=0.7)
    guard.consolidate(inputs)
    (found,) = guard.projectors().values()
    for side in (1, 2):
        same(found, equation.side(side, {"X": inputs, "N": 4, r"\lambda": 0.7, "I": torch.eye(4)}))


@bound("eq-der", DarkReplay.penalty)
def test_eq_der(equation):
    network, _, _ = small_network()
    guard, shown, kept = DarkReplay(network, strength=0.7, examples=6), [normal(6, 5, seed=seed) for seed in (1, 2)], []
    for inputs in shown:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.3 * normal(*parameter.shape)
        guard.consolidate(inputs)
        kept.append(network(inputs).detach())
    with torch.no_grad():
        network.logits.weight += 0.3 * normal(*network.logits.weight.shape, seed=3)
    names = {r"\lambda": 0.7, "N": 6, "x": torch.stack(shown), "z^*": torch.stack(kept), "z": lambda image: network(image[None])[0].detach()}
    with mock.patch("torch.randint", lambda most, size, generator: torch.arange(most)):  # every kept image once, in the place of a draw
        same(guard.penalty().detach(), equation.side(0, names, t=2, n=6))


# ---- What EWC cannot do ----


@bound("eq-shift", cost_of_a_shift)
def test_eq_shift(equation):
    p, c = torch.tensor([0.3, 0.01, 1e-5]), 2.5
    wanted = torch.stack([torch.as_tensor(equation.side(1, {"p": each, "c": c})) for each in p])
    same(cost_of_a_shift(p, c), wanted)


@bound("eq-class-answer", ClassMeans.logits)
def test_eq_class_answer(equation):
    features, targets, new = normal(40, 3), torch.arange(40) % 4, normal(5, 3, seed=1)
    means = ClassMeans(3, 5)  # the fifth class never comes
    means.learn(features + targets[:, None], targets)
    names = {r"\mu": means.means[:4], "C": means.covariance(0.2)}
    wanted = [[equation.side(1, names | {"a": a, "k": k}) for k in range(1, 5)] for a in new]
    found = means.logits(new, 0.2)
    same(found[:, :4], torch.tensor(wanted))
    assert found[:, 4].eq(-torch.inf).all()


@bound("eq-along", curvature_along)
def test_eq_along(equation):
    model, inputs = mlp((4,), inputs=5, classes=3), normal(6, 5)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    step = normal(sum(value.numel() for value in weights.values()), seed=1)
    images = []
    for x in inputs:
        jacobian = torch.func.jacrev(lambda values, x=x: torch.func.functional_call(model, values, (x[None],))[0])(weights)
        names = {"J": torch.cat([value.flatten(1) for value in jacobian.values()], 1)}
        images.append((1 / len(inputs), names | {"p": model(x[None])[0].detach().softmax(-1)}))
    same(curvature_along(model, inputs, step), equation.side(1, {"d": step, r"\operatorname{E}": images}, k=3))


# ---- In your own project ----


class OnePlaceALetter(nn.Module):
    """Logits at each of three places of a text, all of them from the same weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 4).double()

    def forward(self, inputs):
        return self.layer(inputs)


@bound("eq-fisher-of-places", Categorical.scores)
def test_eq_fisher_of_places(equation):
    """By the definition: every text that the model can draw, with its probability and the score of each of its letters."""
    model, inputs = OnePlaceALetter(), normal(1, 3, 2)
    logs = model(inputs)[0].log_softmax(-1)
    weights = list(model.parameters())
    scores = torch.stack([torch.stack([parameters_to_vector(torch.autograd.grad(log, weights, retain_graph=True)) for log in row]) for row in logs])
    texts = itertools.product(range(4), repeat=3)
    drawn = [(float(logs.detach()[range(3), text].sum().exp()), scores[range(3), text]) for text in texts]
    fisher = parameters_to_vector(diagonal_fisher(model, inputs).values())
    for i in (0, 5, 11):
        whole = [(p, {"s": text[:, i].sum()}) for p, text in drawn]
        same(fisher[i], equation.side(0, {r"\operatorname{E}": whole}))
        apart = {r"\operatorname{E}": [(p, {"s": text[:, i]}) for p, text in drawn]}
        same(fisher[i], equation.side(1, apart, t=3, u=3))
        same(fisher[i], equation.side(2, apart, t=3))


# ---- The bindings themselves ----


def bindings_on_pages():
    """(equation, test) of every {source} directive that binds."""
    return [(label, options["test"].partition("::")[2]) for _, labels, options in bindings() for label in labels]


def test_each_page_shows_the_test_that_binds_its_equation():
    here = {(label, name) for name, (label, _, _) in BOUND.items()}
    assert [pair for pair in bindings_on_pages() if pair[1].startswith("test_eq") and pair not in here] == []
    assert {label for label, _, _ in BOUND.values()} <= {label for label, _ in bindings_on_pages()} <= set(numbered())
    assert len(bindings_on_pages()) >= 20


def test_about_half_of_the_formulas_are_code_as_the_preface_says():
    chapters = {label for label in numbered() if not label.startswith("eq-refresher")}
    share = len({label for label, _, _ in BOUND.values()}) / len(chapters)
    assert 0.45 < share < 0.7, f"{share:.0%} are bound to code; change the Preface's words with them"


@pytest.mark.parametrize("name", BOUND)
def test_a_changed_equation_is_noticed(name):
    label, check, _ = BOUND[name]
    equation = Equation.of(label)
    check(equation)
    missed, tried, changes = [], 0, list(changed(equation))
    for what, other in changes:
        try:
            check(other)
        except AssertionError:
            tried += 1
        except (SyntaxError, KeyError, IndexError, TypeError, ValueError, RuntimeError):
            pass  # it cannot be read any more
        else:
            missed.append(what)
    assert missed == []
    assert tried or not changes  # a product of means has no sign, number or index


@pytest.mark.parametrize("name", BOUND)
def test_changed_code_is_noticed(name):
    label, check, functions = BOUND[name]
    missed = []
    for function in functions:
        for what, other in changed_code(function, shown_lines(label, function)):
            with other:
                try:
                    check(Equation.of(label))
                except Exception:
                    continue
            missed.append(what)
    assert missed == []
