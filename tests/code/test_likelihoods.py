"""The Fisher information under every likelihood is that of a loop over examples, places and labels, in float64."""

import itertools

import pytest
import torch
from by_hand import Function, assert_same, assert_untouched, whole_state
from ewc import diagonal_fisher, full_fisher
from ewc.likelihoods import Bernoulli, Categorical, Gaussian
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("float64")


def tokens():
    return Function(lambda m, w: m.head(m.embed(w).cumsum(1).tanh()), embed=nn.Embedding(6, 4), head=nn.Linear(4, 3))


def pixels():
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))


def table(outputs):
    return lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))


WORDS, IMAGES, ROWS = torch.randint(0, 6, (4, 3), generator=torch.Generator().manual_seed(0)), (4, 2, 2, 2), (5, 4)


def data(shape):
    return shape if isinstance(shape, torch.Tensor) else torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def log_p_categorical(outputs, targets):
    axis = 1 if outputs.ndim > 3 else -1
    log_p = outputs.log_softmax(axis).movedim(axis, -1)
    kept = targets != -100
    return (log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * kept).flatten(1).sum(1) if outputs.ndim > 2 else (
        log_p.gather(-1, targets.clamp(min=0)[:, None])[:, 0] * kept
    )


def log_p_bernoulli(outputs, targets):
    return -functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").reshape(len(outputs), -1).sum(1)


def log_p_gaussian(outputs, targets, noise=1.0):
    return -((targets - outputs) ** 2 / (2 * noise)).reshape(len(outputs), -1).sum(1)


# name: (model, inputs, likelihood, log p, every value that one target may have, the shape of one example's targets)
CASES = {
    "one label an example": (table(3), ROWS, "categorical", log_p_categorical, range(3), ()),
    "one label a token": (tokens, WORDS, "categorical", log_p_categorical, range(3), (3,)),
    "one label a pixel": (pixels, IMAGES, "categorical", log_p_categorical, range(3), (2, 2)),
    "one yes or no": (table(1), ROWS, "bernoulli", log_p_bernoulli, (0.0, 1.0), (1,)),
    "one yes or no without an axis": (
        lambda: Function(lambda m, x: m.a(x)[:, 0], a=nn.Linear(4, 1)), ROWS, "bernoulli", log_p_bernoulli, (0.0, 1.0), ()),
    "several of yes or no": (table(3), ROWS, "bernoulli", log_p_bernoulli, (0.0, 1.0), (3,)),
}


def case(name):
    build, shape, likelihood, log_p, values, places = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(), data(shape), likelihood, log_p, values, places


def squares(model, x, log_p, targets):
    """Of one example: log p of these targets, and its squared score by name."""
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    value = log_p(model(x[None]), targets[None])[0]
    found = torch.autograd.grad(value, list(wanted.values()))
    return float(value.detach()), {name: gradient**2 for name, gradient in zip(wanted, found, strict=True)}


def loop(model, inputs, log_p, values, places):
    """The definition: over all label sequences at once, with p(y|x) as the model has it. Nothing is said of independent places."""
    total = {}
    for x in inputs:
        for one in itertools.product(values, repeat=torch.Size(places).numel()):
            value, found = squares(model, x, log_p, torch.tensor(one).reshape(places))
            for name, square in found.items():
                total[name] = total.get(name, 0) + square * torch.tensor(value).exp() / len(inputs)
    return total


@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("name", CASES)
def test_exact_is_the_sum_over_everything_that_could_have_been_said(name, batch_size):
    model, inputs, likelihood, log_p, values, places = case(name)
    model.train()
    before, state = whole_state(model), torch.get_rng_state()
    found = diagonal_fisher(model, inputs, likelihood=likelihood, batch_size=batch_size)
    assert_untouched(before, whole_state(model))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(found, loop(model, inputs, log_p, values, places))


@pytest.mark.parametrize("name", CASES)
def test_empirical_is_the_square_of_the_sum_over_the_places(name):
    model, inputs, likelihood, log_p, values, places = case(name)
    draw = torch.randint(len(values), (len(inputs), *places), generator=torch.Generator().manual_seed(2))
    targets = torch.tensor(list(values))[draw]
    wanted = {}
    for x, y in zip(inputs, targets, strict=True):
        for name_, square in squares(model, x, log_p, y)[1].items():
            wanted[name_] = wanted.get(name_, 0) + square / len(inputs)
    assert_same(diagonal_fisher(model, inputs, targets, likelihood=likelihood, labels="empirical", batch_size=2), wanted)


