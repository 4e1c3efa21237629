"""Common machinery of the CAMs: activations of layers and the gradients of an objective there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxeval.contracts import (
    ExplainerTraits,
    FaceModel,
    Gallery,
    Images,
    Maps,
    Need,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.objectives import FLAT_REASON, Objective, Targets, targets_of, twins
from fxeval.functional.map_similarity import norm01
from fxeval.hooks.evidence import watched
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.layers import (
    NoDefaultError,
    black_box,
    borrowed,
    by_name,
    check_spelling,
    layers_of,
    layers_seen,
    lent_module,
    on_device_of,
    resolve,
)
from fxeval.hooks.readings import check_reading
from fxeval.hooks.returned import check_embeddings

ROWS = 16  # pairs in one forward and backward pass


@dataclass(frozen=True)
class ActivationMaps:
    """Base class of the CAMs: layers, one objective and row states; subclasses give the formula.

    Attributes:
        layer: See :func:`fxeval.hooks.layers.resolve`. With several layers, each map is scaled to
            [0, 1] and the maps are averaged; a constant map contributes nothing.
        reading: How the named layers are read (:mod:`fxeval.hooks.readings`); None = as found.
    """

    id: ClassVar[str]
    _source: ClassVar[str]
    is_scaled: ClassVar[bool] = False  # scale the map of a single layer, too

    layer: str | tuple[str, ...] | None = None
    reading: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_spelling(self.layer, self.id)
        check_reading(self.reading, self.layer, self.id)
        self.chosen_objective()

    @property
    def traits(self) -> ExplainerTraits:
        """Gradients at layers, and what the objective needs."""
        objective = self.chosen_objective()
        return ExplainerTraits(
            frozenset[Need]({"gradients", "layers"}) | objective.needs,
            takes_centroids=True,
            takes_contrast=objective.takes_contrast,
            source=self._source,
        )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why the model cannot be explained: a black box, or no default layer."""
        if model.module is None or self.layer is not None:
            return black_box(model)
        try:
            # A copy: a forward pass that leaves traces is the network's fault, told by explain.
            copy = deepcopy(model.module)
            self.chosen_layers(layers_of(copy, torch.zeros(1, 3, *model.crop.size)))
        except NoDefaultError as error:
            return error.detail.removeprefix(f"{self.id}: ")
        except Exception:  # a network that fails is not the explainer's fault either
            return None
        return None

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
        gallery: Gallery | None = None,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe; at most ``ROWS`` pairs pass the model at once.

        A row whose objective is flat (the reference is the probe), or whose gradient is zero at
        every layer, gets a map of zeros and the state ``no_gradient``. A map of zeros that the
        formula itself yields stays as it is. Diagnostic ``negative_activation_share``: in [0, 1],
        the mean over the layers.

        Args:
            model: Must have a module, which is restored afterwards.
            probes: (N, 3, H, W) in [0, 1].
            references: (N, 3, H, W), or (N, R, 3, H, W) for centroids.
            contrast: (N, 3, H, W) nonmates whose objective is subtracted, or None.
            generator: Not used: nothing is drawn.
            gallery: For objectives that need one.

        Returns:
            SaliencyMaps with (N, H, W) positive maps, larger = more important.

        Raises:
            ExplainerContractError: If the model is a black box, a layer cannot be used, or the
                objective lacks what it needs.
            ModelContractError: If embeddings are not finite (n, D) tensors.
        """
        module = lent_module(self.id, model)
        if len(probes) == 0:
            return SaliencyMaps(probes.new_zeros((0, *probes.shape[2:])))
        parts = []
        # Even a caller in inference mode gets gradients.
        with borrowed(module), torch.inference_mode(False), torch.enable_grad():
            named = by_name(self.layer, module)
            layers = () if named else self.chosen_layers(layers_of(module, probes[:1]))
            targets = targets_of(model, references, contrast, gallery)
            is_flat = self._equal(probes, references, contrast)
            for start in range(0, len(probes), ROWS):
                rows = slice(start, start + ROWS)
                images = on_device_of(module, probes[rows])
                names = named or tuple(layer.name for layer in layers)
                with watched(module) as seen, _cut(module, names) as taken, torch.no_grad():
                    embeddings = module(images)
                if not layers:  # named ones cost no pass: the first images show what they are
                    is_once = all(seen[name].runs == 1 for name in names)
                    found = layers_seen(module, seen, images) if is_once else None
                    layers = self.chosen_layers(found or layers_of(module, images[:1]))
                pulled = self._pulled(model, layers, embeddings, taken, targets.rows(rows))
                parts.append(self._maps(pulled, is_flat[rows], layers, probes.shape[2:]))
        return SaliencyMaps(
            torch.cat([part.positive for part in parts]),
            None,
            tuple(state for part in parts for state in part.states),
            tuple(reason for part in parts for reason in part.reasons),
            {key: torch.cat([part.diagnostics[key] for part in parts])
             for key in parts[0].diagnostics},
            tuple(layer.as_entry() for layer in layers),
        )  # fmt: skip

    def chosen_objective(self) -> Objective:
        """Return the objective, or refuse it."""
        raise NotImplementedError

    def coarse(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the (n, h, w) maps of one layer from its (n, C, h, w) activations A and dJ/dA."""
        raise NotImplementedError

    def chosen_layers(self, layers: Sequence[LayerInfo]) -> tuple[LayerInfo, ...]:
        """Return the layers to explain at; see ``resolve`` for its errors."""
        return resolve(self.layer, layers, self.id, self.reading)

    def _equal(self, probes: Images, references: Images, contrast: Images | None) -> Tensor:
        """Return (N,) bool: rows whose images are equal, so that the objective is exactly flat."""
        if self.chosen_objective().name == "arc_softmax":
            return torch.zeros(len(probes), dtype=torch.bool)
        return twins(probes if contrast is None else contrast, references)

    def _pulled(
        self, model: FaceModel, layers: tuple[LayerInfo, ...], embeddings: Tensor,
        taken: Mapping[str, Sequence[Tensor]], targets: Targets,
    ) -> "_Pulled":  # fmt: skip
        n = len(targets.reference)
        for layer in layers:
            if len(taken[layer.name]) != 1:
                raise ExplainerContractError(
                    f"{self.id}: layer '{layer.name}' ran once for one image, but "
                    f"{len(taken[layer.name])} times for {n}. Name another."
                )
        check_embeddings(model.name, embeddings, n)
        objective, kind = self.chosen_objective(), model.similarity
        pull, direction, factor = objective.pull(kind, embeddings, targets), None, None
        if objective.parallel is not None and targets.contrast is None:
            direction = objective.parallel.pull(kind, embeddings, targets).gradient
            factor = pull.along(direction)
        activations = [taken[layer.name][0] for layer in layers]
        gradients = _gradients(
            embeddings, activations, pull.gradient if direction is None else direction
        )
        for layer, gradient in zip(layers, gradients, strict=True):
            if gradient is None:
                raise ExplainerContractError(
                    f"{self.id}: the embedding of model '{model.name}' does not depend "
                    f"differentiably on layer '{layer.name}'. Name a layer on the way to the "
                    "embedding, and let the module compute with gradients."
                )
        readings = [layer.reading for layer in layers]
        return _Pulled(
            [how.places(one.detach()) for how, one in zip(readings, activations, strict=True)],
            [
                how.places(one)
                for how, one in zip(readings, gradients, strict=True)
                if one is not None
            ],
            pull.is_flat,
            factor,
        )

    def _maps(
        self, pulled: "_Pulled", is_equal: Tensor, layers: tuple[LayerInfo, ...],
        size: Sequence[int],
    ) -> SaliencyMaps:  # fmt: skip
        scaled = self.is_scaled or len(layers) > 1
        parts, shares = [], []
        is_flat = pulled.is_flat | is_equal.to(pulled.is_flat.device)
        is_dead = torch.ones_like(is_flat)
        for activations, gradients in zip(pulled.activations, pulled.gradients, strict=True):
            # float64: powers of small gradients must not vanish
            wide = gradients.double()
            if pulled.factor is not None:
                wide = wide * pulled.factor[:, None, None, None]
            part = upsampled(self.coarse(activations.double(), wide), size)
            parts.append(_unit(part) if scaled else part)
            shares.append((activations < 0).flatten(1).double().mean(dim=1))
            is_dead &= (gradients == 0).flatten(1).all(dim=1)
        maps = torch.stack(parts).mean(dim=0)
        maps[is_flat | is_dead] = 0.0
        dead = f"no gradient at {' or '.join(repr(layer.name) for layer in layers)}"
        reasons = tuple(
            FLAT_REASON if at_top else dead if at_layers else ""
            for at_top, at_layers in zip(is_flat.tolist(), is_dead.tolist(), strict=True)
        )
        states = tuple(RowState.NO_GRADIENT if reason else RowState.OK for reason in reasons)
        share = torch.stack(shares).mean(dim=0).float()
        diagnostics = {"negative_activation_share": share}
        return SaliencyMaps(maps.float(), None, states, reasons, diagnostics)


