"""Pairs of rendered faces: a folder of aligned images and a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from torch import Tensor

from fxeval.contracts import Crop, DataCard, PairListing
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.face_folder import FaceFolder
from fxeval.datasets.faces.manifests import Face
from fxeval.datasets.faults import of_list
from fxeval.datasets.lists.drawing import every_mated, some_nonmated
from fxeval.seeding import generator_of

BANNER = (
    "Rendered faces: these results validate explainers and metrics; they say nothing about real "
    "faces."
)


@dataclass(frozen=True)
class FacePack:
    """A folder of rendered faces; implements ``PairSource``.

    The crop in ``manifest.json`` (``datasets/faces/manifests.py``) is ``arcface112``, and each
    image's ``identity`` and ``number`` are whole numbers.

    Attributes:
        root: The folder.
        seed: Seed of the draw of nonmated pairs.
        name: Id shown in reports.
        banner: Warning that every report on these faces must show.
    """

    root: Path
    seed: int = 0
    name: str = "rendered_faces"
    banner: str | None = BANNER

    def listing(self) -> PairListing:
        """Return one mated pair of each identity, the other mated pairs, then as many nonmated.

        The first n pairs are therefore of n identities, as long as there are that many.

        Raises:
            DataContractError: If the manifest cannot be used.
        """
        faces = self._faces()
        sizes = [len(list(own)) for _, own in groupby(faces, key=lambda face: face.identity)]
        mated = every_mated(sizes)
        generator = generator_of("nonmated pairs", self.seed)
        rows = mated + some_nonmated(sizes, len(mated), generator)
        pairs = [(faces[one], faces[two]) for one, two in rows]
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
            DataContractError: If files are missing, unreadable or not those that the manifest
                describes; the message names them all.
        """
        return self._folder.images(self._ids(image_ids), crop)

    def image_digests(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Return a digest of each image's file and landmarks (``FaceFolder.image_digests``)."""
        return self._folder.image_digests(self._ids(image_ids))

    def card(self) -> DataCard:
        """Describe the folder."""
        return self._folder.card()

    def _ids(self, files: Sequence[str]) -> list[str]:
        found = [(file, self._folder.find(file)) for file in files]
        return [face.id if face else file for file, face in found]

    @cached_property
    def _folder(self) -> FaceFolder:
        return FaceFolder(self.root)

    def _faces(self) -> list[Face]:
        """Return all images by identity and number."""
        path = self._folder.described_in
        if self._folder.crop != ARCFACE_112:
            raise of_list(
                path, f"expected 'crop' to be '{ARCFACE_112.name}'", then="Render the pack again."
            )
        for face in self._folder.faces:
            for key, value in (("identity", face.identity), ("number", face.number)):
                if not str(value).isdecimal():
                    raise of_list(face.where, f"expected '{key}' to be a whole number")
        return sorted(
            self._folder.faces, key=lambda face: (int(face.identity or 0), face.number or 0)
        )
