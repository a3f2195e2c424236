"""Whatever a model takes: tensors in a tuple, by name, or batch by batch from an iterable that is gone through once."""

from typing import NamedTuple

import pytest
import torch
from by_hand import Function, assert_same, assert_untouched, whole_state
from ewc import EWC, KroneckerEWC, MemoryAwareSynapses, diagonal_fisher, full_fisher, kronecker_fisher
from ewc.batches import Bar, Batches
from ewc.sensitivity import output_sensitivity
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.usefixtures("float64")


class Output(NamedTuple):
    """As the models of transformers return it."""

    logits: torch.Tensor
    hidden: tuple = ()


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, first, second, scale=1.0):
        return Output(self.a(first).tanh() + scale * self.b(second))


class One(nn.Module):
    def __init__(self, two):
        super().__init__()
        self.two = two

    def forward(self, x):
        return self.two(x[:, :4], x[:, 4:]).logits


def two():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Two()
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    return model, x, torch.arange(7) % 3


def wanted(function=diagonal_fisher, **keywords):
    model, x, _ = two()
    return {name.removeprefix("two."): value for name, value in function(One(model), x, **keywords).items()}


@pytest.mark.parametrize("function", [diagonal_fisher, output_sensitivity])
@pytest.mark.parametrize("batch_size", [2, None])
def test_a_model_of_two_tensors_has_the_curvature_of_one_that_takes_both_as_one(function, batch_size):
    model, x, _ = two()
    first, second = x[:, :4], x[:, 4:]
    before, state = whole_state(model), torch.get_rng_state()
    for inputs in ((first, second), {"first": first, "second": second}, {"second": second, "first": first, "scale": 1.0}):
        assert_same(function(model, inputs, batch_size=batch_size), wanted(function))
    asked = function(model, {"x": x}, forward=lambda model, batch: model(batch["x"][:, :4], batch["x"][:, 4:]).logits)
    assert_same(asked, wanted(function))
    assert_untouched(before, whole_state(model))
    assert torch.equal(state, torch.get_rng_state())


def test_full_and_kronecker_take_them_too():
    model, x, _ = two()
    inputs = (x[:, :4], x[:, 4:])
    assert torch.allclose(full_fisher(model, inputs), full_fisher(One(model), x))
    for name, (b, a, _) in kronecker_fisher(model, inputs).items():
        own = kronecker_fisher(One(model), x)[f"two.{name}"]
        assert torch.allclose(b, own.outputs)
        assert torch.allclose(a, own.inputs)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_batches_are_asked_for_once_and_one_at_a_time(batch_size):
    model, x, y = two()
    asked = 0

    def batches():
        nonlocal asked
        for part, labels in zip(x.split(3), y.split(3), strict=True):
            asked += 1
            yield (part[:, :4], part[:, 4:]), labels

    found = diagonal_fisher(model, batches(), labels="empirical", batch_size=batch_size)
    assert asked == 3
    assert_same(found, wanted(targets=y, labels="empirical"))


def test_a_data_loader_is_a_source_and_moves_nothing():
    model, x, y = two()
    state = torch.get_rng_state()
    for loader in (
        DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True),
        DataLoader(TensorDataset(x), batch_size=2),
        [x[:3], x[3:]],
        [{"x": x[:3]}, {"x": x[3:]}],
    ):
        assert_same(diagonal_fisher(One(model), loader), {f"two.{name}": value for name, value in wanted().items()})
    assert torch.equal(state, torch.get_rng_state())


def test_of_an_iterable_the_first_examples_are_taken_of_what_is_there_they_are_spread():
    model, x, _ = two()
    batches = [x[:3], x[3:]]
    for guard, inputs, rows in ((EWC, batches, slice(0, 4)), (EWC, x, [0, 2, 4, 6]), (MemoryAwareSynapses, batches, slice(0, 4))):
        few = guard(One(model), max_examples=4)
        few.consolidate(inputs)
        own = guard(One(model))
        own.consolidate(x[rows])
        assert_same(few.parabola()[1], own.parabola()[1])


