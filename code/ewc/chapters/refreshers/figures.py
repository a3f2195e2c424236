"""The figures of the two refreshers: one small picture a piece, drawn from tensors that the page has computed."""

from collections.abc import Callable

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ON_PAPER,
    ORANGE,
    SINGLE,
    Picture,
    curve_only,
    draw,
    ellipse,
    fixed,
    label,
)
from ewc.workshop.frames import Frames, frames
from torch import Tensor


def product_and_sum(products: Tensor, sums: Tensor) -> Picture:
    """A product of probabilities as factors are added, in double precision, and the sum of their logarithms."""
    counts = torch.arange(1, len(products) + 1)
    gone = int((products == 0).int().argmax()) + 1
    lowest = float(products[products > 0].log10().min())  # here, or lower: a machine may leave out the smallest numbers

    def product(axes):
        left = products > 0
        axes.plot(counts[left], products[left].log10(), color=BLUE)
        axes.plot(gone, lowest, color=ORANGE, marker="x", ms=8, mew=2)
        label(axes, "then 0", (gone, lowest), (8, 0), ORANGE)
        axes.set_xlim(0, len(products))
        axes.set_title("power of ten of the product")
        axes.set_xlabel("factors")

    def total(axes):
        axes.plot(counts, sums, color=BLUE)
        axes.set_xlim(0, len(products))
        axes.set_title("sum of the logarithms")
        axes.set_xlabel("factors")

    return draw(
        f"Two panels against the number of factors. First, the power of ten of the product falls on a straight line to {lowest:.0f}, where the product becomes 0. "
        f"Second, the sum of the logarithms falls on a straight line to {float(sums[-1]):,.0f} and goes on.",
        product,
        total,
    )


def secant_and_tangent(theta: Tensor, function: Callable, at: float, slope: float, steps) -> Frames:
    """A curve with its tangent at `at`, and the line through two of its points, for each distance of the two."""
    curve = function(theta)

    def of(step):
        there = torch.tensor([at, at + step], dtype=theta.dtype)
        low, high = function(there).tolist()
        found = (high - low) / step

        def panel(axes):
            axes.plot(theta, curve, color=BLUE)
            axes.plot(theta, low + slope * (theta - at), color=GREY, lw=1.1, ls=":")
            axes.plot(theta, low + found * (theta - at), color=ORANGE, ls="--", lw=1.4)
            axes.plot(there, [low, high], color=ORANGE, ls="", marker="o", ms=5)
            axes.set_xlim(float(theta[0]), float(theta[-1]))
            axes.set_ylim(-0.3, float(curve.max()))
            axes.set_xlabel("$\\theta$")
            axes.set_title(f"slope of the dashed line: {found:.3f}".replace("-", "−"))
            fixed(axes, "tangent, dotted", (0.62, 0.93), GREY)

        return draw(
            f"The curve −log σ(θ), its tangent at {at:g}, dotted, and a dashed line through its points at {at:g} and {at + step:g}. "
            f"The dashed line has slope {found:.3f}, the tangent {slope:.3f}.",
            panel,
            size=SINGLE,
        )

    return frames({step: of(step) for step in steps}, "step ε", start=steps[0])


def downhill(across: Tensor, up: Tensor, values: Tensor, points: Tensor, gradients: Tensor) -> Picture:
    """Lines of equal height of a loss of two weights, and at some points the arrow of minus its gradient."""

    def panel(axes):
        axes.contour(across, up, values.T, 9, colors=[BLUE], linewidths=1)
        axes.quiver(
            points[:, 0],
            points[:, 1],
            -gradients[:, 0],
            -gradients[:, 1],
            color=ORANGE,
            angles="xy",
            scale_units="xy",
            scale=2.6,
            width=0.009,
        )
        axes.plot(points[:, 0], points[:, 1], color=ORANGE, ls="", marker="o", ms=3)
        axes.set_aspect("equal")
        axes.set_xlabel("$\\theta_1$")
        axes.set_ylabel("$\\theta_2$")

    return draw(
        "Lines of equal loss over two weights, ellipses around the lowest point, and arrows of minus the gradient. Each arrow crosses its line at a right angle and is longer where the lines "
        "lie closer together; hardly one points straight at the lowest point.",
        panel,
        size=(4.2, 3.9),
    )


