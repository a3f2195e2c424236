"""Make an element of each line of a listing, so that a line that is longer than its column can be seen to be broken.

Why: text that wraps by itself goes on at the left edge, where it looks like a line of its own; in Python that is another program.
With an element a line, `book.css` sets what is broken off deeper than its line and puts an arrow before it. The text itself, and
with it what is copied, stays the same.
"""

import html
import re
import zlib
from pathlib import Path

from sphinx.application import Sphinx

LISTING = re.compile(r"(<pre>(?:<span></span>)?)(.*?)(\n?</pre>)", re.DOTALL)
DEEPEST = 24   # book.css knows indentations of 4, 8, … up to this


def in_lines(page):
    """The HTML of a listing with a span around each of its lines. Pygments lets no span of its own go on over the end of a line."""
    def divided(found):
        start, body, end = found.groups()
        return start + "\n".join(map(line, body.split("\n"))) + end

    return LISTING.sub(divided, page)


def line(written):
    text = html.unescape(re.sub(r"<[^>]*>", "", written))
    depth = min((len(text) - len(text.lstrip(" "))) // 4 * 4, DEEPEST)
    return f'<span class="line{f" in-{depth}" if depth else ""}">{written}</span>'


def wrap(app: Sphinx):
    for name in ("highlighter", "dark_highlighter"):
        highlighter = getattr(app.builder, name, None)
        if highlighter is not None:
            highlighter.highlight_block = wrapped(highlighter.highlight_block)


def wrapped(highlight):
    def highlight_block(*args, **keywords):
        return in_lines(highlight(*args, **keywords))

    return highlight_block


def setup(app: Sphinx):
    app.connect("builder-inited", wrap, priority=950)   # around what ewc_symbols does to names
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
