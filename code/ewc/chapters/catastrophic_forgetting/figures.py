"""The figures of Catastrophic forgetting: one function a figure, with its alt text."""

from collections.abc import Sequence

from ewc.workshop.drawing import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    draw,
    ink,
    looks_of,
    mean_and_range,
    steps_axis,
)
from torch import Tensor


def collapse(records, tasks) -> Picture:
    """Accuracy on both tasks while the second is learned, over records of `experiments.two_tasks`."""
    steps, accuracies = looks_of(records, 1)
    first, second = (accuracies[:, :, place] for place in (0, 1))
    before, after = first[:, 0].mean(), first[:, -1].mean()

    def panel(axes):
        x = [max(step, 0.7) for step in steps]
        for values, colour, task in ((first, BLUE, tasks[0]), (second, ORANGE, tasks[1])):
            mean_and_range(axes, x, values, colour)
            axes.annotate(task.name, (1, float(values[:, -1].mean())), (4, 0), xycoords=("axes fraction", "data"),
                          textcoords="offset points", color=colour, va="center", annotation_clip=False)  # fmt: skip
        steps_axis(axes, steps, f"steps of learning {tasks[1].name}")
        axes.axhline(0.1, color=GREY, lw=1, ls=":")
        axes.annotate("guessing", (0.7, 0.1), (0, 3), textcoords="offset points", color=GREY)
        axes.set_ylabel("read correctly")

    return draw(
        f"Accuracy against steps of learning {tasks[1].name}, on a logarithmic axis, mean and range of {len(records)} seeds. "
        f"{tasks[0].name} falls from {before:.0%} to {after:.0%}, most of it within the first {_half_lost(steps, first)} steps, while "
        f"{tasks[1].name} rises to {second[:, -1].mean():.0%}.",
        panel,
    )


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
            ink(inset, image.squeeze())
            inset.set_xticks([])
            inset.set_yticks([])
            inset.set_title(label, loc="center", pad=3)

    return draw(
        f"Ten test images of {tasks[0].name}, one of each class in order, and above each the name in {tasks[1].name} of the answer that "
        f"the network gives after learning {tasks[1].name}: {', '.join(labels)}.",
        panel,
        size=(5.4, 2.7),
    )
