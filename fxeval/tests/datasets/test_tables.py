"""Tables of pairs, triplets and identities."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fxeval.contracts import IdentitySource, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.tables import (
    CsvIdentities,
    CsvPairs,
    CsvTriplets,
    GalleryProbePairs,
    parse_csv_pairs,
    parse_csv_triplets,
    parse_gallery_probe,
    parse_identities,
)
from fxeval.errors import DataContractError
from fxeval.tests.face_folders import read_manifest, write_folder, write_manifest

HEADER = "img1,img2,label,id1,id2,fold\n"
PAIRS = HEADER + (
    "Ann/0001.png,Ann/0002.png,1,ann,ann,1\n"
    "Ann/0001.png,Bob/0001.png,0,ann,bob,1\n"
    "Bob/0001.png,Bob/0002.png,true,bob,bob,3\n"
    "Bob/0002.png,Ann/0002.png,false,bob,ann,3\n"
)
TRIPLETS = (
    "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\n"
    "Ann/0001.png,Ann/0002.png,Bob/0001.png,ann,ann,bob\n"
    "Bob/0001.png,Bob/0002.png,Ann/0002.png,bob,bob,ann\n"
)
FAME = "G,P,T\nAnn/0001.png,Ann/0002.png,1\nAnn/0001.png,Bob/0001.png,0\n"
PEOPLE = (
    "img,identity,split\n"
    "Ann/0001.png,ann,train\nAnn/0002.png,ann,train\nBob/0001.png,bob,test\n"
    "Bob/0002.png,bob,test\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path, {"Ann": 2, "Bob": 2})
    for name, text in (
        ("pairs", PAIRS), ("triplets", TRIPLETS), ("fame", FAME), ("people", PEOPLE)
    ):  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


# --- pairs


def test_a_table_of_pairs_is_a_source(root: Path):
    pairs = CsvPairs(root, Path("pairs.csv"))
    assert isinstance(pairs, PairSource)
    listing = pairs.listing()
    assert listing.is_mated == (True, False, True, False)
    assert listing.fold == (0, 0, 1, 1)
    assert listing.probe_identity[0] == listing.probe_identity[1] == listing.reference_identity[3]
    assert not any(name in repr(listing) for name in ("Ann", "ann", "Bob", "bob"))
    assert pairs.images(listing.probe[:1], ARCFACE_112).shape == (1, 3, 112, 112)


def test_a_table_without_folds_has_none(root: Path):
    rows = [row.rpartition(",")[0] for row in PAIRS.splitlines()]
    (root / "pairs.csv").write_text("\n".join(rows))
    assert CsvPairs(root, Path("pairs.csv")).listing().fold == ()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + PAIRS,
        PAIRS.replace("\n", "\r\n"),
        PAIRS.replace("true", "TRUE").replace("false", "False"),
        PAIRS.replace("ann", '"ann"'),
        PAIRS + "\n\n",
        "\n".join(",".join(row.split(",")[::-1]) for row in PAIRS.splitlines()),
    ],
)
def test_tables_that_say_the_same_are_the_same_listing(root: Path, text: str):
    expected = CsvPairs(root, Path("pairs.csv")).listing()
    (root / "other.csv").write_bytes(text.encode())
    assert CsvPairs(root, Path("other.csv")).listing() == expected


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("img1,img2,label,id1", r"x:1: .* \(missing 'id2'\)"),
        ("img1,img2,label,id1,id2,flod", r"x:1: .* 'flod'; did you mean 'fold'\?"),
        ("img1,img2,same,id1,id2", r"\(missing 'label'; unknown 'same'\)"),
        ("img1, img2,label,id1,id2", r"\(missing 'img2'; unknown 'img2'\)"),
        ("Img1,img2,label,id1,id2", r"\(missing 'img1'; unknown 'Img1'\)"),
        ("img1;img2;label;id1;id2", r"separated by commas, got 'img1;img2;label;id1;id2'"),
        ("img1,img2,label,id1,id2,id2", r"\(a repeated column\)"),
        ("", r"\(missing 'img1', 'img2', 'label', 'id1', 'id2'\)"),
        ('"img1,img2', r"x:1: expected comma-separated cells"),
        (",".join(["x"] * 2000), r"x:1:"),
    ],
)
def test_a_wrong_header_is_named_by_its_columns(header: str, message: str):
    with pytest.raises(DataContractError, match=message) as caught:
        parse_csv_pairs(header + "\na.png,b.png,1,Ann,Ann\n", "x")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,b.png,2,ann,ann,1", r"x:6: expected a label of 1 or true .* got '2'"),
        ("a.png,b.png,same,ann,ann,1", r"x:6: expected a label .* got 'same'"),
        ("a.png,b.png,1,ann,bob,1", r"x:6: expected a mated pair of one .*, got 'ann' and 'bob'"),
        ("a.png,b.png,0,ann,ann,1", r"x:6: expected a nonmated pair of two identities"),
        ("a.png,a.png,1,ann,ann,1", r"x:6: expected different images, got the image 'a.png' 2"),
        ("Ann/0001.png,Ann/0002.png,1,ann,ann,1", r"x:6: repeats x:2"),
        ("Ann/0001.png,b.png,1,bob,bob,1",
         r"x:6: expected one identity .* x:2, got 'bob' here and 'ann' there for .*'Ann/0001.png'"),
        ("a.png,b.png,1,ann,ann", r"x:6: expected 6 cells \(img1,img2,label,id1,id2,fold\)"),
        ("a.png,b.png,1,ann,ann,1,1", r"x:6: expected 6 cells"),
        ("a.png,b.png,1,ann,,1", r"x:6: expected 6 cells"),
        ("a.png,b.png,1,ann,ann ,1", r"x:6: expected 6 cells .* spaces around"),
        ("", r"x:6: expected 6 cells"),
        ("a.png,b.png,1,ann,ann,-1", r"x:6: expected the number of a fold, got '-1'"),
        ("a.png,b.png,1,ann,ann,one", r"x:6: expected the number of a fold"),
        ("a.png,b.png,1,ann,ann,1e3", r"x:6: expected the number of a fold"),
        ("../a.png,b.png,1,ann,ann,1", r"x:6: expected a relative path .*'../a.png'"),
        ("a.png,/etc/passwd,1,ann,ann,1", r"x:6: expected a relative path"),
        ('"a.png,b.png,1,ann,ann,1', r"x:6: expected comma-separated cells"),
        ('"a"x,b.png,1,ann,ann,1', r"x:6: expected comma-separated cells"),
        ("a\0.png,b.png,1,ann,ann,1", r"x:6: expected plain text, .* U\+0000"),
        ("a\x1b.png,b.png,1,ann,ann,1", r"x:6: expected plain text, .* U\+001B"),
        ("a" * 5000, r"x:6: expected at most 4000 characters"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named_by_its_line(row: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_csv_pairs(f"{PAIRS}{row}\nc.png,d.png,1,dan,dan,1", "x")


def test_a_table_without_rows_is_refused():
    with pytest.raises(DataContractError, match="x: expected at least one row"):
        parse_csv_pairs(HEADER, "x")


def test_a_cell_that_starts_like_a_formula_is_only_text():
    (line,) = parse_csv_pairs("img1,img2,label,id1,id2\n=a.png,+b.png,1,@Ann,@Ann", "x")
    assert line.images == ("=a.png", "+b.png")


# --- triplets


def test_a_triplet_is_a_mated_pair_with_a_nonmate(root: Path):
    triplets = CsvTriplets(root, Path("triplets.csv"))
    listing = triplets.listing()
    assert listing.is_mated == (True, True)
    assert listing.contrast == (listing.probe[1], listing.reference[0])
    assert listing.contrast_identity == listing.probe_identity[::-1]
    assert listing.fold == ()
    chosen = replace(triplets, subset=1).listing()
    assert len(chosen.contrast) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,b.png,c.png,ann,bob,cleo", r"x:4: expected a mated pair of one identity"),
        ("a.png,b.png,c.png,ann,ann,ann", r"x:4: expected a nonmate of another identity"),
        ("a.png,b.png,b.png,ann,ann,cleo", r"x:4: expected different images, got the image 'b"),
        ("Ann/0001.png,Ann/0002.png,Bob/0001.png,ann,ann,bob", r"x:4: repeats x:2"),
        ("Ann/0001.png,b.png,c.png,cleo,cleo,bob", r"x:4: expected one identity"),
    ],
)
def test_a_wrong_triplet_is_refused(row: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_csv_triplets(TRIPLETS + row, "x")


# --- gallery and probe


def test_the_probe_of_a_protocol_is_explained(root: Path):
    listing = GalleryProbePairs(root, Path("fame.csv")).listing()
    assert listing.is_mated == (True, False)
    assert listing.reference[0] == listing.reference[1]
    assert listing.probe_identity[0] == listing.reference_identity[0]


def test_a_protocol_takes_identities_from_a_table(root: Path):
    pairs = GalleryProbePairs(root, Path("fame.csv"), identities_file=Path("people.csv"))
    assert pairs.listing().is_mated == (True, False)
    (root / "people.csv").write_text(PEOPLE.replace("Bob/0001.png,bob,test", "Bob/0001.png,ann,x"))
    with pytest.raises(DataContractError, match=r"fame\.csv:3: expected a nonmated pair"):
        pairs.listing()
    (root / "people.csv").write_text("img,identity\nAnn/0001.png,ann\n")
    with pytest.raises(DataContractError, match=r"lacks an image: 'Ann/0002\.png'"):
        pairs.listing()


def test_a_protocol_with_other_columns_is_refused():
    with pytest.raises(DataContractError, match="missing 'G', 'P', 'T'; unknown 'img1'"):
        parse_gallery_probe("img1\na.png", "x")


# --- identities


def test_a_table_of_identities_is_a_source(root: Path):
    people = CsvIdentities(root, Path("people.csv"))
    assert isinstance(people, IdentitySource)
    listing = people.identities()
    assert listing.split == ("train", "train", "test", "test")
    assert listing.identity[0] == listing.identity[1] != listing.identity[2]
    assert people.images(listing.image, ARCFACE_112)[:, 0, 56, 56].tolist() == [1, 2, 3, 4]
    assert people.card().n_images == 4
    assert "ann" not in repr(listing).lower()


def test_a_table_without_splits_has_none(root: Path):
    (root / "people.csv").write_text("img,identity\nAnn/0001.png,ann\n")
    assert CsvIdentities(root, Path("people.csv")).identities().split == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Cleo/0001.png,ann,test", r"x:6: expected each identity in one split, got two "
         r"\(here and in x:2\): 'ann' in 'test' and 'train'"),
        ("Ann/0001.png,bob,test", r"x:6: repeats the image in x:2"),
        ("Ann/0001.png,ann,train", r"x:6: repeats the image in x:2"),
        ("c.png,,test", r"x:6: expected 3 cells"),
        ("../c.png,cleo,test", r"x:6: expected a relative path"),
    ],
)  # fmt: skip
def test_a_wrong_identity_is_refused(row: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_identities(PEOPLE + row, "x", shared_identities=False)


def test_identities_may_be_shared_between_splits_when_asked(root: Path):
    (root / "people.csv").write_text(
        PEOPLE.replace("Bob/0002.png,bob,test", "Bob/0002.png,bob,train")
    )
    people = CsvIdentities(root, Path("people.csv"))
    with pytest.raises(
        DataContractError, match=r"people\.csv:5: expected each identity in one split"
    ):
        people.identities()
    assert len(replace(people, shared_identities=True).identities()) == 4


def test_missing_images_are_named_or_excluded(root: Path):
    (root / "people.csv").write_text(PEOPLE + "Cleo/0001.png,cleo,test\nDan/0001.png,dan,test\n")
    people = CsvIdentities(root, Path("people.csv"))
    with pytest.raises(DataContractError) as caught:
        people.identities()
    for text in ("2 of 6 images", "people.csv:6: the image 'Cleo", "people.csv:7: the image 'Dan"):
        assert text in str(caught.value)
    listing = replace(people, on_missing="exclude").identities()
    assert len(listing) == 4
    assert [one.reason for one in listing.excluded] == ["the image is not in the folder"] * 2
    assert "Cleo" not in repr(listing)


def test_a_second_file_with_the_same_content_is_excluded(root: Path):
    write_folder(root, {"Ann": 2, "Bob": 2})
    manifest = (root / "manifest.json").read_text()
    two, one = ((root / f"Bob/000{number}.png").read_bytes() for number in (2, 1))
    (root / "Bob/0002.png").write_bytes(one)
    digests = [hashlib.sha256(data).hexdigest() for data in (two, one)]
    (root / "manifest.json").write_text(manifest.replace(*digests))
    people = CsvIdentities(root, Path("people.csv"))
    listing = people.identities()
    assert len(listing) == 3
    assert [one.reason for one in listing.excluded] == ["another file holds the same image"]
    (root / "people.csv").write_text(PEOPLE.replace("Bob/0002.png,bob", "Bob/0002.png,cleo"))
    with pytest.raises(DataContractError, match=r"people\.csv:5: expected one identity"):
        people.identities()


def test_a_subset_of_images_is_of_as_many_identities_as_possible(root: Path):
    people = CsvIdentities(root, Path("people.csv"), subset=2)
    assert people.name == "people[2]"
    for seed in range(10):
        listing = replace(people, seed=seed).identities()
        assert max(Counter(listing.identity).values()) == 1
    assert len({replace(people, seed=seed).identities().image for seed in range(20)}) > 1
    with pytest.raises(DataContractError, match="at most 4"):
        replace(people, subset=5).identities()


# --- further columns


def with_columns(*columns, text=PAIRS):
    """Return a table with further columns, each given as its name and its cells."""
    header, *lines = text.splitlines()
    cells = zip(*(own for _, own in columns), strict=True)
    added = [",".join([line, *own]) for line, own in zip(lines, cells, strict=True)]
    return "\n".join([",".join([header, *(name for name, _ in columns)]), *added]) + "\n"


def test_further_columns_of_a_table_are_attributes_of_its_pairs(root: Path):
    text = with_columns(
        ("pose", ["left", "right", "", "<i>up</i>"]), ("age gap", ["1", "", "nan", "-2.5"])
    )
    (root / "pairs.csv").write_text(text)
    found = CsvPairs(root, Path("pairs.csv"))
    assert dict(found.listing().attributes) == {
        "pose": ("left", "right", None, "<i>up</i>"),
        "age gap": (1.0, None, None, -2.5),
    }
    part = CsvPairs(root, Path("pairs.csv"), subset=2).listing()
    assert len(part.attributes["pose"]) == len(part) == 2
    assert found.attributes([]) == {}


def test_triplets_have_further_columns_as_well(root: Path):
    text = with_columns(("glasses", ["yes", "no"]), text=TRIPLETS)
    (root / "triplets.csv").write_text(text)
    listing = CsvTriplets(root, Path("triplets.csv")).listing()
    assert listing.attributes == {"glasses": ("yes", "no")}
    assert listing.with_nonmates().attributes == {"glasses": ("yes", "no", "yes", "no")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folds", r"x:1: a column has nearly the name .*'folds'; did you mean 'fold'\?"),
        ("Label", r"did you mean 'label'\?"),
        (" pose", "expected names of columns of 1 to 64 printable characters, without spaces"),
        ("", "expected names of columns"),
        ("po\x1bse", r"expected plain text, got character U\+001B"),
    ],
)
def test_the_name_of_a_further_column_is_printable_and_unlike_the_known_ones(name, message):
    with pytest.raises(DataContractError, match=message) as error:
        parse_csv_pairs(with_columns((name, ["1", "2", "3", "4"])), "x")
    assert "\x1b" not in str(error.value)


def test_a_table_has_at_most_a_hundred_further_columns():
    def table(n):
        return with_columns(*((f"zz{number}", ["1"] * 4) for number in range(n)))

    assert len(parse_csv_pairs(table(100), "x")[0].attributes) == 100
    with pytest.raises(DataContractError, match="at most 100 further columns, got 101"):
        parse_csv_pairs(table(101), "x")


def test_images_have_the_attributes_of_the_manifest(root: Path):
    content = read_manifest(root)
    for number, image in enumerate(content["images"]):
        image["attributes"] = {"yaw": number * 10.5} | ({"hat": True} if number else {})
    write_manifest(root, content)
    source = CsvPairs(root, Path("pairs.csv"))
    listing = source.listing()
    assert source.attributes(listing.probe[:2]) == {"yaw": (0.0, 0.0)}
    assert source.attributes(listing.reference[:1] + listing.probe[:1]) == {
        "yaw": (10.5, 0.0), "hat": (True, None),
    }  # fmt: skip
    with pytest.raises(DataContractError, match="has no image 'nobody'"):
        source.attributes(["nobody"])
