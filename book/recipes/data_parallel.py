# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT
"""A guard and DistributedDataParallel: every process consolidates its share of the examples, and all have the Fisher of all.

    torchrun --nproc-per-node=2 data_parallel.py
"""

import os

import torch
from ewc.penalties import EWC
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def share(*tensors):
    """This process's examples. A DistributedSampler would repeat some where the shares are not alike, and count them twice."""
    return [tensor[distributed.get_rank() :: distributed.get_world_size()] for tensor in tensors]


def learn(model, guard, inputs, targets, *, steps, batch_size=64, learning_rate=0.1):
    """Plain descent on this process's examples; the gradients are averaged on their way back."""
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    for step in range(steps):
        places = torch.arange(step * batch_size, (step + 1) * batch_size) % len(inputs)
        optimizer.zero_grad()
        cross_entropy(model(inputs[places]), targets[places]).backward()
        if hasattr(guard, "observe"):  # SynapticIntelligence counts the mean of all gradients, which is there now
            guard.observe()
        guard.add_gradient()  # after the averaging: the same in every process
        optimizer.step()


def two_tasks(inputs=20, classes=4, examples=2000):
    """Random points whose classes are said by one linear map, and then by another."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        points = torch.randn(examples, inputs, generator=draw)
        yield points, (points @ torch.randn(inputs, classes, generator=draw)).argmax(1)


def main(strength=30.0, steps=300):
    """The share of the first task's examples that is read rightly, before and after the second; the guard's network."""
    torch.manual_seed(0)  # DistributedDataParallel would send the first process's weights to all anyway
    network = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 4))
    model = DistributedDataParallel(network)
    guard, (first, second) = EWC(model, strength), two_tasks()
    learn(model, guard, *share(*first), steps=steps)
    guard.consolidate(*share(*first))  # every process calls it: those that do not are waited for
    before = float((network(first[0]).argmax(1) == first[1]).float().mean())
    learn(model, guard, *share(*second), steps=steps)
    after = float((network(first[0]).argmax(1) == first[1]).float().mean())
    if distributed.get_rank() == 0:
        print(f"first task: {before:.3f}, and after the second {after:.3f}")
    return network, before, after


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    distributed.init_process_group("gloo")  # "nccl" on GPUs, where tensors and model go to the process's own first
    main()
    distributed.destroy_process_group()
