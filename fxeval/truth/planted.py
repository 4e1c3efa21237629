"""A face model whose true maps are known.

The embedding is a sum over cells of fixed vectors, weighted by what the image shows in the cell. So
what a cell does to a similarity can be computed, not judged. ``python -m fxeval.truth`` prints how
near to it all shipped explainers and the controls come.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import (
    BROKEN_STATES,
    Crop,
    FaceModel,
    Gallery,
    Images,
    Maps,
    SaliencyMaps,
    SimilarityKind,
)  # fmt: skip
from fxeval.functional.map_similarity import FloatArray, spearman
from fxeval.functional.similarity import similarity
from fxeval.hooks.returned import is_constant
from fxeval.models.loading import TorchFaceModel
from fxeval.seeding import generator_of
from fxeval.verification.figures import point_figures

CELLS = 8  # cells along each side
CELL = 14  # pixels along each side of a cell
DIM = 64  # of the embedding
ENROLLED = 64  # identities of the gallery, and of the faces that centre and calibrate the model
SIDE = CELLS * CELL
_CHANNELS = 8
_GAIN = 0.5  # spread of ln(strength) over cells and channels: few strong, many weak
_GRAIN = 12  # knots of the noise along a side: a little more than a cell apart
_OWN = 0.45  # share of a face that its identity does not determine
_DARKNESS = 4.0  # exponent: most of a face is dark, so that a blackened cell is like its neighbours


class AdditiveFace(nn.Module):
    """(N, 3, 112, 112) RGB in [0, 1] -> (N, 64): a sum over 8 x 8 cells.

    ``cells`` computes, for each cell by itself, the brightness of its three colours and five
    contrasts between its halves (up, down, left, right, crosswise); ``head`` adds up the cells'
    vectors and centres the sum. No bias before the head: a black cell adds nothing.

    Args:
        seed: Of the cells' vectors.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
            self.cells = nn.Conv2d(3, _CHANNELS, CELL, CELL, bias=False)
            self.head = nn.Linear(_CHANNELS * CELLS**2, DIM)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        generator = generator_of("planted_vectors", seed)
        vectors = generator.standard_normal((DIM, _CHANNELS, CELLS**2)) / math.sqrt(DIM)
        strengths = np.exp(generator.normal(0.0, _GAIN, (_CHANNELS, CELLS**2)))
        with torch.no_grad():
            self.cells.weight.copy_(_filters())
            self.head.weight.copy_(torch.from_numpy(vectors * strengths).flatten(1))
            self.head.bias.zero_()
            self.head.bias.copy_(-self(_enrolled(seed, images_each=1)[:, 0]).mean(dim=0))

    def forward(self, images: Images) -> Tensor:
        """Embed images; the normalisation is part of the network, and there is none."""
        embeddings: Tensor = self.head(self.flatten(self.relu(self.cells(images))))
        return embeddings


@dataclass(frozen=True, eq=False)
class PlantedPairs:
    """Mated pairs of textures, no two of one identity, with nonmates and a gallery.

    Attributes:
        probes: (N, 3, 112, 112) float32 in [0, 1], multiples of 1/255.
        references: (N, 3, 112, 112), of the same identity as the probe.
        nonmates: (N, 3, 112, 112), of another identity.
        gallery: The references and 64 others, embedded.
    """

    probes: Images
    references: Images
    nonmates: Images
    gallery: Gallery


def planted_model(seed: int = 0, kind: SimilarityKind = "cosine") -> TorchFaceModel:
    """Return the additive model with the operating threshold of highest accuracy.

    Args:
        seed: Of the weights, and of the 64 identities that centre and calibrate it.
        kind: Its native similarity.
    """
    module = AdditiveFace(seed).eval()
    with torch.no_grad():
        first, second = (module(images) for images in _enrolled(seed, images_each=2).unbind(1))
    mated = similarity(kind, first, second)
    nonmated = similarity(kind, first, second.roll(1, 0))
    is_mated = np.arange(2 * ENROLLED) < ENROLLED
    values = torch.cat([mated, nonmated]).numpy()
    threshold = point_figures(kind, values, is_mated)["tau_acc"]
    weights = b"".join(value.numpy().tobytes() for value in module.state_dict().values())
    digest = hashlib.sha256(weights).hexdigest()
    crop = Crop("planted", (SIDE, SIDE), ())
    return TorchFaceModel("planted", crop, module, kind, threshold, digest)


def planted_pairs(model: FaceModel, n: int, seed: int = 0) -> PlantedPairs:
    """Return n pairs of made-up faces; a pair does not depend on how many there are.

    Args:
        model: Embeds the gallery.
        n: Number of pairs, at least 2.
        seed: Of the images.
    """
    if n < 2:
        raise ValueError(f"planted_pairs: expected at least 2 pairs, got {n}.")
    images = torch.stack([textures(2, seed, identity) for identity in range(n)])
    probes, references = images.unbind(1)
    enrolled = torch.cat([references, _enrolled(seed, images_each=1)[:, 0]])
    identity = torch.arange(len(enrolled))
    gallery = Gallery(model.embed(enrolled), identity, identity[:n])
    return PlantedPairs(probes, references, references.roll(1, 0), gallery)


