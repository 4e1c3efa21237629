"""Applies the parameters of a suite to a subject that a fixture made."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from fxeval.cells import Use
from fxeval.errors import FxevalError, SuiteError
from fxeval.parameters import fits, frozen, kinds_of, spoken
from fxeval.registry import hint

T = TypeVar("T")


def configured(subject: T, use: Use, role: str, folder: Path | None = None) -> T:
    """Return the subject with the suite's parameters, itself if there are none.

    Parameters are fields of a dataclass; a subject that is none takes none. Relative paths start at
    the suite's folder; those of a subject with a ``root`` start there, and the root at the suite's.

    Args:
        subject: What the fixture returned.
        use: Names it and gives the parameters.
        role: ``model``, ``explainer`` or ``pairs``, for messages.
        folder: Of the suite; None = the current one.

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
    types = _types(type(subject))
    for name, value in use.params.items():
        if name in types and not fits(value, types[name]):
            raise SuiteError(
                f"{use.where}: error: {role} '{use.id}': '{name}' expected "
                f"{spoken(types[name])}, got {value!r} ({type(value).__name__})."
            )
    suite = folder or Path()
    starts = {name: suite if name == "root" or "root" not in known else Path() for name in known}
    try:
        return replace(
            subject,
            **{
                key: _placed(frozen(value), types.get(key), starts[key])
                for key, value in use.params.items()
            },
        )
    except (FxevalError, TypeError, ValueError) as error:
        raise SuiteError(f"{use.where}: error: {role} '{use.id}': {error}") from error


def _types(kind: type) -> Mapping[str, Any]:
    """Return the fields' types; none for a class whose hints name what is not there."""
    try:
        return get_type_hints(kind)
    except (NameError, TypeError, AttributeError):
        return {}


def _placed(value: Any, kind: object, folder: Path) -> Any:  # noqa: ANN401  (a field's value)
    return folder / value if isinstance(value, str) and value and Path in kinds_of(kind) else value
