"""A training step of `fit`, a 784-256-256-10 network and 64 images, beside the bare matrix products of its two passes.

The bar is for one thread, as each page of a build has; what the machine's other cores make of it is told before.
"""

import sys

import torch
from ewc import Task, fit, mlp
from ewc.training import device
from timing import at_most, medians, table, verdict

STEPS, BATCH, IMAGES, TURNS = 100, 64, 60_000, 15


def products(model):
    """A piece of work: the products of STEPS steps, into rooms that are there, and nothing else.

    The forward pass has one a layer, the backward pass one a layer for the weights and one for what goes in, but for the images.
    """
    weights = [parameter.detach() for parameter in model.parameters() if parameter.ndim == 2]
    images, *hidden = (torch.rand(BATCH, weight.shape[1], device=weight.device) for weight in weights)
    logits = torch.rand(BATCH, len(weights[-1]), device=weights[-1].device)
    gradients = [torch.empty_like(weight) for weight in weights]
    layers = list(zip(weights, gradients, [images, *hidden], [*hidden, logits], strict=True))

    def work():
        for _ in range(STEPS):
            for weight, _, inputs, outputs in layers:
                torch.mm(inputs, weight.T, out=outputs)
            for place, (weight, gradient, inputs, outputs) in reversed(list(enumerate(layers))):
                torch.mm(outputs.T, inputs, out=gradient)
                if place:
                    torch.mm(outputs, weight, out=inputs)

    return work


def main():
    torch.manual_seed(0)
    inputs, targets = torch.rand(IMAGES, 1, 28, 28), torch.randint(0, 10, (IMAGES,))
    names = tuple(map(str, range(10)))
    task = Task("noise", "nothing", names, inputs, targets, inputs[:1], targets[:1], False, "made here", "").to(device())
    model, threads = mlp().to(device()), torch.get_num_threads()
    for count in sorted({threads, 1}, reverse=True):
        torch.set_num_threads(count)
        works = products(model), lambda: fit(model, task, steps=STEPS, learning_rate=1e-3)
        bare, step = (seconds / STEPS for seconds in medians(*works, repeats=TURNS))
        table(f"a training step, 784-256-256-10, {BATCH} images", {"its bare matrix products": bare, "fit": step}, "ms", 1e3)
    return verdict(at_most("a step of fit", step, 1.5, bare, "its bare matrix products"))


if __name__ == "__main__":
    sys.exit(main())
