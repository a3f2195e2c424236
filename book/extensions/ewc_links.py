"""Let a link lead to a page, to a place on the web or to a letter, and nowhere else.

Why: the addresses of references come from a file that others have written. One that begins with `javascript:` would run on the
page of the reader who follows it.
"""

import zlib
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

KINDS = ("", "http", "https", "mailto")
NOT_READ = "".join(map(chr, range(33)))   # browsers pass by spaces and control characters at the beginning
logger = logging.getLogger(__name__)


def check(app: Sphinx, doctree, docname):
    for link in doctree.findall(nodes.reference):
        address = link.get("refuri", "")
        if urlsplit(address.lstrip(NOT_READ)).scheme not in KINDS:
            logger.warning("the link %r begins with none of http:, https: and mailto:", address, location=docname)


def setup(app: Sphinx):
    app.connect("doctree-resolved", check, priority=900)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
