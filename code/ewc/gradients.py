# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The gradient of every single example of a batch, by the parameters of a network, from one backward pass of all.

A linear layer y = Wa + b has the gradient δaᵀ for one example, with a its input and δ the gradient by its output, so the
squares sum to one matrix product, Σₙ (δₙaₙᵀ)² = (δ²)ᵀ(a²). Where a weight is used many times for one example, the layer's own
backward pass, vectorised over the examples, forms each example's gradient.

Part of fisher.py, which says more. This file needs torch and nothing else. From the book Weights that Remember.
"""

import warnings
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

# Gradients of single examples are formed this many numbers at a time: 64 MiB in float32.
_NUMBERS_AT_ONCE = 2**24


class Call(NamedTuple):
    """One use of a layer in a forward pass: its input a and its output, both with the examples along the first axis."""

    module: nn.Module
    input: Tensor | None
    output: Tensor | None


def forward(model, layers, inputs):
    """The logits of these inputs, and a `Call` for every use of the layers on the way.

    Raises:
        ValueError: the model returns no logits, one that is not finite, or ones that do not depend on its parameters.
    """
    calls = []

    def keep(module, arguments, keywords, output):
        if not isinstance(output, Tensor):
            calls.append(Call(module, None, None))
            return output
        if output.requires_grad:
            calls.append(Call(module, arguments[0] if len(arguments) == 1 and not keywords else None, output))
        return output.clone()  # what comes next may work in place, and must not write over the output kept here

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        logits = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != len(inputs) or logits.shape[1] < 2:
        found = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model must return logits of shape ({len(inputs)} examples, 2 or more classes); it returned {found}"
        )
    if not (logits < torch.inf).all():  # −∞ is allowed: a class that is ruled out
        raise ValueError(
            "model returned a logit that is not finite: it overflows on these inputs, or they are not finite"
        )
    if not logits.requires_grad:
        raise ValueError(
            "model returned logits that do not depend on its parameters: was it run under torch.no_grad()?"
        )
    return logits, calls


def layers_to_read(model, inputs):
    """The smallest modules whose inputs and output scores give every example's gradient; else the model as one.

    Each layer is tried on one example and on two: the examples must lie along the first axis, unmixed and in order, and
    the gradient put together from the layers must be the model's own. Weights used outside their module fail that test.
    """
    with _full_precision():  # with fewer bits one example and two may seem to give different outputs
        return _tried(model, inputs)


def _tried(model, inputs):
    try:
        layers = _owners(model)
        # Beside the first example one that differs from it, or else its mean with its neighbour is itself.
        other = int((inputs[:1024] != inputs[0]).reshape(min(len(inputs), 1024), -1).any(1).int().argmax())
        first = forward(model, layers, inputs[:1])
        pair = forward(model, layers, inputs[[0, other]])
    except ValueError as error:
        if "more than 1 value per channel" in str(error):  # a BatchNorm that takes its statistics from the batch
            raise ValueError(
                f"model cannot take one example alone: it mixes the examples of a batch ({error})"
            ) from error
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"inputs of shape {tuple(inputs.shape)} and type {inputs.dtype} do not fit the model: {error}"
        ) from error
    if not _close(first[0].nan_to_num(neginf=0), pair[0][:1].nan_to_num(neginf=0)):
        raise ValueError(
            "model gives an example another output when a second one stands beside it: it mixes the examples of a batch"
        )
    return layers if _layers_give_gradient(model, first, pair) else [model]


def _owners(module):
    if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return [module]
    return [owner for child in module.children() for owner in _owners(child)]


def _layers_give_gradient(model, first, pair):
    (logits, calls), (_, doubled) = first, pair
    if not calls or len(calls) != len(doubled):
        return False
    for call, double in zip(calls, doubled, strict=True):
        if not isinstance(call.input, Tensor) or not isinstance(double.input, Tensor):
            return False
        for one, two in ((call.input, double.input), (call.output, double.output)):
            if one.ndim < 1 or len(one) != 1 or len(two) != 2 or not _close(one, two[:1]):
                return False
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    direction = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device).expand_as(logits)
    wanted = torch.autograd.grad(
        logits, [*names, *(call.output for call in calls)], direction, allow_unused=True, materialize_grads=True
    )
    ((found, _),) = example_gradients(calls, wanted[len(names) :], names, torch.ones_like(logits[:, :1]))
    return all(
        _close(found.get(name, torch.zeros_like(own)[None])[0], own)
        for name, own in zip(names.values(), wanted, strict=False)
    )


def _close(first, second):
    # Of numbers with few bits some are rounded to the neighbour when a GPU adds in another order.
    tolerance = 4 * torch.finfo(first.dtype).eps if first.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= tolerance * second.abs().max() + torch.finfo(torch.float32).tiny)


@contextmanager
def _full_precision():
    """Products and convolutions of float32 in float32, where TF32 or bfloat16 were allowed for the sake of speed.

    A GPU convolves in TF32, with ten bits, unless it is told otherwise.
    """
    try:
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody has used torch's newer names for the same, and then the older ones cannot be read
        cuda, cudnn, mkldnn = (getattr(torch.backends, name) for name in ("cuda", "cudnn", "mkldnn"))
        places = [cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv]
        before = [place.fp32_precision for place in places]
        for place in places:
            place.fp32_precision = "ieee"
        try:
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.fp32_precision = value
        return
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def closed_and_general(calls):
    """Split the calls into those where (δ²)ᵀ(a²) holds, plain linear layers used once for an example, and the others."""
    uses = [parameter for call in calls for parameter in call.module.parameters()]
    closed = [
        call
        for call in calls
        if type(call.module).forward is nn.Linear.forward
        and {name for name, _ in call.module.named_parameters()} <= {"weight", "bias"}
        and call.input.ndim == 2
        and all(sum(parameter is use for use in uses) == 1 for parameter in call.module.parameters())
    ]
    return closed, [call for call in calls if not any(call is other for other in closed)]


def add_linear(fisher, names, module, square, input_square):
    """Add Σₙ (δ²)ᵀ(a²), from the two squares (examples, outputs) and (examples, inputs), to what the layer's weight and bias have."""
    if module.weight in names:
        fisher[names[module.weight]] += square.T @ input_square.to(square.dtype)
    if module.bias is not None and module.bias in names:
        fisher[names[module.bias]] += square.sum(0)


