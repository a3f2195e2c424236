"""The parts that random_models.py puts together.

Every part is one that people use and gives an example the same output alone and in a batch. Many are hard for code that looks
at a network's layers: a layer is not what its class says, its weights are used elsewhere, its rows are not the batch's examples.
"""

import torch
from by_hand import Doubled, Function
from torch import nn
from torch.nn.functional import cosine_similarity, embedding, linear, normalize, one_hot
from torch.nn.utils import parametrizations, parametrize, prune, rnn
from torch.utils.checkpoint import checkpoint

WIDTH, TOKENS, WORDS = 4, 3, 6

# What keeps the shape that it is given: any, vectors and tokens alike, or one kind alone.
ANY, PLAIN, VECTOR, TOKEN, IMAGE = {}, {}, {}, {}, {}
READERS = {}  # words become tokens
POOLS = {"tokens": {}, "image": {}}  # tokens and images become vectors
HEADS = {}  # a vector becomes logits
CHANGES = {}  # what is done to a layer afterwards


def into(table):
    """Keep a function that makes a part, under its own name."""

    def keep(function):
        table[function.__name__.strip("_")] = function
        return function

    return keep


class Kit:
    """Makes the layers of one network and remembers them, so that another part may use or change them."""

    def __init__(self, classes):
        self.classes, self.square, self.layers, self.words = classes, [], [], None

    def linear(self, outputs=WIDTH, bias=True):
        layer = self.seen(nn.Linear(WIDTH, outputs, bias))
        if outputs == WIDTH:
            self.square.append(layer)
        return layer

    def seen(self, layer):
        self.layers.append(layer)
        return layer

    def known(self):
        """A square layer that the network has already, or else a new one."""
        return self.square[0] if self.square else self.linear()


# ---- plain layers


def _add_in_place(m, x):
    hidden = m.a(x)
    hidden += x
    return hidden


PLAIN |= {
    "linear": lambda kit: kit.linear(),
    "without_bias": lambda kit: kit.linear(bias=False),
    "relu_in_place": lambda kit: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True)),
    "residual_in_place": lambda kit: Function(_add_in_place, a=nn.Linear(WIDTH, WIDTH)),
    "layer_norm": lambda kit: nn.LayerNorm(WIDTH),
    "bilinear": lambda kit: Function(lambda m, x: m.a(x, x.tanh()), a=nn.Bilinear(WIDTH, WIDTH, WIDTH)),
    "gated": lambda kit: Function(lambda m, x: m.gate(x).sigmoid() * m.a(x), gate=kit.linear(), a=kit.linear()),
    "bare_scale_beside_a_layer": lambda kit: Function(
        lambda m, x: m.a(x) * m.scale, a=kit.linear(), scale=nn.Parameter(torch.ones(WIDTH))
    ),
    "list_of_weights": lambda kit: Function(
        lambda m, x: x @ m.weights[0] @ m.weights[1],
        weights=nn.ParameterList([torch.randn(WIDTH, 2), torch.randn(2, WIDTH)]),
    ),
}


ANY |= {
    "tanh": lambda kit: nn.Tanh(),
    "one_slope": lambda kit: nn.PReLU(),
    "dropout": lambda kit: nn.Dropout(0.5),
    "bare_scale": lambda kit: Function(
        lambda m, x: x * m.scale + m.shift, scale=nn.Parameter(torch.ones(1)), shift=nn.Parameter(torch.zeros(1))
    ),
}


IMAGE |= {
    "residual_image_in_place": lambda kit: Function(_add_in_place, a=nn.Conv2d(2, 2, 1)),
}


VECTOR |= {
    "group_norm": lambda kit: nn.GroupNorm(2, WIDTH),
    "batch_norm": lambda kit: nn.BatchNorm1d(WIDTH),
}


# ---- a layer that is not what its class says


class Lower(nn.Module):
    def forward(self, weight):
        return weight.tril() - weight.triu(1).T


class Sign(torch.autograd.Function):
    """The sign, with the gradient of the identity: torch can differentiate it and cannot vectorise it."""

    @staticmethod
    def forward(context, weight):
        return weight.sign()

    @staticmethod
    def backward(context, gradient):
        return gradient


class Binary(nn.Linear):
    def forward(self, x):
        return linear(x, Sign.apply(self.weight), self.bias)


