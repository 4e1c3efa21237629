"""Names of the parts of a face, and their groups."""

import pytest

from fxeval.datasets.faces.part_labels import GROUPS, PART_NAMES, group_of, groups_of, part_named

CELEBAMASK = [
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
]  # fmt: skip
FARL = [
    "background", "neck", "face", "cloth", "rr", "lr", "rb", "lb", "re", "le", "nose", "imouth",
    "llip", "ulip", "hair", "eyeg", "hat", "earr", "neck_l",
]  # fmt: skip


def test_the_names_of_celebamask_hq_are_the_parts_in_their_order():
    assert [part_named(name) for name in CELEBAMASK] == list(PART_NAMES)


def test_the_names_of_farl_are_all_parts_in_another_order():
    named = [part_named(name) for name in FARL]
    assert sorted(map(str, named)) == sorted(PART_NAMES)
    assert named[4:10] == [
        "right_ear", "left_ear", "right_brow", "left_brow", "right_eye", "left_eye",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PART_NAMES)
def test_every_part_has_its_own_name_and_one_group(name: str):
    assert part_named(name) == name
    assert sum(name in names for names in GROUPS.values()) == 1
    assert name in GROUPS[group_of(name)]


@pytest.mark.parametrize(
    ("given", "named"),
    [("Left Eyebrow", "left_brow"), ("beard-mustache", "beard"), ("mouth-mask", "mask"),
     ("sunglasses", "glasses"), ("scar", None), ("", None)],
)  # fmt: skip
def test_plain_words_are_known_in_any_spelling(given: str, named: str | None):
    assert part_named(given) == named


def test_groups_of_two_sources_compare_though_their_labels_differ():
    one, two = groups_of(PART_NAMES), groups_of([str(part_named(name)) for name in FARL])
    assert list(one) == list(two)
    assert one["mouth"] == (11, 12, 13)
    assert two["mouth"] == (11, 12, 13)
    assert one["ears"] == (7, 8)
    assert two["ears"] == (4, 5)


def test_a_group_that_the_source_does_not_know_is_absent_and_not_empty():
    found = groups_of(("left_eye", "right_eye", "mouth_region", "scar"))
    assert found == {"eyes": (0, 1), "mouth": (2,), "scar": (3,)}
