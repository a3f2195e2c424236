"""The figures of the chapter on tempting fixes: one function a figure, with its alt text."""


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
    percent,
)
from torch import Tensor


def exchange(way: Tensor, fixes: dict[str, tuple], before: float, tasks) -> Picture:
    """Both accuracies after the second lesson, for each fix a line through the amounts that were tried of it.

    Args:
        way: the accuracies (looks, 2) on the way of plain descent through the second lesson.
        fixes: by the fix's name, its points (amounts, 2) and the amounts in words.
        before: accuracy on the first task before the second lesson.
    """
    colours = dict(zip(fixes, (ORANGE, RED, PURPLE, BLUE, GREEN), strict=False))
    marks = dict(zip(fixes, "osD^v", strict=False))

    def panel(axes):
        axes.plot(way[:, 0], way[:, 1], color=GREY, ls=":", lw=1.4)
        axes.plot(*way[-1], color=INK, marker="X", ms=8, ls="")
        axes.annotate("plain", way[-1], (-8, 0), textcoords="offset points", ha="right", va="center", color=INK)
        for name, (points, amounts) in fixes.items():
            axes.plot(points[:, 0], points[:, 1], color=colours[name], marker=marks[name], ms=5, lw=1)
            # The first amount with the fix's name to the left of its mark, the last one below or above its own.
            raised = {"replay": 8, "L2": -2}.get(name, 0)  # these two begin at nearly the same place
            axes.annotate(f"{name} {amounts[0]}", points[0], (-6, raised), textcoords="offset points", ha="right", va="center",
                          color=colours[name])  # fmt: skip
            if len(points) > 1:
                down = points[-1, 1] < points[0, 1] - 0.02
                axes.annotate(amounts[-1], points[-1], (0, -18 if down else 8), textcoords="offset points", ha="center",
                              color=colours[name], bbox=ON_PAPER)  # fmt: skip
        axes.axvline(before, color=GREY, lw=1, ls="--")
        axes.set_xlim(0, 1.06)
        every = torch.cat([points for points, _ in fixes.values()])
        low = min(float(every[:, 1].min()), float(way[-1, 1])) - 0.05
        axes.set_ylim(low, min(1.06, float(every[:, 1].max()) + 0.05))
        axes.set_xlabel(f"{tasks[0].name}, read correctly")
        axes.set_ylabel(f"{tasks[1].name}, read correctly")
        percent(axes, "x")
        percent(axes)

    said = "; ".join(
        f"{name} "
        + ", ".join(f"({amount}) {a:.0%} and {b:.0%}" for amount, (a, b) in zip(amounts, points.tolist(), strict=True))
        for name, (points, amounts) in fixes.items()
    )
    return draw(
        f"Accuracy on {tasks[1].name} against accuracy on {tasks[0].name} after the second lesson. Plain descent ends at {way[-1, 0]:.0%} and {way[-1, 1]:.0%}. "
        f"The fixes, {tasks[0].name} first: {said}. A dashed line marks what was known of {tasks[0].name} before, {before:.0%}.",
        panel,
        size=(4.4, 3.6),
    )


_PATHS = {"plain": (GREY, ":"), "L2": (ORANGE, "--"), "EWC": (INK, "-")}


