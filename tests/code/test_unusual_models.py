"""Networks that people build and that chance rarely makes: the Fisher information is the one by a loop, or the refusal says why not."""

import copy
import warnings

import pytest
import torch
from by_hand import Function, assert_same, mean_over, whole_state
from by_loop import by_loop, hold_to_the_loop
from ewc import SynapticIntelligence, diagonal_fisher, full_fisher, kronecker_fisher, mixing
from ewc.sensitivity import output_sensitivity
from random_models import Recipe, build, known
from random_parts import Sign
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.filterwarnings("ignore")]

MODELS = {}


@pytest.fixture(autouse=True)
def the_same_each_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def held(function):
    """The model and the examples that this function makes are held to the loop."""
    MODELS[function.__name__] = function
    return function


def two_layers(inputs=3, classes=3):
    return nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, classes))


def normal(n=5, *shape):
    return torch.randn(n, *(shape or (3,)))


# ---- how the examples come


@held
def inputs_that_require_grad():
    return two_layers(), normal().requires_grad_()


@held
def inputs_seen_through_an_expand():
    return two_layers(), normal(1).expand(4, 3)


@held
def inputs_seen_through_a_transpose():
    return two_layers(), normal(3, 5).T


@held
def one_word_an_example():
    return nn.Sequential(nn.Embedding(5, 4), nn.Tanh(), nn.Linear(4, 3)), torch.tensor([1, 4, 1, 0])


@held
def inputs_written_over_by_the_model():
    def forward(m, x):
        x -= 1
        x[:, 0] = 0
        return m.a(x)

    return Function(forward, a=two_layers()), normal()


@held
def examples_of_many_axes():
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), normal(3, 1, 2, 2, 2)


@held
def bytes_as_inputs():
    images = torch.randint(0, 256, (4, 3), dtype=torch.uint8)
    return Function(lambda m, x: m.a(x / 255), a=two_layers()), images


@held
def as_many_examples_as_rows_of_a_weight():
    return build(Recipe("vector", ("weights_from_a_layer",), examples=4))


@held
def as_many_examples_as_positions():
    return build(Recipe("words", ("words_and_positions",), "flat", examples=3))


@held
def all_examples_equal():
    network, inputs = build(Recipe("tokens", ("attention", "folded_without_padding"), "flat", examples=4))
    return network, inputs[:1].repeat(4, 1, 1)


# ---- weights that are no layer's, or of an unusual shape


@held
def one_number_as_a_weight():
    return Function(lambda m, x: m.a(x) * m.by, a=two_layers(), by=nn.Parameter(torch.tensor(2.0))), normal()


@held
def a_weight_without_entries():
    return Function(
        lambda m, x: m.a(x) + (x @ m.low.T @ m.high.T),
        a=nn.Linear(3, 3),
        low=nn.Parameter(torch.zeros(0, 3)),
        high=nn.Parameter(torch.zeros(3, 0)),
    ), normal()


@held
def a_head_without_classes():
    return Function(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=nn.Linear(3, 2), b=nn.Linear(3, 0)), normal()


@held
def a_layer_that_is_hidden_in_a_list():
    layer = nn.Linear(3, 3)
    network = Function(lambda m, x: m.hidden[0](x).tanh() * m.weight.sum(), weight=layer.weight)
    network.hidden = [layer]
    return network, normal()


@held
def all_weights_in_one_vector():
    def forward(m, x):
        a, b = m.flat[:12].view(4, 3), m.flat[12:].view(3, 4)
        return linear(linear(x, a).tanh(), b)

    return Function(forward, flat=nn.Parameter(torch.randn(24))), normal()


@held
def weights_made_by_another_network():
    def forward(m, x):
        weight = m.maker(m.code).view(3, 3)
        return linear(x, weight) + m.a(x)

    return Function(forward, maker=nn.Linear(2, 9), code=nn.Parameter(torch.randn(2)), a=nn.Linear(3, 3)), normal()


@held
def weights_made_for_each_example():
    return Function(lambda m, x: (m.maker(x).view(-1, 3, 3) @ x[:, :, None])[..., 0], maker=nn.Linear(3, 9)), normal()


@held
def one_layer_under_two_names():
    layer = nn.Linear(3, 3)
    return Function(lambda m, x: m.b(m.a(x).tanh()), a=layer, b=layer), normal()


