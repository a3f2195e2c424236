"""What the tests of the site share: windows of a width and a theme, and all that is asked of a page, noted on one visit."""

import re
from types import SimpleNamespace

from building import PAGES, ROOT, source

WIDTHS = {"desktop": 1280, "phone": 390}
THEMES = ("light", "dark")
# The theme that a page is opened in at a width. The other theme is then switched to, as a reader does it: to set every formula
# anew for that would take half of the time.
OPENED_IN = {"desktop": "light", "phone": "dark"}
SWITCHED = """theme => { const button = document.querySelector('.theme-switch-button');
    for (let click = 0; click < 3 && document.documentElement.dataset.theme !== theme; click++) button.click() }"""
SCREENSHOTS = ROOT / "_build" / "screenshots"

OURS = re.compile(r"^(file|data|blob):")
# Fonts are there and formulas are drawn: all that waits for MathJax is here and in `settle`.
SETTLED = "async () => { if (window.MathJax) await MathJax.startup.promise; await document.fonts.ready }"
FORMULAS, MISTAKES = "mjx-container", "mjx-merror, [data-mjx-error]"
DISPLAYED = [page for page in PAGES if "$$" in source(page)]

UNLOADED_STYLESHEETS = "[...document.querySelectorAll('link[rel=stylesheet]')].filter(e => !e.sheet).map(e => e.href)"
# What reaches past the right edge with no box of its own around it that scrolls; drawings and hidden helpers aside.
STANDING_OUT = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
    if (e.closest('svg, .tooltip, mjx-assistive-mml, .headerlink, .visually-hidden') || !e.getClientRects().length)
        return false;
    for (let box = e.parentElement; box.closest('.bd-article'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return e.getBoundingClientRect().right > innerWidth + 1;
}).map(e => e.tagName + '.' + e.className)"""

AXE = ROOT / "node_modules/axe-core/axe.min.js"
# Left out: names of the theme's own buttons, and docutils' list of citations, whose roles axe does not accept.
# Only violations are described one by one, for on a long page the rest takes most of the time; and axe asks for no stylesheet
# (`preload`): from the disk it gets none, and would complain. `region` is slow, and only ever moderate.
VIOLATIONS = """async () => (await axe.run(document, {resultTypes: ['violations'], preload: false, rules: {
        'label-content-name-mismatch': {enabled: false}, 'aria-required-children': {enabled: false},
        region: {enabled: false} }})).violations
    .filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => each.id + ': ' + each.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(' | '))"""

SYMBOLS = "mjx-container[display] mjx-math .sym"
# Point at every symbol of every displayed equation in turn; those that do not answer.
SILENT = """() => { const data = JSON.parse(document.getElementById('symbols').textContent).symbols, box = document.getElementById('symbol-box');
    return [...document.querySelectorAll('mjx-container[display] mjx-math .sym')].filter(e => {
        e.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        const id = e.getAttribute('class').match(/sym-([a-z-]+)/)[1];
        const answers = !box.hidden && data[id] && box.textContent.includes(data[id].meaning) && e.classList.contains('lit');
        document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
        return !answers || !box.hidden;
    }).map(e => e.getAttribute('class')) }"""
# Letters and operators in displayed equations that are no symbol of the table.
UNNAMED = """() => [...document.querySelectorAll('mjx-container[display] mjx-math mjx-mi')]
    .filter(e => e.children.length && !e.closest('.sym')).map(e => e.outerHTML)"""
UNREACHABLE = """() => [...document.querySelectorAll('mjx-container[display]')].flatMap(e => {
    const kinds = [...new Set([...e.querySelectorAll('mjx-math .sym')].map(s => s.getAttribute('class').match(/sym-[a-z-]+/)[0]))];
    return kinds.filter(kind => !e.querySelector(`mjx-assistive-mml .${kind}[tabindex="0"][aria-label]`)) })"""


class Visit:
    """One page in a tab of its own, and what went wrong on the way."""

    def __init__(self, context, file):
        self.complaints, self.foreign = [], []
        self.page = context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: OURS.match(request.url) or self.foreign.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"not loaded: {request.url}"))
        self.page.goto(file.as_uri())

    def settle(self):
        """Until formulas are drawn and their symbols can be reached by Tab."""
        self.page.evaluate(SETTLED)
        if self.page.locator("mjx-container[display]").count():
            self.page.wait_for_selector("mjx-assistive-mml [tabindex]", state="attached")
        return self

    def close(self):
        self.page.close()


class Windows:
    """The browser's windows, kept for the session: one of each kind, with a tab for each visit, and no network."""

    def __init__(self, browser, html):
        self.browser, self.html = browser, html
        self.contexts, self.seen = {}, {}

    def window(self, **how):
        kind = repr(sorted(how.items()))
        if kind not in self.contexts:
            self.contexts[kind] = self.browser.new_context(offline=True, **how)
        return self.contexts[kind]

    def themed(self, screen, theme):
        """The window of somebody who chose a theme."""
        size = {"width": WIDTHS[screen], "height": 900}
        known = len(self.contexts)
        context = self.window(viewport=size, color_scheme=theme, reduced_motion="reduce")
        if len(self.contexts) > known:
            context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
        return context

    def file(self, page_name):
        return self.html / f"{page_name}.html"

    def open(self, page_name, screen, theme):
        return Visit(self.themed(screen, theme), self.file(page_name)).settle()

    def look(self, page_name, screen, theme):
        """What there is to say of a page at a width and in a theme; it is opened for the first that asks."""
        asked = page_name, screen
        if asked not in self.seen:
            visit = self.open(*asked, OPENED_IN[screen])
            self.seen[asked] = everything(visit, *asked)
            visit.close()
        return self.seen[asked][theme]


def everything(visit, page_name, screen):
    """By theme, all that the tests ask of a page; the rest of it belongs to the theme that the page was opened in."""
    page, opened_in = visit.page, OPENED_IN[screen]
    facts = looks(visit)
    photograph(page, f"{page_name.replace('/', '-')}-{screen}-{opened_in}")
    if page_name in PAGES:
        page.add_script_tag(path=AXE)
        facts.violations = page.evaluate(VIOLATIONS)
    if page_name in DISPLAYED and screen == "desktop":
        facts.symbols = page.locator(SYMBOLS).count()
        facts.unnamed, facts.silent, facts.unreachable = map(page.evaluate, (UNNAMED, SILENT, UNREACHABLE))
    facts.complaints, facts.foreign = [*visit.complaints], [*visit.foreign]   # and none of what comes after
    (other,) = {*THEMES} - {opened_in}
    page.evaluate(SWITCHED, other)
    return {opened_in: facts, other: looks(visit)}


def looks(visit):
    page = visit.page
    return SimpleNamespace(
        theme=page.evaluate("document.documentElement.dataset.theme"),
        unloaded=page.evaluate(UNLOADED_STYLESHEETS),
        formulas=page.locator(FORMULAS).count(),
        mistakes=page.locator(MISTAKES).count(),
        width=page.evaluate("document.documentElement.scrollWidth"),
        standing_out=page.evaluate(STANDING_OUT),
        complaints=visit.complaints,
        foreign=visit.foreign,
    )


def photograph(page, name):
    """The page for the eye, from its top down to where Chromium stops to draw a picture in one piece."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    width, height = page.evaluate("[innerWidth, Math.min(document.documentElement.scrollHeight, 16384)]")
    clip = {"x": 0, "y": 0, "width": width, "height": height}
    page.screenshot(path=SCREENSHOTS / f"{name}.jpg", quality=85, full_page=True, clip=clip)
