"""Folders of faces, with and without a manifest."""

import contextlib
import hashlib
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.images import read_image
from fxeval.datasets.faces.manifests import MAX_REASONS, path_fault, read_manifest
from fxeval.errors import DataContractError
from fxeval.tests import face_folders
from fxeval.tests.face_folders import LANDMARKS, write_folder, write_images, write_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path, {"Ann": 2, "Bob": 1})
    return tmp_path


def change(root: Path, row: int = 0, **values: object) -> None:
    """Change one entry of the manifest; a value of None removes the key."""
    content = face_folders.read_manifest(root)
    entry = {**content["images"][row], **values}
    content["images"][row] = {key: value for key, value in entry.items() if value is not None}
    write_manifest(root, content)


# --- with a manifest


def test_images_are_found_by_file_and_by_identity_and_number(root: Path):
    folder = FaceFolder(root)
    face = folder.find("Ann/0002.png")
    assert face is not None
    assert face == folder.find(("Ann", 2))
    assert face.id == hashlib.sha256((root / "Ann/0002.png").read_bytes()).hexdigest()[:16]
    assert folder.find("Ann/0003.png") is folder.find(("Ann", 3)) is folder.find("Ann") is None


def test_images_are_aligned_by_their_landmarks(root: Path):
    folder = FaceFolder(root)
    ids = [face.id for face in folder.faces]
    images = folder.images([ids[2], ids[0]], DLIB_150)
    assert images.dtype == torch.uint8
    expected = align(read_image(root / "Bob/0001.png"), LANDMARKS, DLIB_150)
    assert np.array_equal(images[0].permute(1, 2, 0), expected)
    assert folder.images([], DLIB_150).shape == (0, 3, 150, 150)


def test_a_file_is_held_against_its_digest_at_every_read(root: Path):
    folder = FaceFolder(root)
    ids = [face.id for face in folder.faces]
    folder.images(ids, ARCFACE_112)
    (root / "Ann/0001.png").write_bytes((root / "Bob/0001.png").read_bytes())
    with pytest.raises(
        DataContractError, match=r"1 of 3 .*\n.*0001\.png: expected the SHA-256"
    ) as caught:
        folder.images(ids, ARCFACE_112)
    assert "Bob" not in str(caught.value)


def test_the_root_digest_is_that_of_the_sorted_lines_of_sha256sum(root: Path):
    lines = [
        f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n"
        for file in ("Bob/0001.png", "Ann/0001.png", "Ann/0002.png")
    ]
    card = FaceFolder(root).card()
    assert card.root_digest == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert (card.n_images, card.licence, card.may_show, card.failures) == (3, None, False, {})
    content = face_folders.read_manifest(root)
    write_manifest(root, {**content, "images": content["images"][::-1]})
    assert FaceFolder(root).card() == card
    change(root, sha256="0" * 64)
    assert FaceFolder(root).card().root_digest != card.root_digest


def test_a_card_tells_licence_permission_and_failures_by_reason(root: Path):
    failures = [{"file": "x.jpg", "reason": reason} for reason in ("no face", "two faces") * 2]
    content = face_folders.read_manifest(root)
    extra = {"licence": "CC0\nby\x1b[2J Ann", "may_show": True, "failures": failures[:3]}
    write_manifest(root, {**content, **extra, "unknown": 3})
    card = FaceFolder(root).card()
    assert card.licence == "CC0 by?[2J Ann"
    assert card.may_show is True
    assert card.failures == {"no face": 2, "two faces": 1}


def test_only_some_reasons_of_failures_are_told_apart(root: Path):
    content = face_folders.read_manifest(root)
    content["failures"] = [{"reason": f"reason {number}"} for number in range(MAX_REASONS + 7)]
    write_manifest(root, content)
    failures = FaceFolder(root).card().failures
    assert len(failures) == MAX_REASONS + 1
    assert failures["other reasons"] == 7


@pytest.mark.parametrize(
    "crop",
    ["arcface112", {"name": "mine", "size": [112, 112], "template": LANDMARKS},
     {"name": "arcface112", "size": [112, 112], "template": ARCFACE_112.template}],
)  # fmt: skip
def test_in_an_aligned_folder_every_image_has_the_size_of_the_crop(root: Path, crop: object):
    write_manifest(root, {**face_folders.read_manifest(root), "crop": crop})
    change(root, 1, landmarks5=None)
    folder = FaceFolder(root)
    assert folder.crop is not None
    assert folder.find("Ann/0002.png").landmarks == folder.crop.template
    write_images(root, ["Ann/0002.png"], (96, 112))
    digest = hashlib.sha256((root / "Ann/0002.png").read_bytes()).hexdigest()
    change(root, 1, sha256=digest)
    with pytest.raises(DataContractError, match=r"expected 112 x 112 pixels .*got 112 x 96"):
        FaceFolder(root).images([digest[:16]], ARCFACE_112)