@held
def one_weight_as_it_is_and_transposed():
    network = Function(
        lambda m, x: m.a(linear(x, m.other).tanh()), a=nn.Linear(3, 3), other=nn.Parameter(torch.zeros(3, 3))
    )
    network.a.weight = network.other
    return network, normal()


@held
def a_bias_that_two_layers_share():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    network[2].bias = network[0].bias
    return network, normal()


@held
def a_mixture_of_heads_by_the_first_feature():
    def forward(m, x):
        number = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        return torch.stack([m.heads[int(n)](row) for n, row in zip(number, x, strict=True)])

    return Function(forward, heads=nn.ModuleList([nn.Linear(3, 2) for _ in range(3)])), normal(6)


@held
def a_weight_exchanged_while_the_layer_is_called():
    def forward(m, x):
        own = m.a._parameters["weight"]
        m.a._parameters["weight"] = own.tanh()
        try:
            return m.b(m.a(x))
        finally:
            m.a._parameters["weight"] = own

    return Function(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), normal()


@held
def a_convolution_called_with_another_weight():
    def forward(m, x):
        hidden = torch.func.functional_call(m.a, {"weight": m.a.weight * m.scale}, (x,))
        return m.b(hidden.flatten(1))

    return (
        Function(forward, a=nn.Conv1d(2, 2, 2), scale=nn.Parameter(torch.tensor([2.0])), b=nn.Linear(4, 2)),
        normal(4, 2, 3),
    )


@held
def a_hook_put_on_and_taken_off_within():
    def forward(m, x):
        hook = m.a.register_forward_hook(lambda layer, inputs, out: out.tanh() * 2)
        try:
            return m.b(m.a(x))
        finally:
            hook.remove()

    return Function(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), normal()


@held
def a_layer_of_which_only_some_outputs_are_used():
    return Function(lambda m, x: m.a(x)[:, 1:3], a=nn.Linear(3, 5)), normal()


@held
def a_layer_whose_output_nobody_uses():
    return Function(lambda m, x: (m.a(x), m.b(x))[1], a=nn.Linear(3, 5), b=nn.Linear(3, 2)), normal()


@held
def a_layer_whose_output_is_its_input():
    class Unchanged(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x

    return nn.Sequential(nn.Linear(3, 3), Unchanged(), nn.Linear(3, 3)), normal()


@held
def a_layer_that_returns_a_view_of_its_weights():
    class Table(nn.Linear):
        def forward(self, x):
            return self.weight[0].expand(len(x), -1)

    return Function(lambda m, x: m.b(x * m.a(x)), a=Table(3, 2), b=nn.Linear(3, 2)), normal()


@held
def a_layer_called_with_an_option():
    class Optional(nn.Linear):
        def forward(self, x, by=1.0, add=None):
            return by * super().forward(x) + (0 if add is None else add)

    return Function(lambda m, x: m.a(m.a(x, 2.0), add=x), a=Optional(3, 3)), normal()


@held
def a_layer_that_keeps_what_it_saw():
    class Remembers(nn.Linear):
        def forward(self, x):
            self.features = super().forward(x)
            return self.features.tanh()

    return Function(lambda m, x: m.b(m.a(x) + m.a.features), a=Remembers(3, 3), b=nn.Linear(3, 2)), normal()


@held
def a_layer_that_lists_its_outputs():
    class Lists(nn.Linear):
        def forward(self, xs):
            return [super(Lists, self).forward(x) for x in xs]

    return Function(lambda m, x: sum(m.a([x, x.tanh()])), a=Lists(3, 2)), normal()


@held
def steps_of_a_recurrent_cell_that_stop_early():
    def forward(m, x):
        lengths = 1 + (x[:, :, 0] > 0).sum(1)
        hidden = cell = torch.zeros(len(x), 2, dtype=x.dtype)
        for step in range(3):
            active = lengths > step
            if active.any():
                new = m.cell(x[active, step], (hidden[active], cell[active]))
                hidden, cell = (old.index_put((active,), part) for old, part in zip((hidden, cell), new, strict=True))
        return m.head(hidden)

    return Function(forward, cell=nn.LSTMCell(3, 2), head=nn.Linear(2, 2)), normal(5, 3, 3)


@held
def a_graph_with_edges_within_each_example():
    def forward(m, x):
        near = ((x[:, :, None] - x[:, None]).square().sum(-1) < 4).to(x.dtype)
        return m.b((near @ m.a(x)).relu().mean(1))

    return Function(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 2)), normal(4, 4, 3)


