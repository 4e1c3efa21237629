"""Which parts of the face do a person's maps rest on, and do they rest on them in every image?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import LabelMaps, Maps
from fxeval.errors import EvidenceError
from fxeval.functional.controls import (
    ControlInputs,
    control_maps,
    drawn_from_others,
    mean_map,
)
from fxeval.functional.map_patterns import area_shares, patterns, region_shares, variation
from fxeval.metrics.occlusion import Fractions
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, Rows, usable
from fxeval.results import EXPLAINER, Condition, Metric, RowState, gravity
from fxeval.strict.forms import once

ROWS = "people"
CONDITIONS = {"region": "regions", "fraction": "fractions"}

Control = Literal["random_pixels", "random_blobs", "centre", "mean_map", "shuffled_identity"]
Region = Annotated[str, Field(min_length=1)]


class Parameters(BaseModel):
    """Parameters of a check on the regions that maps rest on.

    Attributes:
        regions: Names of groups of parts, such as ``eyes``, or of single parts of the label maps,
            such as ``left_eye``; a group comes before a part of the same name.
        fractions: Of the pixels: the most salient ones, exactly ``max(1, floor(fraction * n +
            0.5))`` of n, are counted; 1.0 = the mass of the whole map.
        controls: Maps whose right answer is known, on the same images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: Annotated[tuple[Region, ...], Field(min_length=1), AfterValidator(once)] = (
        "eyes",
        "brows",
        "nose",
        "mouth",
        "skin",
        "hair",
        "background",
    )
    fractions: Fractions = (0.01, 1.0)
    controls: Annotated[tuple[Control, ...], AfterValidator(once)] = (
        "random_pixels",
        "random_blobs",
        "centre",
        "mean_map",
        "shuffled_identity",
    )


_SOURCE = "LEAM (arXiv 2509.17457), sec. 4"

