"""Moves a baseline to another run: only to one that is whole, sound and of a known version."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from fxeval.errors import StoreError
from fxeval.records.baselines import (
    NAME,
    RUNS,
    Baseline,
    KeptSuite,
    Pointer,
    kept,
    locked,
    named_in,
    names_in,
    path_of,
    read_baseline,
    write_baseline,
)
from fxeval.records.hardware import hardware_class
from fxeval.records.schema import Record
from fxeval.records.stored_run import StoredRun
from fxeval.results import Outcome

SHOWN_CELLS = 5


@dataclass(frozen=True)
class Move:
    """A baseline that was moved.

    Attributes:
        path: Its file.
        hardware_class: Of the pointer that was moved.
        before: The pointer before; None if there was none.
        after: The pointer now.
    """

    path: Path
    hardware_class: str
    before: Pointer | None
    after: Pointer

    def lost_suites(self) -> list[str]:
        """Return the suites that the baseline had before and has no more."""
        now = {one.suite for one in self.after.suites}
        before = self.before.suites if self.before is not None else []
        return [one.suite for one in before if one.suite not in now]


@dataclass(frozen=True)
class Asked:
    """How a baseline is to be moved.

    Attributes:
        today: Day that the baseline keeps, in UTC.
        reason: Why it is moved.
        in_place: Whether the files stay where they are; else they are copied to the baselines.
        allow_dirty: Whether the code may have had changes that are in no commit.
    """

    today: date
    reason: str = ""
    in_place: bool = False
    allow_dirty: bool = False


def move(folder: Path, name: str, run: StoredRun, asked: Asked) -> Move:
    """Move the pointer of a run's hardware class to this run.

    Args:
        folder: That of the baselines; made if it is not there.
        name: Name of the baseline; it is made if it is not there.
        run: The run.
        asked: How.

    Raises:
        StoreError: If the run is no fit baseline, or a file can't be read or written; it says why.
    """
    path = path_of(folder, name)
    one = _the_record(run)
    faults = [fault for record in run.records.values() for fault in faults_of(record, run)]
    if one.environment.dirty and not asked.allow_dirty:
        faults.append(
            "the code had changes that are in no commit (commit them and run again, or give "
            "--allow-dirty)"
        )
    if faults:
        raise StoreError(f"run {one.run.id} cannot become a baseline: {'; '.join(faults)}.")
    with locked(folder):
        known = read_baseline(folder, name) if path.exists() else Baseline(name=name, pointers={})
        own = hardware_class(one.environment)
        where = _in_place(folder, run) if asked.in_place else _copied(folder, run, one.run.id)
        pointer = _pointer(os.path.relpath(where, folder.resolve()), run, one, asked)
        pointers = dict(sorted({**known.pointers, own: pointer}.items()))
        write_baseline(folder, known.model_copy(update={"pointers": pointers}))
    return Move(path, own, known.pointers.get(own), pointer)


def faults_of(record: Record, run: StoredRun) -> list[str]:
    """Return why a record cannot stand for a baseline; [] if it can."""
    faults, name = [], f"suite {record.suite.name}"
    if not record.run.complete:
        faults.append(f"{name} did not run completely ({len(record.run.missing)} cells missing)")
    invalid = [one.id for one in record.cells if one.verdict.outcome is Outcome.INVALID]
    if invalid:
        faults.append(f"{name} has invalid cells: {_some(invalid)}")
    again = [one.id for one in record.cells if one.attempt > 1 or one.earlier]
    if again:
        faults.append(f"{name} has cells that were run again: {_some(again)}")
    early = [
        one.id
        for one in record.cells
        if one.looks_taken is not None and one.looks_taken.used < len(one.looks_taken.rows)
    ]
    if early:  # they stopped where their values were clear, so these flatter or wrong them
        faults.append(
            f"{name} has cells that stopped at an early look: {_some(early)} (measure it with "
            "'on_inconclusive: fail')"
        )
    found = run.by_cell(record.suite.name)
    short = [
        one.id
        for one in record.cells
        if one.refusal is None and len(found.get((one.id, one.attempt), [])) != one.n_pairs
    ]
    if short:
        faults.append(f"{name} has cells whose rows are not all there: {_some(short)}")
    return faults


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_CELLS} more" if len(names) > SHOWN_CELLS else ""
    return ", ".join(names[:SHOWN_CELLS]) + more


def _the_record(run: StoredRun) -> Record:
    """Return a record of the run; all of them must be of one run on one hardware class."""
    records = [*run.records.values()]
    ids = sorted({record.run.id for record in records})
    classes = sorted({hardware_class(record.environment) for record in records})
    names = [record.suite.name for record in records]
    if len(ids) > 1:
        raise StoreError(f"{run.folder}: expected the records of one run, got {', '.join(ids)}.")
    if len(classes) > 1:
        raise StoreError(
            f"{run.folder}: expected a run on one hardware class, got {'; '.join(classes)}."
        )
    if len({*names}) < len(names):
        raise StoreError(
            f"{run.folder}: expected one record for each suite, got two of the same name: "
            f"{', '.join(sorted(names))}."
        )
    if not NAME.fullmatch(ids[0]):
        raise StoreError(f"{run.folder}: expected a run id that can name a folder, got {ids[0]!r}.")
    return records[0]


def _files(run: StoredRun) -> tuple[dict[str, Path], list[Path]]:
    """Return the files of the records, by their stems, and those of the rows."""
    records = {stem: run.folder / f"{stem}.json" for stem in run.records}
    return records, sorted(run.folder.glob("rows*.jsonl"))


def _pointer(where: str, run: StoredRun, record: Record, asked: Asked) -> Pointer:
    records, rows = _files(run)
    return Pointer(
        run=record.run.id,
        folder=Path(where).as_posix(),
        fxeval=record.environment.fxeval,
        commit=record.environment.commit,
        started=record.run.started,
        set_on=asked.today.isoformat(),
        reason=asked.reason,
        suites=[
            KeptSuite(suite=one.suite.name, digest=one.suite.digest, record=kept(records[stem]))
            for stem, one in run.records.items()
        ],
        rows=[kept(path) for path in rows],
    )


def _in_place(folder: Path, run: StoredRun) -> Path:
    around = folder.absolute().parent.resolve()
    if not run.folder.resolve().is_relative_to(around):
        raise StoreError(
            f"{run.folder}: expected a run below {around}, the folder that holds the baselines. "
            "Leave out --in-place to copy it."
        )
    return run.folder.resolve()


def _copied(folder: Path, run: StoredRun, run_id: str) -> Path:
    """Copy the files of a run to the baselines, in one step, and return where they are."""
    target = folder.resolve() / RUNS / run_id
    records, rows = _files(run)
    files = [*records.values(), *rows]
    if target.is_dir():
        if run.folder.resolve() == target:
            return target
        there = {path.name: kept(path) for path in sorted(target.iterdir()) if path.is_file()}
        if there != {path.name: kept(path) for path in files}:
            raise StoreError(
                f"{target}: expected the files of run {run_id}, got others. If no baseline names "
                "them, remove them with: fxeval baseline prune"
            )
        return target
    beside = target.with_name(f".{run_id}.{os.getpid()}")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, beside / path.name)
        beside.replace(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StoreError(f"{target}: the run can't be copied: {error.strerror}.") from error
    return target


def unnamed_runs(folder: Path) -> list[Path]:
    """Return the copied runs that no baseline names.

    Raises:
        StoreError: If a baseline is damaged: what it named is not known.
    """
    baselines = {name: read_baseline(folder, name) for name in names_in(folder)}
    named = named_in(folder, baselines)
    return [
        path
        for path in sorted((folder / RUNS).glob("*"))
        if path.is_dir() and not path.is_symlink() and path.resolve() not in named
    ]


def prune(folder: Path) -> list[Path]:
    """Remove the copied runs that no baseline names, and return where they were.

    Raises:
        StoreError: If a baseline is damaged, or a folder can't be removed.
    """
    with locked(folder):
        found = unnamed_runs(folder)
        try:
            for path in found:
                shutil.rmtree(path)
        except OSError as error:
            raise StoreError(f"{path}: can't be removed: {error.strerror}.") from error
    return found