def textures(n: int, *address: int | str) -> Images:
    """Return n (3, 112, 112) images of one identity: smooth, mostly dark noise."""
    noise = generator_of("planted_texture", *address).random((1 + n, 3, _GRAIN, _GRAIN))
    fields = F.interpolate(
        torch.from_numpy(noise), (SIDE, SIDE), mode="bicubic", align_corners=False
    )
    mixed = (1 - _OWN) * fields[:1] + _OWN * fields[1:]
    spread, mean = torch.std_mean(mixed, dim=(2, 3), keepdim=True)
    bright: Tensor = torch.special.ndtr((mixed - mean) / spread) ** _DARKNESS
    return (bright * 255).round().div(255).float()


def contributions(module: AdditiveFace, probes: Images, references: Images) -> Tensor:
    """Return, exactly, what each cell of a probe adds to the inner product of the raw embeddings.

    ``e(probe) . e(reference) = bias . e(reference) + sum over cells of the contribution``.

    Returns:
        (N, 8, 8) float64, negative where a cell speaks against the reference.
    """
    with torch.no_grad():
        shown = module.relu(module.cells(probes)).double()  # (N, C, 8, 8)
        vectors = module.head.weight.double().view(DIM, _CHANNELS, CELLS, CELLS)
        target = module(references).double()
        added: Tensor = torch.einsum("nkij,dkij,nd->nij", shown, vectors, target)
        return added


def truth(
    model: FaceModel, probes: Images, references: Images, contrast: Images | None = None
) -> Tensor:
    """Return the drop of the native similarity when a cell of the probe is blackened.

    One cell at a time, by brute force: 64 forward passes a probe.

    Args:
        model: Asked for embeddings only.
        probes: (N, 3, 112, 112) in [0, 1].
        references: (N, 3, 112, 112).
        contrast: (N, 3, 112, 112) nonmates: then the drop of the reference's similarity minus that
            of the contrast's.

    Returns:
        (N, 8, 8) float64, larger = more important for the similarity.
    """
    targets = model.embed(references)
    against = None if contrast is None else model.embed(contrast)
    kept = torch.eye(CELLS**2).view(-1, 1, CELLS, CELLS).logical_not()
    kept = kept.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    drops = []
    for row, probe in enumerate(probes):
        clean, blackened = model.embed(probe[None]), model.embed(probe * kept)

        def drop(target: Tensor, clean: Tensor = clean, blackened: Tensor = blackened) -> Tensor:
            before = similarity(model.similarity, clean, target[None])
            return before - similarity(model.similarity, blackened, target.expand_as(blackened))

        found = drop(targets[row])
        drops.append(found if against is None else found - drop(against[row]))
    return torch.stack(drops).view(-1, CELLS, CELLS)


def rank_correlation(maps: SaliencyMaps | Maps, truth: Tensor) -> FloatArray:
    """Return Spearman's correlation of each map, averaged in cells, with the truth.

    Args:
        maps: (N, H, W), H and W divisible by the number of cells. Of a signed method, positive
            minus negative.
        truth: (N, gh, gw).

    Returns:
        (N,) float64 in [-1, 1]; NaN for maps that are constant, not finite or of a broken state.
    """
    if isinstance(maps, Tensor):
        maps = SaliencyMaps(maps)
    evidence = maps.positive if maps.negative is None else maps.positive - maps.negative
    rows, columns = evidence.shape[1] // truth.shape[1], evidence.shape[2] // truth.shape[2]
    means = F.avg_pool2d(evidence[:, None].double(), (rows, columns)).flatten(1)
    has_order = [
        state not in BROKEN_STATES and bool(map_.isfinite().all()) and not is_constant(map_)
        for state, map_ in zip(maps.states, evidence, strict=True)
    ]
    found = np.full(len(evidence), np.nan)
    found[has_order] = spearman(means[has_order], truth.flatten(1)[has_order])
    return found


def _filters() -> Tensor:
    """Return (8, 3, 14, 14): mean of each colour, then five contrasts of the mean luminance."""
    flat = torch.ones(CELL)
    step = torch.cat([torch.ones(CELL // 2), -torch.ones(CELL // 2)])
    down, across, crosswise = (
        torch.outer(*sides) for sides in ((step, flat), (flat, step), (step, step))
    )
    colours = torch.eye(3)[:, :, None, None].expand(3, 3, CELL, CELL)
    contrasts = torch.stack([down, across, -down, -across, 2 * crosswise]) * 1.5
    return torch.cat([colours, contrasts[:, None].expand(-1, 3, -1, -1) / 3]) * 3 / CELL**2


def _enrolled(seed: int, *, images_each: int) -> Tensor:
    """Return (64, images_each, 3, 112, 112), identities that no pair has."""
    names = range(ENROLLED)
    return torch.stack([textures(images_each, seed, "enrolled", name) for name in names])
