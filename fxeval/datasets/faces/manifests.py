"""The manifest of a folder of faces: its images, their identities and their landmarks.

A manifest is a JSON object. All keys but ``images`` are optional; unknown keys are ignored:

* ``fxeval_manifest``: 1.
* ``licence``: text or null; ``may_show``: whether the images may be shown, false if absent.
* ``crop``: the crop that all images are aligned to: an object with ``name``, ``size`` (height,
  width) and ``template`` (five points), or the name of a known crop; null = not aligned.
* ``images``: objects with ``file`` (relative to the folder), ``sha256``, ``identity``, ``number``
  (optional) and ``landmarks5`` (five points; optional if there is a crop).
* ``failures``: objects with ``file`` and ``reason``: images without a usable face.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import CROPS
from fxeval.datasets.faults import of_list
from fxeval.datasets.text_files import read_text
from fxeval.redaction import PublicReason
from fxeval.strict.text import brief, printable

KNOWN_FAILURES = frozenset(
    {
        "landmarks given for another image of this name", "landmarks that fix no position",
        "link that leads out of the folder", "name that another image has as well",
        "neither JPEG nor PNG", "no face found", "no folder that names the identity",
        "no landmarks given", "several faces, none the central one by far",
        "several faces, none the largest one by far", "too large", "unreadable",
    }
)  # fmt: skip
"""Reasons that ``fxeval data prepare`` gives; any other reason may contain a person's name."""
MAX_REASONS = 50
"""Most reasons counted separately; the rarer ones are counted together."""

Points: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Face:
    """One image of a folder.

    Attributes:
        file: Path relative to the folder.
        sha256: SHA-256 of the file, as hex; None if not known.
        identity: Person in the image; None if the file's name does not say.
        number: Number of the image among those of the identity, or None.
        landmarks: Five (x, y) points in pixels of the image.
        where: Place that describes the image, for messages.
    """

    file: str
    sha256: str | None
    identity: str | None
    number: int | None
    landmarks: Points
    where: str

    @property
    def id(self) -> str:
        """The first 16 digits of the SHA-256 of the file, or of its path if that is not known."""
        return self.sha256[:16] if self.sha256 else digest_of(self.file)

    @property
    def key(self) -> tuple[str, int] | None:
        """Identity and number; None if either is not known."""
        if self.identity is None or self.number is None:
            return None
        return self.identity, self.number


def digest_of(name: str) -> str:
    """Return 16 hexadecimal digits (of the SHA-256) that replace a name in public output."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


PATH_FAULTS = (
    "a character that is not printable",
    "a backslash or a colon",
    "'.', '..' or an empty part",
    "a part of more than 255 bytes, or more than 1000 characters",
    "characters not in the form NFC",
)
"""Possible faults of a path in a list or manifest."""


def path_fault(file: str) -> str:
    """Return the fault of a path in a list or manifest; "" for a plain path inside the folder.

    >>> path_fault("Ann/0001.jpg"), path_fault("../0001.jpg")
    ('', "'.', '..' or an empty part")
    """
    if not file.isprintable():
        return PATH_FAULTS[0]
    if "\\" in file or ":" in file:
        return PATH_FAULTS[1]
    if not {"", ".", ".."}.isdisjoint(file.split("/")):
        return PATH_FAULTS[2]
    if len(file) > 1000 or any(len(part.encode()) > 255 for part in file.split("/")):
        return PATH_FAULTS[3]
    return "" if unicodedata.is_normalized("NFC", file) else PATH_FAULTS[4]


@dataclass(frozen=True)
class Manifest:
    """The content of a folder.

    Attributes:
        faces: Usable images in the order of the file.
        crop: The crop that all images are aligned to, or None.
        licence: Licence of the images; None if not stated.
        may_show: Whether the images may be shown.
        failures: Number of unusable images by reason.
    """

    faces: tuple[Face, ...]
    crop: Crop | None
    licence: str | None = None
    may_show: bool = False
    failures: Mapping[str, int] = field(default_factory=dict)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        DataContractError: If it cannot be read or is malformed; the message names path and entry.
    """
    content = _json(path)
    if content.get("fxeval_manifest", 1) != 1 or not isinstance(content.get("images"), list):
        raise of_list(path, "expected a list 'images' and, if it is given, 'fxeval_manifest' of 1")
    crop, licence = _crop(content.get("crop"), str(path)), content.get("licence")
    may_show, failures = content.get("may_show", False), content.get("failures", [])
    if not isinstance(licence, str | None) or not isinstance(may_show, bool):
        raise of_list(path, "expected 'licence' to be text and 'may_show' to be true or false")
    if not isinstance(failures, list) or not all(
        isinstance(failure, dict) and isinstance(failure.get("reason"), str) for failure in failures
    ):
        raise of_list(path, "expected 'failures' to be a list of objects with a 'reason'")
    faces = tuple(
        _face(entry, f"{path}: images[{row}]", crop) for row, entry in enumerate(content["images"])
    )
    _refuse_repetitions(faces, path)
    reasons = Counter(_reason(failure["reason"]) for failure in failures)
    counts = dict(sorted(reasons.most_common(MAX_REASONS)))
    if others := reasons.total() - sum(counts.values()):
        counts[PublicReason("other reasons")] = others
    shown = None if licence is None else printable(" ".join(licence.split())[:1000])
    return Manifest(faces, crop, shown, may_show, counts)


