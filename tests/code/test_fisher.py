"""The diagonal and the full Fisher information, against loops over examples and classes."""

import copy
import functools
import itertools

import pytest
import torch
from by_hand import (
    ZOO,
    Function,
    assert_same,
    assert_untouched,
    label_weights,
    mean_over,
    specimen,
    squared_scores,
    whole_state,
)
from ewc import diagonal_fisher, full_fisher
from ewc.scores import LABELS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

pytestmark = pytest.mark.usefixtures("float64")

N = 5


@functools.cache
def table(name):
    """The squared scores of a specimen, computed once for all label modes."""
    return squared_scores(*specimen(name, N))


def arguments_of(labels, inputs, classes=3, samples=2):
    """Targets and draws for a label mode: what to hand to diagonal_fisher, and what the loop needs."""
    targets = torch.arange(len(inputs)) % classes
    draws = torch.rand(
        len(inputs), samples, generator=torch.Generator().manual_seed(3), dtype=torch.get_default_dtype()
    )
    keywords = {"samples": samples, "generator": torch.Generator().manual_seed(3)} if labels == "sampled" else {}
    return {"targets": targets if labels == "empirical" else None, "labels": labels, **keywords}, targets, draws


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ZOO)
def test_diagonal_is_the_mean_squared_score_by_loop(name, labels):
    model, inputs = specimen(name, N)
    squares, p = table(name)
    keywords, targets, draws = arguments_of(labels, inputs, p.shape[1])
    wanted = mean_over(squares, label_weights(labels, p, targets, draws))
    assert_same(diagonal_fisher(model, inputs, batch_size=2, **keywords), wanted)


@pytest.mark.parametrize("name", ZOO)
def test_float32_agrees_with_the_float64_loop(name):
    model, inputs = specimen(name, N)
    wanted = mean_over(*table(name))
    single = inputs.float() if inputs.is_floating_point() else inputs
    found = diagonal_fisher(copy.deepcopy(model).float(), single)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_same(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "conv 2d, stride, padding, groups", "embedding", "tied embedding"])
def test_half_precision_parameters_give_a_float32_fisher(name):
    model, inputs = specimen(name, N)
    wanted = mean_over(*table(name))
    half = inputs.bfloat16() if inputs.is_floating_point() else inputs
    found = diagonal_fisher(model.bfloat16(), half)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_same(found, wanted, rtol=0.02)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    classes=st.integers(2, 5),
    n=st.integers(1, 7),
    batch_size=st.integers(1, 8),
    labels=st.sampled_from(LABELS),
    samples=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_small_network_agrees_with_the_loop(widths, classes, n, batch_size, labels, samples, seed):
    torch.manual_seed(seed)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    model, inputs = nn.Sequential(*layers, nn.Linear(widths[-1], classes)), torch.randn(n, widths[0])
    squares, p = squared_scores(model, inputs)
    keywords, targets, draws = arguments_of(labels, inputs, classes, samples)
    found = diagonal_fisher(model, inputs, batch_size=batch_size, **keywords)
    assert_same(found, mean_over(squares, label_weights(labels, p, targets, draws)))
    assert all((value >= 0).all() and not value.requires_grad for value in found.values())


def test_one_linear_layer_has_the_fisher_that_algebra_gives():
    # F of W[c, i] is the mean of p_c (1 − p_c) xᵢ²; of b[c] the mean of p_c (1 − p_c).
    model, inputs = specimen("one linear layer")
    p = model(inputs).softmax(1).detach()
    wanted = {"weight": (p * (1 - p)).T @ inputs**2 / len(inputs), "bias": (p * (1 - p)).mean(0)}
    assert_same(diagonal_fisher(model, inputs), wanted, rtol=1e-12)