@pytest.mark.parametrize("guard", [EWC, KroneckerEWC, MemoryAwareSynapses])
def test_every_guard_can_be_told_how_to_look(guard):
    model, x, _ = two()
    options = {} if guard is MemoryAwareSynapses else {"likelihood": "bernoulli", "samples": 2, "labels": "exact"}
    told = guard(model, forward=lambda model, batch: model(*batch).logits, batch_size=2, progress=True, **options)
    told.consolidate([((part[:, :4], part[:, 4:]), torch.zeros(len(part), 3)) for part in x.split(4)])
    own = guard(One(model), **options)
    own.consolidate(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    assert float(told.penalty()) == pytest.approx(float(own.penalty()), rel=1e-9)
    assert float(told.penalty()) > 0


def test_guards_refuse_options_before_they_are_needed():
    model, _, _ = two()
    for guard in (EWC, KroneckerEWC):
        for name, value in (("likelihood", "normal"), ("labels", "true"), ("samples", 0), ("batch_size", 0)):
            with pytest.raises(ValueError, match=f"{name} is {value!r}"):
                guard(model, **{name: value})
        with pytest.raises(TypeError, match="forward is str"):
            guard(model, forward="logits")
    with pytest.raises(ValueError, match="batch_size is 0"):
        MemoryAwareSynapses(model, batch_size=0)


MODEL, X, Y = two()
MODEL, X = MODEL.double(), X.double()
REFUSED = {
    "no batch": ([], ValueError, ["inputs gave no batch", "at least one example"]),
    "three parts": ([(X, X, Y)], ValueError, ["3 parts", "((first, second), targets)"]),
    "words": (["a", "b"], TypeError, ["inputs is list", "str without a tensor"]),
    "a number": (3, TypeError, ["inputs is int", "iterable of batches"]),
    "a sentence": ("a sentence", TypeError, ["inputs is str"]),
    "two lengths": ((X[:, :4], X[:3, 4:]), ValueError, ["(7, 4), (3, 2)", "same examples"]),
    "an unknown name": ({"first": X[:, :4], "third": X[:, 4:]}, ValueError, ["do not fit the model", "third"]),
    "one too few": ((X[:, :4],), ValueError, ["do not fit the model", "second"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_input_is_refused_by_name(name):
    inputs, error, words = REFUSED[name]
    with pytest.raises(error) as refusal:
        diagonal_fisher(MODEL, inputs)
    for word in words:
        assert word in str(refusal.value), refusal.value


def test_targets_beside_batches_are_refused():
    with pytest.raises(ValueError, match="each batch must bring its own"):
        diagonal_fisher(One(MODEL), [X[:3], X[3:]], Y)


def test_what_is_no_output_is_refused_with_the_way_out():
    model = Function(lambda m, x: {"scores": m.a(x)}, a=nn.Linear(6, 3).double())
    with pytest.raises(ValueError, match=r"returned dict: say with forward=lambda model, batch"):
        diagonal_fisher(model, X)
    assert_same(diagonal_fisher(model, X, forward=lambda m, x: m(x)["scores"]), diagonal_fisher(Function(lambda m, x: m.a(x), a=model.a), X))


def test_examples_that_are_mixed_are_found_in_a_dictionary_too():
    model = Function(lambda m, first: m.a(first - first.mean(0)), a=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="mixes the examples"):
        diagonal_fisher(model, {"first": X[:, :4]}, forward=lambda m, batch: m(batch["first"]))


def test_a_long_pass_says_how_far_it_is(capsys):
    bar = Bar()
    bar.step(10, 40)
    assert capsys.readouterr().err == ""
    bar.started -= 10
    bar.step(10, 40)
    assert "20 of 40 examples, 10 s, 10 s left" in capsys.readouterr().err
    bar.step(20, 40)
    assert capsys.readouterr().err.endswith("\n")
    data = Batches(X, progress=True)
    data.bar.started -= 10
    data.seen(7)
    assert "7 of 7 examples" in capsys.readouterr().err
