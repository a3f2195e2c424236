"""Make one thing of a symbol in equations, listings and prose, from the table `book/symbols.yml` (its fields: see there).

Why: a reader who points at λ in an equation should see where it is in the code and be told what it is. On each page:

    formulas             every symbol gets the classes `sym sym-<id>`; one that is not in the table stops the build (-W)
    listings             code names get the same classes where they mean a symbol of the page: see `places`
    {sym}`words <id>`    words in prose that mean the symbol; {sym}`id` writes its name
    a legend             the symbols of the page, at its end
    {notation}           the whole table, each with the anchor `symbol-<id>`

The box that opens is `book/assets/symbols.js`; `ewc_formulas` sets the formulas. Without scripts, and in print, nothing has changed.
"""

import ast
import json
import re
import zlib
from functools import cache
from pathlib import Path

from docutils import nodes
from ewc_numbers import chapters, collected, link, plain, published_on, table
from ewc_tex import Table
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

NOTATION, RUNS, API = "book/appendix/notation", "book/appendix/how-this-copy-was-made", "book/appendix/api"
# A name in a highlighted listing, with the dot before it, unless that is self's, and the bracket that calls it.
NAME_TOKEN = re.compile(
    r'(<span class="bp">self</span>)?(<span class="o">\.</span>)?<span class="(n|nf|nc|nb|fm|nv|vi|nn|na)">(\w+)</span>(?=<span class="p">(\()|)'
)
# The same in its text, for what is known before it is highlighted.
NAME = re.compile(r"(\bself)?(\.)?\b([A-Za-z_]\w*)\b(?=(\()|)")
logger = logging.getLogger(__name__)


def stem(docname):
    """Pages are called by the last part of their path."""
    return docname.rpartition("/")[2]


# ---- Reading a page: mark its formulas and listings, remember which symbols it uses ----


def load(app: Sphinx):
    try:
        app.ewc_table = Table(Path(app.srcdir, "book/symbols.yml"))
    except (ValueError, TypeError) as problem:
        raise ExtensionError(str(problem)) from None


def depend(app: Sphinx, docname, source):
    app.env.note_dependency("book/symbols.yml")


def used(env):
    """docname → the ids of the symbols on that page, in the order of their first appearance; kept with the environment."""
    if not hasattr(env, "ewc_symbols"):
        env.ewc_symbols = {}
    return env.ewc_symbols


def read(app: Sphinx, doctree):
    page, found = stem(app.env.docname), {}
    symbols = app.ewc_table
    for first, second, what in symbols.bare_on(page)[1]:
        logger.warning("symbols.yml: %s and %s both claim %r on this page", first, second, what, location=app.env.docname)
    for node in doctree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block)):
        formula = symbols.read(node.astext(), page)
        for piece in dict.fromkeys(formula.unknown):
            logger.warning("the symbol %s of a formula is not in book/symbols.yml", piece, location=node)
        node["marked"], node["used"] = formula.marked, formula.used
        node.children = [nodes.Text(formula.plain)]
        found |= dict.fromkeys(formula.used)
    for node in doctree.findall(Symbol):
        found[node["symbol"]] = None
    used(app.env)[app.env.docname] = list(found)
    named(app.env)[app.env.docname] = {}
    for node in doctree.findall(nodes.literal_block):
        if node.get("language") in ("python", "python3", "ipython3", "ipython"):
            mark(app, node, page, found)
    check_bindings(doctree)


def mark(app, listing, page, among):
    """The names of the listing that mean one of the symbols `among`: these are on the page, so that a box can say what they are."""
    around = places(listing, page)
    names, twice = app.ewc_table.names_at(around, among)
    for first, second, what in twice:
        logger.warning("symbols.yml: %s and %s both claim %r on this page", first, second, what, location=app.env.docname)
    written = {written_name(*found.groups()) for found in NAME.finditer(listing.astext())}
    listing["symbols"] = {name: symbol.id for name, symbol in names.items() if name in written}
    for name, symbol in listing["symbols"].items():
        named(app.env)[app.env.docname].setdefault((symbol, name), set()).update(around)


def places(listing, page):
    """Where a listing stands, the nearest last: a cell on its page, under its headings, in its answer; a function in its module
    and class, whatever page shows it. A test stands nowhere: its names are its own."""
    around, node = [], listing
    while node is not None:
        if "place" in node:
            parts = node["place"].split(".")
            return [".".join(parts[: end + 1]) for end in range(len(parts))] if node["place"] else []
        around += [f"{page}#{name}" for name in (*node.get("ids", ()), node.get("target_label")) if name]
        node = node.parent
    return [page, *reversed(around)]


def written_name(owner, dot, name, call):
    """A name as the table writes it: what is behind the dot of anything but self has that dot, and brackets where it is called."""
    return f".{name}{'()' if call else ''}" if dot and not owner else name


