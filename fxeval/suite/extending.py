"""A suite that takes everything from another one, but for what it gives itself.

``extends`` names a shipped suite or a file. Keys of the top level replace those of the extended
suite as a whole. A check with an id of the extended suite replaces the keys that it gives and keeps
the rest; other checks are added. Name and title are always the suite's own: what differs is another
suite. Every value keeps the place where it is written, in whichever of the two files.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from fxeval.strict.document import MAX_SHOWN_FAULTS
from fxeval.strict.text import describe, suggestion
from fxeval.strict.yaml_file import Document, Loc, parsed, read, read_bytes
from fxeval.suite.limit_rules import fixture_id
from fxeval.suite.recognition import SCHEME, shipped_suites
from fxeval.suite.rules import ROLES, check_head

KEY = "extends"
_OWN = ("suite", "title")
_STAY = ("id", "kind")
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def read_suite(path: Path, shown: Path | None = None) -> Document:
    """Read a suite file, and the one that it extends, as one document.

    Args:
        path: Path of the file.
        shown: What messages call it; None = the path.

    Returns:
        The document of the suite with everything written out, in which nothing is ``extends``.

    Raises:
        SuiteError: If one of the files cannot be read, or the second cannot be extended.
    """
    own = read(path, shown=shown)
    if KEY not in own.data:
        return own
    check_head(own)
    base = _base(own, path, shown or path)
    return _Merger(own, base).merged()


def _base(own: Document, path: Path, shown: Path) -> Document:
    """Return the file that a suite extends."""
    asked, at = own.data[KEY], own.value((KEY,))
    expected = f"'{KEY}': expected {SCHEME}NAME or the path of a suite"
    if not isinstance(asked, str) or not asked:
        own.fatal(at, f"{expected}, got {describe(asked)}")
    if asked.startswith(SCHEME):
        known = {f"{SCHEME}{name}": file for name, file in shipped_suites().items()}
        if asked not in known:
            text = f"no shipped suite {describe(asked)}; there are: {', '.join(known)}"
            own.fatal(at, text, suggestion(asked, known))
        file, called = known[asked], Path(asked)
    else:
        if _URL.match(asked):
            own.fatal(at, f"{expected}, got a URL", "copy the suite beside this file")
        if PurePath(asked).is_absolute():
            own.fatal(at, f"{expected} from this file on, got {describe(asked)}")
        near = suggestion(asked, shipped_suites()).replace("'", f"'{SCHEME}", 1)
        if PurePath(asked).suffix not in (".yaml", ".yml"):
            own.fatal(at, f"{expected}, which ends in .yaml or .yml, got {describe(asked)}", near)
        file, called = path.parent / asked, Path(os.path.normpath(shown.parent / asked))
    try:
        raw = read_bytes(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        own.fatal(at, f"'{KEY}': {describe(asked)} cannot be read: {reason}")
    base = parsed(raw, called, note=f"{own.where((KEY,))} extends this file")
    base.folder = file.parent
    check_head(base)
    checks = base.data.get("checks", [])
    if not isinstance(checks, list):
        base.fatal(base.value(("checks",)), f"'checks' must be a list, got {describe(checks)}")
    if KEY in base.data:
        text = f"expected a suite that extends none, but {base.where((KEY,))} extends another"
        own.fatal(at, text, "extend that one")
    return base


@dataclass
class _Merger:
    """Lays a suite over the one that it extends.

    Attributes:
        own: The suite.
        base: The suite that it extends.
        moved: For each of the suite's own checks, its position among all.
        replaced: Paths of the values of the base that the suite's own replace.
    """

    own: Document
    base: Document
    moved: list[int] = field(default_factory=list)
    replaced: set[Loc] = field(default_factory=set)

    def merged(self) -> Document:
        """Return both as one document."""
        own, base = self.own, self.base
        given = {key: value for key, value in own.data.items() if key != KEY}
        inherited = {key: value for key, value in base.data.items() if key not in _OWN}
        self.replaced = {(key,) for key in (*_OWN, *given) if key != "checks"}
        data = {**inherited, **given}
        if "checks" in inherited and "checks" in given:
            data["checks"] = self._checks(inherited["checks"], given["checks"])
        own.extend(base)
        own.data = {"fxeval": data.pop("fxeval"), **data}
        self._place()
        for role in ROLES:
            self._left_out(role)
        return own

    def _checks(self, inherited: list[Any], given: object) -> object:
        """Return all checks: those of the base, with what is replaced, then the others."""
        if not isinstance(given, list):
            self.replaced.add(("checks",))
            return given
        merged = [*inherited]
        positions = {fixture_id(id): number for number, id in reversed([*_ids(inherited)])}
        for number, check in enumerate(given):
            id = next((fixture_id(id) for _, id in _ids([check])), "")
            position = positions.get(id)
            if position is None:
                self._say_if_meant(number, check, [id for _, id in _ids(inherited)])
                self.moved.append(len(merged))
                merged.append(check)
                continue
            self._say_if_of_another_kind(number, check, inherited[position])
            taken = position in self.moved  # twice in this file, which a rule says
            self.moved.append(len(merged) if taken else position)
            stays = {key: inherited[position][key] for key in _STAY if key in inherited[position]}
            whole = {**inherited[position], **check, **stays}
            if taken:
                merged.append(whole)
            else:
                merged[position] = whole
                self.replaced |= {("checks", position, key) for key in check.keys() - stays.keys()}
        return merged

    def _say_if_meant(self, number: int, check: object, known: list[str]) -> None:
        """Note a check that names neither one of the base nor a kind."""
        if not isinstance(check, dict) or "kind" in check or not isinstance(check.get("id"), str):
            return
        text = f"{self.base.shown} has no check {describe(check['id'])}, and a new one needs 'kind'"
        at = self.own.value(("checks", number))
        is_shown = number < MAX_SHOWN_FAULTS  # looking for near ids takes time
        self.own.unreadable(at, text, suggestion(check["id"], known) if is_shown else "")

    def _say_if_of_another_kind(self, number: int, check: Any, inherited: Any) -> None:  # noqa: ANN401
        kind = inherited.get("kind")
        if "kind" in check and check["kind"] != kind:
            loc: Loc = ("checks", number, "kind")
            text = f"the check of {self.base.shown} is of the kind {describe(kind)}, which stays"
            self.own.fault(self.own.value(loc), text, "give this check an id of its own")

    def _place(self) -> None:
        """Give every value the place where it is written."""
        own, base = self.own, self.base
        for mine, theirs in ((own.keys, base.keys), (own.values, base.values)):
            placed = {self._at(loc): mark for loc, mark in mine.items()}
            kept = {
                loc: mark._replace(file=1)
                for loc, mark in theirs.items()
                if loc[:1] not in self.replaced and loc[:3] not in self.replaced
            }
            mine.clear()
            mine.update({**kept, **placed})

    def _at(self, loc: Loc) -> Loc:
        """Return where a value of the suite stands among those of both."""
        if len(loc) > 1 and loc[0] == "checks" and isinstance(loc[1], int) and self.moved:
            return ("checks", self.moved[loc[1]], *loc[2:])
        return loc

    def _left_out(self, role: str) -> None:
        """Note what a check of the base takes by name from a list that the suite replaces.

        Without the entry the name would mean the bare fixture, without the entry's parameters.
        """
        if (role,) not in self.replaced or role not in self.base.data:
            return
        gone = {*_names(self.base.data[role])} - {*_names(self.own.data[role])}
        for number, id in _ids(self.own.data.get("checks")):
            loc: Loc = ("checks", number, role)
            named = self.own.data["checks"][number].get(role)
            if self.own.key(loc).file == 0 or not isinstance(named, list):
                continue
            for name in named:
                if isinstance(name, str) and fixture_id(name) in gone:
                    text = (
                        f"the check {describe(id)} of {self.base.shown} names {describe(name)}, "
                        f"which these {role} leave out"
                    )
                    help = f"list it here, or give the check '{role}' of its own"
                    self.own.fault(self.own.key((role,)), text, help)


def _ids(checks: object) -> Iterator[tuple[int, str]]:
    """Yield position and id of every check that has one."""
    for number, check in enumerate(checks if isinstance(checks, list) else ()):
        if isinstance(check, dict) and isinstance(check.get("id"), str):
            yield number, check["id"]


def _names(entries: object) -> Iterator[str]:
    """Yield the names under which a list of subjects offers them."""
    for entry in entries if isinstance(entries, list) else ():
        name = entry
        if isinstance(entry, Mapping):
            name = entry.get("as", entry.get("use"))
        if isinstance(name, str):
            yield fixture_id(name)
