"""What can be taken away works alone: flat, in somebody's package, and beside an installed `ewc` of another version."""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys

import pytest
from house import PACKAGE, ROOT, floor, imports, modules

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
""",
    "sensitivity": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
torch.nn.init.ones_(model.bias)
guard = sensitivity.MemoryAwareSynapses(model, strength=2.0)
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
    "scores": """
(one,) = scores.weighted_scores(torch.zeros(1, 2), "argmax", None, None)
assert one.abs().tolist() == [[0.5, 0.5]], one
""",
    "gradients": """
total = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
layer = torch.nn.Linear(2, 2)
gradients.add_linear(total, {layer.weight: "weight", layer.bias: "bias"}, layer, torch.ones(1, 2), torch.tensor([[1.0, 4.0]]))
assert total["weight"].tolist() == [[1.0, 4.0]] * 2, total
""",
    "evaluating": """
model = torch.nn.Dropout()
with evaluating.evaluated(model):
    assert not model.training
assert model.training
""",
    "calls": """
layer = torch.nn.Linear(2, 2)
logits, found = calls.forward(layer, calls.owners(layer), torch.ones(3, 2))
calls.check_uses(logits, found, {layer.weight: "weight", layer.bias: "bias"})
assert calls.plain(found[0].module, torch.nn.Linear)
""",
    "mixing": """
