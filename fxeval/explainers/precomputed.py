"""Maps that were made elsewhere, read from a file and found by the content of the images.

Two formats, ``.npz`` and ``.safetensors``, hold M maps:

* ``maps``: (M, H, W) float16, float32 or float64, larger = more important; NaN is passed on.
* ``probe``: M digests, the SHA-256 of the (3, H, W) uint8 RGB bytes of each probe, as 64
  hexadecimal digits: those of ``Pairs.image_digests``.
* ``reference``: M digests of the references; absent if a map holds for any reference.

In ``.npz`` the digests are arrays of text, (M,); in ``.safetensors``, whose only tensor is
``maps``, they are JSON lists in the metadata. :func:`save_maps` writes both.
"""

import contextlib
import functools
import hashlib
import io
import json
import math
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import ExplainerTraits, FaceModel, Images, Maps, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.redaction import without_paths
from fxeval.strict.text import hint, printable

MAX_BYTES = 2 << 30
"""Most bytes read, as a file announces them before anything is unpacked."""
MAX_NPY_HEADER = 1 << 16
MAX_HEADER_BYTES = 64 << 20
"""Longest safetensors header read; digests of 100,000 pairs need about 14 MB."""

_ARRAYS = ("maps", "probe", "reference")
_FLOATS = (torch.float16, torch.float32, torch.float64)
_HEX = re.compile("[0-9a-f]{64}")
_OFF_GRID = 1e-3  # of a grey level: the float32 error of x / 255 * 255 is smaller
_SHOWN = 3
_UNREADABLE = (  # all that numpy, zipfile, json and safetensors raise on damaged files
    OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, RuntimeError, SyntaxError,
    MemoryError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
    Warning, safetensors.SafetensorError,
)  # fmt: skip


@dataclass(frozen=True)
class PrecomputedMaps:
    """Maps read from a file, found by the digests of probe and reference.

    Attributes:
        file: An ``.npz`` or ``.safetensors`` file as this module describes it, read when maps are
            asked for; in a suite a relative path starts at the suite's folder.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: precomputed, params: {file: maps.npz}, as: my_maps}
    """

    id: ClassVar[str] = "precomputed"

    file: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.file, str):
            object.__setattr__(self, "file", Path(self.file) if self.file else None)
        if self.file is not None and getattr(self.file, "suffix", "") not in _READERS:
            raise ExplainerContractError(
                f"precomputed: file must be an .npz or .safetensors path, got {str(self.file)!r}."
            )

    @property
    def traits(self) -> ExplainerTraits:
        """Maps that are given, and the SHA-256 of their file unless it cannot be read."""
        digest = None
        if self.file is not None:
            with contextlib.suppress(OSError):
                stat = self.file.stat()
                digest = _digest(self.file.resolve(), stat.st_mtime_ns, stat.st_size)
        return ExplainerTraits(takes_centroids=True, maps_are_given=True, digest=digest)

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Look the maps up; neither the model nor the generator is used.

        Args:
            model: Not used.
            probes: (N, 3, H, W), 8-bit images over 255.
            references: (N, 3, H, W); of several references only if the file names none.
            contrast: Must be None: a file holds no discriminative maps.
            generator: Not used.

        Raises:
            ExplainerContractError: If the file cannot be used, its maps have another size, or a
                probe or pair has none.
        """
        if self.file is None:
            raise ExplainerContractError(
                "precomputed: file must name the maps, got nothing. Set params: {file: maps.npz}."
            )
        if contrast is not None:
            raise ExplainerContractError(
                f"{self.file}: takes no contrast: its maps are of a probe and a reference."
            )
        known = _read_again(str(self.file))
        size = (probes.shape[2], probes.shape[3])
        if known.size != size:
            raise ExplainerContractError(
                f"{self.file}: expected maps of {size[0]} x {size[1]} pixels, the probe's size, "
                f"got {known.size[0]} x {known.size[1]}. Make them at the model's crop."
            )
        keys: list[tuple[str, ...]] = [(digest,) for digest in image_digests(probes)]
        if known.is_paired:
            if references.ndim == 5:
                raise ExplainerContractError(
                    f"{self.file}: its maps are of one reference each, but several were given."
                )
            keys = _paired(keys, image_digests(references))
        return SaliencyMaps(known.take(keys, str(self.file)).to(probes.device))


def save_maps(
    path: str | Path, maps: Tensor | NDArray[Any], probes: Images, references: Images | None = None
) -> None:
    """Write maps so that :class:`PrecomputedMaps` finds them.

    Args:
        path: Ending in ``.npz`` or ``.safetensors``; overwritten.
        maps: (N, H, W) floating, larger = more important.
        probes: (N, 3, H, W) images as the model gets them: uint8, or floating in [0, 1].
        references: (N, 3, H, W), if a map holds for one reference only.

    Raises:
        ExplainerContractError: If shapes do not fit, maps share an image, or one is not 8-bit.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ExplainerContractError(
            f"{path}: expected a name ending in {' or '.join(_READERS)}. Rename it."
        )
    found = torch.as_tensor(maps).detach().cpu().contiguous()
    digests = {"probe": image_digests(probes)}
    if references is not None:
        digests["reference"] = image_digests(references)
    _Known.of(found, digests, str(path))
    if (len(found), *found.shape[1:]) != (len(probes), *probes.shape[2:]):
        raise ExplainerContractError(
            f"{path}: expected maps of the probes' number and size, {tuple(probes.shape)}, got "
            f"{tuple(found.shape)}."
        )
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        if path.suffix == ".npz":
            columns: Any = {key: np.array(values, "U64") for key, values in digests.items()}
            np.savez(file, maps=found.numpy(), **columns)
        else:
            texts = {key: json.dumps(values) for key, values in digests.items()}
            file.write(safetensors.torch.save({"maps": found}, metadata=texts))
    beside.replace(path)  # atomic: a reader never sees half a file


