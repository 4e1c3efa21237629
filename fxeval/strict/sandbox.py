"""Runs the reader of a hostile file in a process of its own, with bounded memory, time and output.

A pickle is the one kind of file here whose readers have had holes. Whatever the next hole lets a
file do, it does it to a process that holds nothing and may write little.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from fxeval.strict.text import brief, printable

TIMEOUT = 300
"""Seconds that a process may take in all."""

_LEAN = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class SandboxError(Exception):
    """A process ended without an answer; its text continues "reading it"."""


@contextmanager
def answer_of(module: str, *arguments: str, given: bytes) -> Iterator[IO[bytes]]:
    """Run a module as a program of its own, and give its standard output.

    Args:
        module: Calls :func:`bound` before it parses anything.
        arguments: Of its command line.
        given: Its standard input.

    Raises:
        SandboxError: If it takes too long or fails.
        OSError: If it cannot be started.
    """
    with TemporaryFile() as answer, TemporaryFile() as errors:  # which RLIMIT_FSIZE bounds
        try:
            code = subprocess.run(
                [sys.executable, "-P", "-m", module, *arguments], input=given, stdout=answer,
                stderr=errors, env=environment(**_LEAN), timeout=TIMEOUT,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"took more than {TIMEOUT} seconds") from error
        if code:
            raise SandboxError(ended(f"signal {-code}" if code < 0 else _last_line(errors)))
        answer.seek(0)
        yield answer


def ended(reason: str) -> str:
    """Return the text of a :class:`SandboxError` about a process that failed."""
    return (
        f"ended with {reason}; it may have asked for more memory, time or output than a file of "
        "its size needs"
    )


def bound(*, memory: int, output: int | None = None, seconds: int | None = None) -> None:
    """Bound what this process may do from here on; on Windows only ``TIMEOUT`` does.

    Args:
        memory: Bytes beside those that it has now; Linux only.
        output: Bytes of each file that it writes; None = no bound.
        seconds: Of computing; None = no bound.
    """
    if sys.platform == "win32":
        return
    import resource

    asked = {resource.RLIMIT_FSIZE: output, resource.RLIMIT_CPU: seconds}
    limits = {kind: most for kind, most in asked.items() if most is not None}
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmSize"):  # the address space of one library differs between builds
            limits[resource.RLIMIT_AS] = (int(line.split()[1]) << 10) + memory
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def environment(**changes: str) -> dict[str, str]:
    """Return that of this process with changes; with ``-P``, modules are found where they are."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **changes}


def _last_line(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    text = file.read().decode("utf-8", "replace").strip()
    return printable(brief(text.rpartition("\n")[2])) or "silence"
