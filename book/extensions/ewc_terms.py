"""The Glossary, the Index, and the way to them from a chapter, all from `book/terms.yml` (its fields: see there) and the table of symbols.

Why: who reads a chapter alone, or out of order, meets words that another chapter explains. The search has had their names and places;
here the same table is read by people:

    {glossary-list}    every term with what it means and the section that explains it
    {index-list}       terms, their other names, and symbols, each with the places where it is said what it is
    in a chapter       the first mention of a term that another page explains leads to the Glossary

An entry that leads nowhere stops the build.
"""

import re
import zlib
from pathlib import Path

import yaml
from docutils import nodes
from ewc_numbers import link
from ewc_symbols import API, NOTATION, RUNS, formula, stem
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

FILE, GLOSSARY, INDEX, REFERENCES = "book/terms.yml", "book/appendix/glossary", "book/appendix/word-index", "book/appendix/references"
FIELDS = {"term", "meaning", "names", "at", "unmarked"}
# Words that lead somewhere already, that name a thing, or that are no running text.
NOT_IN = (nodes.reference, nodes.literal, nodes.math, nodes.strong, nodes.title, nodes.term, nodes.figure, nodes.table, nodes.Admonition)
NO_TEXT = {"take-along", "legend", "cell_output", "from-module"}


def read(file):
    """The entries, checked for what can be known from the file alone."""
    entries, seen = yaml.safe_load(file.read_text("utf8")), set()
    for entry in entries:
        called = entry.get("term") or (entry.get("names") or ["an entry without names"])[0]
        unknown, missing = entry.keys() - FIELDS, {"names", "at"} - entry.keys()
        if unknown or missing or ("term" in entry) != ("meaning" in entry):
            raise ExtensionError(f"terms.yml: {called!r} has unknown fields {sorted(unknown)}, lacks {sorted(missing)}, or has no term or no meaning")
        if "meaning" in entry and not re.fullmatch(r"[A-Z][^.]*\.", entry["meaning"]):
            raise ExtensionError(f"terms.yml: the meaning of {called!r} must be one sentence")
        for name in filter(None, [entry.get("term"), *entry["names"]]):
            if name in seen:
                raise ExtensionError(f"terms.yml: {name!r} is there twice")
            seen.add(name)
    return entries


def load(app: Sphinx):
    app.ewc_terms = read(Path(app.srcdir, FILE))


def anchor(term):
    return "term-" + re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")


def place(app, entry):
    """The page, the anchor on it, and the heading of the section where an entry is answered."""
    name, _, at = entry["at"].partition("#")
    page = {stem(page): page for page in app.config.external_site_map}.get(name)
    headings = {} if page is None else {part["anchorname"].lstrip("#"): part.astext() for part in app.env.tocs[page].findall(nodes.reference)}
    if at not in headings:
        raise ExtensionError(f"terms.yml: {entry.get('term') or entry['names'][0]!r} is at {entry['at']!r}, and no page has such a section")
    return page, at, headings[at]


class TermList(nodes.General, nodes.Element):
    """A place for what is known only when every page has been read; `what` is the name of its directive."""


class TermListDirective(SphinxDirective):
    def run(self):
        self.env.note_dependency(FILE)
        return [TermList(what=self.name)]


def resolve(app: Sphinx, doctree, docname):
    for node in list(doctree.findall(TermList)):
        node.replace_self(glossary(app, docname) if node["what"] == "glossary-list" else index(app, docname))
    if docname not in (app.config.root_doc, GLOSSARY, INDEX, REFERENCES, NOTATION, API, RUNS):      # lists, where everything leads on already
        mark(app, doctree, docname)


# ---- The two lists ----


def section(app, docname, entry):
    """The chapter and, where it is one of its sections, that section."""
    page, at, heading = place(app, entry)
    title = app.env.titles[page].astext()
    return link(app, docname, page, f"{title}, {heading}" if at else title, at)


def glossary(app, docname):
    found = nodes.definition_list(classes=["terms"])
    for entry in sorted((entry for entry in app.ewc_terms if "term" in entry), key=lambda entry: entry["term"].casefold()):
        others = f"Under this too: {', '.join(entry['names'])}. " if entry["names"] else ""
        source = nodes.paragraph("", others, section(app, docname, entry), classes=["explained-in"])
        found += nodes.definition_list_item(
            "", nodes.term("", entry["term"], ids=[anchor(entry["term"])]),
            nodes.definition("", nodes.paragraph("", entry["meaning"]), source),
        )  # fmt: skip
    return [found]


