"""Twins of rendered faces, the pack that holds them, and the reader of both."""

import hashlib
import io
import json
import pickle
import zipfile
from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxeval.datasets.faces.images import read_image
from fxeval.datasets.faces.part_labels import Part
from fxeval.datasets.faces.stored_arrays import StoredArrays
from fxeval.datasets.faces.twins import STEP, Change, Twins
from fxeval.errors import DataContractError
from fxeval.fixtures.synthetic import contact_sheet, make_pack
from fxeval.fixtures.synthetic import twins as twins_module
from fxeval.fixtures.synthetic.identity import PARTS, redrawn, sample_identity
from fxeval.fixtures.synthetic.nuisance import sample_nuisance
from fxeval.fixtures.synthetic.render import render
from fxeval.fixtures.synthetic.twins import (
    LABELS_OF,
    LEAST_SHOWN,
    SMALLEST_CHANGE,
    SMALLEST_SPOT,
    donor_of,
    packed,
    pasted_change,
    plainly,
    visible_change,
)

SEEDS = (90_000, 90_004)
KINDS = ("mild", "mild", "posed")
SIZE = (112, 112)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    make_pack.make_pack(folder, SEEDS, KINDS)
    return folder


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def twins_in(folder, **changed):
    manifest = manifest_of(folder)
    owners = {entry["file"]: str(entry["identity"]) for entry in manifest["images"]}
    return Twins(folder, "manifest.json", SIZE, manifest["twins"] | changed, owners)


def labels_in(folder):
    manifest = manifest_of(folder)
    stored = StoredArrays.read(folder, manifest["labels"], "labels", "manifest.json")
    maps = stored.take("labels", (len(manifest["images"]), *SIZE))
    return {entry["file"]: map for entry, map in zip(manifest["images"], maps, strict=True)}


def dilated(region, by):
    return cv2.dilate(region.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)) > 0


