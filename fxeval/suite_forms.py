"""The forms of a suite file: which keys there are, of what type, and in plain words what is wrong.

Every default of the format stands here or in the ``Parameters`` of a kind of check.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fxeval.metrics import CATALOGUE
from fxeval.strict_forms import Strict
from fxeval.verification import QUANTITIES, THRESHOLDS

# They need arguments, or would turn a verdict into something else.
_REFUSED_MARKS = {"filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"}


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
_Share = Annotated[float, Field(ge=0, le=1)]


_Entries = Annotated[list[Any], Field(min_length=1)]


class Suite(Strict):
    """The whole file."""

    fxeval: Literal[1]
    suite: _Name
    title: str = ""
    defaults: dict[str, Any] = {}
    models: _Entries | None = None
    explainers: _Entries | None = None
    pairs: _Entries | None = None
    verification: dict[str, Any] | None = None
    checks: _Entries
    report: dict[str, Any] = {}


class Defaults(Strict):
    """What holds for every check."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 20260101
    device: Annotated[str, AfterValidator(_device)] = "auto"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    on_inconclusive: Literal["fail", "warn"] = "fail"
    on_unsupported: Literal["fail", "skip"] = "fail"


class Verification(Strict):
    """What is asked of the models before they are explained."""

    flip_fusion: bool = False
    operating_threshold: Literal[("vendor", *THRESHOLDS)] = "vendor"  # type: ignore[valid-type]
    limits: _Entries | None = None
    models: Annotated[list[_Name], Field(min_length=1), AfterValidator(_once)] | None = None


class Demand(Strict):
    """A figure of verification that must hold; which form goes with it is checked by the caller."""

    metric: Literal[tuple(QUANTITIES)]  # type: ignore[valid-type]
    at_most: _Share | None = None
    at_least: _Share | None = None


class Report(Strict):
    """What is written after a run."""

    formats: Annotated[
        list[Literal["html", "json"]], Field(min_length=1), AfterValidator(_once)
    ] = ["html", "json"]


class Use(Strict):
    """A subject: the id of a fixture, parameters for it, another name."""

    use: _Name
    params: dict[str, Any] = {}
    name: Annotated[_Name | None, Field(alias="as")] = None


class Pairs(Use):
    """A pair list, and how many of its mated pairs to measure."""

    n: Annotated[int, Field(ge=1)] | None = None


class Check(Strict):
    """A check, without the parameters of its kind."""

    id: Annotated[_Name, AfterValidator(_check_id)]
    kind: Literal[tuple(CATALOGUE)]  # type: ignore[valid-type]
    why: str = ""
    limits: _Entries
    models: _Entries | None = None
    explainers: _Entries | None = None
    pairs: _Entries | None = None
    marks: Annotated[list[Annotated[str, AfterValidator(_mark)]], AfterValidator(_once)] = []


class Limit(Strict):
    """A limit; which keys go together is checked by the caller."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    better_than: str | None = None
    by: dict[str, Any] | None = None
    fill: str | None = None
    severity: Literal["critical", "warning", "info"] = "critical"


class Margin(Strict):
    """By how much a control must be beaten."""

    absolute: _AtLeastZero = 0.0
    relative: _AtLeastZero = 0.0