def index(app, docname):
    """By their first letters: terms and other names with the sections that answer, symbols with the page that explains them."""
    lines = {}      # name → the words that stand for it, and the ways to where it is explained

    def line(name, words, page, source):
        key = name.casefold()
        if len(words) > 1 and len(lines.get(key, [""])[0]) > 1:      # another symbol has the same name
            key += f" {words[-1].astext()}"
        known = lines.setdefault(key, (words, {}))
        lines[key] = (words if len(words) > len(known[0]) else known[0], {page: source, **known[1]})

    for entry in app.ewc_terms:
        page = place(app, entry)[0]
        if "term" in entry:
            line(entry["term"], [link(app, docname, GLOSSARY, entry["term"], anchor(entry["term"]))], page, section(app, docname, entry))
        for name in entry["names"]:
            line(name, [nodes.Text(name)], page, section(app, docname, entry))
    pages = {stem(page): page for page in app.config.external_site_map}
    for symbol in app.ewc_table.symbols.values():
        own, page = symbol.pages[0] if symbol.pages else symbol.introduced, pages[symbol.explained or symbol.introduced]
        words = [link(app, docname, NOTATION, symbol.name, f"symbol-{symbol.id}"), nodes.Text(" "), formula(app, symbol.tex, own)]
        line(symbol.name, words, page, link(app, docname, page))
    letters = {}
    for name in sorted(lines, key=sorted_as):
        first = sorted_as(name)[0].upper()
        letters.setdefault(first if first.isascii() and first.isalpha() else "Signs", []).append(lines[name])
    found, jump = [], nodes.paragraph("", "", classes=["letters"])
    for letter, entries in letters.items():
        items = [nodes.list_item("", nodes.paragraph("", "", *words, *(piece for way in ways.values() for piece in (nodes.Text(" · "), way))))
                 for words, ways in entries]  # fmt: skip
        found += [nodes.rubric("", letter, ids=[f"letter-{letter.lower()}"]), nodes.bullet_list("", *items, classes=["word-index"])]
        jump += [nodes.reference("", letter, internal=True, refid=f"letter-{letter.lower()}"), nodes.Text(" ")]
    return [jump, *found]


def sorted_as(name):
    """Without the article: who looks for a function looks under F."""
    return re.sub(r"^(?:an?|the|another) ", "", name.casefold())


# ---- The first mention on a page ----


def mark(app, doctree, docname):
    """Make the first mention of each term a link to its entry, but for those that this page explains itself."""
    entries = [entry for entry in app.ewc_terms if "term" in entry and not entry.get("unmarked") and place(app, entry)[0] != docname]
    waiting = {entry["term"]: re.compile(rf"(?<![\w-]){re.escape(entry['term'])}(?![\w-])", re.IGNORECASE) for entry in entries}
    for text in [node for node in doctree.findall(nodes.Text) if is_running(node)]:
        pieces = [text.astext()]
        for term, pattern in list(waiting.items()):
            for at, piece in enumerate(pieces):
                if isinstance(piece, str) and (found := pattern.search(piece)):
                    leads = link(app, docname, GLOSSARY, found[0], anchor(term))
                    leads["classes"].append("term")
                    pieces[at : at + 1] = [piece[: found.start()], leads, piece[found.end() :]]
                    del waiting[term]
                    break
        if len(pieces) > 1:
            text.parent.replace(text, [nodes.Text(piece) if isinstance(piece, str) else piece for piece in pieces if piece != ""])


def is_running(text):
    """Whether a text stands in a paragraph of the page itself."""
    node, within = text.parent, False
    while node is not None:
        if isinstance(node, NOT_IN) or NO_TEXT & set(node.get("classes", ())):
            return False
        within = within or isinstance(node, nodes.paragraph)
        node = node.parent
    return within


def setup(app: Sphinx):
    for name in ("glossary-list", "index-list"):
        app.add_directive(name, TermListDirective)
    app.add_node(TermList)
    app.connect("builder-inited", load)
    app.connect("doctree-resolved", resolve, priority=600)     # after the ways to other pages are known, before the search reads the page
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