def test_a_pack_lists_what_it_wrote(pack):
    manifest = manifest_of(pack)
    assert [entry["file"] for entry in manifest["images"]] == [
        f"{seed}_{number}.jpg" for seed in SEEDS for number in range(3)
    ]
    for entry in (*manifest["images"], manifest["labels"], manifest["twins"]):
        data = (pack / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    files = {entry["file"] for entry in manifest["images"]}
    assert {path.name for path in pack.iterdir()} == files | {
        "labels.npz", "twins.npz", "manifest.json",
    }  # fmt: skip


def test_a_pack_describes_the_nuisance_of_every_image(pack):
    for entry in manifest_of(pack)["images"]:
        nuisance = sample_nuisance(entry["identity"], entry["number"], KINDS[entry["number"]])
        found = entry["attributes"]
        assert found["nuisance"] == KINDS[entry["number"]]
        assert found["yaw_degrees"] == pytest.approx(np.degrees(nuisance.yaw), abs=0.051)
        assert found["pitch_degrees"] == pytest.approx(np.degrees(nuisance.pitch), abs=0.051)
        own = sample_identity(entry["identity"]).build.age
        assert found["age"] == pytest.approx(np.clip(own + nuisance.age_offset, 0, 1), abs=0.0051)


def test_the_label_maps_of_a_pack_are_those_of_its_images(pack):
    drawn = render(sample_identity(SEEDS[1]), sample_nuisance(SEEDS[1], 2, "posed"))
    labels = labels_in(pack)
    assert np.array_equal(labels[f"{SEEDS[1]}_2.jpg"], drawn.labels)
    assert len({map.tobytes() for map in labels.values()}) == 6


def test_a_pack_has_every_kind_of_twin_of_its_mild_images(pack):
    triplets = twins_in(pack).triplets
    count = Counter((triplet.kind, triplet.part) for triplet in triplets)
    expected = [("redrawn", part) for part in PARTS] + [("pasted", part) for part in LABELS_OF]
    assert count == dict.fromkeys(expected, 2)
    for triplet in triplets:
        assert triplet.probe == f"{triplet.identity}_0.jpg"
        assert triplet.mate == f"{triplet.identity}_1.jpg"
    ids = {triplet.probe_twin for triplet in triplets}
    assert {"90000_0.jpg+nose", "90000_0.jpg+nose-pasted", "90004_0.jpg+jaw"} <= ids
    assert len({triplet.twin_identity for triplet in triplets}) == len(triplets)


def test_a_twin_is_its_image_but_for_every_pixel_of_its_mask(pack):
    twins = twins_in(pack)
    assert len(twins.changes) == 2 * len(twins.triplets) == 36
    for change in twins.changes.values():
        image = read_image(pack / change.file)
        twin = change.apply(image)
        difference = np.abs(twin.astype(int) - image).max(2)
        assert np.array_equal(difference > 0, change.mask)
        assert difference[change.mask].min() >= SMALLEST_CHANGE
        _, spots = cv2.connectedComponents(change.mask.astype(np.uint8), connectivity=8)
        assert np.bincount(spots[change.mask])[1:].min() >= SMALLEST_SPOT


def test_a_mask_shows_enough_of_its_part_and_little_else(pack):
    twins, labels = twins_in(pack), labels_in(pack)
    for triplet in twins.triplets:
        for id in (triplet.probe_twin, triplet.mate_twin):
            change = twins.changes[id]
            assert LEAST_SHOWN[triplet.part] <= change.mask.sum() < 0.35 * change.mask.size, id
            assert not change.mask[:12].any(), id  # the forehead
            if triplet.part == "jaw":  # contours move, so it has no region of its own
                assert not change.mask[np.isin(labels[change.file], LABELS_OF["eyes"])].any()
                continue
            # The skin beside a part moves with it, but brows are paint.
            seed, number = change.file.removesuffix(".jpg").split("_")
            region = np.isin(labels[change.file], LABELS_OF[triplet.part])
            if triplet.kind == "redrawn":
                nuisance = sample_nuisance(int(seed), int(number))
                twin = redrawn(sample_identity(int(seed)), triplet.part, 0)
                region |= np.isin(render(twin, nuisance).labels, LABELS_OF[triplet.part])
            reach = 10 if (triplet.kind, triplet.part) == ("redrawn", "brows") else 17
            assert change.mask[dilated(region, reach)].sum() > 0.9 * change.mask.sum(), id
            assert change.mask[region].mean() > 0.3, id


def test_a_redrawn_twin_shows_what_the_renderer_draws(pack):
    """The rendering has its own noise, but on average it is the twin."""
    change = twins_in(pack).changes["90000_0.jpg+mouth"]
    twin = change.apply(read_image(pack / change.file)).astype(np.float32)
    one, nuisance = sample_identity(90_000), sample_nuisance(90_000, 0)
    like = render(one, nuisance).placement
    drawn = render(redrawn(one, "mouth", 0), nuisance, placement=like).image
    before = read_image(pack / change.file).astype(np.float32)

    def distance(image):
        return np.abs(cv2.blur(image - drawn, (5, 5)))[change.mask].mean()

    assert distance(twin) < 2.5 < distance(before)


def test_workers_portions_and_repetition_change_no_byte(pack, tmp_path):
    make_pack.make_pack(tmp_path, SEEDS, KINDS, workers=2, at_once=1)
    for path in pack.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_part_that_shows_in_one_image_only_has_no_twins(tmp_path):
    make_pack.make_pack(tmp_path, SEEDS[:1], KINDS[1:])  # one mild image
    assert "twins" not in manifest_of(tmp_path)


def test_without_other_persons_no_part_is_pasted(monkeypatch, pack):
    monkeypatch.setattr(twins_module, "PARTS", ("brows",))
    images = {
        name: (sample_nuisance(SEEDS[0], number), read_image(pack / name))
        for number, name in enumerate(("90000_0.jpg", "90000_1.jpg"))
    }
    (only,) = twins_module.twins_of(SEEDS[0], images, [])
    assert only.entry == {
        "kind": "redrawn", "part": "brows", "probe": "90000_0.jpg", "mate": "90000_1.jpg",
        "identity": 90_000, "twin_identity": "90000-brows",
    }  # fmt: skip


def test_the_triplets_of_a_pack_are_the_first_of_each_kind_and_part_from_either_half(monkeypatch):
    people = [
        SimpleNamespace(twins=[SimpleNamespace(entry={"kind": kind, "part": part, "of": seed})
                               for kind in ("redrawn", "pasted") for part in ("nose", "eyes")
                               if (seed, part) != (2, "eyes")])
        for seed in range(4)
    ]  # fmt: skip
    monkeypatch.setattr(make_pack, "TWINS_PER_PART", 2)
    chosen = [tuple(twins.entry.values()) for twins in make_pack._chosen(people)]
    assert Counter(chosen) == Counter([
        ("redrawn", "nose", 0), ("redrawn", "nose", 1), ("redrawn", "eyes", 0),
        ("redrawn", "eyes", 1), ("pasted", "nose", 2), ("pasted", "nose", 3),
        ("pasted", "eyes", 3), ("pasted", "eyes", 0),
    ])  # fmt: skip


@given(image=st.integers(0, 255), change=st.integers(-300, 300), other=st.integers(-300, 300))
def test_a_visible_change_never_saturates(image, change, other):
    whole = np.full((4, 4, 3), (image, 0, 255), np.uint8)
    wanted = np.full((4, 4, 3), (change, other, 0), np.int16)
    found = visible_change(whole, wanted)
    twin = whole + found
    assert (twin == np.clip(twin, 0, 255)).all()
    assert not (found % STEP).any()
    ideal = np.clip(whole + wanted, 0, 255) - whole
    assert (np.abs(found - ideal) < STEP).all() or not found.any()
    assert found.any() == (np.abs(found).max() >= SMALLEST_CHANGE)


def test_faint_changes_and_small_spots_are_left_out():
    image = np.full((*SIZE, 3), 100, np.uint8)
    change = np.zeros((*SIZE, 3), np.int16)
    change[10:20, 10:20] = (4, -4, 3)  # faint
    change[30, 30:37] = 60  # seven pixels
    change[40, 40:48, 2] = -60  # eight
    found = visible_change(image, change)
    assert np.argwhere(found.any(2)).tolist() == [[40, column] for column in range(40, 48)]
    assert found[40, 40].tolist() == [0, 0, -60]


def test_pasted_parts_match_the_skin_around_them_and_leave_other_parts():
    nuisance = sample_nuisance(90_000, 0)
    people = sorted(map(sample_identity, range(90_000, 90_040)), key=lambda one: one.skin.melanin)
    own, other = plainly(people[2], nuisance), plainly(people[-3], nuisance)
    for part, labels in LABELS_OF.items():
        change = pasted_change(own, other, part)
        changed = np.abs(change).max(2) >= SMALLEST_CHANGE
        assert set(np.unique(own.labels[changed])) <= {Part.SKIN, *labels}
        region = dilated(np.isin(own.labels, labels) | np.isin(other.labels, labels), 12)
        assert not change[~region].any()
        skin = changed & (own.labels == Part.SKIN) & (other.labels == Part.SKIN)
        darker = other.image[skin].mean() - own.image[skin].mean()
        assert darker < -20
        assert abs(change[skin].mean()) < 0.4 * abs(darker), part


def test_a_part_is_pasted_from_a_person_with_like_skin_and_another_part():
    person = sample_identity(90_000)
    others = list(range(90_001, 90_060))
    donor = donor_of(person, "nose", others)
    gaps = sorted(abs(sample_identity(s).skin.melanin - person.skin.melanin) for s in others)
    assert abs(donor.skin.melanin - person.skin.melanin) <= gaps[9]
    assert donor_of(person, "nose", others[::-1]).seed == donor.seed


@given(data=st.data(), n=st.integers(1, 4))
def test_packed_changes_are_read_back_exactly(tmp_path_factory, data, n):
    generator = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    changes = []
    for _ in range(2 * n):
        change = STEP * generator.integers(-85, 86, (*SIZE, 3)).astype(np.int16)
        top, left = generator.integers(0, 110, 2)
        kept = np.zeros(SIZE, bool)
        kept[top : top + generator.integers(1, 60), left : left + generator.integers(1, 60)] = True
        kept &= generator.random(SIZE) < generator.choice([0.1, 1.0])
        kept[top, left] = True
        change[~kept] = 0
        change[top, left] = STEP
        changes.append(change)
    folder = tmp_path_factory.mktemp("changes")
    twins = written(folder, packed(changes), n)
    black = np.zeros((*SIZE, 3), np.uint8)
    for change, expected in zip(twins.changes.values(), changes, strict=True):
        assert np.array_equal(change.mask, expected.any(2))
        assert np.array_equal(change.apply(black), np.maximum(expected, 0).astype(np.uint8))
        assert np.array_equal(change.apply(black + 255), 255 + np.minimum(expected, 0))


def triplets(n):
    return [
        {
            "kind": "redrawn", "part": "nose", "probe": f"{k}_0.jpg", "mate": f"{k}_1.jpg",
            "identity": k, "twin_identity": f"{k}-nose",
        }
        for k in range(n)
    ]  # fmt: skip


def written(folder, arrays, n=1, entry=None, save=np.savez):
    """Write arrays, and return the twins that a manifest with this entry describes."""
    content = io.BytesIO()
    save(content, **arrays)
    return described(folder, content.getvalue(), n, entry)


def described(folder, data, n=1, entry=None):
    (folder / "twins.npz").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    given = {"file": "twins.npz", "sha256": digest, "triplets": triplets(n)} | (entry or {})
    owners = {f"{k}_{number}.jpg": str(k) for k in range(n) for number in range(3)}
    return Twins(folder, "manifest.json", SIZE, given, owners)


def small():
    change = np.zeros((*SIZE, 3), np.int16)
    change[5:8, 5:8] = 30
    return packed([change, change])


def changed(**arrays):
    return small() | arrays


BAD_ARRAYS = {
    "a missing array": ({"boxes": small()["boxes"]}, "array 'masks'"),
    "too few boxes": (changed(boxes=small()["boxes"][:1]), "array 'boxes' of (2, 4)"),
    "boxes of another type": (changed(boxes=small()["boxes"].astype(np.int64)), "int64"),
    "an object array": (changed(boxes=np.array([[None] * 4] * 2, object)), "array 'boxes'"),
    "a box beyond the image": (changed(boxes=small()["boxes"] + np.uint8(105)), "boxes within"),
    "an empty box": (changed(boxes=small()["boxes"] * np.uint8([1, 1, 0, 1])), "boxes within"),
    "masks too short": (changed(masks=small()["masks"][:-1]), "array 'masks' of (4,)"),
    "masks with more pixels than values": (changed(masks=small()["masks"] | 4), "array 'values'"),
    "values of one channel": (changed(values=small()["values"][:1]), "array 'values' of (3, 18)"),
    "pixels that do not change": (changed(values=0 * small()["values"]), "visible change"),
    "changes beyond 255": (changed(values=small()["values"] + np.uint8(110)), "visible change"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_damaged_changes_are_refused(tmp_path, case):
    arrays, said = BAD_ARRAYS[case]
    with pytest.raises(DataContractError) as raised:
        _ = written(tmp_path, arrays).changes
    assert said in raised.value.detail
    assert "twins.npz" in raised.value.detail
    assert "Get the folder again." in raised.value.detail


def test_bits_beyond_a_mask_are_refused(tmp_path):
    arrays = small()
    arrays["masks"] = arrays["masks"].copy()
    arrays["masks"][1] |= 1  # 9 pixels fill a byte and one bit
    arrays["values"] = np.concatenate([arrays["values"], np.uint8([[1], [0], [0]])], axis=1)
    with pytest.raises(DataContractError, match="of every pixel marked"):
        _ = written(tmp_path, arrays).changes


def test_a_file_that_is_no_archive_or_is_pickled_is_refused(tmp_path):
    for data in (b"", b"PK\x03\x04", pickle.dumps([1]), b"\x93NUMPY" + bytes(80)):
        with pytest.raises(DataContractError, match=r"in an \.npz file"):
            _ = described(tmp_path, data).changes


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in small().items():
            array = io.BytesIO()
            np.lib.format.write_array(array, values, (1, 0))
            shortened = array.getvalue()[: -1 if name == "values" else None]
            archive.writestr(f"{name}.npy", shortened)
    with pytest.raises(DataContractError, match="expected 54 bytes, got 53"):
        _ = described(tmp_path, content.getvalue()).changes


def test_a_file_other_than_the_one_described_is_refused(tmp_path):
    twins = written(tmp_path, small())
    (tmp_path / "twins.npz").write_bytes(b"other")
    with pytest.raises(DataContractError, match="expected the SHA-256 of the manifest"):
        _ = twins.changes
    (tmp_path / "twins.npz").unlink()
    with pytest.raises(DataContractError, match="cannot be read"):
        _ = twins.changes


def first(**keys):
    return {"triplets": [triplets(1)[0] | keys]}


BAD_ENTRIES = {
    "no triplets": ({"triplets": []}, "1 to 10000 'triplets'"),
    "triplets that are no list": ({"triplets": "nose"}, "1 to 10000 'triplets'"),
    "a triplet that is no object": ({"triplets": [7]}, "twins.triplets[0]: expected an object"),
    "a missing key": ({"triplets": [{"kind": "redrawn"}]}, "'twin_identity'"),
    "an unknown kind": (first(kind="drawn"), "'redrawn' or 'pasted'"),
    "one image": (first(mate="0_0.jpg"), "two images"),
    "an unknown image": (first(mate="0_9.jpg"), "images of 'identity'"),
    "another identity": (first(identity=3), "images of 'identity'"),
    "a twin of the same identity": (first(twin_identity="0"), "another identity"),
    "a name that is none": (first(part=""), "printable names"),
    "a name that hides something": (first(part="no\u202ese"), "printable names"),
    "a list as a name": (first(part=["nose"]), "printable names"),
    "a twin twice": ({"triplets": triplets(1) * 2}, "got 0_0.jpg+nose twice"),
    "a file outside": ({"file": "../twins.npz"}, "a relative path inside the folder"),
    "no digest": ({"sha256": "0"}, "64 hexadecimal digits"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_an_entry_that_describes_no_twins_is_refused(tmp_path, case):
    entry, said = BAD_ENTRIES[case]
    with pytest.raises(DataContractError) as raised:
        _ = written(tmp_path, small(), entry=entry).changes
    assert said in raised.value.detail
    assert "0_" not in str(raised.value.public)


def test_an_image_with_the_name_of_a_twin_is_refused(tmp_path):
    twins = written(tmp_path, small())
    owners = {**twins.identities, "0_1.jpg+nose": "4"}
    with pytest.raises(DataContractError, match=r"no image of its name, got 0_1\.jpg\+nose twice"):
        _ = Twins(tmp_path, "manifest.json", SIZE, twins.entry, owners).triplets


def test_boxes_of_more_pixels_than_a_folder_may_have_are_refused(tmp_path, monkeypatch):
    twins = written(tmp_path, small())
    monkeypatch.setattr("fxeval.datasets.faces.twins.MAX_PIXELS", 17)
    with pytest.raises(DataContractError, match="of at most 17 pixels in all, got 18"):
        _ = twins.changes


def test_a_folder_without_twins_says_so(tmp_path):
    for entry in (None, [], {}):
        with pytest.raises(DataContractError, match="Use a folder with twins"):
            _ = Twins(tmp_path, "manifest.json", SIZE, entry, {}).triplets


def test_a_change_keeps_values_within_bounds():
    levels = np.array([[[30, -30, 3]]], np.int16)
    change = Change("a.jpg", (2, 2), 1, 0, levels)
    twin = change.apply(np.full((2, 2, 3), (250, 10, 7), np.uint8))
    assert twin[1, 0].tolist() == [255, 0, 10]
    assert change.mask.tolist() == [[False, False], [True, False]]


def test_contact_sheets_show_images_labels_and_twins(pack, tmp_path):
    contact_sheet.main([str(tmp_path / "s.png"), "--pack", str(pack), "--part", "nose"])
    faces = read_image(tmp_path / "s.png")
    assert faces.shape == (4 * 112, 3 * 112, 3)
    assert np.array_equal(faces[:112, :112], read_image(pack / "90000_0.jpg"))
    labels = labels_in(pack)["90000_0.jpg"]
    assert np.array_equal(faces[112:224, :112], contact_sheet.LABEL_COLORS[labels])
    twins = read_image(tmp_path / "s_twins.png")
    assert twins.shape == (4 * 112, 5 * 112, 3)
    change = twins_in(pack).changes["90000_0.jpg+nose"]
    assert np.array_equal(twins[:112, 224:336, 0] > 0, change.mask)
    assert np.array_equal(twins[:112, 112:224], change.apply(faces[:112, :112]))
