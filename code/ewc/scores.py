# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""Which labels the expectation of the Fisher information is taken over, and the score of each; and what may be asked for.

For p = softmax(z) the score of the logits is ∂ log p_y / ∂z = e_y − p, with e_y the one-hot vector of the label y.

Part of fisher.py, which says more. This file needs torch and nothing else. From the book Weights that Remember.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Labels = Literal["exact", "sampled", "empirical", "argmax"]
LABELS = get_args(Labels)


def labels_and_scores(logits, labels, targets, draws):
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


def check(model, inputs, targets, labels, samples, batch_size, generator):
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
        check_targets(targets, inputs)
    if labels != "sampled":
        return None
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(inputs), samples, generator=generator, device=device).to(inputs.device)


def check_targets(targets, inputs):
    """Refuse targets that are not one class index an example, beside the inputs."""
    if targets is None:
        raise ValueError("targets is None; labels='empirical' needs the class index of each example")
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets is {type(targets).__name__}; it must be a tensor of class indices")
    if targets.is_floating_point() or targets.shape != inputs.shape[:1]:
        found = f"{targets.dtype} of shape {tuple(targets.shape)}"
        raise ValueError(f"targets is {found}; it must hold {len(inputs)} class indices, one an example")
    if targets.device != inputs.device:
        raise ValueError(f"targets is on {targets.device}; it must be on the inputs' device, {inputs.device}")
