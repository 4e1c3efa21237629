"""Hostile inputs by the thousand, read in separate processes, so that no crash goes unnoticed.

A process that crashes, hangs or runs out of memory is reported with the input that caused it, and
the next process continues after that input. Run as ``python -m fxeval.tests.fuzzing JOB``.
"""

import faulthandler
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from fxeval.errors import FxevalError

MAX_SECONDS = 10
MAX_GROWTH = 1 << 30
"""Bytes that reading one input may take."""
MAX_MESSAGE = 50_000
MAX_DEATHS = 12

_FORBIDDEN = frozenset(
    [
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.chmod",
        "os.kill",
        "subprocess.Popen",
        "shutil.rmtree",
        "socket.connect",
        "ctypes.dlopen",
        "pty.spawn",
    ]
)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_reached: list[str] = []


@dataclass(frozen=True)
class Parser:
    """A parser to be fuzzed.

    Attributes:
        name: Name in the table.
        inputs: Strategy for the content of files.
        read: Parses a file, or refuses it with an FxevalError.
        check: Raises AssertionError if an accepted value breaks the parser's contract.
        suffix: Suffix of the file.
        most: Inputs of this parser in one run; None = no limit.
    """

    name: str
    inputs: SearchStrategy[bytes]
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    suffix: str = ""
    most: int | None = None


@dataclass
class Tally:
    """Counts of the inputs of one parser by their results."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    slowest: float = 0.0
    growth: int = 0

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + self.failed


@dataclass(frozen=True)
class Finding:
    """An input that a parser did not handle, and where a copy is; the first of its kind."""

    parser: str
    what: str
    number: int
    seed: int
    file: Path

    def __str__(self) -> str:
        return f"{self.parser} (seed {self.seed}, input {self.number}, {self.file}): {self.what}"


@dataclass
class Report:
    """A whole run."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    growth: int = 0

    @property
    def inputs(self) -> int:
        return sum(tally.inputs for tally in self.tallies.values())

    def table(self) -> str:
        head = f"{'parser':24}{'inputs':>8}{'accepted':>10}{'refused':>9}{'failed':>8}"
        lines = [f"{head}{'slowest':>10}{'memory':>10}"]
        total = Tally()
        for name, one in self.tallies.items():
            lines.append(_row(name, one))
            for key in ("accepted", "refused", "failed"):
                setattr(total, key, getattr(total, key) + getattr(one, key))
            total.slowest = max(total.slowest, one.slowest)
            total.growth = max(total.growth, one.growth)
        return "\n".join([*lines, _row("all", total)])


def _row(name: str, one: Tally) -> str:
    counts = f"{one.inputs:8}{one.accepted:10}{one.refused:9}{one.failed:8}"
    return f"{name:24}{counts}{one.slowest:8.2f} s{one.growth / 2**20:7.0f} MB"


def fuzz(
    module: str,
    counts: Mapping[str, int],
    folder: Path,
    *,
    seed: int = 0,
    data: Path | None = None,
    limit: int = MAX_SECONDS,
) -> Report:
    """Fuzz parsers in processes of their own.

    Args:
        module: Has a function ``parsers(data)`` that returns a list of Parser.
        counts: How many inputs each parser gets.
        folder: Empty; keeps the inputs of findings.
        seed: Of the inputs.
        data: Folder of real faces and weights, or None.
        limit: Seconds of computing after which an input counts as one that hangs; thrice as many
            on the clock end the process.
    """
    report = Report({name: Tally() for name in counts})
    left, deaths = dict(counts), 0
    while left:
        job = {"module": module, "counts": left, "seed": seed + deaths, "limit": limit}
        job["data"] = None if data is None else str(data)
        (folder / "job.json").write_text(json.dumps(job))
        for name in ("log", "current"):
            (folder / name).unlink(missing_ok=True)
        with (folder / "stderr").open("wb") as stderr:
            code = subprocess.run(
                [sys.executable, "-m", "fxeval.tests.fuzzing", str(folder / "job.json")],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
                check=False,
            ).returncode
        done = _collect(report, folder, seed + deaths)
        if code == 0:
            break
        current = folder / "current"
        if not current.exists():
            raise RuntimeError((folder / "stderr").read_text(errors="replace")[-3000:])
        name = current.read_text()
        report.tallies[name].failed += 1
        _keep(report, folder, name, _end(code, folder), done.get(name, 0), seed + deaths)
        deaths += 1
        if deaths >= MAX_DEATHS:
            break
        done[name] = done.get(name, 0) + 1
        left = {key: n - done.get(key, 0) for key, n in left.items() if n > done.get(key, 0)}
    return report


def _collect(report: Report, folder: Path, seed: int) -> dict[str, int]:
    """Add what a process logged; returns how many inputs of each parser it finished."""
    done: dict[str, int] = {}
    log = folder / "log"
    for line in log.read_text().splitlines() if log.exists() else ():
        one = json.loads(line)
        tally, name = report.tallies[one["parser"]], one["parser"]
        setattr(tally, one["outcome"], getattr(tally, one["outcome"]) + 1)
        tally.slowest = max(tally.slowest, one["seconds"])
        tally.growth = max(tally.growth, one["growth"])
        report.growth = max(report.growth, one["total"])
        if one["file"]:
            file = Path(one["file"])
            report.findings.append(Finding(name, one["what"], done.get(name, 0), seed, file))
        done[name] = done.get(name, 0) + 1
    return done


