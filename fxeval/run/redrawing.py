"""Networks with weights that are drawn anew, and the facts about them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fxeval.contracts import Embeddings, FaceModel, Pairs, SimilarityKind
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.functional.randomisation import (
    coverage,
    embedding_spread,
    nudged,
    randomise,
)
from fxeval.functional.similarity import similarity
from fxeval.hooks.layer_groups import LayerGroup, layer_groups
from fxeval.hooks.watch import modes_kept
from fxeval.metrics.protocol import Redraw
from fxeval.models.loading import device_of, with_module
from fxeval.records.schema import Network
from fxeval.run.foreign_network import foreign, has_weights
from fxeval.run.guard import Guard
from fxeval.run.keys import digest_of
from fxeval.run.wanted import NetworkHandle, Redrawing

CALIBRATION_IMAGES = 64
"""Crops that re-estimate the batch-norm statistics of a re-drawn network."""

KEPT_BYTES = 1 << 30
"""Memory that the weights of the copies may take which are kept for the cells that follow."""


class Redraws:
    """Re-draws networks, each once for all cells, as long as the copies fit into the memory.

    Args:
        pool: All forward passes.

    Attributes:
        kept: The copies that are kept, those that were used last at the end.
        known: The facts about all that were re-drawn.
        groups: The groups of layers of the networks that were asked for them.
    """

    def __init__(self, pool: ForwardPool) -> None:
        self._pool = pool
        self.kept: dict[str, PooledModel] = {}
        self.known: dict[str, Network] = {}
        self.groups: dict[tuple[str, int | None], tuple[LayerGroup, ...]] = {}

    def redrawn(
        self, network: NetworkHandle, pairs: Pairs, draw: tuple[int, Redraw], guard: Guard
    ) -> Redrawing:
        """Return a re-drawn network and its facts; it is built again if it was freed.

        Args:
            network: The network.
            pairs: With whose images it is calibrated.
            draw: The suite's seed, and which weights are replaced by what.
            guard: Compares it with what it was.
        """
        seed, wanted = draw
        named = (wanted.index, wanted.nudge, *(wanted.layers or ("all modules",)))
        key = digest_of(network.key, seed, *named, *pairs.image_digests)
        is_foreign = not has_weights(network.get())
        label = wanted.foreign_label if is_foreign else wanted.label

        def get() -> PooledModel:
            if key in self.kept:
                self.kept[key] = self.kept.pop(key)  # used last
            else:
                self.kept[key] = self._built(network.get(), key, pairs, draw)
                self._make_room()
            guard.admit(label, self.kept[key].model)
            return self.kept[key]

        # Lists of the same images have the same copies, and can have other pairs.
        listed = (pairs.probe, pairs.reference, pairs.probe_identity, pairs.is_mated)
        about = digest_of(key, label, *(column.tolist() for column in listed))
        if about not in self.known:
            self.known[about] = _facts(network.get(), get, pairs, wanted)
        return Redrawing(NetworkHandle(label, key, get, network.of), self.known[about])

    def layers(
        self, network: NetworkHandle, pairs: Pairs, steps: int | None
    ) -> tuple[LayerGroup, ...]:
        """Return the layers of a network in groups (:func:`fxeval.hooks.layer_groups`)."""
        if (network.key, steps) not in self.groups:
            model = network.get()
            assert model.module is not None
            with modes_kept(self._pool.note, f"model '{model.name}'"):
                found = layer_groups(model.module, _calibration(model, pairs)[:1], steps)
            self.groups[network.key, steps] = found
        return self.groups[network.key, steps]

    def release(self) -> None:
        """Free the networks that are kept; the facts about them are kept."""
        self.kept.clear()

    def _built(
        self, model: PooledModel, key: str, pairs: Pairs, draw: tuple[int, Redraw]
    ) -> PooledModel:
        with modes_kept(self._pool.note, f"model '{model.name}'"):
            copy = _copy(model, _calibration(model, pairs), *draw)
        return PooledModel(with_module(model.model, copy, digest=key), self._pool, key)

    def _make_room(self) -> None:
        """Free the copies that were not used for longest; the last one is always kept."""
        sizes = {key: _bytes(copy.module) for key, copy in self.kept.items()}
        while len(self.kept) > 1 and sum(sizes[key] for key in self.kept) > KEPT_BYTES:
            del self.kept[next(iter(self.kept))]


def _copy(model: PooledModel, calibration: Tensor, seed: int, wanted: Redraw) -> nn.Module:
    """Return a network with the weights that are wanted."""
    if not has_weights(model):
        dimensions = int(model.embed(calibration[:2]).shape[1])
        return foreign(calibration, dimensions, seed, wanted.index)
    assert model.module is not None
    if wanted.nudge:
        return nudged(model.module, seed, wanted.index, wanted.nudge)
    return randomise(model.module, calibration, seed, wanted.index, wanted.layers)


def auc_of(kind: SimilarityKind, embeddings: Embeddings, pairs: Pairs) -> tuple[float | None, int]:
    """Return how well a network tells mated pairs from nonmated ones, and with how many of each.

    A nonmated pair is a probe and the reference of the next person.

    Args:
        kind: The model's native similarity.
        embeddings: (M, D), of the first images of the list.
        pairs: The list; pairs with other images are left out.

    Returns:
        The chance that a mated pair has a higher similarity than a nonmated one, halves counted for
        ties, and the number of mated pairs; None with fewer than two people.
    """
    here = pairs.is_mated & (pairs.probe < len(embeddings)) & (pairs.reference < len(embeddings))
    places = here.nonzero()[:, 0].tolist()
    people = pairs.probe_identity.tolist()
    probes, mates, nonmates = [], [], []
    for number, place in enumerate(places):
        turned = places[number + 1 :] + places[:number]
        other = next((one for one in turned if people[one] != people[place]), None)
        if other is not None:
            probes.append(int(pairs.probe[place]))
            mates.append(int(pairs.reference[place]))
            nonmates.append(int(pairs.reference[other]))
    if not probes:
        return None, 0
    mated = similarity(kind, embeddings[probes], embeddings[mates]).cpu()
    nonmated = similarity(kind, embeddings[probes], embeddings[nonmates]).cpu()
    difference = mated[:, None] - nonmated[None]
    wins = (difference > 0).double() + 0.5 * (difference == 0).double()
    return float(wins.mean()), len(probes)


def _facts(
    before: PooledModel, get: Callable[[], PooledModel], pairs: Pairs, wanted: Redraw
) -> Network:
    after = get()
    embeddings = after.embed(_calibration(before, pairs))
    auc, n_pairs = auc_of(before.similarity, embeddings, pairs)
    if not has_weights(before):
        return Network(
            name=wanted.foreign_label,
            spread=embedding_spread(embeddings),
            redrawn_share=1.0,
            made="foreign",
            auc=auc,
            auc_pairs=n_pairs,
        )
    assert before.module is not None
    assert after.module is not None
    covered = coverage(before.module, after.module, wanted.layers)
    return Network(
        made="nudged" if wanted.nudge else "redrawn",
        name=wanted.label,
        spread=embedding_spread(embeddings),
        redrawn_share=covered.parameters,
        layers=wanted.of,
        buffers_share=covered.buffers,
        kept=[] if wanted.nudge else [*covered.kept],
        auc=None if wanted.nudge else auc,
        auc_pairs=0 if wanted.nudge else n_pairs,
    )


def _calibration(model: FaceModel, pairs: Pairs) -> Tensor:
    return pairs.images[:CALIBRATION_IMAGES].to(device_of(model)).float() / 255.0


def _bytes(module: nn.Module | None) -> int:
    assert module is not None
    tensors: list[torch.Tensor] = [*module.parameters(), *module.buffers()]
    return sum(one.numel() * one.element_size() for one in tensors)
