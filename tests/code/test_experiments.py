"""What a run is remembered under, and that what is read back is what was run."""

import ast
import importlib
import inspect
import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ewc import experiments
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.training import learn_in_sequence
from small_tasks import blobs
from torch.nn.utils import parameters_to_vector

ROOMS = Path(experiments.__file__).parent

# Each experiment in a form that takes a moment, in each of its variants.
TINY = {
    "first_lesson": [{"steps": 3, "hidden": (4,)}],
    "two_tasks": [
        {"method": method, "strength": strength, "steps": 3, "hidden": (4,)}
        for method, strength in (("plain", None), ("l2", 1.0), ("ewc", 1.0))
    ],
    "second_lessons": [{"ways": (("slower", 0.1), ("freeze", 1), ("replay", 5)), "steps": 3, "hidden": (4,)}],
    "fisher_of_labels": [{"examples": 40, "passes": 2, "hidden": (4,)}],
    "permuted_tasks": [
        {"method": method, "strength": strength, "count": 2, "hidden": (4,), "steps": 3, "memory": 5, "looks": 1}
        for strength, methods in ((None, "plain joint"), (1.0, "ewc si lwf l2 mas kronecker replay"))
        for method in methods.split()
    ]
    + [
        {"method": method, "strength": 1.0, "way": "proximal", "factors": "added", "count": 2, "hidden": (4,), "steps": 3}
        for method in ("ewc", "kronecker")
    ],
    "split_tasks": [
        {"scenario": scenario, "method": method, "strength": 1.0, "hidden": (4,), "steps": 3, "memory": 5}
        for scenario, method in (("task", "joint"), ("domain", "ewc"), ("class", "replay"))
    ]
    + [{"scenario": "class", "method": "l2", "strength": 1.0, "hidden": (4,), "steps": 3, "padding": 1, "normalized": True, "seen": True}],
    "overlap_by_layer": [{"square": 8, "strength": 1.0, "hidden": (4, 4), "steps": 3}],
    "second_task": [
        {"strength": 1.0, "way": way, "steps": 3, "hidden": (4,)} for way in ("explicit", "capped", "proximal", "joint")
    ],
    "permutations": [
        {"strength": 1.0, "way": way, "count": 2, "steps": 3, "hidden": (4,)} for way in ("explicit", "proximal", "joint")
    ],
    "importances": [{"steps": 3, "hidden": (4,)}],
    "costs": [
        {
            "methods": tuple((name, {"method": name, "memory": 5}) for name in ("ewc", "si", "mas", "l2", "kronecker", "lwf", "replay")),
            **{"count": 2, "hidden": (4,), "steps": 2, "repeats": 1},
        }
    ],
    "slips_sweep": [
        {"examples": 30, "held": 10, "passes": (1, 2), "stiffness": (1.0, 10.0), "hidden": (4,), "steps": 2, "seeds": 2}
    ],
    "anchor_that_follows": [
        {"strengths": (1.0,), "rounds": 2, "look": (1, 2), "round_steps": 2, "hidden": (4,), "first_steps": 3, "old_images": 5, "seeds": 2}
    ],
    "springs_overwritten": [{"count": 3, "hidden": (4,), "steps": 2, "seeds": 2}],
    "last_lesson": [
        {"method": method, "strength": 1.0, "masked": masked, "hidden": (4,), "steps": 3, "examples": (1,)}
        for method, masked in (("plain", True), ("ewc", False))
    ],
    "weight_noise": [{"sizes": (1.0, 2.0), "draws": 1, "priors": (1.0,), "hidden": (4,), "steps": 3, "images": 20}],
}
# Every room that holds experiments: this one, and others whose name says it.
HOLDERS = ["experiments", "sequences", *(path.stem for path in ROOMS.glob("experiments_*.py"))]
MARKED = {
    name: value
    for room in HOLDERS
    for name, value in vars(importlib.import_module(f"ewc.{room}")).items()
    if hasattr(value, "modules")
}
VARIANTS = [pytest.param(name, tiny, id=f"{name} {tiny.get('method', '')}") for name, all_ in TINY.items() for tiny in all_]


