"""Seconds for the Kronecker factors of 60,000 images in a 784-256-256-10 network: ours and curvlinops', exact labels."""

import sys
import warnings

import torch
from ewc import kronecker_fisher, mlp
from timing import medians, verdict
from torch import nn

EXAMPLES, PART, BATCH = 60_000, 1000, 1024


def curvlinops_with(model, inputs, targets):
    from curvlinops import FisherType, KFACLinearOperator

    parameters = list(model.parameters())
    batches = [(inputs[batch], targets[batch]) for batch in torch.arange(len(inputs)).split(BATCH)]

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
        operator @ torch.zeros(operator.shape[1])  # the factors are computed at the first product
        return operator

    return work


def largest_difference(factors, operator, size):
    """Of both matrices' products with the same random vector, as a share of the product's largest entry."""
    vector = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ours = torch.zeros(size)
    for b, a, places in factors.values():
        ours[places] = b @ vector[places] @ a  # (B ⊗ A) vec(V) = vec(B V A), for symmetric A
    return float((ours - operator @ vector).abs().max() / ours.abs().max())


def main():
    warnings.filterwarnings("ignore", message=".*torch.jit.script")
    torch.manual_seed(0)
    inputs, targets = torch.rand(EXAMPLES, 784), torch.randint(0, 10, (EXAMPLES,))
    model = mlp()
    theirs = curvlinops_with(model, inputs, targets)
    ours, curvlinops = medians(lambda: kronecker_fisher(model, inputs, batch_size=BATCH), theirs, repeats=3)

    print(f"Kronecker factors of {EXAMPLES:,} examples, 784-256-256-10, {torch.get_num_threads()} threads")
    print(f"{'':28}{'seconds':>9}{'times ours':>12}")
    for name, seconds in (("kronecker_fisher", ours), ("curvlinops, TYPE2", curvlinops)):
        print(f"{name:28}{seconds:9.2f}{seconds / ours:12.1f}")

    size = sum(parameter.numel() for parameter in model.parameters())
    alike = largest_difference(
        kronecker_fisher(model, inputs[:PART]), curvlinops_with(model, inputs[:PART], targets[:PART])(), size
    )
    print(f"largest relative difference from curvlinops: {alike:.1e}")

    return verdict(
        (f"{ours:.2f} s; at most 3 s are allowed", ours <= 3),
        (f"curvlinops takes {curvlinops:.2f} s and this {ours:.2f} s; it must not be slower", ours <= curvlinops),
        ("the results differ by more than 1e-4", alike <= 1e-4),
    )


if __name__ == "__main__":
    sys.exit(main())
