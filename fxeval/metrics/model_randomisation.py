"""Does the map change when the weights do? (Adebayo et al. 2018, full randomisation)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.cells import Metric, Outcome, Verdict
from fxeval.contracts import BROKEN_STATES, RowState, SaliencyMaps
from fxeval.map_similarity import spearman
from fxeval.metrics.evidence import (
    EXPLAINER,
    Evidence,
    Measurement,
    Redrawn,
    Series,
    row_diagnostics,
    without_broken,
    worst_states,
)
from fxeval.randomisation import COLLAPSED_BELOW
from fxeval.ranking import ranks
from fxeval.seeding import seed_of

REDRAWN_SHARE = 0.5  # below it, the re-drawn network is still mostly the trained one
DEGENERATE_SHARE = 0.2  # above it, constant maps of a re-drawn network are no sign of change


class Parameters(BaseModel):
    """Parameters of a model-randomisation check.

    Attributes:
        mode: ``full``: every layer is re-drawn at once.
        redraws: Number of differently seeded networks; a pair's value is the mean over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mode: Literal["full"] = "full"
    redraws: Annotated[int, Field(ge=1, le=20)] = 1


_SOURCE = "Adebayo et al. 2018, Sanity Checks for Saliency Maps, sec. 3-4"

METRICS = (
    Metric(
        name="rank_correlation_fully_randomised",
        title="Rank correlation with the map of a re-drawn network",
        unit="Spearman correlation",
        better="lower",
        statistic="median",
        source=_SOURCE,
        meaning="Near 0 when the map depends on the weights; near 1 when any network would do.",
    ),
    Metric(
        name="absolute_rank_correlation_fully_randomised",
        title="Rank correlation with the map of a re-drawn network, sign dropped",
        unit="absolute Spearman correlation",
        better="lower",
        statistic="median",
        source=_SOURCE,
        meaning="As before, but an inverted copy of the map counts as unchanged too.",
    ),
)


def measure(evidence: Evidence, parameters: Parameters) -> Measurement:
    """Compare the maps of the trained network with those of re-drawn ones, pair by pair.

    The whole system is re-drawn: the reference is embedded by the re-drawn network too. Mask banks
    are the same before and after. A constant map takes part with its seeded random order.

    Args:
        evidence: Pairs and maps.
        parameters: Of the check.

    Returns:
        Two series of Spearman correlations; an objection if the re-drawn network collapsed or made
        mostly constant maps, since then nothing was learnt about the explainer.
    """
    before = evidence.explain("probe")
    trained = _ordered(before, evidence, "trained")
    correlations: list[NDArray[np.float64]] = []
    everything = [before]
    notes: list[str] = []
    objection: Verdict | None = None
    for index in range(parameters.redraws):
        redrawn = evidence.redraw(index)
        after = _ordered(redrawn.maps, evidence, f"redrawn{index}")
        correlations.append(spearman(trained, after))
        everything.append(_forgiven(redrawn.maps))
        notes.append(_note(index, redrawn))
        objection = objection or _objection(redrawn)
    states, reasons = worst_states(everything)
    rho: NDArray[np.float64] = np.stack(correlations)
    broken = np.array([state in BROKEN_STATES for state in states], dtype=bool)
    signed, absolute = rho.mean(axis=0), np.abs(rho).mean(axis=0)
    signed[broken] = absolute[broken] = np.nan
    series = tuple(
        Series(metric.name, EXPLAINER, None, values, states)
        for metric, values in zip(METRICS, (signed, absolute), strict=True)
    )
    evidence.emit(_rows(evidence, series, before))
    return Measurement(series, before, states, reasons, notes=tuple(notes), objection=objection)


def _ordered(maps: SaliencyMaps, evidence: Evidence, label: str) -> Tensor:
    """Return (N, H*W) values to correlate; a constant map becomes a seeded random order."""
    size = (int(maps.positive.shape[-2]), int(maps.positive.shape[-1]))
    values = without_broken(maps, size).flatten(1).double()
    flat = [row for row, state in enumerate(maps.states) if state is RowState.DEGENERATE_MAP]
    if flat:
        row_ids = [evidence.pairs.row_id(row) for row in flat]
        seeds = [seed_of(evidence.seed, "ties", row_id, label) for row_id in row_ids]
        values[flat] = -ranks(maps.positive[flat], seeds).double()
    return values


def _forgiven(after: SaliencyMaps) -> SaliencyMaps:
    """Return maps of a re-drawn network with constant ones let off: not the explainer's fault."""
    states = tuple(state if state in BROKEN_STATES else RowState.OK for state in after.states)
    return SaliencyMaps(after.positive, None, states, after.reasons)


def _note(index: int, redrawn: Redrawn) -> str:
    flat = sum(state is RowState.DEGENERATE_MAP for state in redrawn.maps.states)
    return (
        f"re-drawn network {index + 1}: {redrawn.redrawn_share:.1%} of the parameters changed, "
        f"embedding spread {redrawn.spread:.3g}, {flat} of {len(redrawn.maps.states)} maps constant"
    )


def _objection(redrawn: Redrawn) -> Verdict | None:
    if redrawn.spread < COLLAPSED_BELOW:
        return Verdict(
            Outcome.INVALID,
            f"the re-drawn network is collapsed: it embeds every face alike (spread "
            f"{redrawn.spread:.2g}, at least {COLLAPSED_BELOW:g} needed)",
        )
    if redrawn.redrawn_share < REDRAWN_SHARE:
        return Verdict(
            Outcome.INVALID,
            f"only {redrawn.redrawn_share:.0%} of the parameters could be re-drawn (at least "
            f"{REDRAWN_SHARE:.0%} needed): the network keeps its weights elsewhere",
        )
    flat = sum(state is RowState.DEGENERATE_MAP for state in redrawn.maps.states)
    if flat > DEGENERATE_SHARE * len(redrawn.maps.states):
        return Verdict(
            Outcome.INCONCLUSIVE,
            f"{flat} of {len(redrawn.maps.states)} maps of the re-drawn network are constant (at "
            f"most {DEGENERATE_SHARE:.0%} allowed)",
        )
    return None


def _rows(
    evidence: Evidence, series: Sequence[Series], maps: SaliencyMaps
) -> list[dict[str, object]]:
    return [
        {
            "row": evidence.pairs.row_id(row),
            "identity": int(evidence.pairs.probe_identity[row]),
            "diagnostics": {"probe": row_diagnostics(maps, row)},
            "maps": [
                {
                    "map": EXPLAINER,
                    "fill": None,
                    "values": {one.metric: float(one.values[row]) for one in series},
                    "states": {one.metric: one.states[row] for one in series},
                }
            ],
        }
        for row in range(len(evidence.pairs))
    ]
