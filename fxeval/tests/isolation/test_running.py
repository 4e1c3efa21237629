"""Whatever a program does, its process is ended and nothing of it is left."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from fxeval.isolation import running
from fxeval.isolation.running import EndedError, Process

LIGHT = "fxeval.tests.isolation.light"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
SECONDS = 20.0

ENDS = {
    "exit": r"ended \(exit status 0\) before it answered",
    "hard_exit": r"ended \(exit status 3\)",
    "c_exit": r"ended \(exit status 3\)",
    "segfault": r"ended \(signal 11, SIGSEGV\)",
    "abort": r"ended \(signal 6, SIGABRT\)",
    "kill": r"ended \(signal 9, SIGKILL\)",
    "kill_the_parent": r"ended \(signal 9, SIGKILL\)",
    "kill_the_group": r"ended \(signal 9, SIGKILL\)",
    "interrupt": r"ended \(exit status 1\)|signal 2",
    "recursion": r"ended \(exit status 1\)",
    "print": "printed more than 1 MiB",
    "garbage": "cannot be read",
    "flooded_pipe": "cannot be read",
    "close": r"ended \(exit status 1\)",
    "close_and_hang": "closed its pipe before it answered|took more than",
}
HANGS = ["stop", "loop", "sleep", "deaf_sleep", "deadlock", "fork_and_hang", "bombs"]


def left(mark):
    """Return the processes that a program left, but zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = entry.read_bytes()
            is_dead = b"State:\tZ" in (entry.parent / "status").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and not is_dead:
            found.append(entry.parent.name)
    return found


@pytest.fixture
def process():
    found = Process(LIGHT)
    yield found
    found.close()
    assert left(found._mark) == []


def answers(process):
    given = bytes(range(256)) * 4000
    assert process.ask(given, seconds=SECONDS, most=len(given)) == given
    return True


def test_it_answers_one_message_after_another(process):
    assert answers(process)
    assert answers(process)


@pytest.mark.parametrize(("way", "words"), ENDS.items())
def test_a_program_that_ends_or_says_nonsense_is_an_error_with_the_reason(
    process, way, words, monkeypatch
):
    monkeypatch.setattr(running, "OUTPUT_BYTES", 1 << 20)
    monkeypatch.setattr(running, "GRACE", 0.1)
    with pytest.raises(EndedError, match=words):
        process.ask(way.encode(), seconds=SECONDS, most=1000)
    assert left(process._mark) == []


def test_a_forged_answer_is_an_error_or_is_read_as_the_answer(process):
    # Which of the two depends on whether the true answer is there as well; the reader refuses it.
    with contextlib.suppress(EndedError):
        assert process.ask(b"forged", seconds=SECONDS, most=1000) == b"{}{}"


@pytest.mark.parametrize("way", HANGS)
def test_a_program_that_hangs_is_ended_with_all_that_it_started(process, way):
    assert answers(process)
    with pytest.raises(EndedError, match=r"took more than 0\.2 s"):
        process.ask(way.encode(), seconds=0.2, most=1000)
    assert left(process._mark) == []


def test_what_runs_on_in_the_background_ends_with_the_process(process):
    assert process.ask(b"background", seconds=SECONDS, most=100) == b"background"
    until = time.monotonic() + SECONDS
    while len(left(process._mark)) < 3 and time.monotonic() < until:
        time.sleep(0.01)  # until the kernel shows the new process with its environment
    assert len(left(process._mark)) == 3
    process.close()
    assert left(process._mark) == []


def test_a_program_that_does_not_read_is_ended_in_time(process):
    answers(process)
    os.killpg(process._popen.pid, signal.SIGSTOP)
    with pytest.raises(EndedError, match=r"took more than 0\.2 s"):
        process.ask(b"x" * 10_000_000, seconds=0.2, most=10_000_000)


def test_an_answer_that_is_too_long_is_not_read(process):
    with pytest.raises(EndedError, match="an answer of 5000 bytes, more than 4000"):
        process.ask(b"x" * 5000, seconds=SECONDS, most=4000)


def test_the_last_line_that_it_printed_is_told(process):
    with pytest.raises(EndedError) as error:
        process.ask(b"recursion", seconds=SECONDS, most=100)
    assert "RecursionError" in error.value.output
    assert error.value.output.isprintable()


def test_a_program_whose_run_is_gone_ends_itself(process):
    assert answers(process)
    os.close(process._lifeline)
    process._lifeline = os.open(os.devnull, os.O_RDONLY)
    for _ in range(200):
        if process.has_ended() and not left(process._mark):
            return
        time.sleep(0.05)
    pytest.fail("it is still there")
