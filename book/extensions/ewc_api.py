"""The page that lists the module's public functions and classes, from their docstrings.

Why: the docstrings are written to be read as they are, with formulas in plain characters; a tool that takes them for
markup would garble them. `{api} fisher workshop.records …` shows each module's public objects, in order, each with the anchor
`ewc.<module>.<name>` that the Notation page links to. Before them stands a list of all, with the first sentence of each, and at the head
of a module the way to its file, as it can be taken along.
"""

import ast
import inspect
import re
import zlib
from pathlib import Path

from docutils import nodes
from ewc_takeaway import TAKEN, taken
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLASSES = ast.ClassDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class ApiDirective(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        listed, shown = nodes.definition_list(classes=["api-list"]), []
        up = "../" * self.env.docname.count("/")
        for module in self.arguments[0].split():
            file = Path(self.env.srcdir, "code", "ewc", *module.split(".")).with_suffix(".py")
            if not file.is_file():
                raise self.error(f"api: code/ewc has no module {module!r}")
            self.env.note_dependency(str(file))
            tree = ast.parse(file.read_text("utf8"))
            section = nodes.section("", nodes.title("", f"ewc.{module}"), ids=[f"ewc.{module}"], names=[f"ewc.{module}"])
            name = nodes.literal("", f"code/ewc/{module.replace('.', '/')}.py")
            section += nodes.paragraph("", "", nodes.reference("", "", name, internal=True, refuri=f"{up}{TAKEN}/{file.name}"), classes=["from-file"])
            section += paragraphs(ast.get_docstring(tree))
            public = [node for node in tree.body if is_public(node)]
            for node in public:
                section += entry(node, f"ewc.{module}.{node.name}")
            shown.append(section)
            listed += in_short(module, public)
            self.env.metadata[self.env.docname].setdefault("ewc_api", []).append(module)
        return [listed, *shown]


def is_public(node):
    return isinstance(node, (CLASSES, *FUNCTIONS)) and not node.name.startswith("_") and ast.get_docstring(node)


def in_short(module, public):
    """A module and what it has: the name of each, which leads to it, and the first sentence of what it says of itself."""
    name = nodes.reference("", "", nodes.literal("", f"ewc.{module}"), internal=True, refid=f"ewc.{module}")
    lines = nodes.bullet_list()
    for node in public:
        link = nodes.reference("", "", nodes.literal("", node.name), internal=True, refid=f"ewc.{module}.{node.name}")
        lines += nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(" "), *code_in(first_sentence(ast.get_docstring(node)))))
    return nodes.definition_list_item("", nodes.term("", "", name), nodes.definition("", lines))


def first_sentence(docstring):
    text = " ".join(docstring.partition("\n\n")[0].split())
    return re.sub(":$", ".", re.split(r"(?<=\w[.:])\s|(?<=[)`][.:])\s", text, maxsplit=1)[0])


def bring_files(app: Sphinx, doctree, docname):
    """The file of each module, to be taken along."""
    for module in app.env.metadata[docname].get("ewc_api", ()):
        name = f"{module.rpartition('.')[2]}.py"
        Path(app.outdir, TAKEN, name).write_text(taken(Path(app.srcdir, "code", "ewc"), module, app.ewc_wheel), "utf8")


def entry(node, place):
    """Signature and docstring; a class with its public methods."""
    box = nodes.container("", ids=[place], classes=["api"])
    if isinstance(node, FUNCTIONS):
        signature = f"{node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    else:
        makers = [each for each in node.body if isinstance(each, FUNCTIONS) and each.name == "__init__"]
        arguments = [ast.unparse(maker.args).removeprefix("self").lstrip(", ") for maker in makers]
        signature = f"class {node.name}" + "".join(f"({each})" for each in arguments)
    box += nodes.literal_block(signature, signature, language="python")
    box += paragraphs(ast.get_docstring(node))
    if isinstance(node, CLASSES):
        for method in node.body:
            if isinstance(method, FUNCTIONS) and not method.name.startswith("_") and ast.get_docstring(method):
                box += entry(method, f"{place}.{method.name}")
    return box


def paragraphs(docstring):
    """The docstring: running text flows, formulas keep their lines, `Args:` and the like become lists."""
    shown = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
        lines = block.splitlines()
        head = lines[0].strip()
        if all(line.startswith(" ") for line in lines):
            code = inspect.cleandoc(block)
            shown.append(nodes.literal_block(code, code, language="none"))
        elif head == "Returns:":  # one thing, in words
            text = " ".join(line.strip() for line in lines[1:])
            shown += [nodes.paragraph("", "", nodes.strong("", head)), nodes.paragraph("", "", *code_in(text))]
        elif head.endswith(":") and len(lines) > 1 and lines[1].startswith(" "):
            shown += [nodes.paragraph("", "", nodes.strong("", head)), items(lines[1:], "    ")]
        elif head.startswith("- "):
            shown.append(items(lines, "- "))
        else:
            text = " ".join(line.strip() for line in lines)
            shown.append(nodes.paragraph("", "", *code_in(text)))
    return shown


def items(lines, mark):
    """One item for each line that begins with the mark and no deeper; deeper ones go on with it."""
    found = []
    for line in lines:
        if line.startswith(mark) and not line[len(mark) :].startswith(" "):
            found.append(line.removeprefix(mark).strip())
        else:
            found[-1:] = [" ".join([*found[-1:], line.strip()])]
    return nodes.bullet_list("", *(nodes.list_item("", nodes.paragraph("", "", *code_in(item))) for item in found))


def code_in(text):
    """What stands between back-quotes is code."""
    pieces = re.split(r"``?([^`]+)``?", text)
    return [nodes.literal("", piece) if place % 2 else nodes.Text(piece) for place, piece in enumerate(pieces) if piece]


def setup(app: Sphinx):
    app.add_directive("api", ApiDirective)
    app.connect("doctree-resolved", bring_files)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
