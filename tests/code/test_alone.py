"""What can be taken away works alone, and no room of the house leans on a room that stands above it."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import ewc
import pytest

ROOMS = Path(ewc.__file__).parent
CODE = Path(__file__).parents[2] / "code"

# Each file does real work whose answer is known. One linear layer, zero weights, one example x = (1, 2), two classes:
# p = (½, ½), so that the Fisher of W[c, i] is ¼ xᵢ² and that of b[c] is ¼.
WORK = {
    "fisher": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
found = fisher.diagonal_fisher(model, torch.tensor([[1.0, 2.0]]))
assert torch.allclose(found["weight"], torch.tensor([[0.25, 1.0], [0.25, 1.0]])), found
assert torch.allclose(found["bias"], torch.tensor([0.25, 0.25])), found
assert torch.allclose(fisher.full_fisher(model, torch.tensor([[1.0, 2.0]])).trace(), torch.tensor(3.0))
(factors,) = fisher.kronecker_fisher(model, torch.tensor([[1.0, 2.0]])).values()
assert torch.allclose(factors.inputs, torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])), factors
assert torch.allclose(factors.outputs, torch.tensor([[0.25, -0.25], [-0.25, 0.25]])), factors
""",
    "penalties": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
ewc = penalties.EWC(model, strength=4.0)
ewc.consolidate(torch.tensor([[1.0, 2.0]]))
torch.nn.init.ones_(model.weight)
assert abs(float(ewc.penalty()) - 4 / 2 * 2.5) < 1e-6, ewc.penalty()
l2 = penalties.L2(model)
l2.consolidate()
assert float(l2.penalty()) == 0
""",
    "importance": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
guard = importance.SynapticIntelligence(model, strength=2.0, damping=0.75)
model(torch.tensor([[1.0, 2.0]]))[0, 0].backward()
with torch.no_grad():
    model.bias[0] -= 0.5
guard.consolidate()
torch.nn.init.ones_(model.bias)
assert abs(float(guard.penalty()) - 2 / 2 * 0.5 * 1.5**2) < 1e-6, guard.penalty()
guard = importance.MemoryAwareSynapses(model, strength=2.0)
guard.consolidate(torch.tensor([[1.0, 2.0]]))
torch.nn.init.zeros_(model.bias)
assert abs(float(guard.penalty()) - 2 * 2) < 1e-6, guard.penalty()
""",
    "kronecker": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
guard = kronecker.KroneckerEWC(model, strength=4.0)
guard.consolidate(torch.tensor([[1.0, 2.0]]))
torch.nn.init.ones_(model.weight)
assert abs(float(guard.penalty())) < 1e-6  # both logits rise by as much: no probability changes
with torch.no_grad():
    model.weight[1] = 0
assert abs(float(guard.penalty()) - 4 / 2 * 0.25 * 3**2) < 1e-6, guard.penalty()
""",
    "distillation": """
import math
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
guard = distillation.Distillation(model, strength=3.0, temperature=2.0)
guard.consolidate()
with torch.no_grad():
    model.bias[0] = 2 * math.log(3)
assert abs(float(guard.penalty(torch.zeros(1, 2))) - 3 * 4 * math.log(2 / math.sqrt(3))) < 1e-6
""",
    "laplace": """
import math
posterior = laplace.laplace_approximation(lambda theta: -2 * ((theta - 3) ** 2).sum(), torch.zeros(1, dtype=torch.double))
assert abs(float(posterior.mean) - 3) < 1e-9 and abs(float(posterior.precision) - 4) < 1e-9
assert abs(float(posterior.log_density(posterior.mean)) - 0.5 * math.log(4 / (2 * math.pi))) < 1e-9
one = torch.ones(1, 1)
kronecker = laplace.Kronecker([(one, one, torch.tensor([[0]]))], examples=3, prior=1.0)
assert float(laplace.LaplacePosterior(torch.zeros(1), kronecker).precision.dense()) == 4
""",
    "metrics": """
matrix = metrics.AccuracyMatrix([[0.9, 0.1], [0.5, 0.8]])
assert abs(matrix.average() - 0.65) < 1e-12 and abs(matrix.backward_transfer() + 0.4) < 1e-12
ones = {"a": torch.ones(3)}
assert abs(metrics.fisher_overlap(ones, ones) - 1) < 1e-12
""",
    "conjugate": """
assert conjugate.learn_coin(1, 1, torch.tensor([1, 0, 1])) == (3, 2)
""",
    "grid": """
axis = torch.linspace(-1, 1, 21)
assert abs(float(grid.Grid(axis).values(lambda theta: theta.sum() ** 2)[0]) - 1) < 1e-6
""",
    "likelihood": """
import math
logits = torch.zeros(3, 4, dtype=torch.double)
assert abs(float(likelihood.log_likelihood(logits, torch.tensor([0, 1, 3]))) + 3 * math.log(4)) < 1e-12
""",
    "replay": """
