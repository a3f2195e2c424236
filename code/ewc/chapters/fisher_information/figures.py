"""The figures of Fisher information: one function a figure, with its alt text."""

from collections.abc import Sequence

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SINGLE,
    Picture,
    draw,
    ellipse,
    fixed,
    percent,
    two_digits,
)
from ewc.workshop.frames import Frames, frames
from torch import Tensor


def two_weights(turns: Tensor, steep: Tensor, flat: Tensor, steep_parabola: Tensor, flat_parabola: Tensor) -> Picture:
    """The rise of the loss when one weight alone is turned, for a weight that matters and one that does not, and ½ F d² of each."""
    low, high = min(float(steep.min()), float(flat.min())), max(float(steep.max()), float(steep_parabola.max()))

    def curve(values, parabola, title, colour):
        def panel(axes):
            axes.plot(turns, values, color=colour)
            axes.plot(turns, parabola, color=INK, ls="--", lw=1.2)
            axes.set_ylim(low - 0.05 * high, 1.05 * high)
            axes.set_title(title)
            axes.set_xlabel("turn of the weight")
            axes.set_ylabel("rise of the loss")

        return panel

    return draw(
        f"Rise of the loss against the turn of one weight from {turns.min():.1f} to {turns.max():.1f}, in two panels with one scale. "
        f"The first weight gives a bowl that reaches {steep[0]:.2g} and {steep[-1]:.2g} at its ends, where the dashed parabola of its Fisher information is at {steep_parabola[-1]:.2g}; "
        f"the second a line that stays within {flat.abs().max():.1g} of 0.",
        curve(steep, steep_parabola, "one weight", BLUE),
        curve(flat, flat_parabola, "another", ORANGE),
    )


def how_uneven(fisher: Tensor) -> Picture:
    """A histogram of the Fisher information of all weights, by powers of ten, with those that have none apart."""
    powers = fisher[fisher > 0].log10()
    low, high = max(-14, int(powers.min()) - 1), int(powers.max()) + 1
    edges = torch.arange(low, high + 0.25, 0.25)
    shares = torch.histogram(powers.cpu().clamp(min=low), edges).hist / len(fisher)
    none = float((fisher == 0).float().mean())

    def panel(axes):
        axes.bar(edges[:-1] + 0.125, shares, width=0.24, color=BLUE)
        axes.bar(low - 1.5, none, width=0.6, color=ORANGE)
        ticks = [tick for tick in range(-12, high + 1, 4) if tick > low]
        axes.set_xticks([low - 1.5, *ticks], ["none", *(f"$10^{{{tick}}}$" for tick in ticks)])
        axes.set_xlabel("Fisher information of a weight")
        axes.set_ylabel("share of the weights")
        percent(axes)

    middle = 10 ** float(powers.median())
    return draw(
        f"A histogram of the Fisher information of {len(fisher):,} weights on a logarithmic axis: most lie between {10 ** float(powers.quantile(0.05)):.0e} and {10 ** float(powers.quantile(0.95)):.0e}, "
        f"with half of those that have any below {middle:.0e}; the largest is {float(fisher.max()):.1e}. A bar apart: {none:.0%} have none.",
        panel,
        size=SINGLE,
    )


def score_by_label(probabilities: Tensor, scores: Tensor, classes: Sequence[str]) -> Picture:
    """For one image and one weight: the probability of each label, and the score that the label gives the weight."""

    def bars(values, title, colour):
        def panel(axes):
            axes.barh(range(len(classes)), values, color=colour)
            axes.set_yticks(range(len(classes)), classes)
            axes.invert_yaxis()
            axes.axvline(0, color=INK, lw=0.8)
            axes.set_title(title)

        return panel

    most = int(probabilities.argmax())
    return draw(
        f"Two bar charts over the {len(classes)} labels for one image. "
        f"The network's probabilities: most for {classes[most]!r}, {probabilities[most]:.2f}. "
        f"The scores of one weight: from {scores.min():.2g} to {scores.max():.2g}, small for the probable label and larger for improbable ones.",
        bars(probabilities, "how far it is believed", BLUE),
        bars(scores, "what it would do to the weight", ORANGE),
    )


