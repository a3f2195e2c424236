"""What the site as a whole says of itself: where it and its source lie, a description and a foot for each page, and files for machines.

    the foot           version, licence, date, on what and how fast a page was computed, where to report an error
    in each head       a description, from the page's first words, and the same for those who share a link
    beside the pages   404.html, robots.txt, sitemap.xml, llms.txt, a page at each address that a page had before (`book_moved`), and the
                       picture for those who share a link, which has to be named by its whole address

Why: the same sources are built at home, for a test and for publishing, and only who publishes knows the addresses. They are set in
`_config.yml` or, by a workflow, in the environment: `BOOK_ADDRESS`, where the pages will be, and `BOOK_REPOSITORY`, where their
source is. Without them no page claims either, and there is no sitemap.
"""

import html
import os
import re
import textwrap
import zlib
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import ewc
from docutils import nodes
from ewc_numbers import collected, duration
from sphinx.application import Sphinx
from sphinx.errors import ConfigError

APPENDIX = "book/appendix"


def settle(app: Sphinx, config):
    for name in ("book_address", "book_repository"):
        value = (os.environ.get(name.upper()) or getattr(config, name) or "").rstrip("/")
        if value and (urlsplit(value).scheme != "https" or not urlsplit(value).netloc or any(each in value for each in " \"'<>?#")):
            raise ConfigError(f"{name} is {value!r}; it must be an address that begins with https://, or empty")
        setattr(config, name, value)
    config.html_baseurl = f"{config.book_address}/" if config.book_address else ""      # the theme then names each page's canonical address


def address(app) -> str:
    """Where the pages will be, without a slash at its end; empty where nobody said."""
    return app.config.book_address


def repository(app) -> str:
    return app.config.book_repository


# ---- In each page ----


def describe(app: Sphinx, pagename, templatename, context, doctree):
    context["book"] = foot(app, pagename)
    if doctree is None:
        return
    words = descriptions(app)[pagename] = app.env.metadata[pagename].get("description") or first_words(doctree)
    title = f"{app.env.titles[pagename].astext()} · {app.config.html_title}" if pagename != app.config.root_doc else app.config.html_title
    tags = {"name=\"description\"": words, "property=\"og:title\"": title, "property=\"og:description\"": words,
            "property=\"og:type\"": "article" if "/" in pagename else "website", "name=\"twitter:card\"": "summary"}  # fmt: skip
    if address(app):
        tags["property=\"og:url\""] = f"{address(app)}/{app.builder.get_target_uri(pagename)}"
        tags |= {"property=\"og:image\"": f"{address(app)}/{CARD}", "name=\"twitter:card\"": "summary_large_image"}
    context["metatags"] += "".join(f'<meta {name} content="{html.escape(value)}" />\n' for name, value in tags.items())


def foot(app, pagename):
    runs = [row for row in collected(app.env).get(pagename, {}).get("runs", {}).values() if not row["kept"]]
    seconds = (app.env.nb_metadata.get(pagename, {}).get("exec_data") or {}).get("runtime")
    return {
        "version": ewc.__version__,
        "built": datetime.now().strftime("%-d %B %Y"),
        "device": ", ".join(sorted({row["device"] for row in runs})),
        "seconds": duration(seconds) if seconds else "",
        "errors": f"{repository(app)}/issues/new" if repository(app) else "",
    }


def descriptions(app):
    """docname → the description of the page, of those that were written."""
    if not hasattr(app, "ewc_descriptions"):
        app.ewc_descriptions = {}
    return app.ewc_descriptions


def first_words(doctree, most=155):
    """The first sentences of running text, as many whole ones as there is room for; of a long one as many words."""
    for node in doctree.findall(nodes.paragraph):
        text = re.sub(r"\s+", " ", "".join(str(piece) for piece in node.findall(nodes.Text))).strip()
        outside = not any(isinstance(above, nodes.container | nodes.figure | nodes.Admonition) for above in parents(node))
        if len(text) >= 40 and outside and not list(node.findall(nodes.math)):
            cut = max((end.end() for end in re.finditer(r"[.?](?= |$)", text) if end.end() <= most), default=0)
            return text[:cut] if cut >= 40 else text if len(text) <= most else text[: most - 2].rpartition(" ")[0] + " …"
    return doctree.next_node(nodes.title).astext()