@pytest.mark.parametrize("name", CASES)
def test_argmax_takes_the_most_probable_value_of_each_place(name):
    model, inputs, likelihood, log_p, values, places = case(name)
    wanted = {}
    for x in inputs:
        best = max(itertools.product(values, repeat=torch.Size(places).numel()),
                   key=lambda one, x=x: squares(model, x, log_p, torch.tensor(one).reshape(places))[0])
        for name_, square in squares(model, x, log_p, torch.tensor(best).reshape(places))[1].items():
            wanted[name_] = wanted.get(name_, 0) + square / len(inputs)
    assert_same(diagonal_fisher(model, inputs, likelihood=likelihood, labels="argmax"), wanted)


def sampled_scatter(find, wanted, draws=300):
    """How many standard errors the mean of so many sampled ones lies from the exact one: the trace, in passes with one sample each."""
    generator = torch.Generator().manual_seed(0)
    traces = torch.tensor([sum(float(value.sum()) for value in find(generator).values()) for _ in range(draws)])
    return abs(float(traces.mean()) - sum(float(value.sum()) for value in wanted.values())) / float(traces.std() / draws**0.5)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", [*CASES, "gaussian"])
def test_sampled_is_right_on_average(name, samples):
    if name == "gaussian":
        model, inputs, likelihood = table(2)(), data(ROWS), Gaussian(0.5)
    else:
        model, inputs, likelihood, *_ = case(name)
    exact = diagonal_fisher(model, inputs, likelihood=likelihood)
    options = {"likelihood": likelihood, "labels": "sampled", "samples": samples}
    assert sampled_scatter(lambda draw: diagonal_fisher(model, inputs, generator=draw, **options), exact, 150) < 3
    one, other = (diagonal_fisher(model, inputs, generator=torch.Generator().manual_seed(1), batch_size=size, **options) for size in (2, 9))
    assert_same(one, other)  # the draws are those of the examples, not of the batches


@pytest.mark.parametrize("noise", [1.0, 0.25, torch.tensor([0.5, 2.0])])
def test_a_regression_has_the_square_of_its_derivatives_by_the_noise(noise):
    torch.manual_seed(0)
    model, inputs = table(2)(), data(ROWS)
    wanted = {}
    for x in inputs:
        for place in range(2):
            gradients = torch.autograd.grad(model(x[None])[0, place], list(model.parameters()))
            own = torch.as_tensor(noise).expand(2)[place]
            for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
                wanted[name] = wanted.get(name, 0) + gradient**2 / own / len(inputs)
    assert_same(diagonal_fisher(model, inputs, likelihood=Gaussian(noise)), wanted)
    diagonal = full_fisher(model, inputs, likelihood=Gaussian(noise)).diagonal()
    assert torch.allclose(diagonal, torch.cat([value.flatten() for value in wanted.values()]))
    targets = model(inputs).detach() + torch.randn(5, 2)
    empirical = {}
    for x, y in zip(inputs, targets, strict=True):
        for name, square in squares(model, x, lambda f, t: log_p_gaussian(f, t, torch.as_tensor(noise)), y)[1].items():
            empirical[name] = empirical.get(name, 0) + square / len(inputs)
    assert_same(diagonal_fisher(model, inputs, targets, likelihood=Gaussian(noise), labels="empirical"), empirical)


