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
    "review": """
class Springs:
    def __init__(self, model):
        self.model, self.terms = model, []

    def consolidate(self, inputs, targets):
        fisher = [0.0 * parameter.detach() for parameter in self.model.parameters()]
        modes = [module.training for module in self.model.modules()]
        self.model.eval()
        for x in inputs:
            logs = self.model(x[None])[0].log_softmax(-1)
            for log in logs:
                scores = torch.autograd.grad(log, list(self.model.parameters()), retain_graph=True)
                fisher = [f + log.exp().detach() * s**2 / len(inputs) for f, s in zip(fisher, scores)]
        for module, mode in zip(self.model.modules(), modes):
            module.training = mode
        self.terms.append(([p.detach().clone() for p in self.model.parameters()], fisher))

    def penalty(self):
        return sum((f * (p - a) ** 2).sum() / 2 for anchor, fisher in self.terms
                   for p, a, f in zip(self.model.parameters(), anchor, fisher))

found = review.review(Springs)
assert len(found) == 7 and set(found.values()) == {None}, found
half = type("Half", (Springs,), {"penalty": lambda self: Springs.penalty(self) / 2})
assert sum(complaint is not None for complaint in review.review(half).values()) == 1
""",
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
    "anchors": """
task = torch.ones(1, 1)
ends = anchors.learn_gaussians(torch.tensor([[0.0], [2.0], [4.0]]), torch.stack([task] * 3), anchors="separate")
assert torch.allclose(ends.flatten(), torch.tensor([0.0, 1.0, 5 / 3])), ends
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
    "steps": """
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.constant_(model.weight, 3.0)
steps.proximal_step(model, {"weight": torch.tensor([[1.0]])}, {"weight": torch.tensor([[4.0]])}, 0.25)
assert abs(float(model.weight) - 2) < 1e-6, model.weight
assert float(steps.capped({"weight": torch.tensor([9.0])}, 0.25)["weight"]) == 4
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
    *("importance", "kronecker", "distillation", "anchors", "steps", "slips", "review", "noise"),
}
LEARNING = {"fisher", "laplace", "penalties", "metrics", "tasks", "models"}
MAY_IMPORT = {
    "fisher": set(),
    "laplace": set(),
    "conjugate": set(),
    "anchors": set(),
    "grid": set(),
    "penalties": {"fisher"},
    "importance": {"fisher", "penalties"},
    "kronecker": {"fisher", "penalties"},
    "distillation": set(),
    "slips": {"fisher", "penalties"},
    "review": set(),
    "metrics": set(),
    "tasks": set(),
    "models": set(),
    "likelihood": set(),
    "replay": set(),
    "steps": set(),
    "two_weights": set(),
    "noise": set(),
    "training": LEARNING,
    "page": set(),
    "together": LEARNING | {"training"},
    "experiments": {*LEARNING, "replay", "training", "page"},
    "sequences": LEARNING
    | {"replay", "importance", "kronecker", "distillation", "steps", "training", "together", "experiments"},
    "experiments_many": {*LEARNING, "together", "experiments"},
    "paper": {"tasks", "training", "page", "experiments", "sequences"},
    "experiments_lambda": {*LEARNING, "steps", "training", "together", "experiments"},
    "tuning": {"experiments"},
    "experiments_family": {"fisher", "importance", "models", "tasks", "training", "together", "experiments", "sequences"},
    "experiments_slips": {*LEARNING, "steps", "slips", "together", "training", "experiments"},
    "figures": {"metrics"},
    "frames": {"figures"},
    "figures_bayes": {"metrics", "figures", "frames"},
    "figures_refresher": {"figures", "figures_bayes", "frames"},
    "figures_fixes": {"figures"},
    "figures_loss": {"figures"},
    "figures_curvature": {"figures"},
    "figures_many": {"figures"},
    "figures_lambda": {"figures"},
    "figures_family": {"figures"},
    "figures_slips": {"figures"},
    "experiments_cannot": {*LEARNING, "noise", "training", "together", "experiments"},
    "figures_cannot": {"figures"},
}
MAY_USE = {
    **{room: {"torch"} for room in ALONE},
    "tasks": {"torch", "torchvision", "sklearn", "matplotlib", "PIL"},
    "training": {"torch", "tqdm"},
    "page": {"IPython"},
    "together": {"torch", "tqdm"},
    "experiments": {"torch", "safetensors", "filelock"},
    "sequences": {"torch"},
    "experiments_many": {"torch"},
    "paper": {"torch"},
    "experiments_lambda": {"torch"},
    "tuning": set(),
    "experiments_family": {"torch"},
    "experiments_slips": {"torch"},
    "figures_slips": {"torch", "matplotlib"},
    "figures": {"torch", "numpy", "matplotlib"},
    "frames": set(),
    "figures_bayes": {"torch", "numpy", "matplotlib"},
    "figures_refresher": {"torch", "matplotlib"},
    "figures_fixes": {"torch", "numpy", "matplotlib"},
    "figures_loss": {"torch", "numpy", "matplotlib"},
    "figures_curvature": {"torch", "numpy", "matplotlib"},
    "figures_many": {"torch", "numpy", "matplotlib"},
    "figures_lambda": {"torch", "numpy", "matplotlib"},
    "figures_family": {"torch", "matplotlib"},
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
