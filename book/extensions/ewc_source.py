"""Show code from `code/ewc` on a page, live.

Why: code that is pasted into a chapter ages apart from the code that runs. This finds a function, class or method by
its name, in the syntax tree and without importing it:

    ```{source} ewc.fisher.diagonal_fisher
    :from: first shown line holds this text (once)
    :to: last shown line holds this text (once, from there on)
    :docstring:
    ```

Docstrings are left out, since the chapter is the explanation; `:docstring:` keeps them.
"""

import ast
import textwrap
import zlib
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def find(code: Path, name: str) -> tuple[Path, str, ast.AST]:
    """The file, the name within it, and the syntax node of `package.module.Class.method`."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        file = code.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            break
    else:
        raise LookupError(f"no file under code/ is the module of {name!r}")
    node = ast.parse(file.read_text("utf8"))
    for part in parts[length:]:
        node = next((each for each in node.body if isinstance(each, DEFINITIONS) and each.name == part), None)
        if node is None:
            raise LookupError(f"{file.name} defines no function, class or method {'.'.join(parts[length:])!r}")
    return file, ".".join(parts[length:]), node


def lines_of(text: str, node: ast.AST, docstring: bool) -> list[str]:
    """The definition with its decorators, without indentation; without docstrings unless asked."""
    lines = dict(enumerate(text.splitlines(), start=1))
    if not docstring:
        for inner in ast.walk(node):
            if isinstance(inner, DEFINITIONS) and ast.get_docstring(inner) is not None and len(inner.body) > 1:
                first = inner.body[0]
                last = first.end_lineno + (not lines[first.end_lineno + 1].strip())   # and the blank line after it
                for number in range(first.lineno, last + 1):
                    lines.pop(number)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    shown = [line for number, line in lines.items() if start <= number <= node.end_lineno]
    return textwrap.dedent("\n".join(shown)).splitlines()


def the_line(lines: list[str], text: str, option: str) -> int:
    found = [place for place, line in enumerate(lines) if text in line]
    if len(found) != 1:
        raise LookupError(f":{option}: {text!r} is found in {len(found)} of the lines where one was expected")
    return found[0]


class Source(SphinxDirective):
    required_arguments = 1
    option_spec = {"docstring": directives.flag, "from": directives.unchanged, "to": directives.unchanged}  # noqa: RUF012

    def run(self):
        project = Path(self.env.srcdir)
        try:
            file, name, node = find(project / "code", self.arguments[0])
            lines = lines_of(file.read_text("utf8"), node, "docstring" in self.options)
            if "from" in self.options:
                lines = lines[the_line(lines, self.options["from"], "from"):]
            if "to" in self.options:
                lines = lines[: the_line(lines, self.options["to"], "to") + 1]
        except LookupError as problem:
            raise self.error(f"source {self.arguments[0]}: {problem.args[0]}") from problem
        self.env.note_dependency(str(file))
        code = textwrap.dedent("\n".join(lines)).strip("\n")
        block = nodes.literal_block(code, code, language="python")
        self.set_source_info(block)
        place = nodes.literal("", file.relative_to(project).as_posix())
        # Not Sphinx's own caption, which is numbered ("Listing 4").
        caption = nodes.paragraph("", "", place, nodes.Text(" · "), nodes.literal("", name), classes=["from-file"])
        return [nodes.container("", caption, block, classes=["from-module"])]


def setup(app: Sphinx):
    app.add_directive("source", Source)
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
