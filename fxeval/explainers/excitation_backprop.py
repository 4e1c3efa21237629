"""Excitation backprop: the share of each pixel in the neurons that make two faces alike."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

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
    Need,
    RowState,
    SaliencyMaps,
)
from fxeval.errors import ExplainerContractError
from fxeval.explainers.excitation_graph import Flow, fault
from fxeval.explainers.objectives import FLAT_REASON, Objective, Targets, targets_of, twins
from fxeval.hooks.layers import black_box, borrowed, lent_module
from fxeval.hooks.recording import Recording, record
from fxeval.hooks.returned import check_embeddings
from fxeval.models.loading import device_of

Variant = Literal["ebp", "contrastive", "truncated", "subtree"]

ROWS = 8  # pairs in one forward pass, all activations of which are kept
NATIVE_HEIGHT = 112  # the crop height that SIGMA is given for
SIGMA = 2.0  # of the blur, in pixels at NATIVE_HEIGHT
_TINY = 1e-30  # below the sum of any map that is not zero


@dataclass(frozen=True)
class EBP:
    """Excitation backprop from the similarity to the pixels, through positive weights alone.

    A head of two linear units, with the mate's and the nonmate's embedding as weights, reads the
    embedding. The probability that a neuron wins is 1 at the unit and is passed down layer by layer
    in proportion to ``a w+``; the map is the probability that arrives at a pixel, summed over the
    colour channels.

    * ``ebp``: starts at the mate's unit; takes no contrast.
    * ``contrastive``: ``ReLU(P_mate / sum P_mate - P_non / sum P_non)``, per pixel and channel.
    * ``truncated``: the same, restricted to the elements of P_mate whose cumulative mass, counted
      from the smallest, is at least the share ``mass`` of the total.
    * ``subtree``: starts at one neuron of each layer, the one with the largest ``-dc_non/dx`` among
      those with ``dc_mate/dx >= 0`` (c: cosines). Of the neurons that the mate's excitation
      reaches, the ``top`` ones with the largest values are used; their maps, each divided by its
      maximum, are summed, weighted by these values min-max scaled. Layers are the inputs of
      convolutions, fully connected layers and batch norms after the first convolution.

    Negative activations (after PReLU, or a pixel darker than the network's zero) win nothing, and
    negative weights pass nothing on. Networks with an operation for which this rule is not defined
    (sigmoid, tanh, ELU, GELU, products of activations) are not supported.

    Diagnostics, by map: ``mass_lost``, 1 minus the share of the mate's unit that arrives at the
    image; ``excitation_passes``, the number of passes down the network;
    ``negative_activation_share``, the mean share of negative inputs of convolutions and fully
    connected layers; ``subtrees``, how many were summed (``subtree`` only).

    Attributes:
        variant: See above.
        mass: Share of the mass that ``truncated`` cuts off, 0 to 1.
        top: Number of subtrees, at least 1.
        post: Blur the map (Gaussian, sigma 2 pixels at 112 pixels height, border repeated) and
            divide it by its sum; otherwise it stays as it arrived.

    Example:
        An entry under ``explainers`` in a suite::

            - {use: ebp, params: {variant: contrastive}, as: contrastive_ebp}

    Source:
        Zhang et al., ECCV 2016, sec. 3; Williford et al., ECCV 2020, sec. 3.
    """

    variant: Variant = "ebp"
    mass: float = 0.2
    top: int = 64
    post: bool = True

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise _refused("variant", f"one of {', '.join(get_args(Variant))}", self.variant)
        number = isinstance(self.mass, int | float) and not isinstance(self.mass, bool)
        if not number or not 0 <= self.mass <= 1:
            raise _refused("mass", "a number from 0 to 1", self.mass)
        if isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 1:
            raise _refused("top", "a whole number of at least 1", self.top)
        if not isinstance(self.post, bool):
            raise _refused("post", "true or false", self.post)

    @property
    def traits(self) -> ExplainerTraits:
        """Gradients and layers; a contrast for all variants but ``ebp``."""
        needs: set[Need] = {"gradients", "layers"}
        if self.variant != "ebp":
            needs.add("contrast")
        return ExplainerTraits(
            needs,
            takes_centroids=True,
            source="Zhang et al., ECCV 2016, sec. 3; Williford et al., ECCV 2020, sec. 3",
        )

    def unsupported(self, model: FaceModel) -> str | None:
        """Return why this kind of model cannot be explained, naming the operation, or None.

        Runs the model on one grey image.
        """
        if model.module is None:
            return black_box(model)
        if any(weight.dtype == torch.float16 for weight in model.module.parameters()):
            return (
                "its weights are float16, in which the shares of excitation become 0. Convert the "
                "network with network.float()."
            )
        grey = torch.full((1, 3, *model.crop.size), 0.5, device=device_of(model))
        with borrowed(model.module):
            found = fault(record(model.module, grey))
        return found and f"{found}."

    def explain(
        self, model: FaceModel, probes: Images, references: Images,
        *, contrast: Images | None = None, generator: np.random.Generator,
    ) -> SaliencyMaps:  # fmt: skip
        """Explain each probe, ``ROWS`` pairs at a time; nothing is drawn from ``generator``.

        Args:
            model: Must have a module, which is restored afterwards.
            probes: (N, 3, H, W) in [0, 1].
            references: (N, 3, H, W), or (N, R, 3, H, W) for centroids.
            contrast: (N, 3, H, W) nonmates; not for variant ``ebp``.
            generator: Not used.

        Returns:
            SaliencyMaps with (N, H, W) maps >= 0. Where no excitation is left, the map is zero and
            its state ``degenerate_map``; where ``subtree`` has no gradient, it is ``no_gradient``.

        Raises:
            ExplainerContractError: If the model is not supported, or the contrast is missing or
                given to variant ``ebp``.
            ModelContractError: If embeddings are not finite (n, D) tensors.
        """
        module = lent_module("ebp", model)
        if self.variant == "ebp" and contrast is not None:
            raise ExplainerContractError(
                "ebp: variant 'ebp' takes no contrast. Use variant 'contrastive', or leave it out."
            )
        if self.variant != "ebp" and contrast is None:
            raise ExplainerContractError(
                f"ebp: variant '{self.variant}' needs a contrast (N, 3, H, W), images of nonmates. "
                "Hand them in, or use variant 'ebp'."
            )
        parts: list[SaliencyMaps] = []
        # Even a caller in inference mode gets gradients; clones are ordinary tensors again.
        with borrowed(module), torch.inference_mode(False), torch.no_grad():
            targets = targets_of(model, references, contrast)
            for start in range(0, len(probes), ROWS):
                rows = slice(start, start + ROWS)
                images = probes[rows].detach().to(device_of(model), copy=True)
                recording = record(module, images)
                reason = fault(recording)
                if reason is not None:
                    raise ExplainerContractError(f"ebp: model '{model.name}': {reason}.")
                assert recording.output is not None
                embeddings = recording.values[recording.output]
                check_embeddings(model.name, embeddings, len(images))
                is_twin = twins(probes[rows], references[rows])
                parts.append(self._explained(recording, targets.rows(rows), is_twin))
        return _joined(parts, probes)

    def _explained(self, recording: Recording, targets: Targets, is_twin: Tensor) -> SaliencyMaps:
        flow = Flow(recording)
        assert recording.output is not None
        embeddings = recording.values[recording.output]
        starts = flow.starts() if self.variant == "subtree" else []
        seed = {recording.output: _head(embeddings, targets.reference)}
        mate, on_the_way = flow.back(seed, starts)
        is_flat = torch.zeros(len(mate), dtype=torch.bool, device=mate.device)
        diagnostics = {
            "mass_lost": 1 - _mass(mate),
            "excitation_passes": torch.ones(len(mate), device=mate.device),
            "negative_activation_share": _negative_share(flow, recording),
        }
        if self.variant == "ebp":
            maps = mate.double().sum(dim=1)
        elif self.variant == "subtree":
            maps, count, is_flat = self._subtrees(flow, recording, targets, on_the_way)
            is_flat = is_flat | is_twin.to(is_flat.device)
            diagnostics["subtrees"] = count
            diagnostics["excitation_passes"] += count
        else:
            assert targets.contrast is not None
            other, _ = flow.back({recording.output: _head(embeddings, targets.contrast)})
            maps = self._contrasted(mate.double(), other.double())
            diagnostics["excitation_passes"] += 1
        maps = maps.masked_fill(is_flat[:, None, None], 0.0)
        if self.post:
            maps = _posted(maps)
        reasons = [
            FLAT_REASON if flat else "" if alive else "no excitation is left at the image"
            for flat, alive in zip(is_flat.tolist(), maps.flatten(1).any(dim=1), strict=True)
        ]
        states = {FLAT_REASON: RowState.NO_GRADIENT, "": RowState.OK}
        return SaliencyMaps(
            maps.float(), None,
            tuple(states.get(reason, RowState.DEGENERATE_MAP) for reason in reasons),
            tuple(reasons), diagnostics,
        )  # fmt: skip

    def _contrasted(self, mate: Tensor, other: Tensor) -> Tensor:
        """Return (n, H, W) of the (n, 3, H, W) float64 excitation by mate and nonmate."""
        mate, other = (
            part / _mass(part).clamp_min(_TINY)[:, None, None, None] for part in (mate, other)
        )
        if self.variant == "truncated":
            ascending, order = mate.flatten(1).sort(dim=1, stable=True)
            mass = ascending.cumsum(dim=1)
            is_kept = torch.zeros_like(order, dtype=torch.bool)
            # scatter_ undoes the sort: from places in the order back to pixels.
            is_kept.scatter_(1, order, mass >= self.mass * mass[:, -1:])
            mate, other = (part * is_kept.view_as(part) for part in (mate, other))
        return (mate - other).clamp_min(0).sum(dim=1)

    def _subtrees(
        self, flow: Flow, recording: Recording, targets: Targets, reached: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (n, H, W) float64 sums, the (n,) number of subtrees and, (n,) bool, is flat."""
        assert targets.contrast is not None
        assert recording.output is not None
        embeddings = recording.values[recording.output]
        pulls = [
            Objective("cos").pull("cosine", embeddings, Targets(towards))
            for towards in (targets.reference, targets.contrast)
        ]
        is_flat = pulls[0].is_flat | pulls[1].is_flat
        maps = torch.zeros_like(recording.images[:, 0], dtype=torch.float64)
        if not reached:
            return maps, maps.new_zeros(len(maps)), is_flat
        slopes = flow.gradients([pull.gradient for pull in pulls], list(reached))
        values, places = [], []
        for up, down, excitation in zip(*slopes, reached.values(), strict=True):
            value, place = ((up >= 0) * -down).flatten(1).max(dim=1, keepdim=True)
            is_reached = excitation.flatten(1).gather(1, place) > 0
            values.append(torch.where(is_reached, value.clamp_min(0), 0.0))
            places.append(place)
        weights, is_start = _weights(torch.cat(values, dim=1).double(), self.top)
        for layer, number in enumerate(reached):
            if not bool(is_start[:, layer].any()):
                continue
            seed = torch.zeros_like(reached[number]).flatten(1)
            seed.scatter_(1, places[layer], is_start[:, layer, None].to(seed.dtype))
            seed = seed.view(reached[number].shape)
            subtree = flow.back({number: seed})[0].double().sum(dim=1)
            peak = subtree.amax(dim=(1, 2)).clamp_min(_TINY)
            maps += (weights[:, layer] / peak)[:, None, None] * subtree
        return maps, is_start.sum(dim=1), is_flat


def _refused(field: str, expected: str, got: object) -> ExplainerContractError:
    return ExplainerContractError(f"ebp: {field} must be {expected}, got {got!r}.")


def _head(embeddings: Embeddings, weights: Embeddings) -> Tensor:
    """Return (n, D), the share of each dimension in one unit of the head; sums to 1, or is 0."""
    positive = [
        F.normalize(part.to(embeddings.device).double(), dim=1, eps=_TINY).clamp_min(0)
        for part in (embeddings, weights)
    ]
    shares = positive[0] * positive[1]
    return (shares / shares.sum(dim=1, keepdim=True).clamp_min(_TINY)).to(embeddings.dtype)


def _mass(excitation: Tensor) -> Tensor:
    """Return the (n,) float64 sums."""
    return excitation.double().flatten(1).sum(dim=1)


def _negative_share(flow: Flow, recording: Recording) -> Tensor:
    """Return (n,), the mean over the weighted layers of the share of their inputs below 0."""
    n = len(recording.images)
    shares = [
        (recording.values[number].reshape(n, -1) < 0).double().mean(dim=1)
        for number in flow.weighted_inputs()
        if len(recording.values[number]) == n
    ]
    return torch.stack(shares).mean(dim=0) if shares else recording.images.new_zeros(n)


def _weights(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return (n, L) weights from 0 to 1 and, (n, L) bool, which are among the top values above 0.

    >>> _weights(torch.tensor([[3.0, 0.0, 1.0, 2.0]]), 3)[0]
    tensor([[1.0000, 0.0000, 0.0000, 0.5000]])
    """
    best = values.topk(min(top, values.shape[1]), dim=1).indices
    is_start = torch.zeros_like(values, dtype=torch.bool).scatter_(1, best, True) & (values > 0)
    high = values.amax(dim=1, keepdim=True)
    low = values.masked_fill(~is_start, torch.inf).amin(dim=1, keepdim=True)
    scaled = torch.where(high > low, (values - low) / (high - low), 1.0)
    return torch.where(is_start, scaled, 0.0), is_start


def _posted(maps: Tensor) -> Maps:
    """Return (n, H, W) float64 maps blurred, clipped at 0 and divided by their sums."""
    sigma = SIGMA * maps.shape[1] / NATIVE_HEIGHT
    down, across = (_blur(size, sigma).to(maps.device) for size in maps.shape[1:])
    blurred = (down @ maps @ across.T).clamp_min(0)
    return blurred / _mass(blurred).clamp_min(_TINY)[:, None, None]


def _blur(size: int, sigma: float) -> Tensor:
    """Return the (size, size) float64 matrix of a Gaussian, cut at 4 sigma, border repeated."""
    radius = math.floor(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    source = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    matrix = torch.zeros((size, size), dtype=torch.float64)
    return matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand_as(source))


def _joined(parts: list[SaliencyMaps], probes: Images) -> SaliencyMaps:
    if not parts:
        return SaliencyMaps(probes.new_zeros((0, *probes.shape[2:])))
    return SaliencyMaps(
        torch.cat([part.positive for part in parts]), None,
        tuple(state for part in parts for state in part.states),
        tuple(reason for part in parts for reason in part.reasons),
        {
            name: torch.cat([part.diagnostics[name] for part in parts])
            for name in parts[0].diagnostics
        },
    )  # fmt: skip
