"""The figures of Yesterday's posterior is today's prior: one function a figure, with its alt text."""

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SINGLE,
    Picture,
    curve_only,
    draw,
    ellipse,
    fixed,
    label,
    peak,
    plane,
    shade,
)
from ewc.workshop.frames import Frames, frames
from torch import Tensor


def coin_in_two(theta: Tensor, morning: Tensor, evening: Tensor, whole: Tensor, counts: tuple) -> Picture:
    """Densities over a coin's chance of heads: after the morning, and after the whole day, learned in two ways."""

    def panel(axes):
        axes.plot(theta, morning, color=BLUE)
        axes.plot(theta, evening, color=ORANGE)
        every = slice(None, None, max(1, len(theta) // 40))
        axes.plot(theta[every], whole[every], color=INK, ls="", marker="o", ms=4, mfc="none", mew=1)
        axes.set_xlim(0, 0.8)
        curve_only(axes)
        axes.set_xlabel("chance of heads, $\\theta$")
        beside = int((morning > 0.75 * morning.max()).nonzero()[0])
        label(
            axes,
            f"after the\nmorning\n({counts[0]} tosses)",
            (theta[beside], morning[beside]),
            (-14, 0),
            BLUE,
            ha="right",
        )
        y = float(evening.max())
        beside = int((evening > 0.6 * y).nonzero()[-1])
        label(axes, f"after the afternoon\n(line: the card and {counts[1]} tosses;\ncircles: all {sum(counts)} tosses)", (theta[beside], evening[beside]), (10, 8), ORANGE)  # fmt: skip

    (first, _), (last, _) = peak(theta, morning), peak(theta, evening)
    return draw(
        f"Two bell-shaped curves over a coin's chance of heads. The one after the morning is wide, with its peak at {first:.2f}; the one after the afternoon "
        f"is narrower, with its peak at {last:.2f}. Circles, from all {sum(counts)} tosses at once, lie on the second curve.",
        panel,
        size=SINGLE,
    )


def parabolas_add(theta: Tensor, kept: Tensor, new: Tensor, whole: Tensor) -> Picture:
    """The parabola that the morning leaves, that of the afternoon's readings, their sum, and that of all readings."""

    def panel(axes):
        total = kept + new
        lift = float(total.min())
        axes.plot(theta, kept, color=BLUE, ls="--")
        axes.plot(theta, new, color=ORANGE, ls="-.")
        axes.plot(theta, total, color=INK)
        every = slice(None, None, max(1, len(theta) // 45))
        axes.plot(theta[every], whole[every] + lift, color=GREEN, ls="", marker="o", ms=4.5)
        top = 16
        axes.set_ylim(0, top)
        axes.set_xlim(float(theta[0]), float(theta[-1]))
        axes.set_xlabel("weight of the stone in grams, $\\theta$")
        axes.set_ylabel("− log density")
        for values, text, colour, share, side in (
            (kept, "the card of\nthe morning", BLUE, 0.5, -1),
            (new, "the afternoon's\nreadings", ORANGE, 0.4, 1),
        ):
            inside = (values < share * top).nonzero().flatten()
            place = inside[0] if side < 0 else inside[-1]
            label(axes, text, (theta[place], values[place]), (8 * side, 0), colour, ha="right" if side < 0 else "left")
        x = float(theta[total.argmin()])
        label(axes, "their sum; dots: the parabola of all readings", (x, top), (0, 9), INK, ha="center")

    return draw(
        "Three parabolas over the weight of the stone: the card of the morning with its lowest point at "
        f"{float(theta[kept.argmin()]):.1f} grams, the afternoon's readings at {float(theta[new.argmin()]):.1f}, and their sum, steeper than both, at "
        f"{float(theta[(kept + new).argmin()]):.1f}. The dots of the parabola of all readings lie on the sum.",
        panel,
        size=SINGLE,
    )


def line_in_two(halves, first, second, both, whole, upright) -> Picture:
    """A line learned from two halves: the data, and the ellipses of the posteriors over intercept and slope.

    `halves` are two pairs (x, y); the others are pairs (mean, precision): first half, second half alone, first then
    second, both at once, and the first half with the diagonal of its precision alone.
    """

    def data(axes):
        reach = torch.tensor([-2.3, 2.3], dtype=first[0].dtype)
        for (x, y), (mean, _), colour, marker in zip(halves, (first, second), (BLUE, ORANGE), "os", strict=True):
            axes.plot(reach, mean[0] + mean[1] * reach, color=colour, lw=1.2, ls="--")
            axes.plot(x, y, color=colour, ls="", marker=marker, ms=5)
        axes.plot(reach, both[0][0] + both[0][1] * reach, color=INK)
        axes.set_xlabel("input")
        axes.set_ylabel("target")
        axes.set_title("the data")
        (xa, ya), (xb, yb) = halves
        label(axes, "first half", (xa.max(), ya.min()), (4, -3), BLUE)
        label(axes, "second half", (xb.mean(), yb.max()), (0, 12), ORANGE, ha="center")

    def weights(axes):
        for (mean, precision), colour, text, side, shift in (
            (first, BLUE, "first half", "right", (2, 6)),
            (second, ORANGE, "second half", "right", (2, -8)),
        ):
            across, up = ellipse(mean, precision)
            axes.plot(across, up, color=colour, ls="--" if colour == BLUE else "-.")
            place = int(across.argmax()) if side == "right" else int(across.argmin())
            label(axes, text, (across[place], up[place]), shift, colour)
        across, up = ellipse(*upright)
        axes.plot(across, up, color=BLUE, ls=":")
        beside = int(across.argmin())
        label(axes, "its\ndiagonal", (across[beside], up[beside]), (-9, 0), BLUE, ha="right")
        across, up = ellipse(*both)
        axes.plot(across, up, color=INK)
        across, up = ellipse(*whole)
        axes.plot(across[::12], up[::12], color=GREEN, ls="", marker="o", ms=3.5)
        low = int(across.argmin())
        label(axes, "one after\nthe other", (across[low], up[low]), (-30, 0), INK, ha="right")
        axes.set_xlabel("intercept, $\\theta_1$")
        axes.set_ylabel("slope, $\\theta_2$")
        axes.set_title("what is believed of the line")
        axes.margins(x=0.24)

    wide = [float(torch.linalg.inv(precision)[1, 1].sqrt()) for _, precision in (first, second, both)]
    return draw(
        "Two panels. First: points of the first half at negative inputs and of the second at positive ones, with a line through each and one through "
        "both. Second: ellipses of two standard deviations over intercept and slope. Those of the halves are long and lean opposite ways, with standard "
        f"deviations of the slope of {wide[0]:.2f} and {wide[1]:.2f}; learning one after the other gives a small ellipse where they cross, {wide[2]:.2f}, "
        f"and the dots of both at once lie on it. A dotted ellipse stands upright across that of the first half: its diagonal alone, with a deviation of {float(upright[1][1, 1]) ** -0.5:.2f}.",
        data,
        weights,
    )


def two_tasks(tasks, probabilities) -> Picture:
    """The examples of two small classification tasks, and for each the line where the most probable weights say one half."""

    def of(place):
        inputs, labels = tasks[place]
        colour = (BLUE, ORANGE)[place]

        def panel(axes):
            for number, marker, fill in ((0, "o", "none"), (1, "s", colour)):
                chosen = inputs[labels == number]
                axes.plot(chosen[:, 0], chosen[:, 1], color=colour, ls="", marker=marker, mfc=fill, ms=5)
            theta = probabilities[place]
            along = torch.tensor([-theta[1], theta[0]]) / theta.norm() * 6
            axes.plot([-along[0], along[0]], [-along[1], along[1]], color=INK, lw=1)
            axes.set_xlim(-3.6, 3.6)
            axes.set_ylim(-3.6, 3.6)
            axes.set_aspect("equal")
            axes.set_xlabel("first input")
            axes.set_ylabel("second input")
            axes.set_title(f"task {'AB'[place]}")

        return panel

    return draw(
        f"Two scatter plots of {len(tasks[0][0])} and {len(tasks[1][0])} examples with two inputs each. In task A the two labels, hollow circles and full squares, "
        "spread out from left to right; in task B from bottom to top. A line in each shows where the most probable weights say one half.",
        of(0),
        of(1),
        size=(3.2, 3.2),
    )


def grids_in_two(grid, first, second, both) -> Picture:
    """The posteriors of a two-weight logistic regression on a grid: from each task alone, and from one after the other."""

    def one(log_density, title, colour):
        def panel(axes):
            shade(axes, grid, log_density, colour)
            plane(axes)
            axes.set_xlim(-5, 7.5)
            axes.set_ylim(-5, 7.5)
            axes.set_aspect("equal")
            axes.set_title(title)

        return panel

    spreads = [_spread(grid, log_density) for log_density in (first, second, both)]
    return draw(
        "Three panels over the same two weights, each with regions of 50, 90 and 99 percent of a posterior. Task A alone leaves the second weight open: standard "
        f"deviations {spreads[0][0]:.2f} and {spreads[0][1]:.2f}. Task B alone gives {spreads[1][0]:.2f} and {spreads[1][1]:.2f}. A and then B gives {spreads[2][0]:.2f} and "
        f"{spreads[2][1]:.2f}, a smaller region where the two overlap.",
        one(first, "A alone", BLUE),
        one(second, "B alone", ORANGE),
        one(both, "A, then B", GREEN),
        size=(2.9, 3.0),
    )


def _spread(grid, log_density):
    mean = grid.mean(log_density, grid.points)
    return grid.mean(log_density, (grid.points - mean).square()).sqrt()


def coin_toss_by_toss(theta: Tensor, tosses: Tensor, densities) -> Frames:
    """What is believed of a coin after each toss: the card before the toss, the factor of the toss, and the card after it.

    `densities` holds one more than `tosses`: the first is the prior.
    """
    top = 1.08 * float(max(density.max() for density in densities))

    def after(count):
        density = densities[count]

        def panel(axes):
            if count:
                line = theta if tosses[count - 1] else 1 - theta
                axes.plot(theta, densities[count - 1], color=GREY, ls="--", lw=1.3)
                axes.plot(theta, line * top * 0.94, color=ORANGE, lw=1.1, ls=":")
                side = {"x": 0.99, "ha": "right"} if tosses[count - 1] else {"x": 0.01, "ha": "left"}
                name = "head: $\\theta$" if tosses[count - 1] else "tail: $1-\\theta$"
                fixed(axes, name, (side["x"], 0.97), ORANGE, ha=side["ha"], va="bottom")
            axes.plot(theta, density, color=BLUE)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, top)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlabel("chance of heads, $\\theta$")
            letters = "".join("TH"[int(toss)] for toss in tosses[:count])
            axes.set_title(" ".join(letters[place : place + 5] for place in range(0, count, 5)) or "no toss yet", pad=19)

        heads = int(tosses[:count].sum())
        if not count:
            said = "No toss yet: a flat line, every chance of heads is as likely as any other."
        else:
            kind, factor = ("head", "θ") if tosses[count - 1] else ("tail", "1 − θ")
            before, now = peak(theta, densities[count - 1])[0], peak(theta, density)[0]
            high = f"its peak is at {now:.2f}" + ("" if count == 1 else f", before it was at {before:.2f}")
            said = f"After toss {count}, a {kind}, the curve is the one before it times {factor}; {high}. So far {heads} heads and {count - heads} tails."
        return draw(said, panel, size=SINGLE)

    return frames(
        {count: after(count) for count in range(len(densities))}, "tosses seen", start=1 + int(tosses.argmax())
    )
