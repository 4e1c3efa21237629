"""Similarity while the most salient pixels go (deletion) or come (insertion)."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fxeval.errors import EvidenceError
from fxeval.functional.fills import FillName
from fxeval.metrics.clean_cloud import Cloud, clean_cloud
from fxeval.metrics.curve_figures import AREAS, FIGURES, figures
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Side, usable, worst
from fxeval.metrics.removal_curves import Removal, area, trace
from fxeval.metrics.threshold_crossings import CrossingStep, crossings, flips
from fxeval.results import EXPLAINER, ORDERS_OF_TIES, Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "mated pairs"
CONDITIONS = {"fill": "fills"}
SELF_CHECK = "likeness"
SELF_CHECK_WITH = {"steps": 8, "crossing_step": None}


class Parameters(BaseModel):
    """Parameters of a deletion and insertion check.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        side: Which image of the pair is perturbed; ``both`` is the mean of the two.
        controls: Maps whose right answer is known, measured on the same pairs.
        crossing_step: Resolution in pixels of the fraction at which the decision flips, inside the
            step of the curve in which it does; None = the curve's own steps. ``exact`` = the first
            of all pixels, at the cost of one forward pass for each until the decision flips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 50
    fills: Annotated[tuple[FillName, ...], Field(min_length=1), AfterValidator(once)] = ("blur",)
    side: Literal["probe", "reference", "both"] = "probe"
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = ()
    crossing_step: CrossingStep = None


METRICS = (
    *AREAS,
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
    *FIGURES,
)
_NO_THRESHOLD = (
    "The model declares no operating threshold: fractions to nonmatch and to match have no value."
)
DECISION_FLIPS = "decision_flips"
"""Diagnostic: how often the decision flips along a curve, the most of all curves of a map."""
CURVES = ("deletion", "insertion", "outside")


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Follow the explainer's order and the controls' from the whole image to the fill and back.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        The metrics and three curves per map and fill. On a pair whose map has no order (NaN, wrong
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
    cloud, turns = clean_cloud(evidence, evidence.subject), _Turns(ledger)
    for by_side in zip(*(_orders(side, ledger, parameters) for side in sides), strict=True):
        for fill in parameters.fills:
            found = [
                _followed(Removal(side, side.subject, order, fill), parameters, cloud)
                for side, order in zip(sides, by_side, strict=True)
            ]
            _enter(ledger, by_side[0].map, fill, found)
            turns.add(sides, by_side, found)
    return ledger


def sides_of(side: Literal["probe", "reference", "both"]) -> tuple[Side, ...]:
    """Return the images to perturb, one or both.

    >>> sides_of("both")
    ('probe', 'reference')
    """
    return ("probe", "reference") if side == "both" else (side,)


class _Followed(NamedTuple):
    """Results of one side's rows: (n, M) values with their states, and (n, 3, K + 1) curves.

    ``flips`` are (n,) how often the decision flips along the curves.
    """

    values: FloatArray
    states: list[list[RowState]]
    curves: FloatArray
    flips: FloatArray


class _Turns:
    """Notes how often decisions flip along the curves of the explainer, at most over the fills.

    Args:
        ledger: Takes the numbers.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._most: dict[Side, FloatArray] = {}

    def add(
        self, sides: Sequence[Evidence], by_side: Sequence[Order], found: Sequence[_Followed]
    ) -> None:
        """Note the flips of one map under one fill."""
        if by_side[0].map != EXPLAINER:
            return
        for evidence, one in zip(sides, found, strict=True):
            side = evidence.rows.side
            self._most[side] = np.fmax(self._most.get(side, one.flips), one.flips)
            self._ledger.note(side, DECISION_FLIPS, self._most[side])


def _orders(evidence: Evidence, ledger: Ledger, parameters: Parameters) -> Iterator[Order]:
    side = evidence.rows.side
    maps = ledger.watch(side, evidence.explain(evidence.subject))
    for order in orders(evidence, evidence.subject, maps, parameters.controls):
        if order.map == EXPLAINER:
            ledger.note(side, ORDERS_OF_TIES, order.per_row)
        yield order


def _followed(removal: Removal, parameters: Parameters, cloud: Cloud) -> _Followed:
    """Follow every order; a row's values and curves are means over its orders."""
    order, found = removal.order, trace(removal, parameters.steps, cloud)
    assert found.outside is not None, "a cloud was handed in"
    crossed = crossings(removal, found, parameters.crossing_step)
    fractions = np.array([[value for value, _ in pair] for pair in crossed]).reshape(-1, 2)
    areas = area(found.fraction, found.answer)
    values = order.means(np.concatenate([areas, fractions, figures(found)], axis=1))
    states = [[state] * len(METRICS) for state in order.states]
    for row, pair in zip(order.kept.tolist(), crossed, strict=True):
        for metric, (_, state) in enumerate(pair, start=2):
            states[row][metric] = max(states[row][metric], state, key=gravity)
    for row in np.flatnonzero(usable(order.states)).tolist():
        for metric in np.flatnonzero(np.isnan(values[row])).tolist():
            states[row][metric] = RowState.EXCLUDED
    curves = np.concatenate([found.answer, found.outside[:, None]], axis=1)
    return _Followed(values, states, order.means(curves), order.means(flips(found)))


def _enter(ledger: Ledger, map_: str, fill: str, sides: Sequence[_Followed]) -> None:
    """Enter the mean over the sides, and the worst state."""
    values = np.mean([side.values for side in sides], axis=0)
    curves = np.mean([side.curves for side in sides], axis=0)
    under = {"fill": fill}
    for index, metric in enumerate(METRICS):
        states = worst([[row[index] for row in side.states] for side in sides])
        ledger.enter(metric.name, map_, values[:, index], states, under)
    for index, kind in enumerate(CURVES):
        ledger.curve(kind, map_, curves[:, index], under)
