"""Measures one version: pytest in a process of its own, in that version's worktree."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fxeval.errors import FxevalError
from fxeval.strict.text import said_of_exit
from fxeval.versions import loaded_modules
from fxeval.versions.git import without_places
from fxeval.versions.origins import loaded_in

PATIENCE = 20.0
"""Seconds that pytest gets to end after Ctrl-C, before it is killed."""

_MEASURED = (0, 1)  # of pytest: all cells passed, or some did not
_DATA = ("FXEVAL_DATA", "FXEVAL_WEIGHTS")
_PLUGIN = "fxeval_ab_loaded_modules"


class SideError(FxevalError):
    """A version could not be measured."""


@dataclass(frozen=True)
class Side:
    """A version, ready to be measured.

    Attributes:
        name: ``base`` or ``head``.
        root: Root of its worktree.
        start: Folder of the worktree in which pytest starts.
        checkout: Root of the user's checkout.
        python: The Python that runs it; None = this one, with the worktree first among the places
            that modules are imported from.

    Example:
        ``Side("base", Path("/tmp/ab/base/repo"), Path("/tmp/ab/base/repo"), Path("/srv/repo"))``
    """

    name: str
    root: Path
    start: Path
    checkout: Path
    python: Path | None = None


@dataclass(frozen=True)
class SideRun:
    """What a side left behind.

    Attributes:
        folder: The folder of its run, with records and rows.
        loaded: The file of each module that it loaded, by the module's name.
    """

    folder: Path
    loaded: Mapping[str, Path]


def measure(
    side: Side, arguments: Sequence[str], reports: Path, say: Callable[[str], None]
) -> SideRun:
    """Run pytest on a version.

    Args:
        side: The version.
        arguments: Suites and options for pytest.
        reports: Folder that gets the folder of its run.
        say: Takes each line that pytest prints, with the name of the side before it.

    Raises:
        SideError: If pytest crashes, is stopped, or leaves no record.
    """
    beside = side.root.parent
    modules, plugin = beside / "modules", beside / "plugin"
    for folder in (reports, modules, plugin):
        folder.mkdir(parents=True)
    shutil.copyfile(str(loaded_modules.__file__), plugin / f"{_PLUGIN}.py")
    surroundings = {
        **environment(side, os.environ, Path.cwd(), plugin),
        loaded_modules.FOLDER: str(modules),
    }
    # An installed version must not be hidden by its source in the current folder.
    python = [sys.executable] if side.python is None else [str(side.python), "-P"]
    own = ["-p", _PLUGIN, f"--fx-reports={reports}"]
    status = _streamed(
        [*python, "-m", "pytest", *arguments, *own], side.start, surroundings,
        lambda line: say(f"{side.name} | {line}"),
    )  # fmt: skip
    if status not in _MEASURED:
        raise SideError(f"{side.name}: pytest {_ended(status)}; its output stands above.")
    found = sorted(folder for folder in reports.iterdir() if any(folder.glob("[!.]*.json")))
    if len(found) != 1:
        raise SideError(
            f"{side.name}: expected the record of one run, got {len(found)}; the output of pytest "
            "stands above."
        )
    return SideRun(found[0], loaded_in(modules))


def environment(side: Side, given: Mapping[str, str], folder: Path, plugin: Path) -> dict[str, str]:
    """Return the environment of a side's process.

    Args:
        side: The version.
        given: This process's environment.
        folder: This process's folder, where relative paths start.
        plugin: A folder of modules that the process needs, too.
    """
    paths = [_moved(Path(folder, one), side) for one in _paths(given)]
    if side.python is None:
        first = [side.root / "src"] if (side.root / "src").is_dir() else []
        paths = [*first, side.root, *paths]
    result = without_places(given)
    result["PYTHONPATH"] = os.pathsep.join(map(str, [*paths, plugin]))
    result["PYTHONUNBUFFERED"] = "1"
    for name in _DATA:
        # A folder that git does not track lies in the user's checkout alone.
        if name in result and result[name] and not (side.start / result[name]).exists():
            result[name] = str((folder / result[name]).absolute())
    return result


def _paths(given: Mapping[str, str]) -> list[str]:
    return [one for one in given.get("PYTHONPATH", "").split(os.pathsep) if one]


def _moved(path: Path, side: Side) -> Path:
    """Return the folder of the worktree for one of the user's checkout, if the side has it."""
    place = Path(os.path.normpath(path))
    if place.is_relative_to(side.checkout):
        own = side.root / place.relative_to(side.checkout)
        return own if own.exists() else place
    return place


def _streamed(
    command: Sequence[str], folder: Path, environment: Mapping[str, str],
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Run a command and pass on its lines as they come; it ends when this process is stopped."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
        start_new_session=True,  # Ctrl-C is passed on once, to it and to its workers
    )  # fmt: skip
    assert process.stdout is not None, "it was asked for"
    try:
        with process.stdout:
            for line in process.stdout:
                say(line.rstrip("\n"))
        return process.wait()
    finally:
        if process.poll() is None:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Let a process and its workers close what is open, then end them."""
    try:
        _signal(process, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[str], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, which)


def _ended(status: int) -> str:
    """Say how pytest ended."""
    words = {
        2: "met a fault before it measured, or was stopped (exit status 2)",
        3: "met an error of its own (exit status 3)",
        4: "was used wrongly (exit status 4)",
        5: "found no cell (exit status 5)",
    }
    return words.get(status) or f"ended with {said_of_exit(status)}"
