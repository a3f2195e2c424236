"""The book's figures: one function a figure, drawn from records or tensors, with its alt text.

A figure is a `Picture` of one or more panels. The panels stand side by side where there is room and one above the other on
a phone, and are drawn in the page's own colours, so that dark mode needs no second drawing.
"""

import html
import io
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

# Drawn in these colours, which stand for the page's: the text's own, its background, and six series (book.css).
INK, PAPER = "#010203", "#fdfefd"
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (f"#0{number}a{number}b{number}" for number in range(1, 7))
_COLOURS = {INK: "currentColor", PAPER: "var(--paper, #fff)"} | {
    colour: f"var(--series-{number}, {fallback})"
    for number, (colour, fallback) in enumerate(
        zip(
            (BLUE, ORANGE, GREEN, RED, PURPLE, GREY),
            ("#1f5fae", "#c9730a", "#0f8a5f", "#b3261e", "#6f3fa0", "#7a7a7a"),
            strict=True,
        ),
        start=1,
    )
}
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "mathtext.fontset": "stix",
}


class Picture:
    """Panels of SVG with one description in words; shows itself in a notebook and on a page of the book."""

    def __init__(self, panels: Sequence[str], alt: str):
        if not alt.strip():
            raise ValueError("alt is empty; it must say what the figure shows")
        self.panels, self.alt = list(panels), " ".join(alt.split())

    def _repr_html_(self) -> str:
        kind = "picture one" if len(self.panels) == 1 else "picture"
        return f'<div class="{kind}" role="img" aria-label="{html.escape(self.alt)}">{"".join(self.panels)}</div>'

    def __repr__(self) -> str:
        return self.alt

    def save(self, path: str | Path) -> None:
        """Write the panels side by side into one SVG file, on white, for places that have no page around it."""
        sizes = [
            [float(number) for number in re.search(r'viewBox="0 0 (\S+) (\S+)"', panel).groups()]
            for panel in self.panels
        ]
        across = [sum(width for width, _ in sizes[:place]) for place in range(len(sizes))]
        placed = [panel.replace("<svg ", f'<svg x="{x}" ', 1) for panel, x in zip(self.panels, across, strict=True)]
        width, height = sum(width for width, _ in sizes), max(height for _, height in sizes)
        Path(path).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" color="#1f2328">'
            f"<title>{html.escape(self.alt)}</title>"
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n',
            "utf8",
        )


def draw(alt: str, *panels: Callable, size: tuple[float, float] | None = None) -> Picture:
    """A picture of `panels`, functions that each draw on the matplotlib axes that they are given.

    Args:
        alt: the description in words.
        size: of a panel, in inches; by default 5.4 × 3.3 for one panel alone, 3.5 × 2.9 for several.
    """
    size = size or ((5.4, 3.3) if len(panels) == 1 else (3.5, 2.9))
    return Picture([_panel(panel, size, f"{alt} {number}") for number, panel in enumerate(panels)], alt)


