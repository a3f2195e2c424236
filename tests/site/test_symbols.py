"""Symbols in the browser: point at one, and its twins light up and a box says what it is; by mouse, finger and keyboard."""

import re

import pytest
from browsing import WIDTHS, Visit
from building import PAGES, source

PAGE = "book/elastic/deriving-ewc"
MATHS = [page for page in PAGES if re.search(r"\$\$", source(page))]
# Where everything on the page is, in page coordinates.
PLACES = """() => [...document.querySelectorAll('.bd-article *')].filter(e => e.getClientRects().length).map(e => {
    const r = e.getBoundingClientRect();
    return [r.x + scrollX, r.y + scrollY, r.width, r.height].map(v => Math.round(v * 4)).join() }).join(';')"""
LIT = "kind => [...document.querySelectorAll(kind)].filter(e => e.classList.contains('lit')).length"
# Point at every symbol of every displayed equation in turn; those that do not answer.
SILENT = """() => { const data = JSON.parse(document.getElementById('symbols').textContent).symbols, box = document.getElementById('symbol-box');
    return [...document.querySelectorAll('mjx-container[display] mjx-math .sym')].filter(e => {
        e.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        const id = e.getAttribute('class').match(/sym-([a-z-]+)/)[1];
        const answers = !box.hidden && data[id] && box.textContent.includes(data[id].meaning) && e.classList.contains('lit');
        document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
        return !answers || !box.hidden;
    }).map(e => e.getAttribute('class')) }"""
# Letters and operators in displayed equations that are no symbol of the table.
UNNAMED = """() => [...document.querySelectorAll('mjx-container[display] mjx-math mjx-mi')]
    .filter(e => e.children.length && !e.closest('.sym')).map(e => e.outerHTML)"""
UNREACHABLE = """() => [...document.querySelectorAll('mjx-container[display]')].flatMap(e => {
    const kinds = [...new Set([...e.querySelectorAll('mjx-math .sym')].map(s => s.getAttribute('class').match(/sym-[a-z-]+/)[0]))];
    return kinds.filter(kind => !e.querySelector(`mjx-assistive-mml .${kind}[tabindex="0"][aria-label]`)) })"""


@pytest.fixture
def visit(browser, real_book, screen, theme):
    visit = Visit(browser, real_book.html / f"{PAGE}.html", WIDTHS[screen], theme)
    visit.page.wait_for_selector("mjx-assistive-mml [tabindex]", state="attached")
    yield visit
    assert not visit.complaints
    assert not visit.foreign
    visit.context.close()


def in_equation(page, symbol):
    return page.locator(f"#equation-eq-ewc mjx-math .sym-{symbol}").first


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
    for kind in ("mjx-math .sym-strength", "pre .sym-strength", "p > span.sym-strength", ".legend .sym-strength"):
        lit, all_of_them = page.evaluate(LIT, kind), page.locator(kind).count()
        assert lit == all_of_them > 0, kind
    assert page.evaluate(LIT, ".sym-fisher") == 0
    assert page.evaluate(PLACES) == before


def test_the_box_says_the_value_in_this_run_where_there_is_one(browser, real_book):
    visit = Visit(browser, real_book.html / "book/elastic/mnist-to-fashion-mnist.html", 1280, "light")
    words = visit.page.locator("figcaption span.sym-strength").first
    words.hover()
    box(visit.page).wait_for(state="visible")
    shown = visit.page.locator("figcaption .num").filter(has_text=re.compile(r"^\d+$")).first.inner_text()
    assert f"here {shown}" in box(visit.page).inner_text()
    visit.context.close()


def test_being_lit_is_not_carried_by_colour_alone(visit):
    in_equation(visit.page, "strength").hover()
    assert in_equation(visit.page, "strength").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert visit.page.locator("pre .sym-strength").first.evaluate("e => getComputedStyle(e).outlineStyle") == "dashed"


def test_the_box_leaves_the_line_that_is_read_uncovered_and_stays_while_it_is_pointed_at(visit, screen):
    page = visit.page
    in_equation(page, "strength").hover()
    box(page).wait_for(state="visible")
    line = page.locator("#equation-eq-ewc mjx-container").bounding_box()
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


def test_a_finger_opens_the_box_and_a_touch_elsewhere_closes_it(browser, real_book):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((real_book.html / f"{PAGE}.html").as_uri())
    page.wait_for_selector("mjx-assistive-mml [tabindex]", state="attached")
    in_equation(page, "fisher").tap()
    box(page).wait_for(state="visible")
    page.wait_for_timeout(400)
    assert "Fisher information" in box(page).inner_text()
    line, over = page.locator("#equation-eq-ewc mjx-container").bounding_box(), box(page).bounding_box()
    assert over["y"] >= line["y"] + line["height"] or over["y"] + over["height"] <= line["y"]
    in_equation(page, "strength").tap()
    assert "strength of the penalty" in box(page).inner_text()
    page.locator("#equation-eq-ewc + p").tap(position={"x": 2, "y": 2})
    assert not box(page).is_visible()
    context.close()


def test_tab_and_escape_do_the_same(visit):
    page = visit.page
    page.locator("a.reference[href='#equation-eq-ewc-sum']").first.focus()  # the last link before the equation
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('class')") or ""
        if "sym-" not in name:
            break
        reached.append(re.search(r"sym-([a-z-]+)", name)[1])
        assert box(page).is_visible()
        assert page.evaluate(LIT, f".sym-{reached[-1]}") > 1
        if reached[-1] == "strength":
            assert "strength of the penalty" in box(page).inner_text()
            assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "lambda, strength of the penalty"
    assert {"loss", "strength", "fisher", "weights", "anchor", "weight-index"} <= set(reached)
    page.keyboard.press("Shift+Tab")
    assert box(page).is_visible()
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


@pytest.mark.parametrize("page_name", MATHS)
def test_every_symbol_of_every_displayed_equation_is_known_and_answers(browser, real_book, page_name):
    visit = Visit(browser, real_book.html / f"{page_name}.html", 1280, "light")
    visit.page.wait_for_selector("mjx-assistive-mml [tabindex]", state="attached")
    assert visit.page.locator("mjx-container[display] mjx-math .sym").count() > 5
    assert visit.page.evaluate(UNNAMED) == []
    assert visit.page.evaluate(SILENT) == []
    assert visit.page.evaluate(UNREACHABLE) == []
    assert not visit.complaints
    visit.context.close()


def test_without_scripts_the_page_reads_as_plain_tex(browser, real_book):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((real_book.html / f"{PAGE}.html").as_uri())
    words = page.locator("#equation-eq-ewc").inner_text()
    assert r"\frac{\lambda}{2}\sum_i F_i\,(\theta_i-\theta^*_i)^2" in words
    assert "class" not in words
    assert page.locator("#symbol-box").count() == 0
    context.close()