@pytest.mark.parametrize(
    "crop",
    ["arcface111", 3, [], {}, {"name": "mine", "size": [112, 112]}, True,
     {"name": "arcface112", "size": [112, 112], "template": LANDMARKS},
     {"name": "arcface224", "size": [224, 224], "template": LANDMARKS},
     {"name": "mine", "size": [112, 112], "template": [[x / 112, y / 112] for x, y in LANDMARKS]},
     {"name": "mine", "size": [112.0, 112], "template": LANDMARKS},
     {"name": "mine", "size": [True, 112], "template": LANDMARKS},
     {"name": "mine", "size": [0, 112], "template": LANDMARKS},
     {"name": "mine", "size": [112, 10**9], "template": LANDMARKS},
     {"name": "mine\x1b", "size": [112, 112], "template": LANDMARKS},
     {"name": ["mine"], "size": [112, 112], "template": LANDMARKS},
     {"name": "mine", "size": [112, 112], "template": LANDMARKS[:4]}],
)  # fmt: skip
def test_a_crop_that_is_none_is_refused(root: Path, crop: object):
    write_manifest(root, {**face_folders.read_manifest(root), "crop": crop})
    with pytest.raises(DataContractError, match=r"manifest\.json: 'crop': "):
        _ = FaceFolder(root).faces


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"licence": 3}, "'licence' to be text"),
        ({"may_show": "yes"}, "'may_show' to be true or false"),
        ({"may_show": 1}, "'may_show' to be true or false"),
        ({"failures": {}}, "'failures' to be a list"),
        ({"failures": [{}]}, "'failures' to be a list"),
        ({"failures": ["x"]}, "'failures' to be a list"),
        ({"images": {}}, "a list 'images'"),
        ({"fxeval_manifest": 2}, "'fxeval_manifest' of 1"),
    ],
)
def test_a_wrong_value_of_the_manifest_is_named(root: Path, values: dict, message: str):
    write_manifest(root, {**face_folders.read_manifest(root), **values})
    with pytest.raises(DataContractError, match=rf"manifest\.json: .*{message}"):
        _ = FaceFolder(root).faces


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{}", "[" * 100_000, '{"images": [], "images": []}',
     '{"images": [{"file": "a", "file": "b"}]}', "1" * 5000, '{"images": [1e999]}', "\xff"],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(root: Path, text: str):
    (root / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataContractError, match=r"manifest\.json") as caught:
        _ = FaceFolder(root).faces
    assert str(caught.value).isprintable()


ATTRIBUTES = {"nuisance": "mild", "yaw_degrees": -3.25, "Year_2": 1999, "has_glasses": False}


def test_attributes_of_images_are_read_as_they_are_written(root: Path):
    change(root, 1, attributes=ATTRIBUTES)
    plain, described, _ = FaceFolder(root).faces
    assert described.attributes == ATTRIBUTES
    assert type(described.attributes["has_glasses"]) is bool
    assert plain.attributes == {}
    assert len({*FaceFolder(root).faces}) == 3  # faces can be members of sets


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([], r"object of at most 20 names and values, got \[\]\. Correct the manifest\."),
        ("mild", "object of at most 20 names and values, got 'mild'"),
        ({f"a{n}": n for n in range(21)}, "object of at most 20 names and values, got 21"),
        ({"": 1}, "the names of 'attributes' to be .*, got ''. Rename the attribute"),
        ({"1st": 1}, "the names of 'attributes' to be .*, got '1st'"),
        ({"yaw-degrees": 1}, "the names of 'attributes' to be .*, got 'yaw-degrees'"),
        ({"a" * 65: 1}, "the names of 'attributes' to be of at most 64 letters"),
        ({"pose": {"yaw": 1}}, r"the values of 'attributes' to be .*, got \{'yaw': 1\} for 'pose'"),
        ({"pose": [1]}, r"the values of 'attributes' to be .*, got \[1\] for 'pose'"),
        ({"pose": None}, "the values of 'attributes' to be .*, got None for 'pose'"),
        ({"pose": float("nan")}, "finite numbers.*, got nan for 'pose'"),
        ({"pose": float("inf")}, "finite numbers.*, got inf for 'pose'"),
        ({"pose": 10**400}, "finite numbers.* for 'pose'"),
        ({"pose": "a\nb"}, "printable text .* for 'pose'"),
        ({"pose": "a" * 256}, "printable text of at most 255 characters.* for 'pose'"),
    ],
)  # fmt: skip
def test_attributes_of_another_form_are_refused_with_their_place(root: Path, attributes, message):
    change(root, 1, attributes=attributes)
    with pytest.raises(
        DataContractError, match=rf"manifest\.json: images\[1\]: .*{message}"
    ) as one:
        _ = FaceFolder(root).faces
    assert one.value.public.startswith("manifest.json: images[1]: expected")
    assert "pose" not in one.value.public  # an attribute is the folder's own text


