"""Figures with a slider, as a browser shows them: moved by keyboard and by touch, without JavaScript, and from the disk."""

import re

import pytest
from browsing import Visit
from building import PAGES
from playwright.sync_api import expect

ONE_SLIDER, SEVERAL_SLIDERS = "book/bayes/yesterdays-posterior", "book/bayes/laplace-approximation"
UNWANTED = re.compile(r"not loaded: file:.*\.js\b")  # a script, where none runs; what a page misses is test_site's affair
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(params=list(SCREENS))
def screen(request):
    return request.param


@pytest.fixture
def opened(windows, screen):
    """A page by its name; afterwards, that it complained of nothing and asked nobody."""
    visits = []

    def open_page(name, **how):
        visits.append(Visit(windows.window(**SCREENS[screen], **how), windows.file(name)))
        return visits[-1].page

    yield open_page
    wrong = [words for visit in visits for words in (*visit.complaints, *visit.foreign) if not UNWANTED.match(words)]
    for visit in visits:
        visit.close()
    assert not wrong


def described(figure):
    """The alt text of the one frame that is shown."""
    shown = figure.locator(".frame:not([hidden]) .picture")
    expect(shown).to_have_count(1)
    expect(shown).to_be_visible()
    return shown.get_attribute("aria-label")


def test_the_arrows_of_the_keyboard_step_from_frame_to_frame(opened):
    figure = opened(ONE_SLIDER).locator(".frames").first
    slider, output = figure.get_by_role("slider"), figure.locator("output")
    names = slider.get_attribute("data-names").split("|")
    start, first = int(slider.input_value()), described(figure)
    expect(output).to_have_text(names[start])
    expect(figure.locator("[aria-live]")).to_be_empty()

    slider.press("ArrowRight")
    expect(output).to_have_text(names[start + 1])
    expect(slider).to_have_attribute("aria-valuetext", names[start + 1])
    moved = described(figure)
    assert moved != first
    expect(figure.locator("[aria-live]")).to_have_text(moved)

    slider.press("ArrowLeft")
    assert described(figure) == first
    slider.press("End")
    expect(output).to_have_text(names[-1])
    expect(figure.locator("[aria-live]")).to_have_text(described(figure))


def test_a_finger_or_a_mouse_on_the_slider_chooses_a_frame(opened, screen):
    figure = opened(ONE_SLIDER).locator(".frames").first
    slider = figure.get_by_role("slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box["height"] >= 44, "a finger needs room"
    middle = {"x": box["width"] / 2, "y": box["height"] / 2}
    first = described(figure)
    slider.tap(position=middle) if screen == "phone" else slider.click(position=middle)
    chosen, last = int(slider.input_value()), int(slider.get_attribute("max"))
    assert abs(chosen - last / 2) <= 1
    expect(figure.locator("output")).to_have_text(slider.get_attribute("data-names").split("|")[chosen])
    assert described(figure) != first
    expect(figure.locator("[aria-live]")).to_have_text(described(figure))


def test_several_sliders_reach_every_frame_once(opened):
    figure = opened(SEVERAL_SLIDERS).locator(".frames").first
    sliders = figure.get_by_role("slider").all()
    assert len(sliders) > 1
    seen = set()

    def turn(rest):
        if not rest:
            seen.add(described(figure))
            return
        rest[0].press("Home")
        for place in range(int(rest[0].get_attribute("max")) + 1):
            if place:
                rest[0].press("ArrowRight")
            turn(rest[1:])

    turn(sliders)
    assert len(seen) == figure.locator(".frame").count()


@pytest.mark.parametrize("name", [ONE_SLIDER, SEVERAL_SLIDERS])
def test_nothing_jumps_and_nothing_stands_out_when_a_slider_moves(opened, name, screen):
    page = opened(name)
    for figure in page.locator(".frames").all():
        box = figure.locator(".frame:not([hidden])").bounding_box()
        for key in ("Home", "End"):
            for slider in figure.get_by_role("slider").all():
                slider.press(key)
            now = figure.locator(".frame:not([hidden])").bounding_box()
            assert (now["width"], now["height"]) == pytest.approx((box["width"], box["height"]), abs=0.5)
        assert figure.evaluate("e => [...e.querySelectorAll('*')].every(p => p.getBoundingClientRect().right <= innerWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen]["viewport"]["width"]


def test_the_start_is_shown_where_no_script_runs(opened):
    page = opened(SEVERAL_SLIDERS, java_script_enabled=False)
    figure = page.locator(".frames").first
    assert described(figure)
    for slider in figure.locator("input").all():
        expect(slider).to_be_hidden()


def test_pages_have_the_script_where_they_have_such_a_figure_and_nowhere_else(real_book):
    with_figure = set()
    for name in PAGES:
        text = (real_book.html / f"{name}.html").read_text("utf8")
        assert ("frames.js" in text) == ('<div class="frames">' in text), name
        if '<div class="frames">' in text:
            with_figure.add(name)
            for figure in text.split('<div class="frames">')[1:]:
                assert len(figure.partition('<p class="frames-said"')[0].encode()) < 400_000, f"a heavy figure on {name}"
    assert {ONE_SLIDER, SEVERAL_SLIDERS} <= with_figure < set(PAGES)
