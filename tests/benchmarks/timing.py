"""How the benchmarks measure: the medians of repeats that take turns, so that a busy machine slows all of them alike."""

import statistics
import time


def medians(*works, repeats=3):
    """Seconds that each piece of work takes: once to warm up, then `repeats` times, by turns."""
    seconds = [[] for _ in works]
    for turn in range(repeats + 1):
        for kept, work in zip(seconds, works, strict=True):
            start = time.perf_counter()
            work()
            if turn:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in seconds]


def verdict(*bars):
    """0 where every bar (text, held) was held; else each missed one is said, and 1."""
    missed = [text for text, held in bars if not held]
    for text in missed:
        print(f"MISSED: {text}")
    return int(bool(missed))