@pytest.mark.parametrize("labels", ["exact", "argmax", "empirical", "sampled"])
@pytest.mark.parametrize("name", ["one label a token", "one label a pixel", "one label an example"])
def test_places_that_do_not_count_add_nothing(name, labels):
    """What is said of them may be anything: a text that is filled up has the Fisher of the text."""
    model, inputs, likelihood, log_p, _, places = case(name)
    targets = torch.randint(3, (len(inputs), *places), generator=torch.Generator().manual_seed(2))
    targets[0] = -100
    targets.view(len(inputs), -1)[1, -1:] = -100
    found = diagonal_fisher(model, inputs, targets, likelihood=likelihood, labels=labels, generator=torch.Generator().manual_seed(3))
    if labels in ("empirical", "argmax"):
        wanted = {}
        for x, y in zip(inputs, targets, strict=True):
            axis = 1 if places == (2, 2) else -1
            best = model(x[None])[0].movedim(axis - 1 if axis == 1 else -1, -1).argmax(-1).masked_fill(y == -100, -100)
            for name_, square in squares(model, x, log_p, y if labels == "empirical" else best)[1].items():
                wanted[name_] = wanted.get(name_, 0) + square / len(inputs)
        assert_same(found, wanted)
    elif labels == "exact":
        wanted = {}
        for x, y in zip(inputs, targets, strict=True):
            there = (y != -100).nonzero().tolist()
            for place in there:
                for value in range(3):
                    one = torch.full(places, -100)
                    one[tuple(place)] = value
                    log, square = squares(model, x, log_p, one)
                    for name_, each in square.items():
                        wanted[name_] = wanted.get(name_, 0) + each * torch.tensor(log).exp() / len(inputs)
        assert_same(found, wanted)
    else:
        exact = diagonal_fisher(model, inputs, targets, likelihood=likelihood)

        def once(draw):
            return diagonal_fisher(model, inputs, targets, likelihood=likelihood, labels="sampled", generator=draw)

        assert sampled_scatter(once, exact, 150) < 3


class Poisson:
    """A likelihood of the reader's: counts, whose rate is e^z."""

    def log_prob(self, outputs, targets):
        return targets * outputs - outputs.exp() - (targets + 1).lgamma()

    def sample(self, outputs, generator):
        return torch.poisson(outputs.exp(), generator=generator)


def test_an_object_of_the_readers_is_sampled_and_takes_targets():
    torch.manual_seed(0)
    model, inputs = table(1)(), data(ROWS)
    wanted = {}
    for x in inputs:  # the variance of the score z ↦ y − e^z is e^z
        z = model(x[None])[0, 0]
        for (name, _), gradient in zip(model.named_parameters(), torch.autograd.grad(z, list(model.parameters())), strict=True):
            wanted[name] = wanted.get(name, 0) + gradient**2 * z.detach().exp() / len(inputs)
    assert sampled_scatter(lambda draw: diagonal_fisher(model, inputs, likelihood=Poisson(), generator=draw), wanted) < 3
    targets = torch.poisson(torch.ones(5, 1))
    found = diagonal_fisher(model, inputs, targets, likelihood=Poisson(), labels="empirical")
    empirical = {}
    for x, y in zip(inputs, targets, strict=True):
        for name, square in squares(model, x, lambda f, t: Poisson().log_prob(f, t).sum(1), y)[1].items():
            empirical[name] = empirical.get(name, 0) + square / len(inputs)
    assert_same(found, empirical)


def test_for_many_words_sampled_labels_are_the_default_that_is_said():
    torch.manual_seed(0)
    model = nn.Linear(4, 2000)
    inputs = torch.randn(3, 4)
    with pytest.warns(UserWarning, match=r"exact ones take 1,999 backward passes a batch: they are sampled, 1 an example"):
        found = diagonal_fisher(model, inputs, generator=torch.Generator().manual_seed(0))
    assert_same(found, diagonal_fisher(model, inputs, labels="sampled", generator=torch.Generator().manual_seed(0)))


def test_without_a_generator_torchs_own_source_draws_and_moves_on():
    model, inputs = table(3)(), data(ROWS)
    torch.manual_seed(5)
    found = diagonal_fisher(model, inputs, labels="sampled")
    after = torch.rand(1)
    torch.manual_seed(5)
    torch.rand(5, 1)
    assert torch.equal(after, torch.rand(1))
    assert_same(found, diagonal_fisher(model, inputs, labels="sampled", generator=torch.Generator().manual_seed(5)))


def test_classes_may_lie_along_any_axis():
    torch.manual_seed(0)
    model, inputs = tokens(), WORDS
    turned = Function(lambda m, w: m.model(w).mT, model=model)
    found = diagonal_fisher(turned, inputs, likelihood=Categorical(class_axis=1))
    assert_same({name.removeprefix("model."): value for name, value in found.items()}, diagonal_fisher(model, inputs))


