"""Draw what exactly k pixels and a percentile occlude, and measure what models say then.

    python docs/percentile_selection.py docs/percentile-selection.png

The picture shows a rendered face: as it is, and without its most salient 1 % by Grad-CAM and by a
map of zeros, each chosen both ways. The table that is printed holds the true match rates of the
bundled networks, which ``docs/method.md`` shows.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fxeval
from fxeval.contracts import FaceModel
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.explainers.grad_cam import GradCAM
from fxeval.fixtures.models import CARDS
from fxeval.functional.map_similarity import norm01
from fxeval.functional.ranking import count, counts_at_percentile, ranks
from fxeval.models.from_card import load_card

NETWORKS = ("mini_resnet", "mini_inception", "mini_mobile", "mini_vit")
FRACTION, SEED, PAIRS, GAP = 0.01, 7, 60, 8


@dataclass(frozen=True)
class Zeros:
    """An explainer without an opinion: what a method with dead gradients returns."""

    name: str = "zeros"

    def explain(
        self, model: FaceModel, probes: Tensor, references: Tensor, *,
        contrast: Tensor | None = None, generator: np.random.Generator,
    ) -> Tensor:  # fmt: skip
        """Return a map of zeros for each probe."""
        return torch.zeros_like(probes[:, 0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the picture, a PNG file")
    options = parser.parse_args(arguments)
    image, shares = picture()
    _, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    options.out.write_bytes(data.tobytes())
    lines = [f"occluded: {', '.join(f'{share:.1%}' for share in shares)}", *table()]
    sys.stdout.write("\n".join(lines) + "\n")


def table() -> list[str]:
    """Return the lines of the table of true match rates, in Markdown."""
    rows = [(f"`{network}`", *(f"{rate:.2f}" for rate in rates(network))) for network in NETWORKS]
    head = ("network", "unoccluded", "zeros, exactly k", "zeros, by percentile")
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def picture() -> tuple[NDArray[np.uint8], list[float]]:
    """Return the row of faces, and the share of pixels that is occluded in each but the first."""
    pack = FacePack(CARDS.parent / "rendered_faces")
    listing = pack.listing()
    person = listing.probe_identity[0]
    ids = dict.fromkeys(
        image
        for images, people in (
            (listing.probe, listing.probe_identity),
            (listing.reference, listing.reference_identity),
        )
        for image, who in zip(images, people, strict=True)
        if who == person
    )
    face, *others = pack.images([*ids], ARCFACE_112)
    maps = torch.cat([identity_map(torch.stack(others)), torch.zeros(1, *face.shape[1:])])
    order = ranks(maps, [SEED, SEED])
    exact = torch.full((2,), count(FRACTION, order.shape[1]))
    by_percentile = torch.from_numpy(counts_at_percentile(maps, FRACTION))
    shown, shares = [face], []
    for map_ in (0, 1):
        for k in (exact[map_], by_percentile[map_]):
            hidden = (order[map_] < k).view(face.shape[1:])
            shown.append(face * ~hidden)
            shares.append(float(hidden.double().mean()))
    return _row(shown), shares


def identity_map(faces: Tensor) -> Tensor:
    """Return (1, H, W): the mean Grad-CAM map of images of one person, each against the next."""
    model = load_card(CARDS / "mini_resnet.yaml").model
    images = faces.float() / 255
    generator = np.random.default_rng(SEED)
    found = GradCAM().explain(model, images, images.roll(-1, dims=0), generator=generator)
    return norm01(found.positive)[0].mean(dim=0, keepdim=True).float()


def rates(network: str) -> list[float]:
    """Return the shares of mated pairs that a network accepts: clean, exactly k, by percentile."""
    found = []
    for legacy in (False, True):
        cell = fxeval.evaluate(
            network, Zeros(), "rendered", check="generalisability.occlusion", n=PAIRS, seed=SEED,
            fractions=[FRACTION], controls=["unoccluded"], legacy_percentile=legacy,
        ).cells[0]  # fmt: skip
        of = {one.map: one.value for one in cell.estimates if one.metric == "occlusion_tmr"}
        found += [of["explainer"]] if legacy else [of["control.unoccluded"], of["explainer"]]
    return [float(value) for value in found if value is not None]


def _row(faces: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Return faces side by side, on white."""
    tiles = [face.numpy().transpose(1, 2, 0) for face in faces]
    gap = np.full((tiles[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)][:-1]
    return np.ascontiguousarray(np.hstack(parts).astype(np.uint8))


if __name__ == "__main__":
    main()
