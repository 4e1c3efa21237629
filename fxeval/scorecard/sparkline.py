"""Values over runs as one word of text."""

import math
from collections.abc import Sequence

from fxeval.statistics.trend import Trend

MOST = 24
"""Most runs that a sparkline shows, the last ones."""

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"
"""Eight levels from the lowest to the highest, for terminals with and without Unicode."""


def sparkline(trend: Trend, *, is_plain: bool = False, most: int = MOST) -> str:
    """Return the last values, one character a run.

    A run without a valid value is a ``?``, and a ``|`` stands where the class of hardware or the
    question changes. Equal values stand in the middle.

    Args:
        trend: Of one series.
        is_plain: Whether the terminal knows ASCII alone.
        most: Most runs.
    """
    points = trend.series.points
    start = max(0, len(points) - most)
    used = {at for strand in trend.strands for at in strand.used}
    values = [points[at].value if at in used else math.nan for at in range(start, len(points))]
    marks = {one.at - start for one in trend.breaks}
    drawn = levels(values, PLAIN if is_plain else BLOCKS)
    return "".join(("|" if at in marks and at else "") + mark for at, mark in enumerate(drawn))


def levels(values: Sequence[float], marks: str = BLOCKS) -> str:
    """Return a mark for each value, by its place between the least and the greatest.

    >>> levels([1.0, 2.0, float("nan"), 8.0])
    '▁▂?█'
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def mark(value: float) -> str:
        if not math.isfinite(value):
            return "?"
        if high <= low:
            return marks[len(marks) // 2 - 1]
        return marks[min(len(marks) - 1, int((value - low) / (high - low) * len(marks)))]

    return "".join(mark(value) for value in values)
