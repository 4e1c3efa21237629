"""Lists of CALFW, CPLFW and Patch-LFW."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.flat_pairs import FlatPairs, PatchPairs, parse_flat, parse_patch
from fxeval.errors import DataContractError
from fxeval.tests.face_folders import write_images

# Four mated pairs, then four nonmated ones; CALFW's labels are the numbers of folds.
PEOPLE = ["Ann", "Bob", "Cleo", "Dan_Lee"]
MATED = [(f"{name}_0001.png", f"{name}_0002.png") for name in PEOPLE]
NONMATED = [
    ("Ann_0001.png", "Bob_0001.png"), ("Bob_0002.png", "Cleo_0001.png"),
    ("Cleo_0002.png", "Dan_Lee_0001.png"), ("Dan_Lee_0002.png", "Ann_0002.png"),
]  # fmt: skip


def flat(labels: list[int]) -> str:
    return "".join(
        f"{file} {label}\n"
        for pair, label in zip(MATED + NONMATED, labels, strict=True)
        for file in pair
    )


CALFW = flat([1, 1, 2, 2, 0, 0, 0, 0])
CPLFW = flat([1, 1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("text", [CALFW, CPLFW, CALFW.replace("\n", "\r\n"), CPLFW.strip()])
def test_folds_are_interleaved(text: str):
    lines = parse_flat(text, "x", 2)
    assert [line.images for line in lines] == [
        *MATED[:2], *NONMATED[:2], *MATED[2:], *NONMATED[2:],
    ]  # fmt: skip
    assert [line.fold for line in lines] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [line.is_mated for line in lines] == [True, True, False, False] * 2
    assert [line.where for line in lines][:3] == ["x:1", "x:3", "x:9"]
    assert lines[4].identities == ("Cleo", "Cleo")
    assert lines[5].identities == ("Dan_Lee", "Dan_Lee")


def test_the_full_protocol_has_ten_folds_of_300_and_300():
    text = "".join(f"P{row}_1.jpg 1\nP{row}_2.jpg 1\n" for row in range(3000))
    text += "".join(f"P{row}_1.jpg 0\nP{(row + 1) % 3000}_1.jpg 0\n" for row in range(3000))
    lines = parse_flat(text, "x")
    assert [line.fold for line in lines] == [row // 600 for row in range(6000)]
    assert [line.is_mated for line in lines] == ([True] * 300 + [False] * 300) * 10
    assert lines[600].images == ("P300_1.jpg", "P300_2.jpg")
    assert lines[900].images == ("P300_1.jpg", "P301_1.jpg")


@settings(deadline=None, max_examples=60)
@given(n_folds=st.integers(1, 5), size=st.integers(1, 4), label=st.integers(1, 10))
def test_folds_are_those_of_the_slow_way(n_folds: int, size: int, label: int):
    half = n_folds * size
    pairs = [(f"P{row}_1.jpg", f"P{row}_2.jpg", label) for row in range(half)]
    pairs += [(f"P{row}_1.jpg", f"Q{row}_1.jpg", 0) for row in range(half)]
    expected = []
    for fold in range(n_folds):
        for start in (fold * size, half + fold * size):
            expected += [(*pair[:2], fold) for pair in pairs[start : start + size]]
    text = "".join(f"{one} {label}\n{two} {label}\n" for one, two, label in pairs)
    assert [(*line.images, line.fold) for line in parse_flat(text, "x", n_folds)] == expected


def replaced(row: int, line: str) -> str:
    lines = CPLFW.splitlines()
    lines[row - 1] = line
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x:1: expected 'file label'"),
        (CPLFW.partition("\n")[2], r"x: expected two lines per pair, .* got 15 lines"),
        (CPLFW + "Eve_1.jpg 1\nEve_2.jpg 1\n", r"x: .* got 18 lines"),
        (replaced(2, "Ann_0002.png 0"), r"x:1: expected the same label .* got 1 and 0"),
        (replaced(4, "Bob_0002.png 2"), r"x:3: expected the same label .* got 1 and 2"),
        (
            flat([1, 0, 1, 1, 0, 0, 0, 0]),
            r"x:3: expected a mated pair .* got label 0.*first 4 pairs",
        ),
        (flat([1, 1, 1, 1, 0, 1, 0, 0]), r"x:11: expected a nonmated pair .* got label 1"),
        (
            replaced(2, "Bob_0002.png 1"),
            r"x:1: expected a mated pair of one identity, got 'Ann' and 'Bob'",
        ),
        (replaced(10, "Ann_0002.png 0"), r"x:9: expected a nonmated pair of two identities"),
        (replaced(2, "Ann_0001.png 1"), r"x:1: expected different images"),
        (replaced(3, "Bob.png 1"), r"x:3: expected a file named by identity and number"),
        (replaced(3, "Bob_0001.png -1"), r"x:3: expected 'file label'"),
        (replaced(3, "Bob_0001.png one"), r"x:3: expected 'file label'"),
        (replaced(3, "Bob_0001.png ١"), r"x:3: expected 'file label'"),
        (replaced(3, "Bob_0001.png"), r"x:3: expected 'file label'"),
        (replaced(3, "Bob_0001.png 1 1"), r"x:3: expected 'file label'"),
        (replaced(3, ""), r"x:3: expected 'file label'"),
        (replaced(3, "../Bob_0001.png 1"), r"x:3: expected a relative path inside the folder"),
        (replaced(3, "Bob_0001\0.png 1"), r"x:3: .*U\+0000"),
        (CPLFW.replace("\n", "\r"), r"x:1: .*U\+000D"),
    ],
)
def test_a_wrong_list_is_refused_with_file_and_line(text: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_flat(text, "x", 2)


@pytest.mark.parametrize("n_folds", [0, -1, 3, 10])
def test_a_number_of_folds_that_does_not_divide_the_list_is_refused(n_folds: int):
    with pytest.raises(DataContractError, match=rf"each of {n_folds} folds"):
        parse_flat(CPLFW, "x", n_folds)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_images(folder, [file for pair in MATED for file in pair])
    (tmp_path / "pairs_CALFW.txt").write_text(CALFW)
    return folder


def test_a_flat_folder_of_aligned_images_is_a_source(root: Path):
    pairs = FlatPairs(root, Path("../pairs_CALFW.txt"), aligned_to="arcface112", n_folds=2)
    assert isinstance(pairs, PairSource)
    listing = pairs.listing()
    assert pairs.name == "pairs_CALFW"
    assert listing.fold == (0, 0, 0, 0, 1, 1, 1, 1)
    assert "Ann" not in repr(listing)
    assert pairs.images(listing.probe, ARCFACE_112)[:, 0, 0, 0].tolist() == [1, 3, 1, 4, 5, 7, 6, 8]
    assert pairs.card().n_images == 8


def test_pairs_without_image_leave_the_folds_of_the_others_as_they_are(root: Path):
    (root / "Bob_0002.png").unlink()
    pairs = FlatPairs(root, Path("../pairs_CALFW.txt"), aligned_to="arcface112", n_folds=2)
    with pytest.raises(DataContractError, match=r"pairs_CALFW\.txt:3: the image 'Bob_0002\.png'"):
        pairs.listing()
    listing = FlatPairs(
        root, Path("../pairs_CALFW.txt"), aligned_to="arcface112", n_folds=2, on_missing="exclude"
    ).listing()
    assert listing.fold == (0, 0, 1, 1, 1, 1)
    assert len(listing.excluded) == 2


# --- Patch-LFW


PATCH = "00001.png 00002.png 1\n00003.png 00004.png -1\n00002.png 00003.png -1\n"


def test_images_of_a_patch_list_are_of_one_identity_where_they_are_mated():
    lines = parse_patch(PATCH, "x")
    assert [line.is_mated for line in lines] == [True, False, False]
    assert lines[0].identities == ("00001.png", "00001.png")
    assert lines[2].identities == ("00001.png", "00003.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x:1: expected 'file file 1'"),
        (PATCH + "00001.png 00005.png 0\n", r"x:4: expected 'file file 1'"),
        (PATCH + "00001.png 00005.png\n", r"x:4: expected 'file file 1'"),
        (PATCH + "00001.png 00005.png 1 1\n", r"x:4: expected 'file file 1'"),
        (PATCH + "00001.png 00001.png 1\n", r"x:4: expected different images"),
        (PATCH + "00001.png 00002.png 1\n", r"x:4: repeats x:1"),
        (PATCH + "00002.png 00001.png -1\n", r"x:4: expected a nonmated pair of two identities"),
        (PATCH + "/00002.png 00001.png -1\n", r"x:4: expected a relative path"),
        ("a.png b.png 1\nb.png c.png 1\nc.png a.png -1", r"x:3: expected a nonmated pair"),
    ],
)
def test_a_wrong_patch_list_is_refused(text: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_patch(text, "x")


def test_a_table_of_identities_makes_fewer_of_them(tmp_path: Path):
    write_images(tmp_path, [f"0000{number}.png" for number in (1, 2, 3, 4)])
    (tmp_path / "pairs.txt").write_text(PATCH)
    pairs = PatchPairs(tmp_path, Path("pairs.txt"), aligned_to="arcface112")
    assert len({*pairs.listing().probe_identity, *pairs.listing().reference_identity}) == 3
    table = "img,identity\n00001.png,Ann\n00002.png,Ann\n00003.png,Bob\n00004.png,{}\n"
    (tmp_path / "who.csv").write_text(table.format("Cleo"))
    known = PatchPairs(
        tmp_path, Path("pairs.txt"), aligned_to="arcface112", identities_file=Path("who.csv")
    )
    assert len({*known.listing().probe_identity, *known.listing().reference_identity}) == 3
    (tmp_path / "who.csv").write_text(table.format("Bob"))
    with pytest.raises(DataContractError, match=r"pairs\.txt:2: expected a nonmated pair"):
        known.listing()
