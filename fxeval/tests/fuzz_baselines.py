"""Fuzzed files of baselines: the pointers, and the acknowledged regressions."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from fxeval.errors import StoreError
from fxeval.records.acknowledged import FILE, Acknowledged, read_acknowledged, states
from fxeval.records.baselines import Baseline, checked_folder, read_baseline
from fxeval.tests.fuzz_mutations import damaged, garbage, retyped, reworded
from fxeval.tests.fuzzing import Parser

TODAY = date(2026, 11, 30)
_KEPT = {"file": "small.json", "n_bytes": 2, "sha256": "0" * 64}
_POINTER = {
    "run": "20261120T101500Z-a1b2c3", "folder": "runs/20261120T101500Z-a1b2c3", "fxeval": "0.1.0",
    "commit": None, "started": "2026-11-20T10:15:00Z", "set_on": "2026-11-20", "reason": "first",
    "suites": [{"suite": "small", "digest": "1" * 64, "record": _KEPT}],
    "rows": [{**_KEPT, "file": "rows.jsonl"}],
}  # fmt: skip
_BASELINES = [
    {"baseline": 1, "name": "main", "pointers": {"Linux x86_64, torch 2.13, float32": _POINTER}},
    {"baseline": 1, "name": "main", "pointers": {"a": {**_POINTER, "folder": "../reports/x"}}},
]
_ACKNOWLEDGED = """\
acknowledged: 1
regressions:
  - suite: small
    cell: "deletion[tiny-quick-memory]"
    metric: deletion_auc
    under: {fill: mean, fraction: 0.5}
    reason: it blurs more
    until: 2027-01-31
    by: Ann
"""


def parsers(data: Path | None) -> list[Parser]:
    texts = [json.dumps(one, indent=1) for one in _BASELINES]
    entries = [yaml.safe_load(_ACKNOWLEDGED.replace("2027-01-31", "'2027-01-31'"))]
    return [
        Parser(
            "baseline",
            retyped(_BASELINES) | damaged([one.encode() for one in texts]) | garbage(),
            _baseline,
            _check_baseline,
            ".json",
        ),
        Parser(
            "acknowledged regressions",
            reworded([_ACKNOWLEDGED]) | retyped(entries) | damaged([_ACKNOWLEDGED.encode()])
            | garbage(),
            _acknowledged,
            _check_acknowledged,
            ".yaml",
        ),
    ]  # fmt: skip


def _baseline(path: Path) -> tuple[Baseline, list[str]]:
    folder = path.parent / "baselines"
    folder.mkdir(exist_ok=True)
    (folder / "main.json").write_bytes(path.read_bytes())
    found, refused = read_baseline(folder, "main"), []
    for pointer in found.pointers.values():
        try:
            checked_folder(folder, pointer)
        except StoreError as error:
            refused.append(str(error))
    return found, refused


def _check_baseline(found: tuple[Baseline, list[str]]) -> None:
    baseline, refused = found
    assert baseline.name == "main"
    assert len(refused) == len(baseline.pointers)  # none of them has files
    assert all(len(one) < 1000 for one in refused)


def _acknowledged(path: Path) -> Acknowledged:
    (path.parent / FILE).write_bytes(path.read_bytes())
    return read_acknowledged(path.parent, TODAY)


def _check_acknowledged(found: Acknowledged) -> None:
    again: list[Any] = states(found.known, TODAY, None)
    assert len(again) == len(found.known)
    for one, state in again:
        assert state == ("active" if one.entry.until >= TODAY.isoformat() else "expired")
        assert one.entry.reason.strip()
        assert one.entry.where.startswith((FILE, "/"))
