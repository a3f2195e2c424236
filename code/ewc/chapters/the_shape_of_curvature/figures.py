"""The figures of the chapter on the shape of curvature: one function a figure, drawn from matrices, with its alt text."""

from collections.abc import Sequence

import torch
from ewc.workshop.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    Picture,
    draw,
)
from torch import Tensor

# A raster cannot follow the page's colours: these two, over a see-through ground, read on white and on black.
_SAME, _AGAINST = (0.20, 0.49, 0.85), (0.90, 0.48, 0.10)


def _raster(matrix: Tensor, full: float) -> Tensor:
    """A signed matrix as colours with opacity for size, (…, 4) in 0…1; in few steps, so that the file stays small."""
    opacity = ((matrix.abs() / full).clamp(max=1) ** 0.3 * 15).round() / 15
    sign = (matrix >= 0)[..., None]
    colour = torch.where(sign, torch.tensor(_SAME), torch.tensor(_AGAINST))
    return torch.cat([colour.expand(*matrix.shape, 3), opacity[..., None].float()], -1)


def _map(axes, matrix, full):
    size = len(matrix)
    axes.imshow(_raster(matrix, full).numpy(), extent=(0, size, size, 0), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.6)


def whole_fisher(matrix: Tensor, layers: Sequence[tuple[str, int]], full: float) -> Picture:
    """The full Fisher as a picture, with the borders between layers; `layers` are (name, number of weights), in order."""

    def panel(axes):
        _map(axes, matrix, full)
        start = 0
        for _, size in layers:
            for edge in (start, start + size):
                axes.axhline(edge, color=INK, lw=0.6)
                axes.axvline(edge, color=INK, lw=0.6)
            start += size
        middles = [sum(size for _, size in layers[:place]) + layers[place][1] / 2 for place in range(len(layers))]
        axes.set_yticks(middles, [f"{name}\n{size}" for name, size in layers], linespacing=1.0)
        axes.tick_params(length=0)
        axes.plot([0, len(matrix)], [0, len(matrix)], color=INK, lw=0.7)

    names = ", ".join(f"{name} with {size}" for name, size in layers)
    ends = torch.tensor([size for _, size in layers]).cumsum(0).tolist()
    blocks = [matrix[end - size : end, end - size : end] for end, (_, size) in zip(ends, layers, strict=True)]
    within = sum(float(block.square().sum()) for block in blocks)
    total = float(matrix.square().sum())
    return draw(
        f"A square of {len(matrix)} by {len(matrix)} points, one for each pair of weights, ordered by layer: {names}. The large square of the first layer is made of "
        "tiles, each with the same pattern of stripes, some stronger and some weaker. A thin line runs along the diagonal. The rectangles between different layers are not empty. "
        f"The squares of the layers hold {within / total:.0%} of the sum of all squared entries, the diagonal alone {float(matrix.diagonal().square().sum()) / total:.0%}.",
        panel,
        size=(6.8, 5.4),
    )


def hessian_and_fisher(hessian: Tensor, fisher: Tensor, one_layer: Tensor, dots: int = 1500) -> Picture:
    """Entries of the Hessian of the loss against those of the Fisher, for pairs of weights of one layer and of two."""
    full = float(fisher.abs().flatten().kthvalue(int(0.9995 * fisher.numel())).values)
    draws = torch.Generator().manual_seed(0)

    def of(pairs, title, colour):
        chosen = pairs.nonzero()
        chosen = chosen[torch.randperm(len(chosen), generator=draws)[:dots]]
        x, y = fisher[chosen[:, 0], chosen[:, 1]], hessian[chosen[:, 0], chosen[:, 1]]

        def panel(axes):
            axes.plot([-full, full], [-full, full], color=INK, lw=0.9, ls="--")
            axes.plot(x, y, color=colour, ls="", marker="o", ms=2, mec="none", alpha=0.6)
            axes.set_xlim(-full, full)
            axes.set_ylim(-full, full)
            axes.set_aspect("equal")
            axes.set_xlabel("entry of $F$")
            axes.set_ylabel("entry of the Hessian")
            axes.set_title(title)

        return panel

    between = float((hessian - fisher)[~one_layer].norm() / fisher[~one_layer].norm())
    return draw(
        "Two panels of dots, entries of the Hessian against entries of the Fisher. For two weights of one layer all lie on the line of equal values. For weights of two layers they lie about it, "
        f"off by {between:.0%} of their size together.",
        of(one_layer, "two weights of one layer", BLUE),
        of(~one_layer, "of two layers", ORANGE),
        size=(3.0, 3.2),
    )


