"""Bring along, with each page, what its links to other pages point at: equations, captions of figures, references, terms.

Why: to learn what (8.1) was, a reader should not have to leave the page; and a page that is opened from the disk may not ask for another
one. So the few that a page names lie at its end, in templates, which no browser draws; `book/assets/previews.js` shows them.
"""

import re
import zlib
from html import escape
from pathlib import Path
from posixpath import normpath

from pybtex.richtext import Text
from sphinx.application import Sphinx

LINK = re.compile(r'<a class="[^"]*\binternal\b[^"]*" href="([^"#]+)#((?:equation-|fig-|ref-|term-)[^"]+)"')
EQUATION = re.compile(r'<div class="math[^"]*" id="(equation-[^"]+)">(.*?)<span class="eqno">(\([^)]*\))', re.DOTALL)
FIGURE = re.compile(r'<figure\b[^>]* id="(fig-[^"]+)"[^>]*>.*?<figcaption>(.*?)</figcaption>', re.DOTALL)
REFERENCE = re.compile(r'<div class="citation" id="ref-([^"]+)"[^>]*>.*?<p>(.*?)</p>', re.DOTALL)
TERM = re.compile(r'<dt id="(term-[^"]+)">(.*?)</dt>\s*<dd>(<p>.*?</p>)', re.DOTALL)
TITLE = re.compile(r"<title>(.*?)(?: &#8212;.*?| — .*?)?</title>", re.DOTALL)


def ends(text, papers):
    """Anchor → what is shown of it, for all on a page that can be shown; `papers` has the entries of the references by their keys."""
    title = TITLE.search(text)[1].strip()
    found = {anchor: f'<p class="name">Equation {number} · {title}</p>{formula}' for anchor, formula, number in EQUATION.findall(text)}
    found |= dict(FIGURE.findall(text))
    found |= {f"ref-{key}": in_short(papers[key], written) for key, written in REFERENCE.findall(text)}
    found |= {anchor: f'<p class="name">{re.sub("<a.*?</a>", "", term)}</p>{meaning}' for anchor, term, meaning in TERM.findall(text)}
    return {anchor: alone(shown) for anchor, shown in found.items()}


def in_short(paper, written):
    """The title, the first authors, the year, and the links of the entry as it is written on its page."""
    names = [str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names]))) for person in paper.persons["author"]]
    if len(names) > 3:
        names[1:] = [f"{len(names) - 1} others"]
    authors = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    links = ", ".join(re.findall(r'<a class="[^"]*\bexternal\b.*?</a>', written, re.DOTALL))
    return f'<p class="name">{escape(str(Text.from_latex(paper.fields["title"])))}</p><p>{escape(authors)}, {paper.fields["year"]}. {links}</p>'


def alone(shown):
    """Without what belongs to its place: anchors, marks, and links within the book, which would lead elsewhere from another page."""
    shown = re.sub(r'<a class="headerlink".*?</a>|\s(?:id|tabindex)="[^"]*"', "", shown, flags=re.DOTALL)
    return re.sub(r'<a class="[^"]*\binternal\b[^>]*>(.*?)</a>', r"\1", shown, flags=re.DOTALL)


def bring(app: Sphinx, problem):
    if problem is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = {name: file.read_text("utf8") for name in app.config.external_site_map if (file := site / f"{name}.html").is_file()}
    papers = {citation.key: citation.entry for citation in app.env.get_domain("cite").citations}
    there = {f"{name}.html": ends(text, papers) for name, text in pages.items()}
    for name, text in pages.items():
        if 'class="preview"' in text:      # of an earlier build
            continue
        brought = {}
        for address, anchor in LINK.findall(text):
            if shown := there.get(normpath(f"{name}/../{address}"), {}).get(anchor):
                brought[f"{address}#{anchor}"] = shown
        if brought:
            templates = "".join(f'<template class="preview" data-for="{escape(to)}">{shown}</template>\n' for to, shown in brought.items())
            (site / f"{name}.html").write_text(text.replace("</article>", f"{templates}</article>", 1), "utf8")


def setup(app: Sphinx):
    app.connect("build-finished", bring, priority=850)     # when all pages are written, and before they are made light
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
