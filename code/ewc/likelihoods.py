# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""What a model's outputs say of the targets, p(y|x,θ), and the scores of the outputs, ∂ log p(y|x,θ) / ∂z, under it.

A model may say something of one label an example, or of many: a word at each place of a text, a class for each pixel, one number for each of
many outputs. Given x, what it says of two places is independent, and the scores of each have mean 0. So the products of two
places vanish in the expectation over labels that are drawn from the model, and

    E_y[ (Σ_t s_t)² ] = Σ_t E_y[ s_t² ]                 with s_t the score, by a parameter, of what is said of place t

Exact is therefore one backward pass for each label of each place, less one, and "sampled" one pass a draw for all places together.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py and scores.py. From the book Weights that
Remember.
"""

import math

import torch
from torch import Tensor

if __package__:
    from .checks import by_name
    from .scores import NotProbabilities, weighted_scores
else:  # copied into a folder, without a package
    from checks import by_name
    from scores import NotProbabilities, weighted_scores

# What only looks at numbers in another shape.
_SEEN_THROUGH = ("View", "UnsafeView", "Reshape", "Alias", "Clone", "Squeeze", "Unsqueeze", "Select", "Slice", "ToCopy", "Transpose", "T")
# A target that says of its place that it does not count, as in torch.nn.functional.cross_entropy.
NO_TARGET = -100


class Categorical:
    """One of C classes for each example, or for each of its places: the outputs z are logits, p = softmax(z).

    Shapes: (N, C), (N, T, C) and (N, C, H, W); targets (N,), (N, T) and (N, H, W), whole numbers; −100 says that a place does
    not count, whatever the labels are. What an example says is the sum over its places.

    Args:
        class_axis: the axis of the classes; None for the last of up to three axes, and axis 1 of four or more.
    """

    exact = True

    def __init__(self, class_axis: int | None = None):
        self.class_axis, self._watch = class_axis, NotProbabilities()

    def passes(self, outputs):
        """How many backward passes exact labels take."""
        rows = self._rows(outputs)
        return rows.shape[1] * (rows.shape[2] - 1)

    def check(self, outputs):
        """Refuse outputs that are not logits of two classes or more; look whether they are probabilities."""
        axis = self._axis(outputs)
        if not -outputs.ndim <= axis < outputs.ndim or axis % outputs.ndim == 0 or outputs.shape[axis] < 2:
            raise ValueError(
                f"model must return logits of shape (examples, 2 or more classes), or with a place between or behind; it returned a tensor "
                f"of shape {tuple(outputs.shape)}. What has one number for yes or no is likelihood='bernoulli', a regression 'gaussian'"
            )
        self._watch.look(self._rows(outputs.detach()).flatten(0, 1))

    def end(self):
        """Raise ValueError where all rows of all batches were probabilities."""
        self._watch.end()

    def scores(self, outputs, labels, targets, draws):
        """Yield scores of the outputs, so weighted that Σ s sᵀ over them is the mean of score·scoreᵀ over the labels of an example."""
        rows, there = self._rows(outputs), None
        if targets is not None:
            targets = self._targets(targets, outputs, labels)
        if targets is not None and bool((targets == NO_TARGET).any()):
            there = targets != NO_TARGET
            targets = targets.masked_fill(~there, 0)
        if labels == "exact":
            for place in range(rows.shape[1]):
                if there is None or there[:, place].any():
                    for score in weighted_scores(rows[:, place], labels, None, None):
                        alone = score[:, None] if rows.shape[1] == 1 else torch.zeros_like(rows).index_copy_(
                            1, torch.tensor([place], device=rows.device), score[:, None]
                        )
                        yield self._back(alone, outputs, there)
            return
        if labels == "sampled":
            draws = draws(rows.shape[:2], rows.device).movedim(1, -1).flatten(0, 1)
        given = targets.flatten() if labels == "empirical" else None
        for score in weighted_scores(rows.flatten(0, 1), labels, given, draws):
            yield self._back(score.view_as(rows), outputs, there)

    def _axis(self, outputs):
        return (1 if outputs.ndim > 3 else -1) if self.class_axis is None else self.class_axis

    def _rows(self, outputs):
        """(N, places, classes)."""
        if outputs.ndim == 2:
            return outputs[:, None]
        return outputs.movedim(self._axis(outputs), -1).flatten(1, -2)

    def _back(self, rows, outputs, there):
        if there is not None:
            rows = rows * there[..., None]
        if outputs.ndim == 2:
            return rows[:, 0]
        places = outputs.movedim(self._axis(outputs), -1).shape
        return rows.view(places).movedim(-1, self._axis(outputs))

    def _targets(self, targets, outputs, labels):
        """The targets as (N, places); None where they are of no use."""
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ValueError(
                f"targets is {targets.dtype} of shape {tuple(targets.shape)}; it must hold class indices, whole numbers. For other targets "
                "say what the model means by its outputs: likelihood='gaussian' or 'bernoulli'"
            )
        shape = list(outputs.shape)
        classes = shape.pop(self._axis(outputs))
        if list(targets.shape) != shape:
            if outputs.ndim == 2 and labels != "empirical":
                return None
            raise ValueError(
                f"targets is {targets.dtype} of shape {tuple(targets.shape)}; it must hold {shape[0]} class indices, one an example"
                if outputs.ndim == 2
                else f"targets has shape {tuple(targets.shape)}; beside outputs of shape {tuple(outputs.shape)} it must be "
                f"{tuple(shape)}: {classes} classes along axis {self._axis(outputs)}. Are they along another, likelihood=Categorical(class_axis=…)"
            )
        return targets.long().flatten(1) if outputs.ndim > 2 else targets.long()[:, None]


class _EachNumber:
    """A likelihood under which each number of the outputs stands for a target of its own."""

    exact = True

    def passes(self, outputs):
        """How many backward passes exact labels take: one for each number of an example's outputs."""
        return outputs[0].numel()

    def end(self):
        """There is nothing that only all batches together could show."""

    def _check_finite(self, outputs):
        if not outputs.isfinite().all():
            raise ValueError("model returned an output that is not finite: it overflows on these inputs, or they are not finite")

    def _one_by_one(self, roots):
        """A score for each number alone: independent of the others, with mean 0 and this root of its mean square."""
        flat = roots.reshape(len(roots), -1)
        for place in range(flat.shape[1]):
            alone = torch.zeros_like(flat)
            alone[:, place] = flat[:, place]
            yield alone.view_as(roots)

    def _given(self, targets, outputs):
        if targets.shape != outputs.shape and targets.numel() == outputs.numel() and {targets.ndim, outputs.ndim} == {1, 2}:
            targets = targets.reshape(outputs.shape)  # (N,) beside (N, 1)
        if targets.shape != outputs.shape:
            raise ValueError(f"targets has shape {tuple(targets.shape)}; it must be that of the outputs, {tuple(outputs.shape)}")
        if not targets.isfinite().all():
            raise ValueError("targets holds a number that is not finite")
        return targets.to(torch.promote_types(outputs.dtype, torch.float32))


