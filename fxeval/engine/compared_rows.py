"""Mated pairs whose maps are compared with those of the same pair a little changed, and swapped.

Each version makes one change: noise on both images that no eye sees, half a pixel's shift of the
probe, another person in the place of the mate. All share the draws of the explainer.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fxeval.contracts import Faces, Pairs
from fxeval.engine.inputs import Comparison, nonmates
from fxeval.engine.made_images import with_made
from fxeval.engine.row_kinds import Table, mated_pairs
from fxeval.metrics.protocol import Rows
from fxeval.seeding import generator_of

NOISE = 2
"""Largest change of a pixel of the noisy images, of 255."""

NOISY, SHIFTED, IMPOSTOR = "noisy", "shifted", "impostor"


def compared_pairs(pairs: Pairs, seed: int) -> Table:
    """Return mated pairs with three versions of each.

    ``noisy``: whole numbers from -2 to 2 are added to every pixel of probe and reference.
    ``shifted``: the probe, half a pixel to the right and down. ``impostor``: the probe is compared
    with a nonmate, the reference of another identity of the list. Explainers that take a contrast
    get that nonmate, and in the version ``impostor`` the mate.

    Args:
        pairs: Mated pairs.
        seed: The suite's, for the noise and the nonmates.

    Raises:
        EvidenceError: If the pairs are all of one person.
    """
    rows = replace(mated_pairs(pairs).rows, kind="compared pairs")
    faces = pairs.faces()
    asked = Comparison(faces, rows.id, pairs.probe, pairs.reference)
    nonmate = nonmates(asked, seed)
    rows = replace(rows, contrast=nonmate)
    impostor = replace(
        rows, against=nonmate[:, None], contrast=pairs.reference.clone(), side=IMPOSTOR
    )
    faces, probe = _noisy(faces, rows, pairs.probe, (seed, "probe"))
    faces, reference = _noisy(faces, rows, pairs.reference, (seed, "reference"))
    noisy = replace(
        rows, image=probe, source=probe[:, None], against=reference[:, None], side=NOISY
    )
    moved = shifted(faces.images[pairs.probe])
    recipes = ["half a pixel to the right and down"] * len(rows)
    faces, probe = with_made(faces, pairs.probe, moved, _everywhere(moved), recipes)
    other = replace(rows, image=probe, source=probe[:, None], side=SHIFTED)
    return Table(faces, rows, {NOISY: noisy, SHIFTED: other, IMPOSTOR: impostor})


def shifted(images: Tensor) -> Tensor:
    """Return (N, 3, H, W) uint8 images moved by half a pixel to the right and down.

    Bilinear: each pixel is the mean of itself and of its neighbours above and to the left, rounded;
    the edge is repeated.
    """
    wide = pad(images.float(), (1, 0, 1, 0), mode="replicate").long()
    total = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
    return ((total + 2) // 4).to(torch.uint8)


def _noisy(
    faces: Faces, rows: Rows, images: Tensor, address: tuple[int, str]
) -> tuple[Faces, Tensor]:
    """Add noisy copies of (N,) images; the noise of a row depends on its content alone."""
    seed, what = address
    shape = tuple(faces.images.shape[1:])
    noise = torch.stack(
        [
            torch.from_numpy(
                generator_of(seed, "noise", what, row).integers(-NOISE, NOISE + 1, shape)
            )
            for row in rows.id
        ]
    )
    pixels = (faces.images[images].long() + noise).clamp_(0, 255).to(torch.uint8)
    recipes = [f"noise {seed} {what} {row}" for row in rows.id]
    return with_made(faces, images, pixels, _everywhere(pixels), recipes)


def _everywhere(pixels: Tensor) -> Tensor:
    return torch.ones_like(pixels[:, 0], dtype=torch.bool)
