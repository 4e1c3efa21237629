"""Write what mini_resnet gives into a file: embeddings, and maps of the quickstart."""

import sys
from pathlib import Path

import numpy as np

import fxeval.fixtures.models as models
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.explainers.grad_cam import GradCAM
from fxeval.explainers.s_rise import SRISE

PAIRS = 8


def main(path: Path) -> None:
    """Explain the first pairs of the bundled list; each map is scaled by its largest value."""
    model = models.shipped("mini_resnet", models.CARDS).load()
    source = FacePack(Path(models.__file__).parent / "data" / "rendered_faces")
    listing = source.listing()
    probes, references = (
        source.images(ids[:PAIRS], model.crop).float() / 255
        for ids in (listing.probe, listing.reference)
    )
    maps = []
    for explainer in (GradCAM("stage4"), SRISE(masks=300, coverage_corrected=True)):
        generator = np.random.Generator(np.random.PCG64(0))
        found = explainer.explain(model, probes, references, generator=generator).positive.numpy()
        maps.append(found / found.max(axis=(1, 2), keepdims=True))
    np.savez(path, embeddings=model.embed(probes).numpy(), maps=np.stack(maps))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
