"""Similarity while the most salient pixels go (deletion) or come (insertion)."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fxeval.errors import EvidenceError
from fxeval.functional.fills import FillName
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Side, worst
from fxeval.metrics.removal_curves import Removal, area, crossings, trace
from fxeval.results import EXPLAINER, ORDERS_OF_TIES, Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "mated pairs"
CONDITIONS = {"fill": "fills"}


class Parameters(BaseModel):
    """Parameters of a deletion and insertion check.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        side: Which image of the pair is perturbed; ``both`` is the mean of the two.
        controls: Maps whose right answer is known, measured on the same pairs.
        crossing_step: Resolution in pixels of the fraction at which the decision flips;
            None = the curve's own steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 50
    fills: Annotated[tuple[FillName, ...], Field(min_length=1), AfterValidator(once)] = ("blur",)
    side: Literal["probe", "reference", "both"] = "probe"
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = ()
    crossing_step: Annotated[int, Field(ge=1, strict=True)] | None = None


METRICS = (
    Metric(
        name="deletion_auc",
        title="Deletion area under the curve",
        unit="cosine similarity",
        better="lower",
        range=(-1.0, 1.0),
        statistic="mean",
        kind="light",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are removed.",
    ),
    Metric(
        name="insertion_auc",
        title="Insertion area under the curve",
        unit="cosine similarity",
        better="higher",
        range=(-1.0, 1.0),
        statistic="mean",
        kind="light",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are restored.",
    ),
    Metric(
        name="deletion_fraction_to_nonmatch",
        title="Fraction removed until the model says nonmatch",
        unit="fraction of pixels",
        better="lower",
        range=(0.0, 1.0),
        statistic="mean",
        kind="heavy",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must go before the decision flips; 1 if it never does.",
        is_decision=True,
    ),
    Metric(
        name="insertion_fraction_to_match",
        title="Fraction restored until the model says match",
        unit="fraction of pixels",
        better="lower",
        range=(0.0, 1.0),
        statistic="mean",
        kind="heavy",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must come back before the model accepts the pair, "
        "where the fill alone is no match.",
        is_decision=True,
    ),
)
_NO_THRESHOLD = (
    "The model declares no operating threshold: fractions to nonmatch and to match have no value."
)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Follow the explainer's order and the controls' from the whole image to the fill and back.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Four metrics and two curves per map and fill. On a pair whose map has no order (NaN, wrong
        shape, ...) the explainer has no value, but the controls do.
    """
    height, width = evidence.subject.size
    if parameters.steps > height * width:
        raise EvidenceError(
            f"deletion and insertion: expected at most {height * width} steps, the number of "
            f"pixels, got {parameters.steps}. Lower steps."
        )
    ledger = Ledger(evidence, METRICS)
    if evidence.subject.operating_threshold is None:
        ledger.remark(evidence.subject.no_decision or _NO_THRESHOLD)
    sides = [evidence.on(side) for side in sides_of(parameters.side)]
    for by_side in zip(*(_orders(side, ledger, parameters) for side in sides), strict=True):
        for fill in parameters.fills:
            found = [
                _followed(Removal(side, side.subject, order, fill), parameters)
                for side, order in zip(sides, by_side, strict=True)
            ]
            _enter(ledger, by_side[0].map, fill, found)
    return ledger


def sides_of(side: Literal["probe", "reference", "both"]) -> tuple[Side, ...]:
    """Return the images to perturb, one or both.

    >>> sides_of("both")
    ('probe', 'reference')
    """
    return ("probe", "reference") if side == "both" else (side,)


class _Followed(NamedTuple):
    """Results of one side's rows: (n, 4) values with their states, and (n, 2, K + 1) curves."""

    values: FloatArray
    states: list[list[RowState]]
    curves: FloatArray


def _orders(evidence: Evidence, ledger: Ledger, parameters: Parameters) -> Iterator[Order]:
    side = evidence.rows.side
    maps = ledger.watch(side, evidence.explain(evidence.subject))
    for order in orders(evidence, evidence.subject, maps, parameters.controls):
        if order.map == EXPLAINER:
            ledger.note(side, ORDERS_OF_TIES, order.per_row)
        yield order


def _followed(removal: Removal, parameters: Parameters) -> _Followed:
    """Follow every order; a row's values and curves are means over its orders."""
    order, found = removal.order, trace(removal, parameters.steps)
    flips = crossings(removal, found, parameters.crossing_step)
    fractions = np.array([[value for value, _ in pair] for pair in flips]).reshape(-1, 2)
    areas = area(found.fraction, found.answer)
    states = [[state] * len(METRICS) for state in order.states]
    for row, pair in zip(order.kept.tolist(), flips, strict=True):
        for metric, (_, state) in enumerate(pair, start=2):
            states[row][metric] = max(states[row][metric], state, key=gravity)
    values = order.means(np.concatenate([areas, fractions], axis=1))
    return _Followed(values, states, order.means(found.answer))


def _enter(ledger: Ledger, map_: str, fill: str, sides: Sequence[_Followed]) -> None:
    """Enter the mean over the sides, and the worst state."""
    values = np.mean([side.values for side in sides], axis=0)
    curves = np.mean([side.curves for side in sides], axis=0)
    under = {"fill": fill}
    for index, metric in enumerate(METRICS):
        states = worst([[row[index] for row in side.states] for side in sides])
        ledger.enter(metric.name, map_, values[:, index], states, under)
    for way, kind in enumerate(("deletion", "insertion")):
        ledger.curve(kind, map_, curves[:, way], under)
