"""Applies the parameters of a suite to a subject that a fixture made."""

from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TypeVar

from fxeval.errors import FxevalError, SuiteError, for_a_record
from fxeval.redaction import of_user_code
from fxeval.strict.parameters import known_of, typed
from fxeval.suite.cells import Use

T = TypeVar("T")


def configured(subject: T, use: Use, role: str, folder: Path | None = None) -> T:
    """Return the subject with the suite's parameters, itself if there are none.

    Parameters are fields of a dataclass; a subject that is not a dataclass takes none. Relative
    paths start at the suite's folder; if the subject has a ``root``, the root starts there, and all
    other paths start at the root.

    Args:
        subject: The object that the fixture returned.
        use: The subject's name and parameters in the suite.
        role: ``model``, ``explainer`` or ``pairs``, for messages.
        folder: Folder of the suite, for paths that are written in it; None = the current one.

    Raises:
        SuiteError: With the place in the suite, if a parameter does not exist or is refused.
    """
    if not use.params:
        return subject
    if not is_dataclass(subject) or isinstance(subject, type):
        raise SuiteError(
            f"{use.where}: error: {role} '{use.id}' takes no parameters, got "
            f"{', '.join(use.params)}. Make {type(subject).__name__} a dataclass whose fields are "
            "the parameters, or remove 'params'."
        )
    kind, start = type(subject), f"{use.where}: error: {role} '{use.id}'"
    known = known_of(kind)
    values, wrong = typed(kind, use.params)
    for name in use.params:
        if name not in known:
            raise SuiteError(f"{start} has no parameter '{name}'. {wrong[name]}")
    for name, message in wrong.items():
        raise SuiteError(f"{start}: '{name}' {message}.")
    suite = use.folder or folder or Path()
    # The subject itself joins its other paths to its root.
    starts = {name: suite if name == "root" or "root" not in known else Path() for name in known}
    try:
        placed = {
            name: _placed(value, use.params[name], starts[name]) for name, value in values.items()
        }
        return replace(subject, **placed)
    except (FxevalError, TypeError, ValueError) as error:
        said = for_a_record(error) if isinstance(error, FxevalError) else of_user_code(error)
        raise SuiteError(f"{start}: {error}", public=f"{start}: {said}") from error


def _placed(value: object, given: object, folder: Path) -> object:
    """Return a path that starts at a folder; an empty one stays, for the subject to refuse."""
    if not isinstance(value, Path):
        return value
    return folder / value if given else given
