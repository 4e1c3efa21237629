"""Operating thresholds at a false match rate, from all comparisons of different identities.

The nonmated pairs of a list are few: at a rate of 1e-3 a list of 3,000 of them allows three false
matches, and the similarity of the fourth is the threshold. The images of such a list give millions
of comparisons, at the cost of a matrix product.

N images, G identities, K comparisons that are kept: the most similar ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import SimilarityKind
from fxeval.statistics.crossed import Worth
from fxeval.verification.figures import CONFIDENCE, RATES, Figure

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FALSE_MATCHES = 30
"""Fewest false matches that a rate allows if it may set an operating threshold: 30 / rate
comparisons."""
MAX_IMAGES = 16_384
"""Most images that are compared with each other; of a longer list, images in equal steps."""
_ROWS = 256  # images that are compared with all others at a time
_DEPTH = 4  # comparisons kept, as a multiple of the false matches at the largest rate
_MORE = 1000  # and so many more


@dataclass(frozen=True, eq=False)
class CrossPairs:
    """The most similar comparisons of images of different identities.

    Attributes:
        n_images: Number of images.
        similarities: (K,) float64, descending.
        first, second: (K,) numbers of the two identities.
        images: (K, 2) numbers of the two images, among those that were given.
        comparisons: (G,) number of comparisons of each identity; each comparison counts for both.
    """

    n_images: int
    similarities: FloatArray
    first: IntArray
    second: IntArray
    images: IntArray
    comparisons: IntArray

    @property
    def n(self) -> int:
        """Number of comparisons."""
        return int(self.comparisons.sum()) // 2

    def thresholds(self) -> Mapping[str, tuple[Figure, Figure]]:
        """Return the operating threshold and the achieved rate at each of ``RATES``.

        Only rates at which ``FALSE_MATCHES`` are allowed have one.
        """
        return {
            f"tau_fmr_{name}": self._threshold(rate)
            for name, rate in RATES.items()
            if self.n >= comparisons_needed(rate)
        }

    def _threshold(self, rate: float) -> tuple[Figure, Figure]:
        # rate * n may be rounded to just below a whole number.
        allowed = math.floor(rate * self.n + 1e-9)
        value = self._above(allowed)
        accepted = int(np.searchsorted(-self.similarities, -value, side="right"))
        achieved = self._rate(accepted)
        # The threshold's interval holds the thresholds whose rates lie in the rate's interval.
        low, high = (self._above(math.floor(end * self.n)) for end in (achieved.high, achieved.low))
        if math.isnan(low):
            return Figure(value, math.nan, math.nan), achieved
        return Figure(value, min(low, value), max(high, value)), achieved

    def _above(self, allowed: int) -> float:
        """Return the least threshold with at most so many false matches; NaN if it is not kept."""
        if allowed >= len(self.similarities):
            return math.nan
        # A matrix product rounds differently on another number of threads, by 1e-15; the next
        # multiple of 2^-40 but one hides that.
        return (math.floor(float(self.similarities[allowed]) * 2.0**40) + 2) / 2.0**40

    def _rate(self, accepted: int) -> Figure:
        """Return the share of the comparisons that are accepted, with its interval.

        A comparison belongs to two people, so its variance comes from one pseudo-value for each
        identity, as for the pairs of a list (``fxeval.statistics.crossed``).
        """
        share, g = accepted / self.n, len(self.comparisons)
        hits = np.zeros(g)
        for side in (self.first, self.second):
            hits += np.bincount(side[:accepted], minlength=g)
        pseudo = g * (hits - share * self.comparisons) / self.n
        return Figure(share, *Worth(share, self.n, share + pseudo).bounds(CONFIDENCE))


def comparisons_needed(rate: float) -> int:
    """Return how many nonmated comparisons a false match rate needs to set a threshold.

    >>> comparisons_needed(1e-3)
    30000
    """
    return math.ceil(FALSE_MATCHES / rate - 1e-9)


def cross_pairs(kind: SimilarityKind, embeddings: FloatArray, identity: IntArray) -> CrossPairs:
    """Compare all images of different identities, some hundred images at a time.

    On one core, 16,384 images of 512 numbers took 10.6 s and a further 1 GB of memory, 4,000 images
    0.7 s and 0.1 GB (four images a person, standard normal numbers, one thread).

    Args:
        kind: Kind of the similarities.
        embeddings: (N, D) float64.
        identity: (N,) who is in each image.
    """
    chosen = np.arange(len(embeddings))
    if len(embeddings) > MAX_IMAGES:
        chosen = np.linspace(0, len(embeddings) - 1, MAX_IMAGES).round().astype(np.int64)
        embeddings, identity = embeddings[chosen], identity[chosen]
    names, people = np.unique(identity, return_inverse=True)
    people = people.astype(np.int64)
    sizes = np.bincount(people, minlength=len(names)).astype(np.int64)
    comparisons = sizes * (len(people) - sizes)
    wanted = math.ceil(_DEPTH * max(RATES.values()) * (int(comparisons.sum()) // 2)) + _MORE
    if kind == "cosine":
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        embeddings = embeddings / np.maximum(lengths, 1e-12)
    kept = _Largest(wanted)
    for start in range(0, len(people), _ROWS):
        rows = slice(start, start + _ROWS)
        values = _similarities(kind, embeddings[rows], embeddings[start:])
        one, two = np.nonzero(
            (people[rows, None] != people[None, start:])
            & (np.arange(len(values))[:, None] < np.arange(values.shape[1])[None, :])
            & (values > kept.least)
        )
        kept.add(values[one, two], one + start, two + start)
    values, one, two = kept.sorted()
    images = chosen[np.stack([one, two], axis=1)]
    return CrossPairs(len(people), values, people[one], people[two], images, comparisons)


def _similarities(kind: SimilarityKind, some: FloatArray, others: FloatArray) -> FloatArray:
    products: FloatArray = some @ others.T
    if kind == "cosine":
        return products
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None, :] - 2 * products
    distances: FloatArray = -np.sqrt(np.maximum(squares, 0.0))
    return distances


class _Largest:
    """Keeps the largest of many values, with two numbers of each."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._columns: tuple[FloatArray, IntArray, IntArray] = (
            np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64),
        )  # fmt: skip
        self.least = -math.inf  # smaller values are not needed

    def add(self, values: FloatArray, first: IntArray, second: IntArray) -> None:
        """Add values; those that are not among the largest are dropped now and then."""
        columns = zip(self._columns, (values, first, second), strict=True)
        one, two, three = (np.concatenate(pair) for pair in columns)
        if len(one) > 2 * self._wanted:
            chosen = np.argpartition(one, len(one) - self._wanted)[-self._wanted :]
            one, two, three = one[chosen], two[chosen], three[chosen]
            # Equal values beyond the last that is kept change no threshold above it.
            self.least = float(one.min())
        self._columns = one, two, three

    def sorted(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Return the largest values in descending order, and their numbers."""
        one, two, three = self._columns
        order = np.argsort(-one, kind="stable")[: self._wanted]
        return one[order], two[order], three[order]
