"""The figures of the chapter on EWC's relatives: one function a figure, drawn from runs or tensors, with its alt text."""

from collections.abc import Sequence
from math import log10, sqrt
from statistics import fmean, stdev

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ON_PAPER,
    ORANGE,
    PURPLE,
    Picture,
    apart,
    draw,
    ink,
    percent,
)
from torch import Tensor

# What a method keeps of the old tasks decides its colour and its mark.
KEEPS = {"nothing": (GREY, "X"), "weights": (BLUE, "o"), "inputs": (GREEN, "^"), "answers": (PURPLE, "D"), "images": (ORANGE, "s")}


def _spread(values):
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def standings(boards: dict[str, dict[str, Sequence[float]]], keeps: dict[str, str]) -> Picture:
    """Mean and standard error of each method's accuracy, the best on top: a panel for each of the boards.

    Args:
        boards: by title, the accuracies of each method, one a seed.
        keeps: for each method a key of `KEEPS`.
    """

    def of(title, board):
        order = sorted(board, key=lambda name: fmean(board[name]))

        def panel(axes):
            for row, name in enumerate(order):
                colour, mark = KEEPS[keeps[name]]
                axes.axhline(row, color=GREY, lw=0.4, alpha=0.4)
                axes.errorbar(fmean(board[name]), row, xerr=_spread(board[name]), color=colour, marker=mark, ms=6, capsize=3, lw=1.4)
            axes.set_yticks(range(len(order)), order)
            for label, name in zip(axes.get_yticklabels(), order, strict=True):
                label.set_color(KEEPS[keeps[name]][0])
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel("mean accuracy at the end")
            percent(axes, "x")
            if len(boards) > 1:
                axes.set_title(title)

        return panel

    said = " ".join(
        f"{title}: "
        + ", ".join(
            f"{name} {100 * fmean(values):.1f} ± {100 * _spread(values):.1f} %"
            for name, values in sorted(board.items(), key=lambda each: -fmean(each[1]))
        )
        + "."
        for title, board in boards.items()
    )
    return draw(
        f"Mean accuracy over all tasks after the last one, mean and standard error over seeds, from the best to the worst. {said}",
        *(of(title, board) for title, board in boards.items()),
        size=(5.4, 1.0 + 0.25 * max(map(len, boards.values()))) if len(boards) == 1 else (3.6, 3.1),
    )


def earned(path: Tensor, slopes: Tensor, names: Sequence[str]) -> Picture:
    """Minus the gradient along the way of each weight: the area under the curve is what the weight earned.

    Args:
        path: (steps + 1, 2), the weights on the way; slopes: the gradient at each.
    """
    areas = -(slopes[:-1] * path.diff(dim=0)).sum(0)

    def of(place, colour):
        def panel(axes):
            x, y = path[:, place], -slopes[:, place]
            axes.plot(x, y, color=colour)
            axes.fill_between(x, 0, y, color=colour, alpha=0.25, linewidth=0)
            axes.axhline(0, color=INK, lw=0.8)
            low, high = float((-slopes).amin()), float((-slopes).amax())
            axes.set_ylim(min(1.1 * low, -0.08 * high), 1.1 * high)
            axes.set_title(f"{names[place]}: $\\omega_{place + 1}$ = {areas[place]:.2g}", color=colour)
            axes.set_xlabel(f"$\\theta_{place + 1}$, from start to end")
            axes.set_ylabel("−gradient")

        return panel

    return draw(
        "Minus the gradient against the value of each of two weights, on the way from the start of training to its end, with one scale. The areas under the curves "
        f"are {areas[0]:.2g} for the {names[0]} and {areas[1]:.2g} for the {names[1]}.",
        of(0, BLUE),
        of(1, ORANGE),
    )


def pixels(maps: dict[str, Tensor], things: str) -> Picture:
    """For each importance a picture of the pixels: what the first layer's weights that read a pixel add up to; more ink is more."""

    def of(title, image):
        def panel(axes):
            ink(axes, (image / image.max()).clamp(min=0))
            axes.set_axis_off()
            axes.set_title(title, loc="center")

        return panel

    names = list(maps)
    flat = torch.stack([image.flatten() for image in maps.values()])
    likeness = torch.corrcoef(flat)
    said = ", ".join(
        f"{names[i]} and {names[j]} {likeness[i, j]:.2f}" for i in range(len(names)) for j in range(i + 1, len(names))
    )
    return draw(
        f"{len(maps)} pictures of 28 by 28 pixels, of a network that reads {things}: for each pixel the importance of the weights that read it, by {', '.join(names)}. "
        f"All have much in the middle, where strokes vary, and nothing at the border. Correlation of the pictures: {said}.",
        *(of(title, image) for title, image in maps.items()),
        size=(2.4, 2.6),
        row=len(maps) == 3,
    )


