"""What becomes of a record that is not as fxeval writes it."""

from collections.abc import Iterator
from contextlib import contextmanager

from fxeval.errors import StoreError


@contextmanager
def refused() -> Iterator[None]:
    """Turn whatever a damaged record leads to into one error; also a decorator.

    Raises:
        StoreError: With what was found wrong.
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
