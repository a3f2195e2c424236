"""The figures of The Laplace approximation: one function a figure, with its alt text."""

from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SINGLE,
    Picture,
    curve_only,
    draw,
    fixed,
    label,
    outline,
    peak,
    plane,
    shade,
    two_digits,
)
from ewc.workshop.frames import Frames, frames
from torch import Tensor


def coins_and_gaussians(theta: Tensor, cases) -> Picture:
    """The posterior of a coin and the Gaussian at its mode; `cases` are (tosses, heads, density, gaussian density, KL)."""

    def of(tosses, heads, density, gaussian, _):
        def panel(axes):
            axes.axvspan(float(theta[0]), 0, color=GREY, alpha=0.14, lw=0)
            axes.axvspan(1, float(theta[-1]), color=GREY, alpha=0.14, lw=0)
            axes.plot(theta, density, color=BLUE)
            axes.plot(theta, gaussian, color=ORANGE, ls="--")
            curve_only(axes)
            axes.set_xlim(float(theta[0]), float(theta[-1]))
            axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
            axes.set_xlabel("chance of heads, $\\theta$")
            axes.set_title(f"{heads} heads in {tosses} tosses")
            rising = int((density > 0.5 * density.max()).nonzero()[0])
            label(axes, "posterior", (theta[rising], density[rising]), (-6, 4), BLUE, ha="right")
            low = int((gaussian > 0.12 * gaussian.max()).nonzero()[-1])
            label(axes, "Gaussian", (theta[low], gaussian[low]), (4, 8), ORANGE)

        return panel

    said = "; ".join(
        f"with {heads} heads in {tosses} tosses the KL divergence is {float(kl):.2g}"
        for tosses, heads, _, _, kl in cases
    )
    return draw(
        "Panels of a coin's posterior with the Gaussian at its peak, dashed. With few tosses the posterior leans and the Gaussian runs on beyond 1, where no coin can be; "
        f"with many they lie on each other: {said}.",
        *(of(*case) for case in cases),
    )


def logistic_and_gaussian(grid, truth: Tensor, gaussian: Tensor) -> Picture:
    """A posterior of two weights on a grid, shaded, under the outlines of its Laplace approximation."""

    def panel(axes):
        shade(axes, grid, truth, BLUE)
        outline(axes, grid, gaussian, ORANGE, linestyles="--")
        plane(axes)
        axes.set_xlim(-1.3, 6.2)
        axes.set_ylim(-1, 6.5)
        axes.set_aspect("equal")
        label(axes, "grid, shaded", (6, 6.3), (0, 0), BLUE, ha="right")
        label(axes, "Gaussian, dashed", (6, 5.7), (0, 0), ORANGE, ha="right")

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
            curve_only(axes)
            axes.set_title(title)
            axes.set_xlabel(name)
            axes.set_xlim(float(points[0]), float(points[-1]))

        return panel

    return draw(
        "Two panels, each a posterior and the Gaussian at its mode, dashed. First a rare event: the posterior ends at 0 and has a long tail upwards, the Gaussian is centred on the peak and "
        "reaches below 0. Then two humps of equal height: the Gaussian covers one of them and knows nothing of the other.",
        of(rare, "skewed", "chance of heads, $\\theta$"),
        of(humps, "two-humped", "$\\theta$, when $\\theta^2$ was measured"),
    )


def evidence_of_widths(widths: Tensor, truth: Tensor, laplace: Tensor, fit: Tensor) -> Picture:
    """The log evidence against the width of the prior, from the grid and from Laplace; and Laplace's two parts, of which `fit` is one."""

    def over_widths(axes):
        axes.set_xscale("log")
        axes.set_xlabel("width of the prior")
        axes.set_xticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        axes.minorticks_off()

    def panel(axes):
        axes.plot(widths, truth, color=BLUE)
        axes.plot(widths, laplace, color=ORANGE, ls="--")
        over_widths(axes)
        axes.set_title("log evidence")
        best = int(truth.argmax())
        axes.plot(widths[best], truth[best], marker="o", color=BLUE)
        label(axes, "grid", (widths[-1], truth[-1]), (4, 6), BLUE)
        label(axes, "Laplace", (widths[-1], laplace[-1]), (4, -6), ORANGE)

    occam = laplace - fit

    def parts(axes):
        for values, name, colour, line in ((fit, "best fit", GREEN, "-."), (occam, "Occam\nfactor", PURPLE, ":")):
            axes.plot(widths, values, color=colour, ls=line)
            label(axes, name, (widths[-1], values[-1]), (4, 0), colour)
        over_widths(axes)
        axes.set_title("its two parts, as Laplace has them")

    best, guess = float(widths[truth.argmax()]), float(widths[laplace.argmax()])
    return draw(
        f"Log evidence against the width of the prior on a logarithmic axis: a curve with one peak, at {best:.1f} on the grid and at {guess:.1f} by Laplace, whose curve runs close beside it. "
        f"Its two parts: the log likelihood of the best fit rises from {float(fit[0]):.1f} to {float(fit[-1]):.1f}, the Occam factor's logarithm falls from its height of "
        f"{float(occam.max()):.1f} to {float(occam[-1]):.1f}.",
        panel,
        parts,
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
            axes.set_title(f"KL divergence {two_digits(divergence)}")
            fixed(axes, "posterior", (0.09, 0.9), BLUE)
            fixed(axes, "Gaussian, dashed", (0.09, 0.81), ORANGE)

        outside = 1 - float(gaussian[(theta > 0) & (theta < 1)].sum() * (theta[1] - theta[0]))
        setting = ", ".join(f"{name} {value}" for name, value in zip(label, state, strict=True))
        return draw(
            f"With {setting}: a coin's posterior with its peak at {peak(theta, density)[0]:.2f} and, dashed, the Gaussian at that peak. The KL divergence is "
            f"{two_digits(divergence)}; {outside:.1%} of the Gaussian lies where no coin can be.",
            panel,
            size=SINGLE,
        )

    return frames({state: of(state, *case) for state, case in cases.items()}, label, start=start)
