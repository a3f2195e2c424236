"""The figures of the chapter on a harder world that are its own: what is learned, and where its springs are."""

from collections.abc import Sequence
from math import log

from ewc.tasks import Task
from ewc.workshop.drawing import BLUE, INK, ORANGE, Picture, draw, ink
from torch import Tensor


def lessons(parts: Sequence[Task]) -> Picture:
    """The tasks in the order of learning, each as the first training image of each of its classes."""

    def panel(axes):
        for place, part in enumerate(parts):
            for row, label in enumerate(part.train_targets.unique().tolist()):
                image = part.train_inputs[part.train_targets == label][0].squeeze(0)
                left, top = 36 * place, 30 * row
                ink(axes, image, extent=(left, left + 28, top + 28, top))
            axes.annotate(f"lesson {place + 1}", (36 * place + 14, -3), ha="center", va="bottom", color=INK, annotation_clip=False)
        axes.set_xlim(0, 36 * len(parts) - 8)
        axes.set_ylim(58, -10)
        axes.set_axis_off()

    said = "; ".join(" and ".join(part.classes[label] for label in part.train_targets.unique().tolist()) for part in parts)
    return draw(f"Two images above each other for each of {len(parts)} lessons, one of each of its classes: {said}.", panel, size=(5.4, 2.0))


def by_layer(shares: dict[str, Tensor]) -> Picture:
    """For each layer its share of all weights and of the Fisher information of all, (seeds,) each; by the layer's name."""
    names, rows = list(shares), range(len(shares))
    means = {name: [float(part.mean()) for part in parts] for name, parts in shares.items()}

    def panel(axes):
        for row, name in zip(rows, names, strict=True):
            of_weights, of_fisher = means[name]
            axes.plot([of_weights, of_fisher], [row, row], color=INK, lw=0.8, alpha=0.5)
            axes.plot(of_weights, row, color=ORANGE, marker="D", ms=6, ls="")
            axes.plot(of_fisher, row, color=BLUE, marker="o", ms=7, ls="")
        # named where the two marks are farthest apart
        row = max(rows, key=lambda row: abs(log(means[names[row]][0] / means[names[row]][1])))
        for said, value, colour, up in zip(("of the weights", "of the Fisher information"), means[names[row]], (ORANGE, BLUE), (7, -7), strict=True):
            side, va = "right" if value > 0.3 else "center", "bottom" if up > 0 else "top"
            axes.annotate(said, (value, row), (0, up), textcoords="offset points", color=colour, ha=side, va=va)
        axes.set_xscale("log")
        axes.set_xlim(0.002, 1.4)
        axes.set_xticks([0.01, 0.1, 1], ["1%", "10%", "100%"])
        axes.minorticks_off()
        axes.set_yticks(rows, names)
        axes.set_ylim(len(names) - 0.3, -0.8)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share, on a logarithmic axis")

    said = "; ".join(f"{name}: {weights:.1%} and {fisher:.1%}" for name, (weights, fisher) in means.items())
    seeds = len(next(iter(shares.values()))[1])
    return draw(
        f"For each layer two marks, its share of all weights and its share of the Fisher information of all, mean of {seeds} seeds. {said}.",
        panel,
        size=(5.2, 3.0),
    )
