"""Rows of pairs whose probe has patches of another face, by which its similarity changes.

A patch of a nonmated pair is taken from the reference, and makes the probe more similar to it; one
of a mated pair is taken from somebody else, and makes it less so. What was replaced is known, so it
is known where a map of the decision should look.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Faces, Pairs
from fxeval.engine.made_images import with_made
from fxeval.engine.row_kinds import Table, all_pairs
from fxeval.errors import DataContractError
from fxeval.metrics.protocol import Rows
from fxeval.metrics.questions import Likeness
from fxeval.seeding import generator_of

PATCHED = "patched"
"""The version of a row's image that has the patches."""

PUBLISHED_HEIGHT = 112
"""Height of the crop, in pixels, that the side of a patch is given for."""

IntArray: TypeAlias = NDArray[np.int64]
Draw: TypeAlias = Callable[[int, int, int], NDArray[np.integer]]
"""From (least, greatest + 1, number) to so many whole numbers, drawn uniformly."""


class Patching(Protocol):
    """Parameters of a check that patches probes: so many squares, their side in pixels."""

    patches: int
    patch_size: int


@dataclass(frozen=True, eq=False)
class Places:
    """Where P patches lie, in the order in which they were drawn.

    Attributes:
        columns: (P,) their first column.
        rows: (P,) the row after their last one.
    """

    columns: IntArray
    rows: IntArray


def places_of(draw: Draw, patches: int, side: int, size: tuple[int, int]) -> Places:
    """Draw the places of square patches: all columns, then all rows.

    A column is drawn from 0 to W - side - 1, and the row after a patch from side to H - 1, so no
    patch reaches the last row or the last column.

    Args:
        draw: Draws numbers.
        patches: Number of patches, P; they may overlap.
        side: Of a patch in pixels, less than H and W.
        size: (H, W) of the image.

    Source:
        marcohuber/xSSAB, the patches of its data set: H = W = 112, 27 patches with sides of 16.
    """
    height, width = size
    columns = draw(0, width - side, patches)
    rows = draw(side, height, patches)
    return Places(columns.astype(np.int64), rows.astype(np.int64))


def covered(places: Places, side: int, size: tuple[int, int]) -> Tensor:
    """Return which pixels some patch covers, (H, W) bool."""
    found = torch.zeros(size, dtype=torch.bool)
    for column, row in zip(places.columns.tolist(), places.rows.tolist(), strict=True):
        found[row - side : row, column : column + side] = True
    return found


def patched_pairs(pairs: Pairs, seed: int, asked: Patching) -> Table:
    """Return mated and nonmated pairs with clean probes; a version has patched ones.

    The places of a row's patches, and whose face they show if the pair is mated, are drawn by the
    suite's seed and the row.

    Args:
        pairs: The pairs.
        seed: The suite's seed.
        asked: Number of patches, and their side at a height of 112 pixels; it is scaled to that of
            the crop.

    Returns:
        The rows as they are, and their version ``patched``: their images have the patches, their
        donors are the clean probes, and ``altered`` is what the patches cover.

    Raises:
        DataContractError: If a patch does not fit into the crop, or a mated pair has nobody else
            to take patches from.
    """
    clean = replace(all_pairs(pairs).rows, kind="patched pairs")
    faces, size = pairs.faces(), (int(pairs.images.shape[2]), int(pairs.images.shape[3]))
    side = _side(pairs.name, asked.patch_size, size)
    whose = _shown_by_patches(pairs, faces, clean, seed)
    altered = torch.stack([_patches(seed, row, asked.patches, side, size) for row in clean.id])
    recipes = [
        f"{asked.patches} patches with sides of {asked.patch_size}, of {faces.image_digests[one]}, "
        f"drawn by {seed} for {row}"
        for one, row in zip(whose.tolist(), clean.id, strict=True)
    ]
    faces, image = with_made(faces, clean.image, faces.images[whose], altered, recipes)
    patched = replace(
        clean,
        image=image,
        source=image[:, None],
        question=Likeness(pairs.reference[:, None]),
        side=PATCHED,
        donor=clean.image,
        altered=altered,
    )
    return Table(faces, clean, {patched.side: patched})


def _side(name: str, asked: int, size: tuple[int, int]) -> int:
    """Return the side of a patch in pixels of the crop."""
    side = max(1, round(asked * size[0] / PUBLISHED_HEIGHT))
    if side >= min(size):
        text = (
            f"pairs '{name}': expected patches smaller than the crop of {size[0]} x {size[1]} "
            f"pixels, got sides of {side}. Lower patch_size."
        )
        raise DataContractError(text, public=text)
    return side


def _patches(seed: int, row: str, patches: int, side: int, size: tuple[int, int]) -> Tensor:
    """Draw the patches of a row, (H, W) bool."""
    draws = generator_of(seed, "patches", row)
    return covered(places_of(draws.integers, patches, side, size), side, size)


def _shown_by_patches(pairs: Pairs, faces: Faces, rows: Rows, seed: int) -> Tensor:
    """Return (N,) the image that the patches of each row are taken from."""
    digests, people = faces.image_digests, faces.identity
    # By content, so that nothing depends on the order of the list.
    ordered = torch.tensor(sorted(range(len(digests)), key=digests.__getitem__))
    found = pairs.reference.clone()
    for row in pairs.is_mated.nonzero()[:, 0].tolist():
        others = ordered[people[ordered] != people[rows.image[row]]]
        if not len(others):
            text = (
                f"pairs '{pairs.name}': expected images of at least 2 people, as the patches of a "
                "mated pair show somebody else, got one person. Use pairs of more people."
            )
            raise DataContractError(text, public=text)
        drawn = generator_of(seed, "patches of", rows.id[row]).integers(len(others))
        found[row] = others[int(drawn)]
    return found