def kl_is_a_parabola(lengths: Tensor, divergence: Tensor, quadratic: Tensor) -> Picture:
    """The KL divergence of the predictions from the old ones against ½ εᵀFε along a line, and what is left between them."""
    rest = (divergence - quadratic).abs()

    def both(axes):
        axes.loglog(lengths, divergence, color=BLUE)
        axes.loglog(lengths, quadratic, color=ORANGE, ls="--")
        axes.annotate("KL divergence\nand $\\frac{1}{2}\\epsilon^T F \\epsilon$, dashed", (lengths[len(lengths) // 3], quadratic[len(lengths) // 3]),
                      (12, -22), textcoords="offset points")  # fmt: skip
        axes.set_title("what the step does")
        axes.set_xlabel("length of the step")

    def remainder(axes):
        axes.loglog(lengths, rest / quadratic, color=GREEN)
        guide = rest[-1] / quadratic[-1] * lengths / lengths[-1]
        axes.loglog(lengths, guide, color=GREY, ls=":", lw=1.2)
        axes.annotate("proportional to\nthe length", (lengths[len(lengths) // 2], guide[len(lengths) // 2]), (10, -24),
                      textcoords="offset points", color=GREY)  # fmt: skip
        axes.set_title("share that the parabola misses")
        axes.set_xlabel("length of the step")

    return draw(
        "Two panels with logarithmic axes against the length of a step in weight space. First: the KL divergence and half the quadratic "
        f"form of the Fisher lie on each other from {divergence[0]:.1g} to {divergence[-1]:.1g}. Second: their relative difference falls in "
        f"proportion to the length, from {(rest / quadratic)[-1]:.1g} to {(rest / quadratic)[0]:.1g}.",
        both,
        remainder,
    )


def labels_over_training(records) -> Picture:
    """The trace of the Fisher with each kind of labels as a network is fitted, over records of `experiments.fisher_of_labels`."""
    looks = records[0].result["looks"][1:]
    passes = [look["pass"] for look in looks]
    traces = {
        labels: torch.tensor([[look["traces"][labels] for look in record.result["looks"][1:]] for record in records])
        for labels in ("exact", "sampled", "empirical", "argmax")
    }
    colours = {"exact": BLUE, "sampled": GREEN, "empirical": ORANGE, "argmax": PURPLE}

    def panel(axes):
        for labels, values in traces.items():
            axes.plot(passes, values.mean(0), color=colours[labels], ls="--" if labels == "sampled" else "-")
        axes.set_yscale("log")
        axes.set_xscale("log")
        axes.set_xticks([1, 3, 10, passes[-1]], ["1", "3", "10", str(passes[-1])])
        axes.minorticks_off()
        axes.set_xlabel("passes over the training images")
        axes.set_ylabel("trace of the Fisher")
        axes.set_xlim(1, passes[-1])
        ends = {labels: float(values.mean(0)[-1]) for labels, values in traces.items()}
        apart = ends["argmax"] / ends["empirical"]
        lift = {"exact": 7, "sampled": -8, "empirical": 8 if apart < 1.25 else 0, "argmax": -8 if apart < 1.25 else 0}
        for labels, end in ends.items():
            axes.annotate(labels, (passes[-1], end), (5, lift[labels]), textcoords="offset points", color=colours[labels], va="center",
                          annotation_clip=False)  # fmt: skip

    share = {labels: float((values[:, -1] / traces["exact"][:, -1]).mean()) for labels, values in traces.items()}
    return draw(
        f"Trace of the Fisher against passes over the training images, both axes logarithmic, mean of {len(records)} seeds. Exact and sampled stay "
        f"together. Empirical and argmax fall away from them and end at {share['empirical']:.2g} and {share['argmax']:.2g} of the exact trace.",
        panel,
    )


def fisher_and_truth(grid, cases, label, start) -> Frames:
    """Where a step in two weights reaches a given KL divergence: truly, and by the ellipse ½ εᵀFε of the Fisher.

    `cases` maps each state to (KL at the points of the grid, F, the level of both lines, the least and the greatest KL on the ellipse).
    """

    def of(state, divergence, fisher, level, least, greatest):
        across, up = ellipse(torch.zeros(2, dtype=fisher.dtype), fisher, (2 * level) ** 0.5)

        def panel(axes):
            axes.contourf(grid.axes[0], grid.axes[1], divergence.T, [0, level], colors=[BLUE], alpha=0.18)
            axes.contour(grid.axes[0], grid.axes[1], divergence.T, [level], colors=[BLUE], linewidths=1.6)
            axes.plot(across, up, color=ORANGE, ls="--")
            axes.plot(0, 0, color=INK, marker="+", ms=7)
            axes.set_xlim(float(grid.axes[0][0]), float(grid.axes[0][-1]))
            axes.set_ylim(float(grid.axes[1][0]), float(grid.axes[1][-1]))
            axes.set_aspect("equal")
            axes.set_xlabel("turn of the first weight, $\\epsilon_1$")
            axes.set_ylabel("turn of the second, $\\epsilon_2$")
            axes.set_title(f"true KL on the ellipse: {two_digits(least)} to {two_digits(greatest)}")
            fixed(axes, f"KL is {level:g}", (0.03, 0.95), BLUE)
            fixed(axes, "ellipse, dashed", (0.03, 0.88), ORANGE)

        setting = ", ".join(f"{name} {value}" for name, value in zip(label, state, strict=True))
        return draw(
            f"With {setting}: the line of steps in two weights whose KL divergence is {level:g}, and the Fisher's ellipse, dashed, on which it should be "
            f"that. On the ellipse the true divergence runs from {two_digits(least)} to {two_digits(greatest)}.",
            panel,
            size=(4.2, 3.9),
        )

    return frames({state: of(state, *case) for state, case in cases.items()}, label, start=start)
