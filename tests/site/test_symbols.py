"""Symbols in the browser: point at one, and its twins light up and a box says what it is; by mouse, finger and keyboard."""

import re

import pytest
from browsing import DISPLAYED, WIDTHS, Visit

PAGE = "book/elastic/deriving-ewc"
# Where everything on the page is, in page coordinates.
PLACES = """() => [...document.querySelectorAll('.bd-article *')].filter(e => e.getClientRects().length).map(e => {
    const r = e.getBoundingClientRect();
    return [r.x + scrollX, r.y + scrollY, r.width, r.height].map(v => Math.round(v * 4)).join() }).join(';')"""
LIT = "kind => [...document.querySelectorAll(kind)].filter(e => e.classList.contains('lit')).length"


@pytest.fixture(scope="module")
def opened(windows):
    """The page in each window, opened once."""
    visits = {}

    def visit(*window):
        visits[window] = visits.get(window) or windows.open(PAGE, *window)
        return visits[window]

    yield visit
    for each in visits.values():
        each.close()


@pytest.fixture
def visit(opened, screen, theme):
    """The page at rest, whatever an earlier test did to it: no mouse, no focus, no box, and its beginning in view."""
    visit = opened(screen, theme)
    visit.page.mouse.move(0, 0)
    visit.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    visit.page.keyboard.press("Escape")
    assert not box(visit.page).is_visible()
    assert visit.page.evaluate(LIT, ".sym, .num") == 0
    yield visit
    assert not visit.complaints
    assert not visit.foreign


def in_equation(page, symbol):
    return page.locator(f"#equation-eq-ewc math .sym-{symbol}").first


def quarters(places):
    return [int(each) for each in re.findall(r"-?\d+", places)]


def box(page):
    return page.locator("#symbol-box")


def test_pointing_lights_the_twins_and_opens_the_box_and_moves_nothing(visit):
    page = visit.page
    before = page.evaluate(PLACES)
    in_equation(page, "strength").hover()
    box(page).wait_for(state="visible")
    words = box(page).inner_text()
    assert "strength of the penalty" in words
    assert "lambda" in words
    assert "in code strength" in words
    for kind in ("math .sym-strength", "pre .sym-strength", "p > span.sym-strength", ".legend .sym-strength"):
        lit, all_of_them = page.evaluate(LIT, kind), page.locator(kind).count()
        assert lit == all_of_them > 0, kind
    assert page.evaluate(LIT, ".sym-fisher") == 0
    # After the page was scrolled, a part of a formula may be rounded to the next quarter of a pixel.
    pairs = zip(quarters(before), quarters(page.evaluate(PLACES)), strict=True)
    assert [pair for pair in pairs if abs(pair[0] - pair[1]) > 1] == []


def test_the_box_says_the_value_in_this_run_where_there_is_one(windows):
    visit = windows.open("book/elastic/mnist-to-fashion-mnist", "desktop", "light")
    words = visit.page.locator("figcaption span.sym-strength").first
    words.hover()
    box(visit.page).wait_for(state="visible")
    shown = visit.page.locator("figcaption .num").filter(has_text=re.compile(r"^\d+$")).first.inner_text()
    assert f"here {shown}" in box(visit.page).inner_text()
    visit.close()


def test_being_lit_is_not_carried_by_colour_alone(visit):
    in_equation(visit.page, "strength").hover()
    assert in_equation(visit.page, "strength").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert visit.page.locator("pre .sym-strength").first.evaluate("e => getComputedStyle(e).outlineStyle") == "dashed"


def test_the_box_leaves_the_line_that_is_read_uncovered_and_stays_while_it_is_pointed_at(visit, screen):
    page = visit.page
    in_equation(page, "strength").hover()
    box(page).wait_for(state="visible")
    line = page.locator("#equation-eq-ewc .formula").bounding_box()
    over = box(page).bounding_box()
    assert over["y"] >= line["y"] + line["height"] or over["y"] + over["height"] <= line["y"]
    assert over["x"] >= 0
    assert over["x"] + over["width"] <= WIDTHS[screen]
    page.mouse.move(over["x"] + over["width"] / 2, over["y"] + over["height"] / 2, steps=1)
    page.wait_for_timeout(400)
    assert box(page).is_visible()
    href = box(page).get_by_role("link", name="Notation").get_attribute("href")
    assert href.endswith("notation.html#symbol-strength")
    page.mouse.move(1, 400)
    box(page).wait_for(state="hidden")


def test_a_click_keeps_it_open_and_a_touch_outside_closes_it(visit):
    page = visit.page
    in_equation(page, "anchor").click()
    page.mouse.move(1, 400)
    page.wait_for_timeout(400)
    assert box(page).is_visible()
    page.mouse.click(1, 400)
    assert not box(page).is_visible()
    assert page.evaluate(LIT, ".sym") == 0


def test_a_finger_opens_the_box_and_a_touch_elsewhere_closes_it(windows):
    visit = Visit(windows.window(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), windows.file(PAGE))
    page = visit.settle().page
    in_equation(page, "fisher").tap()
    box(page).wait_for(state="visible")
    page.wait_for_timeout(400)
    assert "Fisher information" in box(page).inner_text()
    line, over = page.locator("#equation-eq-ewc .formula").bounding_box(), box(page).bounding_box()
    assert over["y"] >= line["y"] + line["height"] or over["y"] + over["height"] <= line["y"]
    in_equation(page, "strength").tap()
    assert "strength of the penalty" in box(page).inner_text()
    page.locator("#equation-eq-ewc + p").tap(position={"x": 2, "y": 2})
    assert not box(page).is_visible()
    visit.close()


