"""What two processes do that share the examples of a task out between them: run by test_processes.py, once with one and once with two."""

import sys

import torch
from ewc import EWC, KroneckerEWC, MemoryAwareSynapses, SynapticIntelligence, diagonal_fisher, full_fisher
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def data():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(9, 4, generator=draw), torch.randint(3, (9,), generator=draw), torch.randn(12, 4, generator=draw)


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def main(rank, world, meeting, out):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
    x, y, later = data()
    # Not the same number for each: the mean is over the examples, not over the processes.
    mine = slice(0, 3) if (rank, world) == (0, 2) else slice(3, None) if world == 2 else slice(None)
    found = {f"diagonal/{name}": value for name, value in diagonal_fisher(network(), x[mine]).items()}
    found["full"] = full_fisher(network(), x[mine])
    batches = ((part, labels) for part, labels in zip(x[mine].split(2), y[mine].split(2), strict=True))
    found |= {f"batches/{name}": value for name, value in diagonal_fisher(network(), batches, labels="empirical").items()}
    for kind in (EWC, MemoryAwareSynapses, KroneckerEWC, SynapticIntelligence):
        model = network()
        wrapped = DistributedDataParallel(model) if world > 1 else model
        guard, optimiser = kind(wrapped, 3.0), torch.optim.SGD(model.parameters(), 0.1)
        half = slice(rank, None, world)
        for step in range(13):
            if step == 3:
                guard.consolidate(x[mine], y[mine])
            optimiser.zero_grad()
            part = later[half]
            cross_entropy(wrapped(part), part[:, :3].argmax(1)).backward()
            if step >= 3:
                guard.add_gradient()
            optimiser.step()
        found |= {f"{kind.__name__}/state/{name}": value for name, value in guard.state_dict().items() if "walk" not in name}
        found |= {f"{kind.__name__}/weights/{name}": value.detach().clone() for name, value in model.named_parameters()}
    torch.save(found, f"{out}.{rank}")
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
