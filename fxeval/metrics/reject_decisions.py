"""Does the map of what speaks against a similarity explain why a model rejects a pair?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fxeval.errors import EvidenceError
from fxeval.functional.ranking import count, step_counts
from fxeval.metrics.evidence_against import Against, evidence_against
from fxeval.metrics.occlusion import NO_THRESHOLD, Fills, Fractions
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger
from fxeval.results import Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "nonmated pairs"
CONDITIONS = {"fill": "fills", "fraction": "fractions"}
SELF_CHECK = "likeness"
SELF_CHECK_WITH = {"steps": 8, "map": "positive_inverted"}

POSITIVE_MAP = "control.positive_map"
"""The explainer's map of what speaks for the similarity, in place of what speaks against it."""

MOST_ACCEPTED = 0.2
"""Largest share of the nonmated pairs that a model may accept as they are."""

RejectionControl = Control | Literal["positive_map"]


class Parameters(BaseModel):
    """Parameters of a check of reject decisions.

    Attributes:
        fractions: Of the probe's pixels, that are removed, or are all that is left: exactly
            ``max(1, floor(fraction * n + 0.5))`` of n.
        fills: How removed pixels are replaced; every fill gives its own values.
        steps: Number of equal steps from nothing to everything removed, at which the decision is
            asked for.
        controls: Maps whose right answer is known, measured on the same pairs; the mean map and the
            inverse are of the maps against. ``positive_map`` is what speaks for the similarity.
        map: ``negative``: the negative map of a signed method; explainers without one are refused.
            ``positive_inverted``: minus the positive map.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = (0.1, 0.3)
    fills: Fills = ("blur",)
    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    controls: Annotated[tuple[RejectionControl, ...], AfterValidator(once)] = (
        "random_pixels", "random_blobs", "centre", "mean_map", "inverse", "positive_map",
    )  # fmt: skip
    map: Against = "negative"


_SOURCE = "after Lu, Xu and Ebrahimi, arXiv 2407.05983, dissimilarity maps"

RISE = Metric(
    name="rejection_similarity_rise",
    title="Rise of the similarity without what speaks against it",
    unit="cosine similarity",
    better="higher",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source=_SOURCE,
    meaning="Cosine of a rejected pair once the pixels that speak most against it are removed from "
    "the probe, less that before.",
)
RETENTION = Metric(
    name="rejection_retention",
    title="Pairs still rejected by what speaks against them alone",
    unit="share of rejected pairs",
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source=_SOURCE,
    meaning="How often the model still rejects a pair when only the pixels that speak most against "
    "it are left of the probe.",
    is_decision=True,
)
TO_MATCH = Metric(
    name="rejection_fraction_to_match",
    title="Fraction removed until the model says match",
    unit="fraction of pixels",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="How much of what speaks against a rejected pair must go before the model accepts it; "
    "1 if it never does.",
    is_decision=True,
)
METRICS = (RISE, RETENTION, TO_MATCH)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Remove from every probe what speaks most against the reference, or leave only that.

    Blurring anything makes two faces more alike, so no figure says anything but in comparison with
    that of a control.

    Args:
        evidence: Of a group of nonmated pairs.
        parameters: Of the check.

    Returns:
        For the explainer and each control: how far the similarity rises and whether the pair is
        still rejected, under each fill and fraction; and the fraction at which the decision flips,
        under each fill. Pairs that the model accepts as they are have none: no rejection is there
        to be explained.

    Raises:
        UnsupportedError: If the explainer has no negative map, and it is asked for.
        EvidenceError: If the model accepts more than a fifth of all pairs, or there are more steps
            than pixels.
    """
    pixels = evidence.subject.size[0] * evidence.subject.size[1]
    if parameters.steps > pixels:
        raise EvidenceError(
            f"reject decisions: expected at most {pixels} steps, the number of pixels, got "
            f"{parameters.steps}. Lower steps."
        )
    against = evidence_against(evidence, parameters.map)
    ledger = Ledger(against, METRICS)
    if evidence.subject.operating_threshold is None:
        ledger.remark(evidence.subject.no_decision or NO_THRESHOLD)
    _judge_model(evidence, ledger)
    pairs = _Pairs(against, ledger, parameters)
    for order in _orders(evidence, against, ledger, parameters):
        for fill in parameters.fills:
            pairs.enter(order, fill)
    return ledger


def _judge_model(evidence: Evidence, ledger: Ledger) -> None:
    """Say how many of all pairs are accepted as they are.

    Raises:
        EvidenceError: If they are too many.
    """
    accepted = int(_accepted(evidence.take(torch.arange(len(evidence.everyone)))).sum())
    n = len(evidence.everyone)
    if accepted > MOST_ACCEPTED * n:
        raise EvidenceError(
            f"{evidence.subject.name} accepts {accepted} of {n} nonmated pairs as they are; at "
            f"most {MOST_ACCEPTED:.0%} may: nothing can be said of its rejections. Use a higher "
            "operating threshold, or another list."
        )
    if accepted:
        ledger.remark(
            f"{accepted} of {n} nonmated pairs are accepted as they are: they have no values, as "
            "there is no rejection to explain."
        )


