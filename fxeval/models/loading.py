"""Turns a weight file into a face model, and checks it.

The order matters: the file is read once and parsed only after its digest was compared. Then follow
the checks for NaN, against the architecture, and on the embeddings of two images. PyTorch loads a
weight file with a flipped bit without complaint, as a different network; only a digest detects it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from stat import S_ISREG

import torch
from torch import Tensor, nn

from fxeval.contracts import (
    Crop,
    Embeddings,
    FaceModel,
    Images,
    ModelTraits,
    SimilarityKind,
    model_traits,
)
from fxeval.errors import ModelContractError
from fxeval.hooks.outputs import OutputName, PickedOutput, advice_to_pick, kind_of
from fxeval.hooks.returned import check_embeddings, check_similarity
from fxeval.models.trial import check_batch, check_weights_are_there, embedded
from fxeval.strict.text import brief
from fxeval.traits import check_model_traits

MAX_WEIGHT_BYTES = 4 << 30
"""Largest weight file read."""


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
        traits: What else is known about the model.
        output: Which of several outputs of the module are the embeddings: key, field, or place
            from 0. ``module`` then returns that one alone. None = the module has one output.

    Raises:
        ModelContractError: If the module is none, or the similarity is none of fxeval's.
    """

    name: str
    crop: Crop
    module: nn.Module
    similarity: SimilarityKind
    operating_threshold: float | None
    digest: str
    traits: ModelTraits = field(default=ModelTraits(), kw_only=True)
    output: OutputName | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_similarity(self.name, self.similarity)
        if not isinstance(self.module, nn.Module):
            raise ModelContractError(
                f"model '{self.name}': expected a torch.nn.Module, got "
                f"{type(self.module).__name__}. Wrap a function with fxeval.EmbeddingFunction."
            )
        # A copy made by dataclasses.replace has its output picked already.
        if self.output is not None and not isinstance(self.module, PickedOutput):
            object.__setattr__(self, "module", PickedOutput(self.module, self.output))

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the module's device.

        Raises:
            ModelContractError: If the module returns no tensor.
        """
        self.module.eval()
        # Not in inference mode: a tensor that the module keeps from its first forward pass would be
        # refused by autograd for ever.
        with torch.no_grad():
            embeddings: object = self.module(images.to(device_of(self), torch.float32))
        if not isinstance(embeddings, Tensor):
            raise ModelContractError(
                f"model '{self.name}': its module must return a tensor (N, D), got "
                f"{kind_of(embeddings)}.{advice_to_pick(embeddings, len(images))}"
            )
        # A copy is the caller's own, and is an ordinary tensor whatever the module did.
        return embeddings.clone().detach()


@dataclass(frozen=True, eq=False)
class ModelAround:
    """A face model that wraps another and delegates to it whatever a subclass does not override.

    Attributes:
        model: The wrapped model.
    """

    model: FaceModel

    @property
    def name(self) -> str:
        """Id shown in reports."""
        return self.model.name

    @property
    def crop(self) -> Crop:
        """The crop that ``embed`` expects."""
        return self.model.crop

    @property
    def similarity(self) -> SimilarityKind:
        """``cosine`` or ``neg_l2``."""
        return self.model.similarity

    @property
    def operating_threshold(self) -> float | None:
        """Native similarity from which the model says match; None if it has no such point."""
        return self.model.operating_threshold

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as hex."""
        return self.model.digest

    @property
    def module(self) -> nn.Module | None:
        """``Images -> Embeddings``, differentiable; None for a black box."""
        return self.model.module

    @property
    def traits(self) -> ModelTraits:
        """What else is known about the model; without a module there are no layers."""
        traits = model_traits(self.model)
        return replace(traits, has_layers=traits.has_layers and self.module is not None)

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) float32 images in [0, 1]; returns (N, D) float32, no gradient."""
        return self.model.embed(images)


def with_module(model: FaceModel, module: nn.Module, *, digest: str) -> TorchFaceModel:
    """Return the model with another module of the same kind, for example with random weights.

    Args:
        model: Gives name, crop, similarity and operating threshold.
        module: The other module.
        digest: Digest of the other module's weights.
    """
    return TorchFaceModel(
        model.name,
        model.crop,
        module,
        model.similarity,
        model.operating_threshold,
        digest,
        traits=ModelTraits(has_layers=model_traits(model).has_layers),
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    return hashlib.sha256(read_weights(path)).hexdigest()


def read_weights(path: Path, expected_digest: str | None = None) -> bytes:
    """Read a whole weight file and compare its SHA-256; parse the returned bytes, not the file.

    Raises:
        ModelContractError: If it cannot be read or has another digest.
    """
    try:
        info = path.stat()
        if not S_ISREG(info.st_mode) or info.st_size > MAX_WEIGHT_BYTES:
            raise ModelContractError(
                f"{path}: expected a regular file of at most {MAX_WEIGHT_BYTES} bytes, got "
                f"{info.st_size} bytes or another kind of file. Check the path."
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelContractError(
            f"{path}: the weights cannot be read ({error.strerror}). Check the path."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if expected_digest is not None and digest != expected_digest.lower():
        raise ModelContractError(
            f"{path}: expected SHA-256 {expected_digest.lower()}, got {digest} ({len(data)} "
            "bytes). The file is damaged or not the one in the card: download it again."
        )
    return data


def fill_module(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict into a module; names, shapes and types must match exactly.

    Raises:
        ModelContractError: If they differ; the message names the first differences.
    """
    own = module.state_dict()
    faults = [f"'{key}' is missing" for key in own if key not in state]
    faults += [f"'{brief(key)}' is not in the architecture" for key in state if key not in own]
    faults += [
        f"'{key}' is {_kind(state[key])} where {_kind(value)} is expected"
        for key, value in own.items()
        if key in state and _kind(state[key]) != _kind(value)
    ]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelContractError(
            f"{where}: the weights do not fit {type(module).__name__}: "
            f"{'; '.join(faults[:3])}{more}. Load the weights of this architecture."
        )
    module.load_state_dict(dict(state))


