"""Types of results, shared by all rooms: states, metrics, estimates, verdicts. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

Condition: TypeAlias = Mapping[str, str | float]
"""Named axes of a value, such as ``{"fill": "blur", "fraction": 0.01}``; {} = no axes."""

Better = Literal["lower", "higher"]
Statistic = Literal[
    "mean",
    "median",
    "auc",
    "eer",
    "tmr_at_fmr_1e-1",
    "tmr_at_fmr_1e-2",
    "tmr_at_fmr_1e-3",
    "ratio",
]
"""What is estimated from the values of the rows: over identities, or a figure of the whole list.

``ratio``: the mean of the values over the mean of another metric's values, the denominator.
"""

FIGURES: frozenset[Statistic] = frozenset(
    {"auc", "eer", "tmr_at_fmr_1e-1", "tmr_at_fmr_1e-2", "tmr_at_fmr_1e-3"}
)
"""Statistics of the whole list: no row has a value of its own that could be compared."""

ValueKind = Literal["light", "heavy", "rate"]
"""How the values of identities are distributed, which decides the method of the interval.

``light``: skewness of at most 2 (areas under curves, similarities, correlations). ``heavy``:
unbounded ratios and logarithms, and whatever nobody has looked at. ``rate``: shares of events, and
values of which half lie within 1 % of the range from one edge.
"""

Over = Literal["population", "list"]
"""What a limit is about: all people like those of the list, or this list."""

Judge = Literal["each", "worst", "mean"]
"""How a limit without a pinned condition is judged over the conditions."""

Severity = Literal["critical", "warning", "info"]

EXPLAINER = "explainer"
"""The name of the explainer's own values, beside ``control.<name>``."""

TIED_SHARE = "tied_share"
"""Diagnostic of every map: the share of its pixels whose value another pixel has too."""

ORDERS_OF_TIES = "orders_of_ties"
"""Diagnostic of a ranked map: the number of orders of its ties that its values are means over."""


class RowState(StrEnum):
    """The state of one value of a row."""

    OK = "ok"
    DEGENERATE_MAP = "degenerate_map"  # constant or all-zero; its pixels are ranked at random
    NAN_MAP = "nan_map"
    NO_GRADIENT = "no_gradient"
    WRONG_SHAPE = "wrong_shape"
    EXPLAINER_RAISED = "explainer_raised"
    MODEL_CHANGED = "model_changed"
    NOT_CROSSED = "not_crossed"  # the similarity never crossed the operating threshold
    START_BEYOND = "start_beyond"  # the starting image is already on the far side
    EXCLUDED = "excluded"  # for a decision: no match to begin with, or no operating threshold


BROKEN_STATES = frozenset(
    {RowState.NAN_MAP, RowState.NO_GRADIENT, RowState.WRONG_SHAPE,
     RowState.EXPLAINER_RAISED, RowState.MODEL_CHANGED}
)  # fmt: skip

DECIDED_AT_START = frozenset({RowState.START_BEYOND, RowState.EXCLUDED})
"""States of a value that no map has a part in: it enters no estimate."""


def gravity(state: RowState) -> int:
    """Return how grave a state is: broken maps most, then starts that decide, then constant maps.

    >>> sorted([RowState.NAN_MAP, RowState.OK, RowState.DEGENERATE_MAP], key=gravity)[0].value
    'ok'
    """
    if state in BROKEN_STATES:
        return 4
    if state in DECIDED_AT_START:
        return 3
    return {RowState.DEGENERATE_MAP: 2, RowState.OK: 0}.get(state, 1)


@dataclass(frozen=True)
class Metric:
    """A quantity under a condition, and what it means.

    Attributes:
        name: Quantity and condition, for example ``deletion_auc``.
        title: The name in words.
        unit: Unit of the value.
        better: Which direction is better for the explainer.
        range: Least and largest possible value of a row; infinite where there is no bound. Of a
            ratio they are those of its numerator.
        statistic: Statistic of the rows that is estimated.
        source: Paper and section.
        meaning: One sentence for the reader of a scorecard.
        kind: How the values are distributed, as declared from reference runs, never from the rows
            that are judged; ``heavy`` where nobody knows. Of a ratio: how the values of its
            numerator less a multiple of its denominator are.
        is_decision: Whether the value says where the model's decision flips. Its limits can be
            passed only where a random order fails them (``fxeval.statistics.decisions``).
        denominator: Of a ratio, the metric of the same cell whose mean divides; its values stand
            beside those of this metric in each row.
        least_denominator: Of a ratio, the mean of the denominator below which there is nothing to
            compare with.
        constant_allowed: Largest share of the rows, 0 to 1, that may have a constant map under a
            condition that the value needs: with more of them, its limits are not passed. None =
            the rule of most checks holds, where a cell fails with more than 1 % constant maps.
        void_if: Why a row can be without a value (``excluded``) though its map is sound, as a
            clause; more than ``void_share`` of such rows make the metric unfit.
        void_share: Largest share of such rows, 0 to 1.
        information_only: Why its values decide nothing, so that a suite's limits on it must have
            the severity ``info``; "" if a limit on it may decide.
    """

    name: str
    title: str
    unit: str
    better: Better
    range: tuple[float, float]
    statistic: Statistic
    source: str
    meaning: str
    is_decision: bool = False
    kind: ValueKind = "heavy"
    denominator: str = ""
    least_denominator: float = 0.0
    constant_allowed: float | None = None
    void_if: str = ""
    void_share: float = 0.2
    information_only: str = ""


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval.

    Attributes:
        value: The value.
        low: Lower end; NaN where no interval can be given, -inf where only this end can't.
        high: Upper end; likewise.
        confidence: That the interval promises, two-sided.
        n_pairs: Number of rows.
        n_identities: Number of identities.
        method: The method in words, with the level it was used at.
        effective_identities: As many identities with equally many rows each would weigh as much:
            (sum of m)^2 / sum of m^2, with m rows of an identity.
        largest_share: Largest share of the rows that one identity has a part in, 0 to 1.
        spread: Standard deviation over identities of the values that are averaged (for a figure of
            the whole list, the standard error times the root of the number of identities).
    """

    value: float
    low: float
    high: float
    confidence: float
    n_pairs: int
    n_identities: int
    method: str
    effective_identities: float = math.nan
    largest_share: float = math.nan
    spread: float = math.nan


class Outcome(StrEnum):
    """The four verdicts, and two for cells without one.

    ``information``: the suite asks for information alone, so nothing is decided. ``unsupported``:
    the suite says to skip such models.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    INFORMATION = "information"
    UNSUPPORTED = "unsupported"


def attempts(earlier: Sequence[str]) -> str:
    """Say how often a cell was run, and how it ended before; "" if it was run once.

    Args:
        earlier: Verdicts of the attempts before the one that counts.

    >>> attempts(["invalid"])
    'run 2 times, of which the last counts; before: invalid'
    """
    if not earlier:
        return ""
    return f"run {len(earlier) + 1} times, of which the last counts; before: {', '.join(earlier)}"


@dataclass(frozen=True)
class Verdict:
    """An outcome and the sentence that justifies it."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class MapLayer:
    """A layer of a network that maps were made at.

    Attributes:
        name: Its dotted name.
        shape: Of its output for one image.
        reading: How that was read as a map: ``channels_first`` for (C, h, w), ``channels_last`` for
            (h, w, C), ``tokens`` for (T, D).
        grid: (h, w) of the map.
    """

    name: str
    shape: tuple[int, ...]
    reading: str
    grid: tuple[int, int]
