"""Triplets of rendered faces and their twins, of a small folder that is written by hand."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import fxeval
from fxeval.contracts import LabelSource, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112, FACENET_160
from fxeval.datasets.lists.face_pack import BANNER, FacePack
from fxeval.datasets.lists.twin_pairs import TwinPairs
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.row_kinds import TABLES
from fxeval.engine.selection import chosen_rows, load_pairs
from fxeval.errors import DataContractError
from fxeval.explainers.grad_cam import GradCAM
from fxeval.run.evaluation import shipped
from fxeval.tests.run.test_workshop import tiny
from fxeval.verification.measured import measure_list

PARTS = [("redrawn", part) for part in ("nose", "mouth", "eyes", "brows", "jaw")]
PARTS += [("pasted", part) for part in ("nose", "mouth")]
PEOPLE = 6
STEP = 3
PLACES = {"nose": (60, 50), "mouth": (85, 45), "eyes": (48, 30), "brows": (38, 30), "jaw": (95, 20)}


def change_of(who: int, kind: str, part: str, number: int) -> tuple[int, int, np.ndarray]:
    """Top, left and levels of a change that leaves some pixels of its box as they are."""
    generator = np.random.default_rng([who, len(kind), *part.encode(), number])
    levels = STEP * generator.integers(-20, 21, (14, 22, 3))
    levels[generator.random((14, 22)) < 0.2] = 0
    return *PLACES[part], levels


def encoded(changes: list[tuple[int, int, np.ndarray]]) -> dict[str, np.ndarray]:
    boxes, masks, colours = [], [], []
    for top, left, levels in changes:
        boxes.append((top, left, *levels.shape[:2]))
        mask = levels.any(2)
        masks.append(np.packbits(mask.ravel()))
        colours.append(levels[mask] // STEP)
    red, green, blue = np.concatenate(colours).T
    values = np.stack([green, red - green, blue - green])
    return {
        "boxes": np.array(boxes, np.uint8),
        "masks": np.concatenate(masks),
        "values": (np.diff(values, axis=1, prepend=0) % 256).astype(np.uint8),
    }


def read_manifest(root: Path) -> dict:
    return json.loads((root / "manifest.json").read_text())


def write_manifest(root: Path, content: object) -> None:
    (root / "manifest.json").write_text(json.dumps(content))


def write_folder(root: Path) -> None:
    """Write grey noise images of six people, and seven triplets of each."""
    images, triplets, changes = [], [], []
    for who in range(PEOPLE):
        face = np.random.default_rng(who).integers(70, 180, (14, 14, 3), np.uint8)
        for number in range(3):
            noise = np.random.default_rng([who, number]).integers(0, 9, (112, 112, 3), np.uint8)
            name = f"{who}_{number}.png"
            cv2.imwrite(str(root / name), face.repeat(8, 0).repeat(8, 1) + noise)
            digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
            images.append({"file": name, "sha256": digest, "identity": who, "number": number})
        for kind, part in PARTS:
            ending = "" if kind == "redrawn" else "-pasted"
            triplets.append({
                "kind": kind, "part": part, "probe": f"{who}_0.png", "mate": f"{who}_1.png",
                "identity": who, "twin_identity": f"{who}-{part}{ending}",
            })  # fmt: skip
            changes += [change_of(who, kind, part, number) for number in (0, 1)]
    np.savez(root / "twins.npz", **encoded(changes))
    digest = hashlib.sha256((root / "twins.npz").read_bytes()).hexdigest()
    twins = {"file": "twins.npz", "sha256": digest, "triplets": triplets}
    write_manifest(root, {"crop": "arcface112", "images": images, "twins": twins})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def test_rows_are_triplets_whose_nonmate_is_another_identity(root):
    source = TwinPairs(root)
    assert isinstance(source, PairSource)
    assert isinstance(source, LabelSource)
    assert (source.name, source.banner) == ("rendered_twins", BANNER)
    listing = source.listing()
    rows = source.twins()
    assert len(listing) == len(rows) == PEOPLE * len(PARTS)
    assert {(one.kind, one.part) for one in rows} == {*PARTS}
    assert listing.contrast == tuple(one.mate_twin for one in rows)
    assert {"0_1.png+nose", "0_1.png+nose-pasted"} <= {*listing.contrast}
    assert {one.probe_twin for one in rows} >= {"3_0.png+jaw", "3_0.png+mouth-pasted"}
    assert listing.probe_identity == listing.reference_identity
    with_nonmates = listing.with_nonmates()  # which refuses a nonmate of the pair's own identity
    assert sum(with_nonmates.is_mated) == len(rows)
    assert {*with_nonmates.reference_identity[len(rows) :]} == {
        f"{who}-{part}{'-pasted' if kind == 'pasted' else ''}"
        for who in range(PEOPLE)
        for kind, part in PARTS
    }


def test_kinds_and_parts_can_be_chosen_and_name_their_list(root):
    nose = TwinPairs(root, "pasted", "nose")
    assert {(one.kind, one.part) for one in nose.twins()} == {("pasted", "nose")}
    assert len(nose.listing()) == PEOPLE
    assert nose.name == "rendered_twins_nose_pasted"
    assert len(replace(nose, part=None).listing()) == PEOPLE * 2
    assert len(replace(nose, kind=None).listing()) == PEOPLE * 2
    with pytest.raises(DataContractError, match=r"twins of this kind \(pasted jaw\), got none"):
        TwinPairs(root, "pasted", "jaw").listing()


@pytest.mark.parametrize("seed", range(4))
def test_the_first_rows_that_are_chosen_are_of_all_people_and_of_several_parts(root, seed):
    listing = TwinPairs(root).listing()
    parts = Counter(
        listing.contrast[row].partition("+")[2]
        for row in chosen_rows(listing, PEOPLE, seed, "twins")
    )
    assert set(parts.values()) == {1}


def test_a_twin_is_its_image_plus_the_change_and_nothing_else(root):
    source, pack = TwinPairs(root), FacePack(root)
    ids = ["4_1.png+eyes", "4_1.png", "2_0.png+nose-pasted"]
    images = source.images(ids, ARCFACE_112)
    plain = pack.images(["4_1.png", "4_1.png", "2_0.png"], ARCFACE_112)
    assert torch.equal(images[1], plain[1])
    expected = plain.permute(0, 2, 3, 1).numpy().astype(int)
    masks = np.zeros((3, 112, 112), bool)
    for row, change in (
        (0, change_of(4, "redrawn", "eyes", 1)),
        (2, change_of(2, "pasted", "nose", 0)),
    ):
        top, left, levels = change
        expected[row, top : top + 14, left : left + 22] += levels
        masks[row, top : top + 14, left : left + 22] = levels.any(2)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert np.array_equal(source.changed(ids, ARCFACE_112).numpy(), masks)
    assert source.images([], ARCFACE_112).shape == (0, 3, 112, 112)
    assert source.changed([], ARCFACE_112).shape == (0, 112, 112)


def test_in_another_crop_the_changed_pixels_are_those_that_differ(root):
    source = TwinPairs(root)
    ids = [one.probe_twin for one in source.twins()[:9]] + ["0_0.png"]
    files = [id.partition("+")[0] for id in ids]
    changed = source.changed(ids, FACENET_160)
    expected = source.images(ids, FACENET_160) != FacePack(root).images(files, FACENET_160)
    assert torch.equal(changed, expected.any(1))
    assert changed.shape == (10, 160, 160)
    assert changed.any((1, 2)).tolist() == [True] * 9 + [False]
    share = changed[:9].float().mean((1, 2)) / source.changed(ids[:9], ARCFACE_112).float().mean(
        (1, 2)
    )
    assert bool(((share > 1) & (share < 1.7)).all())  # pixels next to the part differ as well


def test_digests_tell_twins_apart_and_follow_their_changes(root, tmp_path_factory):
    source = TwinPairs(root)
    ids = [*{*source.listing().probe}, *(one.probe_twin for one in source.twins())]
    digests = source.image_digests(ids)
    assert len({*digests}) == len(ids)
    assert source.image_digests(["0_0.png"]) == FacePack(root).image_digests(["0_0.png"])
    other = tmp_path_factory.mktemp("other")
    write_folder(other)
    assert TwinPairs(other).image_digests(ids) == digests


def test_unknown_twins_are_named(root):
    with pytest.raises(DataContractError, match=r"has no image '0_2\.png\+nose'"):
        TwinPairs(root).images(["0_0.png+nose", "0_2.png+nose"], ARCFACE_112)
    with pytest.raises(DataContractError, match=r"has no image '0_0\.png\+chin'"):
        TwinPairs(root).image_digests(["0_0.png+chin"])


def test_a_folder_without_twins_says_so(root):
    content = read_manifest(root)
    del content["twins"]
    write_manifest(root, content)
    with pytest.raises(DataContractError, match=r"manifest\.json: has no twins \('twins'\)"):
        TwinPairs(root).listing()
    write_manifest(root, {**content, "twins": {}, "crop": "dlib150"})
    with pytest.raises(DataContractError, match="expected 'crop' to be 'arcface112'"):
        TwinPairs(root).listing()


def test_labels_are_those_of_the_images_and_no_twin_s(root):
    maps = np.random.default_rng(0).integers(0, 19, (PEOPLE * 3, 112, 112), np.uint8)
    np.savez(root / "labels.npz", labels=maps)
    digest = hashlib.sha256((root / "labels.npz").read_bytes()).hexdigest()
    labels = {"file": "labels.npz", "sha256": digest}
    write_manifest(root, {**read_manifest(root), "labels": labels})
    found = TwinPairs(root).labels(["1_0.png"], ARCFACE_112)
    assert np.array_equal(found.labels[0], maps[3])
    with pytest.raises(DataContractError, match=r"has no label maps of twins, got '1_0\.png\+nose"):
        TwinPairs(root).labels(["1_0.png+nose"], ARCFACE_112)


def test_rows_have_ids_of_their_own_and_belong_to_their_person(root):
    source = TwinPairs(root)
    pairs = load_pairs(source, source.listing(), tiny().crop)
    for kind in ("triplets", "mated pairs"):
        rows = TABLES[kind](pairs).rows
        assert len({*rows.id}) == PEOPLE * len(PARTS)
        assert rows.identities.shape == (PEOPLE * len(PARTS), 1)
        assert len({*rows.identities[:, 0].tolist()}) == PEOPLE


def test_a_twin_has_the_attributes_of_its_image(root):
    content = read_manifest(root)
    for image in content["images"]:
        image["attributes"] = {"number": image["number"]}
    write_manifest(root, content)
    source = TwinPairs(root)
    listing = source.listing()
    ones, zeros = (1.0,) * len(listing), (0.0,) * len(listing)
    assert source.attributes(listing.contrast) == {"number": ones}
    assert source.attributes(listing.reference) == {"number": ones}
    assert source.attributes(listing.probe) == {"number": zeros}


@pytest.mark.parametrize("objective", ["native", "triplet"])
def test_discriminative_and_other_explainers_are_measured_on_twins(root, objective, tmp_path):
    limit = {"metric": "deletion_auc", "better_than": "control.random_blobs", "fill": "blur"}
    record = fxeval.evaluate(
        tiny(), GradCAM(layer="conv2", objective=objective), TwinPairs(root), limits=[limit],
        fills=["blur"], steps=4, controls=["random_blobs"], reports=tmp_path / "reports",
    )  # fmt: skip
    [cell] = record.cells
    assert cell.n_pairs == PEOPLE * len(PARTS)
    assert cell.n_identities == PEOPLE
    [entry] = record.verification
    assert (entry.n_mated, entry.n_nonmated) == (0, 0), "twins are nobody that it must tell apart"
    [rows] = (tmp_path / "reports").rglob("rows.jsonl")
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len({line["row"] for line in lines if "row" in line}) == PEOPLE * len(PARTS)
    assert record.subjects.pairs["rendered_twins"].banner == BANNER


def test_twins_are_not_the_strangers_that_a_model_must_tell_apart():
    source = shipped("pairs", "rendered_twins")
    model = shipped("model", "mini_resnet").load()
    found = measure_list(model, source, ForwardPool(batch_size=16))
    assert found.verified is None
    assert found.evidence is not None
    auc = found.evidence.figures["verification_auc"]
    # With twins as strangers its lower end is below 0.7: they are nearly as near as the mate.
    assert auc.low > 0.85
