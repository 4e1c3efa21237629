"""Keeps what protocols compute, for later cells, within a budget of memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Sized)


class Kept:
    """Remembers values by key; the least recently used go first.

    Args:
        budget: Bytes.

    Attributes:
        entries: The values.

    Example:
        >>> import numpy as np
        >>> kept = Kept(budget=1000)
        >>> kept.get("a", lambda: np.zeros(100)) is kept.get("a", lambda: np.ones(100))
        True
    """

    def __init__(self, budget: int = 256 << 20) -> None:
        self._budget = budget
        self.entries: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value under a key, made if it is not there."""
        if key in self.entries:
            self.entries.move_to_end(key)
            found: T = self.entries[key]
            return found
        made = self.entries[key] = make()
        sizes = {old: value.nbytes for old, value in self.entries.items()}
        while sum(sizes.values()) > self._budget and len(self.entries) > 1:
            old, _ = self.entries.popitem(last=False)
            del sizes[old]
        return made
