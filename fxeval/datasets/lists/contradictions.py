"""Compares a list with the pictures: what it says of one picture under two names.

A mated pair of one picture says nothing about a model, and a picture that is under two identities
makes one person count as two. Both are faults of the list, never of the model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fxeval.datasets.faults import first_of
from fxeval.errors import DataContractError
from fxeval.listings import Exclusion, PairListing
from fxeval.redaction import PublicReason

_MATED = PublicReason("a mated pair of one picture under two names")
_CLAIMED = PublicReason("a picture of two identities")
MANIFEST = PublicReason("identities that contradict the manifest")

ADVICE = (
    "Correct the list, the folder or the identities; lists of files can leave such entries out by "
    "'on_contradiction: exclude'."
)


class ContradictoryListError(DataContractError):
    """A list says something that its pictures, or its manifest, contradict."""


def contradictions(listing: PairListing, picture: Mapping[str, str]) -> dict[int, str]:
    """Return the rows of a list that its pictures contradict, and why.

    Rows that are set aside do not count: their labels are known to be wrong.

    Args:
        listing: The list.
        picture: Digest of the pixels of each image.
    """
    aside = listing.set_aside or ("",) * len(listing)
    rows = [row for row in range(len(listing)) if not aside[row]]
    owners: dict[str, set[str]] = {}
    for row in rows:
        for image, identity in _shown(listing, row):
            owners.setdefault(picture[image], set()).add(identity)
    found: dict[int, str] = {}
    for row in rows:
        one, two = picture[listing.probe[row]], picture[listing.reference[row]]
        if listing.is_mated[row] and one == two:
            found[row] = _MATED
        elif any(len(owners[picture[image]]) > 1 for image, _ in _shown(listing, row)):
            found[row] = _CLAIMED
    return found


def _shown(listing: PairListing, row: int) -> list[tuple[str, str]]:
    """Return the images of a row, each with its identity."""
    shown = [
        (listing.probe[row], listing.probe_identity[row]),
        (listing.reference[row], listing.reference_identity[row]),
    ]
    if listing.contrast:
        shown.append((listing.contrast[row], listing.contrast_identity[row]))
    return shown


def refuse_contradictions(name: str, listing: PairListing, picture: Mapping[str, str]) -> None:
    """Compare a list with the pixels of its images.

    Args:
        name: Name of the list.
        listing: The list, or some of its rows.
        picture: Digest of the pixels of each image.

    Raises:
        ContradictoryListError: Naming the first entries concerned.
    """
    refuse_rows(f"pairs '{name}'", listing, contradictions(listing, picture))


def refuse_rows(about: str, listing: PairListing, found: Mapping[int, str]) -> None:
    """Raise the error about the rows of a list that the pictures or a manifest contradict.

    Args:
        about: What is said to be contradictory, in words for a record.
        listing: The list, or some of its rows.
        found: The rows, and why.
    """
    if not found:
        return
    counts = Counter(found.values())
    counted = ", ".join(f"{reason}: {number}" for reason, number in counts.items())
    said = f"{about}: {len(found)} of {len(listing)} entries are contradictory ({counted})"
    places = [_place(listing, row) for row in found]
    faults = [f"{place}: {reason}" for place, reason in zip(places, found.values(), strict=True)]
    raise ContradictoryListError(
        f"{said}{first_of(faults, ADVICE)}", public=f"{said}; the first is {places[0]}"
    )


def _place(listing: PairListing, row: int) -> str:
    return listing.place[row] if listing.place else f"row {row + 1}"


def without(listing: PairListing, found: Mapping[int, str]) -> PairListing:
    """Return the list without the rows concerned, which become exclusions."""
    if not found:
        return listing
    left = listing.take([row for row in range(len(listing)) if row not in found])
    out = tuple(
        Exclusion(f"{listing.probe[row]}-{listing.reference[row]}", reason)
        for row, reason in found.items()
    )
    return replace(left, excluded=(*listing.excluded, *out))


def against_manifest(people: Sequence[Sequence[tuple[str, str]]]) -> list[int]:
    """Return the entries of a list whose identities contradict those of the manifest.

    Names may differ, but one identity of the list must be one of the manifest, and the reverse.

    Args:
        people: For each entry, the identities of its images as the list and the manifest have them.

    >>> against_manifest([[("1", "Ann"), ("1", "Ann")], [("1", "Ann"), ("2", "Ann")]])
    [1]
    """
    first: dict[str, str] = {}
    reverse: dict[str, str] = {}
    wrong = []
    for entry, own in enumerate(people):
        fits = [
            first.setdefault(listed, known) == known and reverse.setdefault(known, listed) == listed
            for listed, known in own
        ]
        if not all(fits):
            wrong.append(entry)
    return wrong
