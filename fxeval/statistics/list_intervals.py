"""Intervals of AUC, EER and TMR at FMR, and of their differences on the same rows.

* AUC: the jackknife over identities on the logit, with Student's t at 96 % for a promise of 95 %.
  Where the figure is 0 or 1, with all rows or without one of the identities, or the same without
  each, the jackknife says nothing; then Clopper and Pearson's interval for as many trials as there
  are rows that share nobody (``disjoint_rows``).
* TMR at FMR: percentiles of the vertex bootstrap (``weighted_list``).
* EER: the wider end of the two, as it jumps from row to row: near 0, the jackknife alone passed
  falsely in 5 % of simulated lists.
* Differences: likewise, of the difference itself on its own scale.

An interval that would not keep its promise is not given, and the reason is said.

N rows, G identities, R resamples.

Source:
    Wolter, "Introduction to Variance Estimation", 2nd ed. 2007, chapter 4 (jackknife over
    clusters). Fogliato, Patil and Perona 2024, "Confidence Intervals for Error Rates in 1:1
    Matching Tasks", International Journal of Computer Vision (vertex bootstrap).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.disjoint_rows import disjoint_rows
from fxeval.statistics.distributions import beta_cdf, beta_quantile, t_quantile, t_tail
from fxeval.statistics.intervals import LIGHT_SHARE
from fxeval.statistics.list_figures import (
    RATE_OF,
    difference_without_each,
    value_of,
    without_each,
)
from fxeval.statistics.weighted_list import RESAMPLES, drawn_figure, percentiles

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

EER_MATED = 100
"""Fewest mated rows with which an EER has an interval: with 30, false passes were 10 %."""
FALSE_MATCHES = 5
"""Fewest false matches that a rate must allow for a lower end of its TMR."""


@dataclass(frozen=True, eq=False)
class ListEvidence:
    """What a list says about a figure, or a difference of two; here: nothing but its value.

    Attributes:
        value: The figure.
        why_open: Why there is no interval, or no lower end; "" if it has both ends.
    """

    value: float
    why_open: str = ""

    @property
    def method(self) -> str:
        """The method in words."""
        return f"no interval: {self.why_open}"

    @property
    def spread(self) -> float:
        """Standard error times the root of the number of identities; NaN if it is not estimated."""
        return math.nan

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval; NaN where there is none, -inf if only the low end is."""
        del confidence
        return math.nan, math.nan

    def tails(self, line: float) -> tuple[float, float]:
        """Return one-sided p-values: that the figure is not above a line, and that it's not below.

        They agree with the interval: it lies wholly above the line if the first is at most half of
        1 - confidence, and wholly below if the second is.
        """
        del line
        return 1.0, 1.0


@dataclass(frozen=True, eq=False)
class Jackknife(ListEvidence):
    """Known from the values without each identity.

    Attributes:
        without: (G,) the figure without each identity, finite.
        on_logit: Whether the interval is that of the logit.
    """

    without: FloatArray = field(default_factory=lambda: np.empty(0))
    on_logit: bool = False

    @property
    def method(self) -> str:
        """The method in words."""
        scale = " on the logit" if self.on_logit else ""
        return f"jackknife over identities{scale}, t at 96 % for 95 %, G = {len(self.without)}"

    @property
    def spread(self) -> float:
        """Standard error times the root of the number of identities."""
        deviations = self.without - self.without.mean()
        return math.sqrt((len(self.without) - 1) * float((deviations**2).sum()))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval."""
        level = 1 - LIGHT_SHARE * (1 - confidence)
        half = t_quantile(level, len(self.without) - 1) * self._error
        if not self.on_logit:
            return self.value - half, self.value + half
        centre = _logit(self.value)
        return 1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))

    def tails(self, line: float) -> tuple[float, float]:
        """Return the one-sided p-values."""
        if self.on_logit and not 0 < line < 1:
            return float(line >= 1), float(line <= 0)
        far = _logit(self.value) - _logit(line) if self.on_logit else self.value - line
        tail = t_tail(abs(far) / self._error, len(self.without) - 1) / 2 / LIGHT_SHARE
        return (min(tail, 1.0), 1.0) if far > 0 else (1.0, min(tail, 1.0))

    @property
    def _error(self) -> float:
        """Standard error on the scale of the interval."""
        slope = self.value * (1 - self.value) if self.on_logit else 1.0
        return self.spread / math.sqrt(len(self.without)) / slope


@dataclass(frozen=True, eq=False)
class Trials(ListEvidence):
    """Known from independent trials, of which the figure is the share.

    Attributes:
        trials: Number of trials.
        parts: Errors of how many kinds can hide: each side's tail is split between them.
    """

    trials: int = 0
    parts: int = 1

    @property
    def method(self) -> str:
        """The method in words."""
        return f"Clopper and Pearson, {self.trials} pairs or comparisons that share nobody"

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval; all that is possible where there is no trial."""
        if not self.trials:
            return 0.0, 1.0
        tail, hits = (1 - confidence) / 2 / self.parts, self.value * self.trials
        low = beta_quantile(tail, hits, self.trials - hits + 1) if hits > 0 else 0.0
        return low, (
            beta_quantile(1 - tail, hits + 1, self.trials - hits) if self.value < 1 else 1.0
        )

    def tails(self, line: float) -> tuple[float, float]:
        """Return the one-sided p-values."""
        if not self.trials:
            return float(line >= 0), float(line <= 1)
        hits, n = self.value * self.trials, self.trials
        not_above = beta_cdf(line, hits, n - hits + 1) if hits > 0 else float(line >= 0)
        not_below = 1 - beta_cdf(line, hits + 1, n - hits) if self.value < 1 else float(line <= 1)
        return min(1.0, self.parts * not_above), min(1.0, self.parts * not_below)


