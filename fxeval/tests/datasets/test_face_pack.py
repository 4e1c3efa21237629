"""Folders of rendered faces."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150
from fxeval.datasets.faces.part_labels import Part
from fxeval.datasets.lists.face_pack import BANNER, FacePack
from fxeval.datasets.lists.twin_pairs import TwinPairs
from fxeval.errors import DataContractError
from fxeval.fixtures.synthetic.make_pack import FOLDER

PARTS = (Part.SKIN, Part.LEFT_EYE, Part.RIGHT_EYE, Part.NOSE, Part.UPPER_LIP, Part.LOWER_LIP)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Noise images of identities 3 (four), 7 (two) and 9 (one)."""
    write_pack(tmp_path, {3: 4, 7: 2, 9: 1})
    return tmp_path


def write_pack(folder: Path, counts: dict[int, int]) -> None:
    generator, images = np.random.default_rng(0), []
    for identity, count in counts.items():
        for number in reversed(range(count)):  # listings must not depend on the manifest's order
            name = f"{identity}_{number}.png"
            cv2.imwrite(str(folder / name), generator.integers(0, 256, (112, 112, 3), np.uint8))
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            images.append({"file": name, "sha256": digest, "identity": identity, "number": number})
    write_manifest(folder, {"crop": "arcface112", "images": images})


