"""A small world for whole runs: a conftest with a model, pairs and explainers that are known."""

import json

CONFTEST = '''
import numpy as np
import pytest
import torch

from fxeval.contracts import Crop, ExplainerTraits, PairListing, SaliencyMaps
from fxeval.models.loading import TorchFaceModel
from fxeval.tests.subjects import CROP, ConvNet


@pytest.fixture(scope="session")
def model_tiny():
    return TorchFaceModel("tiny", CROP, ConvNet(), "cosine", 0.5, "a" * 64)


class Memory:
    name = "memory"
    banner = "Made up: says nothing about anybody."

    def __init__(self, n=40, missing=()):
        self.n, self.missing = n, missing

    def listing(self):
        ids = [str(i) for i in range(self.n)]
        return PairListing(
            tuple(f"{i}a" for i in ids), tuple(f"{i}b" for i in ids), (True,) * self.n,
            tuple(ids), tuple(ids),
        )

    def images(self, image_ids, crop):
        from fxeval.errors import DataContractError
        bad = [i for i in image_ids if i in self.missing]
        if bad:
            raise DataContractError(f"images {bad}: unreadable. Restore the files.")
        def face(image_id):
            identity = np.random.default_rng(int(image_id[:-1]))
            noise = np.random.default_rng([int(image_id[:-1]), ord(image_id[-1])])
            height, width = crop.size
            shape = (3, height, width)
            pixels = identity.normal(128, 60, shape) + noise.normal(0, 15, shape)
            return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
        return torch.stack([face(i) for i in image_ids])


@pytest.fixture(scope="session")
def pairs_memory():
    return Memory()


@pytest.fixture(scope="session")
def pairs_broken():
    return Memory(missing=("3a", "7b"))


class Explain:
    def __init__(self, function):
        self.function = function

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.function(model, probes, references, generator)


@pytest.fixture
def explainer_constant():
    return Explain(lambda m, p, r, g: torch.full(p[:, 0].shape, 0.5))


@pytest.fixture
def explainer_noise():
    return Explain(lambda m, p, r, g: torch.from_numpy(g.random(tuple(p[:, 0].shape))))


@pytest.fixture
def explainer_centre():
    def centre(m, p, r, g):
        line = torch.exp(-((torch.arange(p.shape[-1]) - (p.shape[-1] - 1) / 2) ** 2) / 32)
        return torch.outer(line, line).expand(len(p), -1, -1)
    return Explain(centre)


@pytest.fixture
def explainer_nan():
    return Explain(lambda m, p, r, g: torch.full(p[:, 0].shape, torch.nan))


@pytest.fixture
def explainer_shape():
    return Explain(lambda m, p, r, g: torch.rand(len(p), 7, 7))


@pytest.fixture
def explainer_raises():
    def fail(m, p, r, g):
        raise RuntimeError("out of ideas, see /home/ann/notes.txt")
    return Explain(fail)


@pytest.fixture
def explainer_vandal():
    def vandal(m, p, r, g):
        with torch.no_grad():
            m.module.fc.weight.mul_(0)
        return p.mean(1)
    return Explain(vandal)


def occlusion(m, p, r, g, side=4):
    """Occlusion sensitivity: grey out one cell after another."""
    from fxeval.functional.similarity import similarity
    target, maps = m.embed(r), torch.zeros_like(p[:, 0])
    whole = similarity("cosine", m.embed(p), target)
    for y in range(0, p.shape[-2], side):
        for x in range(0, p.shape[-1], side):
            hidden = p.clone()
            hidden[:, :, y:y + side, x:x + side] = p.mean((2, 3), keepdim=True)
            drop = whole - similarity("cosine", m.embed(hidden), target)
            maps[:, y:y + side, x:x + side] = drop[:, None, None]
    return maps


@pytest.fixture
def explainer_occlusion():
    return Explain(occlusion)


class Picky(Explain):
    traits = ExplainerTraits(
        needs={"gradients", "contrast", "gallery"}, source="Nobody, nowhere, p. 1"
    )

    def unsupported(self, model):
        return None if model.name == "tiny" else "it has a sigmoid"

    def explain(self, model, probes, references, *, contrast=None, generator, gallery=None):
        assert contrast.shape == probes.shape and not torch.equal(contrast, references)
        assert len(gallery.probe_identity) == len(probes) and len(gallery.embeddings) == 64
        maps = occlusion(model, probes, references, generator)
        return SaliencyMaps(maps, maps.neg().clamp(min=0), diagnostics={
            "negative_activation_share": torch.linspace(0, 1, len(probes))
        })


@pytest.fixture
def explainer_picky():
    return Picky(None)


@pytest.fixture(scope="session")
def model_sigmoid():
    return TorchFaceModel("sigmoid", CROP, ConvNet(), "cosine", 0.5, "a" * 64)


@pytest.fixture
def model_absent():
    from fxeval.errors import ModelContractError
    raise ModelContractError("weights.safetensors: not there. Download them first.")


@pytest.fixture
def model_nan():
    net = ConvNet()
    with torch.no_grad():
        net.fc.weight.fill_(torch.nan)
    return TorchFaceModel("nan", CROP, net, "cosine", 0.5, "b" * 64)


@pytest.fixture
def model_bug():
    raise KeyError("a bug in the conftest")
'''

SUITE = """\
fxeval: 1
suite: small
defaults: {seed: 7}
models: [tiny]
explainers: [EXPLAINERS]
pairs: [{use: memory, n: 32}]
checks:
  - id: sanity
    kind: sanity.two_sided
    redraws: 1
    limits: # half a pixel aside, faces of independent pixels are other faces: repeat is near 0
      - {metric: repeat_picture, at_least: 0.5}
      - {metric: change, at_least: -0.5}
      - {metric: nudge, at_least: 0.5}
  - id: deletion-insertion
    kind: faithfulness.deletion_insertion
    steps: 8
    fills: [mean]
    controls: [random_blobs, random_pixels]
    limits:
      - {metric: deletion_auc, better_than: control.random_blobs}
      - {metric: insertion_auc, better_than: control.random_blobs}
      - {metric: insertion_auc, better_than: control.random_pixels, severity: info}
"""


def the_record(world):
    (path,) = world.path.glob("reports/*/small.json")
    return json.loads(path.read_text())


def cells(record):
    return {cell["id"]: cell for cell in record["cells"]}


def rows(world):
    found = [json.loads(line) for path in sorted(world.path.glob("reports/*/rows*.jsonl"))
             for line in path.read_text().splitlines()]  # fmt: skip
    return sorted(found, key=lambda row: (row["cell"], row["row"]))