def against_fisher(curves: dict[str, Sequence[tuple[Tensor, Tensor]]], slopes: dict[str, float]) -> Picture:
    """The mean importance of groups of weights against their mean Fisher, with guides for a multiple of it and its square root.

    Args:
        curves: by the name of the importance, for each run the mean Fisher and the mean importance of its groups, in order.
        slopes: of each, on the logarithmic axes.
    """

    def panel(axes):
        listed = sorted(slopes, key=slopes.get)
        for (name, runs), colour, mark, sign in zip(curves.items(), (BLUE, ORANGE, GREEN), "o^s", "●▲■", strict=True):
            x, y = (torch.stack([(run[part] / run[part][-1]).log() for run in runs]).mean(0).exp() for part in (0, 1))
            axes.plot(x, y, color=colour, marker=mark, ms=3.5, lw=1.2)
            height = 0.05 + 0.075 * (len(listed) - 1 - listed.index(name))
            axes.text(0.99, height, f"{sign} {name}: slope {slopes[name]:.2f}", transform=axes.transAxes, ha="right", color=colour)
        ends = torch.tensor([float(x[1]), 1.0])
        for power, word in ((0.5, "square root"), (1.0, "multiple")):
            axes.plot(ends, ends**power, color=GREY, lw=1, ls=":")
            axes.annotate(word, (ends[0], ends[0] ** power), (-4, 0), textcoords="offset points", color=GREY,
                          ha="right", va="center")  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xlabel("Fisher information of a group, share of the top's")
        axes.set_ylabel("importance, share of the top's")

    said = ", ".join(f"{name} with a slope of {slope:.2f}" for name, slope in slopes.items())
    groups = len(next(iter(curves.values()))[0][0])
    return draw(
        f"Importance against Fisher information, both on logarithmic axes and as a share of the highest group's, for weights gathered in {groups} groups of equal size by their Fisher. "
        f"All rise together with the Fisher: {said}. Dotted guides show a multiple of the Fisher, slope 1, and its square root, slope ½.",
        panel,
        size=(4.8, 3.8),
    )


def price(bytes_of: dict[str, float], accuracies: dict[str, Sequence[float]], keeps: dict[str, str]) -> Picture:
    """Accuracy against what is carried from task to task, in bytes on a logarithmic axis; what carries nothing stands at the left edge."""
    carried = {name: amount for name, amount in bytes_of.items() if amount}
    left = min(carried.values()) / 10
    means = [fmean(values) for values in accuracies.values()]
    line = 0.06 * (max(means) - min(means))  # the height of a name, in the units of the axis

    def panel(axes):
        spots = {name: (max(bytes_of[name], left), fmean(values)) for name, values in accuracies.items()}
        # A name goes to the right of its mark, or to the left where another mark stands in its way.
        sides = {"left": [], "right": []}
        for name, (x, y) in spots.items():
            near = (abs(other_y - y) < 2.5 * line and 0.02 < log10(other_x / x) < 0.9 for other_x, other_y in spots.values())
            sides["left" if any(near) else "right"].append(name)
        for side, names in sides.items():
            heights = [spots[name][1] for name in names]
            heights = dict(zip(names, apart(heights, line) if side == "left" else heights, strict=True))
            for name in names:
                x, y = spots[name]
                colour, mark = KEEPS[keeps[name]]
                axes.errorbar(x, y, yerr=_spread(accuracies[name]), color=colour, marker=mark, ms=6, capsize=2, lw=1.2)
                # To the left of whatever mark stands at the name's own height.
                beside = min([x, *(other for other, height in spots.values() if other < x and abs(height - heights[name]) < line)])
                end = beside / 1.3 if side == "left" else 1.22 * x
                if abs(heights[name] - y) > line / 2:
                    axes.plot([end, x], [heights[name], y], color=colour, lw=0.6, zorder=0)
                axes.text(end, heights[name], name, va="center", ha="right" if side == "left" else "left", color=colour, bbox=ON_PAPER, zorder=1)
        axes.set_xscale("log")
        axes.set_xlim(left / 1.5, max(carried.values()) * 6)
        ticks = [amount for amount in (1e5, 1e6, 1e7, 1e8, 1e9) if 3 * left < amount < 6 * max(carried.values())]
        axes.set_xticks([left, *ticks], ["0", *(_size(tick) for tick in ticks)])
        axes.minorticks_off()
        axes.set_xlabel("carried from task to task")
        axes.set_ylabel("mean accuracy at the end")
        percent(axes)

    said = ", ".join(
        f"{name} {_size(bytes_of[name]) if bytes_of[name] else 'nothing'} and {fmean(values):.1%}"
        for name, values in sorted(accuracies.items(), key=lambda each: bytes_of[each[0]])
    )
    return draw(
        f"Mean accuracy at the end against what is carried from task to task, on a logarithmic axis: {said}.",
        panel,
        size=(5.4, 5.4),
    )


def _size(amount):
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= unit:
            return f"{amount / unit:.3g} {name}"
    return f"{amount:g} B"
