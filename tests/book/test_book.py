"""The built pages: all there, whole, with results, and nothing that a browser would fetch from another server."""

import json
import os
import re
import sys
from html import unescape
from urllib.parse import unquote, urlsplit

import pytest
from building import PAGES, ROOT, is_chapter, parsed, soup_of, source

sys.path.insert(0, str(ROOT / "book/extensions"))

from ewc_tex import Table

CHAPTERS = [page for page in PAGES if is_chapter(page)]

# Results that this edition stands for, with the full data: (page, name of a number) → (lowest, highest) value.
FORGETTING, LAST = "book/forgetting/catastrophic-forgetting", "book/elastic/mnist-to-fashion-mnist"
CURVATURE = "book/bayes/the-shape-of-curvature"
MANY = "book/elastic/many-tasks"
FIXES, LOSS = "book/forgetting/tempting-fixes", "book/bayes/likelihood-and-loss"
SLIPS = "book/elastic/reading-other-peoples-ewc"
FAMILY, CANNOT = "book/beyond/the-family", "book/beyond/what-ewc-cannot-do"
HARDER = "book/beyond/a-harder-world"
OWN = "book/beyond/in-your-own-project"
BOUNDS = {
    (FORGETTING, "first-before"): (96, 99),
    (FORGETTING, "first-after"): (10, 40),
    (FORGETTING, "joint-first"): (94, 99),
    (LAST, "plain-first"): (10, 40),
    (LAST, "ewc-first"): (93, 98),
    (LAST, "ewc-second"): (83, 87),
    (LAST, "l2-best"): (75, 90),
    ("book/bayes/fisher-information", "share-empirical"): (0.1, 5),
    ("book/bayes/fisher-information", "kl-slope"): (2.8, 3.2),
    ("book/bayes/laplace-approximation", "kl-law"): (-1.2, -0.9),
    ("book/elastic/deriving-ewc", "tilt"): (10, 1000),
    (CURVATURE, "blocks-error"): (0.5, 0.8),
    (CURVATURE, "kronecker-error"): (0.5, 0.85),
    (CURVATURE, "diagonal-error"): (0.93, 1),
    (CURVATURE, "diagonal-pull"): (0.02, 0.35),
    (CURVATURE, "kronecker-pull"): (0.5, 1),
    (CURVATURE, "diagonal-stiffest"): (0.01, 0.1),
    (CURVATURE, "diagonal-smaller"): (2.5, 15),
    (CURVATURE, "once"): (0.08, 0.3),
    (CURVATURE, "expand-worst"): (0.6, 2),
    (CURVATURE, "reduce-worst"): (0.3, 0.7),
    (FIXES, "row-plain-first"): (10, 45),
    (FIXES, "row-L2-first"): (80, 92),
    (FIXES, "row-replay-first"): (89, 94),
    (FIXES, "row-replay-second"): (84, 88),
    (FIXES, "row-joint-first"): (97, 99),
    (FIXES, "inside-from"): (0.1, 0.5),
    (FIXES, "inside-to"): (1, 5),
    (FIXES, "l2-lowest"): (0.055, 0.07),
    (LOSS, "loss"): (0.06, 0.15),
    (LOSS, "decayed"): (0.45, 0.51),
    (LOSS, "prior-kept"): (0.68, 0.74),
    (LOSS, "ended-length"): (0.65, 0.70),
    (LOSS, "right-length"): (1.40, 1.44),
    ("book/bayes/laplace-approximation", "held-kl"): (0.0115, 0.0119),
    ("book/bayes/laplace-approximation", "dragged-kl"): (0.0220, 0.0224),
    ("book/bayes/fisher-information", "least"): (0.045, 0.053),
    ("book/bayes/fisher-information", "greatest"): (0.42, 0.48),
    # Figure 2A: plain descent loses A; L2 keeps some of it, and EWC more; all learn C.
    (MANY, "three-plain-a"): (30, 85),
    (MANY, "three-plain-c"): (92, 96),
    (MANY, "three-L2-a"): (88, 94.5),
    (MANY, "three-L2-c"): (92, 97),
    (MANY, "three-EWC-a"): (88, 94),
    (MANY, "three-EWC-b"): (91, 95),
    (MANY, "three-EWC-c"): (91, 95),
    # Figure 2B.
    (MANY, "ewc-acc"): (94, 96),
    (MANY, "plain-acc"): (40, 65),
    (MANY, "joint-acc"): (95, 97.5),
    (MANY, "single"): (96, 97.5),
    # Figure 2C: high everywhere for the small square; for the large one low at the pixels and rising.
    (MANY, "overlap-8-lowest"): (0.9, 1),
    (MANY, "overlap-26-first"): (0.3, 0.6),
    (MANY, "overlap-26-second"): (0.5, 0.8),
    (MANY, "overlap-26-last"): (0.93, 1),
    # The double count.
    (MANY, "first-times"): (5, 5),
    (MANY, "off"): (1.5, 2.5),
    (MANY, "merged-acc"): (80, 85),
    (MANY, "separate-acc"): (75, 83),
    (MANY, "unheld-acc"): (46, 57),
    (MANY, "faded-first"): (57, 77),
    # Momentum left out at the same step learns too little; with a step as long as much, and forgets more.
    (MANY, "learned-whole"): (89, 92),
    (MANY, "learned-short"): (60, 73),
    (MANY, "learned-long"): (88, 92),
    (MANY, "forgets-most"): (8, 32),
    # Under a new Adam all weights move alike; one that is carried lets the free ones go first.
    (MANY, "ratio-new"): (0.6, 1.3),
    (MANY, "ratio-carried"): (2, 5),
    (SLIPS, "empirical-scale-early"): (0.6, 0.85),
    (SLIPS, "argmax-scale-early"): (0.25, 0.4),
    (SLIPS, "own-scale-early"): (0.15, 0.25),
    (SLIPS, "batch-scale-early"): (0.005, 0.015),
    (SLIPS, "empirical-scale-late"): (0.002, 0.01),
    (SLIPS, "pairs-scale-late"): (25, 70),
    (SLIPS, "exact-result-late"): (80, 86),
    (SLIPS, "empirical-result-late"): (80, 86),
    (SLIPS, "empirical-at-right-late"): (40, 60),
    (SLIPS, "whole-at-right-late"): (40, 50),
    (SLIPS, "repaired-late"): (0.9, 1.5),
    (SLIPS, "stays-weak"): (83, 91),
    (SLIPS, "follows-weak"): (40, 65),
    (SLIPS, "follows-strong"): (88, 94),
    (SLIPS, "kept-first"): (87, 91),
    (SLIPS, "overwritten-first"): (74, 86),
    (SLIPS, "bn-second"): (65, 93),
    ("book/appendix/mathematics", "kl-forward"): (0.47, 0.49),
    ("book/appendix/mathematics", "kl-backward"): (1.45, 1.47),
    ("book/appendix/pytorch", "made"): (2.3, 2.45),
    # Convolutions on clothes: EWC holds what does not have to be told apart, and fails where all classes compete.
    (HARDER, "looser"): (3, 12),
    (HARDER, "kernel-stiffer"): (8, 40),
    (HARDER, "task-plain"): (80, 95),
    (HARDER, "task-EWC"): (95, 99),
    (HARDER, "domain-plain"): (70, 86),
    (HARDER, "domain-EWC"): (89, 95),
    (HARDER, "class-plain"): (19, 21),
    (HARDER, "class-EWC"): (20, 40),
    (HARDER, "class-replay"): (68, 77),
    (HARDER, "class-joint"): (72, 78),
    # The family: what keeps nothing is last, correlations and images are worth more than the choice of importance.
    (FAMILY, "plain-acc"): (60, 80),
    (FAMILY, "L2-acc"): (78, 86),
    (FAMILY, "EWC-acc"): (82, 88),
    (FAMILY, "VCL-acc"): (77, 83),
    (FAMILY, "SI-acc"): (81, 88),
    (FAMILY, "MAS-acc"): (81, 88),
    (FAMILY, "Kronecker-acc"): (87, 91),
    (FAMILY, "replay-acc"): (84.5, 90),
    (FAMILY, "joint-acc"): (87, 91),
    (FAMILY, "booked"): (3, 8),
    (FAMILY, "calm-booked"): (1, 3.5),
    (FAMILY, "bend-sgd"): (0.85, 1.2),
    (FAMILY, "bend-adam"): (0.4, 0.65),
    (FAMILY, "bend-mas"): (0.6, 0.95),
    (FAMILY, "alike-Fisher-SI"): (0.9, 1),
    (FAMILY, "domain-plain-acc"): (55, 64),
    (FAMILY, "domain-EWC-acc"): (68, 86),
    (FAMILY, "domain-replay-acc"): (90, 97),
    (FAMILY, "task-EWC-acc"): (97, 99.5),
    # Split images, all classes competing: with a weak spring only the last pair is named, and replay names all.
    (CANNOT, "as-last"): (90, 100),
    (CANNOT, "stiff-last"): (0, 10),
    (CANNOT, "task-EWC"): (96, 99.5),
    (CANNOT, "class-plain"): (17, 21),
    (CANNOT, "class-EWC"): (20, 50),
    (CANNOT, "class-replay"): (85, 93),
    (CANNOT, "left-mean-4"): (0, 15),
    (CANNOT, "loose-as-last"): (90, 100),
    (CANNOT, "plain-masked-after"): (36, 50),
    (CANNOT, "headline-low"): (88, 92),
    (CANNOT, "sgd-proximal"): (68, 83),
    (CANNOT, "turn"): (8, 16),
    (CANNOT, "ewc-corrected-10"): (55, 75),
    # Figure 3C: shaped noise does less harm than uniform; noise where the diagonal says nothing is does as much as shaped.
    (CANNOT, "uniform-middle"): (20, 55),
    (CANNOT, "shaped-middle"): (90, 98),
    (CANNOT, "shaped-last"): (80, 95),
    (CANNOT, "null-last"): (70, 95),
    (CANNOT, "null-broken"): (500, 50_000),
    # Bits a letter of English and Python: plain descent loses more than half of the first lesson, EWC a sixth of it.
    (OWN, "before"): (2.2, 2.6),
    (OWN, "plain-share"): (50, 70),
    (OWN, "ewc-share"): (8, 25),
    (OWN, "english-EWC"): (2.5, 2.9),
    (OWN, "code-EWC"): (2.35, 2.75),
    (OWN, "cosine"): (0.9, 1),
    # The diagonal is blind to moves in concert.
    (CANNOT, "lesson-tilt"): (5, 500),
}


