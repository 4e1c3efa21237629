"""Verification sets in insightface's ``.bin``."""

import hashlib
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.contracts import PairSource
from fxeval.datasets.faces.alignment import ARCFACE_112, DLIB_150, align
from fxeval.datasets.faces.images import read_image
from fxeval.datasets.lists import insightface_bin
from fxeval.datasets.lists.insightface_bin import InsightfaceBin
from fxeval.errors import DataContractError

LABELS = [True, False, True, False]
PAIRS = [(0, 1), (0, 2), (2, 3), (1, 4)]


def face(seed: int, size=(112, 112)) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(seed))
    coarse = generator.integers(0, 256, (7, 7, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def id_of(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def write(path: Path, images, labels, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps((list(images), list(labels)), protocol))
    return path


@pytest.fixture
def bin_file(tmp_path: Path) -> Path:
    """Four pairs of five images; 0 and 1 are one identity, 2 and 3 another."""
    images = [encoded(face(row)) for pair in PAIRS for row in pair]
    return write(tmp_path / "small.bin", images, LABELS)


def source(file: Path | None, **fields) -> InsightfaceBin:
    return InsightfaceBin(file, "small", **{"folds": 2, **fields})


def test_pairs_come_in_the_order_of_the_file_called_by_their_pixels(bin_file):
    pairs = source(bin_file)
    assert isinstance(pairs, PairSource)
    assert pairs.banner is None
    listing = pairs.listing()
    ids = [id_of(face(row)) for row in range(5)]
    assert listing.probe == tuple(ids[one] for one, _ in PAIRS)
    assert listing.reference == tuple(ids[two] for _, two in PAIRS)
    assert listing.is_mated == tuple(LABELS)
    assert listing.fold == (0, 0, 1, 1)
    assert not any(listing.set_aside)
    assert listing.excluded == ()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "form",
    [bytes, lambda data: np.frombuffer(data, np.uint8),
     lambda data: np.frombuffer(data, np.uint8).reshape(-1, 1)],
    ids=["bytes", "array", "column"],
)  # fmt: skip
def test_every_protocol_and_form_of_an_image_gives_the_same_listing(bin_file, protocol, form):
    expected = source(bin_file).listing()
    images = [form(encoded(face(row))) for pair in PAIRS for row in pair]
    labels = np.array(LABELS) if protocol % 2 else [np.bool_(label) for label in LABELS]
    bin_file.write_bytes(pickle.dumps((images, labels), protocol))
    assert source(bin_file).listing() == expected


@pytest.mark.parametrize("protocol", [0, 2])
def test_files_of_python_2_are_read(bin_file, protocol):
    images, _ = pickle.loads(bin_file.read_bytes())
    expected = source(bin_file).listing()
    if protocol == 0:
        body = b"".join(b"S" + repr(image).encode()[1:] + b"\na" for image in images)
        text = b"((l" + body + b"(l" + b"".join(b"I0%d\na" % label for label in LABELS) + b"t."
    else:
        body = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
        flags = b"".join(b"\x88" if label else b"\x89" for label in LABELS)
        text = b"\x80\x02](" + body + b"e](" + flags + b"e\x86."
    assert pickle.loads(text, encoding="bytes") == (images, LABELS)
    bin_file.write_bytes(text)
    assert source(bin_file).listing() == expected


def test_images_come_as_rgb_in_the_order_asked_for(bin_file):
    pairs = source(bin_file)
    rows = (3, 0, 3)
    images = pairs.images([id_of(face(row)) for row in rows], ARCFACE_112)
    assert images.shape == (3, 3, 112, 112)
    for got, row in zip(images, rows, strict=True):
        assert np.array_equal(got.permute(1, 2, 0).numpy(), face(row))
    assert pairs.images([], ARCFACE_112).shape == (0, 3, 112, 112)


def test_another_crop_moves_the_landmarks_to_its_template(bin_file):
    got = source(bin_file).images([id_of(face(4))], DLIB_150)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(got, align(face(4), ARCFACE_112.template, DLIB_150))
    assert got.shape == (150, 150, 3)


def test_an_id_that_the_file_does_not_have_is_named(bin_file):
    with pytest.raises(DataContractError, match="1 of 2 images are not in the file: 'ffff'"):
        source(bin_file).images([id_of(face(0)), "ffff"], ARCFACE_112)


def test_identities_are_what_mated_pairs_join(bin_file):
    listing = source(bin_file).listing()
    who = dict(zip(listing.probe + listing.reference,
                   listing.probe_identity + listing.reference_identity, strict=True))  # fmt: skip
    zero, one, two, three, four = (who[id_of(face(row))] for row in range(5))
    assert zero == one
    assert two == three
    assert len({zero, two, four}) == 3


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans()), min_size=2,
                max_size=14))  # fmt: skip
