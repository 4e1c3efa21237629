"""Does replacing the pixels that a map ranks first by those of the twin turn the decision?

The probe and its twin differ in one part. The pixels that the map ranks first are replaced by the
twin's, and the margin between mate and nonmate moves from the probe's to the twin's. Every picture
on the way is made of pixels of two faces: nothing is blurred or blackened.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.functional.perturbations import DONOR
from fxeval.functional.ranking import count, step_counts
from fxeval.metrics.known_truth import (
    CONDITIONS,
    GAME,
    JUDGED_UNDER,
    WHY_PAIRWISE_INFORMS,
    Posed,
    TruthParameters,
    altered_of,
    known_truth_metric,
    posed,
)
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger
from fxeval.metrics.removal_curves import area

__all__ = [
    "CONDITIONS", "JUDGED_UNDER", "METRICS", "ROWS", "SELF_CHECK", "Parameters", "measure",
]  # fmt: skip

ROWS = "twins"
SELF_CHECK = "margin"
WHY_INFORMS = WHY_PAIRWISE_INFORMS
IntArray = NDArray[np.int64]


class Parameters(TruthParameters):
    """Parameters of a flip check.

    Attributes:
        fraction: Fraction of the pixels after which the share of the change is taken, exactly
            ``max(1, floor(fraction * n + 0.5))`` of n.
        steps: Number of equal steps of the curve from the probe to its twin, K.
    """

    fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.05
    steps: Annotated[int, Field(ge=2, le=200, strict=True)] = 20


SHARE = known_truth_metric(
    name="flip_share",
    title="Share of the margin's change that the map's top brings about",
    unit="share of the change from the probe to its twin",
    better="higher",
    range=(-np.inf, np.inf),
    kind="heavy",
    source=GAME,
    meaning="How far the margin between mate and nonmate has moved from the probe's to its twin's "
    "once the pixels that the map ranks first are those of the twin.",
)
AREA = known_truth_metric(
    name="flip_area",
    title="Mean share of the margin's change, over all fractions",
    unit="share of the change from the probe to its twin",
    better="higher",
    range=(-np.inf, np.inf),
    kind="heavy",
    source=GAME,
    meaning="Area under the curve of the share over the fraction of pixels that are the twin's.",
)
SWAP = known_truth_metric(
    name="region_swap_fraction",
    title="Fraction of pixels after which the face is the twin's",
    unit="fraction of pixels",
    better="lower",
    range=(0.0, 1.0),
    kind="heavy",
    source=GAME,
    meaning="How many pixels, in the order of the map, must be the twin's until the model finds "
    "the nonmate nearer than the mate; 1 if all of them.",
    is_decision=True,
)
METRICS = (SHARE, AREA, SWAP)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Replace the probe's pixels by its twin's in the order of maps, and ask for the margin.

    Args:
        evidence: Of a group of triplets with twins.
        parameters: Of the check.

    Returns:
        For the explainer under both questions, and for each control: the share of the margin's
        change at a fraction and its mean over all fractions, in cosine similarities, the fraction
        at which the decision turns, in the model's own similarity, and the curve. Triplets that the
        model does not solve have none.

    Source:
        Williford, May and Byrne, ECCV 2020, sec. 4, with exact numbers of pixels in place of
        percentages of a map's mass.
    """
    ledger = Ledger(evidence, METRICS)
    for one in posed(evidence, ledger, parameters.controls):
        swap = _Swap(one)
        n = one.order.ranks.shape[1]
        counts = step_counts(n, min(parameters.steps, n))
        asked = np.array([*counts, count(parameters.fraction, n)])
        share, margin = swap.curves(asked)
        curve = share[:, :-1]
        values = one.order.means(
            np.stack(
                [
                    share[:, -1],
                    area(np.array(counts) / n, curve),
                    swap.turning(np.array(counts), margin[:, :-1]) / n,
                ],
                axis=1,
            )
        )
        for under in one.under:
            for place, metric in enumerate(METRICS):
                ledger.enter(metric.name, one.order.map, values[:, place], one.order.states, under)
            ledger.curve("flip", one.order.map, one.order.means(curve), under)
    return ledger