@held
def an_ensemble_of_stacked_weights():
    def forward(m, x):
        return torch.vmap(lambda w, b: linear(x, w, b).tanh())(m.weights, m.biases).mean(0)

    return Function(
        forward, weights=nn.Parameter(torch.randn(2, 3, 3)), biases=nn.Parameter(torch.randn(2, 3))
    ), normal()


# ---- what torch lets one do to a module


@held
def hooks_with_keywords():
    network = two_layers()
    network[0].register_forward_pre_hook(lambda m, inputs, named: ((), {"input": inputs[0].tanh()}), with_kwargs=True)
    network[2].register_forward_hook(lambda m, inputs, named, out: out - out.mean(1, keepdim=True), with_kwargs=True)
    return network, normal()


@held
def a_hook_on_a_container():
    network = nn.Sequential(two_layers(3, 4), nn.Linear(4, 2))
    network[0].register_forward_hook(lambda m, inputs, out: out * inputs[0].sum(1, keepdim=True))
    return network, normal()


@held
def a_hook_that_uses_another_layers_weight():
    network = two_layers(3, 3)
    network[2].register_forward_hook(lambda m, inputs, out: out + inputs[0] @ network[0].weight)
    return network, normal()


@held
def a_hook_that_calls_the_layer_again():
    network = two_layers()

    def again(layer, inputs, out):
        return out + layer.forward(inputs[0].tanh())

    network[0].register_forward_hook(again)
    return network, normal()


@held
def a_hook_that_looks_at_the_batch_size():
    network = two_layers()
    network[0].register_forward_hook(lambda m, inputs, out: 2 * out if len(out) > 0 else out)
    return network, normal()


