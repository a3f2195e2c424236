"""Models whose layers are not what they seem: the Fisher is right all the same, or the model is refused by name."""

import warnings

import pytest
import torch
from by_hand import Function, assert_same, assert_untouched, label_weights, mean_over, squared_scores, whole_state
from by_loop import hold_to_the_loop
from ewc import diagonal_fisher, full_fisher, kronecker_fisher
from ewc.batches import Asked
from ewc.calls import owners
from ewc.looking import Look
from ewc.places import gradients_of
from ewc.readings import _examples_at_once
from ewc.sensitivity import output_sensitivity
from random_parts import Binary
from torch import nn
from torch.nn.functional import linear, normalize
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.filterwarnings("ignore:the gradients of the examples")]


def two(forward, width=5, **more):
    """A model of two linear layers a and b, and what else is given."""
    return Function(forward, a=nn.Linear(4, width), b=nn.Linear(width, 3), **more)


def chain():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def hooked(register, place, hook):
    model = chain()
    getattr(model[place], register)(hook)
    return model


# ---- weights that are used outside their layer


def cosine_head():
    return Function(
        lambda m, x: linear(normalize(m.body(x).relu()), normalize(m.head.weight)),
        body=nn.Linear(4, 5, bias=False),
        head=nn.Linear(5, 3, bias=False),
    )


def tied_embedding():
    return Function(lambda m, w: linear(m.embed(w).sum(1), m.embed.weight), embed=nn.Embedding(5, 3, padding_idx=0))


def used_outside_for_some(m, x):
    z, some = m.b(m.a(x)), x[:, 0] > 0.5
    if some.any():
        z = z.clone()
        z[some] = z[some] + linear(x[some], m.a.weight)[:, :3] ** 2
    return z


def middle_logit(m, x):
    outer = m.a(x)
    return torch.cat([outer[:, :1], linear(x, m.a.weight[:1]).tanh(), outer[:, 1:2]], 1)


def captured():
    a = nn.Linear(4, 5, bias=False)
    weight = a.weight
    return Function(lambda m, x: m.b(m.a(x) + linear(x, weight).tanh()), a=a, b=nn.Linear(5, 3))


def attention():
    model = Function(
        lambda m, x: m.head(m.attend(x[:, None] * x[:, :, None], *[x[:, :, None] * x[:, None]] * 2)[0].mean(1)),
        attend=nn.MultiheadAttention(4, 2, batch_first=True),
        head=nn.Linear(4, 3),
    )
    model.attend.in_proj_weight.requires_grad_(False)
    return model


# ---- layers that are not what their class says


def own_forward():
    model = chain()
    layer = model[0]
    layer.forward = lambda x: linear(x, 3 * layer.weight, layer.bias)
    return model


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).T


def symmetric(bias):
    model = nn.Sequential(nn.Linear(4, 4, bias=bias), nn.Tanh(), nn.Linear(4, 3))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    return model


def orthogonal():
    model = chain()
    parametrizations.orthogonal(model[0])
    return model


class Several(nn.Module):
    """Takes more than one tensor, and some by name."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x, scale=None, *, shift=0):
        return (x * scale) @ self.weight + shift


class ByName(nn.Module):
    """Does another thing with its one tensor when it comes by name."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x=None, y=None):
        return (x if y is None else 2 * y) @ self.weight


class Keeps(nn.Linear):
    def forward(self, x):
        self.features = super().forward(x)
        return self.features


# ---- rows that are not the examples


def experts(m, x):
    z = x.new_zeros(len(x), 3)
    for expert, mine in ((m.a, x[:, 0] > 0), (m.b, x[:, 0] <= 0)):
        if mine.any():
            z[mine] = expert(x[mine])[:, :3]
    return z


def early_exit(m, x):
    z, hard = m.shallow(x), x[:, 0] > 0.2
    if hard.any():
        z = z.clone()
        z[hard] = z[hard] + m.deep(x[hard])[:, :3]
    return z


def used_again_for_some(m, x):
    h = m.a(x)
    some = h[:, 0] > 0
    if some.any():
        h = h.clone()
        h[some] = m.a(h[some])
    return m.b(h)


def in_another_order(m, x):
    order = x[:, 0].argsort(descending=True)
    return m.b(m.a(x[order]).tanh())[order.argsort()]


def each_once(m, x):
    rows, which = x.unique(dim=0, return_inverse=True)
    return m.b(m.a(rows)[which].tanh())


def padding_left_out(m, words):
    embedded, there = m.embed(words), words != 0
    hidden = embedded.new_zeros(*words.shape, 5)
    hidden[there] = m.a(embedded[there]).tanh()
    return m.b(hidden.sum(1))


