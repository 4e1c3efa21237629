"""The three lists of a pack of rendered faces, and its labels of parts."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fxeval.contracts import LabelSource
from fxeval.datasets.faces.alignment import ARCFACE_112, FACENET_160, similarity_transform
from fxeval.datasets.faces.part_labels import PART_NAMES, Part
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import DataContractError

KINDS = ("mild",) * 4 + ("aged",) * 2 + ("posed",) * 2
PEOPLE = 6


def write_manifest(folder: Path, content: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def entries(kinds=KINDS, people=PEOPLE) -> list[dict]:
    return [
        {
            "file": f"{who}_{number}.png", "sha256": "0" * 64, "identity": who, "number": number,
            "attributes": {"nuisance": kind},
        }
        for who in range(people)
        for number, kind in enumerate(kinds)
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The manifest of a pack of six people, with no image."""
    write_manifest(tmp_path, {"crop": "arcface112", "images": entries()})
    return tmp_path


def kinds_of(listing) -> list[tuple[str, str, bool]]:
    kinds = dict(enumerate(KINDS))

    def kind(file: str) -> str:
        return kinds[int(file[2])]

    return [
        (*sorted((kind(one), kind(two)), reverse=True), is_mated)
        for one, two, is_mated in zip(
            listing.probe, listing.reference, listing.is_mated, strict=True
        )
    ]


@pytest.mark.parametrize(
    ("nuisance", "name", "of_a_person"),
    [
        ("mild", "rendered_faces", {("mild", "mild"): 6}),
        ("aged", "rendered_faces_age", {("mild", "aged"): 8, ("aged", "aged"): 1}),
        ("posed", "rendered_faces_pose", {("posed", "mild"): 8, ("posed", "posed"): 1}),
    ],
)
def test_each_list_has_its_mated_pairs_and_as_many_nonmated_ones_of_the_same_two_kinds(
    root, nuisance, name, of_a_person
):
    source = FacePack(root, nuisance)
    assert source.name == name
    listing = source.listing()
    counts = Counter(kinds_of(listing))
    expected = {
        (*kinds, mated): n * PEOPLE for kinds, n in of_a_person.items() for mated in (True, False)
    }
    assert counts == expected
    n = sum(of_a_person.values()) * PEOPLE
    assert listing.is_mated == (True,) * n + (False,) * n
    pairs = {frozenset(pair) for pair in zip(listing.probe, listing.reference, strict=True)}
    assert len(pairs) == 2 * n
    assert len({*listing.probe_identity[:PEOPLE]}) == PEOPLE


@pytest.mark.parametrize("nuisance", ["aged", "posed"])
def test_the_probe_of_a_mixed_pair_is_the_mild_image_whether_mated_or_not(root, nuisance):
    listing = FacePack(root, nuisance).listing()
    mixed = [
        (one, two)
        for one, two in zip(listing.probe, listing.reference, strict=True)
        if "mild" in (KINDS[int(one[2])], KINDS[int(two[2])])
    ]
    assert {KINDS[int(one[2])] for one, _ in mixed} == {"mild"}
    assert {KINDS[int(two[2])] for _, two in mixed} == {nuisance}


