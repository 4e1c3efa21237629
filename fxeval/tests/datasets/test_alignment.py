"""Crops, alignment and the reading of image files."""

import json
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
    align,
    arcface_crop,
    crop_from,
    similarity_transform,
    size_fault,
)
from fxeval.datasets.faces.images import read_image
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


TEMPLATE = [[76.6, 103.4], [147.1, 103.0], [112.1, 143.5], [83.1, 184.7], [141.5, 184.4]]


def test_a_crop_is_named_by_its_name_its_size_or_all_of_it():
    for size in (112, 128, 224, 256, 336, 448):
        assert crop_from(f"arcface{size}", "crop") == arcface_crop(size)
    mine = {"name": "mine", "size": [224, 220], "template": TEMPLATE}
    assert crop_from(mine, "crop") == Crop("mine", (224, 220), tuple(map(tuple, TEMPLATE)))
    assert crop_from(DLIB_150, "crop") is DLIB_150
    rounded = {"name": "arcface224", "size": [224, 224], "template": TEMPLATE}
    assert crop_from(rounded, "crop") == arcface_crop(224)  # a name always means the same points
    assert crop_from("arcface112", "crop") is ARCFACE_112


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("arcface160", "unknown crop 'arcface160'"),
        ("arcface0", "unknown crop"),
        ("arcface99999", "unknown crop"),
        ("arcfacd112", r"Did you mean 'arcface112'\?"),
        (224, "expected arcface112, .*'arcface' and a size"),
        ({"name": "x", "size": [224, 224]}, "expected arcface112"),
        ({"name": "x", "size": [224, 224], "template": TEMPLATE, "crop": 1}, "expected arcface112"),
        ({"name": "x", "size": [224, 224], "template": np.array(TEMPLATE) / 224}, "expected arc"),
        ({"name": "arcface224", "size": [224, 224], "template": np.array(TEMPLATE) + 1},
         "the crop arcface224 has another size or template. Give yours another name"),
        ({"name": "arcface112", "size": [224, 224], "template": TEMPLATE}, "another size"),
    ],
)  # fmt: skip
def test_what_names_no_crop_is_refused_with_all_that_do(value: object, said: str):
    with pytest.raises(DataContractError, match=rf"'crop': .*{said}"):
        crop_from(value, "crop")


def test_an_image_of_another_size_is_refused_with_the_crops_of_its_size():
    said, advice = size_fault(ARCFACE_112, 224, 224)
    assert said == "expected 112 x 112 pixels (crop arcface112), got 224 x 224"
    assert "(hse224 or arcface224), or align the images again." in advice
    assert size_fault(ARCFACE_112, 100, 90)[1] == "Align the images again."


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
