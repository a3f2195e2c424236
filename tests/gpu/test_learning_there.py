"""Learning on the device: one network, several side by side, sequences, and Laplace's Gaussian."""

import pytest
import torch
from ewc import (
    Kronecker,
    LaplacePosterior,
    diagonal_fisher,
    fisher_overlap,
    fit,
    fit_together,
    joint,
    kronecker_fisher,
    laplace_approximation,
    learn_in_sequence,
    learn_together,
    mlp,
    permuted,
    split,
)
from ewc.noise import KINDS, curvature_along, direction, divergence, in_use, scales, turned
from ewc.tasks import held_out, normalized, padded
from ewc.training import accuracy
from small_tasks import blobs
from tiny_runs import images
from torch import nn
from whereabouts import assert_alike, assert_on

CPU = torch.device("cpu")
RULES = [
    {"optimizer": "sgd", "schedule": "warm-up"},
    {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant"},
    {"optimizer": "adam", "schedule": "linear", "learning_rate": 1e-3},
]


def small(seed=0, **options):
    return mlp((8,), inputs=6, classes=4, seed=seed, **options)


@pytest.fixture(scope="module")
def task():
    return blobs("four", n=100, features=6, classes=4)


@pytest.mark.parametrize("rule", RULES)
def test_one_network(rule, device, task):
    results = {}
    for where in (device, CPU):
        model, state, ways = small().to(where), {}, []
        here = task.to(where)
        for seed in (0, 1):  # the second time with the running averages of the first
            fit(
                model, here, steps=40, batch_size=16, seed=seed, optimizer_state=state,
                watch=lambda step, model=model, ways=ways, here=here: ways.append(accuracy(model, here)), **rule,
            )  # fmt: skip
        assert_on(where, [model, state], "what is left of training")
        results[where] = dict(model.named_parameters()), {key: value for key, value in state.items()}, ways[-1]
    assert_alike(results[device], results[CPU], tolerance=1e-2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("many", [1, 3])
def test_several_side_by_side(many, rule, device, task):
    results = {}
    for where in (device, CPU):
        models, state = [small(seed).to(where) for seed in range(many)], {}
        here = task.to(where)
        fit_together(models, [here] * many, seeds=list(range(many)), steps=40, batch_size=16, optimizer_state=state, **rule)
        assert_on(where, [models, state], "what is left of training")
        results[where] = [dict(model.named_parameters()) for model in models], state
    assert_alike(results[device], results[CPU], tolerance=1e-2)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_with_few_bits_learn_too(precision, device, task):
    models = [small(seed).to(device) for seed in range(2)]
    fit_together(models, [task.to(device)] * 2, steps=60, batch_size=16, precision=precision)
    assert_on(device, models)
    assert torch.get_float32_matmul_precision() == "highest"
    assert all(accuracy(model, task.to(device)) > 0.9 for model in models)


def test_a_network_that_is_stacked_by_vmap(device, task):
    models = [nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 4)).to(device) for _ in range(2)]
    fit_together(models, [task.to(device)] * 2, steps=10, batch_size=16)
    assert_on(device, models)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_sequences_of_split_tasks(scenario, device, task):
    matrices = []
    for where in (device, CPU):
        parts = split(task.to(where), 2, scenario=scenario)
        assert_on(where, [*parts, joint(parts)], scenario)
        options = {"units": scenario == "task"}
        classes = 2 if scenario == "domain" else 4
        model = mlp((8,), inputs=6, classes=classes, **options).to(where)
        alone, _ = learn_in_sequence(model, parts, steps=30, batch_size=16)
        models = [mlp((8,), inputs=6, classes=classes, seed=seed, **options).to(where) for seed in (0, 1)]
        beside, _ = learn_together(models, [[*parts, joint(parts)]] * 2, steps=30, batch_size=16)
        assert_on(where, [model, models])
        matrices.append([alone.values, *(each.values for each in beside)])
    assert_alike(matrices[0], matrices[1], tolerance=0.03)  # an image on the border of two classes may fall either way


def test_tasks_of_images_stay_where_their_data_are(device):
    task = images("images", 0).to(device)
    sequence = permuted(task, 3, square=20)
    for each in (*sequence, joint(sequence), held_out(task), padded(task, 2), normalized(task)):
        assert_on(device, each, each.name)
        parts = [each.train_inputs, each.train_targets, each.test_inputs, each.test_targets, *each.batch(torch.arange(3, device=device))]
        assert_on(device, parts, each.name)


def test_laplaces_gaussian(device):
    model, inputs = small().to(device), torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).to(device)
    mean = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    fisher = diagonal_fisher(model, inputs)
    assert 0 < fisher_overlap(fisher, {name: value + 1 for name, value in fisher.items()}) < 1
    diagonal = torch.cat([value.flatten() for value in fisher.values()]) + 1
    factored = Kronecker(kronecker_fisher(model, inputs).values(), examples=30, prior=1.0)
    for precision in (diagonal, diagonal.diag(), factored):
        posterior = LaplacePosterior(mean, precision)
        assert_on(device, posterior)
        for generator in (None, torch.Generator(), torch.Generator(device)):
            draws = posterior.sample(5, generator)
            assert_on(device, [draws, posterior.log_density(draws), posterior.log_evidence(0.0)])
        assert_on(device, posterior.predict(lambda theta: theta[:3].softmax(0), 7))
    same = [LaplacePosterior(mean, diagonal).sample(5, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*same)
    assert_alike(factored.log_det(), torch.linalg.slogdet(factored.dense().cpu().double())[1].float(), tolerance=1e-3)


def test_a_climb_to_a_mode(device):
    wanted = torch.tensor([1.0, -2.0], dtype=torch.float64, device=device)
    found = laplace_approximation(lambda theta: -((theta - wanted) ** 2).sum() - (theta**4).sum() / 100, torch.zeros_like(wanted))
    assert_on(device, found)


def test_noise_on_weights(device):
    model, inputs = small().to(device), torch.rand(30, 6, device=device)
    fisher = torch.cat([value.flatten() for value in diagonal_fisher(model, inputs).values()])
    used = in_use(model, inputs)
    for kind in KINDS:
        for generator in (torch.Generator(), torch.Generator(device)):
            step = direction(scales(fisher, kind, used=used), generator)
            assert_on(device, [step, *turned(model, inputs, step)], kind)
            assert curvature_along(model, inputs, step) >= 0
            assert divergence(model, inputs, step) >= -1e-6
