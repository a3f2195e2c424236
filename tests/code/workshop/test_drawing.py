"""What all figures share."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import pytest
import torch
from ewc.workshop import faces
from ewc.workshop.drawing import apart, draw, ink, outlined, percent
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure


def test_labels_are_moved_apart_in_their_order_and_no_further_than_needed():
    found = apart([0.9, 0.5, 0.51], 0.1)
    assert found[0] == 0.9
    assert found[2] - found[1] == pytest.approx(0.1)
    assert found[1] + found[2] == pytest.approx(1.01)


def test_many_labels_at_one_height_are_spread_around_it():
    found = apart([0.5] * 5, 0.1)
    assert sum(found) / 5 == pytest.approx(0.5)
    assert sorted(found) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7], abs=1e-3)


def test_outlined_words_need_no_face_and_only_while_they_are_asked_for():
    with outlined():
        (shapes,) = draw("one", lambda axes: axes.set_title("Words")).panels
    (written,) = draw("one", lambda axes: axes.set_title("Words")).panels
    assert "<text" not in shapes and "<use" in shapes
    assert ">Words</text>" in written


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


def words_of(axes):
    axes.set_title("two words & more")
    axes.set_xlabel("rise $c_i$ of $\\theta$")
    axes.text(0, 0, "faint", alpha=0.5, weight="bold")


@pytest.fixture(params=["with the fonts of the book", "without them"])
def fonts(request, monkeypatch, tmp_path):
    """A copy of the package alone has no fonts of the book, and draws with matplotlib's."""
    if request.param == "without them":
        monkeypatch.setattr(faces, "FOLDER", tmp_path)
        monkeypatch.setattr(faces, "style", faces.style.__wrapped__)
        assert faces.style() == {"mathtext.fontset": "stix"}
    elif not faces.FOLDER.is_dir():
        pytest.skip("the fonts are not installed here: make vendor")


@pytest.mark.usefixtures("fonts")
def test_words_stay_words_and_a_formula_reads_in_its_order():
    (panel,) = draw("words", words_of).panels
    assert ">two words &amp; more</text>" in panel
    assert 'font-weight="700"' in panel
    assert 'opacity="0.5"' in panel
    said = [re.sub("<[^>]*>", "", text).replace("\xa0", " ") for text in re.findall(r"<text.*?</text>", panel, re.DOTALL)]
    assert "rise ci of θ" in said
    letters = [word for how, word in re.findall(r"<tspan([^>]*)>([^<]*)<", panel) if "formula-letter" in how and "font-style" in how]
    assert letters == ["c", "i", "θ"]
    assert not re.search(r"<text[^>]*style=", panel)


def test_bold_words_have_a_face_and_no_warning_reaches_the_page(caplog):
    if not faces.FOLDER.is_dir():
        pytest.skip("the fonts are not installed here: make vendor")
    faces.style()
    matplotlib.font_manager.fontManager._findfont_cached.cache_clear()
    draw("words", words_of)
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize(("panels", "size", "row", "shown"), [(1, (5.4, 3.3), False, 342), (1, (4.4, 2.9), False, 342), (2, (3.5, 2.9), False, 322),
                                                               (3, (2.4, 2.6), True, 200)])  # fmt: skip
def test_letters_are_as_large_as_the_narrowest_place_of_a_panel_needs(panels, size, row, shown):
    picture = draw("words", *[words_of] * panels, size=size, row=row)
    for panel in picture.panels:
        width = float(re.search(r'viewBox="0 0 (\S+) ', panel)[1])
        least = float(re.search(r'<svg [^>]*font-size="([\d.]+)"', panel)[1])
        own = [float(size) for size in re.findall(r'<(?:text|tspan)[^>]*font-size="([\d.]+)"', panel)]
        assert 12 <= least * shown / width < 13
        assert own == [pytest.approx(0.7 * least, rel=0.01)], "the index alone is smaller"
    kind = {1: "picture one", 2: "picture", 3: "picture row"}[panels]
    assert f'class="{kind}"' in picture._repr_html_()


def test_a_face_is_put_together_once_and_again_when_it_is_made_of_something_else(monkeypatch, tmp_path):
    monkeypatch.setattr(faces, "FOLDER", tmp_path / "fonts")
    monkeypatch.setattr(matplotlib, "get_cachedir", lambda: str(tmp_path / "kept"))
    (tmp_path / "fonts/source-sans-3/files").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    sources = [tmp_path / f"fonts/source-sans-3/files/source-sans-3-{script}-400-normal.woff" for script in ("latin", "greek")]
    for source in sources:
        source.write_bytes(b"letters")
    made = []
    whole = SimpleNamespace(save=lambda file: Path(file).write_bytes(b"a face"))
    monkeypatch.setattr(faces, "_unpacked", lambda packed, file: str(packed))
    monkeypatch.setattr(faces, "Merger", lambda: SimpleNamespace(merge=lambda parts: made.append(parts) or whole))
    file = faces.face(faces.SANS, 400, "normal")
    assert file == faces.face(faces.SANS, 400, "normal")
    assert file.read_bytes() == b"a face"
    assert list(file.parent.iterdir()) == [file], "nothing unfinished is left"
    assert made == [[str(source) for source in sources]]
    sources[1].write_bytes(b"other letters")
    assert faces.face(faces.SANS, 400, "normal") != file
    assert len(made) == 2


def test_a_face_has_latin_and_greek_letters():
    if not faces.FOLDER.is_dir():
        pytest.skip("the fonts are not installed here: make vendor")
    letters = TTFont(faces.face(faces.SERIF, 400, "italic")).getBestCmap()
    assert {*map(ord, "aZ9é−θλ")} <= letters.keys()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.72, 0.86), (0.7, 0.85), (0.945, 0.992), (0.97, 0.985), (0.2, 0.5)])
def test_a_label_of_per_cents_is_not_rounded(low, high):
    axes = Figure(figsize=(3.3, 2.2)).add_subplot()
    axes.set_ylim(low, high)
    percent(axes)
    axes.figure.canvas.draw()
    said = {round(place, 9): text.get_text() for place, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert len(said) >= 3
    assert all(abs(float(text.removesuffix("%")) / 100 - place) < 1e-8 for place, text in said.items())
    assert all("." not in text for text in said.values()) or high - low < 0.05
