"""Kronecker factors of the Fisher information: against loops, against the full Fisher where they are exact, and curvlinops."""

import copy

import pytest
import torch
from by_hand import Function, assert_untouched, label_weights, specimen, whole_state
from ewc import full_fisher, kronecker_fisher
from ewc.factors import SHARING
from ewc.scores import LABELS
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("float64")

CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(2, 3, 2),
    "stride and padding": lambda: nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2)),
    "dilation": lambda: nn.Conv2d(2, 3, 2, dilation=2, padding=1),
    "groups": lambda: nn.Conv2d(4, 6, 2, groups=2),
    "groups, stride, padding, dilation": lambda: nn.Conv2d(4, 2, 2, stride=2, padding=(2, 1), dilation=2, groups=2),
    "depthwise without bias": lambda: nn.Conv2d(3, 3, 2, groups=3, bias=False),
    "same padding": lambda: nn.Conv2d(1, 2, 3, padding="same"),
    "circular padding": lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
    "reflected padding": lambda: nn.Conv2d(1, 2, (3, 1), padding=(1, 0), padding_mode="reflect"),
}


def convolutional(name, n=5, side=4):
    """A convolution between tanh and a linear layer, with inputs for it."""
    torch.manual_seed(0)
    layer = CONVOLUTIONS[name]()
    inputs = torch.randn(n, layer.in_channels, side, side)
    width = layer(inputs[:1]).numel()
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 3)), inputs


def model_and_inputs(name):
    if name in CONVOLUTIONS:
        return convolutional(name)
    return specimen(name)