@held
def the_class_is_changed_afterwards():
    class Tripled(nn.Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    network = two_layers()
    network[0].__class__ = Tripled
    return network, normal()


@held
def a_subclass_that_changes_call():
    class Called(nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x).tanh()

    return nn.Sequential(Called(3, 4), nn.Linear(4, 2)), normal()


@held
def a_layer_compiled_by_itself():
    network = two_layers()
    network[0].compile(backend="eager")
    return network, normal()


@held
def a_traced_graph():
    return torch.fx.symbolic_trace(two_layers()), normal()


@held
def wrapped_for_several_devices():
    return nn.DataParallel(two_layers()), normal()


@held
def two_parametrizations_on_one_weight():
    network = two_layers()
    nn.utils.parametrizations.weight_norm(network[0])
    nn.utils.parametrize.register_parametrization(network[0], "bias", nn.Softplus())
    return network, normal()


@held
def a_parametrization_with_weights_of_its_own():
    class LowRank(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Parameter(torch.randn(1, 3)), nn.Parameter(torch.randn(4, 1))

        def forward(self, weight):
            return weight + self.high @ self.low

    network = two_layers()
    nn.utils.parametrize.register_parametrization(network[0], "weight", LowRank())
    network[0].parametrizations.weight.original.requires_grad_(False)
    return network, normal()


@held
def orthogonal_weights():
    network = two_layers()
    nn.utils.parametrizations.orthogonal(network[0])
    return network, normal()


@held
def one_parametrization_for_two_layers():
    scale = nn.Linear(1, 1)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = scale

        def forward(self, weight):
            return weight * self.scale.weight

    network = two_layers()
    nn.utils.parametrize.register_parametrization(network[0], "weight", Scaled())
    nn.utils.parametrize.register_parametrization(network[2], "weight", Scaled())
    return network, normal()


@held
def pruned_to_a_frozen_mask_and_frozen_in_part():
    network = two_layers()
    nn.utils.prune.random_unstructured(network[2], "weight", 0.5)
    network[0].requires_grad_(False)
    return network, normal()


@held
def an_own_function_with_two_outputs():
    class Split(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.relu(), (-x).relu()

        @staticmethod
        def backward(context, up, down):
            (x,) = context.saved_tensors
            return up * (x > 0) - down * (x < 0)

    return Function(lambda m, x: m.b(torch.cat(Split.apply(m.a(x)), 1)), a=nn.Linear(3, 2), b=nn.Linear(4, 2)), normal()


@held
def a_gradient_reversed_and_scaled():
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.view_as(x)

        @staticmethod
        def backward(context, gradient):
            return -3 * gradient

    return Function(lambda m, x: m.b(Reverse.apply(m.a(x)) + m.a(x)), a=nn.Linear(3, 2), b=nn.Linear(2, 2)), normal()


@held
def an_own_function_on_the_head():
    class Binary(nn.Linear):
        def forward(self, x):
            return linear(x.tanh(), Sign.apply(self.weight) * self.weight.abs().mean(), self.bias)

    return nn.Sequential(nn.Linear(3, 4), Binary(4, 3)), normal()


@held
def checkpointing_of_several_layers_with_a_hook():
    network = Function(
        lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False)), body=two_layers(3, 3), head=nn.Linear(3, 2)
    )
    network.body[0].register_forward_hook(lambda m, inputs, out: out.tanh())
    return network, normal()


@held
def features_under_no_grad_and_a_head():
    def forward(m, x):
        with torch.no_grad():
            hidden = m.body(x)
        return m.head(hidden)

    return Function(forward, body=two_layers(3, 4), head=nn.Linear(4, 2)), normal()


@held
def a_stale_weight_beside_the_true_one():
    network = two_layers()
    network[0].copied = network[0].weight.detach().clone()
    return Function(lambda m, x: m.a[2](linear(x, m.a[0].copied).tanh()) + m.a(x), a=network), normal()


@held
def a_batch_norm_that_stays_in_eval_when_trained():
    class Frozen(nn.BatchNorm1d):
        def train(self, mode=True):
            return super().train(False)

    network = nn.Sequential(nn.Linear(3, 4), Frozen(4), nn.Linear(4, 2))
    network[1].running_mean.uniform_(-1, 1)
    return network, normal()


@held
def eval_that_returns_nothing():
    class Quiet(nn.Sequential):
        def eval(self):
            super().eval()

        def train(self, mode=True):
            super().train(mode)

    return Quiet(*two_layers(), nn.Dropout(0.5)), normal()


@held
def a_model_that_counts_its_calls():
    def forward(m, x):
        m.calls += 1
        return m.a(x)

    network = Function(forward, a=two_layers())
    network.register_buffer("calls", torch.zeros((), dtype=torch.long))
    return network, normal()


@held
def a_model_that_draws_and_does_not_use_it():
    return Function(lambda m, x: m.a(x + 0 * torch.rand_like(x)), a=two_layers()), normal()


@held
def a_running_average_kept_in_the_forward_pass():
    def forward(m, x):
        hidden = m.a(x)
        with torch.no_grad():
            m.average.lerp_(hidden.mean(0), 0.1)
        return m.b(hidden.tanh())

    network = Function(forward, a=nn.Linear(3, 2), b=nn.Linear(2, 2))
    network.register_buffer("average", torch.zeros(2))
    return network, normal()


def _masked(layer):
    """The model leaves the mask of the batch with the layer, whose rows must be the batch's."""

    def forward(m, x):
        m.a.mask = (x > 0).to(x.dtype)
        return m.b(m.a(x))

    return Function(forward, a=layer, b=nn.Linear(4, 2)), normal()


@held
def a_mask_that_is_left_with_a_layer():
    class Masked(nn.Linear):
        def forward(self, x):
            return super().forward(x * self.mask)

    return _masked(Masked(3, 4))


@held
def a_mask_whose_shape_the_layer_checks():
    class Masked(nn.Linear):
        def forward(self, x):
            if len(self.mask) != len(x):
                raise ValueError("the mask is another batch's")
            return super().forward(x * self.mask)

    return _masked(Masked(3, 4))


@held
def a_mask_that_the_layer_looks_up_row_by_row():
    class Masked(nn.Linear):
        def forward(self, x):
            return torch.stack([linear(row * self.mask[n], self.weight, self.bias) for n, row in enumerate(x)])

    return _masked(Masked(3, 4))


@held
def lists_of_layers_of_every_kind():
    blocks = nn.ModuleList([nn.Linear(3, 3), nn.LayerNorm(3), nn.PReLU(), nn.Bilinear(3, 3, 3)])

    def forward(m, x):
        for block in m.blocks:
            x = x + (block(x, x) if isinstance(block, nn.Bilinear) else block(x))
        return m.heads["one"](x)

    return Function(
        forward, blocks=blocks, heads=nn.ModuleDict({"one": nn.Linear(3, 2), "two": nn.Linear(3, 2)})
    ), normal()


@held
def what_is_kept_for_batches_of_one_size():
    def forward(m, x):
        if len(m.kept) != len(x):
            m.kept = x.new_full((len(x), 1), 2.0)
        return m.a(x) * m.kept

    network = Function(forward, a=nn.Linear(3, 2))
    network.kept = torch.ones(0, 1)
    return network, normal()


@pytest.mark.parametrize("name", known(MODELS, lambda name: {name}))
def test_the_fisher_is_the_one_by_loop(name):
    network, inputs = MODELS[name]()
    hold_to_the_loop(network, inputs, batch_sizes=(2, 1024))


# ---- how it is called


def found_in(context, network, inputs):
    with context:
        return diagonal_fisher(network, inputs)


@pytest.mark.parametrize("name", ["linear", "experts", "signs_of_weights", "checkpointed", "sorted"])
@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autograd.set_detect_anomaly(True)]
)
def test_it_may_be_called_where_gradients_are_switched_off(name, context):
    network, inputs = build(Recipe("vector", (name,)))
    assert_same(found_in(context(), network, inputs), mean_over(*by_loop(network, inputs)[:2]))