def test_identities_are_the_connected_components(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("bin") / "x.bin"
    write(path, [ENCODED[row] for one, two, _ in pairs for row in (one, two)],
          [label for *_, label in pairs])  # fmt: skip
    component = {row: {row} for row in range(8)}
    for _ in range(8):
        for one, two, is_mated in pairs:
            if is_mated:
                component[one] |= component[two]
                component[two] |= component[one]
    if any(two in component[one] for one, two, is_mated in pairs if not is_mated):
        with pytest.raises(DataContractError, match=r"pair \d+ .* is labelled nonmated, but the"):
            source(path).listing()
        return
    listing = source(path).listing()
    seen: dict[str, set[int]] = {}
    for row, (one, two, _) in enumerate(pairs):
        seen.setdefault(listing.probe_identity[row], set()).add(one)
        seen.setdefault(listing.reference_identity[row], set()).add(two)
    used = {row for one, two, _ in pairs for row in (one, two)}
    assert sorted(map(sorted, seen.values())) == sorted(
        {tuple(sorted(component[row] & used)): sorted(component[row] & used) for row in used}
        .values()
    )  # fmt: skip
    assert listing.set_aside == tuple(
        "both images are one" if one == two else "" for one, two, _ in pairs
    )


ENCODED = [encoded(face(row)) for row in range(8)]


def test_equal_pixels_are_one_image_however_they_are_encoded(tmp_path):
    again = cv2.imencode(".png", face(0)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    assert again != ENCODED[0]
    images = [ENCODED[0], ENCODED[1], again, ENCODED[2], ENCODED[1], ENCODED[2]]
    with pytest.raises(DataContractError, match=r"pair 2 \(images 4 and 5\) is labelled nonmated"):
        source(write(tmp_path / "x.bin", images, [True, True, False])).listing()


def test_an_identities_file_says_who_is_who(bin_file, tmp_path):
    names = tmp_path / "who.txt"
    names.write_text("Ann\nAnn\nAnn\nBob\nBob\nBob\nAnn\nCid\n")
    listing = source(bin_file, identities_file=names).listing()
    digests = {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("Ann", "Bob")}
    assert listing.probe_identity[:3] == (digests["Ann"], digests["Ann"], digests["Bob"])
    assert "Ann" not in repr(listing)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("Ann Ann Ann Bob Bob Bob Ann", r"expected 8 lines, one for each image, got 7"),
        ("Ann Bob Ann Cid Cid Cid Bob Dan", "pair 0 .* labelled mated, but .*1 and 2.* differ"),
        ("Ann Ann Ann Ann Ann Ann Ann Cid", "pair 1 .* labelled nonmated, but .* are equal"),
        ("Ann Ann Bob Cid Cid Cid Ann Dan", r"who.txt:3: expected the identity of line 1"),
        ("Ann  Ann Bob Bob Bob Ann Cid", "who.txt:2: expected an identity, got nothing"),
    ],
)
def test_an_identities_file_that_disagrees_is_refused(bin_file, tmp_path, lines, message):
    (tmp_path / "who.txt").write_text(lines.replace(" ", "\n"))
    with pytest.raises(DataContractError, match=message) as error:
        source(bin_file, identities_file=tmp_path / "who.txt").listing()
    assert not any(name in str(error.value) for name in ("Ann", "Bob", "Cid", "Dan"))


