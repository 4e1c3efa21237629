"""Validates plain values against a form, its keys and types, and words every fault plainly."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticKnownError

from fxeval.strict.text import describe, either, suggestion
from fxeval.strict.yaml_file import Document, Loc

_Entries = TypeVar("_Entries", bound=Collection[Any])
_Form = TypeVar("_Form", bound=BaseModel)

_BRANCH = "\x00"  # starts the name of a branch: no key of a strict document holds this character

# pydantic's names of what can be wrong, and our words for it.
_MUST = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping of keys to values",
    "string_type": "must be text",
    "too_long": "needs {max_length} or fewer entries",
    "too_short": "needs {min_length} or more entries",
    "tuple_type": "must be a list",
}


class Strict(BaseModel):
    """A form: no other keys, no values of other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


def one_of(name: str, known: Collection[str]) -> str:
    """Return a name if it is known, or refuse it as pydantic refuses what is no literal.

    For names that may be added while the program runs, which a ``Literal`` cannot hold.
    """
    if name not in known:
        expected = either([f"'{one}'" for one in known])
        raise PydanticKnownError("literal_error", {"expected": expected})
    return name


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return a check of text against a whole pattern; ``expected`` says what it stands for."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(expected)
        return text

    return AfterValidator(check)


def once(values: _Entries) -> _Entries:
    """Return entries of which none comes twice.

    >>> once(("blur", "black"))
    ('blur', 'black')

    Raises:
        ValueError: If one does.
    """
    if len(set(values)) != len(values):
        raise ValueError("expected every entry at most once")
    return values


def branch(name: str) -> str:
    """Return the tag of one form of a union; paths through the document leave tags out."""
    return _BRANCH + name


def read(document: Document, form: type[_Form], loc: Loc, raw: Mapping[str, Any]) -> _Form:
    """Read a mapping as a form, strictly, and note every fault in the document.

    Args:
        document: Where the mapping comes from.
        form: The keys expected.
        loc: The mapping's path through the document.
        raw: The mapping.

    Returns:
        The form; after a fault, one in which every field that could not be read is None.
    """
    found, left = judged(document, form, loc, raw)
    if found is not None:
        return found
    fields = _fields(form)
    blank = {
        key: None
        for key, field in fields.items()
        if (left[key] != raw[key] if key in left else field.is_required())
    }
    good = {key: value for key, value in left.items() if key in fields and value is not None}
    return form.model_construct(**{**good, **blank})


def judged(
    document: Document,
    form: type[_Form],
    loc: Loc,
    raw: Mapping[str, Any],
    *,
    free: Collection[str] = (),
) -> tuple[_Form | None, dict[str, Any]]:
    """Validate a mapping and all that is in it; note every fault in the document.

    Args:
        document: Where the mapping comes from.
        form: The keys expected.
        loc: The mapping's path through the document.
        raw: The mapping.
        free: Keys, at any depth, inside whose values other keys may have no value.

    Returns:
        The form, or None if there are faults; and a copy of the mapping for further checks, in
        which None stands for whatever could not be read.
    """
    blank: set[Loc] = set()
    data = _without_blanks(raw, (), free, blank)
    for path in blank:
        document.fault(document.value((*loc, *path)), f"'{path[-1]}' has no value")
    try:
        # Pydantic's strict mode takes a list for a tuple only when it reads JSON.
        found = form.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    else:
        return (None if blank else found), _left(raw, (), ())
    paths = [_path(data, error) for error in errors]
    for error, path in zip(errors, paths, strict=True):
        if path in blank:
            continue  # it has no value, which is noted above
        if error["type"] == "too_short" and any(
            other[: len(path)] == path != other for other in (*paths, *blank)
        ):
            continue  # pydantic does not count faulty entries, and they are noted themselves
        _note(document, (*loc, *path), error, form)
    return None, _left(raw, (), set(paths))


def _without_blanks(value: Any, loc: Loc, free: Collection[str], blank: set[Loc]) -> Any:  # noqa: ANN401
    """Return the values without the keys that have no value; collect the paths of those."""
    if isinstance(value, list):
        return [_without_blanks(item, (*loc, n), free, blank) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    blank |= {(*loc, key) for key, inner in value.items() if inner is None}
    return {
        key: inner if key in free else _without_blanks(inner, (*loc, key), free, blank)
        for key, inner in value.items()
        if inner is not None
    }


def _left(value: Any, loc: Loc, faulty: Collection[Loc]) -> Any:  # noqa: ANN401
    """Return a copy of the values in which None stands for the faulty ones."""
    if loc and loc in faulty:
        return None
    if isinstance(value, list):
        return [_left(item, (*loc, n), faulty) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _left(inner, (*loc, key), faulty) for key, inner in value.items()}
    return value


def _path(data: Any, error: ErrorDetails) -> Loc:  # noqa: ANN401
    """Return where an error lies in the values, without the branches of unions."""
    path: list[str | int] = []
    for part in error["loc"]:
        inside = range(len(data)) if isinstance(data, list) else data
        if isinstance(inside, dict | range) and part in inside:
            data = data[part]
            path.append(part)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _known(form: type[BaseModel], loc: Loc) -> list[str]:
    """Return the keys of the form at ``loc``, branches included, inside another form."""
    kind: Any = form
    for part in loc:
        members = get_args(kind)
        if isinstance(part, int):
            kind = members[0]
        elif part.startswith(_BRANCH):
            kind = next(one for one in members if Tag(part) in get_args(one))
        else:
            kind = _fields(kind)[part].annotation
        # Unwrap Annotated[X, ...] and X | None.
        while get_origin(kind) is Annotated or type(None) in get_args(kind):
            kind = next(one for one in get_args(kind) if one is not type(None))
    return list(_fields(kind))


def _fields(form: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a form by their keys."""
    return {field.alias or name: field for name, field in form.model_fields.items()}


def _note(document: Document, loc: Loc, error: ErrorDetails, form: type[BaseModel]) -> None:
    """Note one of pydantic's errors: at the key if that is unknown, else at the value."""
    key = next((part for part in reversed(loc) if isinstance(part, str)), "")
    if error["type"] == "extra_forbidden":
        known = _known(form, error["loc"][:-1])
        near = suggestion(key, known) or f"known: {', '.join(known)}"
        document.fault(document.key(loc), f"unknown key {describe(key)}", near)
        return
    if error["type"] == "missing" and loc[-1] == key:
        document.fault(document.value(loc[:-1]), f"the key '{key}' is missing")
        return
    name = f"'{key}'" if loc[-1:] == (key,) else f"an entry of '{key}'"
    given, help = describe(error["input"]), ""
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        text = f"{name}: {context['error']}, got {given}"
    elif error["type"] in _MUST:
        text = f"{name} {_MUST[error['type']].format(**context)}, got {given}"
        help = suggestion(error["input"], re.findall("'([^']*)'", context.get("expected", "")))
    else:
        text = f"{name} cannot be {given}"
    document.fault(document.value(loc), text, help)
