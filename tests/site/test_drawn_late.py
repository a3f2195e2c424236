"""Sections are laid out when the reader comes near them; nobody is to notice, but for the time that it saves."""

import pytest
from browsing import HEIGHT

PAGE = "book/elastic/many-tasks"
# Of each section, whether it is laid out, where it begins, and how many of its boxes say that they are wide.
SECTIONS = """() => [...document.querySelectorAll('.bd-article > section > section')].map(e => ({
    id: e.id, top: e.getBoundingClientRect().top, wide: e.querySelectorAll('.wide').length,
    drawn: e.firstElementChild.checkVisibility({contentVisibilityAuto: true}) }))"""
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def page(windows, screen):
    visit = windows.open(PAGE, screen, "light", drawn=False)
    yield visit.page
    wrong = [*visit.complaints, *visit.foreign]
    visit.close()
    assert not wrong


def test_only_what_is_near_is_laid_out_and_the_rest_when_it_comes_near(page, screen):
    page.evaluate(TWO_FRAMES)
    first = page.evaluate(SECTIONS)
    assert first[0]["drawn"]
    assert not first[-1]["drawn"]
    assert sum(each["drawn"] for each in first) < len(first) / 2
    for each in first:
        page.evaluate("id => document.getElementById(id).scrollIntoView()", each["id"])
        page.evaluate(TWO_FRAMES)
    last = page.evaluate(SECTIONS)
    assert last[-1]["drawn"]
    wide = [sum(each["wide"] for each in sections) for sections in (first, last)]
    assert wide[1] > wide[0] or screen == "desktop", "they are measured when they are drawn"


def test_a_link_into_the_page_comes_to_its_section_and_stays_there_and_so_does_who_comes_back(windows, screen):
    known = windows.open(PAGE, screen, "light")
    names = [each["id"] for each in known.page.evaluate(SECTIONS)[2::5]]
    known.close()
    for name in names:
        tab = windows.themed(screen, "light").new_page()
        tab.goto(f"{windows.file(PAGE).as_uri()}#{name}")
        for what in (lambda: None, tab.reload):
            what()
            for wait in (100, 500):
                tab.wait_for_timeout(wait)
                assert -5 < tab.evaluate("id => document.getElementById(id).getBoundingClientRect().top", name) < HEIGHT / 4, name
        tab.close()


def test_paper_has_all_of_it(page):
    page.emulate_media(media="print")
    assert {each["drawn"] for each in page.evaluate(SECTIONS)} == {True}
    page.emulate_media(media="screen")
