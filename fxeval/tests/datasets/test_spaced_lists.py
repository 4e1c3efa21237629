"""Lists separated by spaces, and common behaviour of all list parsers."""

import contextlib
import csv
import functools
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.manifests import path_fault
from fxeval.datasets.lists.flat_pairs import parse_flat, parse_patch
from fxeval.datasets.lists.lfw import parse_pairs
from fxeval.datasets.lists.pair_lines import PairLine
from fxeval.datasets.lists.spaced_lists import (
    ListedPairs,
    ListedTriplets,
    parse_listed_pairs,
    parse_listed_triplets,
)
from fxeval.datasets.lists.tables import (
    parse_csv_pairs,
    parse_csv_triplets,
    parse_gallery_probe,
    parse_identities,
)
from fxeval.errors import DataContractError

LIST = "# a comment\nAnn/0001\tAnn/0002\t1\nAnn/0001\tBob/0001\t0\n"
TRIPLETS = "# a comment\nAnn/1 Ann/2 Bob/1 hard\nBob/1 Bob/2 Ann/1 random\n"


@pytest.mark.parametrize(
    "text",
    [LIST, LIST.replace("\t", "   "), LIST.replace("\n", "\r\n"), LIST.replace("000", ""),
     LIST.replace("1\n", "1 2.5\n").replace("0\n", "0 1.5\n"), LIST + "# the end\n\n"],
)  # fmt: skip
def test_two_images_and_a_label_are_a_pair(text: str):
    one, two = parse_listed_pairs(text, "x")
    assert one.images == (("Ann", 1), ("Ann", 2))
    assert one.identities == ("Ann", "Ann")
    assert (one.is_mated, two.is_mated) == (True, False)
    assert two.where == "x:3"


def test_three_images_are_a_triplet():
    lines = parse_listed_triplets(TRIPLETS, "x")
    assert [line.images for line in lines] == [
        (("Ann", 1), ("Ann", 2), ("Bob", 1)), (("Bob", 1), ("Bob", 2), ("Ann", 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x:1: expected 3 columns"),
        ("# nothing\n", r"x: expected at least one line"),
        ("Ann/1 Ann/2\n", r"x:1: expected 3 columns"),
        (LIST + "Ann/1 Bob/1\n", r"x:4: expected 3 columns, as in the first line, got 2"),
        (LIST + "Ann/1 Bob/1 0 note\n", r"x:4: expected 3 columns, as in the first line, got 4"),
        (LIST + "\nAnn/1 Bob/2 0", r"x:4: expected 3 columns"),
        (LIST + "Ann/1 Bob/2 2", r"x:4: .* the label '2'"),
        (LIST + "Ann/1 Bob/2 1", r"x:4: expected a mated pair of one identity"),
        (LIST + "Ann/1 Ann/3 0", r"x:4: expected a nonmated pair"),
        (LIST + "Ann/1 Ann/1 1", r"x:4: expected different images"),
        (LIST + "Ann/1 Ann/2 1", r"x:4: repeats x:2"),
        (LIST + "Ann Bob/2 0", r"x:4: expected an image as 'identity/number', got 'Ann'"),
        (LIST + "Ann/one Bob/2 0", r"x:4: expected an image as"),
        (LIST + "a/Ann/1 Bob/2 0", r"x:4: expected an image as"),
        (LIST + "Ann/-1 Bob/2 0", r"x:4: expected an image as"),
        (LIST + "Ann/٣ Bob/2 0", r"x:4: expected an image as"),
        (LIST + "Ann/\0 Bob/2 0", r"x:4: .*U\+0000"),
    ],
)
def test_a_wrong_list_of_pairs_is_refused(text: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_listed_pairs(text, "x")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Ann/1 Bob/2 Cleo/1 hard", r"x:4: expected a mated pair of one identity"),
        ("Ann/1 Ann/2 Ann/3 hard", r"x:4: expected a nonmate of another identity"),
        ("Ann/1 Ann/2 Bob/1 random", r"x:4: repeats x:2"),
        ("Ann/1 Ann/2 Cleo hard", r"x:4: expected an image as"),
    ],
)
def test_a_wrong_triplet_is_refused(row: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_listed_triplets(TRIPLETS + row, "x")


# --- real lists


@pytest.mark.parametrize("name", ["core_pairs", "crosspose_pairs"])
def test_the_real_lists_have_300_pairs_of_each_kind(data_root: Path, name: str):
    manifest = Path("faces_manifest.json")
    listing = ListedPairs(data_root, Path(f"pairs/{name}.txt"), manifest).listing()
    assert len(listing) == 600
    assert sum(listing.is_mated) == 300


def test_a_real_subset_is_of_as_many_identities_as_there_are(data_root: Path):
    pairs = ListedPairs(
        data_root, Path("pairs/core_pairs.txt"), Path("faces_manifest.json"), subset=100
    )
    listing = pairs.listing()
    assert pairs.name == "core_pairs[100]"
    assert sum(listing.is_mated) == 50
    assert len({*listing.probe_identity}) == 60


def test_the_real_triplets_name_their_nonmates(data_root: Path):
    file, manifest = Path("pairs/triplets.txt"), Path("faces_manifest.json")
    listing = ListedTriplets(data_root, file, manifest).listing()
    assert len(listing) == len(listing.contrast) == 300
    assert all(listing.is_mated)


# --- every parser

PARSERS = [
    parse_csv_pairs, parse_csv_triplets, parse_gallery_probe, parse_identities, parse_flat,
    parse_patch, parse_listed_pairs, parse_listed_triplets, parse_pairs,
]  # fmt: skip
STARTS = {
    parse_csv_pairs: "img1,img2,label,id1,id2\n",
    parse_csv_triplets: "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\n",
    parse_gallery_probe: "G,P,T\n",
    parse_identities: "img,identity,split\n",
    parse_pairs: "1\t1\n",
}


@pytest.mark.parametrize("parse", PARSERS)
@settings(deadline=None, max_examples=150)
@given(
    is_near=st.booleans(),
    text=st.text() | st.text(st.sampled_from('AB12/_.,"\n\t -#\r\0'), max_size=60),
)
def test_any_text_is_a_list_or_refused(parse, is_near: bool, text: str):
    with contextlib.suppress(DataContractError):
        assert parse(STARTS.get(parse, "") * is_near + text, "x")


NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8).map(
    functools.partial(unicodedata.normalize, "NFC")  # others are refused
)
FILES = NAMES.map(lambda name: f"faces/{name}.png").filter(lambda file: not path_fault(file))