def test_the_order_of_the_manifest_and_the_other_kinds_change_no_list(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_manifest(other, {"crop": "arcface112", "images": entries()[::-1]})
    fewer = tmp_path_factory.mktemp("fewer")
    write_manifest(fewer, {"crop": "arcface112", "images": entries(("mild",) * 4)})
    plain = tmp_path_factory.mktemp("plain")
    images = [{**entry, "attributes": {}} for entry in entries(("mild",) * 4)]
    write_manifest(plain, {"crop": "arcface112", "images": images})
    for nuisance in ("mild", "aged", "posed"):
        listing = FacePack(root, nuisance, seed=5).listing()
        assert listing == FacePack(other, nuisance, seed=5).listing()
        assert listing != FacePack(other, nuisance, seed=6).listing()
    mild = FacePack(root, seed=5).listing()
    assert mild == FacePack(fewer, seed=5).listing() == FacePack(plain, seed=5).listing()


@pytest.mark.parametrize("attributes", [{}, {"yaw_degrees": 3.0}])
def test_a_pack_of_no_nuisances_has_one_list_of_everything(root, attributes):
    images = [{**entry, "attributes": attributes} for entry in entries()]
    write_manifest(root, {"crop": "arcface112", "images": images})
    listing = FacePack(root).listing()
    assert sum(listing.is_mated) == PEOPLE * 28
    assert len(listing) == 2 * PEOPLE * 28
    with pytest.raises(DataContractError, match="whose attribute 'nuisance' is 'aged', got none"):
        FacePack(root, "aged").listing()


@pytest.mark.parametrize("nuisance", ["mild", "aged", "posed"])
def test_people_who_look_alike_are_compared_first_but_in_the_mild_list(tmp_path, nuisance):
    images = entries()
    for entry in images:
        entry["attributes"]["look"] = "aabbbc"[entry["identity"]]
    write_manifest(tmp_path, {"crop": "arcface112", "images": images})
    listing = FacePack(tmp_path, nuisance).listing()
    looks = dict(enumerate("aabbbc"))
    across = [
        (looks[int(one)], looks[int(two)])
        for one, two, is_mated in zip(
            listing.probe_identity, listing.reference_identity, listing.is_mated, strict=True
        )
        if not is_mated
    ]
    if nuisance == "mild":
        assert any(one != two for one, two in across)
        write_manifest(tmp_path, {"crop": "arcface112", "images": entries()})
        assert FacePack(tmp_path, nuisance).listing() == listing
    else:
        # Nobody looks like the sixth person: as many pairs as his are of people who differ.
        alike = [pair for pair in across if pair[0] == pair[1]]
        assert Counter(alike) == {("a", "a"): 9 * 2, ("b", "b"): 9 * 3}
        assert len(across) == 9 * 6
        pairs = {*zip(listing.probe, listing.reference, strict=True)}
        assert len(pairs) == len(listing)


def test_a_list_that_a_pack_has_no_images_for_is_refused(root):
    write_manifest(root, {"crop": "arcface112", "images": entries(("aged", "aged"))})
    with pytest.raises(DataContractError, match="whose attribute 'nuisance' is 'mild', got none"):
        FacePack(root).listing()


@pytest.mark.parametrize("nuisance", [None, 3, True, ""])
def test_an_image_whose_nuisance_alone_is_not_known_is_named(root, nuisance):
    content = read_manifest(root)
    content["images"][7]["attributes"] = {} if nuisance is None else {"nuisance": nuisance}
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=r"images\[7\]: expected the attribute 'nuisance'"):
        FacePack(root).listing()


def test_a_nuisance_that_does_not_exist_is_refused(root):
    with pytest.raises(DataContractError, match="expected mild, aged or posed, got 'wild'"):
        FacePack(root, "wild")  # type: ignore[arg-type]


# --- labels


def write_labels(root: Path, **arrays) -> None:
    """Write label maps, and name them in the manifest."""
    np.savez_compressed(root / "labels.npz", **arrays)
    name_labels(root)


def name_labels(root: Path, **values) -> None:
    digest = hashlib.sha256((root / "labels.npz").read_bytes()).hexdigest()
    entry = {"file": "labels.npz", "sha256": digest, **values}
    write_manifest(root, {**read_manifest(root), "labels": entry})


