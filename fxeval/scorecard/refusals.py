"""Turns errors on damaged records into one kind of error."""

from collections.abc import Iterator
from contextlib import contextmanager

from fxeval.errors import StoreError


@contextmanager
def refused() -> Iterator[None]:
    """Turn every exception of the block into a StoreError; also a decorator.

    Raises:
        StoreError: With the reason.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {ascii(str(error))[1:200]}"
        raise StoreError(
            f"record: expected a record as fxeval writes it, got {reason}. Restore the file, or "
            "run the suite again."
        ) from error
