"""What is said of a trend, in the words that all of its views share. It makes no verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fxeval.records.series import Point, Series
from fxeval.scorecard.wording import condition, counted, interval, number, visible
from fxeval.statistics.steps import FEWEST
from fxeval.statistics.trend import Movement, Strand, Trend

READING = (
    "A trend is advice and gates nothing: a limit with not_worse_than decides, on the same rows of "
    "two runs. Values are compared within one class of hardware and one question (model, images, "
    "seed, parameters of the check)."
)
RULES = (
    "Step: the medians of the up to 5 runs before and after differ by more than 4 s sqrt(v_m + "
    "v_k), which is 3.03 s for 5 runs each, with s the robust standard deviation of the values "
    "about their rolling median of 5 runs; no run of one side lies among those of the other; and "
    "two levels fit clearly better than a line. At least 3 runs must stand on either side.",
    "Off level: the last run, or the last two, lie beyond all 5 runs before and farther than "
    "4 s sqrt(1 + v_5) from their median. Whether it is a step, more runs must tell.",
    "Drift: by the Mann-Kendall test over the runs since the last step (10 to 200), at 0.05 after "
    "Benjamini and Hochberg's correction over all series.",
    "Small: less than the half-width of the intervals. It is real for the people of this list, and "
    "no more than other people could make.",
    "A change of less than a hundredth of that half-width is none.",
)

_TOO_FEW, _NO_VALUE = "too few runs", "no value"


def shown(trend: Trend) -> Trend:
    """Return a trend whose texts hold no control or direction characters."""
    series = trend.series
    words = (
        "suite", "cell", "check", "kind", "model", "explainer", "pairs", "metric", "title", "unit",
    )  # fmt: skip
    clean = replace(
        series,
        **{name: visible(getattr(series, name)) for name in words},
        under=visible(dict(series.under)),
        points=tuple(_clean(point) for point in series.points),
    )
    strands = tuple(
        replace(one, hardware_class=visible(one.hardware_class)) for one in trend.strands
    )
    breaks = tuple(replace(one, reason=visible(one.reason)) for one in trend.breaks)
    return replace(trend, series=clean, strands=strands, breaks=breaks)


def _clean(point: Point) -> Point:
    texts = ("run", "started", "commit", "fxeval", "hardware_class")
    return replace(point, **{name: visible(getattr(point, name)) for name in texts})


def metric_text(series: Series) -> str:
    """Return the metric with its condition, such as ``deletion_auc, fill blur``."""
    return f"{series.metric}{condition(series.under)}"


def named(trends: Sequence[Trend]) -> tuple[str, list[str]]:
    """Return what all trends share of explainer, check, model and pairs, and a name for each.

    The names hold the parts that differ, and the id of the cell where none does.
    """
    parts = ("explainer", "check", "model", "pairs")
    of = {part: [getattr(one.series, part) for one in trends] for part in parts}
    shared = [f"{part} {of[part][0]}" for part in parts if len(set(of[part])) == 1]
    own = [part for part in parts if len(set(of[part])) > 1]
    names = [
        " ".join(of[part][at] for part in own) or one.series.cell for at, one in enumerate(trends)
    ]
    return (f"all of {', '.join(shared)}" if shared else ""), names


def status(trend: Trend) -> str:
    """Say in a few words what moved.

    Returns:
        Such as ``step (worse)``, ``small step (better)``, ``off level (worse)``, ``drift (worse)``,
        ``level``, ``too few runs`` or ``no value``.
    """
    found = trend.finding
    if found is not None:
        return movement_words(found)
    most = max((len(one.used) for one in trend.strands), default=0)
    if not most:
        return _NO_VALUE
    return "level" if most >= 2 * FEWEST else _TOO_FEW


def movement_words(movement: Movement) -> str:
    """Return the kind of a movement, its size and its effect in words."""
    kind = {"step": "step", "departure": "off level", "drift": "drift"}[movement.kind]
    return f"{'small ' if movement.is_small else ''}{kind} ({movement.effect})"


def signed(movement: Movement) -> str:
    """Write the change with its sign."""
    change = number(movement.change)
    return change if movement.change < 0 else f"+{change}"


def change_text(movement: Movement) -> str:
    """Write the change with its sign, and the two levels."""
    return f"{signed(movement)} ({number(movement.before)} to {number(movement.after)})"


def point_text(point: Point) -> str:
    """Name a run: its id, and the commit if it is known."""
    return f"{point.run}, commit {point.commit[:10]}" if point.commit else point.run


def value_text(point: Point) -> str:
    """Write the value of a point with its interval."""
    figures = {"value": point.value, "low": point.low, "high": point.high}
    known = {key: None if one != one or abs(one) == float("inf") else one
             for key, one in figures.items()}  # fmt: skip
    return "no value" if known["value"] is None else interval(known)


def sentence(trend: Trend, movement: Movement) -> str:
    """Say one movement in a sentence."""
    point = trend.series.points[movement.at]
    where = f"{point_text(point)}, {point.started[:10]}"
    said = {
        "step": f"step for the {movement.effect} at run {where}",
        "departure": f"off the level for the {movement.effect} from run {where}",
        "drift": f"drift for the {movement.effect} since run {where}",
    }[movement.kind]
    more = f", corrected p {number(movement.adjusted)}" if movement.kind == "drift" else ""
    small = "; small: less than the half-width of the intervals" if movement.is_small else ""
    return f"{said}: {change_text(movement)}{more}{small}"


def strand_text(trend: Trend, strand: Strand) -> str:
    """Say what a strand rests on."""
    half = number(strand.half_width)
    found = [
        f"{counted(len(strand.points), 'run')} on {strand.hardware_class or 'unknown hardware'}",
        f"s {number(strand.noise)}",
        f"half-width of the intervals {half}" if half != "none" else "no intervals",
    ]
    left_out = len(strand.points) - len(strand.used)
    if left_out:
        found.append(f"{counted(left_out, 'run')} without a valid value")
    if strand.change_points is not None:
        found.append(change_points_text(trend, strand))
    return "; ".join(found)


def change_points_text(trend: Trend, strand: Strand) -> str:
    """Say at which runs PELT lets a new level begin."""
    runs = [trend.series.points[at].run for at in strand.change_points or ()]
    return f"change points by PELT: {', '.join(runs) or 'none'}"


def breaks(trends: Sequence[Trend]) -> list[str]:
    """Say where values are not compared, each place once, with the number of its series."""
    found = Counter(
        f"not compared across run {one.series.points[place.at].run}: {place.reason}"
        for one in trends
        for place in one.breaks
    )
    return [f"{text} ({counted(count, 'series', 'series')})" for text, count in found.items()]


def counts(trends: Sequence[Trend]) -> list[tuple[str, int]]:
    """Return how many series there are of each status, in the order of the trends."""
    return list(Counter(status(one) for one in trends).items())


def rest(trends: Sequence[Trend], most: int) -> str:
    """Say how many trends follow the first ones; "" if none does."""
    left = trends[most:]
    if not left:
        return ""
    listed = ", ".join(f"{count:,} {word}" for word, count in counts(left))
    return f"and {len(left):,} more: {listed}"


def span(trends: Sequence[Trend]) -> str:
    """Say over how many runs and series the trends are, and when these ran."""
    points = [point for one in trends for point in one.series.points]
    if not points:
        return "no series"
    runs = len({point.run for point in points})
    dates = sorted(point.started[:10] for point in points)
    classes = sorted({point.hardware_class for point in points})
    return (
        f"{counted(len(trends), 'series', 'series')} over {counted(runs, 'run')}, {dates[0]} to "
        f"{dates[-1]}, on {'; '.join(classes)}"
    )


def heading(trends: Sequence[Trend]) -> str:
    """Return the names of the suites."""
    return ", ".join(dict.fromkeys(one.series.suite for one in trends)) or "nothing"


def about(trends: Sequence[Trend]) -> str:
    """Say in one sentence what moved for the worse."""
    worse = [one for one in trends if one.finding is not None and one.finding.effect == "worse"]
    if not worse:
        return _nothing_worse(trends)
    words = Counter(status(one).removesuffix(" (worse)") for one in worse)
    listed = ", ".join(f"{count:,} {word}" for word, count in words.items())
    return f"{len(worse):,} of {counted(len(trends), 'series', 'series')} got worse: {listed}"


def _nothing_worse(trends: Sequence[Trend]) -> str:
    """Say of how many series that is known: one with too few runs is no evidence of it."""
    silent = [word for word in map(status, trends) if word in (_TOO_FEW, _NO_VALUE)]
    known = len(trends) - len(silent)
    reasons = ", ".join(dict.fromkeys(silent))
    of = counted(len(silent), "series", "series")
    if silent and not known:
        return f"nothing can be said of {of}: {reasons}"
    rest = f"; nothing can be said of {len(silent):,}: {reasons}" if silent else ""
    return f"nothing got worse in {counted(known, 'series', 'series')}{rest}"
