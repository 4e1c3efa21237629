"""Which interval decides: from one value per identity to the bounds of their mean.

* **S**, for means of continuous values: ``fxeval.statistics.skew_t``, used at a stricter level than
  promised: light values 96 % for 95, heavy ones 99.
* **B**, for rates and whatever has mass at an edge: ``fxeval.statistics.race``.
* **C**, for comparisons that belong to two identities: ``fxeval.statistics.crossed``.
* **L**, for figures of a whole list: ``fxeval.statistics.list_intervals``.

The kind of a value is declared before anything is measured. A sample may only widen its interval:
one that decides by its own skewness passes falsely where it hides its skewness.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fxeval.results import ValueKind
from fxeval.statistics.crossed import crossed, crossed_rate, crossed_rate_tails
from fxeval.statistics.race import gaffke, gaffke_tails, race
from fxeval.statistics.skew_t import Moments, skew_t, skew_t_tails, spread_of

__all__ = [
    "Intervals", "chosen", "clears", "crossed", "crossed_rate", "crossed_rate_tails", "gaffke",
    "gaffke_tails", "interval", "interval_tails", "race", "rarest_seen", "skew_t", "skew_t_tails",
    "spread_of", "used_level",
]  # fmt: skip

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LIGHT_SHARE, HEAVY_SHARE = 0.8, 0.2
"""What S may err as a share of what is promised: 96 % and 99 % for 95 %."""

HEAVY_SKEWNESS = 2.0
"""Sample skewness beyond which light values count as heavy."""

HOPELESS_SKEWNESS = 0.75
"""Sample skewness as a share of the root of G, its maximum, beyond which S is no use."""

SKEW_T = "skewness-corrected t"
"""The name of S in a method."""

MIN_INFORMATIVE = 8
"""Fewest identities with another than the commonest value with which S is of use."""


@dataclass(frozen=True)
class Intervals:
    """Bounds of means, and how each was found; all arrays (...).

    Attributes:
        low: Lower ends; -inf or NaN where there is none.
        high: Upper ends; likewise.
        level: Level that S was used at; NaN where B was.
        skewness: Of the sample; 0 where S is not defined.
        informative: Number of identities with another than the commonest value.
        spread: Standard deviation; 0 where nothing but rounding varies, NaN for one identity.
        identities: Number of identities, G.
        edges: Least and largest possible values.
        confidence: Promised.
    """

    low: FloatArray
    high: FloatArray
    level: FloatArray
    skewness: FloatArray
    informative: NDArray[np.int64]
    spread: FloatArray
    identities: int
    edges: tuple[FloatArray, FloatArray]
    confidence: float

    def method(self, *at: int) -> str:
        """Return in words how one of the intervals was found, or why there is none."""
        G, informative = self.identities, int(self.informative[at])
        skewness = round(float(self.skewness[at]), 2) + 0.0  # never -0
        about = f"{G} identities, {informative} informative, skewness {skewness:.2f}"
        level = float(self.level[at])
        if not math.isnan(level):
            return f"{SKEW_T} at {_percent(level)} over {about}"
        low, high = (float(edge[at]) for edge in self.edges)
        if math.isinf(low) and math.isinf(high):
            reason = self._reason(informative, abs(skewness))
            return f"no interval: {reason}, and the values have no edges"
        ends = f"{'[' if math.isfinite(low) else '('}{low:g}, {high:g}"
        ends += "]" if math.isfinite(high) else ")"
        return f"Gaffke's bound on {ends} at {_percent(self.confidence)} over {about}"

    def _reason(self, informative: int, skewness: float) -> str:
        G = self.identities
        if G < 3:
            return f"{G} {'identity' if G == 1 else 'identities'}, at least 3 needed"
        if informative == 0:
            return f"all {G} identities have the same value"
        if informative < MIN_INFORMATIVE:
            return (
                f"only {informative} of {G} identities have another than the commonest value, at "
                f"least {MIN_INFORMATIVE} needed"
            )
        if skewness > HOPELESS_SKEWNESS * math.sqrt(G):
            return "a few identities decide alone"
        return "a rate needs the edges of its values"


def used_level(confidence: float, kind: ValueKind) -> float:
    """Return the level at which S or L is used to keep a promise.

    >>> round(used_level(0.95, "light"), 10), round(used_level(0.95, "heavy"), 10)
    (0.96, 0.99)
    """
    return 1.0 - (1.0 - confidence) * (LIGHT_SHARE if kind == "light" else HEAVY_SHARE)


def rarest_seen(identities: int, confidence: float = 0.95) -> float:
    """Return the share of a group that a sample has no member of with a probability of alpha / 2.

    >>> round(rarest_seen(30), 3)
    0.116
    """
    return -math.expm1(math.log((1.0 - confidence) / 2.0) / identities)


def interval(
    y: ArrayLike,
    kind: ValueKind | Sequence[ValueKind],
    low_edge: ArrayLike = -math.inf,
    high_edge: ArrayLike = math.inf,
    confidence: float = 0.95,
) -> Intervals:
    """Return the intervals of means, each by the method that its kind and its sample allow.

    Args:
        y: (..., G) one value per identity, none beyond the edges.
        kind: Of all, or of each of (B, G) values.
        low_edge: (...) least possible value; -inf = none.
        high_edge: (...) largest possible value; inf = none.
        confidence: Two-sided, promised.
    """
    choice = _Choice(np.asarray(y, dtype=np.float64), kind, (low_edge, high_edge), confidence)
    low = np.full(choice.shape, -math.inf)
    high = np.full(choice.shape, math.inf)
    for share in (LIGHT_SHARE, HEAVY_SHARE):
        some = choice.by_share(share)
        if some.any():
            ends = choice.moments.at(some).bounds(1.0 - (1.0 - confidence) * share)
            low[some] = np.maximum(ends[0], choice.edges[0][some])
            high[some] = np.minimum(ends[1], choice.edges[1][some])
    some = choice.by_race
    if some.any():
        ends = choice.edges[0][some], choice.edges[1][some]
        low[some], high[some] = gaffke(choice.y[some], ends[0], ends[1], confidence)
    none = np.isinf(low) & np.isinf(high)
    low[none] = high[none] = math.nan
    return Intervals(
        low, high, choice.level, choice.moments.skewness, choice.informative,
        choice.moments.spread, choice.y.shape[-1], choice.edges, confidence,
    )  # fmt: skip


def interval_tails(
    y: ArrayLike,
    kind: ValueKind | Sequence[ValueKind],
    low_edge: ArrayLike,
    high_edge: ArrayLike,
    line: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Return the p-values that belong to :func:`interval`, whatever its confidence.

    Args:
        y: (..., G) one value per identity, none beyond the edges.
        kind: Of all, or of each of (B, G) values.
        low_edge: (...) least possible value; -inf = none.
        high_edge: (...) largest possible value; inf = none.
        line: (...) the mean in question.

    Returns:
        (...) above: at most alpha / 2 exactly where the interval lies at or above the line; and
        (...) below.
    """
    choice = _Choice(np.asarray(y, dtype=np.float64), kind, (low_edge, high_edge), 0.95)
    lines = np.broadcast_to(np.asarray(line, dtype=np.float64), choice.shape)
    above, below = np.ones(choice.shape), np.ones(choice.shape)
    for share in (LIGHT_SHARE, HEAVY_SHARE):
        some = choice.by_share(share)
        if some.any():
            found = choice.moments.at(some).tails(lines[some])
            above[some], below[some] = (np.minimum(1.0, one / share) for one in found)
    some = choice.by_race
    if some.any():
        ends = choice.edges[0][some], choice.edges[1][some]
        above[some], below[some] = gaffke_tails(choice.y[some], ends[0], ends[1], lines[some])
    above[lines <= choice.edges[0]] = 0.0
    below[lines >= choice.edges[1]] = 0.0
    return above, below


