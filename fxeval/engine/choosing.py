"""Chooses what a protocol measures of a list: pairs, all rows of some people, or held-out pairs."""

from dataclasses import dataclass, replace
from typing import Literal

from fxeval.contracts import PairListing
from fxeval.datasets.lists.pair_lists import by_turns
from fxeval.engine.row_kinds import WHOLE_LISTS
from fxeval.engine.selection import chosen_rows, whole_rows
from fxeval.errors import DataContractError
from fxeval.metrics.protocol import RowKind
from fxeval.seeding import seed_of

LEAST_GENERATION_IMAGES = 2
"""Images of a person that a map of the person needs: each is explained against the others."""


@dataclass(frozen=True)
class HeldOut:
    """How held-out pairs are chosen.

    Attributes:
        side: Whose image is perturbed.
        generation_images: Most images that a map of a person is made from, >= 2.
        with_nonmated: Whether as many nonmated pairs come with the mated ones.
    """

    side: Literal["probe", "reference"]
    generation_images: int
    with_nonmated: bool


@dataclass(frozen=True)
class Asked:
    """What a cell asks of a list.

    Attributes:
        n: Number of mated pairs (of nonmated ones, for kinds whose rows they are), or of people
            for whole lists; None = all.
        seed: The suite's seed.
        name: Id of the list.
        n_where: ``file:line:column`` of n.
    """

    n: int | None
    seed: int
    name: str
    n_where: str = ""


def held_out_of(kind: RowKind, parameters: object) -> HeldOut | None:
    """Return how held-out pairs are chosen, from a check's parameters; None for other rows."""
    if kind not in ("held-out pairs", "held-out mated pairs"):
        return None
    return HeldOut(
        parameters.side,  # type: ignore[attr-defined]
        parameters.generation_images,  # type: ignore[attr-defined]
        kind == "held-out pairs",
    )


def way_of(kind: RowKind) -> str:
    """Name how pairs are chosen for a kind of row: kinds that are chosen alike are loaded once."""
    if kind in ("patched pairs", "false matches", "nonmated pairs"):
        return kind
    return "whole lists" if kind in WHOLE_LISTS else "mated pairs"


def chosen(
    listing: PairListing, kind: RowKind, held_out: HeldOut | None, asked: Asked
) -> tuple[PairListing, list[str]]:
    """Choose what is measured, and say what was left out.

    Raises:
        DataContractError: If the list holds less than what is asked for.
    """
    if held_out is not None:
        return held_out_pairs(listing, held_out, asked)
    if kind == "patched pairs":
        listing = _with_nonmated(listing)
        mated = chosen_rows(listing, asked.n, asked.seed, asked.name, asked.n_where)
        return listing.take([*mated, *_nonmated(listing, asked.seed)[: len(mated)]]), []
    if kind == "nonmated pairs":
        return _nonmated_pairs(listing, asked), []
    choose = whole_rows if kind in WHOLE_LISTS else chosen_rows
    return listing.take(choose(listing, asked.n, asked.seed, asked.name, asked.n_where)), []


def held_out_pairs(
    listing: PairListing, how: HeldOut, asked: Asked
) -> tuple[PairListing, list[str]]:
    """Choose n mated pairs, perhaps as many nonmated ones, and images that make maps of people.

    A pair is measured only if the list has two other images or more of the person whose image is
    perturbed: the map of a person must not have seen the images that it is judged on. Of more
    images, ``generation_images`` are drawn by the suite's seed and the image ids.

    Args:
        listing: The list.
        how: Whose image is perturbed, and from how many images maps are made.
        asked: What the cell asks for; n counts mated pairs.

    Returns:
        The pairs, turned so that the perturbed image is the probe, with their ``sources``; and
        remarks about the pairs that were left out.

    Raises:
        DataContractError: If the list holds fewer such mated pairs.
    """
    usable, remarks = _with_sources(_turned(listing, how.side), how, asked.seed)
    if not any(usable.is_mated):
        text = (
            f"pairs '{asked.name}': expected pairs of people with at least "
            f"{LEAST_GENERATION_IMAGES} other images in the list, from which a map of the person "
            "is made, got none. Use a list with more images of each person."
        )
        raise DataContractError(text, public=text)
    mated = chosen_rows(usable, asked.n, asked.seed, asked.name, asked.n_where)
    return usable.take([*mated, *_nonmated(usable, asked.seed)[: len(mated)]]), remarks


