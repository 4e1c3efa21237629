"""Parameters of subjects: what a suite may set, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fxeval.errors import FxevalError
from fxeval.registry import hint


def faults_of(kind: type, id: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every fault of a subject's parameters as (key, message); [] if none.

    Args:
        kind: A dataclass; its fields are the parameters.
        id: What the subject is called.
        params: Name to value, as a suite file gives them.
    """
    types = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]
    faults: list[tuple[str, str]] = []
    for key, value in params.items():
        if key not in known:
            faults.append((key, f"unknown parameter of {id}. {hint(key, known)}"))
        elif not fits(value, types[key]):
            faults.append((key, f"expected {spoken(types[key])}, got {_described(value)}."))
    wrong = {key for key, _ in faults}
    return faults + _refused(kind, {k: v for k, v in params.items() if k not in wrong}, types)


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
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _either([spoken(member) for member in members])
    if origin is Literal:
        return _either([str(member) for member in members])
    if origin in (tuple, list):
        return f"list of {spoken(members[0])}"
    words = {
        int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path",
        NoneType: "null",
    }  # fmt: skip
    return words.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload, no-any-return]


def kinds_of(kind: object) -> tuple[object, ...]:
    """Return the members of a union, or the type itself alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def fits(value: object, kind: object) -> bool:
    """Say whether a value of YAML is of a field's type; True is no number, 7 is a float too.

    Text is a path, too; types that YAML cannot write are not judged.
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in members)
    if origin is Literal:
        return any(value == member and type(value) is type(member) for member in members)
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and all(fits(item, members[0]) for item in value)
    accepted = {
        int: (int,), float: (int, float), str: (str,), Path: (str,), bool: (bool,),
        NoneType: (NoneType,),
    }  # fmt: skip
    if kind not in accepted:
        return True
    return isinstance(value, accepted[kind]) and (kind is bool or not isinstance(value, bool))


def _described(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _refused(
    kind: type, params: Mapping[str, Any], types: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return (key, message) of values that the subject refuses together.

    A key is to blame if it is refused alone, and still beside those that are not.
    """
    whole = _refusal(kind, params, types) if params else []
    if not whole:
        return []
    alone = [key for key in params if _refusal(kind, {key: params[key]}, types)]
    sound = {key: value for key, value in params.items() if key not in alone}
    blamed = [
        (key, message)
        for key in alone
        for message in _refusal(kind, {**sound, key: params[key]}, types)
    ]
    return blamed or [(list(params)[-1], message) for message in whole]


def _refusal(kind: type, params: Mapping[str, Any], types: Mapping[str, Any]) -> list[str]:
    """Make the subject, with blanks for what has no default, and return what it says."""
    blanks = {
        field.name: Path() if types[field.name] is Path else ""
        for field in fields(kind)
        if field.init and field.default is MISSING and field.default_factory is MISSING
    }
    given = {
        key: Path(value) if isinstance(value, str) and Path in kinds_of(types[key]) else value
        for key, value in params.items()
    }
    try:
        kind(**(blanks | {key: frozen(value) for key, value in given.items()}))
    except FxevalError as error:
        return [str(error)]
    return []