def test_a_manifest_that_is_no_file_is_refused(root: Path):
    (root / "manifest.json").unlink()
    os.mkfifo(root / "manifest.json")
    with pytest.raises(DataContractError, match=r"manifest\.json: .*got a folder or a special"):
        _ = FaceFolder(root).faces


@settings(deadline=None, max_examples=150)
@given(
    key=st.sampled_from(
        ["images", "crop", "licence", "may_show", "failures", "file", "sha256", "identity",
         "number", "landmarks5", "attributes"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda values: (
            st.lists(values, max_size=5)
            | st.dictionaries(st.sampled_from(["name", "size", "template", "reason"]), values)
        ),
        max_leaves=12,
    ),
)  # fmt: skip
def test_a_manifest_with_any_value_anywhere_is_read_or_refused(key, value, tmp_path_factory):
    entry = {"file": "a.png", "sha256": "0" * 64, "identity": "Ann", "landmarks5": LANDMARKS}
    content: dict = {"images": [entry]}
    (entry if key in (*entry, "number", "attributes") else content)[key] = value
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    with contextlib.suppress(DataContractError):
        manifest = read_manifest(path)
        assert all(face.key or face.number is None for face in manifest.faces)
        assert all(path_fault(face.file) == "" for face in manifest.faces)
        assert np.isfinite([face.landmarks for face in manifest.faces]).all()


def test_repetitions_are_refused(root: Path):
    change(root, 1, number=1)
    with pytest.raises(DataContractError, match="same file or with the same identity and number"):
        _ = FaceFolder(root).faces
    change(root, 1, number=2, file="Ann/0001.png")
    with pytest.raises(DataContractError, match="same file or with the same identity and number"):
        _ = FaceFolder(root).faces


def test_one_content_under_two_files_has_one_id_and_needs_the_same_landmarks(root: Path):
    digest = face_folders.read_manifest(root)["images"][0]["sha256"]
    (root / "Ann/0002.png").write_bytes((root / "Ann/0001.png").read_bytes())
    change(root, 1, sha256=digest)
    assert len({face.id for face in FaceFolder(root).faces}) == 2
    change(root, 1, landmarks5=[[x + 1, y] for x, y in LANDMARKS])
    with pytest.raises(DataContractError, match=r"images\[0\]: expected one set of landmarks"):
        _ = FaceFolder(root).faces


# --- paths


@pytest.mark.parametrize(
    "file",
    ["../x.png", "/etc/passwd", "a//x.png", "./x.png", "a/../x.png", "a\\x.png", "C:x.png", "",
     "a/", "a\x00b", "x\n.png", "\u202egnp.x", "\ud800.png", "a" * 256, "é" * 128,
     "a/" * 501 + "x", unicodedata.normalize("NFD", "é.png")],
)  # fmt: skip
def test_a_path_that_is_not_plain_has_a_fault_and_is_refused(root: Path, file: str):
    assert path_fault(file)
    change(root, file=file)
    with pytest.raises(DataContractError, match=r"images\[0\]: expected 'file'") as caught:
        _ = FaceFolder(root).faces
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "file", ["a.png", "Ann Lee/0001.jpg", "~x/y.png", "é.png", "-a", "a" * 255]
)
def test_a_plain_path_has_no_fault(file: str):
    assert path_fault(file) == ""


@settings(max_examples=300)
@given(file=st.text(st.characters() | st.sampled_from("/.\\:~"), max_size=20))
def test_a_path_without_fault_stays_inside(file: str):
    if not path_fault(file):
        joined = os.path.normpath(os.path.join("/root/of/faces", file))  # noqa: PTH118
        assert joined == f"/root/of/faces/{file}"


