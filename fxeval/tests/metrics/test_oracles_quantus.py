"""Deletion, insertion and Grad-CAM agree with torchcam, Quantus and pytorch-grad-cam.

``.ci/oracles`` installs these peers; a test whose peer is absent skips. Both sides get the same
images, maps and steps, and our side runs the real way: forward pool, ``trace``, ``area``.

On a map without ties all of them remove the same pixels. On ties they don't: torchcam sorts stably
(top of the image first), Quantus leaves it to an unstable ``numpy.argsort``, fxeval asks a seeded
hash. So on ties the peer's order is given to fxeval as ranks and must lead to the same numbers; and
fxeval's own order must differ from the peer's inside the ties only, and there really differ.
"""

from copy import deepcopy
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fxeval.contracts import Crop, Fill
from fxeval.engine.forward_pool import ForwardPool
from fxeval.explainers.grad_cam import GradCAM
from fxeval.functional.ranking import ranks
from fxeval.metrics.removal_curves import Curves, area, trace
from fxeval.tests.evidence import evidence_of, removal
from fxeval.tests.peers import MaskedPairs, pytorch_grad_cam, quantus_curves, torchcam_areas
from fxeval.tests.rounding import allowance, assert_rounded, condition_of, terms_of
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs

pytestmark = pytest.mark.oracle

SIZE = (32, 8)  # not square: exchanged axes must show
PIXELS = 32 * 8
PAIRS = make_pairs(5, crop=Crop("tall", SIZE, ()), seed=1)
NET = ConvNet(seed=3).eval()
SEEDS = [101, 102, 103, 104, 105]
STEPS = [16, 64]  # divisors: torchcam and Quantus take steps of ceil(pixels / steps)


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

    return trace(removal(evidence_of(PAIRS, model, pool=pool), order, fill), steps)


def unit_images(rows: Tensor) -> Tensor:
    return PAIRS.images[rows].float() / 255


def embedded(images: Tensor) -> Tensor:
    with torch.no_grad():
        return NET(images)


def mean_fill(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True)


def ranks_of(order: np.ndarray) -> Tensor:
    """Turn pixels in order of removal, (N, n), into the rank of each pixel."""
    return torch.from_numpy(np.argsort(order, axis=1).astype(np.int32))


def order_of(pixel_ranks: Tensor) -> np.ndarray:
    return np.argsort(pixel_ranks.numpy(), axis=1)


def cosines(net: torch.nn.Module, probes: Tensor, references: Tensor) -> Tensor:
    return F.cosine_similarity(net(probes), net(references))


def rounding() -> dict[str, float]:
    """Terms of the rounding of two cosines that are compared."""
    exact, images = deepcopy(NET).double(), (unit_images(PAIRS.probe), unit_images(PAIRS.reference))
    condition = condition_of(lambda *given: cosines(exact, *given), *images, module=exact)
    return {"terms": 2 * terms_of(exact), "condition": condition}


def tied(maps: Tensor) -> bool:
    return any(len(map_.unique()) < PIXELS for map_ in maps)


def assert_orders_differ_inside_ties_only(maps: Tensor, theirs: Tensor) -> None:
    """Both orders remove the values in the same sequence, but tied pixels in different ones."""
    ours = ranks(maps, SEEDS)
    values = maps.flatten(1).numpy()
    np.testing.assert_array_equal(
        np.take_along_axis(values, order_of(ours), axis=1),
        np.take_along_axis(values, order_of(theirs), axis=1),
    )
    for map_, our, their in zip(maps, ours, theirs, strict=True):
        assert torch.equal(our, their) == (not tied(map_[None]))


# torchcam


def torchcam_areas_of_pairs(maps: Tensor, steps: int, fill: Fill) -> np.ndarray:
    """Areas under deletion and insertion of every pair, (N, 2)."""
    images, references = unit_images(PAIRS.probe), embedded(unit_images(PAIRS.reference))
    baseline = {"black": None, "mean": mean_fill}[fill]
    return np.array(
        [
            torchcam_areas(NET, image, reference, map_, steps=steps, baseline=baseline)
            for image, reference, map_ in zip(
                images.split(1), references.split(1), maps.split(1), strict=True
            )
        ]
    )


@each_map
@each_fill
@pytest.mark.parametrize("steps", STEPS)
def test_areas_agree_with_torchcam(maps, fill, steps):
    """torchcam ranks by a stable descending sort: ties go from the top of the image to its bottom.

    That order is replayed. A constant map is thus one sweep of the image, not a random order.
    """
    stable = torch.argsort(maps.flatten(1), dim=1, descending=True, stable=True)
    replayed = ranks_of(stable.numpy())
    found = follow(replayed, steps, fill)
    theirs = torchcam_areas_of_pairs(maps, steps, fill)
    assert_rounded(area(found.fraction, found.answer), theirs, **rounding())
    assert_orders_differ_inside_ties_only(maps, replayed)