@dataclass(frozen=True, eq=False)
class Drawn(ListEvidence):
    """Known from resamples.

    Attributes:
        drawn: (R,) the figure in each; NaN where it has none.
    """

    drawn: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def method(self) -> str:
        """The method in words."""
        text = f"percentiles of {len(self.drawn):,} resamples of the identities (vertex bootstrap)"
        return f"{text}; no lower end: {self.why_open}" if self.why_open else text

    @property
    def spread(self) -> float:
        """NaN: the resamples do not say how many identities there are."""
        return math.nan

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval."""
        low, high = percentiles(self.value, self.drawn, confidence)
        return (-math.inf if self.why_open and not math.isnan(high) else low), high

    def tails(self, line: float) -> tuple[float, float]:
        """Return the one-sided p-values."""
        if math.isnan(percentiles(self.value, self.drawn)[0]):
            return 1.0, 1.0
        known = self.drawn[~np.isnan(self.drawn)]
        not_above = float((known <= line).mean()) if self.value > line else 1.0
        not_below = float((known >= line).mean()) if self.value < line else 1.0
        return (1.0 if self.why_open else not_above), not_below


@dataclass(frozen=True, eq=False)
class Wider(ListEvidence):
    """Known in two ways, of which the less certain one counts on each side.

    Attributes:
        one, two: The ways.
    """

    one: ListEvidence = field(kw_only=True)
    two: ListEvidence = field(kw_only=True)

    @property
    def method(self) -> str:
        """The method in words."""
        return f"the wider of: {self.one.method}; {self.two.method}"

    @property
    def spread(self) -> float:
        """That of the first way."""
        return self.one.spread

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval; NaN where one of the two has none."""
        lows, highs = zip(*(one.interval(confidence) for one in (self.one, self.two)), strict=True)
        return float(np.min(lows)), float(np.max(highs))

    def tails(self, line: float) -> tuple[float, float]:
        """Return the one-sided p-values."""
        above, below = zip(*(one.tails(line) for one in (self.one, self.two)), strict=True)
        return max(above), max(below)


def why_no_value(name: str, n_mated: int, n_nonmated: int) -> str:
    """Return why a list has no such figure; "" if it has one.

    >>> why_no_value("tmr_at_fmr_1e-2", 50, 50)
    'too few nonmated pairs: 50, at least 100 needed'
    """
    if not n_mated or not n_nonmated:
        return f"no {'nonmated' if n_mated else 'mated'} pairs"
    rate = RATE_OF.get(name, 1.0)
    if n_nonmated * rate < 1 - 1e-9:
        return f"too few nonmated pairs: {n_nonmated:,}, at least {round(1 / rate):,} needed"
    return ""


def why_open(name: str, n_mated: int, n_nonmated: int) -> str:
    """Return why a figure of a list has no interval, or no lower end; "" if it has both ends.

    >>> why_open("tmr_at_fmr_1e-2", 100, 300)
    '300 nonmated pairs, at least 500 needed for a lower end at this false match rate'
    """
    if name == "eer" and n_mated < EER_MATED:
        return f"{n_mated} mated pairs, at least {EER_MATED} needed for the interval of an EER"
    rate = RATE_OF.get(name)
    if rate is not None and n_nonmated * rate < FALSE_MATCHES - 1e-9:
        needed = math.ceil(FALSE_MATCHES / rate - 1e-9)
        return (
            f"{n_nonmated:,} nonmated pairs, at least {needed:,} needed for a lower end at this "
            "false match rate"
        )
    return ""


