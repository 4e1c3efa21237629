"""The forms of a suite file: its keys, their types, and plain words for what is wrong.

Every default of the format is set here or in the ``Parameters`` of a kind of check.
"""

import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    create_model,
)
from pydantic.json_schema import SkipJsonSchema

from fxeval.metrics import kinds
from fxeval.results import Judge, Over, Severity
from fxeval.statistics.limits import FORMS, MARGINS
from fxeval.strict.forms import Strict, branch, once, one_of
from fxeval.suite import words
from fxeval.suite.plan import DEFAULT_LOOKS, DEFAULT_SEEDS
from fxeval.suite.slices import ASlice
from fxeval.verification.figures import QUANTITIES, THRESHOLDS

ROLE = "x-fxeval-role"
"""Key that marks an id and its role in the JSON Schema (``fxeval.suite.schema``)."""
_COMPARED = r"^(control\.|explainer:|baseline$|base$)"


def _kind(text: str) -> str:
    return one_of(text, kinds())


def _schema(**keys: Any) -> Any:  # noqa: ANN401  (pydantic's FieldInfo, which it calls Any)
    """Add to the JSON Schema what pydantic cannot read from a type."""
    return Field(json_schema_extra=keys)


_Name = Annotated[str, AfterValidator(words.name), _schema(pattern=words.NAME)]
_AtLeastZero = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Seeds = Annotated[int, Field(ge=1, le=20)]
_Pinned = Annotated[Any, AfterValidator(words.pinned), _schema(type=["string", "number"])]
_OneOrMore = Field(min_length=1)
_OnInconclusive = Literal["fail", "warn", "extend"]
_Looks = Annotated[Any, AfterValidator(words.looks), _schema(oneOf=[*words.LOOKS])]

_ModelId = Annotated[_Name, _schema(**{ROLE: "model"})]
_ExplainerId = Annotated[_Name, _schema(**{ROLE: "explainer"})]
_PairsId = Annotated[_Name, _schema(**{ROLE: "pairs"})]


class Use(Strict):
    """A subject with parameters, or under another name.

    Attributes:
        use: Id of a subject that comes with fxeval, or of your own fixture.
        params: Parameters, the fields of the object that the fixture returns.
        name: Its name in this suite, so that one id can be used with several settings.
    """

    use: _Name
    params: dict[str, Any] = {}
    name: Annotated[_Name | None, Field(alias="as")] = None


class Model(Use):
    """A face model with parameters, or under another name."""

    use: _ModelId


class Explainer(Use):
    """An explainer with parameters, or under another name."""

    use: _ExplainerId


class Pairs(Use):
    """A pair list, and how much of it to measure.

    Attributes:
        n: Number of its mated pairs to measure (of its nonmated ones, or of people, for kinds of
            checks whose rows they are); all unless given.
    """

    use: _PairsId
    n: Annotated[int, Field(ge=1)] | None = None


def _name_or_use(entry: object) -> str:
    return branch("name" if isinstance(entry, str) else "use")


_NAME_TAG, _USE_TAG, _EITHER = Tag(branch("name")), Tag(branch("use")), Discriminator(_name_or_use)
_AModel = Annotated[Annotated[_ModelId, _NAME_TAG] | Annotated[Model, _USE_TAG], _EITHER]
_AnExplainer = Annotated[
    Annotated[_ExplainerId, _NAME_TAG] | Annotated[Explainer, _USE_TAG], _EITHER
]
_APairList = Annotated[Annotated[_PairsId, _NAME_TAG] | Annotated[Pairs, _USE_TAG], _EITHER]

Models: TypeAlias = Annotated[list[_AModel], _OneOrMore]
Explainers: TypeAlias = Annotated[list[_AnExplainer], _OneOrMore]
PairLists: TypeAlias = Annotated[list[_APairList], _OneOrMore]


