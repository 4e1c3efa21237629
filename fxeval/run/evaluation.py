"""Evaluates one explainer on one model and one pair list, in Python: a suite of a single cell."""

import importlib
import inspect
import json
import os
import re
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from fxeval.contracts import Explainer, FaceModel, ModelFile, PairSource
from fxeval.engine.forward_pool import fastest_batch_size
from fxeval.errors import SuiteError
from fxeval.metrics import kinds
from fxeval.records.schema import Record, Row
from fxeval.records.writing import RowFile
from fxeval.run.assembly import Gatherer, asked_of, finished
from fxeval.run.environment import describe
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.strict.text import hint
from fxeval.strict.yaml_file import parsed
from fxeval.suite.cells import Cell
from fxeval.suite.configure import configured
from fxeval.suite.load import KnownIds, fixture_id, planned
from fxeval.suite.plan import Suite, cells
from fxeval.suite.preflight import check_params
from fxeval.suite.rules import Role

Shipped: TypeAlias = str | Mapping[str, Any]
"""An id of what comes with fxeval, or ``{"use": id, "params": {...}}`` as in a suite."""

NAME = Path("evaluate")
"""What messages and the record call the suite."""

_ROLES = ("model", "explainer", "pairs")
_OURS = frozenset({"id", "kind", "why", "limits", "models", "explainers", "pairs", "marks"})


def evaluate(
    model: FaceModel | ModelFile | Shipped,
    explainer: Explainer | Shipped,
    pairs: PairSource | Shipped,
    *,
    check: str = "faithfulness.deletion_insertion",
    n: int | None = None,
    limits: Sequence[Mapping[str, Any]] = (),
    evaluators: Sequence[FaceModel | ModelFile | Shipped] | None = None,
    seed: int = 0,
    seeds: int = 3,
    device: str = "auto",
    reports: str | Path | None = None,
    **parameters: object,
) -> Record:
    """Measure and judge an explainer, as a suite with one cell would.

    Args:
        model: A face model, or the id of a shipped one; weights and faces of shipped subjects are
            found through ``FXEVAL_WEIGHTS`` and ``FXEVAL_DATA``.
        explainer: An explainer, or the id of a shipped one.
        pairs: A pair list, or the id of a shipped one.
        check: What is measured, a kind of check.
        n: Number of mated pairs to measure, >= 1; None = all.
        limits: What must hold, each with the keys of a limit in a suite. Without any, the verdict
            is inconclusive: nothing was asked for.
        evaluators: Further models, or ids, for a check on several, such as transfer.cross_model.
        seed: Of everything random, >= 0.
        seeds: Number of differently seeded maps of an explainer that depends on its seed, 1 to 20.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        reports: Folder for the record, its rows and the scorecard, as of a run of pytest; None =
            nothing is written.
        parameters: Of the check, with the names that a suite has.

    Returns:
        The record: verdict, estimates with intervals, subjects, environment.

    Raises:
        SuiteError: If an argument is not what a suite could say.
        FxevalError: If the model or the data cannot be used, or the explainer cannot explain this
            kind of model. What an explainer does to single rows is a state of these rows, and a
            warning has the message of its exception, which no record quotes.

    Example:
        >>> record = evaluate("mini_resnet", "gradcam", "rendered", n=2, fills=["blur"], steps=4)
        >>> record.verdict.outcome.value, record.cells[0].n_pairs
        ('inconclusive', 2)
    """
    if reserved := sorted(_OURS & parameters.keys()):
        raise SuiteError(f"evaluate: expected parameters of {check}, got {', '.join(reserved)}.")
    three = zip(_ROLES, (model, explainer, pairs), strict=True)
    given = {role: _Given.of(role, subject) for role, subject in three}
    further = [_Given.of("model", one) for one in evaluators or ()]
    named = {} if evaluators is None else {"evaluators": [one.name for one in further]}
    asked = {"id": "check", "kind": check, **parameters, **named, "limits": _limits(check, limits)}
    suite = _suite(given, further, asked, n, {"seed": seed, "seeds": seeds, "device": device})
    if not limits:
        suite = replace(suite, checks=(replace(suite.checks[0], limits=()),))
    (cell,) = cells(suite)
    return _measured(suite, cell, _subjects(cell, given, further), reports)


@dataclass(frozen=True, eq=False)
class _Given:
    """A subject as it was given.

    Attributes:
        subject: The subject itself.
        entry: What a suite would say.
        is_shipped: It came as an id.
    """

    subject: Any
    entry: dict[str, Any]
    is_shipped: bool

    @property
    def id(self) -> str:
        """Its id, as fixtures spell it."""
        return fixture_id(str(self.entry.get("use")))

    @property
    def name(self) -> str:
        """Its name in the suite."""
        return str(self.entry.get("as") or self.entry.get("use"))

    def is_same(self, other: "_Given") -> bool:
        """Say whether both are one subject."""
        is_one = (self.is_shipped and other.is_shipped) or self.subject is other.subject
        return is_one and self.entry == other.entry

    @staticmethod
    def of(role: str, given: object) -> "_Given":
        """Return the subject that an id names, or the given one under its own name."""
        if isinstance(given, str | Mapping):
            entry = {"use": given} if isinstance(given, str) else dict(given)
            return _Given(shipped(role, entry.get("use")), entry, True)
        name = getattr(given, "name", None)
        text = name if isinstance(name, str) else type(given).__name__
        spelt = re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:79]
        return _Given(given, {"use": spelt if spelt[:1].isalpha() else f"a{spelt}"}, False)


