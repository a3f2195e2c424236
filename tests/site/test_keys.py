"""The pages by keyboard: a switch makes Tab short, and nothing is out of reach."""

import pytest
from building import PAGES

CHAPTERS = [page for page in PAGES if "/appendix/" not in page]
MOST = 60        # stops of Tab on a page
SWITCH = "Tab stops once in a section, arrow keys go on"
# What can be seen and used, and is no symbol or number. An element is known by its place among all, which it is given once; the box
# of symbols, whose content comes and goes, does not count.
CONTROLS = """() => { const all = [...document.querySelectorAll('*:not(#symbol-box *)')];
    all.forEach((e, at) => e.ownPlace = at);
    return all.filter(e => e.matches('a[href], button, summary, input') && !e.disabled
        && e.checkVisibility({visibilityProperty: true})).map(e => e.ownPlace) }"""
AT = "document.activeElement.ownPlace ?? -1"
# From where the focus is, as far as the arrow brings it; the places that it came to. The first arrow of a stop is a key of the keyboard.
ONWARD = """reached => { const known = new Set(reached), met = [];
    for (let e = document.activeElement; !known.has(e.ownPlace ?? -1); e = document.activeElement) {
        known.add(e.ownPlace ?? -1);
        met.push(e.ownPlace ?? -1);
        if (e.matches('input')) break;      // its arrows move it
        e.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true, cancelable: true}));
    }
    return met }"""


@pytest.fixture
def visit(windows):
    made = []

    def open_page(name):
        made.append(windows.open(name, "desktop", "light", drawn=False))
        return made[-1].page

    yield open_page
    for each in made:
        each.page.evaluate("localStorage.removeItem('short tab')")
        each.close()


@pytest.mark.parametrize("page_name", CHAPTERS)
def test_tab_is_short_where_the_reader_wants_it_and_reaches_everything(visit, page_name):
    page = visit(page_name)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    switch = page.get_by_role("switch", name=SWITCH)
    assert switch.evaluate("e => e === document.activeElement")
    assert switch.bounding_box()["width"] > 100, "it is seen where it has the focus"
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-checked") == "true"
    wanted, stops = set(page.evaluate(CONTROLS)), 2
    reached = {page.evaluate(AT)}
    for _ in range(3 * MOST):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body || document.activeElement.matches('.skip-link a')"):
            break
        stops += page.evaluate(AT) not in reached       # the end of a row of arrows is where Tab stops next, and no stop of its own
        stop = page.evaluate_handle("document.activeElement")
        reached.add(page.evaluate(AT))
        if not stop.evaluate("e => e.matches('input')"):
            page.keyboard.press("ArrowRight")
            reached.update(page.evaluate(ONWARD, [*reached]))
        stop.evaluate("e => e.focus()")     # what takes the focus by itself may stand between the others
    else:
        pytest.fail("Tab does not come out at the end of the page")
    assert stops <= MOST
    first = page.evaluate("document.querySelector('.skip-link a').ownPlace")
    assert wanted - reached - {first} == set()


def test_the_switch_is_remembered_and_can_be_turned_back(visit):
    page = visit("book/elastic/deriving-ewc")
    stops = "[...document.querySelectorAll('.sym, .num, a[href], button')].filter(e => e.tabIndex >= 0).length"
    before, switch = page.evaluate(stops), page.get_by_role("switch", name=SWITCH)
    switch.press("Enter")
    short = page.evaluate(stops)
    assert short < MOST < before
    for _ in range(20):             # a browser writes down what a page keeps by and by, and a busy machine takes its time
        page.wait_for_timeout(200)
        page.reload()
        if page.evaluate(stops) == short:
            break
        switch.press("Enter")       # what the visit before took back may have come late
    else:
        pytest.fail("the switch is not remembered")
    switch.press("Enter")
    assert page.evaluate(stops) == before


def test_each_control_shows_that_it_has_the_focus(visit):
    page, unseen = visit("book/elastic/deriving-ewc"), set()
    shown = """() => { const e = document.activeElement, style = getComputedStyle(e), ring = [style.outlineStyle, style.boxShadow];
        return e === document.body ? null : [`${e.tagName}.${e.getAttribute('class')}`, ring.some(each => each !== 'none') && style.opacity > 0] }"""
    for _ in range(400):
        page.keyboard.press("Tab")
        if (found := page.evaluate(shown)) is None:
            break
        unseen |= {found[0]} if not found[1] else set()
    assert unseen == set()


@pytest.mark.parametrize("button", [".theme-switch-button", ".copybtn"])
def test_a_button_that_a_key_presses_keeps_the_focus(visit, button):
    """The theme's scripts let it go."""
    page = visit("book/elastic/deriving-ewc")
    page.locator(f"{button}:visible").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(50)
    assert page.evaluate("name => document.activeElement.matches(name)", button)
