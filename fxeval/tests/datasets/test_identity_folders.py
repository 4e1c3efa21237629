"""Folders of identities: usable images, parts, and drawn pairs."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fxeval.contracts import IdentitySource, PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, align
from fxeval.datasets.faces.images import read_image
from fxeval.datasets.lists import identity_folders
from fxeval.datasets.lists.identity_folders import IdentityFolders, shares_of
from fxeval.errors import DataContractError

COUNTS = {"Ann": 5, "Bob": 3, "Cid": 4, "Dan": 1}


def face(seed: int, size=(112, 112)) -> np.ndarray:
    coarse = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (7, 7, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


def write(path: Path, seed: int, size=(112, 112)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), face(seed, size)[..., ::-1])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def called(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def fill(root: Path, counts: dict[str, int]) -> None:
    for who, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write(root / name / f"{number}.png", 100 * who + number)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ann has five images, Bob three, Cid four, Dan one."""
    fill(tmp_path / "faces", COUNTS)
    return tmp_path / "faces"


def reasons(source: IdentityFolders) -> Counter:
    return Counter(exclusion.reason for exclusion in source.identities().excluded)


def test_it_is_a_source_of_identities_and_of_pairs(root):
    source = IdentityFolders(root)
    assert isinstance(source, IdentitySource)
    assert isinstance(source, PairSource)
    assert source.banner is None
    IdentityFolders(root / "not there")  # creating it does not read the disk


def test_images_and_identities_are_called_by_digests_in_the_order_of_their_paths(root):
    listing = IdentityFolders(root).identities()
    paths = [
        root / name / f"{k}.png" for name in ("Ann", "Bob", "Cid") for k in range(COUNTS[name])
    ]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths]
    assert listing.image == tuple(digests)
    assert listing.identity == tuple(called(path.parent.name) for path in paths)
    assert listing.split == ()
    assert reasons(IdentityFolders(root)) == {"its identity has fewer than 2 images": 1}
    assert not any(name in repr(listing) for name in COUNTS)


@pytest.mark.parametrize(("least", "kept"), [(1, 13), (2, 12), (4, 9), (5, 5)])
def test_identities_with_too_few_images_are_left_out(root, least, kept):
    source = IdentityFolders(root, min_images=least)
    assert len(source.identities()) == kept
    assert sum(reasons(source).values()) == 13 - kept


def test_what_cannot_be_used_is_excluded_with_its_reason(root, tmp_path):
    write(tmp_path / "outside" / "1.png", 900)
    whole = (root / "Ann" / "0.png").read_bytes()
    write(root / "Ann" / ".hidden.png", 901)
    write(root / ".cache" / "1.png", 902)
    (root / "Ann" / "link.png").symlink_to(tmp_path / "outside" / "1.png")
    (root / "Eve").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "Ann" / "notes.txt").write_text("Ann likes tea")
    (root / "Ann" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "Ann" / "empty.png").write_bytes(b"")
    write(root / "Ann" / "wide.png", 903, (112, 96))
    write(root / "Ann" / "deeper" / "1.png", 904)
    write(root / "flat.png", 905)
    os.mkfifo(root / "Bob" / "pipe.png")
    os.mkfifo(root / "pipe")
    (root / "Bob" / "a\nb.png").write_bytes(whole)
    (root / "Bob" / "again.png").write_bytes((root / "Bob" / "1.png").read_bytes())
    source = IdentityFolders(root)
    assert reasons(source) == {
        "a link": 3,
        "hidden": 2,
        "no JPEG or PNG": 2,
        "truncated, damaged or too large": 1,
        "not of 112 x 112 pixels": 1,
        "no regular file": 2,
        "not in an identity's folder": 2,
        "an odd name": 1,
        "another file holds the same image": 1,
        "its identity has fewer than 2 images": 1,
    }
    assert len(source.identities()) == 12
    assert source.card().failures == reasons(source)
    assert not any(name in repr(source.identities()) for name in (*COUNTS, "Eve", "tea"))


def test_an_image_that_two_identities_claim_is_nobodys(root):
    (root / "Bob" / "ann.png").write_bytes((root / "Ann" / "0.png").read_bytes())
    source = IdentityFolders(root, min_images=1)
    assert reasons(source) == {"two identities claim the same image": 2}
    assert len(source.identities()) == 12


