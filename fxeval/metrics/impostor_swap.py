"""Does the map change when another person is compared with, and repeat if nothing is changed?

The part of :mod:`fxeval.metrics.two_sided` that needs no other network: the mate gives way to a
nonmate. It is the cheapest sanity check of a black box, and costs mask explainers next to nothing.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from fxeval.metrics.protocol import Evidence, Ledger
from fxeval.metrics.residual_sets import PARTS, PLAIN, SEED, FloatArray, Gathered
from fxeval.results import Metric

ROWS = "compared pairs"
NO_SELF_CHECK = "controls that must not pass show what it stops (docs/method.md)"
CONDITIONS = {"part": PARTS}
DRAWS_ITSELF = True

NOISY, SHIFTED, IMPOSTOR = "noisy", "shifted", "impostor"
REPETITIONS = {"repeat_seed": SEED, "repeat_picture": NOISY, "repeat_crop": SHIFTED}

CONSTANT_ALLOWED = 0.2
"""Largest share of constant maps with which a verdict can be passed."""


class Parameters(BaseModel):
    """An impostor swap has no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


ONE_SIDED = (
    "a noisy map is like no other map and meets any limit on it; the axes subtract it from the "
    "similarity under repetition"
)
"""Why a similarity that should be low decides nothing by itself."""

SOURCE = "This project, docs/method.md; after Adebayo et al. 2018, Sanity Checks for Saliency Maps"


def of_maps(
    name: str, title: str, meaning: str, *, least: float = -1.0, better: str = "higher",
    unit: str = "Spearman correlation",
) -> Metric:  # fmt: skip
    """Return a metric of similarities of maps at 28 x 28; one that should be low gates nothing."""
    return Metric(
        name=name,
        title=title,
        unit=unit,
        better="higher" if better == "higher" else "lower",
        range=(least, 1.0),
        statistic="median",
        kind="light",
        source=SOURCE,
        meaning=meaning,
        constant_allowed=CONSTANT_ALLOWED,
        information_only=ONE_SIDED if better == "lower" else "",
    )


REPEAT = of_maps(
    "repeat",
    "Similarity of the map with the same network's map again",
    "The least of three: with another seed of the explainer, with noise of 2/255 on both pictures, "
    "and with the probe moved by half a pixel. Noise has 0.",
)
COMPARE = of_maps(
    "compare",
    "Similarity under repetition less that with a nonmate in the mate's place",
    "A map that is the same whomever the probe is compared with has 0 or less.",
    least=-2.0,
    unit="difference of Spearman correlations",
)
AGAIN = (
    of_maps("repeat_seed", "Similarity with the map at another seed of the explainer",
            "1 if the explainer draws nothing."),
    of_maps("repeat_picture", "Similarity with the map of slightly noisy pictures",
            "Whole numbers from -2 to 2, of 255, were added to each pixel."),
    of_maps("repeat_crop", "Similarity with the map of the probe moved by half a pixel",
            "The map is not moved back."),
)  # fmt: skip
SWAPPED = of_maps(
    "impostor_similarity",
    "Similarity with the map for a nonmate, sign dropped",
    "Near the floor when the map says why these two match; 1 when anybody would do.",
    least=0.0,
    better="lower",
    unit="absolute Spearman correlation",
)
FLOOR = of_maps(
    "floor_similarity",
    "Similarity with the maps of other people, sign dropped",
    "What unrelated maps of this explainer have: smooth ones about 0.15.",
    least=0.0,
    better="lower",
    unit="absolute Spearman correlation",
)

METRICS = (REPEAT, COMPARE, *AGAIN, SWAPPED, FLOOR)


def measure(evidence: Evidence, parameters: Parameters) -> Ledger:
    """Compare the maps of pairs with those for a nonmate, and with repetitions.

    Args:
        evidence: Of a group of pairs.
        parameters: None.

    Returns:
        Differences and similarities of residuals per row, for the positive map and, where there is
        a negative one, for their difference.
    """
    ledger = Ledger(evidence, METRICS)
    own = evidence.reference_maps(evidence.subject)[0]
    gathered = evidence.of_cell.get(("impostor swap", id(own)), lambda: _gathered(evidence))
    gathered.watched(ledger)
    for part in gathered.parts:
        repeat = enter_repetitions(ledger, gathered, part)
        enter_swap(ledger, gathered, part, repeat)
    return ledger


def _gathered(evidence: Evidence) -> Gathered:
    found = repetitions(evidence)
    found.version(IMPOSTOR)
    return found


def repetitions(evidence: Evidence) -> Gathered:
    """Return the plain maps of all rows, and those of the three repetitions."""
    found = Gathered(evidence, {PLAIN: evidence.reference_maps(evidence.subject)[0]})
    found.draw()
    found.version(NOISY)
    found.version(SHIFTED)
    return found


def enter_repetitions(ledger: Ledger, gathered: Gathered, part: str) -> FloatArray:
    """Enter the similarities under repetition; return the least of each row of the cell, (N,)."""
    found = {name: gathered.alike(PLAIN, of, part) for name, of in REPETITIONS.items()}
    repeat: FloatArray = np.min([*found.values()], axis=0)
    gathered.enter(ledger, REPEAT.name, part, repeat)
    for name, values in found.items():
        gathered.enter(ledger, name, part, values)
    return repeat


def enter_swap(ledger: Ledger, gathered: Gathered, part: str, repeat: FloatArray) -> None:
    """Enter what becomes of the map if the mate gives way to a nonmate."""
    swapped = np.abs(gathered.alike(PLAIN, IMPOSTOR, part))
    gathered.enter(ledger, COMPARE.name, part, repeat - swapped, IMPOSTOR)
    gathered.enter(ledger, SWAPPED.name, part, swapped, IMPOSTOR)
    gathered.enter(ledger, FLOOR.name, part, gathered.floor(part))
