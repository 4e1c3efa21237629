"""The values of one quantity over many runs, in the order in which these started."""

import hashlib
import json
from dataclasses import dataclass

from fxeval.errors import StoreError
from fxeval.records.earlier import OF_A_MODEL
from fxeval.records.schema import CellResult, Record
from fxeval.results import Better, Condition, Outcome


@dataclass(frozen=True)
class Point:
    """The value of one run.

    Attributes:
        run: Id of the run.
        started: When it started, in ISO 8601.
        commit: Of the code under test; None if it is not known.
        fxeval: Its version.
        hardware_class: See :func:`fxeval.records.hardware.hardware_class`.
        value: The explainer's estimate; NaN where there is none.
        low: Lower end of its interval; NaN where there is none.
        high: Upper end, likewise.
        n_identities: People that it rests on.
        outcome: Of the cell.
        question: See :func:`question_of`; values of two questions are no trend.
    """

    run: str
    started: str
    commit: str | None
    fxeval: str
    hardware_class: str
    value: float
    low: float
    high: float
    n_identities: int
    outcome: Outcome
    question: str = ""


@dataclass(frozen=True)
class Series:
    """One metric of one cell under one condition, over many runs.

    Attributes:
        suite: Name of the suite.
        cell: Id of the cell; check, kind, model, explainer and pairs are its parts.
        title: Of the metric, for readers.
        better: In which direction it is better.
        under: The condition.
        points: In the order of ``started``, then of ``run``.
    """

    suite: str
    cell: str
    check: str
    kind: str
    model: str
    explainer: str
    pairs: str
    metric: str
    title: str
    unit: str
    better: Better
    under: Condition
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Wanted:
    """Which values over many runs are asked for; None = all.

    Attributes:
        suite: Name of the suite.
        check: Id of the check.
        metric: Name of the metric.
        model: Name of the model in the suite.
        explainer: Name of the explainer in the suite.
        hardware_class: See :func:`fxeval.records.hardware.hardware_class`.
        last: The largest number of points of each series, >= 1; the latest are kept.

    Example:
        >>> Wanted(metric="deletion_auc", last=20).named()
        {'metric': 'deletion_auc'}
    """

    suite: str | None = None
    check: str | None = None
    metric: str | None = None
    model: str | None = None
    explainer: str | None = None
    hardware_class: str | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise StoreError(f"last: expected a number of runs of at least 1, got {self.last}.")

    def named(self) -> dict[str, str]:
        """Return what is asked for by name, without what may be anything."""
        names = ("suite", "check", "metric", "model", "explainer", "hardware_class")
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def question_of(record: Record, cell: CellResult) -> str:
    """Return a digest of what a cell measured, beside the version of the explainer.

    It is of the seed of the suite, the kind and the parameters of the check, the models and the
    images: what an earlier run must share to be compared with. "" if the record does not describe
    the model and the pairs, as when they could not be loaded.
    """
    model = record.subjects.models.get(cell.model)
    pairs = record.subjects.pairs.get(cell.pairs)
    if model is None or pairs is None:
        return ""
    parts = {
        "seed": record.suite.seed,
        "kind": cell.kind,
        "parameters": cell.parameters,
        "model": {key: getattr(model, key) for key in OF_A_MODEL},
        "pairs": [pairs.digest, pairs.n_pairs, pairs.n_identities],
    }
    further = {
        name: {key: getattr(record.subjects.models[name], key) for key in OF_A_MODEL}
        for named in cell.further.values()
        for name in named
        if name in record.subjects.models
    }
    if further:
        parts["further"] = further
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