def _nonmated_pairs(listing: PairListing, asked: Asked) -> PairListing:
    """Choose n nonmated pairs; no probe's person comes twice before each has come once.

    Raises:
        DataContractError: If the list holds fewer.
    """
    listing = _with_nonmated(listing)
    found = _nonmated(listing, asked.seed)
    wanted = len(found) if asked.n is None else asked.n
    if wanted > len(found) or not found:
        where = f" ({asked.n_where})" if asked.n_where else ""
        text = (
            f"pairs '{asked.name}': expected at least {max(wanted, 1)} nonmated pairs, the list "
            f"holds {len(found)}. Lower n{where} or use a list with nonmated pairs or triplets."
        )
        raise DataContractError(text, public=text)
    return replace(listing.take(found[:wanted]), contrast=(), contrast_identity=())


def _with_nonmated(listing: PairListing) -> PairListing:
    """Return a list with its nonmated pairs; those of triplets are probes with their nonmates."""
    if not listing.contrast or not all(listing.is_mated):
        return listing
    pairs = listing.with_nonmates()
    first: dict[tuple[str, str], int] = {}  # a pair may come again, with another nonmate
    for row, pair in enumerate(zip(pairs.probe, pairs.reference, strict=True)):
        first.setdefault(pair, row)
    return pairs.take([*first.values()])


def _nonmated(listing: PairListing, seed: int) -> list[int]:
    """Return the nonmated pairs of a list in the order in which they are chosen."""
    aside = listing.set_aside or ("",) * len(listing)
    rows = [row for row, mated in enumerate(listing.is_mated) if not mated and not aside[row]]
    rows.sort(key=lambda row: seed_of(seed, "pick", listing.probe[row], listing.reference[row]))
    return by_turns(rows, [listing.probe_identity[row] for row in rows])


def _turned(listing: PairListing, side: str) -> PairListing:
    """Return a listing whose probes are the perturbed images."""
    listing = replace(listing, contrast=(), contrast_identity=(), fold=())
    if side == "probe":
        return listing
    return replace(
        listing,
        probe=listing.reference,
        reference=listing.probe,
        probe_identity=listing.reference_identity,
        reference_identity=listing.probe_identity,
    )


def _with_sources(listing: PairListing, how: HeldOut, seed: int) -> tuple[PairListing, list[str]]:
    """Return the pairs that have enough other images of the probe's person, with these images."""
    people: dict[str, dict[str, None]] = {}
    for who, image in zip(
        listing.probe_identity + listing.reference_identity,
        listing.probe + listing.reference,
        strict=True,
    ):
        people.setdefault(who, {})[image] = None
    drawn = {
        who: sorted(images, key=lambda image: seed_of(seed, "generation", image))
        for who, images in people.items()
    }
    aside = listing.set_aside or ("",) * len(listing)
    asked = [
        row
        for row, is_mated in enumerate(listing.is_mated)
        if not aside[row] and (is_mated or how.with_nonmated)
    ]
    kept: list[int] = []
    sources: list[tuple[str, ...]] = []
    for row in asked:
        shown = (listing.probe[row], listing.reference[row])
        others = [one for one in drawn[listing.probe_identity[row]] if one not in shown]
        if len(others) >= LEAST_GENERATION_IMAGES:
            kept.append(row)
            sources.append(tuple(others[: how.generation_images]))
    usable = replace(listing.take(kept), sources=tuple(sources))
    kind = "pairs" if how.with_nonmated else "mated pairs"
    return usable, _left_out(len(asked) - len(kept), f"{len(asked)} {kind}")


def _left_out(missing: int, asked: str) -> list[str]:
    """Say how many pairs of a list have no map of the person."""
    if not missing:
        return []
    return [
        f"{missing} of {asked} of the list can't be measured: it has fewer than "
        f"{LEAST_GENERATION_IMAGES} other images of the person whose image is occluded"
    ]