@pytest.mark.parametrize("samples", [1, 3])
def test_sampled_fisher_is_unbiased_for_any_number_of_samples(samples):
    model, inputs = specimen("linear")
    squares, p = table("linear")
    exact = mean_over(squares, p)
    repeats = 4000
    found = diagonal_fisher(
        model,
        inputs.repeat(repeats, 1),
        labels="sampled",
        samples=samples,
        batch_size=20_000,
        generator=torch.Generator().manual_seed(0),
    )
    for name, value in squares.items():
        mean = torch.einsum("nc,nc...->n...", p, value)
        variance = torch.einsum("nc,nc...->n...", p, value**2) - mean**2
        error = (variance.mean(0) / (len(inputs) * repeats * samples)).sqrt()
        assert ((found[name] - exact[name]).abs() <= 5 * error).all(), name
        assert error.max() < 0.05 * exact[name].max()  # so that the bound above means something


def test_more_samples_scatter_less():
    model, inputs = specimen("linear")
    exact = diagonal_fisher(model, inputs)

    def scatter(samples):
        generator = torch.Generator().manual_seed(1)
        draws = [
            diagonal_fisher(model, inputs, labels="sampled", samples=samples, generator=generator) for _ in range(40)
        ]
        return sum(float(((draw[name] - exact[name]) ** 2).sum()) for draw in draws for name in exact)

    assert 6 < scatter(1) / scatter(9) < 13


@pytest.mark.parametrize("name", ["linear", "conv 2d", "LSTM"])
def test_sampled_fisher_is_reproducible_and_independent_of_the_batch_size(name):
    model, inputs = specimen(name, 7)
    found = [
        diagonal_fisher(
            model, inputs, labels="sampled", samples=2, batch_size=size, generator=torch.Generator().manual_seed(5)
        )
        for size in (100, 100, 3, 1)
    ]
    for other in found[1:]:
        assert_same(other, found[0], rtol=1e-12)
    again = diagonal_fisher(model, inputs, labels="sampled", samples=2, generator=torch.Generator().manual_seed(6))
    assert any(not torch.allclose(again[key], found[0][key]) for key in again)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["linear", "conv 2d", "tied embedding", "BatchNorm 1d in eval", "token axis"])
def test_no_result_depends_on_the_batch_size(name, labels):
    model, inputs = specimen(name, 7)
    results = []
    for size in (1, 2, 3, 7, 1000):
        keywords, _, _ = arguments_of(labels, inputs)
        results.append(diagonal_fisher(model, inputs, batch_size=size, **keywords))
    for other in results[1:]:
        assert_same(other, results[0], rtol=1e-12)


def test_no_result_depends_on_how_many_gradients_are_formed_at_once(monkeypatch):
    model, inputs = specimen("conv 2d", 7)
    whole = diagonal_fisher(model, inputs)
    monkeypatch.setattr("ewc.gradients.NUMBERS_AT_ONCE", 300)
    assert_same(diagonal_fisher(model, inputs), whole, rtol=1e-12)


def test_the_fisher_is_a_mean_per_example():
    model, inputs = specimen("conv 2d", 4)
    one_by_one = [diagonal_fisher(model, example[None]) for example in inputs]
    mean = {name: sum(each[name] for each in one_by_one) / 4 for name in one_by_one[0]}
    assert_same(diagonal_fisher(model, inputs), mean)
    assert_same(diagonal_fisher(model, inputs.repeat(3, 1, 1, 1)), mean)


def test_exact_fisher_is_the_mean_of_the_empirical_over_the_models_own_labels():
    model, inputs = specimen("GroupNorm", 1)
    p = model(inputs).softmax(1).detach()[0]
    each = [diagonal_fisher(model, inputs, torch.tensor([c]), labels="empirical") for c in range(3)]
    mean = {name: sum(p[c] * each[c][name] for c in range(3)) for name in each[0]}
    assert_same(diagonal_fisher(model, inputs), mean)


def test_argmax_fisher_is_smaller_than_the_exact_on_a_confident_network():
    model, inputs = specimen("linear")
    with torch.no_grad():
        model[2].weight *= 20
    exact, argmax = diagonal_fisher(model, inputs), diagonal_fisher(model, inputs, labels="argmax")
    assert sum(value.sum() for value in argmax.values()) < sum(value.sum() for value in exact.values())


