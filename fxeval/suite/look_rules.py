"""Rules for checks that are extended while they are undecided: what can be judged at several looks.

A look is an interval of a mean or a median at a stricter level. Figures of a whole list, halves
that choose and report, and limits about the list itself are judged once, on all rows.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from fxeval.metrics.protocol import RowKind
from fxeval.results import Metric
from fxeval.strict.text import describe
from fxeval.strict.yaml_file import Document, Loc
from fxeval.suite.limit_rules import MeasuredBy

Values: TypeAlias = Mapping[str, Any]

OF_TWO_PEOPLE: frozenset[RowKind] = frozenset(
    {
        "pairs", "nonmated pairs", "held-out pairs", "held-out mated pairs", "patched pairs",
        "false matches", "map pairs",
    }
)  # fmt: skip
"""Kinds of rows that may belong to two people, who come again in other rows."""


class LookRules:
    """Notes what no check that is extended may have."""

    def __init__(self, document: Document, suite: Values) -> None:
        self._document = document
        self._defaults: Values = suite.get("defaults") or {}
        if "looks" in self._defaults and self._defaults.get("on_inconclusive") != "extend":
            checks = [one for one in suite.get("checks") or () if one is not None]
            if not any(one.get("on_inconclusive") == "extend" for one in checks):
                self._at_key(("defaults", "looks"), "'looks' goes with 'on_inconclusive: extend'")

    def check(self, loc: Loc, check: Values, measured: MeasuredBy | None) -> None:
        """Note everything that breaks a rule.

        Args:
            loc: Place of the check.
            check: Its keys.
            measured: What it measures; None if the kind is not known.
        """
        how = check.get("on_inconclusive", self._defaults.get("on_inconclusive"))
        if how != "extend":
            if check.get("looks") is not None and how in (None, "fail", "warn"):
                text = "'looks' goes with 'on_inconclusive: extend'"
                self._at_key((*loc, "looks"), f"{text}, got {describe(how or 'fail')}")
            return
        limits = [one for one in check.get("limits") or () if one is not None]
        if measured is None or all(one.get("severity") in ("info", "warning") for one in limits):
            return  # without a critical limit, the cell is judged once
        is_open = check.get("looks", self._defaults.get("looks")) == "open"
        why = "" if not is_open else self._no_open_looks(measured)
        if getattr(measured.protocol, "SELECTS", None) is not None:
            why = (
                f"{measured.kind} chooses on one half of the people and reports on the other, once"
            )
        if why:
            place = "looks" if is_open and "looks" in check else "on_inconclusive"
            self._at_check(loc, check, place, why)
            return
        for number, limit in enumerate(check.get("limits") or ()):
            if limit is not None:
                self._limit((*loc, "limits", number), limit, measured.metric(limit), is_open)

    def _no_open_looks(self, measured: MeasuredBy) -> str:
        """Return why rows of a kind cannot be looked at after every group; "" if they can."""
        if measured.protocol.ROWS not in OF_TWO_PEOPLE:
            return ""
        return (
            f"'looks: open' bets on one independent value for each person, and rows of "
            f"{measured.kind} may belong to two; expected a number of looks"
        )

    def _limit(self, loc: Loc, limit: Values, metric: Metric | None, is_open: bool) -> None:
        if limit.get("over") == "list":
            text = (
                "'over: list' is about all rows of the list, so there is nothing to extend; remove "
                "it, or give the check 'on_inconclusive: fail'"
            )
            self._at_key((*loc, "over"), text)
        if metric is None:
            return
        known = ("mean",) if is_open else ("mean", "median")
        if metric.statistic not in known:
            expected = " or a ".join(known)
            text = (
                f"{metric.name} is a {metric.statistic} and cannot be judged at several looks; "
                f"expected a metric that is a {expected}, or 'on_inconclusive: fail' in the check"
            )
            self._at_value((*loc, "metric"), text)
        elif is_open and not all(map(math.isfinite, metric.range)):
            low, high = metric.range
            text = (
                f"'looks: open' bets on values between two edges, and {metric.name} lies in "
                f"[{low:g}, {high:g}]; expected a number of looks"
            )
            self._at_value((*loc, "metric"), text)

    def _at_check(self, loc: Loc, check: Values, key: str, why: str) -> None:
        """Note a fault at a key of the check, or at the check if the key stands in the defaults."""
        if key in check:
            self._at_key((*loc, key), f"'{key}: {check[key]}': {why}")
        else:
            text = f"'{key}: {self._defaults.get(key)}' of the defaults: {why}"
            self._at_value(loc, f"{text}; give this check a value of its own")

    def _at_key(self, loc: Loc, text: str) -> None:
        self._document.fault(self._document.key(loc), text)

    def _at_value(self, loc: Loc, text: str) -> None:
        self._document.fault(self._document.value(loc), text)