class Bernoulli(_EachNumber):
    """Yes or no for each number of the outputs: logits z of shape (N, …), p = σ(z). Targets of that shape, 0 to 1."""

    def check(self, outputs):
        """Refuse what is not finite, and what a sigmoid has made: autograd's graph says so."""
        self._check_finite(outputs)
        node = outputs.grad_fn
        while node is not None and node.name().rstrip("0").removesuffix("Backward") in _SEEN_THROUGH:
            node = node.next_functions[0][0]
        if node is not None and node.name().startswith("Sigmoid"):
            raise ValueError(
                "model returns probabilities: its last step is a sigmoid. Under likelihood='bernoulli' it must return logits, what goes "
                "into the sigmoid: give the model without it, or forward=lambda model, batch: model(batch).logit()"
            )

    def scores(self, outputs, labels, targets, draws):
        """As `Categorical.scores`: ∂ log p(y) / ∂z = y − p, whose mean square is p (1 − p)."""
        p = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).sigmoid()
        if labels == "exact":
            yield from self._one_by_one((p * (-outputs.to(p.dtype)).sigmoid()).sqrt())
        elif labels == "sampled":
            u = draws(outputs.shape, outputs.device)
            for one in u.unbind(1):
                yield ((one < p).to(p.dtype) - p) / u.shape[1] ** 0.5
        elif labels == "argmax":
            yield (p > 0.5).to(p.dtype) - p
        else:
            y = self._given(targets, outputs)
            if not ((y >= 0) & (y <= 1)).all():
                raise ValueError(f"targets runs from {float(y.min()):.3g} to {float(y.max()):.3g}; under likelihood='bernoulli' it is 0 to 1")
            yield y - p


