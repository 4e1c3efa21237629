"""Label maps of a user's own: a folder of PNG files, one for each image, with ``classes.yaml``.

``classes.yaml`` names the part that each value of a pixel stands for::

    0: background
    1: skin
    2: nose
    aligned_to: arcface112   # optional: the crop of all maps; else a map is of its image
    sides: head              # optional: whose left and right the names mean; or: image

The values are the grey values of the maps, the numbers of colours in their palettes or, written as
``'#00ff00': skin``, colours. Names are made fxeval's own (``part_named``); others stay as they are.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import Crop, LabelMaps
from fxeval.datasets.faces.alignment import Points, align, crop_from, size_fault
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.image_headers import palette_as_grey
from fxeval.datasets.faces.images import MAX_PIXELS, checked_header, decode_image, image_bytes
from fxeval.datasets.faces.manifests import Face, composed
from fxeval.datasets.faces.part_labels import part_named
from fxeval.datasets.faces.photographs import to_scale
from fxeval.datasets.faults import of_folder, of_image
from fxeval.errors import DataContractError
from fxeval.strict.text import brief, describe
from fxeval.strict.yaml_file import Document, Kind, read

CLASSES_FILE = "classes.yaml"
MAX_CLASSES = 255
"""Most values that a file names."""
MAX_MAPS = 1_000_000
"""Most files in a folder of label maps."""
LONGEST_NAME = 64
"""Most characters in the name of a part."""

CLASSES = Kind("a file of classes", "0: background", DataContractError, has_numbers=True)

_VALUE = re.compile(r"0|[1-9][0-9]{0,2}")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_OPTIONS = ("aligned_to", "sides")


@dataclass(frozen=True)
class Classes:
    """What the values of label maps stand for.

    Attributes:
        values: A value of each part: 0 to 255 or, of a colour, red * 65536 + green * 256 + blue.
        names: Name of each part.
        are_colours: Whether the values are colours.
        aligned_to: The crop of all maps; None = a map has the pixels of its image.
        unknown: Names that are none of fxeval's own.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    are_colours: bool = False
    aligned_to: Crop | None = None
    unknown: tuple[str, ...] = ()


def read_classes(path: Path) -> Classes:
    """Read a file of classes.

    Raises:
        DataContractError: If it cannot be read; the message holds every fault with its line.
    """
    try:
        return _classes_in(read(path, CLASSES))
    except DataContractError as error:
        public = f"{CLASSES_FILE}: expected the part that each value of a pixel stands for"
        raise DataContractError(error.detail, public=public) from error


def _classes_in(document: Document) -> Classes:
    crop, is_swapped = _options(document)
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for key, name in document.data.items():
        if key in _OPTIONS:
            continue
        if not _is_value(key):
            document.fault(
                document.key((key,)),
                f"expected a value from 0 to 255, a colour such as '#00ff00', or one of "
                f"{', '.join(_OPTIONS)}, got {describe(key)}",
            )
        elif not (isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME):
            said = f"expected the name of a part, at most {LONGEST_NAME} characters"
            document.fault(document.value((key,)), f"{said}, got {describe(name)}")
        else:
            part = part_named(name) or name.strip()
            part = _other_side(part) if is_swapped else part
            if part in names:
                said = f"{describe(name)} is the part '{part}', which {names[part]} is already"
                document.fault(document.value((key,)), said, "Give each part one value.")
            names.setdefault(part, key)
            found[key] = part
    _check_kinds(document, found)
    document.raise_faults()
    return Classes(
        tuple(int(key.removeprefix("#"), 16 if key[0] == "#" else 10) for key in found),
        tuple(found.values()), any(key[0] == "#" for key in found), crop,
        tuple(name for name in found.values() if part_named(name) is None),
    )  # fmt: skip


