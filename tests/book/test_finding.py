"""What leads a reader through the book: references, glossary, index, the list of functions, addresses of pages that moved."""

import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from building import PAGES, ROOT, soup_of

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_previews
import ewc_site
import ewc_terms
from docutils import nodes
from ewc_tex import Table
from pybtex.database import parse_file
from sphinx.errors import ConfigError, ExtensionError

REFERENCES, GLOSSARY, INDEX, API = (f"book/appendix/{name}" for name in ("references", "glossary", "word-index", "api"))
TERMS = yaml.safe_load((ROOT / "book/terms.yml").read_text("utf8"))
SYMBOLS = Table(ROOT / "book/symbols.yml").symbols.values()
WITHOUT_LINK = {"rao1945"}      # of its time; no address of the original that lasts is known to us


def entries(book):
    return {entry["id"].removeprefix("ref-"): entry for entry in soup_of(book, REFERENCES).select(".citation")}


def test_every_reference_has_a_link_that_is_well_formed(real_book):
    found = entries(real_book)
    assert len(found) > 50
    assert {key for key, entry in found.items() if not entry.select("a.external")} == WITHOUT_LINK
    addresses = [link["href"] for entry in found.values() for link in entry.select("a.external")]
    known = r"https://(doi\.org/10\.\d{4,5}/\S+|arxiv\.org/abs/\d{4}\.\d{4,5}|(?!doi\.|arxiv\.)[\w./-]+)"
    assert [address for address in addresses if not re.fullmatch(known, address)] == []


def test_no_number_of_arxiv_stands_in_words_where_it_would_be_no_link():
    for key, entry in parse_file(ROOT / "book/references.bib").entries.items():
        assert not [value for name, value in entry.fields.items() if name != "eprint" and re.search(r"arXiv\W*\d", value)], key


def test_every_citation_leads_to_its_own_entry_and_the_entry_back_to_the_page(real_book):
    found, cited = entries(real_book), {}
    for page in PAGES:
        for link in soup_of(real_book, page).select("article .bibtex-citation a, article a[href*='references.html#']"):
            key = link["href"].rpartition("#ref-")[2]
            assert key in found, (page, link["href"])
            cited.setdefault(key, set()).add(page.rpartition("/")[2])
    assert cited.keys() == found.keys()
    for key, pages in cited.items():
        back = {link["href"].rpartition("/")[2].removesuffix(".html") for link in found[key].select(".cited-in a")}
        assert back - {"references"} >= {page for page in pages if page in back} != set(), key


def test_every_term_is_in_the_glossary_with_its_meaning_and_its_section(real_book):
    soup = soup_of(real_book, GLOSSARY)
    for entry in TERMS:
        if "term" in entry:
            term = soup.find(id=ewc_terms.anchor(entry["term"]))
            said = term.find_next_sibling("dd")
            assert entry["meaning"].replace("'", "’") in said.get_text().replace("'", "’"), entry["term"]
            page, _, anchor = entry["at"].partition("#")
            assert said.select_one(".explained-in a")["href"].endswith(f"{page}.html" + (f"#{anchor}" if anchor else ""))


def test_the_index_has_every_name_and_every_symbol(real_book):
    lines = {item.get_text(" ", strip=True).replace("’", "'").casefold() for item in soup_of(real_book, INDEX).select("ul.word-index li")}
    names = [name for entry in TERMS for name in (*filter(None, [entry.get("term")]), *entry["names"])]
    names = {name.casefold() for name in names} | {symbol.name.casefold() for symbol in SYMBOLS}
    assert len(lines) >= len(names)
    assert [name for name in names if not any(line.startswith(name) for line in lines)] == []


def test_the_index_is_in_order_without_articles_and_leads_to_the_notation(real_book):
    soup = soup_of(real_book, INDEX)
    for rubric in soup.select(".rubric"):
        first = [ewc_terms.sorted_as(item.get_text().casefold())[0].upper() for item in rubric.find_next("ul").select("li")]
        assert set(first) == {rubric.get_text()[0]} or rubric.get_text().startswith("Signs")
    notation = {link["href"].partition("#symbol-")[2] for link in soup.select("ul.word-index a[href*='notation.html#']")}
    assert notation == {symbol.id for symbol in SYMBOLS}