def _subjects(cell: Cell, given: Mapping[str, "_Given"], further: Sequence["_Given"]) -> Subjects:
    """Return what was given, with the parameters of the suite."""
    uses = zip(_ROLES, (cell.model, cell.explainer, cell.pairs), strict=True)
    model, explainer, source = (configured(given[role].subject, use, role) for role, use in uses)
    by_name = {fixture_id(one.name): one.subject for one in further}
    others: dict[str, dict[str, Any]] = {
        parameter: {use.name: configured(by_name[use.name], use, "model") for use in named}
        for parameter, named in cell.further.items()
    }
    return Subjects(model, explainer, source, others)


def _suite(
    given: Mapping[str, _Given],
    further: Sequence[_Given],
    check: Mapping[str, Any],
    n: int | None,
    defaults: Mapping[str, Any],
) -> Suite:
    """Return the suite, judged by the rules of a file: JSON is YAML, so the reader is the same."""
    document = {
        "fxeval": 1,
        "suite": "evaluate",
        "defaults": defaults,
        # A model that is among its own evaluators is there once.
        "models": [
            given["model"].entry,
            *(one.entry for one in further if not one.is_same(given["model"])),
        ],
        "explainers": [given["explainer"].entry],
        "pairs": [{**given["pairs"].entry, **({} if n is None else {"n": n})}],
        "checks": [{**check, "models": [given["model"].name]}],
    }
    try:
        text = json.dumps(document, indent=1)
    except TypeError as error:
        raise SuiteError(f"evaluate: expected plain values as in a suite: {error}.") from error
    named = {role: [given[role], *(further if role == "model" else ())] for role in _ROLES}
    models, explainers, lists = (frozenset(one.id for one in named[role]) for role in _ROLES)
    known = KnownIds(models, explainers, lists)

    def faults(role: Role, id: str, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        is_shipped = any(one.is_shipped for one in named[role] if one.id == id)
        return check_params(role, id, params) if is_shipped else ()

    return planned(parsed(text.encode(), NAME), NAME, known, faults)


def _limits(check: str, limits: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the limits, or one for the form's sake: a check in a suite file has at least one."""
    if limits:
        return list(limits)
    if check not in kinds():
        return [{"metric": "any", "at_least": 0, "severity": "info"}]
    metric = kinds()[check].METRICS[0]  # the largest value can be missed in every range
    largest = metric.range[1] if isfinite(metric.range[1]) else max(metric.range[0], 0) + 1
    return [{"metric": metric.name, "at_least": largest, "severity": "info"}]


def shipped(role: str, id: object) -> object:
    """Return what the fixture of a shipped subject returns.

    Raises:
        SuiteError: If there is no such subject.
    """
    modules = [
        importlib.import_module(f"fxeval.fixtures.{name}")
        for name in ("models", "explainers", "isolated", "pairs")
    ]
    fixtures = {name: one for module in modules for name, one in vars(module).items()}
    data, weights = (os.environ.get(name) for name in ("FXEVAL_DATA", "FXEVAL_WEIGHTS"))
    folder = Path(data) if data else None
    of_weights = Path(weights) if weights else folder and folder / "weights"
    known: dict[str, object] = {"fx_data": folder, "fx_weights": of_weights}

    def value(name: str) -> object:
        if name not in known:
            function = inspect.unwrap(fixtures[name])  # what pytest's decorator was given
            known[name] = function(*map(value, inspect.signature(function).parameters))
        return known[name]

    name = f"{role}_{fixture_id(str(id))}"
    if name not in fixtures:
        ids = [one.removeprefix(f"{role}_") for one in fixtures if one.startswith(f"{role}_")]
        raise SuiteError(f"evaluate: unknown {role} '{id}'. {hint(str(id), ids)}")
    return value(name)


def _measured(suite: Suite, cell: Cell, subjects: Subjects, reports: str | Path | None) -> Record:
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder = Path(reports or "") / run_id
    rows = RowFile(folder / "rows.jsonl")

    def emit(found: Sequence[Row]) -> None:
        if reports is not None:
            rows.append(found)

    others = {
        parameter: {name: _loaded(model) for name, model in named.items()}
        for parameter, named in subjects.others.items()
    }
    subjects = replace(subjects, model=_loaded(subjects.model), others=others)
    batch_size = fastest_batch_size()
    workshop = Workshop(batch_size=batch_size, emit=emit, progress=lambda *_: None)
    result = measure_cell(cell, subjects, workshop)
    for text in workshop.take_told():  # what no record quotes, such as the message of an exception
        warnings.warn(f"evaluate: {text}", stacklevel=3)
    environment = describe(workshop.device, batch_size, Path())
    gatherer = Gatherer(folder, run_id, started, "fxeval.evaluate")
    asked = asked_of(suite, [cell.id])
    gatherer.add(finished(result, asked, environment, workshop.subjects))
    if reports is not None:
        gatherer.write()
    (record,) = gatherer.records()
    return record


def _loaded(model: Any) -> Any:  # noqa: ANN401  (whatever was given)
    """Return a model; a file of one is read."""
    if isinstance(model, ModelFile) and not isinstance(model, FaceModel):
        return model.load()
    return model
