# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""The two passes of plain networks, written out: what autograd does for any network, in two thirds of the time.

For layers z_l = W_l a_{l−1} + b_l with a_l = max(0, z_l), a_0 the images, and the loss L a mean of cross-entropies:

    δ_last = (p − e_y) / B          p the softmax of z_last, e_y the one-hot vector of the label
    ∂L/∂W_l = δ_l a_{l−1}ᵀ          ∂L/∂b_l = Σ_batch δ_l          δ_{l−1} = W_lᵀ δ_l where z_{l−1} > 0, else 0

M networks of one shape pass side by side. Everything is written into memory that is used again in the next step: fresh memory
is what costs autograd the other third.
"""

import torch
from torch import Tensor, nn

from .heads import Units, choose


class Passes:
    """The passes of M stacked networks.

    Args:
        layers: (name, module) of one of the networks, as `plain_layers` gives them.
        values: the weights of all, (M, …), by name.
        gradients: where ∂L/∂θ of each network's own loss is put, by the same names.
    """

    def __init__(self, layers, values: dict[str, Tensor], gradients: dict[str, Tensor]):
        linear = [name for name, layer in layers if isinstance(layer, nn.Linear)]
        self.weights, self.biases, self.of_weights, self.of_biases = (
            [of[f"{name}.{part}"] for name in linear] for of in (values, gradients) for part in ("weight", "bias")
        )
        # A ReLU follows its linear layer at once; the last layer has none.
        self.bent = [isinstance(layers[place + 1][1], nn.ReLU) if place + 1 < len(layers) else False
                     for place, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]  # fmt: skip
        self.rooms: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def differentiate(self, inputs: Tensor, targets: Tensor, units=None) -> Tensor:
        """Put the gradients of all losses where they belong, and return the logits (M, B, C).

        inputs: (M, B, …). targets: (M, B), class indices. units: as `heads.choose` takes them; None for all outputs.
        """
        outputs, slopes = self._room(inputs.shape[1])
        passed = [inputs.flatten(2).mT]  # (M, features, B), so that the gradient of a weight comes out as the weight lies
        for weight, bias, output, bent in zip(self.weights, self.biases, outputs, self.bent, strict=True):
            torch.baddbmm(bias.unsqueeze(-1), weight, passed[-1], out=output)
            passed.append(output.relu_() if bent else output)
        logits = passed[-1].mT
        slopes[-1].copy_(slope_of_loss(logits, targets, units).mT)
        for place in reversed(range(len(self.weights))):
            if self.bent[place]:  # δ where z > 0, else 0: the kernel of ReLU's own backward pass, which needs no mask
                torch.ops.aten.threshold_backward.grad_input(slopes[place], passed[place + 1], 0, grad_input=slopes[place])
            torch.bmm(slopes[place], passed[place].mT, out=self.of_weights[place])
            torch.sum(slopes[place], -1, out=self.of_biases[place])
            if place:
                torch.bmm(self.weights[place].mT, slopes[place], out=slopes[place - 1])
        return logits

    def _room(self, batch):
        """Two tensors a layer, for what comes out of it and for its slope; made once for each size of a batch."""
        if batch not in self.rooms:
            self.rooms[batch] = tuple([weight.new_empty(*weight.shape[:2], batch) for weight in self.weights] for _ in range(2))
        return self.rooms[batch]


def passes_of(model: nn.Module) -> Passes | None:
    """The passes of one network, whose gradients are put into its parameters' ``.grad``; None where it is not plain."""
    layers = plain_layers(model)
    if layers is None:
        return None
    gradients = {}
    for name, parameter in model.named_parameters():
        gradients[name] = torch.zeros_like(parameter, requires_grad=False)[None]
        parameter.grad = gradients[name][0]
    return Passes(layers, {name: parameter.detach()[None] for name, parameter in model.named_parameters()}, gradients)


def slope_of_loss(logits: Tensor, targets: Tensor, units=None) -> Tensor:
    """∂L/∂z for L = mean over the batch of −log p_y: (p − e_y) / B, (M, B, C); with `units`, p is the softmax over these alone."""
    if units is not None:
        free = logits.detach().requires_grad_()
        chosen = choose(free, units)
        loss = nn.functional.cross_entropy(chosen.flatten(0, 1), targets.flatten(), reduction="sum")
        return torch.autograd.grad(loss, free)[0] / targets.shape[1]
    slope = logits.softmax(-1)
    slope.scatter_add_(-1, targets.unsqueeze(-1), slope.new_full((1, 1, 1), -1.0).expand(*targets.shape, 1))
    return slope.div_(targets.shape[1])


def plain_layers(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of a network like `models.mlp`, whose passes are written out here; None for any other network."""
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
    """Whether hooks, a parametrization or a forward of its own make the module or its parameters more than their class says."""
    own = module.parameters(recurse=False)
    return bool(
        any(each._backward_hooks or each._post_accumulate_grad_hooks for each in own)
        or module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or "forward" in vars(module) or hasattr(module, "parametrizations")
    )  # fmt: skip
