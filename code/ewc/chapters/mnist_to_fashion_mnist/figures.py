"""The figures of MNIST to Fashion-MNIST with EWC: one function a figure, with its alt text."""

from itertools import pairwise

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
    looks_of,
    mean_and_range,
    percent,
    steps_axis,
)
from torch import Tensor


def kept(plain, ewc, tasks) -> Picture:
    """Accuracy on each task while the second is learned, with plain descent and with EWC."""
    steps, before = looks_of(plain, 1)
    _, after = looks_of(ewc, 1)

    def of_task(place):
        def panel(axes):
            x = [max(step, 0.7) for step in steps]
            ends = (float(before[:, -1, place].mean()), float(after[:, -1, place].mean()))
            apart = 0.035 if abs(ends[0] - ends[1]) < 0.08 else 0
            for values, colour, name, end, lift in (
                (before, ORANGE, "plain", ends[0], apart),
                (after, BLUE, "EWC", ends[1], -apart),
            ):
                mean_and_range(axes, x, values[:, :, place], colour)
                higher = lift if ends[0] >= ends[1] else -lift
                axes.annotate(name, (1, end + higher), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=colour,
                              va="center", annotation_clip=False)  # fmt: skip
            steps_axis(axes, steps, f"steps of learning {tasks[1].name}")
            axes.set_title(f"{tasks[place].name}, read correctly")

        return panel

    return draw(
        f"Accuracy against steps of learning {tasks[1].name}, mean and range of {len(ewc)} seeds. On {tasks[0].name}, plain descent ends at "
        f"{before[:, -1, 0].mean():.0%} and EWC at {after[:, -1, 0].mean():.0%}; on {tasks[1].name}, "
        f"at {before[:, -1, 1].mean():.0%} and {after[:, -1, 1].mean():.0%}.",
        of_task(0),
        of_task(1),
    )


def gap(runs: dict, tasks) -> Picture:
    """The accuracy on the first task after each of the first steps of the second, mean and range over seeds, for up to four ways to learn."""
    curves = {name: torch.tensor([run.result["first"] for run in own]) for name, own in runs.items()}
    steps = next(iter(runs.values()))[0].result["steps"]

    def panel(axes):
        ends = apart([float(values.mean(0)[-1]) for values in curves.values()], 0.09)
        for (name, values), colour, end in zip(curves.items(), (ORANGE, BLUE, PURPLE, GREEN), ends, strict=False):
            mean_and_range(axes, steps, values, colour)
            label(axes, name, (steps[-1], end), (4, 0), colour)
        axes.set_xlim(0, steps[-1])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"steps of learning {tasks[1].name}")
        axes.set_title(f"{tasks[0].name}, read correctly")
        percent(axes)

    told = "; ".join(
        f"{name} from {values[:, 0].mean():.0%} to {values.mean(0).min():.0%} and then {values[:, -1].mean():.0%}" for name, values in curves.items()
    )
    return draw(f"Accuracy on {tasks[0].name} after each of the first {steps[-1]} steps of learning {tasks[1].name}, mean of {len(runs['EWC'])} seeds: {told}.", panel)


def opening(runs, tasks, name) -> Picture:
    """The first picture of the book: both accuracies while the second task is learned, one way of learning a picture.

    Two of these, of two ways, lie on each other, so all of it stands at the same places: a fixed scale, and the words outside.
    """
    steps, values = looks_of(runs, 1)
    x = [max(step, 0.7) for step in steps]
    ends = values[:, -1].mean(0)
    heights = apart([float(end) for end in ends], 0.1)

    def panel(axes):
        for place, colour in ((0, BLUE), (1, GREY)):
            mean_and_range(axes, x, values[:, :, place], colour, linewidth=2.6 if place == 0 else 1.8)
            axes.annotate(tasks[place].name, (1, heights[place]), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                          color=colour, va="center", annotation_clip=False)  # fmt: skip
        steps_axis(axes, steps, f"steps of learning {tasks[1].name}")
        axes.set_title("read correctly")

    return draw(
        f"{name}: accuracy against steps of learning {tasks[1].name}, mean and range of {len(runs)} seeds. {tasks[0].name} goes from "
        f"{values[:, 0, 0].mean():.0%} to {ends[0]:.0%}, and {tasks[1].name} from {values[:, 0, 1].mean():.0%} to {ends[1]:.0%}.",
        panel,
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
            ink(axes, image / image.max())
            axes.set_axis_off()

        return panel

    share = float((fisher_of_pixels < 0.01 * fisher_of_pixels.max()).float().mean())
    return draw(
        f"Two pictures of 28 by 28 pixels. First the mean image of {task.name}. Second, for each pixel, the Fisher information of "
        f"the weights that read it: much where strokes vary, and under a hundredth of its maximum on {share:.0%} of the pixels.",
        shown(mean_image),
        shown(fisher_of_pixels),
        size=(3.0, 3.0),
    )