def test_images_come_in_any_crop_and_in_the_order_asked_for(root):
    source = IdentityFolders(root)
    ids = source.identities().image
    images = source.images([ids[7], ids[0]], ARCFACE_112)
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), face(102))
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), face(0))
    moved = source.images([ids[0]], DLIB_150)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(moved, align(face(0), ARCFACE_112.template, DLIB_150))


def test_a_file_that_changed_or_an_unknown_id_is_refused(root):
    source = IdentityFolders(root)
    ids = source.identities().image
    write(root / "Ann" / "0.png", 999)
    with pytest.raises(DataContractError, match="2 of 3 images cannot be used") as error:
        source.images([ids[0], "ffff", ids[1]], ARCFACE_112)
    assert "SHA-256" in str(error.value)
    assert "'ffff'" in str(error.value)


def test_the_card_counts_and_digests_the_images(root):
    card = IdentityFolders(root).card()
    lines = sorted(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in root.glob("*/*")
    )
    assert card.root_digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert card.n_images == 13
    assert card.failures == {"its identity has fewer than 2 images": 1}
    assert not card.may_show


@example(3, [20, 1, 1])
@given(st.integers(3, 400), st.lists(st.integers(0, 20), min_size=1, max_size=3))
def test_shares_are_whole_near_the_fractions_and_never_empty(n_images, weights):
    if not sum(weights):
        return
    fractions = [weight / sum(weights) for weight in weights]
    shares = shares_of(n_images, fractions)
    assert sum(shares) == n_images
    lent = 0
    for share, fraction in zip(shares, fractions, strict=True):
        assert (share > 0) == (fraction > 0)
        assert share < fraction * n_images + 1 + 1e-9
        lent += share == 1 and fraction * n_images < 1
    for share, fraction in zip(shares, fractions, strict=True):
        assert share > fraction * n_images - 1 - 1e-9 - lent


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.0, 0.5)]))
def test_every_identity_is_in_every_part_in_its_share(tmp_path_factory, seed, fractions):
    source = IdentityFolders(_shared_root(tmp_path_factory), fractions=fractions, seed=seed)
    listing = source.identities()
    own = defaultdict(Counter)
    for identity, split in zip(listing.identity, listing.split, strict=True):
        own[identity][split] += 1
    assert set(own) == {called("Ann"), called("Bob"), called("Cid")}
    for name in ("Ann", "Bob", "Cid"):
        shares = shares_of(COUNTS[name], fractions)
        expected = dict(zip(("train", "validation", "test"), shares, strict=True))
        assert own[called(name)] == {key: value for key, value in expected.items() if value}
    least = sum(fraction > 0 for fraction in fractions)
    assert [one.reason for one in listing.excluded] == [
        f"its identity has fewer than {least} images"
    ]


def _shared_root(factory, made=[]) -> Path:  # noqa: B006
    if not made:
        made.append(factory.mktemp("shared"))
        fill(made[0], COUNTS)
    return made[0]


def test_the_parts_follow_the_seed_and_not_other_identities(root):
    def parts(**fields):
        listing = IdentityFolders(root, fractions=(0.5, 0.25, 0.25), **fields).identities()
        return dict(zip(listing.image, listing.split, strict=True))

    first = parts()
    assert first == parts()
    assert len({tuple(parts(seed=seed).values()) for seed in range(8)}) > 4
    write(root / "Ann" / "9.png", 999)
    for number in range(6):
        write(root / "Aaa" / f"{number}.png", 800 + number)
    now = parts()
    who = IdentityFolders(root).identities()
    owner = dict(zip(who.image, who.identity, strict=True))
    others = [image for image in first if owner[image] != called("Ann")]
    assert len(others) == 7
    assert all(now[image] == first[image] for image in others)


