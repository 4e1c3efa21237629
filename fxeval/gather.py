"""Brings the results of all processes together into one record and one scorecard per suite."""

import hashlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ORDER = ("invalid", "fail", "inconclusive", "pass", "unsupported")


class Gatherer:
    """Gathers cells as they finish; closes the records at the end.

    Args:
        folder: Of this run; made when the first file is written.
        run_id: Name of the run.
        started: When the run began.
        command: That started it.

    Attributes:
        results: What the processes sent, in order of arrival.
        written: Files written so far.
    """

    def __init__(self, folder: Path, run_id: str, started: datetime, command: str) -> None:
        self.results: list[dict[str, Any]] = []
        self.written: list[Path] = []
        self._folder = folder
        self._run_id = run_id
        self._started = started
        self._command = command
        self._finished: datetime | None = None

    def add(self, result: dict[str, Any]) -> None:
        """Take a finished cell with what its process knows about suite, subjects, environment."""
        self.results.append(result)

    def spoil(self, nodeid: str, reason: str) -> None:
        """Make a cell invalid whose test failed after it was measured."""
        for result in self.results:
            if result["cell"].get("nodeid") == nodeid:
                verdict = {"outcome": "invalid", "reason": reason.strip()}
                result["cell"] = {**result["cell"], "verdict": verdict}

    def unmeasured(self) -> list[str]:
        """Return the checks of which every cell that ran was unsupported: nothing was measured."""
        outcomes: dict[str, set[str]] = {}
        for result in self.results:
            cell = result["cell"]
            outcomes.setdefault(cell["check"], set()).add(cell["verdict"]["outcome"])
        return [check for check, found in outcomes.items() if found == {"unsupported"}]

    def records(self) -> list[dict[str, Any]]:
        """Return one record per suite file, cells in the suite's order."""
        suites = dict.fromkeys(result["suite"]["path"] for result in self.results)
        return [self._record(path) for path in suites]

    def write(self) -> None:
        """Write every record and its scorecard.

        Raises:
            StoreError: If a file can't be written.
        """
        from fxeval import store
        from fxeval.scorecard import render

        self._finished = datetime.now(UTC)
        for record in self.records():
            record = store.plain(record)
            name = record["suite"]["name"]
            if sum(one["suite"]["name"] == name for one in self.records()) > 1:
                name += "-" + hashlib.sha256(record["suite"]["path"].encode()).hexdigest()[:6]
            formats = record["suite"].pop("formats")
            self._write(f"{name}.json", store.dump(record))  # whatever else: all comes from it
            if "html" in formats:
                self._write(f"{name}.html", render(record))

    def _write(self, name: str, text: str) -> None:
        from fxeval import store

        store.write(self._folder / name, text)
        self.written.append(self._folder / name)

    def _record(self, path: str) -> dict[str, Any]:
        results = [result for result in self.results if result["suite"]["path"] == path]
        planned = results[0]["planned"]
        cells = {result["cell"]["id"]: result["cell"] for result in results}
        subjects: dict[str, dict[str, Any]] = {"models": {}, "explainers": {}, "pairs": {}}
        baselines: dict[tuple[str, str], dict[str, Any]] = {}
        place = {cell: number for number, cell in enumerate(planned)}
        for result in sorted(results, key=lambda result: place.get(result["cell"]["id"], -1)):
            for role, found in result["subjects"].items():
                for name, subject in found.items():
                    subjects[role][name] = {**subject}
                    baseline = subjects[role][name].pop("verification", None)
                    if baseline is not None:
                        baselines[baseline["model"], baseline["pairs"]] = baseline
        finished = self._finished or datetime.now(UTC)
        missing = [cell for cell in planned if cell not in cells]
        return {
            "record": 1,
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
            "banners": list(
                dict.fromkeys(
                    pairs["banner"] for pairs in subjects["pairs"].values() if pairs["banner"]
                )
            ),
            "environment": results[0]["environment"],
            "subjects": subjects,
            "verification": list(baselines.values()),
            "cells": [cells[cell] for cell in planned if cell in cells],
            "verdict": _overall(list(cells.values()), missing),
        }


def _overall(cells: list[dict[str, Any]], missing: list[str]) -> dict[str, str]:
    """Return the verdict of a suite: the worst of its cells; nothing measured is never a pass."""
    outcomes = [cell["verdict"]["outcome"] for cell in cells]
    counts = Counter(outcomes)
    worst = next(outcome for outcome in ORDER if counts[outcome])
    measured = {cell["check"] for cell in cells if cell["verdict"]["outcome"] != "unsupported"}
    unmeasured = list(dict.fromkeys(c["check"] for c in cells if c["check"] not in measured))
    if unmeasured and worst in ("pass", "unsupported"):
        worst = "inconclusive"
    words = {
        "invalid": "could not be measured",
        "fail": "failed",
        "inconclusive": "inconclusive",
        "pass": "passed",
        "unsupported": "unsupported",
    }
    parts = [f"{counts[outcome]} {words[outcome]}" for outcome in ORDER if counts[outcome]]
    reason = f"of {len(outcomes) + len(missing)} cells " + ", ".join(parts)
    if unmeasured:
        reason += f"; nothing was measured of {', '.join(unmeasured)}"
    if missing:
        reason += f", {len(missing)} not run"
        worst = "inconclusive" if worst == "pass" else worst
    return {"outcome": worst, "reason": reason}
