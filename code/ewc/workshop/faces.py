"""The typefaces of the book, as its pages send them and its figures are laid out with them.

Why: words of a figure are words on the page, and have room there only if their widths were known when they were placed. The
fonts come with the browser's libraries (`make vendor`); where those are not, as in a copy of the package alone, matplotlib's own
font takes their place.
"""

import functools
import io
import tempfile
from pathlib import Path

from fontTools.merge import Merger
from fontTools.ttLib import TTFont
from matplotlib import font_manager

FOLDER = Path(__file__).resolve().parents[3] / "node_modules/@fontsource"
SANS, SERIF, MONO = "Source Sans 3", "STIX Two Text", "Source Code Pro"
_DRAWN_WITH = ((SANS, 400, "normal"), (SANS, 600, "normal"), (SERIF, 400, "normal"), (SERIF, 400, "italic"))


def face(family: str, weight: int, style: str) -> bytes:
    """One face as a TrueType font, of its Latin and its Greek letters, which its makers ship apart."""
    name = family.lower().replace(" ", "-")
    parts = []
    for script in ("latin", "greek"):
        part = TTFont(FOLDER / name / "files" / f"{name}-{script}-{weight}-{style}.woff", recalcTimestamp=False)
        part.flavor = None
        parts.append(_written(part))
    return _written(Merger().merge(parts)).getvalue()


def _written(font):
    file = io.BytesIO()
    font.save(file)
    file.seek(0)
    return file


@functools.cache
def style() -> dict:
    """matplotlib's settings for the faces of the book, which it is given first; nothing where they are not installed."""
    if not all((FOLDER / family.lower().replace(" ", "-")).is_dir() for family, *_ in _DRAWN_WITH):
        return {"mathtext.fontset": "stix"}
    style.folder = tempfile.TemporaryDirectory(prefix="faces-")  # kept until the process ends
    for family, weight, slant in _DRAWN_WITH:
        file = Path(style.folder.name, f"{family} {weight} {slant}.ttf")
        file.write_bytes(face(family, weight, slant))
        called = 400 if weight == 400 else 700  # drawings ask for bold, and the bold face of the site is its 600
        named = {"fname": str(file), "name": family, "style": slant, "variant": "normal", "weight": called}
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
