"""Does a false match fall once the pixels that carry it, by the map, are replaced?"""

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from fxeval.functional.fills import FillOrDonorName
from fxeval.functional.perturbations import DONOR
from fxeval.metrics.occlusion import (
    NO_THRESHOLD,
    UNOCCLUDED,
    Fractions,
    OcclusionControl,
    OcclusionParameters,
    exactly,
)
from fxeval.metrics.orders import Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Rows
from fxeval.results import Condition, Metric, RowState
from fxeval.strict.forms import once

ROWS = "false matches"
CONDITIONS = {"fill": "fills", "fraction": "fractions"}

Fills = Annotated[tuple[FillOrDonorName, ...], Field(min_length=1), AfterValidator(once)]
Controls = Annotated[tuple[OcclusionControl, ...], AfterValidator(once)]


class Parameters(OcclusionParameters):
    """Parameters of a false match check.

    Attributes:
        fractions: Of the probe's pixels, that are replaced: exactly ``max(1, floor(fraction * n +
            0.5))`` of n.
        fills: What replaces them; every fill gives its own values. ``donor`` is another image of
            the probe's own person at the same places: the person stays, and the likeness goes.
        controls: Maps whose right answer is known, measured on the same pairs.
        repeats: Number of random maps of each pair, for the controls that are drawn; their drop of
            the similarity is the mean, their decision that of the first.
    """

    fractions: Fractions = (0.05, 0.1, 0.2)
    fills: Fills = ("blur", "black", "donor")
    controls: Controls = (
        "random_pixels", "random_blobs", "centre", "mean_map", "shuffled_identity", "unoccluded",
    )  # fmt: skip


_SOURCE = "Lu and Ebrahimi 2023 (S-RISE), sec. 4.3, which shows maps of one false match"

REJECTED = Metric(
    name="false_match_rejected",
    title="False matches that are rejected",
    unit="share of false matches",
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source=_SOURCE,
    meaning="How often the model rejects a pair of different people that it accepted, once the "
    "most salient pixels of one of them are replaced.",
    is_decision=True,
)
DROP = Metric(
    name="false_match_similarity_drop",
    title="Drop of the similarity of false matches",
    unit="cosine similarity",
    better="higher",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source=_SOURCE,
    meaning="Cosine of the pair before the most salient pixels are replaced, less that after.",
)
METRICS = (REJECTED, DROP)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Replace the most salient pixels of the probe of every false match.

    Args:
        evidence: Of a group of pairs of different people that the model accepts.
        parameters: Of the check.

    Returns:
        Under each fill and fraction, for the explainer and each control: whether the model now
        rejects the pair, and how far its similarity fell.
    """
    ledger = Ledger(evidence, METRICS)
    if evidence.subject.operating_threshold is None:
        ledger.remark(evidence.subject.no_decision or NO_THRESHOLD)
    if DONOR in parameters.fills:
        _remark_on_donors(ledger, evidence.everyone)
    maps = ledger.watch(evidence.rows.side, evidence.explain(evidence.subject))
    pairs = _Pairs(evidence, ledger)
    controls = [one for one in parameters.controls if one != "unoccluded"]
    for order in orders(evidence, evidence.subject, maps, controls, draws=parameters.repeats):
        for fill in parameters.fills:
            pairs.enter(order, fill, parameters.fractions)
    if "unoccluded" in parameters.controls:
        pairs.enter_clean(parameters)
    return ledger


def _remark_on_donors(ledger: Ledger, rows: Rows) -> None:
    """Say how many of all rows have no image to take pixels from."""
    missing = int((_donors(rows) == rows.image).sum())
    if missing:
        ledger.remark(
            f"{missing} of {len(rows)} false matches have no value under the fill '{DONOR}': the "
            "list has no other image of the person in the probe"
        )


def _donors(rows: Rows) -> Tensor:
    """Return (n,) the image that gives pixels to each row's; the image itself if there is none."""
    return rows.image if rows.donor is None else rows.donor


class _Pairs:
    """Asks a model about false matches whose pixels are replaced, and enters its answers.

    Args:
        evidence: Of a group of them.
        ledger: Takes the values.
    """

    def __init__(self, evidence: Evidence, ledger: Ledger) -> None:
        self._evidence, self._ledger, rows = evidence, ledger, evidence.rows
        clean = evidence.subject.clean()[rows.image]
        self._cosine, self._rejected = self._asked(torch.arange(len(rows)), clean)
        self._has_donor = (_donors(rows) != rows.image).numpy()
        # A comparison of all images may round differently just at the threshold.
        self._decides = (self._rejected == 0) & (evidence.subject.operating_threshold is not None)

    def enter(self, order: Order, fill: str, fractions: tuple[float, ...]) -> None:
        """Enter the values of one order under a fill and every fraction."""
        rows = self._evidence.rows
        kept = torch.from_numpy(order.kept)
        counts = torch.cat([exactly(order, fraction) for fraction in fractions])
        entry = torch.arange(len(kept)).repeat(len(fractions))
        gone = order.removed(
            rows.image, entry, torch.zeros_like(counts), counts, fill, _donors(rows)
        )
        found = self._asked(kept[entry], self._evidence.subject.embed(gone))
        cosine, rejected = (one.reshape(len(fractions), len(kept)) for one in found)
        for place, fraction in enumerate(fractions):
            values = order.first(rejected[place]), self._cosine - order.means(cosine[place])
            under: Condition = {"fill": fill, "fraction": fraction}
            self._enter(order.map, values, order.states, under)

    def enter_clean(self, parameters: Parameters) -> None:
        """Enter the values of the probes as they are, under every fill and fraction."""
        states = (RowState.OK,) * len(self._cosine)
        for fill in parameters.fills:
            for fraction in parameters.fractions:
                under: Condition = {"fill": fill, "fraction": fraction}
                values = self._rejected, np.zeros(len(self._cosine))
                self._enter(UNOCCLUDED, values, states, under)

    def _asked(self, rows: Tensor, embeddings: Tensor) -> tuple[FloatArray, FloatArray]:
        """Return (R,) cosines with the reference, and whether the pairs are rejected."""
        on, question = self._evidence.subject, self._evidence.rows.question
        cosine = question.answer(on, rows, embeddings).double().numpy()
        return cosine, (question.margin(on, rows, embeddings) < 0).double().numpy()

    def _enter(
        self, map_: str, values: tuple[FloatArray, FloatArray], states: tuple[RowState, ...],
        under: Condition,
    ) -> None:  # fmt: skip
        """Enter decisions and drops; rows without a donor have none under that fill."""
        about = self._has_donor if under["fill"] == DONOR else None
        rejected, drop = values
        decided = [
            state if decides else RowState.EXCLUDED
            for state, decides in zip(states, self._decides.tolist(), strict=True)
        ]
        rejected = np.where(self._decides, rejected, np.nan)
        self._ledger.enter(REJECTED.name, map_, rejected, decided, under, about=about)
        self._ledger.enter(DROP.name, map_, drop, states, under, about=about)
