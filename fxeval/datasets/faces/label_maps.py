"""Label maps of a folder of aligned faces: which part each pixel shows, in one file for all images.

The manifest names the file: ``"labels": {"file": "labels.npz", "sha256": ...}``. Its array
``labels`` is (N, H, W) uint8, one map for each image in the order of the manifest, of the size of
the folder's crop; the values are those of ``Part``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fxeval.contracts import Crop, LabelMaps
from fxeval.datasets.faces.alignment import align
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.part_labels import PART_NAMES
from fxeval.datasets.faces.stored_arrays import StoredArrays
from fxeval.datasets.faults import of_image, of_list
from fxeval.strict.text import brief


@dataclass(frozen=True)
class PartLabels:
    """The label maps of a folder; they are read when first asked for. Implements ``PartSource``.

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
        return LabelMaps(PART_NAMES, torch.from_numpy(found), "label maps of the manifest")

    @cached_property
    def _rows(self) -> dict[str, int]:
        faces = list(enumerate(self.folder.faces))
        return {face.id: row for row, face in faces} | {face.file: row for row, face in faces}

    @cached_property
    def _maps(self) -> NDArray[np.uint8]:
        """All label maps, (N, H, W)."""
        entry, where = self.folder.labels, self.folder.described_in
        if entry is None:
            then = "Use a folder whose manifest names a file of label maps."
            raise of_list(where, "has no label maps ('labels')", then=then)
        stored = StoredArrays.read(self.folder.root, entry, "labels", where)
        crop = self.folder.crop
        maps = stored.take("labels", (len(self.folder.faces), *(crop.size if crop else ())))
        if maps.size and maps.max() >= len(PART_NAMES):
            raise of_list(
                stored.path, f"expected labels below {len(PART_NAMES)}, got {maps.max()}",
                then="Get the folder again.",
            )  # fmt: skip
        return maps