# ---- what torch does not vectorise


def packed(m, words):
    lengths = (words != 0).sum(1).clamp(min=1)
    texts = nn.utils.rnn.pack_padded_sequence(m.embed(words), lengths, batch_first=True, enforce_sorted=False)
    return m.head(m.read(texts)[1][-1])


def in_place(m, x):
    hidden = m.a(x)
    hidden.mul_(2)
    hidden[:, 0] = 0
    return m.b(hidden.tanh_())


def requires_grad_hook():
    model = Function(
        lambda m, w: m.b(checkpoint(m.a, m.embed(w), use_reentrant=False).mean(1).tanh()),
        embed=nn.Embedding(5, 4),
        a=nn.Linear(4, 5),
        b=nn.Linear(5, 3),
    )
    model.embed.register_forward_hook(lambda module, inputs, output: output.requires_grad_(True))
    return model


MODELS = {
    "cosine head": cosine_head,
    "tied embedding, first text blank": tied_embedding,
    "used outside for some examples": lambda: two(used_outside_for_some),
    "used outside in the middle logit": lambda: Function(middle_logit, a=nn.Linear(4, 2, bias=False)),
    "a weight that a function has captured": captured,
    "attention": attention,
    "called past its hooks": lambda: two(lambda m, x: m.b((m.a.forward(x) + m.a(x)).tanh())),
    "forward hook": lambda: hooked("register_forward_hook", 0, lambda layer, inputs, output: 2 * output),
    "forward pre-hook": lambda: hooked("register_forward_pre_hook", 0, lambda layer, inputs: (inputs[0] ** 2,)),
    "backward hook of a function": lambda: hooked("register_full_backward_hook", 1, lambda m, into, out: (3 * into[0],)),
    "backward hook of a layer": lambda: hooked("register_full_backward_hook", 2, lambda m, into, out: (3 * into[0],)),
    "backward pre-hook": lambda: hooked("register_full_backward_pre_hook", 0, lambda m, out: (3 * out[0],)),
    "backward hook that looks at the batch": lambda: hooked(
        "register_full_backward_hook", 1, lambda m, into, out: (into[0] * len(into[0]),)
    ),
    "forward of the instance": own_forward,
    "parametrization": lambda: symmetric(True),
    "parametrization without bias": lambda: symmetric(False),
    "orthogonal": orthogonal,
    "several inputs": lambda: Function(
        lambda m, x: m.b(m.a(x, scale=x.exp(), shift=x.sum(1, keepdim=True)).tanh()), a=Several(), b=nn.Linear(5, 3)
    ),
    "input by name": lambda: Function(lambda m, x: m.b(m.a(y=x).tanh()), a=ByName(), b=nn.Linear(5, 3)),
    "a layer that keeps its output": lambda: nn.Sequential(Keeps(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "experts": lambda: Function(experts, a=nn.Linear(4, 3), b=nn.Linear(4, 3)),
    "early exit": lambda: Function(early_exit, shallow=nn.Linear(4, 3), deep=nn.LayerNorm(4)),
    "used again for some": lambda: two(used_again_for_some, width=4),
    "sorted": lambda: two(in_another_order),
    "sorted convolution": lambda: Function(
        lambda m, x: m.b(m.a(x.flip(0)[:, None]).flatten(1)).flip(0),
        a=nn.Conv1d(1, 2, 2),
        b=nn.Linear(6, 3),
    ),
    "twice in two orders": lambda: two(lambda m, x: m.b((m.a(x) + m.a(x.flip(0)).flip(0)).tanh())),
    "equal examples share a row": lambda: two(each_once),
    "one row for all": lambda: Function(lambda m, x: x @ m.a(x.new_ones(1, 2)).reshape(4, 3), a=nn.Linear(2, 12)),
    "two rows an example": lambda: two(lambda m, x: m.b(m.a(torch.cat([x, x.flip(1)])).tanh().unflatten(0, (2, -1)).sum(0))),
    "padding left out": lambda: Function(
        padding_left_out, embed=nn.Embedding(5, 4, padding_idx=0), a=nn.Linear(4, 5), b=nn.Linear(5, 3)
    ),
    "own autograd function": lambda: nn.Sequential(Binary(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "packed texts": lambda: Function(
        packed, embed=nn.Embedding(5, 4, padding_idx=0), read=nn.GRU(4, 3, batch_first=True), head=nn.Linear(3, 3)
    ),
    "sparse embedding": lambda: Function(lambda m, w: m.embed(w).sum(1), embed=nn.Embedding(5, 3, sparse=True)),
    "checkpoint": lambda: two(lambda m, x: m.b(checkpoint(m.a, x, use_reentrant=False).tanh())),
    "checkpoint and inputs that require grad": requires_grad_hook,
    "in place": lambda: two(in_place),
    "no grad inside": lambda: two(lambda m, x: m.b(m.a(x).detach().tanh() + m.a(x))),
    "a head without classes": lambda: Function(
        lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=nn.Linear(4, 3), b=nn.Linear(4, 0)
    ),
}  # fmt: skip
WORDS = {name for name in MODELS if any(word in name for word in ("embedding", "text", "padding", "inputs that require"))}


def made(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element")
        model = MODELS[name]()
    if name in WORDS:
        return model, torch.tensor([[0, 0, 0], [1, 2, 0], [3, 1, 4], [2, 0, 0], [4, 4, 1]])
    inputs = torch.randn(6, 4)
    return model, torch.cat([torch.zeros(1, 4), inputs, inputs[:2]])  # a blank example first, and some that are equal


@pytest.mark.parametrize("name", MODELS)
def test_the_fisher_is_that_of_a_loop_over_the_examples(name):
    model, inputs = made(name)
    squares, p = squared_scores(model, inputs)
    targets = torch.arange(len(inputs)) % p.shape[1]
    wanted = mean_over(squares, p)
    model.train()
    before = whole_state(model)
    for size in (1, 2, 100):
        assert_same(diagonal_fisher(model, inputs, batch_size=size), wanted)
        found = diagonal_fisher(model, inputs, targets, labels="empirical", batch_size=size)
        assert_same(found, mean_over(squares, label_weights("empirical", p, targets)))
    flat = torch.cat([value.flatten() for value in wanted.values()])
    torch.testing.assert_close(full_fisher(model, inputs).diagonal(), flat, rtol=1e-8, atol=1e-14)
    assert_untouched(before, whole_state(model))


def test_checkpoints_that_can_be_asked_for_everything_alone_are_asked_so_and_gradients_stay():
    old = two(lambda m, x: m.b(checkpoint(m.a, m.e(x), use_reentrant=True).tanh()), e=nn.Linear(4, 4))
    plain = Function(lambda m, x: m.b(m.a(m.e(x)).tanh()), e=old.e, a=old.a, b=old.b)
    inputs = torch.randn(5, 4)
    wanted, moved = diagonal_fisher(plain, inputs), output_sensitivity(plain, inputs)
    for parameter in old.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert_same({name: diagonal_fisher(old, inputs, batch_size=2)[name] for name in wanted}, wanted)
    assert_same({name: output_sensitivity(old, inputs)[name] for name in moved}, moved)
    assert all((parameter.grad == 1).all() for parameter in old.parameters())


def test_hooks_on_parameters_are_not_called_and_stay():
    model, inputs, called = two(lambda m, x: m.b(m.a(x).tanh() + linear(x, m.a.weight))), torch.randn(5, 4), []
    wanted = diagonal_fisher(model, inputs)
    handle = model.a.weight.register_hook(lambda gradient: called.append("on the way") or 2 * gradient)
    model.a.weight.register_post_accumulate_grad_hook(lambda parameter: called.append("after"))
    assert_same(diagonal_fisher(model, inputs), wanted)
    assert called == []
    model(inputs).sum().backward()
    assert called == ["on the way", "after"]
    handle.remove()
    model(inputs).sum().backward()
    assert called == ["on the way", "after", "after"]


@pytest.mark.parametrize("part", ["model", "layer", "wrapped"])
def test_compiled_models_are_read_as_they_were_written(part):
    model, inputs = chain(), torch.randn(5, 4)
    wanted, moved = diagonal_fisher(model, inputs), output_sensitivity(model, inputs)
    compiled = torch.compile(model, backend="eager") if part == "wrapped" else model
    if part != "wrapped":
        (model if part == "model" else model[0]).compile(backend="eager")
    for _ in range(2):  # the first call compiles
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="the gradients of the examples")  # none is gone the slow way
            found = diagonal_fisher(compiled, inputs)
        assert_same(found, wanted)
        compiled(inputs)
    found = output_sensitivity(compiled, inputs)
    assert_same(found, moved)


# ---- which way is gone, and that it is said


def test_a_slower_way_is_gone_with_one_warning_that_says_why():
    inputs = torch.randn(9, 4)
    with pytest.warns(UserWarning, match=r"whole model.*slower.*'a.weight' is used outside") as told:
        diagonal_fisher(two(lambda m, x: m.b(m.a(x)) + linear(x, m.a.weight)[:, :3]), inputs, batch_size=2)
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"example by example.*slower.*torch says"):
        diagonal_fisher(MODELS["own autograd function"](), inputs)


@pytest.mark.parametrize("name", ["chain", "experts", "early exit", "sorted", "convolution", "tokens"])
def test_what_the_layers_give_is_read_from_them_without_a_warning(name):
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    tokens = Function(lambda m, x: m.b(m.n(m.a(x[:, None])).mean(1)), a=nn.Linear(4, 5), n=nn.LayerNorm(5), b=nn.Linear(5, 3))
    model = {"chain": chain(), "convolution": convolution, "tokens": tokens}.get(name) or MODELS[name]()
    few_bits = () if name in ("experts", "early exit", "sorted") else (torch.bfloat16,)  # too few to tell 200 examples apart
    for kind in (torch.float64, torch.float32, *few_bits):
        inputs = torch.randn(300, *((1, 4, 4) if name == "convolution" else (4,)), dtype=kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            diagonal_fisher(model.to(kind), inputs, labels="argmax", batch_size=200)


def test_residual_connections_are_read_from_the_layers():
    """The same output is met at several depths of the graph, on the way past a block and on the way through it."""

    def residual(m, x):
        x = m.a(x)
        for first, second in ((m.b, m.c), (m.d, m.e)):
            x = x + second(first(x).tanh())
        return m.head(x)

    parts = {name: nn.Linear(4, 4) for name in "abcde"}
    model, x = Function(residual, **parts, head=nn.Linear(4, 3)), torch.randn(5, 4)
    squares, p = squared_scores(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(diagonal_fisher(model, x), mean_over(squares, p))


@pytest.mark.parametrize("name", ["attention", "forward hook", "forward pre-hook", "parametrization", "experts", "sorted"])
def test_kronecker_factors_are_refused_where_layers_do_not_see_the_examples(name):
    model, inputs = made(name)
    with pytest.raises(ValueError, match=r"Kronecker|outside the layer"):
        kronecker_fisher(model, inputs)


# ---- what is refused


MIXED = {
    "mean": lambda m, x: m.a(x - x.mean(0)),
    "largest": lambda m, x: m.a(x / x.abs().max()),
    "sum of those before": lambda m, x: m.a(x).cumsum(0),
    "where there are many": lambda m, x: m.a(x) + (m.a(x).mean() if len(x) > 3 else 0),
}
RANDOM = {
    "dropout": lambda m, x: m.a(nn.functional.dropout(x, 0.3)),
    "noise": lambda m, x: m.a(x + 0.01 * torch.randn_like(x)),
    "one number": lambda m, x: m.a(x) * torch.rand(()),
}


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher, output_sensitivity])
@pytest.mark.parametrize(("forward", "word"), [(each, "mixes") for each in MIXED.values()] + [(each, "random") for each in RANDOM.values()])
def test_mixed_examples_and_random_models_are_told_apart(forward, word, function):
    with pytest.raises(ValueError, match=word):
        function(Function(forward, a=nn.Linear(4, 3)), torch.randn(12, 4))


@pytest.mark.parametrize("function", [diagonal_fisher, full_fisher, kronecker_fisher])
def test_probabilities_are_refused_if_every_row_of_every_batch_is_such(function):
    inputs = torch.randn(9, 4)
    for size in (1, 4, 100):
        with pytest.raises(ValueError, match="probabilities"):
            function(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), inputs, batch_size=size)
    function(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), inputs)
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[1.0], [0.0]])
    function(model, torch.tensor([[1.0], [2.0]]), batch_size=1)  # of the first alone the logits are (1, 0)


