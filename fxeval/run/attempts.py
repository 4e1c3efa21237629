"""Marks the attempts of cells that plug-ins run again, in the reports of their tests.

JUnit gets a case for every attempt whose teardown pytest reports. An attempt after which the cell
is run again has neither failed nor been skipped there, so without a mark it reads as a clean pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fxeval.results import attempts

if TYPE_CHECKING:
    import pytest

PROPERTY = "fxeval_attempts"
"""Name of the property of a case in JUnit; only cases of cells that were run again have it."""

NOT_THE_LAST = "not the last attempt: the cell was run again"

_FINAL = {"passed", "failed", "skipped"}  # plug-ins give other outcomes to attempts they repeat


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Say in the properties of a test how often its cell was run, if that was more than once.

    Args:
        item: The test.
        report: Its report, which brings the cell's result.
    """
    said = attempts(report.fxeval["cell"]["earlier"])
    _set(item.user_properties, said)
    report.user_properties = [*item.user_properties]


def _set(properties: list[tuple[str, Any]], text: str) -> None:
    others = [one for one in properties if one[0] != PROPERTY]
    properties[:] = [*others, *([(PROPERTY, text)] if text else [])]


class Attempts:
    """Finds, as reports arrive, the attempts that are not the last ones of their cells."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[Any, str], list[str]] = {}

    def mark(self, report: pytest.TestReport) -> None:
        """Mark the teardown of an attempt after which the cell is run again.

        Such an attempt has an outcome that no test has otherwise, or its call was not reported.

        Args:
            report: A report, in the order of arrival.
        """
        key = getattr(report, "node", None), report.nodeid
        if report.when == "setup" and (
            hasattr(report, "fxeval_begun") or hasattr(report, "fxeval")
        ):
            self._outcomes[key] = [report.outcome] if report.outcome != "passed" else []
        elif report.when == "call" and key in self._outcomes:
            self._outcomes[key].append(report.outcome)
        elif report.when == "teardown" and key in self._outcomes:
            seen = self._outcomes.pop(key)
            if report.outcome not in _FINAL or not _FINAL & {*seen}:
                _set(report.user_properties, NOT_THE_LAST)
