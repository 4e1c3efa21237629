"""A network of the same architecture that knows nothing.

An explainer whose maps survive the loss of everything its network has learnt is not explaining the
network. Weights are drawn here, with one generator per layer, rather than by ``reset_parameters``:
that draws from the global generator, and seeding it the same way before every layer would give
layers of equal shape equal weights.
"""

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from fxeval.contracts import Embeddings, Images
from fxeval.errors import EvidenceError, ModelContractError
from fxeval.redaction import of_user_code
from fxeval.seeding import sealed, seed_of

_CALIBRATION_BATCH = 64
_SMALLEST_EPS = 1e-5  # torch's own default
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def randomise(
    module: nn.Module,
    calibration: Images,
    suite_seed: int,
    index: int,
    layers: Collection[str] | None = None,
) -> nn.Module:
    """Return a copy of a network with its weights re-drawn, all of them or those of some layers.

    Convolutions and linear layers get torch's own initialisation (Kaiming-uniform with a = sqrt(5),
    bias uniform in +-1 / sqrt(fan_in)), normalisation layers weight 1 and bias 0, PReLU its initial
    slope; a parameter of any other module becomes a random permutation of its own values. With the
    batch-norm statistics of the trained network, or of a new one, such a network would embed all
    faces alike, so the statistics are estimated again: averages over the calibration images, batch
    norm in train mode and everything else, dropout too, in eval mode. A smaller eps of a batch norm
    is raised to 1e-5, since a channel that the new weights leave constant would divide zero by
    zero.

    Args:
        module: ``Images -> Embeddings``; stays as it is.
        calibration: (N, 3, H, W) float32 in [0, 1] on the module's device, N >= 2.
        suite_seed: The suite's seed.
        index: Number of the re-drawn network, from 0.
        layers: Dotted names of the modules whose own weights are re-drawn; None = all. A layer gets
            the same weights whichever others are re-drawn with it. The statistics of all batch
            norms are estimated again, as what comes before them may have changed.

    Returns:
        The copy in eval mode, on the same device. The same seed gives the same weights on every
        device. No global generator is touched and ``requires_grad`` is as in the original.

    Raises:
        EvidenceError: If there are fewer than two calibration images.
        ModelContractError: If the module cannot be copied.

    Source:
        Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, sec. 3.
    """
    if len(calibration) < 2:
        raise EvidenceError(
            "model randomisation: expected at least 2 calibration images, got "
            f"{len(calibration)}. Use a longer pair list."
        )
    redrawn = _copy_of(module)
    with torch.no_grad():
        for name, layer in redrawn.named_modules():
            if layers is None or name in layers:
                _redraw(layer, _generator(suite_seed, "randomise", index, name))
        with sealed(seed_of(suite_seed, "randomise", index, "statistics")):
            _estimate_statistics(redrawn, calibration)
    return redrawn


def nudged(module: nn.Module, suite_seed: int, index: int, amount: float) -> nn.Module:
    """Return a copy of a network whose weights differ from the original's by next to nothing.

    Each parameter is multiplied by 1 + ``amount`` * z, with z from the standard normal
    distribution. An explanation of the network hardly changes; one that recognises the network by
    its digest does.

    Args:
        module: ``Images -> Embeddings``; stays as it is.
        suite_seed: The suite's seed.
        index: Number of the nudged network, from 0.
        amount: Standard deviation of the relative change, above 0.

    Returns:
        The copy in eval mode, on the same device; buffers stay as they are.

    Raises:
        ModelContractError: If the module cannot be copied.
    """
    copied = _copy_of(module).eval()
    with torch.no_grad():
        for name, layer in copied.named_modules():
            generator = _generator(suite_seed, "nudge", index, name)
            for parameter in layer.parameters(recurse=False):
                z = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.mul_((1.0 + amount * z).to(parameter.device, parameter.dtype))
    return copied


def _copy_of(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module, _copies_of_results(module))
    except Exception as error:
        said = f"model randomisation: {type(module).__name__} can't be copied"
        raise ModelContractError(
            f"{said} ({type(error).__name__}: {error}). Its weights can't be re-drawn without a "
            "copy.",
            public=f"{said}: {of_user_code(error)}",
        ) from error


def _generator(suite_seed: int, purpose: str, index: int, layer: str) -> torch.Generator:
    generator = torch.Generator()
    generator.manual_seed(seed_of(suite_seed, purpose, index, layer))
    return generator


