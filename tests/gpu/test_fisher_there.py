"""Every Fisher on the device: for every kind of layer and of labels, all that comes out is there, and is what the CPU says."""

import copy

import pytest
import torch
from by_hand import ZOO, specimen
from ewc import diagonal_fisher, full_fisher, kronecker_fisher, mlp
from ewc.factors import SHARING
from ewc.scores import LABELS
from ewc.sensitivity import output_sensitivity
from torch import nn
from whereabouts import assert_alike, assert_on

N = 12
TARGETS = torch.arange(N) % 3
NETWORKS = {
    "linear": (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (6,)),
    "convolution": (nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), (2, 4, 4)),
    "groups": (nn.Sequential(nn.Conv2d(2, 4, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)), (2, 4, 4)),
    "tokens": (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)), (5, 3)),
}


def there_and_here(device, of, model, inputs, targets=None, **options):
    """What `of` gives on the device, which is held to be there, and on the CPU."""
    moved = None if targets is None else targets.to(device)
    found = of(copy.deepcopy(model).to(device), inputs.to(device), moved, **options)
    assert assert_on(device, found, of.__name__) > 0
    return found, of(copy.deepcopy(model), inputs, targets, **options)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("of", [diagonal_fisher, full_fisher])
def test_with_every_kind_of_labels(of, name, labels, device):
    model, shape = NETWORKS[name]
    inputs = torch.randn(N, *shape, generator=torch.Generator().manual_seed(1))

    def seeded(model, inputs, targets, **options):  # a new generator each time: the same draws on both devices
        return of(model, inputs, targets, generator=torch.Generator().manual_seed(2), **options)

    seeded.__name__ = of.__name__
    found, wanted = there_and_here(device, seeded, model, inputs, TARGETS, labels=labels, samples=3, batch_size=5)
    assert_alike(found, wanted)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("name", NETWORKS)
def test_kronecker_factors_with_every_kind_of_labels(name, sharing, labels, device):
    model, shape = NETWORKS[name]
    inputs = torch.randn(N, *shape, generator=torch.Generator().manual_seed(1))

    def factors(model, inputs, targets, **options):
        return kronecker_fisher(model, inputs, targets, generator=torch.Generator().manual_seed(2), **options)

    found, wanted = there_and_here(device, factors, model, inputs, TARGETS, labels=labels, sharing=sharing, batch_size=5)
    assert_alike(found, wanted)


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_layer(name, device):
    found, wanted = there_and_here(device, diagonal_fisher, *specimen(name, 5))
    assert_alike(found, wanted, tolerance=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_moves_the_output(name, device):
    model, shape = NETWORKS[name]

    def sensitivity(model, inputs, targets):
        return output_sensitivity(model, inputs, batch_size=5)

    found, wanted = there_and_here(device, sensitivity, model, torch.randn(N, *shape))
    assert_alike(found, wanted)


@pytest.mark.parametrize("of", [diagonal_fisher, full_fisher, kronecker_fisher])
def test_a_generator_may_draw_on_either_device(of, device):
    model, inputs = mlp((4,), inputs=6, classes=3).to(device), torch.randn(200, 6, device=device)
    for where in {torch.device("cpu"), device}:
        generator = torch.Generator(device=where).manual_seed(3)
        found = of(model, inputs, labels="sampled", samples=4, generator=generator)
        assert_on(device, found)
        again = of(model, inputs, labels="sampled", samples=4, generator=torch.Generator(device=where).manual_seed(3))
        assert_alike(again, found, tolerance=1e-5)


def test_images_of_the_books_size(device):
    """Sizes at which a GPU takes its own ways: matrices of whole tiles, several batches, the last of them short."""
    images = torch.rand(2500, 1, 28, 28, generator=torch.Generator().manual_seed(4))
    found, wanted = there_and_here(device, diagonal_fisher, mlp((256, 256)), images)
    assert_alike(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_numbers(dtype, device):
    model, inputs = mlp((8,), inputs=6, classes=3).to(dtype), torch.randn(40, 6).to(dtype)
    found, wanted = there_and_here(device, diagonal_fisher, model, inputs)
    assert_alike(found, wanted, tolerance=1e-6 if dtype == torch.float64 else 0.05)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_few_bits_are_no_mixed_examples(precision, device):
    """As a user may have it: TF32 in convolutions, which is torch's default on a GPU, and in products."""
    before = torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision(precision)
    layers = nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()
    try:
        for model in (nn.Sequential(*layers, nn.Linear(64 * 36, 10)), mlp((256, 256))):
            for of in (diagonal_fisher, kronecker_fisher):
                found = of(model.to(device), torch.rand(20, 1, 28, 28, device=device))
                assert_on(device, found)
    finally:
        torch.set_float32_matmul_precision(before)
