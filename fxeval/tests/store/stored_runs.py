"""Folders of runs for tests of the store, made of the example records."""

import json
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "records"
EXAMPLES = {version: RECORDS / f"example_v{version}.json" for version in (1, 2)}


def write_run(
    reports: Path,
    name: str = "run-1",
    *,
    day: int = 1,
    version: int = 2,
    suite: str = "quickstart",
    value: float | None = None,
    edit=lambda record: record,
) -> Path:
    """Write a run: the example record of a version with another id, start and suite.

    Args:
        reports: Where its folder is made.
        name: Its id, and the name of the folder.
        day: Of May 2026, when it started.
        version: Of the record.
        suite: Name of the suite, and of the file of the record.
        value: Of all estimates; None = those of the example.
        edit: Changes the record.
    """
    record = json.loads(EXAMPLES[version].read_text("utf-8"))
    record["run"] |= {"id": name, "started": f"2026-05-{day:02}T00:00:00Z"}
    record["suite"]["name"] = suite
    if value is not None:
        for cell in record["cells"]:
            for one in cell["estimates"]:
                one["value"] = value
    folder = reports / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{suite}.json").write_text(json.dumps(edit(record)), encoding="utf-8")
    (folder / "rows.jsonl").write_text("", encoding="utf-8")
    return folder


def small(record: dict) -> dict:
    """Leave of a record what a short suite has: one cell, and no curves."""
    cell = record["cells"][0] | {"curves": [], "mean_map": None}
    return record | {"cells": [cell], "self_checks": [], "transfers": [], "verification": []}
