"""What the tests of the site share: windows of a width and a theme, and all that is asked of a page, noted on one visit."""

import os
import re
from types import SimpleNamespace

from building import PAGES, ROOT, source

WIDTHS = {"desktop": 1280, "phone": 390}
BETWEEN = {"desktop": [768], "phone": []}     # further widths at which a visit looks at what is cut off
HEIGHT = 900
THEMES = ("light", "dark")
# The theme that a page is opened in at a width. The other theme is then switched to, as a reader does it: to load
# the page anew for that would take half of the time.
OPENED_IN = {"desktop": "light", "phone": "dark"}
SWITCHED = """theme => { const button = document.querySelector('.theme-switch-button');
    for (let click = 0; click < 3 && document.documentElement.dataset.theme !== theme; click++) button.click() }"""
THEME = "document.documentElement.dataset.theme"
SCREENSHOTS = ROOT / "_build" / "screenshots"

OURS = re.compile(r"^(file|data|blob):")
SETTLED = "async () => { await document.fonts.ready }"
# Sections are laid out when they come near the screen; most tests ask about the whole page at once, and have all drawn.
DRAWN = """async () => {
    for (const section of document.querySelectorAll('.bd-article > section > section')) section.style.contentVisibility = 'visible';
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))) }"""
FORMULAS, MISTAKES = "math", "merror"
DISPLAYED = [page for page in PAGES if "$$" in source(page)]

