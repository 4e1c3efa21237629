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

from fxeval.contracts import CardFacts, FaceModel, GoldenCheck, ModelTags, ModelTraits
from fxeval.errors import ModelContractError
from fxeval.hooks.outputs import OutputName
from fxeval.models import ARCHITECTURES, build
from fxeval.models.cards import STATE_FORMATS, ModelCard, read_card
from fxeval.models.files.formats import (
    as_float32,
    parse_torchscript,
    read_checkpoint,
    read_safetensors,
    selected,
    stored_as,
)
from fxeval.models.golden import compare
from fxeval.models.loading import (
    ModelAround,
    TorchFaceModel,
    check_loaded,
    fill_module,
    read_weights,
)
from fxeval.models.outputs import chosen
from fxeval.models.own_code import code_digest, network_of, takes_the_preprocessing
from fxeval.models.preprocessing import Preprocessed, Preprocessing, mismatch
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
            code=None if factory is None else code_digest(factory, card.file.parent),
            tags=ModelTags(**dict(card.tags)),
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
    _check_output(model, card)
    check_loaded(model)
    golden = compare(model, card, folder)
    return CardedModel(model, card, golden)


def _check_output(model: FaceModel, card: ModelCard) -> None:
    """Embed one image, and explain what a card can mend.

    Raises:
        ModelContractError: If the network sees another number of channels than the card says, or
            returns something else than embeddings.
    """
    if model.module is None:
        return
    try:
        with torch.no_grad():
            chosen(model.module(torch.full((1, 3, *card.crop.size), 0.5)), None)
    except ModelContractError as error:
        raise ModelContractError(
            f"model '{card.name}': {error}", public=f"model '{card.name}': {error.public}"
        ) from error
    except Exception as error:  # user code may raise anything; check_loaded reports it
        kernel = next((one for one in model.module.parameters() if one.ndim == 4), None)
        channels = 0 if kernel is None else kernel.shape[1]
        given = card.preprocessing.channels
        if channels in (1, 3) and channels != given:
            raise ModelContractError(
                f"model '{card.name}': {mismatch(channels, card.colour)}"
            ) from error


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
    stored = ""
    if card.format in STATE_FORMATS:
        module, stored = _filled(data, where, card)
    else:
        script = parse_torchscript(data, where)
        stored = stored_as(script.state_dict().values())
        module = Preprocessed(script.float(), card.preprocessing, card.output)
    return TorchFaceModel(
        card.name,
        card.crop,
        module.eval(),
        card.similarity,
        card.operating_threshold,
        card.sha256,
        traits=ModelTraits(
            has_layers=card.format != "torchscript",
            runtime=f"torch {torch.__version__}"
            + (f"; the weights are stored in {stored} and computed in float32" if stored else ""),
        ),
    )


def _filled(data: bytes, where: str, card: ModelCard) -> tuple[nn.Module, str]:
    """Return the network with its weights, and how they are stored if not in float32."""
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

        return filled(data, where), ""
    if card.format == "safetensors":
        raw = read_safetensors(data, where)
    else:
        raw = read_checkpoint(data, where, card.key)
    state = selected(as_float32(raw, where), card.prefix, card.ignore, where)
    stored = stored_as(selected(raw, card.prefix, card.ignore, where).values())
    network = network_of(factory, card.preprocessing, beside)
    own = network.state_dict()
    # Batch norm's counters of training steps: evaluation never reads them, exports often drop them.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    try:
        fill_module(network, counters | state, where)
    except ModelContractError as error:
        hint = _misfit(state, own.keys() - counters.keys(), own.keys(), factory)
        detail, public = str(error), error.public
        if hint:  # better advice than to load other weights
            detail, public = (
                f"{said.removesuffix(' Load the weights of this architecture.')}{hint}"
                for said in (detail, public)
            )
        raise ModelContractError(detail, public=public) from error
    return prepared(network, factory, card.preprocessing, card.output, beside), stored


def prepared(
    network: nn.Module,
    factory: str,
    preprocessing: Preprocessing,
    output: OutputName | None,
    folder: Path | None,
) -> nn.Module:
    """Return a network with what the card puts around it: the normalisation, the chosen output.

    Args:
        network: As its factory made it, with its weights.
        factory: Its factory; those of the catalogue need nothing around them.
        preprocessing: The card's; put in front unless the factory took it.
        output: The embeddings among several outputs.
        folder: Folder of the card.
    """
    takes = takes_the_preprocessing(factory, folder)
    if factory in ARCHITECTURES or (takes and output is None):
        return network
    return Preprocessed(network, None if takes else preprocessing, output)


def _misfit(
    state: Mapping[str, Tensor], needed: Collection[str], known: Collection[str], factory: str
) -> str:
    """Return what to do where weights do not fit a network; "" if that is not known."""
    found = _prefix(state, needed)
    if found:
        return (
            f" They fit without the prefix '{brief(found)}': write 'state: {{prefix: "
            f"{brief(found)}}}' into the card."
        )
    near = [name for name in fitting(dict(state)) if name != factory]
    if len(near) == 1:
        return f" They fit {near[0]}: is that the architecture?"
    beyond = sorted({"".join(key.partition(".")[:2]) for key in state if key not in known})
    if beyond and set(needed) <= state.keys():
        ignored = ", ".join(brief(one) for one in beyond[:5])
        return (
            " Everything that the architecture needs is there. If the rest does not belong to the "
            f"embedding, write 'state: {{ignore: [{ignored}]}}' into the card."
        )
    return ""


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
        output=None if card.output is None else str(card.output),
        runtime=card.runtime,
        layout=card.layout,
    )
    return load_onnx(data, where, facts)