def test_empirical_targets_may_be_any_integers_and_change_nothing_else():
    model, inputs = specimen("linear")
    targets = torch.tensor([0, 2, 1, 1, 0])
    wanted = diagonal_fisher(model, inputs, targets, labels="empirical")
    assert_same(diagonal_fisher(model, inputs, targets.to(torch.uint8), labels="empirical"), wanted)
    assert_same(diagonal_fisher(model, inputs, targets), diagonal_fisher(model, inputs))


def test_it_works_under_no_grad_and_leaves_no_graph():
    model, inputs = specimen("linear")
    with torch.no_grad():
        fisher = diagonal_fisher(model, inputs)
        assert not torch.is_grad_enabled()
    assert_same(fisher, diagonal_fisher(model, inputs))
    assert not any(value.requires_grad for value in fisher.values())


def test_extreme_logits_give_a_finite_fisher():
    model, inputs = specimen("linear")
    with torch.no_grad():
        model[2].weight *= 1e4
    assert all(value.isfinite().all() for value in diagonal_fisher(model.float(), inputs.float()).values())


# ---- the model is left as it was


def prepared(name):
    """A specimen with gradients, mixed modes and a hook of its own."""
    model, inputs = specimen(name, N)
    model.train()
    next(model.children()).eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(model.children()).register_forward_hook(lambda *_: None)
    return model, inputs


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher])
@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "BatchNorm 1d in eval",
        "BatchNorm 2d in eval",
        "spectral_norm",
        "weight_norm",
        "tied embedding",
        "LSTM",
    ],
)
def test_parameters_buffers_gradients_modes_and_hooks_are_left_alone(name, function):
    model, inputs = prepared(name)
    before, given_inputs = whole_state(model), inputs.clone()
    function(model, inputs)
    assert_untouched(before, whole_state(model))
    assert torch.equal(inputs, given_inputs)
    assert inputs.grad is None


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher])
def test_an_error_on_the_way_leaves_the_model_alone_too(function):
    calls = []

    def sometimes(m, x):
        calls.append(len(x))
        if len(calls) > 3:
            raise KeyError("a fault of the model's own")
        return m.norm(m.a(x))

    model = Function(sometimes, a=nn.Linear(4, 3), norm=nn.BatchNorm1d(3))
    model.a.eval()
    before = whole_state(model)
    with pytest.raises(KeyError, match="own"):
        function(model, torch.randn(8, 4), batch_size=2)
    assert_untouched(before, whole_state(model))


def test_a_model_with_an_old_style_weight_norm_can_still_be_used_afterwards():
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))
    inputs = torch.randn(N, 4)
    wanted = mean_over(*squared_scores(model, inputs))
    before = model(inputs)
    assert_same(diagonal_fisher(model, inputs), wanted)
    assert torch.equal(model(inputs), before)


# ---- the whole matrix


