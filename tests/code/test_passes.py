"""The written-out passes give what autograd gives, for every network that they are taken for, and are taken for no other."""

import pytest
import torch
from ewc import mlp
from ewc.passes import Passes, passes_of, plain_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")


def network(hidden, seed, units=False):
    return mlp(hidden, inputs=5, classes=4, units=units, seed=seed).double()


@settings(max_examples=30, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    count=st.integers(1, 3),
    batch=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_the_gradients_of_stacked_networks_are_those_of_each_alone(hidden, count, batch, seed):
    draws = torch.Generator().manual_seed(seed)
    models = [network(hidden, seed + place) for place in range(count)]
    values = {
        name: torch.stack([dict(model.named_parameters())[name].detach() for model in models])
        for name, _ in models[0].named_parameters()
    }
    gradients = {name: torch.full_like(value, float("nan")) for name, value in values.items()}
    passes = Passes(plain_layers(models[0]), values, gradients)
    for size in (batch, batch + 1, batch):  # the room of another batch is another one
        inputs = torch.randn(count, size, 5, generator=draws, dtype=torch.float64)
        targets = torch.randint(0, 4, (count, size), generator=draws)
        logits = passes.differentiate(inputs, targets)
        for place, model in enumerate(models):
            wanted = model(inputs[place])
            model.zero_grad()
            cross_entropy(wanted, targets[place]).backward()
            torch.testing.assert_close(logits[place], wanted, rtol=1e-12, atol=1e-12)
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(gradients[name][place], parameter.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("units", [None, (1, 3), (1, 2), (3, 1, 3), (-1, 0), torch.tensor([[[0, 1], [2, 3], [1, 0]]])])
def test_the_gradients_are_autograds_with_all_outputs_and_with_some(units):
    model = network((3,), 0, units=True)
    passes, inputs, targets = passes_of(model), torch.randn(3, 5), torch.tensor([0, 1, 1])
    passes.differentiate(inputs[None], targets[None], units)
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.units.chosen = units[0] if isinstance(units, torch.Tensor) else units
    model.zero_grad()
    cross_entropy(model(inputs), targets).backward()
    for one, other in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-10, atol=1e-12)


def test_the_gradients_of_one_network_are_put_where_an_optimiser_looks_for_them():
    model = network((3,), 0)
    passes, inputs, targets = passes_of(model), torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 0, 1])
    passes.differentiate(inputs[None], targets[None])
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    cross_entropy(model(inputs), targets).backward()
    for one, other in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-10, atol=1e-12)


def with_hook(model):
    model[1].register_forward_hook(lambda module, inputs, output: 2 * output)


def with_gradient_hook(model):
    model[1].weight.register_hook(lambda gradient: 2 * gradient)


def with_own_forward(model):
    model[1].forward = lambda inputs: torch.zeros(len(inputs), 3)


def frozen(model):
    model[1].weight.requires_grad_(False)


def parametrized(model):
    nn.utils.parametrizations.weight_norm(model[1])


@pytest.mark.parametrize("change", [with_hook, with_own_forward, frozen, parametrized])
def test_a_network_that_is_more_than_its_layers_say_is_left_to_autograd(change):
    model = network((3,), 0)
    assert plain_layers(model)
    change(model)
    assert plain_layers(model) is None


@pytest.mark.parametrize("count", [1, 2])
def test_momentum_is_folded_into_what_the_gradients_are_added_to(count):
    draws = torch.Generator().manual_seed(0)
    models = [network((3, 2), place) for place in range(count)]
    values = {
        name: torch.stack([dict(model.named_parameters())[name].detach() for model in models])
        for name, _ in models[0].named_parameters()
    }
    velocities = {name: torch.zeros_like(value) for name, value in values.items()}
    passes, rules = (
        Passes(plain_layers(models[0]), values, velocities, 0.8),
        [torch.optim.SGD(model.parameters(), 0.1, 0.8) for model in models],
    )
    for _ in range(4):
        inputs = torch.randn(count, 6, 5, generator=draws, dtype=torch.float64)
        targets = torch.randint(0, 4, (count, 6), generator=draws)
        passes.differentiate(inputs, targets)
        for name, value in values.items():
            value -= 0.1 * velocities[name]
        for place, (model, rule) in enumerate(zip(models, rules, strict=True)):
            rule.zero_grad()
            cross_entropy(model(inputs[place]), targets[place]).backward()
            rule.step()
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(values[name][place], parameter.detach(), rtol=1e-10, atol=1e-12)


def test_a_hook_on_a_parameter_waits_for_autograds_gradient_but_not_in_a_stack():
    model = network((3,), 0)
    assert passes_of(model)
    with_gradient_hook(model)
    assert passes_of(model) is None
    assert plain_layers(model)


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(5, 4),
        nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.ReLU(), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(5, 4), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(5, 3, bias=False), nn.ReLU(), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5), nn.Linear(3, 4)),
        nn.Sequential(nn.Linear(5, 3), nn.Flatten(), nn.Linear(3, 4)),
        nn.Sequential(),
        type("Mine", (nn.Sequential,), {})(nn.Linear(5, 4)),
    ],
    ids=str,
)
def test_other_networks_are_left_to_autograd(model):
    assert plain_layers(model) is None


def test_a_linear_network_without_relus_is_plain():
    assert plain_layers(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 4)))


def test_a_layer_that_stands_in_two_places_is_left_to_autograd():
    shared = nn.Linear(4, 4)
    assert plain_layers(nn.Sequential(shared, nn.ReLU(), shared)) is None
    assert plain_layers(nn.Sequential(shared, shared, nn.Linear(4, 4))) is None


def test_layers_that_share_a_weight_are_left_to_autograd():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert plain_layers(model) is None


def test_one_relu_may_stand_in_many_places():
    bend = nn.ReLU()
    model = nn.Sequential(nn.Linear(5, 4), bend, nn.Linear(4, 4), bend, nn.Linear(4, 3)).double()
    passes, inputs, targets = passes_of(model), torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 0, 1])
    assert [layer.bent for layer in passes.layers] == [True, True, False]
    passes.differentiate(inputs[None], targets[None])
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    cross_entropy(model(inputs), targets).backward()
    for one, other in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-10, atol=1e-12)
