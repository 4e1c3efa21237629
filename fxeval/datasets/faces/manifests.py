"""The manifest of a folder of faces: its images, their identities and their landmarks.

A manifest is a JSON object. All keys but ``images`` are optional; unknown keys are ignored:

* ``fxeval_manifest``: 1.
* ``licence``: text or null; ``may_show``: whether the images may be shown, false if absent.
* ``crop``: the crop that all images are aligned to: an object with ``name``, ``size`` (height,
  width) and ``template`` (five points), or the name of a known crop; null = not aligned.
* ``orientation``: whether the landmarks are of the images as their EXIF orientation turns them
  (``applied``) or as they are stored (``stored``); needed only for images that have such a tag.
* ``images``: objects with ``file`` (relative to the folder), ``sha256``, ``identity``, ``number``
  (optional), ``landmarks5`` (five points; optional if there is a crop), ``source_file``
  (optional): the photograph that the image was made from, by which lists can name it as well; and
  ``attributes`` (optional): whatever else is known about the image, a flat object of at most 20
  names with text, a finite number, true or false.
* ``labels``: ``file`` and ``sha256`` of the label maps of all images (``faces/label_maps.py``), or
  the ``folder`` of them (``faces/label_folder.py``).
* ``twins``: ``file`` and ``sha256`` of the changes that make some images twins
  (``faces/twins.py``).
* ``failures``: objects with ``file`` and ``reason``: images without a usable face.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import Points, crop_from, points_of
from fxeval.datasets.faces.attributes import Attribute, attributes_of
from fxeval.datasets.faults import each, of_list
from fxeval.datasets.text_files import read_text
from fxeval.errors import DataContractError
from fxeval.redaction import PublicReason
from fxeval.strict.text import brief, printable

KNOWN_FAILURES = frozenset(
    {
        "CMYK", "an animation", "landmarks given for another image of this name",
        "landmarks given for the image as it is stored", "landmarks that fix no position",
        "link that leads out of the folder",
        "name that another image has as well", "neither JPEG nor PNG", "no face found",
        "no folder that names the identity", "no landmarks given", "not 8 bits a channel",
        "several faces, none the central one by far", "several faces, none the largest one by far",
        "too large", "transparent pixels", "unreadable",
    }
)  # fmt: skip
"""Reasons that ``fxeval data prepare`` gives; any other reason may contain a person's name."""
MAX_REASONS = 50
"""Most reasons counted separately; the rarer ones are counted together."""


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
        source_file: Photograph that the image was made from, or None.
        is_named: Whether the identity is known: not where every image is its own.
        attributes: Whatever else the manifest says about the image, by name.
    """

    file: str
    sha256: str | None
    identity: str | None
    number: int | None
    landmarks: Points
    where: str
    source_file: str | None = None
    is_named: bool = True
    attributes: Mapping[str, Attribute] = field(default_factory=dict, hash=False)

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


_IN_NAME = re.compile(r"(?P<identity>.+)_[0-9]{1,9}")
_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,9}\Z")


def composed(text: str) -> str:
    """Return a path or name in the form that lists have (NFC)."""
    return unicodedata.normalize("NFC", text)


def stem_identity(file: str) -> str | None:
    """Return the identity before the number in a file's name, or None.

    >>> stem_identity("x/Ann_0001.jpg"), stem_identity("Ann/1.jpg")
    ('Ann', None)
    """
    named = _IN_NAME.fullmatch(PurePosixPath(file).stem)
    return named and composed(named["identity"])


def identity_in(file: str) -> str | None:
    """Return the identity that a path names: its folder or the name before the number; or None.

    >>> identity_in("a/Ann/1.jpg"), identity_in("Ann_0001.jpg"), identity_in("1.jpg")
    ('Ann', 'Ann', None)
    """
    parts = PurePosixPath(file).parts
    return composed(parts[-2]) if len(parts) > 1 else stem_identity(file)


def number_in(file: str) -> int | None:
    """Return the number at the end of a file's name, or None.

    >>> number_in("Ann/img_0007.jpg"), number_in("Ann/face.jpg")
    (7, None)
    """
    found = _NUMBER.search(PurePosixPath(file).stem)
    return int(found.group()) if found else None


@dataclass(frozen=True)
class Manifest:
    """The content of a folder.

    Attributes:
        faces: Usable images in the order of the file.
        crop: The crop that all images are aligned to, or None.
        licence: Licence of the images; None if not stated.
        may_show: Whether the images may be shown.
        failures: Number of unusable images by reason.
        failed: Reason why an image is unusable, by its file.
        orientation: Whether the landmarks are of the images turned upright (``applied``) or not
            (``stored``); None = the manifest does not say.
        labels, twins: What the manifest says about label maps and twins, which is read when they
            are needed; None = nothing.
    """

    faces: tuple[Face, ...]
    crop: Crop | None
    licence: str | None = None
    may_show: bool = False
    failures: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    orientation: str | None = None
    labels: object = None
    twins: object = None


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
    orientation = content.get("orientation")
    if orientation not in (None, "applied", "stored"):
        raise of_list(path, "expected 'orientation' to be 'applied' or 'stored'")
    if not isinstance(failures, list) or not all(
        isinstance(failure, dict) and isinstance(failure.get("reason"), str) for failure in failures
    ):
        raise of_list(path, "expected 'failures' to be a list of objects with a 'reason'")
    entries = list(enumerate(content["images"]))
    read = each(entries, lambda one: _face(one[1], f"{path}: images[{one[0]}]", crop))
    faces = tuple(read)
    _refuse_repetitions(faces, path)
    failed = [(failure.get("file"), _reason(failure["reason"])) for failure in failures]
    reasons = Counter(reason for _, reason in failed)
    counts = dict(sorted(reasons.most_common(MAX_REASONS)))
    if others := reasons.total() - sum(counts.values()):
        counts[PublicReason("other reasons")] = others
    shown = None if licence is None else printable(" ".join(licence.split())[:1000])
    named = {composed(file): reason for file, reason in failed if isinstance(file, str)}
    more = content.get("labels"), content.get("twins")
    return Manifest(faces, crop, shown, may_show, counts, named, orientation, *more)


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
    if isinstance(value, dict):  # as everywhere in a manifest, unknown keys are ignored
        value = {key: value[key] for key in ("name", "size", "template") if key in value}
    try:
        return None if value is None else crop_from(value, "crop")
    except DataContractError as error:
        said = error.public
        raise of_list(where, said, error.detail.removeprefix(said).rstrip(".")) from error


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 255


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
    source, digests = entry.get("source_file"), (sha256, entry.get("source_sha256"))
    return Face(
        file, sha256, identity, number if "number" in entry else None, landmarks, where,
        composed(source) if isinstance(source, str) else None,
        not any(isinstance(one, str) and one[:16] == identity for one in digests),
        attributes_of(entry.get("attributes", {}), where),
    )  # fmt: skip


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
