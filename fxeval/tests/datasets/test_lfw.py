"""LFW pair lists."""

import contextlib
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, align
from fxeval.datasets.lists.lfw import LfwPairs, parse_pairs
from fxeval.errors import DataContractError

LANDMARKS = [[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]
PEOPLE = {"Ann": 2, "Bob": 2, "Cleo": 1}
LIST = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\nBob\t2\t1\nBob\t1\tCleo\t1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of noise images of three invented people."""
    generator, entries = np.random.Generator(np.random.PCG64(1)), []
    for name, count in PEOPLE.items():
        for number in range(1, count + 1):
            file = f"faces/{name}/{number:04d}.png"
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / file), generator.integers(0, 256, (120, 120, 3), np.uint8))
            digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
            entries.append(
                {"file": file, "sha256": digest, "identity": name, "number": number,
                 "landmarks5": LANDMARKS}
            )  # fmt: skip
    (tmp_path / "faces_manifest.json").write_text(json.dumps({"images": entries}))
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "lfw_view2.txt").write_text(LIST)
    return tmp_path


def rewrite(root: Path, change) -> None:
    """Change the manifest's list of images."""
    path = root / "faces_manifest.json"
    content = json.loads(path.read_text())
    change(content["images"])
    path.write_text(json.dumps(content))


# --- the list


def test_the_list_is_read_in_its_order(root: Path):
    pairs = LfwPairs(root)
    listing = pairs.listing()
    assert isinstance(pairs, PairSource)
    assert pairs.banner is None
    assert listing.is_mated == (True, False, True, False)
    assert listing.reference[0] != listing.probe[0] == listing.probe[1]
    assert listing.probe[2] == listing.reference[1]
    assert listing.probe_identity[2:] == (listing.reference_identity[1],) * 2
    assert len({*listing.probe, *listing.reference}) == 5


def test_images_have_the_attributes_of_the_manifest(root: Path):
    def describe(images):
        for number, image in enumerate(images):
            image["attributes"] = {"yaw_degrees": 2.5 * number}

    rewrite(root, describe)
    pairs = LfwPairs(root)
    listing = pairs.listing()
    assert pairs.attributes(listing.probe) == {"yaw_degrees": (0.0, 0.0, 7.5, 5.0)}
    assert pairs.attributes(listing.reference) == {"yaw_degrees": (2.5, 7.5, 5.0, 10.0)}


def test_no_name_leaves_the_folder(root: Path):
    text = repr(LfwPairs(root).listing())
    assert not any(name in text for name in PEOPLE)


def test_pairs_of_the_errata_are_set_aside_with_a_reason_in_either_order(root: Path):
    (root / "errata.txt").write_text("# known to be wrong\n\nAnn\t2\t1\nNobody\t1\t2\n")
    listing = LfwPairs(root, errata_file=Path("errata.txt")).listing()
    assert len(listing) == 4
    assert listing.set_aside == ("errata.txt lists it as labelled wrongly", "", "", "")
    assert LfwPairs(root).listing().set_aside == ()


def test_each_fold_of_view_2_has_both_kinds_and_view_1_is_one_fold(root: Path):
    assert LfwPairs(root).listing().fold == (0, 0, 1, 1)
    (root / "view1.txt").write_text("2\nAnn 1 2\nBob 1 2\nAnn 1 Bob 1\nCleo 1 Bob 2\n")
    listing = LfwPairs(root, pairs_file=Path("view1.txt")).listing()
    assert listing.fold == (0, 0, 0, 0)
    assert listing.is_mated == (True, True, False, False)


def test_another_list_has_another_name_so_that_no_claim_about_view_2_is_held_against_it():
    assert LfwPairs(Path()).name == "lfw_view2"
    assert LfwPairs(Path(), pairs_file=Path("pairs/lfw_view1.txt")).name == "lfw_view1"
    assert LfwPairs(Path(), pairs_file=Path("pairs.txt"), title="lfw_view2").name == "lfw_view2"


def test_pairs_without_image_are_excluded_only_when_asked(root: Path):
    missing = LIST.replace("Bob\t2\t1", "Bob\t2\t7").replace("Cleo\t1", "Dan\t1")
    (root / "pairs" / "lfw_view2.txt").write_text(missing)
    with pytest.raises(DataContractError) as caught:
        LfwPairs(root).listing()
    assert "2 of 4 pairs" in str(caught.value)
    assert "lfw_view2.txt:4: image 7 of 'Bob'" in str(caught.value)
    assert "lfw_view2.txt:5: image 1 of 'Dan'" in str(caught.value)
    listing = LfwPairs(root, on_missing="exclude").listing()
    assert listing.fold == (0, 0)
    assert [exclusion.reason for exclusion in listing.excluded] == [
        "an image is not in the folder"
    ] * 2
    assert "Dan" not in repr(listing)


def test_a_list_of_missing_images_is_refused_even_if_they_may_be_excluded(root: Path):
    (root / "pairs" / "lfw_view2.txt").write_text("1\t1\nDan 1 2\nDan 1 Eve 1\n")
    with pytest.raises(DataContractError, match="2 of 2 pairs"):
        LfwPairs(root, on_missing="exclude").listing()


def test_aligned_images_in_folders_of_people_need_no_manifest(tmp_path: Path):
    for name, number in (("Ann", 1), ("Ann", 2), ("Bob", 1)):
        (tmp_path / name).mkdir(exist_ok=True)
        picture = np.full((112, 112, 3), number, np.uint8)
        cv2.imwrite(str(tmp_path / name / f"{name}_{number:04d}.png"), picture)
    (tmp_path / "pairs.txt").write_text("1 1\nAnn 1 2\nAnn 1 Bob 1\n")
    pairs = LfwPairs(tmp_path, Path("pairs.txt"), aligned_to="arcface112")
    listing = pairs.listing()
    assert pairs.images(listing.reference, ARCFACE_112)[:, 0, 0, 0].tolist() == [2, 1]
    assert pairs.card().n_images == 3
    with pytest.raises(DataContractError, match=r"'aligned_to': unknown crop .*arcface112"):
        LfwPairs(tmp_path, aligned_to="arcface111")
    with pytest.raises(DataContractError, match="'on_missing': expected 'error' or 'exclude'"):
        LfwPairs(tmp_path, on_missing="skip")


def test_numbers_may_have_zeros_in_front_and_names_blanks():
    plain = parse_pairs("1\t1\nAnn\t1\t12\nAnn\t1\tBob\t10\n", "x")
    assert parse_pairs("1\t1\nAnn\t0001\t012\nAnn\t01\tBob\t0010\n", "x") == plain
    blank = parse_pairs("1\t1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t1\n", "x")
    assert blank[0].images == (("Ann Lee", 1), ("Ann Lee", 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x:1: expected the header .* got ''"),
        ("ten\t300\n", r"x:1: expected the header"),
        ("1\t2\t3\n", r"x:1: expected the header"),
        ("0\t300\n", r"x:1: expected the header"),
        ("1\t-1\n", r"x:1: expected the header"),
        ("1\t1\nAnn\t1\t2\n", r"x: expected 2 pairs .* got 1 lines"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t2\n", r"got 3 lines"),
        ("999999\t999999\nAnn\t1\t2\n", r"got 1 lines"),
        ("1\t1\nAnn\t1\tBob\t2\nAnn\t1\t2\n", r"x:2: expected a mated pair 'name i j'"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tAnn\t2\n", r"x:3: expected a nonmated pair"),
        ("1\t1\nAnn\t1\t1\nAnn\t1\tBob\t2\n", r"x:2: expected two different images"),
        ("1\t1\nAnn\t0\t1\nAnn\t1\tBob\t2\n", r"x:2: .* image numbers from 1"),
        ("1\t1\nAnn\t000\t1\nAnn\t1\tBob\t2\n", r"x:2: .* image numbers from 1"),
        ("1\t1\nAnn\t1\ttwo\nAnn\t1\tBob\t2\n", r"x:2: .* got 'Ann 1 two'"),
        ("1\t1\nAnn\n\n", r"got 1 lines"),
        ("1\t1\n\nAnn\t1\tBob\t2\n", r"x:2: expected 'name i j'"),
        ("1\t1\nAnn\t1\t٣\nAnn\t1\tBob\t2\n", r"x:2:"),
    ],
)
def test_a_wrong_list_is_refused_with_file_and_line(text: str, message: str):
    with pytest.raises(DataContractError, match=message):
        parse_pairs(text, "x")


def test_a_list_of_one_fold_needs_no_fold_count():
    assert parse_pairs("1\nAnn 1 2\nAnn 1 Bob 1", "x") == parse_pairs(
        "1 1\nAnn 1 2\nAnn 1 Bob 1", "x"
    )


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_list_or_refused(text: str):
    with contextlib.suppress(DataContractError):
        assert parse_pairs(text, "x")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_list_is_a_list_or_refused(data):
    text = list(LIST)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.text("\t\n 0129AnBob#", max_size=3)
        )
    with contextlib.suppress(DataContractError):
        pairs = parse_pairs("".join(text), "x")
        assert 2 * sum(pair.is_mated for pair in pairs) == len(pairs) > 0


def test_an_unknown_image_is_named_with_its_line(root: Path):
    (root / "pairs" / "lfw_view2.txt").write_text(LIST.replace("Cleo\t1", "Cleo\t2"))
    with pytest.raises(DataContractError, match=r"lfw_view2\.txt:5: image 2 of 'Cleo'"):
        LfwPairs(root).listing()


def test_missing_files_are_named(root: Path):
    for pairs, file in (
        (LfwPairs(root, pairs_file=Path("no.txt")), "no.txt"),
        (LfwPairs(root, errata_file=Path("gone.txt")), "gone.txt"),
        (LfwPairs(root, manifest_file=Path("lost.json")), "lost.json"),
    ):
        with pytest.raises(DataContractError, match=file):
            pairs.listing()


# --- the manifest


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images": 3}', "[" * 100_000, '{"images": [3]}', "\xff"]
)
def test_a_manifest_that_is_none_is_refused(root: Path, text: str):
    (root / "faces_manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataContractError, match=r"faces_manifest\.json"):
        LfwPairs(root).listing()


@pytest.mark.parametrize(
    "change",
    [
        {"landmarks5": LANDMARKS[:4]},
        {"landmarks5": [[1, float("nan")]] * 5},
        {"landmarks5": [1, 2, 3]},
        {"landmarks5": [[10**400, 1]] * 5},
        {"sha256": "abc"},
        {"sha256": None},
        {"number": "one"},
        {"number": float("inf")},
        {"identity": "\ud800"},
    ],
)
def test_a_wrong_entry_is_named_by_its_index(root: Path, change: dict):
    rewrite(root, lambda images: images[3].update(change))
    with pytest.raises(DataContractError, match=r"images\[3\]"):
        LfwPairs(root).listing()


def test_two_entries_of_one_image_are_refused(root: Path):
    rewrite(root, lambda images: images.append(images[0]))
    with pytest.raises(DataContractError, match="6 different images"):
        LfwPairs(root).listing()


@pytest.mark.parametrize(
    "file",
    ["../secret.png", "/etc/passwd", "faces//x.png", "./x.png", "a\\..\\x.png", "C:x.png",
     "", "a\x00b", "\ud800.png", "link/x.png"],
)  # fmt: skip
def test_a_path_out_of_the_folder_is_refused(root: Path, file: str, tmp_path_factory):
    (root / "link").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    rewrite(root, lambda images: images[0].update(file=file))
    pairs = LfwPairs(root)
    with pytest.raises(DataContractError, match=r"a relative path inside|a link that leads out"):
        pairs.images(pairs.listing().probe[:1], ARCFACE_112)


# --- the images


def test_images_come_aligned_in_the_order_asked(root: Path):
    pairs = LfwPairs(root)
    one, two = pairs.listing().probe[0], pairs.listing().reference[0]
    images = pairs.images([two, one, two], ARCFACE_112)
    assert images.shape == (3, 3, 112, 112)
    assert images.dtype == torch.uint8
    assert torch.equal(images[0], images[2])
    source = cv2.imread(str(root / "faces" / "Ann" / "0001.png"))[..., ::-1]
    expected = align(np.ascontiguousarray(source), LANDMARKS, ARCFACE_112)
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), expected)


def test_every_bad_file_is_named_and_only_those(root: Path):
    (root / "faces" / "Ann" / "0001.png").write_bytes(b"broken")
    (root / "faces" / "Bob" / "0002.png").unlink()
    swapped = root / "faces" / "Cleo" / "0001.png"
    swapped.write_bytes((root / "faces" / "Bob" / "0001.png").read_bytes())
    pairs = LfwPairs(root)
    listing = pairs.listing()
    with pytest.raises(DataContractError) as caught:
        pairs.images([*sorted({*listing.probe, *listing.reference}), "no-such-id"], DLIB_150)
    message = str(caught.value)
    assert "4 of 6 images" in message
    for text in (
        "Ann/0001.png",
        "Bob/0002.png",
        "Cleo/0001.png: expected the SHA-256",
        "'no-such-id'",
    ):
        assert text in message
    assert "Ann/0002.png" not in message
    assert "Bob/0001.png" not in message


def test_the_real_list_is_complete(data_root: Path):
    listing = LfwPairs(data_root).listing()
    assert len(listing) == 3000
    assert sum(listing.is_mated) == 1500
    assert len({*listing.probe, *listing.reference}) == 3811
    checked = LfwPairs(data_root, errata_file=Path("pairs/lfw_errata.txt")).listing()
    assert len(checked) == 3000
    assert sum(map(bool, checked.set_aside)) == 6
    assert checked.fold == tuple(row // 600 for row in range(3000))
    assert all(checked.is_mated[row] for row, aside in enumerate(checked.set_aside) if aside)
