"""The figures of the chapter on many tasks: one function a figure, with its alt text; and a table of whatever runs there are."""

import math
from collections.abc import Sequence

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    Picture,
    apart,
    draw,
    ink,
    label,
    mean_and_range,
    percent,
)
from ewc.workshop.page import spelled
from ewc.workshop.tuning import Tuned
from torch import Tensor

_COLOUR = {"EWC": BLUE, "L2": PURPLE, "plain": ORANGE, "joint": GREEN}
_LINE = {"EWC": "-", "L2": "--", "plain": "-.", "joint": (0, (1, 1))}


def three_tasks(records: dict, steps: int) -> Picture:
    """Figure 2A of the EWC paper: the accuracy on each of three tasks, from when it is begun to the end of the third.

    Args:
        records: by name, runs of `sequences.permuted_tasks` with looks.
        steps: of each lesson.
    """
    curves, ends = {}, {}
    for name, record in records.items():
        looks = record.result["looks"]
        x = torch.tensor([look["task"] * steps + look["step"] for look in looks])
        curves[name] = x, torch.tensor([look["accuracies"] for look in looks])
        ends[name] = [float(value) for value in curves[name][1][-1]]

    # From just below where a task that has been taken up can be found: the very first steps are left out.
    learned = [accuracies[x > (place + 0.2) * steps, place] for x, accuracies in curves.values() for place in range(3)]
    low = math.floor(10 * float(torch.cat(learned).min())) / 10

    def of_task(place):
        def panel(axes):
            for name, (x, accuracies) in curves.items():
                begun = x >= place * steps
                axes.plot(x[begun], accuracies[begun, place], color=_COLOUR[name], ls=_LINE[name])
            heights = apart([ends[name][place] for name in curves], 0.085 * (1.02 - low))
            for name, height in zip(curves, heights, strict=True):
                axes.annotate(name, (1, height), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=_COLOUR[name],
                              va="center", annotation_clip=False)  # fmt: skip
            for border in (1, 2):
                axes.axvline(border * steps, color=GREY, lw=1, ls=":")
            axes.set_xticks([(lesson + 0.5) * steps for lesson in range(3)], [f"learn {letter}" for letter in "ABC"])
            axes.tick_params(axis="x", length=0)
            axes.set_xlim(0, 3 * steps)
            axes.set_ylim(low, 1.02)
            axes.set_title(f"task {'ABC'[place]}, read correctly")
            percent(axes)

        return panel

    said = "; ".join(
        f"{name} ends at " + ", ".join(f"{value:.0%} of {letter}" for value, letter in zip(values, "ABC", strict=True))
        for name, values in ends.items()
    )
    return draw(
        f"Three panels, one for each of the tasks A, B and C, with the accuracy on it against steps, while A, then B, then C is learned. {said}.",
        *(of_task(place) for place in range(3)),
        size=(3.2, 2.7),
    )


def tasks_so_far(runs: dict, single: float) -> Picture:
    """Figure 2B of the EWC paper: the mean accuracy over the tasks learned so far, against how many these are.

    Args:
        runs: by name, records over seeds.
        single: the accuracy of a network that has learned one task alone.
    """
    means = {}
    for name, records in runs.items():
        matrices = torch.stack([record.matrix.values for record in records])
        count = matrices.shape[-1]
        means[name] = torch.stack([matrices[:, place, : place + 1].mean(-1) for place in range(count)], 1)

    def panel(axes):
        x = range(1, count + 1)
        for name, values in means.items():
            mean_and_range(axes, x, values, _COLOUR[name], ls=_LINE[name], marker="o", ms=3.5)
        axes.plot((1, count), (single, single), color=GREY, lw=1, ls="--")  # and no further: there stand the names
        low = min(float(values.min()) for values in means.values())
        ends = {name: float(values[:, -1].mean()) for name, values in means.items()}
        for name, height in zip(ends, apart(list(ends.values()), 0.095 * (1.03 - low)), strict=True):
            axes.annotate(name, (count, height), (7, 0), textcoords="offset points", color=_COLOUR[name], va="center", annotation_clip=False)
        axes.annotate("one task alone", (0.02, single), (0, 5), xycoords=("axes fraction", "data"), textcoords="offset points", color=GREY)
        axes.set_xticks(list(x))
        axes.set_ylim(low - 0.03, 1.03)
        axes.set_xlabel("tasks learned so far")
        axes.set_ylabel("mean accuracy on them")
        percent(axes)

    said = "; ".join(
        f"{name} (seeds: {len(values)}) from {values[:, 0].mean():.0%} to {values[:, -1].mean():.1%}" for name, values in means.items()
    )
    return draw(
        f"The mean accuracy on all tasks learned so far, against their number from 1 to {count}: {said}. A dashed line marks one task alone, {single:.1%}.",
        panel,
        size=(5.0, 3.3),
    )