def test_what_torch_jit_has_compiled_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"torch\.jit.*'1'"):
        diagonal_fisher(nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 2))), torch.randn(3, 2))


def test_nothing_is_drawn_from_the_global_source():
    before = torch.get_rng_state()
    diagonal_fisher(MODELS["sorted"](), torch.ones(3, 4))
    drawn = torch.get_rng_state()
    torch.set_rng_state(before)
    MODELS["sorted"]()
    assert torch.equal(drawn, torch.get_rng_state())


# ---- what makes a language model's Fisher quick


def test_an_embeddings_gradients_hold_the_words_of_an_example_alone():
    """A dense one would be the whole vocabulary for each example."""
    words, delta = torch.tensor([[7, 7, 2], [0, 7, 9]]), torch.randn(2, 3, 4)
    table = nn.Embedding(1000, 4, padding_idx=0)
    (found,) = gradients_of(table, words, [delta])
    found = found[table.weight]
    assert found.is_sparse and found.is_coalesced() and found.values().shape == (5, 4)  # 2, 7; 0, 7, 9
    wanted = torch.zeros(2, 1000, 4)
    wanted[0, 7], wanted[0, 2], wanted[1, 7], wanted[1, 9] = delta[0, 0] + delta[0, 1], delta[0, 2], delta[1, 1], delta[1, 2]
    torch.testing.assert_close(found.to_dense(), wanted)