@pytest.fixture
def maps() -> np.ndarray:
    """Blocks of labels that tell images and places apart."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 19, (PEOPLE * len(KINDS), 14, 14), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def test_labels_come_in_the_order_asked_for_and_have_names(root, maps):
    write_labels(root, labels=maps)
    source = FacePack(root)
    assert isinstance(source, LabelSource)
    found = source.labels(["3_1.png", "0_0.png"], ARCFACE_112)
    assert torch.equal(found.labels, torch.from_numpy(maps[[25, 0]]).long())
    assert found.names == PART_NAMES
    assert len(PART_NAMES) == 19
    assert PART_NAMES[Part.UPPER_LIP] == "upper_lip"
    assert source.labels([], ARCFACE_112).labels.shape == (0, 112, 112)


def test_labels_follow_the_image_into_another_crop_without_being_mixed(root, maps):
    maps[0] = 17
    maps[0, 40:44, 60:64] = 3
    write_labels(root, labels=maps)
    found = FacePack(root).labels(["0_0.png"], FACENET_160).labels[0].numpy()
    assert {*np.unique(found)} == {3, 17}  # bilinear, there would be labels between them
    matrix = similarity_transform(ARCFACE_112.template, FACENET_160.template)
    centre = matrix[:, :2] @ (61.5, 41.5) + matrix[:, 2]
    rows, columns = np.nonzero(found == 3)
    assert np.abs((columns.mean(), rows.mean()) - centre).max() < 0.5


def test_pixels_outside_the_image_are_background(root, maps):
    write_labels(root, labels=np.full_like(maps, 17))
    wide = ARCFACE_112.template
    crop = type(ARCFACE_112)("wide", (112, 112), tuple((x / 2 + 28, y / 2 + 28) for x, y in wide))
    found = FacePack(root).labels(["0_0.png"], crop).labels[0]
    assert int(found[56, 56]) == 17
    assert int(found[5, 5]) == Part.BACKGROUND


def test_a_pack_without_labels_says_so(root):
    with pytest.raises(DataContractError, match=r"manifest\.json: has no label maps"):
        FacePack(root, regions="labels").labels(["0_0.png"], ARCFACE_112)


def test_labels_of_an_image_that_is_not_there_are_an_error(root, maps):
    write_labels(root, labels=maps)
    with pytest.raises(DataContractError, match=r"has no image '9_0\.png'"):
        FacePack(root).labels(["0_0.png", "9_0.png"], ARCFACE_112)


@pytest.mark.parametrize(
    "entry",
    [[], "labels.npz", {}, {"file": "labels.npz"}, {"file": "labels.npz", "sha256": "0" * 63},
     {"file": "../labels.npz", "sha256": "0" * 64}, {"file": 3, "sha256": "0" * 64}],
)  # fmt: skip
def test_labels_that_the_manifest_does_not_name_well_are_refused(root, entry):
    write_manifest(root, {**read_manifest(root), "labels": entry})
    assert len(FacePack(root).listing()) == 2 * 6 * PEOPLE  # which needs no labels
    with pytest.raises(DataContractError, match="expected 'labels' to be an object with 'file'"):
        FacePack(root).labels(["0_0.png"], ARCFACE_112)


def test_changed_or_missing_labels_are_refused(root, maps):
    write_labels(root, labels=maps)
    with (root / "labels.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataContractError, match=r"labels\.npz: expected the SHA-256"):
        FacePack(root).labels(["0_0.png"], ARCFACE_112)
    (root / "labels.npz").unlink()
    with pytest.raises(DataContractError, match=r"labels\.npz: cannot be read"):
        FacePack(root).labels(["0_0.png"], ARCFACE_112)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"parts": np.zeros((48, 112, 112), np.uint8)}, "expected an array 'labels' of"),
        ({"labels": np.zeros((47, 112, 112), np.uint8)}, r"got \(47, 112, 112\) uint8"),
        ({"labels": np.zeros((48, 112, 96), np.uint8)}, r"got \(48, 112, 96\) uint8"),
        ({"labels": np.zeros((48, 112, 112), np.int64)}, "int64"),
        ({"labels": np.zeros((112, 112, 48), np.uint8).T}, "uint8"),
        ({"labels": np.full((48, 112, 112), 19, np.uint8)}, "expected labels below 19, got 19"),
        ({"labels": np.array([{}], object)}, "object"),
    ],
)
def test_arrays_that_are_no_label_maps_are_refused(root, arrays, message):
    write_labels(root, **arrays)
    with pytest.raises(DataContractError, match=rf"labels\.npz: .*{message}"):
        FacePack(root).labels(["0_0.png"], ARCFACE_112)


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_file_of_labels_that_is_cut_off_is_refused(root, maps, kept):
    write_labels(root, labels=maps)
    whole = (root / "labels.npz").read_bytes()
    (root / "labels.npz").write_bytes(whole[:kept])
    name_labels(root)
    with pytest.raises(DataContractError, match=r"labels\.npz: expected an array 'labels'"):
        FacePack(root).labels(["0_0.png"], ARCFACE_112)


def test_the_pack_reads_images_of_every_list(root):
    images = []
    for entry in entries():
        pixels = np.full((112, 112, 3), entry["identity"] * 20 + entry["number"], np.uint8)
        cv2.imwrite(str(root / entry["file"]), pixels)
        digest = hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest()
        images.append({**entry, "sha256": digest})
    write_manifest(root, {"crop": "arcface112", "images": images})
    source = FacePack(root, "posed")
    listing = source.listing()
    found = source.images(listing.reference[:2], ARCFACE_112)
    assert found[:, 0, 0, 0].tolist() == [6, 26]
    assert len({*source.image_digests([*listing.probe, *listing.reference])}) == 6 * 6