@pytest.mark.parametrize("aligned", [None, ARCFACE_112])
@pytest.mark.parametrize("target", ["outside", "circle"])
def test_a_link_out_of_the_folder_is_refused(root: Path, tmp_path_factory, target, aligned):
    outside = tmp_path_factory.mktemp("outside") / "0001.png"
    (root / "Bob/0001.png").replace(outside)
    (root / "Bob/0001.png").symlink_to(outside if target == "outside" else root / "Bob/0001.png")
    folder = FaceFolder(root, aligned_to=aligned)
    face = folder.find(("Bob", 1))
    with pytest.raises(
        DataContractError, match="images inside the folder, got a link that leads out"
    ):
        folder.images([face.id], ARCFACE_112)


def test_a_link_inside_the_folder_is_followed(root: Path):
    (root / "elsewhere.png").write_bytes((root / "Bob/0001.png").read_bytes())
    (root / "Bob/0001.png").unlink()
    (root / "Bob/0001.png").symlink_to(root / "elsewhere.png")
    folder = FaceFolder(root)
    assert folder.images([folder.find(("Bob", 1)).id], ARCFACE_112).shape == (1, 3, 112, 112)


# --- without manifest


def test_aligned_images_need_no_manifest(tmp_path: Path):
    write_images(tmp_path, ["Ann_0001.png", "Bob_2.png", "Cleo/7.png", "plain.png"])
    (tmp_path / "pairs.txt").write_text("no image")
    write_images(tmp_path, [".Ann_0003.png", ".cache/Ann_0004.png"])
    folder = FaceFolder(tmp_path, aligned_to=ARCFACE_112)
    assert [(face.file, face.key) for face in folder.faces] == [
        ("Ann_0001.png", ("Ann", 1)), ("Bob_2.png", ("Bob", 2)), ("Cleo/7.png", ("Cleo", 7)),
        ("plain.png", None),
    ]  # fmt: skip
    images = folder.images([face.id for face in folder.faces], ARCFACE_112)
    assert images[:, 0, 5, 5].tolist() == [1, 2, 3, 4]
    assert not any("Ann" in face.id for face in folder.faces)


def test_without_manifest_the_files_used_are_hashed(tmp_path: Path):
    write_images(tmp_path, ["Ann_1.png", "Ann_2.png", "Ann_3.png"])
    folder = FaceFolder(tmp_path, aligned_to=ARCFACE_112)
    used = {folder.find(("Ann", number)).id for number in (1, 3)}
    lines = sorted(
        f"{hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()}  {file}\n"
        for file in ("Ann_1.png", "Ann_3.png")
    )
    assert folder.card(used).root_digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert folder.card(used).n_images == 2
    assert folder.card().n_images == 3


def test_an_aligned_image_of_another_size_is_named(tmp_path: Path):
    write_images(tmp_path, ["Ann_1.png", "Ann_2.png"])
    write_images(tmp_path, ["Ann_2.png"], (250, 250))
    folder = FaceFolder(tmp_path, aligned_to=ARCFACE_112)
    with pytest.raises(
        DataContractError, match=r"1 of 2 .*\n.*Ann_2\.png: expected 112 x 112 pixels"
    ):
        folder.images([face.id for face in folder.faces], ARCFACE_112)


def test_two_files_of_one_number_are_ambiguous(tmp_path: Path):
    write_images(tmp_path, ["Ann_1.png", "Ann_0001.png"])
    folder = FaceFolder(tmp_path, aligned_to=ARCFACE_112)
    assert folder.find("Ann_1.png") is not None
    with pytest.raises(DataContractError, match="got several for image 1 of 'Ann'"):
        folder.find(("Ann", 1))


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path):
    for folder, message in ((tmp_path / "no", r"no: cannot be read"), (tmp_path, "got none")):
        with pytest.raises(DataContractError, match=message):
            _ = FaceFolder(folder, aligned_to=ARCFACE_112).faces


def test_links_to_folders_are_not_followed(tmp_path: Path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    write_images(outside, ["Bob_1.png"])
    write_images(tmp_path, ["Ann_1.png"])
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "circle").symlink_to(tmp_path)
    assert len(FaceFolder(tmp_path, aligned_to=ARCFACE_112).faces) == 1


def test_the_real_folder_has_its_card(data_root: Path):
    card = FaceFolder(data_root, Path("faces_manifest.json")).card()
    assert card.n_images == 4274
    assert card.may_show is False
    assert card.licence is not None
    assert card.root_digest == "f567c1cc508b2edd8558b87c8a5993a8c33eeaadbf0302cb71f558c7c6140a73"
