"""The table of symbols: every formula is covered by it, every fault in it stops the build, and it costs a page little."""

import gzip
import re
import sys

import pytest
from building import PAGES, ROOT, source

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_symbols
from docutils import nodes
from ewc_tex import Table

TABLE = Table(ROOT / "book/symbols.yml")
DEFAULTS = {"name": "a thing", "reading": "it", "meaning": "It is a thing.", "shape": "one"}


def prose(page):
    """A page's text without its code."""
    code = r"^(`{3,})(\{code-cell\}|\{source\}|python|bash).*?^\1"
    return re.sub(code, "", source(page), flags=re.MULTILINE | re.DOTALL)


def displayed(page):
    """The displayed equations of a page's text."""
    return re.findall(r"\$\$(.+?)\$\$", prose(page), flags=re.DOTALL)


def test_every_symbol_of_every_displayed_equation_is_in_the_table():
    count = 0
    for page in PAGES:
        for tex in displayed(page):
            formula = TABLE.read(tex, page.rpartition("/")[2])
            assert formula.unknown == [], (page, tex)
            count += len(formula.used)
    assert count > 1000


def test_no_symbol_is_used_before_the_page_that_introduces_it():
    """What the appendix explains may be used anywhere: a reader looks it up there."""
    order = [page.rpartition("/")[2] for page in PAGES]
    appendix = [page.rpartition("/")[2] for page in PAGES if "/appendix/" in page]
    early = []
    for page in PAGES:
        text = prose(page)
        spoken = re.findall(r"\{sym\}`(?:[^`<]*<)?([a-z-]+)>?`", text)
        formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.sub(r"`[^`\n]*`", "", text), flags=re.DOTALL)
        name = page.rpartition("/")[2]
        for symbol in {*spoken, *(used for tex in formulas for used in TABLE.read("".join(tex), name).used)}:
            introduced = TABLE.symbols[symbol].introduced
            if introduced not in appendix and order.index(name) < order.index(introduced):
                early.append((name, symbol, introduced))
    assert early == []


def test_a_macro_and_the_bare_letter_are_the_same():
    bare = TABLE.read(r"\frac{\lambda}{2}\sum_i F_i(\theta_i-\theta^*_i)^2", "deriving-ewc")
    named = TABLE.read(r"\frac{\strength}{2}\sum_i \fisher_i(\weights_i-\anchor_i)^2", "deriving-ewc")
    assert set(bare.used) == set(named.used)
    assert r"\class{sym sym-fisher}{F}_" in named.marked
    assert bare.plain.replace(" ", "") == named.plain.replace(" ", "")


def test_a_letter_means_what_its_page_says():
    assert TABLE.read(r"\lambda", "deriving-ewc").used == ["strength"]
    assert TABLE.read(r"\alpha'", "yesterdays-posterior").used == ["new-precision"]


def test_a_square_of_nabla_is_the_hessian():
    assert TABLE.read(r"\nabla^2 g", "laplace-approximation").used == ["second-derivatives", "log-posterior"]
    assert TABLE.read(r"\nabla g", "laplace-approximation").used == ["nabla", "log-posterior"]


EVERYTHING = set(TABLE.symbols)


def meant(name, *places):
    """The symbol that a name in code means at the innermost of these places."""
    found = TABLE.names_at(places, EVERYTHING)[0].get(name)
    return found and found.id


def test_a_name_in_code_means_what_it_means_where_it_stands():
    family, deriving = "the-family", "deriving-ewc"
    assert meant("a", deriving, f"{deriving}#the-third-task") == "measurement-one"
    assert meant("a", deriving, f"{deriving}#in-code") is None
    assert meant("old", family) is None
    assert meant("old", family, f"{family}#ex-teacher-temperature") == "old-logits"
    assert meant("path", family) is None
    assert meant("path", "ewc", "ewc.importance", "ewc.importance._Walk", "ewc.importance._Walk.settle") == "earned"
    assert meant("wanted", family) is None
    assert meant("hessian", "laplace-approximation") == "second-derivatives"
    assert meant("importance", "mnist-to-fashion-mnist") == "fisher"
    assert meant("importance", "ewc.importance.SynapticIntelligence.consolidate") == "importance"
    assert meant("strength") == "strength"


