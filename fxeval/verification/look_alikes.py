"""Who is taken for whom: the comparisons of different people that a model finds most similar.

The nonmated pairs of a list are few, and a good model accepts none or one of them. All comparisons
of images of different people hold more false matches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fxeval.contracts import PairListing
from fxeval.engine.choosing import Asked
from fxeval.errors import EvidenceError
from fxeval.seeding import seed_of
from fxeval.verification.cross_pairs import CrossPairs

MOST_PEOPLE = 2000
"""Most people who are kept with whom they are taken for."""
MOST_COUNTED = 100_000
"""Most comparisons that are kept to be counted."""
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class LookAlikes:
    """People, each with the image of somebody else that is most similar, as far as it is free.

    Attributes:
        probe: L image ids; every person comes once.
        reference: L image ids of other people.
        similarity: (L,) float64, descending but for ties.
        n: Number of comparisons that were made.
        most_similar: The similarities of the most similar ones, descending.
    """

    probe: tuple[str, ...]
    reference: tuple[str, ...]
    similarity: NDArray[np.float64]
    n: int
    most_similar: NDArray[np.float64] = field(repr=False)

    def accepted(self, threshold: float) -> str:
        """Say how many comparisons are at or above a threshold."""
        found = int(np.searchsorted(-self.most_similar, -threshold, side="right"))
        is_all = found < len(self.most_similar) or found == self.n
        return f"{found:,}" if is_all else f"at least {found:,}"


def look_alikes(
    crossed: CrossPairs,
    ids: Sequence[str],
    content: Mapping[str, str],
    doubtful: frozenset[str] = frozenset(),
) -> LookAlikes:
    """Choose the most similar comparisons, each person at most once as the probe.

    They come by similarity, then by content: a matrix product rounds differently on another number
    of threads, which the nearest multiple of 2^-40 hides. Where both people are free, the image
    with the lesser digest is the probe.

    Args:
        crossed: The comparisons, the most similar of which are kept.
        ids: N image ids, by the numbers that the comparisons have.
        content: Digest of the pixels of each.
        doubtful: Ids of images that are left out, as it is not sure who is in them.
    """
    rank = np.empty(len(ids), np.int64)
    rank[sorted(range(len(ids)), key=lambda image: content[ids[image]])] = np.arange(len(ids))
    kept = np.array([one not in doubtful for one in ids])[crossed.images].all(axis=1)
    images, values = crossed.images[kept], crossed.similarities[kept]
    people = np.stack([crossed.first, crossed.second], axis=1)[kept]
    swapped = rank[images[:, 0]] > rank[images[:, 1]]
    images[swapped], people[swapped] = images[swapped, ::-1], people[swapped, ::-1]
    level = -np.round(values * 2.0**40)  # of equal embeddings, 1 and a little less are one level
    order = np.lexsort((rank[images[:, 1]], rank[images[:, 0]], level))
    is_free = np.ones(len(crossed.comparisons), dtype=np.bool_)
    chosen: list[tuple[int, int, float]] = []
    for start in range(0, len(order), _CHUNK):
        some = order[start : start + _CHUNK]
        some = some[is_free[people[some]].any(axis=1)]  # most are done, late in a long list
        for place in some.tolist():
            for side in (0, 1):
                if is_free[people[place, side]]:
                    is_free[people[place, side]] = False
                    pair = int(images[place, side]), int(images[place, 1 - side])
                    chosen.append((*pair, float(values[place])))
                    break
        if len(chosen) >= MOST_PEOPLE or not is_free.any():
            break
    chosen = chosen[:MOST_PEOPLE]
    return LookAlikes(
        tuple(ids[one] for one, _, _ in chosen),
        tuple(ids[other] for _, other, _ in chosen),
        np.array([value for _, _, value in chosen]),
        crossed.n,
        crossed.similarities[:MOST_COUNTED].copy(),
    )


@dataclass(frozen=True, eq=False)
class Matching:
    """A model that compares the people of a list.

    Attributes:
        key: Names the model.
        name: Name of the model.
        alike: Whom it finds most similar; None = it is not known.
        reason: Why it is not.
        threshold: Its operating threshold; None = it has none, or one that decides nothing.
        no_decision: Why its threshold decides nothing; "" if it does.
    """

    key: str
    name: str
    alike: LookAlikes | None
    reason: str
    threshold: float | None
    no_decision: str = ""


def false_matches(
    listing: PairListing, matching: Matching, asked: Asked
) -> tuple[PairListing, list[str]]:
    """Return the most similar comparisons of different people that a model accepts.

    Args:
        listing: The list.
        matching: The model, and whom it finds alike.
        asked: What the cell asks for; n counts false matches.

    Returns:
        As many nonmated pairs as are asked for, or fewer where there are no more; their ``sources``
        are another image of the probe's person, where the list has one. And what is to be said
        about them.

    Raises:
        EvidenceError: If there is no false match, or the model decides nothing.
    """
    about = f"model '{matching.name}' on pairs '{asked.name}'"
    if matching.threshold is None:
        why = matching.no_decision or "it declares no operating threshold"
        text = f"{about}: false matches need a decision, and the model makes none: {why}"
        raise EvidenceError(f"{text.rstrip('.')}.")
    if matching.alike is None:
        text = f"{about}: its false matches are not known: {matching.reason}"
        raise EvidenceError(f"{text.rstrip('.')}.")
    alike, threshold = matching.alike, matching.threshold
    accepted = (alike.similarity >= threshold).nonzero()[0].tolist()
    if not accepted:
        raise EvidenceError(
            f"{about}: the model accepts none of {alike.n:,} comparisons of different people at "
            f"its operating threshold {threshold:.6g}, so there is no false match to explain. Use "
            "a longer list, or an operating_threshold at a higher false match rate."
        )
    chosen = accepted if asked.n is None else accepted[: asked.n]
    probe, reference = ([side[row] for row in chosen] for side in (alike.probe, alike.reference))
    who, images_of = _people(listing)
    others = [_another(images_of.get(who[one], ()), one, asked.seed) for one in probe]
    found = PairListing(
        probe=tuple(probe),
        reference=tuple(reference),
        is_mated=(False,) * len(chosen),
        probe_identity=tuple(who[one] for one in probe),
        reference_identity=tuple(who[one] for one in reference),
        sources=tuple(others) if any(others) else (),
    )
    said = (
        f"{alike.accepted(threshold)} of {alike.n:,} comparisons of different people are false "
        f"matches at the operating threshold {threshold:.6g}; these are the model's {len(chosen)} "
        "most similar ones with each person once as the probe"
    )
    if asked.n is not None and len(chosen) < asked.n:
        said += f"; {asked.n} were asked for, and no more people are taken for somebody else"
    return found, [said]


def doubtful_images(listing: PairListing) -> frozenset[str]:
    """Return the images of rows that a list sets aside: it is not sure who is in them."""
    rows = zip(listing.probe, listing.reference, listing.set_aside, strict=False)
    return frozenset(image for *images, reason in rows if reason for image in images)


def _people(listing: PairListing) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return who is in each image, and the images of each person that it is sure of."""
    who: dict[str, str] = {}
    for images, people in (
        (listing.probe, listing.probe_identity),
        (listing.reference, listing.reference_identity),
        (listing.contrast, listing.contrast_identity),
    ):
        who |= dict(zip(images, people, strict=True))
    images_of: dict[str, list[str]] = {}
    doubtful = doubtful_images(listing)
    for image, person in who.items():
        if image not in doubtful:
            images_of.setdefault(person, []).append(image)
    return who, images_of


def _another(images: Sequence[str], image: str, seed: int) -> tuple[str, ...]:
    """Return another image of a person, drawn by the seed; () if there is none."""
    others = [one for one in images if one != image]
    return (min(others, key=lambda one: seed_of(seed, "donor", one)),) if others else ()
