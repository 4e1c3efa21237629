"""How the changes between two runs are written: outcomes, margins, sides, remarks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fxeval.records.changes import Became, Change, Comparison, Finding, Side
from fxeval.records.judged import Figures
from fxeval.scorecard.wording import counted, interval, number, plain

WORDS: Mapping[Became, str] = {
    "worse": "worse",
    "undecided": "undecided",
    "not_compared": "not compared",
    "not_worse": "not worse",
    "better": "better",
    "same": "same",
}
"""Worst first."""

MEANINGS: Mapping[Became, str] = {
    "worse": "the interval of the paired improvement lies wholly beyond the margin and still does "
    "after the correction for the number of comparisons; or maps are missing that were there",
    "undecided": "the interval contains the edge of the margin, or there are too few people",
    "not_compared": "there is nothing to compare with, or another question was asked",
    "not_worse": "it is shown to be worse by no more than the margin",
    "better": "the interval of the paired improvement lies wholly above 0",
    "same": "every row that both runs have is equal",
}

FINDINGS: Mapping[Finding, str] = {
    "not_worse": "not worse", "worse": "worse", "undecided": "undecided",
}  # fmt: skip

_DIGITS = 9
_PARTS = ("check", "explainer", "model", "pairs")

READING = (
    "Improvement: the mean over people of the differences row by row, with its interval; positive "
    "where the later run is better, whatever the direction of the metric."
)


def deciding(comparison: Comparison) -> list[Change]:
    """Return the changes that decide, worst first."""
    return [one for one in comparison.changes if one.decides]


def counts(changes: Sequence[Change]) -> list[tuple[Became, int]]:
    """Return how many changes have each outcome, worst first, without the absent ones."""
    tally = Counter(one.outcome for one in changes)
    return [(outcome, tally[outcome]) for outcome in WORDS if tally[outcome]]


def rest(changes: Sequence[Change], shown: int) -> str:
    """Say how many changes follow the first ones; "" if none does."""
    left = changes[shown:]
    if not left:
        return ""
    return f"and {len(left):,} more: {', '.join(f'{n:,} {WORDS[one]}' for one, n in counts(left))}"


def named(changes: Sequence[Change]) -> tuple[str, list[str]]:
    """Return what all cells share, in words, and of each change a name by what they do not."""
    apart = [key for key in _PARTS if len({getattr(one, key) for one in changes}) > 1]
    apart = apart or ["explainer"]
    said = " · ".join(f"{key} {getattr(changes[0], key)}" for key in _PARTS if key not in apart)
    names = [" ".join(getattr(one, key) for key in apart) for one in changes]
    return said, names


def metric_text(change: Change) -> str:
    """Write a metric with its condition, or that the cell as a whole is meant."""
    if not change.metric:
        return "the whole cell"
    under = ", ".join(
        plain(value) if axis == "fill" else f"{axis} {plain(value)}"
        for axis, value in change.under.items()
    )
    return f"{change.metric} ({under})" if under else change.metric


def margin_text(change: Change) -> str:
    """Write the margin of a change; "" of a cell as a whole.

    A relative margin is one of the earlier value.
    """
    if not change.metric:
        return ""
    relative = change.within.get("relative")
    return f"{100 * relative:.3g} %" if relative else f"{_absolute(change):g}"


def value_text(found: Figures | None) -> str:
    """Write a value without its interval."""
    return "none" if found is None else number(found.value)


def improvement_text(change: Change) -> str:
    """Write the improvement with its interval, and a sign; "" if there is none."""
    found = change.improvement
    if found is None:
        return ""
    ends = {key: getattr(found, key) for key in ("value", "low", "high")}
    # A loss of 0.02 may come out as 0.020000000000000004, which is no more than the margin.
    near = {key: None if end is None else round(end, _DIGITS) for key, end in ends.items()}
    text = interval(near, 0.0, -_absolute(change))
    return f"+{text}" if found.value is not None and found.value > 0 else text


def verdicts_text(change: Change) -> str:
    """Write the verdicts of the cell in the two runs, as in ``pass -> fail``."""
    before, after = (
        "absent" if one is None else one.value
        for one in (change.verdict_before, change.verdict_after)
    )
    return f"{before} -> {after}"


def rows_text(change: Change) -> str:
    """Say how many rows take part where the runs have more; "" if all do."""
    if not change.n_rows or change.n_rows == change.rows_before == change.rows_after:
        return ""
    return (
        f"{counted(change.n_rows, 'row')} of both runs, of {change.rows_before:,} before and "
        f"{change.rows_after:,} after"
    )


def why(change: Change) -> str:
    """Say why a change has its outcome, with the verdicts of its cell and the rows."""
    parts = [change.reason, f"cell {verdicts_text(change)}", rows_text(change)]
    return "; ".join(filter(None, parts))


def side_text(side: Side | None) -> str:
    """Say what one of the two runs is."""
    if side is None:
        return "no record of this suite"
    commit = f"commit {side.commit[:12]}" if side.commit else "commit not known"
    dirty = " with changes that were not committed" if side.dirty else ""
    run = "" if side.name == side.run else f"{side.name}: "
    return (
        f"{run}run {side.run}, {commit}{dirty}, fxeval {side.fxeval}, started {side.started}, on "
        f"{side.hardware_class}"
    )


def remarks(comparison: Comparison) -> list[str]:
    """Return what a reader must know beside the changes."""
    before, after = comparison.before, comparison.after
    found = []
    if before is not None and after is not None:
        if before.suite != after.suite:
            found.append("the suite changed between the runs: limits are those of the later one")
        if before.hardware_class != after.hardware_class:
            found.append(
                "the runs are of different hardware classes: a small change may be rounding"
            )
        if before.run == after.run:
            found.append("the two are one and the same run")
    alone = (("earlier", comparison.only_before), ("later", comparison.only_after))
    return found + [
        f"in the {word} run alone: {', '.join(cells[:10])}"
        + (f" and {len(cells) - 10:,} more" if len(cells) > 10 else "")
        for word, cells in alone
        if cells
    ]


def _absolute(change: Change) -> float:
    return change.within.get("absolute", 0.0)