def image_digests(images: Images) -> list[str]:
    """Return the SHA-256 of the (3, H, W) uint8 bytes of each image, as ``Pairs`` holds them.

    Args:
        images: (N, 3, H, W) uint8, or floating in [0, 1] in steps of 1/255.

    Raises:
        ExplainerContractError: If an image is not 8-bit: it has no digest.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ExplainerContractError(
            f"precomputed: expected images (N, 3, H, W), got {tuple(images.shape)}."
        )
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise ExplainerContractError(
                f"precomputed: expected uint8 or floating images, got {images.dtype}."
            )
        levels = images.detach().double() * 255
        nearest = levels.round()
        is_near = (levels - nearest).abs() <= _OFF_GRID  # False for NaN
        wrong = ~(is_near & (nearest >= 0) & (nearest <= 255)).flatten(1).all(dim=1)
        if bool(wrong.any()):
            raise ExplainerContractError(
                f"precomputed: expected 8-bit images over 255, but {int(wrong.sum())} of "
                f"{len(images)} hold other values, so no map belongs to them."
            )
        images = nearest.to(torch.uint8)
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images.cpu().numpy()]


@dataclass(frozen=True, eq=False)
class _Known:
    """The maps of a file.

    Attributes:
        maps: (M, H, W) floating.
        row_of: From (probe,) or (probe, reference) digests to a row.
        is_paired: The keys name references.
    """

    maps: Tensor
    row_of: dict[tuple[str, ...], int]
    is_paired: bool

    @classmethod
    def of(cls, maps: Tensor, digests: dict[str, list[str]], where: str) -> "_Known":
        """Check what a file holds.

        Raises:
            ExplainerContractError: If it does not fit together.
        """
        if maps.ndim != 3 or 0 in maps.shape[1:] or maps.dtype not in _FLOATS:
            raise ExplainerContractError(
                f"{where}: 'maps' must be (M, H, W) float16, float32 or float64, got "
                f"{tuple(maps.shape)} {maps.dtype}."
            )
        for name, values in digests.items():
            if len(values) != len(maps):
                raise ExplainerContractError(
                    f"{where}: '{name}' must hold one digest for each of the {len(maps)} maps, got "
                    f"{len(values)}."
                )
            wrong = [value for value in values if not _HEX.fullmatch(value)]
            if wrong:
                said = f"{where}: '{name}' must hold SHA-256 digests, 64 digits of 0-9a-f"
                raise ExplainerContractError(
                    f"{said}, got {wrong[0][:80]!r}. Let save_maps write the file.",
                    public=without_paths(said),
                )
        keys: list[tuple[str, ...]] = [(digest,) for digest in digests["probe"]]
        if "reference" in digests:
            keys = _paired(keys, digests["reference"])
        row_of: dict[tuple[str, ...], int] = {}
        for row, key in enumerate(keys):
            if row_of.setdefault(key, row) != row:
                raise ExplainerContractError(
                    f"{where}: rows {row_of[key]} and {row} are both maps of {_shown(key)}. Keep "
                    "one, or name the references."
                )
        return cls(maps, row_of, "reference" in digests)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.maps.shape[1]), int(self.maps.shape[2])

    def take(self, keys: Sequence[tuple[str, ...]], where: str) -> Maps:
        """Return the maps of some images, (N, H, W) float32.

        Raises:
            ExplainerContractError: Naming those that are missing.
        """
        missing = [key for key in keys if key not in self.row_of]
        if missing:
            what = "pairs" if self.is_paired else "probes"
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise ExplainerContractError(
                f"{where}: no map for {len(missing)} of {len(keys)} {what} (it holds "
                f"{len(self.maps)}): {', '.join(map(_shown, missing[:_SHOWN]))}{more}. Were they "
                "made from the same images in the same crop?"
            )
        return self.maps[[self.row_of[key] for key in keys]].float()


def _paired(probes: list[tuple[str, ...]], references: list[str]) -> list[tuple[str, ...]]:
    return [(*probe, reference) for probe, reference in zip(probes, references, strict=True)]


def _shown(key: tuple[str, ...]) -> str:
    return "-".join(digest[:12] for digest in key)


def _read_again(file: str) -> _Known:
    """Read a file, unless it was read before and has not changed since."""
    try:
        stat = Path(file).stat()
    except (OSError, ValueError) as error:
        raise ExplainerContractError(
            f"{file}: the maps cannot be read ({error}). Check the path: in a suite a relative "
            "one starts at the suite's folder."
        ) from error
    return _read(Path(file).resolve(), file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)  # traits are read many times
def _digest(path: Path, _written: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.lru_cache(maxsize=2)
def _read(path: Path, where: str, _written: int, size: int) -> _Known:
    if size > MAX_BYTES:
        raise ExplainerContractError(f"{where}: at most {MAX_BYTES} bytes are read, got {size}.")
    try:
        maps, digests = _READERS[path.suffix](path)
    except _UNREADABLE as error:
        said = f"{where}: expected a whole {path.suffix} file of maps"
        raise ExplainerContractError(
            f"{said} ({type(error).__name__}: {printable(str(error)[:200])}). Let save_maps write "
            "it.",
            public=without_paths(said),
        ) from error
    return _Known.of(maps, digests, where)


def _read_npz(path: Path) -> tuple[Tensor, dict[str, list[str]]]:
    """Read arrays; each is unpacked only if its header and the archive announce the same size."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_names([member.filename.removesuffix(".npy") for member in members])
        total = sum(member.file_size for member in members)
        if any(member.compress_size > path.stat().st_size for member in members):
            raise ValueError("a member is announced to be larger than the file")
        if total > MAX_BYTES:
            raise ValueError(f"at most {MAX_BYTES} bytes are unpacked, it announces {total}")
        arrays = {}
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"'{member.filename}' is packed in an unusual way")
            data = bytearray(archive.read(member))  # never more than announced; with a checksum
            arrays[member.filename.removesuffix(".npy")] = _parse_npy(data, member.filename)
    maps = arrays.pop("maps")
    if maps.dtype.kind != "f" or maps.dtype.itemsize > 8:
        raise TypeError(f"'maps' must be floating, got {maps.dtype}")
    native = maps.astype(maps.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native), {name: _texts(name, one) for name, one in arrays.items()}


