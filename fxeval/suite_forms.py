"""The forms of a suite file: which keys there are, of what type, and in plain words what is wrong.

Every default of the format stands here or in the ``Parameters`` of a kind of check.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from fxeval.metrics import CATALOGUE
from fxeval.suite_yaml import Document, Loc, describe, suggestion

_Form = TypeVar("_Form", bound=BaseModel)

# They need arguments, or would turn a verdict into something else.
_REFUSED_MARKS = {"filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"}

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


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,79}", text):
        raise ValueError("a letter, then letters, digits, '-' and '_' expected, 80 at most")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text):
        raise ValueError("auto, cpu, cuda or cuda:N expected")
    return text


def _mark(text: str) -> str:
    if _name(text) in _REFUSED_MARKS or "-" in text:
        raise ValueError("the plain name of a pytest mark expected, one that leaves verdicts alone")
    return text


def _once(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("every entry at most once")
    return values


def _check_id(text: str) -> str:
    if re.match(r"(setup|teardown|setUp|tearDown|pytest)", text):
        raise ValueError("a name without a meaning of its own for pytest expected")
    return text


_Name = Annotated[str, AfterValidator(_name)]
_AtLeastZero = Annotated[float, Field(ge=0)]


_Entries = Annotated[list[Any], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Suite(_Strict):
    """The whole file."""

    fxeval: Literal[1]
    suite: _Name
    title: str = ""
    defaults: dict[str, Any] = {}
    models: _Entries | None = None
    explainers: _Entries | None = None
    pairs: _Entries | None = None
    checks: _Entries
    report: dict[str, Any] = {}


class Defaults(_Strict):
    """What holds for every check."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 20260101
    device: Annotated[str, AfterValidator(_device)] = "auto"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    on_inconclusive: Literal["fail", "warn"] = "fail"
    on_unsupported: Literal["fail", "skip"] = "fail"


class Report(_Strict):
    """What is written after a run."""

    formats: Annotated[
        list[Literal["html", "json"]], Field(min_length=1), AfterValidator(_once)
    ] = ["html", "json"]


class Use(_Strict):
    """A subject: the id of a fixture, parameters for it, another name."""

    use: _Name
    params: dict[str, Any] = {}
    name: Annotated[_Name | None, Field(alias="as")] = None


class Pairs(Use):
    """A pair list, and how many of its mated pairs to measure."""

    n: Annotated[int, Field(ge=1)] | None = None


class Check(_Strict):
    """A check, without the parameters of its kind."""

    id: Annotated[_Name, AfterValidator(_check_id)]
    kind: Literal[tuple(CATALOGUE)]  # type: ignore[valid-type]
    why: str = ""
    limits: _Entries
    models: _Entries | None = None
    explainers: _Entries | None = None
    pairs: _Entries | None = None
    marks: Annotated[list[Annotated[str, AfterValidator(_mark)]], AfterValidator(_once)] = []


class Limit(_Strict):
    """A limit; which keys go together is checked by the caller."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    better_than: str | None = None
    by: dict[str, Any] | None = None
    fill: str | None = None
    severity: Literal["critical", "warning", "info"] = "critical"


class Margin(_Strict):
    """By how much a control must be beaten."""

    absolute: _AtLeastZero = 0.0
    relative: _AtLeastZero = 0.0


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
