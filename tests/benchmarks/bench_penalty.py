"""Seconds for a training step of a 784-256-256-10 network with EWC, ten tasks consolidated and merged, and without."""

import sys

import torch
from ewc import EWC, mlp
from timing import medians, verdict
from torch import nn

TASKS, STEPS, BATCH = 10, 200, 128


def training(with_penalty):
    """A piece of work: STEPS steps as `training.fit` takes them."""
    torch.manual_seed(0)
    model = mlp()
    inputs, targets = torch.rand(BATCH, 784), torch.randint(0, 10, (BATCH,))
    penalty = EWC(model, strength=1.0, anchors="merged")
    for _ in range(TASKS if with_penalty else 0):
        penalty.consolidate(torch.rand(500, 784))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def work():
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            if with_penalty:
                loss = loss + penalty.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


def main():
    plain, held = (seconds / STEPS for seconds in medians(training(False), training(True), repeats=9))
    print(f"a training step, 2×256, batch {BATCH}, SGD with momentum, {torch.get_num_threads()} threads")
    print(f"{'':28}{'ms':>9}{'ratio':>9}")
    print(f"{'plain':28}{1e3 * plain:9.3f}{1:9.2f}")
    print(f"{f'EWC merged, {TASKS} tasks':28}{1e3 * held:9.3f}{held / plain:9.2f}")
    return verdict((f"EWC makes a step {held / plain:.2f} times as long; at most 1.25 is allowed", held <= 1.25 * plain))


if __name__ == "__main__":
    sys.exit(main())
