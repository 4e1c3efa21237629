"""Folders of photographs turned into folders of aligned faces, in one run or several."""

import hashlib
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from fxeval.datasets.faces.alignment import ARCFACE_112, CROPS, DLIB_150, align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.images import read_image
from fxeval.datasets.faces.manifests import read_manifest
from fxeval.datasets.preparing.detection import DetectedLandmarks, YuNet
from fxeval.datasets.preparing.preparation import Preparation, Settings, prepare
from fxeval.errors import DataContractError
from fxeval.tests.photographs import FACE, Given, Seen, content, draw, photographs, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photographs(tmp_path / "source")


def test_a_folder_of_faces_becomes_one_of_aligned_faces(source):
    done = run(source, crop=DLIB_150, licence="CC0", source="drawn")
    assert (done.n_images, done.failures, done.n_kept) == (4, (), 0)
    raw = json.loads(done.manifest.read_text())
    assert (raw["fxeval_manifest"], raw["source"], raw["detector"]) == (
        1,
        "drawn",
        {"name": "given"},
    )
    manifest = read_manifest(done.manifest)
    assert (manifest.crop, manifest.licence, manifest.may_show) == (DLIB_150, "CC0", False)
    named = [(face.file, face.identity, face.number) for face in manifest.faces]
    assert named == [
        ("Ann/0001.png", "Ann", 1),
        ("Ann/0002.png", "Ann", 2),
        ("Bob/img7.png", "Bob", 7),
        ("x/Cid/3.png", "Cid", 3),
    ]
    for face, entry in zip(manifest.faces, raw["images"], strict=True):
        original = source / entry["source_file"]
        assert face.landmarks == DLIB_150.template
        assert np.array_equal(entry["source_landmarks5"], FACE)
        for path, digest in ((original, "source_sha256"), (source.parent / "target" / face.file,
                                                           "sha256")):  # fmt: skip
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry[digest]
        expected = align(read_image(original), FACE, DLIB_150)
        assert np.array_equal(read_image(source.parent / "target" / face.file), expected)


def test_only_landmarks_can_be_written_and_give_the_same_faces(source):
    whole, landmarks = run(source), run(source, to="landmarks", crop=None)
    assert list(content(source.parent / "landmarks")) == ["manifest.json"]
    aligned = FaceFolder(whole.manifest.parent)
    from_source = FaceFolder(source, landmarks.manifest)
    assert [face.key for face in aligned.faces] == [face.key for face in from_source.faces]
    for one, two in zip(aligned.faces, from_source.faces, strict=True):
        assert one.file.rpartition(".")[0] == two.file.rpartition(".")[0]
        assert (aligned.images([one.id], ARCFACE_112) == from_source.images([two.id], ARCFACE_112)
                ).all()  # fmt: skip


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_every_image_that_cannot_be_used_is_listed_with_its_reason(source, tmp_path):
    (source / "Ann" / "0003.jpg").write_bytes((source / "Ann" / "0001.jpg").read_bytes()[:-50])
    (source / "Ann" / "0004.png").write_bytes(bomb())
    (source / "Ann" / "0005.bmp").write_bytes(b"BM")
    draw(tmp_path / "outside.png")
    (source / "Ann" / "0006.png").symlink_to(tmp_path / "outside.png")
    (source / "Ann" / "0007.png").symlink_to("0007.png")
    (source / "Ann" / "0008.png").symlink_to("0002.png")
    os.mkfifo(source / "Ann" / "0009.jpg")
    draw(source / "Ann" / "flat10.png")
    draw(source / "loose.png")
    draw(source / "Dora_0001.png")
    draw(source / "Ann" / "a:b.png")
    (source / "Ann" / "notes.txt").write_text("no image")
    draw(source / ".hidden" / "1.png")
    (source / "again").symlink_to(source / "Ann", target_is_directory=True)
    done = run(source, Given(flat10=((5.0, 5.0),) * 5))
    assert dict(done.failures) == {
        "Ann/0003.jpg": "unreadable",
        "Ann/0004.png": "too large",
        "Ann/0005.bmp": "neither JPEG nor PNG",
        "Ann/0006.png": "link that leads out of the folder",
        "Ann/0007.png": "unreadable",
        "Ann/0009.jpg": "unreadable",
        "Ann/a:b.png": "name with a backslash or a colon",
        "Ann/flat10.png": "landmarks that fix no position",
        "loose.png": "no folder that names the identity",
    }
    assert (done.n_images, done.n_ignored, done.links) == (6, 2, ("again",))
    manifest = read_manifest(done.manifest)
    assert sum(manifest.failures.values()) == len(done.failures)
    assert ("Dora", 1) in {face.key for face in manifest.faces}


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [((), "no face found"), (((0, 0, 30, 30), (60, 0, 30, 30)), "several faces")],
)
def test_faces_that_are_not_found_or_not_certain_are_failures(source, boxes, reason):
    done = run(source, DetectedLandmarks(Seen(*boxes)))
    assert done.n_images == 0
    assert all(found.startswith(reason) for _, found in done.failures)
    again = run(source, DetectedLandmarks(Seen(*boxes)))
    assert (again.failures, again.n_kept) == (done.failures, 4)


