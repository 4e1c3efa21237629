"""Trends as text for a terminal and as Markdown. They make no verdict."""

from collections.abc import Sequence

from fxeval.scorecard import trend_words as words
from fxeval.scorecard.sparkline import MOST, sparkline
from fxeval.scorecard.summary import escaped
from fxeval.scorecard.terminal import aligned
from fxeval.scorecard.trend_page import page
from fxeval.scorecard.wording import begun, visible
from fxeval.scorecard.worst_first import SHOWN
from fxeval.statistics.trend import Trend

__all__ = ["SIZE", "markdown", "page", "text_lines"]

SIZE = 64_000
"""Most bytes in Markdown: a comment on a pull request holds no more."""

_HEADS = ("trend", "series", "metric", f"last {MOST} runs", "latest [low, high]", "change")
_SHRINK = (1, 2)  # the columns that are shortened to fit
_NARROWEST, _GAP = 14, "  "
_FEWER = (SHOWN, 15, 5, 1, 0)
_ID, _SENTENCE = 120, 400
_REMARKS, _BREAKS = 10, 5


def text_lines(
    trends: Sequence[Trend],
    width: int = 100,
    *,
    remarks: Sequence[str] = (),
    most: int | None = SHOWN,
    is_plain: bool = False,
) -> list[str]:
    """Return trends for a terminal: a sparkline each, those to be looked at first before others.

    Args:
        trends: As ``fxeval.statistics.trend.trends_of`` orders them.
        width: Of the terminal in characters; names are shortened to fit, figures are not.
        remarks: What was left out, and why.
        most: Most series shown; None = all.
        is_plain: Whether the terminal knows ASCII alone.
    """
    limit = len(trends) if most is None else most
    listed = [words.shown(one) for one in trends[:limit]]
    hidden = words.rest(trends, limit)
    lines = [
        f"TREND{_GAP}{words.heading(trends)}: {words.about(trends)}",
        words.span(trends),
        *(f"! {remark}" for remark in remarks),
        "",
        *_table(listed, width, is_plain),
        *([f"{hidden}; -v shows all"] if hidden else []),
        "",
        *_sentences(listed),
        words.READING,
    ]
    found = [str(visible(line)).replace("−", "-") for line in lines]
    return [_ascii(line) for line in found] if is_plain else found


def _ascii(line: str) -> str:
    return line.replace("…", "~").encode("ascii", "replace").decode()


def _table(trends: Sequence[Trend], width: int, is_plain: bool) -> list[str]:
    shared, names = words.named(trends)
    rows = [
        [*_HEADS],
        *(_row(one, name, is_plain) for one, name in zip(trends, names, strict=True)),
    ]
    return [*([shared] if shared else []), *aligned(rows, width, _SHRINK, _NARROWEST)]


def _row(trend: Trend, name: str, is_plain: bool) -> list[str]:
    finding = trend.finding
    return [
        words.status(trend),
        name,
        words.metric_text(trend.series),
        sparkline(trend, is_plain=is_plain),
        words.value_text(trend.latest),
        words.signed(finding) if finding is not None else "",
    ]


def _sentences(trends: Sequence[Trend]) -> list[str]:
    """Say of what moved where it did, and where values are not compared."""
    found = []
    for one in trends:
        name = f"{one.series.cell}, {words.metric_text(one.series)}"
        if one.finding is not None:
            found.append(f"{name}: {words.sentence(one, one.finding)}")
        for strand in one.strands:
            if strand.change_points:
                found.append(f"{name}: {words.change_points_text(one, strand)}")
    breaks = words.breaks(trends)
    more = len(breaks) - _BREAKS
    found += [*breaks[:_BREAKS], *([f"and {more:,} more such places"] if more > 0 else [])]
    return [*found, *([""] if found else [])]


def markdown(
    trends: Sequence[Trend], *, remarks: Sequence[str] = (), most_bytes: int = SIZE
) -> str:
    """Return trends in Markdown, small enough for a comment on a pull request.

    Args:
        trends: As ``fxeval.statistics.trend.trends_of`` orders them.
        remarks: What was left out, and why.
        most_bytes: Most bytes; fewer series are shown until it fits.
    """
    text = ""
    for most in _FEWER:
        text = "\n".join(_in_markdown(trends, remarks, most)) + "\n"
        if len(text.encode()) <= most_bytes:
            break
    return text


def _in_markdown(trends: Sequence[Trend], remarks: Sequence[str], most: int) -> list[str]:
    listed = [words.shown(one) for one in trends[:most]]
    shared, names = words.named(listed)
    rows = [
        [
            f"**{words.status(one)}**"
            if words.status(one).endswith("(worse)")
            else words.status(one),
            escaped(name, _ID),
            escaped(words.metric_text(one.series), _ID),
            escaped(sparkline(one), _ID),
            escaped(words.value_text(one.latest)),
            escaped(words.sentence(one, one.finding), _SENTENCE) if one.finding else "",
        ]
        for one, name in zip(listed, names, strict=True)
    ]
    heads = [*_HEADS[:-1], "what moved"]
    table = [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]]
    hidden = words.rest(trends, most)
    more = len(remarks) - _REMARKS
    return [
        f"## Trend: {escaped(visible(words.heading(trends)), _ID)}",
        "",
        f"{begun(words.about(trends))}. {escaped(visible(begun(words.span(trends))))}.",
        "",
        *(f"> {escaped(visible(one))}\n" for one in remarks[:_REMARKS]),
        *([f"> and {more} more.\n"] if more > 0 else []),
        *([f"{begun(escaped(shared))}.\n"] if shared else []),
        *([*table, ""] if rows else []),
        *([f"{begun(hidden)}.\n"] if hidden else []),
        *(f"- {escaped(one, _SENTENCE)}" for one in words.breaks(listed)[:_BREAKS]),
        *([""] if any(one.breaks for one in listed) else []),
        words.READING,
    ]
