"""Figures with a slider, as HTML: what is shown first, how states are named, and that no frame points at nothing."""

import re
from html.parser import HTMLParser

import pytest
import torch
from ewc.workshop.drawing import BLUE, draw
from ewc.workshop.frames import frames


def drawing(power, width=1.0, size=(3.0, 2.0)):
    def panel(axes):
        x = torch.linspace(0, 1, 30)
        axes.fill_between(x, width * x**power, color=BLUE, lw=0)
        axes.set_ylim(0, 1)
        axes.set_title(f"power {power}")
        axes.set_xlabel("$\\theta$")

    return draw(f"x to the power of {power}, {width} wide", panel, size=size)


class Read(HTMLParser):
    """Every element's name and attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))

    def of_class(self, wanted):
        return [attributes for _, attributes in self.found if wanted in (attributes.get("class") or "").split()]


@pytest.fixture(scope="module")
def one():
    return frames({power: drawing(power) for power in (1, 2, 3)}, "power", start=2)


@pytest.fixture(scope="module")
def two():
    states = [(power, width) for power in (1, 2, 3) for width in (0.5, 0.8)]
    return frames({state: drawing(*state) for state in states}, ("power", "width <of it>"), start=(3, 0.5))


def test_the_start_alone_is_shown_and_the_control_waits_for_the_script(one):
    page = Read(one._repr_html_())
    assert ["hidden" in frame for frame in page.of_class("frame")] == [True, False, True]
    assert "hidden" in page.of_class("frames-controls")[0]
    (slider,) = (attributes for name, attributes in page.found if name == "input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "1")
    assert slider["data-names"] == "1|2|3" and slider["aria-valuetext"] == "2"
    assert repr(one) == "x to the power of 2, 1.0 wide"


def test_frames_of_two_controls_stand_in_the_order_in_which_the_script_counts(two):
    page = Read(two._repr_html_())
    descriptions = [attributes["aria-label"] for attributes in page.of_class("picture")]
    expected = [f"x to the power of {power}, {width} wide" for power in (1, 2, 3) for width in (0.5, 0.8)]
    assert descriptions == expected
    assert [place for place, frame in enumerate(page.of_class("frame")) if "hidden" not in frame] == [4]
    assert "width &lt;of it&gt;" in two._repr_html_()


def test_every_id_is_there_once_on_a_page_with_both_figures_and_every_reference_is_met(one, two):
    text = one._repr_html_() + two._repr_html_()
    ids = re.findall(r' id="([^"]+)"', text)
    asked_for = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert len(ids) == len(set(ids))
    assert asked_for <= set(ids)


def test_what_frames_share_is_there_once(one):
    together, alone = len(one._repr_html_()), sum(len(picture._repr_html_()) for picture in one.pictures)
    assert together < 0.75 * alone
    shared, *drawn = one._repr_html_().split('<div class="frame"')
    assert shared.count("<path") > 1 and all("<path id=" not in frame for frame in drawn)


def test_shortened_drawings_are_the_drawings_to_a_tenth_of_a_point(one):
    def corners(text):
        return [
            [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]
            for path in re.findall(r'<path d="([^"]*)"', text)
        ]

    whole = corners(one.pictures[1]._repr_html_())
    short = corners(one._repr_html_().split('<div class="frame"')[2])
    assert len(whole) == len(short) > 3
    for exact, rounded in zip(whole, short, strict=True):
        assert rounded == pytest.approx(exact, abs=0.0501)


@pytest.mark.parametrize(
    ("pictures", "label", "start", "message"),
    [
        ({1: drawing(1)}, "power", None, "at least two"),
        ({1: drawing(1), 2: drawing(2)}, "power", 3, "start is"),
        ({1: drawing(1), 2: drawing(2, size=(3.0, 2.5))}, "power", None, "different sizes"),
        ({1: drawing(1), 2: drawing(1)}, "power", None, "same alt"),
        ({(1, 1.0): drawing(1), (2, 0.5): drawing(2, 0.5)}, ("power", "width"), None, "no picture for"),
        ({(1, 1.0): drawing(1), (2,): drawing(2)}, ("power", "width"), None, "of as many values"),
    ],
)
def test_refusals_name_what_was_wrong(pictures, label, start, message):
    with pytest.raises(ValueError, match=message):
        frames(pictures, label, start)
