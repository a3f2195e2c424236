"""Make a drawing of matplotlib's as small as it looks: what nobody sees goes, and what is said many times is said once.

Why: a cloud of three thousand points is three thousand elements that a browser lays out one by one, which takes a phone a second;
and a curve on a fine grid says of each point of a straight piece where it is.
"""

import re
from itertools import groupby
from math import ceil

import numpy as np

CLOUD = 200      # so many marks of one kind are drawn as dots of a pen
AT_ONCE = 50     # dots of one path do not darken where they lie on each other, so a path has few of them, far apart
FIRST_AHEAD = 16  # so many points are tried at once, and twice as many each time that none was missed
SEEN = 0.05      # points; a line may pass a point of its own at so much
USE = re.compile(r'<use href="([^"]*)" x="([^"]*)" y="([^"]*)"([^>]*)/>')


def compact(svg: str) -> str:
    """Without white space, comments, fractions of a pixel, and what most parts repeat."""
    svg = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href=", "href=")
    # Most parts say that they are of ink: now the whole says it. The face is the style sheet's.
    svg = re.sub(r' version="1.1"| xmlns="[^"]*"|(?<=aria-hidden="true") font-family="[^"]*"', "", svg)
    if ' fill="currentColor"' in svg:
        svg = svg.replace(' fill="currentColor"', "").replace("<svg", '<svg fill="currentColor"', 1)
    svg = re.sub(r'(?<= d=")[^"]*|(?<=translate\()[^)]*|(?<= x=")[^"]*|(?<= y=")[^"]*', lambda numbers: rounded(numbers[0]), svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: straightened(re.sub(r"\s*([A-Za-z])\s*", r"\1", path[0])), svg)
    svg = ungrouped(svg)
    outlines = dict(re.findall(r'<path id="([^"]*)" d="([^"]*)"', svg))
    return re.sub(r"(?:<use [^>]*/>){2,}", lambda run: "".join(marks(run[0], outlines)), svg)


def ungrouped(svg: str) -> str:
    """Without groups that say nothing: of matplotlib's most."""
    kept, said = [], []
    for piece in re.split(r"(<g\b[^>]*>|</g>)", svg):
        if piece.startswith("<g") and piece.endswith(">") and not piece.endswith("/>"):
            said.append(piece != "<g>")
            keep = said[-1]
        else:
            keep = said.pop() if piece == "</g>" else True
        kept += [piece] if keep else []
    return "".join(kept)


def rounded(text: str) -> str:
    """To hundredths, which small marks need, and from 10 on to tenths of a point."""
    def short(number):
        value = float(number[0])
        return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")

    return re.sub(r"-?\d+\.\d+(?!\d|e)", short, " ".join(text.split()))


def straightened(path: str) -> str:
    """A path of straight lines, without the points that the line through their neighbours passes closer than can be seen."""
    return re.sub(r"[ML][^A-Za-z]+(?:L[^A-Za-z]+){2,}", lambda line: fewer(line[0]), path)


def fewer(line):
    written = line[1:].split("L")
    try:
        x, y = np.array([[float(number) for number in point.split()] for point in written]).T
    except ValueError:      # no pairs of numbers
        return line
    points, kept, end, ahead = x + 1j * y, [0], 2, FIRST_AHEAD
    while end < len(points):
        # Could the line go from the last point that is kept to the next one, the one after that, …? Several are tried at once.
        begin, ends = kept[-1], np.arange(end, min(end + ahead, len(points)))
        between = np.arange(begin + 1, ends[-1])
        missed = distance(points[between], points[begin], points[ends, None]) > SEEN
        missed = (missed & (between < ends[:, None])).any(1)
        if missed.any():
            end = ends[missed.argmax()]
            kept.append(end - 1)
            ahead = FIRST_AHEAD
        else:
            end = ends[-1]
            ahead *= 2
        end += 1
    return line[0] + "L".join(written[at] for at in (*kept, len(points) - 1))


def distance(point, begin, end):
    """Of points from pieces of lines, all x + iy."""
    way, point = end - begin, point - begin
    squared = way.real**2 + way.imag**2
    along = np.clip((point * np.conj(way)).real / np.where(squared, squared, 1), 0, 1)
    return abs(point - along * way)


def marks(run, outlines):
    """A row of marks: those of one kind say their colours once, and a cloud of round ones is drawn with a pen."""
    uses = list(USE.finditer(run))
    if "".join(use[0] for use in uses) != run:
        yield run
        return
    for (href, colours), alike in groupby(uses, key=lambda use: (use[1], use[4])):
        alike = list(alike)
        round_one = re.match(r"M0 ([\d.]+)(?:C[^A-Z]+){8}z$", outlines.get(href[1:], ""))
        if len(alike) >= CLOUD and round_one and 'stroke-opacity="0"' in colours:
            yield from dots([f"M{use[2]} {use[3]}h0" for use in alike], 2 * float(round_one[1]), colours)
        elif len(alike) > 1 and colours:
            yield f"<g{colours}>" + "".join(use[0].replace(colours, "") for use in alike) + "</g>"
        else:
            yield from (use[0] for use in alike)


def dots(points, width, colours):
    said = dict(re.findall(r' ([\w-]+)="([^"]*)"', colours))
    pen = f'fill="none" stroke="{said.get("fill", "currentColor")}" stroke-width="{width:g}" stroke-linecap="round"'
    if "fill-opacity" in said:
        pen += f' stroke-opacity="{said["fill-opacity"]}"'
    paths = ceil(len(points) / AT_ONCE)
    return [f'<path d="{"".join(points[first::paths])}" {pen}/>' for first in range(paths)]
