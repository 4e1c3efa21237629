"""Faces detected by YuNet or listed in a file, and the choice of one of them."""

import contextlib
import csv
import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.images import read_image
from fxeval.datasets.preparing.detection import (
    DetectedLandmarks,
    Detection,
    LandmarkFile,
    Picture,
    UnusableImageError,
    YuNet,
    choose,
)
from fxeval.errors import DataContractError
from fxeval.tests.rounding import FLOAT64, assert_rounded

POINTS = ((30.0, 40.0), (60.0, 40.0), (45.0, 55.0), (33.0, 70.0), (57.0, 70.0))


def face(left: float, top: float, width: float, height: float) -> Detection:
    return Detection((left, top, width, height), POINTS, 0.9)


@pytest.fixture(scope="module")
def yunet(data_root: Path) -> YuNet:
    return YuNet(data_root / "weights" / "detector" / "face_detection_yunet_2026may.onnx")


@pytest.fixture(scope="module")
def sample(data_root: Path) -> list[dict]:
    manifest = json.loads((data_root / "faces_manifest.json").read_text())
    return manifest["images"][::21][:200]


def landmark_error(found, expected) -> float:
    return float(np.linalg.norm(np.array(found) - np.array(expected), axis=1).mean())


def test_real_faces_have_their_landmarks_where_the_manifest_says(data_root, yunet, sample):
    source = DetectedLandmarks(yunet)
    errors, mirrored = [], []
    for entry in sample:
        image = read_image(data_root / entry["file"])
        found = source.landmarks(Picture("a.jpg", "", image))
        errors.append(landmark_error(found, entry["landmarks5"]))
        mirrored.append(landmark_error(np.array(found)[[1, 0, 2, 4, 3]], entry["landmarks5"]))
    # The manifest has two decimals and was made by the same detector.
    assert max(errors) < 0.01
    assert min(mirrored) > 5


def test_a_large_picture_is_scaled_down_for_the_detector_and_its_landmarks_back(
    data_root, yunet, sample
):
    errors = []
    for entry in sample[:20]:
        image = read_image(data_root / entry["file"])
        large = cv2.resize(image, (1500, 1500), interpolation=cv2.INTER_LINEAR)
        small = cv2.resize(large, (640, 640), interpolation=cv2.INTER_AREA)
        found, in_small = (
            np.array(DetectedLandmarks(yunet).landmarks(Picture("a.jpg", "", picture)))
            for picture in (large, small)
        )
        expected = (in_small + 0.5) * 1500 / 640 - 0.5
        assert_rounded(found, expected, terms=4, unit=FLOAT64)
        errors.append(landmark_error((found + 0.5) / 6 - 0.5, entry["landmarks5"]))
    # YuNet's points move by about 3 of these pixels with the size and position of a face.
    assert np.median(errors) < 6


def test_a_face_turned_around_is_found_at_the_turned_place(data_root, yunet, sample):
    image = read_image(data_root / sample[0]["file"])
    found = DetectedLandmarks(yunet).landmarks(Picture("a.jpg", "", image[:, ::-1].copy()))
    x, y = np.array(sample[0]["landmarks5"]).T
    turned = np.stack([249 - x, y], axis=1)[[1, 0, 2, 4, 3]]
    assert landmark_error(found, turned) < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3000, 2), (250, 250)])
def test_where_there_is_no_face_none_is_found(yunet, size):
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (*size, 3), np.uint8)
    for image in (noise, np.zeros_like(noise)):
        with pytest.raises(UnusableImageError, match="no face found"):
            DetectedLandmarks(yunet).landmarks(Picture("a.jpg", "", image))


def test_settings_say_what_the_landmarks_depend_on(yunet):
    settings = DetectedLandmarks(yunet, "largest").settings()
    assert settings["sha256"] == hashlib.sha256(yunet.file.read_bytes()).hexdigest()
    assert settings["rule"] == "largest"
    assert settings["confidence"] == 0.6
    assert str(yunet.file) not in json.dumps(settings)


def test_a_detector_file_is_known_or_its_digest_given(yunet, tmp_path):
    data = bytearray(yunet.file.read_bytes())
    data[-5000] ^= 1
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(bytes(data))
    image = np.zeros((250, 250, 3), np.uint8)
    with pytest.raises(
        DataContractError, match=r"changed\.onnx: expected SHA-256 of a known YuNet"
    ):
        YuNet(changed).detect(image)
    with pytest.raises(DataContractError, match="SHA-256 0000"):
        YuNet(yunet.file, sha256="0" * 64).detect(image)
    digest = hashlib.sha256(yunet.file.read_bytes()).hexdigest()
    assert YuNet(yunet.file, sha256=digest.upper()).detect(image) == ()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07" * 500])
def test_a_file_that_is_no_detector_is_refused(tmp_path, content, capfd):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(DataContractError, match=r"other\.onnx: expected the detector YuNet"):
        YuNet(path, sha256=hashlib.sha256(content).hexdigest()).detect(image)
    assert capfd.readouterr().err == ""


