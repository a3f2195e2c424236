"""Shared by the tests of the code: the helpers beside this file can be imported, and a module can ask for float64."""

import os
import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

if "EWC_RANDOM_MODELS" in os.environ:  # drawn here, before pytest starts its workers, so that all of them have the same
    os.environ.setdefault("EWC_RANDOM_SEED", str(random.randrange(10**6)))


def pytest_report_header():
    return f"random models (test_random_models.py): EWC_RANDOM_SEED={os.environ.get('EWC_RANDOM_SEED', 0)}"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Thousands of tiny tensors: handing them to several threads takes thirty times as long as the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def float64():
    """New tensors and new layers are float64 while the tests of one module run."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def short_texts(request, monkeypatch):
    """An experiment in its tiny form learns to write from a page. To read all of two texts takes each process seconds."""
    if "tiny" in request.fixturenames:
        from ewc.chapters.in_your_own_project import experiments, language

        for text in ("english", "python"):
            page = language.encoded(f"The quick brown fox writes {text} and does not jump. " * 40)
            monkeypatch.setattr(experiments, text, lambda page=page: page)
