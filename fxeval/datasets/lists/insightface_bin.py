"""Verification sets as insightface packs them: one ``.bin`` with all images and labels.

The file is a pickle of (list of encoded images, list of truth values), two images for each pair
(insightface ``recognition/_datasets_/lfw2pack.py``). A pickle can run code, so it is read by
:mod:`fxeval.datasets.restricted_pickle`, which runs none.

The file does not name identities. Images linked by a mated pair, or with identical pixels, are
treated as one person. That is an approximation: one person may be counted as several, and intervals
that resample identities are then too narrow. A file of identities is better.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Crop, DataCard, PairListing
from fxeval.datasets.faces.alignment import (
    CropName,
    align,
    crop_from,
    landmarks_in,
    size_fault,
)
from fxeval.datasets.faces.images import decode_image
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faults import bare, of_list
from fxeval.datasets.lists.formats import refuse_for_another
from fxeval.datasets.lists.pair_lines import joined
from fxeval.datasets.restricted_pickle import load
from fxeval.datasets.text_files import lines_of, read_text
from fxeval.errors import DataContractError
from fxeval.redaction import PublicReason

MAX_FILE_BYTES = 2 << 30
"""Largest file read."""
MAX_IMAGES = 100_000
"""Most images in a file."""
MAX_IMAGE_BYTES = 1 << 20
"""Largest encoded image."""

_SHOWN = 5
_SAME = PublicReason("both images are one")


@dataclass(frozen=True)
class InsightfaceBin(FaceParts):
    """A ``.bin`` of pairs; implements ``PairSource``. Its encoded images stay in memory.

    Attributes:
        file: The ``.bin``; None = not known yet, which is refused when it is read.
        name: Id shown in reports.
        folds: Number of contiguous folds, in the order of the file.
        crop: The crop that the images have (``crop_from``).
        identities_file: Text with one identity a line, one for each image in the order of the
            file; None = those that mated pairs join.
        banner: What every report on these images must say.
    """

    file: Path | None
    name: str
    folds: int = 10
    crop: CropName = "arcface112"
    identities_file: Path | None = None
    banner: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        crop_from(self.crop, "crop")

    def listing(self) -> PairListing:
        """Return all pairs in the order of the file; a pair of one image twice is set aside.

        Images are called by the digest of their pixels, so all are decoded here.

        Raises:
            DataContractError: If the file cannot be used, or labels and identities disagree.
        """
        content = self._content
        probe, reference = content.ids[::2], content.ids[1::2]
        if not 2 <= self.folds <= len(probe):
            raise of_list(
                str(self.file),
                f"expected 2 to {len(probe)} folds, as there are {len(probe)} pairs, got "
                f"{self.folds}",
                then="Set 'folds'.",
            )
        who = self._joined() if self.identities_file is None else self._named(self.identities_file)
        for pair, is_mated in enumerate(content.is_mated):
            if is_mated != (who[2 * pair] == who[2 * pair + 1]):
                raise self._disagreement(pair)
        same = (one == two for one, two in zip(probe, reference, strict=True))
        parts = np.array_split(np.arange(len(probe)), self.folds)
        return PairListing(
            probe=tuple(probe),
            reference=tuple(reference),
            is_mated=content.is_mated,
            probe_identity=tuple(who[::2]),
            reference_identity=tuple(who[1::2]),
            set_aside=tuple(_SAME if one else "" for one in same),
            fold=tuple(fold for fold, part in enumerate(parts) for _ in part),
        )

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: Naming every id that the file does not have.
        """
        content, stored = self._content, crop_from(self.crop, "crop")
        first = {image_id: row for row, image_id in reversed([*enumerate(content.ids)])}
        unknown = [image_id for image_id in image_ids if image_id not in first]
        if unknown:
            raise of_list(
                str(self.file),
                f"{len(unknown)} of {len(image_ids)} images are not in the file",
                f": {', '.join(ascii(one) for one in unknown[:_SHOWN])}",
                "List its pairs again.",
            )
        pixels = np.empty((len(image_ids), *crop.size, 3), np.uint8)
        for row, image_id in enumerate(image_ids):
            face = decode_image(content.encoded[first[image_id]], f"{self.file}: {image_id}")
            pixels[row] = align(face, stored.template, crop)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 5, 2) float64: the landmarks of the images' own crop, in pixels of another."""
        points = torch.from_numpy(landmarks_in(crop, crop_from(self.crop, "crop").template))
        return points.repeat(len(image_ids), 1, 1)

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return the ids, which are digests of the pixels."""
        return tuple(image_ids)

    def card(self) -> DataCard:
        """Describe the file: its SHA-256 and the number of images, repeated ones included."""
        return DataCard(self._content.digest, len(self._content.ids))

    @property
    def _root(self) -> Path:
        return Path()

    @property
    def _described_in(self) -> str:
        return str(self.file)

    def _labelled(self) -> None:
        if self.label_maps is not None:
            raise of_list(
                self._described_in, "has no paths of images, by which label maps are found",
                then="Remove 'label_maps', or unpack the images into a folder.",
            )  # fmt: skip

    @cached_property
    def _content(self) -> "_Content":
        if self.file is None:
            said = f"pairs '{self.name}': no file is named. Set 'file' to the .bin of the set."
            raise DataContractError(said, public=said)
        stored, where = crop_from(self.crop, "crop"), str(self.file)
        data = _read(self.file)
        try:
            images, labels, n_images, n_labels = load(data, where, MAX_IMAGES)
        except DataContractError as error:
            refuse_for_another(error, self.file, "insightface_bin")
            raise
        if not 2 <= n_images <= MAX_IMAGES or n_images != 2 * n_labels:
            raise of_list(
                where,
                f"expected two images for each label, and 2 to {MAX_IMAGES} images, got "
                f"{n_images} images and {n_labels} labels",
                then="Is it a .bin of pairs, and whole?",
            )
        is_mated = tuple(_label(label, f"{where}: label {at}") for at, label in enumerate(labels))
        encoded, ids = zip(*_faces(images, stored, where), strict=True)
        return _Content(encoded, ids, is_mated, hashlib.sha256(data).hexdigest())

    def _joined(self) -> list[str]:
        """Return an identity for each image: the least id of those that mated pairs join."""
        content = self._content
        pairs = zip(content.ids[::2], content.ids[1::2], content.is_mated, strict=True)
        owner = joined(content.ids, ((one, two) for one, two, is_mated in pairs if is_mated))
        return [owner[image_id] for image_id in content.ids]

    def _named(self, path: Path) -> list[str]:
        """Return the identities that a file names, as digests."""
        names, ids = lines_of(read_text(path), str(path)), self._content.ids
        if len(names) != len(ids):
            raise of_list(
                path,
                f"expected {len(ids)} lines, one for each image, got {len(names)}",
                f" for those of {self.file}",
            )
        owner: dict[str, int] = {}
        for row, (image_id, name) in enumerate(zip(ids, names, strict=True)):
            if not name.strip():
                raise of_list(f"{path}:{row + 1}", "expected an identity, got nothing")
            if names[owner.setdefault(image_id, row)] != name:
                raise of_list(
                    f"{path}:{row + 1}",
                    f"expected the identity of line {owner[image_id] + 1}, as both images have the "
                    "same pixels",
                    then="Correct one line.",
                )
        return [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names]

    def _disagreement(self, pair: int) -> DataContractError:
        kind = "mated" if self._content.is_mated[pair] else "nonmated"
        images = f"pair {pair} (images {2 * pair} and {2 * pair + 1})"
        if self.identities_file is None:
            return of_list(
                str(self.file),
                f"{images} is labelled nonmated, but the mated pairs join its images to one "
                "identity",
                then="Correct a label; identities_file can say who is in each image.",
            )
        differ = "differ" if kind == "mated" else "are equal"
        return of_list(
            str(self.file),
            f"{images} is labelled {kind}, but the identities in lines {2 * pair + 1} and "
            f"{2 * pair + 2} of {bare(self.identities_file)} {differ}",
            then="Correct one of them.",
        )


class _Content(NamedTuple):
    """What a file holds; images 2k and 2k + 1 are pair k."""

    encoded: tuple[bytes, ...]
    ids: tuple[str, ...]
    is_mated: tuple[bool, ...]
    digest: str


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise of_list(path, "expected a .bin of pairs, it is no regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise of_list(path, f"expected at most {MAX_FILE_BYTES} bytes, it has more")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise of_list(path, "cannot be read", f" ({reason})") from error


def _label(label: bool | str, where: str) -> bool:
    if isinstance(label, bool):
        return label
    raise of_list(where, f"expected true or false, got {label}")


def _faces(images: Sequence[bytes | str], stored: Crop, where: str) -> list[tuple[bytes, str]]:
    """Return the encoded bytes and the id of each image."""
    known: dict[int, tuple[bytes, str]] = {}  # a pickle may name one image a million times
    faults = []
    for row, face in enumerate(images):
        if id(face) not in known:
            known[id(face)] = (b"", "")
            try:
                known[id(face)] = _face(face, stored, f"{where}: image {row}")
            except DataContractError as error:
                faults.append(f"  {error}")
    if faults:
        counted = f"{len(faults)} of {len(images)} images cannot be used"
        raise DataContractError(
            f"{where}: {counted}; the first:\n" + "\n".join(faults[:_SHOWN]),
            public=f"{bare(where)}: {counted}",
        )
    return [known[id(face)] for face in images]


def _face(data: bytes | str, stored: Crop, where: str) -> tuple[bytes, str]:
    """Return an image's encoded bytes and its id, the digest of its pixels."""
    if isinstance(data, str):  # the name of another type
        raise of_list(where, f"expected bytes of a JPEG or PNG, got {data}")
    if len(data) > MAX_IMAGE_BYTES:
        raise of_list(where, f"expected at most {MAX_IMAGE_BYTES} bytes, got {len(data)}")
    pixels = decode_image(data, where)
    if pixels.shape[:2] != stored.size:
        said, advice = size_fault(stored, *pixels.shape[:2])
        raise of_list(where, said, then=advice)
    return data, hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