def two_regions(
    grid, rises: tuple[Tensor, Tensor], tolerance: float, paths: dict[str, Tensor], strength: float
) -> Picture:
    """Figure 1 of the EWC paper: where each task's loss is within `tolerance` of its best, and ways from A's optimum.

    Args:
        grid: a `grid.Grid` over the two weights.
        rises: of each task, at the points of the grid, how far its loss is above its best.
        paths: ``plain``, ``L2`` and ``EWC``, each (steps + 1, 2).
        strength: λ, for the description.
    """

    def panel(axes):
        across, up = grid.axes
        for rise, colour, name, place in ((rises[0], BLUE, "A", (1.7, -3.0)), (rises[1], GREEN, "B", (3.6, 5.6))):
            axes.contourf(across, up, rise.T, [-1, tolerance], colors=[colour], alpha=0.3)
            axes.contour(across, up, rise.T, [tolerance], colors=[colour], linewidths=1.2)
            axes.annotate(f"{name} is good", place, color=colour, weight="bold", ha="center", va="center")
        start = paths["plain"][0]
        for name, path in paths.items():
            colour, line = _PATHS[name]
            axes.plot(*_thinned(path).T, color=colour, ls=line)
            axes.plot(*path[-1], color=colour, marker={"plain": "s", "L2": "D", "EWC": "o"}[name], ms=6)
        axes.plot(*start, marker="o", ms=6, mfc="none", color=INK)
        axes.annotate("start", start, (-7, 0), textcoords="offset points", ha="right", va="center", color=INK)
        _name_ends(axes, paths)
        axes.set_xlabel("first weight, $\\theta_1$")
        axes.set_ylabel("second weight, $\\theta_2$")
        axes.set_xlim(float(across[0]), float(across[-1]))
        axes.set_ylim(float(up[0]), float(up[-1]))

    ends = {name: path[-1].tolist() for name, path in paths.items()}
    inside = {
        name: " and ".join(
            task for task, rise in zip("AB", rises, strict=True) if _at(grid, rise, path[-1]) <= tolerance
        )
        for name, path in paths.items()
    }
    said = "; ".join(
        f"{name} ends at ({x:.2f}, {y:.2f}), {'in the region of ' + inside[name] if inside[name] else 'outside both regions'}"
        for name, (x, y) in ends.items()
    )
    return draw(
        "A plane of two weights with two regions of low loss, a tall one for task A and a rounder one for task B, which overlap. Three paths start from "
        f"the middle of A's region, with λ = {strength:g}: {said}.",
        panel,
        size=(4.2, 3.9),
    )


def _name_ends(axes, paths):
    """Each name beside its end; two that end together share a place, one name above the other."""
    placed = []
    for name in ("EWC", "L2", "plain"):
        end = paths[name][-1]
        near = sum(float((end - other).norm()) < 1.0 for other in placed)
        shift = {"EWC": (-8, 5 - 15 * near), "L2": (8, -3 - 15 * near), "plain": (9, -3 - 15 * near)}[name]
        axes.annotate(
            name,
            end,
            shift,
            textcoords="offset points",
            ha="right" if name == "EWC" else "left",
            color=_PATHS[name][0],
            weight="bold",
        )
        placed.append(end)


def _thinned(path, points=60):
    """The path with next to equal distances between its points: most of a descent's steps lie on top of one another."""
    length = path.diff(dim=0).norm(dim=1).cumsum(0)
    chosen = torch.searchsorted(length, torch.linspace(0, float(length[-1]), points, dtype=length.dtype))
    return path[
        torch.cat([torch.tensor([0]), chosen + 1, torch.tensor([len(path) - 1])]).clamp(max=len(path) - 1).unique()
    ]


def _at(grid, values, point):
    """The value at the grid's point that is nearest."""
    return float(values[tuple(int((axis - x).abs().argmin()) for axis, x in zip(grid.axes, point, strict=True))])


def worse_of_both(strengths: Tensor, worse: dict[str, Tensor], tolerance: float) -> Picture:
    """Against λ, the rise of the loss of whichever task is worse off where L2 and EWC end."""

    def panel(axes):
        for name, values in worse.items():
            axes.plot(strengths, values, color=_PATHS[name][0], ls=_PATHS[name][1])
            place = -1
            axes.annotate(name, (strengths[place], values[place]), (5, 0), textcoords="offset points", color=_PATHS[name][0], va="center",
                          annotation_clip=False, weight="bold")  # fmt: skip
        axes.axhspan(0, tolerance, color=GREEN, alpha=0.15, lw=0)
        axes.annotate(
            "good for both", (float(strengths[0]), tolerance), (4, -12), textcoords="offset points", color=GREEN
        )
        axes.set_xscale("log")
        axes.set_ylim(0, None)
        axes.set_xlim(float(strengths[0]), float(strengths[-1]))
        axes.set_xlabel("λ, the weight of the old task")
        axes.set_ylabel("rise of the loss,\ntask that is worse off")

    low = {name: (float(values.min()), float(strengths[values.argmin()])) for name, values in worse.items()}
    return draw(
        "Against λ on a logarithmic axis, how far the loss of the task that is worse off lies above its best. "
        + " ".join(f"For {name} it is lowest at λ = {at:.2g}, with {value:.3f}." for name, (value, at) in low.items())
        + f" Only values below {tolerance:g}, a band along the bottom, are good for both tasks: EWC's curve dips into it, and that of L2 does not.",
        panel,
        size=(4.4, 2.9),
    )
