"""How long is a face recognised while its least salient pixels are hidden?"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.errors import EvidenceError
from fxeval.functional.ranking import step_counts
from fxeval.metrics.enrolled import Enrolled
from fxeval.metrics.occlusion import NO_THRESHOLD, Fills
from fxeval.metrics.orders import Control, Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Question, Rows
from fxeval.metrics.questions import Likeness, Rank
from fxeval.metrics.removal_curves import area
from fxeval.results import Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "mated pairs"
CONDITIONS = {"fill": "fills"}
SELF_CHECK = "likeness"
SELF_CHECK_WITH = {"steps": 8}

REVERSE = "reverse_"
_SOURCE = "Castanon and Byrne, FG 2018, the hiding game"


class Parameters(BaseModel):
    """Parameters of a hiding game.

    Attributes:
        steps: Number of equal steps from nothing to everything hidden, K; curves have K + 1 points.
        fills: How hidden pixels are replaced; every fill gives its own values.
        controls: Maps whose right answer is known, measured on the same pairs.
        hide_from_max: Play in reverse, too: hide the most salient pixels first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 100
    fills: Fills = ("blur",)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = (
        "random_pixels", "random_blobs", "centre", "mean_map", "inverse",
    )  # fmt: skip
    hide_from_max: StrictBool = False


def _metrics(prefix: str, first: str) -> tuple[Metric, ...]:
    """Return the metrics of the game that hides some pixels first."""
    better = "lower" if prefix else "higher"
    turn = " in reverse" if prefix else ""
    return (
        Metric(
            name=f"{prefix}hiding_acceptance_auc",
            title=f"Hiding game{turn}: area of the acceptance",
            unit="share of the fractions hidden",
            better=better,  # type: ignore[arg-type]
            range=(0.0, 1.0),
            statistic="mean",
            kind="heavy",
            source=_SOURCE,
            meaning=f"Of all fractions of the {first} pixels that can be hidden, how many leave "
            "the pair accepted at the operating threshold.",
            is_decision=True,
        ),
        Metric(
            name=f"{prefix}hiding_rank1_auc",
            title=f"Hiding game{turn}: area of the rank-1 rate",
            unit="share of the fractions hidden",
            better=better,  # type: ignore[arg-type]
            range=(0.0, 1.0),
            statistic="mean",
            kind="heavy",
            source=_SOURCE,
            meaning=f"Of all fractions of the {first} pixels that can be hidden, how many leave "
            "the mate nearest among the references of all pairs.",
            is_decision=True,
        ),
        Metric(
            name=f"{prefix}hiding_similarity_auc",
            title=f"Hiding game{turn}: area of the similarity",
            unit="cosine similarity",
            better=better,  # type: ignore[arg-type]
            range=(-1.0, 1.0),
            statistic="mean",
            kind="light",
            source=_SOURCE,
            meaning=f"Mean similarity to the other image while the {first} pixels are hidden.",
        ),
    )