CATEGORY, X = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
REFUSED = {
    "unknown likelihood": (lambda: (CATEGORY, X), {"likelihood": "poisson"}, ["likelihood is 'poisson'", "'gaussian'", "log_prob"]),
    "a class of likelihoods": (lambda: (CATEGORY, X), {"likelihood": Poisson}, ["likelihood is", "log_prob"]),
    "exact Poisson": (lambda: (CATEGORY, X), {"likelihood": Poisson(), "labels": "exact"}, ["labels is 'exact'", "'sampled'"]),
    "argmax Poisson": (lambda: (CATEGORY, X), {"likelihood": Poisson(), "labels": "argmax"}, ["labels is 'argmax'", "'sampled'"]),
    "argmax Gaussian": (lambda: (CATEGORY, X), {"likelihood": "gaussian", "labels": "argmax"}, ["labels is 'argmax'", "score is 0"]),
    "a sigmoid": (lambda: (nn.Sequential(CATEGORY, nn.Sigmoid()), X), {"likelihood": "bernoulli"}, ["probabilities", "sigmoid", "logit()"]),
    "a sigmoid without an axis": (
        lambda: (Function(lambda m, x: m.a(x).sigmoid()[:, 0], a=nn.Linear(4, 1)), X), {"likelihood": "bernoulli"}, ["probabilities"]),
    "a softmax a pixel": (lambda: (nn.Sequential(nn.Conv2d(2, 3, 1), nn.Softmax(1)), torch.randn(3, 2, 2, 2)), {}, ["probabilities"]),
    "a regression": (lambda: (CATEGORY, X, torch.randn(5, 3)), {}, ["targets", "float64", "likelihood='gaussian'"]),
    "targets of another shape": (lambda: (tokens(), WORDS, torch.zeros(4, 2).long()), {}, ["targets", "(4, 2)", "(4, 3)", "class_axis"]),
    "no target": (lambda: (CATEGORY, X), {"likelihood": "gaussian", "labels": "empirical"}, ["targets is None"]),
    "more than yes": (lambda: (CATEGORY, X, torch.full((5, 3), 2.0)), {"likelihood": "bernoulli", "labels": "empirical"}, ["2 to 2", "0 to 1"]),
    "targets beside": (lambda: (CATEGORY, X, torch.randn(5, 2)), {"likelihood": "gaussian", "labels": "empirical"}, ["(5, 2)", "(5, 3)"]),
    "an infinite mean": (lambda: (CATEGORY, X * 1e308 * 1e10), {"likelihood": "gaussian"}, ["not finite"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_likelihood_is_refused_with_the_way_out(name):
    arguments, keywords, words = REFUSED[name]
    with pytest.raises(ValueError) as refusal:
        diagonal_fisher(*arguments(), **keywords)
    for word in words:
        assert word in str(refusal.value), refusal.value


def test_a_mean_over_examples_has_another_scale_and_is_refused():
    class Mean(Poisson):
        def log_prob(self, outputs, targets):
            return super().log_prob(outputs, targets).mean()

    with pytest.raises(ValueError, match=r"log_prob must return log p\(y\|x\) of each example"):
        diagonal_fisher(CATEGORY, X, likelihood=Mean())


@pytest.mark.parametrize("noise", [0.0, -1.0, float("inf"), torch.tensor([1.0, 0.0])])
def test_noise_is_a_variance(noise):
    with pytest.raises(ValueError, match="noise is"):
        Gaussian(noise)


def test_logits_that_are_all_between_0_and_1_are_no_probabilities_for_that():
    """As of a head that was set to 0: what tells them apart is how they came about."""
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    assert float(diagonal_fisher(model, X, likelihood=Bernoulli())["bias"][0]) == 0.25


@pytest.mark.parametrize("labels", ["exact", "empirical"])
def test_a_batch_in_which_no_target_counts_adds_nothing_of_the_batch_before(labels):
    torch.manual_seed(0)
    model, inputs, targets = nn.Linear(4, 3), torch.rand(6, 4), torch.tensor([0, 1, 2, -100, -100, -100])
    found = diagonal_fisher(model, inputs, targets, labels=labels, batch_size=3)
    wanted = diagonal_fisher(model, inputs[:3], targets[:3], labels=labels)
    for name, value in wanted.items():
        torch.testing.assert_close(2 * found[name], value)