def check_bindings(doctree):
    """A listing that is bound to an equation of its page has at least one symbol in common with it, to be lit on both sides."""
    equations = {node["label"]: node for node in doctree.findall(nodes.math_block) if node.get("label")}
    for box in doctree.findall(nodes.container):
        for label in box.get("equations", ()):
            listed = {name for block in box.findall(nodes.literal_block) for name in block["symbols"].values()}
            if label not in equations:
                logger.warning("the bound equation %s is not on this page", label, location=box)
            elif not listed & set(equations[label]["used"]):
                logger.warning("the equation %s and the code bound to it have no symbol in common", label, location=box)


def named(env):
    """docname → (symbol, name in code) → the places on that page where it means that; kept with the environment."""
    if not hasattr(env, "ewc_names"):
        env.ewc_names = {}
    return env.ewc_names


def purge(app: Sphinx, env, docname):
    used(env).pop(docname, None)
    named(env).pop(docname, None)


def check(app: Sphinx, env):
    """What can be known only when all pages have been read."""
    order = [stem(page) for page in app.config.external_site_map]
    somewhere = {symbol for symbols in used(env).values() for symbol in symbols}
    code = identifiers(Path(app.srcdir, "code"))
    seen = {}
    for names in named(env).values():
        for key, where in names.items():
            seen.setdefault(key, set()).update(where)
    for symbol in app.ewc_table.symbols.values():
        if symbol.id not in somewhere:
            logger.warning("symbols.yml: no page uses %s", symbol.id)
        for name in symbol.code:
            if name not in code:
                logger.warning("symbols.yml: %s is called %r, and code/ewc has no such name", symbol.id, name)
        for name, where in symbol.code_on.items():
            for place in set(where) - seen.get((symbol.id, name), set()):
                logger.warning("symbols.yml: %s is called %r in %s, and no listing there, on a page with that symbol, has that name",
                               symbol.id, name, place)  # fmt: skip
        for page in {symbol.introduced, symbol.explained or symbol.introduced, *symbol.pages}:
            if page not in order:
                logger.warning("symbols.yml: %s names the page %r, which is not in _toc.yml", symbol.id, page)


@cache
def identifiers(folder):
    """Every name that the package's code uses."""
    trees = [ast.parse(file.read_text("utf8")) for file in sorted(folder.glob("ewc/**/*.py"))]
    attributes = ("id", "arg", "attr", "name")
    return {getattr(node, each, None) for tree in trees for node in ast.walk(tree) for each in attributes}


# ---- In prose ----


class Symbol(nodes.inline):
    """Words that mean a symbol."""


class SymbolRole(SphinxRole):
    def run(self):
        words, name = re.fullmatch(r"(?:(.+?)\s*<)?([^<>]+)>?", self.text, re.DOTALL).groups()
        symbol = self.env.app.ewc_table.symbols.get(name)
        if symbol is None:
            logger.warning("book/symbols.yml has no entry %r", name, location=self.get_location())
            return [nodes.inline("", words or name)], []
        return [Symbol("", words or symbol.name, symbol=name)], []


def visit_symbol(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS=f"sym sym-{node['symbol']}"))


def depart_symbol(self, node):
    self.body.append("</span>")


# ---- In listings ----


def mark_listings(app: Sphinx):
    for name in ("highlighter", "dark_highlighter"):
        highlighter = getattr(app.builder, name, None)
        if highlighter is not None:
            highlighter.highlight_block = marking(highlighter.highlight_block)


def marking(highlight):
    def highlight_block(source, lang, *args, location=None, **keywords):
        made = highlight(source, lang, *args, location=location, **keywords)
        names = location.get("symbols") if isinstance(location, nodes.Element) else None
        if not names:
            return made

        def marked(found):
            owner, dot, kind, name, call = found.groups()
            symbol = names.get(written_name(owner, dot, name, call))
            before = (owner or "") + (dot or "")
            return f'{before}<span class="{kind} sym sym-{symbol}">{name}</span>' if symbol else found[0]

        return NAME_TOKEN.sub(marked, made)

    return highlight_block


# ---- What is added to a page ----


class Notation(nodes.General, nodes.Element):
    """The place of the whole table."""


class NotationDirective(SphinxDirective):
    def run(self):
        return [Notation()]


def formula(app, tex, page):
    return nodes.math(tex, tex, marked=app.ewc_table.read(tex.rstrip("("), page).marked)


def resolve(app: Sphinx, doctree, docname):
    for node in list(doctree.findall(Notation)):
        node.replace_self(notation(app, docname))
    symbols = [app.ewc_table.symbols[name] for name in used(app.env).get(docname, ())]
    if symbols and docname not in (NOTATION, RUNS):
        legend = nodes.container("", nodes.rubric("", "Symbols on this page"), classes=["legend"])
        entries = nodes.bullet_list()
        for symbol in sorted(symbols, key=lambda each: each.name.lower()):
            entry = nodes.paragraph("", "", formula(app, symbol.tex, stem(docname)), nodes.Text(" "))
            entry += Symbol("", symbol.name, symbol=symbol.id)
            entries += nodes.list_item("", entry)
        legend += entries
        section = next((node for node in doctree.children if isinstance(node, nodes.section)), doctree)
        section += legend