def images(name, seed):
    """A task of the size of the book's images, and small otherwise."""
    task = blobs(name, n=60, features=784, classes=10, seed=seed)
    return replace(task, **{k: getattr(task, k).view(-1, 1, 28, 28) for k in ("train_inputs", "test_inputs")})


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    """Two tiny tasks in place of the book's, and an empty folder for records."""
    pair = (images("first", 0), images("second", 1))
    monkeypatch.setattr(experiments, "paired", lambda: pair)
    monkeypatch.setattr(experiments, "device", lambda: torch.device("cpu"))
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "records"))
    return pair


def filled(name, tiny):
    """The configuration with its defaults, as `run` hands it on."""
    parameters = inspect.signature(MARKED[name]).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in ("tasks", "first", "seed")}
    return defaults | tiny


def key(tasks, name="two_tasks", seed=0, **changes):
    configuration = filled(name, TINY[name][-1]) | changes
    return experiments.key_of(MARKED[name], tasks, configuration, seed)


def test_every_experiment_is_tried_here():
    assert MARKED.keys() == TINY.keys()


# ---- the key


def test_the_key_is_the_same_for_the_same_run(tasks):
    assert key(tasks) == key(tasks)
    assert len(key(tasks)) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "l2"},
        {"strength": 2.0},
        {"steps": 4},
        {"hidden": (5,)},
        {"hidden": (4, 4)},
        {"batch_size": 32},
        {"learning_rate": 0.01},
        {"momentum": 0.0},
        {"seed": 1},
    ],
)
def test_the_key_changes_with_the_configuration_and_the_seed(tasks, changes):
    assert key(tasks, **changes) != key(tasks)


def test_the_key_changes_with_the_data_their_order_the_device_and_torch(tasks, monkeypatch):
    seen = {key(tasks), key(tasks[::-1]), key((tasks[0], replace(tasks[1], checksum="other")))}
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "device", lambda: torch.device("cuda"))
        seen.add(key(tasks))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99.0")
        seen.add(key(tasks))
    assert len(seen) == 5


def test_the_key_knows_the_experiment(tasks):
    assert key(tasks, "fisher_of_labels") != key(tasks)


def test_the_key_knows_the_steps_at_which_a_run_is_looked_at(tasks, monkeypatch):
    before = key(tasks)
    monkeypatch.setattr(experiments, "LOOKS", (0, 1))
    assert key(tasks) != before


def with_source(monkeypatch, module, change):
    """Let `module` read as if `change` had been made to its code."""
    real = experiments._source
    monkeypatch.setattr(experiments, "_source", lambda name: change(real(name)) if name == module else real(name))


def with_a_constant(source):
    return f"{source}\nANOTHER_CONSTANT = 1\n"