@pytest.fixture(params=["real", "embedded"])
def book(request):
    """Each test below holds for both builds."""
    return request.getfixturevalue(f"{request.param}_book")


def published(book, page):
    """What the cells of a page published: {"number:plain": {...}, "run:…": {...}, "data": [...]}."""
    file = book.build / "jupyter_execute" / f"{page}.glue.json"
    outputs = json.loads(file.read_text("utf8")) if file.exists() else {}
    return {name: json.loads(output["data"]["text/plain"]) for name, output in outputs.items()}


def headings(text):
    """The headings of a MyST source, as plain words; those with roles or formulas are left to the eye."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    found = (match[1].strip() for match in re.finditer(r"^#{1,4} (.+)$", text, flags=re.MULTILINE))
    return [heading for heading in found if not re.search(r"[{$`*_]", heading)]


def plain(text):
    """Without the marks that smart quotes change."""
    return re.sub(r"[‘’'“”\"]", "", " ".join(text.split()))


def test_the_book_builds_without_a_warning(book):
    assert book.status == 0, book.said
    assert "WARNING" not in book.said


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_there_and_holds_its_headings(book, page):
    words = plain(soup_of(book, page).find("article").get_text(" "))
    wanted = headings(source(page))
    assert wanted
    assert [heading for heading in wanted if plain(heading) not in words] == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_chapter_has_a_computed_figure_and_its_description(book, page):
    pictures = soup_of(book, page).select(".cell_output .picture")
    assert pictures
    for picture in pictures:
        assert picture.find("svg")
        assert len(picture.get("aria-label", "")) >= 40
        assert picture.get("role") == "img"


@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_a_traceback_or_noise_or_an_unresolved_number(book, page):
    article = soup_of(book, page).find("article")
    words = article.get_text()
    assert "Traceback (most recent call last)" not in words
    assert not article.select(".output.traceback, .output.stderr")
    assert "{num}" not in words
    assert "{source}" not in words
    assert not article.select(".problematic, .system-message")
    used = re.findall(r"\{num\}`([^`]+)`", source(page))
    assert len(article.select("span.num")) >= len(set(used))
    assert all(span.get_text().strip() for span in article.select("span.num"))


@pytest.mark.parametrize("page", PAGES)
def test_no_number_of_an_equation_stands_in_two_brackets(page):
    assert re.findall(r"\(\{eq\}`[^`]*`\)", source(page)) == []


FOREIGN = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
LOADED_BY_LINK = {
    "stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest",
}  # fmt: skip


def loaded_addresses(page):
    """Every address in a page that a browser asks for by itself; links that a reader may follow are not among them."""
    for tag in page.select("[src], [srcset], [poster], object[data]"):
        for attribute in ("src", "srcset", "poster", "data"):
            yield from filter(None, [tag.get(attribute)])
    for link in page.select("link[href]"):
        if LOADED_BY_LINK & set(link.get("rel", [])):
            yield link["href"]
    for svg in page.select("svg image, svg use"):
        yield from filter(None, [svg.get("href"), svg.get("xlink:href")])
    for style in [*(tag.get_text() for tag in page.select("style")), *(tag["style"] for tag in page.select("[style]"))]:
        yield from loaded_by_css(style)
    for script in page.select("script:not([src])"):
        yield from re.findall(r"https?://[^\s\"'`]+\.m?js\b|(?<=import\()[\"']https?://[^\"']+", script.get_text())


def loaded_by_css(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    yield from (match[2] for match in re.finditer(r"url\(\s*([\"']?)(.*?)\1\s*\)", text))
    yield from (match[2] for match in re.finditer(r"@import\s+([\"'])(.*?)\1", text))


def test_no_page_and_no_stylesheet_loads_anything_from_another_server(book):
    files = [*book.html.rglob("*.html"), *book.html.rglob("*.css")]
    assert len(files) > len(PAGES)
    foreign = []
    for file in files:
        found = loaded_by_css(file.read_text("utf8")) if file.suffix == ".css" else loaded_addresses(parsed(file))
        foreign += [(file.name, unescape(address)) for address in found if FOREIGN.match(address)]
    assert foreign == []


def test_formulas_are_set_before_anybody_reads_them(book):
    """No page holds TeX, nor a script that would set it."""
    for page in PAGES:
        text = (book.html / f"{page}.html").read_text("utf8")
        assert "mathjax" not in text.lower(), page
        read = [words for words in soup_of(book, page).find("article").find_all(string=True) if not words.find_parent("pre")]
        assert re.findall(r"\\[\[(]|\\(?:frac|theta|class)\b", " ".join(read)) == [], page
    assert sum(len(soup_of(book, page).select("math")) for page in PAGES) > 1500
    assert not [*book.html.rglob("*mathjax*")]


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_banner_is_on_the_pages_that_stand_ins_touch_and_on_no_other(book, page):
    stand_ins = any(row["embedded"] for row in published(book, page).get("data", []))
    assert bool(soup_of(book, page).select(".banner-embedded")) == stand_ins


def test_some_page_of_the_embedded_build_shows_the_banner(embedded_book):
    assert any(soup_of(embedded_book, page).select(".banner-embedded") for page in CHAPTERS)


def test_there_are_exercises_and_each_has_an_answer(book):
    """That answers are executed is the build's affair: a cell that fails stops it."""
    count = 0
    for page in CHAPTERS:
        article = soup_of(book, page).find("article")
        exercises, answers = article.select(".admonition.exercise"), article.select(".admonition.solution")
        assert len(exercises) == len(answers), page
        assert 2 <= len(exercises) <= 6, page
        count += len(exercises)
    assert count >= 25


