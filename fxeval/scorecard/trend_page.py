"""Trends as one self-contained page: no script, no network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fxeval.records.series import Point
from fxeval.scorecard import trend_words, wording
from fxeval.scorecard.sparkline import sparkline
from fxeval.scorecard.trend_charts import TrendChart, trend_chart
from fxeval.scorecard.worst_first import SHOWN
from fxeval.statistics.trend import Trend

TABLED, LISTED = 60, 300
"""Most runs in the table of a series, and most series in the table of all."""

_ENVIRONMENT = Environment(
    loader=PackageLoader("fxeval", "scorecard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class TrendView:
    """What the page shows of one series."""

    anchor: str
    trend: Trend
    chart: TrendChart
    sentences: tuple[str, ...]
    strands: tuple[str, ...]
    rows: tuple[tuple[Point, str], ...]
    n_more: int


def page(trends: Sequence[Trend], *, remarks: Sequence[str] = ()) -> str:
    """Show trends as one HTML page: what moved, a chart for each of the first 30, a table of all.

    Args:
        trends: As ``fxeval.statistics.trend.trends_of`` orders them.
        remarks: What was left out, and why.
    """
    listed = [trend_words.shown(one) for one in trends[:LISTED]]
    style = _style()
    context = {
        "title": wording.visible(trend_words.heading(trends)),
        "about": wording.begun(trend_words.about(trends)),
        "span": wording.visible(trend_words.span(trends)),
        "counts": trend_words.counts(trends),
        "remarks": [wording.visible(one) for one in remarks],
        "style": Markup(style),  # our files alone
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "views": [_view(one, at) for at, one in enumerate(listed[:SHOWN])],
        "charts_rest": trend_words.rest(trends, SHOWN),
        "listed": listed,
        "n_charts": SHOWN,
        "rest": trend_words.rest(trends, LISTED),
        "has_change_points": any(
            strand.change_points is not None for one in trends for strand in one.strands
        ),
        "said": trend_words,
        "sparkline": sparkline,
        "words": wording,
    }
    return _ENVIRONMENT.get_template("trend.html.j2").render(context)


def _view(trend: Trend, place: int) -> TrendView:
    points = trend.series.points
    start = max(0, len(points) - TABLED)
    rows = [(points[at], _remark(trend, at)) for at in range(start, len(points))]
    sentences = [trend_words.sentence(trend, one) for one in reversed(trend.movements)]
    if trend.finding is not None:  # first
        first = trend_words.sentence(trend, trend.finding)
        sentences = [first, *(one for one in sentences if one != first)]
    return TrendView(
        anchor=f"series-{place + 1}",
        trend=trend,
        chart=trend_chart(trend),
        sentences=tuple(wording.begun(one) for one in sentences),
        strands=tuple(trend_words.strand_text(trend, one) for one in trend.strands),
        rows=tuple(reversed(rows)),
        n_more=start,
    )


def _remark(trend: Trend, at: int) -> str:
    """Say what a table remarks at a run."""
    found = [trend_words.movement_words(one) for one in trend.movements
             if one.at == at and one.kind != "drift"]  # fmt: skip
    found += [f"not compared with those before: {one.reason}" for one in trend.breaks
              if one.at == at]  # fmt: skip
    return "; ".join(found)


def _style() -> str:
    """Return the style sheet of the scorecard, and what charts of trends add."""
    room = resources.files("fxeval.scorecard")
    return "".join(room.joinpath(name).read_text("utf-8") for name in ("style.css", "trend.css"))
