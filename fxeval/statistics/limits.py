"""The forms of limits: one class per form; no code that judges or shows asks which form it is.

A limit says which maps must be measured besides the explainer's (``compares``), which values are
estimated (``rows``), what the interval must clear (``line``), how the interval decides
(``decide``), and how the limit is worded and written. ``FORMS`` lists the forms. A new form is a
new class here, and its keys in ``fxeval.suite.format`` and ``fxeval.records.schema``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fxeval.results import EXPLAINER, Better, Condition, Estimate, Metric, Outcome, Severity
from fxeval.statistics.estimate import paired

FloatArray = NDArray[np.float64]
Values = Callable[[str], FloatArray]
"""Maps ``explainer`` or ``control.<name>`` to its values, one per row."""

_UNBOUNDED = 1e30  # stands for the end of a range that has none
_UNDECIDED = Outcome.INCONCLUSIVE, ": the interval contains the limit"


@dataclass(frozen=True)
class Limit(ABC):
    """A limit of any form.

    Attributes:
        metric: Name of the metric.
        under: The conditions to which it applies; on an axis that is not named, all values.
        severity: ``critical`` decides the cell, ``warning`` and ``info`` are shown.
        where: ``file:line:column`` in the suite.
    """

    form: ClassVar[str]
    verb: ClassVar[str]  # what the interval must do with the line
    good_side: ClassVar[Better]  # of the line
    keys: ClassVar[tuple[str, ...]]  # in a suite, besides those that all forms have

    metric: str
    under: Condition = field(default_factory=dict, kw_only=True)
    severity: Severity = field(default="critical", kw_only=True)
    where: str = field(default="", kw_only=True)

    def compares(self) -> tuple[str, ...]:
        """Return the maps that must have been measured besides the explainer's."""
        return ()

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return the values that are estimated, one per row; NaN where there is none."""
        return of(EXPLAINER)

    def applies(self, under: Condition) -> bool:
        """Return whether the limit applies to values under this condition."""
        return all(under.get(axis) == value for axis, value in self.under.items())

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: metric and condition."""
        return f"{self.metric}{in_words(under)}: "

    def estimated(self) -> str:
        """Return in words what is estimated; empty = the metric itself."""
        return ""

    @abstractmethod
    def line(self) -> float:
        """Return the number that the interval must clear; NaN if the limit is not a number."""

    @abstractmethod
    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Return the outcome of a finite interval, and a remark for the reason."""

    @abstractmethod
    def pointless(self, metric: Metric) -> str:
        """Return why it can never fail, or never pass, in the metric's range; "" if it can do both.

        The least possible value may be demanded as the most, and the largest as the least.
        """

    @abstractmethod
    def text(self) -> str:
        """Return the limit in words."""

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: what is demanded and what was measured.

        Args:
            title: Title of the metric, with its condition.
            measured: The estimate in words.
            name_of: Writes the name of a control.
        """
        del name_of
        return f"{title} must {self.verb} {self.line():g}; it is {measured}."

    @abstractmethod
    def written(self) -> dict[str, Any]:
        """Return the form's own keys as they are written in a suite."""


