"""Every experiment with its tasks on another device than the CPU: nothing stays behind, and a step waits for nothing."""

import inspect

import pytest
import torch
from ewc import (
    EWC,
    L2,
    DarkReplay,
    Distillation,
    KroneckerEWC,
    MemoryAwareSynapses,
    OrthogonalWeights,
    Replay,
    SynapticIntelligence,
    fit,
    fit_together,
    mlp,
)
from ewc.chapters.catastrophic_forgetting.experiments import first_lesson
from ewc.laplace import LaplacePosterior
from ewc.noise import direction
from ewc.steps import Capped, Proximal
from ewc.workshop.records import Record
from stand_in import DEVICE, stand_in
from tiny_runs import MARKED, TINY, images

VARIANTS = [
    pytest.param(name, tiny, id=f"{name} {tiny.get('method', '')} {tiny.get('way', '')}".strip()) for name, all_ in TINY.items() for tiny in all_
]


@pytest.fixture
def tasks():
    return [images("first", 0).to(DEVICE), images("second", 1).to(DEVICE)]


def test_the_stand_in_tells_of_a_tensor_that_stayed_behind():
    there, here = torch.zeros(3, device=DEVICE), torch.zeros(3)
    with stand_in(), pytest.raises(RuntimeError, match=r"of two devices: \(3,\) on meta, \(3,\) on cpu"):
        there + here


def test_the_stand_in_counts_what_is_asked():
    with stand_in() as asked:
        assert not torch.zeros(3, device=DEVICE).cpu().sum().isnan()
        assert asked.total() == 1
        assert bool(torch.zeros(3, device=DEVICE).any())
        assert asked.total() == 2


BEGUN = {}


def begun(experiment, tasks, configuration):
    """What an experiment begins with; several begin with the same."""
    asked = experiment.__name__, repr(sorted(configuration.items()))
    if asked not in BEGUN:
        BEGUN[asked] = experiment(tasks, **configuration)
    return BEGUN[asked]


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_nothing_of_an_experiment_stays_behind_and_what_it_keeps_is_on_the_cpu(name, tiny, tasks):
    experiment, first = MARKED[name], []
    with stand_in():
        if experiment.begins_with:
            configuration = {key: value for key, value in tiny.items() if key in inspect.signature(experiment.begins_with).parameters}
            if experiment.begins_with is first_lesson:
                configuration = {"steps": 3, "hidden": (4,)}
            lesson = begun(experiment.begins_with, tasks, configuration)
            kept = {name: tensor.cpu() if tensor.device.type == "cpu" else torch.zeros(tensor.shape) for name, tensor in lesson[1].items()}
            first = [Record("", "", configuration, 0, "", "", {}, 0.0, "", lesson[0], kept)]
        if hasattr(experiment, "together"):
            defaults = {key: each.default for key, each in inspect.signature(experiment).parameters.items() if key != "tasks"}
            found = experiment.together(tasks, [defaults | tiny | {"seed": seed} for seed in (0, 1)])
        else:
            found = [experiment(tasks, *first, **tiny)]
    assert {tensor.device.type for _, tensors in found for tensor in tensors.values()} <= {"cpu"}


GUARDS = {
    "none": lambda model: None,
    "EWC": EWC,
    "L2": L2,
    "SI": SynapticIntelligence,
    "MAS": MemoryAwareSynapses,
    "Kronecker": KroneckerEWC,
    "distillation": Distillation,
    "replay": lambda model: Replay(model, examples=5),
    "dark replay": lambda model: DarkReplay(model, examples=5),
    "projection": OrthogonalWeights,
    "capped": lambda model: Capped(EWC(model), 0.1),
    "proximal": lambda model: Proximal(EWC(model)),
    "proximal Kronecker": lambda model: Proximal(KroneckerEWC(model, factors="added")),
}


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", GUARDS)
def test_a_step_asks_the_device_for_no_number(name, together, tasks):
    """What a program asks for it waits for, and a GPU has nothing to do meanwhile."""
    counts = []
    with stand_in() as asked:
        model = mlp((4,)).to(DEVICE)
        guard = GUARDS[name](model)
        if guard is not None:
            guard.consolidate(tasks[0].train_inputs, tasks[0].train_targets)
        for steps in (1, 1, 5):  # with the first step after a task some guards ask whether its logits are some
            before = asked.total()
            options = {"steps": steps, "batch_size": 10}
            if together:
                fit_together([model, mlp((4,)).to(DEVICE)], tasks, penalties=[guard, None], **options)
            else:
                fit(model, tasks[0], penalty=guard, **options)
            counts.append(asked.total() - before)
    assert counts[1] == counts[2]


def test_draws_are_made_where_their_generator_is(monkeypatch):
    """A generator draws on its own device alone; from there the draws go to where they are wanted."""
    made, generator = [], torch.Generator()
    draw = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **options: made.append(options["device"]) or draw(*size, **options))
    ones = torch.ones(4, device=DEVICE)
    with stand_in():
        posterior = LaplacePosterior(ones, ones)
        assert posterior.sample(2, generator).device == direction(ones, generator).device == DEVICE
        assert {str(device) for device in made} == {"cpu"}
        assert posterior.sample(2).device == DEVICE
