"""The digest of a pair list, by its content: what a claim *of this list* is bound to.

It covers what decides a figure of the list: the images, each by the digest of its file and
landmarks, who is in them (as numbers, since readers name people differently), the pairs in their
order, and the folds. It covers neither the list's name nor its format, so that a list keeps its
digest when its file is renamed or written in another format.
"""

import hashlib
from collections.abc import Mapping, Sequence

from fxeval.contracts import PairListing, PairSource
from fxeval.errors import DataContractError

ALGORITHM = "sha256"


def list_digest(listing: PairListing, content: Mapping[str, str]) -> str:
    """Return the digest of a list.

    Args:
        listing: The pairs; those of triplets are ``with_nonmates``.
        content: A digest of the content of each image, by its id.

    Returns:
        ``sha256:`` and 64 hexadecimal digits: of the lines ``image <content>`` in the order in
        which probes, then references first name the images, and ``pair <probe> <reference>
        <identity> <identity> <fold>`` in the order of the list. Images, identities and folds are
        numbers from 0 in the order in which they first come; ``-`` stands for no folds.
    """
    columns = (listing.probe, listing.reference)
    contents = [[content[image_id] for image_id in column] for column in columns]
    images = _numbers([*contents[0], *contents[1]])
    people = _numbers([*listing.probe_identity, *listing.reference_identity])
    folds: Sequence[object] = ["-"] * len(listing)
    if len(set(listing.fold)) > 1:
        number = _numbers(list(map(str, listing.fold)))
        folds = [number[str(fold)] for fold in listing.fold]
    lines = [f"image {one}\n" for one in images]
    lines += [
        f"pair {images[one]} {images[two]} {people[a]} {people[b]} {fold}\n"
        for one, two, a, b, fold in zip(
            *contents, listing.probe_identity, listing.reference_identity, folds, strict=True
        )
    ]
    return f"{ALGORITHM}:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def image_digests(source: PairSource, ids: Sequence[str]) -> Mapping[str, str] | None:
    """Return the digest of each image that a source gives by itself; None if it gives none.

    Raises:
        DataContractError: If it gives something else.
    """
    ask = getattr(source, "image_digests", None)
    if ask is None:
        return None
    found = tuple(ask(ids))
    if len(found) != len(ids) or not all(isinstance(one, str) and one for one in found):
        said = (
            f"pairs '{source.name}': image_digests: expected {len(ids)} texts, one for each image, "
            f"got {len(found)} values."
        )
        raise DataContractError(said, public=said)
    return dict(zip(ids, found, strict=True))


def _numbers(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
