"""Where very many cells fail: a line for each in place of pytest's whole section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxeval.scorecard import SHOWN

if TYPE_CHECKING:
    import pytest


class BriefSection:
    """One line that takes the place of a failure's text.

    Args:
        whole: The text or object that it replaces.
    """

    def __init__(self, whole: object) -> None:
        self.reprcrash = getattr(whole, "reprcrash", None)  # pytest's summary and --tb=line ask it
        said = getattr(self.reprcrash, "message", None) or str(whole)
        self._line = said.partition("\n")[0]

    def __str__(self) -> str:
        return self._line

    def toterminal(self, writer: Any) -> None:  # noqa: ANN401  (pytest keeps its type to itself)
        """Write the line."""
        writer.line(self._line)


def make_brief(terminal: pytest.TerminalReporter) -> bool:
    """Shorten the sections of failed cells if they are more than a person reads, and say so.

    It is called when all tests have ended: JUnit and other reports have taken the whole text.
    """
    reports = [*terminal.stats.get("failed", ()), *terminal.stats.get("error", ())]
    of_cells = [report for report in reports if hasattr(report, "fxeval")]
    if len(of_cells) <= SHOWN:
        return False
    for report in of_cells:
        report.longrepr = BriefSection(report.longrepr)
        report.sections = []
        vars(report).pop("node", None)  # pytest writes a line about it
    return True
