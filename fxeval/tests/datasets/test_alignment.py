"""Crops, alignment and the reading of image files."""

import contextlib
import json
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import (
    ARCFACE_112,
    CROPS,
    DLIB_150,
    MAX_BYTES,
    MAX_SCANS,
    align,
    arcface_crop,
    decode_image,
    read_image,
    similarity_transform,
)
from fxeval.errors import DataContractError
from fxeval.tests.rounding import FLOAT64, assert_rounded

FACE = np.array([(100, 110), (142, 111), (117, 134), (106, 152), (142, 152)], float)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (height, width, 3), np.uint8)


def clouds(sigma: float) -> np.ndarray:
    """A smooth image of 250 x 250 pixels that uses the whole range."""
    blurred = cv2.GaussianBlur(noise(250, 250).astype(np.float64), (0, 0), sigma)
    return (255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The transform by singular value decomposition, as in the paper."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / a.var(0).sum()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


@settings(deadline=None)
@given(arrays(np.float64, (5, 2), elements=st.floats(-300, 300)))
def test_the_transform_is_umeyamas(landmarks):
    if np.ptp(landmarks, axis=0).min() < 1:
        return
    for crop in (ARCFACE_112, DLIB_150):
        template = np.array(crop.template)
        found, expected = similarity_transform(landmarks, template), umeyama(landmarks, template)
        # The shift subtracts the centre of the landmarks, which the transform may enlarge.
        scale = template.max() * (1 + np.abs(landmarks).max() / np.ptp(landmarks, axis=0).max())
        assert_rounded(found, expected, terms=40, scale=scale, unit=FLOAT64)


@settings(deadline=None)
@given(st.floats(0.2, 5), st.floats(-3, 3), st.floats(-90, 90), st.floats(-90, 90))
def test_the_transform_recovers_scale_rotation_and_shift(scale, angle, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity_transform(FACE, FACE @ turn.T + (dx, dy))
    # The shift is a difference of the faces' centres, which are up to 5 * 180 pixels away.
    expected = np.column_stack([turn, (dx, dy)])
    assert_rounded(found, expected, terms=40, scale=1000, unit=FLOAT64)


def test_a_mirrored_face_is_never_reflected():
    matrix = similarity_transform(FACE * (-1, 1), FACE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.full((5, 2), 7.0), "distinct points"),
        (np.full((5, 2), np.nan), "finite"),
        (FACE[:4], "two arrays \\(P, 2\\)"),
        (FACE.ravel(), "two arrays \\(P, 2\\)"),
    ],
)
def test_landmarks_that_fix_no_transform_are_refused(landmarks, message):
    with pytest.raises(DataContractError, match=message):
        align(noise(250, 250), landmarks, ARCFACE_112)


def test_an_aligned_image_comes_back_untouched():
    image = noise(150, 150)
    assert np.array_equal(align(image, DLIB_150.template, DLIB_150), image)


def test_the_crop_shows_each_landmark_at_its_place_in_the_template():
    for row, (x, y) in enumerate(ARCFACE_112.template):
        image = np.zeros((250, 250, 3), np.uint8)
        left, top = FACE[row].astype(int)
        image[top - 2 : top + 3, left - 2 : left + 3] = 255
        matrix = similarity_transform(FACE, ARCFACE_112.template)
        expected = matrix[:, :2] @ FACE[row] + matrix[:, 2]
        crop = align(image, FACE, ARCFACE_112)[..., 0].astype(float)
        ys, xs = np.mgrid[:112, :112]
        centre = (xs * crop).sum() / crop.sum(), (ys * crop).sum() / crop.sum()
        assert np.abs(centre - expected).max() <= 0.1
        assert np.hypot(expected[0] - x, expected[1] - y) < 6  # no real face is the template


