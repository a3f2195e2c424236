# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The ways to the gradients of a batch's examples, from the fastest to the one that is always right.

The layers' inputs and output scores give them at once where that holds (calls.py). Where it does not, the backward pass of the
whole model is vectorised over the examples. And where torch cannot do that, or what comes out is not autograd's own gradient,
autograd goes through the examples one by one. Each finds out whether it is right for the batch, or raises `calls.Unreadable`.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py, mixing.py, calls.py, gradients.py,
places.py, batches.py and evaluating.py. From the book Weights that Remember.
"""

from itertools import chain, islice

import torch
from torch import nn

if __package__:
    from . import gradients
    from .batches import size
    from .calls import (
        Call,
        Unreadable,
        chain_of,
        check_uses,
        in_order,
        of_different_examples,
        of_torch,
        plain,
        straight,
        weights_of_examples,
    )
    from .evaluating import full_precision
    from .gradients import plain_gradient, vectorised
    from .mixing import apart, tolerance_of
else:  # copied into a folder, without a package
    import gradients
    from batches import size
    from calls import (
        Call,
        Unreadable,
        chain_of,
        check_uses,
        in_order,
        of_different_examples,
        of_torch,
        plain,
        straight,
        weights_of_examples,
    )
    from evaluating import full_precision
    from gradients import plain_gradient, vectorised
    from mixing import apart, tolerance_of


class FromLayers:
    """The gradients of a batch from the inputs and output scores of its layers.

    closed: the calls of plain linear layers for which (δ²)ᵀ(a²) holds; the others are formed example by example.
    in_order: whether all layers see the examples as the batch has them.
    only: the one score that is asked for, where it is one: then the rows are tried with it, and its backward pass is done once.
    known: whether the model is known to take every example by itself (`mixing.row_by_row`); no row is tried then.
    """

    how = "from the layers"

    def __init__(self, model, inputs, logits, calls, names, generator, only=None, known=False):
        self.model, self.logits, self.names, self.generator = model, logits, names, generator
        self.tried, self.of_tried, self.known = only, None, known
        for module in model.modules():
            if module._backward_hooks or module._backward_pre_hooks:  # it may do another thing to many examples than to one
                raise Unreadable(f"a backward hook changes the gradients that pass a {type(module).__name__}")
        check_uses(logits, calls, names)
        self.closed, self.groups = closed_and_general(calls)
        self.calls = [*self.closed, *(call for group in self.groups for call in group)]
        self.outputs = [call.output for call in self.calls]
        self.chain = None
        try:
            with full_precision():
                self._check_rows()
        except Unreadable:
            raise
        except Exception as error:  # autograd's, of checkpoints for one; or a layer's own, which wants what its model gave it
            raise Unreadable(_said(error)) from error

    def _check_rows(self):
        self.in_order = True
        if self.known or (not self.groups and straight(self.logits, self.closed)):
            return
        if self.tried is None:
            self.tried = _direction(self.logits, self.generator)
        direction, tolerance = self.tried, tolerance_of(self.model, self.logits, self.calls)
        weights = weights_of_examples(len(direction), self.logits, self.generator, tolerance)
        deltas, weighted = self.deltas(direction), self.deltas(weights * direction)
        self.of_tried = deltas
        together = {id(call) for group in self.groups if len(group) > 1 for call in group}
        for call, *both in zip(self.calls, deltas, weighted, strict=True):
            if call.input.ndim < 1 or call.output.ndim < 2:
                raise Unreadable(f"a {type(call.module).__name__} is used on one row without an axis of examples")
            ordered = in_order(*both, weights, tolerance)
            self.in_order = self.in_order and ordered
            known = ordered or (id(call) not in together and of_different_examples(*both, weights, tolerance))
            if len(call.input) != len(call.output) or not known:
                raise Unreadable(f"a row of a {type(call.module).__name__} is not one example's, or not the only one of its example")
        for group, own in self._groups_of(deltas):
            if not all(of_torch(call.module) for call in group):
                parameters = list(dict.fromkeys(each for call in group for each in call.module.parameters() if each in self.names))
                _check_sum(self.logits, direction, parameters, vectorised(group, [own], self.names), self.names, tolerance)

    def check_sum(self):
        """Hold all parameters to autograd's own gradient: a function of torch's that was replaced for all shows here."""
        direction, tolerance = _direction(self.logits, self.generator), tolerance_of(self.model, self.logits, self.calls)
        try:
            with full_precision():
                deltas = self.deltas(direction)
                found = [_of_closed(call, delta, self.names) for call, delta in zip(self.closed, deltas, strict=False)]
                others = (part for group, own in self._groups_of(deltas) for part in vectorised(group, [own], self.names))
                _check_sum(self.logits, direction, list(self.names), chain(found, others), self.names, tolerance)
        except RuntimeError as error:
            raise Unreadable(_said(error)) from error

    def deltas(self, score):
        """The gradients of ⟨score, logits⟩ by the outputs of `calls`; those of what the rows were tried with are there already."""
        if self.of_tried is not None and score is self.tried:
            return self.of_tried
        return torch.autograd.grad(self.logits, self.outputs, score, retain_graph=True, materialize_grads=True)

    def write_out(self):
        """From now on without autograd where that can be; the model has to be one of torch's layers alone (`mixing.row_by_row`)."""
        self.chain = None if self.groups else chain_of(self.logits, self.closed)

    def _groups_of(self, deltas):
        left = iter(deltas[len(self.closed) :])
        return [(group, list(islice(left, len(group)))) for group in self.groups]

    def passes(self, scores):
        """For each score of the logits the δ of the closed calls, and the other parameters' gradients, a few examples at a time.

        The δ hold until the next ones are asked for. Those others come for several scores together, with the last of them: what a
        layer does with its input is then done once.
        """
        scores, closed = iter(scores), len(self.closed)
        general = sum(output.numel() for output in self.outputs[closed:])
        at_once = max(1, 2 * gradients.numbers_at_once(self.logits.device) // general) if general else 1
        while some_scores := list(islice(scores, at_once)):
            several = []
            for place, score in enumerate(some_scores, 1):
                deltas = self.deltas(score) if self.chain is None else self.chain.deltas(score)
                several.append(deltas[closed:])
                yield deltas[:closed], self._others(several) if place == len(some_scores) else ()

    def _others(self, several):
        start = 0
        for group in self.groups:
            own = [deltas[start : start + len(group)] for deltas in several]
            start += len(group)
            yield from vectorised(group, own, self.names)


class FromModel:
    """The gradients of a batch from the backward pass of the whole model, vectorised over the examples."""

    closed, how = (), "by the whole model's backward pass, vectorised over the examples"

    def __init__(self, model, inputs, logits, calls, names, generator, only=None, known=False):
        self.logits, self.names, self.calls = logits, names, [Call(model, inputs, logits)]
        direction, tolerance = _direction(logits, generator), tolerance_of(model, logits, calls)
        try:
            with full_precision():
                found = vectorised(self.calls, [[direction]], names)
                _check_sum(logits, direction, list(names), found, names, tolerance)
        except Unreadable:
            raise
        except Exception as error:  # whatever torch cannot vectorise; what is wrong with the model itself comes up without it
            raise Unreadable(_said(error)) from error

    def passes(self, scores):
        """As `FromLayers.passes`, with no closed call."""
        for score in scores:
            yield (), vectorised(self.calls, [[score]], self.names)


class OneByOne:
    """The gradients of a batch by autograd, one example after the other: slow, and right for all that it can differentiate."""

    closed, how = (), "example by example"

    def __init__(self, model, inputs, logits, calls, names, generator, only=None, known=False):
        self.model, self.inputs, self.logits, self.names = model, inputs, logits, names
        self.tolerance = tolerance_of(model, logits, calls)
        with full_precision():
            _linear_gradient(logits, list(names), _direction(logits, generator), self.tolerance)

    def passes(self, scores):
        """As `FromLayers.passes`, with no closed call."""
        scores = iter(scores)
        step = max(1, gradients.numbers_at_once(self.logits.device) // self.logits.numel())
        while some := list(islice(scores, step)):
            yield (), self._gradients(some)

    def _gradients(self, scores):
        for place in range(size(self.inputs)):
            logits = apart(self.model, self.inputs, self.logits, slice(place, place + 1), self.tolerance)
            for score in scores:
                if score[place].any() and logits.requires_grad:
                    found = plain_gradient(logits, list(self.names), score[place : place + 1])
                    yield {name: value[None] for name, value in zip(self.names.values(), found, strict=True)}


class Unused:
    """A batch none of whose logits depends on a parameter: all its gradients are 0."""

    closed, calls, in_order = (), (), False

    def __init__(self, logits):
        self.logits = logits

    def passes(self, scores):
        """As `FromLayers.passes`, with nothing."""
        for _ in scores:
            yield (), ()


WAYS = (FromLayers, FromModel, OneByOne)


def closed_and_general(calls):
    """Split the calls into those where (δ²)ᵀ(a²) holds, plain linear layers used once, and groups of the others.

    The calls of a group share a parameter, whose uses add up before anything is squared.
    """
    uses = [parameter for call in calls for parameter in call.module.parameters()]
    closed, groups = [], []
    for call in calls:
        own = set(call.module.parameters())
        if plain(call.module, nn.Linear) and call.input.ndim == 2 and all(sum(p is use for use in uses) == 1 for p in own):
            closed.append(call)
            continue
        shared = [group for group in groups if any(own & set(other.module.parameters()) for other in group)]
        groups = [group for group in groups if group not in shared] + [[call for group in shared for call in group] + [call]]
    return closed, groups


def _direction(logits, generator):
    """A cotangent like no other, for trying; 0 where a class is ruled out."""
    direction = torch.randn(logits.shape, generator=generator).to(logits)
    return direction.masked_fill_(logits.isneginf(), 0)


def _of_closed(call, delta, names):
    """The gradient of a plain linear layer's parameters, summed over the examples."""
    module = call.module
    found = {module.weight: delta.T @ call.input.detach().to(delta.dtype)} | ({} if module.bias is None else {module.bias: delta.sum(0)})
    return {names[parameter]: gradient[None] for parameter, gradient in found.items() if parameter in names}


def _check_sum(logits, direction, parameters, found, names, tolerance):
    """Raise `Unreadable` unless the gradients found example by example sum to autograd's own of the whole batch."""
    sums = {}
    for part in found:
        for name, gradient in part.items():
            sums[name] = sums.get(name, 0) + gradient.detach().to_dense().sum(0, dtype=torch.promote_types(gradient.dtype, torch.float32))
    own = dict(zip((names[each] for each in parameters), _linear_gradient(logits, parameters, direction, tolerance), strict=True))
    for (name, value), allowed in zip(own.items(), _allowed(own.values(), tolerance), strict=True):
        off = (sums.get(name, torch.zeros_like(value)) - value).abs()
        if value.numel() and not float(off.max()) <= allowed:
            raise Unreadable(f"the gradient of {name!r} so found is not autograd's own")


def _linear_gradient(logits, parameters, direction, tolerance):
    """Autograd's own gradient; an error where a share of a cotangent has not that share of it, as where a hook cuts off what is large.

    Scores are weighted before they go backward, so they must come back as multiples.
    """
    own = plain_gradient(logits, parameters, direction)
    if any(each.dtype == torch.float16 for each in (logits, *parameters)):  # where a share of a small number is 0
        return own
    share = 2.0**-6
    parts = plain_gradient(logits, parameters, share * direction)
    # What overflows is no number and compares with none: it is told of where the Fisher is found not to be finite.
    for whole, part, allowed in zip(own, parts, _allowed(own, tolerance), strict=True):
        if not bool((~((part / share - whole).abs() > allowed)).all()):
            raise ValueError(
                "model changes its gradients on their way by more than a factor, as a hook does that clips them: they are then no gradients "
                "of its output, and their squares no Fisher information. Take the hook away meanwhile"
            )
    return own


def _allowed(gradients, tolerance):
    """How far each gradient may be off: the tolerance times its largest number and a tenth of the largest of all."""
    sizes = [float(each.abs().max()) if each.numel() else 0.0 for each in gradients]
    return [tolerance * (size + max(sizes) / 10) for size in sizes]


def _said(error):
    return f"torch says: {str(error).strip().partition(chr(10))[0]}"
