"""Mated pairs with an object in front of the face of the probe."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fxeval.contracts import Pairs
from fxeval.engine.made_images import with_made
from fxeval.engine.row_kinds import Table, mated_pairs
from fxeval.functional.occluders import VERSION, OccluderName, drawn
from fxeval.metrics.protocol import Rows


def occluded_pairs(pairs: Pairs, occluders: Sequence[OccluderName], landmarks: Tensor) -> Table:
    """Return mated pairs; in each version, named by the object, the probe wears one.

    Args:
        pairs: Mated pairs.
        occluders: Names of the objects.
        landmarks: (M, 5, 2) of the pairs' images, in pixels of their crop.
    """
    rows = replace(mated_pairs(pairs).rows, kind="occluded pairs")
    faces = pairs.faces()
    versions: dict[str, Rows] = {}
    size = (int(faces.images.shape[-2]), int(faces.images.shape[-1]))
    for name in occluders:
        pixels, covered = drawn(name, landmarks[pairs.probe], size)
        # The place of the object is part of the name: other landmarks make another image.
        recipes = [f"{name} {VERSION} {_digest(one)}" for one in covered]
        faces, numbers = with_made(faces, pairs.probe, pixels, covered, recipes)
        versions[name] = replace(
            rows,
            image=numbers,
            source=numbers[:, None],
            side=name,
            donor=pairs.probe,
            altered=covered,
        )
    return Table(faces, rows, versions)


def _digest(covered: Tensor) -> str:
    return hashlib.sha256(covered.numpy().tobytes()).hexdigest()