def test_inputs_may_come_from_inference_mode():
    network, inputs = build(Recipe("vector", ("linear",)))
    wanted = mean_over(*by_loop(network, inputs)[:2])
    with torch.inference_mode():
        made = inputs + 0
    assert_same(diagonal_fisher(network, made), wanted)


@pytest.mark.parametrize("name", ["linear", "signs_of_weights"])
def test_it_may_be_called_where_saved_tensors_are_kept_elsewhere(name):
    network, inputs = build(Recipe("vector", (name,)))
    wanted = mean_over(*by_loop(network, inputs)[:2])
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor + 0, lambda tensor: tensor):
        assert_same(diagonal_fisher(network, inputs), wanted)


def test_a_forward_pass_that_was_replaced_for_all_linear_layers_counts(monkeypatch):
    monkeypatch.setattr(nn.Linear, "forward", lambda layer, x: linear(x, 2 * layer.weight, layer.bias))
    hold_to_the_loop(*build(Recipe("vector", ("linear", "tanh"))))


def test_a_function_of_torch_that_was_replaced_for_all_counts(monkeypatch):
    monkeypatch.setattr(nn.functional, "linear", lambda x, weight, bias=None: linear(x, 2 * weight, bias))
    network, inputs = build(Recipe("vector", ("linear", "tanh"), examples=6))
    hold_to_the_loop(network, inputs, batch_sizes=(2, 1024))


