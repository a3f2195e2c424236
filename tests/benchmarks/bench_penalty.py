"""A training step of a 784-256-256-10 network with EWC, ten tasks consolidated and merged, and without."""

import sys

import torch
from ewc import EWC, mlp
from ewc.training import device
from timing import at_most, medians, table, verdict
from torch import nn

TASKS, STEPS, BATCH = 10, 200, 128


def training(with_penalty="none"):
    """A piece of work: STEPS steps, with no penalty, with its value in the loss, or with its gradient added after backward."""
    torch.manual_seed(0)
    model = mlp().to(device())
    inputs, targets = torch.rand(BATCH, 784, device=device()), torch.randint(0, 10, (BATCH,), device=device())
    penalty = EWC(model, strength=1.0, anchors="merged")
    for _ in range(TASKS if with_penalty != "none" else 0):
        torch.nn.init.normal_(model.logits.bias, std=0.01)  # other weights than those of the task before
        penalty.consolidate(torch.rand(500, 784, device=device()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def work():
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            if with_penalty == "value":
                loss = loss + penalty.penalty()
            optimizer.zero_grad()
            loss.backward()
            if with_penalty == "gradient":
                penalty.add_gradient()
            optimizer.step()

    return work


def main():
    names = {"none": "plain", "value": "EWC, its value in the loss", "gradient": "EWC, its gradient added"}
    found = medians(*map(training, names), repeats=9)
    seconds = {name: each / STEPS for name, each in zip(names.values(), found, strict=True)}
    table(f"a step of SGD, 2×256, {BATCH} images, {TASKS} tasks merged", seconds, "ms", 1e3)
    return verdict(at_most("a step with EWC's gradient", seconds[names["gradient"]], 1.25, seconds["plain"], "a plain one"))


if __name__ == "__main__":
    sys.exit(main())