def bilinear(image: np.ndarray, landmarks: np.ndarray, crop: Crop) -> np.ndarray:
    """The crop pixel by pixel: four neighbours, each black if it lies outside the image."""
    matrix = np.vstack([umeyama(landmarks, np.array(crop.template)), (0, 0, 1)])
    back = np.linalg.inv(matrix)
    height, width = image.shape[:2]
    face = np.zeros((*crop.size, 3))
    for row, column in np.ndindex(*crop.size):
        x, y, _ = back @ (column, row, 1)
        for i in (int(np.floor(y)), int(np.floor(y)) + 1):
            for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= i < height and 0 <= j < width:
                    face[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return face


@pytest.mark.parametrize("move", [0, -90, 120], ids=["inside", "over the corner", "below"])
@pytest.mark.parametrize("name", ["arcface112", "arcface112x96", "dlib150"])
def test_pixels_are_bilinear_with_a_black_border(name, move):
    image = clouds(2)
    turned = (FACE - 125) @ [[0.8, 0.3], [-0.3, 0.8]] + 125 + move
    error = np.abs(align(image, turned, CROPS[name]) - bilinear(image, turned, CROPS[name]))
    # OpenCV before 5 rounds positions to 1/32 of a pixel.
    assert error.mean() < 0.6
    assert np.percentile(error, 99) < 2.5
    wrong = np.abs(align(image, turned + 0.5, CROPS[name]) - bilinear(image, turned, CROPS[name]))
    assert wrong.mean() > 2 * error.mean()


def test_what_lies_outside_the_image_is_black():
    far = np.array(ARCFACE_112.template) - 500
    assert not align(noise(250, 250), far, ARCFACE_112).any()


def test_a_crop_need_not_be_square():
    narrow = Crop("narrow", (112, 96), tuple((x - 8, y) for x, y in ARCFACE_112.template))
    image = noise(250, 250)
    wide = align(image, FACE, ARCFACE_112).astype(int)
    assert np.abs(align(image, FACE, narrow) - wide[:, 8:104]).mean() < 1


def test_named_crops_are_those_of_the_published_models(data_root: Path):
    manifest = json.loads((data_root / "weights" / "manifest.json").read_text())
    for model, name in [
        ("dlib_resnet", "dlib150"),
        ("edgeface_xs", "arcface112"),
        ("mobilenetv2_se_ov0095", "openvino128"),
        ("mobilenetv1_hse_vggface2", "hse224"),
    ]:
        entry = next(one for one in manifest["models"] if one["name"] == model)
        assert CROPS[name].size == tuple(entry["input"]["size"])
        assert np.array_equal(CROPS[name].template, entry["template"])
    assert {name: crop.name for name, crop in CROPS.items()} == {name: name for name in CROPS}


def test_facenets_crop_is_the_arcface_crop_resized():
    image = clouds(4)
    small = align(image, FACE, ARCFACE_112)
    resized = cv2.resize(small, (160, 160), interpolation=cv2.INTER_LINEAR).astype(int)
    direct = align(image, FACE, CROPS["facenet160"]).astype(int)
    assert np.abs(direct - resized)[2:-2, 2:-2].mean() < 1.5
    moved = tuple((x + 1, y) for x, y in CROPS["facenet160"].template)
    shifted = align(image, FACE, Crop("shifted", (160, 160), moved))
    assert np.abs(shifted - resized)[2:-2, 2:-2].mean() > 3


def test_arcface_crops_grow_by_the_published_rule():
    assert arcface_crop(112).template == ARCFACE_112.template
    double = np.array(ARCFACE_112.template) * 2
    assert_rounded(arcface_crop(224).template, double, terms=3, unit=FLOAT64)
    wide = np.array(ARCFACE_112.template) + np.array([8, 0])
    assert_rounded(arcface_crop(128).template, wide, terms=3, unit=FLOAT64)
    assert_rounded(arcface_crop(256).template, wide * 2, terms=3, unit=FLOAT64)
    assert arcface_crop(256).size == (256, 256)
    for size in (0, -112, 64, 96, 150, 160):
        with pytest.raises(DataContractError, match=f"got {size}"):
            arcface_crop(size)


def test_real_faces_are_cut_as_the_golden_crops(data_root: Path):
    golden = np.load(data_root / "weights" / "golden.npz")
    manifest = json.loads((data_root / "faces_manifest.json").read_text())
    faces = {image["file"][6:-4]: image for image in manifest["images"]}
    for row, name in enumerate(golden["images"]):
        image = read_image(data_root / "faces" / f"{name}.jpg")
        landmarks = faces[str(name)]["landmarks5"]
        for crop, key in ((ARCFACE_112, "crop_arcface112"), (DLIB_150, "crop_dlib150")):
            got = align(image, landmarks, crop).astype(int)
            assert np.abs(got - golden[key][row]).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_colours_are_read_as_rgb(tmp_path: Path, suffix: str):
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 2] = 255  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    red = read_image(tmp_path / f"a{suffix}")
    assert red.shape == (40, 60, 3)
    assert red[..., 0].min() > 250
    assert red[..., 1:].max() < 5


def test_a_grey_image_gets_three_channels(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), noise(8, 9)[..., 0])
    assert read_image(tmp_path / "a.png").shape == (8, 9, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), noise(64, 64))
    data = path.read_bytes()
    for kept in (0, 1, 3, 12, 40):
        path.write_bytes(data[:kept])
        with pytest.raises(DataContractError, match=f"a{suffix}"):
            read_image(path)
    for kept in (len(data) // 2, len(data) - 200, len(data) - 8):
        path.write_bytes(data[:kept])
        with pytest.raises(DataContractError, match=f"a{suffix}: is truncated"):
            read_image(path)


def test_a_small_file_that_asks_for_gigabytes_is_refused_unread(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(DataContractError, match="20000 x 20000"):
        read_image(tmp_path / "bomb.png")
    cv2.imwrite(str(tmp_path / "a.jpg"), noise(64, 64))
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataContractError, match="60000 x 60000"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"no"])
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataContractError, match=r"x\.jpg"):
        read_image(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(DataContractError, match=r"missing\.jpg"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(DataContractError, match=str(tmp_path)):
        read_image(tmp_path)


def test_what_would_never_end_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataContractError, match=r"pipe\.jpg: .*got a folder or a special file"):
        read_image(tmp_path / "pipe.jpg")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataContractError, match=r"large\.png: expected at most"):
        read_image(tmp_path / "large.png")


def test_a_picture_of_very_many_scans_is_refused_undecoded():
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", noise(64, 64), progressive)[1].tobytes()
    assert decode_image(data, "a").shape == (64, 64, 3)
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    with pytest.raises(DataContractError, match=f"at most {MAX_SCANS} scans"):
        decode_image(data[:at] + scan * MAX_SCANS + b"\xff\xd9", "a")


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([".png", ".jpg"]), st.data())
def test_a_damaged_image_is_read_whole_or_refused(suffix, data):
    image = bytearray(cv2.imencode(suffix, noise(24, 24))[1].tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataContractError):
        assert decode_image(bytes(image), "a").ndim == 3
