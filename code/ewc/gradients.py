# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The gradient of every single example of a batch, by the parameters of a layer, from one backward pass of all.

A linear layer y = Wa + b has the gradient δaᵀ for one example, with a its input and δ the gradient by its output, so the
squares sum to one matrix product, Σₙ (δₙaₙᵀ)² = (δ²)ᵀ(a²). Where a weight is used at many places r of one example, its gradient
is Σ_r δ_r a_rᵀ, one small matrix product an example; a convolution's a_r is the patch under the window at r (places.py). For
all other layers their own backward pass, vectorised over the examples, forms each example's gradient.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, calls.py, places.py, batches.py and
evaluating.py. From the book Weights that Remember.
"""

import warnings

import torch
from torch.func import functional_call, vjp, vmap

if __package__:
    from .batches import alone, axes, changed, some
    from .evaluating import keeping_nothing
    from .places import gradients_of, has_uses
else:  # copied into a folder, without a package
    from batches import alone, axes, changed, some
    from evaluating import keeping_nothing
    from places import gradients_of, has_uses

# Gradients of single examples are formed this many numbers at a time: 64 MiB in float32.
NUMBERS_AT_ONCE = 2**24
# A GPU takes eight times as many: it works for a moment, and each turn costs it the time in which Python asks for it.
ON_A_GPU = 8


def numbers_at_once(device):
    """How many numbers are in memory at a time."""
    return NUMBERS_AT_ONCE * (ON_A_GPU if device.type == "cuda" else 1)


def add_linear(fisher, names, module, square, input_square):
    """Add Σₙ (δ²)ᵀ(a²), from the two squares (examples, outputs) and (examples, inputs), to what the layer's weight and bias have."""
    if module.weight in names:
        total = fisher[names[module.weight]]
        total.addmm_(square.T.to(total.dtype), input_square.to(total.dtype))
    if module.bias is not None and module.bias in names:
        fisher[names[module.bias]] += square.sum(0)


def add_squares(total, gradients):
    """Add Σₙ gₙ² to `total`, (n, *shape) to (*shape): on a CPU large ones example by example, without fresh memory, which is dear there."""
    gradients = gradients.to(total.dtype)
    if gradients.is_sparse:  # an embedding's
        total.index_add_(0, gradients.indices()[1], gradients.values().square())
        return
    if total.numel() < 2**16 or total.is_cuda:
        total += gradients.square().sum(0)
        return
    for gradient in gradients:
        total.addcmul_(gradient, gradient)


def squared(values, rooms):
    """values², in a room that is kept for the next values of this shape: fresh memory is dear."""
    kind = values.shape, values.dtype
    if kind not in rooms:
        rooms[kind] = torch.empty_like(values, memory_format=torch.contiguous_format)
    return torch.mul(values, values, out=rooms[kind])


class SumsOfSquares:
    """Σ δ² of several tensors over the scores, in at least float32, each in a room that is kept for the next batch of this shape."""

    def __init__(self, tensors, rooms):
        self.sums, self.empty = [], True
        for place, like in enumerate(tensors):
            kind = place, like.shape, like.dtype
            if kind not in rooms:
                rooms[kind] = zeros(like.shape, like)
            self.sums.append(rooms[kind])

    def add(self, deltas):
        """Add the squares of these; the first take the place of what was there."""
        for total, delta in zip(self.sums, deltas, strict=True):
            if not self.empty:
                total.addcmul_(delta, delta)
            elif delta.dtype == total.dtype:
                torch.mul(delta, delta, out=total)
            else:  # squared in the type of the sum
                total.zero_().addcmul_(delta, delta)
        self.empty = False


def vectorised(calls, several, names):
    """Yield, for a few examples at a time, each parameter's gradient example by example (n, *shape), by name; an embedding's sparse.

    Every use of a parameter adds to its gradient before anything is squared.

    several: the gradients by the outputs of these calls, for one score of the logits or for several: a list of lists.
    """
    used = {parameter for call in calls for parameter in call.module.parameters() if parameter in names}
    step = max(1, numbers_at_once(several[0][0].device) // max(1, sum(parameter.numel() for parameter in used)))
    for start in range(0, len(several[0][0]), step):
        chunk = slice(start, start + step)
        ways = []
        for place, call in enumerate(calls):
            way = gradients_of if has_uses(call.module) else _backward_through
            inputs = changed(some(call.input, chunk), lambda each: each.detach())
            ways.append(way(call.module, inputs, [deltas[place][chunk] for deltas in several]))
        for of_calls in zip(*ways, strict=True):
            gradients = {}
            for found in of_calls:
                for parameter, gradient in found.items():
                    if parameter in names:
                        name = names[parameter]
                        gradients[name] = _sum(gradients[name], gradient) if name in gradients else gradient
            yield gradients


def _sum(one, other):
    """The sum of the gradients of two uses, of which those of an embedding are sparse."""
    if one.is_sparse and other.is_sparse:
        return (one + other).coalesce()
    return other + one if one.is_sparse else one + other


def _backward_through(module, inputs, deltas):
    """Yield, for each of several δ, each example's gradient of ⟨δ, module(a)⟩ by the module's parameters, vectorised over examples."""
    # Every place that holds a parameter, each module once: a weight that two modules share has two names and one value.
    places = {
        f"{path}.{name}" if path else name: parameter
        for path, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.requires_grad
    }

    where = axes(inputs)

    def output(values, example):
        return functional_call(
            module,
            {place: values[parameter] for place, parameter in places.items()},
            (alone(example, where),),
            tie_weights=False,
        )

    def gradient_of_one(example, delta):
        _, backward = vjp(lambda values: output(values, example), {p: p.detach() for p in places.values()})
        return backward(delta[None])[0]

    for delta in deltas:
        with warnings.catch_warnings(), keeping_nothing(module):
            warnings.filterwarnings("ignore", message="There is a performance drop")  # still exact
            found = vmap(gradient_of_one, in_dims=(where, 0))(inputs, delta)
        yield found


def plain_gradient(logits, parameters, score):
    """Autograd's own gradient of ⟨score, logits⟩ by these parameters, with zeros for those that it does not depend on."""
    try:
        found = torch.autograd.grad(
            logits, parameters, score, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower():
            raise
        logits.backward(score, retain_graph=True)  # re-entrant checkpoints can be asked for everything alone
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        for parameter in parameters:
            parameter.grad = None
    return [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]


def zeros(shape, like):
    """Zeros beside `like`, in at least float32: small numbers are summed over many examples."""
    return torch.zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
