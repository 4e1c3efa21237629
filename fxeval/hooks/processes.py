"""Keeps user code from ending this process or continuing it twice."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def one_process() -> Iterator[None]:
    """Run user code so that this process, and no copy of it, goes on afterwards.

    ``os._exit`` would end a run with a status of user code's choice, without a record: it raises
    ``SystemExit`` instead. A fork that comes back from user code would measure everything a second
    time: it ends here. Processes that user code starts are its own, and may exit.

    Raises:
        SystemExit: Where user code calls ``os._exit``.
    """
    owner, leave = os.getpid(), os._exit

    def refused(status: int) -> NoReturn:
        if os.getpid() != owner:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refused
    try:
        yield
    finally:
        if os.getpid() != owner:
            leave(1)
        os._exit = leave


def is_a_stop(error: BaseException) -> bool:
    """Say whether an error stops the run rather than the user code in which it came up.

    That is the user's Ctrl-C, and pytest's ``fail``, by which plug-ins end a test that takes too
    long. User code that raises one of them itself cannot be told apart.

    >>> is_a_stop(KeyboardInterrupt()), is_a_stop(SystemExit(0)), is_a_stop(ValueError())
    (True, False, False)
    """
    pytest = sys.modules.get("pytest")  # without it nobody can have raised its errors
    return isinstance(error, KeyboardInterrupt) or (
        pytest is not None and isinstance(error, pytest.fail.Exception)
    )
