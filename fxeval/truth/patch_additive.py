"""A trained face model whose true maps are known on any photograph, and planted explainers of it.

The similarity of :class:`fxeval.models.networks.mini_patch.MiniPatch` is a sum over patches of the
image, each of which is seen by itself. So what a patch adds to the similarity of two faces is read
off the embeddings, exactly; no pixel has to be taken away, and no fill enters. Maps of four known
qualities follow: the truth, a worse version of it, noise, and the truth turned over.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    ExplainerTraits,
    FaceModel,
    Images,
    Maps,
    SaliencyMaps,
)
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.errors import ExplainerContractError
from fxeval.functional.controls import random_pixels
from fxeval.models.from_card import CardedModel, load_card
from fxeval.models.loading import TorchFaceModel
from fxeval.models.networks.mini_patch import GRID, PATCH, MiniPatch
from fxeval.seeding import generator_of, sealed, seed_of

Which = Literal["oracle", "blurred_oracle", "random", "inverse"]

SIGMA = float(PATCH)
"""Standard deviation, in pixels, of the Gaussian that blurs the oracle: one patch."""

_GAP = 2.0**-12  # least difference of two patches of a map, in parts of its largest magnitude
_CARD = "mini_patch.yaml"


def patch_model() -> CardedModel:
    """Return the shipped network, trained on rendered faces, by its card ``mini_patch``.

    Raises:
        ModelContractError: If the weights are missing or damaged.
    """
    return load_card(Path(str(files("fxeval.fixtures"))) / "data" / "cards" / _CARD)


def untrained_patch_model(seed: int = 0) -> TorchFaceModel:
    """Return the network with weights that are drawn: its truth is as exact, it knows no face.

    Args:
        seed: Of the weights, and of the noise whose statistics the batch norms keep.
    """
    noise = torch.from_numpy(generator_of("patch_noise", seed).random((16, 3, 112, 112))).float()
    with sealed(seed_of("patch_weights", seed)), torch.no_grad():
        network = MiniPatch()
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                part.momentum = 1.0  # what it keeps is of this batch alone
        network(F.avg_pool2d(noise, 3, 1, 1))
    weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    digest = hashlib.sha256(weights).hexdigest()
    name = f"untrained_patch_{seed}"
    return TorchFaceModel(name, ARCFACE_112, network.eval(), "cosine", None, digest)


def contributions(model: FaceModel, probes: Images, references: Images) -> Tensor:
    """Return, exactly, what each patch adds to the cosine of probe and reference.

    Args:
        model: Its module is a ``MiniPatch``, trained or not.
        probes: (N, 3, 112, 112) in [0, 1].
        references: (N, 3, 112, 112).

    Returns:
        (N, 8, 8) float64 in [-1, 1], patches row by row; negative where a patch speaks against the
        reference. They add up to the cosine.

    Raises:
        ExplainerContractError: If the model is another one, or there are not as many references.
    """
    _check(model, "contributions")
    if probes.shape != references.shape:
        raise ExplainerContractError(
            f"contributions: expected a reference for each probe, (N, 3, 112, 112), got probes "
            f"{tuple(probes.shape)} and references {tuple(references.shape)}."
        )
    product = _unit(model.embed(probes)) * _unit(model.embed(references))
    return product.view(len(probes), -1, GRID, GRID).sum(1)


@dataclass(frozen=True)
class PatchExplainer:
    """Maps of known quality for the patch-additive network, and for no other model.

    ``oracle``: each pixel has the contribution of its patch; a patch goes as a block, its pixels
    row by row. ``blurred_oracle``: the contributions blurred by a Gaussian of one patch: worse, and
    better than nothing. ``random``: a map of independent pixels, drawn by the content of the probe.
    ``inverse``: minus the oracle. With a contrast, a contribution is that to the similarity with
    the reference minus that with the contrast. ``oracle`` and ``inverse`` have no ties.

    Attributes:
        which: One of the four.

    Example:
        >>> model = untrained_patch_model()
        >>> faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
        >>> oracle, inverse = (
        ...     PatchExplainer(which).explain(
        ...         model, faces, faces.flip(0), generator=np.random.default_rng(0)
        ...     ).positive
        ...     for which in ("oracle", "inverse")
        ... )
        >>> oracle.shape, bool((oracle == -inverse).all())
        (torch.Size([2, 112, 112]), True)

    Source:
        The model: Ozturk et al., arXiv:2510.10753 (RRFNet), similarity as a sum over patches.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        source="Planted: read off the patch-additive network (after arXiv:2510.10753)",
        takes_contrast=True,
    )

    which: Which = "oracle"

    def __post_init__(self) -> None:
        if self.which not in get_args(Which):
            raise ExplainerContractError(
                f"patch explainer: which: expected one of {', '.join(get_args(Which))}, got "
                f"{self.which!r}."
            )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why a model cannot be explained: it is not the patch-additive network."""
        if isinstance(model.module, MiniPatch):
            return None
        found = "a black box" if model.module is None else type(model.module).__name__
        return (
            f"explains the patch-additive network (MiniPatch, model mini_patch) alone, got model "
            f"'{model.name}', {found}."
        )

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Return the maps; nothing is drawn from the generator.

        Raises:
            ExplainerContractError: If the model is another one.
        """
        _check(model, f"patch explainer '{self.which}'")
        if self.which == "random":
            return SaliencyMaps(_noise(probes))
        parts = contributions(model, probes, references)
        if contrast is not None:
            parts = parts - contributions(model, probes, contrast)
        if self.which == "blurred_oracle":
            return SaliencyMaps(_blurred(parts))
        oracle = _as_blocks(parts)
        return SaliencyMaps(-oracle if self.which == "inverse" else oracle)


