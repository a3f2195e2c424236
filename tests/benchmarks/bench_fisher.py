"""Seconds for the exact Fisher of 60,000 images in a 784-256-256-10 network: ours, BackPACK's, and a loop over examples."""

import sys
import warnings

import torch
from ewc import diagonal_fisher, mlp
from timing import medians, verdict
from torch import nn

EXAMPLES, PART = 60_000, 200


def loop(model, inputs):
    """The definition, example by example and class by class."""
    fisher = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for example in inputs:
        log_p = model(example[None]).log_softmax(1)[0]
        for value in log_p:
            gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            for total, gradient in zip(fisher.values(), gradients, strict=True):
                total += value.detach().exp() * gradient**2 / len(inputs)
    return fisher


def backpack_with(model, inputs, targets):
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact

    extended, loss = extend(model), extend(nn.CrossEntropyLoss())

    def work():
        fisher = {}
        for batch in torch.arange(len(inputs)).split(1024):
            extended.zero_grad()
            with backpack(DiagGGNExact()):
                loss(extended(inputs[batch]), targets[batch]).backward()
            for name, parameter in extended.named_parameters():
                fisher[name] = fisher.get(name, 0) + parameter.diag_ggn_exact * len(batch) / len(inputs)
        return fisher

    return work


def main():
    warnings.filterwarnings("ignore", message="Full backward hook")
    torch.manual_seed(0)
    inputs = torch.rand(EXAMPLES, 784)
    targets = torch.randint(0, 10, (EXAMPLES,))
    model = mlp()
    theirs = backpack_with(mlp(), inputs, targets)
    ours, backpack, part = medians(
        lambda: diagonal_fisher(model, inputs), theirs, lambda: loop(model, inputs[:PART]), repeats=3
    )
    looped = part * EXAMPLES / PART

    print(f"exact diagonal Fisher of {EXAMPLES:,} examples, 784-256-256-10, {torch.get_num_threads()} threads")
    print(f"{'':28}{'seconds':>9}{'times ours':>12}")
    for name, seconds in (
        ("diagonal_fisher", ours),
        ("BackPACK, DiagGGNExact", backpack),
        (f"loop, from {PART} examples", looped),
    ):
        print(f"{name:28}{seconds:9.2f}{seconds / ours:12.1f}")

    found, wanted, other = diagonal_fisher(model, inputs[:PART]), loop(model, inputs[:PART]), diagonal_fisher(model, inputs)
    by_backpack = theirs()
    same = max(float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in wanted)
    alike = max(float((by_backpack[name] - other[name]).abs().max() / other[name].abs().max()) for name in other)
    print(f"largest relative difference: {same:.1e} from the loop, {alike:.1e} from BackPACK")

    return verdict(
        (f"{ours:.2f} s; at most 3 s are allowed", ours <= 3),
        (f"{looped / ours:.1f} times faster than the loop; at least 20 are wanted", looped >= 20 * ours),
        (f"BackPACK takes {backpack:.2f} s and this {ours:.2f} s; it must not be slower", ours <= backpack),
        ("the results differ by more than 1e-4", max(same, alike) <= 1e-4),
    )


if __name__ == "__main__":
    sys.exit(main())
