"""The figures of the chapter on choosing λ: one function a figure, with its alt text.

Accuracies come as a dictionary from λ to a tensor (runs, tasks); a run that ran away is a row of nan.
"""


import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ON_PAPER,
    ORANGE,
    PURPLE,
    RED,
    Picture,
    draw,
    ink,
    label,
    percent,
)
from ewc.workshop.page import spelled
from torch import Tensor

Accuracies = dict[float, Tensor]


def inverted_u(sweeps: dict[str, tuple[Accuracies, Tensor]]) -> Picture:
    """The mean accuracy over all tasks against λ, each run a dot; for each sweep a panel.

    Args:
        sweeps: by title, the accuracies by λ, and those of joint training (runs, tasks).
    """

    def of(title):
        accuracies, together = sweeps[title]

        def panel(axes):
            floor = _floor(accuracies)
            _curve(axes, accuracies, BLUE, floor)
            axes.axhline(float(together.mean()), color=GREY, lw=1, ls="--")
            axes.annotate("both at once" if together.shape[1] == 2 else "all at once", (0, float(together.mean())), (2, 3),
                          xycoords=("axes fraction", "data"), textcoords="offset points", color=GREY)  # fmt: skip
            _strength_axis(axes, accuracies)
            axes.set_ylim(floor - 0.04, float(together.mean()) + 0.07)
            axes.set_ylabel("mean accuracy, all tasks")
            percent(axes)
            axes.set_title(title)

        return panel

    said = []
    for title, (accuracies, together) in sweeps.items():
        means = _means(accuracies)
        best = max(means, key=means.get)
        lost = _lost(accuracies)
        said.append(
            f"{title}: {', '.join(f'{value:.0%} at {spelled(strength)}' for strength, value in means.items())}; the best is λ = {spelled(best)}; "
            + (
                f"runs ran away at {', '.join(f'{spelled(strength)} ({count})' for strength, count in lost.items())}; "
                if lost
                else ""
            )
            + f"a dashed line marks joint training, {together.mean():.0%}."
        )
    runs = len(next(iter(next(iter(sweeps.values()))[0].values())))
    return draw(
        f"Mean accuracy over all tasks against λ on a logarithmic axis, in {len(sweeps)} panels, {runs} runs each, crosses for runs that ran away. "
        + " ".join(said),
        *map(of, sweeps),
    )


def front(
    sweeps: dict[str, tuple[Accuracies, Tensor]],
    labelled: dict[str, dict[float, tuple]],
    axes_of: dict[str, tuple[str, str]],
) -> Picture:
    """Accuracy on the newest task against that on the old ones, means over runs, a point for each λ, and joint training's.

    Args:
        sweeps: as in `inverted_u`.
        labelled: by title and λ, where its label stands: (points right, points up, horizontal alignment).
        axes_of: by title, the words for old and new.
    """
    ends = {
        title: (
            {strength: _old_and_new(values) for strength, values in accuracies.items() if not values.isnan().all()},
            _old_and_new(together),
        )
        for title, (accuracies, together) in sweeps.items()
    }

    def of(title):
        points, corner = ends[title]

        def panel(axes):
            way = torch.tensor([points[strength] for strength in sorted(points)])
            axes.plot(*way.T, color=BLUE, marker="o", ms=5, lw=1)
            for strength, (right, up, side) in labelled[title].items():
                if strength in points:
                    axes.annotate(spelled(strength), points[strength], (right, up), textcoords="offset points", ha=side, va="center", color=BLUE, bbox=ON_PAPER)  # fmt: skip
            axes.plot(*corner, color=INK, marker="*", ms=11, ls="")
            axes.annotate("joint", corner, (0, 12), textcoords="offset points", ha="center", va="center")
            every = torch.cat([way, torch.tensor([corner])])
            low, high = every.amin(0), every.amax(0)
            room = 0.12 * (high - low)
            axes.set_xlim(float(low[0] - room[0]), float(high[0] + room[0]))
            axes.set_ylim(float(low[1] - room[1]), float(high[1] + 1.6 * room[1]))
            old, new = axes_of[title]
            axes.set_xlabel(old)
            axes.set_ylabel(new)
            percent(axes, "x")
            percent(axes)
            axes.set_title(title)

        return panel

    said = " ".join(
        f"{title}, {axes_of[title][0]} and then {axes_of[title][1]}: "
        + "; ".join(f"λ = {spelled(strength)} {old:.0%} and {new:.0%}" for strength, (old, new) in sorted(points.items()))
        + f"; joint training {corner[0]:.0%} and {corner[1]:.0%}."
        for title, (points, corner) in ends.items()
    )
    return draw(
        f"Accuracy on the newest task against accuracy on the old, a point for each λ, means over runs. {said}",
        *map(of, sweeps),
    )