def test_each_identity_has_a_draw_of_its_own_that_file_names_do_not_touch(tmp_path):
    for row in range(60):
        write(tmp_path / f"p{row // 10}" / f"{row}.png", row)
    source = IdentityFolders(tmp_path, fractions=(0.5, 0.0, 0.5))
    listing = source.identities()
    parts = dict(zip(listing.image, listing.split, strict=True))
    own = defaultdict(list)
    for image, identity in sorted(zip(listing.image, listing.identity, strict=True)):
        own[identity].append(parts[image])
    assert len(set(map(tuple, own.values()))) == 6
    for row in range(60):
        path = tmp_path / f"p{row // 10}" / f"{row}.png"
        path.rename(path.with_name(f"{-row % 61}x.png"))
    listing = IdentityFolders(tmp_path, fractions=(0.5, 0.0, 0.5)).identities()
    assert dict(zip(listing.image, listing.split, strict=True)) == parts


@pytest.mark.parametrize(
    "fractions",
    [
        (0.5,),
        (0.5, 0.6),
        (1.5, -0.5),
        (0.25,) * 4,
        (float("nan"), 1.0),
        (float("inf"), 0.0),
        (0.0,),
    ],
)
def test_fractions_that_are_none_or_beside_a_table_are_refused(root, fractions):
    with pytest.raises(DataContractError, match="'fractions': expected up to three numbers"):
        IdentityFolders(root, fractions=fractions)
    with pytest.raises(DataContractError, match="got both"):
        IdentityFolders(root, fractions=(1.0,), splits_file=Path("x.csv"))


def table(root: Path, rows: list[str]) -> Path:
    (root.parent / "parts.csv").write_text("\n".join(["img,identity,split", *rows]) + "\n")
    return root.parent / "parts.csv"


ROWS = [
    "Ann/0.png,Ann,a", "Ann/1.png,Ann,b", "Ann/2.png,Ann,b", "Cid/0.png,Cid,b", "Cid/3.png,Cid,a",
]  # fmt: skip


def test_a_table_gives_the_parts(root):
    source = IdentityFolders(root, splits_file=table(root, ROWS))
    listing = source.identities()
    assert listing.split == ("a", "b", "b", "b", "a")
    assert listing.identity == (called("Ann"),) * 3 + (called("Cid"),) * 2
    assert reasons(source) == {"the table of parts does not name it": 8}


def test_a_table_may_name_a_file_that_repeats_another(root):
    (root / "Ann" / "z.png").write_bytes((root / "Ann" / "0.png").read_bytes())
    listing = IdentityFolders(root, splits_file=table(root, [*ROWS, "Ann/z.png,Ann,b"]))
    assert listing.identities().split == ("a", "b", "b", "b", "a")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "Ann/7.png,Ann,a"], r"parts.csv:7: the folder has no such image"),
        ([*ROWS, "Bob/0.png,Ann,a"], r"parts.csv:7: expected the identity given by the folder"),
        (
            [*ROWS, "Bob/0.png,Bob,a", "Bob/1.png,Bob,a"],
            r"in each of 2 parts, .*1 of 3 that lack a part",
        ),
        ([*ROWS, "../x.png,Ann,a"], r"parts.csv:7: expected a relative path"),
        ([*ROWS, ROWS[0]], r"parts.csv:7: repeats the image in parts.csv:2"),
        ([], "at least one row"),
    ],
)
def test_a_table_that_disagrees_with_the_folder_is_refused(root, rows, message):
    with pytest.raises(DataContractError, match=message):
        IdentityFolders(root, splits_file=table(root, rows)).identities()


def test_a_table_without_parts_is_refused(root):
    path = table(root, ROWS)
    path.write_text("img,identity\nAnn/0.png,Ann\n")
    with pytest.raises(DataContractError, match="expected the columns img,identity,split"):
        IdentityFolders(root, splits_file=path).identities()


def test_pairs_are_drawn_from_all_images_or_one_part(root):
    everything = IdentityFolders(root).listing()
    assert sum(everything.is_mated) == 10 + 3 + 6
    assert len(everything) == 2 * 19
    source = IdentityFolders(root, fractions=(0.5, 0.0, 0.5), split="test")
    listing, people = source.listing(), source.identities()
    part = dict(zip(people.image, people.split, strict=True))
    assert {part[image] for image in (*listing.probe, *listing.reference)} == {"test"}
    owner = dict(zip(people.image, people.identity, strict=True))
    assert listing.probe_identity == tuple(owner[image] for image in listing.probe)
    assert listing.excluded == people.excluded
    few = IdentityFolders(root, mated=3, nonmated=5).listing()
    assert listing_counts(few) == (3, 5)
    with pytest.raises(DataContractError, match="expected 20 mated pairs, got 19"):
        IdentityFolders(root, mated=20).listing()