def test_a_term_is_marked_once_on_a_page_and_never_where_it_is_explained(real_book):
    explained, marked = {ewc_terms.anchor(entry["term"]): entry["at"].partition("#")[0] for entry in TERMS if "term" in entry}, 0
    for page in PAGES:
        links = [link["href"].rpartition("#")[2] for link in soup_of(real_book, page).select("article a.term")]
        assert len(links) == len(set(links)), page
        assert [link for link in links if explained[link] == page.rpartition("/")[2]] == [], page
        marked += len(links)
    assert marked > 30


@pytest.mark.parametrize(("wrong", "words"), [
    ("- term: a thing\n  names: []\n  at: x\n", "no meaning"),
    ("- names: [a thing]\n", "lacks"),
    ("- names: [a thing, a thing]\n  at: x\n", "twice"),
    ("- term: a thing\n  meaning: It is. Two sentences.\n  names: []\n  at: x\n", "one sentence"),
    ("- names: [a thing]\n  at: x\n  colour: red\n", "colour"),
])  # fmt: skip
def test_a_wrong_entry_of_terms_stops_the_build(tmp_path, wrong, words):
    (tmp_path / "terms.yml").write_text(wrong)
    with pytest.raises(ExtensionError, match=words):
        ewc_terms.read(tmp_path / "terms.yml")


def test_a_term_that_leads_nowhere_stops_the_build():
    toc = nodes.bullet_list("", nodes.reference("", "A section", anchorname="#there"))
    app = SimpleNamespace(config=SimpleNamespace(external_site_map=["book/page"]), env=SimpleNamespace(tocs={"book/page": toc}))
    assert ewc_terms.place(app, {"names": ["x"], "at": "page#there"}) == ("book/page", "there", "A section")
    for at in ("page#gone", "gone", "page"):
        with pytest.raises(ExtensionError, match="'x' is at"):
            ewc_terms.place(app, {"names": ["x"], "at": at})


def test_the_list_of_functions_leads_to_each_with_a_sentence(real_book):
    soup = soup_of(real_book, API)
    described = [box["id"] for box in soup.select(".api[id]") if not box.find_parent(class_="api")]
    listed = {link["href"].removeprefix("#"): link.parent.get_text() for link in soup.select(".api-list li a")}
    assert list(listed) == described
    assert [name for name, words in listed.items() if not re.search(r"\s\S.*[.!?)]$", words)] == []
    files = [link["href"] for link in soup.select("section > .from-file a")]
    assert len(files) == len(soup.select(".api-list dt"))
    assert [file for file in files if not (real_book.html / API).parent.joinpath(file).is_file()] == []


def test_what_links_point_at_on_other_pages_lies_at_the_end_of_the_page(real_book):
    count = 0
    for page in PAGES:
        text = (real_book.html / f"{page}.html").read_text("utf8")
        brought = re.findall(r'<template class="preview" data-for="([^"]+)">(.*?)</template>', text, re.DOTALL)
        assert {place for place, _ in brought} == {f"{address}#{anchor}" for address, anchor in ewc_previews.LINK.findall(text)}, page
        for place, shown in brought:
            assert len(re.sub(r"<[^>]*>", "", shown).strip()) > 3, place
            assert not re.search(r'\sid="|href="(?!https?:)', shown), place
        count += len(brought)
    assert count > 100


def test_a_page_that_moved_leads_on(real_book, tmp_path):
    text = (real_book.html / "genindex.html").read_text("utf8")
    assert 'http-equiv="refresh" content="0; url=book/appendix/word-index.html"' in text
    app = SimpleNamespace(outdir=tmp_path, env=SimpleNamespace(titles={"book/b": nodes.title("", "B")}),
                          builder=SimpleNamespace(get_target_uri=lambda page: f"{page}.html"))  # fmt: skip
    ewc_site.moved(app, "book/a", "book/b")
    assert 'url=../book/b.html"' in (tmp_path / "book/a.html").read_text()
    for old, new in (("book/b", "book/b"), ("book/a", "book/c")):
        with pytest.raises(ConfigError, match="book_moved"):
            ewc_site.moved(app, old, new)


def test_the_picture_for_those_who_share_a_link_is_as_large_as_they_ask(tmp_path, real_book):
    ewc_site.draw_card(tmp_path / "card.png", "Weights that Remember", "What it is about.")
    head = (tmp_path / "card.png").read_bytes()[:24]
    assert head[:4] == b"\x89PNG"
    assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (1200, 630)
    assert "og:image" not in (real_book.html / f"{PAGES[0]}.html").read_text("utf8"), "it would need an address"