class Margin(Strict):
    """A margin: one of the two.

    Attributes:
        absolute: A value in the metric's unit.
        relative: A fraction of the value that is compared with; not for equivalent_to.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    absolute: _AtLeastZero = 0.0
    relative: _AtLeastZero = 0.0


class Limit(Strict):
    """A limit that must hold.

    Which keys go together is checked by ``fxeval.suite.rules``.

    Attributes:
        metric: Name of the metric.
        at_most: Passes if the whole interval is at most this.
        at_least: Passes if the whole interval is at least this.
        better_than: control.<name> or explainer:<name>: passes if the improvement over it is above
            zero, or above the margin ``by``. No explainer is compared with itself.
        by: The margin of better_than.
        not_worse_than: baseline or base, an earlier run, paired row by row: passes if the explainer
            is worse by no more than ``within``, which only a limit over a list may leave out.
        equivalent_to: baseline, base, explainer:<name> or control.<name>: passes if the whole
            interval of the difference lies within ``within`` on both sides.
        within: The margin of not_worse_than and equivalent_to.
        under: The conditions to which it applies, such as {fill: blur}; all unless given.
        fill: Short for under: {fill: ...}.
        severity: critical decides the cell; warning and info are only shown.
        over: population: about all people like those of the list; list: about this list alone.
        judge: Over the conditions that it does not pin: each, or one verdict of the worst interval,
            or one of the mean of the rows' values.
        slice: A column of the check's slices: judged in each of its slices, or in the worst one
            (``judge: worst``); over all rows unless given.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [form]} for form in FORMS],
            "dependentSchemas": {
                key: {"anyOf": [{"required": [form]} for form in forms]}
                for key, forms in MARGINS.items()
            },
            "not": {"required": ["fill", "under"]},
        }
    )

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    better_than: Annotated[str, _schema(pattern=r"^(control\.|explainer:)")] | None = None
    by: Margin | None = None
    not_worse_than: Literal["baseline", "base"] | None = None
    equivalent_to: Annotated[str, _schema(pattern=_COMPARED)] | None = None
    within: Margin | None = None
    under: Annotated[dict[str, _Pinned], _OneOrMore] | None = None
    fill: str | None = None
    severity: Severity = "critical"
    over: Over = "population"
    judge: Judge = "each"
    slice: str | None = None


class Check(Strict):
    """A check, without the parameters of its kind.

    Attributes:
        id: Its name, unique in the suite.
        kind: The protocol that is measured.
        why: Why it matters, for the reader of a scorecard.
        limits: The limits that must hold.
        models: The face models it runs on; the suite's unless given.
        explainers: The explainers it runs on; the suite's unless given.
        pairs: The pair lists it runs on; the suite's unless given.
        seeds: Number of differently seeded maps of explainers that depend on a seed; that of
            defaults unless given, and 1 if the check itself compares the maps of two seeds.
        marks: Names of pytest marks.
        slices: Columns of the pair list, or attributes of its images, by whose words every metric
            has values of its own.
        on_inconclusive: Effect of an undecided interval on the test; that of defaults unless given.
        looks: Looks at a cell that is extended; those of defaults unless given.
    """

    id: Annotated[_Name, AfterValidator(words.check_id)]
    kind: Annotated[str, AfterValidator(_kind)]
    why: str = ""
    limits: Annotated[list[Limit], _OneOrMore]
    models: Models | None = None
    explainers: Explainers | None = None
    pairs: PairLists | None = None
    seeds: _Seeds | None = None
    marks: Annotated[
        list[
            Annotated[
                str, AfterValidator(words.mark), _schema(pattern="^[A-Za-z][A-Za-z0-9_]{0,79}$")
            ]
        ],
        AfterValidator(once),
        _schema(uniqueItems=True),
    ] = []
    slices: Annotated[list[ASlice], _OneOrMore] | None = None
    on_inconclusive: _OnInconclusive | None = None
    looks: _Looks | None = None


class CheckOfNoKind(Check):
    """A check of unknown kind: only the keys that every check has are validated."""

    model_config = ConfigDict(extra="ignore")


def _of_kind(kind: str, protocol: ModuleType) -> type[Check]:
    """Return the form of the checks of one kind: with its parameters, and limits on its metrics."""
    name = "".join(word.title() for word in re.findall("[a-z]+", kind.rpartition(".")[2]))
    metrics = [
        {"const": metric.name, "title": metric.title, "description": metric.meaning}
        for metric in protocol.METRICS
    ]
    limit = create_model(
        f"{name}Limit",
        __base__=Limit,
        __doc__="A limit that must hold.",
        metric=(Annotated[str, _schema(oneOf=metrics)], ...),
    )
    fields: dict[str, Any] = {
        "kind": (Literal[kind], ...),
        "limits": (Annotated[list[limit], _OneOrMore], ...),  # type: ignore[valid-type]
    }
    bases = (Check, protocol.Parameters)
    return create_model(f"{name}Check", __base__=bases, __doc__=protocol.__doc__, **fields)


def check_forms() -> Mapping[str, type[Check]]:
    """Return the form of a check by its kind, for all kinds that are known by now."""
    return _check_forms(tuple(kinds().items()))


@cache
def _check_forms(known: tuple[tuple[str, ModuleType], ...]) -> Mapping[str, type[Check]]:
    return {kind: _of_kind(kind, protocol) for kind, protocol in known}


def _kind_of(check: object) -> str:
    kind = check.get("kind") if isinstance(check, dict) else None
    return branch(kind if isinstance(kind, str) and kind in kinds() else "")


