"""Pairs of rendered faces: a folder of aligned images and a manifest."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Crop, PairListing
from fxeval.datasets.alignment import ARCFACE_112, align, read_image
from fxeval.errors import DataContractError
from fxeval.seeding import generator_of

BANNER = (
    "Rendered faces: these results validate explainers and metrics; they say nothing about real "
    "faces."
)
MAX_MANIFEST_BYTES = 16 << 20
"""Largest manifest read."""


@dataclass(frozen=True)
class FacePack:
    """A folder of rendered faces; implements ``PairSource``.

    ``manifest.json`` holds ``crop`` (``arcface112``: all images are aligned to it) and ``images``:
    objects with ``file`` (a relative path), ``sha256``, and the integers ``identity`` and
    ``number``.

    Attributes:
        root: The folder.
        seed: Of the draw of nonmated pairs.
        name: Id shown in reports.
        banner: What every report on these faces must say.
    """

    root: Path
    seed: int = 0
    name: str = "rendered_faces"
    banner: str | None = BANNER

    def listing(self) -> PairListing:
        """Return one mated pair of each identity, the other mated pairs, then as many nonmated.

        The first n pairs therefore are of n identities, as far as there are so many.

        Raises:
            DataContractError: If the manifest cannot be used.
        """
        faces = sorted(self._manifest.values(), key=lambda face: (face.identity, face.number))
        firsts, others = [], []
        for _, own in groupby(faces, key=lambda face: face.identity):
            pairs_of_one = list(combinations(own, 2))
            firsts += pairs_of_one[:1]
            others += pairs_of_one[1:]
        mated = firsts + others
        pairs = mated + self._nonmated(faces, len(mated))
        return PairListing(
            probe=tuple(one.file for one, _ in pairs),
            reference=tuple(two.file for _, two in pairs),
            is_mated=tuple(one.identity == two.identity for one, two in pairs),
            probe_identity=tuple(str(one.identity) for one, _ in pairs),
            reference_identity=tuple(str(two.identity) for _, two in pairs),
        )

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: Naming every file that is missing, unreadable or not the one the
                manifest describes.
        """
        pixels = np.empty((len(image_ids), *crop.size, 3), np.uint8)
        faults = []
        for row, image_id in enumerate(image_ids):
            try:
                pixels[row] = align(self._read(image_id), ARCFACE_112.template, crop)
            except DataContractError as error:
                faults.append(f"  {error}")
        if faults:
            raise DataContractError(
                f"pairs '{self.name}': {len(faults)} of {len(image_ids)} images cannot be used:\n"
                + "\n".join(faults)
            )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def _read(self, image_id: str) -> np.ndarray:
        if image_id not in self._manifest:
            raise DataContractError(f"{self.root}: the manifest has no image '{image_id}'.")
        face = self._manifest[image_id]
        path = self.root / face.file
        try:
            is_inside = path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError):  # a name too long, or links in a circle
            is_inside = False
        if not is_inside:
            raise DataContractError(f"{path}: a file inside {self.root} expected, got a link out.")
        pixels = read_image(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != face.sha256:
            raise DataContractError(
                f"{path}: SHA-256 {face.sha256} expected (manifest.json), got {digest}. Install or "
                "render the pack again."
            )
        if pixels.shape[:2] != ARCFACE_112.size:
            height, width = pixels.shape[:2]
            raise DataContractError(
                f"{path}: 112 x 112 pixels expected, got {width} x {height}. Render the pack again."
            )
        return pixels

    def _nonmated(self, faces: "list[_Face]", wanted: int) -> "list[tuple[_Face, _Face]]":
        """Draw pairs of different identities, without repetition; fewer if there are not enough."""
        sizes = [len(list(own)) for _, own in groupby(faces, key=lambda face: face.identity)]
        possible = (len(faces) ** 2 - sum(size**2 for size in sizes)) // 2
        generator = generator_of("nonmated pairs", self.seed)
        drawn: dict[tuple[int, int], None] = {}
        while len(drawn) < min(wanted, possible):
            one, two = sorted(map(int, generator.integers(len(faces), size=2)))
            if faces[one].identity != faces[two].identity:
                drawn[one, two] = None
        return [(faces[one], faces[two]) for one, two in drawn]

    @cached_property
    def _manifest(self) -> "dict[str, _Face]":
        path = self.root / "manifest.json"
        try:
            data = path.read_bytes()
            if len(data) > MAX_MANIFEST_BYTES:
                raise ValueError(f"at most {MAX_MANIFEST_BYTES} bytes")
            content = json.loads(data)
            crop, entries = content["crop"], list(content["images"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataContractError(
                f"{path}: JSON with 'crop' and a list 'images' expected ({error!r})."
            ) from error
        if crop != ARCFACE_112.name:
            raise DataContractError(
                f"{path}: crop '{ARCFACE_112.name}' expected, got {crop!r}. Render the pack again."
            )
        faces = [_face(entry, f"{path}: images[{row}]") for row, entry in enumerate(entries)]
        if len({f.file for f in faces}) < len(faces) or len({f[2:] for f in faces}) < len(faces):
            raise DataContractError(
                f"{path}: images that differ in 'file', and in 'identity' or 'number', expected. "
                "Remove the repetitions."
            )
        return {face.file: face for face in faces}


_RELATIVE_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


class _Face(NamedTuple):
    """An entry of the manifest."""

    file: str
    sha256: str
    identity: int
    number: int


def _face(entry: dict[str, Any], where: str) -> _Face:
    try:
        face = _Face(entry["file"], entry["sha256"], entry["identity"], entry["number"])
    except (TypeError, KeyError) as error:
        raise DataContractError(
            f"{where}: 'file', 'sha256', 'identity' and 'number' expected ({error!r})."
        ) from error
    for key, kind in _Face.__annotations__.items():
        value = getattr(face, key)
        if type(value) is not kind:  # bool is an int
            raise DataContractError(
                f"{where}: '{key}' of type {kind.__name__} expected, got {value!r}."
            )
    if not re.fullmatch("[0-9a-f]{64}", face.sha256):
        raise DataContractError(f"{where}: 'sha256' of 64 hexadecimal digits expected.")
    if len(face.file) > 200 or not _RELATIVE_PATH.fullmatch(face.file):
        raise DataContractError(
            f"{where}: a relative path inside the folder, of letters, digits and _.- expected, got "
            f"{face.file!r}. Correct the manifest."
        )
    return face
