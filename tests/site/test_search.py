"""The search: questions as readers type them, and the section that answers is first or second; from the disk and over http."""

import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from building import PAGES

SLIPS, FISHER = "reading-other-peoples-ewc.html#what-people-ask", "fisher-information.html#whose-labels"
SHAPE = "the-shape-of-curvature.html#two-small-matrices-a-layer"
# The first five are those of a reader who was misled by the search of Sphinx.
QUESTIONS = {
    "why is my penalty zero": SLIPS,
    "empirical Fisher": FISHER,
    "KFAC": SHAPE,
    "K-FAC": SHAPE,
    "diagonal_fisher": "api.html#ewc.fisher.diagonal_fisher",
    "how do I choose lambda": "choosing-lambda.html",
    "loss becomes NaN with large lambda, training diverges": "choosing-lambda.html#where-the-cliff-is",
    "online EWC": "many-tasks.html#letting-go",
    "class-incremental learning": "what-ewc-cannot-do.html#the-same-images-three-questions",
    "is weight decay a Gaussian prior": "likelihood-and-loss.html#what-you-believed-times-what-you-saw",
    "backward transfer": "catastrophic-forgetting.html#numbers-for-it",
}
HITS = "[...document.querySelectorAll('.hits li')].map(e => [e.querySelector('a').getAttribute('href'), e.innerText])"


@pytest.fixture(scope="module")
def search(windows):
    visit = windows.open("search", "desktop", "light")

    def ask(question):
        visit.page.locator(".find input").fill(question)
        return visit.page.evaluate(HITS)

    yield ask
    assert not visit.complaints
    assert not visit.foreign
    visit.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_section_that_answers_is_first_or_second(search, question):
    places = [place.rpartition("/")[2] for place, _ in search(question)]
    assert QUESTIONS[question] in places[:2]


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_snippet_shows_tex_or_what_is_around_the_page(search, question):
    for _, words in search(question):
        assert not re.search(r"\\[a-zA-Z]|\$|\bToggle\b|Take it along:|Copy to clipboard|[_^]\{", words), words


def test_what_is_nowhere_is_said_to_be_nowhere(search):
    assert search("zyxwvut") == []


def test_every_hit_leads_to_a_place_that_is_there(search, real_book):
    places = {place for question in ("Fisher", "weights", "task", "lambda") for place, _ in search(question)}
    assert len(places) > 20
    for place in places:
        file, _, anchor = place.partition("#")
        page = (real_book.html / file).read_text("utf8")
        assert not anchor or f'id="{anchor}"' in page, place


def test_the_index_is_loaded_on_the_search_page_alone(real_book):
    for page in PAGES:
        assert not re.search(r"search-?index\.js|searchtools", (real_book.html / f"{page}.html").read_text("utf8")), page
    assert not (real_book.html / "searchindex.js").exists()


def test_a_question_in_the_address_is_answered_over_http_too(browser, real_book):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=real_book.html)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/search.html?q=empirical+Fisher")
        page.wait_for_selector(".hits a")
        assert page.locator(".hits a").first.get_attribute("href").endswith(FISHER)
        page.close()
        server.shutdown()