def uses_of_one_table(name):
    """One embedding at three places, alone or tied to the head, whose gradients are dense."""

    def forward(m, w):
        x = (m.embed(w) + m.embed(w.flip(1)) * m.embed(w.roll(1, 1))).tanh()
        return (m.head(x) if name == "head too" else x).sum(1)

    model = Function(forward, embed=nn.Embedding(6, 3, padding_idx=1), head=nn.Linear(3, 6, bias=False))
    model.head.weight = model.embed.weight
    return model


@pytest.mark.parametrize("name", ["alone", "head too"])
def test_the_uses_of_one_table_add_up_before_the_square(name):
    torch.manual_seed(0)
    model, words = uses_of_one_table(name), torch.randint(6, (5, 4))
    hold_to_the_loop(model, words, batch_sizes=(2, 1024))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a slower way
        diagonal_fisher(model, words, labels="argmax")


def test_where_one_score_is_asked_for_the_rows_are_tried_with_it():
    """Its backward pass is then done once, and every batch is tried all the same."""
    model, words = Function(lambda m, w: m.b(m.a(w).tanh()).sum(1), a=nn.Embedding(6, 4), b=nn.Linear(4, 3)), torch.randint(6, (8, 5))
    for labels, samples, kept in (("sampled", 1, True), ("argmax", 1, True), ("sampled", 2, False), ("exact", 1, False)):
        look = Look(model, words, labels=labels, samples=samples, batch_size=4)
        with look.begun():
            for reading, scores in look.readings():
                scores = list(scores)
                assert reading.of_tried is not None
                assert (reading.deltas(scores[0]) is reading.of_tried) == kept


