"""Search by section, in words that readers type, from http and from the disk.

Why: Sphinx finds pages, orders ties by the alphabet, shows raw TeX as snippets, and needs a server for them. Here every section, and
every function of the API page, is an entry with its words; formulas are left out or said in plain letters. The terms of
`book/terms.yml` bring other names of a thing and the section that answers. All of it is one file that is loaded on the search page
alone, as a script that sets one name, so that it works from the disk too; `book/assets/search.js` does the rest.
"""

import json
import re
import unicodedata
import zlib
from pathlib import Path

from docutils import nodes
from ewc_terms import GLOSSARY, INDEX, NO_TEXT, place
from sphinx.application import Sphinx

UNSAID = (nodes.math_block, nodes.raw, nodes.comment, nodes.image, nodes.literal_block, nodes.math)
FILE = "search-index.js"


def collect(app: Sphinx, doctree, docname):
    """The sections of a page as they will be read, each without those inside it."""
    found = app.ewc_sections = getattr(app, "ewc_sections", {})
    found[docname] = []
    title = app.env.titles[docname].astext()
    for part in doctree.findall(is_entry):
        heading = next(iter(part.children)).astext() if isinstance(part, nodes.section) else part["ids"][0].partition(".")[2]
        anchor = part["ids"][0] if isinstance(part.parent, nodes.section) or not isinstance(part, nodes.section) else ""
        words = [text for child in part.children if not isinstance(child, nodes.title) for text in said(child)]
        text = re.sub(r"\s+([.,;:?)])", r"\1", re.sub(r"\s+", " ", " ".join(words))).strip()
        if text or not anchor:
            at = app.builder.get_target_uri(docname) + (f"#{anchor}" if anchor else "")
            found[docname].append({"page": title, "heading": heading, "at": at, "text": text})


def is_entry(node):
    """A section with a heading, or a function of the API page. The text of an exercise is a section too, but of what is around it."""
    if isinstance(node, nodes.section):
        return isinstance(node.parent, nodes.document | nodes.section)
    return isinstance(node, nodes.container) and "api" in node["classes"]


def said(node):
    """The words of a node, without those of sections in it; a formula in a line is a few letters, and one that is displayed is none."""
    if isinstance(node, nodes.Text):
        return [str(node)]
    if isinstance(node, nodes.math):
        return [in_letters(node.astext())]
    classes = set(node.get("classes", ()))
    if is_entry(node) or isinstance(node, UNSAID) or classes & NO_TEXT:
        return []
    if isinstance(node, nodes.TextElement):
        return ["".join(text for child in node.children for text in said(child))]
    return [text for child in node.children for text in said(child)]


def in_letters(tex):
    """`\\lambda` as λ, `\\theta^*_i` as θ*i; nothing where that would not be readable."""
    def letter(found):
        size = "CAPITAL" if found[1][0].isupper() else "SMALL"
        name = found[1].upper().replace("LAMBDA", "LAM" + "DA")      # as Unicode spells it
        try:
            return unicodedata.lookup(f"GREEK {size} LETTER {name}")
        except KeyError:
            return "\\"

    text = re.sub(r"\\([A-Za-z]+)", letter, tex)
    text = re.sub(r"[{}^_$]", "", text)
    return "…" if "\\" in text or len(text) > 12 else text


def terms(app):
    """Other names of a thing, and where it is answered."""
    found = []
    for entry in app.ewc_terms:
        page, anchor, _ = place(app, entry)
        names = [*filter(None, [entry.get("term")]), *entry["names"]]
        found.append({"names": names, "at": app.builder.get_target_uri(page) + (f"#{anchor}" if anchor else "")})
    return found


def pages(app: Sphinx):
    lists = (app.config.root_doc, GLOSSARY, INDEX)      # they only say what other pages say
    sections = [section for page in app.config.external_site_map if page not in lists for section in app.ewc_sections.get(page, ())]
    content = json.dumps({"sections": sections, "terms": terms(app)}, ensure_ascii=False, separators=(",", ":"))
    Path(app.outdir, FILE).write_text(f"window.bookIndex = {content};\n", "utf8")
    yield "search", {"title": "Search"}, "book-search.html"


def own_search(app: Sphinx):
    app.builder.search = False      # Sphinx's page and index


def setup(app: Sphinx):
    app.connect("builder-inited", own_search)
    app.connect("doctree-resolved", collect, priority=960)
    app.connect("html-collect-pages", pages)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True, "parallel_write_safe": False}
