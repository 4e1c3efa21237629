"""The suites of two versions of a checkout: whether both are asked the same, or which one decides.

Rows can be paired only if both sides measure the same: a suite that a change relaxes would hide
what the change makes worse.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxeval.errors import SuiteError
from fxeval.strict.yaml_file import read
from fxeval.suite.extending import KEY, read_suite
from fxeval.suite.recognition import SCHEME, has_mark, resolved

SUITES = "suites"
"""Where suites lie if nobody names one."""

_SUFFIXES = (".yaml", ".yml")
_MOST = 6  # differences that a message names


@dataclass(frozen=True)
class Place:
    """A worktree with one of the versions.

    Attributes:
        root: Its root.
        start: The folder in it where relative paths start.

    Example:
        ``Place(Path("/tmp/ab/base/repo"), Path("/tmp/ab/base/repo/evaluation"))``
    """

    root: Path
    start: Path


def settle(
    places: Mapping[str, Place], named: Sequence[str], decider: str | None
) -> tuple[list[str], list[str]]:
    """Make sure that both versions are asked the same.

    Args:
        places: The two versions, by their names.
        named: Suites as for pytest: a file or folder from the start on, with a cell after ``::`` or
            not, or the name of a shipped one. Without any, those in the folder ``suites``.
        decider: The version whose suites both are asked; None = they must be the same.

    Returns:
        The suites as arguments for pytest, and a sentence about each that was replaced.

    Raises:
        SuiteError: If a suite cannot be read, is not there, or differs and nobody decides.
    """
    arguments, notes = [], []
    for text in named or [SUITES]:
        if text.startswith(SCHEME):
            resolved(text)  # says so if there is none of this name
            arguments.append(text)
            continue
        path, colons, cell = text.partition("::")
        for one in _files(places, path, is_named=bool(named), decider=decider):
            note = _settle_file(places, one, decider)
            notes += [note] if note else []
            arguments.append(f"{one}{colons}{cell}")
    return list(dict.fromkeys(arguments)), notes


def metrics_asked(place: Place, arguments: Sequence[str]) -> list[str]:
    """Return the metrics on which suites have limits.

    Args:
        place: A version whose suites are settled.
        arguments: The suites, as :func:`settle` returned them.

    Raises:
        SuiteError: If a suite cannot be read.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        file = resolved(argument) if argument.startswith(SCHEME) else argument
        path = file.partition("::")[0]
        for check in _checks(_resolved_suite("the suite", place, path)).values():
            limits = check.get("limits")
            for limit in limits if isinstance(limits, list) else ():
                if isinstance(limit, dict) and isinstance(limit.get("metric"), str):
                    found[limit["metric"]] = None
    return [*found]


def _files(
    places: Mapping[str, Place], path: str, *, is_named: bool, decider: str | None
) -> list[str]:
    """Return the suites that a path stands for, from the start on."""
    for place in places.values():
        if not Path(os.path.normpath(place.start / path)).is_relative_to(place.root):
            raise SuiteError(f"{path}: expected a suite in the checkout, got one outside it.")
    if Path(path).suffix in _SUFFIXES:
        return [Path(os.path.normpath(path)).as_posix()]
    asked = [places[decider]] if decider is not None else places.values()
    found = {
        file.relative_to(place.start).as_posix()
        for place in asked
        for file in (place.start / path).rglob("*")
        if file.suffix in _SUFFIXES and file.is_file() and has_mark(file)
    }
    if not found:
        what = f"suites in {path}" if is_named else f"a folder '{SUITES}' with suites here"
        of = "either side" if decider is None else decider
        raise SuiteError(
            f"expected {what}, got none on {of}: only files that git tracks take part. Name a "
            "suite, or add it with git add."
        )
    return sorted(found)


