"""`make serve`, and what it says instead of a traceback."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from building import ROOT

PROGRAM = [sys.executable, "-P", str(ROOT / "book/serve.py")]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "_build/html").mkdir(parents=True)
    (tmp_path / "_build/html/index.html").write_text("the book")
    return tmp_path


@pytest.fixture
def port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


def test_the_pages_are_served_until_ctrl_c(folder, port):
    number = port.getsockname()[1]
    port.close()
    server = subprocess.Popen([*PROGRAM, str(number)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert str(number) in server.stdout.readline()
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{number}/") as page:
        assert page.read() == b"the book"
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in said


def refused(folder, port):
    done = subprocess.run([*PROGRAM, port], cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_port_in_use_is_named(folder, port):
    port.listen()
    number = str(port.getsockname()[1])
    assert f"Port {number} cannot be used" in refused(folder, number)


@pytest.mark.parametrize("wrong", ["80000", "0", "-1", "http", "", "8000.0"])
def test_what_is_no_port_is_named(folder, wrong):
    assert f"PORT is {wrong!r}; it may be a whole number from 1 to 65535" in refused(folder, wrong)


def test_without_a_book_it_says_how_to_make_one(tmp_path):
    assert "make book" in refused(tmp_path, "8000")