def three_units(true: Tensor, kronecker: Tensor, units: int, full: float) -> Picture:
    """The Fisher of a few units of one layer, as it is and as a Kronecker product."""

    def of(matrix, title):
        def panel(axes):
            _map(axes, matrix, full)
            tile = len(matrix) // units
            for edge in range(tile, len(matrix), tile):
                axes.axhline(edge, color=INK, lw=0.5)
                axes.axvline(edge, color=INK, lw=0.5)
            axes.set_title(title)

        return panel

    error = float((kronecker - true).norm() / true.norm())
    return draw(
        f"Two maps of {len(true)} by {len(true)} entries, {units} units by {units}. The whole block: tiles with nearly one pattern in different strengths and signs. "
        f"The Kronecker product: the same tiles, each exactly the same pattern, together off by {error:.0%}.",
        of(true, "the block"),
        of(kronecker, "Kronecker"),
        size=(3.0, 3.2),
    )


def rises(directions: Sequence[str], ratios: dict[str, Sequence[float]]) -> Picture:
    """What each shape predicts of the rise of the loss, as a share of the true rise, direction by direction."""
    looks = {
        "whole": (INK, "o"),
        "blocks": (GREEN, "s"),
        "Kronecker": (BLUE, "D"),
        "diagonal": (ORANGE, "X"),
    }

    def panel(axes):
        rows = range(len(directions))
        for row in rows:
            axes.axhline(row, color=GREY, lw=0.5, alpha=0.5)
        axes.axvline(1, color=GREY, lw=1, ls=":")
        for name, (colour, marker) in looks.items():
            axes.plot(ratios[name], rows, color=colour, ls="", marker=marker, ms=7, mec="none", alpha=0.9)
        axes.set_xscale("log")
        axes.set_ylim(len(directions) - 0.5, -1.0)
        axes.set_yticks(list(rows), directions, linespacing=1.0)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        low, high = min(map(min, ratios.values())), max(map(max, ratios.values()))
        axes.set_xlim(low / 2, high * 2)
        ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30) if low / 2 <= t <= high * 2]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("predicted rise / true rise")
        top = [ratios[name][0] for name in looks]
        order = sorted(range(4), key=lambda place: top[place])
        shown = {"whole": 0, "blocks": 0, "Kronecker": 0, "diagonal": 0}
        for place in order:
            name = list(looks)[place]
            shown[name] = top[place]
        _names_above(axes, shown, {name: colour for name, (colour, _) in looks.items()})

    said = "; ".join(
        f"{direction}: " + ", ".join(f"{name} {float(values[place]):.2g}" for name, values in ratios.items())
        for place, direction in enumerate(said_in_a_line(directions))
    )
    return draw(
        f"For each direction the predicted rise of the loss divided by the true one, on a logarithmic axis. {said}.",
        panel,
        size=(5.6, 3.9),
    )


def said_in_a_line(names):
    return [name.replace("\n", " ") for name in names]


