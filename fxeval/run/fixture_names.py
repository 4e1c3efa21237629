"""Finds the subjects that a suite may name: the fixtures ``model_<id>`` and so on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

ROLES = ("model", "explainer", "pairs")


def fixture_ids(
    config: pytest.Config, suite: Path, *, conftests_only: bool = False
) -> dict[str, frozenset[str]]:
    """Return, for each role, the ids for which a fixture is visible from a suite file."""
    found: dict[str, set[str]] = {role: set() for role in ROLES}
    for plugin in config.pluginmanager.get_plugins():
        where = getattr(plugin, "__file__", None)
        file = Path(where if isinstance(where, str) else "")
        if file.name == "conftest.py" and file.parent not in suite.parents:
            continue
        if conftests_only and file.name != "conftest.py":
            continue
        for name in fixture_names(plugin):
            role, _, id = name.partition("_")
            if role in found and id:
                found[role].add(id)
    return {role: frozenset(ids) for role, ids in found.items()}


def fixture_names(plugin: object) -> Iterable[str]:
    """Yield the names of the fixtures that a module defines."""
    for name, value in list(vars(plugin).items()) if hasattr(plugin, "__dict__") else ():
        # pytest has no public name for it: since 8.4 a fixture is an object, before it was a
        # function that carried its marker.
        # Statically: a conftest may hold objects that answer any question, or raise at it.
        for kind in ("_fixture_function_marker", "_pytestfixturefunction"):
            marker = inspect.getattr_static(value, kind, None)
            if marker is not None:
                given = getattr(marker, "name", None)
                yield given if isinstance(given, str) and given else name
                break
