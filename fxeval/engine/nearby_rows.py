"""Mated pairs with copies of the probe that are nearly the same: noise, and small shifts."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fxeval.contracts import Pairs
from fxeval.engine.made_images import with_made
from fxeval.engine.row_kinds import Table, mated_pairs
from fxeval.seeding import generator_of

SIGMA = 2
"""Standard deviation of the noise, of 255."""

HALF_PIXEL, PIXEL = "half a pixel", "one pixel"


def noisy(index: int) -> str:
    """Name the version with a draw of noise.

    >>> noisy(0)
    'noise 1'
    """
    return f"noise {index + 1}"


def nearby_pairs(pairs: Pairs, seed: int, draws: int) -> Table:
    """Return mated pairs with versions whose probes are nearly the same.

    ``noise 1`` and so on: normal noise with standard deviation 2 of 255 on each value of the probe,
    rounded. ``half a pixel`` and ``one pixel``: the probe moved to the right by so much, its left
    edge repeated, as by an alignment that is a little off. The reference stays; explainers have the
    same draws and the same nonmates for all versions.

    Args:
        pairs: Mated pairs.
        seed: The suite's, for the noise.
        draws: Number of draws of noise.
    """
    rows = replace(mated_pairs(pairs).rows, kind="nearby pairs")
    faces, versions = pairs.faces(), {}
    clean = faces.images[pairs.probe]
    made = [(noisy(index), _noise(clean, rows.id, (seed, index))) for index in range(draws)]
    made += [(HALF_PIXEL, moved(clean, halves=1)), (PIXEL, moved(clean, halves=2))]
    for name, pixels in made:
        of = f" of {seed} for " if name.startswith("noise") else ""
        recipes = [f"{name}{of}{row if of else ''}" for row in rows.id]
        everywhere = torch.ones_like(pixels[:, 0], dtype=torch.bool)
        faces, image = with_made(faces, pairs.probe, pixels, everywhere, recipes)
        versions[name] = replace(rows, image=image, source=image[:, None], side=name)
    return Table(faces, rows, versions)


def moved(images: Tensor, *, halves: int) -> Tensor:
    """Return (N, 3, H, W) uint8 images moved to the right by so many half pixels, 1 or 2.

    >>> moved(torch.tensor([[[[10, 20, 40]]]], dtype=torch.uint8), halves=1).flatten().tolist()
    [10, 15, 30]
    """
    left = pad(images.float(), (1, 0, 0, 0), mode="replicate")[..., :-1].long()
    other = images.long() if halves == 1 else left
    return ((left + other + 1) // 2).to(torch.uint8)


def _noise(images: Tensor, ids: tuple[str, ...], address: tuple[int, int]) -> Tensor:
    """Add noise to (N, 3, H, W) uint8 images; that of a row depends on its content alone."""
    seed, index = address
    shape = tuple(images.shape[1:])
    drawn = [
        np.rint(generator_of(seed, "input noise", index, row).normal(0.0, SIGMA, shape))
        for row in ids
    ]
    noise = torch.from_numpy(np.stack(drawn)).long()
    return (images.long() + noise).clamp_(0, 255).to(torch.uint8)
