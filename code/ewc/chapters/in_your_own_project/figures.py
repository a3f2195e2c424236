"""The figure of the chapter on your own project: what each method keeps of one text and learns of another."""

from collections.abc import Sequence

from ewc.workshop.drawing import BLUE, GREEN, GREY, INK, ON_PAPER, ORANGE, PURPLE, RED, Picture, draw, label
from ewc.workshop.page import spelled
from ewc.workshop.records import Record

_LOOK = {"plain": (ORANGE, "o"), "L2": (PURPLE, "s"), "EWC": (BLUE, "o"), "LoRA": (GREEN, "D"), "replay": (RED, "^")}
_NAMED = {"plain": ((8, 0), "left"), "LoRA": ((8, 0), "left"), "replay": ((0, -13), "center")}  # where a point's name stands


def exchange(first: Record, curves: dict[str, Sequence[Record]], points: dict[str, Record]) -> Picture:
    """Bits a character of both texts after the second lesson.

    Args:
        first: the model before it.
        curves: by method, runs in the order of their strengths.
        points: by method, one run.
    """

    def panel(axes):
        before = first.result["bits"][0]
        axes.axvline(before, color=GREY, lw=1, ls=":")
        axes.text(before, 0.99, "before ", transform=axes.get_xaxis_transform(), color=GREY, ha="right", va="top")
        for name, runs in curves.items():
            colour, marker = _LOOK[name]
            across, up = zip(*(run.result["bits"] for run in runs), strict=True)
            axes.plot(across, up, color=colour, marker=marker, ms=4)
            turn = 1 if name == "L2" else -1
            for run in (runs[0], runs[-1]):
                strength = f"{name}, λ = {spelled(run.configuration['strength'])}"
                shift = (7, -8) if turn < 0 and run is runs[0] else (7 * turn, 4 * turn)  # below where the other curve begins
                side = "left" if shift[0] > 0 else "right"
                label(axes, strength, run.result["bits"], shift, colour, ha=side, bbox=ON_PAPER)
        for name, run in points.items():
            colour, marker = _LOOK[name]
            shift, side = _NAMED[name]
            axes.plot(*run.result["bits"], color=colour, marker=marker, ms=7, ls="")
            label(axes, name, run.result["bits"], shift, colour, ha=side)
        low, high = axes.get_xlim()
        axes.set_xlim(low - 0.35 * (high - low), high + 0.1 * (high - low))
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.08 * (high - low), high)
        axes.set_xlabel("bits a letter of English, the task before")
        axes.set_ylabel("bits a letter of Python, the new task", color=INK)

    ends = {name: [run.result["bits"] for run in runs] for name, runs in curves.items()}
    told = "; ".join(
        f"{name} from {its[0][0]:.2f} bits of English and {its[0][1]:.2f} of Python to {its[-1][0]:.2f} and {its[-1][1]:.2f}"
        for name, its in ends.items()
    )
    rest = "; ".join(f"{name} {run.result['bits'][0]:.2f} and {run.result['bits'][1]:.2f}" for name, run in points.items())
    alt = f"""Bits a letter of English, across, and of Python, upward, after the second lesson; less is better in both. As λ grows, {told}.
        One point each: {rest}. Before the lesson English took {first.result["bits"][0]:.2f}."""
    return draw(alt, panel, size=(5.4, 3.6))
