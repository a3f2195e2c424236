"""Numbers in prose, the table of all runs, and the facts of this build, all from what the pages' cells published.

Why: a number that is typed is a number that goes stale. `ewc.page` publishes (see there); this file reads:

    {num}`name`       a number that some cell of the same page published, above or below
    {runs}            every run of this machine that any page of this build used, each row with the anchor `run-<key>`, folded by experiment
    {runs} kept       the same, of the runs whose records came with the book
    {build-facts}     what this copy was built on: device, versions, date, data, seconds for each chapter
"""

import json
import os
import platform
import zlib
from collections import Counter
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from docutils import nodes
from ewc_source import Fold
from myst_nb.core.variables import RetrievalError
from myst_nb.ext.glue.utils import retrieve_glue_data
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

PACKAGES = ("torch", "torchvision", "scikit-learn", "matplotlib", "jupyter-book")
logger = logging.getLogger(__name__)


class Number(nodes.inline):
    """A number from a run, which knows the keys of the runs that it came from."""


def content(mime_bundle):
    """What `ewc.page` published, as it was."""
    return json.loads(mime_bundle["text/plain"])


def visit_number(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="num", **{"data-runs": node["runs"]}))


def depart_number(self, node):
    self.body.append("</span>")


class NumberRole(SphinxRole):
    def run(self):
        try:
            output = retrieve_glue_data(self.inliner.document, f"number:{self.text}")
        except RetrievalError:
            # Read from what cells published, never guessed: an unknown name stops the build (-W).
            logger.warning("no cell of this page publishes the number %r", self.text, location=self.get_location())
            return [nodes.inline("", f"?{self.text}?")], []
        published = content(output.data)
        return [Number("", published["text"], runs=published["runs"])], []


class FromTheWholeBuild(nodes.General, nodes.Element):
    """A place for what is known only when every page has been read: `what` is "runs", "runs kept" or "facts"."""


class RunsDirective(SphinxDirective):
    optional_arguments = 1

    def run(self):
        if self.arguments not in ([], ["kept"]):
            raise self.error(f"runs takes no argument, or 'kept'; not {self.arguments[0]!r}")
        return [FromTheWholeBuild(what=" ".join(["runs", *self.arguments]))]


class FactsDirective(SphinxDirective):
    def run(self):
        return [FromTheWholeBuild(what="facts")]


def collected(env):
    """What each page published: docname → {"runs": {key: row}, "data": [row, …], "numbers": {name: …}}; kept with the environment."""
    if not hasattr(env, "ewc_published"):
        env.ewc_published = {}
    return env.ewc_published


def collect(app: Sphinx, doctree):
    """After a page is read: myst-nb has just written what its cells published beside its other outputs."""
    env = app.env
    page = {"runs": {}, "data": [], "numbers": {}}
    if env.nb_metadata[env.docname].get("glue"):
        file = Path(env.mystnb_config.output_folder, f"{env.docname}.glue.json")
        for name, output in json.loads(file.read_text("utf8")).items():
            kind, _, key = name.partition(":")
            if kind == "run":
                page["runs"][key] = content(output["data"])
            elif kind == "number":
                page["numbers"][key] = content(output["data"])
            elif kind == "data":
                page["data"] = content(output["data"])
    collected(env)[env.docname] = page
    kinds = sorted({node["what"] for node in doctree.findall(FromTheWholeBuild)})
    env.metadata[env.docname]["ewc_whole_build"] = " ".join(kinds)


def published_on(env, docname):
    """Name → text and runs of every number that the page's cells published."""
    return collected(env).get(docname, {}).get("numbers", {})


def purge(app: Sphinx, env, docname):
    collected(env).pop(docname, None)
    app.ewc_any_page_changed = True


def merge(app: Sphinx, env, docnames, other):
    collected(env).update({name: page for name, page in collected(other).items() if name in docnames})


def rewrite(app: Sphinx, env):
    """The pages that show the whole build are written again when any page was read or removed."""
    if not getattr(app, "ewc_any_page_changed", False):
        return []
    return [docname for docname in env.found_docs if env.metadata[docname].get("ewc_whole_build")]


def fill(app: Sphinx, doctree, docname):
    for node in list(doctree.findall(FromTheWholeBuild)):
        kept = node["what"] == "runs kept"
        node.replace_self(facts(app, docname) if node["what"] == "facts" else runs_table(app, docname, kept))


def chapters(env):
    """The pages in the order of the table of contents."""
    return [name for name in env.config.external_site_map if name in collected(env)]


def link(app, docname, target, text=None, anchor=""):
    uri = app.builder.get_relative_uri(docname, target) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", text or app.env.titles[target].astext(), internal=True, refuri=uri)


