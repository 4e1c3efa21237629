"""Resolves the ids of a cell to the subjects that pytest's fixtures return."""

from typing import TYPE_CHECKING

from fxeval.contracts import Explainer, FaceModel
from fxeval.errors import (
    FxevalError,
    ModelContractError,
    SuiteError,
    UnsupportedError,
    for_a_record,
)
from fxeval.redaction import of_user_code
from fxeval.run.fixture_names import ROLES
from fxeval.run.workshop import Subjects
from fxeval.suite.cells import Cell, Use
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
        session: Of this process, which keeps the models that were loaded last.
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
    own = session.loaded(model)
    others: dict[str, dict[str, FaceModel | Explainer | FxevalError]] = {
        parameter: {use.name: _further(use, request, session) for use in named}
        for parameter, named in cell.further.items()
    }
    return Subjects(own, explainer, source, others, compared)


def _further(
    use: Use, request: "pytest.FixtureRequest", session: "Session"
) -> FaceModel | FxevalError:
    """Return a further model, loaded; an error that names its place if it cannot be."""
    try:
        found = request.getfixturevalue(f"model_{use.id}")
        loaded: FaceModel = session.loaded(
            configured(found, use, "model", request.node.path.parent)
        )
    except SuiteError:
        raise
    except Exception as error:  # user code may raise anything; the others are measured without it
        start = f"{use.where}: model '{use.name}'"
        said = for_a_record(error) if isinstance(error, FxevalError) else of_user_code(error)
        return ModelContractError(f"{start}: {error}", public=f"{start}: {said}")
    return loaded
