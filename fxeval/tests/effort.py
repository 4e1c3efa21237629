"""Counts work instead of seconds, which depend on the machine and on what else it does."""

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def at_most_calls(limit: int) -> Iterator[None]:
    """Fail where the block calls more functions, of Python or C, than ``limit``."""
    calls, before = 0, sys.getprofile()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert calls <= limit, f"expected at most {limit} calls, got {calls}"


@contextmanager
def at_most_bytes(limit: int) -> Iterator[None]:
    """Fail where the block holds more memory of Python's at once than ``limit``."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"expected at most {limit} bytes, got {peak}"