def _check(model: FaceModel, who: str) -> None:
    reason = PatchExplainer().unsupported(model)
    if reason is not None:
        raise ExplainerContractError(f"{who}: {reason}")


def _unit(embeddings: Embeddings) -> Tensor:
    """Return embeddings in float64, of length 1 to its last digits and not those of float32."""
    return F.normalize(embeddings.double(), dim=1)


def _as_blocks(parts: Tensor) -> Maps:
    """Return (N, 112, 112) maps of (N, 8, 8) contributions, in the order of these and without ties.

    Patches less apart than 1/4096 of the largest magnitude are moved apart by that, in the order of
    their contributions, the earlier of equal ones first. Within a patch, values fall from its upper
    left to its lower right pixel, by less than the distance of any two patches.
    """
    n = len(parts)
    flat = parts.double().flatten(1)
    gaps = flat.abs().amax(1) * _GAP
    gaps = torch.where(gaps > 0, gaps, torch.full_like(gaps, _GAP))
    # From the least contribution up: of equal ones, the later patch is the lower.
    order = flat.flip(1).argsort(dim=1, stable=True).mul(-1).add(GRID**2 - 1)
    steps = torch.arange(GRID**2, device=flat.device) * gaps[:, None]
    # max over j <= k of c_j + (k - j) gap: what has to give way moves up, nothing moves down.
    levels = (flat.gather(1, order) - steps).cummax(1).values + steps
    spread = torch.empty_like(flat).scatter_(1, order, levels).view(n, GRID, 1, GRID, 1)
    pixels = torch.arange(PATCH**2 - 1, -1, -1, device=flat.device).double() / PATCH**2
    within = gaps.view(n, 1, 1, 1, 1) * 0.9 * pixels.view(PATCH, 1, PATCH)
    return (spread + within).reshape(n, GRID * PATCH, GRID * PATCH).float()


def _blurred(parts: Tensor) -> Maps:
    """Return (N, 112, 112) maps: at each pixel the mean of contributions, the near ones first."""
    at = torch.arange(GRID * PATCH, dtype=torch.float64, device=parts.device)
    kernel = torch.exp(-((at[:, None] - at) ** 2) / (2 * SIGMA**2))
    # Summed over the pixels of a patch: (112, 8). The weights of a pixel add up to 1.
    columns = (kernel / kernel.sum(1, keepdim=True)).view(GRID * PATCH, GRID, PATCH).sum(2)
    return torch.stack([columns @ one @ columns.T for one in parts.double()]).float()


def _noise(probes: Images) -> Maps:
    digests = [hashlib.sha256(one.cpu().numpy().tobytes()).hexdigest() for one in probes]
    seeds = [seed_of("patch_random", digest) for digest in digests]
    size = (int(probes.shape[2]), int(probes.shape[3]))
    return random_pixels(seeds, size).to(probes.device)
