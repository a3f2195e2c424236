"""What all figures share."""

import pytest
from ewc.workshop.drawing import apart


def test_labels_are_moved_apart_in_their_order_and_no_further_than_needed():
    found = apart([0.9, 0.5, 0.51], 0.1)
    assert found[0] == 0.9
    assert found[2] - found[1] == pytest.approx(0.1)
    assert found[1] + found[2] == pytest.approx(1.01)


def test_many_labels_at_one_height_are_spread_around_it():
    found = apart([0.5] * 5, 0.1)
    assert sum(found) / 5 == pytest.approx(0.5)
    assert sorted(found) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7], abs=1e-3)
