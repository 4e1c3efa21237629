"""Rules for the limits of a check: which forms, metrics, conditions and margins go together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fxeval.metrics import judged_under, kinds
from fxeval.results import FIGURES, Metric
from fxeval.statistics.limits import FORMS, MARGINS, Limit
from fxeval.statistics.selected import HALF, REPORT, SELECTION, Choice
from fxeval.strict.text import describe, suggestion
from fxeval.strict.yaml_file import Document, Loc
from fxeval.suite.plan import Subject
from fxeval.suite.slices import column_of

Values: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Explained:
    """What a check runs on and compares with, by name.

    Attributes:
        own: The explainers that it runs on.
        named: The explainers that its limits may compare with.
        others: Further subjects that all of its cells have, by the parameter that names them.
    """

    own: Sequence[str]
    named: Mapping[str, Subject]
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)


class LimitRules:
    """Notes what no limit of a check may have."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def check(self, loc: Loc, limit: Values, measured: "MeasuredBy | None") -> None:
        """Note everything that breaks a rule.

        Args:
            loc: Place of the limit.
            limit: Its keys.
            measured: What its check measures; None if the kind is not known.
        """
        given = [key for key in FORMS if key in limit]
        if len(given) != 1:
            text = f"a limit: expected exactly one of {listed(FORMS)}"
            self._at_value(loc, f"{text}, got {' and '.join(given) or 'none'}")
        if "fill" in limit and "under" in limit:
            text = "'fill' is short for 'under: {fill: ...}'; give one of the two"
            self._at_key((*loc, "fill"), text)
        self._margins(loc, limit, given)
        if measured is None:
            return
        self._information(loc, limit, measured)
        metrics = [metric.name for metric in measured.protocol.METRICS]
        self._one_of((*loc, "metric"), limit.get("metric"), metrics, measured.kind)
        self._fill((*loc, "fill"), limit.get("fill"), measured)
        for axis, value in (limit.get("under") or {}).items():
            self._condition((*loc, "under", axis), value, measured)
        self._half((*loc, "under", HALF), limit.get("under") or {}, measured)
        for key in ("better_than", "equivalent_to"):  # the third is one of two words
            if limit.get(key) is not None:
                self._compared((*loc, key), limit[key], measured)
        self._estimand(loc, limit, measured)
        self._range(loc, limit, given, measured)

    def _information(self, loc: Loc, limit: Values, measured: "MeasuredBy") -> None:
        """Refuse a limit that could decide where values are information.

        These are the values of a check that only shows how a method goes wrong, those under a
        condition that the kind does not judge, and those of a metric that says so itself.
        """
        severity = limit.get("severity", "critical")
        if severity in (None, "info"):
            return
        reasons = [
            f"'{parameter}: true' is a demonstration: {why}"
            for parameter, why in measured.demonstrations.items()
        ]
        usual = judged_under(measured.kind)
        reasons += [
            f"'{axis}: {value}' is information: {measured.protocol.WHY_INFORMS}"
            for axis, value in (limit.get("under") or {}).items()
            if axis in usual and value != usual[axis]
        ]
        metric = measured.metric(limit)
        if metric is not None and metric.information_only:
            reasons.append(f"{metric.name} is information: {metric.information_only}")
        for reason in reasons:
            text = f"{reason}; expected 'severity: info', got "
            if "severity" in limit:
                self._at_value((*loc, "severity"), f"{text}'{severity}'")
            else:
                self._at_value(loc, f"{text}none, which is 'critical'")

    def _margins(self, loc: Loc, limit: Values, given: list[str]) -> None:
        for key, forms in MARGINS.items():
            margin = limit.get(key)
            if margin is None:
                continue
            if given and not set(given) & set(forms):
                mixed = [one for one in MARGINS if one != key and {*given} & {*MARGINS[one]}]
                help = f"did you mean '{mixed[0]}'?" if mixed and mixed[0] not in limit else ""
                text = f"'{key}' goes with {' and '.join(forms)} only"
                self._document.fault(self._document.key((*loc, key)), text, help)
            elif len(margin) != 1:
                text = f"'{key}': expected exactly one of absolute, relative"
                self._at_value((*loc, key), text)
            elif given == ["equivalent_to"] and "relative" in margin:
                text = "equivalent_to has one margin for all rows; expected 'absolute'"
                self._at_key((*loc, key, "relative"), text)
        if given == ["equivalent_to"] and "within" not in limit:
            text = "expected 'within: {absolute: ...}', as no two lists of values are the same"
            self._at_key((*loc, "equivalent_to"), f"equivalent_to: {text}")
        if given == ["not_worse_than"] and "within" not in limit and limit.get("over") != "list":
            text = (
                "not_worse_than: expected 'within', as an explainer that is as good hardly ever "
                "passes without a margin; only 'over: list' goes without one"
            )
            self._at_key((*loc, "not_worse_than"), text)

    def _range(self, loc: Loc, limit: Values, given: list[str], measured: "MeasuredBy") -> None:
        """Refuse a limit that no value in the metric's range can break, or none can keep."""
        metric = measured.metric(limit)
        if len(given) != 1 or metric is None or limit[given[0]] is None:
            return
        margin = next((key for key in MARGINS if key in limit), "")
        size = limit.get(margin) or {}
        if margin and given[0] not in MARGINS[margin]:
            return  # noted above
        if None in size.values() or len(size) > 1 or (margin and not size):
            return  # likewise
        keys = {given[0]: limit[given[0]]}
        if size:
            keys[margin] = {name: float(value) for name, value in size.items()}
        asked = FORMS[given[0]](metric.name, **keys)
        if metric.statistic == "ratio":
            self._ratio((*loc, given[0]), asked, metric)
            return
        fault = asked.pointless(metric) if asked.is_number() else ""
        if fault:
            path = (*loc, margin, *size) if size else (*loc, given[0])
            words = f"'{path[-1]}: {describe(size[path[-1]] if size else limit[given[0]])}'"
            self._at_key(path, f"{words} {fault}")

    def _ratio(self, loc: Loc, asked: Limit, metric: Metric) -> None:
        """Refuse to compare ratios; the range of a ratio's metric is that of its numerator."""
        if asked.compares():
            text = (
                f"{metric.name} is a ratio of two means, and no row has one of its own that could "
                f"be compared; expected at_most or at_least, got {loc[-1]}"
            )
            self._at_key(loc, text)

    def _estimand(self, loc: Loc, limit: Values, measured: "MeasuredBy") -> None:
        """Check what the limit is about, and how it is judged over the conditions."""
        metric = measured.metric(limit)
        if limit.get("over") == "list" and metric is not None and metric.is_decision:
            text = (
                f"'over: list': {metric.name} says where decisions flip, and such a limit must be "
                "failed by random orders, which needs a population; remove 'over'"
            )
            self._at_key((*loc, "over"), text)
        for key in MARGINS:
            if (
                metric is not None
                and metric.statistic in FIGURES
                and "relative" in (limit.get(key) or {})
            ):
                text = f"{metric.name} is a figure of the whole list; expected 'absolute'"
                self._at_key((*loc, key, "relative"), text)
        if limit.get("slice") is not None:
            self._slice(loc, limit, measured)
        elif limit.get("judge") in ("worst", "mean") and not measured.axes:
            text = f"{measured.kind} has no conditions; remove 'judge'"
            self._at_key((*loc, "judge"), text)

    def _slice(self, loc: Loc, limit: Values, measured: "MeasuredBy") -> None:
        """Check the column in whose slices a limit is judged."""
        column, known = limit["slice"], measured.slices
        if column not in known:
            there = f"it has: {listed(known)}" if known else "list it under 'slices' of the check"
            text = f"this check has no slices of {describe(column)}; {there}"
            self._at_value((*loc, "slice"), text, suggestion(column, known))
        elif limit.get("judge") == "mean":
            text = "'judge: mean' would hide a slice behind the others; expected each or worst"
            self._at_value((*loc, "judge"), text)

    def _fill(self, loc: Loc, fill: str | None, measured: "MeasuredBy") -> None:
        if fill is not None and "fill" not in measured.axes:
            self._at_key(loc, f"{measured.kind} has no fills; remove 'fill'")
        elif fill is not None:
            self._one_of(loc, fill, measured.values_of("fill"), "this check")

    def _condition(self, loc: Loc, value: object, measured: "MeasuredBy") -> None:
        axis = str(loc[-1])
        if axis not in measured.axes:
            known = f"it has: {listed(measured.axes)}"
            text = f"{measured.kind} has no condition {describe(axis)}; {known}"
            self._document.fault(self._document.key(loc), text, suggestion(axis, measured.axes))
        else:
            self._one_of(loc, value, measured.values_of(axis), "this check")

    def _half(self, loc: Loc, under: Values, measured: "MeasuredBy") -> None:
        """Refuse to judge what was chosen on the half that chose it."""
        choice: Choice | None = getattr(measured.protocol, "SELECTS", None)
        if choice is None or under.get(HALF) != SELECTION or {*choice.axes} <= {*under}:
            return
        axes = " and ".join(choice.axes)
        text = (
            f"'{HALF}: {SELECTION}': expected '{REPORT}', as whatever was chosen looks too good on "
            f"the half that chose it; only a limit that names {axes} itself may say {SELECTION}"
        )
        self._at_value(loc, text)

    def _compared(self, loc: Loc, other: str, measured: "MeasuredBy") -> None:
        """Check the name of what a limit compares with."""
        form = str(loc[-1])
        earlier = ("baseline", "base") if form == "equivalent_to" else ()
        if other in earlier:
            return
        controls = measured.values("controls")
        if other.startswith("control."):
            if "controls" not in measured.parameters:
                why = f"{form} compares with a control on the same pairs, and"
                self._at_key(loc, f"{why} {measured.kind} measures none; use at_most or at_least")
            else:
                self._one_of(loc, other.removeprefix("control."), controls, "this check")
        elif other.startswith("explainer:"):
            self._explainer(loc, other.removeprefix("explainer:"), measured.explained)
        else:
            forms = " or ".join(("control.<name>", "explainer:<name>", *earlier))
            known = [f"control.{name}" for name in controls or ()]
            known += [f"explainer:{name}" for name in measured.explained.named]
            text = f"'{form}': expected {forms}, got {describe(other)}"
            self._at_value(loc, text, suggestion(other, [*known, *earlier]))

    def _explainer(self, loc: Loc, name: str, explained: Explained) -> None:
        known = sorted(explained.named)
        if fixture_id(name) not in explained.named:
            text = f"no explainer {describe(name)} in this check or suite; there are: "
            self._at_value(loc, text + listed(known), suggestion(name, known))
        elif list(explained.own) == [fixture_id(name)]:
            text = f"no explainer is compared with itself, and this check has none but '{name}'"
            self._at_value(loc, text)

    def _one_of(self, loc: Loc, name: object, known: Sequence[object] | None, owner: str) -> None:
        if name is not None and known is not None and name not in known:
            what = "control" if loc[-1] in ("better_than", "equivalent_to") else loc[-1]
            words = [str(one) for one in known]
            text = f"{owner} has no {what} {describe(name)}; it has: {listed(words)}"
            self._at_value(loc, text, suggestion(name, words))

    def _at_key(self, loc: Loc, text: str) -> None:
        self._document.fault(self._document.key(loc), text)

    def _at_value(self, loc: Loc, text: str, help: str = "") -> None:
        self._document.fault(self._document.value(loc), text, help)


