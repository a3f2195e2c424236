"""How the benchmarks measure: works that are compared take turns, so that a busy machine slows all of them alike."""

import statistics
import time

import torch


def medians(*works, repeats=3):
    """Seconds that each piece of work takes: once to warm up, then `repeats` times, by turns."""
    seconds = [[] for _ in works]
    for turn in range(repeats + 1):
        for kept, work in zip(seconds, works, strict=True):
            finished()
            start = time.perf_counter()
            work()
            finished()
            if turn:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in seconds]


def finished():
    """Wait for a GPU, which goes on working when the call that asked for the work has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def table(head, seconds, unit="s", scale=1):
    """Print seconds by name, each also as a multiple of the first."""
    first = next(iter(seconds.values()))
    print(head + f" ({where()})")
    for name, value in seconds.items():
        print(f"    {name:40}{scale * value:10.3f} {unit}{value / first:8.2f}")


def where():
    """What the work runs on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def at_most(name, seconds, bar, others, other):
    """A ratio and its bar: (what was found and what is allowed, whether that holds)."""
    return f"{name} takes {seconds / others:.2f} times as long as {other}; at most {bar} is allowed", seconds <= bar * others


def within(what, found, bar, others):
    """A difference of results and its bar, as `at_most`."""
    return f"{what} by {found:.1e} from {others}; at most {bar} is allowed", found <= bar


def verdict(*bars):
    """Say of every bar (text, held) whether it was held; 0 where all were, else 1."""
    for text, held in bars:
        print(f"{'held' if held else 'MISSED'}: {text}")
    return int(not all(held for _, held in bars))
