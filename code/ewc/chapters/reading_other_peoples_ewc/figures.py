"""The figures of the chapter on other people's EWC: one function a figure, with its alt text."""


import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    Picture,
    apart,
    draw,
    percent,
)
from torch import Tensor

_COLOURS = {
    "exact": INK,
    "one sampled label": GREEN,
    "empirical": ORANGE,
    "argmax": ORANGE,
    "p(y) · g²": ORANGE,
    "batch mean, squared": BLUE,
    "whole mean, squared": RED,
    "B × B, squared": PURPLE,
}


def scales(looks: list[dict]) -> Picture:
    """The sum of each importance beside that of the exact Fisher, at the first look and at the last, the mean over seeds."""
    names = list(looks[0]["rows"])
    ends = [[torch.tensor(look["rows"][name]["scale"]).log().mean().exp().item() for look in looks] for name in names]

    def panel(axes):
        for row, (name, (early, late)) in enumerate(zip(names, ((end[0], end[-1]) for end in ends), strict=True)):
            colour = _COLOURS[name]
            axes.plot([early, late], [row, row], color=colour, lw=1.2)
            axes.plot(early, row, "o", color=colour, mfc="none", ms=7)
            axes.plot(late, row, "o", color=colour, ms=7)
        axes.axvline(1, color=GREY, lw=1, ls="--", zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.3, -0.7)
        axes.set_xscale("log")
        axes.set_xlabel("sum over all weights, exact = 1")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)

    said = "; ".join(f"{name} {end[0]:.2g} and {end[-1]:.2g}" for name, end in zip(names, ends, strict=True))
    return draw(
        f"For each of {len(names)} importances a line between two dots on a logarithmic axis: its sum, divided by that of the exact Fisher, after "
        f"{looks[0]['pass']} passes, an open dot, and after {looks[-1]['pass']}, a filled one: {said}.",
        panel,
        size=(4.8, 3.1),
    )


def sweeps(look: dict, stiffness) -> Picture:
    """Held-out accuracy, the mean of both tasks, against λ, and against λ times the sum of the importance."""
    rows = {name: row for name, row in look["rows"].items() if name != "argmax"}
    curves = {name: torch.tensor(row["held"]).mean((1, 2)) for name, row in rows.items()}
    strengths = {name: torch.tensor(row["strengths"]).log().mean(1).exp() for name, row in rows.items()}
    dashes = {
        "one sampled label": "--",
        "empirical": "-",
        "p(y) · g²": ":",
        "whole mean, squared": "--",
        "B × B, squared": "-.",
    }
    short = {
        "exact": "exact",
        "one sampled label": "sampled",
        "empirical": "empirical*",
        "batch mean, squared": "batch mean",
        "whole mean, squared": "whole",
        "B × B, squared": "B × B",
    }

    # Names stand above the humps, in three rows, so that neighbours do not meet.
    every = torch.stack(list(curves.values()))
    gap = float(every.max() - every.min())
    ordered = sorted(short, key=lambda name: float(strengths[name][curves[name].argmax()]))
    heights = {name: float(every.max()) + (0.04 + 0.13 * (place % 3)) * gap for place, name in enumerate(ordered)}

    def against(x, label, named):
        def panel(axes):
            for name, curve in curves.items():
                line = {"color": _COLOURS[name], "ls": dashes.get(name, "-"), "lw": 2.4 if name == "exact" else 1.6}
                axes.plot(x[name], curve, **line)
                if named and name in short:
                    top, height = int(curve.argmax()), heights[name]
                    axes.annotate(short[name], (x[name][top], height), color=_COLOURS[name], ha="center", va="bottom", linespacing=0.95)  # fmt: skip
            if not named:
                # Here the humps lie on each other, and the names stand where the curves end.
                ends = apart([float(curves[name][-1]) for name in short], 0.085 * gap)
                for name, end in zip(short, ends, strict=True):
                    axes.annotate(short[name], (x[name][-1], end), (5, 0), textcoords="offset points", color=_COLOURS[name], va="center", annotation_clip=False)  # fmt: skip
            axes.set_xscale("log")
            axes.set_xlabel(label)
            if named:
                axes.set_ylabel("read correctly, both tasks")
            low, high = (
                min(float(curve.min()) for curve in curves.values()),
                max(float(curve.max()) for curve in curves.values()),
            )
            axes.set_ylim(low - 0.02, high + (0.5 if named else 0.1) * (high - low))
            percent(axes)

        return panel

    tops = "; ".join(
        f"{name} {curve.max():.1%} at λ = {strengths[name][curve.argmax()]:.2g}" for name, curve in curves.items()
    )
    same = torch.as_tensor(stiffness)
    return draw(
        f"Mean accuracy on held-out images of both tasks after {look['pass']} passes, in two panels with logarithmic axes. Against λ, the curves of the "
        f"importances are humps at places that lie far apart: {tops}. Against λ times the sum of the importance, most of them lie on each other.",
        against(strengths, "λ", True),
        against(dict.fromkeys(curves, same), "λ · sum of the importance", False),
    )


