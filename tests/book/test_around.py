"""What is around the pages: the foot of each, descriptions, files for machines, addresses that are claimed only where they are set."""

import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from building import PAGES, ROOT, soup_of
from docutils import nodes

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_landing
import ewc_numbers
import ewc_search
import ewc_site
from sphinx.errors import ConfigError, ExtensionError


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_a_description_of_its_own_and_a_foot(real_book, page):
    soup = soup_of(real_book, page)
    words = soup.find("meta", attrs={"name": "description"})["content"]
    assert 30 <= len(words) <= 160
    assert words not in {soup_of(real_book, other).find("meta", attrs={"name": "description"})["content"] for other in PAGES if other != page}
    foot = soup.select_one(".foot").get_text()
    assert "Code: MIT licence" in foot
    assert "built on" in foot
    assert not soup.select("link[rel=canonical]"), "no address is configured"
    assert "Report an error" not in foot


def test_the_files_for_machines_are_there(real_book):
    assert "Allow: /" in (real_book.html / "robots.txt").read_text("utf8")
    assert not (real_book.html / "sitemap.xml").exists(), "it would need an address"
    listed = (real_book.html / "llms.txt").read_text("utf8")
    assert [page for page in PAGES[1:] if f"({page}.html)" not in listed] == []
    assert "search.html" in (real_book.html / "404.html").read_text("utf8")


def test_an_address_is_taken_from_the_environment_and_used_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_ADDRESS", "https://example.org/book/")
    config = SimpleNamespace(book_address="", book_repository="https://example.org/source", html_title="A book", root_doc="index",
                             external_site_map=["index", "a"], book_moved={"old/b": "a"})  # fmt: skip
    ewc_site.settle(None, config)
    assert (config.book_address, config.html_baseurl) == ("https://example.org/book", "https://example.org/book/")
    app = SimpleNamespace(config=config, outdir=tmp_path, ewc_descriptions={"index": "All.", "a": "One."},
                          builder=SimpleNamespace(format="html", get_target_uri=lambda page: f"{page}.html"),
                          env=SimpleNamespace(titles={"a": nodes.title("", "A")}))  # fmt: skip
    ewc_site.finish(app, None)
    assert "<loc>https://example.org/book/a.html</loc>" in (tmp_path / "sitemap.xml").read_text()
    assert "Sitemap: https://example.org/book/sitemap.xml" in (tmp_path / "robots.txt").read_text()
    assert 'href="/book/index.html"' in (tmp_path / "404.html").read_text()
    assert 'url=../a.html"' in (tmp_path / "old/b.html").read_text()
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", ["http://example.org", "javascript:alert(1)", "example.org", 'https://example.org/"><script>'])
def test_an_address_that_is_none_stops_the_build(monkeypatch, wrong):
    monkeypatch.setenv("BOOK_REPOSITORY", wrong)
    with pytest.raises(ConfigError, match="book_repository"):
        ewc_site.settle(None, SimpleNamespace(book_address="", book_repository=""))


def test_a_chapter_without_a_card_stops_the_build():
    numbers = {"book/a/one": {"": (1,)}, "book/a/two": {"": (2,)}}
    app = SimpleNamespace(config=SimpleNamespace(external_site_map=["index", *numbers]), env=SimpleNamespace(toc_secnumbers=numbers))
    with pytest.raises(ExtensionError, match="cards must have a line for each chapter"):
        ewc_landing.cards(app, "index", ["one | fig | What?"])


def test_a_card_has_no_letters_and_no_id_of_the_figure_itself():
    svg = '<svg><g><text x="1" y="2"><tspan x="0">small</tspan></text></g>'
    svg += '<path id="x-m1" d="M 1.2345 2"/><use href="#x-m1"/></svg>'
    figure = nodes.figure("", nodes.raw("", f'<div class="picture one">{svg}</div>', format="html"), names=["fig"])
    small = ewc_landing.thumbnail(nodes.section("", figure), "fig")
    assert "small" not in small
    assert 'd="M 1.2 2"' in small
    assert 'id="card-x-m1"' in small
    assert 'href="#card-x-m1"' in small


@pytest.mark.parametrize(("tex", "letters"), [(r"\lambda", "λ"), (r"\theta^*_i", "θ*i"), ("N", "N"), (r"\frac{a}{b}", "…")])
def test_a_formula_in_a_snippet_is_letters_or_left_out(tex, letters):
    assert ewc_search.in_letters(tex) == letters


def test_what_all_runs_of_an_experiment_share_is_said_once():
    runs = [{"key": str(seed), "configuration": {"steps": 5, "lr": lr}, "seed": seed, "seconds": 1.0, "device": "CPU", "data": "digits",
             "finished": "2026-01-01T00:00:00", "versions": {"torch": "2"}} for seed, lr in enumerate((1, 2, 2))]  # fmt: skip
    above, table = ewc_numbers.experiment(runs, {"0": [], "1": [], "2": []})
    assert above.astext() == "In all of them steps=5 data=digits torch=2."
    assert [row.children[0].astext() for row in table.findall(nodes.row)][1:] == ["lr=1", "lr=2", "as above"]
    (alone,) = ewc_numbers.experiment(runs[:1], {"0": []})
    assert [row.children[0].astext() for row in alone.findall(nodes.row)][1:] == ["steps=5 lr=1 data=digits torch=2"]


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (1259.9, "21 min 0 s"), (61.4, "1 min 1 s")])
def test_no_time_is_said_to_have_sixty_seconds(seconds, said):
    assert ewc_numbers.duration(seconds) == said


def test_the_readme_says_where_the_published_copy_is_where_that_is_set():
    address = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["sphinx"]["config"]["book_address"]
    assert re.findall(r"^Read it at <?(https://[^\s<>]+)", (ROOT / "README.md").read_text("utf8"), re.M) == [address] * bool(address)
