"""Scaled Directed Divergence: how the map of one identity differs from those of its rivals."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fxeval.contracts import (
    Embeddings,
    ExplainerTraits,
    FaceModel,
    Gallery,
    Images,
    RowState,
    SaliencyMaps,
    SimilarityKind,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import (
    FLAT,
    FLAT_REASON,
    Objective,
    Pull,
    Targets,
    centroid_embeddings,
    twins,
)
from fxeval.functional.class_heads import class_centroids, class_weights
from fxeval.functional.map_similarity import norm01
from fxeval.hooks.layers import (
    borrowed,
    check_spelling,
    layers_of,
    lent_module,
    on_device_of,
    resolve,
)
from fxeval.hooks.readings import check_reading
from fxeval.hooks.returned import check_embeddings
from fxeval.hooks.tails import (
    Cut,
    cut_at,
    tail_of,
    upsampled,
    why_no_tail,
)

MAPS = 128  # maps of the image's size in memory at once, one for each pair and class
_FARTHEST = 60.0  # exponents are clipped to +- this
_NO_TARGET = "the map of the reference's identity is zero everywhere"
_NO_DIVERGENCE = "nothing sets the map of the reference's identity apart from those of the others"
Variant = Literal["A", "B"]
Base = Literal["cam", "gradcam"]


@dataclass(frozen=True)
class SDDCAM:
    """Scaled Directed Divergence: the map of one identity set against those of its rivals.

    The reference's identity t is compared with the identities of the gallery that the probe is most
    like, except the probe's own; each has a class activation map M. With ``alpha = k * (mean over
    the others of mean|M_i|) / mean|M_t|`` and ``D_i = alpha M_t - M_i``, variant A is
    ``exp(sum_i D_i / sigma)``, variant B ``sum_i exp(D_i / sigma)``. Exponents are divided by the
    largest absolute one, then by sigma, and clipped to [-60, 60]; maps are brought to the image's
    size first and scaled to [0, 1] at the end.

    The exponential is monotone: under A the order of the pixels depends on ``k`` alone, and tends
    to that of M_t as ``k`` grows. The softmax scale of the logits changes neither the choice of
    identities nor a map. It takes no contrast: the gallery is the contrast.

    Attributes:
        variant: See above; the published formula can be read both ways.
        k: Weight of the target, 1 to 50; 1 = as large as the others on average.
        sigma: Above 0; smaller = more contrast between large values.
        identities: Number of maps compared, including the target's, at least 2; fewer if the
            gallery has fewer.
        base: ``cam``: exact class activation maps (:class:`fxeval.explainers.cam_exact.CAM`).
            ``gradcam``: Grad-CAM of the similarity to each identity, for models that have none.
        layer: As in the base; None = the base's default.
        reading: As in the base.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: sddcam, params: {k: 2.0, base: gradcam, layer: "stage[-1]"}}

    Source:
        Shadman et al., "Explainable Face Recognition via Improved Localization", Electronics
        14(14), 2745, 2025, sec. 3.2, after Verenich et al., 2021.
    """

    traits: ClassVar[ExplainerTraits] = ExplainerTraits(
        needs={"gradients", "layers", "gallery"},
        takes_centroids=True,
        source=(
            "Shadman et al., Electronics 14(14), 2745, 2025, sec. 3.2; after Verenich et al., 2021"
        ),
    )

    variant: Variant = "A"
    k: float = 1.0
    sigma: float = 1.0
    identities: int = 5
    base: Base = "cam"
    layer: str | None = None
    reading: str | None = None

    def __post_init__(self) -> None:
        def refused(name: str, what: str) -> ExplainerContractError:
            return ExplainerContractError(
                f"sddcam: {name} must be {what}, got {getattr(self, name)!r}."
            )

        if self.variant not in get_args(Variant):
            raise refused("variant", "A or B")
        if not _is_number(self.k) or not 1 <= self.k <= 50:
            raise refused("k", "a number from 1 to 50")
        if not _is_number(self.sigma) or not 0 < self.sigma < math.inf:
            raise refused("sigma", "a finite number above 0")
        if (
            isinstance(self.identities, bool)
            or not isinstance(self.identities, int)
            or self.identities < 2
        ):
            raise refused("identities", "a whole number of at least 2")
        if self.base not in get_args(Base):
            raise refused("base", "cam or gradcam")
        check_spelling(self.layer, "sddcam")
        check_reading(self.reading, self.layer, "sddcam")

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model has no class activation maps of this base."""
        if self.base == "cam" or model.module is None:
            return why_no_tail(model, self.layer, self.reading)
        return None

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; ``generator`` is not used.

        Returns:
            SaliencyMaps with (N, H, W) positive maps in [0, 1], larger = speaks more for the
            reference than for the others. Diagnostic ``identities``: how many maps were compared.

        Raises:
            ExplainerContractError: If there is no gallery, or it holds only the probe's own
                identity; if a contrast is given, if the layer cannot be used, or for the reason
                ``unsupported`` gives.
        """
        if contrast is not None:
            raise ExplainerContractError(
                "sddcam: takes no contrast: the gallery's other identities are its contrast. Leave "
                "it out."
            )
        module = lent_module("sddcam", model)
        rivals = _rivals(model.similarity, gallery, len(probes))
        maps = [probes.new_zeros((0, *probes.shape[2:]))]
        reasons: list[str] = []
        compared: list[Tensor] = [torch.zeros(0)]
        # Even a caller in inference mode gets gradients; clones are ordinary tensors again.
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            engine = _Engine(self, model, (probes.shape[2], probes.shape[3]))
            step = max(1, MAPS // min(self.identities, len(rivals.centroids) + 1))
            for start in range(0, len(probes), step):
                rows = slice(start, start + step)
                part, why, counts = engine.maps(probes[rows], references[rows], rivals.rows(rows))
                maps.append(part)
                reasons.extend(why)
                compared.append(counts.float().cpu())
        return SaliencyMaps(
            torch.cat([part.to(maps[-1].device) for part in maps]),
            None,
            tuple(_STATES.get(reason, RowState.OK) for reason in reasons),
            tuple(reasons),
            {"identities": torch.cat(compared)},
            (engine.entry,),
        )


_STATES = {
    FLAT_REASON: RowState.NO_GRADIENT,
    _NO_TARGET: RowState.DEGENERATE_MAP,
    _NO_DIVERGENCE: RowState.DEGENERATE_MAP,
}


@dataclass(frozen=True, eq=False)
class _Rivals:
    """The identities of a gallery.

    Attributes:
        centroids: (I, D) float64; unit for cosine models.
        is_own: (n, I) bool, of the probe's or the reference's identity.
    """

    centroids: Tensor
    is_own: Tensor

    def rows(self, rows: slice) -> "_Rivals":
        return _Rivals(self.centroids, self.is_own[rows])

    def nearest(
        self, kind: SimilarityKind, embeddings: Embeddings, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return the (n, m, D) identities that probes are most like, and which of them count.

        Args:
            kind: The model's native similarity; any probability of a class increases with it.
            embeddings: (n, D) of the probes.
            count: How many to return at most; a row with fewer is padded with some that do not
                count.
        """
        centroids = self.centroids.to(embeddings.device)
        if kind == "cosine":
            alike = F.normalize(embeddings.double(), dim=1) @ centroids.T
        else:
            alike = -torch.cdist(embeddings.double(), centroids)
        alike = alike.masked_fill(self.is_own.to(alike.device), -torch.inf)
        found = alike.topk(min(count, len(centroids)), dim=1)
        return centroids[found.indices], found.values > -torch.inf


