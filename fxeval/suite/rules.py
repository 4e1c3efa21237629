"""Rules that the forms of a suite cannot express: which ids, names and keys go together.

The rules check the values that the forms left (``fxeval.strict.forms.judged``). None stands for a
value that could not be read; its fault is already noted, so the rules pass it over.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fxeval.metrics import kinds
from fxeval.strict.text import describe, suggestion
from fxeval.strict.yaml_file import Document, Loc
from fxeval.suite.cells import Use
from fxeval.suite.format import CheckOfNoKind
from fxeval.suite.limit_rules import Explained, LimitRules, MeasuredBy, fixture_id, listed
from fxeval.suite.look_rules import LookRules
from fxeval.suite.plan import Subject
from fxeval.suite.slices import column_of
from fxeval.verification.figures import QUANTITIES

Role = Literal["model", "explainer", "pairs"]
CheckParams: TypeAlias = Callable[[Role, str, Mapping[str, Any]], Sequence[tuple[str, str]]]
Values: TypeAlias = Mapping[str, Any]
Subjects: TypeAlias = Mapping[str, tuple[Subject, ...]]
"""The models, explainers and pairs of one check."""

ROLES: Mapping[str, Role] = {"models": "model", "explainers": "explainer", "pairs": "pairs"}
DERIVED_AXES = frozenset({"configuration", "half", "mean of"})
"""Axes of conditions that are made after the measuring, and that no column may be called."""
_WORDS = {"models": "model", "explainers": "explainer", "pairs": "pair list"}


@dataclass(frozen=True)
class KnownIds:
    """The ids for which a fixture exists; ``-`` and ``_`` are the same in an id.

    Attributes:
        devices: Names of the devices of this machine, ``auto`` among them; None = not known.
    """

    models: frozenset[str]
    explainers: frozenset[str]
    pairs: frozenset[str]
    devices: Sequence[str] | None = None


def check_head(document: Document) -> None:
    """Refuse a file of another format or version, whose other faults would be meaningless.

    Raises:
        SuiteError: If the file is not version 1 of the format.
    """
    data = document.data
    first = next(iter(data), "")
    if "fxeval" not in data:
        help = suggestion(first, ["fxeval"])
        document.fatal(document.key((first,)), "a suite starts with 'fxeval: 1'", help)
    version = data["fxeval"]
    if type(version) is not int or version != 1:
        text = f"expected format version 1, got {describe(version)}"
        document.fatal(document.value(("fxeval",)), text)
    if first != "fxeval":
        document.fault(document.key(("fxeval",)), "'fxeval: 1' must be the first key")


def check_device(document: Document, suite: Values, devices: Sequence[str] | None) -> None:
    """Note a device that this machine does not have."""
    device = (suite.get("defaults") or {}).get("device")
    if device is not None and devices is not None and device not in devices:
        text = f"'device': expected a device of this machine ({listed(devices)}), got '{device}'"
        document.fault(document.value(("defaults", "device")), text)


class SubjectsOfASuite:
    """Resolves the subjects that a suite and its checks name; notes their faults."""

    def __init__(
        self, document: Document, suite: Values, known: KnownIds, check_params: CheckParams | None
    ) -> None:
        self._document = document
        self._suite = suite
        self._known = {key: sorted(map(fixture_id, getattr(known, key))) for key in ROLES}
        self._check_params = check_params
        self._shared: dict[str, dict[str, Subject]] = {}
        for key in ROLES:
            self._shared[key] = self._listed(key, (key,), suite.get(key) or ())

    def of_check(self, loc: Loc, check: Values) -> Subjects:
        """Return the subjects that a check names, and else the suite's."""
        found = {}
        for key in ROLES:
            if key in check:
                found[key] = tuple(self._listed(key, (*loc, key), check[key] or ()).values())
                continue
            if key not in self._suite:
                text = f"no {key}: list them under '{key}' in the suite or in this check"
                self._document.fault(self._document.value(loc), text)
            found[key] = tuple(self._shared[key].values())
        return found

    def others_of(self, loc: Loc, check: Values, own: Subjects) -> Subjects:
        """Return the further subjects that parameters of a check name, by parameter.

        A parameter names subjects of the check or of the suite; left out, it means all of the
        check's own.
        """
        protocol = kinds().get(str(check.get("kind")))
        keys: Mapping[str, str] = getattr(protocol, "OTHERS", {})
        return {
            parameter: self._named((*loc, parameter), key, check[parameter] or (), own[key])
            if parameter in check
            else own[key]
            for parameter, key in keys.items()
        }

    def _named(
        self, loc: Loc, key: str, names: Sequence[Any], own: Sequence[Subject]
    ) -> tuple[Subject, ...]:
        known = {**self._shared[key], **{one.name: one for one in own}}
        found: dict[str, Subject] = {}
        for number, name in enumerate(names):
            if name is None:
                continue
            mark, id = self._document.value((*loc, number)), fixture_id(name)
            if id not in known:
                text = f"no {_WORDS[key]} {describe(name)} in this check or suite; there are: "
                self._document.fault(mark, text + listed(sorted(known)), suggestion(name, known))
            elif id in found:
                self._document.fault(mark, f"'{loc[-1]}': {describe(name)} is named twice")
            else:
                found[id] = known[id]
        return tuple(found.values())

    def explainers_for(self, check: Subjects) -> Mapping[str, Subject]:
        """Return the explainers that limits of a check may name: the suite's and its own."""
        return {**self._shared["explainers"], **{one.name: one for one in check["explainers"]}}

    def _listed(self, key: str, loc: Loc, entries: Iterable[Any]) -> dict[str, Subject]:
        """Return subjects by name; a bare name may refer to an entry of the suite's own list."""
        found: dict[str, Subject] = {}
        shared = self._shared.get(key, {})
        for number, entry in enumerate(entries):
            at = (*loc, number)
            if entry is None:
                continue
            if isinstance(entry, str) and fixture_id(entry) in shared:
                subject = shared[fixture_id(entry)]
            else:
                subject = self._subject(
                    key, at, {"use": entry} if isinstance(entry, str) else entry
                )
            if subject.name in found:
                text = f"'{subject.name}' is listed twice; give one of them another name with 'as'"
                self._document.fault(self._document.value(at), text)
            found[subject.name] = subject
        return found

    def _subject(self, key: str, loc: Loc, entry: Values) -> Subject:
        given = entry.get("use")
        # No name starts with a space: an unreadable id gets a name that clashes with no other.
        id = fixture_id(given or f" {loc}")
        params = entry.get("params", {})
        if given is not None and id not in self._known[key]:
            text = f"unknown {_WORDS[key]} '{given}'; known: {listed(self._known[key])}"
            help = suggestion(id, self._known[key])
            self._document.fault(self._document.value((*loc, "use")), text, help)
        elif given is not None and params is not None and self._check_params is not None:
            for name, message in self._check_params(ROLES[key], id, params):
                self._document.fault(self._document.key((*loc, "params", name)), message)
        at = self._document.value(loc)
        folder = self._document.of(at).folder
        use = Use(id, params, self._document.where(loc), folder=folder)
        n = entry.get("n")
        n_where = "" if n is None else self._document.where((*loc, "n"))
        return Subject(fixture_id(entry.get("as") or id), use, n, n_where)


