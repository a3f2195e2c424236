"""Two pasts that EWC cannot tell apart, and what could."""

import pytest
import torch
from ewc import accuracy, fit, full_fisher, joint
from ewc.chapters.what_ewc_cannot_do import figures
from ewc.chapters.what_ewc_cannot_do.twins import learned, lessons, network
from ewc.training import use_units
from torch.nn.utils import parameters_to_vector


@pytest.mark.parametrize("strength", [1e-3, 1.0, 3.0])
def test_both_pasts_leave_the_same_memory_and_the_same_network(strength):
    (below, before, its), (above, after, others) = (learned(height, strength=strength) for height in (-1.0, 1.0))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)
    for one, other in zip(its.state_dict().values(), others.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert any(value.abs().max() > 1e-3 for value in its.state_dict().values())
    torch.testing.assert_close(*(parameters_to_vector(model.parameters()) for model in (below, above)), rtol=0, atol=1e-12)


def test_the_lessons_are_learned_and_the_pasts_differ():
    for height in (-1.0, 1.0):
        model, _, _ = learned(height)
        assert [accuracy(model, lesson) for lesson in lessons(height, True)] == [1.0, 1.0]  # each among its own outputs
        assert [accuracy(model, lesson) for lesson in lessons(height, False)] == [0.0, 1.0]  # all competing
        assert lessons(height, True)[0].train_inputs[:, 1].tolist() == [height] * 2
    assert lessons(1.0, False)[1].train_targets.tolist() == [2, 3]


def test_a_full_fisher_and_outputs_without_a_mask_tell_the_pasts_apart():
    found = []
    for height in (-1.0, 1.0):
        model = network()
        old = lessons(height, True)[0]
        fit(model, old, steps=50, batch_size=2, learning_rate=0.5, momentum=0.0, schedule="constant")
        use_units(model, old.units)
        found.append(full_fisher(model, old.train_inputs))
    torch.testing.assert_close(found[0].diagonal(), found[1].diagonal(), rtol=0, atol=1e-12)
    assert (found[0] - found[1]).abs().max() > 0.01
    unmasked = [learned(height, masked=False)[1] for height in (-1.0, 1.0)]
    assert (unmasked[0] - unmasked[1]).abs().max() > 0.1


@pytest.mark.parametrize("height", [-1.0, 1.0])
def test_all_images_at_once_are_learned_without_a_mistake(height):
    model, all_ = network(), joint(lessons(height, False))
    fit(model, all_, steps=400, batch_size=4, learning_rate=0.5, momentum=0.0, schedule="constant")
    assert accuracy(model, all_) == 1.0


def test_the_figure_says_what_is_answered_where():
    read = torch.tensor([[0, 0, 1], [2, 2, 3], [0, 0, 1]])
    alt = figures.two_pasts(read, 1.0, ("A", "B", "C", "D")).alt
    assert "A left at height -1, B right at height -1, C left at height 0, D right at height 0, A left at height 1" in alt
