"""The Kronecker factors of 60,000 images in a 784-256-256-10 network, exact labels, beside curvlinops'."""

import sys
import warnings

import torch
from ewc import kronecker_fisher, mlp
from ewc.training import device
from timing import at_most, medians, table, verdict, within
from torch import nn

# By turns a twelfth of the images, and the median of the turns.
EXAMPLES, TURNS, PART, BATCH = 60_000, 12, 1000, 1024


def curvlinops_with(model, inputs, targets):
    """curvlinops' factors as a piece of work; None where it is not installed."""
    try:
        from curvlinops import FisherType, KFACLinearOperator
    except ImportError:
        return None
    parameters = list(model.parameters())
    batches = [(inputs[batch], targets[batch]) for batch in torch.arange(len(inputs), device=inputs.device).split(BATCH)]

    def work():
        operator = KFACLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            parameters,
            batches,
            fisher_type=FisherType.TYPE2,
            separate_weight_and_bias=False,
            check_deterministic=False,
            num_data=len(inputs),
            num_per_example_loss_terms=1,
        )
        operator @ torch.zeros(operator.shape[1], device=inputs.device)  # the factors are computed at the first product
        return operator

    return work


def largest_difference(factors, operator, size):
    """Of both matrices' products with the same random vector, as a share of the product's largest entry."""
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device())
    ours = torch.zeros_like(vector)
    for b, a, places in factors.values():
        ours[places] = b @ vector[places] @ a  # (B ⊗ A) vec(V) = vec(B V A), for symmetric A
    return float((ours - operator @ vector).abs().max() / ours.abs().max())


def main():
    warnings.filterwarnings("ignore", message=".*torch.jit.script")
    torch.manual_seed(0)
    inputs = torch.rand(EXAMPLES // TURNS, 784, device=device())
    targets = torch.zeros(len(inputs), dtype=torch.long, device=device())  # exact labels are not asked for
    model = mlp().to(device())
    theirs = curvlinops_with(model, inputs, targets)
    if theirs is None:
        print("curvlinops is not installed: nothing to compare with")
        return 0
    ours, curvlinops = (
        seconds * TURNS for seconds in medians(lambda: kronecker_fisher(model, inputs), theirs, repeats=TURNS)
    )
    table(
        f"Kronecker factors of {EXAMPLES:,} images, 784-256-256-10",
        {"kronecker_fisher": ours, "curvlinops, TYPE2": curvlinops},
    )
    size = sum(parameter.numel() for parameter in model.parameters())
    alike = largest_difference(
        kronecker_fisher(model, inputs[:PART]), curvlinops_with(model, inputs[:PART], targets[:PART])(), size
    )
    return verdict(
        at_most("kronecker_fisher", ours, 1, curvlinops, "curvlinops"),
        within("the Kronecker factors differ", alike, 1e-4, "curvlinops'"),
    )


if __name__ == "__main__":
    sys.exit(main())
