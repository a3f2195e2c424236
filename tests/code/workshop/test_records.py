"""What a run is remembered under, and that what is read back is what was run."""

import ast
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
from ewc.chapters.catastrophic_forgetting.experiments import LESSONS, first_lesson, two_tasks
from ewc.chapters.tempting_fixes.experiments import second_lessons
from ewc.models import mlp
from ewc.penalties import EWC, L2
from ewc.training import accuracy, learn_in_sequence
from ewc.workshop import records
from safetensors.torch import load_file, save_file
from tiny_runs import MARKED, MODULES, PACKAGE, TINY, images
from torch.nn.utils import parameters_to_vector

HERE = "chapters.catastrophic_forgetting.experiments"
VARIANTS = [pytest.param(name, tiny, id=f"{name} {tiny.get('method', '')}") for name, all_ in TINY.items() for tiny in all_]


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    """Two tiny tasks in place of the book's, and an empty folder for records."""
    pair = (images("first", 0), images("second", 1))
    monkeypatch.setattr(records, "paired", lambda: pair)
    monkeypatch.setattr(records, "device", lambda: torch.device("cpu"))
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "records"))
    return pair


def filled(name, tiny):
    """The configuration with its defaults, as `run` hands it on."""
    parameters = inspect.signature(MARKED[name]).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in ("tasks", "first", "seed")}
    return defaults | tiny


def key(tasks, name="two_tasks", seed=0, **changes):
    configuration = filled(name, TINY[name][-1]) | changes
    return records.key_of(MARKED[name], tasks, configuration, seed)


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
        patch.setattr(records, "device", lambda: torch.device("cuda"))
        seen.add(key(tasks))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99.0")
        seen.add(key(tasks))
    assert len(seen) == 5


def test_the_key_knows_the_experiment(tasks):
    assert key(tasks, "fisher_of_labels") != key(tasks)


def with_source(monkeypatch, module, change):
    """Let `module` read as if `change` had been made to its code."""
    real = records._source
    monkeypatch.setattr(records, "_source", lambda name: change(real(name)) if name == module else real(name))


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
    before = records.key_of(experiment, tasks, configuration, 0)
    modules = records.modules_of(experiment, configuration)
    for module in (name.removeprefix("ewc.") for name in MODULES):
        with monkeypatch.context() as patch:
            with_source(patch, module, with_other_comments)
            assert records.key_of(experiment, tasks, configuration, 0) == before, module
        with monkeypatch.context() as patch:
            with_source(patch, module, with_a_constant)
            changed = records.key_of(experiment, tasks, configuration, 0) != before
            assert changed == (module in modules), module


def test_the_key_changes_with_the_experiments_own_code_but_not_with_its_comments(tasks, monkeypatch):
    before = key(tasks)
    for old, new, changes in (
        ("    def look(step):", "    def look(step):  # on the way", False),
        ("After the first task learn", "After the first task take up", False),
        ('anchors="merged"', 'anchors="separate"', True),
        ("LOOKS = (0, 1,", "LOOKS = (0,", True),
    ):
        with monkeypatch.context() as patch:
            source = records._source(HERE)
            assert old in source
            with_source(patch, HERE, lambda source, old=old, new=new: source.replace(old, new))
            assert (key(tasks) != before) == changes, old


def test_the_meaning_of_code_is_the_same_in_every_version_of_python():
    """By the fields that have something in them: what a version adds to the syntax tree, or shows of it, is empty in old code."""
    source = 'def f(a, *, b=1):\n    """Says."""\n    return f"{a:.2f} and {b!r}", [x for x in (1, 2.5, "z")], not a\n'
    assert records.meaning(source) == "705895e1f732a39f1847cb75b9d2185597de0f5633db0f1aaa5b98eff4f90206"


