"""Similarity while the most salient pixels go (deletion) or come (insertion)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.cells import Metric
from fxeval.contracts import Fill, RowState, SaliencyMaps
from fxeval.errors import EvidenceError
from fxeval.explainers.controls import ControlInputs, control_maps, mean_map
from fxeval.metrics.evidence import (
    EXPLAINER,
    ROWS_AT_ONCE,
    Curve,
    Evidence,
    Measurement,
    Series,
    Side,
    row_diagnostics,
    severity,
    sides_of,
    usable,
    worst_states,
)
from fxeval.metrics.removal_curves import FloatArray, Perturbed, area, crossings, trace
from fxeval.ranking import ranks
from fxeval.seeding import seed_of

Control = Literal["random_pixels", "random_blobs", "centre", "edge", "mean_map", "inverse"]


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("every entry at most once")
    return values


class Parameters(BaseModel):
    """Parameters of a deletion and insertion check.

    Attributes:
        steps: Number of equal steps from nothing to everything, K; the curve has K + 1 points.
        fills: How removed pixels are replaced; every fill gives its own values.
        side: Which image of the pair is perturbed; ``both`` is the mean of the two.
        controls: Maps whose right answer is known, measured on the same pairs.
        crossing_step: Resolution in pixels of the fraction at which the decision flips;
            None = the curve's own steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1000, strict=True)] = 50
    fills: Annotated[tuple[Fill, ...], Field(min_length=1), AfterValidator(_unique)] = ("blur",)
    side: Literal["probe", "reference", "both"] = "probe"
    controls: Annotated[tuple[Control, ...], AfterValidator(_unique)] = ()
    crossing_step: Annotated[int, Field(ge=1, strict=True)] | None = None


METRICS = (
    Metric(
        name="deletion_auc",
        title="Deletion area under the curve",
        unit="cosine similarity",
        better="lower",
        statistic="mean",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are removed.",
    ),
    Metric(
        name="insertion_auc",
        title="Insertion area under the curve",
        unit="cosine similarity",
        better="higher",
        statistic="mean",
        source="Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair",
        meaning="Mean similarity to the other image while the most salient pixels are restored.",
    ),
    Metric(
        name="deletion_fraction_to_nonmatch",
        title="Fraction removed until the model says nonmatch",
        unit="fraction of pixels",
        better="lower",
        statistic="mean",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must go before the decision flips; 1 if it never does.",
    ),
    Metric(
        name="insertion_fraction_to_match",
        title="Fraction restored until the model says match",
        unit="fraction of pixels",
        better="lower",
        statistic="mean",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 3",
        meaning="How much of the image must come back before the model accepts the pair.",
    ),
)
_NO_THRESHOLD = (
    "The model declares no operating threshold: fractions to nonmatch and to match have no value."
)


def measure(evidence: Evidence, parameters: Parameters) -> Measurement:
    """Measure deletion and insertion of the explainer's maps and of controls on the same pairs.

    Args:
        evidence: Pairs, maps and embeddings.
        parameters: Of the check.

    Returns:
        Four metrics per map and fill, and the curves. Of a pair whose map has no order (NaN, wrong
        shape, ...) the explainer has no value; the controls have theirs.
    """
    n = evidence.pairs.images.shape[-1] * evidence.pairs.images.shape[-2]
    if parameters.steps > n:
        raise EvidenceError(
            f"deletion and insertion: {parameters.steps} steps asked for on images of {n} pixels. "
            "Lower steps."
        )
    sides = [_Side(side, evidence) for side in sides_of(parameters.side)]
    maps = (EXPLAINER, *(f"control.{name}" for name in parameters.controls))
    columns = [
        _Column(map_, fill, len(evidence.pairs), parameters.steps)
        for map_ in maps
        for fill in parameters.fills
    ]
    for start in range(0, len(evidence.pairs), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(evidence.pairs)))
        for column in columns:
            column.put(rows, [side.follow(column, rows, parameters) for side in sides])
        evidence.emit([_row(evidence, columns, sides, int(row)) for row in rows])
    states, reasons = worst_states([side.maps for side in sides])
    return Measurement(
        series=tuple(series for column in columns for series in column.series()),
        maps=sides[0].maps,
        states=states,
        reasons=reasons,
        curves=tuple(curve for column in columns for curve in column.curves()),
        notes=(_NO_THRESHOLD,) if evidence.operating_threshold is None else (),
    )


def _row(
    evidence: Evidence, columns: Sequence["_Column"], sides: Sequence["_Side"], row: int
) -> dict[str, Any]:
    return {
        "row": evidence.pairs.row_id(row),
        "identity": int(evidence.pairs.probe_identity[row]),
        "diagnostics": {side.name: row_diagnostics(side.maps, row) for side in sides},
        "maps": [column.row(row) for column in columns],
    }


