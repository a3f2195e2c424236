"""What stands between a page and somebody who cannot see it or has no mouse, as axe finds it."""

import pytest
from browsing import WIDTHS, Visit
from building import PAGES, ROOT

AXE = ROOT / "node_modules/axe-core/axe.min.js"
# Left out: names of the theme's own buttons, and docutils' list of citations, whose roles axe does not accept.
RUN = """async () => (await axe.run(document, {rules: {
        'label-content-name-mismatch': {enabled: false}, 'aria-required-children': {enabled: false} }})).violations
    .filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => each.id + ': ' + each.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(' | '))"""


@pytest.mark.parametrize(("screen", "theme"), [("desktop", "light"), ("phone", "dark")])
@pytest.mark.parametrize("page_name", PAGES)
def test_axe_finds_nothing_serious(browser, real_book, page_name, screen, theme):
    visit = Visit(browser, real_book.html / f"{page_name}.html", WIDTHS[screen], theme)
    if visit.page.locator("mjx-container[display]").count():
        visit.page.wait_for_selector("mjx-assistive-mml [tabindex]", state="attached")
    visit.page.add_script_tag(path=AXE)
    assert visit.page.evaluate(RUN) == []
    visit.context.close()