def write_manifest(folder: Path, content: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_a_pack_is_a_pair_source_and_says_what_its_faces_are():
    pack = FacePack(FOLDER)
    assert isinstance(pack, PairSource)
    assert pack.banner == BANNER
    assert "nothing about real faces" in BANNER


def test_the_shipped_pack_is_the_one_its_manifest_describes():
    images = read_manifest(FOLDER)["images"]
    assert len(images) == 800
    assert {path.name for path in FOLDER.iterdir()} == {
        "manifest.json", "labels.npz", "twins.npz", *(image["file"] for image in images),
    }  # fmt: skip
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 5_600_000
    ids = [image["file"] for image in images]
    pack = FacePack(FOLDER)
    assert pack.images(ids, ARCFACE_112).shape == (800, 3, 112, 112)
    labels = pack.labels(ids, ARCFACE_112).labels
    shown = torch.stack([(labels == part).any(2).any(1).float().mean() for part in PARTS])
    assert shown.min() > 0.9  # a fringe hides the brows of some, a turned head an eye


def test_every_shipped_image_has_its_nuisance_pose_and_age():
    attributes = [image["attributes"] for image in read_manifest(FOLDER)["images"]]
    kinds = [one["nuisance"] for one in attributes]
    assert kinds == (["mild"] * 4 + ["aged"] * 2 + ["posed"] * 2) * 100
    words = {"nuisance", "yaw_degrees", "pitch_degrees", "age", "look"}
    assert all({*one} == words for one in attributes)
    assert min(Counter(one["look"] for one in attributes[::8]).values()) >= 10
    turned = {
        kind: np.mean([abs(a["yaw_degrees"]) for a in attributes if a["nuisance"] == kind])
        for kind in ("mild", "posed")
    }
    assert turned["posed"] > 2 * turned["mild"]


@pytest.mark.parametrize(("nuisance", "mated"), [("mild", 600), ("aged", 900), ("posed", 900)])
def test_the_first_hundred_pairs_of_a_shipped_list_are_of_a_hundred_identities(nuisance, mated):
    listing = FacePack(FOLDER, nuisance).listing()
    assert listing.is_mated == (True,) * mated + (False,) * mated
    assert len({*listing.probe_identity[:100]}) == 100
    assert listing.probe[:2] == ("90000_0.jpg", "90001_0.jpg")
    second = {"mild": 1, "aged": 4, "posed": 6}[nuisance]
    assert listing.reference[:2] == (f"90000_{second}.jpg", f"90001_{second}.jpg")


def test_the_shipped_twins_are_fifty_of_each_kind_and_part_and_differ_where_the_part_is():
    source = TwinPairs(FOLDER)
    rows = source.twins()
    parts = ("nose", "mouth", "eyes", "brows", "jaw")
    expected = {("redrawn", part): 50 for part in parts}
    assert Counter((one.kind, one.part) for one in rows) == expected | {
        ("pasted", part): 50 for part in parts[:-1]
    }
    assert len(source.listing()) == 450
    some = [rows[n] for n in range(0, 450, 15)]
    changed = source.changed([one.mate_twin for one in some], ARCFACE_112)
    counts = changed.sum((1, 2))
    assert int(counts.min()) >= 100
    assert int(counts.max()) < 112 * 112 // 2
    nose = [n for n, one in enumerate(some) if one.part == "nose"]
    labels = source.labels([some[n].mate for n in nose], ARCFACE_112).labels
    inside = (changed[nose] & (labels == Part.NOSE)).sum() / changed[nose].sum()
    assert inside > 0.4  # its shadow and its soft edge lie around it


def test_a_listing_starts_with_one_mated_pair_of_each_identity(root):
    listing = FacePack(root).listing()
    pairs = list(zip(listing.probe, listing.reference, strict=True))
    assert pairs[:2] == [("3_0.png", "3_1.png"), ("7_0.png", "7_1.png")]
    assert listing.is_mated == (True,) * 7 + (False,) * 7
    assert pairs[2:7] == [
        ("3_0.png", "3_2.png"), ("3_0.png", "3_3.png"), ("3_1.png", "3_2.png"),
        ("3_1.png", "3_3.png"), ("3_2.png", "3_3.png"),
    ]  # fmt: skip
    assert len(set(pairs)) == 14


def test_nonmated_pairs_follow_the_seed(root):
    assert FacePack(root).listing() == FacePack(root).listing()
    assert FacePack(root).listing() != FacePack(root, seed=1).listing()


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_as_many_nonmated_as_mated_pairs_are_drawn_as_far_as_there_are(
    counts, seed, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("pack")
    images = [
        {"file": f"{i}_{k}.png", "sha256": "0" * 64, "identity": i, "number": k}
        for i, count in enumerate(counts)
        for k in range(count)
    ]
    write_manifest(folder, {"crop": "arcface112", "images": images})
    listing = FacePack(folder, seed=seed).listing()
    mated = sum(count * (count - 1) // 2 for count in counts)
    possible = (sum(counts) ** 2 - sum(count**2 for count in counts)) // 2
    assert sum(listing.is_mated) == mated
    assert len(listing) - mated == min(mated, possible)
    pairs = {frozenset(pair) for pair in zip(listing.probe, listing.reference, strict=True)}
    assert len(pairs) == len(listing)


def test_images_come_in_the_order_asked_for_and_as_rgb(root):
    ids = ["7_1.png", "3_0.png", "7_1.png"]
    images = FacePack(root).images(ids, ARCFACE_112)
    expected = cv2.imread(str(root / "7_1.png"))[:, :, ::-1]
    assert images.dtype == torch.uint8
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), expected)
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert FacePack(root).images([], ARCFACE_112).shape == (0, 3, 112, 112)


def test_another_crop_moves_the_landmarks_to_its_template(root):
    entry = read_manifest(root)["images"][0]
    picture = np.zeros((112, 112, 3), np.uint8)
    for x, y in ARCFACE_112.template:
        cv2.circle(picture, (round(x * 16), round(y * 16)), 40, (255, 255, 255), -1, shift=4)
    cv2.imwrite(str(root / entry["file"]), picture)
    entry["sha256"] = hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest()
    write_manifest(root, {"crop": "arcface112", "images": [entry]})
    face = FacePack(root).images([entry["file"]], DLIB_150)[0, 0].numpy()
    assert face.shape == (150, 150)
    for x, y in DLIB_150.template:
        near = face[round(y) - 9 : round(y) + 10, round(x) - 9 : round(x) + 10].astype(float)
        rows, columns = np.mgrid[-9:10, -9:10]
        centre = np.array([(columns * near).sum(), (rows * near).sum()]) / near.sum()
        assert np.abs(centre).max() < 5  # the templates differ by more than a similarity transform


def test_every_image_that_cannot_be_used_is_named(root):
    (root / "3_0.png").unlink()
    (root / "3_1.png").write_bytes(b"no picture")
    whole = (root / "3_2.png").read_bytes()
    (root / "3_2.png").write_bytes(whole[:400])
    (root / "7_0.png").write_bytes((root / "7_1.png").read_bytes())
    ids = ["3_0.png", "3_1.png", "3_2.png", "7_0.png", "7_1.png", "none.png"]
    with pytest.raises(DataContractError) as error:
        FacePack(root).images(ids, ARCFACE_112)
    message = str(error.value)
    assert "5 of 6" in message
    assert "7_1.png" not in message
    assert all(f"{name}" in message for name in (*ids[:4], "none.png"))
    assert "SHA-256" in message


def test_an_image_of_another_size_is_refused(root):
    content = read_manifest(root)
    entry = content["images"][0]
    cv2.imwrite(str(root / entry["file"]), np.zeros((96, 112, 3), np.uint8))
    entry["sha256"] = hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest()
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=r"expected 112 x 112 pixels .*, got 112 x 96"):
        FacePack(root).images([entry["file"]], ARCFACE_112)


