"""Say under each reference which pages cite it.

Why: who comes to the list from a search, or leafs through it, wants to know what the book makes of a paper.
"""

import zlib
from pathlib import Path

from docutils import nodes
from ewc_numbers import link, spaced
from sphinx.application import Sphinx


def cited(app: Sphinx, doctree, docname):
    entries = list(doctree.findall(nodes.citation))
    if not entries:
        return
    domain = app.env.get_domain("cite")
    keys = {citation.citation_id: citation.key for citation in domain.citations}
    order = list(app.config.external_site_map)
    for entry in entries:
        pages = {use.docname for use in domain.citation_refs if keys[entry["ids"][0]] in {target.key for target in use.targets}}
        ways = [link(app, docname, page) for page in sorted(pages, key=order.index)]
        entry += nodes.paragraph("", "", nodes.Text("Cited in "), *spaced(ways, ", "), classes=["cited-in"])


def setup(app: Sphinx):
    app.connect("doctree-resolved", cited)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
