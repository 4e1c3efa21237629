"""Hooks of fxeval: what pytest plug-ins may add, and a ``conftest.py`` beside the tests.

What a plug-in adds is a part of its own: its names must be new. A record says which kinds and fills
were used; other people need the plug-in to measure them again, and nothing to read the record.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fxeval.functional.fills import FillFunction
    from fxeval.records.schema import Record, Section


@pytest.hookspec
def pytest_fxeval_metrics() -> Mapping[str, ModuleType]:  # type: ignore[empty-body]
    """Return kinds of check by name, each a module of the form of those in ``fxeval.metrics``.

    Example:
        ::

            def pytest_fxeval_metrics():
                from acme import stability  # as the modules of fxeval.metrics

                return {"acme.stability": stability}
    """


@pytest.hookspec
def pytest_fxeval_fills() -> Mapping[str, "FillFunction"]:  # type: ignore[empty-body]
    """Return fills by name: what the removal metrics replace removed pixels with.

    Example:
        ::

            class White:
                def prepare(self, images):
                    return torch.ones_like(images)

                def apply(self, images, prepared, removed):
                    return torch.where(removed[:, None], prepared, images)


            def pytest_fxeval_fills():
                return {"white": White()}
    """


@pytest.hookspec
def pytest_fxeval_sections(record: "Record") -> Sequence["Section"]:  # type: ignore[empty-body]
    """Return sections for the scorecard of a suite, as mappings or ``Section`` objects.

    They are kept in the record, so that ``fxeval report`` shows them too, and they decide nothing.

    Args:
        record: Finished, without sections.

    Example:
        ::

            def pytest_fxeval_sections(record):
                rows = [[cell.id, f"{cell.seconds:.0f} s"] for cell in record.cells]
                return [{"title": "Time", "columns": ["cell", "measured in"], "rows": rows}]
    """
