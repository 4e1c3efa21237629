"""Does the map change when the weights do? (Adebayo et al. 2018, full randomisation)."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.map_similarity import spearman
from fxeval.functional.ranking import ranks
from fxeval.metrics.protocol import Evidence, Ledger, Redraw, usable, worst
from fxeval.results import BROKEN_STATES, EXPLAINER, Metric, RowState

ROWS = "mated pairs"


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
        range=(-1.0, 1.0),
        statistic="median",
        kind="light",
        source=_SOURCE,
        meaning="Near 0 when the map depends on the weights; near 1 when any network would do.",
    ),
    Metric(
        name="absolute_rank_correlation_fully_randomised",
        title="Rank correlation with the map of a re-drawn network, sign dropped",
        unit="absolute Spearman correlation",
        better="lower",
        range=(0.0, 1.0),
        statistic="median",
        kind="light",
        source=_SOURCE,
        meaning="As before, but an inverted copy of the map counts as unchanged too.",
    ),
)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the maps of the trained network with those of re-drawn ones, row by row.

    The whole system is re-drawn: the reference is embedded by the re-drawn network too. Mask banks
    are the same before and after. A constant map takes part with its seeded random order.

    Args:
        evidence: Of a group of pairs.
        parameters: Of the check.

    Returns:
        Two Spearman correlations per row, each the mean over the re-drawn networks. Whether the
        networks are fit for the comparison is judged later, from the rows and the networks' own
        figures (``fxeval.statistics.redrawn``).
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    before = ledger.watch(evidence.rows.side, evidence.explain(subject))
    trained = _ordered(before, evidence, "trained")
    correlations, states = [], [before.states]
    for index in range(parameters.redraws):
        redrawn = subject.redraw(Redraw(index))
        after = ledger.watch_redrawn(redrawn, evidence.explain(redrawn.subject))
        correlations.append(spearman(trained, _ordered(after, evidence, f"redrawn{index}")))
        states.append(_forgiven(after))
    rho = np.stack(correlations)
    found = worst(states)
    broken = np.array([state in BROKEN_STATES for state in found], dtype=bool)
    for metric, values in zip(METRICS, (rho.mean(axis=0), np.abs(rho).mean(axis=0)), strict=True):
        ledger.enter(metric.name, EXPLAINER, np.where(broken, np.nan, values), found)
    return ledger


def _ordered(maps: SaliencyMaps, evidence: Evidence, label: str) -> Tensor:
    """Return (n, H*W) values to correlate; a constant map becomes a seeded random order."""
    values = maps.positive.clone()
    values[~usable(maps.states)] = 0.0  # spearman refuses NaN; these rows get no value anyway
    values = values.flatten(1).double()
    flat = [row for row, state in enumerate(maps.states) if state is RowState.DEGENERATE_MAP]
    if flat:
        seeds = [evidence.seed("ties", row, label) for row in flat]
        # Rank 0 is the most salient pixel, so minus the rank is a map with that order.
        values[flat] = -ranks(maps.positive[flat], seeds).double()
    return values


def _forgiven(after: SaliencyMaps) -> tuple[RowState, ...]:
    """Return the states under a re-drawn network, where a constant map is not a fault."""
    return tuple(state if state in BROKEN_STATES else RowState.OK for state in after.states)
