"""A page that Sphinx has read and resolved, as Markdown between its code cells: the text of the notebook that can be taken along.

Why: in the source stand roles, directives and labels, which only this book understands. In the resolved page stand the words that
a reader sees, with the numbers of figures and equations and those from the runs.
"""

from docutils import nodes
from ewc_cells import Cell


class Text:
    """A page as Markdown, in pieces between its code cells. `kinds` says of each cell of the executed page whether it is code."""

    def __init__(self, page: list[Cell], kinds: list[str]):
        self.cells = dict(zip((place for place, kind in enumerate(kinds) if kind == "code"), page, strict=True))
        self.parts, self.blocks = [], []

    def of(self, doctree) -> list:
        self.block(doctree, 1)
        self.up_to(float("inf"))
        return self.parts

    def up_to(self, place):
        """This cell, and before it those that the page has left out."""
        if self.blocks:
            self.parts.append("\n\n".join(self.blocks))
            self.blocks = []
        for each in sorted(self.cells):
            if each <= place:
                self.parts.append(self.cells.pop(each))

    def block(self, node, level):
        deeper = level + isinstance(node, nodes.section)
        match node:
            case nodes.container() if node.get("nb_element") == "cell_code":
                self.up_to(node["cell_index"])
                self.blocks += [f"*{inline(each)}*" for each in node.findall(nodes.caption)]
            case nodes.container() if "from-module" in node["classes"]:
                code = next(node.findall(nodes.literal_block))
                self.blocks += [inline(node[0]), f"```python\n{code.astext()}\n```"]
            case nodes.title() | nodes.rubric():
                words = inline(node).strip()
                words = f"Exercise {words}" if words.startswith("(") else words      # its number is only given to what is written as HTML
                self.blocks.append(f"{'#' * (level - 1)} {words}" if isinstance(node.parent, nodes.section) else f"**{words}**")
            case nodes.math_block():
                number = f"\\tag{{{node['number']}}}" if node.get("number") else ""
                self.blocks.append(f"$${node.astext().strip()} {number}$$")
            case nodes.literal_block():
                self.blocks.append(f"```{node.get('language', '')}\n{node.astext().rstrip()}\n```")
            case nodes.bullet_list() | nodes.enumerated_list():
                mark = "-" if isinstance(node, nodes.bullet_list) else "1."
                self.blocks.append("\n".join(f"{mark} {' '.join(map(inline, item.children))}" for item in node.children))
            case nodes.table():
                rows = [[inline(entry).replace("|", "\\|") for entry in row.children] for row in node.findall(nodes.row)]
                rows.insert(1, ["---"] * len(rows[0]))
                self.blocks.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
            case nodes.TextElement():
                if isinstance(node, nodes.paragraph | nodes.term | nodes.caption) and (text := inline(node)):
                    self.blocks.append(text)
            case nodes.Element() if not isinstance(node, nodes.Invisible):
                for child in node.children:
                    self.block(child, deeper)


MARKS = {nodes.emphasis: ("*", "*"), nodes.strong: ("**", "**"), nodes.literal: ("`", "`"), nodes.math: ("$", "$")}


def inline(node) -> str:
    """Words, formulas, names of code. References keep their words; those that lead to the web, their address."""
    if isinstance(node, nodes.Text):
        return " ".join(node.astext().split("\n"))
    start, end = next((marks for kind, marks in MARKS.items() if isinstance(node, kind)), ("", ""))
    if start in ("`", "$"):
        return f"{start}{node.astext()}{end}"
    words = "".join(map(inline, node.children))
    if isinstance(node, nodes.reference) and node.get("refuri", "").startswith("http"):
        return f"[{words}]({node['refuri']})"
    return f"{start}{words}{end}"