def overlap_of_layers(overlaps: dict[int, Tensor]) -> Picture:
    """Figure 2C of the EWC paper: for each layer, from the pixels on, how far the Fishers of two tasks overlap.

    Args:
        overlaps: by the side of the permuted square, (seeds, layers).
    """
    colours = dict(zip(sorted(overlaps), (GREY, INK), strict=True))

    def panel(axes):
        for side, values in overlaps.items():
            x = range(1, values.shape[1] + 1)
            mean_and_range(axes, x, values, colours[side], marker="os"[side > 14], ms=4)
            place, right = (0, 0) if side < 14 else (2, 12)
            axes.annotate(f"{side} × {side} permuted", (x[place], float(values.mean(0)[place])), (right, -16), textcoords="offset points",
                          color=colours[side])  # fmt: skip
        axes.set_xticks(list(x))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("layer, from the pixels to the outputs")
        axes.set_ylabel("overlap of the two Fishers")

    said = "; ".join(
        f"{side} by {side}: " + ", ".join(f"{value:.2f}" for value in values.mean(0)) for side, values in overlaps.items()
    )
    seeds = len(next(iter(overlaps.values())))
    return draw(
        f"The overlap of the Fishers of two tasks in each layer, mean and range of {seeds} seeds, where the second task has the pixels of a central "
        f"square permuted. From the layer at the pixels to the outputs, {said}.",
        panel,
        size=(4.6, 3.1),
    )


def shares_in_the_answer(separate: Tensor, merged: Tensor) -> Picture:
    """How much each task has in the last answer, (T,) each: a bar for separate springs, a line for merged ones."""

    def panel(axes):
        x = torch.arange(1, len(separate) + 1)
        axes.bar(x, separate, color=ORANGE, width=0.7)
        axes.plot([0.5, len(x) + 0.5], [float(merged[0])] * 2, color=BLUE, ls="--")
        axes.annotate("separate anchors", (1, float(separate[0])), (18, -10), textcoords="offset points", color=ORANGE, ha="left")
        axes.annotate("merged anchors, and the truth", (len(x) / 2 + 0.5, float(merged[0])), (0, 5), textcoords="offset points", color=BLUE, ha="center")
        axes.set_xticks(x.tolist())
        axes.set_xlabel("task")
        axes.set_ylabel("share in the last answer")
        percent(axes)

    said = ", ".join(f"{value:.1%}" for value in separate)
    return draw(
        f"The share of each of {len(separate)} equal tasks in the answer after the last. With merged anchors each has {merged[0]:.0%}. "
        f"With separate anchors, from the first task to the last: {said}.",
        panel,
        size=(5.0, 2.9),
    )