SMALL = [
    "linear",
    "conv 1d, stride, padding, dilation",
    "tied embedding",
    "same layer twice",
    "frozen first layer",
    "LSTM",
]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", [*SMALL, "a parameter that is never used"])
def test_diagonal_of_the_full_fisher_is_the_diagonal_fisher(name, labels):
    model, inputs = specimen(name, N)
    keywords, _, _ = arguments_of(labels, inputs)
    diagonal = diagonal_fisher(model, inputs, **keywords)
    keywords, _, _ = arguments_of(labels, inputs)
    full = full_fisher(model, inputs, batch_size=3, **keywords)
    flat = torch.cat([value.flatten() for value in diagonal.values()])
    torch.testing.assert_close(full.diagonal(), flat, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", SMALL)
def test_full_fisher_is_symmetric_and_positive_semi_definite(name):
    full = full_fisher(*specimen(name, N))
    torch.testing.assert_close(full, full.T, rtol=1e-12, atol=1e-15)
    values = torch.linalg.eigvalsh(full)
    assert values.min() >= -1e-12 * values.max()


@pytest.mark.parametrize("name", SMALL)
def test_full_fisher_equals_the_generalised_gauss_newton_matrix(name):
    model, inputs = specimen(name, N)
    names = {key: parameter.detach() for key, parameter in model.named_parameters() if parameter.requires_grad}
    found = full_fisher(model, inputs)  # before functional_call, which leaves a layer that is used twice without its parameters
    wanted = 0
    for example in inputs:
        jacobian = jacrev(lambda values, x=example: functional_call(model, values, (x[None],))[0])(names)
        j = torch.cat([jacobian[key].flatten(1) for key in names], 1)
        p = model(example[None])[0].softmax(0).detach()
        wanted = wanted + j.T @ (p.diag() - torch.outer(p, p)) @ j / len(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-14)


def test_full_fisher_is_the_curvature_of_the_divergence():
    model, inputs = specimen("one linear layer")
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    fixed = model(inputs).log_softmax(1).detach()

    def divergence(vector):
        weight, bias = vector[:12].reshape(3, 4), vector[12:]
        return (fixed.exp() * (fixed - (inputs @ weight.T + bias).log_softmax(1))).sum(1).mean()

    torch.testing.assert_close(full_fisher(model, inputs), torch.autograd.functional.hessian(divergence, start))


# ---- an independent library


def backpack_diagonal(layers, inputs, targets, extension, attribute):
    backpack = pytest.importorskip("backpack")
    from backpack import extensions

    model, loss = backpack.extend(copy.deepcopy(layers)), backpack.extend(nn.CrossEntropyLoss())
    with backpack.backpack(getattr(extensions, extension)()):
        loss(model(inputs), targets).backward()
    return {name: getattr(parameter, attribute) for name, parameter in model.named_parameters()}


NETWORKS = {
    "linear": lambda: (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), torch.randn(9, 6)),
    "convolution": lambda: (
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 4)),
        torch.randn(9, 2, 5, 5),
    ),
}


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("network", NETWORKS)
def test_exact_fisher_agrees_with_backpack(network):
    torch.manual_seed(0)
    model, inputs = NETWORKS[network]()
    wanted = backpack_diagonal(model, inputs, torch.arange(9) % 4, "DiagGGNExact", "diag_ggn_exact")
    assert_same(diagonal_fisher(model, inputs), wanted)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("network", NETWORKS)
def test_empirical_fisher_agrees_with_backpack(network):
    torch.manual_seed(0)
    model, inputs = NETWORKS[network]()
    targets = torch.arange(9) % 4
    sums = backpack_diagonal(model, inputs, targets, "SumGradSquared", "sum_grad_squared")
    # The gradients of a mean loss are each 1/N of an example's own: Σ (gₙ/N)² = F/N.
    wanted = {name: value * len(inputs) for name, value in sums.items()}
    assert_same(diagonal_fisher(model, inputs, targets, labels="empirical"), wanted)


# ---- what is refused, and in which words


LINEAR, X = specimen("linear")


def infinite():
    model, _ = specimen("linear")
    with torch.no_grad():
        model[2].bias[1] = float("nan")
    return model


def frozen():
    return specimen("linear")[0].requires_grad_(False)


def overflowing():
    model, _ = specimen("linear")
    with torch.no_grad():
        model[0].weight *= 1e300
    return nn.Sequential(model[0], model[2])


