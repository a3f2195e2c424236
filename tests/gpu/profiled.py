"""Where the time of a training step goes: `fit`, `fit_together` and the exact Fisher under torch's profiler.

The tables are written to --into; lines that begin with » are for the summary.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench_layers
import torch
from ewc import EWC, diagonal_fisher, fit, fit_together, mlp
from ewc.tasks import Task
from ewc.training import device
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def drawn(count: int) -> Task:
    """A task of the size of the book's, of random pixels, on the device."""
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.rand(count, 1, 28, 28, generator=generator), torch.randint(10, (count,), generator=generator)
    return Task("drawn", "pixels", tuple("0123456789"), images, targets, images[:10], targets[:10], True, "here", "").to(device())


def works(small: bool) -> dict[str, tuple[int, object]]:
    """By name, how many steps a piece of work takes, and the work."""
    task = drawn(200 if small else 60_000)
    steps, count = (2, 2) if small else (100, 18)
    widths = ((8, 8),) if small else ((256, 256), (1000, 1000))

    def guarded(hidden):
        model = mlp(hidden).to(device())
        guard = EWC(model, anchors="merged")
        guard.consolidate(task.train_inputs[:1000])
        return model, guard

    found = {}
    for hidden in widths:
        model, guard = guarded(hidden)

        def alone(model=model, guard=guard):
            fit(model, task, penalty=guard, steps=steps, learning_rate=1e-3)

        found[f"fit, {len(hidden)} × {hidden[0]}, with EWC"] = steps, alone
    many = [guarded(widths[0]) for _ in range(count)]

    def together():
        fit_together(
            [model for model, _ in many], [task] * count, penalties=[guard for _, guard in many],
            seeds=list(range(count)), steps=steps, learning_rate=1e-3,
        )  # fmt: skip

    found[f"fit_together, {count} of 2 × {widths[0][0]}, with EWC"] = steps, together
    model, _ = guarded(widths[0])
    found[f"diagonal_fisher, {len(task.train_inputs):,} images"] = 1, lambda: diagonal_fisher(model, task.train_inputs)
    writer, texts, _ = bench_layers.texts(2 if small else bench_layers.AT_ONCE)
    name = f"diagonal_fisher, sampled, {len(texts)} texts in a transformer of 10 million weights"
    found[name] = 1, lambda: diagonal_fisher(writer, texts, labels="sampled")
    return found


def finished():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work) -> float:
    finished()
    started = time.perf_counter()
    work()
    finished()
    return time.perf_counter() - started


def busy(events) -> float:
    """Seconds in which the device had something to do: the union of the stretches of its kernels."""
    stretches = sorted(
        (event.time_range.start, event.time_range.end) for event in events if event.device_type == DeviceType.CUDA
    )
    total, reached = 0.0, float("-inf")
    for start, end in stretches:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total / 1e6


def on_device(event) -> float:
    """Its own seconds on the device; torch has changed the name."""
    return getattr(event, "self_device_time_total", getattr(event, "self_cuda_time_total", 0)) / 1e6


def report(name: str, steps: int, work, into: Path) -> None:
    work()  # what is loaded and chosen the first time is no part of a step
    taken = min(seconds(work) for _ in range(2))
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with profile(activities=activities) as profiled:
        work()
        finished()
    averages = profiled.key_averages()
    print(f"» {name}: {1e3 * taken / steps:.2f} ms a step")
    if cuda:
        there = busy(profiled.events())
        waits = sum(event.count for event in averages if event.key in WAITS)
        copies = sum(event.count for event in averages if event.key.startswith("Memcpy") and "DtoD" not in event.key)
        # The profiler slows the CPU down and the kernels hardly: so the kernels' time is held to the time without it.
        print(f"»   the device works {1e3 * there / steps:.2f} ms of them and is idle for {max(0, 1 - there / taken):.0%}")
        print(f"»   {waits / steps:.1f} waits and {copies / steps:.1f} copies to or from the CPU a step")
    key = on_device if cuda else (lambda event: event.self_cpu_time_total / 1e6)
    # On the device the operators stand for their kernels; the kernels themselves would count twice.
    operators = [event for event in averages if event.key.startswith("aten::") or "optim" in event.key.lower()]
    total = sum(map(key, operators)) or 1
    top = sorted(operators, key=key, reverse=True)[:5]
    shares = ", ".join(f"{event.key.removeprefix('aten::')} {key(event) / total:.0%}" for event in top)
    print(f"»   most of the operators' time: {shares}", flush=True)
    with (into / "profile-tables.txt").open("a", encoding="utf8") as file:
        print(f"{name}\n     device µs        CPU µs   calls, all of them a step", file=file)
        for event in sorted(averages, key=lambda event: (on_device(event), event.self_cpu_time_total), reverse=True)[:40]:
            own = 1e6 * on_device(event), event.self_cpu_time_total, event.count
            print("".join(f"{each / steps:14.1f}" for each in own), event.key[:120], file=file)
        print(file=file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    (asked.into / "profile-tables.txt").unlink(missing_ok=True)
    for name, (steps, work) in works(asked.small).items():
        report(name, steps, work, asked.into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
