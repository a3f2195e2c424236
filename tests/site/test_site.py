"""The pages as a browser shows them: from the disk, with no server, wide and narrow, light and dark."""

import re

import pytest
from browsing import OPENED_IN, WIDTHS
from building import PAGES, source


@pytest.mark.parametrize("page_name", [*PAGES, "search", "genindex"])
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


@pytest.mark.parametrize(("screen", "theme"), OPENED_IN.items())
@pytest.mark.parametrize("page_name", PAGES)
def test_nothing_is_cut_off_without_a_way_to_the_rest(windows, page_name, screen, theme):
    """At 1280, 768 and 390 pixels, with all answers and tests unfolded."""
    assert windows.look(page_name, screen, theme).cut == []


def test_a_long_formula_is_broken_into_lines_and_keeps_its_symbols_in_order(windows):
    visit = windows.open("book/bayes/fisher-information", "phone", "dark")
    formula = visit.page.locator("#equation-eq-mean-score mjx-container")
    formula.scroll_into_view_if_needed()
    assert "broken" in formula.get_attribute("class")
    assert "wide" not in formula.get_attribute("class")
    right, height, drawn, read = formula.evaluate("""e => { const all = [...e.querySelectorAll('mjx-math mjx-c')].map(c => c.getBoundingClientRect());
        const kinds = part => [...e.querySelectorAll(`${part} .sym`)].map(s => s.getAttribute('class').match(/sym-[a-z-]+/)[0]);
        return [Math.max(...all.map(c => c.right)), e.offsetHeight, kinds('mjx-math'), kinds('mjx-assistive-mml')] }""")
    assert right <= WIDTHS["phone"]
    assert height > 100
    assert drawn == read
    visit.page.set_viewport_size({"width": 1900, "height": 900})
    visit.page.wait_for_function("e => !e.classList.contains('broken')", arg=formula.element_handle())
    assert formula.evaluate("e => e.offsetHeight") < height / 2
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
