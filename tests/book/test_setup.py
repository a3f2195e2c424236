"""How .venv is made, and what is said where it cannot be: `book/setup.sh` with small programs in the place of Python and pip."""

import os
import subprocess
from types import SimpleNamespace

import pytest
from building import ROOT

# A Python that knows its version, makes an environment with one like it, and writes down what pip is asked for.
STUB = """\
#!/bin/bash
case "$*" in
  *version_info*) echo {version} ;;
  "-m venv "*) {venv}; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"import pip"*) [ ! -e .venv/no-pip ] ;;
  "-m ensurepip") rm .venv/no-pip ;;
  "-m pip install "*) echo "$@" >> pip.log; {pip} ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder of the book, and one of programs: `python("python3", "3.12.1")` puts a Python there."""
    (tmp_path / "the book/book").mkdir(parents=True)
    (tmp_path / "programs").mkdir()
    home, programs = tmp_path / "the book", tmp_path / "programs"
    (home / "book/setup.sh").write_text((ROOT / "book/setup.sh").read_text("utf8"), "utf8")
    (home / "requirements.txt").write_text("torch==1\n")
    (home / "pyproject.toml").write_text("")
    for name in ("bash", "cat", "cmp", "cp", "mkdir", "mv", "pwd", "rm", "xargs"):
        (programs / name).symlink_to(f"/bin/{name}" if os.path.exists(f"/bin/{name}") else f"/usr/bin/{name}")

    def python(name, version, *, venv=":", pip=":", folder=programs):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STUB.format(version=version, venv=venv, pip=pip))
        (folder / name).chmod(0o755)
        return str(folder / name)

    def setup(**environment):
        done = subprocess.run(
            [str(programs / "bash"), "book/setup.sh"], cwd=home, capture_output=True, text=True,
            env={"PATH": str(programs), "HOME": str(tmp_path), **environment},
        )  # fmt: skip
        pip = home / "pip.log"
        asked = pip.read_text().splitlines() if pip.exists() else []
        pip.unlink(missing_ok=True)
        return SimpleNamespace(status=done.returncode, said=done.stdout + done.stderr, pip=asked)

    return SimpleNamespace(home=home, python=python, setup=setup, venv=home / ".venv")


def version_of(machine):
    return subprocess.run([machine.venv / "bin/python", "version_info"], capture_output=True, text=True).stdout.strip()


def test_an_environment_is_made_once_and_again_for_another_lock(machine):
    machine.python("python3", "3.11.7")
    first = machine.setup()
    assert first.status == 0, first.said
    assert len(first.pip) == 2
    for option in ("--require-hashes", "--only-binary :all:", "--no-deps", "-r .venv/half.rest"):
        assert option in first.pip[0]
    for option in ("--isolated", "--no-index", "--no-deps", "--editable ."):
        assert option in first.pip[1], "a reader's PIP_REQUIRE_HASHES stops it otherwise"
    assert machine.setup().pip == []
    (machine.venv / "mine").touch()
    (machine.home / "requirements.txt").write_text("torch==2\n")
    assert len(machine.setup().pip) == 2
    assert not (machine.venv / "mine").exists()
    assert sorted(path.name for path in machine.home.iterdir()) == [".venv", "book", "pyproject.toml", "requirements.txt"]


def test_the_lock_is_installed_in_two_halves_and_all_of_it(machine):
    parts = ("attrs==1", "1"), ("nvidia-nccl==2 ; sys_platform == 'linux'", "2"), ("torchvision==3", "3")
    lock = "".join(f"{name} \\\n    --hash=sha256:{digest}\n" for name, digest in parts)
    (machine.home / "requirements.txt").write_text(lock)
    machine.python("python3", "3.11.7")
    done = machine.setup()
    assert done.status == 0, done.said
    assert sorted(asked.split()[-1] for asked in done.pip[:2]) == [".venv/half.cuda", ".venv/half.rest"]
    assert (machine.venv / "half.cuda").read_text() == "".join(lock.splitlines(True)[2:4])
    assert (machine.venv / "half.rest").read_text() == "".join(lock.splitlines(True)[:2] + lock.splitlines(True)[4:])


