"""The exact diagonal Fisher of 60,000 images, 784-256-256-10: against a loop over examples, and against BackPACK."""

import time
import warnings

import torch
from timing import hold, medians

from ewc import diagonal_fisher, mlp

EXAMPLES, LOOPED = 60_000, 60


def loop(model, images):
    """One image and one class at a time, with autograd."""
    totals = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for image in images:
        logs = model(image[None])[0].log_softmax(0)
        for log in logs:
            for total, score in zip(totals, torch.autograd.grad(log, model.parameters(), retain_graph=True), strict=True):
                total += log.exp().detach() * score**2
    return totals


def main():
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact

    images = torch.rand(EXAMPLES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(EXAMPLES, dtype=torch.long)
    model = mlp()
    extended, loss = extend(mlp()), extend(torch.nn.CrossEntropyLoss())

    def theirs():
        total = [torch.zeros_like(parameter) for parameter in extended.parameters()]
        for start in range(0, EXAMPLES, 1000):
            batch = slice(start, start + 1000)
            with backpack(DiagGGNExact()):
                loss(extended(images[batch]), labels[batch]).backward()
            for sum_, parameter in zip(total, extended.parameters(), strict=True):
                sum_ += parameter.diag_ggn_exact / (EXAMPLES // 1000)
            extended.zero_grad()
        return total

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = medians({"ours": lambda: diagonal_fisher(model, images), "BackPACK": theirs}, rounds=3)
        ours, other = diagonal_fisher(model, images), theirs()
    started = time.perf_counter()
    loop(model, images[:LOOPED])
    seconds["loop"] = (time.perf_counter() - started) * EXAMPLES / LOOPED
    worst = max(float((one - two).abs().max() / two.max()) for one, two in zip(ours.values(), other, strict=True))

    print(f"exact diagonal Fisher, {EXAMPLES:,} images, {torch.get_num_threads()} threads, seconds")
    for name, value in seconds.items():
        print(f"  {name:10}{value:9.2f}" + (f"   (timed on {LOOPED} images and scaled)" if name == "loop" else ""))
    hold(
        [
            ("seconds, ours", seconds["ours"], 3, "at most"),
            ("times faster than the loop", seconds["loop"] / seconds["ours"], 20, "at least"),
            ("ours over BackPACK", seconds["ours"] / seconds["BackPACK"], 1, "at most"),
            ("largest relative difference from BackPACK", worst, 1e-4, "at most"),
        ]
    )


if __name__ == "__main__":
    main()
