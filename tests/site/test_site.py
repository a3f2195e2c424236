"""The pages as a browser shows them: from the disk, with no server, wide and narrow, light and dark."""

import re

import pytest
from browsing import WIDTHS, Visit
from building import PAGES, ROOT, source

SCREENSHOTS = ROOT / "_build" / "screenshots"
UNLOADED_STYLESHEETS = "[...document.querySelectorAll('link[rel=stylesheet]')].filter(e => !e.sheet).map(e => e.href)"
# What reaches past the right edge with no box of its own around it that scrolls; drawings and hidden helpers aside.
STANDING_OUT = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
    if (e.closest('svg, .tooltip, mjx-assistive-mml, .headerlink, .visually-hidden') || !e.getClientRects().length)
        return false;
    for (let box = e.parentElement; box.closest('.bd-article'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return e.getBoundingClientRect().right > innerWidth + 1;
}).map(e => e.tagName + '.' + e.className)"""


@pytest.fixture
def visit(browser, real_book, page_name, screen, theme):
    visit = Visit(browser, real_book.html / f"{page_name}.html", WIDTHS[screen], theme)
    yield visit
    visit.context.close()


@pytest.mark.parametrize("page_name", [*PAGES, "search", "genindex"])
def test_a_page_opens_from_the_disk_with_nothing_wrong(visit, page_name, screen, theme):
    page = visit.page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{page_name.replace('/', '-')}-{screen}-{theme}.png", full_page=True)

    assert not visit.foreign, "asked another server"
    assert not visit.complaints
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate(UNLOADED_STYLESHEETS) == []
    has_math = page_name in PAGES and re.search(r"\$[^$]+\$|\{math\}", source(page_name))
    if has_math:
        assert page.locator("mjx-container").count() > 0
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[screen], "the page scrolls sideways"
    cut = page.evaluate(STANDING_OUT)
    assert not cut, "stands out of the page, and nothing there scrolls"


def test_a_first_visit_has_nothing_to_complain_of(browser, real_book):
    """No theme was chosen yet, and none is stored."""
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.goto((real_book.html / f"{PAGES[0]}.html").as_uri())
    page.wait_for_load_state("load")
    page.close()
    assert complaints == []


def test_search_finds_a_word_of_a_chapter(browser, real_book):
    visit = Visit(browser, real_book.html / "search.html", 1280, "light")
    visit.page.goto((real_book.html / "search.html").as_uri() + "?q=fisher")
    visit.page.wait_for_selector("#search-results li a", timeout=10_000)
    assert not visit.foreign
    visit.context.close()
