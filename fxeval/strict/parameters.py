"""Parameters of subjects: what a suite may set, checked before anything is loaded.

The parameters of a subject are the fields of its dataclass. Pydantic checks their types strictly:
true is not a number, 7 is also a float, a list becomes a tuple, and text becomes a path where the
field is one. Whether a value makes sense is for the dataclass to decide.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from fxeval.errors import FxevalError
from fxeval.strict.text import either, hint

_WORDS: Mapping[object, str] = {
    int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path",
    NoneType: "null", dict[str, Any]: "mapping",
}  # fmt: skip


def faults_of(kind: type, id: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every fault of a subject's parameters as (key, message); [] if none.

    Args:
        kind: A dataclass; its fields are the parameters.
        id: Name of the subject, for messages.
        params: Name to value, as a suite file gives them.
    """
    values, wrong = typed(kind, params)
    unknown = f"unknown parameter of {id}. "
    known = known_of(kind)
    faults = [
        (key, f"{message}." if key in known else f"{unknown}{message}")
        for key, message in wrong.items()
    ]
    return faults + _refused(kind, values)


def typed(kind: type, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the parameters that are of their field's type, and what is wrong with the others.

    Args:
        kind: A dataclass; its fields are the parameters.
        params: Name to value, as a suite file gives them.

    Returns:
        Two mappings by name: the values as the fields hold them; and for each fault what was
        expected and given, or a suggestion if no field has the name.
    """
    types = types_of(kind)
    faulty: set[object] = set()
    try:
        # Pydantic's strict mode takes a list for a tuple, and text for a path, only in JSON.
        found = _adapter(kind).validate_json(json.dumps(params))
    except ValidationError as invalid:
        faulty = {error["loc"][0] for error in invalid.errors()}
        sound = {key: value for key, value in params.items() if key not in faulty}
        found = _adapter(kind).validate_json(json.dumps(sound))
    values = {  # 7 stays 7 where the field is a float: messages show it as it was written
        key: frozen(value if found[key] == value else found[key])
        for key, value in params.items()
        if key in found
    }
    known = known_of(kind)
    return values, {
        key: f"expected {spoken(types[key])}, got {_described(value)}"
        if key in known
        else hint(key, known)
        for key, value in params.items()
        if key in faulty
    }


def known_of(kind: type) -> list[str]:
    """Return the names of a dataclass's parameters."""
    return [field.name for field in fields(kind) if field.init]


@cache
def types_of(kind: type) -> Mapping[str, Any]:
    """Return the types of a dataclass's parameters; Any for all if a hint cannot be resolved."""
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError, AttributeError):
        hints = {}
    return {name: hints.get(name, Any) for name in known_of(kind)}


@cache
def _adapter(kind: type) -> TypeAdapter[dict[str, Any]]:
    """Return a validator for the parameters of a dataclass: any of its fields, no other keys."""
    judged = {name: _written(hint) for name, hint in types_of(kind).items()}
    make: Any = TypedDict  # its fields are known only at run time
    form = make(kind.__name__, judged, total=False)
    return TypeAdapter(with_config(ConfigDict(strict=True, extra="forbid"))(form))


def _written(kind: Any) -> Any:  # noqa: ANN401  (types of fields)
    """Return a field's type as YAML can write it; Any, which accepts all, if it cannot."""
    origin, members = get_origin(kind), get_args(kind)
    if origin is Literal:
        return Annotated[kind, BeforeValidator(lambda value: _member(value, members))]
    if origin in (Union, UnionType, tuple, list):
        inner = [one if one is Ellipsis else _written(one) for one in members]
        if Any in inner:
            return Any
        if Path in inner and origin not in (tuple, list):
            inner = [one for one in inner if one is not str]  # text is a path
        return (Union if origin is UnionType else origin)[tuple(inner)]
    return kind if kind in _WORDS else Any


def _member(value: object, members: Sequence[object]) -> object:
    """Refuse what only equals a member: true is not 1."""
    if not any(value == member and type(value) is type(member) for member in members):
        raise ValueError("no member")
    return value


def frozen(value: Any) -> Any:  # noqa: ANN401
    """Return a value of YAML as a field holds it: lists are tuples.

    >>> frozen([1, ["a"]])
    (1, ('a',))
    """
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def spoken(kind: object) -> str:
    """Say a field's type in the words of YAML.

    >>> spoken(str | tuple[str, ...] | None)
    'text, list of text or null'
    >>> spoken(Literal["blur", "mean", "black"])
    'blur, mean or black'
    >>> spoken(tuple[float, float])
    'list of 2: number, number'
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return either([spoken(member) for member in members])
    if origin is Literal:
        return either([str(member) for member in members])
    if origin in (tuple, list):
        if origin is list or members[-1] is Ellipsis:
            return f"list of {spoken(members[0])}"
        return f"list of {len(members)}: {', '.join(map(spoken, members))}"
    return _WORDS.get(kind) or str(getattr(kind, "__name__", kind))


def _described(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _refused(kind: type, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (key, message) for the values that the subject refuses.

    A key is to blame if it is refused alone, and again together with the keys that are not. If no
    key is, the last one gets the message.
    """
    whole = _refusal(kind, params) if params else []
    if not whole:
        return []
    alone = [key for key in params if _refusal(kind, {key: params[key]})]
    sound = {key: value for key, value in params.items() if key not in alone}
    blamed = [
        (key, message) for key in alone for message in _refusal(kind, {**sound, key: params[key]})
    ]
    return blamed or [(list(params)[-1], message) for message in whole]


def _refusal(kind: type, params: Mapping[str, Any]) -> list[str]:
    """Make the subject, with blanks for fields without a default; return its error message."""
    types = types_of(kind)
    blanks = {
        field.name: Path() if types[field.name] is Path else ""
        for field in fields(kind)
        if field.init and field.default is MISSING and field.default_factory is MISSING
    }
    try:
        kind(**(blanks | dict(params)))
    except FxevalError as error:
        return [str(error)]
    return []