def _rivals(kind: SimilarityKind, gallery: Gallery | None, n: int) -> _Rivals:
    if gallery is None or len(gallery.probe_identity) != n:
        got = "none" if gallery is None else f"one for {len(gallery.probe_identity)} probes"
        raise ExplainerContractError(
            f"sddcam: expected a gallery for {n} probes, identities to compare the reference with, "
            f"got {got}."
        )
    names, centroids = class_centroids(kind, gallery)
    is_own = gallery.is_of_the_pair(names)
    if bool(is_own.all(dim=1).any()):
        raise ExplainerContractError(
            "sddcam: needs at least 2 identities, but the gallery holds only the probe's own "
            "identity. Enrol others."
        )
    return _Rivals(centroids, is_own)


class _Engine:
    """Makes the class activation maps that are compared, and compares them."""

    def __init__(self, explainer: SDDCAM, model: FaceModel, size: tuple[int, int]) -> None:
        module = lent_module("sddcam", model)
        self._explainer, self._model, self._module = explainer, model, module
        self._tail = None
        if explainer.base == "cam":
            tail = tail_of(model, explainer.layer, size, "sddcam", explainer.reading)
            if isinstance(tail, str):
                raise ExplainerContractError(f"sddcam: {tail}")
            self._tail, self._layer, self._reading = tail, tail.layer, tail.reading
            self.entry = tail.entry
        else:
            layers = layers_of(module, torch.zeros(1, 3, *size))
            (layer,) = resolve(explainer.layer, layers, "sddcam", explainer.reading)
            self._layer, self._reading, self.entry = layer.name, layer.reading, layer.as_entry()

    def maps(
        self, probes: Images, references: Images, rivals: _Rivals
    ) -> tuple[Tensor, list[str], Tensor]:
        """Return (n, H, W) maps in [0, 1], why there is none ("" if there is), and (n,) counts."""
        settings = self._explainer
        images = on_device_of(self._module, probes)
        cut = cut_at(self._module, self._layer, images, reading=self._reading)
        embeddings = check_embeddings(self._model.name, cut.vectors[""], len(probes))
        others, counts = rivals.nearest(self._model.similarity, embeddings, settings.identities - 1)
        reference = centroid_embeddings(self._model, references).to(others)
        is_flat = torch.zeros(len(probes), dtype=torch.bool, device=others.device)
        if self._tail is None:  # Grad-CAM needs a gradient; exact maps do not
            is_flat = twins(probes, references).to(others.device)
            is_flat |= self._pull(cut, reference).is_flat
        coarse = torch.stack(
            [self._class_map(cut, of) for of in (reference, *others.unbind(dim=1))], dim=1
        )
        target, *against = upsampled(coarse, probes).unbind(dim=1)
        others = torch.stack(against, dim=1)
        divergence = divergences(target, others, counts, settings.k)
        rounding = FLAT * others.abs().amax(dim=(1, 2, 3))
        maps, is_usable = exponentiated(divergence, settings.sigma, settings.variant, rounding)
        has_target = target.flatten(1).any(dim=1)
        # A broken map is more than one without order: it stays NaN, to be reported as such.
        is_broken = ~torch.isfinite(divergence).flatten(1).all(dim=1)
        is_usable = is_usable | is_broken
        reasons = [
            FLAT_REASON if flat else _NO_TARGET if not there else "" if usable else _NO_DIVERGENCE
            for flat, there, usable in zip(
                is_flat.tolist(), has_target.tolist(), is_usable.tolist(), strict=True
            )
        ]
        has_none = torch.tensor([bool(reason) for reason in reasons], device=maps.device)
        maps = maps.masked_fill(has_none[:, None, None], 0.0)
        maps = maps.masked_fill((is_broken & ~has_none)[:, None, None], torch.nan)
        return maps.float(), reasons, counts.sum(dim=1) + 1

    def _class_map(self, cut: Cut, centres: Tensor) -> Tensor:
        """Return the (n, h, w) maps, float64, of one identity each, given as (n, D)."""
        if self._tail is not None:
            weights = class_weights(self._model.similarity, centres)
            return cut.class_map(weights, self._tail.output)
        gradient = cut.pulled_back(self._pull(cut, centres).gradient)
        if gradient is None:
            raise ExplainerContractError(
                f"sddcam: the embedding of model '{self._model.name}' does not depend "
                f"differentiably on layer '{self._layer}'. Name a layer on the way to it."
            )
        alpha = gradient.mean(dim=(2, 3))
        coarse = torch.einsum("nc,nchw->nhw", alpha, cut.activations.detach().double())
        return coarse.relu()

    def _pull(self, cut: Cut, centres: Tensor) -> Pull:
        return Objective().pull(self._model.similarity, cut.vectors[""], Targets(centres))


