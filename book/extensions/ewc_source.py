"""Show code from `code/ewc` on a page, live.

Why: code that is pasted into a chapter ages apart from the code that runs. This finds a function, class or method by
its name, in the syntax tree and without importing it:

    ```{source} ewc.fisher.diagonal_fisher
    :from: first shown line holds this text (once)
    :to: last shown line holds this text (once, from there on)
    :docstring:
    :equation: eq-fisher-diagonal
    :test: tests/code/test_equations.py::test_eq_fisher_diagonal
    ```

Docstrings are left out, since the chapter is the explanation; `:docstring:` keeps them. `:equation:` binds the lines to
equations of the page that they compute, and `:test:`, which must be there then, to the test that holds the two together; it
opens under the listing. What is long is folded. A listing leads to its whole file and to its description. Where a name, a line, an
equation or a test is gone, the build fails.
"""

import ast
import textwrap
import zlib
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
TAKEN, API = "take", "book/appendix/api"   # where the file lies that can be taken along (ewc_takeaway), and the page of descriptions (ewc_api)
BRANCHES = ("else:", "elif ", "except", "finally:")
FOLDED = 24   # a listing of more lines than this is folded

parsed = cache(ast.parse)   # many listings and tests stand in one file


def find(code: Path, name: str) -> tuple[Path, str, ast.AST]:
    """The file, the name within it, and the syntax node of `package.module.Class.method`."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        file = code.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            break
    else:
        raise LookupError(f"no file under code/ is the module of {name!r}")
    node = parsed(file.read_text("utf8"))
    for part in parts[length:]:
        node = next((each for each in node.body if isinstance(each, DEFINITIONS) and each.name == part), None)
        if node is None:
            raise LookupError(f"{file.name} defines no function, class or method {'.'.join(parts[length:])!r}")
    return file, ".".join(parts[length:]), node


def described(code: Path, file: Path, name: str) -> str:
    """The anchor of the nearest description: of the object, of the class that it is in, or of the module."""
    anchor, within = ".".join(file.relative_to(code).with_suffix("").parts), parsed(file.read_text("utf8"))
    for part in name.split("."):
        within = next(each for each in within.body if isinstance(each, DEFINITIONS) and each.name == part)
        if part.startswith("_") or not ast.get_docstring(within):
            break
        anchor += f".{part}"
    return anchor


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


def excerpt(lines: list[str], first: int, last: int) -> list[str]:
    """The lines from `first` to `last`. Where they begin deeper than they go on, the lines that open their blocks come before
    them, with dots for what is left out: else the indentation would lie."""
    def depth(line):
        return len(line) - len(line.lstrip())

    shown = lines[first : last + 1]
    least = min(depth(line) for line in shown if line.strip())
    openers, above, place = [], depth(shown[0]), first
    while lines[place].lstrip().startswith(BRANCHES):      # the branches that come before this one
        before = place - 1
        while not lines[before].strip() or depth(lines[before]) > above:
            before -= 1
        openers = [lines[before], " " * (above + 4) + "...", *openers]
        place = before
    while above > least:
        before = place - 1
        while not lines[before].strip() or depth(lines[before]) >= above:
            before -= 1
        left_out = [" " * above + "..."] if any(line.strip() for line in lines[before + 1 : place]) else []
        above, head = depth(lines[before]), before
        while lines[head].strip()[:1] in (")", "]", "}") or depth(lines[head]) > above:   # what is opened over several lines
            head -= 1
        openers = [*lines[head : before + 1], *left_out, *openers]
        place = head
    return [*openers, *shown]


class Fold(nodes.General, nodes.Element):
    """What opens when its `summary` is pressed."""


def visit_fold(self, node):
    self.body.append(f"<details><summary>{self.encode(node['summary'])}</summary>")


def depart_fold(self, node):
    self.body.append("</details>")


class Source(SphinxDirective):
    required_arguments = 1
    option_spec = {  # noqa: RUF012
        "docstring": directives.flag, "from": directives.unchanged, "to": directives.unchanged,
        "equation": directives.unchanged_required, "test": directives.unchanged_required,
    }  # fmt: skip

    def run(self):
        project = Path(self.env.srcdir)
        try:
            file, name, node = find(project / "code", self.arguments[0])
            lines = lines_of(file.read_text("utf8"), node, "docstring" in self.options)
            first = the_line(lines, self.options["from"], "from") if "from" in self.options else 0
            last = the_line(lines[first:], self.options["to"], "to") + first if "to" in self.options else len(lines) - 1
            lines = excerpt(lines, first, last)
            if ("equation" in self.options) != ("test" in self.options):
                raise LookupError(":equation: and :test: go together: a binding needs its proof")
            proof = find_test(project, self.options["test"]) if "test" in self.options else None
        except LookupError as problem:
            raise self.error(f"source {self.arguments[0]}: {problem.args[0]}") from problem
        self.env.note_dependency(str(file))
        equations = self.options.get("equation", "").split()
        up = "../" * self.env.docname.count("/")
        place = self.link(file.relative_to(project).as_posix(), f"{up}{TAKEN}/{file.name}")
        entry = self.link(name, f"{up}{API}.html#{described(project / 'code', file, name)}")
        # Not Sphinx's own caption, which is numbered ("Listing 4").
        caption = nodes.paragraph("", "", place, nodes.Text(" · "), entry, classes=["from-file"])
        box = nodes.container("", caption, self.listing(lines), classes=["from-module"], place=self.arguments[0])
        if equations:
            box["equations"] = equations
            caption += nodes.Text(" computes ")
            for number, label in enumerate(equations):
                caption += nodes.Text(", " * bool(number))
                caption += self.reference(label)
            test_file, test_lines = proof
            self.env.note_dependency(str(test_file))
            box += Fold("", self.listing(test_lines, fold=False), place="", summary=f"the test that holds them equal: {self.options['test']}")
        return [box]

    def listing(self, lines, fold=True):
        code = textwrap.dedent("\n".join(lines)).strip("\n")
        block = nodes.literal_block(code, code, language="python")
        self.set_source_info(block)
        return Fold("", block, summary=f"{len(lines)} lines of code") if fold and len(lines) > FOLDED else block

    def link(self, words, address):
        return nodes.reference("", "", nodes.literal("", words), refuri=address, internal=True)

    def reference(self, label):
        return addnodes.pending_xref(
            "", nodes.literal("", label), refdomain="math", reftype="eq", reftarget=label, refdoc=self.env.docname, refwarn=True
        )


def find_test(project: Path, test: str) -> tuple[Path, list[str]]:
    """The file of `tests/…/test_x.py::test_name`, and the lines of that test."""
    file, _, name = test.partition("::")
    path = project / file
    if not path.is_file():
        raise LookupError(f"there is no file {file!r}")
    text = path.read_text("utf8")
    node = next((each for each in parsed(text).body if isinstance(each, DEFINITIONS) and each.name == name), None)
    if node is None:
        raise LookupError(f"{file} defines no test {name!r}")
    return path, lines_of(text, node, docstring=True)


def setup(app: Sphinx):
    app.add_directive("source", Source)
    app.add_node(Fold, html=(visit_fold, depart_fold))
    return {"version": "1", "env_version": zlib.crc32(Path(__file__).read_bytes()), "parallel_read_safe": True}
