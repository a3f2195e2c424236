"""A model that is looked at is left as it was found, whatever its eval() and train() do."""

import pytest
import torch
from by_hand import Function, assert_same, assert_untouched, whole_state
from ewc import diagonal_fisher
from ewc.evaluating import evaluated
from torch import nn

pytestmark = pytest.mark.usefixtures("float64")


class Adapted(nn.Linear):
    """Puts its adapter into the weight in eval mode, and takes it out in train mode."""

    def __init__(self):
        super().__init__(4, 3)
        self.weight.requires_grad_(False)
        self.low, self.high = nn.Parameter(torch.randn(1, 4)), nn.Parameter(torch.randn(3, 1))
        self.merged, self.log = False, []

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data += (-1 if mode else 1) * (self.high @ self.low).detach()
            self.merged = not mode
            self.log.append(mode)
        return self

    def forward(self, x):
        return super().forward(x) if self.merged else super().forward(x) + x @ self.low.T @ self.high.T


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore:the gradients of the examples")
def test_an_adapter_that_eval_mode_merges_has_its_own_fisher_and_is_left_as_it_was(training):
    model, inputs = nn.Sequential(Adapted(), nn.Tanh(), nn.Linear(3, 3)), torch.randn(6, 4)
    layer = model[0]
    plain = Function(
        lambda m, x: m.last((m.first(x) + x @ m.low.T @ m.high.T).tanh()),
        first=nn.Linear(4, 3), last=model[2], low=layer.low, high=layer.high,
    )  # fmt: skip
    plain.first.weight, plain.first.bias = nn.Parameter(layer.weight.clone(), requires_grad=False), layer.bias
    wanted = diagonal_fisher(plain, inputs)
    model.train(training)
    before = whole_state(model)
    found = diagonal_fisher(model, inputs)
    assert_untouched(before, whole_state(model))
    assert (layer.merged, layer.training) == (not training, training)
    assert found["0.low"].sum() > 0
    names = {"0.bias": "first.bias", "0.low": "low", "0.high": "high", "2.weight": "last.weight", "2.bias": "last.bias"}
    assert_same({names[name]: value for name, value in found.items()}, wanted)
    assert layer.log[-1] == (layer.merged is False) or not layer.log  # taken apart, or merged, in its own way


class Stubborn(nn.Module):
    """An eval() that does not call that of its parent, and a train() without a default."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), nn.Dropout()

    def eval(self):
        return self

    def train(self, mode):
        return super().train(mode)

    def forward(self, x):
        return self.layer(self.drop(x))


def test_every_module_is_in_eval_mode_whatever_eval_does():
    model, inputs = Stubborn(), torch.randn(5, 4)
    found = diagonal_fisher(model, inputs)
    assert model.training and model.drop.training
    assert_same({name.removeprefix("layer."): value for name, value in found.items()}, diagonal_fisher(model.layer, inputs))


class Counting(nn.Module):
    """Notes what it has seen: in an attribute, in one that is new, and in a buffer."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 3), 0
        self.register_buffer("sums", torch.zeros(4))

    def forward(self, x):
        self.seen += len(x)
        self.sums += x.detach().sum(0)
        self.last = self.layer(x)
        return self.last


def test_what_a_model_notes_on_the_way_is_forgotten():
    model = Counting()
    before = whole_state(model)
    diagonal_fisher(model, torch.randn(5, 4))
    after = whole_state(model)
    after["parameters"] = before["parameters"]
    assert_untouched(before, after)
    assert model.seen == 0 and not hasattr(model, "last")


def test_an_error_inside_leaves_the_model_too():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = whole_state(model)
    with pytest.raises(KeyError), evaluated(model):
        assert model[0].weight.grad is None
        raise KeyError
    assert_untouched(before, whole_state(model))


def test_examples_made_in_inference_mode_are_taken():
    model = nn.Linear(4, 3)
    with torch.inference_mode():
        inputs = torch.randn(5, 4)
        found = diagonal_fisher(model, inputs)
    assert_same(found, diagonal_fisher(model, inputs.clone()))


def test_a_model_that_refuses_to_be_trained_is_looked_at_as_it_is():
    class Fixed(nn.Linear):
        def train(self, mode=True):
            if mode:
                raise RuntimeError("fixed")
            return super().train(mode)

    model, inputs = nn.Sequential(Fixed(4, 3), nn.Tanh(), nn.Linear(3, 2)).eval(), torch.randn(5, 4)
    found = diagonal_fisher(model, inputs)
    assert not any(module.training for module in model.modules())
    plain = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    plain.load_state_dict(model.state_dict())
    assert_same(found, diagonal_fisher(plain, inputs))