def runs_table(app: Sphinx, docname, kept):
    users, rows = {}, {}
    for page in chapters(app.env):
        for key, row in collected(app.env)[page]["runs"].items():
            if row["kept"] == kept:
                rows[key] = row
                users.setdefault(key, []).append(page)
    if not rows:
        return [nodes.paragraph("", "None." if kept else "No page of this build trained anything.")]
    by_name = {}
    for row in sorted(rows.values(), key=lambda row: (row["name"], str(row["configuration"]), str(row["seed"]))):
        by_name.setdefault(row["name"], []).append(row)
    total = sum(row["seconds"] for row in rows.values())
    shown = [nodes.paragraph("", f"{len(rows):,} runs, {duration(total)} of training in all. Open an experiment to see its runs.")]
    for name, runs in by_name.items():
        inside = experiment(runs, {row["key"]: [link(app, docname, page) for page in users[row["key"]]] for row in runs})
        shown.append(Fold("", *inside, summary=f"{name}: {len(runs):,} {'run' if len(runs) == 1 else 'runs'}"))
    return shown


def experiment(runs, pages):
    """The runs of one experiment: what is the same in all of them stands above the table, once, and a row says what is its own."""
    settings = [[*row["configuration"].items(), ("data", row["data"]), ("torch", row["versions"].get("torch", "–"))] for row in runs]
    same = [pair for pair in settings[0] if len(runs) > 1 and all(pair in other for other in settings)]
    body, before = [], None
    for row, own in zip(runs, settings, strict=True):
        made = f"{row['device']}, {row['finished'][:16].replace('T', ' ')}"
        its_own = [pair for pair in own if pair not in same]
        described = plain("as above") if its_own and its_own == before else written(its_own)
        cells = [described, plain(row["seed"]), plain(f"{row['seconds']:.1f}"), plain(made), spaced(pages[row["key"]], ", ")]
        body.append((f"run-{row['key']}", cells))
        before = its_own
    head = ("configuration", "seed", "seconds", "made on, when", "used in")
    above = [nodes.paragraph("", "", nodes.Text("In all of them "), *written(same), nodes.Text("."))] if same else []
    return [*above, table(head, body, "runs")]


def written(settings):
    """In the letters of code, without docutils' element around each word."""
    text = " ".join(f"{name}={value}" for name, value in settings)
    return [nodes.inline("", text, classes=["settings"])] if settings else plain("–")


def facts(app: Sphinx, docname):
    env = app.env
    pages = chapters(env)
    runs = [row for page in pages for row in collected(env)[page]["runs"].values() if not row["kept"]]
    devices = Counter(row["device"] for row in runs)
    data = {row["name"]: row for page in pages for row in collected(env)[page]["data"]}
    seconds = {page: (env.nb_metadata[page].get("exec_data") or {}).get("runtime") for page in pages}
    rows = [
        ("Built on", datetime.now().strftime("%-d %B %Y")),
        ("Trained on", ", ".join(devices) or "nothing was trained"),
        ("Computer", f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processor cores"),
        ("Python", platform.python_version()),
        *((package, version(package)) for package in PACKAGES),
        *((f"Data: {row['name']}", f"{row['train']:,} images to learn from, {row['test']:,} to test with"
           f" ({'embedded stand-in: ' if row['embedded'] else ''}{row['source']})") for row in data.values()),
    ]
    body = [(None, [plain(name), plain(value)]) for name, value in rows]
    timed = [(None, [[link(app, docname, page)], plain(duration(value))]) for page, value in seconds.items() if value]
    found = [table(("what", "in this copy"), body, "build-facts")]
    if timed:
        found.append(table(("chapter", "executed in"), timed, "build-facts"))
    return found


def duration(seconds):
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{whole // 60} min {whole % 60} s"


def plain(value):
    return [nodes.Text(str(value))]


def spaced(parts, gap=" "):
    return [piece for part in parts for piece in (nodes.Text(gap), part)][1:]


def table(head, body, kind):
    """A table in a box of its own, which scrolls by itself (also by keyboard) where the screen is narrow."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph("", name)) for name in head)))
    group += nodes.tbody()
    for anchor, cells in body:
        row = nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))
        row["ids"] += [anchor] if anchor else []
        group[-1] += row
    return nodes.container("", nodes.table("", group, classes=[kind]), classes=["scrolls"])


def setup(app: Sphinx):
    app.add_role("num", NumberRole())
    app.add_directive("runs", RunsDirective)
    app.add_directive("build-facts", FactsDirective)
    app.add_node(Number, html=(visit_number, depart_number))
    app.add_node(FromTheWholeBuild)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", rewrite)
    app.connect("doctree-resolved", fill)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
