"""The forms of limits: one class per form; no code that judges or shows asks which form it is.

A limit says which maps must be measured besides the explainer's (``compares``), which values are
estimated (``rows``) and between which edges they lie (``edges``), in which region the whole
interval must lie (``region``), and how the limit is worded and written. ``FORMS`` lists the forms;
those that compare are in ``fxeval.statistics.comparisons``. A new form is a new class, and its keys
in ``fxeval.suite.format`` and ``fxeval.records.judged``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fxeval.results import Better, Metric
from fxeval.statistics.comparisons import BetterThan, EquivalentTo, NotWorseThan
from fxeval.statistics.limit import Limit, in_words, range_in_words

__all__ = [
    "FORMS", "MARGINS", "AtLeast", "AtMost", "BetterThan", "EquivalentTo", "Limit", "NotWorseThan",
    "in_words",
]  # fmt: skip


@dataclass(frozen=True)
class AtMost(Limit):
    """Passes if the whole interval is at most the number; fails if all of it is above."""

    form: ClassVar[str] = "at_most"
    verb: ClassVar[str] = "be at most"
    good_side: ClassVar[Better] = "lower"
    keys: ClassVar[tuple[str, ...]] = ("at_most",)

    at_most: float = field(default=math.nan, kw_only=True)

    def region(self) -> tuple[float, float]:
        """Return everything up to the number."""
        return -math.inf, self.at_most

    def pointless(self, metric: Metric) -> str:
        """Compare the number with the range; no decision flips before the first pixel."""
        least, largest = metric.range
        if self.at_most >= largest:
            return f"can never fail: {range_in_words(metric)}; expected less than {largest:g}"
        if self.at_most < least or (metric.is_decision and self.at_most == least):
            expected = "more than" if metric.is_decision else "at least"
            return f"can never pass: {range_in_words(metric)}; expected {expected} {least:g}"
        return ""

    def text(self) -> str:
        """Return, for example, ``deletion_auc at most 0.4``."""
        return f"{self.metric} at most {self.at_most:g}"

    def written(self) -> dict[str, Any]:
        """Return ``{"at_most": 0.4}``."""
        return {"at_most": self.at_most}


@dataclass(frozen=True)
class AtLeast(Limit):
    """Passes if the whole interval is at least the number; fails if all of it is below."""

    form: ClassVar[str] = "at_least"
    verb: ClassVar[str] = "be at least"
    good_side: ClassVar[Better] = "higher"
    keys: ClassVar[tuple[str, ...]] = ("at_least",)

    at_least: float = field(default=math.nan, kw_only=True)

    def region(self) -> tuple[float, float]:
        """Return everything from the number."""
        return self.at_least, math.inf

    def pointless(self, metric: Metric) -> str:
        """Compare the number with the range."""
        least, largest = metric.range
        if self.at_least <= least:
            return f"can never fail: {range_in_words(metric)}; expected more than {least:g}"
        if self.at_least > largest:
            return f"can never pass: {range_in_words(metric)}; expected at most {largest:g}"
        return ""

    def text(self) -> str:
        """Return, for example, ``insertion_auc at least 0.4``."""
        return f"{self.metric} at least {self.at_least:g}"

    def written(self) -> dict[str, Any]:
        """Return ``{"at_least": 0.4}``."""
        return {"at_least": self.at_least}


FORMS: Mapping[str, type[Limit]] = {
    one.form: one for one in (AtMost, AtLeast, BetterThan, NotWorseThan, EquivalentTo)
}
"""The forms of limits by their keys in a suite."""

MARGINS: Mapping[str, tuple[str, ...]] = {
    key: tuple(name for name, form in FORMS.items() if key in form.keys)
    for key in dict.fromkeys(key for form in FORMS.values() for key in form.keys)
    if key not in FORMS
}
"""The forms of limits with which each key of a margin goes."""
