"""Photographs as cameras and phones make them: turned, large, with small faces."""

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fxeval.datasets.faces import images, photographs
from fxeval.datasets.faces.alignment import ARCFACE_112, align, arcface_crop
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.images import decode_image, read_image
from fxeval.datasets.faces.photographs import cut_face, enlargement, overview, to_scale
from fxeval.datasets.preparing.detection import DetectedLandmarks, LandmarkFile
from fxeval.datasets.preparing.preparation import Preparation
from fxeval.errors import DataContractError
from fxeval.tests.datasets.test_images import chunk, encoded, exif, tagged
from fxeval.tests.photographs import FACE, Given, Seen, picture, run
from fxeval.tests.photographs import photographs as four
from fxeval.tests.rounding import FLOAT64, assert_rounded


def taken_sideways(path: Path, upright: np.ndarray, orientation: int) -> None:
    """Write a PNG as a turned camera does: pixels on their side, and the tag that turns them."""
    stored = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    data = encoded(np.ascontiguousarray(stored[orientation]), ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:])


def entries(done: Preparation) -> dict[str, dict]:
    return {one["file"]: one for one in json.loads(done.manifest.read_text())["images"]}


# --- orientation


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_face_is_cut_upright_however_the_camera_was_held(tmp_path: Path, orientation: int):
    taken_sideways(tmp_path / "source" / "Ann" / "1.png", picture(0), orientation)
    whole, listed = run(tmp_path / "source"), run(tmp_path / "source", to="listed", crop=None)
    expected = align(picture(0)[..., ::-1].copy(), FACE, ARCFACE_112)
    assert np.array_equal(read_image(whole.manifest.parent / "Ann" / "1.png"), expected)
    folder = FaceFolder(tmp_path / "source", listed.manifest)
    (found,) = folder.images([folder.faces[0].id], ARCFACE_112).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, expected)


def write_manifest(folder: Path, landmarks: object, **more: object) -> FaceFolder:
    digest = hashlib.sha256((folder / "1.png").read_bytes()).hexdigest()
    image = {"file": "1.png", "sha256": digest, "identity": "Ann", "landmarks5": landmarks}
    (folder / "manifest.json").write_text(json.dumps({"images": [image], **more}))
    return FaceFolder(folder)


def test_landmarks_of_a_tagged_photograph_need_to_say_what_they_are_of(tmp_path: Path):
    taken_sideways(tmp_path / "1.png", picture(0), 6)
    width = picture(0).shape[1]
    stored = [(y, width - 1 - x) for x, y in FACE]
    folder = write_manifest(tmp_path, FACE)
    with pytest.raises(DataContractError, match="has the EXIF orientation 6, and the manifest"):
        folder.images([folder.faces[0].id], ARCFACE_112)
    found = []
    for landmarks, said in ((FACE, "applied"), (stored, "stored")):
        folder = write_manifest(tmp_path, landmarks, orientation=said)
        found.append(folder.images([folder.faces[0].id], ARCFACE_112).int())
    assert (found[0] - found[1]).abs().max() <= 3
    with pytest.raises(DataContractError, match="'orientation' to be 'applied' or 'stored'"):
        _ = write_manifest(tmp_path, FACE, orientation="left").faces


def test_landmarks_of_a_manifest_that_does_not_say_so_are_not_used_for_a_tagged_photograph(
    tmp_path: Path,
):
    taken_sideways(tmp_path / "source" / "1.png", picture(0), 6)
    reasons = []
    for said in ({}, {"orientation": "stored"}, {"orientation": "applied"}):
        write_manifest(tmp_path / "source", FACE, **said)
        shutil.move(tmp_path / "source" / "manifest.json", tmp_path / f"{len(reasons)}.json")
        given = LandmarkFile(tmp_path / f"{len(reasons)}.json")
        done = run(tmp_path / "source", given, to=f"out{len(reasons)}", identity="none")
        reasons.append(dict(done.failures))
    refused = {"1.png": "landmarks given for the image as it is stored"}
    assert reasons == [refused, refused, {}]


