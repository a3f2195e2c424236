# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The two passes of plain networks, written out: what autograd does for any network, in two thirds of the time.

For layers z_l = W_l a_{l−1} + b_l with a_l = max(0, z_l), a_0 the images, and the loss L a mean of cross-entropies:

    δ_last = (p − e_y) / B          p the softmax of z_last, e_y the one-hot vector of the label
    ∂L/∂W_l = δ_l a_{l−1}ᵀ          ∂L/∂b_l = Σ_batch δ_l          δ_{l−1} = W_lᵀ δ_l where z_{l−1} > 0, else 0

M networks of one shape pass side by side. Everything is written into memory that is used again in the next step: fresh memory
is what costs autograd the other third.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .heads import Units, choose


class Passes:
    """The passes of M stacked networks.

    Args:
        layers: (name, module) of one of the networks, as `plain_layers` gives them.
        values: the weights of all, (M, …), by name.
        gradients: where ∂L/∂θ of each network's own loss is put, by the same names.
        momentum: μ, so that v ← μ v + ∂L/∂θ is put there instead, v being what was there before, zeros at first. Descent with
            momentum is then a plain step along v. Without it an optimiser keeps v beside the gradient, and a network whose weights,
            gradients and v do not fit into the processor's cache waits for its memory in every step.
    """

    def __init__(self, layers, values: dict[str, Tensor], gradients: dict[str, Tensor], momentum: float = 0.0):
        self.momentum = momentum
        self.rooms: dict[int, _Room] = {}
        # One network needs no products of stacks, which cost more than its matrices' own.
        self.alone = all(len(value) == 1 for value in values.values())
        self.affine, self.product = (torch.addmm, torch.mm) if self.alone else (torch.baddbmm, torch.bmm)
        self.layers = []
        for place, (name, layer) in enumerate(layers):
            if isinstance(layer, nn.Linear):
                weight, bias, of_weight, of_bias = (
                    of[f"{name}.{part}"][0] if self.alone else of[f"{name}.{part}"]
                    for of in (values, gradients)
                    for part in ("weight", "bias")
                )
                # A ReLU follows its linear layer at once; the last layer has none.
                bent = place + 1 < len(layers) and isinstance(layers[place + 1][1], nn.ReLU)
                self.layers.append(
                    _Layer(weight, weight.mT, bias.unsqueeze(-2), of_weight, of_bias.unsqueeze(-2), bent)
                )

    def differentiate(self, inputs: Tensor, targets: Tensor, units=None, *, more: float | None = None) -> Tensor:
        """Put the gradients of all losses where they belong, and return the logits (M, B, C).

        inputs: (M, B, …). targets: (M, B), class indices. units: as `heads.choose` takes them; None for all outputs.
        more: the weight of a loss beside the one whose gradients are there: its own are added to them.
        """
        kept = self.momentum if more is None else 1
        room = self._room(inputs.shape[1])
        passed = [inputs[0].flatten(1) if self.alone else inputs.flatten(2)]
        for layer, output in zip(self.layers, room.outputs, strict=True):
            self.affine(layer.bias, passed[-1], layer.turned, out=output)
            passed.append(output.relu_() if layer.bent else output)
        self._start_backward(room, passed[-1], targets, units)
        if more is not None:
            room.slopes[-1].mul_(more)
        for place in reversed(range(len(self.layers))):
            layer, slope, turned = self.layers[place], room.slopes[place], room.turned[place]
            if layer.bent:  # δ where z > 0, else 0: the kernel of ReLU's own backward pass, which needs no mask
                torch.ops.aten.threshold_backward.grad_input(slope, passed[place + 1], 0, grad_input=slope)
            if kept:
                self.affine(layer.of_weight, turned, passed[place], beta=kept, out=layer.of_weight)
                self.affine(layer.of_bias, room.ones, slope, beta=kept, out=layer.of_bias)
            else:
                self.product(turned, passed[place], out=layer.of_weight)
                self.product(room.ones, slope, out=layer.of_bias)
            if place:
                self.product(slope, layer.weight, out=room.slopes[place - 1])
        return passed[-1][None] if self.alone else passed[-1]

    def _start_backward(self, room, logits, targets, units):
        """∂L/∂z of the last layer for L = mean over the batch of −log p_y: (p − e_y) / B; with `units`, p is over these alone."""
        slope, size = room.slopes[-1], targets.shape[1]
        logits, slope = (each.view(*targets.shape, -1) for each in (logits, slope))
        if units is None:
            torch.softmax(logits, -1, out=slope)
            torch.add(room.labels(targets, slope), slope, alpha=1 / size, out=slope)
            return
        p = torch.softmax(choose(logits, units), -1)
        of_chosen = torch.add(room.labels(targets, p), p, alpha=1 / size)
        slope.zero_()  # an output that is chosen twice gets both
        if isinstance(units, Tensor):
            slope.scatter_add_(-1, units, of_chosen)
            return
        for place, column in zip(units, of_chosen.unbind(-1), strict=True):  # a list of places would be sent to a GPU in every step
            slope[..., place] += column

    def _room(self, batch):
        if batch not in self.rooms:
            empty = self.layers[0].weight.new_empty
            shapes = [(*layer.weight.shape[:-2], batch, layer.weight.shape[-2]) for layer in self.layers]
            outputs, slopes = ([empty(shape) for shape in shapes] for _ in range(2))
            classes = shapes[-1][-1]
            self.rooms[batch] = _Room(
                outputs,
                slopes,
                [slope.mT for slope in slopes],
                empty((*shapes[0][:-2], 1, batch)).fill_(1),
                torch.eye(classes, dtype=slopes[-1].dtype, device=slopes[-1].device) / -batch,
            )
        return self.rooms[batch]