def convolutions():
    """A chain of torch's layers for images, each of which takes every example by itself."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 4, 2, padding_mode="circular", padding=1, bias=False), nn.GroupNorm(2, 4), nn.GELU()),
        nn.AvgPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3),
    ).eval()  # fmt: skip


def signals():
    return nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Tanh(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 3)).eval()


CHAINS = {"images": (convolutions, (6, 2, 6, 6)), "signals": (signals, (6, 2, 5))}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_torchs_layers_are_known_to_take_every_example_by_itself(name):
    make, shape = CHAINS[name]
    network, inputs = make(), torch.randn(shape)
    assert mixing.row_by_row(network, inputs)
    hold_to_the_loop(network, inputs)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv1d(5, 5, 1), nn.Flatten(), nn.Linear(4, 3)), (5, 4)),  # the examples are its channels
        (nn.Sequential(nn.Flatten(), nn.Conv1d(5, 5, 1)), (5, 2, 2)),
        (nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)), (5, 4)),
        (nn.Sequential(nn.LayerNorm((5, 4)), nn.Linear(4, 3)), (5, 4)),
        (nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 3)), (5, 1, 4)),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)), (5, 4)),
    ],
)
def test_chains_that_may_mix_examples_are_not(network, shape):
    assert not mixing.row_by_row(network, torch.randn(shape))


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "batch_norm"])
def test_a_function_that_was_replaced_for_all_and_mixes_examples_is_found(monkeypatch, name):
    function = getattr(nn.functional, name)
    monkeypatch.setattr(nn.functional, name, lambda x, *rest, **more: function(x + x.mean(0), *rest, **more))
    with pytest.raises(ValueError, match="mixes the examples"):
        diagonal_fisher(convolutions(), torch.randn(6, 2, 6, 6))


def test_labels_drawn_from_the_global_source_differ_each_time():
    network, inputs = build(Recipe("vector", ("linear",), examples=6))
    first, second = (diagonal_fisher(network, inputs, labels="sampled", samples=3) for _ in range(2))
    assert not torch.equal(first["0.weight"], second["0.weight"])


def test_a_hook_on_every_module_counts():
    network, inputs = build(Recipe("vector", ("linear", "tanh")))
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, given, out: out * 2 if isinstance(module, nn.Linear) else None
    )
    try:
        wanted = mean_over(*by_loop(network, inputs)[:2])
        assert_same(diagonal_fisher(network, inputs), wanted)
    finally:
        hook.remove()
    assert not torch.allclose(diagonal_fisher(network, inputs)["0.weight"], wanted["0.weight"])


@pytest.mark.parametrize("name", ["linear", "experts", "signs_of_weights", "checkpointed", "outside", "shared_twice"])
@pytest.mark.parametrize("function", [diagonal_fisher, output_sensitivity])
def test_whoever_watches_the_gradients_of_the_weights_sees_none(name, function):
    """Otherwise Synaptic Intelligence would take them for a step, and an optimiser inside the backward pass would make one."""
    network, inputs = build(Recipe("vector", (name,)))
    seen = []
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: seen.append(gradient))
        parameter.register_post_accumulate_grad_hook(seen.append)
    function(network, inputs)
    assert not seen


@pytest.mark.parametrize("name", ["linear", "signs_of_weights", "experts"])
def test_synaptic_intelligence_does_not_take_it_for_training(name):
    def importance(look):
        network, inputs = build(Recipe("vector", (name,)))
        guard, rule = SynapticIntelligence(network), torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            rule.zero_grad()
            cross_entropy(network(inputs), torch.arange(4) % 3).backward()
            if look:
                diagonal_fisher(network, inputs)
            rule.step()
        guard.consolidate()
        return guard.parabola()[1]

    assert_same(importance(True), importance(False))


# ---- other types


@pytest.mark.parametrize(
    "name", ["linear", "experts", "sorted", "outside", "signs_of_weights", "two_views_in_one_batch", "layer_norm"]
)
@pytest.mark.parametrize(("kind", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_types_of_fewer_bits(name, kind, rtol):
    network, inputs = build(Recipe("vector", (name,)))
    network, inputs = network.to(kind), inputs.to(kind)
    exact, wide = copy.deepcopy(network).double(), inputs.double()
    found = diagonal_fisher(network, inputs)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_same({key: value.double() for key, value in found.items()}, mean_over(*by_loop(exact, wide)[:2]), rtol)


def test_two_types_in_one_network():
    for _ in range(30):  # in some of them an example is rounded otherwise beside others than alone
        network = Function(lambda m, x: m.b(m.a(x.float()).double()), a=nn.Linear(3, 4).float(), b=nn.Linear(4, 2))
        inputs = torch.randn(5, 3)
        wide = Function(lambda m, x: m.b(m.a(x)), a=copy.deepcopy(network.a).double(), b=network.b)
        found, wanted = diagonal_fisher(network, inputs), mean_over(*by_loop(wide, inputs)[:2])
        assert_same({key: value.double() for key, value in found.items()}, wanted, 1e-5)


def test_autocast_within():
    def forward(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.a(x).float()

    body = two_layers().float()
    network, inputs = Function(forward, a=body), torch.randn(5, 3).float()
    wanted = mean_over(*by_loop(Function(lambda m, x: m.a(x), a=copy.deepcopy(body).double()), inputs.double())[:2])
    found = diagonal_fisher(network, inputs)
    assert_same({key: value.double() for key, value in found.items()}, wanted, 0.05)


# ---- the right value or a refusal that says why


def refused_or_right(network, inputs, *words, alike=None):
    """alike: a model of the same values that the loop can go through."""
    before = whole_state(network)
    try:
        found = diagonal_fisher(network, inputs, batch_size=4)
    except (ValueError, NotImplementedError) as error:
        assert any(word in str(error) for word in words), error
    else:
        assert_same(found, mean_over(*by_loop(alike or copy.deepcopy(network), inputs)[:2]))
    after = whole_state(network)
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name


def test_reentrant_checkpointing():
    layers = {"a": nn.Linear(3, 3), "b": nn.Linear(3, 2), "c": nn.Linear(3, 3)}
    network = Function(lambda m, x: m.b(checkpoint(m.a, m.c(x), use_reentrant=True)), **layers)
    alike = Function(lambda m, x: m.b(m.a(m.c(x))), **layers)
    refused_or_right(network, torch.randn(5, 3), "checkpoint", "reentrant", alike=alike)


def test_words_whose_gradient_is_divided_by_their_count():
    network = Function(
        lambda m, x: m.b(m.a(x).sum(1)), a=nn.Embedding(4, 3, scale_grad_by_freq=True), b=nn.Linear(3, 2)
    )
    refused_or_right(network, torch.tensor([[0, 0, 1], [1, 2, 0], [3, 3, 3]]), "scale_grad_by_freq")


def test_a_table_that_shortens_its_rows():
    network = Function(lambda m, x: m.b(m.a(x).sum(1)), a=nn.Embedding(4, 3, max_norm=0.5), b=nn.Linear(3, 2))
    refused_or_right(network, torch.tensor([[0, 0, 1], [1, 2, 0], [3, 3, 3]]), "max_norm")


def test_a_table_that_shortens_its_rows_and_that_only_a_later_batch_reads():
    def forward(m, x):
        out, late = m.c(x).sum(1), x[:, 0] > 1
        return m.b(out.index_add(0, late.nonzero()[:, 0], m.a(x[late]).sum(1)) if late.any() else out)

    network = Function(forward, a=nn.Embedding(4, 3, max_norm=0.5), b=nn.Linear(3, 2), c=nn.Embedding(4, 3))
    refused_or_right(network, torch.tensor([*4 * [[0, 0, 1]], *4 * [[2, 3, 3]]]), "max_norm")


def test_layers_that_have_no_weights_yet():
    with pytest.raises(ValueError, match=r"lazy|[Uu]ninitiali[sz]ed"):
        diagonal_fisher(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), torch.randn(5, 3))


MIXED = {
    "more than two examples are centred": lambda m, x: m.a(x - x.mean(0)) if len(x) > 2 else m.a(x),
    "the second pair is mixed": lambda m, x: m.a(torch.cat([x[:2], x[2:] - x[2:].mean(0, keepdim=True)])),
    "the last two are mixed": lambda m, x: m.a(torch.cat([x[:-2], x[-2:].mean(0).expand(2, 3)]) if len(x) > 2 else x),
    "an expert takes no more than three": lambda m, x: (
        m.a(x) + torch.cat([m.b(x[:3]), torch.zeros(len(x), 2)])[: len(x)]
    ),
    "the place in the batch counts": lambda m, x: m.a(x) * torch.arange(1.0, len(x) + 1)[:, None],
    "the last one sees the others": lambda m, x: m.a(torch.cat([x[:-1], x[-1:] + x[:-1].sum(0)])),
    "attention over the batch": lambda m, x: m.a((x @ x.T).softmax(1) @ x),
    "the batch decides by which layer": lambda m, x: m.a(x) if x.sum() > 0 else m.b(x),
    "the weights alone see the batch": lambda m, x: m.a(x) * m.b(x).detach().mean(),
}


@pytest.mark.parametrize("name", known(MIXED, lambda name: {name}))
def test_a_model_that_mixes_its_examples_is_refused(name):
    network = Function(MIXED[name], a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    for count in (2, 4, 9):
        refused_or_right(network, torch.randn(count, 3), "mixes the examples")


@pytest.mark.parametrize("first", range(20, 24))
def test_two_that_are_mixed_among_many_are_seen(first):
    """No example by itself would show it, but for a lucky one."""
    pair = torch.tensor([first, first + 1])
    network = Function(
        lambda m, x: m.a(x.index_copy(0, pair, x[pair].mean(0).expand(2, 3)) if len(x) > 40 else x), a=nn.Linear(3, 2)
    )
    with pytest.raises(ValueError, match="mixes the examples"):
        diagonal_fisher(network, torch.randn(60, 3))


def test_a_sum_over_twenty_two_that_decides_is_seen():
    """Both halves and nearly all examples alone decide as the batch does."""
    network, inputs = Function(MIXED["the batch decides by which layer"], a=nn.Linear(3, 2), b=nn.Linear(3, 2)), torch.ones(22, 3)
    inputs += 0.1 * torch.randn(22, 3)
    inputs[7] = -2
    with pytest.raises(ValueError, match="mixes the examples"):
        diagonal_fisher(network, inputs)


def test_one_of_many_whose_sum_decides_is_seen_where_torch_can_vectorise():
    network = Function(lambda m, x: torch.where(x.sum() > 0, m.a(x), m.b(x)), a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    inputs = torch.ones(500, 3) + 0.1 * torch.randn(500, 3)
    inputs[[60, 61]] = -2
    with pytest.raises(ValueError, match="mixes the examples"):
        diagonal_fisher(network, inputs)


def test_one_of_many_whose_sum_decides_is_seen_where_torch_cannot_vectorise():
    """The halves decide as the batch does, and all examples alone but this one."""
    network, inputs = Function(MIXED["the batch decides by which layer"], a=nn.Linear(3, 2), b=nn.Linear(3, 2)), torch.ones(500, 3)
    inputs += 0.1 * torch.randn(500, 3)
    inputs[[60, 61]] = -2
    for function in (diagonal_fisher, kronecker_fisher):
        with pytest.raises(ValueError, match="mixes the examples"):
            function(network, inputs)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_outputs_that_cancel_to_nearly_nothing_are_off_by_rounding_and_not_mixed(kind):
    """Of many outputs around 0 one is nearer to it than the rounding of its terms."""

    def signs(m, x):
        return m.b((m.a(x) * Sign.apply(m.a.bias)).tanh())

    network = Function(signs, a=nn.Linear(20, 30), b=nn.Linear(30, 1)).to(kind)
    inputs = torch.randn(40, 20, dtype=kind)
    for place in range(40):
        with torch.no_grad():
            network.b.bias -= network(inputs)[place]
        diagonal_fisher(network, inputs, likelihood="gaussian")


def test_a_row_is_not_measured_by_a_larger_one():
    logits = torch.ones(5, 3) * torch.tensor([[1.0], [1.0], [1.0], [1.0], [1e6]])
    found = logits.clone()
    found[0] += 1e-3
    assert mixing._alike(found, logits, slice(None), 1e-5).tolist() == [False, True, True, True, True]


def clipped(m, x, by):
    z = m.a(x).tanh()
    if z.requires_grad:
        z.register_hook(by)
    return m.b(z)


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher, kronecker_fisher, output_sensitivity])
def test_gradients_that_are_clipped_on_their_way_are_refused_and_multiples_are_not(function):
    """A weighted score has another gradient then than its weight times the gradient of the score."""
    network, inputs = Function(lambda m, x: clipped(m, x, m.by), a=nn.Linear(3, 4), b=nn.Linear(4, 2)), normal()
    for by in (lambda gradient: gradient.clamp(-0.05, 0.05), torch.sign, lambda gradient: gradient / gradient.norm()):
        network.by = by
        for batch_size in (None, 2, 1) if function is not kronecker_fisher else (None,):
            with pytest.raises(ValueError, match="by more than a factor"):
                function(network, inputs, batch_size=batch_size)
    network.by = lambda gradient: 3 * gradient
    if function is diagonal_fisher:
        hold_to_the_loop(network, inputs)


def test_a_gradient_that_overflows_is_not_taken_for_one_that_is_clipped():
    network = Function(lambda m, x: m.b((m.a(x) * Sign.apply(m.a.bias)).abs().sqrt()), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    nn.init.zeros_(network.a.weight), nn.init.zeros_(network.a.bias)
    with pytest.raises(ValueError, match="is not finite"):  # the slope of a root at 0
        diagonal_fisher(network, normal())


def test_a_model_that_writes_into_its_inputs_is_vectorised_all_the_same():
    network, inputs = MODELS["inputs_written_over_by_the_model"]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full_fisher(network, inputs)


def test_a_batch_that_uses_no_weight_has_no_kronecker_factors():
    """Their means are over all examples."""
    network, inputs = build(Recipe("vector", head="no_answer_for_some", examples=6))
    inputs[:3, 0], inputs[3:, 0] = 1, -1
    hold_to_the_loop(network, inputs, batch_sizes=(3, 2))
    for order in (inputs, inputs.flip(0)):
        with pytest.raises(ValueError, match="rows are not the examples"):
            kronecker_fisher(network, order, batch_size=3)


def test_a_model_that_loses_the_axis_of_one_example_is_refused_by_its_shape():
    with pytest.raises(ValueError, match=r"logits"):
        diagonal_fisher(Function(lambda m, x: m.a(x).squeeze(), a=nn.Linear(3, 2)), torch.randn(4, 3))
