"""Are the maps of one person more alike than those of two, and more than the photographs are?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict

from fxeval.contracts import Maps, SaliencyMaps
from fxeval.errors import EvidenceError
from fxeval.functional.controls import (
    ControlInputs,
    control_maps,
    drawn_from_others,
    luma,
    mean_map,
)
from fxeval.functional.map_patterns import bhattacharyya, emd_2d, patterns
from fxeval.metrics.occlusion import Fractions
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, usable, worst
from fxeval.results import EXPLAINER, Metric, RowState
from fxeval.strict.forms import once

ROWS = "map pairs"
CONDITIONS = {"fraction": "fractions"}

Control = Literal[
    "random_pixels", "random_blobs", "centre", "edge", "mean_map", "shuffled_identity", "image"
]


KNOWS_NO_EXPLAINER: frozenset[str] = frozenset(
    {"random_pixels", "random_blobs", "centre", "edge", "image"}
)
"""Controls whose values are the same for every explainer."""


class Parameters(BaseModel):
    """Parameters of a check on the similarity of patterns.

    Attributes:
        fractions: Of the pixels: the most salient ones, exactly ``max(1, floor(fraction * n +
            0.5))`` of n, make the pattern; 1.0 = the whole map.
        controls: Maps whose right answer is known, compared on the same pairs of images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = (0.01, 0.05, 1.0)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = (
        "random_pixels",
        "random_blobs",
        "centre",
        "edge",
        "mean_map",
        "shuffled_identity",
        "image",
    )


_SOURCE = "LEAM (arXiv 2509.17457), sec. 4"
_BC, _PIXELS = "Bhattacharyya coefficient", "pixels at a height of 112"

SAME = Metric(
    name="pattern_bhattacharyya_same",
    title="Likeness of the maps of one person",
    unit=_BC,
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    source=_SOURCE,
    meaning="Bhattacharyya coefficient of the maps of two images of one person: 1 for the same "
    "pattern, 0 for patterns without a common pixel. It says nothing without that of two people: "
    "maps of any faces, and even noise, have much in common.",
)
DIFFERENT = Metric(
    name="pattern_bhattacharyya_different",
    title="Likeness of the maps of two people",
    unit=_BC,
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    source=_SOURCE,
    meaning="Bhattacharyya coefficient of the maps of images of two people, what maps of any faces "
    "have in common.",
)
SEPARATION = Metric(
    name="pattern_separation",
    title="Separation of same from different by likeness",
    unit="area under the ROC curve",
    better="higher",
    range=(0.0, 1.0),
    statistic="auc",
    kind="light",
    source=_SOURCE,
    meaning="How often two maps of one person are more alike than two of different people: 0.5 = "
    "patterns say nothing of the person. Cliff's delta is twice this less 1. The photographs of "
    "one person are alike themselves: only what is better than control.image and control.edge is "
    "the map's own.",
)
EMD_SAME = Metric(
    name="pattern_emd_same",
    title="Distance of the maps of one person",
    unit=_PIXELS,
    better="lower",
    range=(0.0, np.inf),
    statistic="mean",
    source=_SOURCE,
    meaning="Earth mover's distance of the maps of two images of one person, on 14 x 14 cells: how "
    "far the mean share of one would have to be moved. Maps that are almost even have the "
    "smallest, and whole maps of noise are.",
)
EMD_DIFFERENT = Metric(
    name="pattern_emd_different",
    title="Distance of the maps of two people",
    unit=_PIXELS,
    better="higher",
    range=(0.0, np.inf),
    statistic="mean",
    source=_SOURCE,
    meaning="Earth mover's distance of the maps of images of two people.",
)
EMD_SEPARATION = Metric(
    name="pattern_emd_separation",
    title="Separation of same from different by distance",
    unit="area under the ROC curve",
    better="higher",
    range=(-np.inf, np.inf),  # of a row: minus a distance
    statistic="auc",
    kind="light",
    source=_SOURCE,
    meaning="How often two maps of one person are less far apart than two of different people: "
    "0.5 = patterns say nothing of the person.",
)
METRICS = (SAME, DIFFERENT, SEPARATION, EMD_SAME, EMD_DIFFERENT, EMD_SEPARATION)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the map of one image of each pair with that of the other.

    Each image is explained against an image of its own person that no other map of the pair has
    used, so nothing but the images themselves can make the two maps alike. A constant map takes
    part with its seeded random order.

    Args:
        evidence: Of a group of pairs, each with two images that are explained.
        parameters: Of the check.

    Returns:
        Under each fraction, for the explainer and each control: the likeness and the distance of
        the patterns, of mated pairs, of nonmated pairs, and of all for the separation.

    Source:
        LEAM (arXiv 2509.17457), sec. 4, on disjoint references and beside the images themselves.
    """
    ledger = Ledger(evidence, METRICS)
    shown = [
        (side, ledger.watch(side.rows.side, side.explain(side.subject)))
        for side in (evidence, evidence.on("reference"))
    ]
    for pair in _pairs(evidence, shown, parameters.controls):
        for fraction in parameters.fractions:
            _enter(evidence, ledger, pair, fraction)
    return ledger


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two maps for each row, of the explainer or a control: (n, H, W) each."""

    map: str
    first: Maps
    second: Maps
    states: tuple[RowState, ...]


