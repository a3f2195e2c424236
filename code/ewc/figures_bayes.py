"""The figures of the Bayes chapters: one function a figure, drawn from tensors and posteriors, with its alt text."""

import torch
from torch import Tensor

from ewc.figures import BLUE, GREEN, GREY, INK, ORANGE, Picture, draw
from ewc.frames import Frames, frames

SINGLE = (4.4, 2.9)  # a panel alone is drawn small and shown large, so that its letters can be read on a phone


def _label(axes, text, place, shift, colour, **how):
    how = {"weight": "normal", "ha": "left", "va": "center"} | how
    axes.annotate(text, place, shift, textcoords="offset points", color=colour, annotation_clip=False, **how)


def _curve_only(axes):
    """A density is read by its shape: no scale on the left."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom=0)


def _peak(x: Tensor, y: Tensor) -> tuple[float, float]:
    place = int(y.argmax())
    return float(x[place]), float(y[place])


def _mass_levels(density: Tensor, shares=(0.99, 0.9, 0.5)) -> list[float]:
    """The heights whose regions above hold these shares of the whole, lowest first."""
    ordered = density.flatten().sort(descending=True).values
    held = ordered.cumsum(0) / ordered.sum()
    return [float(ordered[int((held < share).sum())]) for share in shares]


def _shade(axes, grid, log_density, colour):
    """Regions that hold 99, 90 and 50 percent of a density on a grid, the darker the likelier."""
    density = log_density.exp()
    levels = _mass_levels(density)
    across, up = grid.axes
    for bottom, alpha in zip(levels, (0.18, 0.3, 0.5), strict=True):
        axes.contourf(across, up, density.T, [bottom, float(density.max()) * 1.01], colors=[colour], alpha=alpha)
    axes.contour(across, up, density.T, levels, colors=[colour], linewidths=0.8)


def _outline(axes, grid, log_density, colour, **lines):
    density = log_density.exp()
    axes.contour(grid.axes[0], grid.axes[1], density.T, _mass_levels(density), colors=[colour], linewidths=1.3, **lines)


def _plane(axes, names=("first weight", "second weight")):
    axes.axhline(0, color=GREY, lw=0.7, ls=":")
    axes.axvline(0, color=GREY, lw=0.7, ls=":")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


# ---- Yesterday's posterior is today's prior ----


def coin_in_two(theta: Tensor, morning: Tensor, evening: Tensor, whole: Tensor, counts: tuple) -> Picture:
    """Densities over a coin's chance of heads: after the morning, and after the whole day, learned in two ways."""

    def panel(axes):
        axes.plot(theta, morning, color=BLUE)
        axes.plot(theta, evening, color=ORANGE)
        every = slice(None, None, max(1, len(theta) // 40))
        axes.plot(theta[every], whole[every], color=INK, ls="", marker="o", ms=4, mfc="none", mew=1)
        axes.set_xlim(0, 0.8)
        _curve_only(axes)
        axes.set_xlabel("chance of heads, $\\theta$")
        beside = int((morning > 0.75 * morning.max()).nonzero()[0])
        _label(
            axes,
            f"after the\nmorning\n({counts[0]} tosses)",
            (theta[beside], morning[beside]),
            (-8, 0),
            BLUE,
            ha="right",
        )
        y = float(evening.max())
        beside = int((evening > 0.6 * y).nonzero()[-1])
        _label(axes, f"after the afternoon\n(line: the card and {counts[1]} tosses;\ncircles: all {sum(counts)} tosses)", (theta[beside], evening[beside]), (10, 8), ORANGE)  # fmt: skip

    (first, _), (last, _) = _peak(theta, morning), _peak(theta, evening)
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
            _label(axes, text, (theta[place], values[place]), (8 * side, 0), colour, ha="right" if side < 0 else "left")
        x = float(theta[total.argmin()])
        _label(axes, "their sum; dots: the parabola of all readings", (x, top), (0, 9), INK, ha="center")

    return draw(
        "Three parabolas over the weight of the stone: the card of the morning with its lowest point at "
        f"{float(theta[kept.argmin()]):.1f} grams, the afternoon's readings at {float(theta[new.argmin()]):.1f}, and their sum, steeper than both, at "
        f"{float(theta[(kept + new).argmin()]):.1f}. The dots of the parabola of all readings lie on the sum.",
        panel,
        size=SINGLE,
    )


def _ellipse(mean: Tensor, precision: Tensor, radius: float = 2.0) -> Tensor:
    """Points at `radius` standard deviations from the mean of N(mean, precision⁻¹) in two dimensions: (2, 200)."""
    turn = torch.linspace(0, 2 * torch.pi, 200, dtype=mean.dtype)
    circle = torch.stack([turn.cos(), turn.sin()])
    root = torch.linalg.cholesky(precision)
    return mean[:, None] + radius * torch.linalg.solve_triangular(root.T, circle, upper=True)


def line_in_two(halves, first, second, both, whole) -> Picture:
    """A line learned from two halves: the data, and the ellipses of the posteriors over intercept and slope.

    `halves` are two pairs (x, y); the others are pairs (mean, precision): first half, second half alone, first then
    second, both at once.
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
        _label(axes, "first half", (xa.max(), ya.min()), (4, -3), BLUE)
        _label(axes, "second half", (xb.mean(), yb.max()), (0, 12), ORANGE, ha="center")

    def weights(axes):
        for (mean, precision), colour, text, side, shift in (
            (first, BLUE, "first half", "right", (2, 6)),
            (second, ORANGE, "second half", "right", (2, -8)),
        ):
            across, up = _ellipse(mean, precision)
            axes.plot(across, up, color=colour, ls="--" if colour == BLUE else "-.")
            place = int(across.argmax()) if side == "right" else int(across.argmin())
            _label(axes, text, (across[place], up[place]), shift, colour)
        across, up = _ellipse(*both)
        axes.plot(across, up, color=INK)
        across, up = _ellipse(*whole)
        axes.plot(across[::12], up[::12], color=GREEN, ls="", marker="o", ms=3.5)
        low = int(across.argmin())
        _label(axes, "one after\nthe other", (across[low], up[low]), (-30, 0), INK, ha="right")
        axes.set_xlabel("intercept, $\\theta_1$")
        axes.set_ylabel("slope, $\\theta_2$")
        axes.set_title("what is believed of the line")
        axes.margins(x=0.24)

    wide = [float(torch.linalg.inv(precision)[1, 1].sqrt()) for _, precision in (first, second, both)]
    return draw(
        "Two panels. Left: points of the first half at negative inputs and of the second at positive ones, with a line through each and one through "
        "both. Right: ellipses of two standard deviations over intercept and slope. Those of the halves are long and lean opposite ways, with standard "
        f"deviations of the slope of {wide[0]:.2f} and {wide[1]:.2f}; learning one after the other gives a small ellipse where they cross, {wide[2]:.2f}, "
        "and the dots of both at once lie on it.",
        data,
        weights,
    )


def two_tasks(tasks, probabilities) -> Picture:
    """The examples of two small classification tasks, and for each the line where the most probable weights say one half."""

    def of(place):
        inputs, labels = tasks[place]
        colour = (BLUE, ORANGE)[place]

        def panel(axes):
            for label, marker, fill in ((0, "o", "none"), (1, "s", colour)):
                chosen = inputs[labels == label]
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
            _shade(axes, grid, log_density, colour)
            _plane(axes)
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


# ---- Laplace approximation ----


def coins_and_gaussians(theta: Tensor, cases) -> Picture:
    """The posterior of a coin and the Gaussian at its mode; `cases` are (tosses, heads, density, gaussian density, KL)."""

    def of(tosses, heads, density, gaussian, _):
        def panel(axes):
            axes.plot(theta, density, color=BLUE)
            axes.plot(theta, gaussian, color=ORANGE, ls="--")
            _curve_only(axes)
            axes.set_xlim(float(theta[0]), float(theta[-1]))
            axes.set_xlabel("chance of heads, $\\theta$")
            axes.set_title(f"{heads} heads in {tosses} tosses")
            rising = int((density > 0.5 * density.max()).nonzero()[0])
            _label(axes, "posterior", (theta[rising], density[rising]), (-6, 4), BLUE, ha="right")
            low = int((gaussian > 0.12 * gaussian.max()).nonzero()[-1])
            _label(axes, "Gaussian", (theta[low], gaussian[low]), (4, 8), ORANGE)

        return panel

    said = "; ".join(
        f"with {heads} heads in {tosses} tosses the KL divergence is {float(kl):.2g}"
        for tosses, heads, _, _, kl in cases
    )
    return draw(
        "Panels of a coin's posterior with the Gaussian at its peak, dashed. With few tosses the posterior leans and the Gaussian runs over the edges at 0 and 1; "
        f"with many they lie on each other: {said}.",
        *(of(*case) for case in cases),
    )


def logistic_and_gaussian(grid, truth: Tensor, gaussian: Tensor) -> Picture:
    """A posterior of two weights on a grid, shaded, under the outlines of its Laplace approximation."""

    def panel(axes):
        _shade(axes, grid, truth, BLUE)
        _outline(axes, grid, gaussian, ORANGE, linestyles="--")
        _plane(axes)
        axes.set_xlim(-1.3, 6.2)
        axes.set_ylim(-1, 6.5)
        axes.set_aspect("equal")
        _label(axes, "grid, shaded", (6, 6.3), (0, 0), BLUE, ha="right")
        _label(axes, "Gaussian, dashed", (6, 5.7), (0, 0), ORANGE, ha="right")

    return draw(
        "Regions of 50, 90 and 99 percent of a posterior over two weights, and the ellipses of its Laplace approximation. The inner ones agree; the outer region of the posterior "
        "reaches further away from zero than the ellipse, and less far towards zero.",
        panel,
        size=(4.2, 3.9),
    )


def where_it_fails(rare, humps) -> Picture:
    """Two posteriors that one parabola cannot stand for: a skewed one and one with two humps; each (points, density, gaussian)."""

    def of(case, title, name):
        points, density, gaussian = case

        def panel(axes):
            axes.plot(points, density, color=BLUE)
            axes.plot(points, gaussian, color=ORANGE, ls="--")
            _curve_only(axes)
            axes.set_title(title)
            axes.set_xlabel(name)
            axes.set_xlim(float(points[0]), float(points[-1]))

        return panel

    return draw(
        "Two panels, each a posterior and the Gaussian at its mode, dashed. Left, a rare event: the posterior leans to the right and ends at 0, the Gaussian is centred on the peak and "
        "reaches below 0. Right, two humps of equal height: the Gaussian covers one of them and knows nothing of the other.",
        of(rare, "skewed", "chance of heads, $\\theta$"),
        of(humps, "two-humped", "$\\theta$, when $\\theta^2$ was measured"),
    )


def evidence_of_widths(widths: Tensor, truth: Tensor, laplace: Tensor) -> Picture:
    """The log evidence against the width of the prior, from the grid and from Laplace."""

    def panel(axes):
        axes.plot(widths, truth, color=BLUE)
        axes.plot(widths, laplace, color=ORANGE, ls="--")
        axes.set_xscale("log")
        axes.set_xlabel("width of the prior")
        axes.set_ylabel("log evidence")
        axes.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        axes.minorticks_off()
        best = int(truth.argmax())
        axes.plot(widths[best], truth[best], marker="o", color=BLUE)
        _label(axes, "grid", (widths[-1], truth[-1]), (4, 6), BLUE)
        _label(axes, "Laplace", (widths[-1], laplace[-1]), (4, -6), ORANGE)

    best, guess = float(widths[truth.argmax()]), float(widths[laplace.argmax()])
    return draw(
        f"Log evidence against the width of the prior on a logarithmic axis: a curve with one peak, at {best:.1f} on the grid and at {guess:.1f} by Laplace, whose curve runs close beside it.",
        panel,
        size=SINGLE,
    )


# ---- Figures that the reader moves ----


def _fixed(axes, text, place, colour, **how):
    """A label at a place of the panel, not of the data, which leaves the layout alone: from frame to frame nothing jumps."""
    axes.text(*place, text, transform=axes.transAxes, color=colour, in_layout=False, **how)


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
                _fixed(axes, name, (side["x"], 0.97), ORANGE, ha=side["ha"], va="bottom", fontsize=9)
            axes.plot(theta, density, color=BLUE)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, top)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlabel("chance of heads, $\\theta$")
            letters = "".join("TH"[int(toss)] for toss in tosses[:count])
            axes.set_title(" ".join(letters[place : place + 5] for place in range(0, count, 5)) or "no toss yet")

        heads = int(tosses[:count].sum())
        if not count:
            said = "No toss yet: a flat line, every chance of heads is as likely as any other."
        else:
            kind, factor = ("head", "θ") if tosses[count - 1] else ("tail", "1 − θ")
            before, now = _peak(theta, densities[count - 1])[0], _peak(theta, density)[0]
            peak = f"its peak is at {now:.2f}" + ("" if count == 1 else f", before it was at {before:.2f}")
            said = f"After toss {count}, a {kind}, the curve is the one before it times {factor}; {peak}. So far {heads} heads and {count - heads} tails."
        return draw(said, panel, size=SINGLE)

    return frames(
        {count: after(count) for count in range(len(densities))}, "tosses seen", start=1 + int(tosses.argmax())
    )


def laplace_moved(theta: Tensor, cases, label, start) -> Frames:
    """A coin's posterior and the Gaussian at its mode, for every combination of tosses, data and prior.

    `cases` maps each state to (density, density of the Gaussian, KL). Both are drawn to the height of the posterior's top.
    """

    def of(state, density, gaussian, divergence):
        def panel(axes):
            top = density.max()
            axes.axvspan(float(theta[0]), 0, color=GREY, alpha=0.14, lw=0)
            axes.axvspan(1, float(theta[-1]), color=GREY, alpha=0.14, lw=0)
            axes.plot(theta, density / top, color=BLUE)
            axes.plot(theta, gaussian / top, color=ORANGE, ls="--")
            axes.set_xlim(float(theta[0]), float(theta[-1]))
            axes.set_ylim(0, 1.2)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
            axes.set_xlabel("chance of heads, $\\theta$")
            axes.set_title(f"KL divergence {_two_digits(divergence)}")
            _fixed(axes, "posterior", (0.09, 0.9), BLUE)
            _fixed(axes, "Gaussian, dashed", (0.09, 0.81), ORANGE)

        outside = 1 - float(gaussian[(theta > 0) & (theta < 1)].sum() * (theta[1] - theta[0]))
        setting = ", ".join(f"{name} {value}" for name, value in zip(label, state, strict=True))
        return draw(
            f"With {setting}: a coin's posterior with its peak at {_peak(theta, density)[0]:.2f} and, dashed, the Gaussian at that peak. The KL divergence is "
            f"{_two_digits(divergence)}; {outside:.1%} of the Gaussian lies where no coin can be.",
            panel,
            size=SINGLE,
        )

    return frames({state: of(state, *case) for state, case in cases.items()}, label, start=start)


def _two_digits(value):
    return f"{float(value):#.2g}" if value >= 1e-4 else f"{float(value):.1e}"


def fisher_and_truth(grid, cases, label, start) -> Frames:
    """Where a step in two weights reaches a given KL divergence: truly, and by the ellipse ½ εᵀFε of the Fisher.

    `cases` maps each state to (KL at the points of the grid, F, the level of both lines, the least and the greatest KL on the ellipse).
    """

    def of(state, divergence, fisher, level, least, greatest):
        across, up = _ellipse(torch.zeros(2, dtype=fisher.dtype), fisher, (2 * level) ** 0.5)

        def panel(axes):
            axes.contourf(grid.axes[0], grid.axes[1], divergence.T, [0, level], colors=[BLUE], alpha=0.18)
            axes.contour(grid.axes[0], grid.axes[1], divergence.T, [level], colors=[BLUE], linewidths=1.6)
            axes.plot(across, up, color=ORANGE, ls="--")
            axes.plot(0, 0, color=INK, marker="+", ms=7)
            axes.set_xlim(float(grid.axes[0][0]), float(grid.axes[0][-1]))
            axes.set_ylim(float(grid.axes[1][0]), float(grid.axes[1][-1]))
            axes.set_aspect("equal")
            axes.set_xlabel("turn of the first weight, $\\epsilon_1$")
            axes.set_ylabel("turn of the second, $\\epsilon_2$")
            axes.set_title(f"true KL on the ellipse: {_two_digits(least)} to {_two_digits(greatest)}")
            _fixed(axes, f"KL is {level:g}", (0.03, 0.95), BLUE)
            _fixed(axes, "ellipse, dashed", (0.03, 0.88), ORANGE)

        setting = ", ".join(f"{name} {value}" for name, value in zip(label, state, strict=True))
        return draw(
            f"With {setting}: the line of steps in two weights whose KL divergence is {level:g}, and the Fisher's ellipse, dashed, on which it should be "
            f"that. On the ellipse the true divergence runs from {_two_digits(least)} to {_two_digits(greatest)}.",
            panel,
            size=(4.2, 3.9),
        )

    return frames({state: of(state, *case) for state, case in cases.items()}, label, start=start)
