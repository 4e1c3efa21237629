"""Steps and drift in the values of one quantity over many runs: numbers in, numbers out.

Runs on one class of hardware repeat but for rounding, so most series are flat with a step where the
code changed; stochastic explainers add noise. Everything here rests on medians and signs, which a
single odd run does not move. n values, in the order of the runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

WINDOW = 5
"""Runs in a window of a rolling median, and at most on either side of a step."""

FEWEST = 3
"""Fewest runs on either side of a step."""

FACTOR = 4.0
"""Standard deviations of a difference of two medians that a step must exceed."""

FIT = 0.8
"""The deviations from two levels must be less than this share of those from a line."""

FEWEST_FOR_DRIFT, DRIFT_OVER = 10, 200
"""Fewest and most runs that a drift is looked for in."""

# Variance of the median of k standard normal values.
_MEDIAN_VARIANCE = {1: 1.0, 2: 0.5, 3: 0.4487, 4: 0.2982, 5: 0.2868}
# What makes the median and the mean of absolute residuals about a rolling median of 5, of which
# the value itself is one, estimates of the standard deviation of normal values.
_BY_MEDIAN, _BY_MEAN = 1.4826 * 1.372, 1.2533 * 1.205
_ROUNDING = 1e-7  # of the largest value


@dataclass(frozen=True)
class Step:
    """A change from one level to another.

    Attributes:
        at: Index of the first value of the new level.
        before: Median of up to 5 values before it.
        after: Median of up to 5 values from it on.
        needed: The change that noise does not reach.
    """

    at: int
    before: float
    after: float
    needed: float

    @property
    def change(self) -> float:
        """The new level less the old one."""
        return self.after - self.before


@dataclass(frozen=True)
class Drift:
    """A slow change in one direction.

    Attributes:
        start: Index of the first value that it was looked for in.
        change: Theil-Sen slope times the number of steps between the first and the last value.
        p_value: Two-sided probability of values as ordered as these if their order were random.
    """

    start: int
    change: float
    p_value: float


def rolling_median(values: FloatArray) -> FloatArray:
    """Return (n,) medians of the values at most two places away; fewer at both ends.

    >>> rolling_median(np.array([1.0, 1.0, 9.0, 1.0, 2.0, 2.0])).tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    """
    n, half = len(values), WINDOW // 2
    found = np.array([np.median(values[max(0, at - half) : at + half + 1]) for at in _ends(n)])
    if n < WINDOW:
        return found
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, WINDOW), axis=1)
    return np.concatenate([found[:half], inner, found[half:]])


def _ends(n: int) -> Sequence[int]:
    half = WINDOW // 2
    return range(n) if n < WINDOW else [*range(half), *range(n - half, n)]


def noise_of(values: FloatArray) -> float:
    """Return a standard deviation of the values about their rolling median.

    It is the larger one of 1.4826 times the median, and 1.2533 times the mean, of the absolute
    residuals, each corrected for the fact that a value is one of the five in its own window. The
    rolling median follows a step, so a clean step adds nothing. 0 if the values repeat.

    >>> noise_of(np.array([0.3] * 10 + [0.7] * 10))
    0.0
    """
    residuals = np.abs(values - rolling_median(values))
    if not len(residuals):
        return 0.0
    return float(max(_BY_MEDIAN * np.median(residuals), _BY_MEAN * residuals.mean()))


def steps_of(values: FloatArray, least: float = 0.0) -> list[Step]:
    """Return the steps between levels, in their order.

    At a place with at least 3 values on either side, m <= 5 of them before it and k <= 5 after it,
    a step is there if the medians of the two differ by more than

        max(4 s sqrt(v_m + v_k), least, 1e-7 of the largest value),

    with s of :func:`noise_of` and v_k the variance of the median of k standard normal values (v_5 =
    0.287, so that the first term is 3.03 s for whole windows), if no value of one side lies among
    those of the other, and if the sum of absolute deviations from the two medians is less than 0.8
    of that from a straight line through both sides: a drift has no step. Of such places the one
    farthest beyond is taken and moved to where the deviations from the two medians are least; then
    both parts are looked at in the same way.

    Args:
        values: (n,) finite values.
        least: A change that does not matter, >= 0.

    Example:
        >>> [(one.at, one.change) for one in steps_of(np.array([1.0] * 6 + [3.0] * 6))]
        [(6, 2.0)]
    """
    if len(values) < 2 * FEWEST:
        return []
    floor = max(least, _ROUNDING * float(np.abs(values).max()))
    if np.ptp(values) <= floor:
        return []
    centred = values - np.median(values)  # so that adding a number to all moves nothing
    scale = noise_of(centred)
    found: list[Step] = []
    parts = [(0, len(values))]
    while parts:
        start, end = parts.pop()
        at = _step_in(centred[start:end], scale, floor)
        if at is None:
            continue
        parts += [(start, start + at), (start + at, end)]
        before = values[max(start, start + at - WINDOW) : start + at]
        after = values[start + at : min(end, start + at + WINDOW)]
        needed = max(floor, _needed(len(before), len(after), scale))
        found.append(Step(start + at, float(np.median(before)), float(np.median(after)), needed))
    return sorted(found, key=lambda step: step.at)


def departure_of(values: FloatArray, least: float = 0.0) -> int:
    """Return how many of the last values, 1 or 2, left the level before them; 0 if none did.

    They lie on one side of all of the 5 values before them, and farther from the median of these
    than max(4 s sqrt(1 + v_5), least) and than twice what their slope gives. Whether that is a
    step, more runs must tell.

    >>> departure_of(np.array([1.0] * 6 + [1.5]))
    1
    """
    scale = noise_of(values)
    floor = max(least, _ROUNDING * float(np.abs(values).max(initial=0.0)))
    for count in (2, 1):
        before, last = values[-count - WINDOW : -count], values[-count:]
        if len(before) < WINDOW:
            continue
        level = float(np.median(before))
        away = float(min(abs(last - level)))
        is_beyond = bool(last.min() > before.max() or last.max() < before.min())
        towards = float(np.sign(last[0] - level) * _slopes(before[None])[0])
        drifted = 2.0 * max(0.0, towards) * (WINDOW + 1) / 2
        if is_beyond and away > max(floor, drifted, _needed(WINDOW, 1, scale)):
            return count
    return 0


def drift_of(values: FloatArray, start: int = 0) -> Drift | None:
    """Return the drift of the values from ``start`` on; None if they are fewer than 10.

    The p-value is that of the Mann-Kendall test by the normal approximation, with the correction
    for ties and for continuity. Of more than 200 values the last 200 are looked at.

    >>> drift_of(np.arange(20.0)).p_value < 1e-6, drift_of(np.ones(20)).p_value
    (True, 1.0)

    Source:
        Mann 1945, Econometrica 13; Sen 1968, Journal of the American Statistical Association 63.
    """
    start = max(start, len(values) - DRIFT_OVER)
    part = values[start:]
    n = len(part)
    if n < FEWEST_FOR_DRIFT:
        return None
    first, second = np.triu_indices(n, 1)
    differences = part[second] - part[first]
    slope = float(np.median(differences / (second - first)))
    return Drift(start, slope * (n - 1), _mann_kendall(part, float(np.sign(differences).sum())))


def _mann_kendall(values: FloatArray, score: float) -> float:
    n = len(values)
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    variance = (
        n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    ) / 18.0
    if variance <= 0 or abs(score) <= 1:
        return 1.0
    return math.erfc((abs(score) - 1.0) / math.sqrt(2.0 * variance))


def _needed(m: int, k: int, scale: float) -> float:
    return FACTOR * scale * math.sqrt(_MEDIAN_VARIANCE[m] + _MEDIAN_VARIANCE[k])


def _step_in(values: FloatArray, scale: float, floor: float) -> int | None:
    """Return where the clearest step is; None if there is none."""
    n = len(values)
    places = range(FEWEST, n - FEWEST + 1)
    whole = range(WINDOW, n - WINDOW + 1)  # places with whole windows, all at once
    beyond = np.full(n + 1, -np.inf)
    if len(whole):
        windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
        before, after = windows[: len(whole)], windows[WINDOW : WINDOW + len(whole)]
        beyond[whole.start : whole.stop] = _beyond(before, after, scale, floor)
    for at in places:
        if at not in whole:
            before, after = values[max(0, at - WINDOW) : at], values[at : at + WINDOW]
            beyond[at] = _beyond(before[None], after[None], scale, floor)[0]
    best = int(np.argmax(beyond))
    return None if beyond[best] <= 0 else _moved(values, best, floor)


def _beyond(before: FloatArray, after: FloatArray, scale: float, floor: float) -> FloatArray:
    """Return by how much each pair of windows differs more than it must; -inf where they mix."""
    change = np.median(after, axis=1) - np.median(before, axis=1)
    m, k = before.shape[1], after.shape[1]
    needed = max(floor, _needed(m, k, scale))
    is_apart = (before.max(axis=1) < after.min(axis=1)) | (before.min(axis=1) > after.max(axis=1))
    levels = sum(
        np.abs(side - np.median(side, axis=1, keepdims=True)).sum(axis=1)
        for side in (before, after)
    )
    is_step = levels < FIT * _about_a_line(np.concatenate([before, after], axis=1))
    return np.where(is_apart & is_step, np.abs(change) - needed, -np.inf)


def _about_a_line(windows: FloatArray) -> FloatArray:
    """Return the sum of absolute deviations of each window from its least-squares line."""
    places = np.arange(windows.shape[1]) - (windows.shape[1] - 1) / 2
    lines = _slopes(windows)[:, None] * places + windows.mean(axis=1, keepdims=True)
    deviations: FloatArray = np.abs(windows - lines).sum(axis=1)
    return deviations


def _slopes(windows: FloatArray) -> FloatArray:
    """Return the least-squares slope of each window, (windows, values)."""
    places = np.arange(windows.shape[1]) - (windows.shape[1] - 1) / 2
    slopes: FloatArray = windows @ (places / (places**2).sum())
    return slopes


def _moved(values: FloatArray, at: int, floor: float) -> int:
    """Return the place nearby that parts the values best; of equally good ones the first."""
    start, end = max(0, at - WINDOW), min(len(values), at + WINDOW)
    part = values[start:end]
    places = range(FEWEST, len(part) - FEWEST + 1)
    costs = [
        sum(float(np.abs(side - np.median(side)).sum()) for side in (part[:one], part[one:]))
        for one in places
    ]
    least = min(costs) + floor * 1e-3
    return start + next(one for one, cost in zip(places, costs, strict=True) if cost <= least)
