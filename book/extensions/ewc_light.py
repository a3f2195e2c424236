"""Make the pages light and strict when they are all written: one style sheet of what they use, one script, no icon font, nothing inline.

Why: the theme sends a library of 1,900 icons for nine, style sheets of which a page uses a tenth, scripts that nobody asks for, and
puts scripts and styles into the pages, so that no strict Content-Security-Policy could be set. Here each page is given
`default-src 'self'`, and what that forbids is moved: styles of drawings into attributes, images in the page into files, scripts into
files. A page that asks for a script or a style sheet that is not listed here stops the build (-W). What no page asks for is removed.
"""

import base64
import hashlib
import re
import shutil
import zlib
from pathlib import Path

from ewc_css import in_every_theme, rules, text_of, used_only
from ewc_drawings import compact
from sphinx.application import Sphinx
from sphinx.util import logging

POLICY = "default-src 'self'; base-uri 'self'; form-action 'self'; object-src 'none'"
# In the order in which they are read; of scripts, what goes into one file.
STYLES = ("styles/theme.css", "styles/pydata-sphinx-theme.css", "basic.css", "pygments.css", "styles/sphinx-book-theme.css", "togglebutton.css",
          "copybutton.css", "mystnb.css", "proof.css", "exercise.css", "sphinx-design.min.css", "book.css", "site.css")  # fmt: skip
SCRIPTS = ("documentation_options.js", "doctools.js", "sphinx_highlight.js", "clipboard.min.js", "copybutton.js", "scripts/sphinx-book-theme.js",
           "togglebutton.js", "scripts/pydata-sphinx-theme.js", "previews.js", "symbols.js", "wide.js", "answers.js", "keys.js")  # fmt: skip
UNUSED = ("scripts/fontawesome.js", "scripts/bootstrap.js", "design-tabs.js")
FEATURES = ("frames.js", "switch.js", "search-index.js", "search.js")      # of the pages that ask for them, and in this order
SETTINGS = """var toggleHintShow = "Show", toggleHintHide = "Hide", toggleOpenOnPrint = "true",
    togglebuttonSelector = ".toggle, .admonition.dropdown";
"""
# Before the page is drawn, so that it is not drawn in another theme first, nor in other letters. (From the disk they are there at once,
# and a browser would complain.)
THEME = """for (const key of ["mode", "theme"]) document.documentElement.dataset[key] = localStorage.getItem(key) || "auto";
if (location.protocol !== "file:")
  for (const name of ["stix-two-text", "source-sans-3", "source-sans-3-bold"])
    document.head.append(Object.assign(document.createElement("link"), {
      rel: "preload", as: "font", type: "font/woff", crossOrigin: "", href: new URL(`${name}.woff`, document.currentScript.src) }));
"""
# Drawn for this book, in strokes on a square of 16.
ICONS = {
    "angle-left": "M10 3 5 8l5 5", "angle-right": "m6 3 5 5-5 5", "arrow-up": "M8 14V2M3 7l5-5 5 5", "bars": "M2 4h12M2 8h12M2 12h12",
    "list": "M2 4h1M2 8h1M2 12h1M6 4h8M6 8h8M6 12h8", "magnifying-glass": "M10.5 10.5 14 14M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10z",
    "sun": "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1v1M8 14v1M1 8h1M14 8h1M3 3l.7.7M12.3 12.3l.7.7M3 13l.7-.7M12.3 3.7 13 3",
    "moon": "M13 10A6 6 0 0 1 6 3a5.5 5.5 0 1 0 7 7z", "circle-half-stroke": "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 2v12M10 4v8M12 5.5v5",
}  # fmt: skip
DRAWN = {"fill", "fill-opacity", "fill-rule", "stroke", "stroke-opacity", "stroke-width", "stroke-linejoin", "stroke-linecap", "stroke-dasharray",
         "stroke-dashoffset", "stroke-miterlimit", "opacity", "clip-path", "display", "visibility", "font-size", "font-family", "font-weight",
         "font-style", "text-anchor", "stop-color", "stop-opacity", "shape-rendering", "image-rendering"}  # fmt: skip