@st.composite
def pair_lines(draw, n_images: int):
    """Pairs or triplets of up to six images of up to three people."""
    files = draw(st.lists(FILES, min_size=6, max_size=6, unique=True))
    people = draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    owner = {file: people[index // 2] for index, file in enumerate(files)}
    rows = [
        (one, two, *three)
        for one in files
        for two in files
        for three in ([()] if n_images == 2 else [(file,) for file in files])
        if len({one, two, *three}) == n_images
        and (n_images == 2 or owner[one] == owner[two] != owner[three[0]])
    ]
    chosen = draw(st.lists(st.sampled_from(rows), min_size=1, unique=True))
    return [
        PairLine(images, tuple(owner[image] for image in images), f"x:{line}")
        for line, images in enumerate(chosen, start=2)
    ]


def written(header: str, rows: list[tuple]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header.split(","), *rows])
    return out.getvalue()


@settings(deadline=None, max_examples=60)
@given(lines=pair_lines(2))
def test_a_written_table_of_pairs_reads_back_equal(lines: list[PairLine]):
    rows = [(*line.images, int(line.is_mated), *line.identities) for line in lines]
    assert parse_csv_pairs(written("img1,img2,label,id1,id2", rows), "x") == lines


@settings(deadline=None, max_examples=60)
@given(lines=pair_lines(3))
def test_a_written_table_of_triplets_reads_back_equal(lines: list[PairLine]):
    header = "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id"
    text = written(header, [(*line.images, *line.identities) for line in lines])
    assert parse_csv_triplets(text, "x") == lines


@settings(deadline=None, max_examples=60)
@given(lines=pair_lines(2))
def test_a_written_protocol_reads_back_with_the_same_images_and_labels(lines: list[PairLine]):
    owners = {
        image: person
        for line in lines
        for image, person in zip(line.images, line.identities, strict=True)
    }
    text = written("G,P,T", [(*line.images[::-1], int(line.is_mated)) for line in lines])
    assert parse_gallery_probe(text, "x", owners) == lines


@settings(deadline=None, max_examples=60)
@given(
    people=st.lists(NAMES, min_size=2, max_size=2, unique=True),
    rows=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 1), st.integers(10, 19)),
        min_size=1, unique=True,
    ),
)  # fmt: skip
def test_a_written_spaced_list_reads_back_equal(people: list[str], rows: list[tuple]):
    assume(not any("/" in name or name[0] == "#" for name in people))
    lines = [
        PairLine(
            ((people[one], number), (people[two], other)), (people[one], people[two]), f"x:{row}"
        )
        for row, (one, number, two, other) in enumerate(rows, start=1)
    ]
    text = "\n".join(
        " ".join([*(f"{name}/{number:04d}" for name, number in line.images), f"{line.is_mated:d}"])
        for line in lines
    )
    assert parse_listed_pairs(text, "x") == lines