def batches(sizes: list[int], found: dict[int, Tensor], empirical: dict[int, float]) -> Picture:
    """The sum of the squared batch mean, beside the exact one, against the batch size, for each number of passes."""

    def panel(axes):
        for (passes, values), colour, line in zip(found.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
            axes.loglog(sizes, values, color=colour, ls=line, marker="o", ms=4)
            axes.loglog(sizes, empirical[passes] / torch.tensor(sizes), color=GREY, lw=1, ls=":")
            axes.annotate(
                f"after {passes} passes", (sizes[1], values[1]), (6, 5), textcoords="offset points", color=colour
            )
        axes.annotate(
            "1/B", (sizes[-2], empirical[passes] / sizes[-2]), (0, -14), textcoords="offset points", color=GREY
        )
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size B")
        axes.set_ylabel("sum over all weights, exact = 1")

    said = "; ".join(
        f"after {passes} passes from {values[0]:.2g} to {values[-1]:.2g}" for passes, values in found.items()
    )
    return draw(
        f"On logarithmic axes, the sum of the squared batch mean, divided by that of the exact Fisher, against batch sizes from {sizes[0]} to {sizes[-1]}: {said}. "
        "Dotted lines fall as one over the batch size; the values keep close to them.",
        panel,
        size=(4.4, 2.9),
    )


def lost(rounds, anchors: dict, strengths, thirds: dict, task) -> Picture:
    """What is left of the first task: with an anchor that stays and one that follows; with all springs and the latest alone.

    Args:
        rounds: after how many rounds the anchors were looked at.
        anchors: ``stays`` and ``follows``, each for every strength the accuracies (looks, seeds, tasks).
        thirds: ``kept`` and ``overwritten``, accuracy matrices (seeds, tasks, tasks).
    """
    follow = {way: torch.tensor(values)[..., 0].mean(-1) for way, values in anchors.items()}
    first = {way: torch.tensor(values)[..., 0].mean(0) for way, values in thirds.items()}

    def anchor(axes):
        for way, colour in (("stays", BLUE), ("follows", ORANGE)):
            for values, line in zip(follow[way], ("-", "--"), strict=True):
                axes.plot(rounds, values, color=colour, ls=line, marker="o", ms=4)
        low, high = float(follow["follows"].min()) - 0.05, 1.0
        ends = [
            (float(values[-1]), way, strength)
            for way in follow
            for strength, values in zip(strengths, follow[way], strict=True)
        ]
        for place, (_, way, strength) in zip(
            apart([end for end, *_ in ends], 0.075 * (high - low)), ends, strict=True
        ):
            axes.annotate(f"{way}, λ = {strength:,.0f}", (1, place), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                          color=BLUE if way == "stays" else ORANGE, va="center", annotation_clip=False)  # fmt: skip
        axes.set_title(f"{task.name}, read correctly")
        axes.set_xlabel("rounds of the second task")
        axes.set_ylim(low, high)
        percent(axes)

    def third(axes):
        count = len(first["kept"])
        for way, colour, name in (("kept", BLUE, "all springs"), ("overwritten", ORANGE, "the latest alone")):
            axes.plot(range(1, count + 1), first[way], color=colour, marker="o", ms=4)
            up = way == "kept"
            axes.annotate(name, (count, float(first[way][-1])), (0, 9 if up else -11), textcoords="offset points", color=colour, ha="right",
                          va="bottom" if up else "top")  # fmt: skip
        axes.set_xticks(range(1, count + 1))
        axes.set_title("the first of several, read correctly")
        axes.set_xlabel("tasks learned")
        low = float(first["overwritten"].min())
        axes.set_ylim(low - 0.25 * (1 - low), 1)
        percent(axes)

    ends = "; ".join(
        f"an anchor that {way}, λ = {strength:,.0f}: {values[-1]:.0%}"
        for way in follow
        for strength, values in zip(strengths, follow[way], strict=True)
    )
    return draw(
        f"Two panels of accuracy on the first task. Against rounds of learning the second task, at the end: {ends}. Against the number of tasks learned, with the springs "
        f"of all tasks it ends at {first['kept'][-1]:.0%}, with those of the latest alone at {first['overwritten'][-1]:.0%}.",
        anchor,
        third,
    )


def findings(table: dict[str, dict[str, str | None]]) -> Picture:
    """Which checks of `review` find something in which penalty: a dot where they do."""
    names, checks = list(table), list(next(iter(table.values())))

    def panel(axes):
        for row, name in enumerate(names):
            for column, check in enumerate(checks):
                if table[name][check] is not None:
                    axes.plot(column, row, "s", color=RED, ms=9)
                else:
                    axes.plot(column, row, ".", color=GREY, ms=3)
        axes.set_xticks(range(len(checks)), [str(place) for place in range(1, len(checks) + 1)])
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(checks) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(left=False, top=False)
        axes.spines[:].set_visible(False)

    said = "; ".join(
        f"{name}: {', '.join(str(place) for place, check in enumerate(checks, 1) if table[name][check]) or 'none'}"
        for name in names
    )
    return draw(f"A table of {len(names)} penalties and {len(checks)} checks, with a red square where a check finds something. {said}.",
                panel, size=(4.2, 0.24 * len(names) + 0.5))  # fmt: skip