def taylor_by_order(theta: Tensor, curve: Tensor, at: float, sums) -> Frames:
    """A curve and its Taylor sums about `at`; `sums` maps each order to the sum at theta and its error one unit away."""

    def of(order, values, error):
        def panel(axes):
            axes.plot(theta, curve, color=BLUE)
            axes.plot(theta, values, color=ORANGE, ls="--")
            axes.plot(at, float(curve[(theta - at).abs().argmin()]), color=INK, marker="o", ms=5)
            axes.set_xlim(float(theta[0]), float(theta[-1]))
            axes.set_ylim(-0.5, 4)
            axes.set_xlabel("$\\theta$")
            axes.set_title(f"one unit away it errs by {error:.2g}")
            fixed(axes, "Taylor, dashed", (0.62, 0.93), ORANGE)

        return draw(
            f"The curve −log σ(θ) and, dashed, the first terms of its Taylor series about {at:g}, up to order {order}. One unit away the sum errs by {error:.2g}.",
            panel,
            size=SINGLE,
        )

    return frames({order: of(order, *case) for order, case in sums.items()}, "highest power", start=2)


def means_get_narrower(values) -> Picture:
    """Histograms of the mean of some independent draws; `values` maps the number of draws in a mean to many means."""

    def panel(axes):
        for (count, means), colour, line in zip(values.items(), (GREY, ORANGE, BLUE), (":", "--", "-"), strict=True):
            heights, edges = torch.histogram(means, bins=40, range=(-3.0, 3.0), density=True)
            axes.stairs(heights, edges, color=colour, ls=line, lw=1.6)
            place = int((heights > 0.5 * heights.max()).nonzero()[-1])
            label(
                axes,
                f"mean of {count}" if count > 1 else "one draw",
                (edges[place + 1], heights[place]),
                (5, 5),
                colour,
            )
        curve_only(axes)
        axes.set_xlabel("value")

    spread = ", ".join(f"{float(means.std()):.2f} for {count}" for count, means in values.items())
    return draw(
        f"Histograms of the mean of 1, 4 and 16 independent draws, narrower and higher each time. Standard deviations by the number of draws: {spread}.",
        panel,
        size=SINGLE,
    )


def precisions(theta: Tensor, densities) -> Picture:
    """Bells of one mean, and below them minus their logarithms; `densities` maps each precision to its density at theta."""
    colours, lines = (GREY, BLUE, ORANGE), (":", "-", "--")

    def bells(axes):
        for (precision, density), colour, line in zip(densities.items(), colours, lines, strict=True):
            axes.plot(theta, density, color=colour, ls=line)
            place = int((density > 0.62 * density.max()).nonzero()[-1])
            label(axes, f"{precision:g}", (theta[place], density[place]), (5, 4), colour)
        curve_only(axes)
        axes.set_title("density")
        axes.set_xlabel("$\\theta$")

    def bowls(axes):
        for (precision, density), colour, line in zip(densities.items(), colours, lines, strict=True):
            axes.plot(theta, density.max().log() - density.log(), color=colour, ls=line)
            height = min(4.0, float(precision) * 9 / 2 * 0.8)
            label(axes, f"{precision:g}", ((2 * height / float(precision)) ** 0.5, height), (4, -2), colour)
        axes.set_ylim(0, 5)
        axes.set_title("− log density, from its lowest")
        axes.set_xlabel("$\\theta$")

    return draw(
        "Two panels. First, bells around zero with precisions ¼, 1 and 4: the larger the precision, the narrower and higher. Second, minus their logarithms: parabolas, the steeper the larger the precision.",
        bells,
        bowls,
    )


