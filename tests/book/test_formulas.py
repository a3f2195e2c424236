"""How formulas become MathML: letters, spaces, pieces; what is wrong is named; what was set is kept."""

import json
import re
import sys

import pytest
from building import ROOT

sys.path.insert(0, str(ROOT / "book/extensions"))

from ewc_formulas import FONT, cut_font, letters_of
from ewc_mathml import Typesetter, characters
from fontTools.ttLib import TTFont

MATHJAX = ROOT / "node_modules/mathjax/es5"


@pytest.fixture(scope="module")
def typesetter(tmp_path_factory):
    typesetter = Typesetter(MATHJAX, tmp_path_factory.mktemp("kept") / "formulas.json")
    yield typesetter
    typesetter.close()


def parts(made):
    """The text of each piece that is never broken, and at which depth it stands."""
    depth, found = 0, []
    for tag, formula in re.findall(r'(<span class="piece">|</span>)|<math[^>]*>(.*?)</math>', made):
        depth += {"": 0, "</span>": -1}.get(tag, 1)
        if formula:
            found.append((depth, re.sub(r"<[^>]*>", "", formula)))
    return found


@pytest.mark.parametrize(("tex", "letter"), [(r"\mathbb{R}", "ℝ"), (r"\mathcal{N}", "𝒩"), (r"\mathcal{L}", "ℒ"), (r"\mathbf{x}", "𝐱"),
                                              (r"\mathrm{T}", "T"), (r"\theta", "θ")])  # fmt: skip
def test_a_letter_of_another_alphabet_is_a_character_of_its_own(typesetter, tex, letter):
    made = typesetter.inline(tex)
    assert re.sub(r"<[^>]*>", "", made) == letter
    assert ("mathvariant" in made) == (letter == "T"), "the core of MathML knows only upright letters"


def test_a_symbol_keeps_its_class(typesetter):
    made = typesetter.inline(r"\class{sym sym-fisher}{F}_{\class{sym sym-weight-index}{i}}")
    assert made == '<math><msub><mi class="sym sym-fisher">F</mi><mi class="sym sym-weight-index">i</mi></msub></math>'


def test_a_minus_stands_before_one_thing_or_between_two(typesetter):
    forms = re.findall(r'<mo(?: form="(\w+)")?>−', typesetter.inline(r"-a = -b - c(-d)"))
    assert forms == ["", "prefix", "infix", "prefix"], "the first of a row is before one thing of itself"


@pytest.mark.parametrize(("tex", "spaced"), [(r"\log p", True), (r"\log(p)", False), (r"a \log p", True), (r"\class{sym}{\log} p", True),
                                              (r"\log^2 p", True), (r"-\log p", True), (r"\theta p", False)])  # fmt: skip
def test_the_name_of_a_function_is_set_apart_from_what_is_not_in_brackets(typesetter, tex, spaced):
    made = typesetter.inline(tex)
    assert ("mspace" in made) == spaced
    assert "<mspace" not in made.partition("<msup>")[2].partition("</msup>")[0], "nothing comes between a name and its script"


def test_a_formula_is_broken_at_relations_before_sums_before_products(typesetter):
    found = parts(typesetter.displayed(r"L = a + b(c) d = e"))
    assert found == [(1, "L"), (2, "=a"), (3, "+b(c)"), (3, "d"), (1, "=e")]
    assert parts(typesetter.displayed("F(x, y)")) == [(1, "F(x,"), (1, "y)")]
    assert parts(typesetter.displayed("x")) == [(0, "x")]


def test_pieces_together_are_the_formula(typesetter):
    tex = r"\log p(\theta\mid D) = -\frac12\sum_i F_i(\theta_i-\theta_i^*)^2 + \bigl[ a, b \bigr], \qquad \Rightarrow c \approx 1."
    whole, broken = (re.sub(r"<[^>]*>|\s", "", made) for made in (typesetter.inline(tex), typesetter.displayed(tex)))
    assert len(parts(typesetter.displayed(tex))) > 5
    assert whole == broken


def test_lines_that_are_aligned_become_rows_of_cells(typesetter):
    made = typesetter.displayed(r"\begin{aligned} a &= b \\ &= c + d \end{aligned}")
    assert made.count('class="equal"') == 2
    assert made.count('class="side"') == 4
    assert "mtable" not in made
    assert 'class="aligned"' not in typesetter.displayed(r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}")


@pytest.mark.parametrize("tex", [r"\frac{1", r"\nosuchcommand", r"x_a_b", r"\mathfrak{g}"])
def test_what_cannot_be_set_is_said(typesetter, tex):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        typesetter.inline(tex)


def test_what_was_set_is_kept_and_nothing_is_asked_again(tmp_path):
    file = tmp_path / "formulas.json"
    first = Typesetter(MATHJAX, file)
    made = first.inline("a+b")
    first.close()
    second = Typesetter(MATHJAX, file)
    second.ask = None
    assert second.inline("a+b") == made
    second.close()
    Typesetter(MATHJAX, file).close()
    assert len(json.loads(file.read_text())) == 1, "what set nothing, as a build in which nothing changed, forgets nothing"
    file.write_text(file.read_text()[:-9])
    assert Typesetter(MATHJAX, file).known == {}, "a file that was cut off is made anew"


def test_the_font_keeps_what_formulas_need_and_little_else(tmp_path):
    used = characters("<p>z</p><math><mi>θ</mi><mo>(</mo><mi>log</mi><mn>1</mn><mo>&lt;</mo></math>")
    assert used == {*"θ𝜃(log1<"}
    assert characters("<math><mi>ϵ</mi></math>") == {*"ϵ𝜖"}, "a letter whose name in italics is another"
    cut_font(ROOT / FONT, used, tmp_path / "font.woff")
    font = TTFont(tmp_path / "font.woff")
    assert {*map(ord, "θ𝜃(log1<")} <= font.getBestCmap().keys()
    assert ord("z") not in font.getBestCmap()
    brackets = font["MATH"].table.MathVariants.VertGlyphConstruction
    assert max(len(each.MathGlyphVariantRecord) for each in brackets) > 3, "larger brackets are in it"
    assert (tmp_path / "font.woff").stat().st_size < 40_000


def test_a_page_says_in_words_what_stands_in_no_formula():
    said = letters_of("<p>é &amp; ħ</p><script>ж</script><math><mi>θ</mi></math><pre>½</pre>")
    assert {*"é&ħ½a~"} <= said
    assert not {*"жθ\n"} & said
