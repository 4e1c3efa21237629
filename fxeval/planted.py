"""A face model whose true maps are known, and how near to them each explainer comes.

The embedding is a sum over cells of fixed vectors, weighted by what the image shows in the cell. So
what a cell does to a similarity can be computed, not judged. ``python -m fxeval.planted`` prints a
table of all shipped explainers and of the controls.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.admission import is_constant
from fxeval.contracts import (
    BROKEN_STATES,
    Crop,
    Explainer,
    FaceModel,
    Gallery,
    Images,
    Maps,
    SaliencyMaps,
    SimilarityKind,
    traits_of,
)  # fmt: skip
from fxeval.errors import FxevalError
from fxeval.explainers import SHIPPED, shipped
from fxeval.explainers.controls import CONTROLS, ControlInputs, control_maps
from fxeval.explainers.levels import pair_maps, triplet_maps
from fxeval.map_similarity import FloatArray, spearman
from fxeval.models.loading import TorchFaceModel
from fxeval.results import Estimate
from fxeval.seeding import generator_of, seed_of
from fxeval.similarity import similarity, tau_acc
from fxeval.statistics.estimate import mean_estimate

CELLS = 8  # cells along each side
CELL = 14  # pixels along each side of a cell
DIM = 64  # of the embedding
ENROLLED = 64  # identities of the gallery, and of the faces that centre and calibrate the model
_SIDE = CELLS * CELL
_CHANNELS = 8
_GAIN = 0.5  # spread of ln(strength) over cells and channels: few strong, many weak
_GRAIN = 12  # knots of the noise along a side: a little more than a cell apart
_OWN = 0.45  # share of a face that its identity does not determine
_DARKNESS = 4.0  # exponent: most of a face is dark, so that a blackened cell is like its neighbours

# What the table shows of a shipped explainer, if it is not the default alone. At its default,
# minplus takes 46,000 forward passes a pair; precomputed reads files.
SETTINGS: Mapping[str, tuple[Mapping[str, Any], ...]] = MappingProxyType(
    {
        "srise": ({}, {"coverage_corrected": True}),
        "rise": ({}, {"coverage_corrected": True}),
        "minplus": ({"step": 8},),
        "ebp": ({}, {"variant": "contrastive"}),
        "precomputed": (),
    }
)


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
    threshold = tau_acc(torch.cat([mated, nonmated]), [True] * ENROLLED + [False] * ENROLLED)
    weights = b"".join(value.numpy().tobytes() for value in module.state_dict().values())
    digest = hashlib.sha256(weights).hexdigest()
    crop = Crop("planted", (_SIDE, _SIDE), ())
    return TorchFaceModel("planted", crop, module, kind, threshold, digest)


def planted_pairs(model: FaceModel, n: int, seed: int = 0) -> PlantedPairs:
    """Return n pairs of faces that nobody has; a pair does not depend on how many there are.

    Args:
        model: Embeds the gallery.
        n: Number of pairs, at least 2.
        seed: Of the images.
    """
    if n < 2:
        raise ValueError(f"planted_pairs: at least 2 pairs expected, got {n}.")
    images = torch.stack([textures(2, seed, identity) for identity in range(n)])
    probes, references = images.unbind(1)
    enrolled = torch.cat([references, _enrolled(seed, images_each=1)[:, 0]])
    identity = torch.arange(len(enrolled))
    gallery = Gallery(model.embed(enrolled), identity, identity[:n])
    return PlantedPairs(probes, references, references.roll(1, 0), gallery)


def textures(n: int, *address: int | str) -> Images:
    """Return n (3, 112, 112) images of the identity of that address: smooth, mostly dark noise."""
    noise = generator_of("planted_texture", *address).random((1 + n, 3, _GRAIN, _GRAIN))
    fields = F.interpolate(
        torch.from_numpy(noise), (_SIDE, _SIDE), mode="bicubic", align_corners=False
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
    """Return by how much the native similarity drops when a cell of the probe is blackened.

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


@dataclass(frozen=True)
class PlantedRow:
    """How near an explainer or a control comes to the truth.

    Attributes:
        name: Id.
        correlation: Mean Spearman correlation with the truth; maps without an order count 0. None
            if no map could be made.
        with_magnitude: The same with the size of the truth, whatever its sign: the fair measure
            of maps that do not tell for from against.
        degenerate: Maps without an order.
        broken: Pairs that have no map; they are left out of the means.
        forwards: Images embedded per pair, with or without gradients.
        note: Why there is no map.
    """

    name: str
    correlation: Estimate | None
    with_magnitude: Estimate | None
    degenerate: int = 0
    broken: int = 0
    forwards: float = 0.0
    note: str = ""


