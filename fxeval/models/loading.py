"""From a weight file to a face model that can be trusted.

The order is fixed: read once, compare the digest, only then parse, look for NaN, compare with the
architecture, embed two images. One flipped bit in a weight file loads without complaint in PyTorch
and gives another network; a digest is the only thing that notices.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import cast, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fxeval.admission import check_embeddings
from fxeval.contracts import Crop, Embeddings, FaceModel, Images, SimilarityKind
from fxeval.errors import ModelContractError

MAX_HEADER_BYTES = 4 << 20
"""Longest safetensors header read; 1,000 tensors need about 100 kB."""


@dataclass(frozen=True, eq=False)
class TorchFaceModel:
    """A face model that is a PyTorch module.

    Attributes:
        name: Id shown in reports.
        crop: The crop that the module expects.
        module: (N, 3, H, W) float32 RGB in [0, 1] -> (N, D) raw embeddings, normalisation inside.
        similarity: ``cosine`` or ``neg_l2``.
        operating_threshold: Native similarity from which the model says match, or None.
        digest: SHA-256 of the weights as hex.
    """

    name: str
    crop: Crop
    module: nn.Module
    similarity: SimilarityKind
    operating_threshold: float | None
    digest: str

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the module's device."""
        self.module.eval()
        with torch.inference_mode():
            embeddings: Embeddings = self.module(images.to(device_of(self), torch.float32))
        # Autograd refuses tensors made in inference mode; a copy may serve as a constant in an
        # explainer's objective.
        return embeddings.clone()


