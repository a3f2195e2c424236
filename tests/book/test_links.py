"""Addresses that run something, text that ends a script, and a folder whose name is a pattern."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from building import ROOT
from docutils import nodes

sys.path.insert(0, str(ROOT / "book/extensions"))

import ewc_links
import ewc_symbols


@pytest.mark.parametrize("address", ["javascript:alert(1)", "JavaScript:alert(1)", " java\nscript:alert(1)", "\x01javascript:x", "data:text/html,x", "file:///etc"])
def test_only_harmless_addresses_become_links(monkeypatch, address):
    harmless = ["https://example.org/a:b", "http://example.org", "mailto:a@example.org", "../page.html#x:y", "#x", ""]
    said = []
    monkeypatch.setattr(ewc_links, "logger", SimpleNamespace(warning=lambda text, *values, location: said.append(text % values)))
    page = nodes.paragraph("", "", *(nodes.reference("", "x", refuri=uri) for uri in (*harmless, address)), nodes.reference("", "y", refid="z"))
    ewc_links.check(None, page, "page")
    assert len(said) == 1
    assert repr(address) in said[0]


def test_nothing_in_a_record_or_symbol_ends_or_begins_a_script(monkeypatch):
    harm = "<!--<script></script>"
    symbol = SimpleNamespace(id="x", name=harm, reading="x", meaning=harm, shape="", code=[], code_on={}, value="", introduced="page", explained="")
    row = {"name": harm, "seed": 0, "device": harm, "finished": "2026-01-01", "configuration": {"a": harm}}
    monkeypatch.setattr(ewc_symbols, "used", lambda env: {"page": ["x"]})
    monkeypatch.setattr(ewc_symbols, "published_on", lambda env, page: {"n": {"text": "1", "runs": "key"}})
    monkeypatch.setattr(ewc_symbols, "chapters", lambda env: ["page"])
    monkeypatch.setattr(ewc_symbols, "collected", lambda env: {"page": {"runs": {"key": row}}})
    app = SimpleNamespace(
        env=SimpleNamespace(titles={}, all_docs={}),
        config=SimpleNamespace(external_site_map=["page"]),
        ewc_table=SimpleNamespace(symbols={"x": symbol}),
    )
    context = {"body": ""}
    ewc_symbols.describe(app, "page", "page.html", context, object())
    data = context["body"].partition(">")[2].removesuffix("</script>")
    assert "<" not in data
    assert json.loads(data)["symbols"]["x"]["meaning"] == harm
    assert json.loads(data)["runs"] == {"key": [0, 0]}
    assert json.loads(data)["settings"] == [{"name": harm, "configuration": {"a": harm}, "device": harm, "finished": "2026-01-01"}]


def test_a_folder_may_have_brackets_in_its_name(tmp_path):
    """Two pages and a file that is no page, built as `make book` builds; neither has cells, so no kernel begins."""
    folder = tmp_path / "a [x]"
    (folder / "book").mkdir(parents=True)
    (folder / "_config.yml").write_text(
        "title: Two pages\nonly_build_toc_files: true\nexecute: {execute_notebooks: cache}\n"
        f"sphinx: {{local_extensions: {{ewc_execution: {json.dumps(str(ROOT / 'book/extensions'))}}}}}\n"
    )
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/one\nchapters: [{file: book/two}]\n")
    for name in ("book/one", "book/two", "CHANGELOG"):
        (folder / f"{name}.md").write_text(f"# This is {name}\n")
    (folder / "requirements.txt").touch()
    built = subprocess.run(
        [sys.executable, "-P", str(ROOT / "book/build.py"), "."],
        cwd=folder, env=os.environ | {"EWC_DATA": "embedded"}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    assert "chapter 2 of 2" in built.stderr
    pages = {path.name for path in (folder / "_build/html/book").glob("*.html")}
    assert pages == {"one.html", "two.html"}
    assert not (folder / "_build/html/CHANGELOG.html").exists()
