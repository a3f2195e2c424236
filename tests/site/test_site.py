"""The pages as a browser shows them: from the disk, with no server, wide and narrow, light and dark."""

import re

import pytest
from browsing import OPENED_IN, WIDTHS
from building import PAGES, source


@pytest.mark.parametrize("page_name", [*PAGES, "search"])
def test_a_page_opens_from_the_disk_with_nothing_wrong(windows, page_name, screen, theme):
    seen = windows.look(page_name, screen, theme)
    assert not seen.foreign, "asked another server"
    assert not seen.complaints
    assert seen.theme == theme
    assert seen.unloaded == []
    has_math = page_name in PAGES and re.search(r"\$[^$]+\$|\{math\}", source(page_name))
    if has_math:
        assert seen.formulas > 0
        assert seen.mistakes == 0
    assert seen.width <= WIDTHS[screen], "the page scrolls sideways"
    assert not seen.standing_out, "stands out of the page, and nothing there scrolls"
    assert seen.signs == [], "no font of the site has this sign"


@pytest.mark.parametrize(("screen", "theme"), OPENED_IN.items())
@pytest.mark.parametrize("page_name", PAGES)
def test_nothing_is_cut_off_without_a_way_to_the_rest(windows, page_name, screen, theme):
    """At 1280, 768 and 390 pixels, with all answers and tests unfolded."""
    assert windows.look(page_name, screen, theme).cut == []


@pytest.mark.parametrize(("screen", "theme"), OPENED_IN.items())
@pytest.mark.parametrize("page_name", PAGES)
def test_words_in_figures_can_be_read_and_selected(windows, page_name, screen, theme):
    """At least 12 pixels at 1280, 768 and 390, in the page's own face, as text."""
    drawn = 'class="picture' in windows.file(page_name).read_text("utf8")
    for words in windows.look(page_name, screen, theme).words:
        assert words["wrong"] == []
        assert (words["seen"] > 0) == drawn


def test_words_of_pages_and_figures_are_set_in_the_fonts_that_the_book_sends(windows):
    visit = windows.open("book/bayes/laplace-approximation", "desktop", "light")
    session = visit.page.context.new_cdp_session(visit.page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    expected = {".bd-article section > p": "STIX Two Text", ".bd-article h2": "Source Sans 3", ".bd-article p code": "Source Code Pro",
                ".picture text": "Source Sans 3", ".picture .formula-letter": "STIX Two Text"}  # fmt: skip
    for selector, family in expected.items():
        node = session.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        fonts = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        assert max(fonts, key=lambda font: font["glyphCount"])["familyName"].startswith(family), selector
        assert all(font["isCustomFont"] for font in fonts), selector
    visit.close()


def test_three_panels_stand_in_one_row_or_one_column(windows):
    for name in ("book/beyond/the-family", "book/beyond/what-ewc-cannot-do"):
        visit = windows.open(name, "desktop", "light")
        pictures = visit.page.locator(".picture:has(> svg:nth-child(3):last-child)")
        assert pictures.count() > 0
        for picture in pictures.all():
            boxes = [panel.bounding_box() for panel in picture.locator("> svg").all()]
            assert 1 in (len({round(box["x"]) for box in boxes}), len({round(box["y"]) for box in boxes}))
        visit.close()


def test_a_long_formula_is_broken_into_lines_by_its_width_alone_and_its_symbols_stand_in_order(windows):
    """Without a script, too."""
    page = windows.window(viewport={"width": WIDTHS["phone"], "height": 900}, java_script_enabled=False).new_page()
    page.goto(windows.file("book/bayes/fisher-information").as_uri())
    formula = page.locator("#equation-eq-mean-score .formula")
    tall, wide, room = (formula.evaluate(f"e => e.{name}") for name in ("offsetHeight", "scrollWidth", "clientWidth"))
    assert wide <= room <= WIDTHS["phone"]
    starts = formula.locator(".one-line > .piece").evaluate_all("all => all.map(e => [e.offsetTop, e.offsetLeft])")
    assert len(starts) > 3
    assert starts == sorted(starts), "each piece stands to the right of or below the one before it"
    page.set_viewport_size({"width": 1900, "height": 900})
    assert formula.evaluate("e => e.offsetHeight") < tall / 2
    page.close()


def test_lines_of_a_formula_are_aligned_where_there_is_room(windows):
    visit = windows.open("book/bayes/likelihood-and-loss", "desktop", "light")
    for lines in visit.page.locator(".lines").all():
        edges = lines.locator(".equal > .side:nth-child(2)").evaluate_all("all => all.map(e => e.getBoundingClientRect().left)")
        assert max(edges) - min(edges) < 1
    assert visit.page.locator(".lines").count() > 1
    visit.close()


def test_formulas_are_set_in_the_font_that_the_book_sends(windows):
    """Each sign, and no other font's; on a page without a formula nobody asks for it."""
    visit = windows.open("book/bayes/fisher-information", "desktop", "light")
    assert "STIX Two Math" in visit.page.locator("math").first.evaluate("e => getComputedStyle(e).fontFamily")
    assert visit.page.evaluate("[...document.fonts].filter(f => f.family.includes('STIX Two Math')).map(f => f.status)") == ["loaded"]
    session = visit.page.context.new_cdp_session(visit.page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
    nodes = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": ".formula mi, .formula mo"})["nodeIds"]
    fonts = {font["familyName"] for node in nodes[:400] for font in session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]}
    assert fonts == {"STIX Two Math"}
    visit.close()


def test_a_drawing_is_drawn_as_its_parts_say(windows):
    """A cloud of points is a pen's dots, and those of a pen with a flat end cannot be seen."""
    visit = windows.open("book/bayes/the-shape-of-curvature", "desktop", "light")
    parts = visit.page.locator(".picture [stroke-linecap]")
    said = parts.evaluate_all("all => all.map(e => [e.getAttribute('stroke-linecap'), getComputedStyle(e).strokeLinecap])")
    assert [pair for pair in said if pair[0] != pair[1]] == []
    assert ["round", "round"] in said
    visit.close()


@pytest.mark.parametrize(("screen", "theme"), OPENED_IN.items())
@pytest.mark.parametrize("page_name", PAGES)
def test_no_box_covers_the_screen_and_each_closes(windows, page_name, screen, theme):
    boxes = windows.look(page_name, screen, theme).boxes
    if boxes is None:
        pytest.skip("no symbol and no number from a run is on this page")
    assert boxes["wrong"] == []
    assert boxes["seen"] > 0


def test_a_first_visit_has_nothing_to_complain_of(browser, real_book):
    """No theme was chosen yet, and none is stored."""
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.goto((real_book.html / f"{PAGES[0]}.html").as_uri())
    page.wait_for_load_state("load")
    page.close()
    assert complaints == []


def test_what_looks_at_the_same_page_is_kept_together(request):
    """Else each process opens each page, and builds what another has built: twice the time, and nobody is told."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests run in one process, or not in groups")
    assert request.node.nodeid.endswith("@test_site")
