"""Compares a model's embeddings with those that its vendor computed."""

import io
import math
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import FaceModel, GoldenCheck, model_traits
from fxeval.errors import ModelContractError
from fxeval.models.cards import ModelCard
from fxeval.models.golden_faults import diagnosis
from fxeval.models.loading import read_weights
from fxeval.strict.text import brief, printable

MAX_BYTES = 64 << 20
"""Largest array read from a file of goldens."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def compare(model: FaceModel, card: ModelCard, folder: Path) -> GoldenCheck:
    """Embed the card's golden images and compare.

    Args:
        model: Loaded from the card.
        card: Names file, keys and tolerance.
        folder: Folder of the weights and of that file.

    Raises:
        ModelContractError: If the embeddings differ, or the file cannot be used.
    """
    golden = card.golden
    if golden is None:
        return GoldenCheck("none")
    path = folder / golden.file
    if not path.is_file():
        return GoldenCheck("not_checked")
    data = read_weights(path)
    pixels = read_array(data, golden.images, str(path))
    expected = read_array(data, golden.embeddings, str(path))
    shape = (len(pixels), *model.crop.size, 3)
    if pixels.dtype != np.uint8 or pixels.shape != shape or not len(pixels):
        raise ModelContractError(
            f"{path}: '{brief(golden.images)}': expected crops (N, {model.crop.size[0]}, "
            f"{model.crop.size[1]}, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}."
        )
    if expected.dtype.kind != "f" or expected.ndim != 2 or len(expected) != len(pixels):
        raise ModelContractError(
            f"{path}: '{brief(golden.embeddings)}': expected floats ({len(pixels)}, D), got "
            f"{expected.shape} {expected.dtype}."
        )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    wanted = torch.from_numpy(expected.astype(np.float64))
    scale = float(wanted.abs().max()) if golden.relative else 1.0
    largest = _difference(model, images, wanted) / scale
    if not largest <= golden.at_most:  # also True for NaN
        help = diagnosis(model, card.preprocessing, images, wanted, golden.at_most * scale)
        raise ModelContractError(
            f"model '{model.name}': its embeddings of the {len(pixels)} images of {path} differ "
            f"from the golden ones by {largest:.2g}"
            f"{' of the largest entry' if golden.relative else ''}; at most {golden.at_most:g} is "
            f"allowed. {help} They were computed by {model_traits(model).runtime}."
        )
    return GoldenCheck("agrees", len(pixels), largest, golden.at_most)


def read_array(data: bytes, key: str, where: str) -> NDArray[np.generic]:
    """Return one array of an ``.npz`` file, without unpickling and without a large allocation.

    ``np.load`` would allocate the size that the header claims before it reads the values.

    Raises:
        ModelContractError: If it is missing, damaged, an object array or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if f"{key}.npy" not in archive.namelist():
                names = [brief(name.removesuffix(".npy")) for name in archive.namelist()[:20]]
                raise ModelContractError(
                    f"{where}: expected an array '{brief(key)}', got "
                    f"{printable(', '.join(names)) or 'none'}."
                )
            if archive.getinfo(f"{key}.npy").file_size > MAX_BYTES:
                raise ModelContractError(
                    f"{where}: '{brief(key)}': expected at most {MAX_BYTES} bytes, got more."
                )
            content = io.BytesIO(archive.read(f"{key}.npy"))
        shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(content)](content)
        values = content.read()
        if len(values) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(values)} bytes do not fill {shape} of {dtype}")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        return np.frombuffer(values, dtype).reshape(shape, order=order).copy()
    except ModelContractError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise ModelContractError(
            f"{where}: expected plain arrays saved by numpy.savez ({printable(brief(str(error)))})."
        ) from error


def _difference(model: FaceModel, images: Tensor, wanted: Tensor) -> float:
    found = model.embed(images).cpu().double()
    if found.shape != wanted.shape:
        raise ModelContractError(
            f"model '{model.name}': expected embeddings {tuple(wanted.shape)}, as the golden ones, "
            f"got {tuple(found.shape)}. Are the golden ones of this model?"
        )
    return float((found - wanted).abs().max())