UNLOADED_STYLESHEETS = "[...document.querySelectorAll('link[rel=stylesheet]')].filter(e => !e.sheet).map(e => e.href)"
# What reaches past the right edge with no box of its own around it that scrolls; drawings and hidden helpers aside.
STANDING_OUT = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
    if (e.closest('svg, .tooltip, math *, .headerlink, .visually-hidden') || !e.getClientRects().length)
        return false;
    for (let box = e.parentElement; box.closest('.bd-article'); box = box.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
    return e.getBoundingClientRect().right > innerWidth + 1;
}).map(e => e.tagName + '.' + e.className)"""

# What is cut off at the present width: of what is wider than its box, all that does not scroll, fade at the edge where it goes on,
# say so in words, and take the focus under a name. Answers and tests are unfolded first; what is not drawn has no width.
CUT = """async () => {
    const folds = [...document.querySelectorAll('.bd-article details:not([open])')];
    const answers = [...document.querySelectorAll('.bd-article .toggle-hidden')];
    for (const fold of folds) fold.open = true;
    for (const answer of answers) answer.classList.remove('toggle-hidden');
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const offers = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && getComputedStyle(e).maskImage.includes('gradient')
        && getComputedStyle(e, '::before').content.includes('scroll')
        && e.tabIndex === 0 && e.getAttribute('role') === 'region' && e.getAttribute('aria-label');
    const inside = 'svg, math, math *, .tooltip, .visually-hidden, .frames-said, .headerlink, .copybtn';
    const cut = [...document.querySelectorAll('.bd-article *')].filter(e => {
        if (e.scrollWidth <= e.clientWidth + 1 || !e.clientWidth || e.closest(inside)) return false;
        if (e.matches('.formula') && innerWidth >= 768) return true;      // formulas are broken, and on a phone too but for matrices
        const style = getComputedStyle(e);
        return style.overflowX === 'visible' ? ['TD', 'TH'].includes(e.tagName) : style.display !== 'inline' && !offers(e);
    }).map(e => `${innerWidth} px: ${e.tagName}.${e.className} in ${e.closest('[id]')?.id}: ${e.innerText.slice(0, 60)}`);
    for (const fold of folds) fold.open = false;
    for (const answer of answers) answer.classList.add('toggle-hidden');
    return cut }"""
# Point at ten kinds of symbols, and at a number for each count of runs that numbers come from: boxes that are too high, that do not fit
# on the screen, or that their button does not close.
BOXES = """() => {
    const box = document.getElementById('symbol-box'), symbols = new Map(), numbers = new Map(), wrong = [];
    const shown = selector => [...document.querySelectorAll('.bd-article ' + selector)].filter(e => e.getClientRects().length);
    for (const e of shown('.sym')) symbols.set(e.getAttribute('class').match(/sym-[a-z-]+/)[0], e);
    for (const e of shown('.num[data-runs]:not([data-runs=""])')) numbers.set(e.dataset.runs.split(' ').length, e);
    const asked = [...symbols.values(), ...numbers.values()];      // one of each kind of symbol, and one number for each count of runs
    for (const e of asked) {
        e.scrollIntoView({block: 'center'});
        e.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        const {top, bottom, height, left, right} = box.getBoundingClientRect(), open = !box.hidden;
        const fits = height <= 0.6 * innerHeight && top >= -1 && bottom <= innerHeight + 1 && left >= -1 && right <= innerWidth + 1;
        box.querySelector('.close')?.click();
        if (!open || !fits || !box.hidden) wrong.push(`${innerWidth} px: ${e.outerHTML.slice(0, 80)}: ${Math.round(height)} px high`);
        document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
    }
    return {wrong, seen: asked.length} }"""

# Words of drawings that are shown smaller than 12 pixels, or not in the face of the page; of all frames of a figure, too. An index or an
# exponent may be smaller, the letter that it stands at may not. And how many words there are.
WORDS = """() => {
    const hidden = [...document.querySelectorAll('.frame[hidden]')], wrong = [];
    let seen = 0;
    for (const frame of hidden) frame.hidden = false;
    for (const text of document.querySelectorAll('.picture text')) {
        const svg = text.ownerSVGElement, scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        if (!scale) continue;
        const parts = text.children.length ? [...text.children] : [text];
        const size = scale * Math.max(...parts.map(part => parseFloat(getComputedStyle(part).fontSize)));
        const faces = new Set(parts.map(part => getComputedStyle(part).fontFamily.split(',')[0].replaceAll('"', '')));
        if (size < 12 || [...faces].some(face => !['Source Sans 3', 'STIX Two Text'].includes(face)))
            wrong.push(`${innerWidth} px: ${size.toFixed(1)} px, ${[...faces]}: ${text.textContent}`);
        if (getComputedStyle(text).userSelect === 'none') wrong.push(`${innerWidth} px: cannot be selected: ${text.textContent}`);
        seen++;
    }
    for (const frame of hidden) frame.hidden = true;
    return {wrong, seen} }"""

AXE = ROOT / "node_modules/axe-core/axe.min.js"
# Left out: names of the theme's own buttons, and docutils' list of citations, whose roles axe does not accept.
# Only violations are described one by one, for on a long page the rest takes most of the time; and axe asks for no stylesheet
# (`preload`): from the disk it gets none, and would complain. `region` is slow, and only ever moderate.
VIOLATIONS = """async rules => (await axe.run(document, {resultTypes: ['violations'], preload: false, ...(rules ? {runOnly: rules} : {rules: {
        'label-content-name-mismatch': {enabled: false}, 'aria-required-children': {enabled: false},
        region: {enabled: false} }}) })).violations
    .filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => each.id + ': ' + each.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(' | '))"""
COLOURS = ["color-contrast", "link-in-text-block"]     # all that a second theme can change
# Half of the time of axe goes to what is there a thousand times. So before it looks, of each kind of word in listings one is kept, and
# drawings, which are hidden from screen readers and have words beside them, are emptied, and of a long table the
# first rows stand for all.
THIN = """() => {
    const seen = new Set();
    for (const e of document.querySelectorAll('pre .line > span')) {
        const place = e.closest('.from-module, .cell_output, .cell_input, .api')?.className ?? '';
        const kind = (e.getAttribute('class') ?? '').replace(/sym-\\S+/, '') + place;
        seen.has(kind) ? e.replaceWith(e.textContent) : seen.add(kind);
    }
    for (const e of document.querySelectorAll('pre .line')) if (!e.children.length) e.replaceWith(e.textContent);
    for (const e of document.querySelectorAll('.picture svg')) e.replaceChildren();
    for (const e of document.querySelectorAll('tbody tr:nth-child(n + 20)')) e.remove() }"""

# What is put before or behind a part of the page and is of an icon font, which the site does not send.
FOREIGN_SIGNS = """() => [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length).flatMap(e =>
    ['::before', '::after'].filter(part => /[\\ue000-\\uf8ff]/.test(getComputedStyle(e, part).content)
        && getComputedStyle(e, part).display !== 'none').map(part => e.tagName + '.' + e.className + part))"""
SYMBOLS = ".formula math .sym"
# Point at every kind of symbol of every displayed equation in turn; those that do not answer.
SILENT = """() => { const data = JSON.parse(document.getElementById('symbols').textContent).symbols, box = document.getElementById('symbol-box');
    const all = [...document.querySelectorAll('.formula math .sym')];
    const kind = e => e.getAttribute('class').match(/sym-[a-z-]+/)[0], formula = e => e.closest('.formula');
    return all.filter(e => formula(e).querySelector(`.${kind(e)}`) === e).filter(e => {
        e.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        const id = e.getAttribute('class').match(/sym-([a-z-]+)/)[1];
        const answers = !box.hidden && data[id] && box.textContent.includes(data[id].meaning) && e.classList.contains('lit');
        document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
        return !answers || !box.hidden;
    }).map(e => e.getAttribute('class')) }"""
# Letters and operators in displayed equations that are no symbol of the table.
UNNAMED = """() => [...document.querySelectorAll('.formula mi')].filter(e => !e.closest('.sym')).map(e => e.outerHTML)"""
UNREACHABLE = """() => [...document.querySelectorAll('.formula')].flatMap(e => {
    const kinds = [...new Set([...e.querySelectorAll('math .sym')].map(s => s.getAttribute('class').match(/sym-[a-z-]+/)[0]))];
    return kinds.filter(kind => !e.querySelector(`math .${kind}[tabindex][aria-label]`))
        .concat(e.querySelectorAll('math .sym[tabindex="0"]').length === 1 || !kinds.length ? [] : ['one stop of Tab']) })"""


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

    def settle(self, drawn=True):
        """Until fonts are there, and the whole page is drawn unless it is to be drawn as a reader comes by."""
        self.page.evaluate(SETTLED)
        if drawn:
            self.page.evaluate(DRAWN)
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
        size = {"width": WIDTHS[screen], "height": HEIGHT}
        known = len(self.contexts)
        context = self.window(viewport=size, color_scheme=theme, reduced_motion="reduce")
        if len(self.contexts) > known:
            context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
        return context

    def file(self, page_name):
        return self.html / f"{page_name}.html"

    def open(self, page_name, screen, theme, drawn=True):
        return Visit(self.themed(screen, theme), self.file(page_name)).settle(drawn)

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
    if page_name in DISPLAYED and screen == "desktop":
        facts.symbols = page.locator(SYMBOLS).count()
        facts.unnamed, facts.silent, facts.unreachable = map(page.evaluate, (UNNAMED, SILENT, UNREACHABLE))
    facts.boxes = page.evaluate(BOXES) if page.locator("#symbols").count() else None
    facts.cut, facts.words = [], []
    for width in (WIDTHS[screen], *BETWEEN[screen]):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        facts.cut += page.evaluate(CUT)
        facts.words.append(page.evaluate(WORDS))
    page.set_viewport_size({"width": WIDTHS[screen], "height": HEIGHT})
    if page_name in PAGES:
        page.evaluate(THIN)
        page.evaluate(f"() => {{ {AXE.read_text('utf8')} }}")     # the policy lets no script tag in
        facts.violations = page.evaluate(VIOLATIONS, None if screen == "desktop" else COLOURS)
    facts.complaints, facts.foreign = [*visit.complaints], [*visit.foreign]   # and none of what comes after
    (other,) = {*THEMES} - {opened_in}
    page.evaluate(SWITCHED, other)
    # Another theme has other colours and the same shapes.
    switched = {"theme": page.evaluate(THEME), "complaints": visit.complaints, "foreign": visit.foreign}
    return {opened_in: facts, other: SimpleNamespace(**vars(facts) | switched)}


def looks(visit):
    page = visit.page
    return SimpleNamespace(
        theme=page.evaluate(THEME),
        unloaded=page.evaluate(UNLOADED_STYLESHEETS),
        formulas=page.locator(FORMULAS).count(),
        mistakes=page.locator(MISTAKES).count(),
        width=page.evaluate("document.documentElement.scrollWidth"),
        standing_out=page.evaluate(STANDING_OUT),
        signs=page.evaluate(FOREIGN_SIGNS),
        complaints=visit.complaints,
        foreign=visit.foreign,
    )


def photograph(page, name):
    """The page for the eye, where EWC_SCREENSHOTS=1 asks for it, from its top down to half of what Chromium draws in one piece."""
    if os.environ.get("EWC_SCREENSHOTS") != "1":
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    width, height = page.evaluate("[innerWidth, Math.min(document.documentElement.scrollHeight, 8192)]")
    clip = {"x": 0, "y": 0, "width": width, "height": height}
    page.screenshot(path=SCREENSHOTS / f"{name}.jpg", quality=85, full_page=True, clip=clip)