def with_other_comments(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            node.body[0].value.value = "Said in other words."
    return "# Another comment.\n\n" + ast.unparse(tree)


@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_the_key_changes_with_the_code_of_each_module_it_depends_on_but_not_with_comments(tasks, monkeypatch, name, tiny):
    experiment, configuration = MARKED[name], filled(name, tiny)
    before = experiments.key_of(experiment, tasks, configuration, 0)
    modules = experiment.modules(configuration)
    for module in (path.stem for path in ROOMS.glob("*.py") if path.stem != "experiments"):
        with monkeypatch.context() as patch:
            with_source(patch, module, with_other_comments)
            assert experiments.key_of(experiment, tasks, configuration, 0) == before, module
        with monkeypatch.context() as patch:
            with_source(patch, module, with_a_constant)
            changed = experiments.key_of(experiment, tasks, configuration, 0) != before
            assert changed == (module in modules), module


def test_the_key_changes_with_the_experiments_own_code_but_not_with_its_comments(tasks, monkeypatch):
    before, real = key(tasks), inspect.getsource

    def edited(old, new):
        def read(thing):
            source = real(thing)
            assert old in source or thing is not experiments.two_tasks
            return source.replace(old, new)

        return read

    monkeypatch.setattr(inspect, "getsource", edited("    def look(step):", "    def look(step):  # on the way"))
    assert key(tasks) == before
    monkeypatch.setattr(inspect, "getsource", edited("After the first task learn", "After the first task take up"))
    assert key(tasks) == before
    monkeypatch.setattr(inspect, "getsource", edited('anchors="merged"', 'anchors="separate"'))
    assert key(tasks) != before


@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_all_code_that_a_run_executes_is_covered_by_its_key(tasks, name, tiny):
    experiment, executed, here = MARKED[name], set(), set()

    def trace(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == ROOMS:
            (here if path.stem == "experiments" else executed).add(
                frame.f_code.co_qualname if path.stem == "experiments" else path.stem
            )

    configuration = filled(name, tiny)
    first = [experiments.run(experiment.begins_with, **experiments.beginning(experiment, configuration, 0))] if experiment.begins_with else []
    experiment(list(tasks), *first, seed=0, **configuration)  # what torch imports late is not to be traced
    sys.setprofile(trace)
    try:
        experiment(list(tasks), *first, seed=0, **configuration)
    finally:
        sys.setprofile(None)
    assert executed <= set(experiment.modules(configuration))
    assert executed  # something was seen
    # Of the file whose code is not covered as a whole, only the experiment itself, and what reads the weights it begins with.
    assert here <= {name, *(each for each in here if each.startswith(f"{name}.")), "Record.model"}


# ---- the record


@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_what_is_read_back_is_what_was_run_and_nothing_is_trained_twice(tasks, monkeypatch, name, tiny):
    first = experiments.run(MARKED[name], **tiny)

    def trained(*_, **__):
        raise AssertionError("it was trained again")

    monkeypatch.setattr(torch.Tensor, "backward", trained)
    second = experiments.run(MARKED[name], **tiny)
    assert json.dumps(first.result) == json.dumps(second.result)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[key]) for key, value in first.tensors.items())
    for part in ("key", "name", "configuration", "seed", "device", "data", "versions", "seconds", "finished"):
        assert getattr(first, part) == getattr(second, part), part
    assert second.configuration == json.loads(json.dumps(filled(name, tiny)))
    with pytest.raises(AssertionError, match="trained again"):
        experiments.run(MARKED[name], seed=1, **tiny)


def test_a_record_holds_the_weights_after_each_task(tasks):
    record = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    assert record.matrix.values.shape == (2, 2)
    for place in (0, 1):
        model = record.model(f"after {place + 1}")
        for other, wanted in zip(tasks, record.result["matrix"][place], strict=True):
            assert experiments.accuracy(model, other) == pytest.approx(wanted)
    assert len(record.result["untrained"]) == 2
    assert [look["step"] for look in record.result["looks"]] == [0, 1, 2, 3]


def test_the_weights_of_a_plain_run_are_not_trained_again_when_ewcs_strength_changes(tasks, monkeypatch):
    plain = {"method": "plain", "steps": 3, "hidden": (4,)}
    before = experiments.run(experiments.two_tasks, **plain).key
    for size in experiments.SIZE.values():
        monkeypatch.setitem(size, "strength", 12345.0)
    assert experiments.run(experiments.two_tasks, **plain).key == before


def test_an_argument_that_an_experiment_has_not_is_refused(tasks):
    with pytest.raises(TypeError, match="lambda_"):
        experiments.run(experiments.two_tasks, lambda_=1)