# A formula in a sentence, with the bracket before it and the stop behind it.
HELD = re.compile(r'([(\[“‘]*)<span class="math">(<math>(?:(?!</?math>|<math ).)*</math>)</span>([.,;:!?)\]”’]*)', re.DOTALL)
# What the theme asks for its width when a page is opened: all of it would be laid out at once. wide.js asks each when it is drawn.
ASKED = re.compile(r'\["pre",".nboutput > .output_area"[^\]]*\]\.join\(", "\)')
logger = logging.getLogger(__name__)


def finish(app: Sphinx, problem):
    if problem is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = {file: file.read_text("utf8") for file in site.rglob("*.html") if file.parent.name != "_static"}
    for file, text in pages.items():
        pages[file] = lightened(text, file, site)
        if pages[file] != text:
            file.write_text(pages[file], "utf8")
    if (site / "_static" / SCRIPTS[0]).exists():    # Sphinx brings them only when it has written a page
        bundle(site / "_static", "".join(pages.values()))
    sweep(site, pages)


def bundle(static, pages):
    """One script, one style sheet of what these pages use, and the few words that choose the theme."""
    script = SETTINGS + "".join(f"{(static / name).read_text('utf8')};\n" for name in SCRIPTS)
    script, found = ASKED.subn('"asked-by-wide-js"', re.sub(r"//# sourceMappingURL=\S+", "", script))
    if found != 1:
        logger.warning("ewc_light does not find where the theme's script asks all boxes for their width")
    own = "".join((static / name).read_text("utf8") for name in FEATURES if (static / name).exists())
    sheets = [next(static.glob(name.replace("mystnb.css", "mystnb.*.css"))).read_text("utf8") for name in STYLES if name != "styles/theme.css"]
    (static / "book.js").write_text(script, "utf8")
    (static / "theme.js").write_text(THEME, "utf8")
    (static / "style.css").write_text(text_of(in_every_theme(used_only(rules("\n".join(sheets)), pages, script + own))), "utf8")


def sweep(site, pages):
    """Remove from the folders of Sphinx what nothing asks for."""
    asked = {"book.js", "theme.js", "style.css"}
    if (site / "_static/style.css").exists():
        asked |= set(re.findall(r"([\w-]+\.woff)", (site / "_static/style.css").read_text("utf8")))
    for text in pages.values():
        asked |= {address.partition("?")[0].rpartition("/")[2] for address in re.findall(r'(?:src|href)="([^"#]+)', text)}
    for file in sorted((site / "_static").rglob("*"), reverse=True):
        if file.is_dir() and not any(file.iterdir()):
            file.rmdir()
        elif file.is_file() and (file.parent != site / "_static" or file.name not in asked):
            file.unlink()
    for name in ("_sphinx_design_static", "_sources"):
        shutil.rmtree(site / name, ignore_errors=True)


def lightened(text, file, site):
    """One page; a page that is so already stays as it is."""
    up = "../" * (len(file.relative_to(site).parts) - 1)
    if POLICY in text or "<head" not in text:
        return text
    head, end, body = text.partition("</head>")
    scripts, sheets = asked_for(head + body)
    for name in sorted(scripts - {*SCRIPTS, *UNUSED, *FEATURES} | sheets - {*STYLES}):
        logger.warning("ewc_light does not know %s, which %s asks for", name, file.relative_to(site))
    head = re.sub(r"<noscript>.*?</noscript>|<!--.*?-->", "", head, flags=re.DOTALL)
    head = re.sub(r'<link[^>]*rel="(?:stylesheet|preload)"[^>]*>', "", head)
    head, body = (re.sub(r'<script(?![^>]*application/(?:ld\+)?json)[^>]*>.*?</script>', "", part, flags=re.DOTALL) for part in (head, body))
    own = [f"_static/{name}" if (site / "_static" / name).exists() else name for name in FEATURES if name in scripts]
    ours = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<link rel="stylesheet" href="{up}_static/style.css">\n'
    ours += f'<script src="{up}_static/theme.js"></script>\n'
    ours += "".join(f'<script defer src="{up}{name}"></script>\n' for name in ("_static/book.js", *own))
    head = re.sub(r"\n\s*\n+", "\n", head)
    return re.sub(r"(<meta charset[^>]*>)", lambda found: found[1] + "\n" + ours, head, count=1) + end + plain(body, up, site)


