"""What all figures share."""

import base64
import io
import re

import matplotlib.image
import pytest
import torch
from ewc.workshop.drawing import apart, draw, ink


def test_labels_are_moved_apart_in_their_order_and_no_further_than_needed():
    found = apart([0.9, 0.5, 0.51], 0.1)
    assert found[0] == 0.9
    assert found[2] - found[1] == pytest.approx(0.1)
    assert found[1] + found[2] == pytest.approx(1.01)


def test_many_labels_at_one_height_are_spread_around_it():
    found = apart([0.5] * 5, 0.1)
    assert sum(found) / 5 == pytest.approx(0.5)
    assert sorted(found) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7], abs=1e-3)


def test_a_picture_that_is_saved_has_its_panels_side_by_side_and_in_one_unit(tmp_path):
    picture = draw("two lines", lambda axes: axes.plot([0, 1]), lambda axes: axes.plot([1, 0]), size=(3, 2))
    picture.save(tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text("utf8")
    whole, *panels = re.findall(r"<svg [^>]*>", text)
    width, height = (float(number) for number in re.search(r'viewBox="0 0 (\S+) (\S+)"', whole).groups())
    places = [{name: float(value) for name, value in re.findall(r' (x|width|height)="([\d.]+)"', panel)} for panel in panels]
    assert [place["x"] for place in places] == [0, places[0]["width"]]
    assert sum(place["width"] for place in places) == pytest.approx(width)
    assert {place["height"] for place in places} == {height}


def test_paper_is_see_through_and_ink_is_dark():
    """A white ground would be a white square on a dark page."""
    (panel,) = draw("half of it is ink", lambda axes: ink(axes, torch.tensor([[0.0, 1.0]]))).panels
    data = re.search(r'href="data:image/png;base64,([^"]+)"', panel)[1]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
    opacity = pixels[..., 3]
    assert opacity.min() == 0
    assert opacity.max() == 1
    assert pixels[opacity > 0][:, :3].max() == 0