def leaning_ellipse(correlations) -> Frames:
    """The ellipse of two deviations of a Gaussian in two dimensions, with its width at large and its width across the middle."""

    def of(correlation):
        covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
        precision = torch.linalg.inv(covariance)
        across, up = ellipse(torch.zeros(2, dtype=torch.float64), precision)
        narrow = float(precision[0, 0]) ** -0.5

        def panel(axes):
            axes.plot(across, up, color=BLUE)
            axes.plot([-2, 2], [-2.75, -2.75], color=GREEN, marker="|", ms=9)
            axes.plot([-2 * narrow, 2 * narrow], [0, 0], color=ORANGE, marker="|", ms=9, ls="--")
            axes.set_xlim(-3.1, 3.1)
            axes.set_ylim(-3.1, 3.1)
            axes.set_aspect("equal")
            axes.set_xlabel("$\\theta_1$")
            axes.set_ylabel("$\\theta_2$")
            axes.set_title(
                f"$\\Lambda_{{11}}$ = {precision[0, 0]:.2f},  $\\Lambda_{{12}}$ = {precision[0, 1] + 0.0:.2f}".replace(
                    "-", "−"
                )
            )
            fixed(axes, "± 2 deviations of $\\theta_1$", (0.02, 0.12), GREEN)
            fixed(axes, f"the same with $\\theta_2$ held at 0: {narrow:.2f} each", (0.02, 0.94), ORANGE)

        return draw(
            f"With correlation {correlation:g}: the ellipse of two standard deviations of two weights of variance 1. The first weight alone reaches from −2 to 2; with the second held at 0 "
            f"its standard deviation is {narrow:.2f}, which is one over the root of the precision's entry {precision[0, 0]:.2f}.",
            panel,
            size=(4.2, 3.9),
        )

    return frames({f"{correlation:g}": of(correlation) for correlation in correlations}, "correlation", start="0.8")


def circle_to_ellipse(matrix: Tensor, values: Tensor, vectors: Tensor) -> Picture:
    """What a symmetric matrix does to the unit circle, and the two directions that it does not turn."""
    turn = torch.linspace(0, 2 * torch.pi, 200, dtype=matrix.dtype)
    circle = torch.stack([turn.cos(), turn.sin()])

    def panel(axes):
        axes.plot(*circle, color=GREY, ls=":")
        axes.plot(*(matrix @ circle), color=BLUE)
        for value, vector in zip(values, vectors.T, strict=True):
            vector = vector if vector[0] > 0 else -vector
            axes.annotate(
                "", (value * vector).tolist(), (0, 0), arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 1.6}
            )
            axes.plot(*vector, color=ORANGE, marker="o", ms=5)
            label(
                axes,
                f"{float(value):.2f} times as long",
                (value * vector).tolist(),
                (6, 4 if vector[1] > 0 else -6),
                ORANGE,
                bbox=ON_PAPER,
            )
        axes.set_xlim(-2.4, 4.6)
        axes.set_ylim(-2.2, 2.2)
        axes.set_aspect("equal")

    return draw(
        f"A dotted circle of radius 1 and the ellipse into which a symmetric matrix takes it. Along two directions at right angles points move straight outwards, to {float(values[1]):.2f} and {float(values[0]):.2f} times their distance.",
        panel,
        size=(5.0, 3.3),
    )


def kl_both_ways(theta: Tensor, p: Tensor, q: Tensor, forward: float, backward: float) -> Picture:
    """Two densities, and what is added up to the KL divergence of each from the other."""

    def densities(axes):
        axes.plot(theta, p, color=BLUE)
        axes.plot(theta, q, color=ORANGE, ls="--")
        curve_only(axes)
        for density, name, colour, side in ((p, "$p$", BLUE, -1), (q, "$q$", ORANGE, 1)):
            high = (density > 0.6 * density.max()).nonzero().flatten()
            place = int(high[0] if side < 0 else high[-1])
            label(
                axes, name, (theta[place], density[place]), (8 * side, 4), colour, ha="right" if side < 0 else "left"
            )
        axes.set_title("two densities")
        axes.set_xlabel("$\\theta$")

    def summands(axes):
        for first, second, colour, line in ((p, q, BLUE, "-"), (q, p, ORANGE, "--")):
            added = first * (first.log() - second.log())
            axes.plot(theta, added, color=colour, ls=line)
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set_ylim(top=1.45 * axes.get_ylim()[1])
        axes.set_title("what is added up")
        axes.set_xlabel("$\\theta$")
        fixed(axes, f"$p\\,\\log(p/q)$: area {forward:.2f}", (0.02, 0.93), BLUE)
        fixed(axes, f"$q\\,\\log(q/p)$: area {backward:.2f}", (0.02, 0.84), ORANGE)

    return draw(
        f"Two panels. First, a narrow density p and a wider one q. Second, the curves p log(p/q), whose area is {forward:.2f}, and q log(q/p), whose area is {backward:.2f}. Both dip below zero and have a positive area.",
        densities,
        summands,
    )


