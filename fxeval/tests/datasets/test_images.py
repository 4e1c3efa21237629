"""Image files: JPEG and PNG read upright and as RGB, everything else refused by name."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces import images
from fxeval.datasets.faces.image_headers import orientation_in
from fxeval.datasets.faces.images import (
    MAX_BYTES,
    MAX_SCANS,
    ImageTooLargeError,
    UnreadableFormatError,
    decode_image,
    read_image,
)
from fxeval.errors import DataContractError


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(pixels: np.ndarray, suffix: str, *how: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(how))[1].tobytes()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """EXIF data of two tags, the second of which is the orientation."""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    other = struct.pack(f"{order}HHII", 0x0100, 3, 1, 7)
    tag = struct.pack(f"{order}HHIHH", 0x0112, kind, 1, orientation, 0)
    return start + struct.pack(f"{order}H", 2) + other + tag + bytes(4)


def tagged(data: bytes, body: bytes) -> bytes:
    """A JPEG with EXIF data behind its first segment."""
    at = 4 + int.from_bytes(data[4:6], "big")
    body = b"Exif\0\0" + body
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[at:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(row: list[int], kind: int, *more: tuple[bytes, bytes], bits: int = 8) -> bytes:
    """A PNG two pixels wide and one pixel high."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes([0, *row])))
    extra = b"".join(chunk(*one) for one in more)
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


def as_opencv(data: bytes, how: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), how)[..., ::-1]


# --- orientation


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_opencv_applies_it(orientation: int, order: str):
    jpeg = tagged(encoded(noise(20, 33), ".jpg"), exif(orientation, order))
    plain = encoded(noise(20, 33), ".png")
    eXIf = chunk(b"eXIf", exif(orientation, order))
    for data in (jpeg, plain[:33] + eXIf + plain[33:], plain[:-12] + eXIf + plain[-12:]):
        found = decode_image(data, "x")
        assert found.shape == ((33, 20, 3) if orientation > 4 else (20, 33, 3))
        assert np.array_equal(found, as_opencv(data))
        stored = as_opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert np.array_equal(decode_image(data, "x", upright=False), stored)


def test_a_face_that_lies_on_its_side_stands_up():
    upright = noise(20, 33)
    lying = encoded(np.rot90(upright).copy(), ".png")  # the camera was turned
    data = lying[:33] + chunk(b"eXIf", exif(6)) + lying[33:]
    assert np.array_equal(decode_image(data, "x"), upright[..., ::-1])


@pytest.mark.parametrize(
    "body",
    [b"", b"II*\0", exif(0), exif(9), exif(6, kind=4), exif(6)[:-9], b"XX" + exif(6)[2:],
     exif(6)[:4] + b"\xff\xff\xff\x7f" + exif(6)[8:], b"II*\0\x08\0\0\0\xff\xff"],
)  # fmt: skip
def test_exif_data_that_give_no_orientation_change_nothing(body: bytes):
    assert orientation_in(body) == 1
    data = encoded(noise(20, 33), ".jpg")
    assert np.array_equal(decode_image(tagged(data, body), "x"), as_opencv(data))


@given(st.binary(max_size=80), st.sampled_from([exif(6), exif(3, ">")]), st.integers(0, 50))
def test_any_exif_data_give_an_orientation(garbage: bytes, sound: bytes, at: int):
    assert 1 <= orientation_in(sound[:at] + garbage) <= 8


# --- channels


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(20, 33), ".jpg"),
        encoded(noise(20, 33)[..., 0], ".jpg"),
        encoded(noise(20, 33), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encoded(noise(20, 33), ".png"),
        encoded(noise(20, 33)[..., 0], ".png"),
        png([10, 20, 30, 255, 40, 50, 60, 255], 6),
        png([10, 255, 20, 255], 4),
        png([0, 1], 3, (b"PLTE", bytes(range(6)))),
        png([1], 3, (b"PLTE", bytes(range(6))), bits=4),
        png([0, 0], 3, (b"PLTE", bytes(range(6))), (b"tRNS", bytes([255, 0]))),
        png([0x40], 0, bits=1),
        png([10, 20], 0, (b"tRNS", bytes([0, 30]))),
        png([10, 20, 30, 40, 50, 60], 2, (b"tRNS", bytes([0, 1, 0, 2, 0, 3]))),
    ],
)
def test_ordinary_pictures_are_decoded_bit_by_bit_as_opencv_decodes_them(data: bytes):
    assert np.array_equal(decode_image(data, "x"), as_opencv(data))


def jpeg_with(at: int, value: int) -> bytes:
    data = bytearray(encoded(noise(20, 33), ".jpg"))
    data[data.index(b"\xff\xc0") + at] = value
    return bytes(data)


OTHERS = {
    "8 bits a channel, got 16": encoded(noise(20, 33).astype(np.uint16) * 257, ".png"),
    "8 bits a channel, got 12": jpeg_with(4, 12),
    r"grey or RGB, got four channels \(CMYK\)": jpeg_with(9, 4),
    "one picture, got an animation of 3": png(
        [1, 2, 3, 4, 5, 6], 2, (b"acTL", struct.pack(">II", 3, 0))
    ),
    "got a GIF": b"GIF89a" + bytes(40),
    "got a BMP": encoded(noise(20, 33), ".bmp"),
    "got a WebP": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(40),
    "got a TIFF or a raw photograph": b"MM\0*" + bytes(40),
    "got a HEIC": b"\0\0\0\x18ftypheic" + bytes(40),
    "got an AVIF": b"\0\0\0\x18ftypavif" + bytes(40),
    "got a web page or an SVG": b"\xef\xbb\xbf\n<!DOCTYPE html>",
    "got a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid",
}