class Pair(nn.Linear):
    def forward(self, both):
        hidden = super().forward(both["x"])
        return {"hidden": hidden, "size": hidden.square().sum(-1, keepdim=True)}


PLAIN |= {
    "doubled": lambda kit: kit.seen(Doubled(WIDTH, WIDTH)),
    "weight_norm": lambda kit: kit.seen(parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))),
    "old_weight_norm": lambda kit: kit.seen(nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH))),
    "spectral_norm": lambda kit: kit.seen(parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    "old_spectral_norm": lambda kit: kit.seen(nn.utils.spectral_norm(nn.Linear(WIDTH, WIDTH))),
    "pruned": lambda kit: kit.seen(prune.l1_unstructured(nn.Linear(WIDTH, WIDTH), "weight", amount=0.5)),
    "signs_of_weights": lambda kit: kit.seen(Binary(WIDTH, WIDTH)),
    "functional_call": lambda kit: Function(
        lambda m, x: torch.func.functional_call(m.a, {"weight": 2 * m.a.weight}, (x,)), a=kit.linear()
    ),
    "checkpointed": lambda kit: Function(lambda m, x: checkpoint(m.a, x, use_reentrant=False), a=kit.linear()),
    "keyword": lambda kit: Function(lambda m, x: m.a(input=x), a=kit.linear()),
    "dictionaries": lambda kit: Function(
        lambda m, x: (lambda out: out["hidden"] + out["size"].tanh())(m.a({"x": x})), a=Pair(WIDTH, WIDTH)
    ),
}


@into(PLAIN)
def triangular(kit):
    layer = kit.linear()
    parametrize.register_parametrization(layer, "weight", Lower())
    return layer


@into(PLAIN)
def kept_elsewhere(kit):
    def forward(m, x):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
            return m.a(x)

    return Function(forward, a=kit.linear())


@into(PLAIN)
def straight_through(kit):
    def forward(m, x):
        soft = m.a(x).softmax(-1)
        hard = one_hot(soft.argmax(-1), WIDTH).to(soft.dtype)
        return x + hard - soft.detach() + soft

    return Function(forward, a=kit.linear())


@into(PLAIN)
def seen_as_numbers(kit):
    def forward(m, x):
        most = m.a.weight.abs().max().item()
        mine = torch.tensor([row[0] > 0 for row in x.detach().reshape(-1, WIDTH).tolist()]).view(x.shape[:-1])
        return m.a(x).clamp(-most, most) * mine[..., None] + x

    return Function(forward, a=kit.linear())


# ---- weights used more than once, or outside their layer


PLAIN |= {
    "shared": lambda kit: kit.known(),
    "outside": lambda kit: Function(lambda m, x: linear(x, m.a.weight).tanh(), a=kit.known()),
    "outside_transposed": lambda kit: Function(lambda m, x: m.a(x).tanh() @ m.a.weight, a=kit.linear()),
    "outside_bias": lambda kit: Function(lambda m, x: x + m.a.bias, a=kit.known()),
    "length_of_weights": lambda kit: Function(lambda m, x: x * m.a.weight.norm(), a=kit.known()),
    "detached": lambda kit: Function(lambda m, x: m.b(x) + m.a(x.detach()), a=kit.linear(), b=kit.linear()),
    "weights_from_a_layer": lambda kit: Function(
        lambda m, x: linear(x, m.a(m.seeds)), a=kit.linear(), seeds=nn.Parameter(torch.randn(WIDTH, WIDTH))
    ),
    "layer_on_a_prompt": lambda kit: Function(
        lambda m, x: x + m.a(m.prompt), a=kit.linear(), prompt=nn.Parameter(torch.randn(1, WIDTH))
    ),
    "weights_without_a_gradient": lambda kit: Function(lambda m, x: x @ m.a.weight.detach() + x, a=kit.known()),
}


@into(PLAIN)
def shared_twice(kit):
    layer = kit.linear()
    return nn.Sequential(layer, nn.Tanh(), layer)


@into(PLAIN)
def tied(kit):
    layer, other = kit.known(), kit.linear()
    other.weight = layer.weight
    return nn.Sequential(layer, other)


@into(PLAIN)
def under_no_grad(kit):
    def forward(m, x):
        with torch.no_grad():
            kept = m.a(x)
        return x + kept

    return Function(forward, a=kit.known())