def test_folds_are_contiguous_and_as_even_as_can_be(tmp_path):
    images = [ENCODED[row % 8] for row in range(46)]
    path = write(tmp_path / "x.bin", images, [True] * 23)
    listing = InsightfaceBin(path, "x").listing()
    assert [listing.fold.count(fold) for fold in range(10)] == [3] * 3 + [2] * 7
    assert list(listing.fold) == sorted(listing.fold)


@pytest.mark.parametrize("folds", [0, 1, 5, -3])
def test_a_number_of_folds_that_cannot_be_is_refused(bin_file, folds):
    with pytest.raises(DataContractError, match=f"expected 2 to 4 folds.* got {folds}"):
        source(bin_file, folds=folds).listing()


def test_the_card_is_that_of_the_file(bin_file):
    card = source(bin_file).card()
    assert card.root_digest == hashlib.sha256(bin_file.read_bytes()).hexdigest()
    assert card.n_images == 8
    assert not card.may_show


@pytest.mark.parametrize(
    "content",
    [[], (), None, ([],), ([], [], []), ([], []), "x",
     ([ENCODED[0]], [True]), ([ENCODED[0]] * 3, [True]), ([ENCODED[0]] * 2, [1]),
     ([ENCODED[0]] * 2, ["True"]), (7, 7), ([7, 7], [True]), (["a", "b"], [True]),
     ([[ENCODED[0]], ENCODED[0]], [True])],
    ids=range(15),
)  # fmt: skip
def test_a_pickle_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(DataContractError, match=r"x\.bin: "):
        source(tmp_path / "x.bin").listing()


def test_every_image_that_cannot_be_used_is_counted_and_the_first_are_named(tmp_path):
    images = [ENCODED[0]] * 8 + [b"no image", ENCODED[1][:300], encoded(face(2, (112, 96)))]
    path = write(tmp_path / "x.bin", [*images, ENCODED[0]], [True] * 6)
    with pytest.raises(DataContractError) as error:
        source(path).listing()
    message = str(error.value)
    assert "3 of 12 images cannot be used" in message
    assert all(f"x.bin: image {row}: " in message for row in (8, 9, 10))
    assert "expected 112 x 112 pixels (crop arcface112), got 96 x 112" in message


def test_the_size_of_the_images_is_that_of_the_crop(tmp_path):
    path = write(tmp_path / "x.bin", [encoded(face(row, (150, 150))) for row in range(4)],
                 [True, True])  # fmt: skip
    assert len(source(path, crop="dlib150").listing()) == 2
    with pytest.raises(DataContractError, match="got 150 x 150"):
        source(path).listing()
    with pytest.raises(DataContractError, match=r"unknown crop 'arcface11'.* 'arcface112'"):
        source(path, crop="arcface11")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataContractError, match=r"no file is named\. Set 'file'"):
        source(None).listing()
    with pytest.raises(DataContractError, match=r"none\.bin: cannot be read \(No such file"):
        source(tmp_path / "none.bin").listing()
    with pytest.raises(DataContractError, match="no regular file"):
        source(tmp_path).listing()
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(DataContractError, match="no regular file"):
        source(tmp_path / "pipe.bin").listing()