def _panel(panel, size, name):
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        panel(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # An id is unique on a page, and most of matplotlib's are for nothing: keep those that are pointed at, and make them ours.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    own = f"{zlib.crc32(name.encode()):x}"
    svg = re.sub(r'\s+id="([^"]+)"', lambda found: f' id="{own}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{own}-\g<2>", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def _percent(axes, which="y"):
    from matplotlib.ticker import PercentFormatter

    getattr(axes, f"{which}axis").set_major_formatter(PercentFormatter(1, decimals=0))


def _mean_and_range(axes, x, values: Tensor, colour, **line):
    """The mean over runs as a line, with all runs between the edges of a band."""
    axes.plot(x, values.mean(0), color=colour, **line)
    axes.fill_between(x, values.amin(0), values.amax(0), color=colour, alpha=0.2, linewidth=0)


def _looks(records, place: int) -> tuple[list[int], Tensor]:
    """The steps of the task at `place`, and the accuracies there: (runs, steps, tasks)."""
    looks = [[look for look in record.result["looks"] if look["task"] == place] for record in records]
    steps = [look["step"] for look in looks[0]]
    return steps, torch.tensor([[look["accuracies"] for look in run] for run in looks])


def collapse(records, tasks) -> Picture:
    """Accuracy on both tasks while the second is learned, over records of `experiments.two_tasks`."""
    steps, accuracies = _looks(records, 1)
    first, second = (accuracies[:, :, place] for place in (0, 1))
    before, after = first[:, 0].mean(), first[:, -1].mean()

    def panel(axes):
        x = [max(step, 0.7) for step in steps]
        for values, colour, task in ((first, BLUE, tasks[0]), (second, ORANGE, tasks[1])):
            _mean_and_range(axes, x, values, colour)
            axes.annotate(task.name, (1, float(values[:, -1].mean())), (4, 0), xycoords=("axes fraction", "data"),
                          textcoords="offset points", color=colour, va="center", annotation_clip=False)  # fmt: skip
        _steps_axis(axes, steps, f"steps of learning {tasks[1].name}")
        axes.axhline(0.1, color=GREY, lw=1, ls=":")
        axes.annotate("guessing", (0.7, 0.1), (0, 3), textcoords="offset points", color=GREY, fontsize=9)
        axes.set_ylabel("read correctly")

    return draw(
        f"Accuracy against steps of learning {tasks[1].name}, on a logarithmic axis, mean and range of {len(records)} seeds. "
        f"{tasks[0].name} falls from {before:.0%} to {after:.0%}, most of it within the first {_half_lost(steps, first)} steps, while "
        f"{tasks[1].name} rises to {second[:, -1].mean():.0%}.",
        panel,
    )


def _steps_axis(axes, steps, label):
    """A logarithmic axis of steps, whose left end is the moment before the first one."""
    axes.set_xscale("log")
    ticks = [1, 10, 100, 1000]
    axes.set_xticks([0.7, *ticks], ["0", *(f"{tick:,}" for tick in ticks)])
    axes.minorticks_off()
    axes.set_xlim(0.65, steps[-1])
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(label)
    _percent(axes)


def _half_lost(steps, values):
    """The first look at which the mean has lost more than half of what it will lose."""
    mean = values.mean(0)
    return next(step for step, value in zip(steps, mean, strict=True) if value < (mean[0] + mean[-1]) / 2)


def misread(images: Tensor, labels: Sequence[str], tasks) -> Picture:
    """Images of the first task, each under the second task's name for the answer that the network gives."""

    def panel(axes):
        axes.set_axis_off()
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            across, down = place % 5, place // 5
            inset = axes.inset_axes([across / 5 + 0.01, 0.54 - 0.54 * down, 0.18, 0.36])
            inset.imshow(1 - image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            inset.set_xticks([])
            inset.set_yticks([])
            inset.set_title(label, fontsize=10.5, loc="center", pad=3)

    return draw(
        f"Ten test images of {tasks[0].name}, one of each class in order, and above each the name in {tasks[1].name} of the answer that "
        f"the network gives after learning {tasks[1].name}: {', '.join(labels)}.",
        panel,
        size=(5.4, 2.7),
    )


def two_weights(turns: Tensor, steep: Tensor, flat: Tensor) -> Picture:
    """The rise of the loss when one weight alone is turned, for a weight that matters and one that does not."""

    def curve(values, title, colour):
        def panel(axes):
            axes.plot(turns, values, color=colour)
            axes.set_ylim(min(-0.02 * float(steep.max()), float(flat.min())), 1.05 * float(steep.max()))
            axes.set_title(title)
            axes.set_xlabel("turn of the weight")
            axes.set_ylabel("rise of the loss")

        return panel

    return draw(
        f"Rise of the loss against the turn of one weight from {turns.min():.1f} to {turns.max():.1f}, in two panels with one scale. "
        f"The first weight gives a steep bowl that reaches {steep.max():.2g}; the second a line that stays within {flat.abs().max():.1g} of 0.",
        curve(steep, "one weight", BLUE),
        curve(flat, "another", ORANGE),
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
        lift = {"exact": 5, "sampled": -6, "empirical": 6 if apart < 1.25 else 0, "argmax": -6 if apart < 1.25 else 0}
        for labels, end in ends.items():
            axes.annotate(labels, (passes[-1], end), (5, lift[labels]), textcoords="offset points", color=colours[labels], va="center",
                          annotation_clip=False)  # fmt: skip

    share = {labels: float((values[:, -1] / traces["exact"][:, -1]).mean()) for labels, values in traces.items()}
    return draw(
        f"Trace of the Fisher against passes over the training images, both axes logarithmic, mean of {len(records)} seeds. Exact and sampled stay "
        f"together. Empirical and argmax fall away from them and end at {share['empirical']:.2g} and {share['argmax']:.2g} of the exact trace.",
        panel,
    )


def parabola_and_truth(distance: Tensor, truth: Tensor, diagonal: Tensor, whole: Tensor, task) -> Picture:
    """The loss of the old task on the way from its weights to the plain network's, and two parabolas that stand for it."""

    def panel(axes):
        for values, colour, line, name in (
            (truth, BLUE, "-", "true loss"),
            (whole, GREEN, "-.", "whole Fisher"),
            (diagonal, ORANGE, "--", "diagonal"),
        ):
            axes.plot(distance[1:], values[1:], color=colour, ls=line)
            lift = (
                6
                if (name == "true loss" and truth[-1] >= whole[-1])
                or (name == "whole Fisher" and whole[-1] > truth[-1])
                else -6
            )
            axes.annotate(name, (1, values[-1]), (5, lift if name != "diagonal" else 0), textcoords="offset points", color=colour, va="center",
                          annotation_clip=False)  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["after the\nfirst task", "half-way", "after the\nsecond"])
        axes.set_ylabel(f"rise of the loss on {task.name}")

    return draw(
        f"Rise of the loss on {task.name}, on a logarithmic axis, along the straight line from the weights after the first task to those of the plain network after the second. "
        f"It ends at {truth[-1]:.2g}; the parabola of the whole Fisher at {whole[-1]:.2g}, that of its diagonal far below at {diagonal[-1]:.2g}.",
        panel,
    )


def kept(plain, ewc, tasks) -> Picture:
    """Accuracy on each task while the second is learned, with plain descent and with EWC."""
    steps, before = _looks(plain, 1)
    _, after = _looks(ewc, 1)

    def of_task(place):
        def panel(axes):
            x = [max(step, 0.7) for step in steps]
            ends = (float(before[:, -1, place].mean()), float(after[:, -1, place].mean()))
            apart = 0.035 if abs(ends[0] - ends[1]) < 0.08 else 0
            for values, colour, name, end, lift in (
                (before, ORANGE, "plain", ends[0], apart),
                (after, BLUE, "EWC", ends[1], -apart),
            ):
                _mean_and_range(axes, x, values[:, :, place], colour)
                higher = lift if ends[0] >= ends[1] else -lift
                axes.annotate(name, (1, end + higher), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=colour,
                              va="center", annotation_clip=False)  # fmt: skip
            _steps_axis(axes, steps, f"steps of learning {tasks[1].name}")
            axes.set_title(f"{tasks[place].name}, read correctly")

        return panel

    return draw(
        f"Accuracy against steps of learning {tasks[1].name}, mean and range of {len(ewc)} seeds. On {tasks[0].name}, plain descent ends at "
        f"{before[:, -1, 0].mean():.0%} and EWC at {after[:, -1, 0].mean():.0%}; on {tasks[1].name}, "
        f"at {before[:, -1, 1].mean():.0%} and {after[:, -1, 1].mean():.0%}.",
        of_task(0),
        of_task(1),
    )


def paths(plane: dict, tasks) -> Picture:
    """Two paths through the plane of three points of weight space, over the loss of each task.

    `plane` holds ``across`` and ``up`` (grid coordinates), ``losses`` (one (up, across) grid a task), and ``plain`` and
    ``ewc``, the projected paths (steps, 2), which both start at (0, 0).
    """

    def over(place, colour):
        def panel(axes):
            losses = plane["losses"][place]
            low = float(losses.min())
            levels = [low + (float(losses.max()) - low) * share for share in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)]
            for level, (bottom, top) in enumerate(pairwise(levels)):
                axes.contourf(
                    plane["across"], plane["up"], losses, [bottom, top], colors=[colour], alpha=0.55 - 0.1 * level
                )
            for name, path, line in (("plain", plane["plain"], ORANGE), ("EWC", plane["ewc"], BLUE)):
                axes.plot(path[:, 0], path[:, 1], color=line, marker="o", ms=2.5)
                axes.annotate(name, path[-1], (4, 5), textcoords="offset points", color=line, weight="bold")
            axes.plot(0, 0, marker="o", ms=6, color=INK)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal")
            axes.spines[:].set_visible(False)
            axes.set_title(f"shade: low loss on {tasks[place].name}")

        return panel

    return draw(
        f"The plane through three points of weight space: the weights after {tasks[0].name}, and those after {tasks[1].name} with plain descent and "
        f"with EWC. Over the loss on {tasks[0].name} the plain path leaves the low region and EWC's stays in it; over the loss on {tasks[1].name} "
        "both end in the low region.",
        over(0, GREEN),
        over(1, GREEN),
    )


def held_pixels(mean_image: Tensor, fisher_of_pixels: Tensor, task) -> Picture:
    """The mean image of a task beside the Fisher information of the first layer's weights, summed by the pixel that they read."""

    def shown(image):
        def panel(axes):
            axes.imshow(1 - image / image.max(), cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()

        return panel

    share = float((fisher_of_pixels < 0.01 * fisher_of_pixels.max()).float().mean())
    return draw(
        f"Two pictures of 28 by 28 pixels. First the mean image of {task.name}. Second, for each pixel, the Fisher information of "
        f"the weights that read it: dark where strokes vary, and under a hundredth of its maximum on {share:.0%} of the pixels.",
        shown(mean_image),
        shown(fisher_of_pixels),
        size=(3.0, 3.0),
    )