def clears(
    y: ArrayLike,
    kind: ValueKind | Sequence[ValueKind],
    edges: tuple[ArrayLike, ArrayLike],
    line: ArrayLike,
    confidence: float = 0.95,
) -> tuple[BoolArray, BoolArray]:
    """Return whether intervals lie on one side of a line, without solving for their bounds.

    Args:
        y: (..., G) one value per identity, none beyond the edges.
        kind: Of all, or of each of (B, G) values.
        edges: (...) each, least and largest possible value; infinite where there is none.
        line: (...) the mean in question.
        confidence: Two-sided, promised.

    Returns:
        (...) whether the interval lies at or above the line; and (...) at or below.
    """
    choice = _Choice(np.asarray(y, dtype=np.float64), kind, edges, confidence)
    lines = np.broadcast_to(np.asarray(line, dtype=np.float64), choice.shape)
    above, below = np.zeros(choice.shape, dtype=bool), np.zeros(choice.shape, dtype=bool)
    for share in (LIGHT_SHARE, HEAVY_SHARE):
        some = choice.by_share(share)
        if some.any():
            low, high = choice.moments.at(some).bounds(1.0 - (1.0 - confidence) * share)
            above[some], below[some] = low >= lines[some], high <= lines[some]
    some = choice.by_race
    if some.any():
        ends = choice.edges[0][some], choice.edges[1][some]
        found = gaffke_tails(choice.y[some], ends[0], ends[1], lines[some])
        above[some], below[some] = (one <= (1.0 - confidence) / 2.0 for one in found)
    return above | (lines <= choice.edges[0]), below | (lines >= choice.edges[1])