class Defaults(Strict):
    """Settings of every check.

    Attributes:
        seed: Seed of everything random.
        device: auto, cpu, cuda or cuda:N.
        seeds: Number of differently seeded maps of explainers that depend on a seed. Limits over a
            population need 3.
        confidence: Two-sided confidence of the intervals.
        on_inconclusive: Effect of an undecided interval on the test; extend: measure a share of
            the rows, judge them at a stricter level, and go on while that leaves the cell open.
        looks: How often a cell that is extended is judged, the last time on all rows; open: after
            every group of rows, by an interval that holds at all of them at once.
        on_unsupported: Effect on the test if the explainer cannot explain this kind of model.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 20260101
    device: Annotated[str, AfterValidator(words.device), _schema(pattern=words.DEVICE)] = "auto"
    seeds: _Seeds = DEFAULT_SEEDS
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    on_inconclusive: _OnInconclusive = "fail"
    looks: _Looks = DEFAULT_LOOKS
    on_unsupported: Literal["fail", "skip"] = "fail"


class Demand(Strict):
    """A figure of verification that must hold.

    Attributes:
        metric: Name of the figure.
        at_most: For a figure where lower is better.
        at_least: For a figure where higher is better.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["at_most"]}, {"required": ["at_least"]}]}
    )

    metric: Literal[tuple(QUANTITIES)]  # type: ignore[valid-type]
    at_most: _Share | None = None
    at_least: _Share | None = None


class Verification(Strict):
    """Demands on the models before they are explained.

    Attributes:
        flip_fusion: Fuse an image's embedding with that of its mirror image.
        operating_threshold: vendor for the model's own, or the name of one that is measured; one at
            a false match rate is measured on all comparisons of different people.
        limits: Limits on figures of verification.
        floor: checked: a model that does not tell mated from nonmated pairs is invalid; none: it is
            explained all the same, for experiments with untrained networks.
        models: Names of the models to which it applies; all unless given.
    """

    flip_fusion: bool = False
    operating_threshold: Literal[("vendor", *THRESHOLDS)] = "vendor"  # type: ignore[valid-type]
    limits: Annotated[list[Demand], _OneOrMore] | None = None
    floor: Literal["checked", "none"] = "checked"
    models: (
        Annotated[list[_Name], _OneOrMore, AfterValidator(once), _schema(uniqueItems=True)] | None
    ) = None


class Report(Strict):
    """The files that are written after a run.

    Attributes:
        formats: html for the scorecard, markdown for a summary, json for the record, which is
            written in any case.
    """

    formats: Annotated[
        list[Literal["html", "json", "markdown"]],
        _OneOrMore,
        AfterValidator(once),
        _schema(uniqueItems=True),
    ] = ["html", "json"]


class Suite(Strict):
    """A suite of checks on explanations of face-recognition models.

    Attributes:
        fxeval: Version of the format; the first key.
        suite: Its name.
        extends: fxeval:NAME, or the path of a suite from this file on: all that is not given here.
        title: Its title for readers.
        defaults: Settings of every check.
        models: Face models, for the checks that name none of their own.
        explainers: Explainers, for the checks that name none of their own.
        pairs: Pair lists, for the checks that name none of their own.
        verification: Demands on the models before they are explained.
        checks: The protocols to measure, and the limits that must hold; one or more.
        report: The files that are written after a run.
        self_check: Check first whether the metrics tell maps of known worth apart; a cell whose
            critical limits rest on one that does not is invalid.
    """

    fxeval: Literal[1]
    suite: _Name
    extends: str | None = None
    title: str = ""
    defaults: Defaults = Defaults()
    models: Models | None = None
    explainers: Explainers | None = None
    pairs: PairLists | None = None
    verification: Verification | None = None
    checks: Annotated[list[Check], _OneOrMore]
    report: Report = Report()
    self_check: StrictBool = False


def suite_form() -> type[Suite]:
    """Return the form of a suite whose checks are of the kinds that are known by now."""
    return _suite_form(tuple(kinds().items()))


@cache
def _suite_form(known: tuple[tuple[str, ModuleType], ...]) -> type[Suite]:
    forms: list[Any] = [Annotated[form, Tag(branch(kind))] for kind, form in check_forms().items()]
    no_kind = Annotated[SkipJsonSchema[CheckOfNoKind], Tag(branch(""))]
    a_check: Any = Annotated[Union[(*forms, no_kind)], Discriminator(_kind_of)]
    checks: Any = (Annotated[list[a_check], _OneOrMore], ...)
    return create_model("Suite", __base__=Suite, __doc__=Suite.__doc__, checks=checks)
