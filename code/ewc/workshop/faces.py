"""The typefaces of the book, as its pages send them and its figures are laid out with them.

Why: words of a figure are words on the page, and have room there only if their widths were known when they were placed. The
fonts come with the browser's libraries (`make vendor`); where those are not, as in a copy of the package alone, matplotlib's own
font takes their place.
"""

import functools
import hashlib
import os
import tempfile
from pathlib import Path

import matplotlib
from fontTools.merge import Merger
from fontTools.ttLib import TTFont
from matplotlib import font_manager

FOLDER = Path(__file__).resolve().parents[3] / "node_modules/@fontsource"
SANS, SERIF, MONO = "Source Sans 3", "STIX Two Text", "Source Code Pro"
_DRAWN_WITH = ((SANS, 400, "normal"), (SANS, 600, "normal"), (SERIF, 400, "normal"), (SERIF, 400, "italic"))


def face(family: str, weight: int, style: str) -> Path:
    """One face as a TrueType font, of its Latin and its Greek letters, which its makers ship apart.

    It is made once, for that takes longer than most figures, and kept where matplotlib keeps what it knows of fonts.
    """
    name = family.lower().replace(" ", "-")
    parts = [FOLDER / name / "files" / f"{name}-{script}-{weight}-{style}.woff" for script in ("latin", "greek")]
    made_from = hashlib.sha256(b"".join(part.read_bytes() for part in (Path(__file__), *parts))).hexdigest()[:16]  # and in which way
    file = Path(matplotlib.get_cachedir(), "faces", f"{name}-{weight}-{style}-{made_from}.ttf")
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as place:
            unpacked = [_unpacked(part, Path(place, f"{number}.ttf")) for number, part in enumerate(parts)]
            whole = Path(place, file.name)
            Merger().merge(unpacked).save(whole)
            os.replace(whole, file)  # complete or not there at all
    return file


def _unpacked(packed, file):
    font = TTFont(packed, recalcTimestamp=False)
    font.flavor = None
    font.save(file)
    return str(file)


@functools.cache
def style() -> dict:
    """matplotlib's settings for the faces of the book, which it is given first; nothing where they are not installed."""
    if not all((FOLDER / family.lower().replace(" ", "-")).is_dir() for family, *_ in _DRAWN_WITH):
        return {"mathtext.fontset": "stix"}
    for family, weight, slant in _DRAWN_WITH:
        called = 400 if weight == 400 else 700  # drawings ask for bold, and the bold face of the site is its 600
        named = {"fname": str(face(family, weight, slant)), "name": family, "style": slant, "variant": "normal", "weight": called}
        font_manager.fontManager.ttflist.append(font_manager.FontEntry(**named, stretch="normal", size="scalable"))
    return {
        "font.family": [SANS, "DejaVu Sans"],
        "mathtext.fontset": "custom",
        "mathtext.fallback": "stix",
        "mathtext.rm": SERIF,
        "mathtext.it": f"{SERIF}:italic",
        "mathtext.bf": SERIF,
        "mathtext.cal": f"{SERIF}:italic",
    }
