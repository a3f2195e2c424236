"""How the book draws: a figure is a function of a chapter that returns what `draw` gives, with its alt text.

A figure is a `Picture` of one or more panels. The panels stand side by side where there is room and one above the other on
a phone, and are drawn in the page's own colours, so that dark mode needs no second drawing.
"""

import contextlib
import html
import io
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch import Tensor

from ewc.workshop import faces

# Drawn in these colours, which stand for the page's: the text's own, its background, and six series (book.css).
INK, PAPER = "#010203", "#fdfefd"
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (f"#0{number}a{number}b{number}" for number in range(1, 7))
_COLOURS = {INK: "currentColor", PAPER: "var(--paper, #fff)"} | {
    colour: f"var(--series-{number}, {fallback})"
    for number, (colour, fallback) in enumerate(
        zip(
            (BLUE, ORANGE, GREEN, RED, PURPLE, GREY),
            ("#1f5fae", "#c9730a", "#0f8a5f", "#b3261e", "#6f3fa0", "#7a7a7a"),
            strict=True,
        ),
        start=1,
    )
}
_STYLE = {
    "svg.fonttype": "none",  # words stay words: in the page's own face, and to be selected
    "axes.titlesize": "medium",
    "axes.labelsize": "medium",
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
SINGLE = (4.4, 2.9)
# The `bbox` of words that may stand over a line: the page's own background.
ON_PAPER = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.3}
# How wide a panel is at least shown, in pixels (book.css): alone on a phone, which has a column of 342, and in half the column of a
# window of 1280, or in a third of it. No letter is there smaller than 12, but for indices and exponents: all are drawn as large as
# that needs.
_SHOWN_ALONE, _SHOWN_BESIDE, _SHOWN_IN_ROW, _LETTERS = 342, 322, 200, 12.3


_FAMILY = f"'{faces.SANS}', 'DejaVu Sans', sans-serif"


class Picture:
    """Panels of SVG with one description in words; shows itself in a notebook and on a page of the book."""

    def __init__(self, panels: Sequence[str], alt: str, kind: str = ""):
        if not alt.strip():
            raise ValueError("alt is empty; it must say what the figure shows")
        self.panels, self.alt = list(panels), " ".join(alt.split())
        self.kind = kind or {1: "one", 3: "three"}.get(len(self.panels), "")  # how book.css places them

    def _repr_html_(self) -> str:
        kind = f"picture {self.kind}".strip()
        return f'<div class="{kind}" role="img" aria-label="{html.escape(self.alt)}">{"".join(self.panels)}</div>'

    def __repr__(self) -> str:
        return self.alt

    def save(self, path: str | Path) -> None:
        """Write the panels side by side into one SVG file, on white, for places that have no page around it."""
        sizes = [
            [float(number) for number in re.search(r'viewBox="0 0 (\S+) (\S+)"', panel).groups()]
            for panel in self.panels
        ]
        across = [sum(width for width, _ in sizes[:place]) for place in range(len(sizes))]
        # In points a panel would be a third larger than its place, which is in the units of the whole.
        unitless = [re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', panel, count=2) for panel in self.panels]
        placed = [panel.replace("<svg ", f'<svg x="{x}" ', 1) for panel, x in zip(unitless, across, strict=True)]
        width, height = sum(width for width, _ in sizes), max(height for _, height in sizes)
        Path(path).write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" color="#1f2328">'
            f"<title>{html.escape(self.alt)}</title>"
            f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n',
            "utf8",
        )


@contextlib.contextmanager
def outlined():
    """While it lasts, words are drawn as outlines: for a picture that is shown where the book's faces are not at hand."""
    before = _STYLE["svg.fonttype"]
    _STYLE["svg.fonttype"] = "path"
    try:
        yield
    finally:
        _STYLE["svg.fonttype"] = before