import math
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
memory = replay.Replay(model, strength=3.0, examples=1)
memory.consolidate(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
assert abs(float(memory.penalty()) - 3 * math.log(2)) < 1e-6
""",
    "noise": """
import math
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
step = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
assert abs(noise.curvature_along(model, torch.tensor([[1.0, 2.0]]), step) - 0.25) < 1e-6
assert noise.scales(torch.tensor([3.0, 1.0]), "null", share=0.5).tolist() == [0, 1]
assert abs(float(noise.cost_of_a_shift(torch.tensor(0.5), math.log(3))) - math.log(2) + math.log(3) / 2) < 1e-6
""",
    "two_weights": """
model = two_weights.TwoWeights(torch.zeros(2))
way = two_weights.descend(model, torch.tensor([[2.0, 0.0]]), torch.tensor([1]), steps=1, learning_rate=1.0)
assert torch.allclose(way, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
""",
}

NEEDS = {"penalties": ["fisher"], "importance": ["fisher", "penalties"], "kronecker": ["fisher", "penalties"]}


def says_that_it_stands_alone(path):
    return "needs torch and" in (ast.get_docstring(ast.parse(path.read_text("utf8"))) or "")


def test_every_file_that_says_it_stands_alone_is_tried_here():
    assert {path.stem for path in ROOMS.glob("*.py") if says_that_it_stands_alone(path)} == WORK.keys()


@pytest.mark.parametrize("name", WORK)
def test_copied_into_an_empty_folder_it_works_with_torch_and_nothing_else(name, tmp_path):
    for file in (name, *NEEDS.get(name, ())):
        shutil.copy(ROOMS / f"{file}.py", tmp_path)
    # -I: no PYTHONPATH, no user packages. The package and what else the book uses cannot be imported.
    code = (
        "import sys\n"
        "for blocked in ('ewc', 'torchvision', 'sklearn', 'matplotlib', 'tqdm', 'safetensors', 'PIL', 'scipy', 'IPython'):\n"
        "    sys.modules[blocked] = None\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import torch, {name}\n"
        f"assert {name}.__file__.startswith({str(tmp_path)!r})\n"
        f"{WORK[name]}"
        "print('worked')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout.strip() == "worked", done.stderr


# ---- the rooms of the design: each may import what stands here, and nothing else

ALONE = {
    *("fisher", "laplace", "penalties", "metrics", "conjugate", "grid", "models", "likelihood", "replay", "two_weights"),
    *("importance", "kronecker", "distillation", "noise"),
}
LEARNING = {"fisher", "laplace", "penalties", "metrics", "tasks", "models"}
MAY_IMPORT = {
    "fisher": set(),
    "laplace": set(),
    "conjugate": set(),
    "grid": set(),
    "penalties": {"fisher"},
    "importance": {"fisher", "penalties"},
    "kronecker": {"fisher", "penalties"},
    "distillation": set(),
    "metrics": set(),
    "tasks": set(),
    "models": set(),
    "likelihood": set(),
    "replay": set(),
    "two_weights": set(),
    "noise": set(),
    "importance": {"fisher", "penalties"},
    "kronecker": {"fisher", "penalties"},
    "distillation": set(),
    "training": LEARNING,
    "page": set(),
    "together": LEARNING | {"training"},
    "experiments": {*LEARNING, "replay", "training", "page"},
    "sequences": {*LEARNING, "replay", "importance", "kronecker", "distillation", "training", "together", "experiments"},
    "paper": {"tasks", "training", "page", "experiments", "sequences"},
    "figures": {"metrics"},
    "frames": {"figures"},
    "figures_bayes": {"metrics", "figures", "frames"},
    "figures_refresher": {"figures", "figures_bayes", "frames"},
    "figures_fixes": {"figures"},
    "figures_loss": {"figures"},
    "figures_curvature": {"figures"},
    "experiments_cannot": {*LEARNING, "noise", "training", "together", "experiments"},
    "figures_cannot": {"figures"},
}
MAY_USE = {
    **{room: {"torch"} for room in ALONE},
    "tasks": {"torch", "torchvision", "sklearn", "matplotlib", "PIL"},
    "training": {"torch", "tqdm"},
    "page": {"IPython"},
    "together": {"torch", "tqdm"},
    "experiments": {"torch", "safetensors"},
    "sequences": {"torch"},
    "paper": {"torch"},
    "figures": {"torch", "numpy", "matplotlib"},
    "frames": set(),
    "figures_bayes": {"torch", "numpy", "matplotlib"},
    "figures_refresher": {"torch", "matplotlib"},
    "figures_fixes": {"torch", "numpy", "matplotlib"},
    "figures_loss": {"torch", "numpy", "matplotlib"},
    "figures_curvature": {"torch", "numpy", "matplotlib"},
    "experiments_cannot": {"torch"},
    "figures_cannot": {"torch", "numpy", "matplotlib"},
}


def imports(path):
    """The rooms and the foreign packages that a file imports, at its head or inside a function."""
    rooms, foreign = set(), set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names = [f"ewc.{alias.name}" for alias in node.names] if node.module == "ewc" else [node.module]
        else:
            continue
        for name in names:
            head, *rest = name.split(".")
            if head == "ewc":
                rooms.add(rest[0] if rest else "the whole package")
            elif (ROOMS / f"{head}.py").exists() and head in ("fisher", "penalties"):
                rooms.add(head)  # in a file copied out of the package
            elif head not in sys.stdlib_module_names:
                foreign.add(head)
    return rooms, foreign


def test_every_room_is_in_the_table():
    assert {path.stem for path in ROOMS.glob("*.py")} - {"__init__"} == MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_from_the_rooms_that_the_design_allows(room):
    rooms, foreign = imports(ROOMS / f"{room}.py")
    assert rooms <= MAY_IMPORT[room]
    assert foreign <= MAY_USE[room]


def test_no_room_stands_on_itself_by_a_detour():
    def below(room, path=()):
        assert room not in path, f"{' → '.join((*path, room))} goes round in a circle"
        for other in MAY_IMPORT[room]:
            below(other, (*path, room))

    for room in MAY_IMPORT:
        below(room)


def test_the_folder_code_is_no_package():
    # It would shadow Python's own module `code`.
    assert not (CODE / "__init__.py").exists()
    assert ROOMS == CODE / "ewc"