def _reason(given: str) -> str:
    is_ours = given in KNOWN_FAILURES or given in {f"name with {fault}" for fault in PATH_FAULTS}
    return PublicReason(given) if is_ours else printable(brief(given))


def _json(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_object)
        if not isinstance(content, dict):
            raise ValueError("another type of value")
    except (ValueError, RecursionError) as error:
        reason = printable(brief(str(error)))
        raise of_list(
            path, "expected a JSON object with a list 'images'", f" ({reason})"
        ) from error
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):  # the json module would silently keep the last of them
        raise ValueError("an object with a repeated key")
    return values


def _crop(value: object, where: str) -> Crop | None:
    if value is None or (isinstance(value, str) and value in CROPS):
        return None if value is None else CROPS[str(value)]
    try:
        if not isinstance(value, dict):
            raise TypeError
        height, width = value["size"]
        crop = Crop(value["name"], (height, width), points_of(value["template"]))
        sound = type(height) is type(width) is int and 0 < min(crop.size) <= max(crop.size) <= 4096
    except (KeyError, TypeError, ValueError, OverflowError):
        sound = False
    if not sound or not _is_name(crop.name) or CROPS.get(crop.name, crop) != crop:
        raise of_list(
            where,
            "expected 'crop' to have 'name', 'size' (height, width) and 'template' (five points), "
            f"or to be the name of a known crop ({', '.join(CROPS)})",
        )
    return crop


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 255


def points_of(value: Any) -> Points:  # noqa: ANN401  (as JSON gave it)
    """Return five points.

    Raises:
        TypeError, ValueError, OverflowError: If the value is not five pairs of finite numbers.
    """
    points = tuple((float(x), float(y)) for x, y in value)
    if len(points) != 5 or not np.isfinite(points).all():
        raise ValueError("five finite points")
    return points


def _face(entry: object, where: str, crop: Crop | None) -> Face:
    if not isinstance(entry, dict):
        raise of_list(where, "expected an object", f", got {printable(repr(entry)[:60])}")
    file, sha256 = entry.get("file"), entry.get("sha256")
    identity, number = entry.get("identity"), entry.get("number", 0)
    if not isinstance(file, str) or (fault := path_fault(file)):
        reason = f" ({fault})" if isinstance(file, str) else ""
        raise of_list(
            where,
            "expected 'file' to be a relative path inside the folder",
            f", got {printable(brief(repr(file)))}{reason}",
            "Correct the manifest.",
        )
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise of_list(where, "expected 'sha256' to be 64 hexadecimal digits")
    if type(identity) is int:
        identity = str(identity)
    if not _is_name(identity):
        raise of_list(where, "expected 'identity' to be printable text or a whole number")
    if type(number) is not int or not 0 <= number < 10**9:
        raise of_list(where, "expected 'number' to be a whole number from 0")
    try:
        landmarks = (
            crop.template if crop and "landmarks5" not in entry else points_of(entry["landmarks5"])
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise of_list(
            where,
            "expected 'landmarks5' to be five finite points (x, y)",
            then="Detect the face again.",
        ) from error
    return Face(file, sha256, identity, number if "number" in entry else None, landmarks, where)


def _refuse_repetitions(faces: tuple[Face, ...], path: Path) -> None:
    numbers = [key for face in faces if (key := face.key)]
    if len({face.file for face in faces}) < len(faces) or len(set(numbers)) < len(numbers):
        raise of_list(
            path,
            f"expected {len(faces)} different images, got some with the same file or with the same "
            "identity and number",
            then="Remove the duplicates.",
        )
    landmarks = {face.id: face.landmarks for face in faces}
    for face in faces:
        if face.landmarks != landmarks[face.id]:
            raise of_list(
                face.where,
                "expected one set of landmarks for images of the same content, got two",
                then="Remove the duplicate.",
            )
