"""Arrays that come with a folder of faces, in an ``.npz`` file that its manifest names.

The manifest gives the file and its digest, ``{"file": "labels.npz", "sha256": ...}``. All arrays
are of uint8. Nothing is unpickled, and nothing larger is allocated than what is expected.
"""

import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fxeval.datasets.faces.manifests import path_fault
from fxeval.datasets.faults import of_list
from fxeval.datasets.text_files import read_bytes
from fxeval.strict.text import brief, printable

MAX_BYTES = 512 << 20
"""Largest file read."""

_AGAIN = "Get the folder again."


@dataclass(frozen=True)
class StoredArrays:
    """A file of arrays.

    Attributes:
        path: The file, for messages.
        data: Its bytes.
    """

    path: Path
    data: bytes

    @classmethod
    def read(cls, root: Path, entry: object, key: str, where: str) -> "StoredArrays":
        """Read the file that a manifest names.

        Args:
            root: Folder of the manifest.
            entry: An object with ``file`` and ``sha256``.
            key: Key of the entry in the manifest, for messages.
            where: The manifest, for messages.

        Raises:
            DataContractError: If the entry is not such an object, or the file is missing or another
                than the one described.
        """
        file, digest = (
            map(entry.get, ("file", "sha256")) if isinstance(entry, dict) else (None,) * 2
        )
        if not (
            isinstance(file, str)
            and not path_fault(file)
            and isinstance(digest, str)
            and re.fullmatch("[0-9a-f]{64}", digest)
        ):
            raise of_list(
                where,
                f"expected '{key}' to be an object with 'file', a relative path inside the folder, "
                "and 'sha256', 64 hexadecimal digits",
                f", got {printable(brief(repr(entry)))}",
                "Correct the manifest.",
            )
        path = root / file
        data = read_bytes(path, MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != digest:
            raise of_list(path, "expected the SHA-256 of the manifest, got another", then=_AGAIN)
        return cls(path, data)

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of a known shape.

        Raises:
            DataContractError: If it is missing, damaged or of another shape or type.
        """
        try:
            archive = zipfile.ZipFile(io.BytesIO(self.data))
            with archive, archive.open(f"{name}.npy") as array:
                return _read(array, shape)
        # KeyError: no such array; EOFError: cut off; RuntimeError and NotImplementedError:
        # encrypted or odd archives.
        except (
            OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise of_list(
                self.path, f"expected an array '{name}' of {shape} uint8 in an .npz file",
                f" ({printable(brief(str(error)))})", _AGAIN,
            ) from error  # fmt: skip


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
    size = int(np.prod(shape))
    data = array.read(size + 1)
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, got {'more' if len(data) > size else len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