def planted_table(
    n: int = 24, *, explainers: Mapping[str, Explainer] | None = None, seed: int = 0
) -> list[PlantedRow]:
    """Measure explainers and controls on n planted pairs.

    Args:
        n: Number of pairs, each of another identity.
        explainers: By name; None = all shipped ones as in ``SETTINGS``. Those that need a contrast
            get nonmates, and are measured against the truth with that contrast.
        seed: Of model, images and mask banks.
    """
    if explainers is None:
        explainers = _shipped()
    model = planted_model(seed)
    pairs = planted_pairs(model, n, seed)
    plain = truth(model, pairs.probes, pairs.references)
    discriminative = truth(model, pairs.probes, pairs.references, pairs.nonmates)
    rows, forwards = [], list[int]()

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        forwards.append(len(inputs[0]))

    model.module.register_forward_pre_hook(count)
    for name, explainer in explainers.items():
        forwards.clear()
        try:
            maps = _maps(explainer, model, pairs, seed)
        except FxevalError as error:
            rows.append(PlantedRow(name, None, None, broken=n, note=str(error)))
            continue
        is_contrastive = "contrast" in traits_of(explainer).needs
        expected = discriminative if is_contrastive else plain
        rows.append(_row(name, maps, expected, sum(forwards) / n))
    for name, made in _references(model, pairs, seed):
        rows.append(_row(name, SaliencyMaps(made), plain, 0.0))
    return rows


def as_markdown(rows: list[PlantedRow]) -> str:
    """Return the table in Markdown."""
    head = "| maps | Spearman with the truth | with its magnitude | no order | no map | forwards |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        if row.correlation is None or row.with_magnitude is None:
            lines.append(f"| {row.name} | {row.note} | | | {row.broken} | |")
            continue
        lines.append(
            f"| {row.name} | {_spoken(row.correlation)} | {_spoken(row.with_magnitude)} | "
            f"{row.degenerate} | {row.broken} | {row.forwards:,.0f} |"
        )
    return "\n".join(lines) + "\n"


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


def _shipped() -> dict[str, Explainer]:
    """Return the shipped explainers by their ids and settings."""
    found = {}
    for id in SHIPPED:
        for params in SETTINGS.get(id, ({},)):
            name = " ".join([id, *(f"{name}={value}" for name, value in params.items())])
            found[name] = shipped(id)(**params)
    return found


def _maps(explainer: Explainer, model: FaceModel, pairs: PlantedPairs, seed: int) -> SaliencyMaps:
    generator, gallery = generator_of("planted_maps", seed), pairs.gallery
    given = (explainer, model, pairs.probes, pairs.references)
    if "contrast" in traits_of(explainer).needs:
        return triplet_maps(*given, pairs.nonmates, generator=generator, gallery=gallery)
    return pair_maps(*given, generator=generator, gallery=gallery)


def _references(
    model: TorchFaceModel, pairs: PlantedPairs, seed: int
) -> Iterator[tuple[str, Maps]]:
    """Yield what explainers are to be set beside: the exact first-order answer, and controls."""
    n = len(pairs.probes)
    module = model.module
    assert isinstance(module, AdditiveFace)
    exact = contributions(module, pairs.probes, pairs.references)
    pixels = exact.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    yield "contribution to the inner product", pixels.float()
    inputs = ControlInputs(
        pairs.probes, [seed_of("planted_control", seed, row) for row in range(n)], range(n)
    )
    for name, control in CONTROLS.items():
        if not control.depends_on_explainer:
            yield f"control.{name}", control_maps(name, inputs)
    yield "a constant", torch.ones((n, _SIDE, _SIDE))


def _row(name: str, maps: SaliencyMaps, truth: Tensor, forwards: float) -> PlantedRow:
    usable = np.array([state not in BROKEN_STATES for state in maps.states])
    if not usable.any():
        return PlantedRow(name, None, None, broken=len(usable), note=maps.reasons[0])

    def estimate(expected: Tensor) -> Estimate:
        found = np.nan_to_num(rank_correlation(maps, expected)[usable])
        return mean_estimate(found, np.flatnonzero(usable), 0.95)

    without_order = np.isnan(rank_correlation(maps, truth)[usable])
    return PlantedRow(
        name, estimate(truth), estimate(truth.abs()),
        int(without_order.sum()), int((~usable).sum()), forwards,
    )  # fmt: skip


def _spoken(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


if __name__ == "__main__":
    sys.stdout.write(as_markdown(planted_table()))
