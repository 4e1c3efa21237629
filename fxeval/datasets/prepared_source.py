"""Pair sources that have to be made before their first use."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class PreparedSource(Protocol):
    """A pair source whose images have to be made before its first use, which may take minutes."""

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Make what ``listing`` and ``images`` need, unless that has been done.

        Args:
            progress: Called with the number of images done, from 1, and of all.
        """
