"""Fisher information of a classifier at its parameters: how sharply its own predictions pin each weight down.

For a network that returns logits, p(y|x,θ) is their softmax and the score of a label is s(x, y) = ∂ log p(y|x,θ) / ∂θ.
The Fisher information is the mean square of the score, over the inputs and over labels drawn from the network itself:

    F = 1/N Σ_n Σ_c p(c|xₙ,θ) s(xₙ, c) s(xₙ, c)ᵀ          (full, P × P)
    Fᵢ = 1/N Σ_n Σ_c p(c|xₙ,θ) sᵢ(xₙ, c)²                  (its diagonal)

Both are means per example: multiply by N for the information in N examples. Between the two stands, layer by layer, a
Kronecker product of two small matrices, one for what goes into the layer and one for what its output is worth (KFAC).

No gradient is ever formed for one example at a time. A linear layer y = Wa + b has the score δaᵀ for one example, where
δ is the score of the layer's output, so the squares sum to one matrix product, Σₙ (δₙaₙᵀ)² = (δ²)ᵀ(a²) (Goodfellow 2015,
arXiv 1510.01799). Where a weight is used many times for one example (convolutions, tokens, shared weights) that identity
does not hold, because the uses add up before the square: there the layer's own backward pass, vectorised over the
examples, forms each example's gradient, and then it is squared.

This file needs torch and nothing else. MIT licence; from the book Weights that Remember.
"""

import warnings
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

LABELS = ("exact", "sampled", "empirical", "argmax")
SHARING = ("expand", "reduce")

# Gradients of single examples are formed this many numbers at a time: 64 MiB in float32.
_NUMBERS_AT_ONCE = 2**24