def test_another_network_is_no_detector(data_root):
    path = data_root / "weights" / "mobileface_v3.onnx"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataContractError, match="the detector YuNet"):
        YuNet(path, sha256=digest).settings()


def test_missing_detectors_and_pipes_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(DataContractError, match=str(tmp_path)):
            YuNet(tmp_path / name).settings()


@pytest.mark.parametrize("wrong", [{"confidence": 0}, {"nms": 1.5}, {"top": 0}, {"longest": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataContractError, match="yunet"):
        YuNet(Path("a"), **wrong)


def test_the_central_face_is_the_one_next_to_the_middle():
    centre, larger = face(40, 40, 20, 20), face(0, 0, 40, 40)
    assert choose([larger, centre], (100, 100)) is centre
    assert choose([larger, centre], (100, 100), "largest") is larger


@pytest.mark.parametrize("rule", ["central", "largest"])
def test_two_faces_that_are_as_good_are_no_answer(rule):
    with pytest.raises(UnusableImageError, match="several faces") as caught:
        choose([face(10, 40, 20, 20), face(70, 40, 20, 20)], (100, 100), rule)
    assert rule in caught.value.reason


@given(
    st.lists(st.tuples(*[st.floats(1, 90)] * 4), min_size=1, max_size=6),
    st.sampled_from(["central", "largest"]),
    st.randoms(),
)
def test_the_choice_does_not_depend_on_the_order(boxes, rule, random):
    faces = [face(*box) for box in boxes]
    shuffled = random.sample(faces, len(faces))

    def chosen(those):
        try:
            return choose(those, (100, 120), rule)
        except UnusableImageError:
            return None

    assert chosen(faces) is chosen(shuffled)


def test_no_faces_and_unknown_rules_are_refused():
    with pytest.raises(UnusableImageError, match="no face found"):
        choose([], (100, 100))
    with pytest.raises(ValueError, match="rule"):
        choose([face(0, 0, 1, 1)], (100, 100), "first")  # type: ignore[arg-type]


HEADER = "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n"
LINE = "Ann/0001.jpg," + ",".join(f"{value:g}" for point in POINTS for value in point)
PICTURE = Picture("Ann/0001.jpg", "ab" * 32, np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("text", [HEADER + LINE, "\ufeff" + HEADER + "\n" + LINE + "\r\n"])
def test_landmarks_can_be_given_in_a_table(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    source = LandmarkFile(tmp_path / "a.csv")
    assert source.landmarks(PICTURE) == POINTS
    assert source.settings()["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(UnusableImageError, match="no landmarks given"):
        source.landmarks(Picture("Bob/0001.jpg", "", PICTURE.pixels))


def test_a_name_with_a_comma_can_be_quoted(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER.strip().split(","), ["a, b.jpg", *sum(POINTS, ())]])
    assert LandmarkFile(tmp_path / "a.csv").landmarks(Picture("a, b.jpg", "", PICTURE.pixels))


def test_landmarks_can_be_given_by_a_manifest_that_knows_the_image(tmp_path):
    entry = {"file": "Ann/0001.jpg", "sha256": "ab" * 32, "identity": "Ann", "landmarks5": POINTS}
    (tmp_path / "m.json").write_text(json.dumps({"images": [entry]}))
    assert LandmarkFile(tmp_path / "m.json").landmarks(PICTURE) == POINTS
    other = Picture("Ann/0001.jpg", "cd" * 32, PICTURE.pixels)
    with pytest.raises(UnusableImageError, match="another image of this name"):
        LandmarkFile(tmp_path / "m.json").landmarks(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv:1: expected the header"),
        ("file,x1\n", "a.csv:1: expected the header"),
        (HEADER + LINE + "\n" + LINE, "a.csv:3: .* got one of them twice: 'Ann/0001.jpg'"),
        (HEADER + "Ann/0001.jpg,1,2,3", "a.csv:2: expected a file and ten finite numbers"),
        (HEADER + LINE.replace("30", "nan"), "a.csv:2: expected a file and ten"),
        (HEADER + LINE.replace("30", "1e400"), "a.csv:2: expected a file and ten"),
        (HEADER + LINE.replace("30", "\x1b[2J"), "a.csv:2: .*\\?\\[2J"),
        (HEADER + LINE.replace("30", "1e9"), "within 100000 pixels"),
        (HEADER + '"' + LINE, "a CSV file"),
        (HEADER + "a" * 200_000 + LINE, "a CSV file"),
    ],
)
def test_a_table_that_breaks_the_form_is_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataContractError, match=message):
        LandmarkFile(tmp_path / "a.csv").landmarks(PICTURE)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_a_damaged_table_is_read_or_refused(tmp_path_factory, damage, at):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    text = (HEADER + LINE).encode()
    path.write_bytes(text[:at] + damage + text[at:])
    with contextlib.suppress(DataContractError):
        assert len(LandmarkFile(path).landmarks(PICTURE)) == 5