METRICS = (*_metrics("", "least salient"), *_metrics(REVERSE, "most salient"))


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Hide the least salient pixels of every probe, more and more of them.

    The decisions of a pair that is not recognised with the whole image there, or still is with
    nothing but the fill, are of no map: they leave the estimate, and are counted.

    Args:
        evidence: Of a group of mated pairs. The gallery for rank 1 is the references of all pairs
            of the cell.
        parameters: Of the check.

    Returns:
        Areas under the curves of acceptance, rank 1 and similarity over the fraction hidden, for
        the explainer and each control under each fill; a row's are means over its orders.

    Raises:
        EvidenceError: If there are more steps than pixels.

    Source:
        Castanon and Byrne, "Visualizing and quantifying discriminative features for face
        recognition", FG 2018.
    """
    pixels = evidence.subject.size[0] * evidence.subject.size[1]
    if parameters.steps > pixels:
        raise EvidenceError(
            f"hiding game: expected at most {pixels} steps, the number of pixels, got "
            f"{parameters.steps}. Lower steps."
        )
    ledger = Ledger(evidence, METRICS)
    if evidence.subject.operating_threshold is None:
        ledger.remark(evidence.subject.no_decision or NO_THRESHOLD)
    gallery = _gallery(evidence)
    if gallery is None:
        ledger.remark("All pairs are of one person: rank 1 has no value.")
    maps = ledger.watch(evidence.rows.side, evidence.explain(evidence.subject))
    for order in orders(evidence, evidence.subject, maps, parameters.controls):
        for fill in parameters.fills:
            for prefix in ("", REVERSE)[: 1 + parameters.hide_from_max]:
                game = _Game(evidence, order, fill, prefix == REVERSE, gallery)
                _enter(ledger, game, prefix, parameters.steps)
    return ledger


def gallery_of(rows: Rows, among: Rows) -> Rank | None:
    """Return the question for the rank of the mates of rows among the references of all rows.

    Args:
        rows: Mated pairs.
        among: All mated pairs of the cell.

    Returns:
        None if all of them are of one person.
    """
    question = among.question
    assert isinstance(question, Likeness), "mated pairs ask for a similarity"
    people, number = torch.unique(among.identities[:, 0], return_inverse=True)
    if len(people) < 2:
        return None
    images, first = np.unique(question.reference[:, 0].numpy(), return_index=True)
    enrolled = Enrolled(torch.from_numpy(images), number[torch.from_numpy(first)])
    return Rank(torch.searchsorted(people, rows.identities[:, 0].contiguous()), enrolled)


def _gallery(evidence: Evidence) -> Rank | None:
    return gallery_of(evidence.rows, evidence.everyone)


class _Game:
    """One order of the pixels, hidden step by step under one fill."""

    def __init__(
        self, evidence: Evidence, order: Order, fill: str, from_max: bool, gallery: Rank | None
    ) -> None:
        self.order, self.fill, self._on = order, fill, evidence.subject
        self._rows, self._gallery, self._from_max = evidence.rows, gallery, from_max

    def curves(self, counts: Tensor) -> tuple[list[FloatArray | None], FloatArray]:
        """Return, after each count of hidden pixels, what is recognised and how similar it is.

        Returns:
            Margins of the acceptance and of rank 1, (B, K + 1) each or None, and (B, K + 1)
            cosines.
        """
        b, pixels = self.order.ranks.shape
        k = counts.repeat(b)
        first = torch.zeros_like(k) if self._from_max else pixels - k
        entry = torch.arange(b).repeat_interleave(len(counts))
        gone = self.order.removed(self._rows.image, entry, first, first + k, self.fill)
        embedded = self._on.embed(gone)
        asked = torch.from_numpy(self.order.kept)[entry]
        accepted = None
        if self._on.operating_threshold is not None:
            accepted = self._margins(self._rows.question, asked, embedded)
        ranked = None
        if self._gallery is not None:
            ranked = self._margins(self._gallery, asked, embedded)
        cosine = self._rows.question.answer(self._on, asked, embedded).double().numpy()
        shape = (b, len(counts))
        curves = [None if one is None else one.reshape(shape) for one in (accepted, ranked)]
        return curves, cosine.reshape(shape)

    def _margins(self, question: Question, asked: Tensor, embedded: Embeddings) -> FloatArray:
        return np.asarray(question.margin(self._on, asked, embedded).double().numpy())


def _enter(ledger: Ledger, game: _Game, prefix: str, steps: int) -> None:
    """Enter the areas of one game."""
    order, under = game.order, {"fill": game.fill}
    counts = torch.tensor(step_counts(order.ranks.shape[1], steps))
    margins, cosine = game.curves(counts)
    fraction: FloatArray = (counts / counts[-1]).double().numpy()
    way = f"{prefix}hiding"
    for name, margin in zip(("acceptance", "rank1"), margins, strict=True):
        if margin is None:
            nothing = np.full(len(order.states), np.nan)
            without = [max(one, RowState.EXCLUDED, key=gravity) for one in order.states]
            ledger.enter(f"{way}_{name}_auc", order.map, nothing, without, under)
            continue
        recognised = (margin >= 0).astype(np.float64)
        values = order.means(area(fraction, recognised))
        states = _states(order, margin >= 0)
        values[[one is RowState.EXCLUDED for one in states]] = np.nan
        ledger.enter(f"{way}_{name}_auc", order.map, values, states, under)
        ledger.curve(f"{way}_{name}", order.map, order.means(recognised), under)
    areas = order.means(area(fraction, cosine))
    ledger.enter(f"{way}_similarity_auc", order.map, areas, order.states, under)
    ledger.curve(f"{way}_similarity", order.map, order.means(cosine), under)


def _states(order: Order, recognised: NDArray[np.bool_]) -> Sequence[RowState]:
    """Return the states of decisions, (B, K + 1): which of them the start decides, and the fill."""
    states = list(order.states)
    for row, (start, *_, end) in zip(order.kept.tolist(), recognised.tolist(), strict=True):
        found = RowState.START_BEYOND if end else RowState.OK
        if not start:
            found = RowState.EXCLUDED
        states[row] = max(states[row], found, key=gravity)
    return states
