"""Rows that compare maps: of two images, and of all images of a person.

Two maps of one person are alike if they are made against one reference, whatever the images show.
Here no image is a reference of two maps that are compared, and no reference is explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from fxeval.contracts import Faces
from fxeval.engine.row_kinds import Table, ids_of
from fxeval.errors import DataContractError
from fxeval.metrics.protocol import Rows
from fxeval.metrics.questions import Likeness
from fxeval.seeding import generator_of

LEAST_EXPLAINED = 2
"""Images of a person that are explained at least; as many others are their references."""

MOST_EXPLAINED = 4
"""Images of a person that are explained at most."""


@dataclass(frozen=True)
class Explained:
    """A person's images that are explained, and what each is compared with.

    Attributes:
        images: E images.
        references: E others, all different.
    """

    images: tuple[int, ...]
    references: tuple[int, ...]


def explained(faces: Faces) -> list[Explained]:
    """Divide the images of each person into some that are explained and as many references.

    Images are ordered by their digests and people by their first image, so that nothing depends on
    the numbers that they have in this list. People with fewer than four images are left out.

    Raises:
        DataContractError: If there are fewer than two such people.
    """
    digests, found = faces.image_digests, []
    for person in torch.unique(faces.identity[faces.identity >= 0]).tolist():
        images = (faces.identity == person).nonzero()[:, 0].tolist()
        images.sort(key=lambda image: digests[image])
        count = min(len(images) // 2, MOST_EXPLAINED)
        if count >= LEAST_EXPLAINED:
            found.append(Explained(tuple(images[:count]), tuple(images[count : 2 * count])))
    if len(found) < 2:
        text = (
            f"pairs '{faces.name}': expected at least 2 people with {2 * LEAST_EXPLAINED} images, "
            f"which comparing maps of a person needs, got {len(found)}. Use a list with more "
            "images of each person."
        )
        raise DataContractError(text, public=text)
    return sorted(found, key=lambda one: digests[one.images[0]])


def people(faces: Faces) -> Table:
    """Return people: each of a row's sources is explained against a reference of its own."""
    own = explained(faces)
    most = max(len(one.images) for one in own)
    source, reference = (
        torch.tensor([_padded(getattr(one, name), most) for one in own])
        for name in ("images", "references")
    )
    rows = Rows(
        kind="people",
        id=ids_of(faces, source[:, 0], reference[:, 0]),
        image=source[:, 0],
        source=source,
        against=reference,
        identities=faces.identity[source[:, 0]][:, None],
        is_mated=torch.ones(len(own), dtype=torch.bool),
        question=Likeness(reference[:, :1]),
    )
    return Table(faces, rows)


def map_pairs(faces: Faces, seed: int) -> Table:
    """Return pairs of explained images: all of one person, and as many of two, drawn by the seed.

    The rows explain the first image of each pair, their version ``reference`` the second.
    """
    own = explained(faces)
    same = [(who, who, a, b) for who, one in enumerate(own)
            for a, b in combinations(range(len(one.images)), 2)]  # fmt: skip
    different = _drawn(faces, own, same, seed)
    first, second = (
        torch.tensor([(own[pair[side]].images[pair[side + 2]],
                       own[pair[side]].references[pair[side + 2]]) for pair in same + different])
        for side in (0, 1)
    )  # fmt: skip
    ids = ids_of(faces, first[:, 0], second[:, 0])
    identities = faces.identity[torch.stack([first[:, 0], second[:, 0]], dim=1)]
    is_mated = torch.arange(len(ids)) < len(same)
    rows = _one_of(ids, first, identities, is_mated)
    other = replace(_one_of(ids, second, identities, is_mated), side="reference", draws="reference")
    return Table(faces, rows, {other.side: other})


def _one_of(ids: tuple[str, ...], image: Tensor, identities: Tensor, is_mated: Tensor) -> Rows:
    """Return rows that explain one image of each pair, (N, 2): the image and its reference."""
    return Rows(
        kind="map pairs",
        id=ids,
        image=image[:, 0],
        source=image[:, :1],
        against=image[:, 1:],
        identities=identities,
        is_mated=is_mated,
        question=Likeness(image[:, 1:]),
    )


def _drawn(
    faces: Faces, own: Sequence[Explained], same: Sequence[tuple[int, ...]], seed: int
) -> list[tuple[int, int, int, int]]:
    """Draw for each pair of one person another one of that person with somebody else."""
    found: dict[tuple[int, int, int, int], None] = {}
    for who, _, a, b in same:
        name = "-".join(faces.image_digests[own[who].images[one]] for one in (a, b))
        draws = generator_of(seed, "different people", name)
        others = [one for one in range(len(own)) if one != who]
        for _ in range(_TRIES):
            other = others[int(draws.integers(len(others)))]
            place = int(draws.integers(len(own[other].images)))
            pair = (who, other, a, place)
            if pair not in found and (other, who, place, a) not in found:
                found[pair] = None
                break
    return list(found)


_TRIES = 1000  # so few people that no pair is left have all pairs already


def _padded(images: Sequence[int], most: int) -> list[int]:
    return [*images, *[-1] * (most - len(images))]
