"""Each test runs on the CPU, so that it is tested itself, and on a CUDA device where there is one."""

import sys
from pathlib import Path

import pytest
import torch

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "code"):  # `whereabouts`, and the small tasks of the code's tests
    sys.path.insert(0, str(folder))

WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, WITHOUT])])
def device(request):
    """Where a test works; "cuda:0" rather than "cuda", as tensors say it themselves."""
    return torch.device("cuda", 0) if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions in float32: results are held to those of the CPU. What TF32 does has a test of its own."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Thousands of tiny tensors: handing them to several threads takes thirty times as long as the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
