"""Rank of the mate in a gallery while the most salient pixels go (deletion) or come (insertion)."""

from typing import Annotated, NamedTuple, TypeAlias

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.errors import EvidenceError
from fxeval.functional.ranking import step_counts
from fxeval.metrics.enrolled import leads_of, ranks_of, searches_needed
from fxeval.metrics.occlusion import Fills
from fxeval.metrics.orders import Control, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger
from fxeval.metrics.questions import Rank
from fxeval.metrics.removal_curves import Curves, Removal, area
from fxeval.metrics.threshold_crossings import CrossingStep, crossings
from fxeval.results import EXPLAINER, ORDERS_OF_TIES, Better, Condition, Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "searches"
CONDITIONS = {"fill": "fills", "fpir": "fpirs"}
SELF_CHECK = "likeness"
SELF_CHECK_WITH = {"steps": 8, "crossing_step": None}

Thresholds: TypeAlias = dict[float, float | None]
"""The threshold of each false positive identification rate; None where it cannot be measured."""

Fpir = Annotated[float, Field(gt=0, le=0.5, strict=True)]


class Parameters(BaseModel):
    """Parameters of a deletion and insertion check of 1:N identification.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        controls: Maps whose right answer is known, measured on the same searches.
        crossing_step: Resolution in pixels of the fraction at which rank 1 is lost or found;
            None = the curve's own steps.
        gallery_images: Enrolled images of each person; the person's others are the probes.
        probes_each: Most probes of a person; None = all.
        unenrolled: Share of the people who are not enrolled: all their images are nonmated
            searches, which set the thresholds of the open set.
        fpirs: False positive identification rates at which the open set is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    fills: Fills = ("blur",)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = (
        "random_pixels", "random_blobs", "centre", "mean_map", "inverse",
    )  # fmt: skip
    crossing_step: CrossingStep = None
    gallery_images: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    probes_each: Annotated[int, Field(ge=1, strict=True)] | None = None
    unenrolled: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.3
    fpirs: Annotated[tuple[Fpir, ...], AfterValidator(once)] = (0.1, 0.01)


_SOURCE = "after Lu, Xu and Ebrahimi, arXiv 2407.05983, identification"
_WAYS = ("deletion", "insertion")
_BETTER: tuple[Better, Better] = ("lower", "higher")
_WHILE = (
    "while the most salient pixels of the probe are removed.",
    "while the most salient pixels of the probe are restored.",
)


_TOO_FEW = "there are too few nonmated searches to set the threshold of this rate"


def _area(way: int, name: str, title: str, meaning: str, *, is_decision: bool) -> Metric:
    """Return the metric of an area under a curve, of one way."""
    return Metric(
        name=f"{_WAYS[way]}_{name}",
        title=f"{_WAYS[way].capitalize()}: area of the {title}",
        unit="share of the fractions" if is_decision else "reciprocal rank",
        better=_BETTER[way],
        range=(0.0, 1.0),
        statistic="mean",
        kind="heavy",
        source=_SOURCE,
        meaning=f"{meaning} {_WHILE[way]}",
        is_decision=is_decision,
        void_if=_TOO_FEW if name == "tpir_auc" else "",
    )


_AREAS = tuple(
    _area(way, name, title, meaning, is_decision=decides)
    for name, title, meaning, decides in (
        ("rank1_auc", "rank-1 rate", "How long the mate is nearest in the gallery", True),
        ("reciprocal_rank_auc", "reciprocal rank", "Mean of 1 / rank of the mate", False),
        (
            "tpir_auc", "TPIR",
            "How long the mate is nearest and at or above the threshold of a false positive "
            "identification rate", True,
        ),
    )
    for way in (0, 1)
)  # fmt: skip
RANK1_LOST = Metric(
    name="deletion_fraction_to_rank1_loss",
    title="Fraction removed until rank 1 is lost",
    unit="fraction of pixels",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="How much of the probe must go before another person is nearer than the mate; 1 if "
    "that never happens.",
    is_decision=True,
)
RANK1_FOUND = Metric(
    name="insertion_fraction_to_rank1",
    title="Fraction restored until rank 1 is reached",
    unit="fraction of pixels",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="How much of the probe must come back before the mate is the nearest, where it is not "
    "with the fill alone.",
    is_decision=True,
)
METRICS = (*_AREAS, RANK1_LOST, RANK1_FOUND)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Search the gallery with every probe while its pixels go or come back in the order of the map.

    Areas are over all searches. Fractions are of those whose mate is at rank 1 with the whole probe
    there; where the fill alone has it there, insertion has nothing to find.

    Args:
        evidence: Of a group of searches; the gallery is that of the whole plan.
        parameters: Of the check.

    Returns:
        Areas of the rank-1 rate, the reciprocal rank and the TPIR, and the fractions at which rank
        1 is lost and found, for the explainer and each control under each fill.

    Raises:
        EvidenceError: If there are more steps than pixels.

    Source:
        Lu, Xu and Ebrahimi, arXiv 2407.05983, evaluate maps by identification, too; ISO/IEC
        19795-1:2021 for rates.
    """
    pixels = evidence.subject.size[0] * evidence.subject.size[1]
    if parameters.steps > pixels:
        raise EvidenceError(
            f"identification: expected at most {pixels} steps, the number of pixels, got "
            f"{parameters.steps}. Lower steps."
        )
    ledger = Ledger(evidence, METRICS)
    thresholds = _thresholds(evidence, ledger, parameters)
    side = evidence.rows.side
    maps = ledger.watch(side, evidence.explain(evidence.subject))
    for order in orders(evidence, evidence.subject, maps, parameters.controls):
        if order.map == EXPLAINER:
            ledger.note(side, ORDERS_OF_TIES, order.per_row)
        for fill in parameters.fills:
            removal = Removal(evidence, evidence.subject, order, fill)
            followed = _follow(removal, parameters.steps, thresholds)
            _enter_areas(ledger, removal, followed, thresholds)
            _enter_fractions(ledger, removal, followed.curves, parameters.crossing_step)
    return ledger


