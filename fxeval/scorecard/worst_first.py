"""Which cells are shown where there is no room for all: the worst, and a count of the rest."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fxeval.results import attempts
from fxeval.scorecard.wording import condition, counted, number

Json = Mapping[str, Any]

SHOWN = 30
"""Most cells that the terminal and a summary show one by one."""

NEUTRAL = ("pass", "information", "unsupported")
"""Outcomes that keep no suite from passing."""

OUTCOMES = ("fail", "invalid", "inconclusive", "pass", "information", "unsupported")
"""In the order in which cells are shown. ``invalid`` outranks ``fail`` as a verdict, but one unfit
model makes thirty cells invalid, and shown first they would hide every failure."""

_NAMED = 3  # cells that a warning names

_COUNTED: Mapping[str, str] = {
    "fail": "failed",
    "pass": "passed",
    "information": "for information",
}


def worst_first(cells: Iterable[Json]) -> list[Json]:
    """Return cells in the order of ``OUTCOMES``, and those of one outcome in the suite's order."""
    return sorted(cells, key=lambda cell: OUTCOMES.index(cell["verdict"]["outcome"]))


def counts(cells: Iterable[Json]) -> list[tuple[str, int]]:
    """Return how many cells have each outcome, worst first, without the absent ones."""
    tally = Counter(cell["verdict"]["outcome"] for cell in cells)
    return [(outcome, tally[outcome]) for outcome in OUTCOMES if tally[outcome]]


def rest(cells: Sequence[Json], shown: int) -> str:
    """Say how many cells follow the first ones; "" if none does.

    >>> rest([{"verdict": {"outcome": one}} for one in ("fail", "fail", "pass")], 1)
    'and 2 more: 1 failed, 1 passed'
    """
    left = cells[shown:]
    if not left:
        return ""
    listed = ", ".join(f"{n:,} {_COUNTED.get(outcome, outcome)}" for outcome, n in counts(left))
    return f"and {len(left):,} more: {listed}"


def fails_its_test(cell: Json) -> bool:
    """Say whether a cell's outcome fails its test; the suite decides it for some outcomes."""
    outcome = cell["verdict"]["outcome"]
    undecided = outcome == "inconclusive" and cell["on_inconclusive"] != "warn"
    return outcome in ("fail", "invalid") or undecided


def effect(record: Json) -> str:
    """Say why no test failed although the suite did not pass; "" if that needs no words."""
    cells = record["cells"]
    measured = {c["check"] for c in cells if c["verdict"]["outcome"] != "unsupported"}
    is_unmeasured = bool({cell["check"] for cell in cells} - measured)
    if (
        record["verdict"]["outcome"] == "pass"
        or not cells
        or is_unmeasured
        or any(map(fails_its_test, cells))
    ):
        return ""
    why = []
    if any(cell["verdict"]["outcome"] == "inconclusive" for cell in cells):
        why.append("the suite lets an inconclusive cell only warn (on_inconclusive: warn)")
    if all(cell["verdict"]["outcome"] == "information" for cell in cells):
        why.append("every limit is for information (severity: info)")
    if record["run"]["missing"]:
        why.append("a cell that was not run fails nothing")
    return f"No test failed, and this is no pass all the same: {'; '.join(why)}." if why else ""


def run_again(record: Json) -> str:
    """Say which cells pytest ran more than once, worst first; "" if there are none."""
    cells = worst_first(cell for cell in record["cells"] if cell["earlier"])
    if not cells:
        return ""
    told = [f"{cell['id']} ({attempts(cell['earlier'])})" for cell in cells[:_NAMED]]
    more = [f"and {len(cells) - _NAMED:,} more"] if len(cells) > _NAMED else []
    return f"{counted(len(cells), 'cell')} had more than one attempt: {'; '.join([*told, *more])}."


def worse_lines(record: Json) -> list[str]:
    """Return what got worse since an earlier run, worst first, with its corrected probability."""
    return [
        f"{cell}: {limit} (p {number(one['adjusted'])} after Holm's correction)"
        f"{_acknowledged(record, one)}"
        for cell, limit, one in regression_rows(record)
        if one["is_worse"]
    ]


def _acknowledged(record: Json, one: Json) -> str:
    """Say until when what got worse is acknowledged; "" if it is not."""
    limits = (at for cell in record["cells"] if cell["id"] == one["cell"] for at in cell["limits"])
    days = [
        at["acknowledged"]["until"]
        for at in limits
        if at.get("acknowledged") and all(at[key] == one[key] for key in ("metric", "under"))
    ]
    return f", acknowledged until {days[0]}" if days else ""


def regression_rows(record: Json) -> list[tuple[str, str, Json]]:
    """Return what was compared with an earlier run, worst first: cell, limit, and the entry."""
    found = record.get("regressions")
    tested = sorted(found["tested"], key=lambda one: one["adjusted"]) if found else []
    return [(one["cell"], one["text"] + condition(one["under"]), one) for one in tested]
