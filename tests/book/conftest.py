"""A build that fails for every reason that the tests know: it is slow, so it is made once for all of them."""

from types import SimpleNamespace

import pytest
from building import CHAPTER, appended, make_copy, trained

NAME = CHAPTER.rpartition("/")[2]
WRONG_ENTRIES = {
    "nowhere-used": {"tex": r"\Xi"},
    "not-in-code": {"tex": r"\Upsilon", "code": ["no_such_name"]},
    "not-on-page": {"tex": r"\Psi", "code_on": {"no_such_word": [NAME]}},
    "same-letter": {"tex": "R"},
    "no-such-page": {"tex": r"\Phi", "pages": ["no-such-chapter"]},
}
ENTRY = {"name": "a thing", "reading": "it", "meaning": "It is a thing.", "shape": "one", "introduced": NAME}
BINDING = "\n$$\\Psi$$ (eq-bound)\n\n```{{source}} ewc.metrics.AccuracyMatrix.average\n:equation: eq-bound\n:test: {}\n```\n"


@pytest.fixture(scope="session")
def failing(copy):
    """The copy with all the faults, built, then without them but with a sentence more, and once again."""
    numbers = "\n\n{num}`no-such-number`\n\n```{source} ewc.fisher.no_such_function\n```\n"
    formulas = "\n\n$\\zeta + \\Upsilon + \\Psi + \\Phi$ and {sym}`no-such-symbol`\n"
    proofs = "tests/code/test_equations.py::test_gone", "tests/code/test_equations.py::test_eq_acc"
    entries = "".join(f"\n{name}: {ENTRY | entry}\n" for name, entry in WRONG_ENTRIES.items())
    before = trained(copy)
    with appended(copy, CHAPTER, numbers + formulas + "".join(map(BINDING.format, proofs))), \
            appended(copy, "book/symbols", entries, ".yml"):  # fmt: skip
        failed = make_copy(copy)
    complete = (failed.build / ".complete").exists()
    with appended(copy, CHAPTER, "\n\nA sentence about a purple elephant.\n"):
        mended, again = make_copy(copy), make_copy(copy)
    return SimpleNamespace(failed=failed, complete=complete, mended=mended, again=again, trained=trained(copy) != before)
