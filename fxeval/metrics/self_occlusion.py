"""Does the saliency leave a face where an object hides it?"""

import math
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from fxeval.functional.occluders import OccluderName
from fxeval.functional.ranking import count
from fxeval.metrics.occlusion import NO_THRESHOLD
from fxeval.metrics.orders import Order, orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, worst
from fxeval.results import EXPLAINER, Metric, RowState
from fxeval.strict.forms import once

ROWS = "occluded pairs"
CONDITIONS = {"occluder": "occluders"}

Control = Literal[
    "random_pixels", "random_blobs", "centre", "edge", "mean_map", "shuffled_identity"
]
Controls = Annotated[tuple[Control, ...], AfterValidator(once)]
Occluders = Annotated[tuple[OccluderName, ...], Field(min_length=1), AfterValidator(once)]

TOP = 0.1
"""Fraction of the pixels that are the most salient ones."""

MEAN_MAP = "control.mean_map"
"""Made of the maps of clean faces, with the object and without: it knows of no object."""

WITHOUT_MASS = (
    "Some maps that are not constant have no value above 0: they count as if spread evenly over "
    "the image, with a density of 1."
)
NOT_THERE = (
    "In some images the object covers no pixel, by the landmarks of the face: these rows have no "
    "values."
)


class Parameters(BaseModel):
    """Parameters of a self-occlusion check.

    Attributes:
        occluders: Objects that the probe wears, one at a time; each gives its own values. Plain
            ones have few edges: a map of edges avoids a plain mask, and marks a striped one.
        controls: Maps whose right answer is known, measured on the same pairs.
        accepted_only: Leave out pairs that the model rejects once the probe wears the object, as
            published examples do. The pairs then differ from model to model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    occluders: Occluders = ("sunglasses", "mask", "striped_mask")
    controls: Controls = ("random_pixels", "random_blobs", "centre", "edge", "mean_map")
    accepted_only: StrictBool = False


_SOURCE = "Lu and Ebrahimi 2023 (S-RISE), sec. 4.3 and figure 5, which show it on examples"

DENSITY = Metric(
    name="occluder_density",
    title="Density of the saliency on the object",
    unit="times that of an even map",
    better="lower",
    range=(0.0, math.inf),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="Share of the map's mass that lies on the object, over the share of the pixels that "
    "the object covers: 1 = as if spread evenly, below 1 = the map avoids the object.",
)
SHARE = Metric(
    name="occluder_share",
    title="Saliency on the object",
    unit="share of the map's mass",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="Share of the mass of the map, clipped at 0, that lies on the object.",
)
TOP_DENSITY = Metric(
    name="occluder_top_density",
    title="Density of the most salient tenth on the object",
    unit="times that of a random tenth",
    better="lower",
    range=(0.0, math.inf),
    statistic="mean",
    kind="heavy",
    source=_SOURCE,
    meaning="Share of the most salient tenth of the pixels that the object holds, over the share "
    "of all pixels that it covers: what a coloured picture of the map shows. It knows the order of "
    "the pixels alone, so it is the same for maps that lie on a pedestal.",
)
CHANGE = Metric(
    name="occluder_share_change",
    title="Change of the saliency where the object is",
    unit="share of the map's mass",
    better="lower",
    range=(-1.0, 1.0),
    statistic="mean",
    kind="heavy",
    source="fxeval",
    meaning="Share of the map's mass on the object, less the share that the map of the same face "
    "without the object has in the same place: below 0 = the saliency has left it.",
)
DROP = Metric(
    name="occluder_similarity_drop",
    title="Similarity that the object costs",
    unit="cosine similarity",
    better="lower",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source="fxeval",
    meaning="Cosine of the pair without the object, less that with it; of the model, whatever the "
    "map. Below 0 = the object speaks for the match, and saliency on it may be right.",
)
TMR = Metric(
    name="occluder_tmr",
    title="Mated pairs accepted with the object",
    unit="share of mated pairs",
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    kind="rate",
    source="fxeval",
    meaning="How often the model accepts the pair at its operating threshold though the probe "
    "wears the object; of the model, whatever the map.",
)
METRICS = (DENSITY, TOP_DENSITY, SHARE, CHANGE, DROP, TMR)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Explain every probe without and with each object, and look for the mass on the object.

    Args:
        evidence: Of a group of mated pairs, with a version for each object.
        parameters: Of the check.

    Returns:
        Under each object: how much of the map lies on it, for the explainer and each control, and
        what the object does to the similarity. A row has values of the maps if both of its maps,
        with and without the object, are sound.

    Source:
        Lu and Ebrahimi 2023 (S-RISE), sec. 4.3: an ideal explanation neglects what hides the face.
    """
    ledger, subject, controls = Ledger(evidence, METRICS), evidence.subject, parameters.controls
    maps = ledger.watch(evidence.rows.side, evidence.explain(subject))
    clean = {order.map: order for order in orders(evidence, subject, maps, controls)}
    for name in parameters.occluders:
        worn = _with_the_same_draws(evidence, name)
        accepted = _enter_cost(ledger, evidence, worn)
        about = accepted if parameters.accepted_only else None
        maps = ledger.watch(name, worn.explain(subject))
        for order in orders(worn, subject, maps, controls):
            before = clean[order.map]
            after = before if order.map == MEAN_MAP else order
            _enter(ledger, worn, after, before, about)
    return ledger