@pytest.mark.parametrize("labels", ["empirical", "argmax"])
def test_rows_that_are_no_examples_are_seen_in_a_later_batch_where_one_score_is_asked_for(labels):
    """Three examples go through a layer twice, and both their rows add up before the square."""

    def forward(m, x):
        x = m.a(x).tanh()
        return m.b(torch.cat([x, x]).mul(0.5).view(2, *x.shape).flatten(0, 1)).view(2, len(x), -1).sum(0) if len(x) == 3 else m.b(x)

    model = Function(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 3, bias=False))
    inputs, targets = torch.randn(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found, wanted = (diagonal_fisher(model, inputs, targets, labels=labels, batch_size=size) for size in (4, 1))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_a_batch_has_more_examples_where_the_model_has_many_weights():
    """Each batch costs some passes over the weights themselves."""
    sizes = []
    for words in (10, 40_000):  # the numbers on their way are the same: more than 2,000,000 an example
        model = nn.Sequential(nn.Embedding(words, 100), nn.Linear(100, 10_000))
        sizes.append(_examples_at_once(Asked(model), owners(model), torch.randint(10, (9, 50))))
    assert sizes == [3, 7]


ONLY_LINEAR = {
    "with ReLU": [nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)],
    "nothing between": [nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 3, bias=False)],
    "one layer": [nn.Linear(4, 3)],
    "a frozen layer below": [nn.Linear(4, 5).requires_grad_(False), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 3)],
    "in place": [nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)],
    "boxes": [nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU()), nn.Sequential(nn.Dropout(), nn.Linear(5, 3))],
}
MORE = {
    "another bend": [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)],
    "a bend at the end": [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU()],
    "bent twice": [nn.Linear(4, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 3)],
    "a frozen layer between": [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5).requires_grad_(False), nn.ReLU(), nn.Linear(5, 3)],
}


@pytest.mark.parametrize("name", [*ONLY_LINEAR, *MORE])
def test_the_backward_pass_that_is_written_out_is_autograds(name):
    """And it is gone where nothing but linear layers and ReLU lie on the way."""
    torch.manual_seed(3)
    model = nn.Sequential(*(ONLY_LINEAR | MORE)[name]).double().eval()
    look = Look(model, torch.randn(9, 4))
    with look.begun():
        (reading, scores), = look.readings()
        kept = list(scores)
        assert (reading.chain is not None) == (name in ONLY_LINEAR)
        for score, (deltas, _) in zip(kept, reading.passes(kept), strict=True):
            for found, wanted in zip(deltas, reading.deltas(score), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