def kronecker(left: Tensor, right: Tensor) -> Picture:
    """Two small matrices and their Kronecker product, as pictures."""
    top = float(torch.kron(left, right).abs().max())

    def shown(matrix, title):
        def panel(axes):
            rows, columns = matrix.shape
            for row in range(rows):
                for column in range(columns):
                    strength = float(matrix[row, column].abs()) / (
                        top if matrix.numel() > 9 else float(matrix.abs().max())
                    )
                    axes.fill(
                        [column, column + 1, column + 1, column],
                        [-row, -row, -row - 1, -row - 1],
                        color=BLUE,
                        alpha=0.5 * strength**0.7,  # so that the number in it can be read, in the dark too
                        lw=0,
                    )
                    if rows < 6:
                        axes.text(column + 0.5, -row - 0.5, f"{float(matrix[row, column]):g}", ha="center", va="center")
            for edge in range(0, rows + 1, right.shape[0] if rows == len(left) * len(right) else 1):
                axes.plot([0, columns], [-edge, -edge], color=GREY, lw=0.8)
            for edge in range(0, columns + 1, right.shape[1] if columns == left.shape[1] * right.shape[1] else 1):
                axes.plot([edge, edge], [0, -rows], color=GREY, lw=0.8)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(title)

        return panel

    product = torch.kron(left, right)
    return draw(
        f"Three matrices: a {len(left)} by {len(left)} one, a {len(right)} by {len(right)} one, and their Kronecker product of {len(product)} by {len(product)}, in which each entry of the first has become a copy of the second, "
        "as strong as that entry.",
        shown(left, "$U$"),
        shown(right, "$V$"),
        shown(product, "$U \\otimes V$"),
        size=(2.6, 2.7),
        row=True,
    )


def broadcast_table(predictions: Tensor, targets: Tensor) -> Picture:
    """The differences that were meant, and the table of all differences that broadcasting made."""

    def table(values, title):
        def panel(axes):
            rows, columns = values.shape
            for row in range(rows):
                for column in range(columns):
                    meant = columns == 1 or row == column
                    axes.fill(
                        [column, column + 1, column + 1, column],
                        [-row, -row, -row - 1, -row - 1],
                        color=BLUE if meant else ORANGE, alpha=0.3, lw=0,
                    )  # fmt: skip
                    axes.text(
                        column + 0.5,
                        -row - 0.5,
                        f"{float(values[row, column]):.1f}".replace("-", "−"),
                        ha="center",
                        va="center",
                    )
            axes.set_xlim(-0.1, 4.1)
            axes.set_ylim(-rows - 0.1, 0.1)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(title)

        return panel

    meant, made = (predictions[:, 0] - targets)[:, None], predictions - targets
    return draw(
        f"Two tables of differences. First the {len(meant)} that were meant. Second the {made.numel()} that broadcasting makes, with those on its diagonal and {made.numel() - len(meant)} others.",
        table(meant, "meant: 4"),
        table(made, "made: 4 × 4"),
        size=(2.9, 2.7),
    )


def steps_too_small(steps: Tensor, single: Tensor, double: Tensor) -> Picture:
    """The relative error of a slope by difference against its step, in single and in double precision."""

    def panel(axes):
        axes.loglog(steps, single, color=ORANGE, ls="--")
        axes.loglog(steps, double, color=BLUE)
        axes.set_xlabel("step")
        axes.set_ylabel("relative error of the slope")
        label(axes, "float32", (steps[3], single[3]), (0, -12), ORANGE)
        label(axes, "float64", (steps[20], double[10:21].min()), (-14, -12), BLUE, ha="right")

    return draw(
        f"The error of a slope taken as a difference, against the step, on logarithmic axes. Both curves fall with the step and rise again when it is too small. The least error is {float(single.min()):.0e} in float32 and {float(double.min()):.0e} in float64.",
        panel,
        size=SINGLE,
    )
