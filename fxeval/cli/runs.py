"""What a user may write where a command wants a run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fxeval.errors import StoreError

if TYPE_CHECKING:
    from fxeval.records.baselines import Baseline, Pointer

STORE_VARIABLE = "FXEVAL_STORE"
"""Variable of the environment that names the index over many runs."""


def run_path(text: str, *, baselines: Path = Path("baselines"), store: str | None = None) -> Path:
    """Return the folder of a run, or its record, that a user named.

    Args:
        text: A path; the name of a baseline: its only run, or that of this hardware class; or the
            id of a run that an index has.
        baselines: Folder of the baselines.
        store: Address of that index; None = what ``FXEVAL_STORE`` names, if it is set.

    Raises:
        StoreError: If nothing is there, if a baseline and a path have this name, or if the files of
            the baseline are damaged.
    """
    from fxeval.records.baselines import NAME, checked_folder, names_in, path_of, read_baseline

    path = Path(text)
    is_name = NAME.fullmatch(text) is not None and path_of(baselines, text).is_file()
    if is_name and path.exists():
        raise StoreError(
            f"{text}: expected one thing of this name, got the baseline "
            f"{path_of(baselines, text)} and a path. Write ./{text} for the path."
        )
    if is_name:
        found = read_baseline(baselines, text)
        return checked_folder(baselines, _only(found))
    if path.exists():
        return path
    address = store or os.environ.get(STORE_VARIABLE)
    if address and "/" not in text:
        from fxeval.store.index import Store

        return Store(address).path_of(text)
    known = ", ".join(names_in(baselines))
    raise StoreError(
        f"{text}: expected the folder of a run, a record in it, or the name of a baseline"
        f"{f' ({known})' if known else ''}, got nothing there."
    )


def _only(baseline: "Baseline") -> "Pointer":
    """Return the only pointer of a baseline, or that of this machine."""
    if len(baseline.pointers) == 1:
        return next(iter(baseline.pointers.values()))
    from fxeval.records.baselines import pointer_of
    from fxeval.run.environment import this_class  # imports torch

    return pointer_of(baseline, this_class())