def _thresholds(evidence: Evidence, ledger: Ledger, parameters: Parameters) -> Thresholds:
    """Return the threshold of each rate, None where it has none, and say what is known."""
    rows, on = evidence.everyone, evidence.subject
    people = _people(evidence)
    every = torch.arange(len(rows))
    first = rows.question.margin(on, every, on.clean()[rows.image]) >= 0
    n = len(people.people.unenrolled)
    ledger.remark(
        f"{len(people.people)} people are enrolled with {len(people.people.image)} images; the "
        f"mate is at rank 1 in {int(first.sum())} of {len(rows)} searches with clean probes."
    )
    found: Thresholds = {}
    for fpir in parameters.fpirs:
        found[fpir] = people.people.threshold(on, fpir)
        if found[fpir] is None:
            ledger.remark(
                f"TPIR at an FPIR of {fpir:g} has no value: too few nonmated searches, {n} of at "
                f"least {searches_needed(fpir):,}. Use a longer list, or a larger unenrolled."
            )
    return found


def _people(evidence: Evidence) -> Rank:
    question = evidence.rows.question
    assert isinstance(question, Rank), "rows of kind searches ask for a rank"
    return question


class _Followed(NamedTuple):
    """What becomes of searches: curves of 1 / rank and leads, and who is identified.

    ``identified`` is (B, 2, K + 1), 1 or 0, for each rate that has a threshold.
    """

    curves: Curves
    identified: dict[float, FloatArray]


def _follow(removal: Removal, steps: int, thresholds: Thresholds) -> _Followed:
    """Follow deletion and insertion in equal steps, both end points included."""
    order, on, question = removal.order, removal.on, _people(removal.evidence)
    b, n = order.ranks.shape
    counts = torch.tensor(step_counts(n, steps))
    zeros, ends = torch.zeros_like(counts), torch.full_like(counts, n)
    first = torch.cat([zeros, counts])  # deletion removes [0, k), insertion leaves [k, n) removed
    last = torch.cat([counts, ends])
    entry = torch.arange(b).repeat_interleave(len(first))
    gone = order.removed(
        removal.evidence.rows.image, entry, first.repeat(b), last.repeat(b), removal.fill
    )
    found = question.people.similarities(on, on.embed(gone))
    mate = question.mate[torch.from_numpy(order.kept)[entry]]
    own, lead = found.gather(1, mate[:, None])[:, 0], leads_of(found, mate)

    def shaped(values: Tensor) -> FloatArray:
        return np.asarray(values.double().numpy().reshape(b, 2, steps + 1))

    identified = {
        fpir: shaped((lead >= 0) & (own >= threshold))
        for fpir, threshold in thresholds.items()
        if threshold is not None
    }
    reciprocal = 1.0 / ranks_of(found, mate).double()
    return _Followed(Curves(counts.numpy(), shaped(reciprocal), shaped(lead)), identified)


def _enter_areas(
    ledger: Ledger, removal: Removal, followed: _Followed, thresholds: Thresholds
) -> None:
    """Enter the areas of one order; those of rates without a threshold have no value."""
    order, curves, fraction = removal.order, followed.curves, followed.curves.fraction
    rank1 = (curves.margin >= 0).astype(np.float64)
    fill = {"fill": removal.fill}
    for way, name in enumerate(_WAYS):
        for what, points in (("rank1", rank1), ("reciprocal_rank", curves.answer)):
            found = order.means(points[:, way])
            areas = order.means(area(fraction, points[:, way]))
            ledger.enter(f"{name}_{what}_auc", order.map, areas, order.states, fill)
            ledger.curve(f"{name}_{what}", order.map, found, fill)
    for fpir in thresholds:
        under: Condition = {**fill, "fpir": fpir}
        for way, name in enumerate(_WAYS):
            areas = np.full(len(order.states), np.nan)
            states = tuple(max(one, RowState.EXCLUDED, key=gravity) for one in order.states)
            if fpir in followed.identified:
                areas = order.means(area(fraction, followed.identified[fpir][:, way]))
                states = order.states
            ledger.enter(f"{name}_tpir_auc", order.map, areas, states, under)


def _enter_fractions(
    ledger: Ledger, removal: Removal, curves: Curves, crossing_step: CrossingStep
) -> None:
    """Enter where rank 1 is lost and found."""
    order = removal.order
    flips = crossings(removal, curves, crossing_step)
    for way, metric in enumerate((RANK1_LOST, RANK1_FOUND)):
        values = order.means(np.array([pair[way][0] for pair in flips], dtype=np.float64))
        states = list(order.states)
        for row, pair in zip(order.kept.tolist(), flips, strict=True):
            states[row] = max(states[row], pair[way][1], key=gravity)
        ledger.enter(metric.name, order.map, values, states, {"fill": removal.fill})
