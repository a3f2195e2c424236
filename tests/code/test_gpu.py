"""`make gpu`: its miniature where there is no CUDA, and that it holds together when a part does not."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ewc.workshop import paper, paper_cifar, protocols, sequences
from tiny_runs import MARKED

ROOT = Path(__file__).parents[2]
PARTS = ("tests", "experiments", "protocol", "profile", "benchmarks", "book")


def script(name):
    """A script of tests/gpu as a module."""
    known = importlib.util.spec_from_file_location(f"gpu_{name}", ROOT / "tests" / "gpu" / f"{name}.py")
    module = importlib.util.module_from_spec(known)
    sys.modules[known.name] = module  # a dataclass asks for it
    known.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu():
    return script("run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run in full")
def test_without_cuda_it_says_so_and_tries_itself_in_miniature(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EWC_DATA", "EWC_RECORDS")}
    command = ["make", "--no-print-directory", "gpu", f"PYTHON={sys.executable}", f"OUT={tmp_path / 'a folder'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = (tmp_path / "a folder" / "summary.txt").read_text("utf8")
    assert done.returncode == 0, said + done.stderr
    assert said in done.stdout
    assert "There is no CUDA here" in said and "Nothing failed." in said
    table = dict(re.findall(r"^(\w+) +[\d.]+  (.+)$", said, re.M))
    assert tuple(table) == PARTS
    assert {name: came for name, came in table.items() if came != "done"} == {"protocol": "left out", "book": "left out"}
    assert re.search(r"[1-9]\d* passed", said)
    records = [json.loads(path.read_text("utf8")) for path in (tmp_path / "a folder" / "records").glob("*.json")]
    assert {record["name"].replace(" ", "_") for record in records} == MARKED.keys()


@pytest.mark.parametrize(("given", "python"), [([], "python3"), (["PYTHON=python3.12"], "python3.12")])
def test_it_runs_with_the_machines_own_python_and_not_with_the_books(given, python):
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKEOVERRIDES")}   # of `make PYTHON=… test`
    command = subprocess.run(["make", "--no-print-directory", "-n", "gpu", *given], cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    assert command.stdout.startswith(f'"{python}" tests/gpu/run.py')


def test_a_part_that_fails_or_does_not_end_stops_no_other(gpu, tmp_path):
    python = [sys.executable, "-c"]
    sleeper = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    parts = [
        gpu.Part("fails", [*python, "print('» said'); raise SystemExit(3)"], 60),
        gpu.Part("breaks", [*python, "raise RuntimeError('broken')"], 60),
        gpu.Part("never ends", [*python, sleeper], 5),
        gpu.Part("has nothing to do", [*python, "print('» skipped: why'); raise SystemExit(77)"], 60),
        gpu.Part("is not there", [*python, ""], 60, instead="a reason"),
        gpu.Part("works", [*python, "print('much'); print('» little')"], 60),
    ]
    started = time.monotonic()
    for part in parts:
        gpu.run(part, 100, tmp_path, dict(os.environ))
    assert time.monotonic() - started < 50
    assert [part.failed for part in parts] == [True, True, True, False, False, False]
    assert [part.said for part in parts if part.name != "breaks"] == [("said",), (), ("skipped: why",), ("a reason",), ("little",)]
    assert "broken" in parts[1].said[-1]
    said = gpu.summary({"cuda": False}, parts, small=True, seconds=1.0, chosen="embedded")
    assert "Failed: fails, breaks, never ends." in said
    assert "ended after 5 s" in said
    out_of_time = gpu.Part("late", [*python, ""], 60)
    gpu.run(out_of_time, 1, tmp_path, dict(os.environ))
    assert out_of_time.said == ("no time was left",)


def test_of_pytests_output_what_failed_is_said(gpu):
    output = "tests/a.py F.\n=== short test summary ===\nFAILED tests/a.py::test_b - no\n=== 1 failed, 1 passed in 0.10s ===\n"
    assert gpu.worth_saying(output) == ("FAILED tests/a.py::test_b - no", "1 failed, 1 passed in 0.10s")


def test_data_are_never_fetched(gpu, tmp_path, monkeypatch):
    monkeypatch.delenv("EWC_DATA", raising=False)
    assert gpu.data(str(tmp_path / "hub")) == "embedded"
    for name in ("MNIST", "FashionMNIST"):
        raw = tmp_path / "datasets" / name / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").touch()
    assert gpu.data(str(tmp_path / "hub")) == str(tmp_path / "datasets")
    monkeypatch.setenv("EWC_DATA", "embedded")
    assert gpu.data(str(tmp_path / "hub")) == "embedded"


def test_every_cell_of_every_page_is_found():
    pages = script("pages")
    texts = {path: path.read_text("utf8") for path in (ROOT / "index.md", *(ROOT / "book").rglob("*.md")) if "{code-cell}" in path.read_text("utf8")}
    assert {f"{path.relative_to(ROOT).with_suffix('')}" for path in texts} == set(pages.pages())
    for path, text in texts.items():
        cells = pages.cells(text)
        assert len(cells) == text.count("```{code-cell}")
        for line, code in cells:
            compile(code, str(path), "exec")
            assert not code.startswith((":", "---"))
            assert text.splitlines()[line] == code.splitlines()[0]


def test_a_page_whose_cell_fails_says_where_and_goes_on(tmp_path, monkeypatch, capsys):
    pages = script("pages")
    cell = "```{code-cell} ipython3\n%s\n```\n"
    (tmp_path / "page.md").write_text("# A page\n\n" + cell % ":tags: [x]\nvalue = 1" + cell % "\nassert value == 2" + cell % "print('on')")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert pages.run_page("page") == 1
    said = capsys.readouterr().out
    assert "» page: 3 cells" in said and "1 failed" in said
    assert "line 9: AssertionError: assert value == 2" in said
    assert said.startswith("on\n")
    assert pages.run_page("page", 1) == 0


def test_the_protocol_with_the_least_work_left_comes_first(monkeypatch, tmp_path):
    protocol = script("protocol")
    small = {"method": "plain", "hidden": (4,), "count": 2, "steps": 3}
    runs = {
        "long": [(sequences.permuted_tasks, {**small, "steps": 500, "seed": 0})],
        "short": [(sequences.permuted_tasks, {**small, "seed": seed}) for seed in (0, 1)],
        "done": [(sequences.permuted_tasks, {**small, "seed": 2})],
        "photographs": [(paper_cifar.photographs, {"method": "plain"})],
    }
    monkeypatch.setattr(protocols, "runs", lambda: runs)
    monkeypatch.setattr(paper, "folder", lambda: tmp_path)
    key = paper.key_of(sequences.permuted_tasks, *paper.complete(*runs["done"][0]), "a checksum")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / f"x-{key}.json").write_text(json.dumps({"key": key}))
    found = protocol.lacking("a checksum")
    assert [(name, len(each)) for name, each in found.items()] == [("short", 2), ("long", 1)]
    assert sum(protocol.work(*run) for run in found["short"]) < protocol.work(*found["long"][0])


@pytest.mark.parametrize(
    ("program", "said", "status"),
    [
        ("print('fine')", "» bench_it: held", 0),
        ("import backpack_that_is_not_there", "ModuleNotFoundError", 1),
        ("raise ModuleNotFoundError(\"No module named 'backpack'\")", "skipped, backpack is not installed", 0),
        ("print('MISSED: 4 times as long'); raise SystemExit(1)", "» bench_it: MISSED: 4 times as long", 1),
    ],
)
def test_a_benchmark_that_misses_is_said_and_one_that_lacks_its_rival_is_left_out(program, said, status, tmp_path, monkeypatch, capsys):
    benchmarks = script("benchmarks")
    (tmp_path / "bench_it.py").write_text(program)
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks.py"])
    assert benchmarks.main() == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("program", "status"), [("print('MISSED: 4 times as long'); raise SystemExit(1)", 0), ("raise RuntimeError('broken')", 1)])
def test_on_a_gpu_a_bar_that_is_missed_is_said_and_no_failure_and_a_crash_is_one(program, status, tmp_path, monkeypatch, capsys):
    benchmarks = script("benchmarks")
    (tmp_path / "bench_it.py").write_text(program)
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    monkeypatch.setattr(benchmarks.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["benchmarks.py"])
    assert benchmarks.main() == status
    assert ("» bench_it: MISSED: 4 times as long" in capsys.readouterr().out) == (status == 0)


def test_runs_are_trained_side_by_side_and_one_that_fails_stops_no_other(monkeypatch, tmp_path, capfd):
    protocol = script("protocol")
    # Each leaves a file: two that end at one moment may write over each other's words in what they have in common.
    script_of_one = "import pathlib, sys; pathlib.Path(sys.argv[2], ' '.join(sys.argv[4:]) + '.ran').touch(); sys.exit(int(sys.argv[5]) == 1)"
    (tmp_path / "it.py").write_text(script_of_one)
    monkeypatch.setattr(protocol, "__file__", str(tmp_path / "it.py"))
    assert protocol.train_all([("short", 0), ("short", 1), ("long", 0)], 2, tmp_path) == 1
    assert sorted(path.stem for path in tmp_path.glob("*.ran")) == ["long 0", "short 0", "short 1"]
    assert "» short, run 1: failed, exit status 1" in capfd.readouterr().out
