"""Held-out pairs: a map of a person never sees the images that it is judged on."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from fxeval.contracts import Crop, PairListing, RowState, SaliencyMaps
from fxeval.engine.choosing import Asked, HeldOut, chosen, held_out_of, held_out_pairs
from fxeval.engine.row_kinds import TABLES
from fxeval.engine.selection import load_pairs
from fxeval.engine.sources import sources_of
from fxeval.errors import DataContractError
from fxeval.functional.map_similarity import norm01
from fxeval.metrics.protocol import averaged

CROP = Crop("tiny", (4, 4), ((1, 1), (2, 1), (1.5, 2), (1, 3), (2, 3)))
BOTH = HeldOut("probe", 3, with_nonmated=True)
ALL = Asked(None, 7, "people")


def listing(sizes):
    """All mated pairs of people with so many images each, and pairs of neighbours."""
    images = {who: [f"{who}{n}" for n in range(size)] for who, size in sizes.items()}
    rows = [(one, two, who, who) for who, own in images.items()
            for one, two in itertools.combinations(own, 2)]  # fmt: skip
    for one, two in itertools.pairwise(images):
        rows += [(a, b, one, two) for a, b in zip(images[one], images[two], strict=False)]
    probe, reference, own, other = zip(*rows, strict=True)
    mated = tuple(a == b for a, b in zip(own, other, strict=True))
    return PairListing(probe, reference, mated, own, other)


class Painted:
    """Every image has a colour of its own, from its id."""

    name, banner = "people", None

    def images(self, image_ids, crop):
        colours = [[*hashlib.sha256(one.encode()).digest()[:3]] for one in image_ids]
        flat = torch.tensor(colours, dtype=torch.uint8)
        return flat[:, :, None, None].expand(-1, 3, *crop.size).contiguous()


PEOPLE = listing({"a": 2, "b": 3, "c": 4, "d": 6, "e": 5})


def test_no_source_is_an_image_of_its_pair_or_of_another_person():
    for side in ("probe", "reference"):
        found, _ = held_out_pairs(PEOPLE, replace(BOTH, side=side), ALL)
        assert len(found) > 20
        for row, sources in enumerate(found.sources):
            assert {one[0] for one in sources} == {found.probe_identity[row]}
            assert not {*sources} & {found.probe[row], found.reference[row]}
            assert 2 <= len(set(sources)) == len(sources) <= 3


def test_people_with_too_few_images_are_left_out_and_counted():
    found, remarks = held_out_pairs(PEOPLE, BOTH, ALL)
    people = [
        {who for who, is_mated in zip(found.probe_identity, found.is_mated, strict=True)
         if is_mated is kind}
        for kind in (True, False)
    ]  # fmt: skip
    # Of three images, a mated pair leaves one and a nonmated pair leaves two.
    assert people == [{"c", "d", "e"}, {"b", "c", "d"}]
    gone = 1 + 3 + 2  # mated pairs of a and b, nonmated ones of a
    assert remarks == [
        f"{gone} of {len(PEOPLE)} pairs of the list can't be measured: it has fewer than 2 other "
        "images of the person whose image is occluded"
    ]
    mated, remarks = held_out_pairs(PEOPLE, replace(BOTH, with_nonmated=False), ALL)
    assert all(mated.is_mated)
    assert remarks[0].startswith("4 of 35 mated pairs")
    assert held_out_pairs(listing({"c": 4, "d": 5}), BOTH, ALL)[1] == []


def test_a_list_without_enough_images_is_refused_with_what_it_needs():
    with pytest.raises(DataContractError, match=r"at least 2 other images in the list.*got none"):
        held_out_pairs(listing({"a": 3, "b": 2}), BOTH, ALL)
    with pytest.raises(DataContractError, match="expected at least 99 mated pairs, the list holds"):
        held_out_pairs(PEOPLE, BOTH, replace(ALL, n=99))


def test_as_many_nonmated_pairs_come_with_the_mated_ones_and_people_take_turns():
    found, _ = held_out_pairs(PEOPLE, BOTH, replace(ALL, n=3))
    assert found.is_mated == (True,) * 3 + (False,) * 3
    assert {*found.probe_identity[:3]} == {"c", "d", "e"}


def test_the_choice_depends_on_seed_and_images_and_not_on_the_order_of_the_list():
    def named(of, seed):
        found, _ = held_out_pairs(of, BOTH, replace(ALL, n=4, seed=seed))
        return {(*pair, one) for *pair, one in
                zip(found.probe, found.reference, found.sources, strict=True)}  # fmt: skip

    turned = PEOPLE.take(range(len(PEOPLE))[::-1])
    assert named(PEOPLE, 1) == named(turned, 1)
    assert any(named(PEOPLE, 1) != named(PEOPLE, seed) for seed in (2, 3, 4))


def test_rows_that_the_list_sets_aside_are_not_measured():
    aside = replace(PEOPLE, set_aside=("wrong label",) * 10 + ("",) * (len(PEOPLE) - 10))
    whole, some = (held_out_pairs(one, BOTH, ALL)[0] for one in (PEOPLE, aside))
    gone = {pair for row, pair in enumerate(zip(PEOPLE.probe, PEOPLE.reference, strict=True))
            if row < 10}  # fmt: skip
    assert not gone & {*zip(some.probe, some.reference, strict=True)}
    assert gone & {*zip(whole.probe, whole.reference, strict=True)}


def test_other_kinds_of_rows_are_chosen_as_ever():
    assert held_out_of("pairs", None) is None
    found, remarks = chosen(PEOPLE, "mated pairs", None, replace(ALL, n=5))
    assert len(found) == 5
    assert all(found.is_mated)
    assert not found.sources
    assert not remarks


def loaded(n=None, images=3):
    rows, _ = held_out_pairs(PEOPLE, replace(BOTH, generation_images=images), replace(ALL, n=n))
    return load_pairs(Painted(), rows, CROP)


def test_each_source_is_compared_with_all_other_sources_of_the_row():
    pairs = loaded(images=4)
    rows = TABLES["held-out pairs"](pairs).rows
    assert rows.source.shape[1] == 4
    for sources, against in zip(rows.source.tolist(), rows.against.tolist(), strict=True):
        known = [one for one in sources if one >= 0]
        for place, source in enumerate(known):
            others = [one for one in against[place] if one >= 0]
            assert {*others} == {*known} - {source}
            assert others[0] == known[(place + 1) % len(known)]  # for those without centroids
    assert rows.identities.shape == (len(rows), 2)
    assert (rows.identities[:, 0] == rows.identities[:, 1]).tolist() == rows.is_mated.tolist()


@pytest.mark.parametrize("takes_centroids", [True, False])
def test_equal_comparisons_are_made_once_and_averaged_as_a_plain_loop_does(takes_centroids):
    pairs = loaded()
    rows = TABLES["held-out pairs"](pairs).rows
    found = sources_of(rows, pairs.faces(), 0, takes_centroids=takes_centroids)
    asked = [(int(image), tuple(one.against[row].flatten().tolist()))
             for one in found.asked for row, image in enumerate(one.image)]  # fmt: skip
    assert len(set(asked)) == len(asked) < sum(len(row) for row in found.places)
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(len(asked), 4, 4, generator=generator)
    mean = averaged(SaliencyMaps(maps), found.places).positive
    for row in range(len(rows)):
        own = []
        for place, source in enumerate(rows.source[row].tolist()):
            if source >= 0:
                others = [one for one in rows.against[row, place].tolist() if one >= 0]
                others = others if takes_centroids else others[:1]
                one = maps[asked.index((source, tuple(others)))].double().numpy()
                own.append((one - one.min()) / (one.max() - one.min()))
        assert np.allclose(mean[row], np.mean(own, axis=0), atol=1e-6)


def test_comparisons_have_equally_many_references_and_names_by_content():
    pairs = loaded()
    rows = TABLES["held-out pairs"](pairs).rows
    found = sources_of(rows, pairs.faces(), 0, takes_centroids=True)
    assert [one.against.ndim for one in found.asked] == [1, 2]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    turned = sources_of(rows.take(order), pairs.faces(), 0, takes_centroids=True)
    assert [one.id for one in turned.asked] == [one.id for one in found.asked]


def test_a_row_has_the_gravest_state_of_its_maps():
    maps = torch.rand(3, 4, 4)
    maps[1] = 0.5
    maps[2] = torch.nan
    given = SaliencyMaps(
        maps, None, (RowState.OK, RowState.DEGENERATE_MAP, RowState.NAN_MAP), ("", "flat", "NaN")
    )
    found = averaged(given, [(0,), (0, 1), (0, 1, 2), (1,)])
    assert [*found.states] == ["ok", "degenerate_map", "nan_map", "degenerate_map"]
    assert found.reasons == ("", "flat", "NaN", "flat")
    assert torch.allclose(found.positive[1], found.positive[0] / 2)  # a constant map counts as 0
    assert bool(found.positive[2].isnan().all())
    assert torch.equal(found.positive[0], norm01(maps[:1])[0][0].float())
