"""Networks with weights that are drawn anew, and the facts about them."""

from torch import Tensor, nn

from fxeval.contracts import FaceModel, Pairs
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.functional.randomisation import (
    embedding_spread,
    nudged,
    randomise,
    redrawn_share,
)
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


class Redraws:
    """Re-draws networks; the last one is kept.

    Args:
        pool: All forward passes.

    Attributes:
        kept: The network that was re-drawn last.
        known: The facts about all that were re-drawn.
    """

    def __init__(self, pool: ForwardPool) -> None:
        self._pool = pool
        self.kept: dict[str, PooledModel] = {}
        self.known: dict[str, Network] = {}

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

        def calibration(model: FaceModel) -> Tensor:
            return pairs.images[:CALIBRATION_IMAGES].to(device_of(model)).float() / 255.0

        def get() -> PooledModel:
            if key not in self.kept:
                model = network.get()
                with modes_kept(self._pool.note, f"model '{model.name}'"):
                    copy = _copy(model, calibration(model), seed, wanted)
                changed = with_module(model.model, copy, digest=key)
                self.release()
                self.kept[key] = PooledModel(changed, self._pool, key)
            guard.admit(label, self.kept[key].model)
            return self.kept[key]

        if key not in self.known:
            before, after = network.get(), get()
            self.known[key] = Network(
                name=label,
                spread=embedding_spread(after.embed(calibration(before))),
                redrawn_share=1.0 if is_foreign else _share(before, after),
                made="foreign" if is_foreign else "nudged" if wanted.nudge else "redrawn",
            )
        return Redrawing(NetworkHandle(label, key, get, network.of), self.known[key])

    def release(self) -> None:
        """Free the network that is kept; the facts about it are kept."""
        self.kept.clear()


def _copy(model: PooledModel, calibration: Tensor, seed: int, wanted: Redraw) -> nn.Module:
    """Return a network with the weights that are wanted."""
    if not has_weights(model):
        dimensions = int(model.embed(calibration[:2]).shape[1])
        return foreign(calibration, dimensions, seed, wanted.index)
    assert model.module is not None
    if wanted.nudge:
        return nudged(model.module, seed, wanted.index, wanted.nudge)
    return randomise(model.module, calibration, seed, wanted.index, wanted.layers)


def _share(before: PooledModel, after: PooledModel) -> float:
    assert before.module is not None
    assert after.module is not None
    return redrawn_share(before.module, after.module)
