"""Fuzzed parsers of data: lists, manifests, landmarks, journals and images."""

import hashlib
import io
import json
import math
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from hypothesis import strategies as st

from fxeval.contracts import PairListing
from fxeval.datasets import restricted_pickle
from fxeval.datasets.faces.alignment import CROPS
from fxeval.datasets.faces.images import MAX_PIXELS, decode_image, image_bytes, read_image
from fxeval.datasets.faces.label_folder import Classes, labels_in, read_classes
from fxeval.datasets.faces.manifests import Manifest, path_fault, read_manifest
from fxeval.datasets.lists import insightface_bin
from fxeval.datasets.lists.file_pairs import parse_file_pairs
from fxeval.datasets.lists.flat_pairs import parse_flat, parse_patch
from fxeval.datasets.lists.insightface_bin import InsightfaceBin
from fxeval.datasets.lists.lfw import LfwPairs, parse_pairs
from fxeval.datasets.lists.pair_lines import PairLine
from fxeval.datasets.lists.spaced_lists import parse_listed_pairs, parse_listed_triplets
from fxeval.datasets.lists.tables import (
    IdentityRow,
    parse_csv_pairs,
    parse_csv_triplets,
    parse_gallery_probe,
    parse_identities,
)
from fxeval.datasets.preparing.detection import MAX_POSITION, LandmarkFile
from fxeval.datasets.preparing.journal import Journal
from fxeval.datasets.text_files import read_text
from fxeval.tests.fuzz_mutations import (
    damaged,
    garbage,
    repainted,
    repickled,
    retyped,
    reworded,
)
from fxeval.tests.fuzzing import Parser
from fxeval.tests.label_pictures import palette_png, png

SIZE = (112, 112)
POINTS = [[38.0, 51.0], [73.0, 51.0], [56.0, 71.0], [41.0, 92.0], [70.0, 92.0]]
_VIEW_2 = """\
2\t2
Ann\t1\t2
Bob\t1\t3
Ann\t1\tBob\t2
Cy\t1\tAnn\t4
Cy\t1\t2
Di\t1\t3
Cy\t1\tDi\t2
Ed\t1\tDi\t4"""
_VIEW_1 = "1\nAnn\t1\t2\nAnn\t1\tBob\t2\n"
_ERRATA = "# made up\nAnn\t1\t2\nBob\t1\tCy\t2\n"
_FLAT = "\n".join(
    [f"Ann_{i}.jpg 1\nAnn_{i + 50}.jpg 1" for i in range(10)]
    + [f"Ann_{i}.jpg 0\nBob_{i}.jpg 0" for i in range(10)]
)
_PATCH = "1.jpg 2.jpg 1\n3.jpg 1.jpg -1\n3.jpg 4.jpg 1\n"
_FILES = "Ann/1.jpg Ann/2.jpg 1\nAnn/1.jpg\tBob/1.jpg\t0\nBob/2.jpg,Bob/3.jpg,true\n"
_LISTED = "# made up\nAnn/0001 Ann/0002 1\nAnn/0001 Bob/0001 0\nBob/0002 Bob/0003 1"
_TRIPLETS = "Ann/0001 Ann/0002 Bob/0001 easy\nBob/0001 Bob/0002 Ann/0003 hard"
_CSV = "img1,img2,label,id1,id2,fold\na.jpg,b.jpg,1,Ann,Ann,0\na.jpg,c.jpg,false,Ann,Bob,1\n"
_CSV_TRIPLETS = (
    'anchor,mate,nonmate,anchor_id,mate_id,nonmate_id\na.jpg,b.jpg,"c.jpg",Ann,Ann,Bob\n'
)
_GALLERY = "G,P,T\na.jpg,b.jpg,1\na.jpg,c.jpg,0\nc.jpg,d.jpg,1\n"
_IDENTITIES = "img,identity,split\na.jpg,Ann,train\nb.jpg,Ann,train\nc.jpg,Bob,test\n"
_LANDMARKS = (
    "file," + ",".join(f"{a}{n}" for n in range(1, 6) for a in "xy")
    + "\na.jpg," + ",".join(str(v) for p in POINTS for v in p)
    + "\nb/c.jpg," + ",".join(str(v + 1) for p in POINTS for v in p) + "\n"
)  # fmt: skip
_CLASSES = [
    "0: background\n1: skin\n2: scar\naligned_to: arcface112\nsides: image\n",
    "'#000000': background\n'#00ff00': skin\n'#00ffff': l_eye\n",
]
_THREE = Classes((0, 1, 7), ("background", "skin", "nose"))
_VALUES = np.array([0, 1, 7], np.uint8)[np.arange(60).reshape(6, 10) % 7 % 3]


