"""Maps that do not depend on the image are named, whoever makes them; honest ones are not."""

import numpy as np
import pytest

from fxeval.records.judged import Difference
from fxeval.records.schema import GRID, Measured, Row
from fxeval.statistics.map_figures import identity_note, largest_same, same_map_of, ties_of

LINE = np.linspace(-1, 1, GRID)
CENTRE = np.exp(-(LINE[:, None] ** 2 + LINE**2) * 4)
N = 30


def rows_of(maps, state="ok", people=None):
    values = Measured(map="explainer", values={"m": 0.5}, states={"m": "ok"})
    return [
        Row(cell="a", row=str(i), identities=[i if people is None else people[i]], state=state,
            thumbnail=None if one is None else one.tolist(), measured=[values])
        for i, one in enumerate(maps)
    ]  # fmt: skip


def noise(i, scale=1.0):
    return scale * np.random.default_rng(i).random((GRID, GRID))


def face(i):
    """A map of one person: a part of the face that all have, and a spot of their own."""
    x, y = np.random.default_rng(i).uniform(-0.7, 0.7, 2)
    return CENTRE + 0.5 * np.exp(-((LINE[:, None] - x) ** 2 + (LINE - y) ** 2) * 8)


@pytest.mark.parametrize(
    ("maps", "same"),
    [
        ([CENTRE] * N, N),
        ([CENTRE + noise(i, 0.02) for i in range(N)], N),  # a little noise hides nothing
        ([CENTRE * (1 + i) / N for i in range(N)], N),
        ([CENTRE] * 20 + [noise(i) for i in range(10)], 20),
        ([CENTRE] * 10 + [1 - CENTRE] * 20, 20),  # one map for each answer
    ],
)
def test_one_map_for_everybody_is_named(maps, same):
    assert largest_same(rows_of(maps)) == (same, N)
    assert same_map_of(rows_of(maps)).startswith(f"{same} of {N} people have the same saliency map")


@pytest.mark.parametrize(
    "maps",
    [
        [face(i) for i in range(N)],
        [noise(i) for i in range(N)],
        [noise(i % 16) for i in range(N)],
        [None] * N,
        [CENTRE],
    ],
)
def test_maps_that_differ_are_not_named(maps):
    assert same_map_of(rows_of(maps)) == ""


def test_many_rows_of_one_person_are_one_map():
    people = [0] * 20 + list(range(10))
    assert largest_same(rows_of([CENTRE] * 20 + [noise(i) for i in range(10)], people=people)) == (
        1,
        10,
    )


def test_constant_maps_have_a_state_of_their_own():
    assert same_map_of(rows_of([np.zeros((GRID, GRID))] * N, state="degenerate_map")) == ""


def tied(shares, orders=None):
    """Rows whose maps have the given shares of tied pixels; None = no map."""
    rows = rows_of([None] * len(shares))
    numbers = [{}] * len(shares) if orders is None else [{"orders_of_ties": n} for n in orders]
    return [
        row.model_copy(update={"diagnostics": {"probe": {"tied_share": share, **more}}})
        for row, share, more in zip(rows, shares, numbers, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (tied([0.0, 0.1, None], [1, 1, 0]), ""),
        (rows_of([CENTRE] * 3), ""),  # of a record without such numbers
        (
            tied([0.0, 0.6, None], [1, 1, 0]),
            "1 of 2 maps tie more than 10% of their pixels, which thus have no order (mean share "
            "of tied pixels of all maps: 30%). They are removed in one random order.",
        ),
        (
            tied([0.9, 0.5, 0.1], [7, 2, 1]),
            "2 of 3 maps tie more than 10% of their pixels, which thus have no order (mean share "
            "of tied pixels of all maps: 50%). The values of 2 maps are means over 2 to 7 random "
            "orders.",
        ),
        (
            tied([0.5, 0.5]),  # of a protocol that removes nothing
            "2 of 2 maps tie more than 10% of their pixels, which thus have no order (mean share "
            "of tied pixels of all maps: 50%).",
        ),
    ],
)
def test_ties_are_told_with_what_was_done_about_them(rows, said):
    assert ties_of(rows) == said


def shuffled(low, *, metric="tmr", control="shuffled_identity", fraction=0.01):
    high = None if low is None else low + 0.2
    return Difference(
        metric=metric, control=control, under={"fill": "black", "fraction": fraction},
        value=None if low is None else low + 0.1, low=low, high=high, confidence=0.95, n_pairs=60,
        n_identities=30, method="by hand",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], ""),
        ([shuffled(0.05)], ""),
        ([shuffled(-0.1, control="mean_map")], ""),
        ([shuffled(None)], ""),
        # One metric that sees a difference is enough.
        ([shuffled(0.05), shuffled(-0.1, metric="drop")], ""),
        ([shuffled(-0.1), shuffled(0.05, metric="drop")], ""),
        ([shuffled(None), shuffled(-0.1, metric="drop")], "such as drop with a difference of 0 ["),
        ([shuffled(-0.1)], "person worse (black, fraction 0.01), such as tmr with a difference of"),
        ([shuffled(0.05), shuffled(-0.1, fraction=0.05)], "worse (black, fraction 0.05), such as"),
        ([shuffled(-0.1), shuffled(-0.5, fraction=0.05)], "0.1]; likewise under 1 more condition"),
    ],
)
def test_maps_of_other_people_that_are_as_good_are_told(found, words):
    note = identity_note(found)
    assert words in note
    assert note.startswith("identity is not seen to matter") == bool(words)


def test_a_slice_says_nothing_about_all_people():
    of_slice = shuffled(-0.3).model_copy(update={"under": {"fill": "black", "glasses": "yes"}})
    assert identity_note([shuffled(0.05), of_slice], ["glasses"]) == ""
    assert "likewise" not in identity_note([shuffled(-0.1), of_slice], ["glasses"])
