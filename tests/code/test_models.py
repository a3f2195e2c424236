"""The networks of the book."""

import pytest
import torch
from ewc import mlp


def test_the_shapes_and_the_names_are_as_said():
    model = mlp((7, 5), inputs=12, classes=3)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes == {
        "hidden1.weight": (7, 12),
        "hidden1.bias": (7,),
        "hidden2.weight": (5, 7),
        "hidden2.bias": (5,),
        "logits.weight": (3, 5),
        "logits.bias": (3,),
    }
    assert model(torch.zeros(4, 1, 3, 4)).shape == (4, 3)
    assert mlp()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_it_computes_relu_layers_and_gives_bare_logits():
    model = mlp((6,), inputs=4, classes=3, seed=1)
    x = torch.randn(5, 4)
    first, last = model.hidden1, model.logits
    wanted = (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(model(x), wanted)
    assert (model(x) < 0).any()


def test_the_seed_fixes_the_weights_and_torchs_own_draws_are_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = mlp(seed=1), mlp(seed=1), mlp(seed=2)
    assert torch.equal(torch.rand(3), wanted)
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_the_draws_of_gpus_are_left_alone_too(monkeypatch):
    reached = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reached.append)
    mlp(seed=1)
    assert reached == []


def test_the_weights_are_the_same_where_new_tensors_go_to_another_device():
    with torch.device("meta"):
        assert torch.equal(mlp(seed=1).hidden1.weight, mlp(seed=1).hidden1.weight)


@pytest.mark.parametrize("options", [{"hidden": ()}, {"hidden": (0,)}, {"inputs": 0}, {"classes": -1}])
def test_an_impossible_width_is_refused_by_name(options):
    with pytest.raises(ValueError, match=r"hidden is .*, inputs .*, classes .*; each must be at least 1"):
        mlp(**options)
