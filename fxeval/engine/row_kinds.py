"""The rows of each kind, from loaded pairs and faces: one function per kind.

A row says which image is perturbed, which images its map is made from, whose they are and what is
asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from fxeval.contracts import Faces, Pairs
from fxeval.errors import DataContractError
from fxeval.metrics.protocol import RowKind, Rows
from fxeval.metrics.questions import Likeness, Margin

GENERATION_IMAGES = 2
"""Images of a person that the map of the identity is made from."""

HELD_OUT_IMAGES = 2
"""Minimum number of a person's other images: one is perturbed, one is its reference."""


@dataclass(frozen=True, eq=False)
class Table:
    """All rows of a cell.

    Attributes:
        faces: Their images.
        rows: The rows.
        versions: The same with other versions of their images perturbed, by ``Rows.side``.
    """

    faces: Faces
    rows: Rows
    versions: Mapping[str, Rows] = field(default_factory=dict)


def mated_pairs(pairs: Pairs) -> Table:
    """Return mated pairs, the probe perturbed; another version perturbs the reference."""
    rows = replace(_pairs(pairs), kind="mated pairs", identities=pairs.probe_identity[:, None])
    other = replace(
        rows,
        image=pairs.reference,
        source=pairs.reference[:, None],
        against=pairs.probe[:, None],
        identities=pairs.reference_identity[:, None],
        question=Likeness(pairs.probe[:, None]),
        side="reference",
    )
    return Table(pairs.faces(), rows, {other.side: other})


def all_pairs(pairs: Pairs) -> Table:
    """Return mated and nonmated pairs; both people of a pair are its identities."""
    return Table(pairs.faces(), _pairs(pairs))


def nonmated_pairs(pairs: Pairs) -> Table:
    """Return nonmated pairs, the probe perturbed; both people of a pair are its identities."""
    return Table(pairs.faces(), replace(_pairs(pairs), kind="nonmated pairs"))


def held_out_pairs(pairs: Pairs) -> Table:
    """Return mated and nonmated pairs, the probe perturbed by a map of the person.

    The map of a row is the mean of the maps of its sources, other images of the person; each source
    is compared with the others, the next one first.
    """
    assert pairs.sources is not None, "chosen with their sources"
    k = pairs.sources.shape[1]
    against = torch.stack([pairs.sources.roll(-turn, dims=1) for turn in range(1, k)], dim=2)
    for row, sources in enumerate(pairs.sources.tolist()):
        known = [one for one in sources if one >= 0]
        if len(known) < k:  # turned within those that the row has
            turned = torch.full((k, k - 1), -1)
            for place in range(len(known)):
                others = known[place + 1 :] + known[:place]
                turned[place, : len(others)] = torch.tensor(others)
            against[row] = turned
    return Table(
        pairs.faces(),
        replace(_pairs(pairs), kind="held-out pairs", source=pairs.sources, against=against),
    )


def triplets(pairs: Pairs) -> Table:
    """Return probe, mate and the nonmate that the list names; asked for the margin between them.

    Raises:
        DataContractError: If the list names no nonmates.
    """
    if pairs.contrast is None:
        raise DataContractError(
            f"pairs '{pairs.name}': expected triplets, got pairs without nonmates. Use a list that "
            "names a nonmate for each pair."
        )
    rows = replace(
        _pairs(pairs),
        kind="triplets",
        id=_with_nonmates(pairs, pairs.contrast),
        identities=pairs.probe_identity[:, None],
        question=Margin(pairs.reference, pairs.contrast),
    )
    return Table(pairs.faces(), rows)


