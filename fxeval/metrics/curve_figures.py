"""Figures that are made of the curves of deletion and insertion, at no cost beside them.

Removing the *least* relevant pixels first (LeRF) keeps the others: after k of n pixels it is where
insertion is after n - k. So the area of that curve is ``insertion_auc``, and ``relevance_gain`` is
``insertion_auc`` less ``deletion_auc``.
"""

import numpy as np

from fxeval.metrics.protocol import FloatArray
from fxeval.metrics.removal_curves import Curves, area
from fxeval.results import Metric

LEAST_CONTRAST = 0.1
"""Cosine that the clean image must be ahead of the filled one: else nothing is normalised by it."""

_RISE = "Petsiuk et al. 2018 (RISE), sec. 4.2, on the cosine of a pair"
_VOID = (
    f"the filled image is nearly as similar as the clean one (less than {LEAST_CONTRAST:g} below "
    "it), which leaves nothing to normalise by"
)

AREAS = (
    Metric(
        name="deletion_auc",
        title="Deletion area under the curve",
        unit="cosine similarity",
        better="lower",
        range=(-1.0, 1.0),
        statistic="mean",
        kind="light",
        source=_RISE,
        meaning="Mean similarity to the other image while the most salient pixels are removed.",
    ),
    Metric(
        name="insertion_auc",
        title="Insertion area under the curve",
        unit="cosine similarity",
        better="higher",
        range=(-1.0, 1.0),
        statistic="mean",
        kind="light",
        source=_RISE,
        meaning="Mean similarity to the other image while the most salient pixels are restored.",
    ),
)
"""Of the curves themselves."""

DELETION_NORMALISED = Metric(
    name="deletion_auc_normalised",
    title="Deletion area between filled and clean",
    unit="share of the way from filled to clean",
    better="lower",
    range=(-2 / LEAST_CONTRAST, 2 / LEAST_CONTRAST),
    statistic="mean",
    kind="heavy",
    source=_RISE + "; normalised by its end points",
    meaning="Deletion area with the similarity of the filled image as 0 and that of the clean one "
    "as 1, so that pairs and fills with other end points can be compared.",
    void_if=_VOID,
)
INSERTION_NORMALISED = Metric(
    name="insertion_auc_normalised",
    title="Insertion area between filled and clean",
    unit="share of the way from filled to clean",
    better="higher",
    range=(-2 / LEAST_CONTRAST, 2 / LEAST_CONTRAST),
    statistic="mean",
    kind="heavy",
    source=_RISE + "; normalised by its end points",
    meaning="Insertion area with the similarity of the filled image as 0 and that of the clean one "
    "as 1, so that pairs and fills with other end points can be compared.",
    void_if=_VOID,
)
RELEVANCE_GAIN = Metric(
    name="relevance_gain",
    title="Area if the least relevant pixels go first, less that if the most relevant do",
    unit="cosine similarity",
    better="higher",
    range=(-2.0, 2.0),
    statistic="mean",
    kind="light",
    source="Bluecher et al. 2024 (symmetric relevance gain)",
    meaning="How much more similarity is left if the least relevant pixels are removed first than "
    "if the most relevant ones are; 0 = the order tells nothing. The fill shifts both areas, and "
    "moves their difference less.",
)
DELETION_CLIPPED = Metric(
    name="deletion_auc_clipped",
    title="Deletion area of the cosine clipped to 0..1",
    unit="cosine similarity",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="light",
    source=_RISE,
    meaning="Deletion area with negative cosines as 0, in the range of the published figure.",
)
INSERTION_CLIPPED = Metric(
    name="insertion_auc_clipped",
    title="Insertion area of the cosine clipped to 0..1",
    unit="cosine similarity",
    better="higher",
    range=(0.0, 1.0),
    statistic="mean",
    kind="light",
    source=_RISE,
    meaning="Insertion area with negative cosines as 0, in the range of the published figure.",
)
OUTSIDE = Metric(
    name="deletion_outside_share",
    information_only="a sound map leaves the clean images sooner than a random one",
    title="Part of the deletion curve outside the clean images",
    unit="share of the curve",
    better="lower",
    range=(0.0, 1.0),
    statistic="mean",
    kind="heavy",
    source="Hooker et al. 2019 (ROAR) and Gomez et al. 2022, on images unlike any that were seen",
    meaning="Over which share of the fractions the image without its most salient pixels is "
    "farther from every clean image than 99 % of the clean images are from another one. There the "
    "curve measures what the model makes of the fill. Read it off random pixels and blobs.",
)
FIGURES = (
    DELETION_NORMALISED, INSERTION_NORMALISED, RELEVANCE_GAIN, DELETION_CLIPPED, INSERTION_CLIPPED,
    OUTSIDE,
)  # fmt: skip
"""In the order of :func:`figures`."""


def figures(found: Curves) -> FloatArray:
    """Return the figures of each order, (B, 6), NaN where there is none.

    Example:
        >>> falling, rising = np.array([[0.9, 0.3, -0.1]]), np.array([[-0.1, 0.7, 0.9]])
        >>> answer = np.stack([falling, rising], axis=1)
        >>> figures(Curves(np.array([0, 8, 16]), answer, answer))[0, 2:5].round(3)
        array([0.2  , 0.375, 0.575])
    """
    fraction, answer = found.fraction, found.answer
    areas = area(fraction, answer)
    clean, filled = answer[:, 0, :1], answer[:, 0, -1:]
    contrast = clean - filled
    is_void = contrast < LEAST_CONTRAST
    normalised = np.where(is_void, np.nan, (areas - filled) / np.where(is_void, 1.0, contrast))
    gain = areas[:, 1:] - areas[:, :1]
    clipped = area(fraction, answer.clip(0.0, 1.0))
    outside = np.full_like(gain, np.nan)
    if found.outside is not None:
        outside = area(fraction, found.outside)[:, None]
    return np.concatenate([normalised, gain, clipped, outside], axis=1)
