"""What a user may write where a command wants a run."""

from pathlib import Path

from fxeval.errors import StoreError


def run_path(text: str) -> Path:
    """Return the folder of a run, or its record, that a user named.

    Raises:
        StoreError: If nothing is there.
    """
    path = Path(text)
    if path.exists():
        return path
    raise StoreError(f"{text}: expected the folder of a run or a record in it, got nothing there.")
