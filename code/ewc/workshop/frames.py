"""A figure that the reader moves: pictures drawn beforehand, one for each state, with a slider that steps through them.

Why drawn beforehand: every state is then computed by the same code as the rest of the book, looks the same in light and dark,
has a description of its own in words, and needs no kernel, no network and no more than `book/assets/frames.js`.
Without JavaScript the start state is what is shown.
"""

import html
import re
from collections.abc import Mapping, Sequence
from itertools import product

from ewc.workshop.drawing import Picture


class Frames:
    """Pictures by state, and the control that chooses among them; made by `frames`."""

    def __init__(
        self, pictures: Sequence[Picture], labels: Sequence[str], choices: Sequence[Sequence], start: Sequence
    ):
        self.pictures, self.labels, self.choices, self.start = pictures, labels, choices, start

    def __repr__(self) -> str:
        return self._at_start().alt

    def _repr_html_(self) -> str:
        chosen = [values.index(value) for values, value in zip(self.choices, self.start, strict=True)]
        controls = "".join(map(_control, self.labels, self.choices, chosen))
        shown, panels = self._at_start(), _with_shared_parts(self.pictures)
        drawn = "".join(
            f'<div class="frame"{"" if picture is shown else " hidden"}>{panel}</div>'
            for picture, panel in zip(self.pictures, panels[1:], strict=True)
        )
        return (
            f'<div class="frames">{panels[0]}<div class="frames-controls" hidden>{controls}</div>{drawn}'
            '<p class="frames-said" aria-live="polite"></p></div>'
        )

    def _at_start(self):
        return self.pictures[[*product(*self.choices)].index(tuple(self.start))]


def frames(pictures: Mapping, label: str | Sequence[str], start=None) -> Frames:
    """A figure with a control for each label, which steps through the states of `pictures`.

    Args:
        pictures: from each state to its `Picture`. With one label a state is a value; with several it is a tuple of values,
            and every combination must be there. Values are shown as text, in the order in which they first occur. All
            pictures have the same size, and each has an alt text of its own; draw them with the same limits, or they jump.
        label: what the control sets ("tosses seen"), or a label for each of several controls.
        start: the state that is shown first, also without JavaScript; by default the first one.

    Raises:
        ValueError: a combination is missing, start is no state, sizes differ, or two states share an alt text.
    """
    several = not isinstance(label, str)
    labels = list(label) if several else [label]
    states = [tuple(state) if several else (state,) for state in pictures]
    if len(states) < 2:
        raise ValueError(f"pictures holds {len(states)} states; it must hold at least two")
    if wrong := [state for state in states if len(state) != len(labels)]:
        raise ValueError(f"pictures has the state {wrong[0]!r}; with {len(labels)} labels it must be of as many values")
    choices = [list(dict.fromkeys(values)) for values in zip(*states, strict=True)]
    by_state = dict(zip(states, pictures.values(), strict=True))
    if missing := [state for state in product(*choices) if state not in by_state]:
        raise ValueError(f"pictures has no picture for {missing[0]!r}; every combination of values must be there")
    start = states[0] if start is None else (tuple(start) if several else (start,))
    if start not in by_state:
        raise ValueError(f"start is {start!r}; it must be one of the states of pictures")
    ordered = [by_state[state] for state in product(*choices)]
    sizes = {tuple(re.findall(r'viewBox="([^"]+)"', "".join(picture.panels))) for picture in ordered}
    if len(sizes) > 1:
        raise ValueError(f"pictures have {len(sizes)} different sizes; they must all have one")
    if len({picture.alt for picture in ordered}) < len(ordered):
        raise ValueError("pictures holds two states with the same alt text; each must say what it shows")
    return Frames(ordered, labels, choices, start)


class Switch:
    """Two pictures of one thing, without and with, and a switch between them; without JavaScript both are shown."""

    def __init__(self, without: Picture, with_it: Picture, label: str):
        if without.alt == with_it.alt:
            raise ValueError("without and with_it have the same alt text; each must say what it shows")
        self.pictures, self.label = (without, with_it), label

    def __repr__(self) -> str:
        return " ".join(picture.alt for picture in self.pictures)

    def _repr_html_(self) -> str:
        label = html.escape(self.label)
        states = "".join(
            f'<div class="switched-state"><p class="switched-name">{word} {label}</p>{picture._repr_html_()}</div>'
            for word, picture in zip(("Without", "With"), self.pictures, strict=True)
        )
        control = f'<button type="button" role="switch" aria-checked="false" hidden>{label}</button>'
        return f'<div class="switched">{control}<div class="switched-states">{states}</div></div>'


def _control(label, values, chosen):
    names = [html.escape(f"{value:g}" if isinstance(value, float) else str(value)) for value in values]
    return (
        f'<label>{html.escape(label)} <input type="range" min="0" max="{len(values) - 1}" value="{chosen}" '
        f'autocomplete="off" data-names="{"|".join(names)}" aria-valuetext="{names[chosen]}">'
        f"<output>{names[chosen]}</output></label>"
    )


def _with_shared_parts(pictures):
    """What many frames have in common, outlines of marks, once, and then the HTML of each picture without it."""
    outlines, drawn = {}, []
    for picture in pictures:
        text, names = re.sub("<!--.*?-->", "", picture._repr_html_()), {}
        for name, outline in re.findall(r'<path id="([^"]+)"((?: [\w-]+="[^"]*")*)/>', text):
            names[name] = outlines.setdefault(outline, name)
        text = re.sub(r'<path id="[^"]+"[^>]*/>', "", text)
        for name, first in names.items():
            text = text.replace(f'"#{name}"', f'"#{first}"')
        drawn.append(_short(re.sub(r"<defs>\s*</defs>", "", text)))
    shared = "".join(f'<path id="{name}"{outline}/>' for outline, name in outlines.items())
    return [
        f'<svg class="frames-shared" aria-hidden="true" width="0" height="0"><defs>{_short(shared)}</defs></svg>',
        *drawn,
    ]


def _short(text):
    """SVG to a tenth of a point, a sixth of a pixel on a wide screen, and without the spaces between its parts."""
    text = re.sub(r">\s+<", "><", text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\s*([MLCQzZ])\s*", r"\1", path[0]), text)
    return re.sub(
        r' (?:d|x|y|transform)="(?!scale)[^"]*"',
        lambda value: re.sub(r"(?<!scale\()(?<!scale\(\d\.\d )-?\d+\.\d+", _tenths, value[0]),
        text,
    )


def _tenths(number):
    return f"{float(number[0]):.1f}".removesuffix(".0")
