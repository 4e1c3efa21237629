"""Resolves the ids of a cell to the subjects that pytest's fixtures return."""

from typing import TYPE_CHECKING

from fxeval.errors import UnsupportedError
from fxeval.run.fixture_names import ROLES
from fxeval.run.workshop import Subjects
from fxeval.suite.cells import Cell
from fxeval.suite.configure import configured

if TYPE_CHECKING:
    import pytest

    from fxeval.run.session import Session


def subjects_of(
    cell: Cell, request: "pytest.FixtureRequest", session: "Session", *, unsupported: str = ""
) -> Subjects:
    """Return the subjects of a cell, with the suite's parameters and models loaded.

    Args:
        cell: The cell.
        request: Of its test.
        session: Of this process, which keeps the model that was loaded last.
        unsupported: Why the explainer cannot explain this model, if that was known beforehand.

    Raises:
        UnsupportedError: If it was known.
        FxevalError: If a subject cannot be made; user code may raise anything.
    """
    if unsupported:
        raise UnsupportedError(unsupported)
    model, explainer, source = (
        configured(request.getfixturevalue(f"{role}_{use.id}"), use, role, request.node.path.parent)
        for role, use in zip(ROLES, (cell.model, cell.explainer, cell.pairs), strict=True)
    )
    return Subjects(session.loaded(model), explainer, source)