def _options(document: Document) -> tuple[Crop | None, bool]:
    """Return the crop of all maps, and whether left and right are to be exchanged."""
    given, crop = document.data.get("aligned_to"), None
    if given is not None:
        try:
            crop = crop_from(given, "aligned_to")
        except DataContractError as error:
            document.fault(document.value(("aligned_to",)), error.detail)
    sides = document.data.get("sides", "head")
    if sides not in ("head", "image"):
        said = f"expected 'head' (the head's own left) or 'image', got {describe(sides)}"
        document.fault(document.value(("sides",)), said)
    return crop, sides == "image"


def _is_value(key: str) -> bool:
    return bool(_COLOUR.fullmatch(key) or (_VALUE.fullmatch(key) and int(key) < 256))


def _other_side(part: str) -> str:
    side, _, rest = part.partition("_")
    other = {"left": "right", "right": "left"}.get(side)
    return f"{other}_{rest}" if other and rest else part


def _check_kinds(document: Document, found: dict[str, str]) -> None:
    coloured = sum(key[0] == "#" for key in found)
    if not found:
        document.fault(document.value(()), "expected at least one value and its part, got none")
    elif 0 < coloured < len(found):
        said = f"expected values or colours, got {len(found) - coloured} and {coloured}"
        document.fault(document.value(()), said)
    if len(found) > MAX_CLASSES:
        said = f"expected at most {MAX_CLASSES} parts, got {len(found)}"
        document.fault(document.value(()), said)


