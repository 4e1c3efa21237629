"""Maps that are compared share no reference, and nothing depends on the order of the list."""

from dataclasses import replace

import pytest
import torch

from fxeval.contracts import Faces
from fxeval.engine.pattern_rows import explained, map_pairs, people
from fxeval.errors import DataContractError


def faces_of(*counts: int) -> Faces:
    """As many images of each person as given, in a mixed order, with one image unknown."""
    identity = [who for who, count in enumerate(counts) for _ in range(count)] + [-1]
    order = torch.randperm(len(identity), generator=torch.Generator().manual_seed(1))
    identity = torch.tensor(identity)[order]
    met: dict[int, int] = {}
    digests = []
    for who in identity.tolist():
        met[who] = met.get(who, 0) + 1
        digests.append(f"{who * 7 % 5}{who}{met[who]}".ljust(64, "0"))
    images = torch.zeros(len(identity), 3, 4, 4, dtype=torch.uint8)
    return Faces("some", images, tuple(digests), identity)


FACES = faces_of(4, 3, 6, 9, 5)


def test_a_person_has_explained_images_and_as_many_references_and_none_is_both():
    own = explained(FACES)
    assert sorted(len(one.images) for one in own) == [2, 2, 3, 4]  # nobody of three images
    for one in own:
        assert len(one.images) == len(one.references)
        used = one.images + one.references
        assert len({*used}) == len(used)
        assert len({*FACES.identity[list(used)].tolist()}) == 1


def test_rows_of_people_hold_every_explained_image_with_its_own_reference():
    rows = people(FACES).rows
    assert len(rows) == 4
    assert rows.source.shape == rows.against.shape == (4, 4)
    for row in range(4):
        known = rows.source[row] >= 0
        shown = torch.cat([rows.source[row][known], rows.against[row][known]])
        assert (FACES.identity[shown] == rows.identities[row, 0]).all()
        assert (rows.against[row][~known] == -1).all()


def test_pairs_of_one_person_are_all_there_with_as_many_of_two_people():
    table = map_pairs(FACES, 5)
    rows, other = table.rows, table.versions["reference"]
    assert int(rows.is_mated.sum()) == 1 + 1 + 3 + 6
    assert len(rows) == 2 * int(rows.is_mated.sum())
    assert len({*rows.id}) == len(rows)
    for row in range(len(rows)):
        a, b = rows.image[row], other.image[row]
        used = [a, b, rows.against[row, 0], other.against[row, 0]]
        assert len({int(one) for one in used}) == 4  # no map shares an image with the other
        who = FACES.identity[torch.stack(used)]
        assert who[0] == who[2] == rows.identities[row, 0]
        assert who[1] == who[3] == rows.identities[row, 1]
        assert bool(who[0] == who[1]) == bool(rows.is_mated[row])
    assert rows.id == other.id
    assert (rows.side, other.side) == ("probe", "reference")


def test_the_order_of_the_list_and_the_numbers_of_people_change_nothing():
    turned = torch.arange(len(FACES.images)).flip(0)
    names = torch.tensor([3, 0, 4, 1, 2])
    identity = torch.where(FACES.identity < 0, -1, names[FACES.identity])
    other = replace(
        FACES,
        images=FACES.images[turned],
        image_digests=tuple(FACES.image_digests[one] for one in turned.tolist()),
        identity=identity[turned],
    )
    assert map_pairs(FACES, 5).rows.id == map_pairs(other, 5).rows.id
    assert people(FACES).rows.id == people(other).rows.id
    assert map_pairs(FACES, 6).rows.id != map_pairs(FACES, 5).rows.id


def test_too_few_images_of_a_person_are_refused_by_number():
    with pytest.raises(DataContractError, match=r"at least 2 people with 4 images.*got 1"):
        people(faces_of(4, 3, 3))
