"""Peak memory of an explainer depends on its chunks, not on how many pairs it is handed."""

import subprocess
import sys

import pytest

from fxeval.explainers import SHIPPED

SMALL = {
    "corrrise": "masks=40",
    "fggb": "operating_threshold=0.3",
    "minplus": "step=28, rounds=2",
    "rise": "masks=40",
    "srise": "masks=40",
    "xssab": "operating_threshold=0.3",
}
NETWORKS = {"rollout": "mini_vit"}
MEASURE = """
import resource, sys, torch, numpy as np
from fxeval.contracts import Gallery
from fxeval.explainers import shipped
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.models import ARCHITECTURES, build
from fxeval.models.loading import TorchFaceModel

torch.set_num_threads(1)
network = build(ARCHITECTURES[{network!r}].factory).eval()
model = TorchFaceModel("it", ARCFACE_112, network, "cosine", 0.3, "")
explainer = shipped({id!r})({params})

def explain(n):
    generator = torch.Generator().manual_seed(0)
    probes, references = torch.rand((2, n, 3, 112, 112), generator=generator)
    given = dict(contrast=references.roll(1, 0)) if "contrast" in explainer.traits.needs else dict()
    if "gallery" in explainer.traits.needs:
        embeddings = torch.cat([model.embed(part) for part in references.split(16)])
        given["gallery"] = Gallery(embeddings, torch.arange(n), torch.arange(n))
    explainer.explain(
        model, probes, references, generator=np.random.default_rng(0), **given
    )

explain({n})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
explain(4 * {n})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
# Their chunks are of masked images or of copies, and full with few pairs.
SOON_FULL = {
    "corrrise",
    "fggb",
    "integrated_gradients",
    "minplus",
    "occlusion",
    "rise",
    "smoothgrad",
}
SOON_FULL |= {"rollout", "srise", "xface"}
# Pairs and their maps, in float64 and some copies of each: what depends on N has to be held.
PER_PAIR_KIB = 6 * 2 * 3 * 112 * 112 * 4 / 1024
SLACK_KIB = 60 * 1024  # of the allocator


@pytest.mark.slow
@pytest.mark.parametrize("id", sorted(set(SHIPPED) - {"precomputed"}))
def test_four_times_as_many_pairs_need_no_more_than_their_images(id):
    n = (2 if id == "xface" else 4) if id in SOON_FULL else 64  # all chunks are full
    code = MEASURE.format(
        id=id, params=SMALL.get(id, ""), n=n, network=NETWORKS.get(id, "mini_resnet")
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    grown = int(run.stdout)
    assert grown <= 3 * n * PER_PAIR_KIB + SLACK_KIB, f"{id}: {grown / 1024:.0f} MiB more"