class _Layer(NamedTuple):
    """The weights of a linear layer and where their gradients go. Views are made once: in a small step they cost a tenth."""

    weight: Tensor  # (M, outputs, inputs); without M for one network
    turned: Tensor  # the same, (M, inputs, outputs)
    bias: Tensor  # (M, 1, outputs)
    of_weight: Tensor
    of_bias: Tensor
    bent: bool


class _Room(NamedTuple):
    """What a step on a batch of one size is written into, a tensor a layer in each list; made once for each size."""

    outputs: list[Tensor]  # (M, B, outputs); without M for one network
    slopes: list[Tensor]  # δ, of the same shape
    turned: list[Tensor]  # δᵀ, (M, outputs, B)
    ones: Tensor  # (M, 1, B), which sum over a batch
    minus: Tensor  # (C, C), in row y the −e_y / B

    def labels(self, targets, like):
        """−e_y / B for targets (M, B), each e_y as long as the last axis of `like`."""
        classes = like.shape[-1]
        return self.minus[:classes, :classes].index_select(0, targets.reshape(-1)).view_as(like)


def passes_of(model: nn.Module, momentum: float = 0.0) -> Passes | None:
    """The passes of one network, whose gradients are put into its parameters' ``.grad``; None where it is not plain.

    A hook on a parameter waits for autograd's gradient, which would not come.
    """
    layers = plain_layers(model)
    if layers is None or any(each._backward_hooks or each._post_accumulate_grad_hooks for each in model.parameters()):
        return None
    gradients = {}
    for name, parameter in model.named_parameters():
        gradients[name] = torch.zeros_like(parameter, requires_grad=False)[None]
        parameter.grad = gradients[name][0]
    values = {name: parameter.detach()[None] for name, parameter in model.named_parameters()}
    return Passes(layers, values, gradients, momentum)


def plain_layers(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of a network like `models.mlp`, whose passes are written out here; None for any other network.

    Hooks on its parameters are not looked at: where networks are stacked, no gradient passes by them in any case.
    """
    if type(model) is not nn.Sequential:
        return None
    # Not named_children, which names a layer that stands in two places once.
    layers = [(name, layer) for name, layer in model._modules.items() if type(layer) is not Units]
    weights = [each for _, layer in layers for each in layer.parameters()]
    kinds = [type(layer) for _, layer in layers]
    known = (
        kinds
        and kinds[-1] is nn.Linear
        and len(weights) == len(set(weights))  # none is used twice
        and all(
            (kind is nn.Flatten and place == 0 and (layer.start_dim, layer.end_dim) == (1, -1))
            or (kind is nn.ReLU and place > 0 and kinds[place - 1] is nn.Linear)
            or (kind is nn.Linear and layer.bias is not None and all(each.requires_grad for each in layer.parameters()))
            for place, (kind, (_, layer)) in enumerate(zip(kinds, layers, strict=True))
        )
        and not any(_touched(module) for module in model.modules())
    )
    return layers if known else None


def _touched(module):
    """Whether hooks, a parametrization or a forward of its own make the module more than its class says."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or "forward" in vars(module) or hasattr(module, "parametrizations")
    )  # fmt: skip
