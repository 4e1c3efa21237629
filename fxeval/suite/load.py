"""From a suite file to a validated suite; all faults of the file are reported at once, with places.

The format is version 1: ``suites/quickstart.yaml`` shows it. ``fxeval.suite.format`` defines the
keys and their types, ``fxeval.suite.rules`` which keys go together; here a file without faults
becomes a plan. No default is filled in later than here. All names are checked, except the values of
a subject's ``params``, for which the caller may pass a check of its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from fxeval.metrics import draws_itself, judged_under, kinds
from fxeval.results import Metric
from fxeval.statistics.decisions import RANDOM_ORDERS
from fxeval.statistics.limits import FORMS, Limit
from fxeval.strict.forms import judged
from fxeval.strict.yaml_file import Document, Loc
from fxeval.suite import format as forms
from fxeval.suite.extending import read_suite
from fxeval.suite.limit_rules import Explained, fixture_id
from fxeval.suite.plan import DEFAULT_LOOKS, DEFAULT_SEEDS, Check, Suite
from fxeval.suite.rules import (
    CheckParams,
    KnownIds,
    Rules,
    Subjects,
    SubjectsOfASuite,
    check_device,
    check_head,
)
from fxeval.suite.slices import slice_of
from fxeval.verification.demands import Verification

__all__ = ["CheckParams", "KnownIds", "fixture_id", "load", "planned"]


def load(
    path: Path,
    known: KnownIds,
    *,
    check_params: CheckParams | None = None,
    shown: Path | None = None,
) -> Suite:
    """Read and validate a suite file; no subject is loaded.

    Args:
        path: Path of the YAML file.
        known: What exists: ids of fixtures, devices.
        shown: What messages and records call the file; None = the path.
        check_params: Called with (role, id, params) of every subject; returns (key, message) for
            each parameter that is wrong, and the message is shown at that key.

    Returns:
        The suite with every default filled in.

    Raises:
        SuiteError: Holding every fault of the file, and of the one that it extends, by line.
    """
    return planned(read_suite(path, shown), shown or path, known, check_params)


def planned(
    document: Document, path: Path, known: KnownIds, check_params: CheckParams | None = None
) -> Suite:
    """Validate a suite that was read; see :func:`load`."""
    check_head(document)
    if document.data.get("extends") is not None:  # read_suite puts everything in its place
        document.fault(document.key(("extends",)), "only a file extends a suite")
    form, left = judged(document, forms.suite_form(), (), document.data, free={"params"})
    named = SubjectsOfASuite(document, left, known, check_params)
    subjects = {
        number: named.of_check(("checks", number), check)
        for number, check in enumerate(left.get("checks") or ())
        if check is not None
    }
    others = {
        number: named.others_of(("checks", number), left["checks"][number], found)
        for number, found in subjects.items()
    }
    explained = {
        number: Explained(
            [one.name for one in found["explainers"]],
            named.explainers_for(found),
            _in_all_cells(found, others[number]),
        )
        for number, found in subjects.items()
    }
    Rules(document, left).check(subjects, explained)
    check_device(document, left, known.devices)
    document.raise_faults()
    assert form is not None, "a form that could not be read has a fault"
    suite = _Planned(document, subjects, explained, others).suite(path, form)
    canonical = json.dumps(
        {"fxeval": 1, "suite": _plain(suite)}, sort_keys=True, separators=(",", ":")
    )
    return replace(suite, digest=hashlib.sha256(canonical.encode()).hexdigest())


@dataclass(frozen=True)
class _Planned:
    """Makes a plan from the forms of a suite without faults.

    Attributes:
        document: The file, for places.
        subjects: Subjects of each check, by its position.
        explained: The explainers that the limits of each may name.
        further: Subjects that parameters of each name.
    """

    document: Document
    subjects: Mapping[int, Subjects]
    explained: Mapping[int, Explained]
    further: Mapping[int, Subjects]

    def suite(self, path: Path, form: forms.Suite) -> Suite:
        """Return the suite, without its digest."""
        return Suite(
            path=path,
            name=form.suite,
            title=_one_line(form.title) or form.suite,
            **form.defaults.model_dump(exclude={"seeds"}),
            checks=tuple(
                self._check(number, check, form.defaults.seeds)
                for number, check in enumerate(form.checks)
            ),
            formats=tuple(form.report.formats),
            digest="",
            verification=self._verification(form.verification),
            self_check=form.self_check,
        )

    def _check(self, number: int, form: forms.Check, seeds: int) -> Check:
        kind, loc = kinds()[form.kind], ("checks", number)
        given = form.model_fields_set & set(kind.Parameters.model_fields)
        parameters = kind.Parameters(**{name: getattr(form, name) for name in given})
        limits = tuple(
            self._limit((*loc, "limits", position), limit, judged_under(form.kind))
            for position, limit in enumerate(form.limits)
        )
        compared = dict.fromkeys(other for limit in limits for other in limit.compares())
        return Check(
            id=form.id,
            kind=form.kind,
            why=_one_line(form.why),
            parameters=_with_random_orders(parameters, kind.METRICS, form.limits),
            limits=limits,
            **self.subjects[number],
            marks=tuple(form.marks),
            where=self.document.where(loc),
            line=self._line(loc),
            seeds=form.seeds or (1 if draws_itself(form.kind) else seeds),
            others=tuple(
                self.explained[number].named[other.removeprefix("explainer:")]
                for other in compared
                if other.startswith("explainer:")
            ),
            further=self.further[number],
            slices=tuple(slice_of(entry) for entry in form.slices or ()),
            on_inconclusive=form.on_inconclusive,
            looks=form.looks,
        )

    def _line(self, loc: Loc) -> int:
        """Return the line of the suite file from which a value comes."""
        at = self.document.value(loc)
        return self.document.key(("extends",)).line if at.file else at.line

    def _limit(self, loc: Loc, form: forms.Limit, usual: Mapping[str, str]) -> Limit:
        key = next(key for key in FORMS if getattr(form, key) is not None)
        own = form.model_dump(include=set(FORMS[key].keys), exclude_unset=True, exclude_none=True)
        if str(own[key]).startswith("explainer:"):
            own[key] = fixture_id(own[key])
        shorthand = {} if form.fill is None else {"fill": form.fill}
        return FORMS[key](
            form.metric,
            under={**usual, **(form.under or shorthand)},
            severity=form.severity,
            where=self.document.where(loc),
            over=form.over,
            judge=form.judge,
            slice=form.slice or "",
            **own,
        )

    def _verification(self, form: forms.Verification | None) -> Verification | None:
        """Return the suite's demands on its models; None if it has none."""
        if form is None:
            return None
        return Verification(
            flip_fusion=form.flip_fusion,
            operating_threshold=form.operating_threshold,
            limits=tuple(
                self._demand(("verification", "limits", number), demand)
                for number, demand in enumerate(form.limits or ())
            ),
            floor=form.floor,
            models=None if form.models is None else tuple(map(fixture_id, form.models)),
        )

    def _demand(self, loc: Loc, form: forms.Demand) -> Limit:
        key = "at_least" if form.at_most is None else "at_most"
        return FORMS[key](form.metric, where=self.document.where(loc), **{key: getattr(form, key)})