def called(symbol, here=None):
    """What the symbol is called in code, in order: everywhere, and also `here` if given, else also in single places."""
    return sorted({name.lstrip(".") for name in (*symbol.code, *(symbol.code_on if here is None else here))})


def notation(app: Sphinx, docname):
    env, shown = app.env, {}
    functions = env.get_doctree(API).findall(nodes.container) if API in env.all_docs else ()
    anchors = {name for function in functions for name in function["ids"]}
    for names in named(env).values():
        for key, where in names.items():
            shown.setdefault(key, set()).update(where)
    titles = {stem(page): page for page in app.config.external_site_map}
    body = []
    for symbol in app.ewc_table.symbols.values():
        page = symbol.pages[0] if symbol.pages else symbol.introduced
        names = []
        for name in called(symbol):
            literal = nodes.literal("", name)
            where = {place for key in ((symbol.id, name), (symbol.id, f".{name}")) for place in shown.get(key, ())}
            target = max(where & anchors, key=lambda place: (place.count("."), place), default=None)
            if target:
                address = f"{app.builder.get_relative_uri(docname, API)}#{target}"
                literal = nodes.reference("", "", literal, internal=True, refuri=address)
            names += [nodes.Text(" "), literal]
        introduced = titles.get(symbol.explained or symbol.introduced)
        body.append((f"symbol-{symbol.id}", [
            [formula(app, symbol.tex, page)],
            [nodes.strong("", symbol.name), nodes.Text(f", read “{symbol.reading}”. {symbol.meaning}")],
            plain(symbol.shape), names[1:],
            [link(app, docname, introduced)] if introduced in env.titles else plain(""),
        ]))  # fmt: skip
    return [table(("symbol", "meaning", "shape or domain", "in code", "explained in"), body, "notation")]


def describe(app: Sphinx, pagename, templatename, context, doctree):
    """What the box says of the symbols and of the runs on this page, as data at the end of its text."""
    if doctree is None or "body" not in context:
        return
    page, here, env = stem(pagename), used(app.env).get(pagename, ()), app.env
    numbers = published_on(env, pagename)
    titles = {stem(name): name for name in app.config.external_site_map}
    symbols = {}
    for symbol in map(app.ewc_table.symbols.get, here):
        names = called(symbol, [name for known, name in named(env).get(pagename, ()) if known == symbol.id])
        facts = {"name": symbol.name, "reading": symbol.reading, "meaning": symbol.meaning, "shape": symbol.shape}
        facts |= {"code": ", ".join(names)} if names else {}
        facts |= {"value": numbers[symbol.value]["text"]} if symbol.value in numbers else {}
        explained = symbol.explained or symbol.introduced
        if explained != page and titles.get(explained) in env.titles:
            facts["from"] = env.titles[titles[explained]].astext()
            facts["at"] = app.builder.get_relative_uri(pagename, titles[explained])
        symbols[symbol.id] = facts
    keys = {key for number in numbers.values() for key in number["runs"].split()}
    rows = {key: row for name in chapters(env) for key, row in collected(env)[name]["runs"].items() if key in keys}
    runs, settings = {}, []     # what runs share is told once, and they point to it
    for key, row in rows.items():
        shared = {"name": row["name"], "configuration": {name: str(value) for name, value in row["configuration"].items()},
                  "device": row["device"], "finished": row["finished"][:10]}  # fmt: skip
        if shared not in settings:
            settings.append(shared)
        runs[key] = [settings.index(shared), row["seed"]]
    if symbols or runs:
        content = {"symbols": symbols, "runs": runs, "settings": settings}
        content |= {key: app.builder.get_relative_uri(pagename, target) for key, target in
                    (("notation", NOTATION), ("table", RUNS)) if target in env.all_docs}  # fmt: skip
        data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")      # no tag, comment or script begins there
        context["body"] += f'<script type="application/json" id="symbols">{data}</script>'


def setup(app: Sphinx):
    app.add_role("sym", SymbolRole())
    app.add_directive("notation", NotationDirective)
    app.add_node(Symbol, html=(visit_symbol, depart_symbol))
    app.add_node(Notation)
    app.connect("builder-inited", load)
    app.connect("builder-inited", mark_listings, priority=900)
    app.connect("source-read", depend)
    app.connect("doctree-read", read, priority=800)
    app.connect("env-purge-doc", purge)
    app.connect("env-check-consistency", check)
    app.connect("doctree-resolved", resolve)
    app.connect("html-page-context", describe)
    parts = [Path(__file__), Path(__file__).with_name("ewc_tex.py")]
    return {"version": "1", "env_version": zlib.crc32(b"".join(part.read_bytes() for part in parts)),
            "parallel_read_safe": False}  # fmt: skip
