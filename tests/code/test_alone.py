"""The files that are there to be taken away work in an empty folder with torch alone; the rooms import only from above."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = Path(__file__).parents[2] / "code" / "ewc"

# Each room, and the rooms and libraries that it may import.
ORDER = {
    "page": {"IPython"},
    "fisher": {"torch"},
    "conjugate": {"torch"},
    "grid": {"torch"},
    "laplace": {"torch"},
    "penalties": {"torch", "fisher"},
    "metrics": {"torch"},
    "tasks": {"torch", "torchvision", "sklearn", "matplotlib", "PIL"},
    "models": {"torch"},
    "training": {"torch", "tqdm", "metrics", "tasks"},
    "experiments": {"torch", "safetensors", "page", "fisher", "metrics", "models", "penalties", "tasks", "training"},
    "figures": {"torch", "matplotlib"},
    "figures_bayes": {"torch", "figures"},
}

WORK = {
    "fisher": """
        import torch, fisher
        model = torch.nn.Linear(1, 2, bias=False).double()
        with torch.no_grad(): model.weight.zero_()
        found = fisher.diagonal_fisher(model, torch.tensor([[2.0]], dtype=torch.float64))["weight"]
        assert torch.allclose(found, torch.full((2, 1), 4 * 0.25, dtype=torch.float64))
    """,
    "laplace": """
        import torch, laplace
        bell = laplace.laplace_approximation(lambda t: -((t - 3) ** 2).sum() * 2, torch.zeros(1, dtype=torch.float64))
        assert torch.allclose(bell.mean, torch.tensor([3.0], dtype=torch.float64)) and float(bell.precision) == 4.0
    """,
    "metrics": """
        import metrics
        assert abs(metrics.AccuracyMatrix([[0.9, 0.1], [0.5, 0.8]]).backward_transfer() + 0.4) < 1e-12
    """,
    "conjugate": """
        import torch, conjugate
        assert conjugate.learn_coin(1, 1, torch.tensor([1.0, 0.0, 1.0])) == (3, 2)
    """,
    "grid": """
        import torch, grid
        line = grid.Grid(torch.linspace(-8, 8, 1601, dtype=torch.float64))
        assert abs(float(line.log_integral(-line.points[..., 0] ** 2 / 2)) - 0.9189385) < 1e-6
    """,
    "penalties": """
        import torch, penalties
        model = torch.nn.Linear(1, 2, bias=False).double()
        with torch.no_grad(): model.weight.zero_()
        guard = penalties.EWC(model, strength=3.0)
        guard.consolidate(torch.tensor([[2.0]], dtype=torch.float64))
        with torch.no_grad(): model.weight.add_(1.0)
        assert abs(float(guard.penalty()) - 3.0 / 2 * 2) < 1e-12
    """,
}


@pytest.mark.parametrize("name", WORK)
def test_a_file_works_when_copied_alone(name, tmp_path):
    for file in {name} | (ORDER[name] & ORDER.keys()):
        shutil.copy(ROOMS / f"{file}.py", tmp_path)
    forbid = "import sys; sys.modules['ewc'] = None\n"  # whatever is installed, the package is not to be found
    code = forbid + "\n".join(line[8:] for line in WORK[name].splitlines())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imported(file):
    for node in ast.walk(ast.parse(file.read_text("utf8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"ewc.{alias.name}" for alias in node.names] if node.module == "ewc" else [node.module]
        for name in names:
            parts = name.split(".")
            yield parts[1] if parts[0] == "ewc" else parts[0]


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_what_it_may(room):
    found = set(imported(ROOMS / f"{room}.py")) - set(sys.stdlib_module_names)
    assert found <= ORDER[room] | ({"fisher"} if room == "penalties" else set())


def test_every_room_is_listed_and_none_may_import_from_below():
    assert {file.stem for file in ROOMS.glob("*.py")} - {"__init__"} == ORDER.keys()
    rooms = list(ORDER)
    for place, room in enumerate(rooms):
        assert not ORDER[room] & set(rooms[place:])


def test_the_folder_named_code_is_no_package():
    assert not (ROOMS.parent / "__init__.py").exists()
