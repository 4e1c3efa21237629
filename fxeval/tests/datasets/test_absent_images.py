"""Lists that do not fit their folders: a few lines, with what the folder calls its files."""

import json
from collections import Counter
from pathlib import Path

import pytest

from fxeval.contracts import PairSource
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.lists.file_pairs import FilePairs
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.datasets.lists.tables import CsvIdentities, CsvPairs
from fxeval.errors import DataContractError
from fxeval.tests.face_folders import write_images
from fxeval.tests.photographs import Given, photographs, run

LISTED = ["Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg", "Bob/Bob_0002.jpg"]


def pairs_of(root: Path, files: list[str], **more: object) -> PairSource:
    """A list of two mated pairs over a folder of other files."""
    write_images(root, files)
    (root / "list.txt").write_text(f"{LISTED[0]} {LISTED[1]} 1\n{LISTED[2]} {LISTED[3]} 1\n")
    return FilePairs(root, Path("list.txt"), aligned_to="arcface112", **more)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ("{0}/{0}_{1:04d}.png",
         "4 of the missing ones may be there with another suffix: the image 'Ann/Ann_0001.jpg' as "
         "'Ann/Ann_0001.png'."),
        ("{0}/{0}_{1}.jpg",
         "4 of the missing ones may be there with other zeros before the number: the image "
         "'Ann/Ann_0001.jpg' as 'Ann/Ann_1.jpg'."),
        ("{0}_{1:04d}.jpg",
         "4 of the missing ones may be there in another folder: the image 'Ann/Ann_0001.jpg' as "
         "'Ann_0001.jpg'."),
        ("faces/{0}/{0}_{1:04d}.jpg", "may be there in another folder"),
        ("{2}/{2}_{1:04d}.jpg",
         "4 of the missing ones may be there in another case: the image 'Ann/Ann_0001.jpg' as "
         "'ann/ann_0001.jpg'."),
        ("x/{2} {1}.PNG", "4 of the missing ones may be there under a name that differs"),
        ("{0}/{0}_002{1}.jpg",
         "4 of the missing ones are further images of people who are there: of 'Ann' it has 2, "
         "such as 'Ann/Ann_0021.jpg', 'Ann/Ann_0022.jpg'."),
    ],
)  # fmt: skip
def test_the_folder_says_what_it_calls_the_images(tmp_path: Path, there: str, told: str):
    people = [("Ann", 1), ("Ann", 2), ("Bob", 1), ("Bob", 2)]
    files = [there.format(name, number, name.lower()) for name, number in people]
    with pytest.raises(DataContractError) as caught:
        pairs_of(tmp_path, files).listing()
    message = str(caught.value)
    assert "2 of 2 pairs have a missing image: 4 images are not in" in message
    assert "The folder has 4 images, such as '" in message
    assert told in message
    assert caught.value.public == ("2 of 2 pairs have a missing image; the first is list.txt:1")


def test_images_of_a_list_of_names_and_numbers_are_found_by_their_likeness(tmp_path: Path):
    write_images(tmp_path, ["ann lee/1.png", "ann lee/2.png", "Bob/x1.png"])
    (tmp_path / "list.txt").write_text("1\t1\nAnn_Lee\t0001\t0002\nAnn_Lee\t1\tBob\t01\n")
    with pytest.raises(DataContractError, match=r"image 1 of 'Ann_Lee' as 'ann lee/1\.png'"):
        LfwPairs(tmp_path, Path("list.txt"), aligned_to="arcface112").listing()


def test_a_thousand_missing_images_are_five_lines_and_a_count(tmp_path: Path):
    write_images(tmp_path, ["Cid/1.png"])
    rows = [f"P{i}/1.png,P{i}/2.png,1,P{i},P{i}" for i in range(500)]
    (tmp_path / "list.csv").write_text("img1,img2,label,id1,id2\n" + "\n".join(rows))
    with pytest.raises(DataContractError) as caught:
        CsvPairs(tmp_path, Path("list.csv"), aligned_to="arcface112").listing()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("500 of 500 pairs have a missing image: 1000 images are not in ")
    assert len(lines) == 9
    assert lines[6] == "  and 995 more."
    people = ["img,identity", *(f"P{i}.png,P{i}" for i in range(50))]
    (tmp_path / "people.csv").write_text("\n".join(people))
    with pytest.raises(DataContractError, match="50 of 50 images are not in the folder") as caught:
        CsvIdentities(tmp_path, Path("people.csv"), aligned_to="arcface112").identities()
    assert len(str(caught.value).splitlines()) == 9


def test_many_images_that_cannot_be_used_are_five_lines_and_a_count(tmp_path: Path):
    source = pairs_of(tmp_path, LISTED)
    for number in range(40):
        (tmp_path / f"{number:02d}.jpg").write_bytes(b"no image")
    folder = FaceFolder(tmp_path, aligned_to=source.folder.aligned_to)
    broken = [face.id for face in folder.faces if "/" not in face.file]
    with pytest.raises(DataContractError, match="40 of 40 images cannot be used") as caught:
        folder.images(broken, folder.aligned_to)
    assert len(str(caught.value).splitlines()) == 7


def test_an_image_that_failed_when_the_faces_were_prepared_is_missed_for_that_reason(
    tmp_path: Path,
):
    photographs(tmp_path / "source")
    done = run(tmp_path / "source", Given(**{"0002": ((5.0, 5.0),) * 5}))
    root = done.manifest.parent
    (root / "list.csv").write_text(
        "img1,img2,label,id1,id2\nAnn/0001.jpg,Ann/0002.png,1,Ann,Ann\n"
        "Ann/0001.jpg,Bob/img7.jpeg,0,Ann,Bob\nAnn/0001.jpg,Cy/1.jpg,0,Ann,Cy\n"
    )
    with pytest.raises(DataContractError) as caught:
        CsvPairs(root, Path("list.csv")).listing()
    assert "the image 'Ann/0002.png' (failed in prepare: landmarks that fix no position)" in str(
        caught.value
    )
    listing = CsvPairs(root, Path("list.csv"), on_missing="exclude").listing()
    assert Counter(one.reason for one in listing.excluded) == {
        "an image failed in prepare: landmarks that fix no position": 1,
        "an image is not in the folder": 1,
    }
    assert len(listing) == 1
    content = json.loads(done.manifest.read_text())
    content["failures"][0]["reason"] = "Ann Lee moved"
    done.manifest.write_text(json.dumps(content))
    (one, _) = CsvPairs(root, Path("list.csv"), on_missing="exclude").listing().excluded
    assert one.reason == "an image failed in prepare"


def test_a_linked_folder_is_named_as_the_reason(tmp_path: Path):
    write_images(tmp_path / "elsewhere", LISTED[:2])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Ann").symlink_to(tmp_path / "elsewhere" / "Ann")
    source = pairs_of(tmp_path / "root", LISTED[2:])
    with pytest.raises(DataContractError, match="which are not followed: 1, such as 'Ann'"):
        source.listing()
