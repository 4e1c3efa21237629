"""What an explainer is asked to explain, and the inputs that it gets."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxeval.contracts import Explainer, Faces, Gallery, Images, traits_of
from fxeval.engine.forward_pool import PooledModel
from fxeval.errors import EvidenceError
from fxeval.models.loading import device_of
from fxeval.seeding import seed_of


@dataclass(frozen=True, eq=False)
class Comparison:
    """N comparisons of one image with another, to be explained.

    Attributes:
        faces: Owns the images.
        id: Of each comparison, by content.
        image: (N,) which image is explained.
        against: (N,) which image it is compared with, or (N, R), the images whose centroid it is
            compared with; only for explainers that take centroids.
        contrast: (N,) nonmates that the list names; None = they are drawn if the explainer needs
            them.
        seed: Index of the explainer's seed: what it draws depends on it, the rest does not.
        rows: Positions of those that are asked for, in this order; None = all.
        enrolled: (G,) images of the gallery of a closed set; None = all images are the gallery.
        draws: Names draws of their own (``Rows.draws``); "" = those of all.
        is_discriminative: Whether explainers that take a contrast, but need none, get it.
    """

    faces: Faces
    id: tuple[str, ...]
    image: Tensor
    against: Tensor
    contrast: Tensor | None = None
    seed: int = 0
    rows: Tensor | None = None
    enrolled: Tensor | None = None
    draws: str = ""
    is_discriminative: bool = False

    def __len__(self) -> int:
        return len(self.order)

    def gives_contrast(self, explainer: Explainer) -> bool:
        """Say whether an explainer gets nonmates."""
        traits = traits_of(explainer)
        return "contrast" in traits.needs or (self.is_discriminative and traits.takes_contrast)

    @property
    def order(self) -> Tensor:
        """Positions of the comparisons that are asked for, in their order."""
        return torch.arange(len(self.image)) if self.rows is None else self.rows


class Inputs:
    """The inputs that an explainer gets for some comparisons."""

    def __init__(
        self, explainer: Explainer, model: PooledModel, asked: Comparison, seed: int
    ) -> None:
        faces, needs = asked.faces, traits_of(explainer).needs
        self.size = (int(faces.images.shape[-2]), int(faces.images.shape[-1]))
        # The mask bank depends on the suite's seed and on these alone; 0 and "" change nothing.
        self.address = (*self.size, *(one for one in (asked.seed, asked.draws) if one))
        self._device = device_of(model)
        self._images, self._people = faces.images, faces.people()
        self._is_closed = asked.enrolled is not None
        # No made image is in a gallery.
        self._enrolled = faces.identity >= 0 if asked.enrolled is None else asked.enrolled
        self._probes, self._references = asked.image, asked.against
        self._contrast: Tensor | None = None
        if asked.gives_contrast(explainer):
            self._contrast = nonmates(asked, seed) if asked.contrast is None else asked.contrast
        self._gallery: Tensor | None = None
        if "gallery" in needs:
            self._gallery = model.pool.clean(model, faces)

    def clean(self, rows: Tensor) -> tuple[Images, Images]:
        """Return probes and references, fresh copies that user code may write to."""
        return self._inputs(self._probes[rows]), self._inputs(self._references[rows])

    def extra(self, rows: Tensor) -> dict[str, Any]:
        """Return the keywords that the explainer asked for."""
        given: dict[str, Any] = {}
        if self._contrast is not None:
            given["contrast"] = self._inputs(self._contrast[rows])
        if self._gallery is not None:
            given["gallery"] = self._with(self._gallery, rows)
        return given

    def _with(self, gallery: Tensor, rows: Tensor) -> Gallery:
        """Return the gallery; of a closed set, a probe's person is the one that it is taken for."""
        shown = self._people[self._first(rows)]
        return Gallery(
            gallery[self._enrolled].to(self._device, copy=True),
            self._people[self._enrolled],
            shown if self._is_closed else self._people[self._probes[rows]],
            shown,
        )

    def _first(self, rows: Tensor) -> Tensor:
        """Return an image of each reference; those of a centroid show one person."""
        references = self._references[rows]
        return references if references.ndim == 1 else references[:, 0]

    def _inputs(self, images: Tensor) -> Images:
        return self._images[images].to(self._device).to(torch.float32).div_(255.0)


def nonmates(asked: Comparison, seed: int) -> Tensor:
    """Choose for each comparison a reference that shows another identity; (N,) int64.

    Raises:
        EvidenceError: If the list has no other identity.
    """
    faces, chosen = asked.faces, []
    against = asked.against if asked.against.ndim == 1 else asked.against[:, 0]
    people = faces.people()
    shown = people[against]
    for row, image in enumerate(asked.image.tolist()):
        others = (shown != people[image]) & (shown != shown[row])
        images = torch.unique(against[others])
        if not len(images):
            raise EvidenceError(
                f"pairs '{faces.name}': a nonmate is needed, but the list has no other identity. "
                "Use pairs of at least two identities."
            )
        # By content, so that a row keeps its nonmate when the list's order changes.
        digests = sorted(images.tolist(), key=lambda image: faces.image_digests[image])
        chosen.append(digests[seed_of(seed, "nonmate", asked.id[row]) % len(digests)])
    return torch.tensor(chosen, dtype=torch.int64)
