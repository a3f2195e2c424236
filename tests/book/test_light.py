"""What pages weigh and may do: one style sheet and one script, a strict policy that all of it keeps, and nothing that no page asks for."""

import gzip
import math
import re
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
from building import PAGES, ROOT

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_drawings
import ewc_light
from ewc_css import in_every_theme, rules, text_of, used_only

CHAPTERS = [page for page in PAGES if "/appendix/" not in page]
LANDING = PAGES[0]
TEXT = {".html", ".css", ".js", ".svg"}


@pytest.fixture(params=["real_book", "embedded_book"])
def site(request):
    return request.getfixturevalue(request.param).html


# What makes a browser load a font that the style sheet names; a page of the book always has words, headings and something bold.
FONTS = {"stix-two-math": "<math", "stix-two-text": "", "stix-two-text-italic": "<em>|<i>|formula-letter|<cite", "stix-two-text-bold": "<strong>|<b>",
         "source-sans-3": "", "source-sans-3-bold": "", "source-code-pro": "<code|<pre"}  # fmt: skip


def asked_for(site, name):
    """A page and the files that a browser loads for it: what it names, and what its style sheet names for its letters."""
    page = site / f"{name}.html"
    text = page.read_text("utf8")
    found = [*re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]+)"', text), *re.findall(r'<link(?=[^>]*rel="stylesheet")[^>]*href="([^"]+)"', text),
             *re.findall(r'<image[^>]*\shref="([^"]+)"', text)]  # fmt: skip
    found += re.findall(r'<link(?=[^>]*rel="icon")[^>]*href="([^"]+)"', text)
    files = {(page.parent / address.partition("?")[0]).resolve() for address in found}
    return [page, *files, *(site / f"_static/{font}.woff" for font, sign in FONTS.items() if re.search(sign, text))]


def sent(files):
    """Bytes as a server sends them."""
    return sum(len(gzip.compress(file.read_bytes())) if file.suffix in TEXT else file.stat().st_size for file in files)


def test_what_a_page_sends(site):
    weights = {name: sent(asked_for(site, name)) for name in CHAPTERS}
    chapters = [weight for name, weight in weights.items() if name != LANDING]
    assert weights[LANDING] <= 150 * 1024
    assert statistics.median(chapters) <= 300 * 1024
    assert max(chapters) <= 600 * 1024


def test_what_the_folder_holds(site):
    files = [file for file in site.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10 * 1024 * 1024
    assert [file.name for file in files if file.suffix in (".map", ".ttf", ".woff2")] == []


def test_nothing_lies_there_that_no_page_asks_for(site):
    pages = [file.relative_to(site).with_suffix("").as_posix() for file in site.rglob("*.html")]
    asked = {file.resolve() for name in pages for file in asked_for(site, name)}
    there = {file.resolve() for folder in ("_static", "_images") for file in (site / folder).rglob("*") if file.is_file()}
    assert there - asked == set()
    assert {file for file in asked if not file.is_file()} == set()


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_a_page_keeps_the_policy_and_nothing_holds_it_up(real_book, name):
    text = (real_book.html / f"{name}.html").read_text("utf8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy[1].startswith("default-src 'self'")
    assert "unsafe" not in policy[1]
    assert not re.search(r"<(?:script|link)\b", text[: policy.start()]), "the policy stands before what it is for"
    tags = re.findall(r"<[a-zA-Z][^<>]*>", text)
    assert [tag for tag in tags if re.search(r'\sstyle="|\son[a-z]+="|="data:|="javascript:', tag)] == []
    assert "<style" not in text
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert [inside for attributes, inside in scripts if inside.strip() and "application/json" not in attributes] == []
    waited_for = [attributes for attributes, _ in scripts if "src=" in attributes and "defer" not in attributes]
    assert [re.search(r"[\w.]+\.js", attributes)[0] for attributes in waited_for] == ["theme.js"], "200 bytes that keep a page from flashing"
    assert text.count('rel="stylesheet"') == 1
    assert not re.search(r'class="[^"]*\bfa-', text)


def test_a_page_that_is_light_stays_as_it_is(real_book, tmp_path):
    file = real_book.html / f"{LANDING}.html"
    text = file.read_text("utf8")
    assert ewc_light.lightened(text, file, real_book.html) == text


@pytest.mark.parametrize(("page", "words"), [
    ('<head><meta charset="utf-8"><script src="_static/other.js"></script></head><body></body>', "other.js"),
    ('<head><meta charset="utf-8"><link rel="stylesheet" href="_static/other.css"></head><body></body>', "other.css"),
    ('<head><meta charset="utf-8"></head><body><p style="margin: 0">x</p></body>', "margin: 0"),
])  # fmt: skip
def test_what_is_not_known_is_named(monkeypatch, tmp_path, page, words):
    said = []
    monkeypatch.setattr(ewc_light.logger, "warning", lambda text, *parts: said.append(text % parts))
    ewc_light.lightened(page, tmp_path / "page.html", tmp_path)
    assert len(said) == 1
    assert words in said[0]


def test_a_drawing_keeps_its_look(tmp_path):
    drawing = ('<svg viewBox="0 0 1 1"> <!-- a line -->\n <path d="M 0.123456 7 \nL 1.999 2 \nz" style="fill: var(--ink, #fff); stroke-width: 0.8"/>'
               '<image xlink:href="data:image/png;base64,aGVsbG8="/></svg>')  # fmt: skip
    made = ewc_light.plain(drawing, "../", tmp_path)
    assert '<path d="M0.12 7L2 2z" fill="var(--ink, #fff)" stroke-width="0.8"/>' in made
    (image,) = (tmp_path / "_images").iterdir()
    assert image.read_bytes() == b"hello"
    assert f'<image href="../_images/{image.name}"/>' in made


def test_a_formula_keeps_its_stop_and_its_bracket(tmp_path):
    formula = '<span class="math"><math><mi>a</mi></math></span>'
    made = ewc_light.plain(f"x ({formula}), {formula} and {formula}; {formula.replace('</math>', '</math><math>b</math>')}.", "", tmp_path)
    one = "<math><mi>a</mi></math>"
    many = f'<span class="math">{one}<math>b</math></span>.'      # a long one may be broken between its pieces
    assert made == f'x <span class="math held">({one}),</span> {formula} and <span class="math held">{one};</span> {many}'


def test_a_cell_of_one_paragraph_is_its_text_and_others_stay(tmp_path):
    many = "<td><p>a</p><p>b</p></td>"
    made = ewc_light.plain(f'<tr class="row-odd" id="x"><td><p>a <a href="b">c</a></p></td>\n{many}</tr>', "", tmp_path)
    assert made == f'<tr id="x"><td>a <a href="b">c</a></td>\n{many}</tr>'
    assert ewc_light.plain("<td>EWC</td><td>1.5 ± 0.2</td><p>a ± b</p>", "", tmp_path) == "<td>EWC</td><td>1.5\xa0±\xa00.2</td><p>a ± b</p>"


def test_points_of_one_colour_say_it_once_and_the_others_each():
    point = '<use xlink:href="#m" x="{}" y="7.126" fill="{}" fill-opacity="0.6"/>'
    same, mixed = (f"<svg><g>{point.format(123.456, 'red')} {point.format(3.456, colour)}</g></svg>" for colour in ("red", "blue"))
    assert ewc_drawings.ungrouped("<svg><g><g a='1'><g><path/></g></g></g></svg>") == "<svg><g a='1'><path/></g></svg>"
    made = ewc_drawings.compact(same)
    assert made == '<svg><g fill="red" fill-opacity="0.6"><use href="#m" x="123.5" y="7.13"/><use href="#m" x="3.46" y="7.13"/></g></svg>'
    assert ewc_drawings.compact(mixed).count("fill=") == 2


ROUND = "M0 1" + "C1 1 1 1 1 1" * 8 + "z"


@pytest.mark.parametrize(("count", "outline", "edge", "elements"), [
    (300, ROUND, "0", 6), (150, ROUND, "0", 151), (300, ROUND, "1", 301), (300, "M0 0L0 3", "0", 301),
])  # fmt: skip
def test_a_cloud_of_round_points_is_drawn_with_a_pen_and_no_point_is_lost(count, outline, edge, elements):
    colours = f'fill="red" fill-opacity="0.6" stroke="#000000" stroke-opacity="{edge}"'
    points = "".join(f'<use href="#m" x="{at}" y="{at % 7}" {colours}/>' for at in range(count))
    made = ewc_drawings.compact(f'<svg><defs><path id="m" d="{outline}"/></defs>{points}</svg>').partition("</defs>")[2]
    assert len(re.findall("<[a-z]", made)) == elements
    drawn = re.findall(r"M(\d+) (\d+)h0", made) or re.findall(r'x="(\d+)" y="(\d+)"', made)
    assert sorted((int(x), int(y)) for x, y in drawn) == [(at, at % 7) for at in range(count)]
    assert "h0" not in made or made.count('stroke="red" stroke-width="2" stroke-linecap="round" stroke-opacity="0.6"/>') == elements


@pytest.mark.parametrize(("path", "made"), [
    ("M0 0L1 0L2 0L2 1L2 5z", "M0 0L2 0L2 5z"), ("M0 0L1 0.04L2 0", "M0 0L2 0"), ("M0 0L1 0.06L2 0", "M0 0L1 0.06L2 0"),
    ("M0 0L5 0L2 0", "M0 0L5 0L2 0"), ("M0 0L1 1L2 2M5 5L6 6L7 7C1 2 3 4 5 6L7 8L9 10", "M0 0L2 2M5 5L7 7C1 2 3 4 5 6L7 8L9 10"),
    ("M0 0L0 0L0 0", "M0 0L0 0"), ("M0L1L2L3", "M0L1L2L3"), ("M0 0 5L1 0 5L2 0 5", "M0 0 5L1 0 5L2 0 5"), ("M0 0L1L2 0", "M0 0L1L2 0"),
])  # fmt: skip
def test_a_line_keeps_its_corners(path, made):
    assert ewc_drawings.straightened(path) == made


def test_a_curve_stays_where_it_is():
    """What is dropped one after another does not add up."""
    curve = np.array([complex(at / 10, 50 * math.sin(at / 40)) for at in range(2000)])
    path = "M" + "L".join(f"{each.real:.3f} {each.imag:.3f}" for each in curve)
    kept = np.array([complex(*map(float, point.split())) for point in ewc_drawings.straightened(path)[1:].split("L")])
    assert len(kept) < 400
    assert (ewc_drawings.distance(curve[:, None], kept[:-1], kept[1:]).min(1) < 0.052).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_line_goes_from_each_point_that_is_kept_as_far_as_it_may(seed):
    """Held to the search point by point, on lines that are crooked, straight for long, and turn back."""
    draws = np.random.default_rng(seed)
    steps = draws.normal(size=(300, 2)) * draws.choice([0.01, 0.1, 3], size=(300, 1)) + draws.choice([0, 1], size=(300, 1))
    written = [f"{x:.2f} {y:.2f}" for x, y in steps.cumsum(0)]
    points, kept = [complex(*map(float, each.split())) for each in written], [0]
    for end in range(2, len(points)):
        if any(ewc_drawings.distance(point, points[kept[-1]], points[end]) > ewc_drawings.SEEN for point in points[kept[-1] + 1 : end]):
            kept.append(end - 1)
    assert ewc_drawings.straightened("M" + "L".join(written)) == "M" + "L".join(written[at] for at in (*kept, len(points) - 1))


HTML = 'html[data-theme="{}"] .used'
SHEET = """@charset "utf8"; :root { --a: 1px; --b: var(--a); --never: 2 }
.used, .unused > p { width: var(--b); content: "}" } /* .comment {} */ .unused { color: red }
@media print { .unused { color: red } #there:not(.unused) { color: red } } .made-by-script { top: 0 } pre.used { left: 0 }
html[data-theme="dark"] .used, html[data-theme="light"] .used { color: #fff }"""


def test_a_style_sheet_keeps_what_applies_to_some_page():
    kept = text_of(used_only(rules(SHEET), '<html><p class="used" id="there">', "'made-by-script'"))
    assert "never" not in kept
    assert "--a" in kept
    assert "charset" not in kept
    both = f"{HTML.format('dark')}, {HTML.format('light')}"
    assert [rule.head for rule in rules(kept)] == [":root", ".used", "@media print", ".made-by-script", both]
    assert [rule.head for rule in rules(kept)[2].body] == ["#there:not(.unused)"]
    assert "pre.used" not in kept
    assert 'content: "}"' in kept


def test_colours_of_a_theme_are_there_without_a_script_and_paper_is_light():
    made = rules(text_of(in_every_theme(rules(SHEET))))
    where = {f"{rule.head}: {inner.head}" for rule in made if isinstance(rule.body, list) for inner in rule.body}
    assert where >= {
        "@media screen: html[data-theme=\"dark\"] .used",
        "@media screen and (prefers-color-scheme: dark): html[data-theme=auto] .used",
        "@media print, (prefers-color-scheme: light): html[data-theme=auto] .used",
        "@media print: html[data-theme=dark] .used",
    }
    assert [rule.head for rule in made].count(HTML.format("light")) == 1
    assert not any("dark" in rule.head and not rule.head.startswith("@media screen") for rule in made)
    assert Path(ROOT, "book/assets/book.css").read_text("utf8").count('data-theme="dark"') > 1
