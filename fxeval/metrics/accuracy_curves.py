"""Accuracy of verification over mated and nonmated pairs, while pixels go or come back."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fxeval.errors import EvidenceError
from fxeval.functional.fills import FillName
from fxeval.metrics.evidence_against import evidence_against
from fxeval.metrics.occlusion import NO_THRESHOLD
from fxeval.metrics.orders import Control, orders
from fxeval.metrics.protocol import (
    Evidence,
    FloatArray,
    Ledger,
)
from fxeval.metrics.removal_curves import Removal, area, trace
from fxeval.results import EXPLAINER, ORDERS_OF_TIES, Metric, RowState
from fxeval.strict.forms import once

ROWS = "pairs"
CONDITIONS = {"fill": "fills"}
SELF_CHECK = "likeness"
SELF_CHECK_WITH = {"steps": 8}


class Parameters(BaseModel):
    """Parameters of a check of accuracy curves.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        controls: Maps whose right answer is known, measured on the same pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 10
    fills: Annotated[tuple[FillName, ...], Field(min_length=1), AfterValidator(once)] = ("black",)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = ()


_SOURCE = (
    "Lu, Xu, Ebrahimi 2024 (CorrRISE), which plot the accuracy of a list of pairs; fxeval fixes "
    "the threshold and the maps of nonmated pairs"
)
_OF_ALL: Mapping[str, Any] = {
    "unit": "share of the pairs", "range": (0.0, 1.0), "statistic": "mean", "kind": "heavy",
    "source": _SOURCE, "is_decision": True,
}  # fmt: skip
_OF_MATED: Mapping[str, Any] = {**_OF_ALL, "unit": "share of the mated pairs"}

METRICS = (
    Metric(
        name="deletion_accuracy_auc",
        title="Accuracy while the most salient pixels are removed",
        better="lower",
        meaning="Mean share of all pairs that the model decides rightly, over all fractions of "
        "removed pixels. Rejected nonmated pairs stay right, so half of a balanced list remains.",
        **_OF_ALL,
    ),
    Metric(
        name="insertion_accuracy_auc",
        title="Accuracy with the most salient pixels alone",
        better="higher",
        meaning="Mean share of all pairs that the model decides rightly, over all fractions of "
        "pixels that are restored on the filled image.",
        **_OF_ALL,
    ),
    Metric(
        name="deletion_tmr_auc",
        title="Accepted mated pairs while the most salient pixels are removed",
        better="lower",
        meaning="Mean share of the mated pairs that the model accepts, over all fractions of "
        "removed pixels; it spans 0 to 1.",
        **_OF_MATED,
    ),
    Metric(
        name="insertion_tmr_auc",
        title="Accepted mated pairs with the most salient pixels alone",
        better="higher",
        meaning="Mean share of the mated pairs that the model accepts, over all fractions of "
        "pixels that are restored on the filled image; it spans 0 to 1.",
        **_OF_MATED,
    ),
)
_WAYS = ("deletion_accuracy", "insertion_accuracy")

BY_NEGATIVE = (
    "Nonmated pairs lose the pixels that speak against their similarity (the explainer's negative "
    "maps): without these a rejected pair should be accepted."
)
BY_POSITIVE = (
    "The explainer gives no maps of what speaks against a similarity: nonmated pairs lose the "
    "pixels that speak for it, which is no reason to accept a pair that was rejected."
)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Follow the decision on every pair from the whole probe to the fill and back.

    A pair counts 1 where the model decides it rightly at its operating threshold, which is that of
    clean images, and 0 elsewhere; its value is the area of that curve over the fraction of pixels.
    The mean of these areas over the pairs is the area of the list's accuracy curve.

    Args:
        evidence: Of a group of mated and nonmated pairs.
        parameters: Of the check.

    Returns:
        Four metrics and two curves per map and fill. No pair is left out: with nothing removed the
        curve is the clean accuracy, and with everything removed it does not depend on the map.

    Source:
        Lu, Xu, Ebrahimi 2024 (CorrRISE): deletion and insertion by the accuracy on a list.
    """
    height, width = evidence.subject.size
    if parameters.steps > height * width:
        raise EvidenceError(
            f"accuracy curves: expected at most {height * width} steps, the number of pixels, got "
            f"{parameters.steps}. Lower steps."
        )
    ledger = Ledger(evidence, METRICS)
    if evidence.subject.operating_threshold is None:
        ledger.remark(evidence.subject.no_decision or NO_THRESHOLD)
    if not bool(evidence.everyone.is_mated.all()):
        has_negative = evidence.explain(evidence.subject).negative is not None
        ledger.remark(BY_NEGATIVE if has_negative else BY_POSITIVE)
        if has_negative:
            evidence = evidence_against(evidence, "negative", nonmated_only=True)
    maps = ledger.watch(evidence.rows.side, evidence.explain(evidence.subject))
    for order in orders(evidence, evidence.subject, maps, parameters.controls):
        if order.map == EXPLAINER:
            ledger.note(evidence.rows.side, ORDERS_OF_TIES, order.per_row)
        for fill in parameters.fills:
            _enter(ledger, Removal(evidence, evidence.subject, order, fill), parameters.steps)
    return ledger


def _enter(ledger: Ledger, removal: Removal, steps: int) -> None:
    """Enter the areas and the curves of one map under one fill."""
    order, rows = removal.order, removal.evidence.rows
    right, fraction = _decided_rightly(removal, steps)
    curves = order.means(right)
    areas, under = area(fraction, curves), {"fill": removal.fill}
    states = [
        RowState.EXCLUDED if np.isnan(value) and n else state
        for value, n, state in zip(areas[:, 0], order.per_row, order.states, strict=True)
    ]
    for place, metric in enumerate(METRICS):
        about = None if metric.unit == "share of the pairs" else rows.is_mated.numpy()
        ledger.enter(metric.name, order.map, areas[:, place % 2], states, under, about=about)
    for way, kind in enumerate(_WAYS):
        ledger.curve(kind, order.map, curves[:, way], under)


def _decided_rightly(removal: Removal, steps: int) -> tuple[FloatArray, FloatArray]:
    """Return (B, 2, K + 1), 1 where a pair is decided rightly, and the (K + 1,) fractions."""
    found = trace(removal, steps)
    is_mated = removal.evidence.rows.is_mated.numpy()[removal.order.kept][:, None, None]
    right = ((found.margin >= 0) == is_mated).astype(np.float64)
    return np.where(np.isnan(found.margin), np.nan, right), found.fraction