def full_data(book):
    return not any(row["embedded"] for page in CHAPTERS for row in published(book, page).get("data", []))


@pytest.mark.parametrize(("page", "name"), BOUNDS)
def test_a_result_lies_within_its_bounds(real_book, page, name):
    if not full_data(real_book):
        pytest.skip("bounds are for the full data")
    text = published(real_book, page)[f"number:{name}"]["text"]
    first = float(re.match(r"[−-]?[\d,]*\.?\d+", text)[0].replace("−", "-").replace(",", ""))
    low, high = BOUNDS[page, name]
    assert low <= first <= high, text


def test_with_data_at_hand_no_page_is_built_from_stand_ins(real_book):
    if not os.path.isdir(os.environ.get("EWC_DATA", "")):
        pytest.skip("EWC_DATA names no folder")
    assert full_data(real_book)


def test_every_run_that_a_number_came_from_is_in_the_table_of_runs(book):
    table = (book.html / "book/appendix/how-this-copy-was-made.html").read_text("utf8")
    numbers = [span for page in PAGES for span in soup_of(book, page).select("span.num[data-runs]")]
    keys = {key for span in numbers for key in span["data-runs"].split()}
    assert [key for key in sorted(keys) if f'id="run-{key}"' not in table] == []


def test_every_link_within_the_book_leads_to_something_that_is_there(book):
    anchors, broken = {}, []
    for page in PAGES:
        file = (book.html / f"{page}.html").resolve()
        for link in soup_of(book, page).select("a[href]"):
            address = urlsplit(link["href"])
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            if target.is_file() and target.suffix == ".html" and target not in anchors:
                anchors[target] = {tag["id"] for tag in parsed(book.html / target.relative_to(book.html.resolve())).select("[id]")}
            if not target.is_file() or (address.fragment and unquote(address.fragment) not in anchors[target]):
                broken.append((page, link["href"]))
    assert len(anchors) >= len(PAGES)
    assert broken == []