def _kind(value: Tensor) -> str:
    """Return the shape as text, with the dtype unless it is floating-point."""
    shape = str(tuple(value.shape))
    return shape if value.is_floating_point() else f"{shape} of {value.dtype}"


def device_of(model: FaceModel) -> torch.device:
    """Return the device of the model's tensors; the CPU for a model without any."""
    if model.module is None:
        return torch.device("cpu")
    tensor = next(chain(model.module.parameters(), model.module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def check_loaded(model: FaceModel) -> None:
    """Embed two different noise images and check that the model is usable at all.

    Raises:
        ModelContractError: If an embedding is zero or not finite, the two are equal, an image's
            embedding depends on its batch, ``module`` and ``embed`` disagree, or a trait is wrong
            or misspelt.
    """
    check_model_traits(model.name, model)
    check_weights_are_there(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *model.crop.size, generator=generator).to(device_of(model))
    embeddings = embedded(model, images)
    embedded(model, images[:1])
    lengths = embeddings.double().norm(dim=1)
    if not bool((lengths > 0).all()):
        raise ModelContractError(
            f"model '{model.name}': expected embeddings with length > 0, got lengths "
            f"{lengths.tolist()}. The weights or the input range are wrong."
        )
    scale = float(lengths.max())
    if float((embeddings[0].double() - embeddings[1].double()).norm()) <= 1e-6 * scale:
        raise ModelContractError(
            f"model '{model.name}': expected different embeddings of two different images, got the "
            "same. The weights or the input range are wrong."
        )
    check_batch(model, images, embeddings, within=1e-3)
    if model.module is None:
        return
    with torch.no_grad():
        direct = check_embeddings(model.name, model.module(images.clone()), 2).cpu()
    if direct.shape != embeddings.shape or float((direct - embeddings).abs().max()) > 1e-3 * scale:
        again = embedded(model, images)
        if float((again - embeddings).abs().max()) > 1e-3 * scale:
            return  # it does not repeat, which is another fault (``fxeval.models.admission``)
        raise ModelContractError(
            f"model '{model.name}': embed(images) and module(images) differ, so that gradient "
            "explainers would not explain what is measured. Put the normalisation inside the "
            "module."
        )
