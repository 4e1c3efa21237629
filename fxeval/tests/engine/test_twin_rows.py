"""Rows of twins: which images they are of, what explainers are handed, where images differ."""

import torch

from fxeval.contracts import ExplainerTraits, TwinSource
from fxeval.datasets.faces.alignment import ARCFACE_112, FACENET_160
from fxeval.datasets.lists.twin_pairs import TwinPairs
from fxeval.engine.inputs import Comparison
from fxeval.engine.selection import load_pairs
from fxeval.engine.twin_rows import twins, twins_of, why_no_answer
from fxeval.fixtures.pairs import PACK
from fxeval.metrics.protocol import OtherExplainer
from fxeval.run.map_maker import _key
from fxeval.run.wanted import NetworkHandle, Wanted
from fxeval.tests.toy_world import SMALL, Occlusion, People, Ramp, Twinned, cell_of


def table_of(source, listing=None, crop=SMALL):
    pairs = load_pairs(source, listing or source.listing(), crop)
    return pairs, twins(pairs, twins_of(source, pairs, crop, lambda note: None))


def test_a_row_is_the_probe_with_its_twin_as_the_donor():
    source = Twinned(People(3))
    pairs, table = table_of(source)
    rows, images = table.rows, table.faces.images
    listing = source.listing()
    for row, (probe, mate, nonmate) in enumerate(
        zip(listing.probe, listing.reference, listing.contrast, strict=True)
    ):
        expected = source.images([probe, mate, nonmate, f"{probe}+"], SMALL)
        found = [rows.image[row], rows.against[row, 0], rows.contrast[row], rows.donor[row]]
        assert torch.equal(images[torch.stack(found)], expected)
        assert rows.question.mate[row] == rows.against[row, 0]
        assert rows.question.nonmate[row] == rows.contrast[row]
        assert torch.equal(rows.altered[row], (expected[0] != expected[3]).any(0))
        assert rows.identities[row].tolist() == [int(pairs.probe_identity[row])]
    assert rows.source.tolist() == rows.image[:, None].tolist()
    assert rows.is_discriminative
    assert (table.faces.identity[rows.donor] == -1).all()  # in nobody's gallery


def test_the_other_version_is_the_same_without_the_nonmate_for_the_explainer():
    _, table = table_of(Twinned(People(3)))
    other = table.versions["pairwise"]
    assert not other.is_discriminative
    assert (other.id, other.side) == (table.rows.id, "pairwise")
    for name in ("image", "against", "donor", "altered"):
        assert torch.equal(getattr(other, name), getattr(table.rows, name))


def test_twins_are_named_by_their_content():
    source = Twinned(People(4))
    turned = source.listing().take([5, 2, 0])
    known = {
        row: table.faces.image_digests[donor]
        for table in [table_of(source)[1]]
        for row, donor in zip(table.rows.id, table.rows.donor.tolist(), strict=True)
    }
    _, found = table_of(source, turned)
    assert len({*known.values()}) == 8
    for row, donor in zip(found.rows.id, found.rows.donor.tolist(), strict=True):
        assert found.faces.image_digests[donor] == known[row]


def test_the_bundled_twins_differ_in_the_part_that_was_changed():
    source = TwinPairs(PACK, kind="redrawn")
    assert isinstance(source, TwinSource)
    listing = source.listing().take([0, 7, 100])
    triplets = [source.twins()[row] for row in (0, 7, 100)]
    for crop in (ARCFACE_112, FACENET_160):
        _, table = table_of(source, listing, crop)
        changed = source.changed([one.probe_twin for one in triplets], crop)
        assert torch.equal(table.rows.altered, changed)
        shares = table.rows.altered.flatten(1).double().mean(1)
        assert ((shares > 0.005) & (shares < 0.5)).all()


def test_the_parts_of_the_bundled_twins_are_a_column():
    listing = TwinPairs(PACK).listing()
    assert {*listing.attributes["part"]} == {"nose", "mouth", "eyes", "brows", "jaw"}
    assert {*listing.attributes["twin"]} == {"redrawn", "pasted"}


class Needy:
    traits = ExplainerTraits(needs={"contrast"})


def test_who_gets_a_contrast_and_who_has_no_answer():
    _, table = table_of(Twinned(People(3)))
    rows, pair = table.rows, table.versions["pairwise"]
    found = {
        type(one).__name__: [
            Comparison(table.faces, rows.id, rows.image, rows.against[:, 0], rows.contrast,
                       is_discriminative=some.is_discriminative).gives_contrast(one)
            for some in (rows, pair)
        ]
        for one in (Occlusion(), Ramp(), Needy())
    }  # fmt: skip
    assert found == {"Occlusion": [True, False], "Ramp": [False, False], "Needy": [True, True]}
    refused = {
        type(one).__name__: [
            bool(why_no_answer(OtherExplainer("it", one), some)) for some in (rows, pair)
        ]
        for one in (Occlusion(), Ramp(), Needy())
    }
    assert refused == {"Occlusion": [False, False], "Ramp": [True, False], "Needy": [False, True]}


def test_maps_of_the_two_questions_have_keys_of_their_own_whatever_they_are_called():
    _, table = table_of(Twinned(People(3)))
    rows, network = table.rows, NetworkHandle("trained", "network", lambda: None)
    cell = cell_of("truth.flip", None)

    def key(explainer, *, is_discriminative):
        asked = Comparison(table.faces, rows.id, rows.image, rows.against[:, 0], rows.contrast,
                           is_discriminative=is_discriminative)  # fmt: skip
        wanted = Wanted(OtherExplainer("occlusion", explainer), network, asked, "probe")
        return _key(cell, wanted, torch.device("cpu"))

    for explainer, is_one in ((Occlusion(), False), (Ramp(), True)):
        both = [key(explainer, is_discriminative=one) for one in (True, False)]
        assert (both[0] == both[1]) is is_one
