"""What is left of a person's recognition once the most salient pixels are occluded.

Generalisability, transfer, the search for a layer and guided occlusion all measure this; they
differ in whose maps are used, which model is asked and which images are occluded.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.fills import FillName
from fxeval.functional.ranking import count
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Subject
from fxeval.results import EXPLAINER, Condition, Metric, RowState
from fxeval.strict.forms import once

CONDITIONS = {"fill": "fills", "fraction": "fractions"}

UNOCCLUDED = "control.unoccluded"
"""The clean image: what there is to lose."""

Counts: TypeAlias = Callable[[Order, float], Tensor]
"""From an order of pixels and a fraction to (B,), the number of pixels to occlude."""

NO_THRESHOLD = (
    "The model declares no operating threshold: whether pairs are still accepted has no value."
)


Fraction = Annotated[float, Field(gt=0, le=1, strict=True)]
Fractions = Annotated[tuple[Fraction, ...], Field(min_length=1), AfterValidator(once)]
Fills = Annotated[tuple[FillName, ...], Field(min_length=1), AfterValidator(once)]
OcclusionControl = Control | Literal["unoccluded"]
Controls = Annotated[tuple[OcclusionControl, ...], AfterValidator(once)]
Evaluators = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(once)] | None


class OcclusionParameters(BaseModel):
    """Parameters of a check that occludes the most salient pixels.

    Attributes:
        fractions: Of the pixels, that are occluded: exactly ``max(1, floor(fraction * n + 0.5))``
            of n.
        fills: How occluded pixels are replaced; every fill gives its own values.
        controls: Maps whose right answer is known, measured on the same pairs.
        repeats: Number of random maps of each pair, for the controls that are drawn; their value is
            the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = (0.01,)
    fills: Fills = ("black",)
    controls: Controls = ("random_pixels", "random_blobs", "unoccluded")
    repeats: Annotated[int, Field(ge=1, le=20, strict=True)] = 5


class HeldOutParameters(OcclusionParameters):
    """Parameters of a check that occludes images by a map made from other images of the person.

    Attributes:
        side: Which image of a pair is occluded.
        generation_images: Most images of a person that the map is made from; none is one of the
            pair's.
    """

    side: Literal["probe", "reference"] = "reference"
    generation_images: Annotated[int, Field(ge=2, le=20, strict=True)] = 5


COSINE_DROP = Metric(
    name="occlusion_cosine_drop",
    title="Drop of the similarity under occlusion",
    unit="cosine similarity",
    better="higher",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source="LEAM (arXiv 2509.17457), sec. 4.6",
    meaning="Cosine of a mated pair before the most salient pixels are occluded, less that after.",
)
TMR = Metric(
    name="occlusion_tmr",
    title="Mated pairs still accepted under occlusion",
    unit="share of mated pairs",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source="Borsukiewicz, generalisability of explanations (poster), tables 1 and 2",
    meaning="How often the model still accepts a mated pair at its operating threshold, which is "
    "not chosen anew.",
    is_decision=True,
)
ACCURACY = Metric(
    name="occlusion_accuracy",
    title="Decisions still right under occlusion",
    unit="share of pairs",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source="Lu, Xu and Ebrahimi, WACV 2024 (CorrRISE), on a single occlusion",
    meaning="Share of mated and nonmated pairs that the model decides rightly; on a balanced list "
    "it cannot fall much below one half, as rejected nonmated pairs stay right.",
    is_decision=True,
)
EER = Metric(
    name="occlusion_eer",
    title="Equal error rate under occlusion",
    unit="share of pairs",
    better="higher",
    range=(-math.inf, math.inf),  # of a row: a native similarity
    statistic="eer",
    kind="rate",
    source="ISO/IEC 19795-1, on the occluded list",
    meaning="Error rate at the threshold at which false matches and false nonmatches of the "
    "occluded list are equally frequent.",
)
AREA = Metric(
    name="occlusion_area",
    title="Area that was occluded",
    unit="share of pixels",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="light",
    source="fxeval",
    meaning="Share of the pixels that were really replaced: the fraction that was asked for, "
    "rounded to whole pixels.",
)


OF_ONE_ORDER = (ACCURACY.name, EER.name)
"""Metrics whose rows may show two people: they are of the first order of each row."""


def exactly(order: Order, fraction: float) -> Tensor:
    """Return the same number of pixels for every map: ``count(fraction, H * W)``."""
    b, pixels = order.ranks.shape
    return torch.full((b,), count(fraction, pixels))


def occlude(
    evidence: Evidence, ledger: Ledger, on: Subject, maps: SaliencyMaps,
    parameters: OcclusionParameters, *, under: Condition = MappingProxyType({}),
    counts: Counts = exactly,
) -> None:  # fmt: skip
    """Enter what the occlusion of the explainer's pixels and of the controls' does to a subject.

    Metrics that the ledger does not declare are left out.

    Args:
        evidence: Of a group of pairs.
        ledger: Takes the values, under ``under`` with the fill and the fraction.
        on: The subject that is asked; its threshold is that of the clean list.
        maps: The explainer's maps, made on the cell's own subject.
        parameters: Of the check.
        under: Further axes of the condition.
        counts: How many pixels of each order are occluded.
    """
    asked = Asked(evidence, ledger, on)
    controls = [control for control in parameters.controls if control != "unoccluded"]
    for order in orders(evidence, on, maps, controls, draws=parameters.repeats):
        asked.enter(order, order.map, parameters, under, counts)
    if "unoccluded" in parameters.controls:
        asked.enter_clean(parameters, under)