def asked_for(text):
    """The scripts and the style sheets of a page, by their names in the folder of such files."""
    def names(found):
        short = [re.sub(r"^(?:\.\./)*(?:_static/)?", "", address.partition("?")[0]) for address in found]
        return {re.sub(r"^mystnb\.\w+\.css$", "mystnb.css", name) for name in short}

    return names(re.findall(r'<script[^>]*\ssrc="([^"]+)"', text)), names(re.findall(r'<link(?=[^>]*rel="stylesheet")[^>]*href="([^"]+)"', text))


def plain(body, up, site):
    """What stands between the tags of the body, without icons of a font, styles in tags, and images in the text."""
    body = re.sub(r'<(i|span) class="((?:theme-switch )?)fa-solid\s+fa-([a-z-]+)[^"]*"([^>]*)></\1>', icon, body)
    body = re.sub(r' data-bs-(?:placement|toggle)="[^"]*"', "", body).replace("data-bs-title=", "title=")
    body = re.sub(r"<defs>\s*<style[^>]*>\*\{stroke-linejoin: round; stroke-linecap: butt\}</style>\s*</defs>", "", body)
    body = re.sub(r'(<[a-zA-Z][^<>]*?) style="([^"]*)"', lambda found: found[1] + attributes(found[2]), body)
    body = re.sub(r'<section id="(?:exercise|solution)-content">', "<section>", body)       # all exercises of a page would have the same
    body = re.sub(r'<th class="head[^"]*">(?:<p></p>)?</th>', "<td></td>", body)       # a corner is no heading

    body = HELD.sub(held, body)
    body = re.sub(r"<svg.*?</svg>", lambda drawing: compact(drawing[0]), body, flags=re.DOTALL)
    body = body.replace('<code class="docutils literal notranslate">', '<code class="literal">')
    body = re.sub(r'<code class="literal"><span class="pre">([\w.,=+]+)</span></code>', r'<code class="literal">\1</code>', body)
    body = re.sub(r"<(t[dh][^>]*)><p>([^<]*(?:<(?!/?p[ >])[^<]*)*)</p>\s*</(t[dh])>", r"<\1>\2</\3>", body)
    body = re.sub(r'<div id="jb-print-docs-body".*?(?=<div id="searchbox")', "", body, flags=re.DOTALL)   # a title and contents for paper alone
    body = body.replace(' class="tex2jax_ignore mathjax_ignore"', "")
    body = re.sub(r'<tr class="row-(?:odd|even)"', "<tr", body)
    body = re.sub(r"(<td[^>]*>[^<]*\d) ± (?=\d)", "\\1\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", body)      # one number, on one line
    body = re.sub(r'<span class="(?:n|p|w)">([^<]*)</span>', r"\1", body)      # names, brackets and spaces have the colour of the listing

    def image(found):
        content = base64.b64decode(re.sub(r"\s", "", found[2]))
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        (site / "_images").mkdir(exist_ok=True)
        (site / "_images" / name).write_bytes(content)
        return f'href="{up}_images/{name}"'

    return re.sub(r'(xlink:)?href="data:image/png;base64,([^"]*)"', image, body)


def held(found):
    """A browser breaks a line on either side of a formula, whatever stands there."""
    before, formula, after = found.groups()
    return f'<span class="math held">{before}{formula}{after}</span>' if before or after else found[0]


def icon(found):
    drawing = f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{ICONS[found[3]]}"/></svg>'
    return f'<span class="theme-switch"{found[4]}>{drawing}</span>' if found[2] else drawing


def attributes(style):
    """The styles of a part of a drawing, each as an attribute of its own; those that are none of a drawing are named."""
    made = ""
    for declaration in filter(None, (each.strip() for each in re.split(r";(?![^(]*\))", style))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name not in DRAWN:
            logger.warning("ewc_light cannot move the style %r out of a page", declaration)
        made += f' {name}="{value}"'
    return made


def setup(app: Sphinx):
    app.connect("build-finished", finish, priority=900)     # after the font was cut down to what the pages use
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