def test_a_preparation_that_did_not_turn_photographs_is_not_resumed(tmp_path: Path):
    four(tmp_path / "source")
    done = run(tmp_path / "source")
    journal = done.manifest.parent / ".prepare.jsonl"
    journal.write_text(journal.read_text().replace(', "orientation": "applied"', ""))
    with pytest.raises(DataContractError, match=r"other settings \(orientation: None, now applied"):
        run(tmp_path / "source")


# --- size


def test_a_large_photograph_is_prepared_and_read_with_landmarks_at_its_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "source" / "Ann").mkdir(parents=True)
    large = cv2.resize(picture(0), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    data = tagged(encoded(large, ".jpg"), exif(1))
    (tmp_path / "source" / "Ann" / "1.jpg").write_bytes(data)
    asked = []

    class Eyes(Seen):
        def detect(self, image):
            asked.append(image.shape[:2])
            return super().detect(image)

    whole = align(decode_image(data, "x"), to_scale(FACE, 1 / 8), ARCFACE_112)
    monkeypatch.setattr(images, "MAX_PIXELS", 13_000)  # 90 x 100 pixels fit, 180 x 200 do not
    monkeypatch.setattr(photographs, "MAX_PIXELS", 13_000)
    done = run(tmp_path / "source", DetectedLandmarks(Eyes((0, 0, 90, 100))))
    assert (done.n_images, done.enlarged, asked) == (1, (), [(100, 90)])
    (entry,) = entries(done).values()
    assert_rounded(entry["source_landmarks5"], to_scale(FACE, 1 / 8), terms=3, unit=FLOAT64)
    found = read_image(done.manifest.parent / "Ann" / "1.png").astype(int)
    assert np.abs(found - whole).mean() < 4
    assert np.array_equal(cut_face(data, "x", entry["source_landmarks5"], ARCFACE_112), found)
    from_source = run(tmp_path / "source", Given(to_scale(FACE, 1 / 8)), to="listed", crop=None)
    folder = FaceFolder(tmp_path / "source", from_source.manifest)
    (again,) = folder.images([folder.faces[0].id], ARCFACE_112).permute(0, 2, 3, 1).numpy()
    assert np.abs(again - found).max() <= 1


def test_a_small_face_in_a_large_photograph_is_cut_at_the_full_size(monkeypatch):
    data = encoded(picture(0), ".jpg")
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(photographs, "MAX_PIXELS", 1000)
    seen, scale = overview(data, "x")
    assert (seen.shape[:2], scale) == ((25, 23), 4)
    expected = align(decode_image(data, "x", most=10**6), FACE, ARCFACE_112)
    assert np.array_equal(cut_face(data, "x", FACE, ARCFACE_112), expected)
    monkeypatch.setattr(photographs, "MAX_DECODED_WHOLE", 5000)  # the memory decides
    half = cut_face(data, "x", FACE, ARCFACE_112)
    assert 0 < np.abs(half.astype(int) - expected).mean() < 10


def test_faces_that_are_too_small_for_the_crop_are_flagged(tmp_path: Path):
    four(tmp_path / "source")
    tiny = tuple((x / 6 + 30, y / 6 + 30) for x, y in ARCFACE_112.template)
    done = run(tmp_path / "source", Given(**{"0001": tiny}))
    assert [file for file, _ in done.enlarged] == ["Ann/0001.png"]
    assert round(done.enlarged[0][1], 2) == entries(done)["Ann/0001.png"]["enlarged"] == 6
    assert "enlarged" not in entries(done)["Ann/0002.png"]
    larger = run(tmp_path / "source", to="larger", crop=arcface_crop(224))
    assert len(larger.enlarged) == 4
    assert enlargement(FACE, arcface_crop(224)) == pytest.approx(2 * enlargement(FACE, ARCFACE_112))


# --- what can't be used


def test_a_photograph_of_another_kind_is_a_failure_that_says_which(tmp_path: Path):
    folder = tmp_path / "source" / "Ann"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "2.png").write_bytes(encoded(picture(0).astype(np.uint16) * 257, ".png"))
    (folder / "3.png").write_bytes(encoded(np.dstack([picture(0), picture(0)[..., :1]]), ".png"))
    (folder / "4.heic").write_bytes(b"")
    assert dict(run(tmp_path / "source").failures) == {
        "Ann/1.jpg": "neither JPEG nor PNG",
        "Ann/2.png": "not 8 bits a channel",
        "Ann/3.png": "transparent pixels",
        "Ann/4.heic": "neither JPEG nor PNG",
    }