@pytest.mark.parametrize(
    "file",
    ["../3_0.png", "a/../../b.png", "/etc/hostname", "C:/x.png", "a\\b.png", "", ".", "a//b",
     "a/", "x\n.png", "x\0.png", "a" * 300],
)  # fmt: skip
def test_a_path_that_could_leave_the_folder_is_refused(root, file):
    content = read_manifest(root)
    content["images"][0]["file"] = file
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=r"manifest\.json: images\[0\]"):
        FacePack(root).listing()


@pytest.mark.parametrize("target", ["outside", "circle"])
def test_a_link_out_of_the_folder_is_refused(root, tmp_path_factory, target):
    outside = tmp_path_factory.mktemp("outside") / "3_0.png"
    (root / "3_0.png").replace(outside)
    (root / "3_0.png").symlink_to(outside if target == "outside" else root / "3_0.png")
    with pytest.raises(DataContractError, match="got a link that leads out"):
        FacePack(root).images(["3_0.png"], ARCFACE_112)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "{}", '{"crop": "arcface112"}', '{"images": []}',
     '{"crop": "arcface112", "images": 3}', '{"crop": "dlib150", "images": []}',
     '{"crop": ["arcface112"], "images": []}', "[" * 100_000, "\udcff"],
)  # fmt: skip
def test_a_manifest_of_another_form_is_refused(root, text):
    (root / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataContractError, match=r"manifest\.json"):
        FacePack(root).listing()


@pytest.mark.parametrize(
    ("key", "value"),
    [("identity", "three"), ("identity", True), ("identity", 3.0), ("number", None),
     ("sha256", "ff"), ("sha256", 7), ("file", 7), ("file", ["x"]), ("sha256", "G" * 64)],
)  # fmt: skip
def test_an_entry_of_another_form_is_refused(root, key, value):
    content = read_manifest(root)
    content["images"][1][key] = value
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=rf"images\[1\].*'{key}'"):
        FacePack(root).listing()


@pytest.mark.parametrize("entry", [None, 3, "x", [], {}, {"file": "a.png"}])
def test_an_entry_without_its_fields_is_refused(root, entry):
    content = read_manifest(root)
    content["images"][2] = entry
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=r"images\[2\]"):
        FacePack(root).listing()


@pytest.mark.parametrize("change", [{}, {"file": "other.png"}, {"number": 99}])
def test_repeated_entries_are_refused(root, change):
    content = read_manifest(root)
    content["images"].append(content["images"][0] | change)
    write_manifest(root, content)
    with pytest.raises(DataContractError, match="same file or with the same identity"):
        FacePack(root).listing()


def test_a_missing_folder_is_one_plain_error(tmp_path):
    with pytest.raises(DataContractError, match=r"nowhere.*manifest\.json"):
        FacePack(tmp_path / "nowhere").listing()
