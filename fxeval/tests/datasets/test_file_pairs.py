"""Lists of two files and a label, and readers that name each other."""

import pickle
from pathlib import Path

import pytest

from fxeval import datasets
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.file_pairs import FilePairs, parse_file_pairs
from fxeval.datasets.lists.flat_pairs import FlatPairs, PatchPairs
from fxeval.datasets.lists.formats import format_of
from fxeval.datasets.lists.insightface_bin import InsightfaceBin
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.datasets.lists.spaced_lists import ListedPairs, ListedTriplets
from fxeval.datasets.lists.tables import CsvPairs, CsvTriplets, GalleryProbePairs
from fxeval.errors import DataContractError
from fxeval.tests.face_folders import write_images

LIST = (
    "Ann/Ann_0001.png Ann/Ann_0002.png 1\nBob/Bob_0001.png Bob/Bob_0002.png 1\n"
    "Ann/Ann_0001.png Bob/Bob_0001.png 0\n"
)


def people(text: str, *rule: str) -> list[tuple[str, ...]]:
    return [line.identities for line in parse_file_pairs(text, "x", *rule)]


def test_a_list_of_files_and_labels_is_a_list_of_pairs(tmp_path: Path):
    write_images(tmp_path, sorted({file for line in LIST.split("\n") for file in line.split()[:2]}))
    (tmp_path / "pairs.txt").write_text(LIST)
    pairs = FilePairs(tmp_path, Path("pairs.txt"), aligned_to="arcface112")
    listing = pairs.listing()
    assert listing.is_mated == (True, True, False)
    assert listing.probe_identity[0] == listing.reference_identity[0] == listing.probe_identity[2]
    assert len({*listing.probe_identity, *listing.reference_identity}) == 2
    assert pairs.images(listing.probe, ARCFACE_112)[:, 0, 0, 0].tolist() == [1, 3, 1]
    assert datasets.shipped("arcface_pairs") is FilePairs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LIST, ["AnnAnn", "BobBob", "AnnBob"]),
        (LIST.replace("Ann/", "").replace("Bob/", ""), ["AnnAnn", "BobBob", "AnnBob"]),
        (LIST.replace("Ann/", "all/").replace("Bob/", "all/"), ["AnnAnn", "BobBob", "AnnBob"]),
        (LIST.replace("Ann_0", "a_0").replace("Bob_0", "a_0"), ["AnnAnn", "BobBob", "AnnBob"]),
        ("x/Ann/1.jpg x/Ann/2.jpg 1\nx/Ann/1.jpg x/Bob/1.jpg -1", ["AnnAnn", "AnnBob"]),
        ("A n/1.jpg\tA n/2.jpg\t1\nA n/1.jpg\tB/1.jpg\t0", ["A nA n", "A nB"]),
        ("Ann/1.jpg, Ann/2.jpg, True\nAnn/1.jpg,Bob/1.jpg,false", ["AnnAnn", "AnnBob"]),
    ],
)
def test_identities_are_folders_or_names_of_files_whichever_fits_the_labels(text, expected):
    assert ["".join(pair) for pair in people(text)] == expected


def test_the_suite_can_say_what_names_an_identity():
    text = "a/Ann_1.jpg b/Ann_2.jpg 1\na/Ann_1.jpg a/Bob_1.jpg 0\n"
    assert people(text, "stem") == [("Ann", "Ann"), ("Ann", "Bob")]
    assert people(text, "mated") == [("a/Ann_1.jpg",) * 2, ("a/Ann_1.jpg", "a/Bob_1.jpg")]
    with pytest.raises(DataContractError, match=r"x:1: expected a mated pair of one identity"):
        people(text, "folder")
    with pytest.raises(DataContractError, match=r"x:1: expected images named by .*\(stem\)"):
        people("Ann/a.jpg Ann/b.jpg 1", "stem")