REFUSED = {
    "unknown labels": (lambda: (LINEAR, X), {"labels": "true"}, ["labels", "'true'", "'exact'", "'argmax'"]),
    "no batch": (lambda: (LINEAR, X), {"batch_size": 0}, ["batch_size is 0", "at least 1"]),
    "half a batch": (lambda: (LINEAR, X), {"batch_size": 2.5}, ["batch_size is 2.5", "whole number"]),
    "no sample": (lambda: (LINEAR, X), {"labels": "sampled", "samples": 0}, ["samples is 0", "at least 1"]),
    "no example": (lambda: (LINEAR, X[:0]), {}, ["inputs", "(0, 4)", "at least one example"]),
    "one number": (lambda: (LINEAR, X[0, 0]), {}, ["inputs", "()", "at least one example"]),
    "one vector": (lambda: (LINEAR, X[0]), {}, ["inputs", "(4,)", "first axis"]),
    "another shape": (lambda: (LINEAR, X[:, :3]), {}, ["inputs of shape (5, 3)", "do not fit the model"]),
    "another type": (lambda: (LINEAR, X.int()), {}, ["inputs", "torch.int32", "do not fit the model"]),
    "targets in a pair": (lambda: (LINEAR, (X, torch.zeros(5).long())), {}, ["do not fit the model", "targets are an argument of their own"]),
    "another device": (lambda: (LINEAR, X.to("meta")), {}, ["inputs is on meta", "cpu"]),
    "no targets": (lambda: (LINEAR, X), {"labels": "empirical"}, ["targets is None", "'empirical'"]),
    "too few targets": (lambda: (LINEAR, X, torch.zeros(4).long()), {"labels": "empirical"}, ["targets", "(4,)", "5"]),
    "soft targets": (lambda: (LINEAR, X, torch.zeros(5)), {"labels": "empirical"}, ["targets", "float", "indices"]),
    "one-hot targets": (lambda: (LINEAR, X, torch.zeros(5, 3).long()), {"labels": "empirical"}, ["targets", "(5, 3)"]),
    "a class too many": (
        lambda: (LINEAR, X, torch.tensor([0, 1, 2, 3, 0])),
        {"labels": "empirical"},
        ["targets", "3", "0 to 2"],
    ),
    "a negative class": (
        lambda: (LINEAR, X, torch.tensor([0, 1, 2, -1, 0])),
        {"labels": "empirical"},
        ["targets", "-1", "0 to 2"],
    ),
    "targets elsewhere": (
        lambda: (LINEAR, X, torch.zeros(5, device="meta").long()),
        {"labels": "empirical"},
        ["targets is on meta", "cpu"],
    ),
    "NaN in a weight": (lambda: (infinite(), X), {}, ["not finite", "'2.bias'"]),
    "NaN in the inputs": (lambda: (LINEAR, torch.full((5, 4), float("nan"))), {}, ["finite"]),
    "nothing to train": (lambda: (frozen(), X), {}, ["no parameter that requires grad"]),
    "overflow": (lambda: (overflowing(), 1e10 * X), {}, ["a logit that is not finite"]),
    "a column of scores": (lambda: (nn.Linear(4, 1), X), {}, ["logits", "(5, 1)", "2 or more classes", "'bernoulli'", "'gaussian'"]),
    "examples that went": (
        lambda: (Function(lambda m, x: m.a(x).sum(0, keepdim=True), a=nn.Linear(4, 3)), X),
        {},
        ["logits", "2 examples", "(1, 3)"],
    ),
    "a dictionary of outputs": (
        lambda: (Function(lambda m, x: {"y": m.a(x)}, a=nn.Linear(4, 3)), X),
        {},
        ["logits", "dict"],
    ),
    "no dependence": (
        lambda: (Function(lambda m, x: x[:, :3].clone(), a=nn.Linear(4, 3)), X),
        {},
        ["do not depend on its parameters"],
    ),
    "BatchNorm without running statistics": (
        lambda: (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3)), X),
        {},
        ["mixes the examples"],
    ),
    "BatchNorm 2d without running statistics": (
        lambda: (
            nn.Sequential(
                nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(18, 3)
            ),
            torch.randn(5, 1, 4, 4),
        ),
        {},
        ["mixes the examples"],
    ),
    "centred by the batch": (
        lambda: (Function(lambda m, x: m.a(x - x.mean(0)), a=nn.Linear(4, 3)), X),
        {},
        ["mixes the examples"],
    ),
    "centred by the batch, after two equal examples": (
        lambda: (Function(lambda m, x: m.a(x - x.mean(0)), a=nn.Linear(4, 3)), X[[0, 0, 1, 2]]),
        {},
        ["mixes the examples"],
    ),
}


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(case, function):
    arguments, keywords, words = REFUSED[case]
    arguments = arguments()
    with pytest.raises(ValueError) as refusal:
        function(*arguments, **keywords)
    for word in words:
        assert word in str(refusal.value), refusal.value


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher])
def test_what_is_no_tensor_is_refused_by_name(function):
    with pytest.raises(TypeError, match=r"inputs is list; it must be a tensor"):
        function(LINEAR, [[1.0] * 4])
    with pytest.raises(TypeError, match=r"targets is list; it must be a tensor"):
        function(LINEAR, X, [0] * 5, labels="empirical")