@pytest.mark.parametrize("fault", ["tensors", "numbers", "move"])
def test_a_record_that_could_not_be_written_whole_is_not_there(tasks, monkeypatch, fault):
    tiny, folder = TINY["first_lesson"][0], experiments.records_folder()

    def broken(*arguments, **_):
        if fault == "tensors":
            Path(arguments[1]).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if fault == "tensors":
            patch.setattr(experiments, "save_file", broken)
        elif fault == "numbers":
            patch.setattr(Path, "write_text", broken)
        else:
            patch.setattr(Path, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            experiments.run(experiments.first_lesson, **tiny)
    assert [each.name for each in folder.iterdir()] == [".locks"]
    record = experiments.run(experiments.first_lesson, **tiny)
    assert {each.name for each in folder.iterdir()} == {".locks", record.key}


def test_a_run_killed_while_it_wrote_leaves_nothing_that_is_read(tasks):
    folder = experiments.records_folder()
    record = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    whole = folder / record.key
    whole.rename(folder / "unfinished-abc")  # as a kill before the move would leave it
    again = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    assert again.finished >= record.finished
    assert again.seconds != record.seconds
    assert whole.is_dir()


@pytest.mark.parametrize("file", ["record.json", "tensors.safetensors"])
@pytest.mark.parametrize("harm", ["truncated", "emptied", "removed"])
def test_a_damaged_record_is_made_again(tasks, file, harm):
    first = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    path = experiments.records_folder() / first.key / file
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -7 if harm == "truncated" else 0])
    again = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    assert again.seconds != first.seconds
    assert json.dumps(again.result) == json.dumps(first.result)
    third = experiments.run(experiments.two_tasks, **TINY["two_tasks"][0])
    assert third.seconds == again.seconds


def test_what_an_experiment_begins_with_is_trained_once_for_all_that_go_on_from_it(tasks):
    plain, leashed, elastic = (experiments.run(experiments.two_tasks, **tiny) for tiny in TINY["two_tasks"])
    several = experiments.run(experiments.second_lessons, **TINY["second_lessons"][0])
    first = experiments.run(experiments.first_lesson, **TINY["first_lesson"][0])
    assert len([*experiments.records_folder().glob("*/record.json")]) == 5
    assert first.finished <= min(record.finished for record in (plain, leashed, elastic, several))
    for record in (plain, leashed, elastic):
        assert torch.equal(record.tensors["after 1"], first.tensors["after 1"])
        assert record.result["matrix"][0] == first.result["after"]
        assert record.result["matrix"][1] == record.result["looks"][-1]["accuracies"]
        assert [look["step"] for look in record.result["looks"]] == ([3] if record is leashed else [0, 1, 2, 3])
    assert several.result["before"] == first.result["after"]
    other = experiments.run(experiments.two_tasks, **{**TINY["two_tasks"][0], "hidden": (5,)})
    assert len(other.tensors["after 1"]) != len(first.tensors["after 1"])


def test_two_tasks_are_what_learning_them_in_sequence_is(tasks):
    for tiny in TINY["two_tasks"]:
        record = experiments.run(experiments.two_tasks, seed=1, **tiny)
        model = mlp((4,), seed=1)
        penalties = {"plain": None, "l2": L2(model, 1.0), "ewc": EWC(model, 1.0, anchors="merged")}
        used = record.configuration
        matrix, _ = learn_in_sequence(
            model, tasks, penalty=penalties[tiny["method"]], seed=1, steps=3,
            **{name: used[name] for name in ("batch_size", "learning_rate", "momentum")},
        )  # fmt: skip
        assert matrix.values.tolist() == record.result["matrix"]
        assert torch.equal(parameters_to_vector(model.parameters()).detach(), record.tensors["after 2"])


# ---- several runs at once


def together(name, seeds=(0, 1), **changes):
    return experiments.run_together(
        MARKED[name], [{**tiny, **changes, "seed": seed} for tiny in TINY[name][:4] for seed in seeds]
    )