class Rules:
    """Notes the combinations of keys that no suite may have."""

    def __init__(self, document: Document, suite: Values) -> None:
        self._document = document
        self._suite = suite

    def check(self, subjects: Mapping[int, Subjects], explained: Mapping[int, Explained]) -> None:
        """Note everything that breaks a rule.

        Args:
            subjects: Subjects of every check that could be read, by its position.
            explained: The explainers that each may compare with, by name.
        """
        taken = set()
        checks: Sequence[Any] = self._suite.get("checks") or ()
        limits, looks = LimitRules(self._document), LookRules(self._document, self._suite)
        for number, check in enumerate(checks):
            if check is None:
                continue
            loc: Loc = ("checks", number)
            if (id := check.get("id")) is not None:
                if fixture_id(id) in taken:
                    self._at_value((*loc, "id"), f"the id '{id}' is taken by an earlier check")
                taken.add(fixture_id(id))
            measured = None if check.get("kind") is None else MeasuredBy(check, explained[number])
            if measured is None:
                self._keys_of_no_kind(loc, check)
            self._slices((*loc, "slices"), check, measured)
            looks.check(loc, check, measured)
            for limit_number, limit in enumerate(check.get("limits") or ()):
                if limit is not None:
                    limits.check((*loc, "limits", limit_number), limit, measured)
        if (asked := self._suite.get("verification")) is not None:
            models = [model.name for one in subjects.values() for model in one["models"]]
            models += [
                one for of in explained.values() for named in of.others.values() for one in named
            ]
            self._verification(asked, list(dict.fromkeys(models)))

    def _keys_of_no_kind(self, loc: Loc, check: Values) -> None:
        """Note the keys of a check without a known kind that no kind has; one may be the kind."""
        known = {*CheckOfNoKind.model_fields}
        for protocol in kinds().values():
            known |= {*protocol.Parameters.model_fields}
        for key in check:
            if key not in known:
                help = suggestion(key, sorted(known))
                self._document.fault(
                    self._document.key((*loc, key)), f"unknown key {describe(key)}", help
                )

    def _slices(self, loc: Loc, check: Values, measured: MeasuredBy | None) -> None:
        taken: set[str] = set()
        axes = {} if measured is None else measured.axes
        for number, entry in enumerate(check.get("slices") or ()):
            column = column_of(entry)
            if column is None:
                continue
            if column in taken:
                self._at_value((*loc, number), f"the column {describe(column)} is listed twice")
            if column in axes or column in DERIVED_AXES:
                text = f"{describe(column)} is a condition of this kind of check, and no column can"
                self._at_value((*loc, number), f"{text} have its name; rename the column")
            taken.add(column)

    def _verification(self, asked: Values, models: Sequence[str]) -> None:
        loc: Loc = ("verification",)
        for number, name in enumerate(asked.get("models") or ()):
            if name is not None and models and fixture_id(name) not in models:
                text = f"no check has a model {describe(name)}; there are: {listed(models)}"
                self._at_value((*loc, "models", number), text, suggestion(name, models))
        if asked.get("flip_fusion") and asked.get("operating_threshold") not in (None, "vendor"):
            text = "a threshold of fused embeddings does not fit the cells, which do not fuse"
            self._at_value((*loc, "operating_threshold"), text, "remove 'flip_fusion'")
        for number, demand in enumerate(asked.get("limits") or ()):
            if demand is not None and demand.get("metric") is not None:
                self._demand((*loc, "limits", number), demand)

    def _demand(self, loc: Loc, demand: Values) -> None:
        better = QUANTITIES[demand["metric"]].better
        wanted = {"lower": "at_most", "higher": "at_least"}[better]
        given = [key for key in ("at_most", "at_least") if key in demand]
        if given != [wanted]:
            text = f"{demand['metric']}: expected exactly {wanted}, as {better} is better"
            self._at_value(loc, f"{text}, got {' and '.join(given) or 'none'}")
        elif demand[wanted] in (0, 1):
            never = "pass: the interval of a finite list does not rule out an error"
            if (demand[wanted] == 1) is (wanted == "at_most"):
                never = f"fail: {demand['metric']} lies in [0, 1]"
            expected = f"expected {'less than 1' if demand[wanted] else 'more than 0'}"
            words = f"'{wanted}: {describe(demand[wanted])}' can never {never}; {expected}"
            self._at_key((*loc, wanted), words)

    def _at_key(self, loc: Loc, text: str) -> None:
        self._document.fault(self._document.key(loc), text)

    def _at_value(self, loc: Loc, text: str, help: str = "") -> None:
        self._document.fault(self._document.value(loc), text, help)
