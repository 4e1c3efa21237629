"""How a cell ends that was not measured to its end, so that a record gives the reason."""

import unittest
from typing import TYPE_CHECKING

import pytest

from fxeval.errors import ExplainerContractError, FxevalError, UnsupportedError, for_a_record
from fxeval.records.schema import CellResult
from fxeval.redaction import message_of, of_user_code
from fxeval.results import Outcome
from fxeval.run.measure import invalid_cell
from fxeval.suite.cells import Cell

if TYPE_CHECKING:
    from fxeval.run.session import Session

STOPS = (KeyboardInterrupt, pytest.exit.Exception)
"""Errors that end the run: pytest makes no report of the test in which they come up."""

_SAID_IN_A_LINE = (FxevalError, unittest.SkipTest, pytest.xfail.Exception)


def refusal_of(cell: Cell, error: BaseException) -> tuple[CellResult, str]:
    """Return the record of a cell that an error ended, and the whole text for the person who runs.

    A cell that was asked for and not measured is never green: not even if user code skips.
    """
    if isinstance(error, UnsupportedError):
        said, told = for_a_record(error), f"unsupported: {error}"
        if cell.on_unsupported == "skip":
            return invalid_cell(cell, said, Outcome.UNSUPPORTED), told
        return invalid_cell(cell, f"unsupported: {said}"), told
    if isinstance(error, ExplainerContractError):
        where = f" ({cell.explainer.where})"
        return invalid_cell(cell, for_a_record(error) + where), f"{error}{where}"
    if isinstance(error, FxevalError):
        return invalid_cell(cell, for_a_record(error)), str(error)
    said = of_user_code(error)
    if isinstance(error, STOPS):
        said = f"{said} stopped the run while this cell was measured"
    return invalid_cell(cell, said), f"{type(error).__name__}: {message_of(error)}"


def set_out(
    item: pytest.Item,
    cell: Cell,
    session: "Session",
    setup: tuple[pytest.CallInfo[None], pytest.TestReport],
) -> None:
    """Attach to the report of a setup what the record says if nothing more is heard of the cell.

    The report travels before the cell is measured, so a worker that crashes leaves it behind. If
    the setup failed (a fixture that every test gets), nothing more will be heard.

    Args:
        item: The test.
        cell: Its cell.
        session: Of this process.
        setup: The call of the setup and its report.
    """
    call, report = setup
    if call.excinfo is None:
        begun = invalid_cell(cell, "the run ended while this cell was measured")
        report.fxeval_begun = session.result(item, begun, is_final=False)  # type: ignore[attr-defined]
    elif not (report.skipped and any(map(item.get_closest_marker, ("skip", "skipif")))):
        result, told = refusal_of(cell, call.excinfo.value)
        report.fxeval = session.result(item, result)  # type: ignore[attr-defined]
        report.fxeval_told = []  # type: ignore[attr-defined]
        if report.skipped:
            report.outcome, report.longrepr = "failed", f"invalid: {told}\n{cell.where}"


def is_shown_as_it_is(error: BaseException) -> bool:
    """Say whether pytest is to show an error with its traceback: a bug, or a failed assertion."""
    is_usual = isinstance(error, Exception | pytest.fail.Exception)
    return is_usual and not isinstance(error, _SAID_IN_A_LINE)
