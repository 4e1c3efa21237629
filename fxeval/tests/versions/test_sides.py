"""The process of a side: what it sees of its surroundings, and how it ends."""

import os
import signal
import sys
import threading
import time

import pytest

from fxeval.versions.sides import Side, SideError, environment, measure


@pytest.fixture
def side(tmp_path):
    root = tmp_path / "base" / "check out"
    (root / "evaluation").mkdir(parents=True)
    checkout = tmp_path / "user"
    checkout.mkdir()
    return Side("base", root, root / "evaluation", checkout)


def paths(found):
    return found["PYTHONPATH"].split(os.pathsep)


def test_its_own_code_comes_first(side, tmp_path):
    plugin = tmp_path / "plugin"
    assert paths(environment(side, {}, side.checkout, plugin)) == [str(side.root), str(plugin)]
    (side.root / "src").mkdir()
    found = paths(environment(side, {"PYTHONPATH": "/srv/lib"}, side.checkout, plugin))
    assert found == [str(side.root / "src"), str(side.root), "/srv/lib", str(plugin)]


def test_places_in_the_checkout_become_places_in_the_version(side, tmp_path):
    for folder in (side.root, side.checkout):
        (folder / "lib").mkdir()
    given = os.pathsep.join(["lib", str(side.checkout / "lib"), str(side.checkout / "own"), ""])
    found = paths(environment(side, {"PYTHONPATH": given}, side.checkout, tmp_path / "plugin"))
    assert found[1:-1] == [str(side.root / "lib")] * 2 + [str(side.checkout / "own")]


def test_an_installed_version_is_not_hidden_by_its_source(side, tmp_path):
    installed = Side("base", side.root, side.start, side.checkout, tmp_path / "python")
    assert paths(environment(installed, {}, side.checkout, tmp_path)) == [str(tmp_path)]


def test_the_rest_is_inherited_without_what_names_another_checkout(side, tmp_path):
    given = {"LANG": "C", "GIT_DIR": "/srv/.git", "GIT_INDEX_FILE": "x"}
    found = environment(side, given, side.checkout, tmp_path)
    assert {**found, "PYTHONPATH": ""} == {"LANG": "C", "PYTHONUNBUFFERED": "1", "PYTHONPATH": ""}


def test_data_that_only_the_checkout_has_is_found_by_its_whole_path(side, tmp_path):
    (side.start / "tracked").mkdir()
    given = {"FXEVAL_DATA": "own", "FXEVAL_WEIGHTS": "tracked"}
    found = environment(side, given, side.checkout, tmp_path)
    assert found["FXEVAL_DATA"] == str(side.checkout / "own")
    assert found["FXEVAL_WEIGHTS"] == "tracked"
    assert environment(side, {"FXEVAL_DATA": ""}, side.checkout, tmp_path)["FXEVAL_DATA"] == ""


def measured(side, tmp_path, test):
    """Measure a side that has one test; return the lines that pytest printed."""
    (side.start / "test_it.py").write_text(test)
    lines = []
    measure(side, ["test_it.py", "-s"], tmp_path / "out", lines.append)
    return lines


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("def test_a(: pass", "base: pytest met a fault before it measured, or was stopped"),
        ("import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGKILL)",
         "base: pytest ended with signal 9, SIGKILL"),
        ("def test_a(): pass", "base: expected the record of one run, got 0"),
    ],
    ids=["syntax error", "crash", "no record"],
)  # fmt: skip
def test_a_side_without_a_record_is_named(side, tmp_path, test, said):
    with pytest.raises(SideError) as caught:
        measured(side, tmp_path, test)
    assert str(caught.value).startswith(said)


WAITS = """
import os, pathlib, subprocess, sys, time
def test_it():
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{deaf}; time.sleep(60)"], stdout=subprocess.PIPE
    )
    child.stdout.readline()
    pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)
"""


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_a_side_and_the_processes_that_it_started(side, tmp_path):
    def stop():
        while not (side.start / "pids").exists() or not (side.start / "pids").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        measured(side, tmp_path, WAITS)
    pids = [int(pid) for pid in (side.start / "pids").read_text().split()]
    end = time.monotonic() + 20  # a killed process takes a moment to be gone
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, pids
        time.sleep(0.02)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_this_python_runs_a_side_that_is_not_installed(side, tmp_path):
    lines = []
    (side.start / "test_it.py").write_text(
        "import sys\ndef test_it(): print('runs', sys.executable, sys.path[1:3])\n"
    )
    with pytest.raises(SideError, match="record"):
        measure(side, ["test_it.py", "-s"], tmp_path / "out", lines.append)
    (line,) = [line for line in lines if "runs " in line]
    assert sys.executable in line
    assert str(side.root) in line