class MeasuredBy:
    """What the limits of a check may name: metrics, parameters, conditions, explainers."""

    def __init__(self, check: Values, explained: Explained) -> None:
        self.kind: str = check["kind"]
        self.protocol = kinds()[self.kind]
        self.parameters = self.protocol.Parameters.model_fields
        self.axes: Mapping[str, str | tuple[str, ...]] = getattr(self.protocol, "CONDITIONS", {})
        self.explained = explained
        found = [column_of(entry) for entry in check.get("slices") or ()]
        self.slices = [column for column in found if column is not None]
        self._check = check
        self.demonstrations: Mapping[str, str] = {
            parameter: why
            for parameter, why in getattr(self.protocol, "DEMONSTRATIONS", {}).items()
            if True in (self.values(parameter) or ())
        }

    def metric(self, limit: Values) -> Metric | None:
        """Return the metric of a limit; None if the kind has no such metric."""
        return next((one for one in self.protocol.METRICS if one.name == limit.get("metric")), None)

    def values(self, parameter: str) -> Sequence[object] | None:
        """Return the entries of a parameter; None if they could not be read."""
        if parameter not in self.parameters:
            return ()
        if parameter in self._check:
            found = self._check[parameter]
        else:
            found = self.parameters[parameter].get_default(call_default_factory=True)
        entries = found if isinstance(found, list | tuple) else [found]
        if parameter == "controls":
            entries = [*entries, *getattr(self.protocol, "OWN_CONTROLS", ())]
        return None if None in entries else entries

    def values_of(self, axis: str) -> Sequence[object] | None:
        """Return the values along an axis of conditions."""
        found = self.axes[axis]
        if not isinstance(found, str):
            return found
        others = self.explained.others
        return others[found] if found in others else self.values(found)


def refusals_of(limits: Iterable[Limit]) -> list[tuple[str, str]]:
    """Return what a certificate cannot rest on, as (place, message); [] if it can.

    A certificate speaks of all people like those of its list. A limit over the list alone does not.
    """
    return [
        (
            limit.where,
            f"{limit.text()}: 'over: list' says nothing about other people; expected "
            "'over: population' in a certification suite",
        )
        for limit in limits
        if limit.over == "list"
    ]


def fixture_id(text: str) -> str:
    """Return an id as fixtures spell it.

    >>> fixture_id("acme-cam")
    'acme_cam'
    """
    return text.replace("-", "_")


def listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ", ".join(names) or "none"
