"""Draws pairs, by a seed, from images whose identities are known.

The most useful pairs come first, so that a list can be cut: mated pairs come before nonmated ones,
and the first pairs cover as many identities as possible.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import combinations, groupby
from math import isqrt

import numpy as np

from fxeval.datasets.faults import of_all
from fxeval.errors import DataContractError
from fxeval.listings import IdentityListing, PairListing
from fxeval.seeding import generator_of

MAX_PAIRS = 1_000_000
"""Longest list drawn."""

_BATCHES = 64  # of random pairs, before all pairs are numbered instead

Rows = list[tuple[int, int]]
"""Pairs of rows of a list of images, the smaller row first."""


def drawn_pairs(
    listing: IdentityListing,
    seed: int,
    *,
    mated: int | None = None,
    nonmated: int | None = None,
    folds: int | None = None,
) -> PairListing:
    """Draw pairs without repetition; the order of the images in the listing does not matter.

    If all mated pairs are wanted, they come in the order of :func:`every_mated`, otherwise in that
    of :func:`some_mated`. With folds, each identity belongs to exactly one fold, each fold gets its
    share of the pairs, and the list takes a pair from each fold in turn.

    Args:
        listing: Images with identities; its splits are ignored.
        seed: Seed of the draw.
        mated: Number of mated pairs; None = all.
        nonmated: Number of nonmated pairs; None = as many as mated ones, or as many as exist.
        folds: Number of folds, at least 2; None = the list has no folds.

    Raises:
        DataContractError: If there are fewer pairs than asked for (in a fold: than its share), none
            at all, or more than ``MAX_PAIRS``.
    """
    for name, value, least in (("mated", mated, 0), ("nonmated", nonmated, 0), ("folds", folds, 2)):
        if value is not None and value < least:
            raise of_all(f"pairs: expected '{name}' of at least {least}, got {value}")
    images = sorted(zip(listing.identity, listing.image, strict=True))
    people = [list(own) for _, own in groupby(images, key=lambda image: image[0])]
    parts = [people] if folds is None else _dealt(people, folds, seed)
    found = []
    for fold, own in enumerate(parts):
        counts = (_share(mated, fold, len(parts)), _share(nonmated, fold, len(parts)))
        address = (seed,) if folds is None else (seed, fold)
        place = "" if folds is None else f" in fold {fold} of {folds}"
        rows = _rows([len(one) for one in own], counts, address, place)
        flat = [image for one in own for image in one]
        for kind, pairs in enumerate(rows):
            found += [(kind, at, fold, flat[i], flat[j]) for at, (i, j) in enumerate(pairs)]
        if len(found) > MAX_PAIRS:
            raise _too_many(len(found))
    found.sort(key=lambda pair: pair[:3])
    return PairListing(
        probe=tuple(one[1] for *_, one, _ in found),
        reference=tuple(two[1] for *_, two in found),
        is_mated=tuple(kind == 0 for kind, *_ in found),
        probe_identity=tuple(one[0] for *_, one, _ in found),
        reference_identity=tuple(two[0] for *_, two in found),
        excluded=listing.excluded,
        fold=() if folds is None else tuple(fold for _, _, fold, _, _ in found),
    )


def every_mated(sizes: Sequence[int]) -> Rows:
    """Return one mated pair of each identity, then the remaining ones identity by identity.

    Args:
        sizes: Number of images of each identity; its rows are consecutive.

    >>> every_mated([3, 1, 2])
    [(0, 1), (4, 5), (0, 2), (1, 2)]
    """
    firsts: Rows = []
    others: Rows = []
    start = 0
    for size in sizes:
        pairs = list(combinations(range(start, start + size), 2))
        firsts += pairs[:1]
        others += pairs[1:]
        start += size
    return firsts + others


def some_mated(sizes: Sequence[int], wanted: int, generator: np.random.Generator) -> Rows:
    """Draw mated pairs in rounds; a round adds one new pair of every identity that has one left.

    The last round is cut, and the identities that it reaches are drawn as well.

    Args:
        sizes: As for :func:`every_mated`.
        wanted: Number of pairs, at most as many as exist.
        generator: Generator of the draw.
    """
    counts = np.array([size * (size - 1) // 2 for size in sizes], np.int64)
    # The fewest rounds that give enough pairs; listing every pair could fill the memory.
    rounds = bisect_left(
        range(int(counts.max(initial=0)) + 1),
        wanted,
        key=lambda number: int(np.minimum(counts, number).sum()),
    )
    starts = np.cumsum(sizes) - sizes
    drawn = []
    for turn, identity in enumerate(generator.permutation(len(sizes)).tolist()):
        count = int(counts[identity])
        ranks = generator.choice(count, min(count, rounds), replace=False) if count else ()
        drawn += [(number, turn, identity, int(rank)) for number, rank in enumerate(ranks)]
    pairs = []
    for _, _, identity, rank in sorted(drawn)[:wanted]:
        # Pairs (one, two) with one < two are numbered by two, then one; isqrt inverts that.
        two = (1 + isqrt(1 + 8 * rank)) // 2
        start = int(starts[identity])
        pairs.append((start + rank - two * (two - 1) // 2, start + two))
    return pairs


def some_nonmated(sizes: Sequence[int], wanted: int, generator: np.random.Generator) -> Rows:
    """Draw pairs of different identities, without repetition; fewer if there are not enough.

    Args:
        sizes: As for :func:`every_mated`.
        wanted: Number of pairs.
        generator: Generator of the draw.
    """
    n_images = sum(sizes)
    end = np.repeat(np.cumsum(sizes, dtype=np.int64), sizes)  # of each image's identity
    later = n_images - end  # images of other identities that come later
    possible = int(later.sum())
    wanted = min(wanted, possible)
    drawn: dict[tuple[int, int], None] = {}
    for _ in range(_BATCHES if wanted else 0):
        pairs = np.sort(generator.integers(n_images, size=(max(wanted, 256), 2)), axis=1)
        pairs = pairs[end[pairs[:, 0]] != end[pairs[:, 1]]]
        drawn.update(dict.fromkeys(zip(*pairs.T.tolist(), strict=True)))
        if len(drawn) >= wanted:
            break
    # Nearly all pairs are wanted, or one identity has nearly all images: random draws would rarely
    # find a new pair, so every pair gets a number and the numbers are drawn.
    else:
        ranks = generator.choice(possible, wanted, replace=False)
        last = np.cumsum(later)
        one = np.searchsorted(last, ranks, side="right")
        two = end[one] + ranks - (last - later)[one]
        drawn.update(dict.fromkeys(zip(one.tolist(), two.tolist(), strict=True)))
    return list(drawn)[:wanted]


def some_between(
    firsts: Sequence[int], seconds: Sequence[int], wanted: int, generator: np.random.Generator
) -> Rows:
    """Draw pairs of different identities, an image of one list and an image of another.

    Args:
        firsts: Number of images of each identity in the first list; its rows are consecutive.
        seconds: The same of the second list, for the same identities in the same order.
        wanted: Number of pairs; fewer are drawn if there are not enough.
        generator: Generator of the draw.

    Returns:
        Pairs without repetition: a row of the first list, a row of the second.
    """
    one, two = np.asarray(firsts, np.int64), np.asarray(seconds, np.int64)
    ends = np.repeat(np.cumsum(two), one)  # of the identity of each image of the first list
    own = np.repeat(two, one)
    partners = two.sum() - own
    possible = int(partners.sum())
    if not possible:
        return []
    # Every pair has a number: those of the first image come first, then those of the second.
    ranks = generator.choice(possible, min(wanted, possible), replace=False)
    last = np.cumsum(partners)
    rows = np.searchsorted(last, ranks, side="right")
    found = ranks - (last - partners)[rows]
    found += np.where(found >= (ends - own)[rows], own[rows], 0)
    return list(zip(rows.tolist(), found.tolist(), strict=True))


def _rows(
    sizes: Sequence[int],
    wanted: tuple[int | None, int | None],
    address: tuple[int, ...],
    place: str,
) -> tuple[Rows, Rows]:
    """Return the mated and nonmated pairs of one fold, or of the whole list if it has no folds."""
    n_mated = sum(size * (size - 1) // 2 for size in sizes)
    n_nonmated = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    for kind, number, there in zip(
        ("mated", "nonmated"), wanted, (n_mated, n_nonmated), strict=True
    ):
        if there < (1 if number is None else number):
            raise of_all(
                f"pairs: expected {'some' if number is None else number} {kind} pairs{place}, got "
                f"{there} ({len(sizes)} identities, {sum(sizes)} images)",
                then="Ask for fewer pairs or folds, or add images.",
            )
    mated = n_mated if wanted[0] is None else wanted[0]
    nonmated = min(mated, n_nonmated) if wanted[1] is None else wanted[1]
    if mated + nonmated > MAX_PAIRS:
        raise _too_many(mated + nonmated)
    if wanted[0] is None:
        same = every_mated(sizes)
    else:
        same = some_mated(sizes, mated, generator_of("mated pairs", *address))
    return same, some_nonmated(sizes, nonmated, generator_of("nonmated pairs", *address))


def _dealt(
    people: Sequence[list[tuple[str, str]]], folds: int, seed: int
) -> list[list[list[tuple[str, str]]]]:
    """Deal identities to folds, those with mated pairs first, so that every fold gets some."""
    order = generator_of("folds", seed).permutation(len(people)).tolist()
    order.sort(key=lambda identity: len(people[identity]) < 2)
    return [[people[identity] for identity in order[fold::folds]] for fold in range(folds)]


def _share(number: int | None, fold: int, folds: int) -> int | None:
    return None if number is None else number // folds + (fold < number % folds)


def _too_many(number: int) -> DataContractError:
    said = f"pairs: expected at most {MAX_PAIRS}, got {number}"
    return of_all(said, then="Set 'mated' and 'nonmated'.")