def diagonal_fisher(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    labels: str = "exact",
    samples: int = 1,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Mean over examples of the squared score, one number a parameter: Fᵢ = 1/N Σ_n E_y[ (∂ log p(y|xₙ,θ) / ∂θᵢ)² ].

    The labels y over which the expectation is taken:

    - ``"exact"``      all classes, each weighted by the model's own probability for it. The Fisher information.
    - ``"sampled"``    `samples` labels an example, drawn from the model. Right on average, noisy.
    - ``"empirical"``  the given `targets`. Not the Fisher information: it vanishes where the model fits its data.
    - ``"argmax"``     the class that the model finds most probable. Biased low; here to be compared.

    Args:
        model: returns logits of shape (examples, classes); evaluated in eval mode and left as it was.
        inputs: N examples along the first axis, on the model's device.
        targets: N class indices; used by ``"empirical"`` alone.
        samples: labels drawn an example, for ``"sampled"``.
        batch_size: examples in memory at once. It changes the speed, not the result.
        generator: source of the draws for ``"sampled"``, on the CPU.

    Returns:
        One tensor a parameter that requires grad, keyed and shaped as ``model.named_parameters()``; non-negative; scale:
        a mean per example; detached; at least float32.

    Cost: one forward pass and, for ``"exact"``, one backward pass a class without its weight products.

    Raises:
        ValueError: an argument is not what it may be, the model mixes the examples of a batch, or a value is not finite.
        TypeError: inputs or targets are no tensors.

    Follows Martens (2020), New insights and perspectives on the natural gradient method, JMLR 21(146), sections 5 and 11.
    """
    draws = _check(model, inputs, targets, labels, samples, batch_size, generator)
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    fisher = {name: _zeros(parameter.shape, parameter) for parameter, name in names.items()}
    with _evaluated(model):
        layers = _layers_to_read(model, inputs)
        for batch in torch.arange(len(inputs), device=inputs.device).split(batch_size):
            logits, calls = _forward(model, layers, inputs[batch])
            closed, general = _closed_and_general(calls)
            outputs = [call.output for call in closed + general]
            squares = [_zeros(call.output.shape, call.output) for call in closed]
            for probability, score in _labels_and_scores(
                logits.detach(), labels, _at(targets, batch), _at(draws, batch)
            ):
                deltas = torch.autograd.grad(logits, outputs, score, retain_graph=True, materialize_grads=True)
                for square, delta in zip(squares, deltas, strict=False):
                    square += probability * delta**2  # E over labels of δ², before the one product with a²
                for gradients, weight in _example_gradients(general, deltas[len(closed) :], names, probability):
                    for name, gradient in gradients.items():
                        fisher[name] += torch.einsum("n,n...->...", weight, gradient.to(weight.dtype) ** 2)
            for call, square in zip(closed, squares, strict=True):
                _add_linear(fisher, names, call.module, square, call.input.detach() ** 2)
    fisher = {name: total / len(inputs) for name, total in fisher.items()}
    for name, value in fisher.items():
        if not value.isfinite().all():
            raise ValueError(f"the Fisher information of {name!r} is not finite: the model overflows on these inputs")
    return fisher


def full_fisher(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    labels: str = "exact",
    samples: int = 1,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The whole matrix F = 1/N Σ_n E_y[ s sᵀ ], for models small enough to hold P × P numbers.

    Arguments, scale and errors as in `diagonal_fisher`, whose values are this matrix's diagonal.

    Returns:
        (P, P), symmetric, positive semi-definite; rows and columns in the order of
        ``torch.nn.utils.parameters_to_vector`` over the parameters that require grad.
    """
    draws = _check(model, inputs, targets, labels, samples, batch_size, generator)
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    size = sum(parameter.numel() for parameter in names)
    fisher = _zeros((size, size), next(iter(names)))
    with _evaluated(model):
        _layers_to_read(model, inputs)  # for its checks
        for batch in torch.arange(len(inputs), device=inputs.device).split(batch_size):
            logits, calls = _forward(model, [model], inputs[batch])
            for probability, score in _labels_and_scores(
                logits.detach(), labels, _at(targets, batch), _at(draws, batch)
            ):
                for gradients, weight in _example_gradients(calls, [score], names, probability):
                    scores = torch.cat([gradients[name].flatten(1) for name in names.values()], 1).to(weight.dtype)
                    fisher += scores.T @ (weight[:, None] * scores)
    return fisher / len(inputs)


class KroneckerFactors(NamedTuple):
    """The Fisher information of one layer as a Kronecker product, F ≈ B ⊗ A, and where its weights stand in the model.

    With m outputs and k inputs, one more if the layer has a bias: its input a then ends in a constant 1, and the matrix
    [W | b] holds weights and bias. ``torch.kron(outputs, inputs)`` is the block of the full Fisher whose rows and columns
    are ``places.flatten()``.
    """

    outputs: Tensor  # B, (m, m): the mean of δδᵀ over examples and labels, δ the score of the layer's output
    inputs: Tensor  # A, (k, k): the mean of aaᵀ over examples
    places: Tensor  # (m, k): the place of each entry of [W | b] in the order of full_fisher


def kronecker_fisher(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    labels: str = "exact",
    samples: int = 1,
    sharing: str = "expand",
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
) -> dict[str, KroneckerFactors]:
    """The layers' blocks of F as products of two means: F_layer = E[ δδᵀ ⊗ aaᵀ ] ≈ E[ δδᵀ ] ⊗ E[ aaᵀ ] = B ⊗ A.

    The mean of a product is replaced by the product of the means. That is exact for one example, for inputs a that do not
    vary, and wherever δδᵀ and aaᵀ are uncorrelated. What lies between two layers is left out.

    A convolution uses each of its weights at R places (r) of an image, a linear layer on tokens at R tokens; its score is
    the sum Σ_r δ_r a_rᵀ. How the uses enter, with E over examples and labels:

    - ``"expand"``  A = E[Σ_r a_r a_rᵀ],  B = 1/R E[Σ_r δ_r δ_rᵀ]: as if the uses were uncorrelated (Grosse & Martens 2016).
    - ``"reduce"``  A = E[āāᵀ] with ā = 1/R Σ_r a_r,  B = E[δ̄δ̄ᵀ] with δ̄ = Σ_r δ_r (Eschenhagen et al. 2023).

    For R = 1 both are the factors above.

    Args:
        model: all its parameters that require grad belong to nn.Linear and nn.Conv2d, each used once in a forward pass.
        sharing: ``"expand"`` or ``"reduce"``; for layers used once an example they are the same.
        Others as in `diagonal_fisher`.

    Returns:
        One pair of factors a layer, keyed by its name in ``model.named_modules()``; a convolution with groups is as many
        layers as it has groups, ``name[0]``, ``name[1]`` and so on. Symmetric, positive semi-definite; scale: their product is a
        mean per example; detached; at least float32.

    Raises:
        ValueError: as `diagonal_fisher`, or a layer is of another kind, or used more than once; the message names it.
        TypeError: inputs or targets are no tensors.

    Follows Martens & Grosse (2015), Optimizing neural networks with Kronecker-factored approximate curvature, arXiv
    1503.05671, section 3; Grosse & Martens (2016), arXiv 1602.01407, section 3; Eschenhagen et al. (2023), arXiv 2311.00636.
    """
    draws = _check(model, inputs, targets, labels, samples, batch_size, generator)
    if sharing not in SHARING:
        raise ValueError(f"sharing is {sharing!r}; it may be one of {', '.join(map(repr, SHARING))}")
    names = _factored_layers(model)
    with _evaluated(model):
        if set(_layers_to_read(model, inputs)) != names.keys():
            raise ValueError(
                "model uses a weight outside the layer that owns it, or not example by example: its layers' inputs and "
                "output scores do not give its gradient"
            )
        places = _places(model, names)
        shapes = [(layer, *place.shape) for layer, place in places.items()]
        of_outputs = {layer: _zeros((groups, m, m), layer.weight) for layer, groups, m, _ in shapes}
        of_inputs = {layer: _zeros((groups, k, k), layer.weight) for layer, groups, _, k in shapes}
        for batch in torch.arange(len(inputs), device=inputs.device).split(batch_size):
            logits, calls = _forward(model, names, inputs[batch])
            for place, call in enumerate(calls):
                if any(call.module is other.module for other in calls[:place]):
                    raise ValueError(
                        f"layer {names[call.module]!r} is used more than once in a forward pass; its scores add up before "
                        "they are squared, and Kronecker factors do not hold them: use diagonal_fisher or full_fisher"
                    )
            outputs = [call.output for call in calls]
            for layer, layer_input, _ in calls:
                a = _uses_of_input(layer, layer_input.detach(), sharing)
                of_inputs[layer].baddbmm_(a.mT, a)  # A += Σ aaᵀ
            for probability, score in _labels_and_scores(
                logits.detach(), labels, _at(targets, batch), _at(draws, batch)
            ):
                deltas = torch.autograd.grad(logits, outputs, score, retain_graph=True, materialize_grads=True)
                for (layer, _, _), delta in zip(calls, deltas, strict=True):
                    d = _uses_of_output(layer, delta, probability, sharing)
                    of_outputs[layer].baddbmm_(d.mT, d)  # B += Σ p δδᵀ
    found = {}
    for layer, groups in places.items():
        for group, place in enumerate(groups):
            name = names[layer] if len(groups) == 1 else f"{names[layer]}[{group}]"
            b, a = of_outputs[layer][group], of_inputs[layer][group]
            found[name] = KroneckerFactors(b / len(inputs), a / len(inputs), place)
    for name, factor in found.items():
        if not (factor.outputs.isfinite().all() and factor.inputs.isfinite().all()):
            raise ValueError(f"the Kronecker factors of {name!r} are not finite: the model overflows on these inputs")
    return found


def _labels_and_scores(logits, labels, targets, draws):
    """Yield, label by label, its weight in the expectation (batch, 1) and the score of the logits e_y − p (batch, classes).

    ∂ log softmax(z)_y / ∂z = e_y − p, with e_y the one-hot vector of y and p the probabilities.
    """
    p = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    classes = p.shape[1]
    one = torch.ones_like(p[:, :1])
    if labels == "exact":
        drawn = [(p[:, [c]], torch.full_like(p[:, 0], c, dtype=torch.long)) for c in range(classes)]
    elif labels == "sampled":  # the class in whose stretch of [0, 1) the draw falls
        drawn = [(one / draws.shape[1], (p.cumsum(-1) < u[:, None]).sum(-1).clamp(max=classes - 1)) for u in draws.T]
    elif labels == "argmax":
        drawn = [(one, p.argmax(-1))]
    else:
        if not ((targets >= 0) & (targets < classes)).all():
            found = f"{targets.min().item()} to {targets.max().item()}"
            raise ValueError(f"targets runs from {found}; the model's classes are 0 to {classes - 1}")
        drawn = [(one, targets.long())]
    for probability, label in drawn:
        score = nn.functional.one_hot(label, classes) - p
        yield probability, score.to(logits.dtype)


class _Call(NamedTuple):
    """One use of a layer in a forward pass: its input a and its output, both with the examples along the first axis."""

    module: nn.Module
    input: Tensor | None
    output: Tensor | None


def _forward(model, layers, inputs):
    calls = []

    def keep(module, arguments, keywords, output):
        if not isinstance(output, Tensor):
            calls.append(_Call(module, None, None))
            return output
        if output.requires_grad:
            calls.append(_Call(module, arguments[0] if len(arguments) == 1 and not keywords else None, output))
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


def _layers_to_read(model, inputs):
    """The smallest modules whose inputs and output scores give every example's gradient; else the model as one.

    Each layer is tried on one example and on two: the examples must lie along the first axis, unmixed and in order, and
    the gradient put together from the layers must be the model's own. Weights used outside their module fail that test.
    """
    try:
        layers = _owners(model)
        # Beside the first example one that differs from it, or else its mean with its neighbour is itself.
        other = int((inputs[:1024] != inputs[0]).reshape(min(len(inputs), 1024), -1).any(1).int().argmax())
        first = _forward(model, layers, inputs[:1])
        pair = _forward(model, layers, inputs[[0, other]])
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
    ((found, _),) = _example_gradients(calls, wanted[len(names) :], names, torch.ones_like(logits[:, :1]))
    return all(
        _close(found.get(name, torch.zeros_like(own)[None])[0], own)
        for name, own in zip(names.values(), wanted, strict=False)
    )


def _close(first, second):
    tolerance = 1e-3 if first.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= tolerance * second.abs().max() + torch.finfo(torch.float32).tiny)


