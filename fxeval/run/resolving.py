"""Resolves the ids of a cell to the subjects that pytest's fixtures return."""

from typing import TYPE_CHECKING

from fxeval.contracts import Explainer
from fxeval.errors import FxevalError, UnsupportedError
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
    compared: dict[str, Explainer | FxevalError] = {}
    for use in cell.others:
        try:
            found = request.getfixturevalue(f"explainer_{use.id}")
            compared[use.name] = configured(found, use, "explainer", request.node.path.parent)
        except FxevalError as error:  # the cell's own explainer is measured without it
            compared[use.name] = error
    return Subjects(session.loaded(model), explainer, source, compared=compared)