def listing_counts(listing) -> tuple[int, int]:
    return sum(listing.is_mated), len(listing) - sum(listing.is_mated)


def test_an_unknown_part_is_refused(root):
    with pytest.raises(DataContractError, match=r"has no part 'tests'\. Did you mean 'test'"):
        IdentityFolders(root, fractions=(0.5, 0.0, 0.5), split="tests").listing()
    with pytest.raises(DataContractError, match="has no part 'test'"):
        IdentityFolders(root, split="test").listing()


def test_folders_that_cannot_be_used_are_named(root, tmp_path, monkeypatch):
    with pytest.raises(DataContractError, match=r"none: cannot be read \(No such file"):
        IdentityFolders(tmp_path / "none").identities()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataContractError, match=r"usable .* got none \(the folder is empty\)"):
        IdentityFolders(tmp_path / "empty").identities()
    with pytest.raises(
        DataContractError, match=r"usable images .* got none \(not of 150 x 150 pixels: 13"
    ):
        IdentityFolders(root, crop="dlib150").identities()
    with pytest.raises(DataContractError, match=r"unknown crop 'dlib15'. Did you mean 'dlib150'"):
        IdentityFolders(root, crop="dlib15")
    monkeypatch.setattr(identity_folders, "MAX_FILES", 12)
    with pytest.raises(DataContractError, match="at most 12 files"):
        IdentityFolders(root).identities()


def test_a_manifest_says_who_is_who_and_where_the_landmarks_are(root):
    images = []
    for number, name in enumerate(["Ann", "Ann", "Bob", "Bob"]):
        digest = write(root.parent / "flat" / f"{number}.png", 700 + number, (130, 120))
        points = [[x + 4, y + 9] for x, y in ARCFACE_112.template]
        images.append(
            {"file": f"{number}.png", "sha256": digest, "identity": name, "landmarks5": points}
        )
    failures = [{"file": "4.png", "reason": "no face"}]
    content = {"images": images, "failures": failures}
    (root.parent / "flat" / "faces.json").write_text(json.dumps(content))
    source = IdentityFolders(root.parent / "flat", manifest_file=Path("faces.json"))
    listing = source.identities()
    assert listing.identity == (called("Ann"),) * 2 + (called("Bob"),) * 2
    assert source.card().failures == {"no face": 1}
    got = source.images(listing.image[:1], ARCFACE_112)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(got, face(700, (130, 120))[9:121, 4:116])


def test_real_faces_are_used_through_their_manifest(data_root: Path):
    source = IdentityFolders(
        data_root, Path("faces_manifest.json"), min_images=4, fractions=(0.5, 0.25, 0.25)
    )
    listing = source.identities()
    own = defaultdict(set)
    for identity, split in zip(listing.identity, listing.split, strict=True):
        own[identity].add(split)
    assert len(own) == 283
    assert all(parts == {"train", "validation", "test"} for parts in own.values())
    pairs = IdentityFolders(
        data_root, Path("faces_manifest.json"), mated=300, nonmated=300, folds=10
    )
    assert Counter(pairs.listing().fold) == dict.fromkeys(range(10), 60)
    images = pairs.images(pairs.listing().probe[:3], ARCFACE_112)
    assert images.shape == (3, 3, 112, 112)


def test_real_aligned_faces_are_used_from_their_folders(data_root: Path, tmp_path):
    entries = json.loads((data_root / "faces_manifest.json").read_text())["images"]
    people = Counter(entry["identity"] for entry in entries)
    chosen = [name for name, count in people.items() if count >= 4][:12]
    for entry in entries:
        if entry["identity"] in chosen:
            image = align(read_image(data_root / entry["file"]), entry["landmarks5"], ARCFACE_112)
            path = tmp_path / entry["identity"] / f"{entry['number']}.jpg"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1])
    source = IdentityFolders(tmp_path, min_images=4, fractions=(0.8, 0.1, 0.1))
    assert len(set(source.identities().identity)) == 12
    assert source.identities().excluded == ()
    listing = source.listing()
    assert len(set(listing.probe_identity[:12])) == 12
    assert not any(name in repr((listing, source.card())) for name in chosen)
