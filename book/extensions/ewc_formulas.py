"""Set the formulas of all pages while they are built, and send the fonts of the book along, cut down to what pages use.

Why: a page is read without scripts, by eye and by ear, and looks the same everywhere; `ewc_mathml` says how. The whole font of
mathematics is 318 KB; of its 4,600 characters the pages use 200, with the larger brackets and signs that belong to them. What the
faces of words lack is taken from it too.
"""

import html
import re
import zlib
from pathlib import Path

from docutils import nodes
from ewc.workshop import faces
from ewc_mathml import Typesetter, characters
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

FONT = "node_modules/@fontsource/stix-two-math/files/stix-two-math-latin-400-normal.woff"
# As book.css names them.
SENT = "_static/stix-two-math.woff"
WORDS = {
    "stix-two-text": (faces.SERIF, 400, "normal"),
    "stix-two-text-italic": (faces.SERIF, 400, "italic"),
    "stix-two-text-bold": (faces.SERIF, 700, "normal"),
    "source-sans-3": (faces.SANS, 400, "normal"),
    "source-sans-3-bold": (faces.SANS, 600, "normal"),
    "source-code-pro": (faces.MONO, 400, "normal"),
}
logger = logging.getLogger(__name__)


def begin(app: Sphinx):
    app.ewc_typesetter = Typesetter(Path(app.srcdir, "node_modules/mathjax/es5"), Path(app.outdir).parent / "formulas.json")


def formula(self, node, method):
    tex = node.get("marked", node.astext())
    try:
        return getattr(self.builder.app.ewc_typesetter, method)(tex)
    except ValueError as problem:
        logger.warning("the formula %s cannot be set: %s", node.astext(), problem, location=node)
        return self.encode(node.astext())


def visit_inline(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="math") + formula(self, node, "inline") + "</span>")
    raise nodes.SkipNode


def visit_displayed(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math") + formula(self, node, "displayed"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def finish(app: Sphinx, problem):
    app.ewc_typesetter.close()
    if problem is None and app.builder.format == "html":
        pages = [page.read_text("utf8") for page in Path(app.outdir).rglob("*.html")]
        letters = set().union(*map(letters_of, pages))
        had = [cut_font(faces.face(*face), letters, Path(app.outdir, f"_static/{name}.woff"), WRITING) for name, face in WORDS.items()]
        lacking = letters - set.intersection(*had)
        cut_font(Path(app.srcdir, FONT), lacking.union(*map(characters, pages)), Path(app.outdir, SENT))


def letters_of(page):
    """All that a page says in words, and what scripts and style sheets may add to it."""
    text = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<(script|math)\b.*?</\1>", "", page, flags=re.DOTALL)))
    return {letter for letter in text if letter.isprintable()} | set(map(chr, range(32, 127))) | {*"\xa0↪→…×−“”’"}


# What pages ask of a face of words: pairs of letters, and digits of one width in tables.
WRITING = ("kern", "liga", "mark", "mkmk", "ccmp", "locl", "tnum")


def cut_font(whole, used, file, features=("*",)):
    """A font with these characters alone, and with the variants of them that its table of mathematics names; the characters it has."""
    options = subset.Options(flavor="woff", layout_features=features, hinting=False, notdef_outline=True, recalc_timestamp=False)
    options.name_IDs += [13, 14]        # the licence goes along
    font = subset.load_font(whole, options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=map(ord, used))
    cutter.subset(font)
    subset.save_font(font, file, options)
    return set(map(chr, font.getBestCmap()))


def setup(app: Sphinx):
    app.add_html_math_renderer("ewc", (visit_inline, None), (visit_displayed, None))
    app.connect("builder-inited", begin)
    app.connect("build-finished", finish)
    parts = [Path(__file__), *(Path(__file__).with_name(name) for name in ("ewc_mathml.py", "typeset.cjs")), Path(faces.__file__)]
    return {"version": "1", "env_version": zlib.crc32(b"".join(part.read_bytes() for part in parts)),
            "parallel_read_safe": True}  # fmt: skip