def _accepted(evidence: Evidence) -> NDArray[np.bool_]:
    """Return (n,) whether the model accepts the pairs as they are; never without a threshold."""
    on, rows = evidence.subject, evidence.rows
    margin = rows.question.margin(on, torch.arange(len(rows)), on.clean()[rows.image])
    return np.asarray((margin >= 0).numpy())


def _orders(
    evidence: Evidence, against: Evidence, ledger: Ledger, parameters: Parameters
) -> Iterator[Order]:
    """Yield the orders of the maps against, of the controls, and of the positive maps."""
    maps = ledger.watch(against.rows.side, against.explain(against.subject))
    others = [one for one in parameters.controls if one != "positive_map"]
    yield from orders(against, against.subject, maps, others)
    if "positive_map" in parameters.controls:
        positive = evidence.explain(evidence.subject)
        for order in orders(evidence, evidence.subject, positive):
            yield replace(order, map=POSITIVE_MAP)


class _Asked(NamedTuple):
    """Answers about one order: (B, F) each, and (B, K + 1)."""

    removed: FloatArray
    is_rejected_by_rest: FloatArray
    margins: FloatArray


class _Pairs:
    """Asks a model about rejected pairs, and enters its answers.

    Args:
        evidence: Of a group of them, with the maps against.
        ledger: Takes the values.
        parameters: Of the check.
    """

    def __init__(self, evidence: Evidence, ledger: Ledger, parameters: Parameters) -> None:
        self._evidence, self._ledger, self._parameters = evidence, ledger, parameters
        on, rows = evidence.subject, evidence.rows
        every, clean = torch.arange(len(rows)), on.clean()[rows.image]
        self._clean = rows.question.answer(on, every, clean).double().numpy()
        self._rejected = ~_accepted(evidence)
        self._decides = on.operating_threshold is not None

    def enter(self, order: Order, fill: str) -> None:
        """Enter the values of one order under a fill and every fraction."""
        found, ledger, states = self._asked(order, fill), self._ledger, order.states
        decided = states
        if not self._decides:
            decided = tuple(max(one, RowState.EXCLUDED, key=gravity) for one in states)
        for place, fraction in enumerate(self._parameters.fractions):
            under: dict[str, str | float] = {"fill": fill, "fraction": fraction}
            rise = order.means(found.removed[:, place]) - self._clean
            kept = order.first(found.is_rejected_by_rest[:, place])
            ledger.enter(RISE.name, order.map, rise, states, under, about=self._rejected)
            ledger.enter(
                RETENTION.name, order.map, self._if_decided(kept), decided, under,
                about=self._rejected,
            )  # fmt: skip
        fractions, crossed = self._to_match(order, found.margins)
        ledger.enter(
            TO_MATCH.name, order.map, self._if_decided(fractions),
            crossed if self._decides else decided, {"fill": fill}, about=self._rejected,
        )  # fmt: skip

    def _if_decided(self, values: FloatArray) -> FloatArray:
        return values if self._decides else np.full_like(values, np.nan)

    def _asked(self, order: Order, fill: str) -> _Asked:
        """Ask about one order; all removals in one request, whose batches are full."""
        rows, question, on = (
            self._evidence.rows, self._evidence.rows.question, self._evidence.subject,
        )  # fmt: skip
        b, pixels = order.ranks.shape
        k = torch.tensor([count(one, pixels) for one in self._parameters.fractions])
        steps = torch.tensor(step_counts(pixels, self._parameters.steps))
        none, ends = torch.zeros_like(k), torch.full_like(k, pixels)
        first = torch.cat([none, k, torch.zeros_like(steps)])
        last = torch.cat([k, ends, steps])
        entry = torch.arange(b).repeat_interleave(len(first))
        gone = order.removed(rows.image, entry, first.repeat(b), last.repeat(b), fill)
        asked, embedded = torch.from_numpy(order.kept)[entry], on.embed(gone)
        cosine, margin = (
            ask(on, asked, embedded).double().numpy().reshape(b, len(first))
            for ask in (question.answer, question.margin)
        )
        f = len(k)
        return _Asked(cosine[:, :f], (margin[:, f : 2 * f] < 0).astype(float), margin[:, 2 * f :])

    def _to_match(self, order: Order, margins: FloatArray) -> tuple[FloatArray, list[RowState]]:
        """Return the fraction at which a decision flips, means over orders, with the states."""
        fraction = np.array(step_counts(order.ranks.shape[1], self._parameters.steps), np.float64)
        fraction /= fraction[-1]
        matches = margins >= 0
        crosses = matches.any(axis=1)
        found = np.where(crosses, fraction[matches.argmax(axis=1)], 1.0)
        states = list(order.states)
        for row, does in zip(order.kept.tolist(), crosses.flat, strict=True):
            if not does:
                states[row] = max(states[row], RowState.NOT_CROSSED, key=gravity)
        return order.means(found), states
