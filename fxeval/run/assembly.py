"""Assembles the results of all processes into one record and one scorecard per suite."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fxeval.records.schema import CellResult, Record, Section
    from fxeval.records.self_checks import SelfCheck
    from fxeval.suite.plan import Suite


def asked_of(suite: Suite, cells: Sequence[str]) -> dict[str, Any]:
    """Return what a record says of a suite, the formats it wants, and the ids of its cells."""
    return {
        "suite": {
            "name": suite.name,
            "title": suite.title,
            # Outside of the current folder the path is the machine's own.
            "path": suite.path.name if ".." in suite.path.parts else suite.path.as_posix(),
            "digest": suite.digest,
            "seed": suite.seed,
        },
        "formats": list(suite.formats),
        "planned": list(cells),
    }


def finished(
    cell: CellResult,
    asked: Mapping[str, Any],
    environment: Mapping[str, Any],
    subjects: Mapping[str, Mapping[str, Any]],
    self_checks: Sequence[SelfCheck] = (),
) -> dict[str, Any]:
    """Return a finished cell as plain data, with all that the record says beside it.

    Args:
        cell: The cell.
        asked: As :func:`asked_of` gives it.
        environment: Of the process that measured.
        subjects: What the workshop knows of models, explainers and pairs.
        self_checks: Of the metrics that its limits rest on.
    """
    from fxeval.records.writing import plain

    further = [name for named in cell.further.values() for name in named]
    names = {
        "models": [cell.model, *further], "explainers": [cell.explainer], "pairs": [cell.pairs],
    }  # fmt: skip
    found: dict[str, Any] = plain(
        {
            **asked,
            "cell": cell.model_dump(mode="json", by_alias=True),
            "environment": environment,
            "subjects": {
                role: {name: known[name] for name in names[role] if name in known}
                for role, known in subjects.items()
            },
            "self_checks": [one.model_dump(mode="json") for one in self_checks],
        }
    )
    return found


class Gatherer:
    """Gathers cells as they finish; writes the records at the end.

    Args:
        folder: Folder of this run; made when the first file is written.
        run_id: Name of the run.
        started: When the run began.
        command: The command that started the run.

    Attributes:
        folder: Folder of this run.
        results: Results that the processes sent, in order of arrival.
        written: Files written so far.
        told: Messages of user code, and the cells in which they came up. They are printed for the
            person who runs, and no record holds them.
        is_cut: A cell ended of which pytest reports nothing.
        sections: By the path of a suite, what plug-ins add to its scorecard.
    """

    def __init__(self, folder: Path, run_id: str, started: datetime, command: str) -> None:
        self.results: list[dict[str, Any]] = []
        self.written: list[Path] = []
        self.told: dict[str, list[str]] = {}
        self.is_cut = False
        self.sections: dict[str, list[Section]] = {}
        self.folder = folder
        self._run_id = run_id
        self._started = started
        self._command = command
        self._finished: datetime | None = None
        self._begun: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, set[int]] = {}
        self._doubled: set[str] = set()  # begun twice as the same attempt

    def begin(self, result: dict[str, Any]) -> None:
        """Take a cell that is about to be measured, as it is recorded if nothing more is heard."""
        nodeid, attempt = result["cell"]["nodeid"], result["cell"]["attempt"]
        # xdist gives some tests that took a worker along to another one, which knows nothing of it.
        if attempt in self._attempts.setdefault(nodeid, set()):
            self._doubled.add(nodeid)
        self._attempts[nodeid].add(attempt)
        self._begun[nodeid] = result

    def add(self, result: dict[str, Any]) -> None:
        """Take a finished cell with the suite, subjects and environment of its process."""
        nodeid = result["cell"]["nodeid"]
        self._begun.pop(nodeid, None)
        self.results.append(result)
        if nodeid in self._doubled:
            self.spoil(
                nodeid, "two processes measured it as one attempt; their rows cannot be told apart"
            )

    def stop(self, result: dict[str, Any]) -> None:
        """Take a cell of which pytest reports nothing, as the run or its process ended."""
        self.add(result)
        self.is_cut = True

    def lose(self, nodeid: str, reason: str) -> None:
        """Make a cell invalid that was begun in a process that is gone."""
        if nodeid in self._begun:
            self.stop(self._begun[nodeid])
            self.spoil(nodeid, reason)

    def lose_the_rest(self) -> None:
        """Take every cell that was begun and never finished, as the run ends."""
        for result in [*self._begun.values()]:
            self.stop(result)

    def tell(self, cell: str, texts: Sequence[str]) -> None:
        """Take the messages of user code in a cell."""
        for text in texts:
            self.told.setdefault(text, []).append(cell)

    def told_lines(self) -> list[str]:
        """Return the messages of user code, each text once, with the first cell."""
        lines = []
        for text, cells in self.told.items():
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            shown = "".join(char for char in text if char.isprintable() or char == "\n")
            lines.append(f"{cells[0]}{more}: {shown}")
        return lines

    def spoil(self, nodeid: str, reason: str) -> None:
        """Make a cell invalid because its test failed after the cell was measured."""
        from fxeval.records.schema import CellResult
        from fxeval.statistics.results import refused

        for result in self.results:
            if result["cell"].get("nodeid") == nodeid:
                cell = refused(CellResult.model_validate(result["cell"]), reason.strip())
                result["cell"] = cell.model_dump(mode="json", by_alias=True)

    def decides_nothing(self) -> bool:
        """Say whether all cells that were asked for are for information."""
        return {one["cell"]["verdict"]["outcome"] for one in self.results} == {"information"}

    def unmeasured(self) -> list[str]:
        """Return the checks without a measurement: every cell that ran was unsupported."""
        outcomes: dict[str, set[str]] = {}
        for result in self.results:
            cell = result["cell"]
            outcomes.setdefault(cell["check"], set()).add(cell["verdict"]["outcome"])
        return [check for check, found in outcomes.items() if found == {"unsupported"}]

    def row_files(self) -> list[Path]:
        """Return the files of rows that the processes of this run have written."""
        return sorted(self.folder.glob("rows*.jsonl"))

    def records(self) -> list[Record]:
        """Return one record per suite file, cells in the suite's order.

        Raises:
            StoreError: If a subject describes itself in a way that a record cannot hold.
        """
        from pydantic import ValidationError

        from fxeval.errors import StoreError
        from fxeval.records.reading import faults_of

        suites = dict.fromkeys(result["suite"]["path"] for result in self.results)
        try:
            return [self._record(path) for path in suites]
        except ValidationError as error:
            raise StoreError(f"record: {faults_of(error)}.") from error

    def write(self, summary: Path | None = None) -> None:
        """Write every record with the views of it that its suite asks for.

        Args:
            summary: Where a summary of all records in Markdown goes, too.

        Raises:
            StoreError: If a file can't be written.
        """
        from fxeval.records.writing import append, dump, dumped, write
        from fxeval.scorecard import markdown_summary, render, summary_of_all

        self._finished = datetime.now(UTC)
        records, pages = self.records(), []
        for record in records:
            name = record.suite.name
            # Two suites of one name: their paths tell them apart.
            if sum(one.suite.name == name for one in records) > 1:
                name += "-" + hashlib.sha256(record.suite.path.encode()).hexdigest()[:6]
            formats, data = self._of(record.suite.path)[0]["formats"], dumped(record)
            pages.append((data, f"{name}.html" if "html" in formats else ""))
            # The views are made from the record alone.
            self._write(f"{name}.json", dump(record))
            if "html" in formats:
                self._write(f"{name}.html", render(data))
            if "markdown" in formats:
                self._write(f"{name}.md", markdown_summary(data, page=pages[-1][1]))
        if summary is not None:
            # Other commands of the same step have their own say in its summary.
            is_shared = os.environ.get("GITHUB_STEP_SUMMARY") == str(summary)
            (append if is_shared else write)(summary, summary_of_all(pages))
            self.written.append(summary)

    def _write(self, name: str, text: str) -> None:
        from fxeval.records.writing import write

        write(self.folder / name, text)
        self.written.append(self.folder / name)

    def _of(self, path: str) -> list[dict[str, Any]]:
        return [result for result in self.results if result["suite"]["path"] == path]

    def _record(self, path: str) -> Record:
        from fxeval.records.form import VerdictEntry
        from fxeval.records.schema import CellResult, Record
        from fxeval.statistics.holm import regressions_of
        from fxeval.statistics.transfer import transfers_of
        from fxeval.statistics.verdict import overall

        results = self._of(path)
        planned = results[0]["planned"]
        place = {cell: number for number, cell in enumerate(planned)}
        results.sort(key=lambda result: place.get(result["cell"]["id"], -1))
        cells = {
            result["cell"]["id"]: CellResult.model_validate(result["cell"]) for result in results
        }
        subjects: dict[str, dict[str, Any]] = {"models": {}, "explainers": {}, "pairs": {}}
        verified: dict[tuple[str, str], dict[str, Any]] = {}
        for result in results:
            for role, found in result["subjects"].items():
                for name, subject in found.items():
                    subjects[role][name] = {**subject}
                    entry = subjects[role][name].pop("verification", None)
                    if entry is not None:
                        verified[entry["model"], entry["pairs"]] = entry
        finished = self._finished or datetime.now(UTC)
        missing = [cell for cell in planned if cell not in cells]
        verdict = overall([cells[cell] for cell in cells], missing)
        measured = [cells[cell] for cell in planned if cell in cells]
        banners = [pairs["banner"] for pairs in subjects["pairs"].values() if pairs["banner"]]
        return Record.model_validate(
            {
                "run": {
                    "id": self._run_id,
                    "started": f"{self._started:%Y-%m-%dT%H:%M:%SZ}",
                    "finished": f"{finished:%Y-%m-%dT%H:%M:%SZ}",
                    "seconds": (finished - self._started).total_seconds(),
                    "command": self._command,
                    "complete": not missing,
                    "missing": missing,
                },
                "suite": results[0]["suite"],
                "banners": list(dict.fromkeys(banners)),
                "environment": results[0]["environment"],
                "subjects": subjects,
                "verification": list(verified.values()),
                "cells": measured,
                "sections": self.sections.get(path, []),
                "regressions": regressions_of(measured),
                "transfers": transfers_of(measured, missing),
                "self_checks": _each_once(results),
                "verdict": VerdictEntry(outcome=verdict.outcome, reason=verdict.reason),
            }
        )


def _each_once(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the self-checks of all cells, each once: workers find the same at their own cost."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        for one in result.get("self_checks", ()):
            what = {key: value for key, value in one.items() if key not in ("seconds", "forwards")}
            found.setdefault(json.dumps(what, sort_keys=True), one)
    return [*found.values()]
