"""Limits that compare the explainer with something else, row by row."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fxeval.results import EXPLAINER, Better, Condition, Estimate, Metric, Outcome, Verdict
from fxeval.statistics.estimate import paired
from fxeval.statistics.intervals import rarest_seen
from fxeval.statistics.limit import (
    FloatArray,
    Limit,
    Values,
    in_words,
    margin_of,
    range_in_words,
)

EARLIER: Mapping[str, str] = {
    "baseline": "no baseline values: give an earlier run with --fx-baseline",
    "base": "no values of the base version: give its run with --fx-base",
}
"""What to do where the values of an earlier run are missing, by the name it is compared under."""


@dataclass(frozen=True)
class _Comparison(Limit):
    """A limit on the paired improvement: positive where the explainer is better."""

    verb: ClassVar[str] = "lie above"
    good_side: ClassVar[Better] = "higher"

    @property
    @abstractmethod
    def other(self) -> str:
        """What the explainer is compared with."""

    def compares(self) -> tuple[str, ...]:
        """Return what the explainer is compared with."""
        return (self.other,)

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return each row's improvement over the other map."""
        return paired(of(EXPLAINER), of(self.other), metric.better)

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: the improvement, and what it is over."""
        return f"{self.metric}{in_words(under)}: improvement over {self.other} "

    def estimated(self) -> str:
        """Return ``paired improvement``."""
        return "paired improvement"

    def of_nothing(self) -> Verdict:
        """Without an earlier run nothing can be said; any other map should have been measured."""
        if self.other in EARLIER:
            return Verdict(Outcome.INCONCLUSIVE, EARLIER[self.other])
        return super().of_nothing()

    def _beside(self, name_of: Callable[[str], str]) -> str:
        """Return what is compared with, in words for readers."""
        kind, _, name = self.other.replace(":", ".").partition(".")
        words = {"control": "the control", "explainer": "the explainer"}
        if not name:
            return {"baseline": "the baseline", "base": "the base version"}.get(kind, kind)
        # A suite gives explainers their names; those of controls are written for readers.
        return f"{words.get(kind, kind)} {name_of(name) if kind == 'control' else name}"


@dataclass(frozen=True)
class BetterThan(_Comparison):
    """Passes if the paired improvement lies wholly above the margin.

    Differences that do not vary never pass: they are a sign of a defect (the same map twice), and
    they fail unless they lie above the margin.

    Attributes:
        better_than: ``control.<name>`` or ``explainer:<name>``, measured on the same rows.
        by: ``{"absolute": a}``, in the metric's unit, or ``{"relative": r}``, of the other map's
            value; at least 0.
    """

    form: ClassVar[str] = "better_than"
    keys: ClassVar[tuple[str, ...]] = ("better_than", "by")
    ends_count: ClassVar[bool] = False

    better_than: str = field(default="", kw_only=True)
    by: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def other(self) -> str:
        """The control or the explainer."""
        return self.better_than

    @property
    def absolute(self) -> float:
        """The margin in the metric's unit."""
        return self.by.get("absolute", 0.0)

    @property
    def relative(self) -> float:
        """The margin as a fraction of the other map's value."""
        return self.by.get("relative", 0.0)

    def region(self) -> tuple[float, float]:
        """Return everything above the absolute margin."""
        absolute, relative = margin_of(self.by)
        return absolute if relative >= 0.0 else math.nan, math.inf

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return each row's improvement over the other map, less the relative margin."""
        # The margin is subtracted row by row, so that the interval covers its variation, too.
        return super().rows(of, metric) - self.relative * np.abs(of(self.other))

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: the improvement, and what it is over."""
        whose = "control" if self.other.startswith("control.") else "other"
        beyond = f"beyond {self.relative:g} of the {whose} " if self.relative else ""
        return f"{super().subject(under)}{beyond}"

    def estimated(self) -> str:
        """Return ``paired improvement``, or ``paired improvement less margin``."""
        return "paired improvement" + (" less margin" if self.relative else "")

    def decide(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Compare the interval of the improvement with the margin."""
        if not _varies(estimate):
            remark = ": the differences do not vary, which never passes"
            is_better = estimate.value > self.absolute
            return (Outcome.INCONCLUSIVE if is_better else Outcome.FAIL), remark
        return super().decide(estimate)

    def pointless(self, metric: Metric) -> str:
        """Compare the margin with the largest improvement that the range allows."""
        best = self.edges(metric)[1]
        if best > self.absolute:
            return ""
        beyond = f", less {self.relative:g} of the control's value," if self.relative else ""
        return (
            f"can never pass: {range_in_words(metric)}, so an improvement{beyond} is at most "
            f"{best:g}, and it must be more than {self.absolute:g}; expected a smaller margin"
        )

    def text(self) -> str:
        """Return, for example, ``deletion_auc better than control.centre by more than 0.01``."""
        margin = ""
        whose = "control" if self.other.startswith("control.") else "other"
        if self.absolute:
            margin = f" by more than {self.absolute:g}"
        elif self.relative:
            margin = f" by more than {self.relative:.0%} of the {whose}"
        return f"{self.metric} better than {self.better_than}{margin}"

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: the demanded and the measured improvement."""
        whose = "control" if self.other.startswith("control.") else "other explainer"
        relative = f"{self.relative:.0%} of the {whose}'s value" if self.relative else ""
        absolute = f"{self.absolute:g}" if self.absolute else ""
        margin = " plus ".join(part for part in (relative, absolute) if part)
        return (
            f"{title} must be better than {self._beside(name_of)}"
            f"{' by more than ' + margin if margin else ''}; the paired improvement"
            f"{' less ' + relative if relative else ''} is {measured}."
        )

    def written(self) -> dict[str, Any]:
        """Return ``{"better_than": "control.centre", "by": {"absolute": 0.01}}``."""
        return {"better_than": self.better_than, **({"by": dict(self.by)} if self.by else {})}


@dataclass(frozen=True)
class _Within(_Comparison):
    """A comparison with a margin within which the explainer may lie.

    Attributes:
        within: ``{"absolute": a}``, in the metric's unit, or ``{"relative": r}``, of the other
            map's value; at least 0.
    """

    within: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    @property
    def relative(self) -> float:
        """The margin as a fraction of the other map's value."""
        return self.within.get("relative", 0.0)

    def of_equal_rows(self, estimate: Estimate) -> tuple[Outcome, str]:
        """Pass; what cannot be said of so few people is said."""
        rare = rarest_seen(estimate.n_identities, estimate.confidence)
        return Outcome.PASS, (
            f": every row is equal; this says nothing about groups rarer than {rare:.1%} of all "
            "people"
        )

    def _margin_in_words(self) -> str:
        if self.relative:
            return f" within {self.relative:.3g} of its value"
        return f" within {self.within['absolute']:g}" if "absolute" in self.within else ""

    def written(self) -> dict[str, Any]:
        """Return, for example, ``{"not_worse_than": "base", "within": {"absolute": 0.01}}``."""
        return {self.form: self.other, **({"within": dict(self.within)} if self.within else {})}


