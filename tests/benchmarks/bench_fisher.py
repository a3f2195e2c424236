"""The exact Fisher of 60,000 images in a 784-256-256-10 network, beside its bare matrix products, BackPACK and a loop over images."""

import sys
import warnings

import torch
from ewc import diagonal_fisher, mlp
from ewc.training import device
from timing import at_most, medians, table, verdict, within
from torch import nn

# By turns, and the median of the turns: so a busy minute is not one side's alone.
EXAMPLES, TURNS, LOOPED, BATCH = 60_000, 5, 20, 1024


def products(model, inputs):
    """A piece of work: the products without which there is no exact Fisher, into rooms that are there, and nothing else.

    The forward pass, for each class the scores of the layers, and (δ²)ᵀ(a²), with numbers in the place of δ² and a².
    """
    weights = [parameter.detach() for parameter in model.parameters() if parameter.ndim == 2]
    batches = inputs.split(BATCH)
    rooms = [torch.rand(BATCH, len(weight), device=inputs.device) for weight in weights]
    found = [torch.empty_like(weight) for weight in weights]

    def work():
        for batch in batches:
            own = [room[: len(batch)] for room in rooms]
            for weight, layer_input, room in zip(weights, [batch, *own], own, strict=False):
                torch.mm(layer_input, weight.T, out=room)
            for _ in range(len(weights[-1])):  # the classes; what they start from is as good as any other
                for place in range(len(weights) - 1, 0, -1):
                    torch.mm(own[place], weights[place], out=own[place - 1])
            for total, layer_input, room in zip(found, [batch, *own], own, strict=False):
                torch.mm(room.T, layer_input, out=total)

    return work


def loop(model, inputs):
    """The definition, example by example and class by class."""
    fisher = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for example in inputs:
        log_p = model(example[None]).log_softmax(1)[0]
        for value in log_p:
            gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            for total, gradient in zip(fisher.values(), gradients, strict=True):
                total += value.detach().exp() * gradient**2 / len(inputs)
    return fisher


def backpack_with(model, inputs):
    """BackPACK's exact Fisher as a piece of work; None where it is not installed."""
    try:
        from backpack import backpack, extend
        from backpack.extensions import DiagGGNExact
    except ImportError:
        return None
    extended, loss = extend(model), extend(nn.CrossEntropyLoss())
    targets = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)  # the exact Fisher does not ask for labels

    def work():
        fisher = {}
        for part, labels in zip(inputs.split(BATCH), targets.split(BATCH), strict=True):
            extended.zero_grad()
            with backpack(DiagGGNExact()):
                loss(extended(part), labels).backward()
            for name, parameter in extended.named_parameters():
                fisher[name] = fisher.get(name, 0) + parameter.diag_ggn_exact * len(part) / len(inputs)
        return fisher

    return work


def difference(found, wanted):
    return max(float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in wanted)


def main():
    warnings.filterwarnings("ignore", message="Full backward hook")
    torch.manual_seed(0)
    inputs = torch.rand(EXAMPLES, 784, device=device())
    model = mlp().to(device())
    works = {
        "diagonal_fisher": lambda: diagonal_fisher(model, inputs),
        "its bare matrix products": products(model, inputs),
        "BackPACK, DiagGGNExact": backpack_with(mlp().to(device()), inputs),
        f"a loop, from {LOOPED} images a turn": lambda: loop(model, inputs[:LOOPED]),
    }
    theirs = works["BackPACK, DiagGGNExact"]
    if theirs is None:
        print("BackPACK is not installed: not compared")
        del works["BackPACK, DiagGGNExact"]
    seconds = dict(zip(works, medians(*works.values(), repeats=TURNS), strict=True))
    seconds[next(reversed(seconds))] *= EXAMPLES / LOOPED
    table(f"exact diagonal Fisher of {EXAMPLES:,} images, 784-256-256-10", seconds)

    of_loop = difference(diagonal_fisher(model, inputs[:LOOPED]), loop(model, inputs[:LOOPED]))
    ours, bare, *_, looped = seconds.values()
    bars = [at_most("diagonal_fisher", ours, 2, bare, "its bare matrix products")]
    bars += [at_most("diagonal_fisher", ours, 0.05, looped, "the loop")]
    bars += [within("the Fisher differs", of_loop, 1e-4, "the loop's")]
    if theirs is not None:
        bars += [at_most("diagonal_fisher", ours, 0.4, seconds["BackPACK, DiagGGNExact"], "BackPACK")]
        bars += [within("the Fisher differs", difference(diagonal_fisher(model, inputs), theirs()), 1e-4, "BackPACK's")]
    return verdict(*bars)


if __name__ == "__main__":
    sys.exit(main())
