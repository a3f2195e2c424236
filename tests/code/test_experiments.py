"""Runs are remembered under all that they depend on, whole or not at all."""

import json
import sys
from pathlib import Path

import pytest
import torch
from ewc import experiments, page, tasks

TINY = {"steps": 2, "hidden": (4,), "batch_size": 16}


@pytest.fixture(autouse=True)
def aside(monkeypatch, tmp_path):
    """Records of their own, and the stand-ins."""
    monkeypatch.setenv("EWC_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EWC_DATA", "embedded")
    tasks.find_data.cache_clear()
    yield
    tasks.find_data.cache_clear()


def key(experiment=experiments.two_tasks, seed=0, **configuration):
    return experiments.key_of(experiment, tasks.paired(), {"method": "ewc", **configuration}, seed)


def test_a_run_is_made_once_and_read_back_whole(monkeypatch):
    first = experiments.run(experiments.two_tasks, method="ewc", strength=3.0, **TINY)
    monkeypatch.setattr(experiments, "learn_in_sequence", None)  # a second training would fail
    again = experiments.run(experiments.two_tasks, method="ewc", strength=3.0, **TINY)
    assert vars(again).keys() == vars(first).keys() and again.result == first.result
    assert again.configuration == first.configuration and again.configuration["strength"] == 3.0
    for name, tensor in first.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
    assert torch.equal(
        torch.nn.utils.parameters_to_vector(again.model("after 2").parameters()), first.tensors["after 2"]
    )


def test_the_key_knows_configuration_seed_data_device_and_version(monkeypatch):
    keys = {key(), key(strength=1.0), key(seed=1), key(method="plain"), key(experiments.fisher_of_labels)}
    monkeypatch.setattr(experiments, "device", lambda: torch.device("cuda"))
    keys.add(key())
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "0")
    keys.add(key())
    monkeypatch.undo()
    keys.add(experiments.key_of(experiments.two_tasks, tasks.paired()[::-1], {"method": "ewc"}, 0))
    assert len(keys) == 8


def with_source(monkeypatch, module, change):
    real = experiments._source
    monkeypatch.setattr(experiments, "_source", lambda name: change(real(name)) if name == module else real(name))


def test_code_of_a_module_changes_the_key_of_what_runs_through_it_and_of_nothing_else(monkeypatch):
    plain, elastic = key(method="plain"), key(method="ewc")
    with_source(monkeypatch, "fisher", lambda source: source + "\nadded = 1\n")
    assert key(method="ewc") != elastic and key(method="plain") == plain
    monkeypatch.undo()
    with_source(monkeypatch, "training", lambda source: source + "\nadded = 1\n")
    assert key(method="ewc") != elastic and key(method="plain") != plain
    monkeypatch.undo()
    with_source(monkeypatch, "figures", lambda source: source + "\nadded = 1\n")
    assert key(method="ewc") == elastic and key(method="plain") == plain


def test_comments_and_docstrings_do_not_count(monkeypatch):
    before = key()
    with_source(
        monkeypatch,
        "fisher",
        lambda source: source.replace('"""Fisher information of', '"""The Fisher information of', 1) + "\n# a remark\n",
    )
    assert key() == before


@pytest.mark.parametrize(
    ("experiment", "configuration"),
    [
        (experiments.two_tasks, {"method": "plain", **TINY}),
        (experiments.two_tasks, {"method": "l2", "strength": 0.1, **TINY}),
        (experiments.two_tasks, {"method": "ewc", **TINY}),
        (experiments.fisher_of_labels, {"examples": 20, "passes": 1, "hidden": (4,)}),
    ],
)
def test_the_key_covers_every_module_that_a_run_goes_through(experiment, configuration):
    tasks.paired()  # the loading of data is covered by their checksum
    rooms = Path(experiments.__file__).parent
    entered = set()

    def note(frame, event, _):
        if event == "call" and Path(frame.f_code.co_filename).parent == rooms:
            entered.add(Path(frame.f_code.co_filename).stem)

    sys.setprofile(note)
    try:
        experiments.run(experiment, **configuration)
    finally:
        sys.setprofile(None)
    assert "training" in entered
    assert entered - {"experiments", "page"} <= set(experiment.modules(configuration))


@pytest.mark.parametrize("damage", ["half a record", "no tensors", "half the tensors"])
def test_a_damaged_record_is_made_again(damage):
    record = experiments.run(experiments.two_tasks, method="plain", **TINY)
    folder = experiments.records_folder() / record.key
    if damage == "half a record":
        (folder / "record.json").write_text((folder / "record.json").read_text()[:50])
    elif damage == "no tensors":
        (folder / "tensors.safetensors").unlink()
    else:
        content = (folder / "tensors.safetensors").read_bytes()
        (folder / "tensors.safetensors").write_bytes(content[: len(content) // 2])
    again = experiments.run(experiments.two_tasks, method="plain", **TINY)
    assert again.result == record.result
    assert json.loads((folder / "record.json").read_text())["key"] == record.key


def test_a_write_that_is_cut_off_leaves_nothing_behind(monkeypatch):
    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "save_file", cut_off)
    with pytest.raises(KeyboardInterrupt):
        experiments.run(experiments.two_tasks, method="plain", **TINY)
    assert list(experiments.records_folder().iterdir()) == []


def test_plain_descent_has_no_strength_and_is_not_trained_again_when_that_of_ewc_changes(monkeypatch):
    assert experiments.run(experiments.two_tasks, method="plain", **TINY).configuration["strength"] is None
    assert experiments.run(experiments.two_tasks, method="ewc", **TINY).configuration["strength"] > 0


def test_every_record_that_a_page_obtains_is_handed_to_it(monkeypatch):
    rows = []
    monkeypatch.setattr(page, "run", rows.append)
    for _ in range(2):
        record = experiments.run(experiments.two_tasks, method="plain", **TINY)
    assert [row["key"] for row in rows] == [record.key] * 2


def test_an_argument_that_the_experiment_does_not_have_is_refused():
    with pytest.raises(TypeError, match="colour"):
        experiments.run(experiments.two_tasks, colour="red")
