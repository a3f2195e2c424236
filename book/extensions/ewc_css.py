"""Read style sheets, leave out what no page uses, let a page without scripts follow the reader's system into the dark, and print on white.

Why: of 500 KB of the theme's styles the pages use a tenth; and its colours are bound to `data-theme="light"` or `"dark"`, which a
script sets. Nothing here needs Sphinx.
"""

import re
from dataclasses import dataclass, field

# A comment, a string, an address, or a single character: what is inside the first three ends nothing.
PIECE = re.compile(r"""/\*.*?\*/|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|url\([^)"']*\)|.""", re.DOTALL)
THEMED = re.compile(r"""\[data-theme=["']?(light|dark)["']?\]""")
INSIDE = re.compile(r":(?:not|is|where|has|nth-[a-z-]+|lang|dir|host)\([^()]*\)|\[[^\]]*\]|::?[a-zA-Z-]+")
GROUPS = ("@media", "@supports", "@layer", "@container")


@dataclass
class Rule:
    """What stands before a brace, and within it: declarations, or rules."""

    head: str
    body: list | str = field(default="")


def rules(text):
    """The rules of a style sheet; at-rules without a body (@charset, @import) are left out."""
    found, head, depth, body = [], "", 0, ""
    for piece in PIECE.findall(text):
        if piece.startswith("/*"):
            continue
        if piece == "}":
            depth -= 1
            if depth == 0:
                head = " ".join(head.split())
                found.append(Rule(head, rules(body) if head.startswith(GROUPS) else body.strip()))
                head, body = "", ""
                continue
        if depth == 0 and piece == ";":
            head = ""
        elif depth == 0 and piece == "{":
            depth = 1
        elif depth == 0:
            head += piece
        else:
            depth += piece == "{"
            body += piece
    return found


def apart(text, mark):
    """The parts between marks that stand in no brackets and no strings."""
    parts, depth = [""], 0
    for piece in PIECE.findall(text):
        depth += (piece in ("(", "[")) - (piece in (")", "]"))
        if piece == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts if part.strip()]


def used_only(sheet, pages, scripts):
    """The rules that can apply to something on these pages, or to something that these scripts make of it."""
    classes = {name for names in re.findall(r'\bclass="([^"]*)"', pages) for name in names.split()}
    ids, tags = set(re.findall(r'\bid="([^"]*)"', pages)), set(re.findall(r"<([a-zA-Z][\w-]*)", pages))
    words = set(re.findall(r"[\w-]+", scripts))
    known = {".": classes | words, "#": ids | words, "": {tag.lower() for tag in tags | words} | {"*", "html", "body"}}

    def applies(selector):
        while selector != (selector := INSIDE.sub("", selector)):
            pass
        names = re.findall(r"([.#]?)(-?[a-zA-Z_](?:[\w-]|\\.)*)", selector)
        return all((name.lower() if not kind else name.replace("\\", "")) in known[kind] for kind, name in names) and ".fa" not in selector

    def kept(rule):
        if isinstance(rule.body, list):
            body = [each for each in map(kept, rule.body) if each]
            return Rule(rule.head, body) if body else None
        if rule.head.startswith("@"):
            return None if "Awesome" in rule.body or not rule.body else rule
        head = ", ".join(filter(applies, apart(rule.head, ",")))
        return Rule(head, rule.body) if head and rule.body else None

    sheet = [each for each in map(kept, sheet) if each]
    while True:     # a variable may be used by another one alone
        text = text_of(sheet) + pages + scripts
        used = set(re.findall(r"var\(\s*(--[\w-]+)", text)) | set(re.findall(r"--[\w-]+", scripts))
        lighter = without_variables(sheet, used)
        if text_of(lighter) == text_of(sheet):
            return lighter
        sheet = lighter


def without_variables(sheet, used):
    def kept(rule):
        if isinstance(rule.body, list):
            return Rule(rule.head, without_variables(rule.body, used))
        if "--" not in rule.body or rule.head.startswith("@"):
            return rule
        declared = [each for each in apart(rule.body, ";") if not each.startswith("--") or each.partition(":")[0].strip() in used]
        return Rule(rule.head, ";".join(declared))

    return [each for each in map(kept, sheet) if each.body]


def in_every_theme(sheet):
    """The rules of a theme also for a page without scripts, where the reader's system has that theme; and on paper those of the light one."""
    found = []
    for rule in sheet:
        if isinstance(rule.body, list):
            found.append(Rule(rule.head, in_every_theme(rule.body)))
            continue
        themes = set(THEMED.findall(rule.head))
        if not themes:
            found.append(rule)
            continue
        always = ", ".join(each for each in apart(rule.head, ",") if "dark" not in THEMED.findall(each))
        found += [Rule(always, rule.body)] if always else []
        for theme in sorted(themes):
            selectors = [each for each in apart(rule.head, ",") if theme in THEMED.findall(each)]
            auto = ", ".join(THEMED.sub("[data-theme=auto]", each) for each in selectors)
            if theme == "dark":
                found.append(Rule("@media screen", [Rule(", ".join(selectors), rule.body)]))
                found.append(Rule("@media screen and (prefers-color-scheme: dark)", [Rule(auto, rule.body)]))
            else:
                found.append(Rule("@media print, (prefers-color-scheme: light)", [Rule(auto, rule.body)]))
                printed = ", ".join(THEMED.sub("[data-theme=dark]", each) for each in selectors)
                found.append(Rule("@media print", [Rule(printed, rule.body)]))
    return found


def text_of(sheet):
    def text(rule):
        body = text_of(rule.body) if isinstance(rule.body, list) else rule.body
        if '"' not in body and not isinstance(rule.body, list):
            body = re.sub(r"\s*([;:,{}])\s*", r"\1", body)
        return f"{rule.head}{{{body}}}"

    return "\n".join(map(text, sheet))
