"""Previews of links and folded answers, in the browser: by mouse, finger and keyboard."""

import pytest
from browsing import OPENED_IN, Visit
from building import CHAPTERS
from playwright.sync_api import expect

FAMILY, FISHER, DERIVING = "book/beyond/the-family", "book/bayes/fisher-information", "book/elastic/deriving-ewc"
# A link of each kind, and words of what it leads to.
KINDS = {
    "an equation of the page": (DERIVING, "a.internal[href='#equation-eq-ewc']", "Equation (8."),
    "an equation of another page": (FAMILY, "a.internal[href*='deriving-ewc.html#equation-']", "Deriving EWC"),
    "a reference": (DERIVING, "a.internal[href$='#ref-kirkpatrick2017']", "Overcoming catastrophic forgetting in neural networks"),
    "a figure of the page": (FISHER, "a.internal[href^='#fig-']", "Fig. 6."),
    "a term": (FAMILY, "a.term", "."),
}


@pytest.fixture(params=KINDS)
def linked(windows, request, screen):
    page_name, link, words = KINDS[request.param]
    visit = windows.open(page_name, screen, OPENED_IN[screen])
    yield visit.page, visit.page.locator(f"article {link} >> visible=true").first, words
    wrong = [*visit.complaints, *visit.foreign]
    visit.close()
    assert not wrong


def box(page):
    return page.locator("#symbol-box")


def test_pointing_at_a_link_shows_what_it_leads_to(linked):
    page, link, words = linked
    link.hover()
    expect(box(page)).to_be_visible()
    expect(box(page)).to_contain_text(words)
    size = box(page).bounding_box()
    assert size["height"] < 0.6 * 900
    assert size["x"] >= 0
    page.mouse.move(1, 1)
    expect(box(page)).to_be_hidden()


def test_the_keyboard_shows_it_and_escape_closes_it_and_enter_goes_there(linked):
    page, link, words = linked
    link.focus()
    expect(box(page)).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(box(page)).to_be_hidden()
    to = link.get_attribute("href").partition("#")[2]
    link.press("Enter")
    page.wait_for_url(f"**#{to}")


def test_an_equation_in_the_box_is_the_formula_itself_and_nothing_is_there_twice(windows):
    visit = windows.open(DERIVING, "desktop", "light")
    visit.page.locator("article a.internal[href='#equation-eq-ewc']").first.hover()
    assert box(visit.page).locator("math mfrac").count() == visit.page.locator("#equation-eq-ewc math mfrac").count() > 0
    assert visit.page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length")
    visit.close()


def test_a_finger_shows_first_and_goes_with_the_second_touch(windows):
    visit = Visit(windows.window(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), windows.file(DERIVING))
    page = visit.settle().page
    link = page.locator("article a.internal[href$='#ref-kirkpatrick2017']").first
    link.tap()
    expect(box(page)).to_contain_text("Overcoming catastrophic forgetting")
    assert page.url.endswith("deriving-ewc.html")
    link.tap()
    page.wait_for_url("**/references.html#ref-kirkpatrick2017")
    visit.close()


@pytest.mark.parametrize("page_name", CHAPTERS)
def test_each_answer_is_named_by_its_exercise_and_one_button_shows_all(windows, page_name):
    visit = windows.open(page_name, "desktop", "light")
    answers = visit.page.locator(".admonition.solution")
    titles = visit.page.locator(".admonition.exercise > .admonition-title").all_inner_texts()
    buttons = answers.locator(".toggle-button")
    names = [button.get_attribute("aria-label") for button in buttons.all()]
    assert [name.rpartition(" ")[2] for name in names] == [title.split()[1] for title in titles]
    assert all(name.startswith("Show the answer to exercise ") for name in names)
    hidden = "[...document.querySelectorAll('.admonition.solution')].filter(e => e.classList.contains('toggle-hidden')).length"
    assert visit.page.evaluate(hidden) == len(names)
    visit.page.get_by_role("button", name="Show all answers").click()
    assert visit.page.evaluate(hidden) == 0
    expect(buttons.first).to_have_attribute("aria-label", names[0].replace("Show", "Hide"))
    visit.page.get_by_role("button", name="Hide all answers").click()
    assert visit.page.evaluate(hidden) == len(names)
    assert not visit.complaints
    visit.close()


def test_every_listing_that_can_be_run_has_a_copy_button(windows):
    visit = windows.open(DERIVING, "desktop", "light")
    listings = visit.page.locator(".highlight-ipython3, .highlight-python")
    assert listings.count() > 10
    assert listings.filter(has_not=visit.page.locator(".copybtn")).count() == 0
    visit.close()
