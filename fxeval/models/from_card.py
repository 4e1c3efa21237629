"""Loads the face model that a model card describes, and checks it.

The order matters: the weights are read once, and parsed only after their digest was compared. Then
follow the checks for NaN, against the architecture, on the embeddings of two images, and against
the vendor's own embeddings.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fxeval.contracts import CardFacts, FaceModel, GoldenCheck, ModelTraits
from fxeval.errors import ModelContractError
from fxeval.models import ARCHITECTURES, build
from fxeval.models.cards import STATE_FORMATS, ModelCard, read_card
from fxeval.models.files.formats import (
    parse_checkpoint,
    parse_safetensors,
    parse_torchscript,
    selected,
)
from fxeval.models.golden import compare
from fxeval.models.loading import (
    ModelAround,
    TorchFaceModel,
    check_loaded,
    fill_module,
    read_weights,
)
from fxeval.models.own_code import code_digest, network_of, takes_the_preprocessing
from fxeval.models.preprocessing import Preprocessed, Preprocessing
from fxeval.strict.text import brief


@dataclass(frozen=True, eq=False)
class CardedModel(ModelAround):
    """A face model with the card it was loaded from; otherwise it behaves like the model itself.

    Attributes:
        card: The vendor's description.
        golden: Result of the comparison with the vendor's own embeddings.
    """

    card: ModelCard
    golden: GoldenCheck

    @cached_property
    def traits(self) -> ModelTraits:
        """Facts from the card, the result of the comparison, and the runtime; computed once."""
        traits, card = super().traits, self.card
        factory = card.architecture
        return replace(
            traits,
            card=CardFacts(
                digest=card.digest,
                claims=card.claims,
                preprocessing=asdict(card.preprocessing),
                licence=card.licence,
                source=card.source,
                trained_on=card.trained_on,
                threshold_set_by=card.threshold_set_by,
            ),
            golden=self.golden,
            runtime=traits.runtime or f"torch {torch.__version__}",
            code=None if factory is None else code_digest(factory, card.file.parent),
        )


@dataclass(frozen=True)
class CardModel:
    """A user's model, given by its card; returned by the fixture ``model_card``.

    Attributes:
        file: The card.
        weights_dir: Folder of the weights; None = the folder of the card.
    """

    file: Path | None = None
    weights_dir: Path | None = None

    def load(self) -> CardedModel:
        """Read, check and return the model.

        Raises:
            ModelContractError: If no card is named, or the card or its weights cannot be trusted.
        """
        if self.file is None:
            raise ModelContractError(
                "model 'card': expected the file of a card, got none. Write: "
                "{use: card, params: {file: my-model.yaml}}"
            )
        return load_card(self.file, self.weights_dir)


class ShippedModel(NamedTuple):
    """A model whose card comes with fxeval; it has no parameters for a suite to set.

    Attributes:
        file: The card.
        weights_dir: Folder of the weights, or None if none is named.
    """

    file: Path
    weights_dir: Path | None

    def load(self) -> CardedModel:
        """Read, check and return the model.

        Raises:
            ModelContractError: If no folder of weights is named, or its content cannot be trusted.
        """
        if self.weights_dir is None:
            card = read_card(self.file)
            raise ModelContractError(
                f"model '{card.name}': no folder of weights is named. Pass --fx-weights DIR or set "
                f"FXEVAL_WEIGHTS; the folder holds {card.weights} (from {card.source})."
            )
        return load_card(self.file, self.weights_dir)


class Preview(NamedTuple):
    """The capabilities of a model that explainers may need, as known from its card alone.

    Attributes:
        has_gradients: Embeddings can be differentiated.
        has_layers: Hooks see what the layers compute.
        reason: Reason why one of them is missing; empty if both are there.
    """

    has_gradients: bool
    has_layers: bool
    reason: str


def preview(card: ModelCard) -> Preview:
    """Return the capabilities of the card's model without opening its weights."""
    if card.format == "torchscript":
        return Preview(True, False, "TorchScript: PyTorch calls no hooks inside it")
    if card.format != "onnx":
        return Preview(True, True, "")
    if card.runtime == "onnxruntime":
        return Preview(False, False, "ONNX Runtime computes no gradients (runtime: onnxruntime)")
    missing = [name for name in ("onnx2torch", "torchvision") if find_spec(name) is None]
    if missing:
        return Preview(False, False, f"ONNX without {' and '.join(missing)} has no gradients")
    return Preview(True, True, "")


