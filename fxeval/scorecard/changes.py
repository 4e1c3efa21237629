"""The changes between two runs, as text for a terminal and as Markdown. It makes no verdict."""

from collections.abc import Mapping, Sequence

from fxeval.records.changes import Change, Comparison, Finding
from fxeval.scorecard.change_words import (
    FINDINGS,
    READING,
    WORDS,
    deciding,
    improvement_text,
    margin_text,
    metric_text,
    named,
    remarks,
    rest,
    side_text,
    value_text,
    why,
)
from fxeval.scorecard.changes_page import page
from fxeval.scorecard.summary import escaped
from fxeval.scorecard.terminal import aligned
from fxeval.scorecard.wording import begun, visible
from fxeval.scorecard.worst_first import SHOWN

__all__ = ["COMMENT", "exit_status", "markdown", "page", "text_lines"]

COMMENT = 64_000
"""Most bytes in Markdown: a comment on a pull request holds no more."""

_STATUS: Mapping[Finding, int] = {"not_worse": 0, "worse": 1, "undecided": 2}
_WORST_FIRST: tuple[Finding, ...] = ("worse", "undecided", "not_worse")
_HEADS = ("outcome", "cell", "metric", "before", "after", "improvement", "margin")
_NAMES = (1, 2)  # the columns that shrink
_NARROWEST, _GAP = 12, "  "
_FEWER = (20, 10, 5, 1, 0)  # changes in Markdown, until it is small enough
_ID, _SENTENCE, _REMARK = 120, 400, 300  # characters


def exit_status(comparisons: Sequence[Comparison]) -> int:
    """Return 0 if nothing got worse, 1 if something did, 2 if that cannot be said.

    Of several comparisons the worst counts; without any there is nothing to say.
    """
    found = {one.outcome for one in comparisons}
    return next((_STATUS[one] for one in ("worse", "undecided") if one in found), 0 if found else 2)


def text_lines(
    comparisons: Sequence[Comparison], width: int = 100, *, is_verbose: bool = False
) -> list[str]:
    """Return the comparisons for a terminal: verdict, table with the worst first, reasons.

    Args:
        comparisons: One a suite.
        width: Of the terminal; names are shortened to fit, figures are not.
        is_verbose: Show all changes, not only the worst 30, and those for information.
    """
    lines: list[str] = []
    for one in comparisons:
        lines += [*([""] if lines else []), *_text(one, width, is_verbose)]
    shown = lines or ["UNDECIDED  nothing was compared: the runs have no record"]
    return [str(visible(line)).replace("−", "-") for line in shown]


def _text(one: Comparison, width: int, is_verbose: bool) -> list[str]:
    changes = [*one.changes] if is_verbose else deciding(one)
    most = len(changes) if is_verbose else SHOWN
    open_ = [it for it in changes if it.outcome in ("worse", "undecided", "not_compared")]
    hidden = len(one.changes) - len(changes)
    tail = [f"{rest(changes, most)}; -v shows all"] if len(changes) > most else []
    if hidden:
        tail.append(f"and {hidden:,} for information, which decide nothing; -v shows them")
    reasons = [f"{_word(it)}{_GAP}{it.cell}: {why(it)}" for it in open_[:most]]
    return [
        f"{FINDINGS[one.outcome].upper()}{_GAP}{one.suite}: {one.reason}",
        f"before{_GAP}{side_text(one.before)}",
        f"after{_GAP} {side_text(one.after)}",
        *(f"! {remark}" for remark in remarks(one)),
        *(["", *_table(changes[:most], width)] if changes else []),
        *tail,
        *([f"compared{_GAP}{one.regressions.text}"] if one.regressions else []),
        *(["", *reasons] if reasons else []),
    ]


def _table(changes: Sequence[Change], width: int) -> list[str]:
    shared, names = named(changes)
    rows = [
        list(_HEADS),
        *([_word(one), name, *_entries(one)] for one, name in zip(changes, names, strict=True)),
    ]
    return [*([shared] if shared else []), *aligned(rows, width, _NAMES, _NARROWEST)]


def _word(change: Change) -> str:
    word = WORDS[change.outcome]
    return word.upper() if change.decides else f"({word})"


def _entries(change: Change) -> list[str]:
    """Return what a row of a table says after the name of the cell."""
    return [
        metric_text(change),
        value_text(change.before) if change.metric else "",
        value_text(change.after) if change.metric else "",
        improvement_text(change),
        margin_text(change),
    ]


def markdown(comparisons: Sequence[Comparison], *, most_bytes: int = COMMENT) -> str:
    """Return the comparisons in Markdown, small enough for a comment on a pull request.

    Args:
        comparisons: One a suite.
        most_bytes: Most bytes; fewer changes are shown until it fits.
    """
    if not comparisons:
        return "## UNDECIDED: nothing was compared\n"
    text = ""
    for most in _FEWER:
        text = "\n".join(line for one in comparisons for line in _in_markdown(one, most))
        if len(text.encode()) <= most_bytes:
            return text
    left = len(comparisons)
    worst = sorted(comparisons, key=lambda one: _WORST_FIRST.index(one.outcome))
    while len(text.encode()) > most_bytes and left > 1:
        left //= 2
        more = f"And {len(comparisons) - left:,} more suites.\n"
        lines = [line for one in worst[:left] for line in _in_markdown(one, 0)]
        text = "\n".join([*lines, more])
    return text


def _in_markdown(one: Comparison, most: int) -> list[str]:
    changes = deciding(one)
    shown = changes[:most]
    open_ = [it for it in shown if it.outcome in ("worse", "undecided", "not_compared")]
    left = rest(changes, most)
    shared, names = named(shown) if shown else ("", [])
    heads = [f"| {' | '.join(_HEADS)} |", "|" + " --- |" * len(_HEADS)]
    rows = [
        f"| {' | '.join([_strong(it), *(_safe(text, _ID) for text in (name, *_entries(it)))])} |"
        for it, name in zip(shown, names, strict=True)
    ]
    reasons = [
        f"- {_strong(it)} {_safe(it.cell, _ID)}: {_safe(why(it), _SENTENCE)}" for it in open_
    ]
    return [
        f"## {FINDINGS[one.outcome].upper()}: {_safe(one.suite, _ID)}",
        "",
        f"{begun(_safe(one.reason, _SENTENCE))}.",
        "",
        *(f"> {_safe(remark, _REMARK)}\n" for remark in remarks(one)),
        *([f"{begun(_safe(shared, _REMARK))}.", ""] if shared else []),
        *([*heads, *rows, ""] if rows else []),
        *([f"{begun(left)}.", ""] if left else []),
        *([*reasons, ""] if reasons else []),
        f"- before: {_safe(side_text(one.before), _REMARK)}",
        f"- after: {_safe(side_text(one.after), _REMARK)}",
        *([f"- {_safe(one.regressions.text, _SENTENCE)}"] if one.regressions else []),
        "",
        READING,
        "",
    ]


def _strong(change: Change) -> str:
    word = WORDS[change.outcome]
    return f"**{word}**" if change.outcome == "worse" else word


def _safe(text: str, length: int) -> str:
    return escaped(str(visible(text)), length)