def test_code_that_is_saved_while_a_process_runs_is_neither_its_key_nor_kept_under_it(tasks, monkeypatch):
    """The process runs what it imported. What it trains then might be found later as what the new code gives."""
    before, written = key(tasks), []
    real = records._on_disk
    monkeypatch.setattr(records, "_on_disk", lambda name: real(name) + "\nSAVED = 1\n" if name == "fisher" else real(name))
    assert key(tasks) == before
    monkeypatch.setattr(records, "_write", written.append)
    with pytest.warns(RuntimeWarning, match=r"changed while two tasks was trained \(fisher\)"):
        record = records.run(two_tasks, **TINY["two_tasks"][-1])
    assert record.key == before
    assert "fisher" not in {name for each in written for name in records.modules_of(first_lesson, each.configuration)}
    assert {each.name for each in written} == {"first lesson"}  # which does not run what changed


@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_all_code_that_a_run_executes_is_covered_by_its_key(tasks, name, tiny):
    experiment, executed, records_own = MARKED[name], set(), set()

    def trace(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            if module == "workshop.records":
                records_own.add(frame.f_code.co_qualname)
            else:
                executed.add(module)

    configuration = filled(name, tiny)
    first = [records.run(experiment.begins_with, **records.beginning(experiment, configuration, 0))] if experiment.begins_with else []
    experiment(list(tasks), *first, seed=0, **configuration)  # what torch imports late is not to be traced
    sys.setprofile(trace)
    try:
        experiment(list(tasks), *first, seed=0, **configuration)
    finally:
        sys.setprofile(None)
    assert executed <= set(records.modules_of(experiment, configuration))
    assert executed  # something was seen
    assert records_own <= {"Record.model"}  # what reads the weights that it begins with


# ---- the record


@pytest.mark.parametrize(("name", "tiny"), VARIANTS)
def test_what_is_read_back_is_what_was_run_and_nothing_is_trained_twice(tasks, monkeypatch, name, tiny):
    first = records.run(MARKED[name], **tiny)

    def trained(*_, **__):
        raise AssertionError("it was trained again")

    monkeypatch.setattr(records, "_trained", trained)
    second = records.run(MARKED[name], **tiny)
    assert json.dumps(first.result) == json.dumps(second.result)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[key]) for key, value in first.tensors.items())
    for part in ("key", "name", "configuration", "seed", "device", "data", "versions", "seconds", "finished"):
        assert getattr(first, part) == getattr(second, part), part
    assert second.configuration == json.loads(json.dumps(filled(name, tiny)))
    with pytest.raises(AssertionError, match="trained again"):
        records.run(MARKED[name], seed=1, **tiny)


def test_a_record_holds_the_weights_after_each_task(tasks):
    record = records.run(two_tasks, **TINY["two_tasks"][0])
    assert record.matrix.values.shape == (2, 2)
    for place in (0, 1):
        model = record.model(f"after {place + 1}")
        for other, wanted in zip(tasks, record.result["matrix"][place], strict=True):
            assert accuracy(model, other) == pytest.approx(wanted)
    assert len(record.result["untrained"]) == 2
    assert [look["step"] for look in record.result["looks"]] == [0, 1, 2, 3]


def test_the_weights_of_a_plain_run_are_not_trained_again_when_ewcs_strength_changes(tasks, monkeypatch):
    plain = {"method": "plain", "steps": 3, "hidden": (4,)}
    before = records.run(two_tasks, **plain).key
    for size in LESSONS.values():
        monkeypatch.setitem(size, "strength", 12345.0)
    assert records.run(two_tasks, **plain).key == before


def test_an_argument_that_an_experiment_has_not_is_refused(tasks):
    with pytest.raises(TypeError, match="lambda_"):
        records.run(two_tasks, lambda_=1)