def enter_absent(evidence: Evidence, ledger: Ledger, parameters: OcclusionParameters) -> None:
    """Enter that evaluators which cannot be measured have no values: no limit on them is passed."""
    for name, reason in evidence.absent.get("evaluators", {}).items():
        ledger.remark(f"evaluator {name}: no values: {reason}")
        n = len(evidence.rows)
        for fill, fraction, metric in product(
            parameters.fills, parameters.fractions, ledger.metrics
        ):
            ledger.enter(
                metric.name,
                EXPLAINER,
                np.full(n, np.nan),
                (RowState.EXCLUDED,) * n,
                {"evaluator": name, "fill": fill, "fraction": fraction},
                about=None if metric is AREA else evidence.rows.is_mated.numpy(),
            )


class Asked:
    """Asks a subject about occluded images, and enters its answers.

    Args:
        evidence: Of a group of pairs.
        ledger: Takes the values.
        on: The subject.
    """

    def __init__(self, evidence: Evidence, ledger: Ledger, on: Subject) -> None:
        self._evidence, self._ledger, self._on = evidence, ledger, on
        self._declared = {metric.name for metric in ledger.metrics}
        self._is_mated = evidence.rows.is_mated.numpy()
        self._every = torch.arange(len(evidence.rows))
        self._clean = self._figures(self._every, on.clean()[evidence.rows.image])
        if on.operating_threshold is None and TMR.name in self._declared:
            about = "" if on is evidence.subject else f"{on.name}: "
            ledger.remark(f"{about}{on.no_decision or NO_THRESHOLD}")

    def enter(
        self, order: Order, map_: str, parameters: OcclusionParameters, under: Condition,
        counts: Counts = exactly,
    ) -> None:  # fmt: skip
        """Enter the values of one order under every fill and fraction.

        Args:
            order: The order of the pixels.
            map_: The name of the map in the record.
            parameters: Of the check.
            under: Further axes of the condition.
            counts: How many pixels are occluded.
        """
        pixels = order.ranks.shape[1]
        rows = torch.from_numpy(order.kept)
        entries = torch.arange(len(rows))
        ks = [counts(order, fraction) for fraction in parameters.fractions]
        for fill in parameters.fills:
            # All fractions in one request, whose batches are full.
            gone = order.removed(
                self._evidence.rows.image,
                entries.repeat(len(ks)),
                torch.zeros(len(rows) * len(ks), dtype=torch.int64),
                torch.cat(ks),
                fill,
            )
            found = self._figures(rows.repeat(len(ks)), self._on.embed(gone))
            for place, (fraction, k) in enumerate(zip(parameters.fractions, ks, strict=True)):
                part = slice(place * len(rows), (place + 1) * len(rows))
                values = {
                    name: (order.first if name in OF_ONE_ORDER else order.means)(value[part])
                    for name, value in found.items()
                }
                values[AREA.name] = order.means(k.double().numpy() / pixels)
                values[COSINE_DROP.name] = self._clean[COSINE_DROP.name] - values[COSINE_DROP.name]
                condition = {**under, "fill": fill, "fraction": fraction}
                self._entered(map_, values, order.states, condition)

    def enter_clean(self, parameters: OcclusionParameters, under: Condition) -> None:
        """Enter the values of the images as they are, under every fill and fraction."""
        n = len(self._every)
        values = {**self._clean, AREA.name: np.zeros(n), COSINE_DROP.name: np.zeros(n)}
        for fill in parameters.fills:
            for fraction in parameters.fractions:
                condition = {**under, "fill": fill, "fraction": fraction}
                self._entered(UNOCCLUDED, values, (RowState.OK,) * n, condition)

    def _figures(self, rows: Tensor, embeddings: Tensor) -> dict[str, FloatArray]:
        """Return the (R,) figures of images; under the name of the drop, the cosine itself."""
        question = self._evidence.rows.question
        accepted = question.margin(self._on, rows, embeddings) >= 0.0
        is_mated = self._evidence.rows.is_mated[rows]
        return {
            COSINE_DROP.name: question.answer(self._on, rows, embeddings).double().numpy(),
            TMR.name: accepted.double().numpy(),
            ACCURACY.name: (accepted == is_mated).double().numpy(),
            EER.name: question.score(self._on, rows, embeddings).double().numpy(),
        }

    def _entered(
        self, map_: str, values: dict[str, FloatArray], states: Sequence[RowState],
        under: Condition,
    ) -> None:  # fmt: skip
        undecided = self._on.operating_threshold is None
        for name, found in values.items():
            if name not in self._declared:
                continue
            is_decision = name in (TMR.name, ACCURACY.name)
            if is_decision and undecided:
                found = np.full(len(found), np.nan)
                some: Sequence[RowState] = (RowState.EXCLUDED,) * len(found)
            else:
                some = states
            about = self._is_mated if name in (TMR.name, COSINE_DROP.name) else None
            self._ledger.enter(name, map_, found, some, under, about=about)
