"""The first page: what a reader who has never heard of the book sees, with scripts and without, wide and narrow."""

import re

import pytest
from browsing import Visit
from building import CHAPTERS, TOC, soup_of
from playwright.sync_api import expect

ROOT_PAGE = TOC["root"]


@pytest.fixture
def landing(windows, screen, theme):
    visit = windows.open(ROOT_PAGE, screen, theme)
    yield visit.page
    wrong = [*visit.complaints, *visit.foreign]
    visit.close()
    assert not wrong


def test_the_switch_turns_from_one_drawing_to_the_other(landing):
    figure = landing.locator(".switched")
    switch, states = figure.get_by_role("switch", name="EWC"), figure.locator(".switched-state")
    expect(states).to_have_count(2)
    expect(switch).to_have_attribute("aria-checked", "false")
    for press in ("Enter", "Space", None):
        on = switch.get_attribute("aria-checked") == "false"
        switch.press(press) if press else switch.click()
        expect(switch).to_have_attribute("aria-checked", str(on).lower())
        expect(states.nth(int(on))).to_be_visible()
        expect(states.nth(int(not on))).to_be_hidden()


def test_nothing_moves_when_the_switch_is_turned(landing):
    places = "[...document.querySelectorAll('.bd-article > section > *')].map(e => Math.round(e.getBoundingClientRect().top + scrollY)).join()"
    before = landing.evaluate(places)
    landing.get_by_role("switch", name="EWC").click()
    assert landing.evaluate(places) == before


def test_the_start_and_the_curve_are_on_the_first_screen(windows):
    visit = windows.open(ROOT_PAGE, "desktop", "light")
    for part in (visit.page.get_by_role("switch", name="EWC"), visit.page.get_by_role("link", name="Start reading")):
        box = part.bounding_box()
        assert box["y"] + box["height"] <= 900
    visit.page.get_by_role("link", name="Start reading").click()
    assert visit.page.url.endswith(f"{CHAPTERS[0]}.html")
    visit.close()


def test_without_scripts_both_drawings_are_shown_and_there_is_no_switch(windows):
    visit = Visit(windows.window(java_script_enabled=False), windows.file(ROOT_PAGE))
    pictures = visit.page.locator(".switched .picture")
    assert [picture.is_visible() for picture in pictures.all()] == [True, True]
    assert not visit.page.locator(".switched button").is_visible()
    visit.close()


def test_each_chapter_has_a_card_with_a_picture_and_a_question_of_its_own(real_book):
    cards = soup_of(real_book, ROOT_PAGE).select("ul.cards a")
    assert [card["href"] for card in cards] == [f"{page}.html" for page in CHAPTERS]
    questions = [card.select_one(".card-question").get_text() for card in cards]
    assert len(set(questions)) == len(cards)
    assert all(question.endswith("?") for question in questions)
    drawings = [str(card.svg) for card in cards]
    assert len(set(drawings)) == len(cards)
    assert not [drawing for drawing in drawings if re.search(r"<text|<image", drawing)], "words that are too small, or a weight"


def test_the_first_page_is_no_refresh_and_says_how_to_cite_and_nothing_of_the_computer(real_book):
    page = soup_of(real_book, ROOT_PAGE)
    assert not page.select("meta[http-equiv=refresh i]")
    assert "@misc{" in page.find("article").get_text()
    assert not page.select("table.build-facts")
    assert soup_of(real_book, "book/appendix/how-this-copy-was-made").select("table.build-facts")