@pytest.mark.parametrize("fault", ["tensors", "numbers", "move"])
def test_a_record_that_could_not_be_written_whole_is_not_there(tasks, monkeypatch, fault):
    tiny, folder = TINY["first_lesson"][0], records.records_folder()

    def broken(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if fault == "tensors":
            patch.setattr(Path, "write_bytes", broken)
        elif fault == "numbers":
            patch.setattr(Path, "write_text", broken)
        else:
            patch.setattr(Path, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            records.run(first_lesson, **tiny)
    assert [each.name for each in folder.iterdir()] == [".locks"]
    record = records.run(first_lesson, **tiny)
    assert {each.name for each in folder.iterdir()} == {".locks", record.key}


def test_a_run_killed_while_it_wrote_leaves_nothing_that_is_read(tasks):
    folder = records.records_folder()
    record = records.run(two_tasks, **TINY["two_tasks"][0])
    whole = folder / record.key
    whole.rename(folder / "unfinished-abc")  # as a kill before the move would leave it
    again = records.run(two_tasks, **TINY["two_tasks"][0])
    assert again.finished >= record.finished
    assert again.seconds != record.seconds
    assert whole.is_dir()


@pytest.mark.parametrize("file", ["record.json", "tensors.safetensors"])
@pytest.mark.parametrize("harm", ["truncated", "emptied", "removed"])
def test_a_damaged_record_is_made_again(tasks, file, harm):
    first = records.run(two_tasks, **TINY["two_tasks"][0])
    path = records.records_folder() / first.key / file
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -7 if harm == "truncated" else 0])
    again = records.run(two_tasks, **TINY["two_tasks"][0])
    assert again.seconds != first.seconds
    assert json.dumps(again.result) == json.dumps(first.result)
    third = records.run(two_tasks, **TINY["two_tasks"][0])
    assert third.seconds == again.seconds


def test_what_an_experiment_begins_with_is_trained_once_for_all_that_go_on_from_it(tasks):
    plain, leashed, elastic = (records.run(two_tasks, **tiny) for tiny in TINY["two_tasks"])
    several = records.run(second_lessons, **TINY["second_lessons"][0])
    first = records.run(first_lesson, **TINY["first_lesson"][0])
    assert len([*records.records_folder().glob("*/record.json")]) == 5
    assert first.finished <= min(record.finished for record in (plain, leashed, elastic, several))
    for record in (plain, leashed, elastic):
        assert torch.equal(record.tensors["after 1"], first.tensors["after 1"])
        assert record.result["matrix"][0] == first.result["after"]
        assert record.result["matrix"][1] == record.result["looks"][-1]["accuracies"]
        assert [look["step"] for look in record.result["looks"]] == ([3] if record is leashed else [0, 1, 2, 3])
    assert several.result["before"] == first.result["after"]
    other = records.run(two_tasks, **{**TINY["two_tasks"][0], "hidden": (5,)})
    assert len(other.tensors["after 1"]) != len(first.tensors["after 1"])


def test_two_tasks_are_what_learning_them_in_sequence_is(tasks):
    for tiny in TINY["two_tasks"]:
        record = records.run(two_tasks, seed=1, **tiny)
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
    return records.run_together(
        MARKED[name], [{**tiny, **changes, "seed": seed} for tiny in TINY[name][:4] for seed in seeds]
    )


def test_runs_that_are_trained_side_by_side_give_what_each_gives_alone(tasks, monkeypatch, tmp_path):
    beside = together("permuted_tasks")
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "others"))
    assert {record.together for record in beside} == {8}
    for record in beside:
        alone = records.run(MARKED["permuted_tasks"], seed=record.seed, **record.configuration)
        assert alone.key == record.key
        assert alone.together == 1
        assert json.dumps(alone.result) == json.dumps(record.result)        # what was not tested is NaN, which equals nothing
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
        records.run(
            MARKED["permuted_tasks"],
            **{"method": "ewc", "strength": 1.0, "way": "proximal", "count": 2, "hidden": (4,), "steps": 3} | run,
        )