@dataclass(frozen=True)
class NotWorseThan(_Within):
    """Passes if the explainer is worse than in an earlier run by no more than the margin.

    Attributes:
        not_worse_than: ``baseline`` or ``base``: the values of an earlier run, paired by row.
    """

    form: ClassVar[str] = "not_worse_than"
    verb: ClassVar[str] = "be at least"
    keys: ClassVar[tuple[str, ...]] = ("not_worse_than", "within")

    not_worse_than: str = field(default="", kw_only=True)

    @property
    def other(self) -> str:
        """The earlier run."""
        return self.not_worse_than

    def region(self) -> tuple[float, float]:
        """Return everything from minus the absolute margin."""
        absolute, relative = margin_of(self.within)
        return 0.0 - absolute if relative >= 0.0 else math.nan, math.inf

    def rows(self, of: Values, metric: Metric) -> FloatArray:
        """Return each row's improvement, plus the relative margin."""
        return super().rows(of, metric) + self.relative * np.abs(of(self.other))

    def subject(self, under: Condition) -> str:
        """Return the beginning of a reason: the improvement, and what it is over."""
        plus = f"plus {self.relative:g} of its value " if self.relative else ""
        return f"{super().subject(under)}{plus}"

    def estimated(self) -> str:
        """Return ``paired improvement``, or ``paired improvement plus margin``."""
        return "paired improvement" + (" plus margin" if self.relative else "")

    def pointless(self, metric: Metric) -> str:
        """Compare the margin with the largest loss that the range allows."""
        worst, least = self.edges(metric)[0], self.region()[0]
        if worst < least or not self.within:
            return ""
        return f"can never fail: {range_in_words(metric)}; expected a smaller margin"

    def text(self) -> str:
        """Return, for example, ``deletion_auc not worse than baseline within 0.01``."""
        return f"{self.metric} not worse than {self.other}{self._margin_in_words()}"

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: the margin and the measured improvement."""
        return (
            f"{title} must be no worse than {self._beside(name_of)}{self._margin_in_words()}; the "
            f"{self.estimated()} is {measured}."
        )


@dataclass(frozen=True)
class EquivalentTo(_Within):
    """Passes if the whole interval of the paired improvement lies within the margin on both sides.

    Two one-sided tests, each at half of what the interval leaves out.

    Attributes:
        equivalent_to: ``baseline``, ``base``, ``explainer:<name>`` or ``control.<name>``.
    """

    form: ClassVar[str] = "equivalent_to"
    verb: ClassVar[str] = "lie in"
    keys: ClassVar[tuple[str, ...]] = ("equivalent_to", "within")

    equivalent_to: str = field(default="", kw_only=True)

    @property
    def other(self) -> str:
        """What the explainer must be like."""
        return self.equivalent_to

    def region(self) -> tuple[float, float]:
        """Return the margin on both sides of 0; NaN without one, or with a relative one."""
        absolute, _ = margin_of(self.within)
        if set(self.within) != {"absolute"}:
            absolute = math.nan
        return 0.0 - absolute, absolute

    def demand(self) -> str:
        """Return in words where the interval must lie."""
        low, high = self.region()
        return f"must {self.verb} [{low:g}, {high:g}]"

    def pointless(self, metric: Metric) -> str:
        """Compare the margin with the largest differences that the range allows."""
        (low, high), (least, largest) = self.edges(metric), self.region()
        if low < least or high > largest or math.isnan(largest):
            return ""
        return f"can never fail: {range_in_words(metric)}; expected a smaller margin"

    def text(self) -> str:
        """Return, for example, ``deletion_auc equivalent to explainer:rise within 0.01``."""
        return f"{self.metric} equivalent to {self.other}{self._margin_in_words()}"

    def sentence(self, title: str, measured: str, name_of: Callable[[str], str] = str) -> str:
        """Return a sentence for readers: the margin and the measured difference."""
        return (
            f"{title} must be that of {self._beside(name_of)}{self._margin_in_words()}; the paired "
            f"improvement is {measured}."
        )


def _varies(estimate: Estimate) -> bool:
    """Return whether values differ between identities by more than rounding."""
    least = 1e-12 * max(1.0, abs(estimate.value))
    if not math.isnan(estimate.spread):
        return estimate.spread > least
    return estimate.high - estimate.low > least