@into(PLAIN)
def slope_of_an_energy(kit):
    def forward(m, x):
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(m.a(x).tanh().sum(), x, create_graph=True)[0]

    return Function(forward, a=kit.linear())


# ---- rows that are not the batch's examples, one each and in order


def _routed(m, x):
    out = torch.zeros_like(x)
    for expert, mine in ((m.a, x[..., 0] > 0), (m.b, x[..., 0] <= 0)):
        if mine.any():
            out[mine] = expert(x[mine])
    return out


PLAIN |= {
    "reversed": lambda kit: Function(lambda m, x: m.a(x.flip(0)).flip(0), a=kit.linear()),
    "experts": lambda kit: Function(_routed, a=kit.linear(), b=kit.linear()),
    "experts_with_a_norm": lambda kit: Function(
        _routed, a=nn.LayerNorm(WIDTH), b=nn.Sequential(nn.Linear(WIDTH, 2), nn.Tanh(), nn.Linear(2, WIDTH))
    ),
    "two_views_in_one_batch": lambda kit: Function(
        lambda m, x: sum(m.a(torch.cat([x, x.tanh()])).tanh().chunk(2)), a=kit.linear()
    ),
    "a_row_more": lambda kit: Function(lambda m, x: m.a(torch.cat([x, torch.ones_like(x[:1])]))[:-1], a=kit.linear()),
    "a_row_before": lambda kit: Function(lambda m, x: m.a(torch.cat([torch.ones_like(x[:1]), x]))[1:], a=kit.linear()),
    "half_of_the_rows_for_nothing": lambda kit: Function(
        lambda m, x: m.a(torch.cat([x.detach(), x])).chunk(2)[1], a=kit.linear()
    ),
    "one_by_one": lambda kit: Function(lambda m, x: torch.cat([m.a(row[None]) for row in x]), a=kit.linear()),
    "one_by_one_without_an_axis": lambda kit: Function(
        lambda m, x: torch.stack([m.a(row) for row in reversed(x)]).flip(0), a=kit.linear()
    ),
    "vectorised_within": lambda kit: Function(lambda m, x: torch.vmap(m.a)(x), a=kit.linear()),
}


VECTOR |= {
    "examples_as_a_length": lambda kit: Function(
        lambda m, x: m.a(x.T[None])[0].T, a=kit.seen(nn.Conv1d(WIDTH, WIDTH, 1))
    ),
    "examples_as_tokens": lambda kit: Function(lambda m, x: m.a(x[None])[0], a=nn.LayerNorm(WIDTH)),
}


@into(PLAIN)
def sorted_(kit):
    def forward(m, x):
        order = x.flatten(1)[:, 0].argsort(descending=True)
        return m.a(x[order])[order.argsort()]

    return Function(forward, a=kit.linear())


@into(PLAIN)
def experts_that_may_get_nothing(kit):
    def forward(m, x):
        out, mine = torch.zeros_like(x), x[..., 0] > 0
        out[mine], out[~mine] = m.a(x[mine]), m.b(x[~mine])
        return out

    return Function(forward, a=kit.linear(), b=kit.linear())


@into(PLAIN)
def experts_by_sorting(kit):
    def forward(m, x):
        rows = x.reshape(-1, WIDTH)
        mine = (rows[:, 0] > 0).long()
        order, counts = mine.argsort(), mine.bincount(minlength=2).tolist()
        done = [expert(part) for expert, part in zip((m.a, m.b), rows[order].split(counts), strict=True)]
        return torch.cat(done)[order.argsort()].view(x.shape)

    return Function(forward, a=kit.linear(), b=kit.linear())


@into(PLAIN)
def two_experts_each(kit):
    def forward(m, x):
        rows = x.reshape(-1, WIDTH)
        weight, chosen = m.gate(rows)[:, :3].softmax(-1).topk(2)
        out = torch.zeros_like(rows)
        for number, expert in enumerate((m.a, m.b, m.c)):
            row, rank = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, row, expert(rows[row]) * weight[row, rank, None])
        return out.view(x.shape)

    return Function(forward, gate=kit.linear(), a=kit.linear(), b=kit.linear(), c=kit.linear())


@into(PLAIN)
def nothing_for_some(kit):
    def forward(m, x):
        mine = x[..., 0] > 0
        return torch.zeros_like(x).masked_scatter(mine[..., None].expand_as(x), m.a(x[mine]))

    return Function(forward, a=kit.linear())