def share_of(map_: FloatArray, region: NDArray[np.bool_]) -> float:
    """Return the share of a map's mass that lies in a region, both (H, W).

    The map is clipped at 0. One without mass counts as if it were spread evenly.

    >>> share_of(np.array([[3.0, 1.0], [-5.0, 0.0]]), np.array([[True, False], [True, True]]))
    0.75
    """
    mass = map_.clip(min=0.0)
    total = mass.sum()
    return float(mass[region].sum() / total) if total > 0 else float(region.mean())


def _with_the_same_draws(evidence: Evidence, name: str) -> Evidence:
    """Return the evidence with an object worn, whose random controls are those without it.

    A control that draws would otherwise move from one place to another by chance.
    """
    side, seed_of = evidence.rows.side, evidence.seed_of
    worn = evidence.on(name)

    def as_before(purpose: str, row: str, label: str) -> int:
        return seed_of(purpose, row, side + label.removeprefix(name))  # draws of a row stay apart

    return replace(worn, seed_of=as_before)


def _enter(
    ledger: Ledger, worn: Evidence, after: Order, before: Order,
    about: NDArray[np.bool_] | None,
) -> None:  # fmt: skip
    """Enter the values of one map under an object."""
    regions = _regions(worn)
    area = regions.mean(axis=(1, 2))
    is_there = area > 0
    if not is_there.all():
        ledger.remark(NOT_THERE)
    share, clean = (_shares(order, regions) for order in (after, before))
    share = np.where(np.isnan(clean) | ~is_there, np.nan, share)
    states = [
        state if there else RowState.EXCLUDED
        for state, there in zip(worst([after.states, before.states]), is_there, strict=True)
    ]
    if after.map == EXPLAINER and _lacks_mass(after, before):
        ledger.remark(WITHOUT_MASS)
    area = np.where(is_there & ~np.isnan(share), area, np.nan)
    values = {
        DENSITY.name: share / area,
        TOP_DENSITY.name: _shares_of_top(after, regions) / area,
        SHARE.name: share,
        CHANGE.name: share - clean,
    }
    for name, found in values.items():
        under = {"occluder": worn.rows.side}
        ledger.enter(name, after.map, found, states, under, about=about)


def _enter_cost(ledger: Ledger, evidence: Evidence, worn: Evidence) -> NDArray[np.bool_]:
    """Enter what an object does to the similarity; return (n,), which pairs are still accepted."""
    subject, question = evidence.subject, evidence.rows.question
    every, clean = torch.arange(len(evidence.rows)), subject.clean()
    drop = question.answer(subject, every, clean[evidence.rows.image]).double()
    drop -= question.answer(subject, every, clean[worn.rows.image]).double()
    margin = question.margin(subject, every, clean[worn.rows.image])
    accepted: NDArray[np.bool_] = (margin >= 0.0).numpy()
    is_there = _regions(worn).mean(axis=(1, 2)) > 0
    ok = [RowState.OK if there else RowState.EXCLUDED for there in is_there.tolist()]
    under = {"occluder": worn.rows.side}
    ledger.enter(DROP.name, EXPLAINER, np.where(is_there, drop.numpy(), np.nan), ok, under)
    rate = np.where(is_there, accepted.astype(np.float64), np.nan)
    if subject.operating_threshold is None:
        ledger.remark(subject.no_decision or NO_THRESHOLD)
        rate, ok = np.full(len(every), np.nan), [RowState.EXCLUDED] * len(every)
    ledger.enter(TMR.name, EXPLAINER, rate, ok, under)
    return accepted


def _regions(worn: Evidence) -> NDArray[np.bool_]:
    """Return where the object is in each row of the group, (n, H, W)."""
    assert worn.rows.altered is not None, "made so"
    return worn.rows.altered.numpy()


def _shares(order: Order, regions: NDArray[np.bool_]) -> FloatArray:
    """Return the share of each row's map, (n,); NaN where it has none."""
    maps = order.maps.double().numpy()
    found = [
        share_of(map_, regions[row])
        for map_, row in zip(maps, order.kept.tolist(), strict=True)
    ]  # fmt: skip
    return order.means(np.array(found))


def _shares_of_top(order: Order, regions: NDArray[np.bool_]) -> FloatArray:
    """Return the share of each row's most salient pixels in its region, (n,); NaN where none."""
    top = order.ranks.numpy() < count(TOP, order.ranks.shape[1])  # (B, H*W)
    inside = (top & regions[order.kept].reshape(top.shape)).sum(axis=1)
    found: FloatArray = inside / top.sum(axis=1)
    return order.means(found)


def _lacks_mass(*several: Order) -> bool:
    """Say whether a sound map has no value above 0."""
    return any(
        order.states[row] is RowState.OK and not bool((map_ > 0).any())
        for order in several
        for map_, row in zip(order.maps, order.kept.tolist(), strict=True)
    )
