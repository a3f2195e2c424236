"""Processes that share the examples out have the curvature of all of them, and stay alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ewc import EWC, diagonal_fisher
from ewc.processes import averaged, summed
from torch import distributed, nn

SCRIPT = Path(__file__).with_name("by_processes.py")


def run(world, folder):
    """What each of so many processes found."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2] / "code"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(world), folder / f"meeting{world}", folder / f"found{world}"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * world, said
    return [torch.load(f"{folder / f'found{world}'}.{rank}") for rank in range(world)]


@pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_find_what_one_does_and_their_replicas_stay_alike(tmp_path):
    (alone,), (first, second) = run(1, tmp_path), run(2, tmp_path)
    assert first.keys() == second.keys() == alone.keys()
    assert {name.partition("/")[0] for name in alone} == {
        *("diagonal", "full", "batches", "EWC", "MemoryAwareSynapses", "KroneckerEWC", "SynapticIntelligence")
    }
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        off = (first[name] - value).abs().max()
        assert off <= 1e-6 * value.abs().max(), f"{name}: off by {off:.3g} of {value.abs().max():.3g}"


def test_one_process_divides_by_its_own_examples():
    assert float(summed({"a": torch.tensor(6.0)}, 3)["a"]) == 2
    assert float(averaged(torch.tensor(6.0))) == 6


def test_parameters_that_are_shared_out_between_processes_are_refused_by_name(tmp_path):
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    distributed.init_process_group("gloo", f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = nn.Linear(4, 3)
        mesh = init_device_mesh("cpu", (1,))
        model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Replicate()]))
        with pytest.raises(ValueError, match=r"a DTensor: 'weight'.*give the whole model"):
            diagonal_fisher(model, torch.randn(3, 4))
        with pytest.raises(ValueError, match=r"a DTensor: 'weight'"):
            EWC(model).consolidate(torch.randn(3, 4))
    finally:
        distributed.destroy_process_group()