def test_tab_arrows_and_escape_do_the_same(visit):
    """A formula is one stop of Tab, and the arrow keys go through all kinds of symbols in it, and around."""
    page = visit.page
    page.locator("a.reference[href='#equation-eq-ewc-sum']").first.focus()  # the last link before the equation
    page.keyboard.press("Tab")
    reached = []
    for _ in range(12):
        name = page.evaluate("document.activeElement.getAttribute('class')") or ""
        kind = re.search(r"sym-([a-z-]+)", name)[1]
        if reached and kind == reached[0]:
            break
        reached.append(kind)
        assert box(page).is_visible()
        assert page.evaluate(LIT, f".sym-{reached[-1]}") > 1
        if reached[-1] == "strength":
            assert "strength of the penalty" in box(page).inner_text()
            assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "lambda, strength of the penalty"
        page.keyboard.press("ArrowRight")
    assert {"loss", "strength", "fisher", "weights", "anchor", "weight-index"} <= set(reached)
    page.keyboard.press("ArrowLeft")
    assert f"sym-{reached[-1]}" in page.evaluate("document.activeElement.getAttribute('class')")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('#equation-eq-ewc .formula')")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    assert not box(page).is_visible()
    assert page.evaluate(LIT, ".sym") == 0


def test_enter_goes_to_the_box_and_escape_comes_back(visit):
    page = visit.page
    page.locator(".legend span.sym-strength").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('#symbol-box') !== null")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className.includes('sym-strength')")


def test_a_number_names_the_runs_that_it_came_from(visit):
    page = visit.page
    number = page.locator("p span.num[data-runs]:not([data-runs=''])").first
    number.hover()
    box(page).wait_for(state="visible")
    words = box(page).inner_text()
    assert re.search(r"run", words)
    assert re.search(r"seed \d", words)
    assert re.search(r"\d{4}-\d\d-\d\d", words)
    href = box(page).get_by_role("link").first.get_attribute("href")
    key = number.get_attribute("data-runs").split()[0]
    assert href.endswith(f"how-this-copy-was-made.html#run-{key}")
    assert page.evaluate(LIT, ".num") == 1


def test_many_runs_are_said_in_few_words_and_lead_to_their_table(windows):
    """The number with the most runs behind it: not a line for each of them."""
    visit = windows.open("book/beyond/the-family", "desktop", "light")
    numbers = visit.page.locator("span.num[data-runs]")
    counts = numbers.evaluate_all("all => all.map(e => e.dataset.runs.split(' ').length)")
    number = numbers.nth(counts.index(max(counts)))
    runs = number.get_attribute("data-runs").split()
    assert len(runs) > 20
    number.hover()
    words = box(visit.page).inner_text()
    assert f"From {len(runs)} runs" in words
    methods, seeds = map(int, re.search(r"(\d+) methods × (\d+) seeds", words).groups())
    assert methods * seeds == len(runs)
    assert len(words) < 300
    assert box(visit.page).get_by_role("link").first.get_attribute("href").endswith(f"how-this-copy-was-made.html#run-{runs[0]}")
    visit.close()


def test_a_link_to_a_run_opens_the_table_that_is_folded(windows):
    visit = windows.open("book/appendix/how-this-copy-was-made", "desktop", "light")
    row = visit.page.locator("details table.runs tr[id]").last
    assert not row.is_visible()
    visit.page.goto(f"{visit.page.url}#{row.get_attribute('id')}")
    row.wait_for(state="visible")
    visit.close()


def test_the_box_closes_by_its_button_with_a_finger(windows):
    visit = Visit(windows.window(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), windows.file(PAGE))
    page = visit.settle().page
    in_equation(page, "fisher").tap()
    box(page).wait_for(state="visible")
    button = box(page).get_by_role("button", name="Close")
    size = button.bounding_box()
    assert min(size["width"], size["height"]) >= 30
    button.tap()
    assert not box(page).is_visible()
    visit.close()


@pytest.mark.parametrize("page_name", DISPLAYED)
def test_every_symbol_of_every_displayed_equation_is_known_and_answers(windows, page_name):
    seen = windows.look(page_name, "desktop", "light")
    assert seen.symbols > 5
    assert seen.unnamed == []
    assert seen.silent == []
    assert seen.unreachable == []
    assert not seen.complaints


def test_without_scripts_formulas_are_set_all_the_same(windows):
    page = windows.window(java_script_enabled=False).new_page()
    page.goto(windows.file(PAGE).as_uri())
    formula = page.locator("#equation-eq-ewc .formula")
    assert formula.locator("mfrac").count() == 2
    assert re.sub(r"\s", "", formula.text_content()).startswith("L(θ)=LB(θ)+λ2∑iFi(θi−θi∗)2")
    assert formula.locator("mfrac").first.evaluate("e => e.firstChild.getBoundingClientRect().bottom <= e.lastChild.getBoundingClientRect().top")
    assert "\\" not in page.locator("article").inner_text().replace("\\n", "")
    assert page.locator("#symbol-box").count() == 0
    page.close()
