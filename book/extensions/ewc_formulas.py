"""Set the formulas of all pages while they are built, and send the font of mathematics along, cut down to what they use.

Why: a page is read without scripts, by eye and by ear, and looks the same everywhere; `ewc_mathml` says how. The whole font is
318 KB; of its 4,600 characters the pages use 200, with the larger brackets and signs that belong to them.
"""

import zlib
from pathlib import Path

from docutils import nodes
from ewc_mathml import Typesetter, characters
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

FONT = "node_modules/@fontsource/stix-two-math/files/stix-two-math-latin-400-normal.woff"
SENT = "_static/stix-two-math.woff"      # named in book.css
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
        used = {each for page in Path(app.outdir).rglob("*.html") for each in characters(page.read_text("utf8"))}
        cut_font(Path(app.srcdir, FONT), used, Path(app.outdir, SENT))


def cut_font(whole, used, file):
    """A font with these characters alone, and with the variants of them that its table of mathematics names."""
    options = subset.Options(flavor="woff", layout_features=["*"], hinting=False, notdef_outline=True, recalc_timestamp=False)
    font = subset.load_font(whole, options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=map(ord, used))
    cutter.subset(font)
    subset.save_font(font, file, options)


def setup(app: Sphinx):
    app.add_html_math_renderer("ewc", (visit_inline, None), (visit_displayed, None))
    app.connect("builder-inited", begin)
    app.connect("build-finished", finish)
    parts = [Path(__file__), *(Path(__file__).with_name(name) for name in ("ewc_mathml.py", "typeset.cjs"))]
    return {"version": "1", "env_version": zlib.crc32(b"".join(part.read_bytes() for part in parts)),
            "parallel_read_safe": True}  # fmt: skip