def list_evidence(
    name: str,
    values: FloatArray,
    is_mated: BoolArray,
    identities: IntArray,
    resamples: int = RESAMPLES,
) -> ListEvidence:
    """Return what a list says about one of its figures.

    Args:
        name: One of ``list_figures.LIST_FIGURES``.
        values: (N,) finite, larger for mated rows.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.
        resamples: Of the vertex bootstrap.

    Raises:
        ValueError: As ``list_figures.value_of``.
    """
    value = value_of(name, values, is_mated)
    drawn = np.empty(0)
    if name != "auc" and not (name == "eer" and is_mated.sum() < EER_MATED):
        drawn = drawn_figure(name, values, is_mated, identities, resamples)
    if name in RATE_OF:
        return rate_evidence(name, value, drawn, is_mated, identities)
    return figure_evidence(name, values, is_mated, identities, drawn)


def figure_evidence(
    name: str,
    values: FloatArray,
    is_mated: BoolArray,
    identities: IntArray,
    drawn: FloatArray,
) -> ListEvidence:
    """Return what a list says about its AUC or EER.

    Args:
        name: ``auc`` or ``eer``.
        values: (N,) finite, larger for mated rows.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.
        drawn: (R,) the EER in resamples of the identities; an AUC needs none.
    """
    value, n_mated = value_of(name, values, is_mated), int(is_mated.sum())
    reason = why_open(name, n_mated, len(values) - n_mated)
    if reason:
        return ListEvidence(value, reason)
    without = without_each(name, values, is_mated, identities)
    # Also false for NaN: without one of the identities, no mated or no nonmated row is left.
    inside = len(without) > 1 and without.min() > 0 and without.max() < 1
    if inside and 0 < value < 1 and np.ptp(without) > 1e-12:
        jackknife = Jackknife(value, "", without, on_logit=True)
        return jackknife if name == "auc" else _wider(jackknife, drawn)
    found = disjoint_rows(is_mated, identities)
    if name == "auc":
        return Trials(value, trials=found.comparisons)
    # No error shows neither that there are no false matches nor that there are no false nonmatches.
    return Trials(value, trials=min(found.mated, found.nonmated), parts=2)


def rate_evidence(
    name: str, value: float, drawn: FloatArray, is_mated: BoolArray, identities: IntArray
) -> ListEvidence:
    """Return what resamples say about a true match rate.

    Args:
        name: One of ``list_figures.RATE_OF``.
        value: Of the list.
        drawn: (R,) of resamples of its identities.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.
    """
    n_mated = int(is_mated.sum())
    reason = why_open(name, n_mated, len(is_mated) - n_mated)
    if value in (0.0, 1.0) and not reason and (drawn[~np.isnan(drawn)] == value).all():
        return Trials(value, trials=disjoint_rows(is_mated, identities).mated)
    return Drawn(value, reason, drawn)


def difference_evidence(
    name: str,
    columns: tuple[FloatArray, FloatArray],
    is_mated: BoolArray,
    identities: IntArray,
    resamples: int = RESAMPLES,
) -> ListEvidence:
    """Return what a list says about the difference of a figure of two columns of the same rows.

    Args:
        name: One of ``list_figures.LIST_FIGURES``.
        columns: (N,) each, finite: of the explainer and of a control, another explainer or an
            earlier run. The figure of the second is subtracted from that of the first.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.
        resamples: Of the vertex bootstrap.

    Raises:
        ValueError: As ``list_figures.value_of``.
    """
    n_mated = int(is_mated.sum())
    reason = why_open(name, n_mated, len(is_mated) - n_mated)
    value, without = difference_without_each(name, *columns, is_mated, identities)
    if reason:
        return ListEvidence(value, reason)
    drawn = np.empty(0)
    if name != "auc":
        one, two = (
            drawn_figure(name, column, is_mated, identities, resamples) for column in columns
        )
        drawn = one - two
    if name in RATE_OF:
        if np.ptp(drawn) == 0:
            return ListEvidence(value, "the difference is the same in every resample")
        return Drawn(value, "", drawn)
    if np.isnan(without).any() or len(without) < 2:
        return ListEvidence(value, "without one identity, no mated or no nonmated row is left")
    if np.ptp(without) <= 1e-12:
        return ListEvidence(value, "the difference is the same without each of the identities")
    jackknife = Jackknife(value, "", without)
    return jackknife if name == "auc" else _wider(jackknife, drawn)


def _wider(jackknife: Jackknife, drawn: FloatArray) -> Wider:
    return Wider(jackknife.value, one=jackknife, two=Drawn(jackknife.value, "", drawn))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
