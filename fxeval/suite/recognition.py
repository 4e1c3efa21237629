"""Tells which files are suites, and where the shipped ones lie, without reading YAML."""

import re
from importlib.resources import files
from pathlib import Path

from fxeval.errors import SuiteError
from fxeval.strict.text import brief, suggestion

SCHEME = "fxeval:"
"""What the name of a shipped suite starts with on the command line: ``fxeval:quickstart``."""

_HEAD_BYTES = 65536
_MARK = re.compile(r"[\s{\ufeff]*['\"]?fxeval['\"]?\s*:(\s|$)")
_OURS = ("fxeval", "suite", "checks", "models", "explainers", "pairs", "defaults", "verification")
_KEY = re.compile(rf"[-\s{{\ufeff]*['\"]?({'|'.join(_OURS)})\w*['\"]?\s*:?(\s|$)")


def has_mark(path: Path) -> bool:
    """Say whether a YAML file says that it is a suite: it has the key ``fxeval`` at its top.

    A folder may hold YAML files of other programs, with keys such as ``checks``: those are theirs.
    """
    return any(_MARK.match(line) and not line.startswith((" ", "\t")) for line in _head(path))


def may_be_meant(path: Path) -> bool:
    """Say whether a file that somebody named may be meant as a suite, even a faulty one.

    Files without content count: somebody who names one is told what a suite starts with.
    """
    lines = [line for line in _head(path) if line.strip() and not line.lstrip().startswith("#")]
    is_empty = [line.strip() for line in lines] in ([], ["{}"], ["---"], ["null"])
    return is_empty or any(map(_KEY.match, lines)) or lines[0].startswith(("- ", "["))


def lacks_mark(path: Path) -> bool:
    """Say whether a file has the keys of a suite, and not the one that says that it is one."""
    found = {key for key in ("checks", "explainers", "extends", "models", "pairs")
             if any(re.match(rf"['\"]?{key}['\"]?\s*:", line) for line in _head(path))}  # fmt: skip
    return len(found) >= 3 and not has_mark(path)


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites by name.

    >>> shipped_suites()["quickstart"].name
    'quickstart.yaml'
    """
    folder = Path(str(files("fxeval.suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def resolved(argument: str) -> str:
    """Return an argument of pytest with the name of a shipped suite replaced by its file.

    Args:
        argument: ``fxeval:NAME`` or ``fxeval:NAME::CELL``; anything else is returned as it is.

    Raises:
        SuiteError: If fxeval ships no such suite.
    """
    name, cell, id = argument.removeprefix(SCHEME).partition("::")
    if not argument.startswith(SCHEME):
        return argument
    known = shipped_suites()
    if name not in known:
        near = suggestion(name, known)
        raise SuiteError(
            f"{brief(argument)}: expected one of {', '.join(SCHEME + one for one in known)}"
            + (f"; {near}" if near else ".")
        )
    return f"{known[name]}{cell}{id}"


def shown_name(path: Path) -> str | None:
    """Return ``fxeval:NAME`` for the file of a shipped suite; None for any other.

    >>> shown_name(shipped_suites()["quickstart"])
    'fxeval:quickstart'
    """
    is_shipped = shipped_suites().get(path.stem) == path
    return f"{SCHEME}{path.stem}" if is_shipped else None


def _head(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES).decode("utf-8", errors="replace").splitlines()