SHARE = Metric(
    name="region_share",
    title="Share of the map in a region",
    unit="share of the map",
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    source=_SOURCE,
    meaning="How much of a map lies in the region, mean over a person's images: of its most "
    "salient pixels, or of the sum of the whole map. Large regions have large shares under any "
    "map, and no share is good in itself: 'higher' only says how limits are read.",
)
DENSITY = Metric(
    name="region_density",
    title="Density of the map in a region",
    unit="share of the map over share of the area",
    better="higher",
    range=(0.0, np.inf),
    statistic="mean",
    source="fxeval, of the shares of LEAM (arXiv 2509.17457)",
    meaning="Share of the map in the region over the region's share of the image: 1 for an even "
    "map, more where the map prefers the region.",
)
VARIATION = Metric(
    name="region_variation",
    title="Variation of a region's share over a person's images",
    unit="standard deviation over mean",
    better="lower",
    range=(0.0, 2.0),  # the root of the number of images, of which four are explained at most
    statistic="mean",
    source=_SOURCE,
    meaning="Coefficient of variation of the region's share over the images of a person: small "
    "where the maps rest on the region in every image alike, as those of noise and of a constant "
    "pattern do. No value where the mean share is below 0.001.",
)
METRICS = (SHARE, DENSITY, VARIATION)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Sum the maps of each person's images over the regions of these images.

    Pixels without a label belong to no region; an image without any label is left out. A constant
    map takes part with its seeded random order; a broken one breaks the row.

    Args:
        evidence: Of a group of people, each with several images that are explained.
        parameters: Of the check.

    Returns:
        Under each region and fraction, for the explainer and each control: means over the person's
        images of share and density, and the variation of the share. There is no value where the
        label maps do not know the region, or none of the person's images has it.

    Source:
        LEAM (arXiv 2509.17457), sec. 4; densities beside its shares, as large regions have large
        shares under any map.
    """
    ledger = Ledger(evidence, METRICS)
    ledger.watch("mean", evidence.explain(evidence.subject))
    faces = _faces(evidence, parameters.regions, ledger)
    for maps in _maps(evidence, parameters.controls):
        for fraction in parameters.fractions:
            _enter(ledger, faces, maps, fraction)
    return ledger


@dataclass(frozen=True, eq=False)
class _Maps:
    """The maps of one name, for the first image of each person, the second one, and so on.

    Attributes:
        map: ``explainer`` or ``control.<name>``.
        of: E sets of (n, H, W).
        states: E states for each row; ``EXCLUDED`` where a person has fewer images.
    """

    map: str
    of: Sequence[Maps]
    states: Sequence[Sequence[RowState]]


@dataclass(frozen=True, eq=False)
class _Faces:
    """The images of a group of people, with the regions that they show.

    Attributes:
        regions: Names of R regions.
        labels: (E, n, H, W); -1 = none.
        of: The labels of each region; () where the label maps do not know it.
        areas: (E, n, R) share of each image that each region has; NaN where it is not known.
    """

    regions: Sequence[str]
    labels: Tensor
    of: Sequence[tuple[int, ...]]
    areas: FloatArray


@dataclass(frozen=True, eq=False)
class _Labels:
    """The label maps of all people's images, with the rows that they are of.

    Attributes:
        rows: Kept here, so that no other rows have their id meanwhile.
        images: (M,) ascending.
        known: Of these images, one for each.
    """

    rows: Rows
    images: Tensor
    known: LabelMaps

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.known.labels.nbytes


def _faces(evidence: Evidence, regions: Sequence[str], ledger: Ledger) -> _Faces:
    """Return the labelled images of a group; what is not known is remarked."""
    found = evidence.kept.get(
        ("labels", id(evidence.everyone), evidence.subject.name), lambda: _all_labels(evidence)
    )
    from fxeval.datasets.faces.part_labels import groups_of  # a suite is read without data sets

    known = found.known
    groups = {name: (label,) for label, name in enumerate(known.names)} | groups_of(known.names)
    of = [groups.get(name, ()) for name in regions]
    for name, labels in zip(regions, of, strict=True):
        if not labels:
            ledger.remark(
                f"region {name}: no values: the label maps have no such part or group; they have: "
                f"{', '.join(groups)}"
            )
    has_labels = known.is_known()
    n_without = int((~has_labels).sum())
    if n_without:
        ledger.remark(
            f"{n_without} of {len(has_labels)} images have no labels: what their maps rest on is "
            "not known, and they have no part in the values"
        )
    if known.source:
        ledger.remark(f"regions: {known.source}")
    source = evidence.rows.source.T.contiguous()  # (E, n)
    place = torch.searchsorted(found.images, source.clamp(min=int(found.images[0])))
    areas = np.stack([area_shares(known.labels[one].long(), of) for one in place])
    areas[((source < 0) | ~has_labels[place]).numpy()] = np.nan
    areas[:, :, [not labels for labels in of]] = np.nan
    return _Faces(regions, known.labels[place], of, areas)


def _all_labels(evidence: Evidence) -> _Labels:
    source = evidence.everyone.source
    images = torch.unique(source[source >= 0])
    known = evidence.subject.labels(images)
    # A quarter of the memory of int64.
    return _Labels(evidence.everyone, images, replace(known, labels=known.labels.short()))


def _maps(evidence: Evidence, controls: Sequence[Control]) -> Iterator[_Maps]:
    """Yield the maps of the explainer, then those of each control."""
    each = evidence.explain_each(evidence.subject)
    states = [maps.states for maps in each]
    yield _Maps(EXPLAINER, [maps.positive for maps in each], states)
    fewer = RowState.EXCLUDED
    there = [[fewer if one is fewer else RowState.OK for one in some] for some in states]
    for control in controls:
        name = f"control.{control}"
        try:
            yield _Maps(name, _control(control, evidence, len(each)), there)
        except EvidenceError:  # too few maps have an order
            nothing = [[fewer] * len(some) for some in states]
            yield _Maps(name, [maps.positive for maps in each], nothing)


def _control(control: Control, evidence: Evidence, n_images: int) -> list[Maps]:
    """Return the control of the first image of each person, of the second one, and so on."""
    rows, subject = evidence.rows, evidence.subject
    people = rows.identities[:, 0].tolist()
    labels = [f"image {place}" for place in range(n_images)]

    def seeds(purpose: str, label: str) -> list[int]:
        return [evidence.seed(purpose, row, label) for row in range(len(rows))]

    if control in ("mean_map", "shuffled_identity"):
        every = evidence.reference_maps_each(subject)
        maps = torch.cat([one.positive for one in every])
        whose = evidence.everyone.identities[:, 0].tolist() * len(every)
        others = [(person,) for person in people]
        has_order = [state is RowState.OK for one in every for state in one.states]
        if control == "mean_map":
            kept = torch.tensor(has_order)
            some = [person for person, one in zip(whose, has_order, strict=True) if one]
            return [mean_map(maps[kept], some, others)] * n_images
        return [
            maps[drawn_from_others(has_order, whose, others, seeds("shuffled", label))]
            for label in labels
        ]
    return [
        control_maps(
            control,
            ControlInputs(
                probes=subject.pixels(rows.source[:, place].clamp(min=0)),
                row_seeds=seeds("control", label),
                identities=people,
            ),
        )
        for place, label in enumerate(labels)
    ]


def _enter(ledger: Ledger, faces: _Faces, maps: _Maps, fraction: float) -> None:
    shares = np.stack([
        _shares(ledger.evidence, faces, maps, place, fraction) for place in range(len(maps.of))
    ])  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        densities = np.where(faces.areas > 0.0, shares / faces.areas, np.nan)
    values = {SHARE: _means(shares), DENSITY: _means(densities), VARIATION: variation(shares)}
    states = [
        max((one for one in some if one is not RowState.EXCLUDED), key=gravity,
            default=RowState.EXCLUDED)
        for some in zip(*maps.states, strict=True)
    ]  # fmt: skip
    broken = ~usable(states)
    for metric, found in values.items():
        found[broken] = np.nan
        for column, region in enumerate(faces.regions):
            one = found[:, column]
            known = [
                RowState.EXCLUDED if np.isnan(value) and not fault else state
                for value, fault, state in zip(one, broken, states, strict=True)
            ]
            under: Condition = {"region": region, "fraction": fraction}
            ledger.enter(metric.name, maps.map, one, known, under)


def _shares(
    evidence: Evidence, faces: _Faces, maps: _Maps, place: int, fraction: float
) -> FloatArray:
    """Return the shares of the regions of one image of each person, (n, R); NaN = not known."""
    found: FloatArray = np.full(faces.areas.shape[1:], np.nan)
    kept = np.flatnonzero(usable(maps.states[place]))
    seeds = [evidence.seed("ties", row, f"image {place}") for row in kept.tolist()]
    pattern = patterns(maps.of[place][kept], fraction, seeds)
    found[kept] = region_shares(pattern, faces.labels[place, kept].long(), faces.of)
    found[np.isnan(faces.areas[place])] = np.nan
    return found


def _means(values: FloatArray) -> FloatArray:
    """Return the means over the images that have a value, (n, R) of (E, n, R); NaN without one."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0.0).sum(0)
    means: FloatArray = np.where(known.any(0), sums / np.maximum(known.sum(0), 1), np.nan)
    return means
