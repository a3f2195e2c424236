"""A training step with EWC against one without: 2 × 256, batch 128, SGD with momentum, merged anchors after ten tasks."""

import torch
from timing import hold, medians

from ewc import EWC, mlp


def main():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(10_000, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (10_000,), generator=generator)

    def steps(count, consolidated):
        model = mlp()
        guard = EWC(model, strength=10.0, anchors="merged")
        for task in range(consolidated):
            guard.consolidate(images[task * 200 : task * 200 + 200])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def work():
            for _ in range(count):
                batch = torch.randint(0, len(images), (128,), generator=generator)
                loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
                if consolidated:
                    loss = loss + guard.penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return work

    count = 50
    seconds = medians({"without": steps(count, 0), "with EWC": steps(count, 10)}, rounds=41)
    print(f"one training step, {torch.get_num_threads()} threads, milliseconds")
    for name, value in seconds.items():
        print(f"  {name:10}{value / count * 1000:9.3f}")
    hold([("with EWC over without", seconds["with EWC"] / seconds["without"], 1.25, "at most")])


if __name__ == "__main__":
    main()