def _closed_and_general(calls):
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


def _add_linear(fisher, names, module, square, input_square):
    if module.weight in names:
        fisher[names[module.weight]] += square.T @ input_square.to(square.dtype)
    if module.bias is not None and module.bias in names:
        fisher[names[module.bias]] += square.sum(0)


def _example_gradients(calls, deltas, names, probability):
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


def _factored_layers(model):
    """The layers that own parameters, with their names; an error that names those that have no Kronecker factors."""
    names, unfit, owners = {}, [], {}
    for name, module in model.named_modules():
        own = {key: value for key, value in module.named_parameters(recurse=False) if value.requires_grad}
        plain = type(module).forward in (nn.Linear.forward, nn.Conv2d.forward) and own.keys() <= {"weight", "bias"}
        if own and not plain:
            unfit.append(f"{name or 'the model itself'} ({type(module).__name__})")
        elif own:
            names[module] = name
        for parameter in own.values():
            if parameter in owners:
                raise ValueError(
                    f"layers {owners[parameter]!r} and {name!r} share a parameter; its scores add up before they are "
                    "squared, and Kronecker factors do not hold them: use diagonal_fisher or full_fisher"
                )
            owners[parameter] = name
    if unfit:
        raise ValueError(
            f"model has parameters in {', '.join(unfit)}; Kronecker factors are defined for nn.Linear and nn.Conv2d: "
            "freeze the others with requires_grad_(False), or use diagonal_fisher or full_fisher"
        )
    return names