@into(PLAIN)
def early_exit(kit):
    def forward(m, x):
        out, hard = m.a(x), x[..., 0] > 0
        if hard.any():
            out = out.clone()
            out[hard] = m.deep(out[hard].tanh())
        return out

    return Function(forward, a=kit.linear(), deep=kit.linear())


@into(PLAIN)
def as_often_as_needed(kit):
    def forward(m, x):
        times = (x[..., 0] > 0).long() + (x[..., 1] > 0).long()
        for done in range(2):
            active = times > done
            x = x.clone()
            x[active] = m.a(x[active]).tanh()
        return x

    return Function(forward, a=kit.linear())


@into(PLAIN)
def two_views_side_by_side(kit):
    def forward(m, x):
        return m.a(torch.stack([x, x.sin()], 1).flatten(0, 1)).tanh().unflatten(0, (len(x), 2)).sum(1)

    return Function(forward, a=kit.linear())


@into(VECTOR)
def equal_examples_once(kit):
    """The rows are the distinct examples of the batch, and equal examples share one."""

    def forward(m, x):
        if x.requires_grad:
            return m.a(x)
        distinct, places = x.unique(dim=0, return_inverse=True)
        return m.a(distinct)[places]

    return Function(forward, a=kit.linear())


# ---- tokens


def _recurrent(layer, **options):
    return lambda kit: Function(lambda m, x: m.a(x)[0], a=layer(WIDTH, WIDTH, batch_first=True, **options))


def _packed(x):
    lengths = 1 + (x[..., 0] > 0).sum(1).clamp(max=TOKENS - 1)
    return rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


TOKEN |= {
    "attention": lambda kit: Function(
        lambda m, x: m.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    ),
    "attention_examples_second": lambda kit: Function(
        lambda m, x: m.a(*3 * [x.transpose(0, 1)])[0].transpose(0, 1), a=nn.MultiheadAttention(WIDTH, 1)
    ),
    "attention_to_a_memory": lambda kit: Function(
        lambda m, x: m.a(x, *2 * [m.memory.expand(len(x), 2, WIDTH)])[0],
        a=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
        memory=nn.Parameter(torch.randn(2, WIDTH)),
    ),
    "transformer": lambda kit: nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, batch_first=True),
    "lstm": _recurrent(nn.LSTM),
    "gru": _recurrent(nn.GRU),
    "rnn": _recurrent(nn.RNN, bias=False),
    "recurrent_both_ways_examples_second": lambda kit: Function(
        lambda m, x: m.a(x.transpose(0, 1))[0].transpose(0, 1), a=nn.GRU(WIDTH, 2, bidirectional=True)
    ),
    "recurrent_on_packed_texts": lambda kit: Function(
        lambda m, x: rnn.pad_packed_sequence(m.a(_packed(x))[0], batch_first=True, total_length=TOKENS)[0],
        a=nn.LSTM(WIDTH, WIDTH, batch_first=True),
    ),
    "layer_in_a_loop": lambda kit: Function(
        lambda m, x: torch.stack([m.a(token) for token in x.unbind(1)], 1), a=kit.linear()
    ),
    "convolution_over_tokens": lambda kit: Function(
        lambda m, x: m.a(x.transpose(1, 2)).transpose(1, 2), a=kit.seen(nn.Conv1d(WIDTH, WIDTH, 3, padding=1))
    ),
    "folded": lambda kit: Function(lambda m, x: m.a(x.reshape(-1, WIDTH)).reshape(x.shape), a=kit.linear()),
    "examples_second": lambda kit: Function(lambda m, x: m.a(x.transpose(0, 1)).transpose(0, 1), a=kit.linear()),
    "positions": lambda kit: Function(lambda m, x: x + m.a(torch.arange(TOKENS)), a=nn.Embedding(TOKENS, WIDTH)),
    "positions_through_a_layer": lambda kit: Function(
        lambda m, x: x + m.a(torch.eye(TOKENS, WIDTH, dtype=x.dtype)), a=kit.linear()
    ),
    "class_token": lambda kit: Function(
        lambda m, x: torch.cat([m.token.expand(len(x), 1, WIDTH), x[:, 1:]], 1), token=nn.Parameter(torch.randn(WIDTH))
    ),
    "norm_of_all_tokens": lambda kit: nn.LayerNorm((TOKENS, WIDTH)),
    "batch_norm_of_tokens": lambda kit: nn.BatchNorm1d(TOKENS),
}


