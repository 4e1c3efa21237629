"""The words of the rows of a cell, of every kind, from a list's columns and its images."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from fxeval.engine.choosing import Asked, HeldOut, chosen
from fxeval.engine.pattern_rows import map_pairs
from fxeval.engine.row_kinds import TABLES
from fxeval.engine.selection import load_pairs
from fxeval.engine.slicing import Listed, sliced, with_words
from fxeval.engine.tables import Making, table_of
from fxeval.errors import DataContractError
from fxeval.metrics import CATALOGUE
from fxeval.models.black_box import EmbeddingFunction
from fxeval.slices import Slice
from fxeval.statistics.limits import BetterThan
from fxeval.tests.toy_world import SMALL, Occlusion, People, measured

DELETION = "faithfulness.deletion_insertion"
FEW = CATALOGUE[DELETION].Parameters(steps=2, fills=("mean",))


@dataclass(frozen=True)
class Posed(People):
    """People whose images are numbered from 0 to 3; the number is their pose."""

    of_pairs: dict = field(default_factory=dict, hash=False)
    of_images: object = None

    def listing(self):
        return replace(super().listing(), attributes=self.of_pairs)

    def attributes(self, image_ids):
        if self.of_images is not None:
            return self.of_images
        return {"pose": [f"pose {one[-1]}" for one in image_ids]}


class Plain(People):
    """People whose attributes are no method."""

    attributes = {}  # noqa: RUF012  (what user code may do)


def words_of(kind, slice_, *, source=None, side="probe"):
    source = source or Posed()
    listing = source.listing()
    pairs = load_pairs(source, listing, SMALL)
    table = table_of(kind, pairs, Making(0, None, *[lambda: torch.empty(0)] * 2))
    listed = Listed(source, listing, pairs, listing)
    found = sliced(table, listed, [slice_], side).rows
    images = [pairs.image_ids[image] for image in found.image.tolist()]
    return list(zip(images, [one[slice_.column] for one in found.slices], strict=True))


@pytest.mark.parametrize("kind", ["mated pairs", "pairs", "triplets", "identities", "classes"])
def test_a_row_has_the_word_of_the_image_that_is_perturbed(kind):
    found = words_of(kind, Slice("pose"))
    assert found
    assert all(word == f"pose {image[-1]}" for image, word in found)


def test_the_word_is_that_of_the_reference_where_the_reference_is_perturbed():
    found = words_of("mated pairs", Slice("pose"), side="reference")
    assert {(image[-1], word) for image, word in found} == {("0", "pose 1"), ("2", "pose 3")}


def test_the_words_of_two_perturbed_images_are_mixed_unless_they_are_one():
    assert {word for _, word in words_of("mated pairs", Slice("pose"), side="both")} == {"mixed"}
    ids = [f"{who}-{number}" for who in range(10) for number in range(4)]
    by_person = {"group": ["few" if one[0] in "123" else "many" for one in ids]}
    listing = Posed().listing()
    order = [*dict.fromkeys([*listing.probe, *listing.reference, *listing.contrast])]
    given = {"group": [by_person["group"][ids.index(one)] for one in order]}
    source = Posed(of_images=given)
    found = words_of("mated pairs", Slice("group"), source=source, side="both")
    assert {(image[0] in "123", word) for image, word in found} == {(True, "few"), (False, "many")}


def test_a_column_of_the_list_holds_for_the_pair_and_comes_before_the_images():
    source = Posed(of_pairs={"pose": tuple("ab" * 10)})
    for side in ("probe", "reference", "both"):
        words = [word for _, word in words_of("pairs", Slice("pose"), source=source, side=side)]
        assert words == [*"ab" * 10]


def test_the_rows_that_are_chosen_keep_their_own_words():
    source, edges = Posed(of_pairs={"gap": tuple(range(20))}), Slice("gap", (10.0,))
    listing = source.listing()
    chosen = listing.take([19, 3, 12])
    pairs = load_pairs(source, chosen, SMALL)
    listed = Listed(source, listing, pairs, chosen)
    found = sliced(TABLES["mated pairs"](pairs), listed, [edges], "probe")
    expected = ["10 or more", "below 10", "10 or more"]
    assert [one["gap"] for one in found.rows.slices] == expected
    assert found.versions["reference"].slices == found.rows.slices


@pytest.mark.parametrize("side", ["probe", "reference"])
def test_a_held_out_pair_has_the_word_of_its_perturbed_image_or_of_the_pair(side):
    source = Posed(of_pairs={"gap": tuple(range(20))})
    listing = source.listing()
    how = HeldOut(side, generation_images=2, with_nonmated=True)
    rows, _ = chosen(listing, "held-out pairs", how, Asked(None, 5, "people"))
    pairs = load_pairs(source, rows, SMALL)
    listed = Listed(source, listing, pairs, rows)
    table = TABLES["held-out pairs"](pairs)
    table = with_words(table, listed, [Slice("pose"), Slice("gap", (10,))], FEW)
    images = [pairs.image_ids[image] for image in table.rows.image.tolist()]
    assert {image[-1] for image in images} == ({*"02"} if side == "probe" else {*"13"})
    for image, found in zip(images, table.rows.slices, strict=True):
        assert found == {
            "pose": f"pose {image[-1]}",
            "gap": "below 10" if image[0] in "01234" else "10 or more",
        }


def test_a_pair_of_maps_has_the_word_of_both_of_its_images():
    source = Posed()
    listing = source.listing()
    pairs = load_pairs(source, listing, SMALL)
    listed = Listed(source, listing, pairs, listing)
    table = with_words(map_pairs(pairs.faces(), 5), listed, [Slice("pose")], None)
    other = table.versions["reference"]
    both = [
        {f"pose {pairs.image_ids[image][-1]}" for image in images}
        for images in zip(table.rows.image.tolist(), other.image.tolist(), strict=True)
    ]
    words = [found["pose"] for found in table.rows.slices]
    assert words == [one.pop() if len(one) == 1 else "mixed" for one in both]
    assert {"mixed"} < {*words}
    assert other.slices == table.rows.slices


# --- what is refused


@pytest.mark.parametrize(
    ("slice_", "source", "message"),
    [
        (Slice("pos"), Posed(), "neither the list nor its images have the column 'pos' of 'slices'"
         "; did you mean 'pose'"),
        (Slice("zz"), Posed(), "; there are: pose"),
        (Slice("zz"), People(), "; they have none"),
        (Slice("who"), Posed(of_pairs={"who": tuple(f"Ann {n // 2}" for n in range(20))}),
         "as many words as the list has people"),
        (Slice("pose"), Posed(of_images={"pose": ["left"]}), r"attributes\(image_ids\): attribute "
         "1: expected 40 values, got 1 values"),
        (Slice("pose"), Posed(of_images=["left"]), "expected attributes by name, got list"),
        (Slice("pose"), Plain(), r"attributes\(image_ids\): expected a method, got dict"),
    ],
)  # fmt: skip
def test_a_column_that_makes_no_slices_is_a_fault_of_the_list(slice_, source, message):
    with pytest.raises(DataContractError, match=message) as error:
        words_of("mated pairs", slice_, source=source)
    assert "Ann" not in str(error.value)
    assert "did you mean" not in error.value.public


def test_rows_that_are_no_pairs_have_no_word_of_a_pair():
    source = Posed(of_pairs={"gap": tuple("ab" * 10)})
    with pytest.raises(DataContractError, match="is one of pairs, and rows of this kind"):
        words_of("classes", Slice("gap"), source=source)


# --- whole cells


def test_the_rows_of_a_cell_carry_their_words_and_the_cell_its_columns():
    source = Posed(of_pairs={"gap": tuple(range(20))})
    slices = [Slice("gap", (10.0,)), Slice("pose")]
    result, rows = measured(DELETION, FEW, source=source, slices=slices)
    assert {tuple(sorted(row.slices.items())) for row in rows} == {
        (("gap", gap), ("pose", f"pose {pose}"))
        for gap in ("below 10", "10 or more") for pose in (0, 2)
    }  # fmt: skip
    assert [one.model_dump() for one in result.slices] == [
        {"column": "gap", "edges": [10.0]}, {"column": "pose", "edges": []},
    ]  # fmt: skip
    found = {
        (axis, one.under[axis])
        for one in result.estimates
        for axis in ("gap", "pose")
        if axis in one.under
    }
    assert found == {
        ("gap", "below 10"), ("gap", "10 or more"), ("pose", "pose 0"), ("pose", "pose 2"),
    }  # fmt: skip


def test_slices_change_no_value_of_a_row():
    bare = measured(DELETION, FEW, source=Posed())[1]
    for batch in (3, 16):
        rows = measured(DELETION, FEW, source=Posed(), slices=[Slice("pose")], batch=batch)[1]
        assert [row.model_copy(update={"slices": {}}) for row in rows] == bare


def test_a_column_that_does_not_exist_is_found_before_anything_is_embedded():
    embedded = []
    network = EmbeddingFunction(
        "n", SMALL, lambda images: embedded.append(len(images)) or images.flatten(1), "cosine", "1"
    )
    with pytest.raises(DataContractError, match="have the column 'pos' of 'slices'"):
        measured(DELETION, FEW, source=Posed(), slices=[Slice("pos")], network=network)
    assert sum(embedded) < 10  # a trial of the model alone, never the list


@dataclass(frozen=True)
class Gaming(Occlusion):
    """Explains most people well, and a few of them upside down."""

    victims: frozenset = frozenset()

    def explain(self, model, probes, references, **more):
        maps = super().explain(model, probes, references, **more)
        looks = [(probe * 255).round().to(torch.uint8).numpy().tobytes() for probe in probes]
        signs = torch.tensor([-1.0 if look in self.victims else 1.0 for look in looks])
        return maps * signs[:, None, None]


def test_an_explainer_that_fails_a_small_group_passes_on_average_and_fails_in_its_slice():
    source = People(110)
    listing = source.listing()
    few = {str(who) for who in range(32)}
    words = tuple("few" if who in few else "many" for who in listing.probe_identity)
    victims = [one for one in listing.probe if one.split("-")[0] in few]
    looks = frozenset(image.numpy().tobytes() for image in source.images(victims, SMALL))
    asked = {"better_than": "control.random_pixels"}
    result, _ = measured(
        DELETION,
        CATALOGUE[DELETION].Parameters(steps=4, fills=("mean",), controls=("random_pixels",)),
        source=Posed(110, of_pairs={"group": words}),
        explainer=Gaming(victims=looks),
        slices=[Slice("group")],
        limits=[
            BetterThan("deletion_auc", **asked),
            BetterThan("deletion_auc", **asked, slice="group", judge="worst"),
        ],
    )
    whole, worst = result.limits
    assert whole.verdict.outcome == "pass"
    assert (worst.verdict.outcome, worst.under["group"]) == ("fail", "few")
    assert worst.verdict.reason.startswith("worst of 2 slices of group: deletion_auc (mean, group")
    assert result.verdict.outcome == "fail"
