"""The figures of the chapter on likelihood and loss: one function a figure, with its alt text."""

import math

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SINGLE,
    Picture,
    draw,
    ink,
    label,
)
from torch import Tensor


def price_of_doubt(probabilities: Tensor, images: Tensor, chosen: Tensor, task) -> Picture:
    """−log p over p, with images of the test set where the network's probability for their label puts them."""

    def panel(axes):
        p = torch.logspace(-2.6, 0, 300)
        axes.plot(p, -p.log(), color=BLUE)
        for place in chosen.tolist():
            probability = float(probabilities[place])
            axes.plot(probability, -math.log(probability), color=ORANGE, marker="o", ms=5)
            inset = axes.inset_axes(
                [probability + 0.02, -math.log(probability) + 0.15, 0.11, 0.95], transform=axes.transData
            )
            ink(inset, images[place].squeeze())
            inset.set_axis_off()
        axes.set_xlim(-0.02, 1.15)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_ylim(0, 6.2)
        axes.set_xlabel("probability that the network gave the right label")
        axes.set_ylabel("loss, $-\\log p$")

    marked = ", ".join(
        f"{float(probabilities[place]):.2g} costs {-math.log(float(probabilities[place])):.2g}"
        for place in chosen.tolist()
    )
    return draw(
        f"The loss of one image against the probability of its label: a curve that is 0 at probability 1, 0.69 at one half, and rises without end towards 0. "
        f"Test images of {task.name} are marked on it: {marked}.",
        panel,
        size=SINGLE,
    )


def bells_on_a_line(x: Tensor, y: Tensor, line: tuple[float, float], width: float) -> Picture:
    """Points, a line through them, and at some inputs the Gaussian that says which targets the line thinks likely."""

    def panel(axes):
        reach = torch.tensor([float(x.min()) - 0.4, float(x.max()) + 0.9], dtype=x.dtype)
        axes.plot(reach, line[0] + line[1] * reach, color=INK, lw=1.2)
        for middle in torch.linspace(float(x.min()), float(x.max()), 4).tolist():
            target = torch.linspace(-3.2, 3.2, 80, dtype=x.dtype) * width
            bell = (-(target**2) / (2 * width**2)).exp()
            centre = line[0] + line[1] * middle
            axes.fill_betweenx(centre + target, middle, middle + 0.6 * bell, color=BLUE, alpha=0.3, lw=0)
            axes.plot(middle + 0.6 * bell, centre + target, color=BLUE, lw=1)
        axes.plot(x, y, color=ORANGE, ls="", marker="o", ms=4.5)
        axes.set_xlabel("input, $x$")
        axes.set_ylabel("target, $y$")

    return draw(
        f"{len(x)} points around a rising line. At four inputs a bell lies on its side along the line, its peak on the line and its standard deviation {width:.2f}: "
        "how likely each target is. Most points lie inside the bells.",
        panel,
        size=SINGLE,
    )


def believed_times_seen(theta: Tensor, prior: Tensor, likelihood: Tensor) -> Picture:
    """A prior and a likelihood over one weight, each scaled to a peak of one, and their product, scaled alike."""
    product = prior * likelihood
    product = product / product.max()

    def panel(axes):
        for values, colour, line, name, side in (
            (prior / prior.max(), ORANGE, "--", "believed\nbefore", -1),
            (likelihood / likelihood.max(), BLUE, "-.", "seen:\nlikelihood", 1),
            (product, INK, "-", "product", 0),
        ):
            axes.plot(theta, values, color=colour, ls=line)
            top = int(values.argmax())
            if side:
                inside = (values > 0.6).nonzero().flatten()
                place = int(inside[0] if side < 0 else inside[-1])
                label(
                    axes,
                    name,
                    (theta[place], values[place]),
                    (7 * side, 4),
                    colour,
                    ha="right" if side < 0 else "left",
                    va="center",
                )
            else:
                label(axes, name, (theta[top], 1), (0, 5), colour, ha="center", va="bottom")
                axes.plot([theta[top]] * 2, [0, 1], color=colour, lw=0.8, ls=":")
        axes.set_ylim(0, 1.15)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("the weight, $\\theta$")

    tops = [float(theta[values.argmax()]) for values in (prior, likelihood, product)]
    return draw(
        f"Three curves over one weight, each scaled to the same height. What was believed before is a wide bell with its peak at {tops[0]:.2f}; the likelihood has its peak at {tops[1]:.2f}; "
        f"their product lies between, with its peak at {tops[2]:.2f}.",
        panel,
        size=SINGLE,
    )


def decay_or_prior(counts: Tensor, decay: Tensor, prior: Tensor, truth: float) -> Picture:
    """The fitted weight against the number of examples, with a fixed weight decay and with a fixed prior: each (draws, counts)."""

    def panel(axes):
        for values, colour, line, name, down in (
            (prior, BLUE, "-", "fixed prior", 10),
            (decay, ORANGE, "--", "fixed decay", -4),
        ):
            axes.plot(counts, values.mean(0), color=colour, ls=line, marker="o", ms=3.5)
            axes.fill_between(counts, values.quantile(0.1, 0), values.quantile(0.9, 0), color=colour, alpha=0.15, lw=0)
            label(axes, name, (counts[-1], values.mean(0)[-1]), (5, 0), colour, va="center" if down < 0 else "top")
        axes.axhline(truth, color=GREEN, lw=1.2, ls=":")
        label(axes, "true weight", (counts[0], truth), (0, 4), GREEN, va="baseline")
        axes.set_xscale("log")
        ticks = [int(counts[0]), int(counts[len(counts) // 2]), int(counts[-1])]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.25 * truth)
        axes.set_xlabel("number of examples, $N$")
        axes.set_ylabel("fitted weight")

    ends = [float(values.mean(0)[-1]) for values in (decay, prior)]
    return draw(
        f"The fitted weight against the number of examples, from {int(counts[0])} to {int(counts[-1])} on a logarithmic axis, mean and middle 80 percent of {len(decay)} draws. "
        f"Both begin at {float(decay.mean(0)[0]):.2f}. With a fixed prior the weight rises to {ends[1]:.2f}, near the true {truth:.2f}; with a fixed decay it stays at {ends[0]:.2f}.",
        panel,
        size=SINGLE,
    )
