# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Which layers a forward pass used, and on what: whether their inputs and output scores give every example's gradient.

They do where three things hold. The logits depend on a layer's weights through its calls alone: autograd's graph says so. A
row of its output belongs to one example: then the row's gradient grows with that example's weight, and with no other. And no
two rows belong to the same example, as their gradients would add up before they are squared.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py and batches.py. From the book Weights that
Remember.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

if __package__:
    from .batches import copy, size
else:  # copied into a folder, without a package
    from batches import copy, size


class Unreadable(Exception):
    """Why the gradients of the examples of a batch cannot be read from the layers, as the end of a sentence."""


class Call(NamedTuple):
    """One use of a layer in a forward pass: its input a and its output, and which version of the input it was."""

    module: nn.Module
    input: Tensor | None
    output: Tensor | None
    version: int | None = None


def owners(module):
    """The smallest modules that own parameters: one that owns some itself is not looked into."""
    if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return [module]
    return list(dict.fromkeys(owner for child in module.children() for owner in owners(child)))


def forward(model, layers, inputs, copies=True):
    """The outputs of a batch, (examples, numbers), and a `Call` for every use of the layers on the way.

    The model gets a copy of them, for it may write into its inputs, and each layer hands on a copy of what is kept here, unless
    `copies` is False. It is a `batches.Asked`, or one that takes a tensor and returns such outputs.

    Raises:
        ValueError: the model returns no such outputs, or one that is not finite.
    """
    calls, own = [], {layer: list(layer.parameters()) for layer in layers}

    def keep(module, arguments, keywords, output):
        given = [*arguments, *keywords.values()]
        if not isinstance(output, Tensor):
            calls.append(Call(module, None, None))
            return output
        if output.requires_grad:
            alone = len(given) == 1 and isinstance(given[0], Tensor) and _same(own[module], module.parameters())
            calls.append(Call(module, given[0], output, _version(given[0])) if alone else Call(module, None, output))
        return output.clone() if copies else output  # what comes next may work in place, and must not write over what is kept here

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        logits = model(copy(inputs) if copies else inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if logits.shape[0] != size(inputs):
        shape = (logits.shape[0], *getattr(model, "shape", logits.shape[1:]))
        raise ValueError(f"model must return logits with the {size(inputs)} examples along the first axis; it returned a tensor of shape {shape}")
    if logits.numel() and not logits.amax() < torch.inf:  # −∞ is allowed: a class that is ruled out
        raise ValueError(
            "model returned a logit that is not finite: it overflows on these inputs, or they are not finite"
        )
    return logits, calls


def _same(before, now):
    """Whether the weights are still the same objects: in a forward pass others may be put into their place."""
    now = list(now)
    return len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True))


def _version(tensor):
    return None if tensor.is_inference() else tensor._version


def untouched(module):
    """Whether a module does what its class says: no hooks, no forward of its own, parameters that are nothing but numbers."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._has_any_global_hook()
        or {"forward", "_call_impl"} & vars(module).keys()
        or type(module).__call__ is not nn.Module.__call__
        or any(type(each) is not nn.Parameter for each in module._parameters.values() if each is not None)
    )


def of_torch(module):
    """Whether a layer is one of torch's own with nothing added: what it makes of an example is then known to be that example's."""
    return all(
        _written_by_torch(type(part)) and untouched(part) and getattr(part, "max_norm", None) is None
        for part in module.modules()
    )


def _written_by_torch(kind):
    """Whether a class and its forward pass are torch's: a function put into its place remembers where it was written."""
    written = getattr(kind.forward, "__globals__", {}).get("__name__", "")
    return kind.__module__.startswith("torch.nn.modules.") and written == kind.__module__


def plain(module, *kinds):
    """Whether a module is a layer of these kinds and nothing more: a weight, perhaps a bias, and torch's own forward pass."""
    return (
        any(type(module).forward is kind.forward and _written_by_torch(kind) for kind in kinds)
        and {name for name, _ in module.named_parameters()} <= {"weight", "bias"}
        and untouched(module)
    )


def check_uses(logits, calls, names):
    """Raise `Unreadable` unless the logits depend on parameters through these calls alone, and each call on its input and its own.

    Every way that a gradient takes is in autograd's graph: all that can be missed is what autograd misses too.
    """
    ends = {}
    for call in calls:
        if not isinstance(call.input, Tensor) or call.output.grad_fn is None:
            raise Unreadable(f"a {type(call.module).__name__} has not one tensor that goes in, one that comes out, and its own weights")
        if call.version is not None and call.version != call.input._version:
            raise Unreadable(f"the input of a {type(call.module).__name__} is written over later")
        ends.setdefault(call.output.grad_fn, []).append(call)
    left, passed = [logits.grad_fn], set()
    while left:
        parameters, reached = _behind(left, ends.keys())
        reached -= passed  # a residual connection comes by the same call at several depths
        for parameter in parameters:
            if parameter in names:
                raise Unreadable(f"{names[parameter]!r} is used outside the layer that owns it")
        passed |= reached
        left = [call.input.grad_fn for end in reached for call in ends[end]]
        for end in reached:
            for call in ends[end]:
                if call.input.grad_fn is None and call.input in names:
                    raise Unreadable(f"{names[call.input]!r} is the input of a layer")
    for call in calls:
        own, start = set(call.module.parameters()), call.output.grad_fn
        behind = [node for node, _ in start.next_functions]
        parameters, reached = _behind(behind, (ends.keys() | {call.input.grad_fn}) - {None, start})
        foreign = [each for each in parameters if each not in own and each is not call.input]
        if foreign or reached - {call.input.grad_fn}:
            raise Unreadable(f"a {type(call.module).__name__} depends on more than its input and its own parameters")