def test_a_symbol_that_is_not_on_the_page_lights_nothing():
    assert TABLE.names_at(["the-family"], {"strength"})[0].keys() == {"strength"}


def test_a_method_and_an_attribute_are_no_variables():
    """`x.mean()`, `x.mean` and `mean` are three things; what is self's own is a variable."""
    names = {ewc_symbols.written_name(*found.groups()) for found in ewc_symbols.NAME.finditer("self.mean + x.mean(0) - y.precision")}
    assert names == {"mean", "x", ".mean()", "y", ".precision"}
    listing = nodes.literal_block("", "", symbols={"mean": "guess", ".precision": "precision"})
    span = '<span class="{}">{}</span>'.format
    dot, mean, precision = span("o", "."), span("n", "mean"), span("n", "precision")
    made = span("bp", "self") + dot + mean + " " + span("n", "x") + dot + mean + span("p", "()") + " " + span("n", "y") + dot + precision
    marked = ewc_symbols.marking(lambda *_, location: made)("", "python", location=listing)
    assert re.findall(r'sym-([a-z-]+)">(\w+)', marked) == [("guess", "mean"), ("precision", "precision")]
    assert re.sub(r" sym sym-[a-z-]+", "", marked) == made


def listing(*around):
    """A listing within nodes, the outermost first."""
    block = nodes.literal_block("", "")
    outer = nodes.document(None, None)
    for node in (*around, block):
        outer += node
        outer = node
    return block


def test_places_of_cells_of_functions_and_of_tests():
    section = nodes.section(ids=["in-code"])
    assert ewc_symbols.places(listing(section), "page") == ["page", "page#in-code"]
    function = nodes.container("", place="ewc.fisher.diagonal_fisher")
    inside = ["ewc", "ewc.fisher", "ewc.fisher.diagonal_fisher"]
    assert ewc_symbols.places(listing(nodes.section(ids=["in-code"]), function), "page") == inside
    test = nodes.container("", place="")
    assert ewc_symbols.places(listing(nodes.container("", place="ewc.fisher.diagonal_fisher"), test), "page") == []


def test_an_argument_of_a_fraction_keeps_its_braces():
    assert r"\frac1{\class{sym sym-number-of-examples}{N}}" in TABLE.read(r"\frac1N", "deriving-ewc").marked


@pytest.mark.parametrize("entry", [{"tex": "F"}, {"tex": "F", **DEFAULTS, "introduced": "x", "colour": "red"}])
def test_an_entry_with_missing_or_unknown_fields_is_refused(tmp_path, entry):
    file = tmp_path / "symbols.yml"
    file.write_text(f"fault: {entry}\n")
    with pytest.raises(ValueError, match="fault has unknown fields"):
        Table(file)


def test_faults_of_the_table_stop_the_build_and_are_named(failing):
    assert failing.failed.status != 0
    for words in (
        r"the symbol \zeta of a formula is not in book/symbols.yml",
        "no entry 'no-such-symbol'",
        "no page uses nowhere-used",
        "not-in-code is called 'no_such_name', and code/ewc has no such name",
        "not-on-page is called 'no_such_word' in catastrophic-forgetting, and no listing there",
        "accuracy-matrix and same-letter both claim 'R'",
        "no-such-page names the page 'no-such-chapter'",
        "defines no test 'test_gone'",
        "the equation eq-bound and the code bound to it have no symbol in common",
    ):
        assert words in failing.failed.said, words
    assert failing.mended.status == 0


def test_our_scripts_and_styles_are_small():
    """What a server sends, compressed, for all of them; and what the symbols alone cost, as they lie on disk."""
    files = [file.read_bytes() for file in (ROOT / "book/assets").iterdir() if file.suffix in (".js", ".css")]
    assert sum(len(gzip.compress(file)) for file in files) <= 18 * 1024
    style = (ROOT / "book/assets/book.css").read_text("utf8").partition("---- Symbols")[2].partition("/* ----")[0]
    assert len(style) > 500
    assert len((ROOT / "book/assets/symbols.js").read_bytes()) + len(style.encode()) <= 15 * 1024
