"""Load the script of figures with a slider or a switch on the pages that have one, and on no other.

Why: a page without such a figure needs no script for it. The figures come from `ewc.workshop.frames`; the scripts
are `book/assets/frames.js` and `book/assets/switch.js`.
"""

import zlib
from pathlib import Path

from sphinx.application import Sphinx

MARKS = {'<div class="frames">': "frames.js", '<div class="switched">': "switch.js"}


def add_script(app: Sphinx, pagename, templatename, context, doctree):
    for mark, script in MARKS.items():
        if mark in context.get("body", ""):
            app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx):
    app.connect("html-page-context", add_script)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
