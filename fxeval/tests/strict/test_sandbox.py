"""Programs that take too much end, and say of what."""

import sys

import pytest

from fxeval.strict import sandbox
from fxeval.strict.sandbox import SandboxError, answer_of

GREEDY = "fxeval.tests.strict.greedy"


def test_what_a_program_writes_is_its_answer():
    given = bytes(range(256)) * 1000
    with answer_of(GREEDY, "echo", given=given) as answer:
        assert answer.read() == given


def test_a_program_need_not_read_what_it_is_given():
    with answer_of(GREEDY, "nothing", given=b"x" * 10_000_000) as answer:
        assert answer.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of Linux")
@pytest.mark.parametrize(
    ("what", "how"),
    [("memory", "MemoryError"), ("output", "File too large"), ("time", "signal"),
     ("errors", ""), ("exit", r"\?\[31mlast;")],
)  # fmt: skip
def test_a_program_that_takes_too_much_is_an_error(what, how):
    with (
        pytest.raises(SandboxError, match=f"ended with .*{how}") as error,
        answer_of(GREEDY, what, given=b""),
    ):
        pass
    assert str(error.value).isprintable()


def test_a_program_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(sandbox, "TIMEOUT", 0.1)
    said = r"took more than 0\.1 seconds"
    with pytest.raises(SandboxError, match=said), answer_of(GREEDY, "time", given=b""):
        pass
