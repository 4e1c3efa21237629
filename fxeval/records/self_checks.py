"""The part of a record about metrics: whether each tells known maps apart before it may judge."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from fxeval.records.form import Count, Form, Number, Under

Fitness: TypeAlias = Literal["fit", "unfit", "not_checked"]
"""``fit``: known maps come out in their order; ``unfit``: they do not, so no limit on the metric
decides; ``not_checked``: there is no truth that the metric could be checked with here."""


class KnownMap(Form):
    """What a metric says of a map whose worth is known.

    Attributes:
        map: ``oracle``, ``blurred_oracle``, ``random`` or ``inverse``, from the best to the worst.
        value: The estimate; null if no row has a value.
        low: Of its interval.
        high: Of its interval.
    """

    map: str
    value: Number
    low: Number = None
    high: Number = None


class Step(Form):
    """How much better, row by row, a map comes out than the next worse one.

    Attributes:
        better: Name of the map that is better by construction.
        worse: Name of the other.
        value: Mean difference in the metric's unit, positive in the right direction.
        low: Of its interval.
        high: Of its interval.
        holds: The interval is clear of zero on the right side.
    """

    better: str
    worse: str
    value: Number
    low: Number
    high: Number
    holds: bool


class SelfCheck(Form):
    """Whether a metric, under one condition, puts maps of known worth in their order.

    Attributes:
        kind: Kind of check, such as ``faithfulness.deletion_insertion``.
        metric: Name of the metric.
        under: The condition, such as ``{"fill": "blur"}``.
        question: ``likeness``: checked on a planted network, whose similarity is a sum over
            patches; ``margin``: on twins, with the model that is judged.
        on: The network and faces, in words.
        maps: From the best to the worst.
        steps: Between each map and the next.
        fitness: ``fit``: they come out in their order; ``unfit``: they do not, so no limit on the
            metric decides; ``not_checked``: nothing is known here that it could be checked with.
        reason: Why it is unfit or was not checked; empty if it is fit.
        reliability: Split-half: how far the mean values of the maps in one half of the people
            agree with those in the other, at most 1; null if unknown.
        detectable: Smallest mean difference between two maps that as many rows show in four of
            five such samples, in the metric's unit; null if unknown.
        n_rows: Number of rows.
        n_identities: Number of people.
        forwards: Images embedded.
        seconds: Processor time.
    """

    kind: str
    metric: str
    under: Under
    question: Literal["likeness", "margin"]
    on: str
    maps: list[KnownMap] = []
    steps: list[Step] = []
    fitness: Fitness
    reason: str = ""
    reliability: Number = None
    detectable: Number = None
    n_rows: Count = 0
    n_identities: Count = 0
    forwards: Count = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Unfit(Form):
    """A metric that no limit may decide by, under a condition.

    Attributes:
        metric: Its name.
        under: The condition; {} = any.
        reason: A sentence for readers.
    """

    metric: str
    under: Under = {}
    reason: str
