"""Folders of faces, either described by a manifest or with all images aligned already.

Names of people appear only in the folder and in messages about it; images are named by digests.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Crop, DataCard
from fxeval.datasets.faces.alignment import ARCFACE_112, align, landmarks_in, size_fault
from fxeval.datasets.faces.image_headers import read_header
from fxeval.datasets.faces.images import checked_header, decode_image, image_bytes
from fxeval.datasets.faces.manifests import (
    Face,
    Manifest,
    identity_in,
    number_in,
    path_fault,
    read_manifest,
)
from fxeval.datasets.faces.photographs import cut_face
from fxeval.datasets.faults import each, first_of, of_folder, of_image, of_list
from fxeval.errors import DataContractError
from fxeval.slices import AttributeValue
from fxeval.strict.text import brief

MAX_FILES = 1_000_000
"""Most images in a folder without manifest."""

ImageKey: TypeAlias = str | tuple[str, int]
"""How a list names an image: by file, or by identity and number."""


@dataclass(frozen=True)
class FaceFolder:
    """A folder of faces.

    Attributes:
        root: The folder.
        manifest_file: The manifest; a relative path starts at the root. Not read if ``aligned_to``
            is given.
        aligned_to: The crop that all images have; they then need no manifest. Identity and number
            come from names such as ``Ann_0001.jpg`` or ``Ann/0001.png``.
    """

    root: Path
    manifest_file: Path = Path("manifest.json")
    aligned_to: Crop | None = None

    @property
    def faces(self) -> tuple[Face, ...]:
        """All images, in the order of the manifest, or of their paths.

        Raises:
            DataContractError: If the manifest or the folder cannot be read.
        """
        return self._content.faces

    @property
    def crop(self) -> Crop | None:
        """The crop that all images are aligned to, or None."""
        return self._content.crop

    @property
    def labels(self) -> object:
        """What the manifest says about label maps (``faces/label_maps.py``); None = nothing."""
        return self._content.labels

    @property
    def twins(self) -> object:
        """What the manifest says about twins (``faces/twins.py``); None = nothing."""
        return self._content.twins

    @property
    def described_in(self) -> str:
        """The path of whatever lists the images (folder or manifest), for messages."""
        return str(self.root if self.aligned_to else self.root / self.manifest_file)

    @property
    def links(self) -> tuple[str, ...]:
        """Names of links to folders, which are not followed."""
        try:
            with os.scandir(self.root) as entries:
                return tuple(
                    sorted(one.name for one in entries if one.is_symlink() and one.is_dir())
                )
        except OSError:
            return ()

    def find(self, key: ImageKey) -> Face | None:
        """Return the image with this key, or None.

        Raises:
            DataContractError: If two files have this identity and number.
        """
        if isinstance(key, str):
            return self._named(key)
        if key in self._ambiguous:
            raise of_folder(
                self.root,
                "expected one file for each identity and number, got several",
                f" for image {key[1]} of '{brief(key[0])}'",
                "Remove all but one.",
            )
        return self._by_number.get(key)

    def ids_of(self, files: Sequence[str]) -> list[str]:
        """Return ``Face.id`` of each file; names of other files stay, for ``images`` to refuse."""
        return [face.id if (face := self._named(file)) else file for file in files]

    def face_of(self, image_id: str) -> Face:
        """Return the image with this ``Face.id``.

        Raises:
            DataContractError: If there is none.
        """
        face = self._by_id.get(image_id)
        if face is None:
            raise of_image(self.described_in, f"has no image '{brief(image_id)}'")
        return face

    def failure(self, key: ImageKey) -> str | None:
        """Return the reason why the manifest has no face of an image; None if it gives none."""
        return self._failed.get(key)

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Args:
            image_ids: ``Face.id`` of each image.
            crop: Size and template.

        Raises:
            DataContractError: If files are missing, unreadable or not those that the manifest
                describes; the message names them all.
        """
        pixels = np.empty((len(image_ids), *crop.size, 3), np.uint8)
        faults = []
        for row, image_id in enumerate(image_ids):
            try:
                pixels[row] = self._face(self.face_of(image_id), crop)
            except DataContractError as error:
                faults.append(error)
        if faults:
            counted = f"{len(faults)} of {len(image_ids)} images cannot be used"
            shown = first_of(list(dict.fromkeys(map(str, faults))))  # a linked folder comes once
            first = faults[0].public.removeprefix("an image: ")
            raise DataContractError(
                f"{self.root}: {counted}{shown}", public=f"{counted}; the first: {first}"
            )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 5, 2) float64, where the landmarks of images lie in pixels of a crop.

        Raises:
            DataContractError: If an image is not in the folder.
        """
        faces = [self.face_of(image_id) for image_id in image_ids]
        found = np.empty((len(faces), 5, 2))
        for row, face in enumerate(faces):
            found[row] = landmarks_in(crop, face.landmarks)
        return torch.from_numpy(found)

    def shown_size(self, face: Face) -> tuple[int, int]:
        """Return (height, width) of an image's file, turned as its landmarks take it.

        Raises:
            DataContractError: If the file cannot be used.
        """
        data, path = self._bytes(face), self.root / face.file
        header = checked_header(data, str(path))
        is_turned = header.orientation >= 5 and self._upright(data, path)
        return header.size[::-1] if is_turned else header.size

    def pictures(self, faces: Iterable[Face]) -> dict[str, str]:
        """Return the SHA-256 of the pixels of each image, by its id; all images are decoded.

        Raises:
            DataContractError: If an image cannot be used.
        """
        distinct = {face.id: face for face in faces if face.id not in self._looks}
        self._looks.update(each(distinct.values(), lambda face: (face.id, self._picture(face))))
        return dict(self._looks)

    @cached_property
    def _looks(self) -> dict[str, str]:
        return {}

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a SHA-256, as hex, of what each image's crops come from: its file, its landmarks.

        Raises:
            DataContractError: If an image is not in the folder, or cannot be read.
        """
        found = []
        for image_id in image_ids:
            face = self.face_of(image_id)
            points = " ".join(f"{x:.2f},{y:.2f}" for x, y in face.landmarks)
            content = f"{face.sha256 or _sha256(self._bytes(face))} {points}"
            found.append(_sha256(content.encode()))
        return tuple(found)

    def attributes(self, image_ids: Sequence[str]) -> dict[str, tuple[AttributeValue, ...]]:
        """Return what the manifest says about images: a value of each, None where it says none.

        Raises:
            DataContractError: If an image is not in the folder.
        """
        own = []
        for image_id in image_ids:
            own.append(self.face_of(image_id).attributes)
        names = dict.fromkeys(name for one in own for name in one)
        return {name: tuple(one.get(name) for one in own) for name in names}

    def card(self, used: Collection[str] | None = None) -> DataCard:
        r"""Describe the folder.

        The root digest is the SHA-256 of one line ``<sha256>  <file>\n`` per image, sorted by
        bytes. To compute it in the folder: ``sha256sum FILES | LC_ALL=C sort | sha256sum``. The
        digests are taken from the manifest; without a manifest the files are hashed.

        Args:
            used: Ids of the images to count if there is no manifest; None = all.

        Raises:
            DataContractError: If the manifest or a file cannot be read.
        """
        content, faces = self._content, self.faces
        if self.aligned_to and used is not None:
            wanted = set(used)
            faces = tuple(face for face in faces if face.id in wanted)
        lines = [f"{face.sha256 or _sha256(self._bytes(face))}  {face.file}\n" for face in faces]
        return DataCard(
            root_digest=hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
            n_images=len(faces),
            licence=content.licence,
            may_show=content.may_show,
            failures=content.failures,
        )

    def _bytes(self, face: Face) -> bytes:
        return image_bytes(_inside(self.root, face))

    def _face(self, face: Face, crop: Crop) -> NDArray[np.uint8]:
        path, data = self.root / face.file, self._bytes(face)
        if face.sha256 is not None and _sha256(data) != face.sha256:
            raise of_image(
                path,
                "expected the SHA-256 of the manifest, got another",
                f"{face.where} gives {face.sha256}, the file has {_sha256(data)}: fetch the image "
                "again, or prepare the faces again.",
            )
        if self.crop is None:
            return cut_face(
                data, str(path), face.landmarks, crop, upright=self._upright(data, path)
            )
        pixels = decode_image(data, str(path))
        if pixels.shape[:2] != self.crop.size:
            raise of_image(path, *size_fault(self.crop, *pixels.shape[:2]))
        return align(pixels, face.landmarks, crop)

    def _picture(self, face: Face) -> str:
        # What is compared is what a model would see, but for the crop's own size.
        return _sha256(self._face(face, self.crop or ARCFACE_112).tobytes())

    def _upright(self, data: bytes, path: Path) -> bool:
        """Return whether landmarks are of the image turned upright; an error if nobody knows."""
        said, header = self._content.orientation, read_header(data)
        if said is None and header is not None and header.orientation > 1:
            raise of_image(
                path,
                f"has the EXIF orientation {header.orientation}, and the manifest does not say "
                "whether its landmarks are of the image turned upright",
                'Prepare the images again, or add "orientation": "applied" or "stored" to '
                f"{self.described_in}.",
            )
        return said != "stored"

    @cached_property
    def _content(self) -> Manifest:
        if self.aligned_to is not None:
            return Manifest(_aligned_faces(self.root, self.aligned_to), self.aligned_to)
        return read_manifest(self.root / self.manifest_file)

    def _named(self, file: str) -> Face | None:
        """Return the image of this file, or the one made of the photograph of this name."""
        own, made = self._by_file.get(file), self._by_source.get(file, [])
        found = {face.file: face for face in ([] if own is None else [own]) + made}
        if len(found) > 1:
            raise of_folder(
                self.root,
                f"expected one image of each name, got {len(found)}",
                f" for '{brief(file)}', which is the name of a file and of a photograph",
                "Name the images as their files in the list.",
            )
        return next(iter(found.values()), None)

    @cached_property
    def _by_file(self) -> dict[str, Face]:
        return {face.file: face for face in self.faces}

    @cached_property
    def _by_source(self) -> dict[str, list[Face]]:
        made = defaultdict(list)
        for face in self.faces:
            if face.source_file is not None:
                made[face.source_file].append(face)
        return made

    @cached_property
    def _failed(self) -> dict[ImageKey, str]:
        failed: dict[ImageKey, str] = {}
        for file, reason in self._content.failed.items():
            failed[file] = reason
            identity, number = identity_in(file), number_in(file)
            if identity is not None and number is not None:
                failed.setdefault((identity, number), reason)
        return failed

    @cached_property
    def _by_id(self) -> dict[str, Face]:
        return {face.id: face for face in self.faces}

    @cached_property
    def _by_number(self) -> dict[tuple[str, int], Face]:
        return {key: face for face in self.faces if (key := face.key)}

    @cached_property
    def _ambiguous(self) -> set[tuple[str, int]]:
        counts = Counter(face.key for face in self.faces)
        return {key for key, count in counts.items() if key and count > 1}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _inside(root: Path, face: Face) -> Path:
    """Return the path of an image; a path that leads out of the folder is an error."""
    path = root / face.file
    try:
        is_inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a name that is too long, or a cycle of links
        is_inside = False
    if not is_inside:
        parts = [root.joinpath(*path.relative_to(root).parts[: n + 1]) for n in range(20)]
        link = next((part for part in parts if part.is_symlink()), path)
        raise of_list(
            face.where.partition(": ")[0],
            "expected images inside the folder, got a link that leads out or nowhere",
            f": '{link}'",
            "Replace it by what it points to.",
        )
    return path


