# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A model as it is looked at: in eval mode, eager, without anybody's hooks on its parameters; and afterwards as it was found.

Part of fisher.py, which says more. This file needs torch and nothing else. From the book Weights that Remember.
"""

import sys
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import torch
from torch import nn


@contextmanager
def evaluated(model):
    """The model in eval mode, with gradients allowed; afterwards as it was found, whatever its eval() and train() do."""
    found = _Found(model)
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        _evaluate(model, found.own_ways)
        with ExitStack() as held:
            held.enter_context(torch.inference_mode(False))
            held.enter_context(torch.enable_grad())
            held.enter_context(_eager())
            held.enter_context(torch.random.fork_rng(found.devices))  # a model may draw in eval mode too, for nothing
            if recurrent:  # cuDNN's recurrent layers have a backward pass in training mode alone
                held.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
    finally:
        found.put_back(model)


def _evaluate(model, own_ways):
    if own_ways:
        # Some put adapters into the weights in eval mode, and take them out in train mode. An adapter that is inside has no
        # gradient: then the model is read in parts, as it is trained. Some refuse to be trained: they have no parts.
        with suppress(Exception):
            model.train(True)
        apart = _values(model)
        model.eval()
        if not _equal(_values(model), apart):
            model.train(True)
            _put(model, apart)
    else:
        model.eval()
    for module in model.modules():
        module.training = False
        if getattr(module, "_compiled_call_impl", None) is not None:  # m.compile(): hooks are not called in compiled code
            module._compiled_call_impl = None
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):  # squares of sparse gradients need no rows of their own
            module.sparse = False
    for parameter in model.parameters():
        parameter.grad = None
        parameter._backward_hooks = None
        parameter._post_accumulate_grad_hooks = None


class _Found:
    """What a model was like: the attributes of its modules, its buffers, its gradients, and hooks on its parameters."""

    def __init__(self, model):
        self.training = model.training
        self.own_ways = any(
            type(module).train is not nn.Module.train
            or type(module).eval is not nn.Module.eval
            or {"train", "eval"} & vars(module).keys()
            for module in model.modules()
        )
        self.attributes = _attributes(model)
        tensors = [*model.buffers(), *model.parameters()]  # an nn.Embedding(max_norm=…) shortens its rows when it is called
        self.values = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self.devices = list({tensor.device for tensor in tensors if tensor.is_cuda})
        self.parameters = [
            (parameter, parameter.grad, parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
            for parameter in model.parameters()
        ]

    def put_back(self, model):
        if self.own_ways:  # in its own way first: what it did may be noted where nobody else would look
            model.train(True) if self.training else model.eval()
        _restore(self.attributes)
        for tensor, value in self.values:
            if not torch.equal(tensor, value):
                tensor.data.copy_(value)
        for parameter, gradient, hooks, after in self.parameters:
            parameter.grad = gradient
            parameter._backward_hooks = hooks
            parameter._post_accumulate_grad_hooks = after


@contextmanager
def keeping_nothing(model):
    """Afterwards the model has forgotten what it kept of a pass: outside torch.vmap nobody can use what was made inside."""
    attributes = _attributes(model)
    try:
        yield
    finally:
        _restore(attributes)


def _attributes(model):
    """Every module with its attributes, and what its three tables held."""
    return [
        (module, dict(vars(module)), {key: dict(vars(module)[key]) for key in ("_parameters", "_buffers", "_modules")})
        for module in model.modules()
    ]


def _restore(attributes):
    for module, values, tables in attributes:
        own = vars(module)
        for key in own.keys() - values.keys():
            del own[key]
        own.update(values)
        for key, entries in tables.items():
            own[key].clear()
            own[key].update(entries)


def _values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def _put(model, values):
    for name, parameter in model.named_parameters():
        if name in values and parameter.shape == values[name].shape:
            parameter.data.copy_(values[name])


def _eager():
    """No compiled code while it lasts: `torch.compile` would not see our hooks. Where it was never used there is nothing to do."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def full_precision():
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


def rounding(*tensors):
    """The share of its largest entry by which a result may be off that was computed in another order, or another precision.

    tensors: the result, and what it was computed from. The one with the fewest bits counts.
    """
    kinds = {(tensor.dtype, tensor.device): tensor for tensor in tensors if tensor.is_floating_point()}
    return max(map(_rounding, kinds.values()))


def _rounding(tensor):
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return 4 * torch.finfo(tensor.dtype).eps
    if tensor.dtype == torch.float64:
        return 1e-7
    try:
        full = torch.get_float32_matmul_precision() == "highest"
        full = full and (_on_cpu(tensor) or not torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        full = False
    return 1e-4 if full else 2e-2


def _on_cpu(tensor):
    return tensor.device.type == "cpu"
