"""Applies the parameters of a suite to a subject that a fixture made."""

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from fxeval.cells import Use
from fxeval.errors import FxevalError, SuiteError
from fxeval.explainers.parameters import frozen
from fxeval.registry import hint

T = TypeVar("T")


def configured(subject: T, use: Use, role: str) -> T:
    """Return the subject with the suite's parameters, itself if there are none.

    Parameters are fields of a dataclass; a subject that is none takes none.

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
    known = [field.name for field in fields(subject) if field.init]
    unknown = [name for name in use.params if name not in known]
    if unknown:
        raise SuiteError(
            f"{use.where}: error: {role} '{use.id}' has no parameter '{unknown[0]}'. "
            f"{hint(unknown[0], known)}"
        )
    try:
        return replace(subject, **{key: frozen(value) for key, value in use.params.items()})
    except (FxevalError, TypeError, ValueError) as error:
        raise SuiteError(f"{use.where}: error: {role} '{use.id}': {error}") from error
