"""Triplets of rendered faces whose nonmate differs from the mate in one known part."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fxeval.contracts import Crop, DataCard, LabelMaps, PairListing
from fxeval.datasets.faces.alignment import ARCFACE_112, align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.label_folder import LabelFolder
from fxeval.datasets.faces.label_maps import PartLabels
from fxeval.datasets.faces.regions import FaceParts
from fxeval.datasets.faces.twins import Change, Triplet, Twins
from fxeval.datasets.faults import of_list
from fxeval.datasets.lists.face_pack import BANNER
from fxeval.slices import AttributeValue
from fxeval.strict.text import brief

TwinKind: TypeAlias = Literal["redrawn", "pasted"]
"""Whether a part is drawn anew or cut out of another person's face."""

TwinPart: TypeAlias = Literal["nose", "mouth", "eyes", "brows", "jaw"]
"""The part that is another in the twins."""


@dataclass(frozen=True)
class TwinPairs(FaceParts):
    """Triplets of rendered faces: the nonmate is the mate with one part of another person.

    It implements ``PairSource``, ``LabelSource``, ``LandmarkSource`` and ``TwinSource``. A twin is
    an image whose pixels are another image's but for one part: the images are those of
    ``FacePack``, and the id of a twin is its image's and the part, such as ``90000_1.jpg+nose`` or
    ``90000_1.jpg+nose-pasted``. What tells the nonmate from the mate is therefore known to the
    pixel. The columns ``part`` and ``twin`` (redrawn or pasted) make slices.

    Attributes:
        root: The folder, with ``twins`` in its manifest (``datasets/faces/twins.py``).
        kind: ``redrawn``: the part is drawn anew; ``pasted``: it is cut out of another person's
            face; None = both.
        part: The part that is another; None = all.
        banner: Warning that every report on these faces must show.
    """

    root: Path
    kind: TwinKind | None = None
    part: TwinPart | None = None
    banner: str | None = BANNER

    @property
    def name(self) -> str:
        """Id shown in reports."""
        return "_".join(filter(None, ["rendered_twins", self.part, self.kind]))

    def listing(self) -> PairListing:
        """Return a triplet of each identity, then the next of each, with as varied parts.

        Raises:
            DataContractError: If the manifest cannot be used, or has no such triplets.
        """
        triplets = self.twins()
        identities = tuple(one.identity for one in triplets)
        return PairListing(
            probe=tuple(one.probe for one in triplets),
            reference=tuple(one.mate for one in triplets),
            is_mated=(True,) * len(triplets),
            probe_identity=identities,
            reference_identity=identities,
            contrast=tuple(one.mate_twin for one in triplets),
            contrast_identity=tuple(one.twin_identity for one in triplets),
            attributes={
                "part": tuple(one.part for one in triplets),
                "twin": tuple(one.kind for one in triplets),
            },
        )

    def twins(self) -> tuple[Triplet, ...]:
        """Return the triplets in the order of the listing, with the twins of probes as well.

        Raises:
            DataContractError: As for ``listing``.
        """
        return self._chosen

    def twins_of(self, probes: Sequence[str], nonmates: Sequence[str]) -> tuple[str, ...]:
        """Return the id of each probe's twin that shows the person of the nonmate.

        Raises:
            DataContractError: If there is no such triplet.
        """
        known = {(one.probe, one.mate_twin): one.probe_twin for one in self.twins()}
        asked = [*zip(probes, nonmates, strict=True)]
        missing = next((pair for pair in asked if pair not in known), None)
        if missing is not None:
            raise of_list(
                self._folder.described_in, "has no such triplet",
                f", got the probe '{brief(missing[0])}' with the nonmate '{brief(missing[1])}'",
                "Ask for triplets of the list.",
            )  # fmt: skip
        return tuple(known[pair] for pair in asked)

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces and twins aligned to the crop, in the given order.

        Raises:
            DataContractError: If files are missing, unreadable or not those that the manifest
                describes; the message names them all.
        """
        files = [self._file_of(image_id) for image_id in image_ids]
        distinct = list(dict.fromkeys(files))
        native = self._folder.images(self._folder.ids_of(distinct), ARCFACE_112)
        faces = native.permute(0, 2, 3, 1).contiguous().numpy()
        plain = dict(zip(distinct, faces, strict=True))
        found = np.empty((len(files), *crop.size, 3), np.uint8)
        for row, (image_id, file) in enumerate(zip(image_ids, files, strict=True)):
            change, face = self._changes.get(image_id), plain[file]
            pixels = face if change is None else change.apply(face)
            found[row] = align(pixels, ARCFACE_112.template, crop)
        return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous()

    def attributes(self, image_ids: Sequence[str]) -> Mapping[str, Sequence[AttributeValue]]:
        """Return what the manifest says about images; a twin has the attributes of its image."""
        files = [self._file_of(image_id) for image_id in image_ids]
        return self._folder.attributes(self._folder.ids_of(files))

    def changed(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, H, W) bool: the pixels in which twins differ from their images in a crop.

        In ``arcface112``, the crop of the images, these are the pixels that were changed.
        In other crops a pixel next to the part may differ as well. An image that is no twin differs
        nowhere.

        Raises:
            DataContractError: As for ``images``.
        """
        files = [self._file_of(image_id) for image_id in image_ids]
        return (self.images(image_ids, crop) != self.images(files, crop)).any(dim=1)

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of what each image is made of: file, landmarks and, of a twin, change."""
        files = [self._file_of(image_id) for image_id in image_ids]
        plain = self._folder.image_digests(self._folder.ids_of(files))
        changes = [self._changes.get(image_id) for image_id in image_ids]
        return tuple(
            digest if change is None else _digest_of(digest, change)
            for digest, change in zip(plain, changes, strict=True)
        )

    def labels(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return which part each pixel shows, as ``FacePack.labels``.

        Raises:
            DataContractError: As there, and if an image is a twin, of which there is no label map.
        """
        twin = next((image_id for image_id in image_ids if image_id in self._changes), None)
        if twin and isinstance(self.parts, PartLabels | LabelFolder):
            raise of_list(
                self._folder.described_in, "has no label maps of twins", f", got '{brief(twin)}'",
                "Ask for that of the image that was changed.",
            )  # fmt: skip
        return super().labels(image_ids, crop)

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return landmarks as ``FacePack.landmarks``; a twin has those of its image."""
        return super().landmarks([self._file_of(image_id) for image_id in image_ids], crop)

    def card(self) -> DataCard:
        """Describe the folder."""
        return self._folder.card()

    @property
    def _changes(self) -> Mapping[str, Change]:
        return self._twins.changes

    def _file_of(self, image_id: str) -> str:
        change = self._changes.get(image_id)
        return image_id if change is None else change.file

    @cached_property
    def _folder(self) -> FaceFolder:
        return FaceFolder(self.root)

    @cached_property
    def _twins(self) -> Twins:
        folder = self._folder
        if folder.twins is None:
            then = "Use a folder whose manifest lists triplets."
            raise of_list(folder.described_in, "has no twins ('twins')", then=then)
        if folder.crop != ARCFACE_112:
            said = f"expected 'crop' to be '{ARCFACE_112.name}'"
            raise of_list(folder.described_in, said, then="Render the folder again.")
        identities = {face.file: str(face.identity) for face in folder.faces}
        return Twins(self.root, folder.described_in, ARCFACE_112.size, folder.twins, identities)

    @cached_property
    def _chosen(self) -> tuple[Triplet, ...]:
        own: dict[str, list[Triplet]] = defaultdict(list)
        for one in self._twins.triplets:
            if self.kind in (None, one.kind) and self.part in (None, one.part):
                own[one.identity].append(one)
        if not own:
            wanted = " ".join(filter(None, [self.kind, self.part]))
            raise of_list(
                self._folder.described_in, f"expected twins of this kind ({wanted}), got none",
                then="Choose another 'kind' or 'part'.",
            )  # fmt: skip
        # The first triplets of the people are of one part after another.
        turned = [
            rows[n % len(rows) :] + rows[: n % len(rows)] for n, rows in enumerate(own.values())
        ]
        return tuple(one for turn in zip_longest(*turned) for one in turn if one is not None)


def _digest_of(plain: str, change: Change) -> str:
    place = f"{plain} {change.top} {change.left} {change.levels.shape} "
    return hashlib.sha256(place.encode() + change.levels.astype("<i2").tobytes()).hexdigest()