def places(block, page):
    """Where a listing of a built page stands, in the words of symbols.yml; None for a test, which stands nowhere."""
    box = block.find_parent(class_="from-module")
    if box is None:
        around = {f"{page}#{tag['id']}" for tag in block.find_parents(id=True)}
        return {page} | around | {f"{page}#{answered(block)}"}
    fold = block.find_parent("details")
    if fold and fold.find("summary").get_text().startswith("the test"):
        return None
    file, name = (code.get_text() for code in box.select(".from-file code.literal")[:2])
    parts = [*file.removeprefix("code/").removesuffix(".py").split("/"), *name.split(".")]
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}


def answered(block):
    """The exercise whose answer a listing is in."""
    answer = block.find_parent(class_="solution")
    link = answer.select_one(".admonition-title a[href]") if answer else None
    return link["href"].rpartition("#")[2] if link else ""


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_symbol_in_code_is_known_to_the_page_and_means_what_it_means_there(real_book, page):
    table, wrong, count = Table(ROOT / "book/symbols.yml").symbols, [], 0
    data = soup_of(real_book, page).find("script", id="symbols")
    known = json.loads(data.get_text())["symbols"] if data else {}
    for block in soup_of(real_book, page).select("article pre"):
        here = places(block, page.rpartition("/")[2])
        for span in block.select("span.sym"):
            symbol = table[next(kind for kind in span["class"] if kind.startswith("sym-")).removeprefix("sym-")]
            before, after = "".join(map(str, [*span.previous_siblings][:3])), span.next_sibling
            owned = span.previous_sibling and span.previous_sibling.get_text() == "." and [*span.previous_siblings][1].get_text() != "self"
            called = after is not None and after.get_text().startswith("(")
            name = f".{span.get_text()}{'()' if called else ''}" if owned else span.get_text()
            means = name in symbol.code or (here and here & {*symbol.code_on.get(name, ())})
            if symbol.id not in known or not means:
                wrong.append((symbol.id, name, before[-60:], here and sorted(here)))
            count += 1
    assert wrong == []
    assert count or not data