def _in_all_cells(own: Subjects, others: Subjects) -> Mapping[str, Sequence[str]]:
    """Return the further models that every cell of a check has, by parameter.

    A cell's own model is always among them, so a single one is in all cells.
    """
    single = [one.name for one in own["models"]] if len(own["models"]) == 1 else []
    return {
        parameter: list(dict.fromkeys([*single, *(one.name for one in named)]))
        for parameter, named in others.items()
    }


def _with_random_orders(
    parameters: BaseModel, metrics: Sequence[Metric], limits: Sequence[forms.Limit]
) -> BaseModel:
    """Add the controls with which limits on a decision are compared, where they are missing."""
    decisions = {metric.name for metric in metrics if metric.is_decision}
    given = getattr(parameters, "controls", None)
    if given is None or decisions.isdisjoint(limit.metric for limit in limits):
        return parameters
    controls = tuple(dict.fromkeys((*given, *RANDOM_ORDERS)))
    return parameters.model_copy(update={"controls": controls})


def _one_line(text: str) -> str:
    return " ".join(text.split())


_PLACES = {"where", "n_where", "path", "digest", "line", "folder"}

_LATER: Mapping[type, Mapping[str, object]] = {
    Suite: {"verification": None, "self_check": False, "looks": DEFAULT_LOOKS},
    Check: {
        "seeds": DEFAULT_SEEDS,
        "others": (),
        "further": {},
        "slices": (),
        "on_inconclusive": None,
        "looks": None,
    },
    Limit: {"over": "population", "judge": "each", "slice": ""},
    Verification: {"floor": "checked"},
}
"""What was added to the format later, with the value that leaves a suite as it was."""


def _plain(value: object) -> object:
    """Return the part of a suite that its digest covers: all but the places and the path."""
    if is_dataclass(value) and not isinstance(value, type):
        names = {field.name for field in fields(value)} - _PLACES
        for form, later in _LATER.items():  # the digests of older suites stay the same
            if isinstance(value, form):
                names -= {name for name, usual in later.items() if getattr(value, name) == usual}
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