def test_identities_that_cannot_be_told_are_asked_for():
    with pytest.raises(DataContractError, match="1 labels of 1 that do not fit the folders and 1"):
        people("1.jpg 2.jpg 1")
    both = "one/Ann_1.jpg one/Ann_2.jpg 1\none/Ann_1.jpg two/Bob_1.jpg 0\n"
    assert people(both)[0] == ("one", "one")
    split = both + "three/Ann_7.jpg four/Cid_1.jpg 0\n"  # one Ann or two?
    with pytest.raises(DataContractError, match=r"got 4 by folders and 3 by names"):
        people(split)


def test_a_few_wrong_labels_are_named_by_their_lines():
    lines = [f"P{i}/1.jpg P{i}/2.jpg 1" for i in range(30)] + ["P1/1.jpg P2/1.jpg 1"]
    with pytest.raises(DataContractError, match=r"x:31: expected a mated pair of one identity"):
        people("\n".join(lines))


@pytest.mark.parametrize(
    "line", ["a.jpg b.jpg", "a.jpg b.jpg 2", "a b.jpg c.jpg 1", "../a.jpg b 1"]
)
def test_a_line_of_another_form_is_refused(line: str):
    with pytest.raises(DataContractError, match="x:1: expected"):
        people(line)


def test_the_first_faults_of_a_list_are_told_at_once_and_the_others_counted():
    with pytest.raises(DataContractError) as caught:
        people("\n".join(["a/1.jpg a/2.jpg 1"] + ["odd"] * 40))
    assert str(caught.value).splitlines()[0] == "40 faults:"
    assert len(str(caught.value).splitlines()) == 7
    assert "x:2: expected 'file file 1'" in str(caught.value)
    assert "and 35 more." in str(caught.value)
    assert caught.value.public.endswith("; it is the first of 40 faults")


# --- readers that name each other

FORMATS = {
    "arcface_pairs": LIST,
    "lfw": "1\t1\nAnn\t0001\t0002\nAnn\t0001\tBob\t0001\n",
    "calfw": "".join(f"{file} 1\n" for file in ("Ann_1.jpg", "Ann_2.jpg") * 20),
    "patch_lfw": "1.jpg 2.jpg 1\n3.jpg 1.jpg -1\n",
    "csv": "img1,img2,label,id1,id2\na.jpg,b.jpg,1,Ann,Ann\n",
    "csv_triplets": "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\na,b,c,A,A,B\n",
    "gallery_probe": "G,P,T\na.jpg,b.jpg,1\n",
    "listed": "# own\nAnn/0001 Ann/0002 1\nAnn/0001 Bob/0001 0\n",
    "listed_triplets": "Ann/0001 Ann/0002 Bob/0001\n",
    "insightface_bin": pickle.dumps(([b"x", b"y"], [True])).decode("latin1"),
}
READERS = {
    "arcface_pairs": FilePairs, "calfw": FlatPairs, "patch_lfw": PatchPairs, "csv": CsvPairs,
    "csv_triplets": CsvTriplets, "gallery_probe": GalleryProbePairs, "listed": ListedPairs,
    "listed_triplets": ListedTriplets, "lfw": LfwPairs,
}  # fmt: skip


@pytest.mark.parametrize("known", FORMATS)
def test_a_reader_that_refuses_a_list_names_the_one_that_reads_it(tmp_path: Path, known: str):
    data = FORMATS[known].encode("latin1")
    assert format_of(data) == known
    (tmp_path / "list").write_bytes(data)
    refused = 0
    for name, reader in READERS.items():
        source = reader(tmp_path, Path("list"), aligned_to="arcface112")
        if name == known or (name, known) == ("arcface_pairs", "patch_lfw"):  # it reads -1 as well
            continue
        with pytest.raises(DataContractError) as caught:
            source.listing()
        assert f"Write 'use: {known}'." in str(caught.value), name
        refused += 1
    assert refused >= 7
    if known != "insightface_bin":
        with pytest.raises(DataContractError, match=f"Write 'use: {known}'"):
            InsightfaceBin(tmp_path / "list", "x").listing()


def test_a_list_of_no_known_form_gets_no_advice(tmp_path: Path):
    (tmp_path / "list").write_text("hello\nworld\n")
    for reader in READERS.values():
        with pytest.raises(DataContractError) as caught:
            reader(tmp_path, Path("list"), aligned_to="arcface112").listing()
        assert "use:" not in str(caught.value)