POSITIONS = re.compile(r"(?:^|[.:;(]\s*)(?:left|right)\b|\b(?:on|to) the (?:left|right)\b|\b(?:darker|lighter|dark is)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", CHAPTERS)
def test_no_caption_or_description_says_where_a_panel_stands_or_how_dark_it_is(real_book, page):
    """Panels stand one above the other on a phone, and in dark mode what was darker is lighter."""
    article = soup_of(real_book, page).find("article")
    said = [tag.get_text(" ", strip=True) for tag in article.select("figcaption")]
    said += [tag["aria-label"] for tag in article.select(".picture[aria-label]")]
    assert [text for text in said if POSITIONS.search(text)] == []


def test_the_picture_of_the_readme_is_what_this_build_draws(real_book):
    """The same figure, of the same runs; its per cents may differ by what another processor makes of them."""
    if not full_data(real_book):
        pytest.skip("the picture is of the full data")
    kept = unescape(re.search(r"<title>(.*?)</title>", (ROOT / "book/assets/readme.svg").read_text("utf8"), re.DOTALL)[1])
    figures = soup_of(real_book, "book/elastic/mnist-to-fashion-mnist").select(".picture[aria-label]")
    now = next(each["aria-label"] for each in figures if "plain descent ends at" in each["aria-label"])
    assert re.sub(r"\d+%", "%", kept) == re.sub(r"\d+%", "%", now)
    shown, drawn = ([int(each) for each in re.findall(r"(\d+)%", text)] for text in (kept, now))
    assert shown == pytest.approx(drawn, abs=5), "make picture draws it anew"
