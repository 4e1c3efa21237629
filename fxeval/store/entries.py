"""What the index holds of a run: rows of its tables, made of its records."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fxeval.errors import StoreError
from fxeval.records.hardware import hardware_class
from fxeval.records.judged import LimitResult
from fxeval.records.reading import load_record
from fxeval.records.schema import CellResult, Record
from fxeval.records.series import question_of
from fxeval.records.stored_run import EXPECTED, record_files

Entry: TypeAlias = dict[str, Any]
"""A row of a table, by the names of its columns."""

KINDS = {".json": "record", ".jsonl": "rows", ".html": "page", ".md": "summary"}
"""Kinds of the files of a run, by their suffix."""

_FORMS = ("at_most", "at_least", "better_than", "not_worse_than", "equivalent_to")


@dataclass(frozen=True)
class RecordEntries:
    """What the index holds of one record, without the key of its run.

    Attributes:
        run: The row of ``run``.
        tables: The rows of the other tables, by table.
    """

    run: Entry
    tables: Mapping[str, list[Entry]]


@dataclass(frozen=True)
class RunEntries:
    """What the index holds of the folder of a run.

    Attributes:
        id: Of the run.
        folder: Absolute.
        digests: SHA-256 of each of its files, by name.
        records: By the name of their file without its suffix.
    """

    id: str
    folder: Path
    digests: Mapping[str, str]
    records: Mapping[str, RecordEntries]


def run_entries(path: Path) -> RunEntries:
    """Return what the index holds of a run.

    Args:
        path: The folder of the run, or a record in it.

    Raises:
        StoreError: If there is no record, one is damaged, or they are of several runs.
    """
    folder = (path.parent if path.is_file() else path).absolute()
    found = record_files(folder) if folder.is_dir() else []
    if not found:
        raise StoreError(f"{path}: {EXPECTED}, got no record there.")
    files = artefacts(folder)
    try:
        records = {file.stem: load_record(file) for file in found}
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    ids = sorted({record.run.id for record in records.values()})
    if len(ids) > 1:
        raise StoreError(
            f"{path}: expected the records of one run, got those of {len(ids)}: {ids[0]!r:.80} and "
            f"{ids[1]!r:.80}. Give each run a folder of its own."
        )
    return RunEntries(
        id=plain_text(ids[0]),
        folder=folder,
        digests={file["path"]: file["digest"] for file in files},
        records={
            plain_text(stem): record_entries(stem, record, files)
            for stem, record in records.items()
        },
    )


def artefacts(folder: Path) -> list[Entry]:
    """Return the files of a run: name, kind, SHA-256 and size.

    Raises:
        StoreError: If one can't be read.
    """
    try:
        files = [
            (file, digest_of(file))
            for file in sorted(folder.iterdir())
            if file.suffix in KINDS and file.is_file() and not file.name.startswith(".")
        ]
        return [
            {
                "path": plain_text(file.name),
                "kind": KINDS[file.suffix],
                "digest": digest,
                "bytes": file.stat().st_size,
            }
            for file, digest in files
        ]
    except OSError as error:
        raise StoreError(f"{folder}: can't be read: {error.strerror}.") from error


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def record_entries(stem: str, record: Record, files: list[Entry]) -> RecordEntries:
    """Return what the index holds of one record.

    Args:
        stem: Name of its file without the suffix.
        record: The record.
        files: All files of the run; those of other records are left out.
    """
    machine = hardware_class(record.environment)
    shared = {"suite": record.suite.name, "hardware_class": machine, "started": record.run.started}
    tables: dict[str, list[Entry]] = {
        "subject": _subjects(record),
        "cell": [],
        "estimate": [],
        "limit": [],
        "artefact": [
            file for file in files if file["kind"] == "rows" or Path(file["path"]).stem == stem
        ],
    }
    for number, cell in enumerate(record.cells):
        question = question_of(record, cell)
        tables["cell"].append({"number": number, **_cell(cell), "question": question, **shared})
        tables["estimate"] += [{"cell": number, **one} for one in _estimates(cell)]
        tables["limit"] += [
            {"cell": number, "number": place, **_limit(limit)}
            for place, limit in enumerate(cell.limits)
        ]
    run = {
        "id": record.run.id,
        "record": stem,
        "title": record.suite.title,
        "suite_digest": record.suite.digest,
        "finished": record.run.finished,
        "seconds": record.run.seconds,
        "complete": record.run.complete,
        "commit": record.environment.commit,
        "dirty": record.environment.dirty,
        "fxeval": record.environment.fxeval,
        "environment": as_json(record.environment.model_dump(mode="json")),
        "outcome": record.verdict.outcome.value,
        "reason": record.verdict.reason,
        **shared,
    }
    cleaned = {table: [_clean(entry) for entry in entries] for table, entries in tables.items()}
    return RecordEntries(_clean(run), cleaned)


def _subjects(record: Record) -> list[Entry]:
    subjects = record.subjects
    found: list[Entry] = [
        {"role": "model", "name": name, "digest": one.digest, "class": one.name, "parameters": "{}"}
        for name, one in subjects.models.items()
    ]
    found += [
        {
            "role": "explainer", "name": name, "digest": one.digest, "class": one.class_,
            "parameters": as_json(one.params),
        }
        for name, one in subjects.explainers.items()
    ]  # fmt: skip
    found += [
        {"role": "pairs", "name": name, "digest": one.digest, "class": one.name, "parameters": "{}"}
        for name, one in subjects.pairs.items()
    ]
    return found


def _cell(cell: CellResult) -> Entry:
    return {
        "id": cell.id, "check": cell.check, "kind": cell.kind, "model": cell.model,
        "explainer": cell.explainer, "pairs": cell.pairs, "outcome": cell.verdict.outcome.value,
        "reason": cell.verdict.reason, "attempt": cell.attempt, "seconds": cell.seconds,
        "n_pairs": cell.n_pairs, "n_identities": cell.n_identities,
        "parameters": as_json(cell.parameters),
    }  # fmt: skip


def _estimates(cell: CellResult) -> list[Entry]:
    declared = {metric.name: metric for metric in cell.metrics}
    return [
        {
            "number": number, "metric": one.metric, "title": declared[one.metric].title,
            "unit": declared[one.metric].unit, "better": declared[one.metric].better,
            "map": one.map, "under": as_json(one.under), "value": one.value, "low": one.low,
            "high": one.high, "confidence": one.confidence, "n_pairs": one.n_pairs,
            "n_identities": one.n_identities, "method": one.method, "seed_sd": one.seed_sd,
        }
        for number, one in enumerate(cell.estimates)
    ]  # fmt: skip


def _limit(limit: LimitResult) -> Entry:
    form = next(name for name in _FORMS if getattr(limit, name) is not None)
    against = getattr(limit, form)
    found = limit.estimate
    return {
        "metric": limit.metric, "text": limit.text, "form": form,
        "against": against if isinstance(against, str) else None, "severity": limit.severity,
        "over": limit.over, "under": as_json(limit.under), "line": limit.line,
        "outcome": limit.verdict.outcome.value, "reason": limit.verdict.reason,
        "value": found and found.value, "low": found and found.low, "high": found and found.high,
        "p_value": limit.p_value,
    }  # fmt: skip


def as_json(data: Mapping[str, Any]) -> str:
    """Return data as JSON text that is the same for equal data.

    >>> as_json({"fraction": 0.1, "fill": "blur"})
    '{"fill": "blur", "fraction": 0.1}'
    """
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def plain_text(text: str) -> str:
    r"""Return text that any database takes: what none can hold becomes U+FFFD.

    >>> plain_text("a\0b\udcffc") == "a\ufffdb?c"
    True
    """
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _clean(entry: Entry) -> Entry:
    return {name: _cleaned(value) for name, value in entry.items()}


def _cleaned(value: Any) -> Any:  # noqa: ANN401  (a column's value)
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
