"""Runs a program in a process of its own, bounded in time and output, and ends all that it leaves.

The program is a module that calls :func:`serve`. It answers one message after another over two
pipes of its own, so that nothing that user code prints is taken for an answer. Its group, and on
Linux every process that inherited its environment, is killed with it.
"""

import os
import secrets
import select
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fxeval.strict.sandbox import environment
from fxeval.strict.text import brief, printable, said_of_exit

OUTPUT_BYTES = 16 << 20
"""Most that a process may print while it works on one message."""

GRACE = 5.0
"""Most seconds between the end of a process's pipe and its own, which a busy machine delays."""

MARK = "FXEVAL_PROCESS"
"""The environment variable by which processes are found that a program started."""

_HEAD = struct.Struct(">4sQ")
_MAGIC = b"fxev"
_CHUNK = 1 << 16
_WAIT = 0.02


class EndedError(Exception):
    """A process did not answer; the text continues "its process".

    Attributes:
        output: The last line that it printed; "" if it printed nothing.
    """

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class Process:
    """A program that is asked for one answer after another. After an error it is ended for good.

    Args:
        module: Name of the module, run as a program.

    Raises:
        OSError: If it cannot be started.
    """

    def __init__(self, module: str) -> None:
        if sys.platform == "win32":
            raise OSError("processes of this kind need Linux or macOS")
        self._mark = secrets.token_hex(16)
        theirs_in, self._into = os.pipe()
        self._out_of, theirs_out = os.pipe()
        lifeline, self._lifeline = os.pipe()
        handed = (theirs_in, theirs_out, lifeline)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, handed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(**{MARK: self._mark}),
                pass_fds=handed,
                start_new_session=True,
            )
        except OSError:
            self._close_pipes()
            raise
        finally:
            for end in handed:
                os.close(end)
        assert self._popen.stdout is not None
        self._printed = self._popen.stdout.fileno()
        self._tail = b""
        for end in (self._into, self._out_of, self._printed):
            os.set_blocking(end, False)

    def ask(self, message: bytes, *, seconds: float, most: int) -> bytes:
        """Return the answer to a message.

        Args:
            message: The message.
            seconds: Time for it, > 0.
            most: Bytes of the longest answer that is read.

        Raises:
            EndedError: If there is no answer: the process has been ended.
        """
        try:
            return _Exchange(self, message, most).run(seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process and everything that it started; nothing happens the second time."""
        if self._popen.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        _kill_marked(self._mark)
        self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._close_pipes()

    def has_ended(self) -> bool:
        """Say whether the process has ended; its number stays taken until it is closed."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._popen.pid, flags) is not None

    def how_it_ended(self) -> str:
        """Say how it ended, after it has."""
        found = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        assert found is not None
        killed = found.si_code != os.CLD_EXITED
        return said_of_exit(-found.si_status if killed else found.si_status)

    def last_line(self) -> str:
        """Return the last line that it printed, short and printable."""
        return printable(brief(self._tail.decode("utf-8", "replace").strip().rpartition("\n")[2]))

    def _close_pipes(self) -> None:
        for end in (self._into, self._out_of, self._lifeline):
            os.close(end)


class _Exchange:
    """One message and its answer."""

    def __init__(self, process: Process, message: bytes, most: int) -> None:
        self._process, self._most = process, most
        self._left = memoryview(_HEAD.pack(_MAGIC, len(message)) + message)
        self._answer = bytearray()
        self._printed = 0
        self._closed: float | None = None

    def run(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        process, read, write = self._process, selectors.EVENT_READ, selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector:
            selector.register(process._into, write, self._write)
            selector.register(process._out_of, read, self._read)
            selector.register(process._printed, read, self._drain)
            while True:
                # Asked before the pipes are read, so that nothing of a process that ended is lost.
                has_ended = process.has_ended()
                ready = selector.select(0 if has_ended else _WAIT)
                for key, _ in ready:
                    if not key.data():
                        selector.unregister(key.fd)
                answer = self._complete()
                if answer is not None:
                    return answer
                if has_ended and not ready:
                    raise self._ended(f"ended ({process.how_it_ended()}) before it answered")
                now = time.monotonic()
                if self._closed is not None and now > self._closed + GRACE:
                    raise self._ended("closed its pipe before it answered")
                if now > deadline:
                    raise self._ended(f"took more than {seconds:g} s")

    def _write(self) -> bool:
        try:
            self._left = self._left[os.write(self._process._into, self._left[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return len(self._left) > 0

    def _read(self) -> bool:
        data = os.read(self._process._out_of, _CHUNK)
        self._answer += data
        if not data:
            self._closed = time.monotonic()
        return bool(data)

    def _drain(self) -> bool:
        data = os.read(self._process._printed, _CHUNK)
        self._printed += len(data)
        self._process._tail = (self._process._tail + data)[-4096:]
        if self._printed > OUTPUT_BYTES:
            raise self._ended(f"printed more than {OUTPUT_BYTES >> 20} MiB")
        return bool(data)

    def _complete(self) -> bytes | None:
        """Return the answer if all of it is there."""
        if len(self._answer) < _HEAD.size:
            return None
        magic, length = _HEAD.unpack_from(self._answer)
        if magic != _MAGIC:
            raise self._ended("gave an answer that cannot be read")
        if length > self._most:
            raise self._ended(f"gave an answer of {length} bytes, more than {self._most}")
        have = len(self._answer) - _HEAD.size
        if have > length:
            raise self._ended("gave more than one answer")
        return bytes(self._answer[_HEAD.size :]) if have == length else None

    def _ended(self, reason: str) -> EndedError:
        return EndedError(reason, self._process.last_line())


def _kill_marked(mark: str) -> None:
    """Kill every process whose environment has the mark, whatever its group; Linux only."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(50):  # one may start another meanwhile
        found = 0
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                is_alive = b"State:\tZ" not in (entry.parent / "status").read_bytes()
                if is_alive and wanted in entry.read_bytes().split(b"\0"):
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    found += 1
        if not found:
            return


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Be the program of a :class:`Process`: answer messages until there are no more.

    A process in between waits for the one that answers, and ends with it in the same way, so that
    user code that kills its parent does not kill the run. If the run itself is gone, it ends all.

    Args:
        answer: Makes the answer to a message. It is called in the process that it is defined in,
            and must not import anything heavy before.
    """
    into, out_of, lifeline = map(int, sys.argv[1:4])
    child = os.fork()
    if child:
        os.close(into)
        os.close(out_of)
        _wait(child, lifeline)
    os.close(lifeline)
    while (head := _read_exactly(into, _HEAD.size)) is not None:
        message = _read_exactly(into, _HEAD.unpack(head)[1])
        if message is None:
            return
        found = answer(message)
        left = memoryview(_HEAD.pack(_MAGIC, len(found)) + found)
        while left:
            left = left[os.write(out_of, left[:_CHUNK]) :]


def _read_exactly(end: int, length: int) -> bytes | None:
    """Read so many bytes; None if the other end is closed."""
    found = bytearray()
    while len(found) < length:
        data = os.read(end, min(length - len(found), 1 << 20))
        if not data:
            return None
        found += data
    return bytes(found)


def _wait(child: int, lifeline: int) -> None:
    """End as a child ends, or end the whole group if nobody is left who would ask it."""
    done = 0
    while not done:
        done, status = os.waitpid(child, os.WNOHANG)
        if not done and select.select([lifeline], [], [], _WAIT)[0]:
            os.killpg(0, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _without_core()
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 1)


def _without_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
