"""The earlier runs that the limits of a run compare with, as its options name them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from fxeval.errors import StoreError
from fxeval.records.baselines import FOLDER, NAME, names_in, path_of, read_baseline
from fxeval.records.earlier import EarlierRun
from fxeval.records.named_baseline import NamedBaseline


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
    named: Mapping[str, str], baselines: Path, start: Path, today: date
) -> list[EarlierRun | NamedBaseline]:
    """Return the earlier runs that options name.

    Args:
        named: By what limits compare with (``baseline``, ``base``): the name of a baseline, the
            folder of a run, or a record in it.
        baselines: Folder of the baselines.
        start: Folder at which paths start.
        today: Day on which this run started.

    Raises:
        StoreError: If one is neither, or damaged.
    """
    found: list[EarlierRun | NamedBaseline] = []
    for name, given in named.items():
        if is_baseline(given, baselines, start, f"--fx-{name}"):
            found.append(NamedBaseline(name, baselines, read_baseline(baselines, given), today))
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
