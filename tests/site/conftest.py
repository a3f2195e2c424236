"""The browser, its windows, and what each page is looked at with."""

import shutil

import pytest
from browsing import THEMES, WIDTHS, Windows
from playwright.sync_api import sync_playwright

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def browser():
    """The machine's Chromium; else the one that playwright installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def windows(browser, real_book):
    return Windows(browser, real_book.html)


@pytest.fixture(params=THEMES)
def theme(request):
    return request.param


@pytest.fixture(params=list(WIDTHS))
def screen(request):
    return request.param
