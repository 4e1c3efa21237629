"""Settings of the whole process that user code can change: remembered, compared, put back.

User code shares the process with the measurement, so whatever it leaves changed would change the
figures of others. The tables of settings are :data:`fxeval.hooks.torch_modes.COMPUTING`, what
decides how torch and numpy compute, and :data:`fxeval.hooks.surroundings.SURROUNDINGS`, the rest.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Mode:
    """A setting of the process.

    Attributes:
        name: For messages.
        get: Reads it; what it returns must not change afterwards.
        put: Sets it to what was read.
        same: Says whether two values are the same setting.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = operator.eq


class Modes:
    """Remembers settings of the process.

    Args:
        table: Which ones.
    """

    def __init__(self, table: Sequence[Mode]) -> None:
        self._kept = [(mode, _value(mode)) for mode in table]

    def changes(self) -> list[str]:
        """Return the names of the settings that differ now."""
        return [mode.name for mode, kept in self._kept if not _is_same(mode, kept)]

    def restore(self) -> list[str]:
        """Put every setting back; return the names of those that cannot be."""
        for mode, kept in self._kept:
            # Each is read again: it may follow from one that was put back before it.
            if kept is not _UNREADABLE and not _is_same(mode, kept):
                try:
                    mode.put(kept)
                except Exception:  # user code may have made anything of it
                    continue  # it is among the changes below
        return self.changes()


_UNREADABLE = object()


def _value(mode: Mode) -> Any:  # noqa: ANN401  (a setting may be anything)
    try:
        return mode.get()
    except Exception:  # torch refuses to say while its older and newer switches disagree
        return _UNREADABLE


def _is_same(mode: Mode, kept: Any) -> bool:  # noqa: ANN401
    now = _value(mode)
    if now is kept or now is _UNREADABLE or kept is _UNREADABLE:
        return now is kept
    return bool(mode.same(kept, now))
