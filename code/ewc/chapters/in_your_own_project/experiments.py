"""A small transformer learns to write English, then Python: with nothing to hold it, with springs, beside its weights, with a few old lines."""

import time

import torch
from ewc.chapters.in_your_own_project.language import (
    Writer,
    bits_per_character,
    english,
    parts,
    python,
    sequences,
    written,
)
from ewc.penalties import EWC, L2
from ewc.workshop.holding import Holding
from ewc.workshop.records import FISHER, SPRINGS, Record, depends_on
from torch import nn
from torch.nn.utils import parameters_to_vector, parametrize, vector_to_parameters

SIZES = {
    "cpu": {"width": 96, "steps": 400, "second_steps": 80, "batch": 16, "examples": 512, "count": 256},
    "embedded": {"width": 32, "steps": 200, "second_steps": 40, "batch": 12, "examples": 256, "count": 128},
    "cuda": {"width": 256, "steps": 1500, "second_steps": 200, "batch": 64, "examples": 512, "count": 512},
}
SMALL = {"cpu": {"steps": 200, "second_steps": 80, "count": 256}, "embedded": {"steps": 100, "second_steps": 40, "count": 128}}
LENGTH = 64
STARTS = ("Return the ", "def ")  # what it is asked to go on with
CODE = ("chapters.in_your_own_project.language", "workshop.holding")