def identities(pairs: Pairs) -> Table:
    """Return held-out images; their maps are made from other images of the person.

    The images of a person are ordered by their digests. The first ``GENERATION_IMAGES`` make the
    map, each explained against the next; each of the others is perturbed and compared with the
    next of the others. People with fewer images than both need are left out.
    """
    faces = pairs.faces()
    generation, held_out = parted(faces, GENERATION_IMAGES, HELD_OUT_IMAGES)
    image = torch.cat(held_out)
    source = torch.cat(
        [made.expand(len(kept), -1) for made, kept in zip(generation, held_out, strict=True)]
    )
    # The next of the person's held-out images; the last one is compared with the first.
    reference = torch.cat([kept.roll(-1) for kept in held_out])
    rows = Rows(
        kind="identities",
        id=ids_of(faces, image, reference),
        image=image,
        source=source,
        against=source.roll(-1, dims=1),
        identities=faces.identity[image][:, None],
        is_mated=torch.ones(len(image), dtype=torch.bool),
        question=Likeness(reference[:, None]),
    )
    return Table(faces, rows)


TABLES: Mapping[RowKind, Callable[[Pairs], Table]] = MappingProxyType(
    {
        "mated pairs": mated_pairs,
        "pairs": all_pairs,
        "nonmated pairs": nonmated_pairs,
        "held-out pairs": held_out_pairs,
        "held-out mated pairs": held_out_pairs,
        "triplets": triplets,
        "identities": identities,
    }
)
"""The function that makes the rows of each kind."""

WHOLE_LISTS: frozenset[RowKind] = frozenset(
    {"pairs", "identities", "classes", "people", "map pairs", "searches"}
)
"""Kinds whose rows are made from the whole list, not from mated pairs chosen from it."""


def _pairs(pairs: Pairs) -> Rows:
    ids = tuple(pairs.row_id(row) for row in range(len(pairs)))
    if pairs.contrast is not None and len({*ids}) < len(ids):
        ids = _with_nonmates(pairs, pairs.contrast)  # a pair that comes again, with another nonmate
    return Rows(
        kind="pairs",
        id=ids,
        image=pairs.probe,
        source=pairs.probe[:, None],
        against=pairs.reference[:, None],
        identities=torch.stack([pairs.probe_identity, pairs.reference_identity], dim=1),
        is_mated=pairs.is_mated,
        question=Likeness(pairs.reference[:, None]),
        contrast=pairs.contrast,
    )


def _with_nonmates(pairs: Pairs, nonmates: Tensor) -> tuple[str, ...]:
    return tuple(
        f"{pairs.row_id(row)}-{pairs.image_digests[nonmate][:12]}"
        for row, nonmate in enumerate(nonmates.tolist())
    )


def parted(faces: Faces, n_generation: int, n_held_out: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return, person by person, the images that make maps and those that are held out.

    Args:
        faces: The images; those of a person are ordered by their digests.
        n_generation: Number of a person's first images, which make maps.
        n_held_out: Least number of the others; people with fewer are left out.

    Raises:
        DataContractError: If nobody has so many images.
    """
    generation, held_out, people = [], [], []
    for person in torch.unique(faces.identity[faces.identity >= 0]).tolist():
        images = (faces.identity == person).nonzero()[:, 0].tolist()
        people.append(sorted(images, key=lambda image: faces.image_digests[image]))
    # By content, so that nothing depends on the numbers that people have in this list.
    for images in sorted(people, key=lambda images: faces.image_digests[images[0]]):
        if len(images) >= n_generation + n_held_out:
            generation.append(torch.tensor(images[:n_generation]))
            held_out.append(torch.tensor(images[n_generation:]))
    if not generation:
        raise DataContractError(
            f"pairs '{faces.name}': expected people with at least {n_generation + n_held_out} "
            "images, which maps of identities need, got none. Use a list with more images of each "
            "person."
        )
    return generation, held_out


def ids_of(faces: Faces, image: Tensor, reference: Tensor) -> tuple[str, ...]:
    """Name rows by the content of two images each."""
    return tuple(
        f"{faces.image_digests[one][:12]}-{faces.image_digests[other][:12]}"
        for one, other in zip(image.tolist(), reference.tolist(), strict=True)
    )
