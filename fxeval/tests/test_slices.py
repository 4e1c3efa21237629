"""Columns become words: which values make slices, and what is refused."""

import numpy as np
import pytest
import torch

from fxeval.contracts import PairListing
from fxeval.errors import DataContractError
from fxeval.slices import MAX_NUMBERS, MAX_WORDS, Slice, check_columns, check_values

YAW = Slice("yaw", (-15.0, 15.0))


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (-90, "below -15"), (-15, "-15 to 15"), (14.999, "-15 to 15"), (15, "15 or more"),
        (None, "unknown"),
    ],
)  # fmt: skip
def test_an_edge_belongs_to_the_word_above_it(value, word):
    assert YAW.word_of(value) == word


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("left", "left"), (2.0, "2"), (-0.0, "0"), (0.1 + 0.2, "0.3"), (True, "true"),
        (False, "false"), (None, "unknown"), ("", "unknown"), ("<b>bold</b>", "<b>bold</b>"),
    ],
)  # fmt: skip
def test_a_value_without_edges_is_its_own_word(value, word):
    assert Slice("column").word_of(value) == word


def test_words_are_in_the_order_of_their_numbers_and_the_unknown_last():
    assert Slice("age").ordered(["unknown", "9", "100", "young", "-1"]) == [
        "-1", "9", "100", "young", "unknown",
    ]  # fmt: skip
    words = [*YAW.words(), "mixed"]
    assert YAW.ordered(reversed(words)) == words


# --- columns that make no slices


@pytest.mark.parametrize(
    ("slice_", "values", "fault"),
    [
        (Slice("x"), [f"w{n}" for n in range(1000)], "holds 1000 different words; expected at"),
        (Slice("x"), [*range(MAX_NUMBERS + 1)], "13 different numbers, more than 12; expected edg"),
        (Slice("x"), [None, None, ""], "has no value"),
        (YAW, [1.0, "left"], "has edges, and 1 of its 2 values are no numbers"),
        (YAW, [True, False], "has edges, and 2 of its 2 values are no numbers"),
    ],
)
def test_a_column_that_makes_no_slices_is_refused(slice_, values, fault):
    assert fault in check_values(slice_, values, n_people=5000)


@pytest.mark.parametrize(
    ("slice_", "values"),
    [
        (Slice("x"), [f"w{n}" for n in range(MAX_WORDS)]),
        (Slice("x"), [*range(MAX_NUMBERS)]),
        (Slice("x"), ["one"]),
        (YAW, [*range(-500, 500)]),
        (YAW, [None, 3.0]),
    ],
)
def test_a_column_of_few_words_makes_slices(slice_, values):
    assert check_values(slice_, values, n_people=5000) == ""


def test_a_column_with_as_many_words_as_people_may_name_them_and_is_refused():
    people = [f"person {n}" for n in range(20)] * 2
    fault = check_values(Slice("who"), people, n_people=20)
    assert "as many words as the list has people" in fault
    assert "person" not in fault.replace("may name a person", "")
    assert check_values(Slice("who"), people, n_people=21) == ""
    assert check_values(YAW, [*range(20)], n_people=3) == ""  # the words are made of the edges


# --- columns of a source


def test_columns_may_be_lists_arrays_and_tensors():
    found = check_columns(
        "x",
        {"a": [1, "b"], "b": np.array([1.5, np.nan]), "c": torch.tensor([True, False])},
        2,
    )
    assert found == {"a": (1.0, "b"), "b": (1.5, None), "c": (True, False)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "expected attributes by name, got list"),
        ({3: [1, 2]}, "attribute 1: expected a name of 1 to 64 printable"),
        ({"": [1, 2]}, "attribute 1: expected a name"),
        ({" look": [1, 2]}, "without spaces around it"),
        ({"lo\x1bok": [1, 2]}, "expected a name"),
        ({"x" * 65: [1, 2]}, "expected a name"),
        ({"look": [1]}, "attribute 1: expected 2 values, got 1 values for 'look'"),
        ({"look": "ab"}, "attribute 1: expected 2 values"),
        ({"look": 3}, "attribute 1: expected 2 values"),
        ({"look": [1, "a\nb"]}, "expected printable text"),
        ({"look": [1, "\x1b[31m"]}, "expected printable text"),
        ({"look": [1, "x" * 256]}, "expected printable text"),
        ({"look": [1, float("inf")]}, "finite numbers"),
        ({"look": [1, 10**400]}, "finite numbers"),
        ({"look": [1, [2]]}, "expected printable text"),
    ],
)
def test_other_columns_are_refused_and_no_value_is_published(given, message):
    with pytest.raises(DataContractError, match=message) as error:
        check_columns("pairs 'own'", given, 2)
    assert "\x1b" not in str(error.value)
    assert "look" not in error.value.public


# --- listings


def listing(**attributes):
    return PairListing(
        ("a", "c"), ("b", "d"), (True, True), ("1", "2"), ("1", "2"),
        contrast=("c", "a"), contrast_identity=("2", "1"), attributes=attributes,
    )  # fmt: skip


def test_the_columns_of_a_listing_follow_its_rows():
    found = listing(pose=["left", "right"])
    assert found.take([1]).attributes == {"pose": ("right",)}
    assert found.with_nonmates().attributes == {"pose": ("left", "right") * 2}
    assert listing().attributes == {}
    assert hash(found) == hash(listing())


def test_a_column_of_another_length_is_refused():
    with pytest.raises(DataContractError, match="attribute 1: expected 2 values, got 3"):
        listing(pose=["left"] * 3)