@dataclass(frozen=True, eq=False)
class _Swap:
    """Probes whose pixels become their twins' in one order; B entries of n pixels.

    Only the pixels of the part differ, so a picture is known by how many of these are replaced.
    """

    posed: Posed

    @cached_property
    def turns(self) -> list[IntArray]:
        """For each entry, the ranks of the part's pixels in ascending order."""
        rank, part = self.posed.order.ranks.numpy(), altered_of(self.posed).numpy()
        return [np.sort(one[where]).astype(np.int64) for one, where in zip(rank, part, strict=True)]

    def curves(self, counts: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the share of the change and the native margin at counts of pixels, (B, K) each."""
        b, k = len(self.turns), len(counts)
        entry = np.arange(b).repeat(k)
        replaced = np.concatenate(
            [np.searchsorted(turns, counts) for turns in self.turns] or [np.zeros(0, np.int64)]
        )
        answer, margin = self._asked(entry, replaced)
        first, last = (self._asked(np.arange(b), number)[0] for number in self._ends())
        change = (first - last)[:, None]
        return (first[:, None] - answer.reshape(b, k)) / change, margin.reshape(b, k)

    def turning(self, counts: IntArray, margin: FloatArray) -> FloatArray:
        """Return the number of pixels at which the decision turns, (B,).

        Inside the first step of the curve at whose end it has turned, the interval is halved until
        one pixel of the part is left: the decision is the mate's without it and the nonmate's with
        it.

        Args:
            counts: (K + 1,) numbers of pixels, from 0 to all.
            margin: (B, K + 1) native margins there; a solved triplet has turned at the end.
        """
        step = (margin < 0).argmax(axis=1)
        low, high = (self._replaced(counts[ends]) for ends in (np.maximum(step - 1, 0), step))
        while (open_ := np.flatnonzero(high - low > 1)).size:
            middle = (low[open_] + high[open_]) // 2
            has_turned = self._asked(open_, middle)[1] < 0
            high[open_[has_turned]] = middle[has_turned]
            low[open_[~has_turned]] = middle[~has_turned]
        last = [one[number - 1] for one, number in zip(self.turns, high.tolist(), strict=True)]
        return np.array(last, dtype=np.float64) + 1

    def _replaced(self, counts: IntArray) -> IntArray:
        """Return how many pixels of the part are among so many of each entry's first, (B,)."""
        found = [np.searchsorted(one, k) for one, k in zip(self.turns, counts, strict=True)]
        return np.array(found, dtype=np.int64)

    def _ends(self) -> tuple[IntArray, IntArray]:
        """Return how many pixels of the part are replaced in the probes and in their twins."""
        last = np.array([len(turns) for turns in self.turns], dtype=np.int64)
        return np.zeros_like(last), last

    def _asked(self, entry: IntArray, replaced: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return answers and native margins with so many pixels of the part replaced, (R,) each."""
        evidence, rows = self.posed.evidence, self.posed.evidence.rows
        embeddings = self._embedded(entry, replaced)
        at = torch.from_numpy(self.posed.order.kept[entry])
        found = (
            ask(evidence.subject, at, embeddings).double().numpy()
            for ask in (rows.question.answer, rows.question.margin)
        )
        answer, margin = found
        return answer, margin

    def _embedded(self, entry: IntArray, replaced: IntArray) -> Embeddings:
        evidence, order = self.posed.evidence, self.posed.order
        n = order.ranks.shape[1]
        # The last of the pixels that are replaced decides: those outside the part are the same.
        last = [
            0 if not number else n if number == len(turns) else int(turns[number - 1]) + 1
            for turns, number in zip(
                (self.turns[one] for one in entry.tolist()), replaced.tolist(), strict=True
            )
        ]
        end: Tensor = torch.tensor(last, dtype=torch.int64)
        donors = evidence.rows.donor
        return evidence.subject.embed(
            order.removed(
                evidence.rows.image, torch.from_numpy(entry), torch.zeros_like(end), end, DONOR,
                donors,
            )
        )  # fmt: skip