def divergences(target: Tensor, others: Tensor, counts: Tensor, k: float) -> Tensor:
    """Return ``alpha M_t - M_i`` with alpha = k (mean over the others of mean|M_i|) / mean|M_t|.

    Args:
        target: (n, H, W) float64.
        others: (n, m, H, W) float64.
        counts: (n, m) bool, which of the others exist; at least one in each row.
        k: See above.

    Returns:
        (n, m, H, W); zero for others that do not exist, or if the target's map is zero.
    """
    weight = counts.to(target)
    sizes = (others.abs().mean(dim=(2, 3)) * weight).sum(dim=1) / weight.sum(dim=1)
    own = target.abs().mean(dim=(1, 2))
    # Not "own > 0": NaN must stay NaN, and not become a map of zeros.
    alpha = torch.where(own == 0, 0.0, k * sizes / torch.where(own == 0, 1.0, own))
    scaled = alpha[:, None, None] * target
    is_there = counts & (own != 0)[:, None]
    return torch.where(is_there[:, :, None, None], scaled[:, None] - others, 0.0)


def exponentiated(
    divergences: Tensor, sigma: float, variant: Variant, rounding: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return (n, H, W) float64 maps in [0, 1], and (n,) bool, which of them are not constant.

    Args:
        divergences: (n, m, H, W) float64; constant for identities that do not exist, which does
            not change a map scaled to [0, 1].
        sigma: Divides the exponents, after the largest absolute one of each row has become 1.
        variant: ``A``: exponential of the sum. ``B``: sum of the exponentials.
        rounding: (n,), size up to which exponents are rounding; such a map counts as constant.
    """
    exponents = divergences.sum(dim=1, keepdim=True) if variant == "A" else divergences
    peak = exponents.abs().amax(dim=(1, 2, 3))
    has_order = peak > rounding
    exponents = exponents / torch.where(has_order, peak, torch.inf)[:, None, None, None] / sigma
    raised = exponents.clamp(-_FARTHEST, _FARTHEST).exp()
    maps, is_usable = norm01(raised.sum(dim=1))
    return maps, is_usable & has_order


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
