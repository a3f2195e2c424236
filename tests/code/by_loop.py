"""What the Fisher information of any network must be, by a loop over examples and classes; and everything held to it at once."""

import pytest
import torch
from by_hand import assert_untouched, label_weights, mean_over, whole_state
from ewc import diagonal_fisher, full_fisher
from ewc.checks import trainable
from ewc.scores import LABELS
from ewc.sensitivity import output_sensitivity


def by_loop(network, inputs):
    """Example by example and class by class: the squared scores (N, C, …) by name, the probabilities (N, C), the mean over
    examples of |∂‖z‖² / ∂θ| by name, and whether any example's logits depend on a parameter.

    The network is put back into its modes.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    wanted = trainable(network)

    def gradient(value):
        if not value.requires_grad:
            return [torch.zeros_like(parameter) for parameter in wanted.values()]
        found = torch.autograd.grad(
            value, list(wanted.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [each.to_dense() if each.is_sparse else each for each in found]

    squares, probabilities, lengths, depends = [], [], [], False
    for example in inputs:
        logits = network(example[None].clone())[0]
        depends = depends or logits.requires_grad
        probabilities.append(logits.detach().softmax(0))
        squares.append([gradient(log_p) for log_p in logits.log_softmax(0)])
        lengths.append(gradient(logits.square().sum()))
    for module, mode in modes.items():
        module.training = mode
    names = list(enumerate(wanted))
    return (
        {name: torch.stack([torch.stack([row[at] for row in rows]) for rows in squares]) ** 2 for at, name in names},
        torch.stack(probabilities),
        {name: torch.stack([row[at].abs() for row in lengths]).mean(0) for at, name in names},
        depends,
    )


def assert_found(found, wanted, what):
    """Each tensor within 1e-7 of its own largest entry, or within rounding of the largest of all."""
    assert found.keys() == wanted.keys(), what
    largest = max(float(value.abs().max()) for value in wanted.values() if value.numel())
    for name, value in wanted.items():
        assert found[name].shape == value.shape, (what, name)
        if not value.numel():
            continue
        off = float((found[name] - value).abs().max())
        assert off <= 1e-7 * float(value.abs().max()) + 1e-13 * largest, (
            f"{what}, {name}: {found[name]} instead of {value}"
        )


def near_a_tie(p, draws):
    """Whether rounding may decide which class is drawn, or which is the most probable."""
    first, second = p.topk(2, 1).values.unbind(1)
    steps = (p.cumsum(1)[:, :, None] - draws[:, None]).abs()
    return bool((first - second < 1e-9).any()), bool((steps < 1e-9).any())


def hold_to_the_loop(network, inputs, batch_sizes=(2, 1024), samples=2, full="exact"):
    """Every label mode, the diagonal of the whole matrix, the importance of Memory Aware Synapses; and nothing is touched."""
    squares, p, lengths, depends = by_loop(network, inputs)
    if not depends:
        with pytest.raises(ValueError, match="do not depend on its parameters"):
            diagonal_fisher(network, inputs, batch_size=batch_sizes[0])
        return
    targets = (torch.arange(len(inputs)) % p.shape[1]).to(torch.uint8 if len(inputs) % 2 else torch.int64)
    draws = torch.rand(len(inputs), samples, generator=torch.Generator().manual_seed(3))
    tie, close = near_a_tie(p, draws)
    network.train()
    next(network.modules()).training = False  # modes that are mixed must stay so
    for place, parameter in enumerate(network.parameters()):
        parameter.grad = torch.ones_like(parameter) if place % 2 else None
    before, given, state = whole_state(network), inputs.clone(), torch.get_rng_state()
    for labels in LABELS:
        if (labels == "argmax" and tie) or (labels == "sampled" and close):
            continue
        wanted = mean_over(squares, label_weights(labels, p, targets.long(), draws))

        def found_by(function, labels=labels, **keywords):
            if labels == "sampled":
                keywords |= {"samples": samples, "generator": torch.Generator().manual_seed(3)}
            return function(network, inputs, targets if labels == "empirical" else None, labels=labels, **keywords)

        for size in batch_sizes:
            assert_found(found_by(diagonal_fisher, batch_size=size), wanted, f"{labels}, batches of {size}")
        if labels == full:
            found = found_by(full_fisher, batch_size=batch_sizes[0]).diagonal()
            parts = found.split([value.numel() for value in wanted.values()])
            found = {name: part.view_as(wanted[name]) for name, part in zip(wanted, parts, strict=True)}
            assert_found(found, wanted, f"the whole matrix, {labels}")
    if (p > 0).all():
        found = output_sensitivity(network, inputs, batch_size=batch_sizes[0])
        assert_found(found, lengths, "Memory Aware Synapses")
    assert_untouched(before, whole_state(network))
    assert torch.equal(inputs, given)
    assert inputs.grad is None
    assert torch.equal(torch.get_rng_state(), state)