def with_module(model: FaceModel, module: nn.Module, *, digest: str) -> TorchFaceModel:
    """Return the model with another module of the same kind, for example with random weights.

    Args:
        model: Gives name, crop, similarity and operating threshold.
        module: The other module.
        digest: What tells its weights from the first ones.
    """
    return TorchFaceModel(
        model.name, model.crop, module, model.similarity, model.operating_threshold, digest
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    return hashlib.sha256(read_weights(path)).hexdigest()


def read_weights(path: Path, expected_digest: str | None = None) -> bytes:
    """Read a weight file whole and compare its SHA-256, so that what is parsed is what was hashed.

    Raises:
        ModelContractError: If it cannot be read or has another digest.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelContractError(
            f"{path}: the weights cannot be read ({error.strerror}). Check the path."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if expected_digest is not None and digest != expected_digest.lower():
        raise ModelContractError(
            f"{path}: SHA-256 {expected_digest.lower()} expected, got {digest} ({len(data)} "
            "bytes). The file is damaged or not the one the card describes: fetch it again."
        )
    return data


def load_safetensors_state(path: Path, expected_digest: str | None = None) -> dict[str, Tensor]:
    """Load a state dict from a safetensors file.

    Args:
        path: The file.
        expected_digest: SHA-256 as hex, compared before the file is parsed; None = any.

    Returns:
        Tensors by name; floating ones in float32.

    Raises:
        ModelContractError: If the file is missing, damaged or holds NaN, or its digest differs.
    """
    data = read_weights(path, expected_digest)
    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ModelContractError(
            f"{path}: a whole safetensors file expected, got {len(data)} bytes that announce a "
            f"header of {header}. Fetch it again."
        )
    try:
        raw = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ModelContractError(
            f"{path}: a safetensors file expected ({error}). Fetch it again."
        ) from error
    state = {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in raw.items()}
    refuse_nonfinite(state, str(path))
    return state


def refuse_nonfinite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelContractError if a weight is NaN or infinite; PyTorch would load it happily."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise ModelContractError(
                f"{where}: {bad} of {value.numel()} values of '{name}' are NaN or infinite. "
                "Export the weights again."
            )


def fill_module(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put a state dict into a module, strictly.

    Raises:
        ModelContractError: Naming the first keys and shapes that differ.
    """
    own = module.state_dict()
    faults = [f"'{key}' is missing" for key in own if key not in state]
    faults += [f"'{key}' is not in the architecture" for key in state if key not in own]
    faults += [
        f"'{key}' is {tuple(state[key].shape)} where {tuple(value.shape)} is expected"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelContractError(
            f"{where}: the weights do not fit {type(module).__name__}: "
            f"{'; '.join(faults[:3])}{more}. Load the weights of this architecture."
        )
    module.load_state_dict(dict(state))


def load_card(card: Path, architecture: Callable[[], nn.Module], crop: Crop) -> TorchFaceModel:
    """Load the model that a card describes, from the ``.safetensors`` file of the card's name.

    Args:
        card: JSON with ``name``, ``sha256``, ``similarity`` and ``operating_threshold`` (or null).
        architecture: Makes the module to fill.
        crop: The crop that the module expects.

    Raises:
        ModelContractError: If the card or the weights cannot be used.
    """
    try:
        content = json.loads(card.read_text("utf-8"))
        name, sha256, kind = (str(content[key]) for key in ("name", "sha256", "similarity"))
        threshold = content["operating_threshold"]
        threshold = None if threshold is None else float(threshold)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelContractError(
            f"{card}: a model card (JSON with name, sha256, similarity, operating_threshold) "
            f"expected ({error!r}). Write or correct it."
        ) from error
    if kind not in get_args(SimilarityKind) or (threshold is not None and not isfinite(threshold)):
        raise ModelContractError(
            f"{card}: similarity 'cosine' or 'neg_l2' and a finite operating threshold expected, "
            f"got {kind!r} and {threshold}. Correct the card."
        )
    weights = card.with_suffix(".safetensors")
    state = load_safetensors_state(weights, sha256)
    with torch.random.fork_rng(devices=[]):  # constructors draw weights from the global generator
        module = architecture()
    fill_module(module, state, str(weights))
    similarity = cast(SimilarityKind, kind)
    model = TorchFaceModel(name, crop, module.eval(), similarity, threshold, sha256.lower())
    check_loaded(model)
    return model


def device_of(model: FaceModel) -> torch.device:
    """Return the device of the model's tensors; the CPU for a model without any."""
    if model.module is None:
        return torch.device("cpu")
    tensor = next(chain(model.module.parameters(), model.module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def check_loaded(model: FaceModel) -> None:
    """Embed two different noise images and refuse a model that is certainly not usable.

    Raises:
        ModelContractError: If an embedding is not finite or zero, the two are equal, an image's
            embedding depends on its batch, or ``module`` and ``embed`` disagree.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *model.crop.size, generator=generator).to(device_of(model))
    try:
        found = model.embed(images), model.embed(images[:1])
    except Exception as error:  # a stranger's code may raise anything
        raise ModelContractError(
            f"model '{model.name}': cannot embed {tuple(images.shape)} images of its crop "
            f"'{model.crop.name}': {type(error).__name__}: {error}"
        ) from error
    embeddings = check_embeddings(model.name, found[0], 2).cpu()
    alone = check_embeddings(model.name, found[1], 1).cpu()
    norms = embeddings.norm(dim=1)
    if not bool((norms > 0).all()):
        raise ModelContractError(
            f"model '{model.name}': embeddings with length > 0 expected, got lengths "
            f"{norms.tolist()}. The weights or the input range are wrong."
        )
    scale = float(norms.max())
    if float((embeddings[0] - embeddings[1]).norm()) <= 1e-6 * scale:
        raise ModelContractError(
            f"model '{model.name}': two different images got the same embedding. The weights or "
            "the input range are wrong."
        )
    if float((alone - embeddings[:1]).abs().max()) > 1e-3 * scale:
        raise ModelContractError(
            f"model '{model.name}': the embedding of an image must not depend on the others in its "
            "batch. Switch the network to evaluation mode: network.eval()."
        )
    if model.module is None:
        return
    with torch.inference_mode():
        direct = model.module(images).detach().cpu().float()
    if direct.shape != embeddings.shape or float((direct - embeddings).abs().max()) > 1e-3 * scale:
        raise ModelContractError(
            f"model '{model.name}': embed(images) and module(images) must agree, so that gradient "
            "explainers explain what is measured. Put the normalisation inside the module."
        )
