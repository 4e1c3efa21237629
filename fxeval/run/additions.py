"""What plug-ins add to a run: kinds of check, and fills."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fxeval.errors import FxevalError
from fxeval.functional.fills import add_fills
from fxeval.metrics import add_metrics

_ARE_TAKEN: pytest.StashKey[bool] = pytest.StashKey()


def take_additions(config: pytest.Config) -> None:
    """Register what plug-ins add, once, before the first suite of the run is read.

    Raises:
        FxevalError: If two plug-ins give one name, or one gives what cannot be used.
    """
    if config.stash.get(_ARE_TAKEN, False):
        return
    add_metrics(_merged("pytest_fxeval_metrics", config.hook.pytest_fxeval_metrics()))
    add_fills(_merged("pytest_fxeval_fills", config.hook.pytest_fxeval_fills()))
    config.stash[_ARE_TAKEN] = True


def _merged(hook: str, given: Sequence[Any]) -> dict[str, Any]:
    """Return the results of a hook as one mapping."""
    found: dict[str, Any] = {}
    for one in given:
        if not isinstance(one, Mapping):
            raise FxevalError(f"{hook}: expected a mapping by name, got {type(one).__name__}.")
        if twice := sorted(map(str, one.keys() & found.keys())):
            raise FxevalError(f"{hook}: expected each name once, got {', '.join(twice)} twice.")
        found |= one
    return found