_Shown = Sequence[tuple[Evidence, SaliencyMaps]]


def _pairs(evidence: Evidence, shown: _Shown, controls: Sequence[Control]) -> Iterator[_Pair]:
    """Yield the maps of both images of each pair, then those of each control."""
    first, second = (maps for _, maps in shown)
    states = worst([first.states, second.states])
    yield _Pair(EXPLAINER, first.positive, second.positive, states)
    for control in controls:
        name = f"control.{control}"
        try:
            maps = _control(control, evidence, shown)
        except EvidenceError:  # too few maps have an order
            excluded = (RowState.EXCLUDED,) * len(states)
            yield _Pair(name, first.positive, second.positive, excluded)
            continue
        # Another person's map stands beside the row's own first one.
        of = states if control == "shuffled_identity" else (RowState.OK,) * len(states)
        yield _Pair(name, *maps, of)


def _control(control: Control, evidence: Evidence, shown: _Shown) -> tuple[Maps, Maps]:
    people = evidence.rows.identities.tolist()
    if control in ("mean_map", "shuffled_identity"):
        everyone = [side.reference_maps(side.subject)[0] for side, _ in shown]
        both = torch.cat([maps.positive for maps in everyone])
        whose = evidence.everyone.identities.T.flatten().tolist()
        if control == "mean_map":  # the same for both images: of neither's person
            means = mean_map(both, whose, people)
            return means, means
        has_order = [state is RowState.OK for maps in everyone for state in maps.states]
        seeds = [evidence.seed("shuffled", row) for row in range(len(people))]
        return shown[0][1].positive, both[drawn_from_others(has_order, whose, people, seeds)]
    found = [_made(control, side) for side, _ in shown]
    return found[0], found[1]


def _made(control: Control, side: Evidence) -> Maps:
    """Return a control of the explained images that knows nothing of the explainer."""
    images = side.subject.pixels(side.rows.image)
    if control == "image":
        return luma(images)
    inputs = ControlInputs(
        probes=images,
        row_seeds=[side.seed("control", row) for row in range(len(side.rows))],
        identities=side.rows.identities[:, 0].tolist(),
    )
    return control_maps(control, inputs)


def _enter(evidence: Evidence, ledger: Ledger, pair: _Pair, fraction: float) -> None:
    likeness, distance = _compared(evidence, pair, fraction)
    is_mated = evidence.rows.is_mated.numpy()
    for metric, values, about in (
        (SAME, likeness, is_mated),
        (DIFFERENT, likeness, ~is_mated),
        (SEPARATION, likeness, None),
        (EMD_SAME, distance, is_mated),
        (EMD_DIFFERENT, distance, ~is_mated),
        (EMD_SEPARATION, -distance, None),
    ):
        under = {"fraction": fraction}
        ledger.enter(metric.name, pair.map, values, pair.states, under, about=about)


def _compared(evidence: Evidence, pair: _Pair, fraction: float) -> FloatArray:
    """Return the likeness and the distance of each row's two maps, (2, n); NaN without maps."""

    def compare() -> FloatArray:
        kept = np.flatnonzero(usable(pair.states))
        one, other = (
            patterns(maps[kept], fraction, [side.seed("ties", row) for row in kept.tolist()])
            for maps, side in zip(
                (pair.first, pair.second), (evidence, evidence.on("reference")), strict=True
            )
        )
        found: FloatArray = np.full((2, len(pair.states)), np.nan)
        found[:, kept] = bhattacharyya(one, other), emd_2d(one, other)
        return found

    if pair.map.removeprefix("control.") not in KNOWS_NO_EXPLAINER:
        return compare()
    # Other explainers of the same model meet the same controls on the same rows.
    seed = evidence.seed("ties", 0) if len(evidence.rows) else 0  # of the suite, too
    return evidence.kept.get(
        ("patterns", pair.map, fraction, evidence.subject.name, evidence.rows.id, seed), compare
    )
