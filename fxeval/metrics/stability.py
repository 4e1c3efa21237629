"""Does a map stay when nothing that matters changes? Other draws, noise and small shifts.

A constant map is perfectly stable, and so is a picture of the centre. Stability stands beside a
check of faithfulness, never alone.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fxeval.contracts import SaliencyMaps
from fxeval.functional.fills import FillName
from fxeval.functional.map_similarity import spearman
from fxeval.functional.map_spread import entropy, gini
from fxeval.metrics.orders import orders
from fxeval.metrics.protocol import Evidence, FloatArray, Ledger, usable, worst
from fxeval.metrics.removal_curves import Removal, area, trace
from fxeval.results import BROKEN_STATES, EXPLAINER, Metric, RowState

ROWS = "nearby pairs"
NO_SELF_CHECK = "how steady a map is does not say how good it is"


class Parameters(BaseModel):
    """Parameters of a stability check.

    Attributes:
        draws: Draws of a stochastic explainer that are compared, the check's own among them.
        noisy: Noisy copies of each probe.
        steps: Steps of the deletion curves whose areas are compared between draws.
        fill: How removed pixels are replaced there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    draws: Annotated[int, Field(ge=2, le=20)] = 3
    noisy: Annotated[int, Field(ge=1, le=20)] = 5
    steps: Annotated[int, Field(ge=1, le=1000)] = 16
    fill: FillName = "blur"


def _correlation(name: str, title: str, meaning: str, information_only: str = "") -> Metric:
    return Metric(
        name=name,
        title=title,
        unit="Spearman correlation",
        better="higher",
        range=(-1.0, 1.0),
        statistic="median",
        kind="light",
        source="Alvarez-Melis and Jaakkola 2018, On the Robustness of Interpretability Methods",
        meaning=meaning,
        information_only=information_only,
    )


_MOVED = (
    "how far a map should move with the image depends on the network's stride, so nobody can say "
    "how alike is enough"
)
_NEITHER = "neither end is better"

METRICS = (
    _correlation(
        "draw_correlation",
        "Rank correlation between draws of the explainer",
        "1 if another draw gives the same order of pixels, as without any randomness; near 0 for "
        "noise.",
    ),
    Metric(
        name="draw_area_spread",
        title="Spread of the deletion area between draws",
        unit="cosine similarity",
        better="lower",
        range=(0.0, 2.0),
        statistic="mean",
        source="Lu and Ebrahimi 2023 (S-RISE), sec. 4, by number of masks",
        meaning="Standard deviation of a pair's deletion area over draws of the explainer.",
    ),
    _correlation(
        "noise_correlation",
        "Rank correlation with the map of a noisy image",
        "1 if noise that no eye sees leaves the order of pixels as it is.",
    ),
    _correlation(
        "half_pixel_correlation",
        "Rank correlation with the map of an image moved by half a pixel",
        "Near 1 if an alignment that is a little off hardly changes the map.",
        _MOVED,
    ),
    _correlation(
        "pixel_correlation",
        "Rank correlation with the map of an image moved by one pixel, moved back",
        "1 if the map moves along with the image.",
        _MOVED,
    ),
    Metric(
        name="map_entropy",
        title="Entropy of the map",
        unit="share of the entropy of an even map",
        better="lower",
        range=(0.0, 1.0),
        statistic="mean",
        source="Shannon 1948; of the map less its minimum, as a distribution over pixels",
        meaning="1 if the map is even, near 0 if a few pixels hold everything: neither is better.",
        information_only=_NEITHER,
    ),
    Metric(
        name="map_gini",
        title="Gini coefficient of the map",
        unit="fraction",
        better="higher",
        range=(0.0, 1.0),
        statistic="mean",
        source="Chalasani et al. 2020, Concise Explanations; of the map less its minimum",
        meaning="0 if the map is even, near 1 if a few pixels hold everything: neither is better.",
        information_only=_NEITHER,
    ),
)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the map of each row with its own of other draws and of nearly the same image.

    Args:
        evidence: Of a group of pairs, with versions of their probes.
        parameters: Of the check.

    Returns:
        Seven metrics per row, without values where one of its maps is broken. Two constant maps are
        the same map, and correlate with 1; a constant map and another one with 0.
    """
    ledger, subject = Ledger(evidence, METRICS), evidence.subject
    own = ledger.watch(evidence.rows.side, evidence.explain(subject))
    drawn = [
        ledger.watch(f"draw {index + 1}", evidence.explain(subject, draw=index))
        for index in range(1, parameters.draws)
    ]
    near = {
        name: ledger.watch(name, evidence.on(name).explain(subject)) for name in evidence.versions
    }
    noisy = [maps for name, maps in near.items() if name.startswith("noise")]
    half, whole = near["half a pixel"], near["one pixel"]
    scaled = own.positive.double()
    values = (
        np.mean([_alike(own, other) for other in drawn], axis=0),
        _spread(evidence, [own, *drawn], parameters),
        np.mean([_alike(own, other) for other in noisy], axis=0),
        _alike(own, half),
        _alike(own, whole, moved=1),
        entropy(scaled),
        gini(scaled),
    )
    states = worst([maps.states for maps in (own, *drawn, *near.values())])
    broken = np.array([state in BROKEN_STATES for state in states], dtype=bool)
    for metric, found in zip(METRICS, values, strict=True):
        ledger.enter(metric.name, EXPLAINER, np.where(broken, np.nan, found), states)
    return ledger


def _alike(own: SaliencyMaps, other: SaliencyMaps, *, moved: int = 0) -> FloatArray:
    """Return (n,) correlations; the other map is moved back by so many pixels, edges left out."""
    width = own.positive.shape[2]
    one, two = own.positive[..., : width - moved], other.positive[..., moved:]
    found: FloatArray = np.full(len(one), np.nan)
    kept = usable(own.states) & usable(other.states)
    flat = [
        np.array([state is RowState.DEGENERATE_MAP for state in maps.states], dtype=bool)
        for maps in (own, other)
    ]
    found[kept] = np.where(flat[0] & flat[1], 1.0, 0.0)[kept]
    kept &= ~(flat[0] | flat[1])
    # NaN only where the edges that are left out held all that is not constant.
    found[kept] = np.nan_to_num(spearman(_rows(one, kept), _rows(two, kept)))
    return found


def _rows(maps: Tensor, kept: np.ndarray) -> Tensor:
    return maps[kept.tolist()].flatten(1).double()


def _spread(
    evidence: Evidence, drawn: Sequence[SaliencyMaps], parameters: Parameters
) -> FloatArray:
    """Return the (n,) standard deviations over draws of the areas under the deletion curves."""
    areas = []
    for maps in drawn:
        [order] = orders(evidence, evidence.subject, maps)
        removal = Removal(evidence, evidence.subject, order, parameters.fill)
        found = trace(removal, parameters.steps)
        areas.append(order.means(area(found.fraction, found.answer[:, 0])))
    # Less the first, so that equal areas differ by exactly nothing.
    spread: FloatArray = np.std(np.stack(areas) - areas[0], axis=0, ddof=1)
    return spread
