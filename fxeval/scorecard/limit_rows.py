"""The limits of a cell as a page shows them: in words, as bars, and of many results the worst."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fxeval.records.judged import LimitEntry
from fxeval.scorecard.charts import DotChart, Row, Rule, dot_chart
from fxeval.scorecard.conditions import FEW, metrics_of
from fxeval.scorecard.wording import clipped, condition, counted, interval, map_name
from fxeval.scorecard.worst_first import OUTCOMES
from fxeval.statistics.limits import Limit
from fxeval.statistics.results import limit_of

Json = Mapping[str, Any]

_REASONS = 2 * FEW  # of limits, that are read one after the other

_NO_MATTER = ("pass", "unsupported")  # a limit that does not apply is missed by nobody

TOWARDS = {"lower": ("← better", ""), "higher": ("", "better →")}
"""What the ends of a scale mean, by the better direction."""


@dataclass(frozen=True)
class Missed:
    """A critical limit that was not passed, in plain words and as a bar; or a count of more."""

    outcome: str
    sentence: str
    reason: str
    chart: DotChart | None


@dataclass(frozen=True)
class Judged:
    """A limit of the suite with what it was judged on.

    Attributes:
        shown: The results that are shown, the worst first if not all are.
        rest: In words what became of the others; empty if there are none.
    """

    shown: tuple[Json, ...]
    rest: str


def judged(limits: Sequence[Json]) -> Iterator[Judged]:
    """Group the results of limits by what the suite asked for."""
    asked: dict[tuple[str, ...], list[Json]] = {}
    for limit in limits:
        key = limit["metric"], limit["text"], limit["severity"], limit["where"]
        asked.setdefault(key, []).append(limit)
    for results in asked.values():
        if len(results) <= FEW:
            yield Judged(tuple(results), "")
        else:
            ordered = sorted(results, key=_badness)
            yield Judged(tuple(ordered[:FEW]), _rest(ordered[FEW:]))


def shown(limits: Sequence[Json]) -> list[Json]:
    """Return the results that are shown."""
    return [limit for one in judged(limits) for limit in one.shown]


def ruling(cell: Json) -> str:
    """Return why a cell has its verdict; of the reasons of very many limits the worst."""
    outcome, reason = cell["verdict"]["outcome"], str(cell["verdict"]["reason"])
    critical = [one for one in cell.get("limits", ()) if decides(one)]
    alike = sorted((o for o in critical if o["verdict"]["outcome"] == outcome), key=_badness)
    if len(alike) <= _REASONS or alike[0]["verdict"]["reason"] not in reason:
        return reason
    word = {"fail": "failed", "pass": "passed"}.get(outcome, f"are {outcome}")
    found = f"{len(alike):,} of {counted(len(critical), 'result')} of critical limits {word}"
    return f"{found}; the worst: {alike[0]['verdict']['reason']}"


def _badness(limit: Json) -> tuple[int, float]:
    """Return the outcome, and how far the interval lies within its region."""
    figures, (least, largest) = limit["estimate"] or {}, _region(limit)
    ends = (1, figures.get("low"), least), (-1, figures.get("high"), largest)
    inside = [
        sign * (end - line) for sign, end, line in ends if end is not None and line is not None
    ]
    return OUTCOMES.index(limit["verdict"]["outcome"]), min(inside, default=0.0)


def _rest(results: Sequence[Json]) -> str:
    """Write what became of results that are not shown."""
    tally = Counter(limit["verdict"]["outcome"] for limit in results)
    words = ", ".join(f"{tally[one]:,} {one}" for one in OUTCOMES if tally[one])
    return f"and under {counted(len(results), 'more condition')}: {words}"


def limit_text(limit: Json) -> str:
    """Return a limit's text with its condition."""
    return f"{limit['text']}{condition(limit['under'])}"


def estimated(limit: Json) -> str:
    """Return in words what a limit's estimate is of; empty = the metric itself."""
    return _meant(limit).estimated()


def limit_lines(limit: Json) -> tuple[float, ...]:
    """Return the numbers that a limit's interval must clear: one, or two if it must lie between.

    A margin relative to the control is already subtracted from the recorded improvement.
    """
    return tuple(end for end in _region(limit) if end is not None)


def _region(limit: Json) -> tuple[float | None, float | None]:
    """Return where the whole interval must lie; older records name one line and no region."""
    low, high = limit["region"]
    if low is None and high is None:
        line = limit["line"]
        return (None, line) if _meant(limit).good_side == "lower" else (line, None)
    return low, high


def _meant(limit: Json) -> Limit:
    """Return the limit of a judged entry."""
    return limit_of(LimitEntry(**{key: limit[key] for key in LimitEntry.model_fields}))


def decides(limit: Json) -> bool:
    """Say whether a limit has a part in the verdict of its cell."""
    return bool(limit["severity"] == "critical" and not limit.get("acknowledged"))


def acknowledged(limit: Json) -> str:
    """Return the word for a fail that is acknowledged; "" for any other limit."""
    known = limit.get("acknowledged")
    return f"fail (acknowledged until {known['until']})" if known else ""


def missed(cell: Json) -> Iterator[Missed]:
    """Yield the critical limits of a cell that were not passed; of one with many results a few."""
    limits = [one for one in cell.get("limits", ()) if decides(one)]
    for one in judged([limit for limit in limits if limit["verdict"]["outcome"] not in _NO_MATTER]):
        for limit in one.shown:
            verdict = limit["verdict"]
            # A value that no verdict rests on is not drawn on the good side of its limit.
            chart = None if verdict["outcome"] == "invalid" else _limit_chart(cell, limit)
            yield Missed(verdict["outcome"], _sentence(cell, limit), verdict["reason"], chart)
        if one.rest:
            outcome = one.shown[-1]["verdict"]["outcome"]
            yield Missed(outcome, f"{one.shown[0]['text']}: {one.rest}.", "", None)


def _sentence(cell: Json, limit: Json) -> str:
    """Say in plain words what a limit demands and what was measured."""
    title = metrics_of(cell)[limit["metric"]]["title"] + condition(limit["under"], " with ")
    measured = interval(limit["estimate"], *limit_lines(limit))
    return _meant(limit).sentence(title, measured, map_name)


def _limit_chart(cell: Json, limit: Json) -> DotChart | None:
    if limit["estimate"] is None:
        return None
    title, asked = metrics_of(cell)[limit["metric"]]["title"], _meant(limit)
    rows = [Row("", limit["estimate"], judged=True)]
    if not asked.compares():
        return dot_chart(title, rows, bounds([limit]), directions=TOWARDS[asked.good_side])
    over = " and ".join(map(map_name, asked.compares()))
    directions = f"← {over} better", f"{clipped(cell['explainer'], 18)} better →"
    name = f"{title}: improvement over {over}"
    return dot_chart(name, rows, _rules(limit), directions=directions)


def bounds(limits: Sequence[Json]) -> list[Rule]:
    """Return the lines of limits in the metric's own unit; a margin over a control is not one."""
    return [rule for limit in limits if not _meant(limit).compares() for rule in _rules(limit)]


def _rules(limit: Json) -> list[Rule]:
    """Return the lines of a limit: one with its good side, or two with the good side between."""
    low, high = _region(limit)
    least = "more than" if limit["better_than"] is not None else "at least"
    words = f"{limit['severity']} limit:"
    found = []
    if low is not None:
        found.append(Rule(low, f"{words} {least} {low:g}".replace("-", "−"), "higher"))
    if high is not None:
        found.append(Rule(high, f"{words} at most {high:g}".replace("-", "−"), "lower"))
    return found
