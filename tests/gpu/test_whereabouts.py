"""That these tests can fail: a tensor in the wrong place is found, and a number that is another."""

import pytest
import torch
from ewc import EWC, mlp
from torch import nn
from whereabouts import assert_alike, assert_on, tensors

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


class Holder:
    def __init__(self, value):
        self.terms = [({"a weight": torch.zeros(2)}, {"another": value})]


def test_a_tensor_is_found_however_deep_it_lies():
    assert assert_on(CPU, Holder(torch.zeros(3))) == 2
    with pytest.raises(AssertionError, match=r"it\.terms\.0\.1\.another': 'meta"):
        assert_on(CPU, Holder(torch.zeros(3, device=ELSEWHERE)))


def test_what_a_module_keeps_beside_its_parameters_is_found():
    layer = nn.Linear(2, 3)
    layer.scale = torch.ones(1)
    with pytest.raises(AssertionError, match="scale"):
        assert_on(ELSEWHERE, layer.to(ELSEWHERE))


def test_gradients_and_what_a_guard_holds_are_found():
    model = mlp((4,), inputs=4, classes=3)
    guard = EWC(model)
    guard.consolidate(torch.rand(5, 4))
    model(torch.rand(5, 4)).sum().backward()
    ways = [way for way, _ in tensors(guard)]
    assert sum("grad" in way for way in ways) == 4
    assert sum("_terms" in way for way in ways) == 8


def test_what_may_be_elsewhere_is_left_out_by_name():
    assert_on(CPU, {"generator": torch.zeros(1, device=ELSEWHERE)}, but=("generator",))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 2.01])}),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}),
        (torch.ones(2), torch.ones(2).double()),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.arange(3), torch.tensor([0, 1, 3])),
        ((1.0,), (1.01,)),
        ([1.0], [1.0, 2.0]),
        (float("nan"), 1.0),
        (torch.tensor([float("nan")]), torch.ones(1)),
        ("sgd", "adam"),
    ],
)
def test_what_differs_is_not_alike(found, wanted):
    assert_alike(wanted, wanted)
    with pytest.raises(AssertionError):
        assert_alike(found, wanted)
