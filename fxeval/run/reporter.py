"""Brings results together: closes the records and prints the outcome."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from fxeval.run.attempts import Attempts
from fxeval.strict.text import said_of_exit

if TYPE_CHECKING:
    from fxeval.records.schema import Record
    from fxeval.run.assembly import Gatherer


class Reporter:
    """Gathers the results of all processes; silent unless there are any."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._error = ""
        self._indexed = ""
        self._unindexed = ""
        self._is_brief = False
        self._ends: dict[Any, str] = {}
        self._attempts = Attempts()

    @pytest.hookimpl(tryfirst=True)  # before the report goes into JUnit
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the result of a finished cell, or the reason why there is none."""
        result, begun = (getattr(report, name, None) for name in ("fxeval", "fxeval_begun"))
        self._attempts.mark(report)
        if begun is not None:
            self._gatherer.begin(begun)
        elif result is not None:
            self._gatherer.add(result)
            self._gatherer.tell(result["cell"]["id"], report.fxeval_told)
        if report.failed and report.when not in ("setup", "call", "teardown"):
            # xdist's own report of a worker that is gone
            end = self._ends.get(getattr(report, "node", None), "crashed")
            self._gatherer.lose(report.nodeid, f"the worker {end} while measuring this cell")
        elif report.failed and hasattr(report, "fxeval_fault"):
            self._gatherer.spoil(report.nodeid, report.fxeval_fault)

    def stop(self, result: dict[str, Any]) -> None:
        """Take the result of a cell that stops the run."""
        self._gatherer.stop(result)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:  # noqa: ANN401  (xdist's own)
        """Find out how a worker ended, before xdist reports the test that it was running."""
        popen = getattr(getattr(node.gateway, "_io", None), "popen", None)
        if error == "keyboard-interrupt":
            self._ends[node] = "was interrupted (KeyboardInterrupt)"
        elif error is not None and popen is not None:  # None: a worker on another machine
            with suppress(subprocess.TimeoutExpired):
                self._ends[node] = f"crashed ({said_of_exit(popen.wait(timeout=5))})"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Close the records and write the scorecards."""
        self._gatherer.lose_the_rest()
        if not self._gatherer.results:
            return
        from fxeval.errors import StoreError

        gatherer = self._gatherer
        is_bad = gatherer.unmeasured() or gatherer.decides_nothing() or gatherer.is_cut
        if is_bad and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        try:
            self._add_sections(session)
            asked = session.config.getoption("--fx-markdown")
            folder = session.config.invocation_params.dir
            self._gatherer.write(folder / asked if asked else None)
        except StoreError as error:
            self._fail(session, str(error))
        else:
            self._add_to_store(session.config.getoption("--fx-store"))
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and session.config.get_verbosity() < 1:
            from fxeval.run.brief_sections import make_brief

            self._is_brief = make_brief(terminal)

    def _add_to_store(self, address: str | None) -> None:
        """Add the finished run to an index over many runs; the run is whole without it."""
        if not address:
            return
        from fxeval.errors import StoreError
        from fxeval.store.index import Store

        try:
            store = Store(address)
            store.add(self._gatherer.folder)
            self._indexed = f"added to {store.shown}"
        except StoreError as error:
            folder = os.path.relpath(self._gatherer.folder)
            self._unindexed = (
                f"warning: the run is not in the index: {error} Its own files are whole; add it "
                f"later: fxeval store add {folder}"
            )

    def _add_sections(self, session: pytest.Session) -> None:
        """Ask plug-ins for sections; a plug-in that fails loses its sections and nothing else."""
        from pydantic import ValidationError

        from fxeval.records.reading import faults_of
        from fxeval.records.schema import Section

        hook = session.config.hook.pytest_fxeval_sections
        if not hook.get_hookimpls():
            return
        for record in self._gatherer.records():
            try:
                given = [part for parts in hook(record=record) for part in parts]
                found = [Section.model_validate(part) for part in given]
            except ValidationError as error:
                self._fail(session, f"pytest_fxeval_sections: {faults_of(error)}")
            except Exception as error:  # user code may raise anything
                self._fail(session, f"pytest_fxeval_sections: {type(error).__name__}: {error}")
            else:
                self._gatherer.sections[record.suite.path] = found

    def _fail(self, session: pytest.Session, text: str) -> None:
        self._error = text
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show a short table and where the scorecard is."""
        if not self._gatherer.results:
            self._show_rows(terminalreporter)
            return
        from fxeval.scorecard import SHOWN, first

        writer = terminalreporter
        most = None if writer.config.get_verbosity() > 0 else SHOWN
        records = self._records()
        self._show_records(writer, records, most)
        if self._gatherer.told:
            writer.section("fxeval: what user code says, which no record quotes", sep="-")
            for line in first(self._gatherer.told_lines(), most):
                writer.write_line(line)
        if self._is_brief:
            writer.write_line(
                "So many cells failed that each has one line above; the record and the page hold "
                "the rest, and -v shows it here"
            )
        for check in self._gatherer.unmeasured():
            writer.write_line(
                f"error: check '{check}' measured nothing: all its cells are unsupported",
                red=True,
            )
        self._show_files(writer)
        if any(not record.run.complete for record in records):
            self._show_rows(writer)
        if self._error:
            writer.write_line(f"error: {self._error}", red=True)

    def _show_records(
        self, writer: pytest.TerminalReporter, records: list[Record], most: int | None
    ) -> None:
        """Show each record in a section of its own."""
        from fxeval.records.writing import dumped
        from fxeval.scorecard import terminal_summary
        from fxeval.strict.text import printable

        terminal = writer.config.get_terminal_writer()
        width, colour = terminal.fullwidth, terminal.hasmarkup
        for record in records:
            title = printable(" ".join(record.suite.title.split()))
            same = [one for one in records if one.suite.title == record.suite.title]
            place = f" ({printable(record.suite.path)})" if len(same) > 1 else ""
            writer.section(f"fxeval: {title}{place}")
            for line in terminal_summary(dumped(record), width, colour=colour, most=most):
                writer.write_line(line)

    def _show_files(self, writer: pytest.TerminalReporter) -> None:
        """Say which files were written, and whether the index has the run."""
        for path in self._gatherer.written:
            writer.write_line(f"wrote {os.path.relpath(path)}")
        if self._indexed:
            writer.write_line(self._indexed)
        if self._unindexed:
            writer.write_line(self._unindexed, yellow=True)

    def _show_rows(self, writer: pytest.TerminalReporter) -> None:
        """Say where the rows of a run are that did not come to its end."""
        for path in self._gatherer.row_files():
            writer.write_line(f"rows measured so far: {os.path.relpath(path)}")

    def _records(self) -> list[Record]:
        from fxeval.errors import StoreError

        try:
            return self._gatherer.records()
        except StoreError as error:  # told below
            self._error = str(error)
            return []