def _parse_npy(data: bytearray, name: str) -> NDArray[Any]:
    file = io.BytesIO(data[:MAX_NPY_HEADER])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a header that only old versions wrote
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"'{name}' has format {version}")
        read_header = npy.read_array_header_1_0 if version[0] == 1 else npy.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject or dtype.kind not in "fUS":
        raise TypeError(f"'{name}' must hold numbers or text, got dtype {dtype}")
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"'{name}' announces {shape} {dtype} and holds {len(data)} bytes")
    array: NDArray[Any] = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_safetensors(path: Path) -> tuple[Tensor, dict[str, list[str]]]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(f"{len(data)} bytes that announce a header of {length}")
    # Parsed here first: the library has no limit on the number of tensors.
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    _check_names([*header, *metadata])
    if list(header) != ["maps"]:
        raise KeyError("expected one tensor, 'maps'")
    digests = {name: json.loads(text) for name, text in metadata.items()}
    for name, values in digests.items():
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise TypeError(f"'{name}' must be a JSON list of text")
    return safetensors.torch.load(data)["maps"], digests


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in _ARRAYS:
            raise KeyError(f"unknown array '{name[:80]}'. {hint(name[:80], _ARRAYS)}")
    absent = [name for name in _ARRAYS[:2] if name not in names]
    if absent or len(set(names)) != len(names):
        raise KeyError(f"expected 'maps', 'probe' and perhaps 'reference', got {names}")


def _texts(name: str, array: NDArray[Any]) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise TypeError(f"'{name}' must be text, (M,), got {array.dtype} {array.shape}")
    texts = array.astype("U") if array.dtype.kind == "S" else array
    return [str(text) for text in texts]


_READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}