@dataclass(frozen=True, eq=False)
class _Pulled:
    """Activations and gradients, (n, C, h, w) of each layer, and where the objective is flat.

    The gradients are to be multiplied by the factor, (n,), if there is one.
    """

    activations: list[Tensor]
    gradients: list[Tensor]
    is_flat: Tensor
    factor: Tensor | None = None


def upsampled(coarse: Tensor, size: Sequence[int]) -> Maps:
    """Return (n, H, W) maps from (n, h, w) ones: bilinear, with half-pixel centres."""
    return F.interpolate(
        coarse[:, None], tuple(size), mode="bilinear", align_corners=False, antialias=False
    )[:, 0]


def _unit(maps: Maps) -> Tensor:
    """Scale each (H, W) map to [0, 1]; constant maps become 0, broken ones NaN."""
    # Divided by its peak, a map of any magnitude has values that float32 resolves.
    peaks = maps.abs().amax(dim=(1, 2), keepdim=True)
    scaled, _ = norm01(maps / torch.where(peaks > 0, peaks, 1.0))
    return torch.where(torch.isfinite(peaks), scaled, torch.nan)


@contextmanager
def _cut(module: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, list[Tensor]]]:
    """Start the autograd graph at the first of some layers; yields each layer's activations.

    Enter it with gradients off: nothing before the first layer is recorded. An output that is not
    one tensor of floating point is left alone.
    """
    taken: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    handles = []

    def watch(layer: str) -> None:
        def cut(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            torch.set_grad_enabled(True)  # until the caller's no_grad ends
            with torch.inference_mode(False):
                # Clones on both sides: in-place operations of the network must not reach them.
                kept = output.clone() if output.requires_grad else output.detach().clone()
                taken[layer].append(kept.requires_grad_())
            return kept.clone()

        handles.append(module.get_submodule(layer).register_forward_hook(cut))

    try:
        for layer in layers:
            watch(layer)
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def _gradients(
    embeddings: Tensor, activations: list[Tensor], pull: Tensor
) -> tuple[Tensor | None, ...]:
    if not embeddings.requires_grad:
        return (None,) * len(activations)
    return torch.autograd.grad(
        embeddings, activations, pull.to(embeddings.dtype), allow_unused=True
    )
