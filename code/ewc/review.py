# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Tests to run on an implementation of elastic weight consolidation, yours or one that you found, before its results.

The networks are small enough to know the right answers, computed here by the definition and nothing cleverer. Say how your
penalty is made, at strength 1, and see what does not hold:

    for check, found in review(lambda model: MyPenalty(model, strength=1.0)).items():
        print(check, "ok" if found is None else found)

A penalty has the methods ``consolidate(inputs, targets)``, called when a task has been learned, and ``penalty()``, a scalar
that is added to a loss that is a mean over examples; write a wrapper of a few lines where yours has others.

This file needs torch and nothing else. From the book Weights that Remember.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.functional import cross_entropy


def learn(model: nn.Module, penalty, inputs: Tensor, targets: Tensor) -> None:
    """A training loop as plain as it gets: 60 steps on the loss and the penalty. `review` takes yours in its place."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (cross_entropy(model(inputs), targets) + penalty.penalty()).backward()
        optimizer.step()


def review(make_penalty: Callable, learn: Callable = learn) -> dict[str, str | None]:
    """For each check None if it holds, else what was found.

    Args:
        make_penalty: called with a model, returns a new penalty of strength 1 for it.
        learn: called with a model, its penalty, inputs and targets; trains the model on them, as your own loop does.
    """
    found = {}
    for check in CHECKS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                found[check.__doc__.rstrip(".")] = check(make_penalty, learn)
            except Exception as error:  # what the penalty raises is a finding too
                found[check.__doc__.rstrip(".")] = f"{type(error).__name__}: {error}"
    return found


def zero_at_the_anchor(make_penalty, learn):
    """Zero before the first task and right after it."""
    model, inputs, targets = _network(), *_examples()
    penalty = make_penalty(model)
    before = _value(penalty)
    penalty.consolidate(inputs, targets)
    after = _value(penalty)
    return None if before == after == 0 else f"it is {before:.3g} before and {after:.3g} after"


def pulls_back(make_penalty, learn):
    """Above zero after a step, with a gradient that points back."""
    model, inputs, targets = _network(), *_examples()
    penalty = make_penalty(model)
    penalty.consolidate(inputs, targets)
    steps = _move(model)
    if not _value(penalty) > 0:
        return f"it is {_value(penalty):.3g} after a step"
    value = penalty.penalty()
    if not (isinstance(value, Tensor) and value.requires_grad):
        return "it has no gradient: it is only looked at"
    slopes = torch.autograd.grad(value, list(model.parameters()))
    uphill = sum(float((slope * step).sum()) for slope, step in zip(slopes, steps, strict=True))
    return None if uphill > 0 else "its gradient does not point back to the anchor"


def scale(make_penalty, learn):
    """As large as the exact Fisher makes it, on a network that is sure."""
    model, inputs = _network(sharpness=12.0), _examples(1000)[0]
    targets = model(inputs).argmax(1)  # it has learned them by heart
    fisher = _fisher(model, inputs)
    penalty = make_penalty(model)
    penalty.consolidate(inputs, targets)
    steps = _move(model)
    right = sum(float((importance * step**2).sum()) for importance, step in zip(fisher, steps, strict=True)) / 2
    ratio = _value(penalty) / right
    return None if 2 / 3 < ratio < 3 / 2 else f"it is {ratio:.2g} times ½ Σ F d²"


def one_image_at_a_time(make_penalty, learn):
    """The same whether it sees the images at once or one by one."""
    model, (inputs, targets) = _network(), _examples(24)
    alone, together = [], make_penalty(model)
    together.consolidate(inputs, targets)
    for place in range(len(inputs)):
        alone.append(make_penalty(model))
        alone[-1].consolidate(inputs[place : place + 1], targets[place : place + 1])
    _move(model)
    mean = sum(_value(penalty) for penalty in alone) / len(alone)
    ratio = _value(together) / mean if mean else float("nan")
    return None if 2 / 3 < ratio < 3 / 2 else f"{len(inputs)} at once give {ratio:.2g} times the mean of each alone"


def leaves_the_model(make_penalty, learn):
    """Weights, buffers and mode of the model stay as they are."""
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(12, 3)
    model = nn.Sequential(*layers).train()
    inputs, targets = torch.randn(32, 1, 4, 4), torch.arange(32) % 3
    model(torch.randn(64, 1, 4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_penalty(model).consolidate(inputs, targets)
    after = model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        return f"it changed {', '.join(changed)}"
    return None if all(module.training for module in model.modules()) else "it left the model in eval mode"


def anchor_stays(make_penalty, learn):
    """Zero again when the old weights are put back after the next task."""
    model, (inputs, targets) = _network(), _examples()
    penalty = make_penalty(model)
    penalty.consolidate(inputs, targets)
    old = [parameter.detach().clone() for parameter in model.parameters()]
    learn(model, penalty, inputs.flip(1), 2 - targets)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), old, strict=True):
            parameter.copy_(value)
    value = _value(penalty)
    return None if value == 0 else f"it is {value:.2g} there: the anchor has moved"


def third_task(make_penalty, learn):
    """A weight that only the first task needs is still held after the second."""
    model, reading = nn.Linear(2, 3), torch.randn(100, 1)
    targets = torch.arange(100) % 3
    penalty = make_penalty(model)
    for first_input, second_input in ((1, 0), (0, 1)):  # each task has an input, and so weights, of its own
        penalty.consolidate(reading * torch.tensor([[first_input, second_input]]), targets)
        with torch.no_grad():
            model.weight[0] += 0.1  # one output's: to raise all alike changes no answer
    before = _value(penalty)
    with torch.no_grad():
        model.weight[0, 0] += 0.1
    return None if _value(penalty) > before else "it may go wherever it likes"


CHECKS = (zero_at_the_anchor, pulls_back, scale, one_image_at_a_time, leaves_the_model, anchor_stays, third_task)


def _network(sharpness=1.0):
    """A small network, the surer of its answers the larger its sharpness."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].weight *= sharpness
    return model


def _examples(count=100):
    return torch.randn(count, 6), torch.randint(3, (count,))


def _value(penalty):
    return float(torch.as_tensor(penalty.penalty()).detach())


def _fisher(model, inputs):
    """Fᵢ = 1/N Σ_n Σ_c p(c|xₙ) (∂ log p(c|xₙ) / ∂θᵢ)², from every example's gradient for every class."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def log_p(values, x):
        return functional_call(model, values, (x[None],))[0].log_softmax(-1)

    p = vmap(log_p, (None, 0))(weights, inputs).exp()
    scores = vmap(jacrev(log_p), (None, 0))(weights, inputs)
    return [torch.einsum("nc,nc...->...", p, score**2) / len(inputs) for score in scores.values()]


def _move(model):
    """A step of all weights in a random direction, which it returns."""
    steps = [0.1 * torch.randn(parameter.shape) for parameter in model.parameters()]
    with torch.no_grad():
        for parameter, step in zip(model.parameters(), steps, strict=True):
            parameter += step
    return steps