def test_no_two_images_become_one(source):
    for name in ("Ann/0001.png", "Ann/0001.jpeg", "Ann/0001.jpg.png"):
        draw(source / name, len(name))
    done = run(source)
    faces = read_manifest(done.manifest).faces
    assert (done.n_images, done.failures) == (7, ())
    assert len({face.file for face in faces}) == 7
    # Three images have Ann's number 1, so that no list could tell them apart.
    assert {face.number for face in faces if face.file.startswith("Ann/0001")} == {None}
    assert ("Ann", 2) in {face.key for face in faces}
    assert {"Ann/0001.jpg.png", "Ann/0001.png.png", "Bob/img7.png"} <= {face.file for face in faces}


def test_names_are_written_in_one_form_of_unicode(source):
    draw(source / "Zoe\u0308" / "1.png")
    run(source)
    faces = read_manifest(source.parent / "target" / "manifest.json").faces
    assert ("Zo\u00eb/1.png", "Zo\u00eb") in {(face.file, face.identity) for face in faces}


def test_images_without_identities_are_each_their_own(source):
    draw(source / "loose.png", 9)
    faces = read_manifest(run(source, identity="none").manifest).faces
    assert len({face.identity for face in faces}) == len(faces) == 5
    assert not any(face.identity in {"Ann", "Bob", "Cid"} for face in faces)


def test_folders_that_would_mix_are_refused(source, tmp_path):
    for target in (source, source / "out", source.parent):
        with pytest.raises(DataContractError, match="nor is inside it"):
            prepare(source, target, Given(), Settings())
    (tmp_path / "link").symlink_to(source, target_is_directory=True)
    with pytest.raises(DataContractError, match="nor is inside it"):
        prepare(source, tmp_path / "link" / "out", Given(), Settings())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataContractError, match="got one with other content"):
        run(source, to="full")
    with pytest.raises(DataContractError, match="expected a folder of images"):
        run(tmp_path / "missing")


def prepared_error(data_root: Path, target: Path, done: Preparation) -> np.ndarray:
    """Mean distance of each image's landmarks from those in the manifest, in pixels."""
    listed = json.loads((data_root / "faces_manifest.json").read_text())["images"]
    known = {entry["sha256"]: entry["landmarks5"] for entry in listed}
    images = json.loads(done.manifest.read_text())["images"]
    found = np.array([entry["source_landmarks5"] for entry in images])
    expected = np.array([known[entry["source_sha256"]] for entry in images])
    return np.linalg.norm(found - expected, axis=2).mean(axis=1)


def yunet(data_root: Path) -> DetectedLandmarks:
    return DetectedLandmarks(
        YuNet(data_root / "weights" / "detector" / "face_detection_yunet_2026may.onnx")
    )


def test_real_faces_are_prepared_as_the_manifest_has_them(data_root, tmp_path):
    listed = json.loads((data_root / "faces_manifest.json").read_text())["images"][::21][:200]
    for entry in listed:
        (tmp_path / entry["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_root / entry["file"], tmp_path / entry["file"])
    done = prepare(tmp_path / "faces", tmp_path / "out", yunet(data_root), Settings())
    assert (done.n_images, done.failures) == (200, ())
    assert prepared_error(data_root, tmp_path / "out", done).max() < 0.01
    aligned, given_ = (
        FaceFolder(tmp_path / "out"),
        FaceFolder(data_root, Path("faces_manifest.json")),
    )
    for entry in listed[::10]:
        key = (entry["identity"], entry["number"])
        one, two = aligned.find(key), given_.find(key)
        assert one is not None
        assert two is not None
        ours = aligned.images([one.id], ARCFACE_112).int()
        assert (ours - given_.images([two.id], ARCFACE_112).int()).abs().max() <= 8


@pytest.mark.slow
def test_all_real_faces_are_prepared_as_the_manifest_has_them(data_root, tmp_path):
    done = prepare(data_root / "faces", tmp_path / "out", yunet(data_root), Settings())
    error = prepared_error(data_root, tmp_path / "out", done)
    assert (done.n_images, done.failures) == (4274, ())
    assert error.max() < 0.01


@pytest.mark.parametrize("name", list(CROPS))
def test_every_named_crop_can_be_prepared(source, name):
    done = run(source, crop=CROPS[name])
    assert read_image(done.manifest.parent / "Ann" / "0001.png").shape[:2] == CROPS[name].size
