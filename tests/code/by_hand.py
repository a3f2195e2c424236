"""What the tests compare with: the definitions written as loops, small models of every kind, and a model's whole state."""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations


def squared_scores(model, inputs):
    """(∂ log p(c|xₙ) / ∂θ)² for every example and class, one autograd call each: tensors (N, C, …) by name; and p, (N, C)."""
    model.eval()
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rows, probabilities = [], []
    for example in inputs:
        logits = model(example[None])[0]
        probabilities.append(logits.softmax(0).detach())
        row = [
            torch.autograd.grad(
                log_p, list(wanted.values()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for log_p in logits.log_softmax(0)
        ]
        rows.append(row)
    squares = {
        name: torch.stack([torch.stack([gradients[place].to_dense() for gradients in row]) for row in rows]) ** 2
        for place, name in enumerate(wanted)
    }
    return squares, torch.stack(probabilities)


def mean_over(squares, weights):
    """1/N Σ_n Σ_c weights[n, c] · squares[n, c], parameter by parameter."""
    return {name: torch.einsum("nc,nc...->...", weights, value) / len(weights) for name, value in squares.items()}


def label_weights(labels, p, targets=None, draws=None):
    """The weight of each class in the expectation over labels, (N, C), as the definition of `labels` says."""
    if labels == "exact":
        return p
    if labels == "argmax":
        targets = p.argmax(1)
    if labels == "sampled":  # each draw takes the first class at which the summed probability reaches it
        weights = torch.zeros_like(p)
        for n, row in enumerate(draws):
            for draw in row:
                reached = [c for c in range(p.shape[1]) if p[n, : c + 1].sum() >= draw]
                weights[n, reached[0]] += 1 / len(row)
        return weights
    return functional.one_hot(targets, p.shape[1]).to(p.dtype)


def assert_same(found, wanted, rtol=1e-8):
    """Same keys and shapes, and each tensor within rtol of its own largest entry."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        if not value.numel():
            continue
        difference = (found[name] - value).abs().max()
        assert difference <= rtol * value.abs().max(), f"{name}: off by {difference:.3g} of {value.abs().max():.3g}"


def whole_state(model):
    """Everything about a model that a look at its curvature must leave alone."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "parameters": [
            (name, id(p), p.data_ptr(), p._version, p.requires_grad) for name, p in model.named_parameters()
        ],
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "buffers": [(name, id(buffer)) for name, buffer in model.named_buffers()],
        "modes": [(name, module.training) for name, module in model.named_modules()],
        "hooks": [(name, {k: list(getattr(module, k)) for k in hooks}) for name, module in model.named_modules()],
        "attributes": [(name, sorted(vars(module))) for name, module in model.named_modules()],
    }


def assert_untouched(before, after):
    for part in ("parameters", "buffers", "modes", "hooks", "attributes"):
        assert before[part] == after[part], part
    for part in ("values", "gradients"):
        assert before[part].keys() == after[part].keys()
        for name, value in before[part].items():
            other = after[part][name]
            assert (value is None and other is None) or torch.equal(value, other), (part, name)