@into(TOKEN)
def attention_with_some_left_out(kit):
    def forward(m, x):
        blank = x[..., 0] > 0.5
        blank = blank & ~blank.all(1, keepdim=True)
        return m.a(x, x, x, key_padding_mask=blank)[0]

    return Function(forward, a=nn.MultiheadAttention(WIDTH, 1, bias=False, batch_first=True))


@into(TOKEN)
def transformer_that_looks_back(kit):
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
    return Function(
        lambda m, x: m.a(x.transpose(0, 1), mask).transpose(0, 1),
        a=nn.TransformerEncoderLayer(WIDTH, 1, 2, bias=False, norm_first=True),
    )


@into(TOKEN)
def layer_on_packed_rows(kit):
    def forward(m, x):
        packed = _packed(x)
        return rnn.pad_packed_sequence(packed._replace(data=m.a(packed.data)), batch_first=True, total_length=TOKENS)[0]

    return Function(forward, a=kit.linear())


@into(TOKEN)
def cell_in_a_loop(kit):
    def forward(m, x):
        hidden = [torch.zeros_like(x[:, 0])]
        for token in x.unbind(1):
            hidden.append(m.a(token, hidden[-1]))
        return torch.stack(hidden[1:], 1)

    return Function(forward, a=nn.GRUCell(WIDTH, WIDTH))


@into(TOKEN)
def folded_without_padding(kit):
    def forward(m, x):
        real = x[..., 0] > 0
        out = x.clone()
        out[real] = m.a(x[real])
        return out

    return Function(forward, a=kit.linear())


# ---- images


def _convolution(layer, channels=2, *size, **options):
    return lambda kit: kit.seen(layer(channels, channels, *size, **options))


IMAGE |= {
    "convolution": _convolution(nn.Conv2d, 2, 3, padding=1),
    "convolution_in_groups": _convolution(nn.Conv2d, 2, 3, padding="same", groups=2, bias=False),
    "convolution_around": _convolution(nn.Conv2d, 2, 3, padding=1, padding_mode="circular"),
    "transposed_convolution": _convolution(nn.ConvTranspose2d, 2, 3, padding=1),
    "group_norm": lambda kit: nn.GroupNorm(1, 2),
    "instance_norm": lambda kit: nn.InstanceNorm2d(2, affine=True),
    "batch_norm": lambda kit: nn.BatchNorm2d(2),
    "norm_of_an_image": lambda kit: nn.LayerNorm((2, 4, 4)),
    "slopes": lambda kit: nn.PReLU(2),
    "linear_on_columns": lambda kit: kit.linear(),
    "shared": lambda kit: kit.known(),
    "weight_norm": lambda kit: parametrizations.weight_norm(nn.Conv2d(2, 2, 1)),
    "channels_as_examples": lambda kit: Function(
        lambda m, x: m.a(x.flatten(0, 1)[:, None]).view(x.shape), a=kit.seen(nn.Conv2d(1, 1, 3, padding=1))
    ),
    "channels_last": lambda kit: nn.Conv2d(2, 2, 3, padding=1).to(memory_format=torch.channels_last),
    "filter_used_outside": lambda kit: Function(
        lambda m, x: m.a(x) + x * m.a.weight.mean(), a=kit.seen(nn.Conv2d(2, 2, 1))
    ),
}


@into(IMAGE)
def experts_for_images(kit):
    def forward(m, x):
        out, mine = torch.zeros_like(x), x[:, 0, 0, 0] > 0
        for expert, rows in ((m.a, mine), (m.b, ~mine)):
            if rows.any():
                out[rows] = expert(x[rows])
        return out

    return Function(forward, a=kit.seen(nn.Conv2d(2, 2, 1)), b=kit.seen(nn.Conv2d(2, 2, 3, padding=1)))


# ---- words to tokens, tokens and images to vectors


def _reader(**options):
    def reader(kit):
        kit.words = nn.Embedding(WORDS, WIDTH, **options)
        return kit.words

    return reader


