"""Tables that pages show: of records, and of whatever rows there are."""
import html
from collections.abc import Sequence

import torch


def told(records: Sequence) -> list[str]:
    """Of runs that differ in their seeds: the mean accuracy with its standard error in per cent, λ, how many, on what, when."""
    if not records:
        return ["–", "–", "0", "not in this copy"]
    accuracies = torch.tensor([100 * record.matrix.average() for record in records], dtype=torch.float64)
    text = f"{accuracies.mean():.2f}"
    if len(records) > 1:
        text += f" ± {accuracies.std() / len(records) ** 0.5:.2f}"
    strengths = sorted({record.configuration["strength"] for record in records if record.configuration["strength"] is not None})
    devices = sorted({record.device for record in records})
    seconds = min(record.seconds for record in records)  # of others some may have shared their machine
    took = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    took = f"from {took} each" if len(records) > 1 else took
    made = f"{', '.join(devices)}, {max(record.finished for record in records)[:10]}, {took}"
    return [text, ", ".join(f"{strength:,.0f}" if strength >= 1 else f"{strength:g}" for strength in strengths) or "–", str(len(records)), made]


class Rows:
    """A table of whatever rows there are; shows itself in a notebook and on a page of the book."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]]):
        self.head, self.rows = list(head), [list(row) for row in rows]

    def _repr_html_(self) -> str:
        def row(cells, start, end):
            return "<tr>" + "".join(start + html.escape(cell) + end for cell in cells) + "</tr>"

        head = row(self.head, '<th scope="col">', "</th>")
        body = "".join(row(cells, "<td>", "</td>") for cells in self.rows)
        return f'<div class="scrolls" tabindex="0"><table class="table"><thead>{head}</thead><tbody>{body}</tbody></table></div>'

    def __repr__(self) -> str:
        return "\n".join(" | ".join(cells) for cells in (self.head, *self.rows))
