"""The earlier runs that the limits of a run compare with, as its options name them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from fxeval.errors import StoreError, for_a_record
from fxeval.records.baselines import FOLDER, NAME, Baseline, names_in, path_of, read_baseline
from fxeval.records.earlier import EarlierRun
from fxeval.records.named_baseline import NamedBaseline
from fxeval.versions.git import GitError
from fxeval.versions.moved_baselines import moved_baseline

SHOWN_FILES = 5


@dataclass(frozen=True)
class Places:
    """Where a run looks for earlier runs.

    Attributes:
        baselines: Folder of the baselines.
        start: Folder at which paths start.
        reports: Folder that runs write to.
    """

    baselines: Path
    start: Path
    reports: Path


def day_of(run_id: str) -> date:
    """Return the day on which a run started, in UTC; all processes of the run say the same.

    >>> day_of("20261130T174559Z-a1b2c3")
    datetime.date(2026, 11, 30)
    """
    return datetime.strptime(run_id[:8], "%Y%m%d").replace(tzinfo=UTC).date()


def baselines_folder(given: str | None, start: Path, root: Path) -> Path:
    """Return the folder of the baselines.

    Args:
        given: What ``--fx-baselines`` names; None = ``baselines`` where pytest was started, or if
            it is not there in the root of the tests.
        start: Folder in which pytest was started.
        root: The root of the tests.
    """
    if given is not None:
        return start / given
    return start / FOLDER if (start / FOLDER).is_dir() else root / FOLDER


def earlier_runs(
    named: Mapping[str, str], places: Places, today: date
) -> list[EarlierRun | NamedBaseline]:
    """Return the earlier runs that options name.

    Args:
        named: By what limits compare with (``baseline``, ``base``): the name of a baseline, the
            folder of a run, or a record in it.
        places: Where to look.
        today: Day on which this run started.

    Raises:
        StoreError: If one is neither, or damaged, or a baseline is moved together with code.
    """
    baselines, start = places.baselines, places.start
    found: list[EarlierRun | NamedBaseline] = []
    for name, given in named.items():
        if is_baseline(given, baselines, start, f"--fx-{name}"):
            baseline = read_baseline(baselines, given)
            remark = _of_this_change(baseline, places)
            found.append(NamedBaseline(name, baselines, baseline, today, remark=remark))
        else:
            found.append(EarlierRun.read(name, start / given))
    return found


def is_baseline(given: str, baselines: Path, start: Path, option: str) -> bool:
    """Say whether a text names a baseline; else it is a path to a run.

    Raises:
        StoreError: If it could be both, or is neither.
    """
    is_name = NAME.fullmatch(given) is not None and path_of(baselines, given).is_file()
    is_path = (start / given).exists()
    if is_name and is_path:
        raise StoreError(
            f"{option} {given}: expected one thing of this name, got the baseline "
            f"{path_of(baselines, given)} and {start / given}. Write ./{given} for the path."
        )
    if not is_name and not is_path and NAME.fullmatch(given):
        known = ", ".join(names_in(baselines)) or "none"
        raise StoreError(
            f"{option} {given}: expected the folder of one run (<suite>.json and rows*.jsonl), a "
            f"record in it, or the name of a baseline, got a path where nothing is, and no "
            f"baseline of that name in {baselines} (known: {known}). Set one with: fxeval baseline "
            f"set {given} RUN"
        )
    return is_name


def _of_this_change(baseline: Baseline, places: Places) -> str:
    """Say whether the change that is tested moves the baseline; "" if it does not.

    Raises:
        StoreError: If it changes other files as well.
    """
    folder = places.baselines
    named = [folder / pointer.folder for pointer in baseline.pointers.values()]
    base = os.environ.get("GITHUB_BASE_REF")
    try:
        found = moved_baseline(
            folder,
            [path_of(folder, baseline.name), *named],
            main=f"origin/{base}" if base else None,
            output=[places.reports],
        )
    except GitError as error:
        said = for_a_record(error).rstrip(".")
        return f"whether this change moves the baseline was not checked: {said}"
    if not found.files:
        return ""
    if found.others:
        raise StoreError(
            f"baseline {baseline.name}: this change moves the baseline that it is compared with: "
            f"{_some(found.files)} differs from {found.since}, and so does {_some(found.others)}. "
            "Move the baseline in a change of its own, which touches nothing else."
        )
    return f"this change moves the baseline, and nothing else, since {found.since}"


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return ", ".join(names[:SHOWN_FILES]) + more
