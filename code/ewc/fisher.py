# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Fisher information of a model at its parameters: how sharply its own predictions pin each weight down.

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

This file needs torch, and beside it checks.py, looking.py, labels.py, likelihoods.py, scores.py, readings.py, ways.py,
mixing.py, calls.py, gradients.py, places.py, batches.py, processes.py, evaluating.py and factors.py. From the book Weights
that Remember.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

if __package__:
    from .factors import (
        SHARING,
        Sharing,
        check_each_used_once,
        factored_layers,
        places_of,
        uses_of_input,
        uses_of_output,
    )
    from .gradients import SumsOfSquares, add_linear, add_squares, squared, zeros
    from .looking import Look
    from .scores import Labels
    from .ways import FromLayers, FromModel, OneByOne
else:  # copied into a folder, without a package
    from factors import (
        SHARING,
        Sharing,
        check_each_used_once,
        factored_layers,
        places_of,
        uses_of_input,
        uses_of_output,
    )
    from gradients import SumsOfSquares, add_linear, add_squares, squared, zeros
    from looking import Look
    from scores import Labels
    from ways import FromLayers, FromModel, OneByOne
# One tensor with the examples first; several, as the model's arguments or by name; or batches of these, or of pairs with targets.
Inputs = Tensor | tuple | Mapping | Iterable