def parents(node):
    while node.parent is not None:
        node = node.parent
        yield node


# ---- Beside the pages ----

LOST = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>No such page · {title}</title></head>
<body class="alone"><h1>No such page</h1><p>There is nothing at this address. The book begins at <a href="{home}index.html">{title}</a>, and
<a href="{home}search.html">the search</a> knows every section.</p></body></html>
"""


MOVED = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={to}"><link rel="canonical" href="{to}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><title>{title}</title></head>
<body class="alone"><p>This page has moved: <a href="{to}">{title}</a>.</p></body></html>
"""
CARD = "card.png"


def moved(app, old, new):
    """A page at the old address that leads to the new one."""
    if new not in app.env.titles or old in app.env.titles:
        raise ConfigError(f"book_moved: {old!r} must be no page and {new!r} must be one")
    file = Path(app.outdir, f"{old}.html")
    file.parent.mkdir(parents=True, exist_ok=True)
    to = "../" * old.count("/") + app.builder.get_target_uri(new)
    file.write_text(MOVED.format(to=html.escape(to), title=html.escape(app.env.titles[new].astext())), "utf8")


def draw_card(file, title, words):
    """The title over the loss of an old task, a bowl, and a weight that a spring holds to its lowest point; 1200 × 630 as networks ask."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#14171b")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 12), ylim=(0, 6.3))
    axes.axis("off")
    across = [each / 50 for each in range(-130, 131)]
    axes.plot([8.7 + each for each in across], [0.9 + 0.42 * each**2 for each in across], color="#6aa8ff", lw=7, solid_capstyle="round")
    along = [each / 200 for each in range(201)]
    coil = [1.9 + 0.22 * ((each * 18) % 2 - 1 if int(each * 18 / 2) % 2 else 1 - (each * 18) % 2) * (0.08 < each < 0.92) for each in along]
    axes.plot([8.7 + 1.5 * each for each in along], coil, color="#f0a04b", lw=5)
    axes.plot([8.7, 10.2], [1.9, 1.9], "o", color="#dfe3e8", ms=20)
    axes.text(0.7, 4.9, textwrap.fill(title, 22), color="#dfe3e8", fontsize=52, fontweight="bold", va="center")
    axes.text(0.7, 2.2, textwrap.fill(words, 34), color="#c5cbd3", fontsize=22, va="center", linespacing=1.5)
    figure.savefig(file)


def finish(app: Sphinx, problem):
    if problem or app.builder.format != "html" or not descriptions(app):     # all pages are written, or, where nothing changed, none
        return
    out, title, base = Path(app.outdir), app.config.html_title, address(app)
    pages = [page for page in app.config.external_site_map if page in descriptions(app)]
    urls = {page: f"{base}/{app.builder.get_target_uri(page)}" if base else app.builder.get_target_uri(page) for page in pages}
    # The server shows this page at any address, so its links must not depend on where it is.
    out.joinpath("404.html").write_text(LOST.format(title=html.escape(title), home=f"{urlsplit(base).path}/"), "utf8")
    out.joinpath("robots.txt").write_text("User-agent: *\nAllow: /\n" + (f"Sitemap: {base}/sitemap.xml\n" if base else ""), "utf8")
    for old, new in app.config.book_moved.items():
        moved(app, old, new)
    if base:
        draw_card(out / CARD, title, descriptions(app)[app.config.root_doc])
        listed = "".join(f"<url><loc>{html.escape(url)}</loc></url>\n" for url in urls.values())
        text = f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{listed}</urlset>\n'
        out.joinpath("sitemap.xml").write_text(text, "utf8")
    lines = [f"- [{app.env.titles[page].astext()}]({urls[page]}): {descriptions(app)[page]}" for page in pages[1:]]
    about = f"# {title}\n\n> {descriptions(app)[app.config.root_doc]}\n\n## Pages\n\n" if app.config.root_doc in pages else f"# {title}\n\n"
    out.joinpath("llms.txt").write_text(about + "\n".join(lines) + "\n", "utf8")


def setup(app: Sphinx):
    app.add_config_value("book_address", "", "html")
    app.add_config_value("book_repository", "", "html")
    app.add_config_value("book_moved", {}, "html")
    app.connect("config-inited", settle)
    app.connect("html-page-context", describe)
    app.connect("build-finished", finish)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
