"""From a suite file to a validated suite; every fault of the file at once, with its place.

The format is version 1: ``suites/quickstart.yaml`` shows it. No default is filled in later than
here, and no name is left unchecked but the values of a subject's ``params``, for which the caller
may hand in a check of its own.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel

from fxeval import suite_forms as forms
from fxeval.cells import Limit, Use, Verification
from fxeval.metrics import CATALOGUE
from fxeval.plan import Check, Subject, Suite
from fxeval.strict_forms import read as read_form
from fxeval.strict_yaml import Document, Loc, describe, read, suggestion
from fxeval.verification import QUANTITIES

Role = Literal["model", "explainer", "pairs"]
CheckParams: TypeAlias = Callable[[Role, str, Mapping[str, Any]], Sequence[tuple[str, str]]]

_ROLES: Mapping[str, Role] = {"models": "model", "explainers": "explainer", "pairs": "pairs"}
_WORDS = {"models": "model", "explainers": "explainer", "pairs": "pair list"}
_FORMS_OF_A_LIMIT = ("at_most", "at_least", "better_than")


class _Measured(NamedTuple):
    """What a check measures, for its limits to name; None where that could not be read."""

    kind: str
    metrics: Sequence[str]
    is_paired: bool  # with controls
    controls: Sequence[str] | None
    fills: Sequence[str] | None  # () = the kind has no fills


@dataclass(frozen=True)
class KnownIds:
    """The ids for which a fixture exists; ``-`` and ``_`` are the same in an id."""

    models: frozenset[str]
    explainers: frozenset[str]
    pairs: frozenset[str]


def fixture_id(text: str) -> str:
    """Return an id as fixtures spell it.

    >>> fixture_id("acme-cam")
    'acme_cam'
    """
    return text.replace("-", "_")


def load(path: Path, known: KnownIds, *, check_params: CheckParams | None = None) -> Suite:
    """Read and validate a suite file; no subject is loaded.

    Args:
        path: Of the YAML file.
        known: The ids for which a fixture exists.
        check_params: Called with (role, id, params) of every subject; returns (key, message) for
            each parameter that is wrong, and the message is shown at that key.

    Returns:
        The suite with every default filled in.

    Raises:
        SuiteError: Holding every fault of the file, by line.
    """
    document = read(path)
    suite = _Reader(document, known, check_params).suite(path)
    document.raise_faults()
    canonical = json.dumps(
        {"fxeval": 1, "suite": _plain(suite)}, sort_keys=True, separators=(",", ":")
    )
    return replace(suite, digest=hashlib.sha256(canonical.encode()).hexdigest())


class _Reader:
    """Walks the values of a document; after a fault it goes on with what is left.

    What could not be read is None, whatever the annotation says: a suite is handed out only when
    there is no fault at all.
    """

    def __init__(
        self, document: Document, known: KnownIds, check_params: CheckParams | None
    ) -> None:
        self._document = document
        self._check_params = check_params
        self._known = {key: sorted(map(fixture_id, getattr(known, key))) for key in _ROLES}
        self._shared: dict[str, dict[str, Subject]] = {}

    def suite(self, path: Path) -> Suite:
        """Return the suite, without its digest."""
        self._version()
        form = read_form(self._document, forms.Suite, (), self._document.data)
        defaults = read_form(self._document, forms.Defaults, ("defaults",), form.defaults or {})
        report = read_form(self._document, forms.Report, ("report",), form.report or {})
        for key in _ROLES:
            self._shared[key] = self._subjects(key, (key,), getattr(form, key) or [])
        checks = self._checks(form.checks or [])
        asked = self._verification(form.verification, checks)
        return Suite(
            path=path,
            name=form.suite,
            title=_one_line(form.title) or form.suite,
            seed=defaults.seed,
            device=defaults.device,
            confidence=defaults.confidence,
            on_inconclusive=defaults.on_inconclusive,
            on_unsupported=defaults.on_unsupported,
            checks=checks,
            formats=tuple(report.formats or ()),
            digest="",
            verification=asked,
        )

    def _version(self) -> None:
        data, document = self._document.data, self._document
        first = next(iter(data), "")
        if "fxeval" not in data:
            help = suggestion(first, ["fxeval"])
            document.fatal(document.key((first,)), "a suite starts with 'fxeval: 1'", help)
        version = data["fxeval"]
        if type(version) is not int or version != 1:
            text = f"format version 1 expected, got {describe(version)}"
            document.fatal(document.value(("fxeval",)), text)
        if first != "fxeval":
            document.fault(document.key(("fxeval",)), "'fxeval: 1' must be the first key")

    def _verification(
        self, raw: dict[str, Any] | None, checks: Sequence[Check]
    ) -> Verification | None:
        """Return what the suite asks of its models, None if it does not say."""
        if raw is None:
            return None
        loc: Loc = ("verification",)
        form = read_form(self._document, forms.Verification, loc, raw)
        names = list(dict.fromkeys(model.name for check in checks for model in check.models))
        for number, name in enumerate(form.models or []):
            if fixture_id(name) not in names:
                text = f"no check has a model {describe(name)}; there are: {_list(names)}"
                self._at_value((*loc, "models", number), text, suggestion(name, names))
        if form.flip_fusion and form.operating_threshold not in (None, "vendor"):
            text = "a threshold of fused embeddings would not fit the cells, which fuse none"
            self._at_value((*loc, "operating_threshold"), text, "remove 'flip_fusion'")
        return Verification(
            flip_fusion=form.flip_fusion,
            operating_threshold=form.operating_threshold,
            limits=tuple(
                self._demand((*loc, "limits", number), limit)
                for number, limit in enumerate(form.limits or [])
                if self._is_mapping((*loc, "limits", number), limit)
            ),
            models=None if form.models is None else tuple(map(fixture_id, form.models)),
        )

    def _demand(self, loc: Loc, raw: dict[str, Any]) -> Limit:
        form = read_form(self._document, forms.Demand, loc, raw)
        better = QUANTITIES[form.metric].better if form.metric is not None else None
        wanted = {"lower": ["at_most"], "higher": ["at_least"]}.get(better or "", [])
        given = [key for key in ("at_most", "at_least") if key in raw]
        if wanted and given != wanted:
            text = f"{form.metric}: {better} is better, so exactly {wanted[0]} is needed"
            self._at_value(loc, f"{text}, got {' and '.join(given) or 'none'}")
        return Limit(
            metric=form.metric,
            form=given[0] if given else "at_least",
            bound=form.at_least if form.at_most is None else form.at_most,
            where=self._document.where(loc),
        )

    def _checks(self, entries: list[Any]) -> tuple[Check, ...]:
        checks: dict[str, Check] = {}
        for number, raw in enumerate(entries):
            loc: Loc = ("checks", number)
            if not self._is_mapping(loc, raw):
                continue
            check = self._check(loc, raw)
            name = fixture_id(check.id or f" {number}")
            if name in checks:
                self._at_value((*loc, "id"), f"the id '{check.id}' is taken by an earlier check")
            checks.setdefault(name, check)
        return tuple(checks.values())

    def _check(self, loc: Loc, raw: dict[str, Any]) -> Check:
        own = {key: value for key, value in raw.items() if key in forms.Check.model_fields}
        form = read_form(self._document, forms.Check, loc, own)
        parameters, measured = None, None
        if form.kind is not None:
            rest = {key: value for key, value in raw.items() if key not in own}
            kind = CATALOGUE[form.kind]
            parameters = read_form(
                self._document, kind.Parameters, loc, rest, also_known=forms.Check.model_fields
            )
            measured = _Measured(
                kind=form.kind,
                metrics=[metric.name for metric in kind.METRICS],
                is_paired="controls" in kind.Parameters.model_fields,
                controls=getattr(parameters, "controls", ()),
                fills=getattr(parameters, "fills", ()),
            )
        limits = [
            self._limit((*loc, "limits", number), limit, measured)
            for number, limit in enumerate(form.limits or [])
            if self._is_mapping((*loc, "limits", number), limit)
        ]
        subjects = {key: self._subjects_of(key, loc, getattr(form, key)) for key in _ROLES}
        return Check(
            id=form.id,
            kind=form.kind,
            why=_one_line(form.why),
            parameters=parameters,
            limits=tuple(limits),
            models=subjects["models"],
            explainers=subjects["explainers"],
            pairs=subjects["pairs"],
            marks=tuple(form.marks or ()),
            where=self._document.where(loc),
        )

    def _subjects_of(self, key: str, loc: Loc, entries: list[Any] | None) -> tuple[Subject, ...]:
        """Return the subjects a check names, or else the suite's."""
        if entries is not None:
            return tuple(self._subjects(key, (*loc, key), entries).values())
        if key not in self._document.data:
            self._at_value(loc, f"no {key}: list them under '{key}' in the suite or in this check")
        return tuple(self._shared[key].values())

    def _subjects(self, key: str, loc: Loc, entries: list[Any]) -> dict[str, Subject]:
        """Return subjects by name; a bare name may stand for an entry of the suite's own list."""
        found: dict[str, Subject] = {}
        for number, raw in enumerate(entries):
            at = (*loc, number)
            shared = self._shared.get(key, {})
            bare = isinstance(raw, str)
            if bare and fixture_id(raw) in shared:
                subject = shared[fixture_id(raw)]
            elif bare or self._is_mapping(at, raw):
                subject = self._subject(key, at, {"use": raw} if bare else raw)
            else:
                continue
            if subject.name in found:
                text = f"'{subject.name}' is listed twice; name one of them otherwise with 'as'"
                self._at_value(at, text)
            found[subject.name] = subject
        return found

    def _subject(self, key: str, loc: Loc, raw: dict[str, Any]) -> Subject:
        form = read_form(self._document, forms.Pairs if key == "pairs" else forms.Use, loc, raw)
        id = fixture_id(form.use or f" {loc}")
        params = form.params or {}
        if form.use is not None and id not in self._known[key]:
            text = f"unknown {_WORDS[key]} '{form.use}'; known: {_list(self._known[key])}"
            self._at_value((*loc, "use"), text, suggestion(id, self._known[key]))
        elif form.use is not None and self._check_params is not None:
            for name, message in self._check_params(_ROLES[key], id, params):
                place = self._document.key((*loc, "params", name))
                self._document.fault(place, message)
        use = Use(id, params, self._document.where(loc))
        return Subject(fixture_id(form.name or id), use, getattr(form, "n", None))

    def _limit(self, loc: Loc, raw: dict[str, Any], measured: _Measured | None) -> Limit:
        form = read_form(self._document, forms.Limit, loc, raw)
        given = [key for key in _FORMS_OF_A_LIMIT if key in raw]
        if len(given) != 1:
            text = f"a limit needs exactly one of {_list(_FORMS_OF_A_LIMIT)}"
            self._at_value(loc, f"{text}, got {' and '.join(given) or 'none'}")
        if measured is not None:
            self._one_of((*loc, "metric"), form.metric, measured.metrics, measured.kind)
            self._fill((*loc, "fill"), form.fill, measured)
            self._control((*loc, "better_than"), form.better_than, measured)
        margin = self._margin((*loc, "by"), form.by, given)
        return Limit(
            metric=form.metric,
            form=given[0] if given else "at_most",  # type: ignore[arg-type]
            bound=form.at_least if form.at_most is None else form.at_most,
            control=(form.better_than or "").removeprefix("control.") or None,
            by_absolute=margin.absolute,
            by_relative=margin.relative,
            fill=form.fill,
            severity=form.severity,
            where=self._document.where(loc),
        )

    def _fill(self, loc: Loc, fill: str | None, measured: _Measured) -> None:
        if fill is not None and measured.fills == ():
            self._at_key(loc, f"{measured.kind} has no fills; remove 'fill'")
        else:
            self._one_of(loc, fill, measured.fills, "this check")

    def _control(self, loc: Loc, control: str | None, measured: _Measured) -> None:
        if control is None:
            return
        if not measured.is_paired:
            why = "better_than compares with a control on the same pairs, and"
            self._at_key(loc, f"{why} {measured.kind} measures none; use at_most or at_least")
        elif not control.startswith("control."):
            known = [f"control.{name}" for name in measured.controls or ()]
            text = f"'better_than' must be control.<name>, got {describe(control)}"
            self._at_value(loc, text, suggestion(control, known))
        else:
            name = control.removeprefix("control.")
            self._one_of(loc, name, measured.controls, "this check")

    def _margin(self, loc: Loc, by: dict[str, Any] | None, given: list[str]) -> forms.Margin:
        if by is None:
            return forms.Margin()
        if given and given != ["better_than"]:
            self._at_key(loc, "'by' is a margin over a control; it goes with better_than only")
        if len(by) != 1:
            self._at_value(loc, "'by' needs exactly one of absolute, relative")
        return read_form(self._document, forms.Margin, loc, by)

    def _one_of(self, loc: Loc, name: str | None, known: Sequence[str] | None, owner: str) -> None:
        if name is not None and known is not None and name not in known:
            what = "control" if loc[-1] == "better_than" else loc[-1]
            text = f"{owner} has no {what} {describe(name)}; it has: {_list(known)}"
            self._at_value(loc, text, suggestion(name, known))

    def _is_mapping(self, loc: Loc, raw: object) -> bool:
        if not isinstance(raw, dict):
            text = f"an entry of '{loc[-2]}' must be a mapping of keys to values"
            self._at_value(loc, f"{text}, got {describe(raw)}")
        return isinstance(raw, dict)

    def _at_key(self, loc: Loc, text: str) -> None:
        self._document.fault(self._document.key(loc), text)

    def _at_value(self, loc: Loc, text: str, help: str = "") -> None:
        self._document.fault(self._document.value(loc), text, help)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _plain(value: object) -> object:
    """Return what decides a suite's digest as plain values: all but the places and the path."""
    if is_dataclass(value) and not isinstance(value, type):
        names = {field.name for field in fields(value)} - {"where", "path", "digest"}
        if isinstance(value, Suite) and value.verification is None:
            names.remove("verification")  # suites that do not say it keep their digest
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
