"""Noise on networks that are not the book's: frozen layers count for nothing, and what cannot be done is refused by name."""

import pytest
import torch
from ewc import diagonal_fisher, full_fisher, mlp
from ewc.noise import curvature_along, direction, divergence, in_use, scales, turned
from torch import nn


def frozen(model, *names):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def examples():
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs[:, 2] = 0
    return inputs


@pytest.mark.parametrize("names", [(), ("0.weight", "0.bias"), ("0.weight",), ("2.bias",)])
def test_a_step_moves_what_is_not_frozen_and_the_fisher_has(names):
    model, inputs = frozen(small(), *names), examples()
    fisher = torch.cat([value.flatten() for value in diagonal_fisher(model, inputs).values()])
    step = direction(scales(fisher, "shaped"), torch.Generator().manual_seed(0))
    assert curvature_along(model, inputs, step) == pytest.approx((step @ full_fisher(model, inputs) @ step).item(), rel=1e-8)
    near = 1e-3 * step
    assert divergence(model, inputs, near) == pytest.approx(curvature_along(model, inputs, near) / 2, rel=0.02)
    used = in_use(model, inputs)
    assert used.shape == fisher.shape
    assert (~used).sum() == (0 if "0.weight" in names else 5)
    for ask in (curvature_along, divergence, turned):
        with pytest.raises(ValueError, match=rf"step has shape \({len(fisher) + 1},\); it must be \({len(fisher)},\)"):
            ask(model, inputs, torch.zeros(len(fisher) + 1, dtype=torch.float64))


def test_a_convolution_takes_noise_and_has_no_inputs_that_are_never_used():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 3)).double()
    images = torch.rand(5, 1, 3, 3, dtype=torch.float64)
    count = sum(parameter.numel() for parameter in model.parameters())
    step = direction(torch.ones(count, dtype=torch.float64))
    assert curvature_along(model, images, step) == pytest.approx((step @ full_fisher(model, images) @ step).item(), rel=1e-8)
    with pytest.raises(ValueError, match=r"model begins with Conv2d.*9 features"):
        in_use(model, images)
    with pytest.raises(ValueError, match=r"model begins with Linear.*4 features"):
        in_use(nn.Linear(1, 3), torch.zeros(2, 4))
    assert in_use(mlp((4,), inputs=9).double(), images).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fisher": torch.ones(2, 3)}, r"fisher has shape \(2, 3\)"),
        ({"fisher": torch.tensor([1.0, -1.0])}, "fisher has shape"),
        ({"fisher": torch.tensor([1.0, torch.nan])}, "fisher has shape"),
        ({"used": torch.ones(3, dtype=torch.bool)}, r"used is torch.bool of shape \(3,\); it must be \(2,\)"),
        ({"used": torch.ones(2)}, "used is torch.float32"),
        ({"damping": "1"}, "damping is '1'; it must be above 0"),
        ({"share": torch.nan}, "share is nan"),
    ],
)
def test_what_is_no_fisher_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scales(**{"fisher": torch.ones(2), "kind": "shaped"} | arguments)


def test_a_class_that_is_ruled_out_adds_nothing_to_the_divergence():
    torch.manual_seed(0)
    all_three = torch.nn.Linear(4, 3).double()
    inputs, step = torch.randn(6, 4).double(), torch.randn(15).double()
    network = nn.Sequential(all_three, RulesOut())
    two = nn.Linear(4, 2).double()
    two.load_state_dict({name: value[:2] for name, value in all_three.state_dict().items()})
    of_two = torch.cat([step[:8], step[12:14]])
    assert divergence(network, inputs, step) == pytest.approx(divergence(two, inputs, of_two), rel=1e-12)


class RulesOut(nn.Module):
    def forward(self, logits):
        return logits.masked_fill(torch.tensor([False, False, True]), -torch.inf)


@pytest.mark.parametrize("kind", ["uniform", "shaped", "null"])
def test_noise_must_have_a_weight_to_touch(kind):
    with pytest.raises(ValueError, match="used"):
        scales(torch.ones(3), kind, used=torch.zeros(3, dtype=torch.bool))


def test_shaped_noise_of_a_fisher_of_zeros_is_refused():
    with pytest.raises(ValueError, match="fisher"):
        scales(torch.zeros(3), "shaped")