@dataclass(frozen=True)
class LabelFolder:
    """A folder of label maps of the images of another folder; implements ``PartSource``.

    The map of ``faces/Ann/0001.jpg`` is ``faces/Ann/0001.png``, ``Ann/0001.png`` or ``0001.png``,
    whichever is of no other image. Links are not followed. Parts of an image without a map are not
    known.

    Attributes:
        path: The folder.
        faces: The folder of the images.
    """

    path: Path
    faces: FaceFolder

    @property
    def source(self) -> str:
        """How the parts were found, with the names that are none of fxeval's own."""
        unknown = ", ".join(self.classes.unknown)
        return "a folder of label maps" + (f" (other parts: {unknown})" if unknown else "")

    @cached_property
    def classes(self) -> Classes:
        """What the values stand for."""
        return read_classes(self.path / CLASSES_FILE)

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images, aligned to the crop, in the order of the ids.

        Each pixel has the label of the nearest pixel of the map, and ``background`` (if that is a
        part, else none) where the map does not reach.

        Args:
            image_ids: ``Face.id`` or ``Face.file`` of each image.
            crop: Size and template.

        Raises:
            DataContractError: If no image of the folder has a map, or a map cannot be used.
        """
        classes = self.classes
        outside = classes.names.index("background") if "background" in classes.names else -1
        found = np.full((len(image_ids), *crop.size), -1)
        for row, image_id in enumerate(self.faces.ids_of(image_ids)):
            face = self.faces.face_of(image_id)
            path = self._map_of(face)
            if path is None:
                continue
            labels = labels_in(image_bytes(path), str(path), classes)
            landmarks = self._landmarks(labels.shape, face, path)
            # 0 is what lies outside the map, so that labels are counted from 1.
            aligned = align(labels + np.uint8(1), landmarks, crop, cv2.INTER_NEAREST).astype(int)
            found[row] = np.where(aligned > 0, aligned - 1, outside)
        return LabelMaps(classes.names, torch.from_numpy(found), self.source)

    def _landmarks(self, size: tuple[int, ...], face: Face, path: Path) -> Points:
        """Return the landmarks of a face in pixels of its label map."""
        crop = self.classes.aligned_to
        if crop is not None:
            if size != crop.size:
                raise of_image(path, *size_fault(crop, *size))
            return crop.template
        height, width = self.faces.shown_size(face)
        if size[0] * width != size[1] * height:
            raise of_image(
                path,
                f"expected a label map of the proportions of its image, {width} x {height} pixels, "
                f"got {size[1]} x {size[0]}",
                f"If all maps are aligned to a crop, name it in {CLASSES_FILE} ('aligned_to').",
            )
        points = to_scale(face.landmarks, width / size[1])
        return tuple((float(x), float(y)) for x, y in points)

    def _map_of(self, face: Face) -> Path | None:
        names = (name for name in _endings(face.file) if self._owners[name] == 1)
        return next((self._maps[name] for name in names if name in self._maps), None)

    @cached_property
    def _owners(self) -> Counter[str]:
        """Number of images for each name that a map may have."""
        return Counter(name for face in self.faces.faces for name in _endings(face.file))

    @cached_property
    def _maps(self) -> dict[str, Path]:
        """All label maps by their paths in the folder, without the ending."""

        def refuse(error: OSError) -> None:
            raise of_folder(error.filename, "cannot be read", f" ({error.strerror})") from error

        found: dict[str, Path] = {}
        for folder, subfolders, names in os.walk(self.path, onerror=refuse):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix.lower() == ".png" and name[0] != "." and not path.is_symlink():
                    inside = path.relative_to(self.path).with_suffix("")
                    found[composed(inside.as_posix())] = path
            if len(found) > MAX_MAPS:
                raise of_folder(self.path, f"expected at most {MAX_MAPS} label maps, got more")
        if not self._owners.keys() & found.keys():
            first = next((face.file for face in self.faces.faces), "")
            raise of_folder(
                self.path,
                f"expected label maps called as their images, got {len(found)} PNG files that are "
                "called as none",
                f"; that of '{brief(first)}' would be '{PurePosixPath(first).with_suffix('.png')}'",
                "Rename them, or name another folder.",
            )
        return found


def _endings(file: str) -> list[str]:
    """Return the ends of a path without its ending, the longest first.

    >>> _endings("faces/Ann/0001.jpg")
    ['faces/Ann/0001', 'Ann/0001', '0001']
    """
    parts = PurePosixPath(file).with_suffix("").parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def labels_in(data: bytes, where: str, classes: Classes) -> NDArray[np.uint8]:
    """Return (h, w) uint8 labels, indices into ``classes.names``, of a label map.

    Args:
        data: Bytes of a PNG, 8 bits a channel or fewer: one channel, a palette or colours.
        where: Its path, for messages.
        classes: What the values stand for.

    Raises:
        DataContractError: If the file is no such PNG, or a value stands for nothing.
    """
    values = _values(data, where, classes.are_colours)
    different, place = np.unique(values, return_inverse=True)
    known = {value: label for label, value in enumerate(classes.values)}
    odd = [int(value) for value in different if int(value) not in known]
    if odd:
        shown = f"#{odd[0]:06x}" if classes.are_colours else str(odd[0])
        count = int((values == odd[0]).sum())
        raise of_image(
            where,
            f"expected values that {CLASSES_FILE} names, got {shown} in {count} pixels",
            "Name it there, or correct the map.",
        )
    labels = np.array([known[int(value)] for value in different], np.uint8)
    return labels[place.reshape(values.shape)]


def _values(data: bytes, where: str, are_colours: bool) -> NDArray[np.int64]:
    header = checked_header(data, where)
    if not header.is_png:
        raise of_image(where, "expected a label map as PNG, got a JPEG, whose values are not exact")
    if header.height * header.width > MAX_PIXELS:
        said = f"expected at most {MAX_PIXELS} pixels, got {header.width} x {header.height}"
        raise of_image(where, said, "Scale it down by whole pixels.")
    bits, colours = data[24:26]
    if are_colours:
        pixels = decode_image(data, where, upright=False).astype(np.int64)
        return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    if colours not in (0, 3):
        raise of_image(
            where, "expected one channel or a palette, got several channels",
            f"If its colours are the labels, name them in {CLASSES_FILE}: '#00ff00': skin.",
        )  # fmt: skip
    grey = palette_as_grey(data) if colours == 3 else data
    try:
        how = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
        found = cv2.imdecode(np.frombuffer(grey, np.uint8), how)
    except cv2.error:
        found = None
    if found is None or found.shape != header.size:
        raise of_image(where, "cannot be decoded", "Replace it.")
    # Decoders stretch the values of fewer bits to 255.
    return np.asarray(found, np.int64) * ((1 << min(bits, 8)) - 1) // 255
