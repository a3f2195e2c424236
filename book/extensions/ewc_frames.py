"""Load the script of figures with a slider on the pages that have one, and on no other.

Why: a page without such a figure needs no script for it. The figures come from `ewc.frames`; the script is
`book/assets/frames.js`.
"""

import zlib
from pathlib import Path

from sphinx.application import Sphinx

MARK = '<div class="frames">'


def add_script(app: Sphinx, pagename, templatename, context, doctree):
    if MARK in context.get("body", ""):
        app.add_js_file("frames.js", loading_method="defer")


def setup(app: Sphinx):
    app.connect("html-page-context", add_script)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