def in_words(under: Condition) -> str:
    """Write a condition to follow a name; a fill is written without the name of its axis.

    >>> in_words({"fill": "blur", "fraction": 0.01})
    ' (blur, fraction 0.01)'
    >>> in_words({})
    ''
    """
    parts = [
        str(value)
        if axis == "fill"
        else f"{axis} {value:g}"
        if isinstance(value, float)
        else f"{axis} {value}"
        for axis, value in under.items()
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _range(metric: Metric) -> str:
    least, largest = metric.range
    left, right = "[" if math.isfinite(least) else "(", "]" if math.isfinite(largest) else ")"
    return f"{metric.name} lies in {left}{least:g}, {largest:g}{right}"


@dataclass(frozen=True)
class AtMost(Limit):
    """Passes if the whole interval is at most the number; fails if all of it is above."""

    form: ClassVar[str] = "at_most"
    verb: ClassVar[str] = "be at most"
    good_side: ClassVar[Better] = "lower"
    keys: ClassVar[tuple[str, ...]] = ("at_most",)

    at_most: float = field(default=math.nan, kw_only=True)

    def line(self) -> float:
        """Return the number."""
        return self.at_most

    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Compare the interval with the number."""
        if estimate.high <= self.at_most:
            return Outcome.PASS, ""
        return (Outcome.FAIL, "") if estimate.low > self.at_most else _UNDECIDED

    def pointless(self, metric: Metric) -> str:
        """Compare the number with the range; no decision flips before the first pixel."""
        least, largest = metric.range
        if self.at_most >= largest:
            return f"can never fail: {_range(metric)}; expected less than {largest:g}"
        if self.at_most < least or (metric.is_decision and self.at_most == least):
            expected = "more than" if metric.is_decision else "at least"
            return f"can never pass: {_range(metric)}; expected {expected} {least:g}"
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

    def line(self) -> float:
        """Return the number."""
        return self.at_least

    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Compare the interval with the number."""
        if estimate.low >= self.at_least:
            return Outcome.PASS, ""
        return (Outcome.FAIL, "") if estimate.high < self.at_least else _UNDECIDED

    def pointless(self, metric: Metric) -> str:
        """Compare the number with the range."""
        least, largest = metric.range
        if self.at_least <= least:
            return f"can never fail: {_range(metric)}; expected more than {least:g}"
        if self.at_least > largest:
            return f"can never pass: {_range(metric)}; expected at most {largest:g}"
        return ""

    def text(self) -> str:
        """Return, for example, ``insertion_auc at least 0.4``."""
        return f"{self.metric} at least {self.at_least:g}"

    def written(self) -> dict[str, Any]:
        """Return ``{"at_least": 0.4}``."""
        return {"at_least": self.at_least}


@dataclass(frozen=True)
class BetterThan(Limit):
    """Passes if the paired improvement over a control lies wholly above the margin.

    An interval without width never passes: differences that do not vary are a sign of a defect (the
    same map twice), and they fail unless they lie above the margin.

    Attributes:
        better_than: ``control.<name>``, measured on the same rows.
        by: ``{"absolute": a}``, in the metric's unit, or ``{"relative": r}``, of the control's
            value; at least 0.
    """

    form: ClassVar[str] = "better_than"
    verb: ClassVar[str] = "lie above"
    good_side: ClassVar[Better] = "higher"
    keys: ClassVar[tuple[str, ...]] = ("better_than", "by")

    better_than: str = field(default="", kw_only=True)
    by: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def absolute(self) -> float:
        """The margin in the metric's unit."""
        return self.by.get("absolute", 0.0)

    @property
    def relative(self) -> float:
        """The margin as a fraction of the control's value."""
        return self.by.get("relative", 0.0)

    def compares(self) -> tuple[str, ...]:
        """Return the control."""
        return (self.better_than,)

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return each row's improvement over the control, less the relative margin."""
        control = of(self.better_than)
        # The margin is subtracted row by row, so that the interval covers its variation, too.
        return paired(of(EXPLAINER), control, metric.better) - self.relative * np.abs(control)

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: the improvement, and the control it is over."""
        beyond = f" beyond {self.relative:g} of the control" if self.relative else ""
        return f"{self.metric}{in_words(under)}: improvement over {self.better_than}{beyond} "

    def estimated(self) -> str:
        """Return ``paired improvement``, or ``paired improvement less margin``."""
        return "paired improvement" + (" less margin" if self.relative else "")

    def line(self) -> float:
        """Return the absolute margin; NaN if a margin is negative: a worse explainer would pass."""
        helps = not (self.absolute >= 0.0 and self.relative >= 0.0)  # or NaN
        return math.nan if helps else self.absolute

    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Compare the interval of the improvement with the margin."""
        # Rounding leaves a tiny width even where all differences are equal.
        if estimate.high - estimate.low <= 1e-12 * max(1.0, abs(estimate.value)):
            remark = ": the interval has no width, which never passes"
            is_better = estimate.value > self.absolute
            return (Outcome.INCONCLUSIVE if is_better else Outcome.FAIL), remark
        if estimate.low > self.absolute:
            return Outcome.PASS, ""
        return (Outcome.FAIL, "") if estimate.high < self.absolute else _UNDECIDED

    def pointless(self, metric: Metric) -> str:
        """Compare the margin with the largest improvement that the range allows."""
        least, largest = np.clip(metric.range, -_UNBOUNDED, _UNBOUNDED)
        # The improvement is linear in both values but for a kink where the control's value is 0.
        ends = np.array([least, largest, np.clip(0.0, least, largest)])
        own, control = (grid.ravel() for grid in np.meshgrid(ends, ends))
        with np.errstate(over="ignore"):
            best = self.rows(lambda map_: own if map_ == EXPLAINER else control, metric).max()
        if best > self.absolute:
            return ""
        beyond = f", less {self.relative:g} of the control's value," if self.relative else ""
        return (
            f"can never pass: {_range(metric)}, so an improvement{beyond} is at most {best:g}, and "
            f"it must be more than {self.absolute:g}; expected a smaller margin"
        )

    def text(self) -> str:
        """Return, for example, ``deletion_auc better than control.centre by more than 0.01``."""
        margin = ""
        if self.absolute:
            margin = f" by more than {self.absolute:g}"
        elif self.relative:
            margin = f" by more than {self.relative:.0%} of the control"
        return f"{self.metric} better than {self.better_than}{margin}"

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: the demanded and the measured improvement."""
        relative = f"{self.relative:.0%} of the control's value" if self.relative else ""
        absolute = f"{self.absolute:g}" if self.absolute else ""
        margin = " plus ".join(part for part in (relative, absolute) if part)
        control = name_of(self.better_than.removeprefix("control."))
        return (
            f"{title} must be better than the control {control}"
            f"{' by more than ' + margin if margin else ''}; the paired improvement"
            f"{' less ' + relative if relative else ''} is {measured}."
        )

    def written(self) -> dict[str, Any]:
        """Return ``{"better_than": "control.centre", "by": {"absolute": 0.01}}``."""
        return {"better_than": self.better_than, **({"by": dict(self.by)} if self.by else {})}


FORMS: Mapping[str, type[Limit]] = {one.form: one for one in (AtMost, AtLeast, BetterThan)}
"""The forms of limits by their keys in a suite."""