READERS |= {
    "embedding": _reader(),
    "embedding_with_padding": _reader(padding_idx=0),
    "sparse_embedding": _reader(sparse=True),
    "one_hot_words": lambda kit: Function(
        lambda m, x: m.a(one_hot(x, WORDS).to(m.a.weight.dtype)), a=nn.Linear(WORDS, WIDTH)
    ),
    "words_and_positions": lambda kit: Function(
        lambda m, x: m.a(x) + m.b(torch.arange(TOKENS)), a=nn.Embedding(WORDS, WIDTH), b=nn.Embedding(TOKENS, WIDTH)
    ),
    "bag": lambda kit: Function(
        lambda m, x: m.a(x)[:, None].expand(-1, TOKENS, -1), a=nn.EmbeddingBag(WORDS, WIDTH, mode="sum")
    ),
}


POOLS["tokens"] |= {
    "mean": lambda kit: Function(lambda m, x: x.mean(1)),
    "first": lambda kit: Function(lambda m, x: x[:, 0]),
    "largest": lambda kit: Function(lambda m, x: x.amax(1)),
    "flat": lambda kit: nn.Sequential(nn.Flatten(), nn.Linear(TOKENS * WIDTH, WIDTH)),
    "last_state": lambda kit: Function(lambda m, x: m.a(x)[1][-1], a=nn.GRU(WIDTH, WIDTH, batch_first=True)),
    "last_state_of_packed": lambda kit: Function(
        lambda m, x: m.a(_packed(x))[1][0][-1], a=nn.LSTM(WIDTH, WIDTH, batch_first=True)
    ),
    "query": lambda kit: Function(
        lambda m, x: ((x @ m.query).softmax(1)[:, None] @ x)[:, 0], query=nn.Parameter(torch.randn(WIDTH))
    ),
}


POOLS["image"] |= {
    "flat": lambda kit: nn.Sequential(nn.Flatten(), nn.Linear(32, WIDTH)),
    "mean": lambda kit: Function(lambda m, x: m.a(x.mean((2, 3))), a=nn.Linear(2, WIDTH)),
    "columns": lambda kit: Function(lambda m, x: x.amax((1, 2))),
}


@into(READERS)
def embedding_used_outside(kit):
    kit.words = nn.Embedding(WORDS, WIDTH)
    return Function(lambda m, x: m.a(x) + embedding(x.flip(1), m.a.weight), a=kit.words)


@into(READERS)
def bag_with_offsets(kit):
    def forward(m, x):
        return m.a(x.flatten(), torch.arange(0, x.numel(), TOKENS))[:, None].expand(-1, TOKENS, -1)

    return Function(forward, a=nn.EmbeddingBag(WORDS, WIDTH))


@into(READERS)
def every_word_read_once(kit):
    """The rows are the distinct words of the batch, and examples share them."""

    def forward(m, x):
        distinct, places = x.unique(return_inverse=True)
        return m.b(m.a(distinct).tanh())[places]

    return Function(forward, a=nn.Embedding(WORDS, WIDTH), b=kit.linear())


# ---- heads


HEADS |= {
    "plain": lambda kit: kit.linear(kit.classes),
    "head_without_bias": lambda kit: kit.linear(kit.classes, bias=False),
    "cosine": lambda kit: Function(
        lambda m, x: 5 * linear(normalize(x), normalize(m.a.weight)), a=kit.linear(kit.classes, bias=False)
    ),
    "cosine_with_a_temperature": lambda kit: Function(
        lambda m, x: m.by * cosine_similarity(x[:, None], m.a.weight, dim=-1),
        a=kit.linear(kit.classes),
        by=nn.Parameter(torch.tensor(3.0)),
    ),
    "prototypes": lambda kit: Function(
        lambda m, x: -(x[:, None] - m.centres).square().sum(-1), centres=nn.Parameter(torch.randn(kit.classes, WIDTH))
    ),
    "ruled_out": lambda kit: Function(
        lambda m, x: m.a(x).masked_fill(torch.arange(kit.classes + 1) == kit.classes, -torch.inf),
        a=kit.linear(kit.classes + 1),
    ),
    "log_probabilities": lambda kit: nn.Sequential(kit.linear(kit.classes), nn.LogSoftmax(-1)),
    "two_heads_side_by_side": lambda kit: Function(
        lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=kit.linear(1), b=kit.linear(kit.classes)
    ),
    "centred": lambda kit: Function(
        lambda m, x: linear(x, m.a.weight - m.a.weight.mean(0), m.a.bias), a=kit.linear(kit.classes)
    ),
    "same_for_all": lambda kit: Function(
        lambda m, x: m.prior.expand(len(x), -1), prior=nn.Parameter(torch.zeros(kit.classes))
    ),
}


