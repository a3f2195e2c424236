"""Seconds for a training step of a 784-256-256-10 network with EWC, ten tasks consolidated and merged, and without."""

import sys

import torch
from ewc import EWC, mlp
from timing import medians, verdict
from torch import nn

TASKS, STEPS, BATCH = 10, 200, 128


def training(with_penalty="none"):
    """A piece of work: STEPS steps, with no penalty, with its value in the loss, or with its gradient added after backward."""
    torch.manual_seed(0)
    model = mlp()
    inputs, targets = torch.rand(BATCH, 784), torch.randint(0, 10, (BATCH,))
    penalty = EWC(model, strength=1.0, anchors="merged")
    for _ in range(TASKS if with_penalty != "none" else 0):
        penalty.consolidate(torch.rand(500, 784))
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
    works = [training(each) for each in ("none", "value", "gradient")]
    plain, value, gradient = (seconds / STEPS for seconds in medians(*works, repeats=9))
    print(f"a training step, 2×256, batch {BATCH}, SGD with momentum, {torch.get_num_threads()} threads")
    print(f"{'':36}{'ms':>9}{'ratio':>9}")
    print(f"{'plain':36}{1e3 * plain:9.3f}{1:9.2f}")
    for name, seconds in (("penalty()", value), ("add_gradient()", gradient)):
        print(f"{f'EWC merged, {TASKS} tasks, {name}':36}{1e3 * seconds:9.3f}{seconds / plain:9.2f}")
    bar = f"EWC makes a step {gradient / plain:.2f} times as long; at most 1.25 is allowed"
    return verdict((bar, gradient <= 1.25 * plain))


if __name__ == "__main__":
    sys.exit(main())
