"""Whether a cell that is not valid any more got worse, or cannot be compared."""

from collections.abc import Sequence

from fxeval.records.changes import Became
from fxeval.records.schema import CellResult, Row
from fxeval.results import Outcome
from fxeval.statistics.acknowledged import passing_again
from fxeval.statistics.results import results_of

_NOT_OF_ROWS = ("unfit", "acknowledged", "expired", "networks", "taught")
"""Facts that make a cell invalid though its explainer may have nothing to do with it."""


def became_invalid(
    before: CellResult, rows_before: Sequence[Row], after: CellResult, rows: Sequence[Row]
) -> tuple[Became, str] | None:
    """Return what became of a cell that was valid and is not any more; None of any other one.

    It is worse if its rows alone make it invalid. An unfit metric, a re-drawn network or another
    list is not the explainer's fault: then it cannot be compared. An acknowledged regression that
    passes again makes a run invalid, and nothing worse.

    Args:
        before: The earlier cell.
        rows_before: Its rows, of those that both runs have.
        after: The later cell.
        rows: Its rows, likewise.
    """
    if after.verdict.outcome is not Outcome.INVALID or _is_by_rows(before, rows_before):
        return None
    said = f"the cell was valid and is not any more: {after.verdict.reason}"
    if _is_by_rows(after, rows):
        return "worse", said
    if before.verdict.outcome is Outcome.INVALID or _passes_again_only(after, rows):
        return None
    return "not_compared", said


def _is_by_rows(cell: CellResult, rows: Sequence[Row]) -> bool:
    return cell.verdict.outcome is Outcome.INVALID and _is_invalid(cell, rows, _NOT_OF_ROWS)


def _passes_again_only(cell: CellResult, rows: Sequence[Row]) -> bool:
    is_one = bool(passing_again(cell.limits, cell))
    return is_one and not _is_invalid(cell, rows, ("acknowledged",))


def _is_invalid(cell: CellResult, rows: Sequence[Row], without: Sequence[str]) -> bool:
    """Return whether rows make a cell invalid without some of its facts."""
    plan, facts = cell.parts()
    known = facts.model_copy(update={name: [] for name in without})
    return results_of(plan, known, rows).verdict.outcome is Outcome.INVALID
