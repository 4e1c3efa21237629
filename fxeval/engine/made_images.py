"""Images that are made of loaded ones: a patch of another face, an object in front of a face."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fxeval.contracts import Faces


def originals(faces: Faces, images: Tensor) -> Tensor:
    """Return the loaded image that each image was made of, or is."""
    return images if faces.made_of is None else faces.made_of[images]


def with_made(
    faces: Faces, base: Tensor, pixels: Tensor, altered: Tensor, recipes: Sequence[str]
) -> tuple[Faces, Tensor]:
    """Add images that differ from loaded ones in some pixels.

    A made image is named by its recipe and by the image that it was made of, not by its pixels. It
    belongs to no identity: no gallery enrols it, nobody is compared with it unless a row says so.

    Args:
        faces: M images.
        base: (N,) the images that the new ones are made of.
        pixels: (N, 3, H, W) uint8, what shows where an image is altered.
        altered: (N, H, W) bool.
        recipes: N texts that say what was done, by content: no name of a file or a person.

    Returns:
        The faces with N more images, and the (N,) numbers of these.
    """
    made = torch.where(altered[:, None], pixels, faces.images[base])
    of = torch.arange(len(faces.images)) if faces.made_of is None else faces.made_of
    digests = tuple(
        hashlib.sha256(f"{faces.image_digests[image]} {recipe}".encode()).hexdigest()
        for image, recipe in zip(base.tolist(), recipes, strict=True)
    )
    found = replace(
        faces,
        images=torch.cat([faces.images, made]),
        image_digests=faces.image_digests + digests,
        identity=torch.cat([faces.identity, torch.full((len(base),), -1)]),
        made_of=torch.cat([of, of[base]]),
    )
    return found, torch.arange(len(faces.images), len(found.images))