def test_only_what_is_missing_is_trained(tasks):
    first = together("permuted_tasks", seeds=(0,))
    second = together("permuted_tasks", seeds=(0, 1))
    assert [record.together for record in second] == [4, 4] * 4
    assert [record.finished for record in second[::2]] == [record.finished for record in first]


def test_what_cannot_stand_in_one_stack_is_trained_apart(tasks):
    found = records.run_together(
        MARKED["permuted_tasks"], [{**TINY["permuted_tasks"][3], "hidden": hidden} for hidden in ((4,), (5,), (4,))]
    )
    assert [record.configuration["hidden"] for record in found] == [[4], [5], [4]]
    assert {record.together for record in found} == {1}
    assert found[0] is found[2]
    apart = records.run_together(two_tasks, [TINY["two_tasks"][0], TINY["two_tasks"][2]])
    assert {record.together for record in apart} == {1}


def test_what_is_left_open_is_taken_from_the_size_of_the_machine(tasks, monkeypatch):
    sizes = MARKED["permuted_tasks"].sizes
    assert set(sizes) == {"cpu", "embedded", "cuda"}
    real = tuple(replace(task, embedded=False) for task in tasks)
    for pair, device, kind in ((tasks, "cpu", "embedded"), (real, "cpu", "cpu"), (real, "cuda", "cuda"), (tasks, "cuda", "embedded")):
        monkeypatch.setattr(records, "device", lambda device=device: torch.device(device))
        configuration, _ = records._filled(MARKED["permuted_tasks"], pair, {"method": "ewc"})
        assert {name: configuration[name] for name in sizes[kind]} == sizes[kind]


def other_tensors(folder):
    path = folder / "tensors.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)


def other_numbers(folder):
    path = folder / "record.json"
    kept = json.loads(path.read_text("utf8"))
    kept["result"]["matrix"][0][0] = 0.5
    path.write_text(json.dumps(kept), "utf8")


@pytest.mark.parametrize("harm", [other_tensors, other_numbers])
def test_a_record_that_was_altered_is_made_again(tasks, harm):
    first = records.run(two_tasks, **TINY["two_tasks"][0])
    harm(records.records_folder() / first.key)
    again = records.run(two_tasks, **TINY["two_tasks"][0])
    assert again.result == first.result
    assert all(torch.equal(value, again.tensors[name]) for name, value in first.tensors.items())


def test_a_record_that_was_copied_to_another_key_is_not_read_there(tasks):
    one, other = (records.run(two_tasks, seed=seed, **TINY["two_tasks"][0]) for seed in (0, 1))
    folder = records.records_folder()
    shutil.rmtree(folder / other.key)
    shutil.copytree(folder / one.key, folder / other.key)
    assert records.run(two_tasks, seed=1, **TINY["two_tasks"][0]).seed == 1


# ---- two processes


def test_what_another_process_is_training_is_waited_for_and_not_trained_again(tasks, monkeypatch, tmp_path):
    tiny = TINY["two_tasks"][0]
    record = records.run(two_tasks, **tiny)
    there, real = tmp_path / "there", records._alone
    records.records_folder().rename(there)
    asked = threading.Event()

    def noticed(name):
        asked.set()
        return real(name)

    monkeypatch.setattr(records, "_alone", noticed)
    monkeypatch.setattr(records, "_trained", lambda *_, **__: pytest.fail("it was trained again"))
    with ThreadPoolExecutor(1) as pool:
        with real(f"two_tasks {record.key}"):
            waiting = pool.submit(records.run, two_tasks, **tiny)
            assert asked.wait(60)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            shutil.copytree(there / record.key, records.records_folder() / record.key)  # as the other does when it has done
        assert waiting.result(60).finished == record.finished


def test_processes_that_ask_for_other_runs_do_not_wait(tasks):
    with records._alone("two_tasks another"):
        assert records.run(two_tasks, **TINY["two_tasks"][0]).result
