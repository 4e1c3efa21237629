"""What every form of a limit has: where the interval must lie, and how it is worded."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fxeval.results import (
    EXPLAINER,
    Better,
    Condition,
    Estimate,
    Judge,
    Metric,
    Outcome,
    Over,
    Severity,
    Verdict,
)

FloatArray = NDArray[np.float64]
Values = Callable[[str], FloatArray]
"""Maps ``explainer``, ``control.<name>``, ``explainer:<name>``, ``baseline`` or ``base`` to its
values, one per row."""

UNDECIDED = Outcome.INCONCLUSIVE, ": the interval contains the limit"
_UNBOUNDED = 1e30  # stands for the end of a range that has none


@dataclass(frozen=True)
class Limit(ABC):
    """A limit of any form.

    Attributes:
        metric: Name of the metric.
        under: The conditions to which it applies; on an axis that is not named, all values.
        severity: ``critical`` decides the cell, ``warning`` and ``info`` are shown.
        where: ``file:line:column`` in the suite.
        over: Whether it is about all people like those of the list, or about this list.
        judge: How it is judged over the conditions and slices: at each, at the worst, or on the
            mean of the rows' values.
        slice: The column in each of whose slices it is judged; "" = over all rows.
    """

    form: ClassVar[str]
    verb: ClassVar[str]  # what the interval must do with the line
    good_side: ClassVar[Better]  # of the line
    keys: ClassVar[tuple[str, ...]]  # in a suite, besides those that all forms have
    ends_count: ClassVar[bool] = True
    """Whether the ends of the region belong to it."""

    metric: str
    under: Condition = field(default_factory=dict, kw_only=True)
    severity: Severity = field(default="critical", kw_only=True)
    where: str = field(default="", kw_only=True)
    over: Over = field(default="population", kw_only=True)
    judge: Judge = field(default="each", kw_only=True)
    slice: str = field(default="", kw_only=True)

    @property
    def relative(self) -> float:
        """The margin as a fraction of the other map's value; 0 = none."""
        return 0.0

    @abstractmethod
    def region(self) -> tuple[float, float]:
        """Return where the whole interval must lie, infinite where there is no end.

        NaN if the limit is no number, or if its margin is negative: a worse explainer would pass.
        """

    @abstractmethod
    def text(self) -> str:
        """Return the limit in words."""

    @abstractmethod
    def written(self) -> dict[str, Any]:
        """Return the form's own keys as they are written in a suite."""

    @abstractmethod
    def pointless(self, metric: Metric) -> str:
        """Return why it can never fail, or never pass, in the metric's range; "" if it can do both.

        The least possible value may be demanded as the most, and the largest as the least.
        """

    def compares(self) -> tuple[str, ...]:
        """Return the maps that must have been measured besides the explainer's."""
        return ()

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return the values that are estimated, one per row; NaN where there is none."""
        del metric
        return of(EXPLAINER)

    def edges(self, metric: Metric) -> tuple[float, float]:
        """Return the least and the largest value that :meth:`rows` can give; infinite if none."""
        least, largest = np.clip(metric.range, -_UNBOUNDED, _UNBOUNDED)
        # The values are linear in both maps' but for a kink where that of the other map is 0.
        ends = np.array([least, largest, np.clip(0.0, least, largest)])
        own, other = (grid.ravel() for grid in np.meshgrid(ends, ends))
        with np.errstate(over="ignore"):
            found = self.rows(lambda map_: own if map_ == EXPLAINER else other, metric)
        low, high = float(found.min()), float(found.max())
        beyond = _UNBOUNDED / 10
        return -math.inf if low < -beyond else low, math.inf if high > beyond else high

    def applies(self, under: Condition) -> bool:
        """Return whether the limit applies to values under this condition."""
        return all(under.get(axis) == value for axis, value in self.under.items())

    def applies_to(self, explainer: str) -> bool:
        """Return whether it applies to an explainer: none is compared with itself."""
        return f"explainer:{explainer}" not in self.compares()

    def line(self) -> float:
        """Return the number that the interval must clear; NaN if it must lie between two."""
        low, high = self.region()
        if math.isfinite(low) and math.isfinite(high):
            return math.nan
        return high if math.isinf(low) else low

    def is_number(self) -> bool:
        """Return whether the region has a finite end and none that is not a number."""
        low, high = self.region()
        return (math.isfinite(low) or math.isfinite(high)) and not math.isnan(low + high)

    def holds(self, low: float, high: float) -> bool:
        """Return whether everything from low to high lies in the region; NaN lies nowhere."""
        least, largest = self.region()
        above = low > least if self.ends_count is False else low >= least
        below = high < largest if self.ends_count is False else high <= largest
        return (above or math.isinf(least)) and (below or math.isinf(largest))

    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Return the outcome of an interval, and a remark for the reason."""
        least, largest = self.region()
        if self.holds(estimate.low, estimate.high):
            return Outcome.PASS, ""
        if estimate.high < least or estimate.low > largest:
            return Outcome.FAIL, ""
        return UNDECIDED

    def reserve(self, estimate: Estimate) -> float:
        """Return how far the interval lies within the region; negative where it reaches beyond."""
        least, largest = self.region()
        found = (estimate.low - least, largest - estimate.high)
        return min((one for one in found if one < math.inf), default=math.nan)

    def of_equal_rows(self, estimate: Estimate) -> tuple[Outcome, str] | None:
        """Return what follows if every row equals the one compared with; None = the interval."""
        del estimate
        return None

    def of_nothing(self) -> Verdict:
        """Return the verdict if no row has a value to compare."""
        return Verdict(Outcome.INVALID, "no row has a value")

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: metric and condition."""
        return f"{self.metric}{in_words(under)}: "

    def demand(self) -> str:
        """Return in words what the interval must do."""
        return f"must {self.verb} {self.line():g}"

    def estimated(self) -> str:
        """Return in words what is estimated; empty = the metric itself."""
        return ""

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: what is demanded and what was measured.

        Args:
            title: Title of the metric, with its condition.
            measured: The estimate in words.
            name_of: Writes the name of a control.
        """
        del name_of
        return f"{title} {self.demand()}; it is {measured}."


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


def range_in_words(metric: Metric) -> str:
    """Say in which range a metric lies."""
    least, largest = metric.range
    left, right = "[" if math.isfinite(least) else "(", "]" if math.isfinite(largest) else ")"
    return f"{metric.name} lies in {left}{least:g}, {largest:g}{right}"


def margin_of(given: Mapping[str, float]) -> tuple[float, float]:
    """Return an absolute and a relative margin; NaN where one is negative or no number."""
    found = (given.get("absolute", 0.0), given.get("relative", 0.0))
    absolute, relative = (one if one >= 0.0 else math.nan for one in found)
    return absolute, relative
