"""Tables that pages show: of records, and of whatever rows there are."""
import html
from collections.abc import Callable, Sequence

import torch

from ewc.workshop import page
from ewc.workshop.page import spelled


def told(records: Sequence) -> list[str]:
    """Of runs that differ in their seeds: the mean accuracy with its standard error in per cent, λ, and how many they are."""
    if not records:
        return ["–", "–", "0"]
    accuracies = torch.tensor([100 * record.matrix.average() for record in records], dtype=torch.float64)
    text = f"{accuracies.mean():.2f}"
    if len(records) > 1:
        text += f" ± {accuracies.std() / len(records) ** 0.5:.2f}"
    strengths = sorted({record.configuration["strength"] for record in records if record.configuration["strength"] is not None})
    return [text, ", ".join(map(spelled, strengths)) or "–", str(len(records))]


def say(name: str, records: Sequence, value: Callable = lambda record: record.matrix.average()) -> None:
    """Give the text under this name the mean of a value over these runs, in per cent; a dash where this copy has none of them."""
    page.number(name, [value(record) for record in records] if records else "–", unit="%" if records else "", runs=records)


def made(records: Sequence) -> str:
    """On what and when these runs were made, and how long one took, for the line under a table."""
    if not records:
        return "None of these runs is in this copy."
    devices = sorted({record.device for record in records})
    days = sorted(record.finished[:10] for record in records)
    days = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    # Some runs may have shared their machine with others: the times say how long to wait, and not which method is quick.
    times = sorted(record.seconds for record in records)
    times = [f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" for seconds in (times[0], times[-1])]
    took = times[0] if times[0] == times[1] else f"{times[0]} to {times[1]}"
    return f"Made on {' and '.join(devices)}, {days}, {took} a run."


class Rows:
    """A table of whatever rows there are, and a note under it; shows itself in a notebook and on a page of the book."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""):
        self.head, self.rows, self.note = list(head), [list(row) for row in rows], note

    def _repr_html_(self) -> str:
        def row(cells, start, end):
            return "<tr>" + "".join(start + html.escape(cell) + end for cell in cells) + "</tr>"

        head = row(self.head, '<th scope="col">', "</th>")
        body = "".join(row(cells, "<td>", "</td>") for cells in self.rows)
        table = f'<div class="scrolls" tabindex="0"><table class="table"><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        return table + (f"<p>{html.escape(self.note)}</p>" if self.note else "")

    def __repr__(self) -> str:
        return "\n".join([*(" | ".join(cells) for cells in (self.head, *self.rows)), *([self.note] if self.note else [])])