def uses_by_hand(layer, a, output):
    """What each use of a layer reads, column by column, and where its scores stand: lists over groups of (inputs, places).

    For a convolution written with one loop over the places of the output, from the padded image; for tokens over the tokens.
    """
    if isinstance(layer, nn.Linear):
        rows = a.reshape(-1, a.shape[-1])
        return [(rows, [(use, slice(None)) for use in range(len(rows))])]
    sides = layer._reversed_padding_repeated_twice
    image = functional.pad(a, sides, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    channels, kernels = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    found = []
    for group in range(layer.groups):
        rows, places = [], []
        for i in range(output.shape[-2]):
            for j in range(output.shape[-1]):
                read = [
                    image[
                        group * channels + channel,
                        i * layer.stride[0] + up * layer.dilation[0],
                        j * layer.stride[1] + across * layer.dilation[1],
                    ]
                    for channel in range(channels)
                    for up in range(layer.kernel_size[0])
                    for across in range(layer.kernel_size[1])
                ]
                rows.append(torch.stack(read))
                places.append((slice(group * kernels, (group + 1) * kernels), i, j))
        found.append((torch.stack(rows), places))
    return found


def factors_by_hand(model, inputs, weights, sharing):
    """The definitions with loops over examples, classes and uses: {name: (B, A)}; `weights` of the classes, (N, C)."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    found = {}
    for example, weight in zip(inputs, weights, strict=True):
        seen = {}
        hooks = [
            layer.register_forward_hook(lambda _, a, z, name=name, seen=seen: seen.update({name: (a[0], z)}))
            for name, layer in layers.items()
        ]
        logits = model(example[None])[0]
        for hook in hooks:
            hook.remove()
        for name, (a, z) in seen.items():
            a, layer = a.detach()[0], layers[name]
            for group, (rows, places) in enumerate(uses_by_hand(layer, a, z[0])):
                if layer.bias is not None:
                    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
                key = name if getattr(layer, "groups", 1) == 1 else f"{name}[{group}]"
                uses = len(rows)
                if sharing == "reduce":
                    rows = rows.mean(0, keepdim=True)
                b, read = 0, sum(torch.outer(row, row) for row in rows)
                for log_p, share in zip(logits.log_softmax(0), weight, strict=True):
                    score = torch.autograd.grad(log_p, z, retain_graph=True)[0][0]
                    deltas = [
                        score.reshape(-1, score.shape[-1])[place] if isinstance(layer, nn.Linear) else score[place]
                        for place in places
                    ]
                    if sharing == "reduce":
                        b = b + share * torch.outer(sum(deltas), sum(deltas))
                    else:
                        b = b + share * sum(torch.outer(delta, delta) for delta in deltas) / uses
                before = found.get(key, (0, 0))
                found[key] = (before[0] + b / len(inputs), before[1] + read / len(inputs))
    return found


def block(full, factors):
    places = factors.places.flatten()
    return full[places][:, places]


def product(factors):
    return torch.kron(factors.outputs, factors.inputs)


def close(found, wanted, rtol=1e-8):
    torch.testing.assert_close(found, wanted, rtol=0, atol=rtol * float(wanted.abs().max()))


# ---- the definition, by loops


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize(
    "name", ["linear", "linear without bias", "token axis", "two classes", "dropout", *CONVOLUTIONS]
)
def test_the_factors_are_the_means_by_loop(name, sharing):
    model, inputs = model_and_inputs(name)
    model.eval()
    wanted = factors_by_hand(model, inputs, model(inputs).softmax(1).detach(), sharing)
    found = kronecker_fisher(model, inputs, sharing=sharing, batch_size=2)
    assert found.keys() == wanted.keys()
    for key, (b, a) in wanted.items():
        close(found[key].outputs, b)
        close(found[key].inputs, a)
        assert not found[key].outputs.requires_grad and not found[key].inputs.requires_grad


@pytest.mark.parametrize("labels", LABELS)
def test_each_label_mode_is_the_expectation_that_it_says(labels):
    model, inputs = specimen("linear")
    p, targets = model(inputs).softmax(1).detach(), torch.arange(5) % 3
    draws = torch.rand(5, 4, generator=torch.Generator().manual_seed(3))
    keywords = {"samples": 4, "generator": torch.Generator().manual_seed(3)} if labels == "sampled" else {}
    wanted = factors_by_hand(model, inputs, label_weights(labels, p, targets, draws), "expand")
    found = kronecker_fisher(model, inputs, targets if labels == "empirical" else None, labels=labels, **keywords)
    for key, (b, a) in wanted.items():
        close(found[key].outputs, b)
        close(found[key].inputs, a)


def test_the_places_put_every_weight_where_the_full_fisher_has_it():
    model, _ = convolutional("groups")
    found = kronecker_fisher(*convolutional("groups"))
    vector = torch.nn.utils.parameters_to_vector(model.parameters())
    last = torch.cat([model[3].weight, model[3].bias[:, None]], 1)
    assert torch.equal(vector[found["3"].places], last)
    for group in range(2):
        half = slice(3 * group, 3 * group + 3)
        matrix = torch.cat([model[0].weight[half].flatten(1), model[0].bias[half, None]], 1)
        assert torch.equal(vector[found[f"0[{group}]"].places], matrix)
    every = torch.cat([factors.places.flatten() for factors in found.values()])
    assert torch.equal(every.sort().values, torch.arange(len(vector)))


@pytest.mark.parametrize("frozen", [["0.weight"], ["0.bias"], ["2.weight"], ["2.bias"], ["0.weight", "0.bias"]])
def test_frozen_weights_and_biases_leave_their_columns_out(frozen):
    model, inputs = specimen("linear")
    whole = kronecker_fisher(model, inputs)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    found = kronecker_fisher(model, inputs)
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = torch.cat([factors.places.flatten() for factors in found.values()])
    assert torch.equal(every.sort().values, torch.arange(size))
    for key, factors in found.items():
        layer = model.get_submodule(key)
        columns = torch.tensor([layer.weight.requires_grad] * layer.in_features + [layer.bias.requires_grad])
        close(factors.inputs, whole[key].inputs[columns][:, columns])
        close(factors.outputs, whole[key].outputs)
    assert len(found) == 2 - (len(frozen) == 2)


# ---- where the product is the truth


@pytest.mark.parametrize("labels", LABELS)
def test_for_one_example_the_product_is_the_block_of_the_full_fisher(labels):
    model, inputs = specimen("linear", 1)
    targets = torch.tensor([1]) if labels == "empirical" else None

    def keywords():
        return {"labels": labels, "samples": 3, "generator": torch.Generator().manual_seed(0)}

    full = full_fisher(model, inputs, targets, **keywords())
    for factors in kronecker_fisher(model, inputs, targets, **keywords()).values():
        close(product(factors), block(full, factors))


def test_for_inputs_that_do_not_vary_the_product_is_the_full_fisher_of_a_linear_layer():
    model, inputs = specimen("one linear layer")
    inputs = inputs[:1].expand(5, -1)
    (factors,) = kronecker_fisher(model, inputs).values()
    full = full_fisher(model, inputs)
    close(product(factors), block(full, factors))
    p = model(inputs[:1]).softmax(1).detach()[0]
    close(factors.outputs, p.diag() - torch.outer(p, p))


def test_where_the_prediction_is_constant_the_product_is_exact_for_a_deep_linear_network():
    # The inputs differ by what the network as a whole maps to nothing: then p, and with it δ, is the same for all of them.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    _, _, right = torch.linalg.svd(model[1].weight.detach() @ model[0].weight.detach())
    inputs = torch.randn(6) + torch.randn(7, 3) @ right[3:]
    p = model(inputs).softmax(1)
    assert torch.allclose(p, p[:1].expand_as(p)) and inputs.std(0).min() > 0.05
    full = full_fisher(model, inputs)
    for factors in kronecker_fisher(model, inputs).values():
        close(product(factors), block(full, factors))


def test_a_last_layer_of_zeros_makes_its_own_block_exact_and_the_others_zero():
    model, inputs = specimen("linear")
    nn.init.zeros_(model[2].weight)
    found, full = kronecker_fisher(model, inputs), full_fisher(model, inputs)
    close(product(found["2"]), block(full, found["2"]))
    assert found["0"].outputs.abs().max() == 0


def test_reduce_is_exact_for_one_image_whose_scores_are_the_same_at_every_place():
    # A mean over all places hands each the same δ, so that the sum of δ aᵀ is one outer product of δ̄ and ā.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = torch.randn(1, 2, 4, 4)
    (reduced,) = kronecker_fisher(model, inputs, sharing="reduce").values()
    (expanded,) = kronecker_fisher(model, inputs).values()
    full = full_fisher(model, inputs)
    close(product(reduced), block(full, reduced))
    assert (product(expanded) - block(full, expanded)).norm() > 0.1 * full.norm()


def test_it_is_not_exact_in_general():
    model, inputs = specimen("linear")
    found, full = kronecker_fisher(model, inputs), full_fisher(model, inputs)
    away = [
        (product(factors) - block(full, factors)).norm() / block(full, factors).norm() for factors in found.values()
    ]
    assert all(0.01 < float(each) < 1 for each in away), away


def test_a_convolution_that_covers_the_image_is_a_linear_layer():
    model, inputs = specimen("one linear layer")
    same = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())
    with torch.no_grad():
        same[0].weight.copy_(model.weight.reshape(3, 1, 2, 2))
        same[0].bias.copy_(model.bias)
    (wanted,) = kronecker_fisher(model, inputs).values()
    for sharing in SHARING:
        (found,) = kronecker_fisher(same, inputs.reshape(-1, 1, 2, 2), sharing=sharing).values()
        close(found.outputs, wanted.outputs)
        close(found.inputs, wanted.inputs)


# ---- what does not change the result


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["linear", "groups", "token axis"])
def test_no_result_depends_on_the_batch_size(name, labels):
    model, inputs = model_and_inputs(name)
    targets = torch.arange(5) % 3 if labels == "empirical" else None
    results = [
        kronecker_fisher(
            model,
            inputs,
            targets,
            labels=labels,
            samples=2,
            batch_size=size,
            generator=torch.Generator().manual_seed(3),
        )
        for size in (1, 2, 3, 1000)
    ]
    for other in results[1:]:
        for key, factors in results[0].items():
            close(other[key].outputs, factors.outputs, 1e-12)
            close(other[key].inputs, factors.inputs, 1e-12)


@pytest.mark.parametrize("samples", [1, 3])
def test_sampled_factors_are_unbiased_for_any_number_of_samples(samples):
    model, inputs = specimen("linear")
    exact, repeats = kronecker_fisher(model, inputs), 4000
    found = kronecker_fisher(
        model,
        inputs.repeat(repeats, 1),
        labels="sampled",
        samples=samples,
        batch_size=20_000,
        generator=torch.Generator().manual_seed(0),
    )
    for key, factors in exact.items():
        close(found[key].inputs, factors.inputs)
        spread = factors.outputs.abs().max() / (5 * repeats * samples) ** 0.5
        assert ((found[key].outputs - factors.outputs).abs() < 8 * spread).all()
        assert 8 * spread < 0.1 * factors.outputs.abs().max()


def test_it_is_a_mean_per_example():
    model, inputs = convolutional("stride and padding")
    once, thrice = kronecker_fisher(model, inputs), kronecker_fisher(model, inputs.repeat(3, 1, 1, 1))
    for key, factors in once.items():
        close(thrice[key].outputs, factors.outputs)
        close(thrice[key].inputs, factors.inputs)


@pytest.mark.parametrize("name", ["linear", "groups", "plain"])
def test_factors_are_symmetric_and_positive_semi_definite(name):
    for b, a, _ in kronecker_fisher(*model_and_inputs(name)).values():
        for factor in (b, a):
            close(factor, factor.T, 1e-12)
            values = torch.linalg.eigvalsh(factor)
            assert values[0] >= -1e-12 * values[-1]


@pytest.mark.parametrize("name", ["linear", "groups"])
def test_float32_agrees_with_float64(name):
    model, inputs = model_and_inputs(name)
    wanted = kronecker_fisher(model, inputs)
    found = kronecker_fisher(copy.deepcopy(model).float(), inputs.float())
    half = kronecker_fisher(copy.deepcopy(model).bfloat16(), inputs.bfloat16())
    for key, factors in wanted.items():
        for place in (0, 1):
            assert found[key][place].dtype == half[key][place].dtype == torch.float32
            close(found[key][place].double(), factors[place], 1e-5)
            close(half[key][place].double(), factors[place], 0.03)


@pytest.mark.parametrize("name", ["linear", "groups", "dropout", "token axis"])
def test_parameters_buffers_gradients_modes_and_hooks_are_left_alone(name):
    model, inputs = model_and_inputs(name)
    model.train()
    next(model.children()).eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, given = whole_state(model), inputs.clone()
    with torch.no_grad():
        kronecker_fisher(model, inputs)
    assert_untouched(before, whole_state(model))
    assert torch.equal(inputs, given)


def test_frozen_batch_norm_is_no_hindrance_and_keeps_its_statistics():
    model, inputs = specimen("BatchNorm 1d in eval")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("0", "3")))
    before = whole_state(model)
    found = kronecker_fisher(model, inputs)
    assert_untouched(before, whole_state(model))
    assert len(found) == 2


def test_a_layer_that_is_never_used_has_factors_of_zero():
    found = kronecker_fisher(
        Function(lambda m, x: m.a(x), a=nn.Linear(4, 3), unused=nn.Linear(2, 2)), torch.randn(5, 4)
    )
    assert found["unused"].outputs.abs().max() == found["unused"].inputs.abs().max() == 0


# ---- an independent library


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("name", ["linear", "plain", "stride and padding", "dilation"])
def test_they_agree_with_curvlinops(name, fisher, sharing):
    import curvlinops

    model, inputs = model_and_inputs(name)
    targets = torch.arange(len(inputs)) % 3
    operator = curvlinops.KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])],
        fisher_type="type-2" if fisher == "exact" else "empirical",
        kfac_approx=sharing,
        separate_weight_and_bias=False,
    )
    wanted = operator @ torch.eye(operator.shape[1])
    found = torch.zeros_like(wanted)
    factored = kronecker_fisher(model, inputs, targets, labels=fisher, sharing=sharing)
    for factors in factored.values():
        places = factors.places.flatten()
        found[places[:, None], places] = product(factors)
    close(found, wanted)


# ---- what is refused, and in which words


REFUSED = {
    "a LayerNorm": (lambda: specimen("LayerNorm"), {}, ["1 (LayerNorm)", "nn.Linear and nn.Conv2d", "requires_grad_"]),
    "an LSTM": (lambda: specimen("LSTM"), {}, ["lstm (LSTM)"]),
    "an embedding": (lambda: specimen("embedding"), {}, ["embed (Embedding)"]),
    "a convolution in one dimension": (
        lambda: specimen("conv 1d, stride, padding, dilation"),
        {},
        ["0 (Conv1d)"],
    ),
    "a forward pass of its own": (
        lambda: specimen("linear with a forward pass of its own"),
        {},
        ["0 (Doubled)"],
    ),
    "a bare parameter": (lambda: specimen("bare parameter (class token)"), {}, ["the model itself (Function)"]),
    "a parametrised weight": (lambda: specimen("weight_norm"), {}, ["ParametrizationList"]),
    "a layer used twice": (lambda: specimen("same layer twice"), {}, ["'0'", "more than once", "full_fisher"]),
    "a weight of two layers": (lambda: specimen("two layers with one weight"), {}, ["'0' and '2'", "share"]),
    "a weight used elsewhere": (lambda: specimen("weight used outside its layer"), {}, ["outside the layer"]),
    "tokens folded into the examples": (
        lambda: specimen("tokens folded into the examples"),
        {},
        ["not example by example"],
    ),
    "an unknown sharing": (lambda: specimen("linear"), {"sharing": "both"}, ["sharing is 'both'", "'reduce'"]),
    "unknown labels": (lambda: specimen("linear"), {"labels": "true"}, ["labels is 'true'"]),
    "no targets": (lambda: specimen("linear"), {"labels": "empirical"}, ["targets is None"]),
    "no batch": (lambda: specimen("linear"), {"batch_size": 0}, ["batch_size is 0"]),
    "no example": (lambda: (specimen("linear")[0], torch.zeros(0, 4)), {}, ["inputs has shape (0, 4)"]),
    "a mixed batch": (
        lambda: (Function(lambda m, x: m.a(x - x.mean(0)), a=nn.Linear(4, 3)), torch.randn(5, 4)),
        {},
        ["mixes the examples"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(case):
    arguments, keywords, words = REFUSED[case]
    model, inputs = arguments()
    before = whole_state(model)
    with pytest.raises(ValueError) as refusal:
        kronecker_fisher(model, inputs, **keywords)
    for word in words:
        assert word in str(refusal.value), refusal.value
    assert_untouched(before, whole_state(model))


def test_what_is_no_tensor_is_refused_by_name():
    with pytest.raises(TypeError, match="inputs is list"):
        kronecker_fisher(specimen("linear")[0], [[1.0] * 4])