def _manifest(**more: Any) -> dict[str, Any]:
    images = [
        {"file": f"{who}/000{n}.jpg", "sha256": hashlib.sha256(f"{who}{n}".encode()).hexdigest(),
         "identity": who, "number": n, "landmarks5": POINTS}
        for who in ("Ann", "Bob") for n in (1, 2)
    ]  # fmt: skip
    failures = [{"file": "Cy/0001.jpg", "reason": "no face"}]
    about = {"fxeval_manifest": 1, "licence": "CC0", "may_show": True, "source": None}
    return {**about, "detector": None, "crop": None, "images": images, "failures": failures, **more}


MANIFESTS = [
    _manifest(),
    _manifest(crop="arcface112"),
    _manifest(crop={"name": "own", "size": [96, 80], "template": POINTS}),
]


def picture(seed: int, shape: tuple[int, ...] = (*SIZE, 3)) -> Any:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (7, 7, *shape[2:]), np.uint8)
    return cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_NEAREST)


def encoded(pixels: Any, suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def images() -> list[bytes]:
    jpeg = encoded(picture(0), ".jpg")
    at = jpeg.index(b"\xff\xc0") + 5
    bomb = encoded(np.zeros((4000, 4000), np.uint8), ".png")
    return [
        jpeg,
        encoded(picture(1), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(picture(2, (40, 30)), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encoded(picture(3), ".png"),
        encoded(picture(4, (40, 30)), ".png"),
        encoded(picture(5, (40, 30, 4)), ".png"),
        encoded(picture(6).astype(np.uint16) * 257, ".png"),
        bomb,
        jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :],
        jpeg[:at] + b"\x0f\xa0\x0f\xa0" + jpeg[at + 4 :],
        bomb[:16] + b"\0\0\xff\xff" * 2 + bomb[24:],
    ]


def parsers(data: Path | None) -> list[Parser]:
    pictures = images()
    faces = [encoded(picture(i), ".png") for i in (0, 1, 2, 3)] + [pictures[0], pictures[1]]
    bins = [
        pickle.dumps(([faces[i] for i in (0, 1, 2, 3, 4, 5)], [False, True, False]), protocol)
        for protocol in (0, 2, 4)
    ]
    maps = [
        png(_VALUES),
        palette_png(_VALUES),
        palette_png(_VALUES, bits=4),
        encoded(_VALUES, ".jpg"),
    ]
    arrays = [np.frombuffer(face, np.uint8) for face in faces[:4]]
    bins.append(pickle.dumps((arrays, [False, True]), 2))
    return [
        _lines("lfw pairs", parse_pairs, [_VIEW_2, _VIEW_1]),
        Parser("lfw errata", _texts([_ERRATA]), _errata, _check_errata, ".txt"),
        _lines("calfw cplfw", parse_flat, [_FLAT]),
        _lines("patch-lfw", parse_patch, [_PATCH]),
        _lines("file pairs", parse_file_pairs, [_FILES, _PATCH.replace(".jpg", "_1.jpg")]),
        _lines("spaced pairs", parse_listed_pairs, [_LISTED]),
        _lines("spaced triplets", parse_listed_triplets, [_TRIPLETS]),
        _lines("csv pairs", parse_csv_pairs, [_CSV]),
        _lines("csv triplets", parse_csv_triplets, [_CSV_TRIPLETS]),
        _lines("gallery-probe csv", parse_gallery_probe, [_GALLERY]),
        _lines("csv identities", parse_identities, [_IDENTITIES], _check_identities),
        Parser(
            "manifest",
            retyped(MANIFESTS) | _texts([json.dumps(one, indent=1) for one in MANIFESTS]),
            read_manifest,
            _check_manifest,
            ".json",
        ),
        Parser("landmarks csv", _texts([_LANDMARKS]), _landmarks, _check_landmarks, ".csv"),
        Parser("landmarks json", retyped(MANIFESTS), _landmarks, _check_landmarks, ".json"),
        Parser("journal", _journals(), _journal, _check_journal, ".jsonl"),
        Parser(
            "jpeg and png",
            repainted(pictures) | damaged(pictures) | garbage(b"\xff\xd8", pictures[3][:16]),
            read_image,
            _check_image,
        ),
        Parser("classes of labels", _texts(_CLASSES), read_classes, _check_classes, ".yaml"),
        Parser(
            "label maps",
            repainted(maps) | damaged(maps) | garbage(maps[0][:16]),
            lambda path: labels_in(image_bytes(path), str(path), _THREE),
            _check_labels,
            ".png",
        ),
        Parser(
            "insightface bin",
            repickled(bins) | damaged(bins) | _code() | _programs() | garbage(b"\x80\x04"),
            _bin,
            _check_listing,
            ".bin",
        ),
    ]


def _texts(examples: Sequence[str]) -> Any:
    return reworded(examples) | damaged([one.encode() for one in examples]) | garbage()


def _lines(
    name: str,
    parse: Callable[[str, str], Any],
    examples: Sequence[str],
    check: Callable[[Any], None] | None = None,
) -> Parser:
    def read(path: Path) -> Any:
        return parse(read_text(path), str(path))

    return Parser(name, _texts(examples), read, check or _check_lines, ".txt")


def _check_lines(lines: list[PairLine]) -> None:
    assert lines
    for line in lines:
        assert len(line.images) == len(line.identities) in (2, 3)
        assert len(set(line.images)) == len(line.images)
        assert all(line.identities)
        assert line.fold is None or line.fold >= 0
        for image in line.images:
            assert path_fault(image) == "" if isinstance(image, str) else image[1] >= 0
        if len(line.images) == 3:
            assert line.is_mated
            assert line.identities[2] != line.identities[0]
    owners: dict[Any, str] = {}
    for line in lines:
        for image, identity in zip(line.images, line.identities, strict=True):
            assert owners.setdefault(image, identity) == identity
    folds = {line.fold for line in lines}
    assert folds == {None} or folds == set(range(len(folds)))


def _errata(path: Path) -> set[Any]:
    return LfwPairs(path.parent)._errata(path)


def _check_errata(found: set[Any]) -> None:
    assert all(len(pair) == 2 for pair in found)
    assert all(number > 0 for pair in found for _, number in pair)


def _check_identities(rows: list[IdentityRow]) -> None:
    assert rows
    assert len({row.image for row in rows}) == len(rows)
    assert all(row.identity and not path_fault(row.image) for row in rows)


def _check_manifest(found: Manifest) -> None:
    for face in found.faces:
        assert path_fault(face.file) == ""
        assert len(face.id) == 16
        assert int(face.sha256, 16) >= 0
        assert np.shape(face.landmarks) == (5, 2)
        assert np.isfinite(face.landmarks).all()
        assert face.identity
    assert len({face.file for face in found.faces}) == len(found.faces)
    assert all(reason.isprintable() for reason in found.failures)
    assert (found.licence or "").isprintable()
    json.dumps([found.may_show, found.licence, dict(found.failures)], allow_nan=False).encode()


def _landmarks(path: Path) -> dict[str, Any]:
    return {file: points for file, (points, _) in LandmarkFile(path)._content[1].items()}


def _check_landmarks(found: dict[str, Any]) -> None:
    for points in found.values():
        assert np.shape(points) == (5, 2)
        assert np.abs(points).max() <= MAX_POSITION


PARAMETERS = {"detector": {"name": "given"}, "size": 112}


@st.composite
def _journals(draw: Any) -> bytes:
    """Journals damaged anywhere, and journals with odd entries and right checksums."""
    entries = [
        {"source": f"{n}.jpg", "source_sha256": "a" * 64, "landmarks": POINTS,
         "file": f"Ann/{n}.png", "sha256": "b" * 64, "reason": None} for n in (1, 2)
    ]  # fmt: skip
    entries.append({"source": "3.jpg", "source_sha256": "a" * 64, "landmarks": None,
                    "file": None, "sha256": None, "reason": "no face"})  # fmt: skip
    lines = [json.dumps({"fxeval_prepare": 1, "parameters": PARAMETERS})]
    kind = draw(st.integers(0, 2))
    for entry in entries:
        text = draw(retyped([entry])).decode() if kind else json.dumps(entry)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            lines.append(text)
            continue
        if isinstance(value, dict):
            value["check"] = zlib.crc32(json.dumps(value).encode())
        lines.append(json.dumps(value))
    whole = "".join(f"{line}\n" for line in lines)
    return whole.encode() if kind == 1 else draw(_texts([whole]))


def _journal(path: Path) -> Journal:
    with Journal(path, PARAMETERS) as journal:
        return journal


def _check_journal(found: Journal) -> None:
    for source, entry in found.entries.items():
        assert source == entry.source
        assert (entry.landmarks is None) == (entry.reason is not None)
        if entry.landmarks is not None:
            assert np.shape(entry.landmarks) == (5, 2)
            assert np.isfinite(entry.landmarks).all()
    assert all(isinstance(one, str) for pair in found.outputs.items() for one in pair)


def _check_image(pixels: Any) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < math.prod(pixels.shape[:2]) <= MAX_PIXELS


def _check_classes(found: Classes) -> None:
    assert 0 < len(found.values) == len(found.names) <= 255
    assert len(set(found.values)) == len(found.values)
    assert len(set(found.names)) == len(found.names)
    most = (1 << 24 if found.are_colours else 256) - 1
    assert all(0 <= value <= most for value in found.values)
    assert all(name.strip() and name.isprintable() for name in found.names)
    assert {*found.unknown} <= {*found.names}


def _check_labels(found: Any) -> None:
    assert found.dtype == np.uint8
    assert found.ndim == 2
    assert 0 < found.size <= MAX_PIXELS
    assert found.max() < len(_THREE.names)


def _code() -> Any:
    """Pickles that would run code, in the place of an image or of everything."""
    evil = [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    ]
    return repickled(evil) | st.sampled_from(evil)


_INSTRUCTIONS = [
    b"N", b"]", b")", b"(", b"\x88", b"\x85", b"\x86", b"\x87", b"K\x05", b"U\x02ab", b"q\x01",
    b"h\x01", b"a", b"e", b"l", b"t", b"b", b"R", b"Vlatin1\n", b"Vu1\n", b"Vb\n", b"\x94",
    b"I01\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"\x8a\x01\x07",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.multiarray\nscalar\n", b"\x93",
    b"C\x03abc", b"cnumpy.core.numeric\n_frombuffer\n", b"2", b"cos\nsystem\n",
]  # fmt: skip


def _programs() -> Any:
    """Programs of the instructions that the reader knows."""
    programs = st.lists(st.sampled_from(_INSTRUCTIONS), max_size=40)
    return programs.map(lambda program: b"".join([*program, b"."]))


def _loaded(data: bytes, where: str, most: int) -> restricted_pickle.Content:
    """As ``load`` does it, in this process, which has bounds already."""
    answer = io.BytesIO()
    restricted_pickle.send(io.BytesIO(data), answer, most)
    answer.seek(0)
    return restricted_pickle.received(answer, where)


def _bin(path: Path) -> tuple[InsightfaceBin, PairListing]:
    source = InsightfaceBin(path, "small", folds=2)
    with patch.object(insightface_bin, "load", _loaded):
        return source, source.listing()


def _check_listing(found: tuple[InsightfaceBin, PairListing]) -> None:
    source, listing = found
    assert len(listing) >= 2
    assert set(listing.fold) == {0, 1}
    assert source.images(listing.probe[:2], CROPS[source.crop]).shape == (2, 3, *SIZE)
    for encoded_face in source._content.encoded[:2]:
        assert decode_image(encoded_face, "x").shape == (*SIZE, 3)
