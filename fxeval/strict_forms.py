"""Reads plain values as a form: which keys, of what type, and in plain words what is wrong."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fxeval.strict_yaml import Document, Loc, describe, suggestion

_Form = TypeVar("_Form", bound=BaseModel)

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


def read(
    document: Document,
    form: type[_Form],
    loc: Loc,
    raw: Mapping[str, Any],
    *,
    also_known: Iterable[str] = (),
) -> _Form:
    """Read a mapping as a form, strictly, and note every fault in the document.

    Args:
        document: Where the mapping comes from.
        form: The keys expected.
        loc: The mapping's path through the document.
        raw: The mapping.
        also_known: Keys that are no part of the form but may stand beside it, for suggestions.

    Returns:
        The form; after a fault, one in which every field that could not be read is None.
    """
    data = {}
    for key, value in raw.items():
        if value is None:
            document.fault(document.value((*loc, key)), f"'{key}' has no value")
        else:
            data[key] = value
    try:
        # JSON, as there a list is the strict form of a tuple.
        return form.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    known = [field.alias or name for name, field in form.model_fields.items()]
    for error in errors:
        if error["type"] == "missing" and error["loc"][-1] in raw:
            continue  # it has no value, which is noted above
        if error["type"] == "too_short" and any(
            other["loc"][: len(error["loc"])] == error["loc"] for other in errors if other != error
        ):
            continue  # pydantic does not count faulty entries, and they are noted themselves
        _note(document, (*loc, *error["loc"]), error, [*known, *also_known])
    unreadable = {error["loc"][0] for error in errors if error["loc"]}
    good = {key: data[key] for key in known if key in data and key not in unreadable}
    blank = {key: None for key in known if key in unreadable}
    return form.model_construct(**{**good, **blank})


def _note(document: Document, loc: Loc, error: ErrorDetails, known: list[str]) -> None:
    """Note one of pydantic's errors: at the key if that is unknown, else at the value."""
    key = next((part for part in reversed(loc) if isinstance(part, str)), "")
    if error["type"] == "extra_forbidden":
        near = suggestion(key, known) or f"known: {', '.join(known)}"
        document.fault(document.key(loc), f"unknown key {describe(key)}", near)
        return
    if error["type"] == "missing":
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
