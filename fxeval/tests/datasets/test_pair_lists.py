"""Common behaviour of all lists over folders of faces."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.lists.flat_pairs import FlatPairs, PatchPairs
from fxeval.datasets.lists.pair_lines import PairLine, check_distinct, inferred
from fxeval.datasets.lists.pair_lists import listing_of, subset_rows
from fxeval.datasets.lists.spaced_lists import ListedPairs, ListedTriplets
from fxeval.datasets.lists.tables import CsvIdentities, CsvPairs, CsvTriplets, GalleryProbePairs
from fxeval.datasets.text_files import MAX_BYTES, MAX_LINE, MAX_LINES, lines_of, read_text
from fxeval.errors import DataContractError, SuiteError
from fxeval.listings import PairListing
from fxeval.suite.cells import Use
from fxeval.suite.configure import configured
from fxeval.tests.face_folders import write_folder, write_images

LIST = "Ann/1 Ann/2 1\nBob/1 Bob/2 1\nAnn/1 Bob/1 0\nAnn/2 Bob/2 0\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path, {"Ann": 2, "Bob": 2})
    (tmp_path / "few.txt").write_text(LIST)
    return tmp_path


# --- a list as a source


def test_a_list_is_a_pair_source_named_after_its_file(root: Path):
    pairs = ListedPairs(root, Path("few.txt"))
    assert isinstance(pairs, PairSource)
    assert pairs.banner is None
    assert pairs.name == "few"
    assert replace(pairs, title="mine").name == "mine"
    assert replace(pairs, subset=2).name == "few[2]"
    assert replace(replace(pairs, subset=2), subset=3, seed=4).name == "few[3, seed 4]"


def test_a_source_is_made_without_touching_the_disk():
    pairs = CsvPairs(Path("/nowhere"), Path("pairs.csv"))
    assert pairs.name == "pairs"
    with pytest.raises(DataContractError, match=r"nowhere/pairs\.csv: cannot be read"):
        pairs.listing()


def test_a_list_becomes_a_listing_without_names(root: Path):
    pairs = ListedPairs(root, Path("few.txt"))
    listing = pairs.listing()
    folder = FaceFolder(root)
    assert listing.probe == tuple(
        folder.find(key).id for key in (("Ann", 1), ("Bob", 1), ("Ann", 1), ("Ann", 2))
    )
    assert listing.is_mated == (True, True, False, False)
    assert listing.fold == ()
    assert listing.probe_identity[0] == listing.reference_identity[0] == listing.probe_identity[2]
    assert "Ann" not in repr(listing)
    assert pairs.images(listing.probe, ARCFACE_112).shape == (4, 3, 112, 112)
    assert pairs.card() == folder.card()


def test_a_subset_of_a_list_is_part_of_it_and_follows_the_seed(root: Path):
    whole = ListedPairs(root, Path("few.txt")).listing()
    listing = ListedPairs(root, Path("few.txt"), subset=2).listing()
    assert listing.is_mated == (True, False)
    assert listing.excluded == ()
    pairs = list(zip(whole.probe, whole.reference, strict=True))
    assert all(pair in pairs for pair in zip(listing.probe, listing.reference, strict=True))
    drawn = {
        ListedPairs(root, Path("few.txt"), subset=2, seed=seed).listing().probe
        for seed in range(20)
    }
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"subset": 0}, "'subset': expected at least 1"),
        ({"on_missing": "skip"}, "'on_missing': expected 'error' or 'exclude'"),
        ({"on_contradiction": "skip"}, "'on_contradiction': expected 'error' or 'exclude'"),
        ({"aligned_to": "arcface11"}, "'aligned_to': unknown crop"),
        ({"aligned_to": "arcface112", "manifest_file": Path("m.json")}, "got both"),
    ],
)
def test_a_wrong_parameter_is_refused_at_once(values: dict, message: str):
    with pytest.raises(DataContractError, match=message):
        ListedPairs(Path(), Path("few.txt"), **values)


def test_a_subset_larger_than_the_list_is_refused(root: Path):
    with pytest.raises(DataContractError, match=r"at most 4.*got 5"):
        ListedPairs(root, Path("few.txt"), subset=5).listing()


def test_every_missing_image_is_named_by_its_line_or_excluded(root: Path):
    (root / "few.txt").write_text(LIST + "Ann/1 Ann/7 1\nCleo/1 Dan/1 0\n")
    with pytest.raises(DataContractError) as caught:
        ListedPairs(root, Path("few.txt")).listing()
    for text in (
        "2 of 6 pairs", "few.txt:5: image 7 of 'Ann'", "few.txt:6: image 1 of 'Cleo'",
        "few.txt:6: image 1 of 'Dan'",
    ):  # fmt: skip
        assert text in str(caught.value)
    listing = ListedPairs(root, Path("few.txt"), on_missing="exclude").listing()
    assert len(listing) == 4
    assert len({exclusion.pair for exclusion in listing.excluded}) == 2
    assert "Cleo" not in repr(listing)


def test_without_manifest_only_the_images_of_the_list_count(tmp_path: Path):
    write_images(tmp_path, ["Ann_1.png", "Ann_2.png", "Bob_1.png", "Cleo_1.png"])
    (tmp_path / "few.txt").write_text("Ann/1 Ann/2 1\nAnn/1 Bob/1 0\n")
    pairs = ListedPairs(tmp_path, Path("few.txt"), aligned_to="arcface112")
    assert pairs.card().n_images == 3


# --- subsets


@settings(max_examples=200)
@given(
    people=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
    data=st.data(),
)
def test_a_subset_keeps_the_share_of_mated_pairs_and_takes_many_identities(people, data):
    names = [(str(one), str(two)) for one, two in people]
    listing = PairListing(
        probe=tuple(f"p{row}" for row in range(len(names))),
        reference=tuple(f"r{row}" for row in range(len(names))),
        is_mated=tuple(one == two for one, two in names),
        probe_identity=tuple(one for one, _ in names),
        reference_identity=tuple(two for _, two in names),
    )
    n = data.draw(st.integers(1, len(names)))
    rows = subset_rows(listing, n, seed=3)
    assert len(rows) == len(set(rows)) == n
    assert rows == sorted(rows)
    mated = [row for row in rows if listing.is_mated[row]]
    assert len(mated) == round(n * sum(listing.is_mated) / len(listing))
    there = {name for name, is_mated in zip(listing.probe_identity, listing.is_mated, strict=True)
             if is_mated}  # fmt: skip
    assert len({listing.probe_identity[row] for row in mated}) == min(len(mated), len(there))


# --- lines


def line(one: str, two: str, people: str = "AA", where: str = "x:1") -> PairLine:
    return PairLine((one, two), tuple(people), where)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line("a", "a")], r"x:1: expected different images, got the image 'a' 2 times"),
        ([line("a", "b"), line("a", "b", where="x:2")], r"x:2: repeats x:1"),
        ([line("a", "b"), line("c", "b", "AB", "x:2")],
         r"x:2: expected one identity .* x:1, got 'B' here and 'A' there for the image 'b'"),
    ],
)  # fmt: skip
def test_lines_that_contradict_each_other_are_refused(lines: list[PairLine], message: str):
    with pytest.raises(DataContractError, match=message):
        check_distinct(lines)


def test_a_pair_may_be_listed_in_both_directions():
    check_distinct([line("a", "b"), line("b", "a", where="x:2")])


def test_images_that_are_called_mated_are_of_one_identity():
    rows = [("c", "b", True, "x:1"), ("d", "c", True, "x:2"), ("e", "f", True, "x:3"),
            ("b", "e", False, "x:4"), ("g", "h", False, "x:5")]  # fmt: skip
    assert [line.identities for line in inferred(rows)] == [
        ("b", "b"), ("b", "b"), ("e", "e"), ("b", "e"), ("g", "h"),
    ]  # fmt: skip


def test_labels_that_contradict_each_other_are_refused():
    rows = [("a", "b", True, "x:1"), ("b", "c", True, "x:2"), ("a", "c", False, "x:3")]
    with pytest.raises(DataContractError, match="x:3: expected a nonmated pair of two identities"):
        inferred(rows)
    with pytest.raises(DataContractError, match="x:2: expected a mated pair of one identity"):
        inferred(rows, {"a": "Ann", "b": "Ann", "c": "Bob"})
    with pytest.raises(DataContractError, match="x:2: the table of identities lacks an image: 'c'"):
        inferred(rows, {"a": "Ann", "b": "Ann"})


@settings(max_examples=200)
@given(pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15, unique=True))
def test_inferred_identities_are_the_connected_components(pairs):
    rows = [
        (str(one), str(two), True, f"x:{row}") for row, (one, two) in enumerate(pairs) if one != two
    ]
    group = {image: {image} for one, two, *_ in rows for image in (one, two)}
    for one, two, *_ in rows:
        union = group[one] | group[two]
        for image in union:
            group[image] = union
    assert [line.identities for line in inferred(rows)] == [
        (min(group[one]), min(group[two])) for one, two, *_ in rows
    ]


def test_a_list_in_which_no_image_is_there_is_refused(root: Path):
    lines = [line("x.png", "y.png")]
    with pytest.raises(DataContractError, match="1 of 1 pairs"):
        listing_of(lines, FaceFolder(root), "exclude")


# --- text


def test_text_is_read_without_its_mark_and_split_at_both_kinds_of_line_ends(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfAnn\t1\r\nB\xc3\xb6b 2\n\n \n")
    assert lines_of(read_text(path), "x") == ["Ann\t1", "Böb 2"]


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u202e", "\ufeff"]
)
def test_control_characters_are_named_with_line_and_column(char: str):
    with pytest.raises(DataContractError, match=rf"x:2: .*U\+{ord(char):04X} in column 3"):
        lines_of(f"Ann\nBo{char}b\nCleo", "x")


def test_long_lines_are_refused():
    assert lines_of("a" * MAX_LINE, "x")
    with pytest.raises(DataContractError, match=r"x:2: expected at most"):
        lines_of("a\n" + "a" * (MAX_LINE + 1), "x")


def test_very_many_lines_are_refused():
    with pytest.raises(DataContractError, match=f"x: expected at most {MAX_LINES} lines"):
        lines_of("\n" * MAX_LINES + "a", "x")


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path):
    path = tmp_path / "list.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES << 10)  # sparse
    with pytest.raises(DataContractError, match=r"list\.txt: expected at most"):
        read_text(path)


def test_text_that_is_not_utf8_or_no_file_is_refused(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"B\xf6b")
    for path, message in (
        (tmp_path / "list.txt", "UTF-8"), (tmp_path, "a folder or a special file"),
        (Path("/dev/zero"), "a folder or a special file"), (tmp_path / "a\0b", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(DataContractError, match=message):
            read_text(path)


# --- in a suite


@pytest.mark.parametrize(
    "subject",
    [FlatPairs, PatchPairs, ListedPairs, ListedTriplets, CsvPairs, CsvTriplets, CsvIdentities,
     GalleryProbePairs],
)  # fmt: skip
def test_a_suite_sets_the_fields_of_every_list(subject, tmp_path: Path):
    params = {
        "root": "faces", "file": "lists/mine.csv", "aligned_to": "arcface112", "subset": 5,
        "seed": 2, "on_missing": "exclude", "title": "mine",
    }  # fmt: skip
    use = Use("mine", params, "suite.yaml:3:5")
    source = configured(subject(Path("elsewhere"), Path("no.csv")), use, "pairs", tmp_path)
    assert source.name == "mine[5, seed 2]"
    assert source.path == tmp_path / "faces/lists/mine.csv"
    assert source.folder == FaceFolder(tmp_path / "faces", aligned_to=ARCFACE_112)
    wrong = Use("mine", {"on_missing": "never"}, "suite.yaml:3:5")
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:5.*'on_missing'"):
        configured(source, wrong, "pairs", tmp_path)


def test_a_suite_can_describe_a_crop_of_its_own(tmp_path: Path):
    template = [[33, 44], [63, 44], [48, 61], [36, 79], [61, 79]]
    write_images(tmp_path, ["Ann_1.png", "Ann_2.png"], size=(96, 80))
    (tmp_path / "few.txt").write_text("Ann/1 Ann/2 1\n")
    crop = {"name": "mine", "size": [96, 80], "template": template}
    use = Use("mine", {"root": str(tmp_path), "aligned_to": crop}, "suite.yaml:3:5")
    source = configured(ListedPairs(Path(), Path("few.txt")), use, "pairs", tmp_path)
    assert source.folder.crop.size == (96, 80)
    assert source.images(source.listing().probe, source.folder.crop).shape == (1, 3, 96, 80)
    wrong = Use("mine", {"aligned_to": {**crop, "size": [96]}}, "suite.yaml:3:5")
    with pytest.raises(SuiteError, match=r"suite\.yaml:3:5.*'aligned_to': expected arcface112"):
        configured(source, wrong, "pairs", tmp_path)