def test_a_half_that_fails_is_a_failure(machine):
    """Either one: they run side by side."""
    (machine.home / "requirements.txt").write_text("attrs==1\nnvidia-nccl==2\n")
    machine.python("python3", "3.11.7", pip='[[ "$*" != *half.cuda ]]')
    stopped = machine.setup()
    assert stopped.status != 0
    assert "The installation stopped" in stopped.said
    assert not (machine.venv / "lock.done").exists()


def test_a_lock_that_lacks_what_a_package_needs_is_refused(machine):
    machine.python("python3", "3.11.7")
    stub = machine.home.parent / "programs/python3"
    stub.write_text(stub.read_text().replace("esac", '  "-m pip check "*) echo "torch needs sympy"; exit 1 ;;\nesac'))
    refused = machine.setup()
    assert refused.status != 0
    assert "torch needs sympy" in refused.said


def test_an_interrupted_installation_goes_on(machine):
    machine.python("python3", "3.11.7", pip="false")
    stopped = machine.setup()
    assert stopped.status != 0
    assert "Room is needed" in stopped.said
    (machine.venv / "mine").touch()
    machine.python("python", "3.11.7", folder=machine.venv / "bin")
    assert machine.setup().status == 0
    assert (machine.venv / "mine").exists()


def test_an_interrupted_removal_leaves_nothing_that_counts_as_ready(machine):
    """`rm` is ended half way, as by Ctrl-C: the lock that says "ready" may be among what it has left."""
    machine.python("python3", "3.11.7")
    machine.setup()
    (machine.home / "requirements.txt").write_text("torch==2\n")
    remove = machine.home.parent / "programs/rm"
    remove.unlink()
    remove.write_text(
        '#!/bin/bash\nfor each in "$@"; do [ ! -e "$each/lock.begun" ] || { /bin/rm "$each/lock.begun"; kill -KILL $PPID; }; done\n'
    )
    remove.chmod(0o755)
    assert machine.setup().status != 0
    assert not machine.venv.exists()
    remove.unlink()
    remove.symlink_to("/bin/rm")
    again = machine.setup()
    assert (again.status, len(again.pip)) == (0, 2)
    assert not (machine.home / ".venv.old").exists()


def test_an_environment_of_somebody_else_is_added_to_and_never_removed(machine):
    machine.python("python", "3.12.1", folder=machine.venv / "bin")
    (machine.venv / "no-pip").touch()
    (machine.venv / "mine").touch()
    assert len(machine.setup().pip) == 2
    (machine.home / "requirements.txt").write_text("torch==2\n")
    assert len(machine.setup().pip) == 1
    assert (machine.venv / "mine").exists()


@pytest.mark.parametrize(("version", "words"), [
    ("3.10.13", ["3.11 to 3.14", "has 3.10.13", "rm -rf .venv"]),
    ("", ["does not start", "rm -rf .venv"]),
])  # fmt: skip
def test_an_unfit_environment_of_somebody_else_is_named(machine, version, words):
    machine.python("python3", "3.11.7")
    machine.python("python", version, folder=machine.venv / "bin")
    refused = machine.setup()
    assert refused.status != 0
    assert all(word in refused.said for word in words), refused.said
    assert refused.pip == []
    assert machine.venv.exists()


def test_our_environment_is_made_anew_when_its_python_is_gone(machine):
    machine.python("python3", "3.11.7")
    machine.setup()
    (machine.venv / "bin/python").unlink()
    (machine.venv / "bin/python").symlink_to("/no/such/python3.11")
    machine.python("python3.12", "3.12.1")
    again = machine.setup(PYTHON="python3.12")
    assert (again.status, len(again.pip)) == (0, 2)
    assert "is made anew" in again.said
    assert version_of(machine) == "3.12.1"


