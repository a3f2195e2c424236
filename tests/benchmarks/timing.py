"""How the benchmarks time: every candidate in turn, several rounds, the median; so that a busy moment hits all alike."""

import statistics
import sys
import time


def medians(candidates, rounds):
    """Seconds of each named function, as the median of interleaved rounds, after one round that is not counted."""
    seconds = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, work in candidates.items():
            started = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def hold(bars):
    """Print each bar with what was found; exit with 1 when one is missed. `bars` are (what, found, limit, "at most" or "at least")."""
    missed = 0
    for what, found, limit, side in bars:
        good = found <= limit if side == "at most" else found >= limit
        missed += not good
        print(f"  {'ok    ' if good else 'MISSED'}  {what}: {found:.3g}, {side} {limit:g}")
    sys.exit(1 if missed else 0)
