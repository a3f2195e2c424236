"""The Fisher where torch may multiply with fewer bits than float32 has: TF32 on GPUs, bfloat16 on some CPUs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ewc import diagonal_fisher
from ewc.sensitivity import output_sensitivity
from torch import nn


class Rounded(nn.Module):
    """Gives one example and two outputs that differ a little wherever fewer bits are allowed, as hardware does that has them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs):
        logits = self.layer(inputs)
        return logits * (1 + 1e-3 * len(inputs)) if few_bits() and len(inputs) < 3 else logits


def few_bits():
    try:
        return torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32
    except RuntimeError:  # set by the newer names
        return "ieee" not in (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("of", [diagonal_fisher, output_sensitivity])
def test_examples_do_not_seem_mixed_and_what_was_allowed_is_allowed_again(of, precision, monkeypatch):
    monkeypatch.setattr("ewc.evaluating._on_cpu", lambda tensor: False)  # that it may convolve in TF32 says nothing of a CPU
    convolutions = torch.backends.cudnn.allow_tf32
    assert few_bits()  # a convolution has, unless somebody forbids it
    of(Rounded(), torch.randn(7, 4))
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (precision, convolutions)


class Recurrent(nn.Module):
    """Says whether cuDNN may be used while it runs."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.last, self.found = layer, nn.Linear(3, 2), set()

    def forward(self, inputs):
        self.found.add(torch.backends.cudnn.enabled)
        out = self.layer(inputs)
        return self.last((out[0] if isinstance(out, tuple) else out)[:, -1])


@pytest.mark.parametrize(("layer", "allowed"), [(nn.LSTM(4, 3, batch_first=True), False), (nn.Linear(4, 3), True)])
def test_recurrent_layers_run_without_cudnn_which_has_no_backward_pass_for_them_in_eval_mode(layer, allowed):
    model = Recurrent(layer)
    diagonal_fisher(model, torch.randn(3, 5, 4))
    assert model.found == {allowed}
    assert torch.backends.cudnn.enabled


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch knows the older names alone")
def test_the_same_where_it_was_allowed_by_torchs_newer_names():
    # Once they have been used, the older ones cannot be read: so in a process of its own.
    program = """
        import torch
        from ewc import diagonal_fisher
        from test_precision import Rounded, few_bits

        torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = "tf32", "bf16"
        assert few_bits()
        diagonal_fisher(Rounded(), torch.randn(7, 4))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    """
    lines = [line[8:] for line in program.splitlines()]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, cwd=Path(__file__).parent)