@each_fill
def test_on_maps_without_ties_our_own_order_leads_to_torchcams_areas(fill):
    found = follow(ranks(MAPS["distinct"], SEEDS), 64, fill)
    theirs = torchcam_areas_of_pairs(MAPS["distinct"], 64, fill)
    assert_rounded(area(found.fraction, found.answer), theirs, **rounding())


def test_on_ties_torchcams_areas_are_another_orders():
    """Without the replay the numbers differ: the agreement above is one of orders, too."""
    found = follow(ranks(MAPS["72% zeros"], SEEDS), 64, "black")
    theirs = torchcam_areas_of_pairs(MAPS["72% zeros"], 64, "black")
    rounded = allowance(**rounding()) * np.abs(theirs).max()
    assert np.abs(area(found.fraction, found.answer) - theirs).max() > 10 * rounded


# Quantus


def masked_pairs(fill: Fill) -> MaskedPairs:
    images = unit_images(PAIRS.probe)
    fillers = mean_fill(images) if fill == "mean" else torch.zeros(1)
    references = embedded(unit_images(PAIRS.reference))
    return MaskedPairs(NET, images, fillers.expand_as(images), references)


@each_map
@each_fill
@pytest.mark.parametrize("steps", STEPS)
def test_curves_agree_with_quantus(maps, fill, steps):
    """Quantus ranks by an unstable ``numpy.argsort``: what ties do depends on numpy and the CPU.

    The order it really took is recorded and replayed. Its curves lack the untouched image.
    """
    for way, deletes in enumerate([True, False]):
        curves, order = quantus_curves(masked_pairs(fill), maps, steps=steps, deletes=deletes)
        replayed = ranks_of(order)
        found = follow(replayed, steps, fill)
        assert_rounded(found.answer[:, way, 1:], curves, **rounding())
        assert_orders_differ_inside_ties_only(maps, replayed)


@each_map
def test_between_ties_our_own_order_leads_to_quantus_curves(maps):
    """Where a step ends between two values, both have removed the same set, whatever the ties."""
    curves, _ = quantus_curves(masked_pairs("black"), maps, steps=64, deletes=True)
    found = follow(ranks(maps, SEEDS), 64, "black")
    counts = found.counts[1:-1]
    ordered = -np.sort(-maps.flatten(1).numpy(), axis=1)
    decided = ordered[:, counts - 1] > ordered[:, counts]
    ours, theirs = found.answer[:, 0, 1:-1], curves[:, :-1]
    assert_rounded(ours[decided], theirs[decided], **rounding())
    if tied(maps):
        rounded = allowance(**rounding()) * np.abs(theirs).max()
        assert np.abs(ours - theirs)[~decided].max() > 10 * rounded
    else:
        assert decided.all()


# pytorch-grad-cam


@pytest.fixture
def grad_cam(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return pytorch_grad_cam(monkeypatch)


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
    """pytorch-grad-cam stretches each map to [0, 1], which changes no order: compared stretched.

    In float64, as a map that the ReLU leaves little of would be mere rounding.
    """
    exact = deepcopy(NET).double()
    probes, references = unit_images(PAIRS.probe).double(), unit_images(PAIRS.reference).double()
    contrast = probes.flip(0).roll(1, 0) if contrasted else None
    ours = GradCAM(layer).explain(
        CountingModel(exact, similarity=objective.__name__),
        probes,
        references,
        contrast=contrast,
        generator=np.random.default_rng(0),
    )
    with torch.no_grad():  # in float32, as a model hands them over
        positive = exact(references).float().double()
        negative = exact(contrast).float().double() if contrasted else [None] * len(positive)

    def target(one: Tensor, two: Tensor | None):
        return lambda e: objective(e, one) - (0 if two is None else objective(e, two))

    net = ConvNet(seed=3).double()  # of its own: the peer leaves gradients and hooks behind
    peer = grad_cam.GradCAM(net, [getattr(net, layer)])
    theirs = peer(probes, [target(*pair) for pair in zip(positive, negative, strict=True)])
    peer.activations_and_grads.release()
    assert sum(bool(map_.any()) for map_ in ours.positive) >= 4
    # The peer enlarges in float32, from four pixels, and stretches before and after it.
    low, high = ours.positive.amin((1, 2)), ours.positive.amax((1, 2))
    condition = max((high / (high - low))[high > low].tolist())
    theirs = norm01(torch.from_numpy(theirs))
    assert_rounded(norm01(ours.positive), theirs, terms=2 + 4 + 4, condition=condition)
