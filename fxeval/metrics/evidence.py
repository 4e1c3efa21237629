"""What a protocol may ask for, and what it gives back.

A protocol (a module of this package) gets :class:`Evidence`: functions, not devices or batches. It
returns a :class:`Measurement`: series of values, one per pair, that the statistics work on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fxeval.cells import Verdict
from fxeval.contracts import (
    BROKEN_STATES,
    Embeddings,
    Fill,
    Pairs,
    Perturbations,
    RowState,
    SaliencyMaps,
    SimilarityKind,
)

Side = Literal["probe", "reference"]
EXPLAINER = "explainer"  # the name of the explainer's own series, beside "control.<name>"
ROWS_AT_ONCE = 16  # pairs that are explained and measured together, whatever the batch size


@dataclass(frozen=True, eq=False)
class Redrawn:
    """Maps under one re-drawn network.

    Attributes:
        maps: Of the same pairs as before, the same mask banks.
        spread: Mean pairwise (1 - cosine) of the re-drawn network's embeddings.
        redrawn_share: Share of the parameters that changed, 0 to 1.
    """

    maps: SaliencyMaps
    spread: float
    redrawn_share: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything one cell may be measured with.

    Attributes:
        pairs: N mated pairs.
        similarity: The model's native similarity.
        operating_threshold: In the native similarity; None if the model has none.
        seed: The suite's seed.
        clean: Embeddings of ``pairs.images``, (M, D).
        embed: Embeds described perturbations.
        explain: The explainer's maps of one side of all pairs.
        redraw: Maps under the network re-drawn with the given index.
        emit: Takes finished rows, in order, as they come.
    """

    pairs: Pairs
    similarity: SimilarityKind
    operating_threshold: float | None
    seed: int
    clean: Callable[[], Embeddings]
    embed: Callable[[Perturbations], Embeddings]
    explain: Callable[[Side], SaliencyMaps]
    redraw: Callable[[int], Redrawn]
    emit: Callable[[Sequence[dict[str, Any]]], None]


@dataclass(frozen=True, eq=False)
class Series:
    """One metric of one map under one fill.

    Attributes:
        metric: Name of the metric.
        map: ``explainer`` or ``control.<name>``.
        fill: The fill, or None where there is none.
        values: (N,) float64; NaN where a row has no value.
        states: N row states.
    """

    metric: str
    map: str
    fill: Fill | None
    values: NDArray[np.float64]
    states: tuple[RowState, ...]


@dataclass(frozen=True, eq=False)
class Curve:
    """Similarity along removal or restoration, for every pair.

    Attributes:
        kind: ``deletion`` or ``insertion``.
        map: ``explainer`` or ``control.<name>``.
        fill: The fill.
        fraction: (K + 1,) fraction of pixels removed or restored, 0 to 1.
        similarity: (N, K + 1) unclipped cosine; NaN rows have no map.
    """

    kind: Literal["deletion", "insertion"]
    map: str
    fill: Fill
    fraction: NDArray[np.float64]
    similarity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a protocol found.

    Attributes:
        series: Values per pair.
        maps: The explainer's maps of the first side, for their mean.
        states: Per pair, the worst state of all its maps, whatever the side or the network.
        reasons: Per pair, what that state is about.
        curves: Curves per pair, if the protocol has any.
        notes: Sentences for the reader.
        objection: Why nothing can be concluded whatever the intervals say, or None.
    """

    series: tuple[Series, ...]
    maps: SaliencyMaps
    states: tuple[RowState, ...]
    reasons: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    objection: Verdict | None = None


def severity(state: RowState) -> int:
    """Order states: a map without an order is worse than a constant one, that worse than the rest.

    >>> sorted([RowState.NAN_MAP, RowState.OK, RowState.DEGENERATE_MAP], key=severity)[0].value
    'ok'
    """
    if state in BROKEN_STATES:
        return 3
    return {RowState.DEGENERATE_MAP: 2, RowState.OK: 0}.get(state, 1)


def worst_states(
    several: Sequence[SaliencyMaps],
) -> tuple[tuple[RowState, ...], tuple[str, ...]]:
    """Return, for each pair, the worst state among several sets of maps, with its reason."""
    rows = zip(*(zip(maps.states, maps.reasons, strict=True) for maps in several), strict=True)
    worst = [max(row, key=lambda entry: severity(entry[0])) for row in rows]
    return tuple(state for state, _ in worst), tuple(reason for _, reason in worst)


def sides_of(side: Literal["probe", "reference", "both"]) -> tuple[Side, ...]:
    """Return the images to perturb, one or both.

    >>> sides_of("both")
    ('probe', 'reference')
    """
    return ("probe", "reference") if side == "both" else (side,)


def row_diagnostics(maps: SaliencyMaps, row: int) -> dict[str, float]:
    """Return what the explainer says about one map."""
    return {name: float(values[row]) for name, values in maps.diagnostics.items()}


def usable(states: Sequence[RowState]) -> NDArray[np.bool_]:
    """Say which maps have an order at all, even if it is a random one."""
    unordered = BROKEN_STATES | {RowState.EXCLUDED}
    return np.array([state not in unordered for state in states], dtype=bool)


def without_broken(maps: SaliencyMaps, size: tuple[int, int]) -> Tensor:
    """Return the (N, H, W) maps with broken ones replaced by zeros, which rank at random."""
    positive = maps.positive.clone().reshape(-1, *size)
    positive[~usable(maps.states)] = 0.0
    return positive
