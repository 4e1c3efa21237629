"""Parsers with the faults that fuzzing must find, and two without."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from fxeval.errors import FxevalError
from fxeval.tests.fuzzing import MAX_GROWTH, MAX_SECONDS, Parser


def _refuses(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) % 2:
        raise FxevalError(f"{path}: an even number of bytes expected, got {len(data)}.")
    return data


def _crashes(path: Path) -> bytes:
    return {b"": b""}[path.read_bytes()[:1]]


def _exits(path: Path) -> bytes:
    raise SystemExit(0)


def _hangs(path: Path) -> bytes:
    time.sleep(3 * MAX_SECONDS + 60 if len(path.read_bytes()) > 2 else 0)
    return b""


def _dies(path: Path) -> bytes:
    if len(path.read_bytes()) > 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def _eats(path: Path) -> bytes:
    return bytearray(2 * MAX_GROWTH)


def _eats_and_says_so(path: Path) -> bytes:
    try:
        return bytearray(2 * MAX_GROWTH)
    except MemoryError as error:
        raise FxevalError("too large") from error


def _runs_code(path: Path) -> bytes:
    os.system("true")
    raise FxevalError("refused too late")


def _warns(path: Path) -> bytes:
    warnings.warn("odd", stacklevel=2)
    return b""


def _speaks_in_tongues(path: Path) -> bytes:
    raise FxevalError("refused: \x1b[31m")


def _is_odd(found: bytes) -> None:
    assert len(found) % 2


def parsers(data: Path | None) -> list[Parser]:
    def planted(
        name: str, read: Callable[[Path], bytes], check: Callable[[bytes], None] = len
    ) -> Parser:
        return Parser(name, st.binary(max_size=20), read, check)

    return [
        planted("sound", _refuses),
        planted("crashes", _crashes),
        planted("exits", _exits),
        planted("hangs", _hangs),
        planted("dies", _dies),
        planted("eats", _eats),
        planted("eats and says so", _eats_and_says_so),
        planted("runs code", _runs_code),
        planted("warns", _warns),
        planted("speaks in tongues", _speaks_in_tongues),
        planted("breaks the contract", _refuses, _is_odd),
        planted("sound again", _refuses),
    ]
