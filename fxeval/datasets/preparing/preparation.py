"""Turns a folder of photographs into a folder of aligned faces with a manifest.

The result depends only on the photographs and the settings: an interrupted and resumed run gives
the same bytes as an uninterrupted one.
"""

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import cv2

from fxeval.contracts import Crop
from fxeval.datasets.faces.alignment import ARCFACE_112, similarity_transform
from fxeval.datasets.faces.images import (
    ImageTooLargeError,
    UnreadableFormatError,
    checked_header,
    image_bytes,
)
from fxeval.datasets.faces.manifests import identity_in, number_in, path_fault
from fxeval.datasets.faces.photographs import cut_face, enlargement, overview
from fxeval.datasets.faults import of_folder
from fxeval.datasets.preparing.detection import LandmarkSource, Picture, UnusableImageError
from fxeval.datasets.preparing.journal import Entry, Journal
from fxeval.errors import DataContractError, StoreError

IdentityFrom: TypeAlias = Literal["folder", "none"]

MANIFEST, JOURNAL = "manifest.json", ".prepare.jsonl"
MAX_FILES = 1_000_000
"""Most images in a folder."""
ORIENTATION = "applied"
"""Landmarks are of the photographs as their EXIF orientation turns them."""
MAX_ENLARGEMENT = 2.0
"""A face that is enlarged more than this to fill the crop is flagged."""
READ = (".jpg", ".jpeg", ".png")
"""Suffixes of the images that are read."""
NOT_READ = (".bmp", ".gif", ".heic", ".jp2", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of images that are not read and count as failures; all other files are ignored."""


@dataclass(frozen=True)
class Settings:
    """How faces are prepared.

    Attributes:
        crop: The crop that faces are aligned to; None = only a manifest with landmarks is written,
            for use with the source folder.
        identity: ``folder``: the innermost folder names the identity; for an image in no folder,
            such as ``Ann_0001.jpg``, the text before the number does. ``none``: every image is an
            identity of its own.
        licence: Licence of the images, as their owner states it.
        source: Origin of the images.
        may_show: Whether reports may show the images.
    """

    crop: Crop | None = ARCFACE_112
    identity: IdentityFrom = "folder"
    licence: str | None = None
    source: str | None = None
    may_show: bool = False


@dataclass(frozen=True)
class Preparation:
    """The result of a run.

    Attributes:
        manifest: The file written.
        n_images: Number of usable images.
        failures: File and reason of each unusable image.
        n_ignored: Number of other files, and of hidden files and folders.
        n_kept: Number of images that an earlier run had processed.
        links: Links to folders, which are not followed.
        enlarged: File and factor of each face that is enlarged more than ``MAX_ENLARGEMENT`` times
            to fill the crop (if none is cut, that of ArcFace), the most enlarged first.
    """

    manifest: Path
    n_images: int
    failures: tuple[tuple[str, str], ...]
    n_ignored: int
    n_kept: int
    links: tuple[str, ...] = ()
    enlarged: tuple[tuple[str, float], ...] = ()


Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with the numbers of images done, of all images, and of failures so far."""


def prepare(
    source: Path,
    target: Path,
    landmarks: LandmarkSource,
    settings: Settings,
    progress: Progress = lambda done, total, failed: None,
) -> Preparation:
    """Align all faces in a folder and write a manifest; continues where an earlier run stopped.

    Images that have changed since then are processed again; the results for images that no longer
    exist are removed from the target.

    Args:
        source: A folder with JPEG and PNG files; links out of it are not followed.
        target: A folder that is new, empty, or from an earlier run with the same settings.
        landmarks: Landmarks of each image's face.
        settings: How faces are prepared.
        progress: Called after each image.

    Raises:
        DataContractError: If a folder can't be used, or another run is using the target.
        StoreError: If something can't be written.
    """
    _check_folders(source, target)
    found, failures, n_ignored, links = _walk(source)
    files, unnamed = _named(found, settings)
    failures |= unnamed
    about_landmarks = dict(landmarks.settings())
    parameters = {
        "crop": None if settings.crop is None else _described(settings.crop),
        "landmarks": about_landmarks,
        "opencv": cv2.__version__,
        "orientation": ORIENTATION,
    }
    used: dict[str, Entry] = {}
    n_kept = 0
    with Journal(target / JOURNAL, parameters) as journal:
        for done, (file, to) in enumerate(files.items(), start=1):
            step = _Step(source, target, file, to, settings.crop)
            entry, is_kept = step.run(journal.entries.get(file), landmarks)
            if not is_kept and entry.source_sha256:  # without a digest, every run tries again
                journal.add(entry)
            n_kept += is_kept
            if entry.reason is None:
                used[to] = entry
            else:
                failures[file] = entry.reason
            progress(done, len(files), len(failures))
        journal.flush()
        text = _manifest(used, failures, settings, about_landmarks)
        _write(target / MANIFEST, text.encode())
        _remove_leftovers(target, journal, used)
    ordered = tuple(sorted(failures.items()))
    factors = [(to, _enlargement(entry, settings.crop)) for to, entry in used.items()]
    enlarged = sorted((-factor, to) for to, factor in factors if factor > MAX_ENLARGEMENT)
    return Preparation(
        target / MANIFEST, len(used), ordered, n_ignored, n_kept, links,
        tuple((to, -factor) for factor, to in enlarged),
    )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """The preparation of one image."""

    source: Path
    target: Path
    file: str
    to: str
    crop: Crop | None

    def run(self, before: Entry | None, landmarks: LandmarkSource) -> tuple[Entry, bool]:
        """Return the result for the image, and whether an earlier run's result was kept."""
        path = self.source / self.file
        try:
            if not path.resolve().is_relative_to(self.source.resolve()):
                return Entry(self.file, "", reason="link that leads out of the folder"), False
            data = image_bytes(path)
        except ImageTooLargeError:
            return Entry(self.file, "", reason="too large"), False
        except (DataContractError, OSError, RuntimeError):  # RuntimeError: a cycle of links
            return Entry(self.file, "", reason="unreadable"), False
        digest = hashlib.sha256(data).hexdigest()
        if before is not None and before.source_sha256 == digest and self._is_there(before):
            return before, True
        try:
            return self._done(data, digest, landmarks), False
        except UnusableImageError as error:
            return Entry(self.file, digest, reason=error.reason), False

    def _is_there(self, before: Entry) -> bool:
        """Say whether an earlier run has already written what this run would write."""
        if before.reason is not None:
            return True
        if self.crop is None:
            return before.file is None
        if before.file != self.to:
            return False
        try:
            return hashlib.sha256((self.target / self.to).read_bytes()).hexdigest() == before.sha256
        except OSError:
            return False

    def _done(self, data: bytes, digest: str, landmarks: LandmarkSource) -> Entry:
        try:
            pixels, scale = overview(data, self.file)
        except ImageTooLargeError as error:
            raise UnusableImageError("too large") from error
        except UnreadableFormatError as error:
            raise UnusableImageError(error.reason) from error
        except DataContractError as error:
            raise UnusableImageError("unreadable") from error
        is_tagged = checked_header(data, self.file).orientation > 1
        found = landmarks.landmarks(Picture(self.file, digest, pixels, scale, is_tagged))
        # Four decimals, as in the manifest, so that aligning from the manifest gives these pixels.
        points = tuple((round(x, 4), round(y, 4)) for x, y in found)
        try:
            similarity_transform(points, ARCFACE_112.template)
        except DataContractError as error:
            raise UnusableImageError("landmarks that fix no position") from error
        if self.crop is None:
            return Entry(self.file, digest, points)
        face = cut_face(data, self.file, points, self.crop)
        _, encoded = cv2.imencode(".png", cv2.cvtColor(face, cv2.COLOR_RGB2BGR))
        picture = encoded.tobytes()
        _write(self.target / self.to, picture)
        return Entry(self.file, digest, points, self.to, hashlib.sha256(picture).hexdigest())


def _enlargement(entry: Entry, crop: Crop | None) -> float:
    return enlargement(entry.landmarks or (), crop or ARCFACE_112)


def _check_folders(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise of_folder(source, "expected a folder of images", then="Check the path.")
    one, two = source.resolve(), target.resolve()
    if one.is_relative_to(two) or two.is_relative_to(one):
        raise of_folder(
            target,
            "expected a target that neither contains the folder of the images nor is inside it",
            f": {source}",
            "Give another folder.",
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        has_content = any(target.iterdir())
    except OSError as error:
        raise StoreError(f"{target}: can't be created ({error.strerror}).") from error
    if has_content and not (target / JOURNAL).is_file():
        raise of_folder(
            target,
            "expected an empty folder or one from an earlier run, got one with other content",
            then="Give a new folder.",
        )


def _walk(source: Path) -> tuple[list[str], dict[str, str], int, tuple[str, ...]]:
    """Return the images by path, those of other formats, the number ignored, and linked folders."""

    # os.walk skips a folder that it cannot read unless it is told what to do.
    def refuse(error: OSError) -> None:
        raise of_folder(error.filename, "can't be read", f" ({error.strerror})") from error

    found, failures, n_ignored, links = [], {}, 0, []
    for folder, subfolders, names in os.walk(source, onerror=refuse):
        shown = [Path(folder, one) for one in subfolders if one[0] != "."]
        n_ignored += len(subfolders) - len(shown)
        links += [one.relative_to(source).as_posix() for one in shown if one.is_symlink()]
        subfolders[:] = [one.name for one in shown if not one.is_symlink()]
        for name in names:
            file, suffix = Path(folder, name).relative_to(source).as_posix(), Path(name).suffix
            if name[0] == "." or suffix.lower() not in READ + NOT_READ:
                n_ignored += 1
            elif suffix.lower() in NOT_READ:
                failures[file] = "neither JPEG nor PNG"
            else:
                found.append(file)
        if len(found) > MAX_FILES:
            raise of_folder(source, f"expected at most {MAX_FILES} images, got more")
    return sorted(found), failures, n_ignored, tuple(sorted(links))


def _named(files: list[str], settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """Return the name of each image in the manifest, and the fault of each that can't have one."""
    names = dict(zip(files, _names(files, settings.crop is None), strict=True))
    written = Counter(names.values())
    failures = {}
    for file, name in names.items():
        if fault := path_fault(name):
            failures[file] = f"name with {fault}"
        elif written[name] > 1:
            failures[file] = "name that another image has as well"
        elif settings.identity == "folder" and identity_in(file) is None:
            failures[file] = "no folder that names the identity"
    return {file: name for file, name in names.items() if file not in failures}, failures


def _names(files: Iterable[str], is_source: bool) -> Iterator[str]:
    """Yield the name of each image in the manifest.

    ``Ann/0001.jpg`` becomes ``Ann/0001.png``, or ``Ann/0001.jpg.png`` in a folder in which two
    images would otherwise get the same name.
    """
    if is_source:
        yield from files
        return
    plain = {file: unicodedata.normalize("NFC", file) for file in files}
    short = {file: str(PurePosixPath(name).with_suffix(".png")) for file, name in plain.items()}
    counts = Counter(short.values())
    crowded = {PurePosixPath(name).parent for name, count in counts.items() if count > 1}
    for file, name in short.items():
        yield f"{plain[file]}.png" if PurePosixPath(name).parent in crowded else name


def _manifest(
    used: dict[str, Entry], failures: dict[str, str], settings: Settings, detector: dict[str, Any]
) -> str:
    """Return the manifest, with one image per line."""
    images = [_image(file, entry, settings) for file, entry in sorted(used.items())]
    counts = Counter((image["identity"], image.get("number")) for image in images)
    for image in images:
        if counts[image["identity"], image.get("number")] > 1:
            image.pop("number", None)  # an ambiguous number cannot name an image
    head = {
        "fxeval_manifest": 1,
        "licence": settings.licence,
        "may_show": settings.may_show,
        "source": settings.source,
        "detector": detector,
        "crop": None if settings.crop is None else _described(settings.crop),
        "orientation": ORIENTATION,
    }
    failed = [{"file": file, "reason": reason} for file, reason in sorted(failures.items())]
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, entries in (("images", images), ("failures", failed)):
        parts.append(f'"{key}": [' + ",".join(f"\n{json.dumps(one)}" for one in entries) + "]")
    return "{" + ",\n".join(parts) + "}\n"


def _image(file: str, entry: Entry, settings: Settings) -> dict[str, Any]:
    identity = identity_in(entry.source) if settings.identity == "folder" else None
    number = number_in(entry.source)
    image: dict[str, Any] = {
        "file": file,
        "sha256": entry.sha256 or entry.source_sha256,
        "identity": identity or entry.source_sha256[:16],
    }
    if identity and number is not None:
        image["number"] = number
    if (factor := _enlargement(entry, settings.crop)) > MAX_ENLARGEMENT:
        image["enlarged"] = round(factor, 2)
    if settings.crop is None:
        return {**image, "landmarks5": entry.landmarks}
    return {
        **image,
        "landmarks5": settings.crop.template,
        "source_file": entry.source,
        "source_sha256": entry.source_sha256,
        "source_landmarks5": entry.landmarks,
    }


def _described(crop: Crop) -> dict[str, Any]:
    return {"name": crop.name, "size": crop.size, "template": crop.template}


def _remove_leftovers(target: Path, journal: Journal, used: dict[str, Entry]) -> None:
    """Remove files from earlier runs whose source is gone, so that no face outlives its photo."""
    for file, digest in journal.outputs.items():
        path = target / file
        if file in used or path_fault(file) or not path.resolve().is_relative_to(target.resolve()):
            continue
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: can't be removed ({error.strerror}).") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    beside = path.with_name(f".{path.name[:200]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: can't be written ({error.strerror}). Free disk space or correct the "
            "permissions, then run again: it continues where it stopped."
        ) from error
