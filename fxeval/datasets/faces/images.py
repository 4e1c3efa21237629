"""Reads image files within limits: 8-bit JPEG and PNG, turned upright, as RGB."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fxeval.datasets.faces.image_headers import JPEG, PNG, Header, kind_of, read_header
from fxeval.datasets.faults import of_image
from fxeval.errors import DataContractError

MAX_PIXELS = 16_000_000
"""Most pixels of a decoded image; larger photographs are decoded at 1/2, 1/4 or 1/8 of their size.

Without a limit a PNG of a few kilobytes can ask for gigabytes.
"""

MAX_PHOTOGRAPH = 256_000_000
"""Most pixels of a photograph."""

MAX_DECODED_WHOLE = 64_000_000
"""Most pixels of a photograph that can't be decoded in part: a PNG or a progressive JPEG."""

MAX_BYTES = 64 << 20
"""Largest image file read."""

MAX_SCANS = 64
"""Most scans of a JPEG; without a limit a file of a few megabytes can take hours to decode."""

REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
"""Pixels of the file for one decoded pixel, along each side."""


class ImageTooLargeError(DataContractError):
    """An image file has too many bytes, pixels or scans; nothing of it was decoded."""


class UnreadableFormatError(DataContractError):
    """An image file is of a kind that is not read.

    Attributes:
        reason: The kind, the same for many images.
    """

    reason = "neither JPEG nor PNG"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a JPEG or PNG file; see :func:`image_bytes` and :func:`decode_image`."""
    return decode_image(image_bytes(path), str(path))


def image_bytes(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        DataContractError: If it is missing, not a regular file, or larger than ``MAX_BYTES``.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise of_image(path, "expected an image file, got a folder or a special file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise of_image(path, f"cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        said = f"expected at most {MAX_BYTES} bytes, got more"
        raise of_image(path, said, "Save it smaller.", ImageTooLargeError)
    return data


def decode_image(
    data: bytes, where: str, *, scale: int = 1, upright: bool = True, most: int | None = None
) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG and turn it as its EXIF orientation says.

    Args:
        data: The file's bytes.
        where: The file's path, for messages.
        scale: Pixels of the file for one decoded pixel, along each side: 1, 2, 4 or 8.
        upright: Whether the orientation is applied; otherwise the pixels stay as they are stored.
        most: Most pixels at this scale; None = ``MAX_PIXELS``.

    Returns:
        (H, W, 3) uint8 RGB; grey images get three equal channels.

    Raises:
        DataContractError: If it is not a JPEG or PNG, is truncated or damaged, has other channels
            than 8-bit grey or RGB, shows a background through it, or has too many pixels (known
            from its header, before anything is decoded).
    """
    header = checked_header(data, where)
    height, width = (-(-side // scale) for side in header.size)
    limit = MAX_PIXELS if most is None else most
    if height * width > limit:
        said = f"expected at most {limit} pixels, got {_sides(header)} in its header"
        raise of_image(where, said, "Scale it down.", ImageTooLargeError)
    pixels = _decoded(data, header, scale)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise of_image(where, "cannot be decoded", "Replace it.")
    _check_opaque(data, header, pixels, where)
    image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return turned(image, header.orientation) if upright else image


def checked_header(data: bytes, where: str) -> Header:
    """Return the header of a JPEG or PNG that can be decoded as a photograph.

    Raises:
        DataContractError: As for :func:`decode_image`, from the header alone; the limit of pixels
            is that of photographs.
    """
    header = read_header(data)
    if header is None and (kind := kind_of(data)):
        raise _other_kind(where, f"a JPEG or PNG, got {kind}", UnreadableFormatError.reason)
    if header is None:
        is_begun = data.startswith((JPEG, PNG))
        got = "the damaged beginning of one" if is_begun else "neither" if data else "no bytes"
        raise of_image(where, f"expected a whole JPEG or PNG, got {got}", "Replace it.")
    most = MAX_DECODED_WHOLE if header.needs_all else MAX_PHOTOGRAPH
    if header.height * header.width > most:
        said = f"expected at most {most} pixels, got {_sides(header)} in its header"
        raise of_image(where, said, "Scale it down.", ImageTooLargeError)
    # Decoders fill the missing part of a truncated image with grey and report no error, so the
    # end marker must be there.
    if not header.is_whole:
        raise of_image(where, "is truncated (it has no end marker)", "Replace it.")
    if header.n_scans > MAX_SCANS:
        said = f"expected at most {MAX_SCANS} scans, got {header.n_scans}"
        raise of_image(where, said, "Save it again.", ImageTooLargeError)
    # Decoders would cut 16 bits to 8 and mix inks without the profile that gives them a colour.
    if header.bits != 8:
        raise _other_kind(where, f"8 bits a channel, got {header.bits}", "not 8 bits a channel")
    if header.has_four_inks:
        raise _other_kind(where, "grey or RGB, got four channels (CMYK)", "CMYK")
    if header.n_frames > 1:
        got = f"one picture, got an animation of {header.n_frames}"
        raise _other_kind(where, got, "an animation")
    return header


def turned(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn an image as EXIF's orientation, 1 to 8, says.

    >>> turned(np.array([[[1], [2]]], np.uint8), 6).tolist()
    [[[1]], [[2]]]
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _decoded(data: bytes, header: Header, scale: int) -> NDArray[np.uint8] | None:
    how = cv2.IMREAD_COLOR if header.is_png else REDUCED[scale]
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if found is None or not header.is_png or scale == 1:
        return None if found is None else np.asarray(found, np.uint8)
    # OpenCV leaves out rows and columns that fill no whole pixel; the decoder of JPEG keeps them.
    below, right = (-side % scale for side in found.shape[:2])
    padded = cv2.copyMakeBorder(found, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = padded.shape[1] // scale, padded.shape[0] // scale
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.uint8)


def _check_opaque(data: bytes, header: Header, pixels: NDArray[np.uint8], where: str) -> None:
    """Refuse an image that shows a background through it, as the file has none."""
    if header.may_be_transparent:
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        is_clear = whole is None or (whole.ndim == 3 and whole.shape[2] == 4
                                     and bool((whole[..., 3] < 255).any()))  # fmt: skip
    else:
        is_clear = header.clear_grey is not None and bool((pixels == header.clear_grey).any())
    if is_clear:
        raise _other_kind(where, "an opaque image, got transparent pixels", "transparent pixels")


def _other_kind(where: str, expected: str, reason: str) -> UnreadableFormatError:
    said, kind = f"expected {expected}", UnreadableFormatError
    error = of_image(where, said, "Save it as an opaque JPEG or PNG, 8-bit grey or RGB.", kind)
    assert isinstance(error, UnreadableFormatError)
    error.reason = reason
    return error


def _sides(header: Header) -> str:
    return f"{header.width} x {header.height}"
