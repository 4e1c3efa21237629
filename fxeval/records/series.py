"""The values of one quantity over many runs, in the order in which these started."""

from dataclasses import dataclass

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
