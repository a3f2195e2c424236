"""Every guard on the device: what it holds, gives and keeps is there, and is what it would be on the CPU."""

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
    split,
)
from ewc.checks import OPTIONS
from ewc.steps import Capped, Proximal
from small_tasks import blobs
from whereabouts import assert_alike, assert_on, tensors

GUARDS = {
    "EWC separate": lambda model: EWC(model, 30.0),
    "EWC merged": lambda model: EWC(model, 30.0, anchors="merged"),
    "EWC online": lambda model: EWC(model, 30.0, anchors="merged", decay=0.5, max_examples=50),
    "EWC empirical": lambda model: EWC(model, 30.0, labels="empirical"),
    "L2": lambda model: L2(model, 0.1),
    "Synaptic Intelligence": lambda model: SynapticIntelligence(model, 3.0),
    "Memory Aware Synapses": lambda model: MemoryAwareSynapses(model, 0.1),
    "Kronecker kept": lambda model: KroneckerEWC(model, 30.0),
    "Kronecker added": lambda model: KroneckerEWC(model, 30.0, factors="added", decay=0.5),
    "Distillation": lambda model: Distillation(model, 1.0),
    "Replay": lambda model: Replay(model, 1.0, examples=10, batch_size=8),
    "Dark replay": lambda model: DarkReplay(model, 1.0, examples=10, batch_size=8),
    "Orthogonal weights": lambda model: OrthogonalWeights(model, 1.0),
    "Capped": lambda model: Capped(EWC(model, 1e4, anchors="merged"), 0.02),
    "Proximal": lambda model: Proximal(EWC(model, 1e3), 0.9),
    "Proximal Kronecker": lambda model: Proximal(KroneckerEWC(model, 1e3, factors="added"), 0.9),
}
# Draws are made by a generator on the CPU, so that they are the same everywhere, and its state is kept with the rest; which units
# belong to which head are a few whole numbers, how many tasks there were is one, and how a guard was made is a text.
ON_THE_CPU = ("generator", "head/", "Replay.tasks", OPTIONS)
TASKS = split(blobs("six", n=120, features=6, classes=6), 3, scenario="task")
WAYS = ("fit", "fit_together", "fit_together, one alone")


def guarded(device, make, way):
    """A model and its guard after three tasks on the device, the guard consolidated after each."""
    model = mlp((8,), inputs=6, classes=6, units=True, seed=3).to(device)
    guard = make(model)
    for place, task in enumerate(TASKS):
        here, options = task.to(device), {"steps": 25, "batch_size": 16, "learning_rate": 0.02}
        if way == "fit":
            fit(model, here, penalty=guard, seed=place, **options)
        else:
            beside = [] if "alone" in way else [mlp((8,), inputs=6, classes=6, units=True, seed=4).to(device)]
            many = [model, *beside]
            fit_together(many, [here] * len(many), penalties=[guard, None][: len(many)], seeds=[place] * len(many), **options)
        guard.consolidate(here.train_inputs, here.train_targets)
    return model, guard


def state_of(guard):
    return guard.state_dict() if hasattr(guard, "state_dict") else {}


def all_that_it_gives(model, guard, inputs):
    """After a step away from the anchor: the penalty, its gradients both ways, and whatever else there is to be asked for."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.linspace(-1, 1, parameter.numel(), device=parameter.device).view_as(parameter)
    found = {}
    model.zero_grad()
    value = guard.penalty(inputs) if getattr(guard, "needs_inputs", False) else guard.penalty()
    if value.requires_grad:
        value.backward()
    found["penalty"] = value.detach()
    found["slopes"] = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    if hasattr(guard, "add_gradient"):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)  # orthogonal weights change the gradient that is there
        guard.add_gradient()
        found["added"] = {name: each.grad for name, each in model.named_parameters()}
    for name in ("parabola", "springs", "largest_curvature"):
        if hasattr(guard, name):
            found[name] = getattr(guard, name)()
    if hasattr(guard, "after_step"):
        guard.after_step(0.05)
        found["after a step"] = dict(model.named_parameters())
    return found


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GUARDS)
def test_all_that_it_holds_and_gives_is_there_and_right(name, way, device):
    inputs = TASKS[0].test_inputs[:20]
    model, guard = guarded(device, GUARDS[name], way)
    wanted_model, wanted = guarded(torch.device("cpu"), GUARDS[name], way)
    assert assert_on(device, guard, name) > 0
    assert_on(device, state_of(guard), f"the state of {name}", but=ON_THE_CPU)
    # Many small steps, each rounded: further apart than one computation.
    assert_alike(dict(model.named_parameters()), dict(wanted_model.named_parameters()), tolerance=1e-2)
    assert_alike(state_of(guard), state_of(wanted), tolerance=3e-2)
    found = all_that_it_gives(model, guard, inputs.to(device))
    assert_on(device, found, name)
    assert_alike(found, all_that_it_gives(wanted_model, wanted, inputs), tolerance=5e-2)


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("name", [name for name, make in GUARDS.items() if hasattr(make(mlp((2,))), "load_state_dict")])
def test_a_state_from_elsewhere_comes_to_where_the_model_is(name, device):
    """Kept on one machine, loaded on another: as a file of tensors on the CPU would be."""
    model, guard = guarded(device, GUARDS[name], "fit")
    state = {key: value.clone() for key, value in guard.state_dict().items()}
    there = GUARDS[name](model)
    there.load_state_dict({key: value.cpu() for key, value in state.items()})
    assert_on(device, there, name)
    assert_alike(there.state_dict(), state, tolerance=0)
    inputs = TASKS[0].test_inputs[:20].to(device)
    before = all_that_it_gives(model, guard, inputs)
    assert any(float(value.abs().max()) > 0 for _, value in tensors(before))
    assert_on(device, all_that_it_gives(model, there, inputs), name)


@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_whose_model_moved_goes_on_there(name, device):
    """Consolidated on the CPU, then the model is taken to the device, learns on, and is consolidated again."""
    model, guard = guarded(torch.device("cpu"), GUARDS[name], "fit")
    model.to(device)
    task = TASKS[1].to(device)
    if "EWC" in name or name in ("Capped", "Proximal", "Orthogonal weights"):  # these know the weights that they have consolidated
        with pytest.raises(ValueError, match="consolidated"):
            guard.consolidate(task.train_inputs, task.train_targets)
    fit(model, task, penalty=guard, steps=5, batch_size=16, learning_rate=0.02)
    guard.consolidate(task.train_inputs, task.train_targets)
    assert_on(device, all_that_it_gives(model, guard, task.test_inputs[:20]), name)
