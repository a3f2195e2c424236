"""The house as the files draw it: its modules, the floor that each stands on, and what each imports."""

import ast
import sys
from pathlib import Path

import ewc

PACKAGE = Path(ewc.__file__).parent
ROOT = Path(__file__).parents[2]
FLOORS = ("shelf", "learning", "workshop", "chapters")
LEARNING = ("tasks", "datasets", "cifar", "models", "passes", "training", "together", "in_turn")


def modules():
    """Name within the package → file; a folder's own file is none of them."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


def floor(name):
    head, *rest = name.split(".")
    return head if rest else "learning" if name in LEARNING else "shelf"


def imports(path):
    """The modules of the package and the foreign packages that a file imports, at its head or inside a function."""
    known = modules()
    package = path.relative_to(PACKAGE).parent.parts
    own, foreign = set(), set()

    def take(name):
        """`a.b.c`, or what it is in, where the last part is no module but a name in one."""
        while name and name not in known:
            name = name.rpartition(".")[0]
        assert name, f"{path} imports what is no module"
        own.add(name)

    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(".".join(filter(None, (node.module, alias.name))), node.level) for alias in node.names]
        else:
            continue
        for name, level in names:
            head, _, rest = name.partition(".")
            if level:
                take(".".join((*package[: len(package) - level + 1], name)))
            elif head == "ewc":
                take(rest)
            elif not package and head in known:
                own.add(head)  # copied into a folder, without a package
            elif head not in sys.stdlib_module_names:
                foreign.add(head)
    return own, foreign
