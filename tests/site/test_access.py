"""What stands between a page and somebody who cannot see it or has no mouse, as axe finds it."""

import pytest
from browsing import OPENED_IN
from building import PAGES


@pytest.mark.parametrize(("screen", "theme"), OPENED_IN.items())
@pytest.mark.parametrize("page_name", PAGES)
def test_axe_finds_nothing_serious(windows, page_name, screen, theme):
    assert windows.look(page_name, screen, theme).violations == []