# --- names


def test_lists_can_name_a_face_by_its_photograph(tmp_path: Path):
    four(tmp_path / "source")
    folder = FaceFolder(run(tmp_path / "source", Given(img7=((5.0, 5.0),) * 5)).manifest.parent)
    for name in ("Ann/0001.jpg", "Ann/0001.png", ("Ann", 1)):
        assert folder.find(name).file == "Ann/0001.png"
    assert folder.find("x/Cid/3.JPG").file == "x/Cid/3.png"
    assert folder.find("Bob/img7.jpeg") is None
    for name in ("Bob/img7.jpeg", ("Bob", 7)):
        assert folder.failure(name) == "landmarks that fix no position"
    assert folder.failure("Bob/img8.jpeg") is None


def test_a_name_of_two_images_is_refused(tmp_path: Path):
    write = tmp_path / "folder"
    write.mkdir()
    images_ = []
    for file, source in (("a.png", "b.png"), ("b.png", "c.png")):
        (write / file).write_bytes(encoded(picture(len(images_)), ".png"))
        digest = hashlib.sha256((write / file).read_bytes()).hexdigest()
        images_.append({"file": file, "source_file": source, "sha256": digest, "identity": source,
                        "landmarks5": FACE})  # fmt: skip
    (write / "manifest.json").write_text(json.dumps({"images": images_}))
    folder = FaceFolder(write)
    assert folder.find("c.png").file == "b.png"
    with pytest.raises(DataContractError, match=r"one image of each name, got 2 for 'b\.png'"):
        folder.find("b.png")


def test_a_linked_folder_is_refused_once(tmp_path: Path):
    four(tmp_path / "source")
    done = run(tmp_path / "source")
    shutil.move(done.manifest.parent / "Ann", tmp_path / "elsewhere")
    (done.manifest.parent / "Ann").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    folder = FaceFolder(done.manifest.parent)
    with pytest.raises(DataContractError, match="2 of 4 images cannot be used") as caught:
        folder.images([face.id for face in folder.faces], ARCFACE_112)
    assert str(caught.value).count("got a link that leads out") == 1
    assert str(caught.value).count("target/Ann'. Replace it by what it points to") == 1
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Ann").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(DataContractError, match=r"links to folders, which are not followed: 1"):
        _ = FaceFolder(tmp_path / "links", aligned_to=ARCFACE_112).faces


def test_a_real_face_is_found_however_the_camera_was_held(data_root: Path, tmp_path: Path):
    from fxeval.tests.datasets.test_preparation import yunet

    listed = json.loads((data_root / "faces_manifest.json").read_text())["images"][:3]
    for row, entry in enumerate(listed):
        upright = read_image(data_root / entry["file"])[..., ::-1]
        taken_sideways(tmp_path / "source" / f"P{row}" / "1.png", upright, (3, 6, 8)[row])
    found = entries(run(tmp_path / "source", yunet(data_root)))
    for row, entry in enumerate(listed):
        ours = np.array(found[f"P{row}/1.png"]["source_landmarks5"])
        assert np.linalg.norm(ours - entry["landmarks5"], axis=1).mean() < 0.5
