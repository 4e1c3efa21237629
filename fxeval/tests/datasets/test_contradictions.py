"""A list against its pictures: one picture under two names, one person under two, and manifests."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fxeval.contracts import PairListing, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.contradictions import ContradictoryListError, against_manifest
from fxeval.datasets.lists.file_pairs import FilePairs
from fxeval.datasets.lists.flat_pairs import PatchPairs
from fxeval.datasets.lists.identity_folders import IdentityFolders
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.datasets.lists.tables import CsvPairs, CsvTriplets
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.selection import chosen_rows, load_pairs
from fxeval.models.loading import TorchFaceModel
from fxeval.tests.face_folders import entry, write_manifest
from fxeval.tests.subjects import CROP, ConvNet
from fxeval.verification.measured import measure_list

HEADER = "img1,img2,label,id1,id2\n"


def face(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)


def write(path: Path, seed: int, *how: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), face(seed), how)


def people(folder: Path, n: int) -> Path:
    for person in range(n):
        for number in (1, 2):
            write(folder / f"P{person}" / f"{number}.png", 10 * person + number)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six people with two images each."""
    return people(tmp_path, 6)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """As many people as it takes to measure how well a model verifies them."""
    return people(tmp_path, 32)


def listed(root: Path, *more: str, **others: object) -> CsvPairs:
    """The mated pairs of all people, as many nonmated ones, and further rows."""
    n = len([*root.glob("P*")])
    rows = [f"P{i}/1.png,P{i}/2.png,1,P{i},P{i}" for i in range(n)]
    rows += [f"P{i}/1.png,P{(i + 1) % n}/2.png,0,P{i},P{(i + 1) % n}" for i in range(n)]
    (root / "pairs.csv").write_text(HEADER + "\n".join([*rows, *more]) + "\n")
    return CsvPairs(root, Path("pairs.csv"), **{"aligned_to": "arcface112", **others})


def loaded(source: PairSource) -> int:
    """Read the images of all mated pairs, as a cell does; return their number."""
    listing = source.listing()
    rows = chosen_rows(listing, None, 0, "x")
    return len(load_pairs(source, listing.take(rows), ARCFACE_112))


def verified(source: PairSource):
    model = TorchFaceModel("tiny", CROP, ConvNet(), "cosine", 0.5, "a" * 64)
    return measure_list(model, source, ForwardPool(batch_size=16))


# --- pictures


@pytest.mark.parametrize("how", [(), (cv2.IMWRITE_PNG_COMPRESSION, 0)])
def test_a_mated_pair_of_one_picture_is_a_fault_of_the_list_with_its_line(root: Path, how):
    assert loaded(listed(root)) == 6
    write(root / "P3" / "2.png", 31, *how)  # the same pixels, in the same or in other bytes
    with pytest.raises(ContradictoryListError) as caught:
        loaded(listed(root))
    said = (
        "pairs 'pairs': 1 of 6 entries are contradictory (a mated pair of one picture under two "
        "names: 1)"
    )
    assert caught.value.public == f"{said}; the first is pairs.csv:5"
    assert str(caught.value).startswith(f"{said}:\n  pairs.csv:5: a mated pair of one picture")
    assert "'on_contradiction: exclude'" in str(caught.value)
    listing = listed(root, on_contradiction="exclude").listing()
    assert Counter(one.reason for one in listing.excluded) == {
        "a mated pair of one picture under two names": 1
    }
    assert len(listing) == 11
    assert loaded(listed(root, on_contradiction="exclude")) == 5


def test_one_persons_picture_under_two_identities_is_found_in_the_whole_list(many: Path):
    assert verified(listed(many)).verified is not None
    write(many / "Q" / "1.png", 21)  # P2's first picture under another name
    source = listed(many, "Q/1.png,P5/1.png,0,Q,P5")
    assert loaded(source) == 32  # no mated pair has it
    with pytest.raises(ContradictoryListError, match="3 of 65 entries are contradict") as caught:
        verified(source)
    for place in ("pairs.csv:4: ", "pairs.csv:36: ", "pairs.csv:66: a picture of two identities"):
        assert place in str(caught.value)
    left = replace(source, on_contradiction="exclude")
    assert len(left.listing()) == 62
    assert verified(left).verified is not None


def test_a_nonmated_pair_of_one_picture_is_found(many: Path):
    write(many / "Q" / "1.png", 21)
    with pytest.raises(ContradictoryListError, match=r"a picture of two identities: 3\)"):
        verified(listed(many, "P2/1.png,Q/1.png,0,P2,Q"))


def test_a_nonmate_that_is_the_anchors_picture_is_found(root: Path):
    write(root / "Q" / "1.png", 11)
    (root / "t.csv").write_text(
        "anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\nP1/1.png,P1/2.png,Q/1.png,P1,P1,Q\n"
    )
    source = CsvTriplets(root, Path("t.csv"), aligned_to="arcface112")
    with pytest.raises(ContradictoryListError, match=r"t\.csv:2: a picture of two identities"):
        loaded(source)


