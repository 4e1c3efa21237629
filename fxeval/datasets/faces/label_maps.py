"""Label maps of a folder of aligned faces: which part each pixel shows, in one file for all images.

The manifest names the file: ``"labels": {"file": "labels.npz", "sha256": ...}``. Its array
``labels`` is (N, H, W) uint8, one map for each image in the order of the manifest, of the size of
the folder's crop; the values are those of ``Part``.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import Crop, LabelMaps
from fxeval.datasets.faces.alignment import align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.manifests import path_fault
from fxeval.datasets.faces.part_labels import Part
from fxeval.datasets.faults import of_image, of_list
from fxeval.datasets.text_files import read_bytes
from fxeval.strict.text import brief, printable

PART_NAMES = tuple(part.name.lower() for part in Part)
"""Names of the labels, by their values."""

MAX_BYTES = 512 << 20
"""Largest file of label maps read."""

_AGAIN = "Get the folder again."


@dataclass(frozen=True)
class PartLabels:
    """The label maps of a folder; they are read when first asked for.

    Attributes:
        folder: Aligned images with a manifest.
    """

    folder: FaceFolder

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images, aligned to the crop, in the order of the ids.

        In another crop each pixel has the label of the nearest pixel, and ``background`` where the
        image does not reach.

        Args:
            image_ids: ``Face.id`` or ``Face.file`` of each image.
            crop: Size and template.

        Raises:
            DataContractError: If the manifest names no label maps, they are damaged, or an image is
                not in the folder.
        """
        found = np.zeros((len(image_ids), *crop.size), np.int64)
        for row, image_id in enumerate(image_ids):
            number = self._rows.get(image_id)
            if number is None:
                raise of_image(self.folder.described_in, f"has no image '{brief(image_id)}'")
            face = self.folder.faces[number]
            found[row] = align(self._maps[number], face.landmarks, crop, cv2.INTER_NEAREST)
        return LabelMaps(PART_NAMES, torch.from_numpy(found))

    @cached_property
    def _rows(self) -> dict[str, int]:
        faces = list(enumerate(self.folder.faces))
        return {face.id: row for row, face in faces} | {face.file: row for row, face in faces}

    @cached_property
    def _maps(self) -> NDArray[np.uint8]:
        """All label maps, (N, H, W)."""
        file, sha256 = _entry(self.folder)
        path = self.folder.root / file
        data = read_bytes(path, MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise of_list(path, "expected the SHA-256 of the manifest, got another", then=_AGAIN)
        crop = self.folder.crop
        shape = (len(self.folder.faces), *(crop.size if crop else ()))
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open("labels.npy") as array:
                maps = _read(array, shape)
        # KeyError: no such array; RuntimeError and NotImplementedError: encrypted or odd archives.
        except (
            OSError,
            ValueError,
            KeyError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise of_list(
                path, f"expected an array 'labels' of {shape} uint8 in an .npz file",
                f" ({printable(brief(str(error)))})", _AGAIN,
            ) from error  # fmt: skip
        if maps.size and maps.max() >= len(PART_NAMES):
            raise of_list(
                path, f"expected labels below {len(PART_NAMES)}, got {maps.max()}", then=_AGAIN
            )
        return maps


def _entry(folder: FaceFolder) -> tuple[str, str]:
    """Return the file of label maps, and its SHA-256, that a manifest names."""
    entry = folder.labels
    if entry is None:
        raise of_list(
            folder.described_in, "has no label maps ('labels')",
            then="Use a folder whose manifest names a file of label maps.",
        )  # fmt: skip
    file, sha256 = map(entry.get, ("file", "sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(file, str) or not isinstance(sha256, str):
        file = sha256 = ""
    if not path_fault(file) and re.fullmatch("[0-9a-f]{64}", sha256):
        return file, sha256
    raise of_list(
        folder.described_in,
        "expected 'labels' to be an object with 'file', a relative path inside the folder, and "
        "'sha256', 64 hexadecimal digits",
        f", got {printable(brief(repr(entry)))}",
        "Correct the manifest.",
    )


def _read(array: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an array whose header says that it has the shape, and nothing larger.

    Raises:
        ValueError: If it has another shape or type, or is cut off.
    """
    if np.lib.format.read_magic(array) != (1, 0):
        raise ValueError("another version of the format .npy")
    found, is_fortran, kind = np.lib.format.read_array_header_1_0(array)
    if found != shape or kind != np.uint8 or is_fortran:
        raise ValueError(f"got {found} {kind}")
    data = array.read(int(np.prod(shape)))
    return np.frombuffer(data, np.uint8).reshape(shape)