def draw(alt: str, *panels: Callable, size: tuple[float, float] | None = None, row: bool = False) -> Picture:
    """A picture of `panels`, functions that each draw on the matplotlib axes that they are given.

    Args:
        alt: the description in words.
        size: of a panel, in inches; by default 5.4 × 3.3 for one panel alone, 3.5 × 2.9 for several.
        row: three panels with few words stand in one row; otherwise three stand one above the other.
    """
    size = size or ((5.4, 3.3) if len(panels) == 1 else (3.5, 2.9))
    letters = _LETTERS * 72 * size[0] / (_SHOWN_IN_ROW if row else _SHOWN_ALONE if len(panels) == 1 else _SHOWN_BESIDE)
    drawn = [_panel(panel, size, letters, f"{alt} {number}") for number, panel in enumerate(panels)]
    return Picture(drawn, alt, "row" if row else "")


def _panel(panel, size, letters, name):
    with matplotlib.rc_context({**_STYLE, **faces.style(), "font.size": letters, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)  # by whose letters the layout is measured
        panel(figure.add_subplot())
        # `savefig` would draw everything once for the layout alone, which takes a quarter of its time.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # An id is unique on a page, and most of matplotlib's are for nothing: keep those that are pointed at, and make them ours.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    own = f"{zlib.crc32(name.encode()):x}"
    svg = re.sub(r'\s+id="([^"]+)"', lambda found: f' id="{own}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)([^)"]+)', rf"\g<1>{own}-\g<2>", svg)
    svg = re.sub(r"<text\b.*?</text>", _words, svg, flags=re.DOTALL)
    svg = re.sub(r' font-size="([\d.]+)"', lambda size: "" if abs(float(size[1]) - letters) < 1e-3 else size[0], svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", f'<svg aria-hidden="true" font-family="{_FAMILY}" font-size="{letters:.2f}" ', 1)


def _words(found):
    """Words as text of the page: its style in attributes, and letters of a formula in the order in which they are read."""
    text = re.sub(r' transform="rotate\(-0 [^"]*"| text-anchor="start"', "", re.sub(r' style="([^"]*)"', _attributes, found[0]))
    pieces = re.findall(r'<tspan x="([\d. -]+)" y="([^"]*)"([^>]*)>([^<]*)</tspan>', text)
    if not pieces:
        return text
    letters = [(float(x), y, how, letter) for places, y, how, word in pieces for x, letter in zip(places.split(), _letters(word), strict=True)]
    runs = []
    for x, y, how, letter in sorted(letters, key=lambda each: each[0]):
        if runs and runs[-1][1:3] == [y, how]:
            runs[-1][0] += f" {x:.2f}"
            runs[-1][3] += letter
        else:
            runs.append([f"{x:.2f}", y, how, letter])
    return '<text xml:space="preserve">' + "".join(f'<tspan x="{x}" y="{y}"{how}>{word}</tspan>' for x, y, how, word in runs) + "</text>"


def _letters(word):
    return re.findall(r"&[^;]+;|.", word)


def _attributes(style):
    made = ""
    for declaration in style[1].split("; "):
        name, value = declaration.split(": ")
        if name != "font-family":
            made += f' {name}="{value.removesuffix("px")}"'
        elif faces.SERIF in value or "STIX" in value:
            made += ' class="formula-letter"'
    return made


def ink(axes, image: Tensor, **how):
    """An image with values from 0, paper, to 1, ink. What is not ink is see-through, and book.css turns the ink light in dark mode."""
    pixels = torch.zeros(*image.shape, 4)
    pixels[..., 3] = (image.detach().float().clamp(0, 1) * 255).round() / 255
    axes.imshow(pixels.numpy(), interpolation="nearest", **how)


def percent(axes, which="y"):
    """Per cents on one of the axes, whole ones where there is room for them; a label says what stands there, and is not rounded."""
    from matplotlib.ticker import AutoLocator, FuncFormatter, MaxNLocator

    axis = getattr(axes, f"{which}axis")
    if isinstance(axis.get_major_locator(), AutoLocator):
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # not by two and a half
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}%"))


def mean_and_range(axes, x, values: Tensor, colour, **line):
    """The mean over runs as a line, with all runs between the edges of a band."""
    axes.plot(x, values.mean(0), color=colour, **line)
    axes.fill_between(x, values.amin(0), values.amax(0), color=colour, alpha=0.2, linewidth=0)


def looks_of(records, place: int) -> tuple[list[int], Tensor]:
    """The steps of the task at `place`, and the accuracies there: (runs, steps, tasks)."""
    looks = [[look for look in record.result["looks"] if look["task"] == place] for record in records]
    steps = [look["step"] for look in looks[0]]
    return steps, torch.tensor([[look["accuracies"] for look in run] for run in looks])


def steps_axis(axes, steps, label):
    """A logarithmic axis of steps, whose left end is the moment before the first one."""
    axes.set_xscale("log")
    ticks = [1, 10, 100, 1000]
    axes.set_xticks([0.7, *ticks], ["0", *(f"{tick:,}" for tick in ticks)])
    axes.minorticks_off()
    axes.set_xlim(0.65, steps[-1])
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(label)
    percent(axes)


def label(axes, text, place, shift, colour, **how):
    """A word beside a place of the data, `shift` points away from it."""
    how = {"weight": "normal", "ha": "left", "va": "center", "linespacing": 1.0} | how
    axes.annotate(text, place, shift, textcoords="offset points", color=colour, annotation_clip=False, **how)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights of labels, moved as little as keeps any two of them `gap` apart, in their order."""
    order, moved = sorted(range(len(heights)), key=heights.__getitem__), list(heights)
    for _ in range(200):
        for below, above in pairwise(order):
            push = (gap - (moved[above] - moved[below])) / 2
            if push > 0:
                moved[below], moved[above] = moved[below] - push, moved[above] + push
    return moved


def curve_only(axes):
    """A density is read by its shape: no scale on the left."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom=0)


def peak(x: Tensor, y: Tensor) -> tuple[float, float]:
    """The highest point of a curve."""
    place = int(y.argmax())
    return float(x[place]), float(y[place])


def fixed(axes, text, place, colour, **how):
    """A label at a place of the panel, not of the data, which leaves the layout alone: from frame to frame nothing jumps."""
    axes.text(*place, text, transform=axes.transAxes, color=colour, in_layout=False, **how)


def two_digits(value):
    """The number with two significant digits."""
    return f"{float(value):#.2g}" if value >= 1e-4 else f"{float(value):.1e}"


def _mass_levels(density: Tensor, shares=(0.99, 0.9, 0.5)) -> list[float]:
    """The heights whose regions above hold these shares of the whole, lowest first."""
    ordered = density.flatten().sort(descending=True).values
    held = ordered.cumsum(0) / ordered.sum()
    return [float(ordered[int((held < share).sum())]) for share in shares]


def shade(axes, grid, log_density, colour):
    """Regions that hold 99, 90 and 50 percent of a density on a grid, the darker the likelier."""
    density = log_density.exp()
    levels = _mass_levels(density)
    across, up = grid.axes
    for bottom, alpha in zip(levels, (0.18, 0.3, 0.5), strict=True):
        axes.contourf(across, up, density.T, [bottom, float(density.max()) * 1.01], colors=[colour], alpha=alpha)
    axes.contour(across, up, density.T, levels, colors=[colour], linewidths=0.8)


def outline(axes, grid, log_density, colour, **lines):
    """The borders of the regions that `shade` fills."""
    density = log_density.exp()
    axes.contour(grid.axes[0], grid.axes[1], density.T, _mass_levels(density), colors=[colour], linewidths=1.3, **lines)


def plane(axes, names=("first weight", "second weight")):
    """Axes of two weights, with dotted lines through 0."""
    axes.axhline(0, color=GREY, lw=0.7, ls=":")
    axes.axvline(0, color=GREY, lw=0.7, ls=":")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def ellipse(mean: Tensor, precision: Tensor, radius: float = 2.0) -> Tensor:
    """Points at `radius` standard deviations from the mean of N(mean, precision⁻¹) in two dimensions: (2, 200)."""
    turn = torch.linspace(0, 2 * torch.pi, 200, dtype=mean.dtype)
    circle = torch.stack([turn.cos(), turn.sin()])
    root = torch.linalg.cholesky(precision)
    return mean[:, None] + radius * torch.linalg.solve_triangular(root.T, circle, upper=True)