def test_another_python_than_that_of_the_environment_is_refused(machine):
    machine.python("python3", "3.11.7")
    machine.python("python3.13", "3.13.0")
    machine.setup()
    refused = machine.setup(PYTHON="python3.13")
    assert refused.status != 0
    for word in ("python3.13", "3.13.0", "3.11.7", "rm -rf .venv"):
        assert word in refused.said
    assert machine.setup(PYTHON="python3").status == 0


@pytest.mark.parametrize(("installed", "chosen"), [
    ({"python3": "3.13.0", "python3.11": "3.11.7"}, "3.13.0"),
    ({"python3": "3.10.13", "python3.12": "3.12.1", "python3.11": "3.11.7"}, "3.12.1"),
    ({"python3": "3.15.0", "python3.14": "3.14.2"}, "3.14.2"),
])  # fmt: skip
def test_the_first_python_that_fits_is_taken(machine, installed, chosen):
    for name, version in installed.items():
        machine.python(name, version)
    done = machine.setup()
    assert done.status == 0, done.said
    assert version_of(machine) == chosen


@pytest.mark.parametrize(("installed", "given", "words"), [
    ({}, "", ["3.11 to 3.14", "not there", "PYTHON=/path/to"]),
    ({"python3": "3.10.13"}, "", ["3.11 to 3.14", "python3 is 3.10.13", "PYTHON=/path/to"]),
    ({"python3": "3.15.0"}, "", ["3.11 to 3.14", "python3 is 3.15.0"]),
    ({"python3": "3.12.1", "python3.10": "3.10.13"}, "python3.10", ["'python3.10' is Python 3.10.13", "PYTHON=python3.12"]),
    ({"python3": "3.12.1"}, "python4", ["PYTHON is 'python4'", "not found", "PYTHON=/path/to"]),
])  # fmt: skip
def test_without_a_python_that_fits_it_says_which_to_name(machine, installed, given, words):
    for name, version in installed.items():
        machine.python(name, version)
    refused = machine.setup(PYTHON=given)
    assert refused.status != 0
    assert all(word in refused.said for word in words), refused.said
    assert not machine.venv.exists()


def test_where_an_environment_cannot_be_made_the_reason_is_hinted_at(machine):
    machine.python("python3", "3.11.7", venv="echo 'ensurepip: exit status 1' >&2; exit 1")
    refused = machine.setup(TMPDIR="/somewhere/full")
    assert refused.status != 0
    assert "room here and in /somewhere/full" in refused.said
    assert not machine.venv.exists()
    machine.python("python3", "3.11.7")
    assert machine.setup(TMPDIR="/tmp").status == 0


# ---- The browser libraries


@pytest.fixture
def vendor(tmp_path):
    """`make vendor` where `.venv/bin/python` is a program that stands for npm."""

    def vendor(npm):
        (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv/bin/python").write_text(f"#!/bin/bash\n{npm}\n")
        (tmp_path / ".venv/bin/python").chmod(0o755)
        (tmp_path / "package-lock.json").write_text("{}")
        done = subprocess.run(
            ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "-o", "setup", "vendor", "LIBRARIES=mathjax/tex.js"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    vendor.folder = tmp_path
    return vendor


def test_npm_says_why_it_failed(vendor):
    status, said = vendor('[[ "$*" == *--silent* ]] || echo "npm error ENOTFOUND" >&2; exit 1')
    assert status != 0
    assert "npm error ENOTFOUND" in said
    assert "Is there a network?" in said
    assert not (vendor.folder / "node_modules/lock.done").exists()


def test_npm_is_asked_once_and_what_is_not_whole_is_named(vendor):
    installs = "mkdir -p node_modules/mathjax; echo whole > node_modules/mathjax/tex.js"
    assert vendor(installs)[0] == 0
    assert vendor("exit 1")[0] == 0, "npm is asked once"
    (vendor.folder / "node_modules/mathjax/tex.js").unlink()
    status, said = vendor("exit 1")
    assert status != 0
    assert "mathjax/tex.js" in said
    assert "rm -rf node_modules" in said