@pytest.mark.parametrize("said", OTHERS)
def test_other_formats_are_refused_by_name_and_with_advice(said: str):
    with pytest.raises(UnreadableFormatError, match=rf"x\.jpg: expected .*{said}\. Save it as"):
        decode_image(OTHERS[said], "x.jpg")


@pytest.mark.parametrize(
    "data",
    [
        png([10, 20, 30, 255, 40, 50, 60, 254], 6),
        png([10, 255, 20, 0], 4),
        png([0, 1], 3, (b"PLTE", bytes(range(6))), (b"tRNS", bytes([255, 0]))),
        png([10, 20], 0, (b"tRNS", bytes([0, 20]))),
        png([0x1F], 0, (b"tRNS", bytes([0, 15])), bits=4),
        png([1, 2, 3, 4, 5, 6], 2, (b"tRNS", bytes([0, 4, 0, 5, 0, 6]))),
    ],
)
def test_a_picture_that_shows_a_background_through_it_is_refused(data: bytes):
    with pytest.raises(UnreadableFormatError, match="opaque image, got transparent pixels"):
        decode_image(data, "x")


# --- photographs


def test_what_a_phone_appends_to_a_photograph_is_ignored():
    data = tagged(encoded(noise(20, 33), ".jpg"), exif(1))
    film = b"\0\0\0\x18ftypmp42" + bytes(5000)
    second = encoded(noise(20, 33)[::-1], ".jpg") * 40
    for more in (film, second):
        assert np.array_equal(decode_image(data + more, "x"), as_opencv(data))
    with pytest.raises(DataContractError, match="is truncated"):
        decode_image(data[:-2] + film, "x")


def test_a_large_photograph_is_decoded_at_a_part_of_its_size(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(images, "MAX_DECODED_WHOLE", 5000)
    monkeypatch.setattr(images, "MAX_PHOTOGRAPH", 10000)
    smooth = cv2.GaussianBlur(noise(50, 61), (0, 0), 6)
    data = tagged(encoded(smooth, ".jpg"), exif(6))
    with pytest.raises(ImageTooLargeError, match="at most 1000 pixels, got 61 x 50"):
        decode_image(data, "x")
    half = decode_image(data, "x", scale=2)
    assert half.shape == (31, 25, 3)
    whole = cv2.resize(as_opencv(data), (25, 31), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(half.astype(int) - whole).mean() < 3
    from_png = decode_image(encoded(smooth, ".png"), "x", scale=2)
    assert np.abs(from_png.astype(int) - np.rot90(half).astype(int)).mean() < 3
    high = encoded(noise(90, 90), ".jpg")
    assert decode_image(high, "x", scale=4).shape == (23, 23, 3)
    for kept_whole in (
        encoded(noise(90, 90), ".png"),
        encoded(noise(90, 90), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ):
        with pytest.raises(ImageTooLargeError, match="at most 5000 pixels, got 90 x 90"):
            decode_image(kept_whole, "x", scale=4)
    with pytest.raises(ImageTooLargeError, match="at most 10000 pixels, got 110 x 110"):
        decode_image(encoded(noise(110, 110), ".jpg"), "x", scale=8)


# --- files


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_colours_are_read_as_rgb(tmp_path: Path, suffix: str):
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 2] = 255  # red in OpenCV's order
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image)
    red = read_image(tmp_path / f"a{suffix}")
    assert red.shape == (40, 60, 3)
    assert red[..., 0].min() > 250
    assert red[..., 1:].max() < 5


def test_a_grey_image_gets_three_channels(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), noise(8, 9)[..., 0])
    assert read_image(tmp_path / "a.png").shape == (8, 9, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), noise(64, 64))
    data = path.read_bytes()
    for kept in (0, 1, 3, 12, 40):
        path.write_bytes(data[:kept])
        with pytest.raises(DataContractError, match=f"a{suffix}"):
            read_image(path)
    for kept in (len(data) // 2, len(data) - 200, len(data) - 8):
        path.write_bytes(data[:kept])
        with pytest.raises(DataContractError, match=f"a{suffix}: is truncated"):
            read_image(path)


def test_a_small_file_that_asks_for_gigabytes_is_refused_unread(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(DataContractError, match="20000 x 20000"):
        read_image(tmp_path / "bomb.png")
    cv2.imwrite(str(tmp_path / "a.jpg"), noise(64, 64))
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataContractError, match="60000 x 60000"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"no"])
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataContractError, match=r"x\.jpg"):
        read_image(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(DataContractError, match=r"missing\.jpg"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(DataContractError, match=str(tmp_path)):
        read_image(tmp_path)


def test_what_would_never_end_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataContractError, match=r"pipe\.jpg: .*got a folder or a special file"):
        read_image(tmp_path / "pipe.jpg")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataContractError, match=r"large\.png: expected at most"):
        read_image(tmp_path / "large.png")


def test_a_picture_of_very_many_scans_is_refused_undecoded():
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    data = cv2.imencode(".jpg", noise(64, 64), progressive)[1].tobytes()
    assert decode_image(data, "a").shape == (64, 64, 3)
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    with pytest.raises(DataContractError, match=f"at most {MAX_SCANS} scans"):
        decode_image(data[:at] + scan * MAX_SCANS + b"\xff\xd9", "a")


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([".png", ".jpg"]), st.data())
def test_a_damaged_image_is_read_whole_or_refused(suffix, data):
    image = bytearray(cv2.imencode(suffix, noise(24, 24))[1].tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataContractError):
        assert decode_image(bytes(image), "a").ndim == 3