def _behind(nodes, ends):
    """The leaves that autograd reaches from these nodes, and those of `ends`, which it does not pass."""
    left, seen, leaves, reached = [node for node in nodes if node is not None], set(), [], set()
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in ends:
            reached.add(node)
        elif hasattr(node, "variable"):
            leaves.append(node.variable)
        else:
            left += [other for other, _ in node.next_functions if other is not None]
    return leaves, reached


# What makes of every number another one, whatever stands beside it.
_ELEMENTWISE = {
    f"{name}Backward0"
    for name in ("Clone", "Relu", "Tanh", "Sigmoid", "Gelu", "Silu", "LeakyRelu", "Elu", "Softplus", "Hardtanh", "Alias")
}


def straight(logits, closed):
    """Whether nothing but these plain linear layers, and functions of single numbers, lies on the way to the logits.

    Row n of every layer is then example n, and nothing has to be tried.
    """
    ends, node = {call.output.grad_fn: call.input.grad_fn for call in closed}, logits.grad_fn
    while node is not None:
        if node in ends:
            node = ends[node]
        elif node.name() in _ELEMENTWISE:
            (node,) = [other for other, _ in node.next_functions]
        else:
            return False
    return True


class Chain:
    """The backward pass of plain linear layers with a ReLU or nothing between them, written out: Wᵀδ where a > 0, layer by layer.

    What autograd does for any network, in three quarters of the time: each score's pass writes into the memory of the last one's.
    """

    def __init__(self, closed, downwards):
        self.steps = [(upper, bent, torch.empty_like(lower.output)) for (upper, _), (lower, bent) in pairwise(downwards)]
        places = {call.module: place for place, (call, _) in enumerate(downwards)}
        self.places = [places[call.module] for call in closed]

    def deltas(self, score):
        """The gradients of ⟨score, logits⟩ by the outputs of the layers; until the next ones are asked for."""
        found = [score]
        for call, bent, room in self.steps:
            torch.mm(found[-1], call.module.weight.detach(), out=room)
            if bent:
                torch.ops.aten.threshold_backward.grad_input(room, call.input.detach(), 0, grad_input=room)
            found.append(room)
        return [found[place] for place in self.places]


def chain_of(logits, closed):
    """The `Chain` that these calls are; None where something else lies on the way from the logits, or numbers change their type.

    The model has to be one of torch's layers alone: a hook that a model of one's own put on a tensor would go unseen.
    """
    ends, node, downwards = {call.output.grad_fn: call for call in closed}, _copied(logits.grad_fn), []
    while node is not None:
        bent = bool(downwards) and node.name() == "ReluBackward0"
        call = ends.get(_copied(node.next_functions[0][0]) if bent else node)
        if call is None or len({each.dtype for each in (call.input, call.module.weight, call.output, logits)}) > 1:
            return None
        downwards.append((call, bent))
        node = _copied(call.input.grad_fn)
    return Chain(closed, downwards) if len(downwards) == len(closed) else None


def _copied(node):
    """What was copied: `forward` hands on copies of what it keeps."""
    while node is not None and node.name() == "CloneBackward0":
        node = node.next_functions[0][0]
    return node


def weights_of_examples(count, like, generator, tolerance):
    """A weight for each example, (count, 1), all different; where numbers have few bits powers of 2, by which none is rounded."""
    places = torch.randperm(count, generator=generator)
    powers = places % 9 - 4 if tolerance > 1e-3 else torch.linspace(-2, 2, count, dtype=torch.float64)[places]
    return powers.to(torch.float64).exp2().to(like)[:, None]


def in_order(delta, weighted, weights, tolerance):
    """Whether row n of a layer's output belongs to example n alone.

    delta: the gradient by the output, of some cotangent of the logits; weighted: the same where each example's cotangent
    was multiplied by its weight.
    """
    if len(delta) != len(weights):
        return False
    return bool(_follows(delta.flatten(1), weighted.flatten(1), weights.to(delta), tolerance).all())


def of_different_examples(delta, weighted, weights, tolerance):
    """Whether each row of a layer's output belongs to one example, no two to the same; some examples may have none."""
    delta, weighted, known = delta.flatten(1).double(), weighted.flatten(1).double(), weights.flatten().double().sort().values
    sizes = _sizes(delta)
    there = sizes > tolerance / 100 * sizes.max() if len(sizes) else sizes > 0
    delta, weighted = delta[there], weighted[there]
    factor = (delta * weighted).sum(1) / (delta * delta).sum(1)
    place = torch.searchsorted((known[1:] * known[:-1]).sqrt(), factor)
    nearest = known[place]
    told_apart = len(known) < 2 or float((known[1:] / known[:-1]).min()) > 1 + 4 * tolerance
    right = bool(((factor / nearest - 1).abs() < tolerance).all()) and len(place.unique()) == len(place)
    return told_apart and right and bool(_follows(delta, weighted, nearest[:, None], tolerance).all())


def _follows(delta, weighted, weights, tolerance):
    """Row by row, whether the one is the other times its weight. What is far below the other rows is rounding, and its square nothing."""
    sizes = _sizes(delta)
    least = tolerance / 100 * sizes.max() if len(sizes) else 0
    return _sizes(torch.addcmul(weighted, weights, delta, value=-1)) <= weights[:, 0] * (tolerance * sizes + least)


def _sizes(rows):
    """The largest entry of each row."""
    return rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))
