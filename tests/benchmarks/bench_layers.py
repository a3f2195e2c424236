"""Layers used at many places: the exact Fisher of a small convolutional network beside its bare products, and a small
language model's sampled one beside a training pass, in time and in memory."""

import subprocess
import sys
from pathlib import Path

import torch
from ewc import diagonal_fisher
from ewc.training import device
from timing import at_most, medians, table, verdict
from torch import nn
from torch.nn.functional import cross_entropy

IMAGES, TURNS = 64, 5
WORDS, PLACES, WIDTH, TEXTS, AT_ONCE = 8000, 64, 256, 320, 32


def convolutions():
    """Three convolutions of 3×3 on images of 32×32, 114,000 weights."""
    def block(before, after):
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(2048, 10))


class Writer(nn.Module):
    """A transformer of 10 million weights, whose positions are an embedding of their own for each text.

    Positions that are looked up once for all texts, (places, width), are no row of an example: then the whole model's backward
    pass is vectorised, which takes several times as long.
    """

    def __init__(self, once=False):
        super().__init__()
        self.words, self.positions, self.once = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH), once
        self.blocks = nn.ModuleList(Block() for _ in range(8))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, texts):
        places = torch.arange(PLACES, device=texts.device)
        x = self.words(texts) + self.positions(places if self.once else places.expand(len(texts), -1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Block(nn.Module):
    """Attention to what came before, and two layers for each place."""

    def __init__(self):
        super().__init__()
        self.before, self.then = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.looks, self.says = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.back = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        parts = (each.unflatten(-1, (4, -1)).transpose(1, 2) for each in self.looks(self.before(x)).chunk(3, -1))
        x = x + self.says(nn.functional.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.back(nn.functional.gelu(self.wide(self.then(x))))


def products(model, images):
    """A piece of work: the products without which there is no exact Fisher of these layers, and nothing else of it.

    A forward pass, and for each class but one what each layer hands back to the one below, and each image's Σ_r δ_r a_rᵀ.
    """
    layers, inputs = [layer for layer in model if isinstance(layer, nn.Conv2d)], {}
    hooks = [layer.register_forward_hook(lambda layer, given, out: inputs.update({layer: (given[0].detach(), out.detach())})) for layer in layers]
    with torch.no_grad():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    windows = {layer: nn.functional.unfold(given, 3, padding=1).mT for layer, (given, _) in inputs.items()}

    def work():
        with torch.no_grad():
            model(images)
            for _ in range(9):
                for layer in layers:
                    given, delta = inputs[layer]
                    delta.flatten(2) @ windows[layer]
                    if layer is not layers[0]:
                        nn.grad.conv2d_input(given.shape, layer.weight, delta, padding=1)

    return work


def training(model, inputs, targets, at_once):
    """A piece of work: once through these examples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def work():
        model.train()
        for part, labels in zip(inputs.split(at_once), targets.split(at_once), strict=True):
            optimizer.zero_grad()
            outputs = model(part)
            cross_entropy(outputs.flatten(0, -2), labels.flatten()).backward()
            optimizer.step()

    return work


def texts(count=TEXTS):
    torch.manual_seed(0)
    return Writer().to(device()), torch.randint(WORDS, (count, PLACES), device=device()), torch.randint(WORDS, (count, PLACES), device=device())


def peak(what):
    """The most memory that a process of its own held, in MiB, beyond what it held before: "train" or "fisher"."""
    done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def held(what):
    model, inputs, targets = texts(AT_ONCE)
    before = most()
    if what == "train":
        training(model, inputs, targets, AT_ONCE)()
    else:
        diagonal_fisher(model, inputs, labels="sampled")
    print(most() - before)


def most():
    """The most that this process has held, in MiB. Not getrusage's, which begins with what the parent held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main():
    torch.manual_seed(0)
    images, labels = torch.rand(IMAGES, 3, 32, 32, device=device()), torch.randint(10, (IMAGES,), device=device())
    model = convolutions().to(device())
    works = {
        "its bare products": products(model, images),
        "diagonal_fisher, exact": lambda: diagonal_fisher(model, images),
        "diagonal_fisher, sampled": lambda: diagonal_fisher(model, images, labels="sampled"),
        "a training pass": training(convolutions().to(device()), images, labels, IMAGES),
    }
    seconds = dict(zip(works, medians(*works.values(), repeats=TURNS), strict=True))
    table(f"{IMAGES} images of 3×32×32, three convolutions", seconds)
    bare, exact, sampled, _ = seconds.values()
    writer, inputs, targets = texts()
    trained, drawn = medians(
        training(writer, inputs, targets, AT_ONCE), lambda: diagonal_fisher(writer, inputs, labels="sampled"), repeats=3
    )
    count = sum(parameter.numel() for parameter in writer.parameters())
    table(f"{TEXTS} texts of {PLACES} tokens, {count:,} weights, {WORDS:,} words", {"a training pass": trained, "diagonal_fisher, sampled": drawn})
    bars = [
        at_most("exact", exact, 2, bare, "its bare products"),
        at_most("sampled", sampled, 0.6, exact, "exact"),
        at_most("a sampled Fisher of the language model", drawn, 3, trained, "a training pass"),
    ]
    if device().type == "cpu" and sys.platform == "linux":
        sizes = peak("train"), peak("fisher")
        print(f"memory beyond the model's: training {sizes[0]:,.0f} MiB, Fisher {sizes[1]:,.0f} MiB")
        bars += [(f"the Fisher holds {sizes[1] / sizes[0]:.2f} times what a training step does; at most 2.5 is allowed", sizes[1] <= 2.5 * sizes[0])]
    return verdict(*bars)


if __name__ == "__main__":
    sys.exit(held(sys.argv[1]) if len(sys.argv) > 1 else main())
