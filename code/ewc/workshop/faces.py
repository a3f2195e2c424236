"""The typefaces of the book, as its pages send them and its figures are laid out with them.

Why: words of a figure are words on the page, and have room there only if their widths were known when they were placed. The
fonts come with the browser's libraries (`make vendor`); where those are not, as in a copy of the package alone, matplotlib's own
font takes their place.
"""

import functools
import hashlib
import io
import os
import tempfile
from pathlib import Path

from matplotlib import font_manager

FOLDER = Path(__file__).resolve().parents[3] / "node_modules/@fontsource"
KEPT = Path(__file__).resolve().parents[3] / "_build" / "faces"
SANS, SERIF, MONO = "Source Sans 3", "STIX Two Text", "Source Code Pro"
_DRAWN_WITH = ((SANS, 400, "normal"), (SANS, 600, "normal"), (SERIF, 400, "normal"), (SERIF, 400, "italic"))


def face(family: str, weight: int, style: str) -> bytes:
    """One face as a TrueType font, of its Latin and its Greek letters, which its makers ship apart."""
    from fontTools.merge import Merger  # here: a page whose faces are kept does not wait for it
    from fontTools.ttLib import TTFont

    parts = []
    for file in _files(family, weight, style):
        part = TTFont(file, recalcTimestamp=False)
        part.flavor = None
        parts.append(_written(part))
    return _written(Merger().merge(parts)).getvalue()


def _files(family, weight, style):
    name = family.lower().replace(" ", "-")
    return [FOLDER / name / "files" / f"{name}-{script}-{weight}-{style}.woff" for script in ("latin", "greek")]


def kept(family: str, weight: int, style: str) -> Path:
    """The file of a face. The first process that draws with it writes it: to put four together takes longer than to draw a figure.

    Its name has what it is made of: other fonts, or another way to put them together, have another file.
    """
    made_of = b"".join(path.read_bytes() for path in (Path(__file__), *_files(family, weight, style)))
    file = KEPT / f"{family} {weight} {style} {hashlib.sha256(made_of).hexdigest()[:16]}.ttf"
    if not file.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        number, unfinished = tempfile.mkstemp(dir=KEPT)
        with open(number, "wb") as opened:
            opened.write(face(family, weight, style))
        os.replace(unfinished, file)  # whole or not at all
    return file


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
    for family, weight, slant in _DRAWN_WITH:
        file = kept(family, weight, slant)
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