def test_runs_that_are_trained_side_by_side_give_what_each_gives_alone(tasks, monkeypatch, tmp_path):
    beside = together("permuted_tasks")
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "others"))
    assert {record.together for record in beside} == {8}
    for record in beside:
        alone = experiments.run(MARKED["permuted_tasks"], seed=record.seed, **record.configuration)
        assert alone.key == record.key
        assert alone.together == 1
        assert alone.result == record.result
        for name, value in alone.tensors.items():
            assert torch.allclose(value, record.tensors[name], atol=1e-6)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"way": "implicit"}, "way is 'implicit'; it may be one of 'explicit', 'proximal'"),
        ({"optimizer": "adam"}, "needs optimizer 'sgd'.*not 'adam' and 'ewc'"),
        ({"method": "lwf"}, "a penalty that is a parabola, not 'sgd' and 'lwf'"),
    ],
)
def test_a_way_that_cannot_be_is_refused(tasks, run, message):
    with pytest.raises(ValueError, match=message):
        experiments.run(
            MARKED["permuted_tasks"],
            **{"method": "ewc", "strength": 1.0, "way": "proximal", "count": 2, "hidden": (4,), "steps": 3} | run,
        )


def test_only_what_is_missing_is_trained(tasks):
    first = together("permuted_tasks", seeds=(0,))
    second = together("permuted_tasks", seeds=(0, 1))
    assert [record.together for record in second] == [4, 4] * 4
    assert [record.finished for record in second[::2]] == [record.finished for record in first]


def test_what_cannot_stand_in_one_stack_is_trained_apart(tasks):
    found = experiments.run_together(
        MARKED["permuted_tasks"], [{**TINY["permuted_tasks"][3], "hidden": hidden} for hidden in ((4,), (5,), (4,))]
    )
    assert [record.configuration["hidden"] for record in found] == [[4], [5], [4]]
    assert {record.together for record in found} == {1}
    assert found[0] is found[2]
    apart = experiments.run_together(experiments.two_tasks, [TINY["two_tasks"][0], TINY["two_tasks"][2]])
    assert {record.together for record in apart} == {1}


def test_what_is_left_open_is_taken_from_the_size_of_the_machine(tasks, monkeypatch):
    sizes = MARKED["permuted_tasks"].sizes
    assert set(sizes) == {"cpu", "embedded", "cuda"}
    real = tuple(replace(task, embedded=False) for task in tasks)
    for pair, device, kind in ((tasks, "cpu", "embedded"), (real, "cpu", "cpu"), (real, "cuda", "cuda"), (tasks, "cuda", "embedded")):
        monkeypatch.setattr(experiments, "device", lambda device=device: torch.device(device))
        configuration, _ = experiments._filled(MARKED["permuted_tasks"], pair, {"method": "ewc"})
        assert {name: configuration[name] for name in sizes[kind]} == sizes[kind]


# ---- two processes


def test_what_another_process_is_training_is_waited_for_and_not_trained_again(tasks, monkeypatch, tmp_path):
    tiny = TINY["two_tasks"][0]
    record = experiments.run(experiments.two_tasks, **tiny)
    there, real = tmp_path / "there", experiments._alone
    experiments.records_folder().rename(there)
    asked = threading.Event()

    def noticed(name):
        asked.set()
        return real(name)

    monkeypatch.setattr(experiments, "_alone", noticed)
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_, **__: pytest.fail("it was trained again"))
    with ThreadPoolExecutor(1) as pool:
        with real(f"two_tasks {record.key}"):
            waiting = pool.submit(experiments.run, experiments.two_tasks, **tiny)
            assert asked.wait(60)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            shutil.copytree(there / record.key, experiments.records_folder() / record.key)  # as the other does when it has done
        assert waiting.result(60).finished == record.finished


def test_processes_that_ask_for_other_runs_do_not_wait(tasks):
    with experiments._alone("two_tasks another"):
        assert experiments.run(experiments.two_tasks, **TINY["two_tasks"][0]).result
