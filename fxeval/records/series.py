"""The values of one quantity over many runs, in the order in which these started."""

from dataclasses import dataclass

from fxeval.errors import StoreError
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