def ways_out(sweeps: dict[str, dict[str, Accuracies]]) -> Picture:
    """The mean accuracy over all tasks against λ when the penalty's step is taken in different ways; for each sweep a panel."""
    styles = {"explicit": (GREY, "-"), "capped": (ORANGE, "--"), "proximal": (BLUE, "-")}

    def of(title):
        def panel(axes):
            floor = min(map(_floor, sweeps[title].values()))
            for way, accuracies in sweeps[title].items():
                _curve(axes, accuracies, styles[way][0], floor, styles[way][1], way == "explicit")
            top = max(max(_means(accuracies).values()) for accuracies in sweeps[title].values())
            for way in sweeps[title]:
                axes.plot([], [], color=styles[way][0], ls=styles[way][1], marker="o", ms=3.5, label=way)
            axes.legend(loc="lower left", frameon=False, labelcolor="linecolor")
            _strength_axis(axes, {strength: None for means in sweeps[title].values() for strength in means})
            axes.set_ylim(floor - 0.04, top + 0.06)
            axes.set_ylabel("mean accuracy, all tasks")
            percent(axes)
            axes.set_title(title)

        return panel

    said = " ".join(
        f"{title}: "
        + "; ".join(
            f"{way} "
            + ", ".join(f"{value:.0%} at {spelled(strength)}" for strength, value in _means(accuracies).items())
            + "".join(f", {count} ran away at {spelled(strength)}" for strength, count in _lost(accuracies).items())
            for way, accuracies in ways.items()
        )
        + "."
        for title, ways in sweeps.items()
    )
    return draw(
        f"Mean accuracy over all tasks against λ for ways of taking the penalty's step, crosses for runs that ran away. {said}",
        *map(of, sweeps),
    )


def running_away(losses: dict[str, Tensor], styles: dict[str, str], start: float) -> Picture:
    """The loss of the second task plus the penalty, step by step, for several steps; by name, (steps + 1,)."""

    def panel(axes):
        ends = {name: float(values[values.isfinite()][-1]) for name, values in losses.items()}
        lifts = dict(zip(sorted(ends, key=ends.get), (-6, 5, 0), strict=True))  # the lower two end near each other
        for (name, values), colour in zip(losses.items(), (GREEN, RED, BLUE), strict=True):
            axes.plot(values, color=colour, ls=styles[name])
            axes.annotate(name, (int(values.isfinite().sum()) - 1, ends[name]), (5, lifts[name]), textcoords="offset points", color=colour, va="center",
                          annotation_clip=False)  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlim(0, max(map(len, losses.values())) - 1)
        axes.set_xlabel("steps")
        axes.set_ylabel("loss with penalty")

    ends = "; ".join(f"{name}: {float(values[values.isfinite()][-1]):.2g}" for name, values in losses.items())
    return draw(
        f"Loss with penalty against steps, on a logarithmic axis, from {start:.2g}. After {max(map(len, losses.values())) - 1} steps it is, {ends}.",
        panel,
        size=(4.6, 3.0),
    )


def what_is_known(strengths: Tensor, rises: dict[str, Tensor]) -> Picture:
    """What the old task lost on the way to the end of the second lesson, against λ: the true rise, and the parabolas'."""
    styles = {
        "true rise": (BLUE, "-", "o"),
        "whole Fisher": (GREEN, "-.", "s"),
        "Kronecker": (PURPLE, ":", "D"),
        "diagonal": (ORANGE, "--", "^"),
    }

    def panel(axes):
        for name, values in rises.items():
            colour, line, mark = styles[name]
            axes.plot(strengths, values, color=colour, ls=line, marker=mark, ms=4)
        ends = sorted(rises, key=lambda name: float(rises[name][-1]))
        heights = torch.tensor([float(rises[name][-1].log10()) for name in ends])
        least = 0.07 * float(
            torch.cat(list(rises.values())).log10().amax() - torch.cat(list(rises.values())).log10().amin()
        )
        for place in range(1, len(ends)):
            heights[place] = max(heights[place], heights[place - 1] + least)
        for name, height in zip(ends, heights.tolist(), strict=True):
            axes.annotate(name, (float(strengths[-1]), 10**height), (8, 0), textcoords="offset points", color=styles[name][0],
                          va="center", annotation_clip=False)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("λ of the second lesson")
        axes.set_ylabel("rise of the old task's loss")

    said = "; ".join(
        f"{name} " + ", ".join(f"{value:.2g}" for value in values.tolist()) for name, values in rises.items()
    )
    return draw(
        "For networks at the end of the second lesson, against λ, both axes logarithmic: the rise of the old task's loss and what three parabolas "
        f"say of it. At λ = {', '.join(map(spelled, strengths.tolist()))}: {said}.",
        panel,
    )