class Gaussian(_EachNumber):
    """A number with noise for each of the outputs: means f of shape (N, …), y = f + ε. Targets of that shape.

    Args:
        noise: the variance of ε, above 0; a number, or a tensor that broadcasts to the outputs of one example. The Fisher
            information is proportional to 1/noise. It is that of the loss Σ (y − f)² / (2 noise), summed over an example's outputs.
    """

    def __init__(self, noise: float | Tensor = 1.0):
        self.noise = torch.as_tensor(noise, dtype=torch.float64).detach()
        if not (self.noise.isfinite().all() and (self.noise > 0).all()):
            raise ValueError(f"noise is {noise!r}; it must be a variance: finite and above 0")

    def check(self, outputs):
        """Refuse what is not finite."""
        self._check_finite(outputs)

    def scores(self, outputs, labels, targets, draws):
        """As `Categorical.scores`: ∂ log p(y) / ∂f = (y − f) / noise, whose mean square is 1 / noise."""
        wide = torch.promote_types(outputs.dtype, torch.float32)
        noise = self.noise.to(outputs.device, wide).expand(outputs.shape)
        if labels == "exact":
            yield from self._one_by_one(noise.rsqrt())
        elif labels == "sampled":
            u = draws(outputs.shape, outputs.device).double().clamp(min=2**-54)
            for one in u.unbind(1):  # the uniform draw's place among normal ones
                yield math.sqrt(2 / u.shape[1]) * torch.erfinv(2 * one - 1).to(wide) * noise.rsqrt()
        elif labels == "argmax":
            raise ValueError("labels is 'argmax'; under likelihood='gaussian' the most probable target is the output itself, whose score is 0")
        else:
            yield (self._given(targets, outputs) - outputs) / noise


class _Own:
    """A likelihood of the reader's: an object with `log_prob(outputs, targets)` and `sample(outputs, generator)`."""

    exact = False

    def __init__(self, given):
        self.given = given

    def check(self, outputs):
        pass

    end = _EachNumber.end

    def scores(self, outputs, labels, targets, draws):
        if labels == "sampled":
            for _ in range(draws.samples):
                yield self._score(outputs, self.given.sample(outputs, draws.generator)) / draws.samples**0.5
        elif labels == "empirical":
            yield self._score(outputs, targets)
        else:
            raise ValueError(f"labels is {labels!r}; a likelihood that is an object can be 'sampled', or 'empirical'")

    def _score(self, outputs, targets):
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            log_p = self.given.log_prob(leaf, targets)
            if not isinstance(log_p, Tensor) or log_p.shape[:1] != outputs.shape[:1]:
                found = f"shape {tuple(log_p.shape)}" if isinstance(log_p, Tensor) else type(log_p).__name__
                raise ValueError(
                    f"likelihood.log_prob must return log p(y|x) of each example, or of each of its places, {len(outputs)} along the first "
                    f"axis; it returned {found}. A mean over examples has another scale"
                )
            return torch.autograd.grad(log_p.sum(), leaf)[0]


_NAMED = {"categorical": Categorical, "bernoulli": Bernoulli, "gaussian": Gaussian}


def kept(given):
    """A likelihood as a state keeps it: its name and what it was told; of an object of the reader's the name of its class."""
    found = likelihood_of(given)
    if isinstance(found, _Own):
        return by_name(given)
    name = next(name for name, kind in _NAMED.items() if isinstance(found, kind))
    if isinstance(found, Categorical) and found.class_axis is not None:
        return f"{name}, class_axis={found.class_axis}"
    if isinstance(found, Gaussian) and not bool((found.noise == 1).all()):
        return f"{name}, noise={found.noise.tolist()}"
    return name


def likelihood_of(given):
    """The likelihood that is meant: by its name, one of these classes, or an object of the reader's."""
    if isinstance(given, str) and given in _NAMED:
        return _NAMED[given]()
    if isinstance(given, Categorical):
        return Categorical(given.class_axis)  # one for this pass: it watches the outputs
    if isinstance(given, Bernoulli | Gaussian):
        return given
    if not isinstance(given, type) and all(callable(getattr(given, name, None)) for name in ("log_prob", "sample")):
        return _Own(given)
    raise ValueError(
        f"likelihood is {given!r}; it may be one of {', '.join(map(repr, _NAMED))}, Gaussian(noise=…), Categorical(class_axis=…), or an "
        "object with log_prob(outputs, targets) and sample(outputs, generator)"
    )