def load_card(file: str | Path, weights_dir: str | Path | None = None) -> CardedModel:
    """Load the model that a card describes.

    Args:
        file: The card.
        weights_dir: Folder of the weights; None = the folder of the card.

    Raises:
        ModelContractError: If the card is wrong, or the model cannot be trusted.
    """
    card = read_card(Path(file))
    folder = Path(file).parent if weights_dir is None else Path(weights_dir)
    path = inside(folder, card.weights, f"model '{card.name}'")
    data = read_weights(path, card.sha256)
    model = _model(data, str(path), card)
    check_loaded(model)
    golden = compare(model, card, folder)
    return CardedModel(model, card, golden)


def inside(folder: Path, name: str, whose: str) -> Path:
    """Return the path of a file in a folder; a path that leads out of the folder is an error.

    Raises:
        ModelContractError: If a link leads out of the folder.
    """
    path = folder / name
    try:
        real = path.resolve()
        stays = real.is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a cycle of links
        stays = False
    if not stays:
        raise ModelContractError(
            f"{whose}: {path} is a link that leads out of {folder}. Replace the link by the file."
        )
    return path


def fitting(state: dict[str, Tensor]) -> list[str]:
    """Return the architectures of the catalogue that a state dict fits, by names and shapes."""
    names = []
    for name in ARCHITECTURES:
        try:
            with torch.device("meta"):
                own = build(ARCHITECTURES[name].factory).state_dict()
        except ImportError:
            continue
        needed = {key for key in own if not key.endswith("num_batches_tracked")}
        if needed <= state.keys() <= own.keys() and all(
            own[key].shape == value.shape for key, value in state.items()
        ):
            names.append(name)
    return names


def _model(data: bytes, where: str, card: ModelCard) -> FaceModel:
    if card.format == "onnx":
        return _onnx(data, where, card)
    if card.format in STATE_FORMATS:
        module = _filled(data, where, card)
    else:
        module = Preprocessed(parse_torchscript(data, where), card.preprocessing)
    return TorchFaceModel(
        card.name,
        card.crop,
        module.eval(),
        card.similarity,
        card.operating_threshold,
        card.sha256,
        traits=ModelTraits(has_layers=card.format != "torchscript"),
    )


def _filled(data: bytes, where: str, card: ModelCard) -> nn.Module:
    factory, beside = card.architecture or "", card.file.parent
    takes = takes_the_preprocessing(factory, beside)
    if factory in ARCHITECTURES and not takes:
        known = ARCHITECTURES[factory]
        if card.preprocessing != Preprocessing(known.colour, known.mean, known.std):  # type: ignore[arg-type]
            raise ModelContractError(
                f"{card.file}: {factory} always normalises with {known.colour}, mean {known.mean} "
                f"and std {known.std}. Remove colour, mean and std from the card."
            )
    if card.format == "dlib":
        from fxeval.models.networks.dlib_resnet import filled

        return filled(data, where)
    if card.format == "safetensors":
        state = parse_safetensors(data, where)
    else:
        state = parse_checkpoint(data, where, card.key)
    state = selected(state, card.prefix, card.ignore, where)
    network = network_of(factory, card.preprocessing, beside)
    own = network.state_dict()
    # Batch norm's counters of training steps: evaluation never reads them, exports often drop them.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    try:
        fill_module(network, counters | state, where)
    except ModelContractError as error:
        near = [name for name in fitting(state) if name != factory]
        hint = f" They fit {near[0]}: is that the architecture?" if len(near) == 1 else ""
        found = _prefix(state, own.keys() - counters.keys())
        if found:
            hint = (
                f" They fit without the prefix '{brief(found)}': write 'state: {{prefix: "
                f"{brief(found)}}}' into the card."
            )
        raise ModelContractError(f"{error}{hint}", public=f"{error.public}{hint}") from error
    return (
        network if factory in ARCHITECTURES or takes else Preprocessed(network, card.preprocessing)
    )


def _prefix(state: Mapping[str, Tensor], needed: Collection[str]) -> str:
    """Return the prefix that all needed names share in the state dict, or "" if there is none."""
    one = max(needed, key=len, default="")  # any name would do; the longest has fewest matches
    fronts = (name.removesuffix(one) for name in state if one and name.endswith(one))
    return next((front for front in fronts if all(front + key in state for key in needed)), "")


def _onnx(data: bytes, where: str, card: ModelCard) -> FaceModel:
    from fxeval.models.files.onnx_loading import load_onnx
    from fxeval.models.files.onnx_model import OnnxFacts

    facts = OnnxFacts(
        name=card.name,
        crop=card.crop,
        preprocessing=card.preprocessing,
        similarity=card.similarity,
        operating_threshold=card.operating_threshold,
        digest=card.sha256,
        output=card.output,
        runtime=card.runtime,
    )
    return load_onnx(data, where, facts)