def where_they_end(mean: Tensor, precision: Tensor, merged: Tensor, separate: Tensor) -> Picture:
    """The true posterior of two weights as ellipses of one and two standard deviations, and where springs end.

    Args:
        mean, precision: of the posterior, (2,) and (2, 2).
        merged, separate: the ends of all lessons, (T, 2).
    """
    angle = torch.linspace(0, 2 * math.pi, 121, dtype=mean.dtype)
    circle = torch.stack([angle.cos(), angle.sin()])
    root = torch.linalg.cholesky(torch.linalg.inv(precision))

    def panel(axes):
        for size in (1, 2):
            axes.fill(*(mean[:, None] + size * root @ circle), facecolor=GREEN, alpha=0.2, edgecolor="none")
        for name, way, colour, mark in (("merged", merged, BLUE, "o"), ("separate", separate, ORANGE, "D")):
            axes.plot(way[:, 0], way[:, 1], color=colour, lw=1, marker=".", ms=4)
            axes.plot(*way[-1], color=colour, marker=mark, ms=7, ls="")
            axes.annotate(name, way[-1], (9, 0), textcoords="offset points", color=colour, weight="bold", va="center")
        axes.plot(*mean, color=INK, marker="+", ms=12, ls="")
        axes.annotate("both after task 1", merged[0], (7, 0), textcoords="offset points", va="center")
        axes.margins(0.14)
        axes.set_xlabel("intercept")
        axes.set_ylabel("slope")

    def far(theta):
        return float((theta - mean) @ precision @ (theta - mean)) ** 0.5

    return draw(
        f"A plane of two weights with the true posterior of {len(merged)} tasks as two ellipses, and the ends of the lessons as two paths from one "
        f"point. Merged anchors end on the posterior's mean; separate anchors end {far(separate[-1]):.1f} standard deviations from it.",
        panel,
        size=(4.4, 3.4),
    )


def by_task(accuracies: dict[str, Tensor]) -> Picture:
    """Accuracy on each task after the last one, of two networks, (T,) each, with a name for each."""
    (one, first), (other, second) = accuracies.items()
    both = torch.stack([first, second])
    ends = apart(both[:, -1].tolist(), 0.1 * float(both.max() - both.min()))

    def panel(axes):
        x = range(1, len(first) + 1)
        for name, values, end, colour, line, mark in ((one, first, ends[0], BLUE, "-", "o"), (other, second, ends[1], ORANGE, "--", "D")):
            axes.plot(x, values, color=colour, ls=line, marker=mark, ms=4)
            label(axes, name, (x[-1], end), (8, 0), colour, weight="bold")
        axes.set_xticks(list(x))
        axes.margins(y=0.16)
        axes.set_xlabel("task, in the order of learning")
        axes.set_ylabel("accuracy after the last")
        percent(axes)

    said = "; ".join(f"{name}: " + ", ".join(f"{value:.0%}" for value in values) for name, values in accuracies.items())
    return draw(f"Accuracy on each task after the last one, from the first task to the last. {said}.", panel, size=(5.0, 3.1))


def orders(images: Sequence[Tensor], label: str) -> Picture:
    """One image under several orders of its pixels, each 28 × 28 with values from 0 to 1."""

    def panel(axes):
        for place, image in enumerate(images):
            ink(axes, image, extent=(32 * place, 32 * place + 28, 28, 0))
        axes.set_xlim(0, 32 * len(images) - 4)
        axes.set_ylim(28, 0)
        axes.set_axis_off()

    return draw(
        f"An image of {label} as it is, and then {len(images) - 1} times with its pixels in another random order, in which nothing can be recognised.",
        panel,
        size=(5.4, 1.3),
    )


def searches(found: dict[str, Tuned]) -> Picture:
    """For each method the mean accuracy on held-out images against λ, with a ring around the value that was chosen."""

    def of(name):
        search = found[name]

        def panel(axes):
            axes.plot(search.values, search.found, color=_COLOUR.get(name.split()[0], BLUE), marker="o", ms=4)
            place = search.values.index(search.chosen)
            axes.plot(search.values[place], search.found[place], color=INK, marker="o", ms=11, mfc="none", ls="")
            axes.set_xscale("log")
            axes.margins(x=0.08, y=0.16)
            axes.set_xlabel("λ")
            axes.set_ylabel("held-out images, read correctly")
            axes.set_title(name)
            percent(axes)

        return panel

    said = " ".join(
        f"{name}: " + ", ".join(f"{accuracy:.1%} at {spelled(value)}" for value, accuracy in zip(each.values, each.found, strict=True))
        + f"; chosen is {spelled(each.chosen)}."
        for name, each in found.items()
    )
    return draw(
        f"Mean accuracy on held-out images against λ, on a logarithmic axis, a panel for each method, with a ring around the choice. {said}",
        *map(of, found),
        size=(3.0, 2.5),
    )