@into(HEADS)
def words_again(kit):
    """The table of words is the head, tied to it or used by it."""
    if kit.words is None:
        return kit.linear(kit.classes)
    if kit.classes % 2:
        return Function(lambda m, x: linear(x, m.a.weight), a=kit.words)
    layer = nn.Linear(WIDTH, WORDS, bias=False)
    layer.weight = kit.words.weight
    return layer


@into(HEADS)
def ruled_out_by_the_example(kit):
    def forward(m, x):
        z = m.a(x)
        return z.masked_fill((x[:, :1] > 0) & (torch.arange(kit.classes) == 0), -torch.inf)

    return Function(forward, a=kit.linear(kit.classes))


@into(HEADS)
def one_logit_from_outside(kit):
    def forward(m, x):
        z = m.a(x)
        return torch.cat([z[:, :1], linear(x, m.a.weight[:1]).tanh(), z[:, 1:]], 1)

    return Function(forward, a=kit.linear(kit.classes, bias=False))


@into(HEADS)
def a_head_for_each_kind(kit):
    def forward(m, x):
        z, mine = x.new_zeros(len(x), kit.classes), x[:, 0] > 0
        z[mine], z[~mine] = m.a(x[mine]), m.b(x[~mine])
        return z

    return Function(forward, a=kit.linear(kit.classes), b=kit.linear(kit.classes))


@into(HEADS)
def written_in_place(kit):
    def forward(m, x):
        z = m.a(x)
        z -= z.detach().amax(1, keepdim=True)
        z[:, 0] *= 2
        return z

    return Function(forward, a=nn.Linear(WIDTH, kit.classes))


@into(HEADS)
def no_answer_for_some(kit):
    """Some examples use no weight at all, and a batch may hold only such."""

    def forward(m, x):
        z, mine = x.new_zeros(len(x), kit.classes), x[:, 0] > 0
        if mine.any():
            z[mine] = m.a(x[mine])
        return z

    return Function(forward, a=kit.linear(kit.classes))


# ---- changes to a layer, or to the whole network


CHANGES |= {
    "hook_doubles_the_output": lambda network, layer: layer.register_forward_hook(
        lambda layer, inputs, output: 2 * output
    ),
    "hook_changes_the_input": lambda network, layer: layer.register_forward_pre_hook(
        lambda layer, inputs: (inputs[0].tanh(),) if inputs else None
    ),
    "hook_uses_the_weights": lambda network, layer: layer.register_forward_hook(
        lambda layer, inputs, output: output + layer.weight.sum()
    ),
    "hook_watches": lambda network, layer: layer.register_forward_hook(lambda layer, inputs, output: None),
    "backward_hook_watches": lambda network, layer: layer.register_full_backward_hook(lambda layer, into, out: None),
    "frozen": lambda network, layer: layer.requires_grad_(False),
    "frozen_weight": lambda network, layer: next(layer.parameters()).requires_grad_(False),
    "frozen_bias": lambda network, layer: list(layer.parameters())[-1].requires_grad_(False),
    "hook_on_the_network": lambda network, layer: network.register_forward_hook(
        lambda network, inputs, output: 0.5 * output
    ),
}


@into(CHANGES)
def hook_doubles_in_place(network, layer):
    def double(layer, inputs, output):
        output.mul_(2)

    layer.register_forward_hook(double)


@into(CHANGES)
def forward_replaced(network, layer):
    old = layer.forward
    # Not tanh, whose own output autograd needs: a hook that doubles in place would write over it.
    layer.forward = lambda *inputs, **named: old(*inputs, **named).sin()


@into(CHANGES)
def forward_replaced_by_a_function_of_the_weights(network, layer):
    if type(layer) is nn.Linear:
        layer.forward = lambda input: linear(input, 3 * layer.weight, layer.bias)


@into(CHANGES)
def a_parameter_without_use(network, layer):
    layer.without_use = nn.Parameter(torch.ones(2))


@into(CHANGES)
def forward_of_the_network_replaced(network, layer):
    old = network.forward
    network.forward = lambda x: old(x).tanh()


PARTS = {"vector": ANY | PLAIN | VECTOR, "tokens": ANY | PLAIN | TOKEN, "image": ANY | IMAGE}