def example_gradients(calls, deltas, names, probability):
    """Yield, for a few examples at a time, each parameter's gradient example by example (n, *shape) and their weights (n,).

    Every use of a parameter adds to its gradient before anything is squared.
    """
    if not calls:
        return
    used = {parameter for call in calls for parameter in call.module.parameters() if parameter in names}
    step = max(1, _NUMBERS_AT_ONCE // max(1, sum(parameter.numel() for parameter in used)))
    for start in range(0, len(probability), step):
        chunk = slice(start, start + step)
        gradients = {}
        for call, delta in zip(calls, deltas, strict=True):
            for parameter, gradient in _backward_through(call.module, call.input[chunk].detach(), delta[chunk]).items():
                gradients[names[parameter]] = gradients.get(names[parameter], 0) + gradient
        yield gradients, probability[chunk, 0]


def _backward_through(module, inputs, deltas):
    """Each example's gradient of ⟨δ, module(a)⟩ by the module's parameters: its backward pass, vectorised over examples."""
    # Every place that holds a parameter, each module once: a weight that two modules share has two names and one value.
    places = {
        f"{path}.{name}" if path else name: parameter
        for path, part in module.named_modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.requires_grad
    }

    def output(values, example):
        return functional_call(
            module,
            {place: values[parameter] for place, parameter in places.items()},
            (example[None],),
            tie_weights=False,
        )

    def gradient_of_one(example, delta):
        _, backward = vjp(lambda values: output(values, example), {p: p.detach() for p in places.values()})
        return backward(delta[None])[0]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")  # still exact
        try:
            return vmap(gradient_of_one)(inputs, deltas)
        except RuntimeError:  # a layer that torch cannot vectorise, an LSTM for one: example by example, slow and exact
            each = [gradient_of_one(example, delta) for example, delta in zip(inputs, deltas, strict=True)]
            return {parameter: torch.stack([gradient[parameter] for gradient in each]) for parameter in each[0]}


@contextmanager
def evaluated(model):
    """The model in eval mode, with gradients allowed; every module's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    cudnn = torch.backends.cudnn.enabled
    model.eval()
    if any(isinstance(module, nn.RNNBase) for module in modes):  # cuDNN's recurrent layers have a backward pass in training mode alone
        torch.backends.cudnn.enabled = False
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        for module, mode in modes.items():
            module.training = mode


def zeros(shape, like):
    """Zeros beside `like`, in at least float32: small numbers are summed over many examples."""
    return torch.zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
