"""What a piece of work holds at once is counted in tensors: what is gone no longer, what was there before not at all."""

import torch
from ewc import EWC, mlp
from ewc.workshop.holding import Holding

MILLION = 4_000_000  # the bytes of a million numbers


def test_what_was_there_before_counts_not_and_what_is_gone_no_longer():
    before = torch.rand(1_000_000)
    with Holding() as holding:
        one = before * 2
        assert holding.now == MILLION
        one.add_(1)
        one.view(1000, 1000)
        before.mul_(2)
        assert holding.most == MILLION
        other = one + before
        del one
        last = other - 1
        assert holding.now == holding.most == 2 * MILLION
        del other, last
        assert holding.now == 0
    torch.rand(1_000_000)
    assert holding.most == 2 * MILLION


def test_a_step_of_training_holds_gradients_and_what_lies_on_the_way():
    model, images = mlp((100,), inputs=1000, classes=10), torch.rand(500, 1000)
    weights = sum(4 * weight.numel() for weight in model.parameters())
    with Holding() as holding:
        model(images).square().sum().backward()
        assert holding.now == weights  # the gradients are still there
    assert holding.most > weights + 4 * 500 * 100  # and what came out of the hidden layer was


def test_a_fisher_vectorised_over_the_examples_is_seen_too():
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 4, 3))
    with Holding() as few:
        EWC(model).consolidate(torch.rand(4, 1, 10))
    with Holding() as many:
        EWC(model).consolidate(torch.rand(64, 1, 10))
    assert many.most > 4 * few.most > 0