def chosen(y: ArrayLike, kind: ValueKind, confidence: float = 0.95) -> tuple[float, float, int]:
    """Return how the interval of (G,) values would be found, without finding it.

    Returns:
        The level at which S is used, NaN = B; the sample's skewness; how many identities have
        another than the commonest value.
    """
    edges = (-math.inf, math.inf)
    choice = _Choice(np.asarray(y, dtype=np.float64), kind, edges, confidence)
    return float(choice.level), float(choice.moments.skewness), int(choice.informative)


class _Choice:
    """Which method each of many samples takes."""

    def __init__(
        self,
        y: FloatArray,
        kind: ValueKind | Sequence[ValueKind],
        edges: tuple[ArrayLike, ArrayLike],
        confidence: float,
    ) -> None:
        self.y, self.shape = y, y.shape[:-1]
        low, high = (np.broadcast_to(np.asarray(e, dtype=np.float64), self.shape) for e in edges)
        self.edges = low, high
        self.moments = Moments(y)
        self.informative = y.shape[-1] - _commonest(y)
        skewness = np.abs(self.moments.skewness)
        kinds = np.broadcast_to(np.asarray(kind), self.shape)
        self.by_race: BoolArray = (
            (kinds == "rate")
            | (self.informative < MIN_INFORMATIVE)
            | ~self.moments.varies
            | (skewness > HOPELESS_SKEWNESS * math.sqrt(y.shape[-1]))
        )
        heavy = (kinds == "heavy") | (skewness > HEAVY_SKEWNESS)
        self._share = np.where(heavy, HEAVY_SHARE, LIGHT_SHARE)
        level = 1.0 - (1.0 - confidence) * self._share
        self.level: FloatArray = np.where(self.by_race, math.nan, level)

    def by_share(self, share: float) -> BoolArray:
        """Return which samples take S and may err as this share of what is promised."""
        found: BoolArray = ~self.by_race & (self._share == share)
        return found


def _commonest(y: FloatArray) -> NDArray[np.int64]:
    """Return (...) how many of the (..., G) values equal the commonest one."""
    ordered = np.sort(y, axis=-1)
    place = np.arange(y.shape[-1])
    starts = np.zeros(y.shape, dtype=np.int64)
    starts[..., 1:] = np.where(ordered[..., 1:] != ordered[..., :-1], place[1:], 0)
    run = place - np.maximum.accumulate(starts, axis=-1) + 1
    found: NDArray[np.int64] = run.max(axis=-1)
    return found


def _percent(level: float) -> str:
    """Write a level, such as ``96 %``.

    >>> _percent(0.96), _percent(0.992), _percent(1.0 - 2e-9)
    ('96 %', '99.2 %', '99.9999998 %')
    """
    text = f"{100 * level:.6g}"
    return f"{f'{100 * level:.12g}' if text == '100' else text} %"