class _Column:
    """Values, states and curves of one map under one fill, for all pairs."""

    def __init__(self, map_: str, fill: Fill, n: int, steps: int) -> None:
        self.map = map_
        self.fill = fill
        self._fraction: FloatArray = np.zeros(steps + 1)
        self._values: FloatArray = np.full((n, len(METRICS)), np.nan)
        self._curves: FloatArray = np.full((n, 2, steps + 1), np.nan)
        self._states = [[RowState.OK] * len(METRICS) for _ in range(n)]

    def put(self, rows: NDArray[np.int64], sides: Sequence["_Followed"]) -> None:
        """Take the results of a group of rows: the mean over the sides, the worst state."""
        self._fraction = sides[0].fraction
        self._values[rows] = np.mean([side.values for side in sides], axis=0)
        self._curves[rows] = np.mean([side.curves for side in sides], axis=0)
        for position, row in enumerate(rows):
            by_metric = zip(*(side.states[position] for side in sides), strict=True)
            self._states[row] = [max(states, key=severity) for states in by_metric]

    def series(self) -> list[Series]:
        """One series per metric."""
        return [
            Series(
                metric.name,
                self.map,
                self.fill,
                self._values[:, index],
                tuple(states[index] for states in self._states),
            )
            for index, metric in enumerate(METRICS)
        ]

    def curves(self) -> list[Curve]:
        """The deletion and the insertion curve."""
        return [
            Curve("deletion", self.map, self.fill, self._fraction, self._curves[:, 0]),
            Curve("insertion", self.map, self.fill, self._fraction, self._curves[:, 1]),
        ]

    def row(self, row: int) -> dict[str, Any]:
        """What is kept of one pair."""
        names = [metric.name for metric in METRICS]
        return {
            "map": self.map,
            "fill": self.fill,
            "values": dict(zip(names, self._values[row].tolist(), strict=True)),
            "states": dict(zip(names, self._states[row], strict=True)),
            "deletion": self._curves[row, 0].tolist(),
            "insertion": self._curves[row, 1].tolist(),
        }


class _Followed:
    """Results of B rows on one side; NaN and a broken state where the map has no order."""

    def __init__(self, fraction: FloatArray, states: Sequence[RowState]) -> None:
        self.fraction = fraction
        self.values: FloatArray = np.full((len(states), len(METRICS)), np.nan)
        self.curves: FloatArray = np.full((len(states), 2, len(fraction)), np.nan)
        self.states = [[state] * len(METRICS) for state in states]


class _Side:
    """One image of every pair: its maps, its controls, and what removing pixels does."""

    def __init__(self, side: Side, evidence: Evidence) -> None:
        self.maps: SaliencyMaps = evidence.explain(side)
        self.name = side
        self._evidence = evidence
        pairs = evidence.pairs
        self._image, self._other = (
            (pairs.probe, pairs.reference) if side == "probe" else (pairs.reference, pairs.probe)
        )
        self._identities = pairs.probe_identity if side == "probe" else pairs.reference_identity

    def follow(self, column: _Column, rows: NDArray[np.int64], parameters: Parameters) -> _Followed:
        """Measure some rows under one map and fill."""
        maps, states = self._maps(column.map, rows)
        ordered = usable(states)
        kept = rows[ordered]
        seeds = [
            seed_of(self._evidence.seed, "ties", self._evidence.pairs.row_id(row), self.name)
            for row in kept.tolist()
        ]
        subject = Perturbed(
            self._image[kept], self._other[kept], ranks(maps[ordered], seeds), column.fill
        )
        found = trace(subject, parameters.steps, self._evidence)
        followed = _Followed(found.fraction, states)
        followed.curves[ordered] = found.cosine
        followed.values[ordered, :2] = area(found.fraction, found.cosine)
        flips = crossings(subject, found, parameters.crossing_step, self._evidence)
        for position, pair in zip(np.flatnonzero(ordered), flips, strict=True):
            for metric, (value, state) in enumerate(pair, start=2):
                followed.values[position, metric] = value
                if followed.states[position][metric] is RowState.OK:
                    followed.states[position][metric] = state
        return followed

    def _maps(self, name: str, rows: NDArray[np.int64]) -> tuple[Tensor, list[RowState]]:
        """Return (B, H, W) maps of some rows and their states."""
        own = self.maps.positive[rows], [self.maps.states[row] for row in rows]
        if name == EXPLAINER:
            return own
        control = name.removeprefix("control.")
        if control == "inverse":
            return -own[0], own[1]
        if control == "mean_map":
            mean = self._mean_map
            state = RowState.EXCLUDED if mean is None else RowState.OK
            return (own[0] if mean is None else mean[rows]), [state] * len(rows)
        pairs = self._evidence.pairs
        inputs = ControlInputs(
            probes=pairs.images[self._image[rows]].float() / 255.0,
            row_seeds=[
                seed_of(self._evidence.seed, "control", pairs.row_id(row), self.name)
                for row in rows.tolist()
            ],
            identities=self._identities[rows].tolist(),
        )
        return control_maps(control, inputs), [RowState.OK] * len(rows)

    @cached_property
    def _mean_map(self) -> Tensor | None:
        """Mean maps over the other identities; None if too few maps have an order."""
        try:
            return mean_map(self.maps.positive, self._identities.tolist())
        except EvidenceError:
            return None
