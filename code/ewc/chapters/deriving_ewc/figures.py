"""The figure of Deriving EWC: one function a figure, with its alt text."""

from ewc.workshop.drawing import BLUE, GREEN, ORANGE, Picture, draw
from torch import Tensor


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