def diagonal_fisher(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    likelihood: str | object = "categorical",
    labels: Labels | None = None,
    samples: int = 1,
    batch_size: int | None = None,
    forward: Callable | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Mean over examples of the squared score, one number a parameter: Fᵢ = 1/N Σ_n E_y[ (∂ log p(y|xₙ,θ) / ∂θᵢ)² ].

    The labels y over which the expectation is taken:

    - ``"exact"``      all classes, each weighted by the model's own probability for it. The Fisher information.
    - ``"sampled"``    `samples` labels an example, drawn from the model. Right on average, noisy.
    - ``"empirical"``  the given `targets`. Not the Fisher information: it vanishes where the model fits its data.
    - ``"argmax"``     the class that the model finds most probable. Biased low; here to be compared.
    - ``None``         exact, and where that takes more than 1,000 backward passes a batch, as for a vocabulary, sampled, with a warning.

    What the model's outputs say of y, its `likelihood`:

    - ``"categorical"``  logits of one class an example, (N, C), or one a place, (N, T, C) and (N, C, H, W). The score of an example is
      the sum over its places; where a target is −100 the place does not count, whatever the labels.
    - ``"bernoulli"``    logits (N, …) of yes or no, each number for itself.
    - ``"gaussian"``     means (N, …), with noise of variance 1; ``Gaussian(noise=…)`` for another.
    - an object with ``log_prob(outputs, targets)``, one number an example or a place, and ``sample(outputs, generator)``: sampled.

    Args:
        model: returns outputs as above, or has them in ``.logits``; evaluated in eval mode and left as it was.
        inputs: N examples along the first axis, on the model's device: a tensor, a tuple of such (the model's arguments) or a
            dictionary (its arguments by name). Or an iterable of batches, each of these or a pair (inputs, targets): gone through
            once, moved to the model's device.
        targets: N class indices, or what the likelihood has; used by ``"empirical"``, and for the places that do not count.
        samples: labels drawn an example, for ``"sampled"``.
        batch_size: examples in memory at once; None for as many as hold about 8 million numbers on their way, or 4 for each
            weight where those are more, at most 2,048; on a GPU 67 million, at most 16,384. It changes the speed, not the result.
        forward: ``forward(model, batch)`` returns the outputs, where calling the model with the batch does not.
        generator: source of the draws for ``"sampled"``; None for torch's own.
        progress: whether a line on the terminal says how far a pass of more than two seconds is.

    Returns:
        One tensor a parameter that requires grad, keyed and shaped as ``model.named_parameters()``, without ``module.``
        and ``_orig_mod.``; non-negative; scale: a mean per example; detached; at least float32. With torch.distributed, the mean over
        the examples of all processes, each of which has to call this.

    Cost: a forward pass and, for ``"exact"``, a backward pass a class less one, without its weight products; a place each.
    A model whose layers do not give its examples' gradients is read in a slower way, as exact, with a warning that says why (readings.py).
    One that decides by its numbers what to do, so that torch cannot vectorise it, is asked for each example alone as well.

    Raises:
        ValueError: an argument is not what it may be, the model returns probabilities, is sharded (DTensor) or mixes the examples of a
            batch, or a value is not finite.
        TypeError: inputs or targets are no tensors.

    Follows Martens (2020), New insights and perspectives on the natural gradient method, JMLR 21(146), sections 5 and 11.
    """
    look = Look(
        model, inputs, targets, likelihood=likelihood, labels=labels, samples=samples, batch_size=batch_size, forward=forward,
        generator=generator, progress=progress,
    )
    return diagonal_of(look)


def diagonal_of(look: Look) -> dict[str, Tensor]:
    """`diagonal_fisher` of what is looked at."""
    with look.begun():
        names = look.names
        fisher, rooms = {name: zeros(parameter.shape, parameter) for parameter, name in names.items()}, {}
        for reading, scores in look.readings():
            squares = SumsOfSquares([call.output for call in reading.closed], rooms)
            for deltas, others in reading.passes(scores):
                squares.add(deltas)  # E over labels of δ², before the one product with a²
                for gradients in others:
                    for name, gradient in gradients.items():
                        add_squares(fisher[name], gradient)
            for call, square in zip(reading.closed, squares.sums, strict=True):
                if squares.empty:  # no label counts
                    break
                add_linear(fisher, names, call.module, square, squared(call.input.detach(), rooms))
    fisher = look.means(fisher)
    for name, value in fisher.items():
        if not value.isfinite().all():
            raise ValueError(f"the Fisher information of {name!r} is not finite: the model overflows on these inputs")
    return fisher


def full_fisher(
    model: nn.Module,
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    likelihood: str | object = "categorical",
    labels: Labels | None = None,
    samples: int = 1,
    batch_size: int | None = None,
    forward: Callable | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """The whole matrix F = 1/N Σ_n E_y[ s sᵀ ], for models small enough to hold P × P numbers.

    Arguments, scale and errors as in `diagonal_fisher`, whose values are this matrix's diagonal.

    Returns:
        (P, P), symmetric, positive semi-definite; rows and columns in the order of
        ``torch.nn.utils.parameters_to_vector`` over the parameters that require grad.
    """
    look = Look(
        model, inputs, targets, likelihood=likelihood, labels=labels, samples=samples, batch_size=batch_size, forward=forward,
        generator=generator, progress=progress,
    )
    with look.begun():
        names = look.names
        size = sum(parameter.numel() for parameter in names)
        fisher = zeros((size, size), next(iter(names)))
        ways = (FromModel, OneByOne)  # what two layers have in common is wanted too
        for reading, weighted in look.readings(ways):
            for _, parts in reading.passes(weighted):
                for gradients in parts:
                    rows = [gradients[name].to_dense().reshape(len(gradients[name]), each.numel()) for each, name in names.items()]
                    scores = torch.cat(rows, 1).to(fisher.dtype)
                    fisher += scores.T @ scores
    return look.means({"": fisher})[""]


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
    inputs: Inputs,
    targets: Tensor | None = None,
    *,
    likelihood: str | object = "categorical",
    labels: Labels | None = None,
    samples: int = 1,
    sharing: Sharing = "expand",
    batch_size: int | None = None,
    forward: Callable | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
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
    look = Look(
        model, inputs, targets, likelihood=likelihood, labels=labels, samples=samples, batch_size=batch_size, forward=forward,
        generator=generator, progress=progress,
    )
    if sharing not in SHARING:
        raise ValueError(f"sharing is {sharing!r}; it may be one of {', '.join(map(repr, SHARING))}")
    return kronecker_of(look, sharing)


def kronecker_of(look: Look, sharing: Sharing = "expand") -> dict[str, KroneckerFactors]:
    """`kronecker_fisher` of what is looked at."""
    with look.begun():
        layers = factored_layers(look.model)
        places = places_of(look.model, layers)
        shapes = [(layer, *place.shape) for layer, place in places.items()]
        of_outputs = {layer: zeros((groups, m, m), layer.weight) for layer, groups, m, _ in shapes}
        of_inputs = {layer: zeros((groups, k, k), layer.weight) for layer, groups, _, k in shapes}
        for reading, scores in look.readings((FromLayers,)):
            check_each_used_once(reading, layers)
            for call in reading.calls:
                a = uses_of_input(call.module, call.input.detach(), sharing)
                of_inputs[call.module].baddbmm_(a.mT, a)  # A += Σ aaᵀ
            for score in scores:
                for call, delta in zip(reading.calls, reading.deltas(score), strict=True):
                    d = uses_of_output(call.module, delta, sharing)
                    of_outputs[call.module].baddbmm_(d.mT, d)  # B += Σ δδᵀ
    of_outputs, of_inputs = look.means(of_outputs), look.means(of_inputs)
    found = {}
    for layer, groups in places.items():
        for group, place in enumerate(groups):
            name = layers[layer] if len(groups) == 1 else f"{layers[layer]}[{group}]"
            b, a = of_outputs[layer][group], of_inputs[layer][group]
            found[name] = KroneckerFactors(b, a, place)
    for name, factor in found.items():
        if not (factor.outputs.isfinite().all() and factor.inputs.isfinite().all()):
            raise ValueError(f"the Kronecker factors of {name!r} are not finite: the model overflows on these inputs")
    return found