def _places(model, layers):
    """Where the entries of each layer's [W | b] stand in the vector of all parameters: (groups, outputs, inputs)."""
    starts, start = {}, 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            starts[parameter] = torch.arange(start, start := start + parameter.numel(), device=parameter.device)
    return {
        layer: torch.cat(
            [
                starts[parameter].reshape(groups, len(parameter) // groups, -1)
                for parameter in (layer.weight, layer.bias)
                if parameter is not None and parameter in starts
            ],
            -1,
        )
        for layer in layers
        for groups in [getattr(layer, "groups", 1)]
    }


def _uses_of_input(layer, a, sharing):
    """What the rows of [W | b] are multiplied with, one row a use: (groups, examples · uses, inputs)."""
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, nn.Conv2d):
        zeros = layer.padding_mode == "zeros"
        padded = nn.functional.pad(
            a, layer._reversed_padding_repeated_twice, mode="constant" if zeros else layer.padding_mode
        )
        a = nn.functional.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride).mT
    a = a.reshape(len(a), -1, groups, a.shape[-1] // groups)
    one = torch.ones_like(a[..., :1])
    bias = layer.bias is not None and layer.bias.requires_grad
    a = torch.cat([a] * layer.weight.requires_grad + [one] * bias, -1)
    if sharing == "reduce":
        a = a.mean(1, keepdim=True)
    return a.flatten(0, 1).movedim(1, 0).to(torch.promote_types(a.dtype, torch.float32))


def _uses_of_output(layer, delta, probability, sharing):
    """√p times the scores of a layer's output, one row a use: (groups, examples · uses, outputs). For "expand" divided by √R."""
    groups = getattr(layer, "groups", 1)
    delta = delta * probability.sqrt().reshape(-1, *[1] * (delta.ndim - 1))
    if isinstance(layer, nn.Conv2d):
        delta = delta.flatten(2).mT
    delta = delta.reshape(len(delta), -1, groups, delta.shape[-1] // groups)
    delta = delta.sum(1, keepdim=True) if sharing == "reduce" else delta / delta.shape[1] ** 0.5
    return delta.flatten(0, 1).movedim(1, 0).to(torch.promote_types(delta.dtype, torch.float32))


@contextmanager
def _evaluated(model):
    """The model in eval mode, with gradients allowed; every module's own mode restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _zeros(shape, like):
    return torch.zeros(shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def _at(values, batch):
    return None if values is None else values[batch]


def _check(model, inputs, targets, labels, samples, batch_size, generator):
    """Refuse what cannot be computed, by name; return the draws for sampled labels, one row an example.

    All draws are made at once, so that they do not depend on the batch size.
    """
    if labels not in LABELS:
        raise ValueError(f"labels is {labels!r}; it may be one of {', '.join(map(repr, LABELS))}")
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs is {type(inputs).__name__}; it must be a tensor with the examples along its first axis"
        )
    if (inputs.ndim < 2 and inputs.is_floating_point()) or inputs.ndim < 1 or len(inputs) == 0:
        raise ValueError(
            f"inputs has shape {tuple(inputs.shape)}; it must hold at least one example along its first axis"
        )
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(
            "model has no parameter that requires grad: there is nothing to take the Fisher information of"
        )
    for name, parameter in parameters.items():
        if parameter.device != inputs.device:
            raise ValueError(f"inputs is on {inputs.device}; it must be on the model's device, {parameter.device}")
        if not parameter.isfinite().all():
            raise ValueError(f"model has a parameter that is not finite: {name!r}")
    if labels == "empirical":
        _check_targets(targets, inputs)
    if labels != "sampled":
        return None
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(inputs), samples, generator=generator, device=device).to(inputs.device)


def _check_targets(targets, inputs):
    if targets is None:
        raise ValueError("targets is None; labels='empirical' needs the class index of each example")
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets is {type(targets).__name__}; it must be a tensor of class indices")
    if targets.is_floating_point() or targets.shape != inputs.shape[:1]:
        found = f"{targets.dtype} of shape {tuple(targets.shape)}"
        raise ValueError(f"targets is {found}; it must hold {len(inputs)} class indices, one an example")
    if targets.device != inputs.device:
        raise ValueError(f"targets is on {targets.device}; it must be on the inputs' device, {inputs.device}")