def _end(code: int, folder: Path) -> str:
    stderr = (folder / "stderr").read_text(errors="replace")
    place = next((line.strip() for line in stderr.splitlines() if 'File "' in line), "")
    if "Timeout (" in stderr:
        return f"hangs {place}"
    died = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{died} {place} {stderr[-300:] if not place else ''}"


def _keep(report: Report, folder: Path, name: str, what: str, number: int, seed: int) -> None:
    (found,) = folder.glob("input*")
    kept = folder / f"found-{name.replace(' ', '-')}-{seed}-{number}{found.suffix}"
    shutil.copy(found, kept)
    report.findings.append(Finding(name, what, number, seed, kept))


def work(job_file: Path) -> None:
    """Read all inputs of a job, logging each."""
    job, folder = json.loads(job_file.read_text()), job_file.parent
    data = Path(job["data"]) if job["data"] else None
    parsers = {
        one.name: one for one in importlib.import_module(job["module"]).parsers(data)
    }  # so that libraries are loaded before memory is counted
    faulthandler.enable()
    sys.dont_write_bytecode = True  # a first import would rename a file, as a parser must not
    sys.addaudithook(lambda event, _: _reached.append(event) if event in _FORBIDDEN else None)
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MAX_GROWTH,) * 2)
    worker = _Worker(folder, job["limit"])
    for name, n in job["counts"].items():
        worker.fuzz(parsers[name], n, job["seed"])


class _Worker:
    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit, self._start = folder, limit, _status("VmRSS")
        self._log = (folder / "log").open("a", buffering=1)
        self._seen: set[str] = set()

    def fuzz(self, parser: Parser, n: int, number: int) -> None:
        for old in self._folder.glob("input*"):
            old.unlink()
        (self._folder / "current").write_text(parser.name)
        path = self._folder / f"input{parser.suffix}"

        @settings(
            max_examples=n,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @seed(number)
        @given(parser.inputs)
        def each(data: bytes) -> None:
            path.write_bytes(data)
            self._one(parser, path, number)

        each()

    def _one(self, parser: Parser, path: Path, number: int) -> None:
        _reached.clear()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        before, started = _status("VmRSS"), time.process_time()
        # By the clock, and a machine may be busy.
        faulthandler.dump_traceback_later(3 * self._limit, exit=True)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            outcome, what = _outcome(parser, path)
        faulthandler.cancel_dump_traceback_later()
        seconds, growth = time.process_time() - started, _status("VmHWM") - before
        if warned:
            outcome, what = "failed", f"warns: {ascii(str(warned[0].message))[:200]}"
        if _reached:
            outcome, what = "failed", f"reached for {_reached[0]}"
        if seconds > self._limit:
            outcome, what = "failed", f"takes {seconds:.1f} s"
        if growth > MAX_GROWTH:
            outcome, what = "failed", f"took {growth} bytes"
        file = ""
        place = f"{parser.name}: {what.split(': ')[0]}"
        if outcome == "failed" and place not in self._seen:
            self._seen.add(place)
            kept = f"found-{parser.name.replace(' ', '-')}-{number}-{len(self._seen)}"
            kept += parser.suffix
            file = str(shutil.copy(path, self._folder / kept))
        line = {
            "parser": parser.name,
            "outcome": outcome,
            "what": what,
            "file": file,
            "seconds": seconds,
            "growth": growth,
            "total": _status("VmRSS") - self._start,
        }
        self._log.write(json.dumps(line) + "\n")


def _outcome(parser: Parser, path: Path) -> tuple[str, str]:
    try:
        found = parser.read(path)
    except FxevalError as error:
        return _judged(error)
    except BaseException as error:  # SystemExit and the like too
        return "failed", _described(error)
    try:
        parser.check(found)
    except Exception as error:
        return "failed", f"accepted, but {_described(error)}"
    return "accepted", ""


def _judged(error: FxevalError) -> tuple[str, str]:
    """Check a refusal against the rules for all refusals."""
    text, cause = str(error), error.__cause__
    unfit = {c for c in text if c != "\n" and (unicodedata.category(c) in _UNFIT or c in _BIDI)}
    if unfit:
        return "failed", f"a message with {sorted(map(ascii, unfit))}: {_described(error)}"
    if not text or len(text) > MAX_MESSAGE:
        return "failed", f"a message of {len(text)} characters: {_described(error)[:300]}"
    while cause is not None:
        # On a larger machine it would have got what it asked for.
        if isinstance(cause, MemoryError) or "DefaultCPUAllocator" in str(cause):
            return "failed", f"asks for too much memory: {_described(error)}"
        cause = cause.__cause__
    return "refused", ""


_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "fxeval" in f.filename), frames[-1])
    kind = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
    return f"{kind}: {ascii(str(error))[:300]}"


def _status(key: str) -> int:
    """Bytes of memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
