"""What the tests of the site share: a visit to one page, at two widths."""

import re

WIDTHS = {"desktop": 1280, "phone": 390}
SETTLED = "async () => { if (window.MathJax) await MathJax.startup.promise; await document.fonts.ready }"


class Visit:
    """One page, opened and settled, and what went wrong on the way."""

    def __init__(self, browser, file, width, theme):
        self.complaints, self.foreign = [], []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        self.context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
        self.context.route(re.compile(r"^(?!file:|data:|blob:)"), self._refuse)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"not loaded: {request.url}"))
        self.page.goto(file.as_uri())
        self.page.evaluate(SETTLED)

    def _refuse(self, route):
        self.foreign.append(route.request.url)
        route.abort()