def _copies_of_results(module: nn.Module) -> dict[int, Tensor]:
    """Return copies of the tensors that a module keeps of a computation, by the originals' ids.

    Weights that a hook computes at every pass, and cached outputs, are such; ``copy.deepcopy``
    refuses them, and takes these instead.
    """
    found: list[object] = []
    for part in module.modules():
        for value in vars(part).values():
            found += value.values() if isinstance(value, dict) else [value]
            found += value if isinstance(value, list | tuple) else []
    return {
        id(one): one.detach().clone()
        for one in found
        if isinstance(one, Tensor) and not one.is_leaf
    }


@dataclass(frozen=True)
class Coverage:
    """What of a network is replaced in a copy of it.

    Attributes:
        parameters: Share of the values of all parameters that differ, 0 to 1; 0 without any.
        buffers: Share of the values of all buffers that differ; None without any.
        kept: Names of the parameters and buffers that should have changed, and of which no value
            did.
    """

    parameters: float
    buffers: float | None
    kept: tuple[str, ...]


def coverage(
    original: nn.Module, redrawn: nn.Module, layers: Collection[str] | None = None
) -> Coverage:
    """Return what of a network is replaced in a re-drawn copy.

    Args:
        original: The network.
        redrawn: The copy.
        layers: Dotted names of the modules whose own tensors should have changed; None = all.

    Raises:
        ValueError: If the two do not have the same parameters and buffers.
    """
    shares, kept = [], []
    for before, after in (
        (dict(original.named_parameters()), dict(redrawn.named_parameters())),
        (dict(original.named_buffers()), dict(redrawn.named_buffers())),
    ):
        if {n: t.shape for n, t in before.items()} != {n: t.shape for n, t in after.items()}:
            raise ValueError("coverage: expected two networks of one architecture.")
        changed = {name: int((before[name] != after[name]).sum()) for name in before}
        values = sum(tensor.numel() for tensor in before.values())
        shares.append(sum(changed.values()) / values if values else None)
        kept += [
            name
            for name, number in changed.items()
            if not number and (layers is None or name.rpartition(".")[0] in layers)
        ]
    return Coverage(shares[0] or 0.0, shares[1], tuple(kept))


def redrawn_share(original: nn.Module, redrawn: nn.Module) -> float:
    """Return the share, 0 to 1, of a network's parameters that differ from the original's.

    Raises:
        ValueError: If the two are not of one architecture.
    """
    return coverage(original, redrawn).parameters


def embedding_spread(embeddings: Embeddings) -> float:
    """Return the mean of 1 - cosine over all pairs of (N, D) embeddings, N >= 2; 0 to 2.

    Two embeddings of zero length count as equal, so a network that answers 0 has no spread.

    Raises:
        ValueError: If there are fewer than two embeddings or one is not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2 or not bool(embeddings.isfinite().all()):
        raise ValueError(
            f"embedding_spread: expected finite (N >= 2, D), got {tuple(embeddings.shape)}."
        )
    vectors = embeddings.detach().to("cpu", torch.float64)
    lengths = vectors.norm(dim=1, keepdim=True)
    # One more dimension, in which vectors of length zero all become the same unit vector.
    is_zero = (lengths == 0.0).double()
    units = torch.cat([vectors / (lengths + is_zero), is_zero], dim=1)
    n = len(units)
    # The squared length of the sum holds all cosines, n of them of a vector with itself.
    mean_cosine = (float(units.sum(0).square().sum()) - n) / (n * (n - 1))
    return max(0.0, 1.0 - mean_cosine)


def _redraw(layer: nn.Module, generator: torch.Generator) -> None:
    """Re-draw the parameters that the layer itself owns, in place."""
    parameters = dict(layer.named_parameters(recurse=False))
    if isinstance(layer, _ConvNd | nn.Linear) and "weight" in parameters:
        bound = 1.0 / math.sqrt(max(1, parameters["weight"][0].numel()))
        for parameter in parameters.values():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(bound * (2.0 * drawn - 1.0))
    elif isinstance(layer, _NORMS):
        for name, parameter in parameters.items():
            parameter.fill_(1.0 if name == "weight" else 0.0)
    elif isinstance(layer, nn.PReLU):
        layer.weight.fill_(layer.init)
    else:
        for parameter in parameters.values():
            parameter.copy_(_permuted(parameter, generator))


def _permuted(parameter: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    return parameter.flatten()[order].view_as(parameter)


def _estimate_statistics(module: nn.Module, calibration: Images) -> None:
    """Replace the statistics of every batch norm by averages over the calibration images."""
    module.eval()
    norms = [
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.eps = max(layer.eps, _SMALLEST_EPS)
        layer.momentum = None  # makes torch compute a cumulative average
        layer.train()
    # No batch of one: its variance is undefined after the last pooling.
    for images in calibration.tensor_split(math.ceil(len(calibration) / _CALIBRATION_BATCH)):
        module(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
