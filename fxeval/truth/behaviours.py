"""What a right map must do: unit tests of explainers, each with models, pairs and a figure.

All behaviours have one figure (:func:`evidence_share`): of the most salient pixels, as many as the
evidence has, the share that lies in the evidence. Where there are two places it is the share found
of the worse one; where evidence speaks against the similarity, the share there is taken away. A map
that is right has 1, and a map that knows nothing has about the share of the image that the
evidence covers. A behaviour is right if the interval lies above ``LINE``.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import BROKEN_STATES, FaceModel, Images, Maps, SaliencyMaps
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.functional.similarity import similarity
from fxeval.hooks.returned import is_constant
from fxeval.models.loading import TorchFaceModel
from fxeval.seeding import generator_of
from fxeval.truth.evidence_regions import (
    Evidence,
    EvidenceFace,
    KnownPairs,
    evidence_model,
    region_pairs,
)
from fxeval.truth.gates import Gate, gated_pair, places_at
from fxeval.truth.trigger import triggered, triggered_pairs

FloatArray = NDArray[np.float64]
Situation = tuple[FaceModel, KnownPairs]

LINE = 0.5
"""Half of what a perfect map has: the line that an interval must clear, upwards or downwards."""


@dataclass(frozen=True)
class Behaviour:
    """One thing that a right map must do.

    Attributes:
        name: Its id.
        title: What the similarity depends on, in words.
        situations: Called with n and a seed; yields models with n pairs in all. A pair does not
            depend on n.
        least: Least possible share: -1 where evidence speaks against the similarity, else 0.
        on_a_real_network: A forward pass costs milliseconds.

    Example:
        >>> behaviour = BEHAVIOURS["either"]
        >>> [len(pairs.probes) for _, pairs in behaviour.situations(3, 0)]
        [1, 1, 1]
    """

    name: str
    title: str
    situations: Callable[[int, int], Iterator[Situation]]
    least: float = 0.0
    on_a_real_network: bool = False


def evidence_share(maps: SaliencyMaps | Maps, pairs: KnownPairs) -> FloatArray:
    """Return how much of the evidence the most salient pixels of each map show.

    As many pixels are taken as the evidence has. Pixels that tie count by the mean over all orders
    of them, so a constant map has the share of a random order; so has a map that is not finite or
    of a broken state. Of a signed method, positive minus negative.

    Args:
        maps: (N, 112, 112).
        pairs: The N pairs.

    Returns:
        (N,) float64 in [-1, 1]; higher is better.

    Example:
        >>> model, pairs = gated_pair("both", 0)
        >>> evidence_share(pairs.places.any(1).float(), pairs)
        array([1.])
    """
    if isinstance(maps, Tensor):
        maps = SaliencyMaps(maps)
    evidence = maps.positive if maps.negative is None else maps.positive - maps.negative
    found = []
    for row, (map_, state) in enumerate(zip(evidence, maps.states, strict=True)):
        if state in BROKEN_STATES or not bool(map_.isfinite().all()) or is_constant(map_):
            map_ = torch.zeros_like(map_)
        places, against = pairs.places[row].flatten(1).double(), pairs.against[row].flatten()
        taken = _taken(map_, len(places) * pairs.pixels)
        shares = (places @ taken / pairs.pixels).clamp_max(1.0)
        found.append(float(shares.min() - against.double() @ taken / pairs.pixels))
    return np.array(found)


def effects(model: FaceModel, pairs: KnownPairs) -> Tensor:
    """Return, exactly, what each place does to the similarity: a finite change, forth and back.

    It is the mean of two differences of the native similarity: what is lost when the place alone
    loses its evidence, and what is gained when it alone gets its evidence back. One of them is 0
    where both places are needed, the other where either is enough.

    Returns:
        (N, P + 1) float64: the places, then the evidence against (0 where there is none).
    """
    target = model.embed(pairs.references)

    def native(images: Images) -> Tensor:
        return similarity(model.similarity, model.embed(images), target)

    shown, bare = native(pairs.probes), native(pairs.without)
    found = []
    for where in [*pairs.places.unbind(1), pairs.against]:
        taken = torch.where(where[:, None], pairs.without, pairs.probes)
        given = torch.where(where[:, None], pairs.probes, pairs.without)
        found.append(((shown - native(taken)) + (native(given) - bare)) / 2)
    return torch.stack(found, dim=1).double()


def oracle_maps(model: FaceModel, pairs: KnownPairs) -> Maps:
    """Return (N, 112, 112) maps that show the effect of each place in its pixels, 0 elsewhere."""
    where = torch.cat([pairs.places, pairs.against[:, None]], dim=1)
    return torch.einsum("np,nphw->nhw", effects(model, pairs), where.double()).float()


def _taken(map_: Tensor, number: int) -> Tensor:
    """Return (H * W,) how much of each pixel is among the most salient ones, ties shared."""
    flat = map_.flatten()
    least = flat.sort(descending=True).values[number - 1]
    above, tied = flat > least, flat == least
    share = (number - above.sum()).double() / tied.sum()
    return above.double() + tied.double() * share


def _of_a_region(evidence: Evidence, n: int, seed: int) -> Iterator[Situation]:
    for row in range(n):
        (place,) = places_at(generator_of("region", evidence, seed, row), 1)
        model = evidence_model(EvidenceFace([place], evidence, seed=row), evidence)
        yield model, region_pairs(model, place, 1, evidence, _own(seed, row))


def _of_a_gate(kind: Gate, n: int, seed: int) -> Iterator[Situation]:
    for row in range(n):
        yield gated_pair(kind, _own(seed, row))


def _of_the_trigger(n: int, seed: int) -> Iterator[Situation]:
    network, faces = rendered_faces()
    model = triggered(network, faces[:16])
    # The pool remembers what masked images gave: several explainers share their masks.
    yield PooledModel(model, ForwardPool(), model.digest), triggered_pairs(model, faces, n, seed)


@lru_cache(maxsize=1)
def rendered_faces() -> tuple[TorchFaceModel, Images]:
    """Return the bundled residual network, and one face of each of the 100 rendered people."""
    models = importlib.import_module("fxeval.fixtures.models")
    pack = FacePack(importlib.import_module("fxeval.fixtures.pairs").PACK)
    network: TorchFaceModel = models.shipped("mini_resnet", models.CARDS).load()
    listing = pack.listing()
    first: dict[str, str] = {}
    for image, person in zip(listing.probe, listing.probe_identity, strict=True):
        first.setdefault(person, image)
    return network, pack.images(list(first.values()), network.crop).float() / 255


def _own(seed: int, row: int) -> int:
    return 1000 * seed + row


BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType(
    {
        one.name: one
        for one in (
            Behaviour("brightness", "a bright place", partial(_of_a_region, "brightness")),
            Behaviour("contrast", "a place with contrast", partial(_of_a_region, "contrast")),
            Behaviour("texture", "a place with fine texture", partial(_of_a_region, "texture")),
            Behaviour(
                "conflict", "one place for, another against", partial(_of_a_gate, "conflict"), -1.0
            ),
            Behaviour("both", "two places, both needed", partial(_of_a_gate, "both")),
            Behaviour("either", "two places, one is enough", partial(_of_a_gate, "either")),
            Behaviour("absence", "a place that is dark", partial(_of_a_gate, "absence")),
            Behaviour(
                "shattered", "a place; the gradient is elsewhere", partial(_of_a_gate, "shattered")
            ),
            Behaviour("trigger", "a patch on a face", _of_the_trigger, on_a_real_network=True),
        )
    }
)
"""All behaviours by name."""