def lesson(model, text, *, steps, learning_rate, seed, batch=16, length=LENGTH, penalty=None, old=None):
    """A training loop as you have one: Adam, a step size that rises and falls, clipped gradients. The springs are one line of it.

    old: sequences of the task before, (inputs, wanted), of which some take the place of the last eighth of each batch.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min((step + 1) / (0.1 * steps), 1) * (1 - step / steps)
        inputs, wanted = sequences(text, batch, length, generator)
        if old is not None:
            few = batch // 8
            again = torch.randint(len(old[0]), (few,), generator=generator).to(inputs.device)
            inputs, wanted = torch.cat([inputs[:-few], old[0][again]]), torch.cat([wanted[:-few], old[1][again]])
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), wanted.flatten())
        if penalty is not None:
            loss = loss + penalty.penalty()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()


def bits(model, part="reported", *, length=LENGTH, count=512):
    """Bits a character of both texts, on what the lessons do not show."""
    device = next(model.parameters()).device
    return [bits_per_character(model, parts(text())[part].to(device), length=length, count=count) for text in (english, python)]


@depends_on(lambda configuration: (*CODE, *SPRINGS, *FISHER), sizes=SIZES)
def learn_english(
    tasks,
    *,
    texts: str,
    examples: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    second_steps: int | None = None,
    batch: int | None = None,
    count: int | None = None,
    letters: int = 200,
    seed: int = 0,
):
    """The first lesson, which all second ones begin with. Keeps the weights, the bits of both texts, what it writes, and the springs;
    the seconds of measuring these, and how many bytes of tensors that holds at once, of as many sequences as it takes and of a batch.

    texts: what the texts are made of (`language.versions`); it is part of the record's key.
    examples: how many sequences of the text the Fisher is measured on.
    count, letters: how many stretches of each text the model is asked, and how many letters it writes.
    """
    torch.manual_seed(seed)
    device = tasks[0].train_inputs.device
    model = Writer(width=width, length=LENGTH).to(device)
    text = parts(english())["learned"].to(device)
    lesson(model, text, steps=steps, learning_rate=4e-3, seed=1000 * seed, batch=batch)
    started = time.perf_counter()
    guard = EWC(model, labels="sampled", generator=torch.Generator().manual_seed(seed))
    inputs, _ = sequences(text, examples, LENGTH, torch.Generator().manual_seed(seed))
    guard.consolidate(inputs)
    seconds = time.perf_counter() - started
    held = {}
    # A quarter is some turns, and of more turns it holds no more at once.
    for name, at_once, some in (("as many as it takes", None, inputs[: examples // 4]), ("a batch", batch, inputs[:batch])):
        with Holding() as holding:
            EWC(model, labels="sampled", batch_size=at_once, generator=torch.Generator()).consolidate(some)
        held[name] = holding.most
    result = {
        "bits": bits(model, count=count),
        "writes": [written(model, start, letters) for start in STARTS],
        "seconds": seconds,
        "held": held,
    }
    kept = {"after 1": parameters_to_vector(model.parameters()).detach()} | guard.state_dict()
    return result, {name: tensor.cpu() for name, tensor in kept.items()}


@depends_on(
    lambda configuration: CODE + {"ewc": (*SPRINGS, *FISHER), "l2": SPRINGS}.get(configuration["method"], ()),
    sizes=SIZES,
    begins_with=learn_english,
)
def learn_python(
    tasks,
    first: Record,
    *,
    texts: str,
    method: str = "plain",
    strength: float | None = None,
    examples: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    second_steps: int | None = None,
    batch: int | None = None,
    count: int | None = None,
    letters: int = 200,
    seed: int = 0,
):
    """The second lesson, by ``"plain"`` descent, with springs, ``"l2"`` or ``"ewc"``, by ``"lora"``, or with ``"replay"``.

    examples: how many sequences of the first text the springs are measured on; replay keeps an eighth of them.
    Keeps the bits of both texts on the held-out and the reported part, what it writes, seconds, how many bytes the method keeps, and
    how many of tensors one step holds at once, beside weights and springs.
    """
    device = tasks[0].train_inputs.device
    model = writer(first, width).to(device)
    known, new = parts(english())["learned"].to(device), parts(python())["learned"].to(device)
    inputs, wanted = sequences(known, examples, LENGTH, torch.Generator().manual_seed(seed))
    penalty = old = None
    if method == "ewc":
        penalty = EWC(model, strength, labels="sampled")
        penalty.load_state_dict({name: value for name, value in first.tensors.items() if name != "after 1"})
    elif method == "l2":
        penalty = L2(model, strength)
        penalty.consolidate(inputs)
    elif method == "replay":
        old = inputs[: examples // 8], wanted[: examples // 8]
    elif method == "lora":
        add_low_rank(model, rank=4, seed=seed)
    how = {"learning_rate": 8e-3 if method == "lora" else 5e-3, "batch": batch, "penalty": penalty, "old": old}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with Holding() as holding:
        lesson(model, new, steps=1, seed=0, **how)
    model.load_state_dict(before)
    started = time.perf_counter()
    lesson(model, new, steps=second_steps, seed=1000 * seed + 1, **how)
    seconds = time.perf_counter() - started
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    result = {
        "bits": bits(model, count=count),
        "held out": bits(model, "held out", count=count // 2),
        "writes": [written(model, start, letters) for start in STARTS[:1]],
        "seconds": seconds,
        "held": holding.most,
        # A letter of the alphabet is a byte; springs keep where a weight stood, and EWC how stiff each is.
        "bytes": {"plain": 0, "l2": weights, "ewc": 2 * weights, "lora": weights, "replay": examples // 8 * (LENGTH + 1)}[method],
    }
    return result, {}


def writer(first: Record, width: int | None = None) -> Writer:
    """The model of a first lesson."""
    model = Writer(width=width or first.configuration["width"], length=LENGTH)
    vector_to_parameters(first.tensors["after 1"].clone(), model.parameters())
    return model


@depends_on(lambda configuration: (*CODE, *SPRINGS, *FISHER), sizes=SMALL)
def exact_and_sampled(
    tasks,
    *,
    texts: str,
    strength: float,
    width: int = 24,
    length: int = 8,
    steps: int | None = None,
    second_steps: int | None = None,
    examples: int = 64,
    count: int | None = None,
    seed: int = 0,
):
    """Both lessons of a model so small that its exact Fisher can be had: what EWC keeps with that one, and with one draw a place.

    Keeps seconds of each, how alike the two are (the cosine between them), and the bits of both texts after the second lesson.
    """
    torch.manual_seed(seed)
    device = tasks[0].train_inputs.device
    model = Writer(width=width, length=length, blocks=1).to(device)
    known, new = (parts(text())["learned"].to(device) for text in (english, python))
    lesson(model, known, steps=steps, learning_rate=1e-2, seed=1000 * seed, batch=128, length=length)
    inputs, _ = sequences(known, examples, length, torch.Generator().manual_seed(seed))
    after_one = {name: value.clone() for name, value in model.state_dict().items()}
    result, stiffness = {"before": bits(model, length=length, count=count), "seconds": {}, "bits": {}}, {}
    for labels in ("none", "exact", "sampled"):
        model.load_state_dict(after_one)
        guard = EWC(model, strength, labels=None if labels == "none" else labels, generator=torch.Generator().manual_seed(seed))
        if labels != "none":
            started = time.perf_counter()
            guard.consolidate(inputs)
            result["seconds"][labels] = time.perf_counter() - started
            stiffness[labels] = torch.cat([value.flatten() for name, value in guard.state_dict().items() if "importance" in name])
        lesson(model, new, steps=second_steps, learning_rate=3e-3, seed=1000 * seed + 1, batch=128, length=length, penalty=guard)
        result["bits"][labels] = bits(model, length=length, count=count)
    result["cosine"] = float(nn.functional.cosine_similarity(stiffness["exact"], stiffness["sampled"], dim=0))
    return result, {}


class LowRank(nn.Module):
    """W + B A, with W held and the two thin matrices learned: B is 0 at first, so that nothing changes by adding it (Hu et al. 2022)."""

    def __init__(self, weight, rank, generator):
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.randn(rank, inputs, generator=generator).to(weight) / inputs**0.5)
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))

    def forward(self, weight):
        return weight + self.up @ self.down


def add_low_rank(model: nn.Module, *, rank: int, seed: int = 0) -> None:
    """Hold all weights, and put a `LowRank` beside those of every linear layer."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for layer in [layer for layer in model.modules() if isinstance(layer, nn.Linear)]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, generator))

