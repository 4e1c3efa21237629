"""Deletion, insertion and Grad-CAM agree with torchcam, Quantus and pytorch-grad-cam.

``.ci/oracles`` installs these peers; a test whose peer is absent skips. Both sides get the same
images, maps and steps, and our side runs the real way: forward pool, ``trace``, ``area``.

On a map without ties all of them remove the same pixels. On ties they don't: torchcam sorts stably
(top of the image first), Quantus leaves it to an unstable ``numpy.argsort``, fxeval asks a seeded
hash. So on ties the peer's order is given to fxeval as ranks and must lead to the same numbers; and
fxeval's own order must differ from the peer's inside the ties only, and there really differ.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxeval.contracts import Crop, Fill, Pairs
from fxeval.explainers.cam import GradCAM
from fxeval.forward_pool import ForwardPool
from fxeval.metrics.evidence import Evidence
from fxeval.metrics.removal_curves import Curves, Perturbed, area, trace
from fxeval.ranking import ranks
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

pytestmark = pytest.mark.oracle

SIZE = (32, 8)  # not square: exchanged axes must show
PIXELS = 32 * 8
PAIRS = make_pairs(5, crop=Crop("tall", SIZE, ()), seed=1)
NET = ConvNet(seed=3).eval()
SEEDS = [101, 102, 103, 104, 105]
STEPS = [16, 64]  # divisors: torchcam and Quantus take steps of ceil(pixels / steps)
TOLERANCE = 1e-6


def _maps() -> dict[str, Tensor]:
    generator = np.random.default_rng(7)
    distinct = np.stack([generator.permutation(PIXELS) for _ in range(5)]) / (PIXELS - 1.0)
    kinds = {
        "distinct": distinct,
        "72% zeros": np.where(distinct < 0.72, 0.0, distinct),  # as a ReLU leaves them
        "five levels": np.floor(distinct * 4.999),
        "constant": np.concatenate([distinct[:2], np.full((3, PIXELS), 0.5)]),
    }
    return {
        kind: torch.tensor(maps, dtype=torch.float32).reshape(-1, *SIZE)
        for kind, maps in kinds.items()
    }


MAPS = _maps()
each_map = pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS.keys())
each_fill = pytest.mark.parametrize("fill", ["black", "mean"])


def follow(order: Tensor, steps: int, fill: Fill) -> Curves:
    """Trace both curves through a forward pool whose batches mix pairs and steps."""
    model, pool = CountingModel(NET), ForwardPool(batch_size=50)

    def absent(*_: object) -> None:
        raise AssertionError("a curve of given ranks needs no map and emits no row")

    evidence = Evidence(
        pairs=PAIRS,
        similarity="cosine",
        operating_threshold=None,
        seed=0,
        clean=lambda: pool.clean(model, PAIRS),
        embed=lambda wanted: pool.embed(model, PAIRS, wanted),
        explain=absent,
        redraw=absent,
        emit=absent,
    )
    return trace(Perturbed(PAIRS.probe, PAIRS.reference, order, fill), steps, evidence)


def unit_images(rows: Tensor, pairs: Pairs = PAIRS) -> Tensor:
    return pairs.images[rows].float() / 255


def unit_embeddings(images: Tensor) -> Tensor:
    with torch.no_grad():
        return F.normalize(NET(images).double())


def ranks_of(order: np.ndarray) -> Tensor:
    """Turn pixels in order of removal, (N, n), into the rank of each pixel."""
    return torch.from_numpy(np.argsort(order, axis=1).astype(np.int32))


def order_of(pixel_ranks: Tensor) -> np.ndarray:
    return np.argsort(pixel_ranks.numpy(), axis=1)


def tied(maps: Tensor) -> bool:
    return any(len(map_.unique()) < PIXELS for map_ in maps)


def assert_orders_differ_inside_ties_only(maps: Tensor, theirs: Tensor) -> None:
    """Both orders give up the values in one sequence, but tied pixels in another one."""
    ours = ranks(maps, SEEDS)
    values = maps.flatten(1).numpy()
    np.testing.assert_array_equal(
        np.take_along_axis(values, order_of(ours), axis=1),
        np.take_along_axis(values, order_of(theirs), axis=1),
    )
    for map_, our, their in zip(maps, ours, theirs, strict=True):
        assert torch.equal(our, their) == (not tied(map_[None]))


# torchcam


class GivenMaps:
    """Stands in for torchcam's extractor: it hands over maps that are already there."""

    def __init__(self, maps: Tensor) -> None:
        self.model = NET
        self._maps = maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        return [self._maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield


@pytest.fixture
def torchcam() -> ModuleType:
    return pytest.importorskip("torchcam.metrics", reason="torchcam is absent: run .ci/oracles")


def torchcam_areas(torchcam: ModuleType, maps: Tensor, steps: int, fill: Fill) -> np.ndarray:
    """Areas under deletion and insertion of every pair, (N, 2); torchcam itself returns means."""
    baseline = {"black": None, "mean": lambda images: images.mean((2, 3), keepdim=True)}[fill]
    references = unit_embeddings(unit_images(PAIRS.reference))
    areas = []
    for row, reference in enumerate(references):
        metric = torchcam.DeletionInsertionMetric(
            GivenMaps(maps[row : row + 1]), steps=steps, baseline=baseline, batch_size=50
        )

        def cosine(embedding: Tensor, reference: Tensor = reference) -> Tensor:
            return F.normalize(embedding.double(), dim=0) @ reference

        metric.update(unit_images(PAIRS.probe[row : row + 1]), targets=[cosine])
        areas.append([metric.summary()[way] for way in ("deletion_auc", "insertion_auc")])
    return np.array(areas)


@each_map
@each_fill
@pytest.mark.parametrize("steps", STEPS)
def test_areas_agree_with_torchcam(torchcam, maps, fill, steps):
    """torchcam ranks by a stable descending sort: ties go from the top of the image to its bottom.

    That order is replayed. A constant map is thus one sweep of the image, not a random order.
    """
    stable = torch.argsort(maps.flatten(1), dim=1, descending=True, stable=True)
    replayed = ranks_of(stable.numpy())
    found = follow(replayed, steps, fill)
    theirs = torchcam_areas(torchcam, maps, steps, fill)
    np.testing.assert_allclose(area(found.fraction, found.cosine), theirs, rtol=0, atol=TOLERANCE)
    assert_orders_differ_inside_ties_only(maps, replayed)


@each_fill
def test_on_maps_without_ties_our_own_order_leads_to_torchcams_areas(torchcam, fill):
    found = follow(ranks(MAPS["distinct"], SEEDS), 64, fill)
    theirs = torchcam_areas(torchcam, MAPS["distinct"], 64, fill)
    np.testing.assert_allclose(area(found.fraction, found.cosine), theirs, rtol=0, atol=TOLERANCE)


def test_on_ties_torchcams_areas_are_another_orders(torchcam):
    """Without the replay the numbers differ: the agreement above is one of orders, too."""
    found = follow(ranks(MAPS["72% zeros"], SEEDS), 64, "black")
    theirs = torchcam_areas(torchcam, MAPS["72% zeros"], 64, "black")
    assert np.abs(area(found.fraction, found.cosine) - theirs).max() > 100 * TOLERANCE


# Quantus


class MaskedPairs(nn.Module):
    """Similarity of all pairs as a function of a mask, (N, 1, H, W) -> (N, 1).

    Quantus flips single values. Flipping those of a mask flips whole pixels, and a mask of zeros
    to be flipped to one is insertion.
    """

    def __init__(self, fill: Fill) -> None:
        super().__init__()
        self.images = unit_images(PAIRS.probe)
        mean = self.images.mean((2, 3), keepdim=True)
        self.fillers = (mean if fill == "mean" else 0 * mean).expand_as(self.images)
        self.references = unit_embeddings(unit_images(PAIRS.reference))

    def forward(self, mask: Tensor) -> Tensor:
        embeddings = unit_embeddings(torch.where(mask == 1, self.images, self.fillers))
        return (embeddings * self.references).sum(1, keepdim=True)


@pytest.fixture
def quantus() -> ModuleType:
    return pytest.importorskip("quantus", reason="Quantus is absent: run .ci/oracles")


def quantus_curve(
    quantus: ModuleType, maps: Tensor, steps: int, model: MaskedPairs, *, deletes: bool
) -> tuple[np.ndarray, Tensor]:
    """Return Quantus' curves, (N, K) without the point at 0, and the ranks of its order."""
    flipped: list[np.ndarray] = []

    def perturb(arr: np.ndarray, indices: np.ndarray, perturb_baseline: float) -> np.ndarray:
        flipped.append(indices)
        return quantus.batch_baseline_replacement_by_indices(arr, indices, perturb_baseline)

    metric = quantus.PixelFlipping(
        features_in_step=PIXELS // steps,
        normalise=False,
        perturb_func=perturb,
        perturb_baseline=0.0 if deletes else 1.0,
        disable_warnings=True,
    )
    curves = metric(
        model.eval(),
        np.full((len(maps), 1, *SIZE), 1.0 if deletes else 0.0, np.float32),
        np.zeros(len(maps), np.int64),
        maps[:, None].numpy(),
        channel_first=True,
        softmax=False,
        device="cpu",
        batch_size=len(maps),  # the references are not batched
    )
    return np.array(curves), ranks_of(np.concatenate(flipped, axis=1))


@each_map
@each_fill
@pytest.mark.parametrize("steps", STEPS)
def test_curves_agree_with_quantus(quantus, maps, fill, steps):
    """Quantus ranks by an unstable ``numpy.argsort``: what ties do depends on numpy and the CPU.

    The order it really took is recorded and replayed. Its curves lack the untouched image.
    """
    model = MaskedPairs(fill)
    for way, deletes in enumerate([True, False]):
        curves, replayed = quantus_curve(quantus, maps, steps, model, deletes=deletes)
        found = follow(replayed, steps, fill)
        np.testing.assert_allclose(found.cosine[:, way, 1:], curves, rtol=0, atol=TOLERANCE)
        assert_orders_differ_inside_ties_only(maps, replayed)


@each_map
def test_between_ties_our_own_order_leads_to_quantus_curves(quantus, maps):
    """Where a step ends between two values both have removed the same set, whatever ties do."""
    curves, _ = quantus_curve(quantus, maps, 64, MaskedPairs("black"), deletes=True)
    found = follow(ranks(maps, SEEDS), 64, "black")
    counts = found.counts[1:-1]
    ordered = -np.sort(-maps.flatten(1).numpy(), axis=1)
    decided = ordered[:, counts - 1] > ordered[:, counts]
    difference = np.abs(found.cosine[:, 0, 1:-1] - curves[:, :-1])
    assert difference[decided].max() <= TOLERANCE
    if tied(maps):
        assert difference[~decided].max() > 100 * TOLERANCE
    else:
        assert decided.all()


# pytorch-grad-cam


@pytest.fixture
def grad_cam(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The peer, with an empty stand-in for torchvision: it imports more than Grad-CAM needs."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        stand_in = ModuleType(name)
        stand_in.Compose = stand_in.Normalize = stand_in.ToTensor = stand_in.resize = None
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, stand_in)
    return pytest.importorskip("pytorch_grad_cam", reason="grad-cam is absent: run .ci/oracles")


def cosine(embedding: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(embedding, other, dim=0)


def neg_l2(embedding: Tensor, other: Tensor) -> Tensor:
    return -(embedding - other).square().sum()


def norm01(maps: Tensor) -> Tensor:
    """Stretch each (H, W) map to [0, 1]; one that the ReLU emptied stays zero."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1.0)


@pytest.mark.parametrize("layer", ["conv1", "prelu", "conv2"])
@pytest.mark.parametrize("objective", [cosine, neg_l2])
@pytest.mark.parametrize("contrasted", [False, True])
def test_grad_cam_agrees_with_pytorch_grad_cam(grad_cam, layer, objective, contrasted):
    """pytorch-grad-cam stretches each map to [0, 1], which changes no order: compared stretched."""
    probes, references = unit_images(PAIRS.probe), unit_images(PAIRS.reference)
    contrast = probes.flip(0).roll(1, 0) if contrasted else None
    ours = GradCAM(layer).explain(
        CountingModel(NET, similarity=objective.__name__),
        probes,
        references,
        contrast=contrast,
        generator=np.random.default_rng(0),
    )
    with torch.no_grad():
        positive = NET(references)
        negative = NET(contrast) if contrasted else [None] * len(positive)

    def target(one: Tensor, two: Tensor | None):
        return lambda e: objective(e, one) - (0 if two is None else objective(e, two))

    net = ConvNet(seed=3)  # of its own: the peer leaves gradients and hooks behind
    peer = grad_cam.GradCAM(net, [getattr(net, layer)])
    theirs = peer(probes, [target(*pair) for pair in zip(positive, negative, strict=True)])
    peer.activations_and_grads.release()
    assert sum(bool(map_.any()) for map_ in ours.positive) >= 4
    torch.testing.assert_close(
        norm01(ours.positive), norm01(torch.from_numpy(theirs)), rtol=0, atol=1e-5
    )