def test_pairs_that_are_known_to_be_labelled_wrongly_contradict_nothing(root: Path):
    write(root / "Q" / "1.png", 11)
    (root / "list.txt").write_text("1 2\nP1 1 2\nP2 1 2\nP1 1 Q 1\nP2 1 P1 2\n")
    source = LfwPairs(root, Path("list.txt"), aligned_to="arcface112")
    with pytest.raises(ContradictoryListError, match=r"list\.txt:4: a picture of two identities"):
        load_pairs(source, source.listing(), ARCFACE_112)
    (root / "wrong.txt").write_text("P1 1 Q 1\n")
    known = replace(source, errata_file=Path("wrong.txt"))
    assert len(load_pairs(known, known.listing(), ARCFACE_112)) == 4
    assert len(replace(source, on_contradiction="exclude").listing()) == 2


def test_a_source_of_the_users_own_is_compared_as_well():
    @dataclass
    class Own:
        name: str = "own"
        banner: str | None = None

        def listing(self):
            ids = tuple(str(i) for i in range(4))
            return PairListing(ids, tuple(f"{i}b" for i in ids), (True,) * 4, ids, ids)

        def images(self, image_ids, crop):
            return torch.stack([torch.full((3, *crop.size), int(i[0])) for i in image_ids]).byte()

    with pytest.raises(
        ContradictoryListError, match="row 1: a mated pair of one picture"
    ) as caught:
        loaded(Own())
    assert caught.value.public.endswith("; the first is row 1")


def test_a_folder_of_identities_leaves_out_pictures_that_it_has_twice(many: Path):
    write(many / "P3" / "3.png", 31, cv2.IMWRITE_PNG_COMPRESSION, 0)
    write(many / "Q" / "1.png", 21, cv2.IMWRITE_PNG_COMPRESSION, 0)
    write(many / "Q" / "2.png", 9)
    source = IdentityFolders(many)
    assert Counter(one.reason for one in source.identities().excluded) == {
        "another file holds the same image": 1,
        "two identities claim the same image": 2,
        "its identity has fewer than 2 images": 2,
    }
    assert verified(source).verified is not None


# --- manifests


def described(root: Path, **owners: str) -> None:
    """Write a manifest in which some files have other identities."""
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("P*/*.png"))
    images = [
        entry(root, file, owners.get(file[:2] + file[3], f"the {file[:2]}"), number)
        for number, file in enumerate(files)
    ]
    write_manifest(root, {"images": images})


def test_identities_of_a_list_are_compared_with_those_of_the_manifest(root: Path):
    described(root)
    assert loaded(listed(root, aligned_to=None)) == 6  # names may differ
    described(root, P21="somebody else")
    with pytest.raises(ContradictoryListError) as caught:
        listed(root, aligned_to=None).listing()
    assert "pairs.csv:4: identities that contradict the manifest" in str(caught.value)
    assert caught.value.public.startswith("manifest.json: ")
    assert "somebody" not in caught.value.public
    described(root, P21="the P1", P22="the P1")  # two people of the list are one of the manifest
    with pytest.raises(ContradictoryListError, match="manifest"):
        listed(root, aligned_to=None).listing()
    left = listed(root, aligned_to=None, on_contradiction="exclude").listing()
    assert {one.reason for one in left.excluded} == {"identities that contradict the manifest"}


def test_a_list_that_names_nobody_takes_the_identities_of_the_manifest(root: Path):
    described(root)
    (root / "list.txt").write_text(
        "P1/1.png P1/2.png 1\nP2/1.png P3/1.png -1\nP2/2.png P1/1.png -1\n"
    )
    listing = PatchPairs(root, Path("list.txt")).listing()
    assert len({*listing.probe_identity, *listing.reference_identity}) == 3  # not 4
    described(root, P31="the P2")
    with pytest.raises(ContradictoryListError, match=r"list\.txt:2: identities that contradict"):
        PatchPairs(root, Path("list.txt")).listing()


def test_a_manifest_that_names_nobody_contradicts_nothing(root: Path):
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("P*/*.png"))
    images = [entry(root, file, "", 0) for file in files]
    for one in images:
        one["identity"] = one["sha256"][:16]
    write_manifest(root, {"images": images})
    assert loaded(listed(root, aligned_to=None)) == 6
    (root / "list.txt").write_text("P1/1.png P1/2.png 1\nP1/1.png P2/1.png 0\n")
    assert len(FilePairs(root, Path("list.txt")).listing()) == 2


def test_one_identity_of_a_list_is_one_of_the_manifest_and_the_reverse():
    assert against_manifest([[("1", "A"), ("1", "A")], [("1", "A"), ("2", "B")]]) == []
    assert against_manifest([[("1", "A"), ("1", "B")]]) == [0]
    assert against_manifest([[("1", "A"), ("2", "B")], [("3", "B")]]) == [1]
