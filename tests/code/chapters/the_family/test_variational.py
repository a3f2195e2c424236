"""Variational continual learning: the divergence, the bound and its gradients, the draws, and the loop around them."""

import math
from dataclasses import replace

import pytest
import torch
from ewc import mlp
from ewc.chapters.the_family import rivals, variational
from ewc.chapters.the_family.variational import (
    Gaussians,
    beginning,
    bound,
    divergence,
    drawn,
    fit_gaussians,
    permuted_gaussians,
)
from small_tasks import blobs
from tiny_runs import images
from torch.distributions import Normal, kl_divergence
from torch.nn.utils import parameters_to_vector, vector_to_parameters

pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gaussians(m, p, seed=0, free=False):
    parts = normal(m, p, seed=seed), normal(m, p, seed=seed + 1) - 1
    return Gaussians(*(part.requires_grad_(free) for part in parts))


def of_torch(q):
    return Normal(q.means, (q.logs / 2).exp())


SHAPES = [(4, 3), (2, 4)]  # a network of 3 inputs, 4 hidden units and 2 outputs
P = 4 * 3 + 4 + 2 * 4 + 2


def test_the_divergence_and_its_gradient_are_those_of_torch():
    q, prior = gaussians(3, 7, free=True), gaussians(3, 7, seed=5)
    wanted = kl_divergence(of_torch(q), of_torch(prior)).sum(1)
    torch.testing.assert_close(divergence(q, prior), wanted, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([1.0, -2.0, 0.5])
    found = torch.autograd.grad(weights @ divergence(q, prior), (q.means, q.logs))
    for one, other in zip(found, torch.autograd.grad(weights @ wanted, (q.means, q.logs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_is_drawn_is_what_a_network_with_drawn_weights_says_in_mean_and_variance():
    """One layer: its outputs are Gaussian, so that two moments say all."""
    q, x = gaussians(1, 8, seed=3), normal(1, 5, 3, seed=9)
    shapes, many = [(2, 3)], 40_000
    found = torch.cat([drawn(q, shapes, x, noise[None]) for noise in normal(many, 5, 2, seed=1)[:4000]])
    weights = of_torch(q).sample((many,))[:, 0]
    wanted = torch.einsum("bi,soi->sbo", x[0], weights[:, :6].unflatten(1, (2, 3))) + weights[:, None, 6:]
    spread = wanted.var(0).sqrt().max().item()
    assert (found.mean(0) - wanted.mean(0)).abs().max() < 5 * spread / math.sqrt(4000)
    torch.testing.assert_close(found.var(0), wanted.var(0), rtol=0.15, atol=0)


def test_at_the_means_and_without_variance_it_is_the_network():
    model = mlp((6, 5), inputs=7, classes=3).double()
    q, _, shapes = beginning([model])
    x = normal(1, 4, 7)
    torch.testing.assert_close(drawn(q, shapes, x, None)[0], model(x[0]), rtol=1e-12, atol=1e-12)
    narrow = Gaussians(q.means, torch.full_like(q.means, -80.0))
    torch.testing.assert_close(drawn(narrow, shapes, x, normal(1, 4, 14))[0], model(x[0]), rtol=1e-9, atol=1e-9)


def test_with_the_same_noise_the_gradients_of_the_bound_are_its_differences():
    q, prior, x = gaussians(2, P, free=True), gaussians(2, P, seed=7), normal(2, 5, 3, seed=2)
    targets, noise = torch.tensor([[0, 1, 1, 0, 1]]).expand(2, -1), normal(2, 5, 6, seed=4)
    strengths = torch.tensor([0.3, 2.0])

    def value(means, logs):
        here = Gaussians(means, logs)
        return bound(drawn(here, SHAPES, x, noise), targets, here, prior, strengths, 11).sum()

    torch.autograd.gradcheck(value, (q.means, q.logs), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_averaged_over_draws_the_gradient_is_that_of_the_expected_loss():
    """One layer and one image: the expected loss by a grid over the two outputs, against many draws."""
    q, x = gaussians(1, 8, seed=3), normal(1, 1, 3, seed=9)
    shapes, targets = [(2, 3)], torch.tensor([[1]])
    nodes = torch.linspace(-7, 7, 141)
    weights = Normal(0.0, 1.0).log_prob(nodes).exp() * (nodes[1] - nodes[0])
    grid = torch.cartesian_prod(nodes, nodes)

    def gradient(noise, weight):
        free = Gaussians(q.means.clone().requires_grad_(), q.logs.clone().requires_grad_())
        logits = drawn(free, shapes, x.expand(1, len(noise), 3), noise[None])
        losses = torch.nn.functional.cross_entropy(logits[0], targets[0].expand(len(noise)), reduction="none")
        return torch.cat(torch.autograd.grad(weight @ losses, (free.means, free.logs)), 1)

    wanted = gradient(grid, torch.cartesian_prod(weights, weights).prod(1))
    found = gradient(normal(60_000, 2, seed=6), torch.full((60_000,), 1 / 60_000))
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def task_of(n):
    inputs = normal(n, 3)
    return replace(blobs("tiny", n=n, features=3, classes=2, seed=0), train_inputs=inputs, train_targets=(inputs[:, 0] > 0).long())


def fitted(prior, *, steps=50, strength=1.0, task=None, logs=None, **options):
    q = Gaussians(prior.means.clone().requires_grad_(), (prior.logs if logs is None else logs).clone().requires_grad_())
    options = {"batch_size": 8, "learning_rate": 0.05, "momentum": 0.5, "schedule": "constant"} | options
    fit_gaussians(q, prior, [task or task_of(8)], shapes=SHAPES, strengths=torch.tensor([strength]), seeds=[0], steps=steps, **options)
    return q


def test_where_the_data_say_nothing_the_gaussian_stays_at_its_prior(monkeypatch):
    prior = gaussians(1, P)
    monkeypatch.setattr(variational, "drawn", lambda q, *rest: torch.zeros(1, 8, 2) + 0 * q.means.sum() + 0 * q.logs.sum())
    q = fitted(prior)
    assert torch.equal(q.means, prior.means)
    assert torch.equal(q.logs, prior.logs)
    away = fitted(prior, logs=prior.logs + 0.02, steps=60, strength=8.0)  # and goes there from elsewhere
    assert (away.logs - prior.logs).abs().max() < 0.005


def test_a_weight_that_nothing_is_seen_of_goes_to_the_prior_and_others_become_narrower(monkeypatch):
    monkeypatch.setattr(variational, "VARIANCES", {"optimizer": "adam", "learning_rate": 0.03, "momentum": 0.0})
    task = task_of(8)
    task.train_inputs[:, 2] = 0
    prior = Gaussians(0.3 * normal(1, P), torch.full((1, P), -2.0))
    q = fitted(prior, task=task, steps=400, schedule="linear")
    change = (q.logs - prior.logs)[0, :12].unflatten(0, (4, 3))
    assert change[:, 2].abs().max() < 1e-3
    assert (change[:, 0] < -0.02).any()


def test_a_strong_prior_holds_and_a_weak_one_lets_go():
    prior = Gaussians(0.3 * normal(1, P), torch.full((1, P), -2.0))
    moved = [(fitted(prior, strength=strength).means - prior.means).detach().norm() for strength in (0.0, 5.0)]
    assert moved[1] < 0.5 * moved[0]


def test_runs_side_by_side_end_where_each_ends_alone():
    tasks = [images("first", 0)]
    shared = {"count": 2, "hidden": (4,), "steps": 4, "batch_size": 10, "learning_rate": 0.05, "momentum": 0.9, "schedule": "linear"}
    runs = [shared | {"strength": strength, "seed": seed, "tuning": False} for strength, seed in ((1.0, 0), (30.0, 0), (1.0, 1))]
    together = permuted_gaussians.together(tasks, runs)
    for run, (result, tensors) in zip(runs, together, strict=True):
        alone, own = permuted_gaussians(tasks, **run)
        torch.testing.assert_close(own["logs"], tensors["logs"], rtol=1e-6, atol=1e-7)
        assert alone["matrix"][-1] == pytest.approx(result["matrix"][-1], abs=0.02)
    assert not torch.allclose(together[0][1]["logs"], together[1][1]["logs"])


def test_it_meets_the_tasks_weights_and_images_that_the_other_methods_meet(monkeypatch):
    """Without noise, without variance and without a prior it is plain descent, step by step."""
    monkeypatch.setattr(variational, "START", -90.0)
    shared = {"count": 2, "hidden": (4,), "steps": 5, "batch_size": 10, "seed": 3}
    found, _ = permuted_gaussians([images("first", 0)], strength=0.0, **shared)
    wanted, _ = rivals.permuted_rivals([images("first", 0)], method="dark replay", strength=0.0, memory=5, **shared)
    assert found["untrained"] == pytest.approx(wanted["untrained"], nan_ok=True)
    for one, other in zip(found["matrix"], wanted["matrix"], strict=True):
        assert one == pytest.approx(other, abs=1e-9, nan_ok=True)
    weights = parameters_to_vector(mlp((4,), seed=3).parameters())
    assert found["bytes"] == 2 * weights.numel() * 8


def test_the_prior_of_a_task_is_the_gaussian_of_the_one_before(monkeypatch):
    seen = []

    def spy(q, prior, tasks, **options):
        seen.append((prior, q.fixed()))
        with torch.no_grad():
            q.means.add_(1)
            q.logs.sub_(0.5)

    monkeypatch.setattr(variational, "fit_gaussians", spy)
    _, tensors = permuted_gaussians([images("first", 0)], strength=1.0, count=3, hidden=(4,))
    first, begun = seen[0]
    assert not first.means.any()
    assert not first.logs.any()
    assert (begun.logs == variational.START).all()
    model = mlp((4,), seed=0)
    assert torch.equal(begun.means[0], parameters_to_vector(model.parameters()).detach())
    for place in (1, 2):
        prior, q = seen[place]
        assert torch.equal(prior.means, q.means)
        assert torch.equal(prior.logs, q.logs)
        torch.testing.assert_close(prior.means, begun.means + place)
    assert (tensors["logs"] == variational.START - 1.5).all()


def test_accuracies_at_the_means_are_the_networks():
    task = images("first", 0)
    model = mlp((4,)).double()
    vector_to_parameters(normal(sum(values.numel() for values in model.parameters())), model.parameters())
    q, _, shapes = beginning([model])
    task = replace(task, test_inputs=task.test_inputs.double())
    ((found, left),) = variational.accuracies(q.fixed(), shapes, [[task, task]], 1)
    assert found == float((model(task.test_inputs).argmax(1) == task.test_targets).double().mean())
    assert math.isnan(left)
    narrow = Gaussians(q.means, torch.full_like(q.means, -80.0))
    drawn_many, at_means = variational.averaged(narrow, shapes, task, 0)
    assert drawn_many == at_means == pytest.approx(found)
