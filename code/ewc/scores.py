# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Which labels the expectation of the Fisher information is taken over, and the score of each; and what may be asked for.

For p = softmax(z) the score of the logits is ∂ log p_y / ∂z = e_y − p, with e_y the one-hot vector of the label y.

Part of fisher.py, which says more. This file needs torch, and beside it checks.py. From the book Weights that Remember.
"""

from typing import Literal, get_args

import torch

if __package__:
    from .checks import trainable
else:  # copied into a folder, without a package
    from checks import trainable

Labels = Literal["exact", "sampled", "empirical", "argmax"]
LABELS = get_args(Labels)
_AT_ONCE = 2**20  # numbers of columns that are made in one operation


def weighted_scores(logits, labels, targets, draws):
    """Yield scores s of the logits, (batch, classes), so weighted that Σ s sᵀ over them is the mean of score·scoreᵀ over the labels.

    The weight is in the score itself, as its root. So nothing has to be multiplied after the backward pass, and it does not
    matter in which order, or in how many parts, a layer sees the examples.
    """
    p = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    classes = p.shape[1]
    if labels == "exact":
        scores = columns(p)
    else:
        if labels == "sampled":  # the class in whose stretch of [0, 1) the draw falls
            ends = p.cumsum(-1)
            drawn = [torch.searchsorted(ends, u[:, None].contiguous().to(p.dtype)).squeeze(-1).clamp(max=classes - 1) for u in draws.T]
        elif labels == "argmax":
            drawn = [p.argmax(-1)]
        else:
            drawn = [checked_labels(targets, classes)]
        # ∂ log softmax(z)_y / ∂z = e_y − p, and each of the drawn labels counts as one of them.
        ones = p.new_ones(len(p))[:, None]
        scores = ((-p).scatter_add_(1, label[:, None], ones) / len(drawn) ** 0.5 for label in drawn)
    for score in scores:
        yield score.to(logits.dtype)


def columns(p):
    """Yield the C − 1 columns of L, (batch, classes) each, with LLᵀ = diag(p) − ppᵀ = Σ_y p_y (e_y − p)(e_y − p)ᵀ.

    Ask for the label class by class: is it j, or a later one? Each question has two answers, and so one score, with its weight:

        √(p_j q_j / q_{j−1}) · (e_j − p_{>j} / q_j),     q_j = Σ_{k>j} p_k the probability of a later one

    The last class is what is left when all answers were "later": C − 1 questions say as much as C labels, in one backward
    pass less. L is the Cholesky factor of the covariance of the label (Tanabe & Sagae 1992). Where a probability is 0 so is the column.
    """
    least = torch.finfo(p.dtype).tiny
    tails = p.flip(-1).cumsum(-1).flip(-1)  # q_{j−1}, summed from the last class on: no small one is lost beside a large one
    before, later = tails[:, :-1].clamp(min=least), tails[:, 1:].clamp(min=least)
    weights = p[:, :-1].sqrt() * (tails[:, 1:] / before).sqrt()
    later, weights = later.mT[..., None], weights.mT[..., None]  # (classes − 1, batch, 1)
    k, at_once = torch.arange(p.shape[1], device=p.device), max(1, _AT_ONCE // max(1, p.numel()))
    for start in range(0, p.shape[1] - 1, at_once):  # several columns in one operation: one for each is work for Python
        some = slice(start, start + at_once)
        j = k[:-1][some, None, None]
        yield from weights[some] * ((k == j).to(p) - (k > j).to(p) * p / later[some])


def checked_labels(targets, classes):
    """The targets as whole numbers that can count the classes; an error where one is none of them."""
    targets = targets.long()  # before they are compared: in uint8 there is no 256
    if not ((targets >= 0) & (targets < classes)).all():
        found = f"{targets.min().item()} to {targets.max().item()}"
        raise ValueError(f"targets runs from {found}; the model's classes are 0 to {classes - 1}")
    return targets


class NotProbabilities:
    """Looks at the logits batch by batch. Were all of them probabilities, the model ends in a softmax, and a second one would follow."""

    def __init__(self):
        self.all = True

    def look(self, logits):
        """Rows that are between 0 and 1 and sum to 1: by chance one may be so, not every row of every batch."""
        off = (logits.sum(-1, dtype=torch.promote_types(logits.dtype, torch.float32)) - 1).abs()
        rounding = 1e-5 + torch.finfo(logits.dtype).eps * logits.shape[-1]
        none = (off > rounding) | ((logits < 0) | (logits > 1)).any(-1)
        self.all = self.all and not bool(none.any())

    def end(self):
        """Raise ValueError if all were."""
        if self.all:
            raise ValueError(
                "model returns probabilities: every row is between 0 and 1 and sums to 1. It must return logits, what goes into "
                "its softmax; or their logarithms, which are logits too"
            )


def check_logits(logits):
    """Raise ValueError if all rows, of two or more, are probabilities."""
    if len(logits) > 1:
        watch = NotProbabilities()
        watch.look(logits.detach())
        watch.end()


def names_of_trainable(model):
    """The parameters that require grad, each with its name."""
    return {parameter: name for name, parameter in trainable(model).items()}


def checked_kind(labels):
    """The labels; an error where they are none of `LABELS`, and not None."""
    if labels is not None and labels not in LABELS:
        raise ValueError(f"labels is {labels!r}; it may be one of {', '.join(map(repr, LABELS))}, or None")
    return labels


def check_model(model):
    """Refuse a model that cannot be looked at, by name; return the device of its parameters."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"model holds what torch.jit has compiled, {name or 'the model itself'!r}: its layers cannot be looked into; "
                "give the model that it was made of"
            )
    parameters = names_of_trainable(model)
    if not parameters:
        raise ValueError(
            "model has no parameter that requires grad: there is nothing to take the Fisher information of"
        )
    for parameter, name in parameters.items():
        if hasattr(parameter, "placements"):
            raise ValueError(
                f"model has a parameter that is shared out between processes, a DTensor: {name!r}. Its examples' gradients are in no one "
                "place: give the whole model, before fully_shard or loaded from a full state, or with DistributedDataParallel"
            )
        if not parameter.isfinite().all():
            raise ValueError(f"model has a parameter that is not finite: {name!r}")
    return next(iter(parameters)).device
