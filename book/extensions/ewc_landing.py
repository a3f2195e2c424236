"""The parts of the landing page (`index.md`): where to start, a card a chapter, what can be taken along, and how to cite.

Why: each repeats what stands somewhere else, titles and numbers of chapters, their figures, the table of README.md, CITATION.cff and
the settings. Read from there, they cannot go stale.

    {start}        lines `words: page`, the first of which is the way in
    {cards}        lines `chapter | figure of that chapter | question`, one for every chapter, in the book's order
    {offers}       the package, the single files with what README.md says of them, and the repository where one is set
    {cite-this}    CITATION.cff as BibTeX
"""

import re
import zlib
from pathlib import Path

import yaml
from docutils import nodes
from ewc_site import APPENDIX, address, repository
from ewc_takeaway import TAKEN
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

API, RUNS = f"{APPENDIX}/api", f"{APPENDIX}/how-this-copy-was-made"
PANEL = re.compile(r'<div class="picture.*?(<svg\b.*?</svg>)', re.DOTALL)
WORDS = re.compile(r"<text\b.*?</text>", re.DOTALL)


class Landing(nodes.General, nodes.Element):
    """A place for what is known only when every page has been read; `what` is the name of its directive."""


class LandingDirective(SphinxDirective):
    has_content = True

    def run(self):
        return [Landing(what=self.name, lines=[line for line in self.content if line.strip()])]


def resolve(app: Sphinx, doctree, docname):
    makers = {"start": start, "cards": cards, "offers": offers, "cite-this": cite}
    for node in list(doctree.findall(Landing)):
        node.replace_self(makers[node["what"]](app, docname, node["lines"]))


def page_named(app, name):
    """The one page that is called so, by the last parts of its path."""
    found = [page for page in app.config.external_site_map if f"/{page}".endswith(f"/{name}")]
    if len(found) != 1:
        raise ExtensionError(f"index.md: {name!r} is {len(found)} of the pages in _toc.yml where one was expected")
    return found[0]


def link(app, docname, target, *inside, kind=""):
    uri = app.builder.get_relative_uri(docname, target)
    return nodes.reference("", "", *inside, internal=True, refuri=uri, classes=[kind] if kind else [])


def start(app, docname, lines):
    pairs = [line.rpartition(": ")[::2] for line in lines]
    links = [link(app, docname, page_named(app, page), nodes.Text(words), kind="start") for words, page in pairs]
    return [nodes.paragraph("", "", *(piece for each in links for piece in (each, nodes.Text(" "))), classes=["start-here"])]


# ---- Cards ----


def cards(app, docname, lines):
    chapters = [page for page in app.config.external_site_map if app.env.toc_secnumbers.get(page, {}).get("")]
    asked = [[part.strip() for part in line.split("|")] for line in lines]
    if [page_named(app, page) for page, *_ in asked] != chapters:
        raise ExtensionError(f"index.md: cards must have a line for each chapter, in this order: {', '.join(chapters)}")
    found = nodes.bullet_list(classes=["cards"])
    for page, (_, figure, question) in zip(chapters, asked, strict=True):
        number = ".".join(map(str, app.env.toc_secnumbers[page][""]))
        inside = [
            nodes.raw("", thumbnail(app.env.get_doctree(page), figure), format="html"),
            nodes.inline("", f"{number} · {app.env.titles[page].astext()}", classes=["card-title"]),
            nodes.inline("", question, classes=["card-question"]),
        ]
        found += nodes.list_item("", nodes.paragraph("", "", link(app, docname, page, *inside)))
    return [found]


def thumbnail(doctree, name):
    """The first panel of a figure without its words, which could not be read at this size; the question beside it says what it is of."""
    for figure in doctree.findall(nodes.figure):
        if name in figure["ids"] or name in figure["names"]:
            panels = [panel for raw in figure.findall(nodes.raw) if (panel := PANEL.search(raw.astext()))]
            if panels:
                return rounded(WORDS.sub("", panels[0][1]))
    raise ExtensionError(f"index.md: the page has no figure {name!r} with a drawing")


def rounded(svg):
    """To a tenth of a point, and ids that are not those of the figure itself."""
    svg = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    svg = re.sub(r'(?:id="|url\(#|href="#)', lambda found: f"{found[0]}card-", svg)
    return re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path[0]), svg)


# ---- To take along, and to cite ----


def offers(app, docname, lines):
    readme = Path(app.srcdir, "README.md").read_text("utf8")
    rows = re.findall(r"^\| \[`(\w+)\.py`\]\([^)]*\) \|[^|]*\| (.*?) \|$", readme, re.MULTILINE)
    if not rows:
        raise ExtensionError("README.md has no table of files to take away")
    up = "../" * docname.count("/")
    wheel = nodes.reference("", "", nodes.Text("package"), internal=True, refuri=f"{up}{TAKEN}/{app.ewc_wheel}")
    every = nodes.paragraph("", "", nodes.Text("Each chapter, at its top and its foot, as a notebook and as a script; the "), wheel)
    every += nodes.Text(" that both run on; and single files that work in a project of yours with PyTorch and what their first lines name:")
    found = nodes.bullet_list(classes=["offers"])
    for module, words in rows:
        target = f"{app.builder.get_relative_uri(docname, API)}#ewc.{module}"
        name = nodes.reference("", "", nodes.literal("", f"{module}.py"), internal=True, refuri=target)
        found += nodes.list_item("", nodes.paragraph("", "", name, nodes.Text(" "), *code_in(words)))
    source = nodes.paragraph("", "Code: MIT licence. Text and figures: Creative Commons Attribution 4.0. ")
    if repository(app):
        source += [nodes.Text("The source of all of it: "), nodes.reference("", repository(app), refuri=repository(app)), nodes.Text(". ")]
    source += [nodes.Text("What this copy was made with, and every run: "), link(app, docname, RUNS, nodes.Text(app.env.titles[RUNS].astext()))]
    source += nodes.Text(".")
    return [every, found, source]


def code_in(text):
    pieces = re.split(r"`([^`]+)`", text)
    return [nodes.literal("", piece) if place % 2 else nodes.Text(piece) for place, piece in enumerate(pieces) if piece]


def cite(app, docname, lines):
    about = yaml.safe_load(Path(app.srcdir, "CITATION.cff").read_text("utf8"))
    author = " and ".join(f"{{{each['name']}}}" if "name" in each else f"{each['family-names']}, {each['given-names']}" for each in about["authors"])
    fields = {"author": author, "title": f"{{{about['title']}}}", "year": str(about["date-released"])[:4],
              "note": f"Version {about['version']}"}  # fmt: skip
    fields |= {"url": address(app) or repository(app)} if address(app) or repository(app) else {}
    text = "@misc{weights-that-remember,\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items()) + "}"
    return [nodes.literal_block(text, text, language="bibtex")]


def setup(app: Sphinx):
    for name in ("start", "cards", "offers", "cite-this"):
        app.add_directive(name, LandingDirective)
    app.add_node(Landing)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