def _names_above(axes, places, colours):
    """The names of the markers over the first row; spread out where the markers stand close."""
    import math

    low, high = (math.log(edge) for edge in axes.get_xlim())
    order = sorted(places, key=places.get)
    spots = [(math.log(places[name]) - low) / (high - low) for name in order]
    width = 0.19
    for _ in range(200):  # push neighbours apart until they do not overlap
        for left in range(len(spots) - 1):
            gap = spots[left + 1] - spots[left]
            if gap < width:
                push = (width - gap) / 2
                spots[left] -= push
                spots[left + 1] += push
        spots = [min(max(spot, 0.09), 0.93) for spot in spots]
    for name, spot in zip(order, spots, strict=True):
        axes.annotate(name, (spot, 1), (0, -2), xycoords="axes fraction", textcoords="offset points", color=colours[name],
                      ha="center", va="top")  # fmt: skip


def spectra(values: dict[str, Tensor]) -> Picture:
    """Eigenvalues of the whole Fisher, of its Kronecker product and of its diagonal, each from the largest down."""
    colours = {"whole": (INK, "-"), "Kronecker": (BLUE, "--"), "diagonal": (ORANGE, "-.")}

    def panel(axes):
        top = max(float(each.max()) for each in values.values())
        for name, (colour, line) in colours.items():
            ordered = values[name].sort(descending=True).values
            axes.plot(range(1, len(ordered) + 1), ordered, color=colour, ls=line)
            axes.annotate(name, (1, float(ordered[0])), (-4, 0), textcoords="offset points", color=colour, ha="right",
                          va={"whole": "bottom", "Kronecker": "top", "diagonal": "top"}[name], annotation_clip=False)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(top * 1e-6, top * 2)
        axes.set_xlim(1, len(values["whole"]))
        axes.set_xticks([1, 10, 100], ["1", "10", "100"])
        axes.spines["left"].set_visible(False)
        axes.yaxis.tick_right()
        axes.minorticks_off()
        axes.set_xlabel("rank")
        axes.set_title("eigenvalue")

    first = {name: float(each.max()) for name, each in values.items()}
    return draw(
        f"Eigenvalues against their rank on two logarithmic axes. The whole Fisher begins at {first['whole']:.2g} and falls through all six powers of ten shown; the Kronecker product begins at "
        f"{first['Kronecker']:.2g} and stays near it; the diagonal begins at {first['diagonal']:.2g}, lies below both at the largest eigenvalues and above the whole at the smallest.",
        panel,
        size=(4.6, 3.3),
    )


def errors_by_uses(uses: Sequence[int], errors: dict[str, Tensor]) -> Picture:
    """Relative error of a convolution's block against how often each weight is used; `errors` are (runs, kernels)."""
    colours = {"expand": (BLUE, "o"), "reduce": (PURPLE, "s"), "diagonal": (ORANGE, "X")}

    def panel(axes):
        ends = {name: float(errors[name].mean(0)[-1]) for name in colours}
        # Names that would stand on one another are moved apart, each by what it takes.
        room = 0.1 * max(float(each.max()) for each in errors.values())
        heights, below = {}, -1.0
        for name in sorted(ends, key=ends.get):
            heights[name] = below = max(ends[name], below + room)
        for name, (colour, marker) in colours.items():
            each = errors[name]
            axes.plot(uses, each.mean(0), color=colour, marker=marker, ms=5)
            axes.fill_between(uses, each.amin(0), each.amax(0), color=colour, alpha=0.15, linewidth=0)
            axes.annotate(name, (uses[-1], heights[name]), (7, 0), textcoords="offset points", color=colour,
                          va="center", annotation_clip=False)  # fmt: skip
        axes.set_xticks(list(uses))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("places at which each weight is used, $R$")
        axes.set_ylabel("relative error")

    said = "; ".join(
        f"{name} from {float(each.mean(0)[0]):.2f} at one place to {float(each.mean(0)[-1]):.2f} at {uses[-1]}"
        for name, each in errors.items()
    )
    return draw(
        f"Relative error of the Fisher block of a convolution against the number of places at which each of its weights is used, mean and range of {len(errors['expand'])} runs: {said}.",
        panel,
        size=(5.0, 3.2),
    )
