"""Label maps of a user's own: a folder of PNG files and ``classes.yaml``."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, Crop, align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.label_folder import Classes, LabelFolder, labels_in, read_classes
from fxeval.datasets.faces.label_maps import PartLabels
from fxeval.datasets.faces.part_labels import PART_NAMES
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import DataContractError
from fxeval.fixtures.pairs import PACK
from fxeval.tests.datasets.test_part_labels import CELEBAMASK
from fxeval.tests.face_folders import LANDMARKS, read_manifest, write_folder, write_manifest
from fxeval.tests.label_pictures import palette_png, png

THREE = "0: background\n1: skin\n7: nose\n"
VALUES = np.array([[0, 1, 7, 7], [1, 1, 0, 7], [7, 0, 1, 1]], np.uint8)
LABELS = [[0, 1, 2, 2], [1, 1, 0, 2], [2, 0, 1, 1]]
OWN = Crop("own", (112, 112), tuple((float(x), float(y)) for x, y in LANDMARKS))
"""The crop in which the faces of ``write_folder`` stay as they are."""


def classes_of(text: str, folder: Path) -> Classes:
    (folder / "classes.yaml").write_text(text)
    return read_classes(folder / "classes.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> LabelFolder:
    """Faces of two people, and an empty folder of label maps."""
    write_folder(tmp_path / "faces", {"Ann": 2, "Bob": 1})
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "classes.yaml").write_text(THREE)
    return LabelFolder(tmp_path / "maps", FaceFolder(tmp_path / "faces"))


def halves(size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """A label map: the nose at the left, skin at the right, one row of background on top."""
    values = np.full(size, 1, np.uint8)
    values[:, : size[1] // 2] = 7
    values[: size[0] // 112] = 0
    return values


def put(folder: LabelFolder, name: str, data: bytes) -> None:
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# classes.yaml


def test_values_are_named_as_fxeval_names_parts(tmp_path):
    found = classes_of("0: background\n0x2: l_brow\n11: Scar\n", tmp_path)
    assert found.values == (0, 2, 11)
    assert found.names == ("background", "left_brow", "Scar")
    assert found.unknown == ("Scar",)
    assert found.aligned_to is None


def test_colours_are_values_as_well(tmp_path):
    found = classes_of("'#000000': background\n'#00ff00': skin\n", tmp_path)
    assert found.values == (0, 0xFF00)
    assert found.are_colours


def test_the_colours_of_elfw_are_read(tmp_path):
    lines = ("#000000: background", "#00ff00: skin", "#ff0000: hair", "#00ffff: beard-mustache",
             "#0000ff: sunglasses", "#ff00ff: wearable", "#ffff00: mouth-mask")  # fmt: skip
    pairs = [line.split(": ") for line in lines]
    found = classes_of("".join(f"'{colour}': {name}\n" for colour, name in pairs), tmp_path)
    assert found.names == ("background", "skin", "hair", "beard", "glasses", "hat", "mask")
    assert not found.unknown


def test_left_and_right_of_the_image_become_those_of_the_head(tmp_path):
    found = classes_of("1: l_eye\n2: right_brow\n3: lefty\n4: nose\nsides: image\n", tmp_path)
    assert found.names == ("right_eye", "left_brow", "lefty", "nose")


def test_all_maps_may_have_one_crop(tmp_path):
    assert classes_of(f"{THREE}aligned_to: arcface112\n", tmp_path).aligned_to == ARCFACE_112


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty; a file of classes starts with '0: background'"),
        ("- skin\n", "expected a file of classes, a mapping"),
        ("sides: head\n", "expected at least one value and its part, got none"),
        ("0: skin\n0: nose\n", "the key '0' is already given in line 1"),
        ("0: skin\n'0': nose\n", "the key '0' is already given in line 1"),
        ("256: skin\n", "expected a value from 0 to 255"),
        ("-1: skin\n", "expected a value from 0 to 255"),
        ("'01': skin\n", "expected a value from 0 to 255"),
        ("1.5: skin\n", "a key must be text"),
        ("'#00FF00': skin\n", "expected a value from 0 to 255, a colour such as '#00ff00'"),
        ("skin: 1\n", "expected a value from 0 to 255, a colour such as '#00ff00', or one of"),
        ("1: 2\n", "expected the name of a part"),
        ("1: ''\n", "expected the name of a part"),
        (f"1: {'a' * 65}\n", "at most 64 characters"),
        ("1: [skin]\n", "expected the name of a part"),
        ("1: skin\n2: skin\n", "is the part 'skin', which 1 is already"),
        ("1: skin\n2: face\n", "is the part 'skin', which 1 is already"),
        ("1: scar\n2: ' scar '\n", "is the part 'scar', which 1 is already"),
        ("1: skin\n'#00ff00': nose\n", "expected values or colours, got 1 and 1"),
        ("1: skin\nsides: mine\n", "expected 'head' .* or 'image', got 'mine'"),
        ("1: skin\naligned_to: mine\n", "unknown crop 'mine'"),
        ("1: skin\naligned_to: {size: [1, 1]}\n", "'aligned_to': expected"),
        (
            "".join(f"'#0000{n:02x}': p{n}\n" for n in range(256)),
            "expected at most 255 parts, got 256",
        ),
        ("1: &a skin\n", "anchors"),
    ],
)
def test_a_faulty_file_of_classes_is_refused_with_its_line(text, said, tmp_path):
    with pytest.raises(DataContractError, match=said) as caught:
        classes_of(text, tmp_path)
    assert "classes.yaml:" in caught.value.detail
    assert caught.value.public.startswith("classes.yaml: expected the part")


def test_all_faults_of_the_classes_are_told_at_once(tmp_path):
    with pytest.raises(DataContractError, match="'mine'") as caught:
        classes_of("300: skin\n1: 2\nsides: mine\n", tmp_path)
    assert all(f"classes.yaml:{line}:" in caught.value.detail for line in (1, 2, 3))


# Values of pixels


@pytest.mark.parametrize(
    "data",
    [png(VALUES), palette_png(VALUES), palette_png(VALUES, bits=4), palette_png(VALUES, colours=2)],
    ids=["grey", "palette", "palette of 4 bits", "palette that is too short"],
)
def test_values_are_grey_levels_or_numbers_of_the_palette_whatever_its_colours(data, tmp_path):
    assert labels_in(data, "x.png", classes_of(THREE, tmp_path)).tolist() == LABELS


def test_a_palette_of_one_bit_has_two_numbers(tmp_path):
    found = labels_in(palette_png(VALUES % 2, bits=1), "x.png", classes_of(THREE, tmp_path))
    assert found.tolist() == (VALUES % 2).tolist()


def test_colours_are_read_exactly(tmp_path):
    colours = np.array([[0, 0, 0], [0, 255, 0], [0, 255, 255]], np.uint8)
    classes = classes_of("'#000000': background\n'#00ff00': skin\n'#00ffff': beard\n", tmp_path)
    assert labels_in(png(colours[LABELS]), "x.png", classes).tolist() == LABELS
    assert classes.names[2] == "beard"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no picture", "expected a whole JPEG or PNG, got neither"),
        (png(VALUES)[:40], "is truncated"),
        (png(VALUES + np.uint8(1)), "expected values that classes.yaml names, got 2 in 5 pixels"),
        (palette_png(VALUES + 9), "got 9 in 3 pixels"),
        (png(np.dstack([VALUES] * 3)), "expected one channel or a palette, got several channels"),
        (png(np.dstack([VALUES] * 4)), "expected one channel or a palette, got several channels"),
        (png(VALUES.astype(np.uint16) * 257), "expected 8 bits a channel, got 16"),
        (cv2.imencode(".jpg", VALUES)[1].tobytes(), "expected a label map as PNG, got a JPEG"),
    ],
    ids=["text", "cut", "value", "number", "RGB", "RGBA", "16 bits", "JPEG"],
)
def test_other_pictures_and_values_are_refused(data, said, tmp_path):
    with pytest.raises(DataContractError, match=said) as caught:
        labels_in(data, "/srv/Ann/0001.png", classes_of(THREE, tmp_path))
    assert caught.value.detail.startswith("/srv/Ann/0001.png: ")
    assert "Ann" not in caught.value.public


def test_a_colour_without_a_name_is_refused(tmp_path):
    classes = classes_of("'#00ff00': skin\n", tmp_path)
    with pytest.raises(DataContractError, match="names, got #010203 in 4 pixels"):
        labels_in(png(np.full((2, 2, 3), (1, 2, 3), np.uint8)), "x.png", classes)


# Maps and their images


def test_a_map_follows_its_image_into_every_crop(folder):
    put(folder, "Ann/0001.png", png(halves()))
    face = folder.faces.faces[0]
    for crop in (OWN, ARCFACE_112, DLIB_150):
        found = folder.of([face.id], crop)
        expected = align(halves(), LANDMARKS, crop, cv2.INTER_NEAREST)
        assert found.names == ("background", "skin", "nose")
        assert torch.equal(found.labels[0], torch.from_numpy(np.searchsorted([0, 1, 7], expected)))
    assert found.source == "a folder of label maps"


def test_a_map_of_twice_the_size_lies_where_its_image_lies(folder):
    put(folder, "Ann/0001.png", png(halves((224, 224))))
    put(folder, "Ann/0002.png", png(halves()))
    one, two = (folder.of([face.id], OWN).labels for face in folder.faces.faces[:2])
    assert torch.equal(one, two)


def test_maps_may_be_aligned_where_images_are_not(folder):
    (folder.path / "classes.yaml").write_text(f"{THREE}aligned_to: arcface112\n")
    put(folder, "Ann/0001.png", png(halves()))
    found = folder.of([folder.faces.faces[0].id], ARCFACE_112).labels[0]
    assert torch.equal(found, torch.from_numpy(np.searchsorted([0, 1, 7], halves())))
    put(folder, "Ann/0001.png", png(halves((150, 150))))
    with pytest.raises(DataContractError, match=r"expected 112 x 112 pixels \(crop arcface112\)"):
        folder.of([folder.faces.faces[0].id], ARCFACE_112)


def test_a_map_of_other_proportions_is_refused(folder):
    put(folder, "Ann/0001.png", png(halves((112, 96))))
    with pytest.raises(DataContractError, match=r"Ann/0001\.png: expected a label map of the prop"):
        folder.of([folder.faces.faces[0].id], ARCFACE_112)


def test_outside_the_map_is_background_if_there_is_such_a_part(folder):
    put(folder, "Ann/0001.png", png(np.full((112, 112), 1, np.uint8)))
    far = Crop("far", (40, 40), tuple((x / 4, y / 4) for x, y in LANDMARKS))
    ids = [folder.faces.faces[0].id]
    assert sorted(folder.of(ids, far).labels.unique().tolist()) == [0, 1]
    (folder.path / "classes.yaml").write_text("1: skin\n")
    plain = LabelFolder(folder.path, folder.faces)
    assert sorted(plain.of(ids, far).labels.unique().tolist()) == [-1, 0]


def test_parts_of_an_image_without_a_map_are_not_known(folder):
    put(folder, "Ann/0001.png", png(halves()))
    found = folder.of([face.id for face in folder.faces.faces], OWN)
    assert found.is_known().tolist() == [True, False, False]


def test_maps_are_found_by_the_end_of_the_path_that_only_one_image_has(folder):
    put(folder, "0001.png", png(halves()))  # Ann's or Bob's
    put(folder, "0002.png", png(halves()))  # Ann's alone
    found = folder.of([face.file for face in folder.faces.faces], OWN)
    assert found.is_known().tolist() == [False, True, False]


def test_a_folder_of_other_names_is_refused(folder):
    put(folder, "x/0003.png", png(halves()))
    with pytest.raises(DataContractError, match=r"got 1 PNG files that are called as none") as one:
        folder.of([folder.faces.faces[0].id], OWN)
    assert "that of 'Ann/0001.png' would be 'Ann/0001.png'" in one.value.detail
    assert "Ann" not in one.value.public


def test_links_are_not_followed(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(halves()))
    put(folder, "Ann/0002.png", png(halves()))
    (folder.path / "Ann" / "0001.png").symlink_to(tmp_path / "secret.png")
    found = folder.of([face.id for face in folder.faces.faces], OWN)
    assert found.is_known().tolist() == [False, True, False]


def test_names_that_are_none_of_fxevals_own_are_told(folder):
    (folder.path / "classes.yaml").write_text("1: skin\n7: scar\n0: background\n")
    put(folder, "Ann/0001.png", png(halves()))
    assert folder.of([], OWN).source == "a folder of label maps (other parts: scar)"


def test_the_labels_of_the_pack_are_the_same_as_pictures_under_names_of_celebamask_hq(tmp_path):
    pack, faces = FacePack(PACK), FaceFolder(PACK)
    ids = list(pack.listing().probe[:6])
    known = PartLabels(faces)
    maps = known.of(ids, ARCFACE_112).labels.numpy().astype(np.uint8)
    classes = "".join(f"{value}: {name}\n" for value, name in enumerate(CELEBAMASK))
    (tmp_path / "classes.yaml").write_text(classes)
    for number, (file, values) in enumerate(zip(ids, maps, strict=True)):
        data = palette_png(values) if number % 2 else png(values)
        (tmp_path / Path(file).with_suffix(".png")).write_bytes(data)
    for crop in (ARCFACE_112, DLIB_150):
        found, expected = LabelFolder(tmp_path, faces).of(ids, crop), known.of(ids, crop)
        assert found.names == PART_NAMES
        assert torch.equal(found.labels, expected.labels)


def test_the_manifest_may_name_the_folder(folder, tmp_path):
    root = tmp_path / "faces"
    put(folder, "Ann/0001.png", png(halves()))
    folder.path.rename(root / "maps")
    write_manifest(root, {**read_manifest(root), "labels": {"folder": "maps"}, "crop": None})
    assert FaceFolder(root).labels == {"folder": "maps"}