assert mixing.row_by_row(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), torch.ones(3, 2))
mixing.check_examples(torch.nn.LayerNorm(2), torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
assert not mixing.row_by_row(torch.nn.LayerNorm(2), torch.ones(3, 2))
""",
    "readings": """
layer = torch.nn.Linear(2, 2)
data = readings.Batches(torch.ones(3, 2))
((_, reading, _),) = readings.readings(readings.Asked(layer), {layer.weight: "weight", layer.bias: "bias"}, data)
((deltas, others),) = reading.passes([torch.ones(3, 2)])
assert deltas[0].tolist() == [[1.0, 1.0]] * 3 and not list(others)
""",
    "ways": """
layer = torch.nn.Linear(2, 2)
inputs = torch.ones(1, 2)
way = ways.OneByOne(layer, inputs, layer(inputs), [], {layer.weight: "weight", layer.bias: "bias"}, None)
((none, gradients),) = way.passes([torch.tensor([[1.0, 2.0]])])
assert none == () and next(gradients)["bias"].tolist() == [[1.0, 2.0]]
""",
    "batches": """
loader = [(torch.ones(2, 3), torch.zeros(2)), [torch.ones(1, 3), torch.zeros(1)]]
assert [(batches.size(x), len(y)) for x, y in batches.Batches(iter(loader))] == [(2, 2), (1, 1)]
assert batches.Asked(torch.nn.Identity())((torch.ones(2, 3),)).shape == (2, 3)
""",
    "likelihoods": """
(score,) = likelihoods.Gaussian(4.0).scores(torch.zeros(1, 1), "exact", None, None)
assert score.tolist() == [[0.5]]
(score,) = likelihoods.Bernoulli().scores(torch.zeros(1, 1), "argmax", None, None)
assert score.abs().tolist() == [[0.5]]
""",
    "labels": """
kind = labels.LabelScores("categorical", None)
((one,), ) = (kind.scores(torch.zeros(1, 2), (2,), None),)
assert torch.allclose(one, torch.tensor([[0.5, -0.5]])) and kind.labels == "exact"
""",
    "looking": """
look = looking.Look(torch.nn.Linear(2, 2), torch.ones(3, 2))
with look.begun():
    assert sum(len(list(reading.passes(scores))) for reading, scores in look.readings()) == 1
assert look.means({"a": torch.ones(1)})["a"] == 1 / 3
""",
    "places": """
layer = torch.nn.Conv1d(1, 1, 1)
(found,) = places.gradients_of(layer, torch.tensor([[[1.0, 2.0]]]), [torch.tensor([[[3.0, 4.0]]])])
assert places.has_uses(layer) and float(found[layer.weight]) == 11 and float(found[layer.bias]) == 7
""",
    "processes": """
assert processes.processes() == 1 and processes.summed({"a": torch.ones(1)}, 2)["a"] == 0.5
""",
    "factors": """
blocks = factors.Blocks(2 * torch.eye(2)[None], 3 * torch.eye(2)[None])
assert torch.equal(blocks.times(torch.ones(2, 2)), 6 * torch.ones(2, 2))
""",
    "heads": """
layer = heads.Units()
layer.chosen = (1,)
assert layer(torch.tensor([[1.0, 2.0]])).tolist() == [[2.0]]
""",
    "checks": """
assert checks.checked_number("strength", 2, lambda value: value > 0, "above 0") == 2
assert list(checks.named(torch.nn.DataParallel(torch.nn.Linear(1, 1)))) == ["weight", "bias"]
""",
    "springs": """
model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.constant_(model.weight, 3.0)
term = {"weight": torch.tensor([[1.0]])}, {"weight": torch.tensor([[5.0]])}
assert float(springs.quadratic(model, 2.0, [term])) == 20
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
    "dark_replay": """
model = torch.nn.Linear(2, 2)
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
memory = dark_replay.DarkReplay(model, strength=3.0, examples=1)
memory.consolidate(torch.tensor([[1.0, 2.0]]))
torch.nn.init.ones_(model.bias)
assert abs(float(memory.penalty()) - 3 * 2) < 1e-6
""",
    "projection": """
model = torch.nn.Linear(2, 1, bias=False)
guard = projection.OrthogonalWeights(model, strength=3.0)
guard.consolidate(torch.tensor([[1.0, 0.0]]))
model.weight.grad = torch.tensor([[1.0, 1.0]])
guard.add_gradient()
assert torch.allclose(model.weight.grad, torch.tensor([[0.25, 1.0]])), model.weight.grad
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
    "bridge": """
assert bridge.posterior_precision(torch.eye(2), 3, 1.0).tolist() == [[4, 0], [0, 4]]
assert torch.allclose(torch.stack(bridge.of_two_labels(torch.tensor(0.75))), torch.tensor([0.1875, 0.0625]))
""",
    "uses": """
assert uses.block_of_uses(torch.ones(1, 2, 1), torch.tensor([[[1.0], [2.0]]])).tolist() == [[9]]
""",
    "two_weights": """
model = two_weights.TwoWeights(torch.zeros(2))
way = two_weights.descend(model, torch.tensor([[2.0, 0.0]]), torch.tensor([1]), steps=1, learning_rate=1.0)
assert torch.allclose(way, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
""",
}



def stands_alone(path):
    """Whether the file says of itself what has to lie beside it."""
    return "This file needs torch" in (ast.get_docstring(ast.parse(path.read_text("utf8"))) or "")


ALONE = {path.stem: path for path in PACKAGE.rglob("*.py") if stands_alone(path)}


@functools.cache
def needed(name):
    """The file and all that it imports from beside it, and what these do."""
    found = {name}
    for other in imports(ALONE[name])[0]:
        found |= needed(other)
    return found


def test_every_file_of_the_shelf_says_what_it_needs_and_is_tried_here():
    assert {name for name in modules() if floor(name) == "shelf"} <= ALONE.keys()
    assert ALONE.keys() == WORK.keys()


@pytest.mark.parametrize("name", ALONE)
def test_a_file_names_those_that_it_needs_beside_it_and_its_copyright_and_licence(name):
    text = ALONE[name].read_text("utf8")
    assert text.startswith("# Copyright (c) 2026 The authors of Weights that Remember. SPDX-License-Identifier: MIT\n")
    said = re.search(r"This file needs torch(.*?)\. ", " ".join(ast.get_docstring(ast.parse(text)).split()))[1]
    named = set(re.findall(r"(\w+)\.py", said))
    if "with what that needs" in said:
        named |= needed("fisher")
    assert named == needed(name) - {name}
    assert (" and nothing else" in said) == (not named)


@pytest.mark.parametrize("name", sorted(name for name in modules() if floor(name) == "shelf"))
def test_the_readme_says_what_to_copy_with_each_file(name):
    row = re.search(rf"^\| \[`{name}\.py`\]\(code/ewc/{name}\.py\) \|(.*?)\|", (ROOT / "README.md").read_text("utf8"), re.M)
    if row is None:  # a part of others, which has no use of its own
        assert any(name in needed(other) for other in ALONE if other != name)
    else:
        assert set(re.findall(r"`(\w+)\.py`", row[1])) == needed(name) - {name}


# Each file in a folder of its own, one after another in one process: to start torch takes longer than all their work.
# -I: no PYTHONPATH, no user packages. What else the book uses cannot be imported, nor an installed ewc where there is to be none.
RUNNER = """
import importlib, json, sys, traceback
for blocked in ('torchvision', 'sklearn', 'matplotlib', 'tqdm', 'safetensors', 'PIL', 'scipy', 'IPython'):
    sys.modules[blocked] = None
import torch
clean = set(sys.modules)
for name, folder, place, work, blocked in json.load(sys.stdin):
    sys.path.insert(0, folder)
    if blocked:
        sys.modules['ewc'] = None
    try:
        module = importlib.import_module(place + name)
        assert module.__file__.startswith(folder), module.__file__
        exec(work, {'torch': torch, name: module})
        taken = [each for each in set(sys.modules) - clean if each.split('.')[0] == 'ewc' and sys.modules[each] is not None]
        assert not taken, 'it took something from another ewc'
        print(name)
    except Exception:
        traceback.print_exc()
    sys.path.remove(folder)
    for other in set(sys.modules) - clean:
        if getattr(sys.modules[other], '__file__', None) is None or sys.modules[other].__file__.startswith(folder):
            del sys.modules[other]
"""


def alone(name, folder):
    """Nothing more in the folder; an installed ewc is not to be had."""


def another(name, folder):
    """Another version of ewc, in which nothing works."""
    (folder / "ewc").mkdir()
    for file in ("__init__", *needed(name)):
        (folder / "ewc" / f"{file}.py").write_text("raise AssertionError('another ewc was imported')\n")


def work_in(tmp_path, settings):
    """Run the work of files in their settings, (name, place, what stands beside), and hold that all of it worked.

    Each is copied with what it needs into its own folder/place.
    """
    jobs = []
    for number, (name, place, beside) in enumerate(settings):
        folder = tmp_path / str(number)
        there = folder.joinpath(*place.split("."))
        there.mkdir(parents=True)
        for file in needed(name):
            shutil.copy(ALONE[file], there)
        beside(name, folder)
        jobs.append((name, str(folder), f"{place}." if place else "", WORK[name], beside is alone))
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER], input=json.dumps(jobs), cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.stdout.split() == [name for name, *_ in settings], done.stderr


def test_each_works_in_an_empty_folder_in_a_package_and_beside_another_ewc_that_is_installed(tmp_path):
    places = ("", "a.b.c")
    leaning = [name for name in ALONE if len(needed(name)) > 1]
    work_in(
        tmp_path,
        [(name, place, alone) for place in places for name in ALONE] + [(name, place, another) for place in places for name in leaning],
    )


def test_a_file_that_leaned_on_an_installed_ewc_would_be_found(tmp_path):
    """The test above can fail: here is one that does as files did before."""

    def leaning(name, folder):
        another(name, folder)
        text = (folder / "importance.py").read_text("utf8")
        (folder / "importance.py").write_text(text.replace("if __package__:", "from ewc import springs\nif __package__:"))

    with pytest.raises(AssertionError, match="another ewc was imported"):
        work_in(tmp_path, [("importance", "", leaning)])
