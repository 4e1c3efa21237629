"""What a JPEG or PNG says about itself, read before anything of it is decoded."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SEGMENTS = 100_000
"""Most segments or chunks of a file that are looked at."""

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends the coded part of a scan: a marker that is neither a stuffed byte nor a restart."""

_KINDS = (
    (0, b"GIF8", "a GIF"), (0, b"BM", "a BMP"), (8, b"WEBP", "a WebP"),
    (0, b"II*\0", "a TIFF or a raw photograph"), (0, b"MM\0*", "a TIFF or a raw photograph"),
    (4, b"ftypheic", "a HEIC"), (4, b"ftypheix", "a HEIC"), (4, b"ftypmif1", "a HEIC or AVIF"),
    (4, b"ftypmsf1", "a HEIC or AVIF"), (4, b"ftypavif", "an AVIF"), (4, b"ftyp", "a video"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"), (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\xff\x0a", "a JPEG XL"), (0, b"\0\0\0\x0cJXL ", "a JPEG XL"), (0, b"8BPS", "a PSD"),
    (0, b"%PDF", "a PDF"), (0, b"<", "a web page or an SVG"), (0, b"PK\x03\x04", "a ZIP"),
    (0, b"version https://git-lfs", "a pointer of Git LFS"), (0, b"\x93NUMPY", "a NumPy array"),
)  # fmt: skip


@dataclass
class Header:
    """The header of a JPEG or PNG.

    Attributes:
        is_png: Whether it is a PNG.
        height: Rows of pixels, as stored.
        width: Columns of pixels, as stored.
        bits: Bits of a channel.
        has_four_inks: Whether it is a JPEG of four channels (CMYK).
        is_whole: Whether it ends with its end marker.
        needs_all: Whether it can only be decoded with all its pixels in memory.
        n_scans: Scans of a JPEG, 1 for a PNG.
        n_frames: Pictures of an animated PNG, 1 for all other files.
        may_be_transparent: Whether it is a PNG with transparency.
        clear_grey: The grey value, of 8 bits, that a grey PNG declares transparent, or None.
        orientation: Tag of EXIF, from 1 (upright) to 8.
    """

    is_png: bool = False
    height: int = 0
    width: int = 0
    bits: int = 8
    has_four_inks: bool = False
    is_whole: bool = False
    needs_all: bool = True
    n_scans: int = 1
    n_frames: int = 1
    may_be_transparent: bool = False
    clear_grey: int | None = None
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), as stored."""
        return self.height, self.width


def read_header(data: bytes) -> Header | None:
    """Return the header of a JPEG or PNG, or None if the bytes are neither."""
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 26:
        return _png(data)
    header = _jpeg(data) if data.startswith(JPEG) else None
    return header if header and header.height else None


def kind_of(data: bytes) -> str:
    """Return what a file that is no JPEG or PNG seems to be, for a message; "" if unknown.

    >>> kind_of(b"RIFF....WEBPVP8 "), kind_of(b"hello")
    ('a WebP', '')
    """
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    return next((name for at, magic, name in _KINDS if start.startswith(magic, at)), "")


def _png(data: bytes) -> Header:
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits, colours = data[24:26]
    header = Header(True, height, width, max(bits, 8), may_be_transparent=colours in (4, 6))
    for kind, at, end in _chunks(data):
        body = b"" if kind == b"IDAT" else data[at + 8 : end - 4]
        if kind == b"IEND":
            header.is_whole = True
        elif kind == b"acTL" and len(body) >= 4:
            header.n_frames = int.from_bytes(body[:4], "big")
        elif kind == b"eXIf":
            header.orientation = orientation_in(body)
        elif kind == b"tRNS" and colours == 0 and len(body) == 2:
            most = (1 << min(max(bits, 1), 8)) - 1
            header.clear_grey = (int.from_bytes(body, "big") & most) * 255 // most
        elif kind == b"tRNS":
            header.may_be_transparent = True
    return header


def palette_as_grey(data: bytes) -> bytes:
    """Return a PNG whose grey values are the numbers of another one's colours in its palette.

    Decoders give the colours alone, and two numbers may have one colour.

    Args:
        data: A PNG with a palette; in fewer than 8 bits, grey values are scaled to 255.
    """
    header = data[16:25] + b"\0" + data[26:29]
    parts = [PNG, _chunk(b"IHDR", header)]
    parts += [data[at:end] for kind, at, end in _chunks(data) if kind == b"IDAT"]
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + check


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a PNG that is there as a whole, where it starts and ends."""
    at = len(PNG)
    for _ in range(MAX_SEGMENTS):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if at + 12 > len(data) or end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def _jpeg(data: bytes) -> Header:
    """Follow the segments of a JPEG, each a marker and a length, to its end marker."""
    header, at = Header(needs_all=False, n_scans=0), len(JPEG)
    for _ in range(MAX_SEGMENTS):
        if at + 2 > len(data):
            break
        marker = data[at + 1]
        if data[at] != 0xFF:
            if not header.height:
                break
            at = _next_marker(data, at)  # decoders skip bytes between segments
        elif marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xD9:  # the end; a phone may append a film or another picture
            header.is_whole = True
            break
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            _take_segment(header, marker, data[at + 4 : min(end, len(data))])
            at = _next_marker(data, end) if marker == 0xDA else end
    return header


def _next_marker(data: bytes, at: int) -> int:
    found = _NEXT_MARKER.search(data, at)
    return found.start() if found else len(data)


def _take_segment(header: Header, marker: int, body: bytes) -> None:
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
        if header.height:  # decoders use the first frame
            return
        header.bits, header.has_four_inks = body[0], body[5] == 4
        header.height, header.width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
        header.needs_all = marker != 0xC0
    elif marker == 0xDA:
        header.n_scans += 1
        header.needs_all |= header.n_scans > 1
    elif marker == 0xE1 and body.startswith(b"Exif\0\0") and header.orientation == 1:
        header.orientation = orientation_in(body[6:])


def orientation_in(exif: bytes) -> int:
    """Return the orientation that EXIF data (a TIFF without pixels) give; 1 if they give none."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return 1

    def number(at: int, n_bytes: int) -> int:
        return int.from_bytes(exif[at : at + n_bytes], "little" if order == "little" else "big")

    start = number(4, 4)
    for at in range(start + 2, min(start + 2 + 12 * number(start, 2), len(exif) - 11), 12):
        if number(at, 2) == 0x0112:
            is_short = (number(at + 2, 2), number(at + 4, 4)) == (3, 1)
            value = number(at + 8, 2)
            return value if is_short and 1 <= value <= 8 else 1
    return 1
