"""How a cell ends that was not measured to its end, so that a record gives the reason."""

import unittest
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from fxeval.errors import ExplainerContractError, FxevalError, UnsupportedError, for_a_record
from fxeval.records.schema import CellResult
from fxeval.redaction import message_of, of_user_code
from fxeval.results import Outcome, attempts
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
            said = " ".join(told.split())
            report.outcome, report.longrepr = "failed", f"invalid: {said} ({cell.where})"
        in_a_line(item, cell, report)


def conclude(cell: Cell, result: Mapping[str, Any], told: str, session: "Session") -> None:
    """End the test of a cell as its verdict says; it returns if the test passes.

    Args:
        cell: The cell.
        result: Its result as plain data.
        told: What to tell in place of the verdict's reason; "" = the reason.
        session: Of this process.
    """
    verdict = result["cell"]["verdict"]
    outcome, reason = Outcome(verdict["outcome"]), verdict["reason"]
    if outcome is Outcome.PASS:
        return
    if outcome is Outcome.UNSUPPORTED:
        pytest.skip(told or f"unsupported: {reason}")
    if outcome is Outcome.INFORMATION:
        pytest.skip(f"information: {reason}")
    if outcome is Outcome.INCONCLUSIVE and cell.on_inconclusive == "warn":
        # One text for all that follow: pytest shows a warning once, with the places it is from.
        more = "more cells are inconclusive: the table of fxeval counts them, the record names them"
        text = f"{cell.id}: inconclusive: {reason}" if session.may_warn() else more
        warnings.warn(pytest.PytestWarning(text), stacklevel=3)
        return
    lines = [f"{outcome}: {told or reason}", cell.where, attempts(result["cell"]["earlier"])]
    pytest.fail("\n".join(filter(None, lines)), pytrace=False)


def tell_acknowledged(item: pytest.Item, result: CellResult) -> None:
    """Warn of limits whose fail is acknowledged, and note them for JUnit.

    Args:
        item: The test of the cell.
        result: The cell.
    """
    for limit in result.limits:
        if limit.acknowledged is not None:
            said = f"fail (acknowledged until {limit.acknowledged.until}): {limit.verdict.reason}"
            item.user_properties.append(("fxeval", said))
            warnings.warn(pytest.PytestWarning(f"{result.id}: {said}"), stacklevel=3)


def in_a_line(item: pytest.Item, cell: Cell, report: pytest.TestReport) -> None:
    """Make one line of the message of a test that did not pass, and name the line of the suite.

    pytest's own summary, JUnit and CI servers show the message; the section of the test and the
    text of JUnit's element hold the whole.
    """
    crash = getattr(report.longrepr, "reprcrash", None)
    path, line = item.reportinfo()[:2]
    place = str(path), (line or 0) + 1
    if crash is not None:
        said = crash.message.partition("\n")[0]
        if said.startswith("Failed: "):  # the end of a cell, and no place in the code
            crash.path, crash.lineno = place
        crash.message = f"{said.removeprefix('Failed: ')} ({cell.where})"
    elif report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = *place, report.longrepr[2]


def cut_short(item: pytest.Item, cell: Cell, result: dict[str, Any]) -> None:
    """Report a cell that stops the run: pytest makes no report of the test in which that happens.

    In a worker there is nothing to do: the controller knows what it had begun.

    Args:
        item: Its test.
        cell: The cell.
        result: Its result as plain data.
    """
    reporter = item.config.pluginmanager.get_plugin("fxeval.results")
    if reporter is None:
        return
    reporter.stop(result)
    verdict = result["cell"]["verdict"]
    text = f"{verdict['outcome']}: {verdict['reason']} ({cell.where})"
    report = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
    item.ihook.pytest_runtest_logreport(report=report)


def is_shown_as_it_is(error: BaseException) -> bool:
    """Say whether pytest is to show an error with its traceback: a bug, or a failed assertion."""
    is_usual = isinstance(error, Exception | pytest.fail.Exception)
    return is_usual and not isinstance(error, _SAID_IN_A_LINE)