_NAMED = re.compile(r"(?:.*/)?(?P<identity>[^/]+)[_/](?P<number>[0-9]{1,9})\.[^./]+")
_SUFFIXES = (".jpg", ".jpeg", ".png")


def _aligned_faces(root: Path, crop: Crop) -> tuple[Face, ...]:
    """Return the images in a folder and its subfolders, without hidden files, sorted by path."""

    # os.walk skips a folder that it cannot read unless it is told what to do.
    def refuse(error: OSError) -> None:
        raise of_folder(error.filename, "cannot be read", f" ({error.strerror})") from error

    faces: list[Face] = []
    links: list[str] = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        links += [one for one in subfolders if Path(folder, one).is_symlink()]
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = (Path(folder) / name).relative_to(root).as_posix()
            if name.startswith(".") or not name.lower().endswith(_SUFFIXES) or path_fault(file):
                continue
            named = _NAMED.fullmatch(file)
            identity, number = (named["identity"], int(named["number"])) if named else (None, None)
            faces.append(Face(file, None, identity, number, crop.template, str(root)))
        if len(faces) > MAX_FILES:
            raise of_folder(root, f"expected at most {MAX_FILES} images, got more")
    if not faces:
        linked = f" (links to folders, which are not followed: {len(links)})" if links else ""
        raise of_folder(root, f"expected images ({', '.join(_SUFFIXES)}), got none{linked}")
    return tuple(sorted(faces, key=lambda face: face.file))