def _settle_file(places: Mapping[str, Place], path: str, decider: str | None) -> str:
    """Check one suite, or copy it from the deciding side; return a note if it was copied."""
    there = [name for name, place in places.items() if (place.start / path).is_file()]
    if not there or (decider is not None and decider not in there):
        of = decider or "either side"
        raise SuiteError(
            f"{path}: expected a suite that git tracks, got none on {of}"
            + (f"; only {there[0]} has it." if there else ". Name another one, or git add it.")
        )
    differences = _differences(places, path, there)
    if not differences:
        return ""
    said = _said(differences)
    if decider is None:
        raise SuiteError(
            f"{path}: {said}. Both sides must be asked the same: say with --suite-from "
            f"{' or --suite-from '.join(there)} whose suite both are asked."
        )
    (other,) = places.keys() - {decider}
    _copy(places[decider], places[other], path)
    return f"{path}: {said}; both sides are asked what {decider} asks"


def _differences(places: Mapping[str, Place], path: str, there: Sequence[str]) -> list[str]:
    """Return in words in what the versions of a suite differ."""
    if len(there) < len(places):
        return [f"only {there[0]} has it"]
    (first, before), (second, after) = (
        (name, _resolved_suite(name, place, path)) for name, place in places.items()
    )
    return list(_of_data(before, after, (first, second)))


def _resolved_suite(name: str, place: Place, path: str) -> dict[str, Any]:
    """Return a suite with the one that it extends, as plain data."""
    try:
        data = read_suite(place.start / path, shown=Path(path)).data
    except SuiteError as error:
        raise SuiteError(f"{name}: {error}") from error
    if not isinstance(data, dict):
        raise SuiteError(f"{name}: {path}: expected a mapping, got {type(data).__name__}.")
    return data


def _of_data(
    before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]
) -> Iterator[str]:
    """Yield in words in what two suites differ."""
    for key in _differing(before, after):
        if key != "checks":
            yield f"key '{key}'{_only(key in before, key in after, names)}"
    if before.get("checks") == after.get("checks"):
        return
    mine, theirs = _checks(before), _checks(after)
    told = False
    for id in _differing(mine, theirs):
        if id in mine and id in theirs:
            keys = ", ".join(_differing(mine[id], theirs[id]))
            yield f"check '{id}' ({keys})"
        else:
            yield f"check '{id}'{_only(id in mine, id in theirs, names)}"
        told = True
    if not told:
        yield "the order of the checks"


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def _only(in_first: bool, in_second: bool, names: tuple[str, str]) -> str:
    if in_first and in_second:
        return ""
    return f" (only in {names[0] if in_first else names[1]})"


def _checks(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the checks of a suite by id; by position where they have none."""
    checks = data.get("checks")
    return {
        str(check.get("id", number)): check
        for number, check in enumerate(checks if isinstance(checks, list) else (), 1)
        if isinstance(check, dict)
    }


def _said(differences: Sequence[str]) -> str:
    if len(differences) == 1 and differences[0].startswith("only"):
        return differences[0]
    more = len(differences) - _MOST
    tail = [f"{more} more"] if more > 0 else []
    return f"base and head differ in {', '.join([*differences[:_MOST], *tail])}"


def _copy(source: Place, target: Place, path: str) -> None:
    """Write a suite, and the file that it extends, to the other version."""
    base = read(source.start / path, shown=Path(path)).data.get(KEY)
    files = [source.start / path]
    if isinstance(base, str) and not base.startswith(SCHEME):
        files.append(files[0].parent / base)
    for file in files:
        place = Path(os.path.normpath(file))
        if not place.is_relative_to(source.root) or not place.is_file():
            raise SuiteError(f"{path}: expected a file in the checkout under '{KEY}', got {base}.")
        copy = target.root / place.relative_to(source.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.parent.resolve().is_relative_to(target.root.resolve()):
            continue  # a folder that both sides see is one and the same
        copy.unlink(missing_ok=True)  # a link would be written through, into the user's own files
        shutil.copyfile(place, copy)