def what_it_misreads(strength: float, way: str, accuracies, wrong: list[tuple[Tensor, list[str]]], tasks) -> Picture:
    """One network of the sweep: its accuracies, and for each task the first eight test images that it gets wrong, with its answers.

    Args:
        accuracies: on each of the tasks.
        wrong: for each task at most eight images (n, 1, 28, 28) and the classes that the network takes them for.
    """

    def bars(axes):
        axes.bar([0, 1], accuracies, color=[BLUE, ORANGE], width=0.6)
        for place, value in enumerate(accuracies):
            axes.annotate(f"{value:.1%}", (place, value), (0, 3), textcoords="offset points", ha="center")
        axes.set_xticks([0, 1], [task.name for task in tasks])
        axes.set_xlim(-0.6, 1.6)
        axes.set_ylim(0, 1.08)
        axes.set_title(f"read correctly, λ = {spelled(strength)}")
        percent(axes)

    def sheet(axes):
        axes.set_axis_off()
        for row, ((images, answers), task, colour) in enumerate(zip(wrong, tasks, (BLUE, ORANGE), strict=True)):
            axes.text(
                0,
                1.0 - 0.52 * row,
                f"{task.name}, and what it is taken for",
                color=colour,
                va="center",
                transform=axes.transAxes,
            )
            for place, (image, answer) in enumerate(zip(images, answers, strict=True)):
                across, down = place % 4, place // 4
                left, bottom = across / 4 + 0.05, 0.78 - 0.52 * row - 0.22 * down
                # Axes of its own for each image would take as long as the rest of the figure.
                ink(axes, image.squeeze(), extent=(left, left + 0.14, bottom, bottom + 0.135), aspect="auto")
                label(axes, answer, (left + 0.07, bottom + 0.135), (0, 2.5), INK, ha="center", va="baseline")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    said = " ".join(
        f"Of {task.name} it takes the first images that it gets wrong for {', '.join(answers)}."
        if answers
        else f"Of {task.name} it gets none wrong."
        for (_, answers), task in zip(wrong, tasks, strict=True)
    )
    return draw(
        f"The network of λ = {spelled(strength)} ({way} steps): bars, {tasks[0].name} {accuracies[0]:.1%} and {tasks[1].name} {accuracies[1]:.1%} read correctly, "
        f"and for each the first eight test images that it gets wrong. {said}",
        bars,
        sheet,
        size=(3.5, 3.6),
    )


def _means(accuracies):
    """The mean over tasks and the runs that did not run away, where there are such."""
    return {
        strength: float(values.mean(1).nanmean()) for strength, values in accuracies.items() if not values.isnan().all()
    }


def _lost(accuracies):
    counts = {strength: int(values.isnan().any(1).sum()) for strength, values in accuracies.items()}
    return {strength: count for strength, count in counts.items() if count}


def _floor(accuracies):
    return min(float(values.mean(1).nan_to_num(1.0).min()) for values in accuracies.values()) - 0.06


def _old_and_new(values):
    kept = values[~values.isnan().any(1)]
    return float(kept[:, :-1].mean()), float(kept[:, -1].mean())


def _place(strength, lowest):
    """0 stands a little to the left of the smallest λ above it."""
    return strength or lowest / 3


def _curve(axes, accuracies, colour, floor, line="-", crosses=True):
    lowest = min(strength for strength in accuracies if strength)
    means = _means(accuracies)
    axes.plot([_place(strength, lowest) for strength in means], list(means.values()), color=colour, ls=line)
    for strength, values in accuracies.items():
        each = values.mean(1)
        axes.plot([_place(strength, lowest)] * len(each), each, color=colour, marker="o", ms=3.5, ls="", alpha=0.7)
        if crosses and each.isnan().any():
            count = int(each.isnan().sum())
            axes.plot([_place(strength, lowest)], [floor], color=RED, marker="x", ms=6, ls="")
            axes.annotate(
                f"{count}",
                (_place(strength, lowest), floor),
                (0, 6),
                textcoords="offset points",
                ha="center",
                color=RED,
            )


def _strength_axis(axes, strengths):
    axes.set_xscale("log")
    lowest = min(strength for strength in strengths if strength)
    ticks = [strength for strength in strengths if strength in (1, 10, 100, 1e3, 1e4, 1e5)]
    names = {1: "1", 10: "10", 100: "100", 1e3: "10³", 1e4: "10⁴", 1e5: "10⁵"}
    places, labels = [float(tick) for tick in ticks], [names[tick] for tick in ticks]
    if 0 in strengths:
        places, labels = [lowest / 3, *places], ["0", *labels]
    axes.set_xticks(places, labels)
    axes.minorticks_off()
    axes.set_xlabel("λ")