def test_large_files_images_and_lists_are_refused(bin_file, tmp_path, monkeypatch):
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate((2 << 30) + 1)
    with pytest.raises(DataContractError, match="at most 2147483648 bytes"):
        source(tmp_path / "huge.bin").listing()
    padded = ENCODED[0][:-12] + b"\0" * (1 << 20) + ENCODED[0][-12:]
    with pytest.raises(DataContractError, match="image 0: expected at most 1048576 bytes"):
        source(write(tmp_path / "x.bin", [padded, ENCODED[0]], [True])).listing()
    monkeypatch.setattr(insightface_bin, "MAX_IMAGES", 7)
    with pytest.raises(DataContractError, match="2 to 7 images, got 8 images"):
        source(bin_file).listing()


def test_one_image_that_is_named_very_often_is_decoded_and_kept_once(tmp_path, monkeypatch):
    calls = []
    real = insightface_bin.decode_image
    monkeypatch.setattr(
        insightface_bin, "decode_image", lambda *given: calls.append(given[1]) or real(*given)
    )
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (112, 112, 3), np.uint8)
    image = encoded(noise)
    array = np.frombuffer(image, np.uint8)
    for shared in (image, array):
        path = write(tmp_path / "x.bin", [shared] * 20_000, [True] * 10_000)
        calls.clear()
        tracemalloc.start()
        assert len(source(path).listing()) == 10_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(calls) == 1
        assert peak < 30 << 20  # twenty thousand copies take 750 MiB


def test_arrays_that_share_their_bytes_are_decoded_once(tmp_path, monkeypatch):
    calls = []
    real = insightface_bin.decode_image
    monkeypatch.setattr(
        insightface_bin, "decode_image", lambda *given: calls.append(given[1]) or real(*given)
    )
    data = b"B" + struct.pack("<I", len(ENCODED[0])) + ENCODED[0] + b"q\x01"
    kind = b"cnumpy\ndtype\n(Vu1\ntRq\x02"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n)Vb\ntR"
    array += b"(K\x01(M" + struct.pack("<H", len(ENCODED[0])) + b"th\x02\x89h\x01tb"
    program = data + kind + b"](" + array * 40 + b"e](" + b"\x88" * 20 + b"e\x86."
    (tmp_path / "x.bin").write_bytes(program)
    assert len(source(tmp_path / "x.bin").listing()) == 20
    assert len(calls) == 1


def test_nothing_in_a_hostile_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/created'",)

    path = write(tmp_path / "x.bin", [ENCODED[0], Evil()], [True])
    with pytest.raises(DataContractError, match=r"asks for 'posix\.system'"):
        source(path).listing()
    assert not (tmp_path / "created").exists()


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_any_bytes_are_a_listing_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bin") / "x.bin"
    whole = bytearray(pickle.dumps(([ENCODED[row] for row in (0, 1, 2, 3)], [True, False]),
                                   data.draw(st.integers(0, 5))))  # fmt: skip
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, 40) | st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
    path.write_bytes(data.draw(st.just(bytes(whole[:end])) | st.binary(max_size=40)))
    try:
        listing = source(path).listing()
    except DataContractError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert len(listing) == 2


def test_real_faces_make_the_round_trip(data_root: Path, tmp_path):
    entries = json.loads((data_root / "faces_manifest.json").read_text())["images"]
    people: dict[str, list[np.ndarray]] = {}
    for entry in entries[:400]:
        own = people.setdefault(entry["identity"], [])
        if len(own) < 2:
            image = read_image(data_root / entry["file"])
            own.append(align(image, entry["landmarks5"], ARCFACE_112))
    several = [own for own in people.values() if len(own) == 2][:20]
    faces = [image for own in several for image in own]
    faces += [image for at in range(20) for image in (several[at][0], several[(at + 7) % 20][1])]
    path = write(tmp_path / "real.bin", [encoded(image) for image in faces],
                 [True] * 20 + [False] * 20)  # fmt: skip
    pairs = InsightfaceBin(path, "real")
    listing = pairs.listing()
    assert len({*listing.probe_identity}) == 20
    loaded = pairs.images(listing.probe, ARCFACE_112).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(loaded, np.stack(faces[::2]))