class Function(nn.Module):
    """A model made of some parts and one line that uses them."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.line = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.line(self, x)


class Doubled(nn.Linear):
    """A linear layer with a forward pass of its own: the closed form must not be taken for it."""

    def forward(self, x):
        return 2 * super().forward(x)


def _sequence(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def _flat(convolution, width):
    return lambda: nn.Sequential(convolution(), nn.Tanh(), nn.Flatten(), nn.Linear(width, 3))


def _frozen(build, *names):
    def built():
        model = build()
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        return model

    return built


def _batch_norm(layer, *around):
    def built():
        model = nn.Sequential(*(part() for part in around[:1]), layer(), *(part() for part in around[1:]))
        norm = next(m for m in model if hasattr(m, "running_mean"))
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        return model

    return built


def _tied_linears():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    return model


def _tied_embedding():
    model = Function(
        lambda m, x: m.decode(m.embed(x).mean(1).tanh()),
        embed=nn.Embedding(5, 4),
        decode=nn.Linear(4, 5),
    )
    model.decode.weight = model.embed.weight
    return model


def _twice():
    part = nn.Linear(4, 4)
    return nn.Sequential(part, nn.Tanh(), part, nn.ReLU(inplace=True), nn.Linear(4, 3))


def _encoder(batch_first):
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=batch_first)
    if batch_first:
        return Function(lambda m, x: m.head(m.layer(x)[:, 0]), layer=layer, head=nn.Linear(4, 3))
    return Function(
        lambda m, x: m.head(m.layer(x.transpose(0, 1)).transpose(0, 1)[:, 0]), layer=layer, head=nn.Linear(4, 3)
    )


def _class_token():
    return Function(
        lambda m, x: m.head(torch.cat([m.token.expand(len(x), 1, 4), m.embed(x)], 1).tanh().mean(1) * m.token[0]),
        token=nn.Parameter(torch.randn(1, 4)),
        embed=nn.Linear(4, 4),
        head=nn.Linear(4, 3),
    )


def _in_place_residual(m, x):
    hidden = m.a(x)
    hidden += x
    return m.b(hidden.relu_())


_linear = _sequence(lambda: nn.Linear(4, 5), nn.Tanh, lambda: nn.Linear(5, 3))
_features, _tokens, _words = (4,), (3, 4), "words"

# name: (a function that builds the model, the shape of one example)
ZOO = {
    "linear": (_linear, _features),
    "one linear layer": (lambda: nn.Linear(4, 3), _features),
    "linear without bias": (
        _sequence(lambda: nn.Linear(4, 5, bias=False), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "linear, ReLU in place": (
        _sequence(lambda: nn.Linear(4, 9), lambda: nn.ReLU(inplace=True), lambda: nn.Linear(9, 3)),
        _features,
    ),
    "in-place residual": (
        lambda: Function(_in_place_residual, a=nn.Linear(4, 4), b=nn.Linear(4, 3)),
        _features,
    ),
    "conv 1d, stride, padding, dilation": (
        _flat(lambda: nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2), 4 * 4),
        (2, 7),
    ),
    "conv 2d": (_flat(lambda: nn.Conv2d(2, 3, 2), 3 * 3 * 4), (2, 4, 5)),
    "conv 2d, stride, padding, groups": (
        _flat(lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=2), 6 * 2 * 7),
        (4, 3, 4),
    ),
    "conv 2d, depthwise, dilation": (
        _flat(lambda: nn.Conv2d(3, 3, 2, dilation=2, groups=3, bias=False), 3 * 4),
        (3, 4, 4),
    ),
    "conv 2d, circular padding": (
        _flat(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), 3 * 9),
        (2, 3, 3),
    ),
    "conv 2d, reflected padding": (
        _flat(lambda: nn.Conv2d(1, 2, 3, padding="same", padding_mode="reflect"), 2 * 9),
        (1, 3, 3),
    ),
    "conv 3d": (_flat(lambda: nn.Conv3d(2, 2, 2, stride=2, padding=1, groups=2), 2 * 2 * 2 * 2), (2, 2, 3, 2)),
    "transposed conv 1d": (_flat(lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), 3 * 8), (2, 3)),
    "transposed conv 2d": (
        _flat(lambda: nn.ConvTranspose2d(2, 4, 2, stride=2, padding=1, groups=2, dilation=2), 4 * 3 * 3),
        (2, 2, 2),
    ),
    "token axis": (
        lambda: Function(lambda m, x: m.head(m.embed(x).tanh().mean(1)), embed=nn.Linear(4, 5), head=nn.Linear(5, 3)),
        _tokens,
    ),
    "tokens folded into the examples": (
        lambda: Function(
            lambda m, x: m.head(m.embed(x.reshape(-1, 4)).tanh().reshape(len(x), -1)),
            embed=nn.Linear(4, 2),
            head=nn.Linear(6, 3),
        ),
        _tokens,
    ),
    "one token folded into the examples": (
        lambda: Function(
            lambda m, x: m.head(m.embed(x.reshape(-1, 4)).tanh().reshape(len(x), -1)),
            embed=nn.Linear(4, 2),
            head=nn.Linear(2, 3),
        ),
        (1, 4),
    ),
    "examples along the second axis": (
        lambda: Function(
            lambda m, x: m.head(m.embed(x.transpose(0, 1)).tanh().mean(0)), embed=nn.Linear(4, 5), head=nn.Linear(5, 3)
        ),
        _tokens,
    ),
    "examples in reverse order within": (
        lambda: Function(
            lambda m, x: m.head(m.embed(x.flip(0)).tanh()).flip(0), embed=nn.Linear(4, 5), head=nn.Linear(5, 3)
        ),
        _features,
    ),
    "embedding": (
        lambda: Function(lambda m, x: m.head(m.embed(x).tanh().sum(1)), embed=nn.Embedding(5, 4), head=nn.Linear(4, 3)),
        _words,
    ),
    "embedding with a padding index": (
        lambda: Function(
            lambda m, x: m.head(m.embed(x).tanh().sum(1)), embed=nn.Embedding(5, 4, padding_idx=1), head=nn.Linear(4, 3)
        ),
        _words,
    ),
    "bag of embeddings": (
        lambda: Function(lambda m, x: m.head(m.embed(x).tanh()), embed=nn.EmbeddingBag(5, 4), head=nn.Linear(4, 3)),
        _words,
    ),
    "tied embedding": (_tied_embedding, _words),
    "same layer twice": (_twice, _features),
    "two layers with one weight": (_tied_linears, _features),
    "weight used outside its layer": (
        lambda: Function(
            lambda m, x: m.head(functional.linear(m.a(x).tanh(), m.a.weight).tanh()),
            a=nn.Linear(4, 4),
            head=nn.Linear(4, 3),
        ),
        _features,
    ),
    "linear with a forward pass of its own": (
        _sequence(lambda: Doubled(4, 5), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "layer called by keyword": (
        lambda: Function(lambda m, x: m.b(input=m.a(x).tanh()), a=nn.Linear(4, 5), b=nn.Linear(5, 3)),
        _features,
    ),
    "bilinear": (
        lambda: Function(lambda m, x: m.b(m.a(x, x.tanh())), a=nn.Bilinear(4, 4, 3), b=nn.Linear(3, 3)),
        _features,
    ),
    "PReLU": (_sequence(lambda: nn.Linear(4, 5), nn.PReLU, lambda: nn.Linear(5, 3)), _features),
    "LayerNorm": (_sequence(lambda: nn.Linear(4, 5), lambda: nn.LayerNorm(5), lambda: nn.Linear(5, 3)), _features),
    "LayerNorm over tokens": (
        _sequence(lambda: nn.LayerNorm((3, 4)), nn.Tanh, nn.Flatten, lambda: nn.Linear(12, 3)),
        _tokens,
    ),
    "GroupNorm": (
        _sequence(
            lambda: nn.Conv2d(2, 4, 2), lambda: nn.GroupNorm(2, 4), nn.Tanh, nn.Flatten, lambda: nn.Linear(16, 3)
        ),
        (2, 3, 3),
    ),
    "InstanceNorm": (
        _sequence(
            lambda: nn.Conv1d(2, 3, 2, bias=False),
            lambda: nn.InstanceNorm1d(3, affine=True),
            nn.Tanh,
            nn.Flatten,
            lambda: nn.Linear(9, 3),
        ),
        (2, 4),
    ),
    "BatchNorm 1d in eval": (
        _batch_norm(lambda: nn.BatchNorm1d(5), lambda: nn.Linear(4, 5), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "BatchNorm 2d in eval": (
        _batch_norm(
            lambda: nn.BatchNorm2d(3), lambda: nn.Conv2d(2, 3, 2), nn.Tanh, nn.Flatten, lambda: nn.Linear(12, 3)
        ),
        (2, 3, 3),
    ),
    "bare parameter (class token)": (_class_token, _tokens),
    "TransformerEncoderLayer, batch first": (lambda: _encoder(True), _tokens),
    "TransformerEncoderLayer, batch second": (lambda: _encoder(False), _tokens),
    "weight_norm": (
        _sequence(lambda: parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "weight_norm without bias": (
        _sequence(lambda: parametrizations.weight_norm(nn.Linear(4, 5, bias=False)), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "weight_norm, convolution": (
        _flat(lambda: parametrizations.weight_norm(nn.Conv1d(2, 3, 2)), 9),
        (2, 4),
    ),
    "spectral_norm": (
        _sequence(lambda: parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "LSTM": (
        lambda: Function(
            lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(4, 3, batch_first=True), head=nn.Linear(3, 3)
        ),
        _tokens,
    ),
    "frozen first layer": (_frozen(_linear, "0.weight", "0.bias"), _features),
    "frozen last layer": (_frozen(_linear, "2.weight", "2.bias"), _features),
    "frozen weight, free bias": (_frozen(_linear, "0.weight"), _features),
    "free weight, frozen bias": (_frozen(_linear, "2.bias"), _features),
    "a parameter that is never used": (
        lambda: Function(lambda m, x: m.a(x), a=nn.Linear(4, 3), unused=nn.Parameter(torch.ones(2))),
        _features,
    ),
    "a layer that is never used": (
        lambda: Function(lambda m, x: m.a(x), a=nn.Linear(4, 3), unused=nn.Conv1d(1, 1, 2)),
        _features,
    ),
    "dropout": (
        _sequence(lambda: nn.Linear(4, 5), lambda: nn.Dropout(0.5), nn.Tanh, lambda: nn.Linear(5, 3)),
        _features,
    ),
    "classes of other tasks masked": (
        lambda: Function(
            lambda m, x: m.a(x).masked_fill(torch.tensor([False, False, True, False], device=x.device), -torch.inf), a=nn.Linear(4, 4)
        ),
        _features,
    ),
    "two classes": (_sequence(lambda: nn.Linear(4, 3), nn.Tanh, lambda: nn.Linear(3, 2)), _features),
}


def specimen(name, n=5, seed=0):
    """A model of the zoo with n examples for it, the same for the same seed."""
    build, shape = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build().double()
        inputs = torch.randint(0, 5, (n, 3)) if shape == _words else torch.randn(n, *shape, dtype=torch.float64)
    return model, inputs
