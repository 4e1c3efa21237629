"""Model cards: a vendor's description of a model, read strictly and before any weights.

A card is strict YAML (``fxeval.strict.yaml_file``) that starts with ``card: 1``. Beside the weights
and their SHA-256 it says how faces must be cut out and normalised, how embeddings are compared, and
what is claimed of them. What an architecture of the catalogue knows need not be repeated.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, SkipValidation

from fxeval.contracts import ClaimKind, ClaimProtocol, Colour, Crop, SimilarityKind
from fxeval.errors import ModelContractError
from fxeval.functional.similarity import threshold_fault
from fxeval.hooks.outputs import OutputName
from fxeval.models import ARCHITECTURES
from fxeval.models.card_crops import CardName, crop_of
from fxeval.models.preprocessing import Preprocessing, channels_of
from fxeval.strict.forms import Strict, matching
from fxeval.strict.forms import read as read_form
from fxeval.strict.text import describe, suggestion
from fxeval.strict.yaml_file import Document, Kind
from fxeval.strict.yaml_file import read as read_yaml
from fxeval.traits import Family, TrainingData

Format = Literal["safetensors", "state_dict", "torchscript", "torch_export", "onnx", "dlib"]
Runtime = Literal["auto", "onnxruntime", "onnx2torch"]
Layout = Literal["NCHW", "NHWC"]

CARD = Kind("a model card", "card: 1", ModelContractError)
STATE_FORMATS = frozenset({"safetensors", "state_dict", "dlib"})
"""Formats of files that hold weights and no network."""

SUFFIXES: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".pt": "state_dict",
    ".pth": "state_dict",
    ".ckpt": "state_dict",
    ".ts": "torchscript",
    ".pt2": "torch_export",
    ".onnx": "onnx",
    ".dat": "dlib",
}
_NO_EXPORT = (
    "is refused: torch.export.load unpickles parts of the archive without restriction and "
    "evaluates text in it, so that opening a '.pt2' can run anything"
)
_EXPORT_HELP = "give the weights as .safetensors with 'architecture: module:factory', or an .onnx"
_PRESET = ("crop", "colour", "mean", "std", "similarity")
_OWN_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_Numbers = tuple[float, ...]


def _inside(text: str) -> str:
    """Accept the path of a file in a folder, and nothing that leads out of it on any system."""
    is_plain = not re.search(r"[\\:~\n\t]", text) and PurePosixPath(text).as_posix() == text
    if not is_plain or text in (".", "") or text.startswith("/") or ".." in text.split("/"):
        raise ValueError("expected a file inside the folder of the weights, without '..'")
    return text


def _output(value: object) -> OutputName:
    is_place = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_place and not (isinstance(value, str) and 0 < len(value) <= 200):
        raise ValueError("expected the name of an output, or its place, counted from 0")
    return value  # type: ignore[return-value]


def _of_channels(value: object) -> _Numbers:
    numbers: list[Any] = value if isinstance(value, list) and len(value) in (1, 3) else [value]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
        raise ValueError("expected a number or a list of three numbers")
    if not all(0 <= x <= 1000 for x in numbers):
        raise ValueError("expected numbers for pixels of 0 to 255")
    return tuple(map(float, numbers))


def _dividing(numbers: _Numbers) -> _Numbers:
    if min(numbers) <= 0:
        raise ValueError("expected more than 0")
    if min(numbers) < 1:
        raise ValueError(
            "expected 1 or more, for pixels of 0 to 255 (127.5 where those of 0 to 1 have 0.5)"
        )
    return numbers


_Digest = Annotated[
    str, matching(r"[0-9a-fA-F]{64}", "expected 64 hexadecimal digits"), AfterValidator(str.lower)
]
_ListDigest = Annotated[
    str,
    matching(
        r"sha256:[0-9a-f]{64}",
        "expected 'sha256:' and 64 hexadecimal digits, as fxeval check-model prints them",
    ),
]
_Metric = Annotated[
    str,
    matching(
        r"verification_(accuracy|auc|eer)|tmr_at_fmr_1e-[2-4]",
        "expected verification_accuracy, verification_auc, verification_eer or tmr_at_fmr_1e-2, -3 "
        "or -4",
    ),
]
_Text = Annotated[str, Field(max_length=4000)]
_NotEmpty = Annotated[str, Field(min_length=1)]
_Inside = Annotated[str, AfterValidator(_inside)]
_Normalising = Annotated[_Numbers, PlainValidator(_of_channels)]
_Output = Annotated[OutputName, PlainValidator(_output)]
_FILLED: Any = None  # read_card fills such a key in, or refuses the card


class _Frozen(Strict):
    model_config = ConfigDict(frozen=True)


class State(_Frozen):
    """Where the state dict lies in a file of weights.

    Attributes:
        key: Entry of a checkpoint that holds it; None = the checkpoint is one.
        prefix: Only keys that start with it are taken, without it.
        ignore: Beginnings of keys that are left out.
    """

    key: _NotEmpty | None = None
    prefix: str = ""
    ignore: tuple[_NotEmpty, ...] = ()


class Claim(_Frozen):
    """A figure that the vendor claims.

    Attributes:
        pairs: Name of the pair list.
        metric: Of verification, a share in 0 to 1.
        value: Claimed.
        within: How far a measurement may be from it.
        of: ``list``: the value of that very list, which ``list_digest`` names; ``population``: of
            the people and pictures of which the list is a sample.
        list_digest: ``fxeval.verification.list_digest`` of the list, ``sha256:`` and 64 digits.
        protocol: How it was measured: ``plain``, or ``flip_fusion`` with embeddings fused with
            those of the mirror images.
    """

    pairs: CardName
    metric: _Metric
    value: Annotated[float, Field(ge=0, le=1)]
    within: Annotated[float, Field(gt=0, le=0.1)] = 0.003
    of: ClaimKind = "population"
    list_digest: _ListDigest | None = None
    protocol: ClaimProtocol = "plain"


class Golden(_Frozen):
    """Embeddings that the vendor computed: images in, embeddings out, in one ``.npz`` file.

    Attributes:
        file: Beside the weights.
        images: Key of (N, H, W, 3) uint8 RGB crops.
        embeddings: Key of (N, D) embeddings.
        at_most: Largest difference of an entry.
        relative: Whether ``at_most`` is a share of the largest entry.
    """

    file: _Inside
    images: str
    embeddings: str
    at_most: Annotated[float, Field(gt=0, le=0.1)] = 1e-4
    relative: bool = False


class Tags(_Frozen):
    """Words by which models are grouped; see ``fxeval.traits.ModelTags``."""

    training_data: TrainingData | None = None
    family: Family | None = None


class Keys(_Frozen):
    """The keys of a card; :func:`read_card` adds what the architecture and the format imply."""

    card: Literal[1]
    name: CardName  # shown in reports
    weights: _Inside  # relative to their folder
    sha256: _Digest  # of the weights, lower case
    architecture: str | None = None  # of ARCHITECTURES, module:factory; None: a whole network
    state: State = State()
    format: Format = _FILLED  # of the weights
    runtime: Runtime = "auto"  # of an ONNX graph
    layout: Layout | None = None  # of the images of an ONNX graph; None: as its shapes say
    output: _Output | None = None  # the embeddings, where a network has several outputs
    crop: SkipValidation[Crop] = _FILLED  # in the file a name or a mapping, which crop_of reads
    colour: Colour = _FILLED  # order of the channels that the network sees, or grey: one channel
    mean: _Normalising = _FILLED  # of each channel in that order, or of all, in 0 to 255
    std: Annotated[_Normalising, AfterValidator(_dividing)] = _FILLED
    similarity: SimilarityKind = _FILLED
    operating_threshold: float | None = None  # native similarity from which the model says match
    threshold_set_by: _Text = ""  # on which data, by which rule
    claims: tuple[Claim, ...] = ()
    golden: Golden | None = None
    tags: Tags = Tags()
    licence: _Text = ""  # empty: not stated; likewise the rest
    source: _Text = ""  # of the weights
    trained_on: _Text = ""
    notes: _Text = ""


class ModelCard(Keys, State):
    """A card without faults, every default filled in.

    Attributes:
        file: The card.
        digest: SHA-256 of its text as hex: what it says changes what the weights compute.
    """

    file: Path
    digest: str

    @property
    def preprocessing(self) -> Preprocessing:
        """Colour order, mean and standard deviation."""
        return Preprocessing(self.colour, self.mean, self.std)


def read_card(path: Path) -> ModelCard:
    """Read and check a card; no weights are opened and no code of the user's is imported.

    Raises:
        ModelContractError: Holding every fault, each with ``file:line:column``.
    """
    document = read_yaml(path, CARD)
    raw = dict(document.data)
    if raw.get("operating_threshold", 0) is None:  # null is an answer: there is none
        del raw["operating_threshold"]
    form = read_form(document, Keys, (), raw)
    format = _format(form, document)
    preset = _preset(form, document, format)
    crop = crop_of(preset["crop"], document)
    _fit_channels(preset, document)
    _check_threshold(form, preset["similarity"], document)
    document.raise_faults()
    known = ARCHITECTURES.get(preset["architecture"])
    values = dict(form) | dict(form.state) | preset | {"format": format, "crop": crop}
    values["ignore"] += known.ignore if known else ()
    digest = hashlib.sha256("\n".join(document.lines).encode()).hexdigest()
    return ModelCard.model_construct(file=path, digest=digest, **values)


def _format(form: Keys, document: Document) -> Format | None:
    """Return the format of the weights, noting what does not go with it."""
    weights = getattr(form, "weights", None) or ""
    given = {key for key, value in document.data.items() if value is not None}
    format = form.format or SUFFIXES.get(PurePosixPath(weights).suffix.lower())
    if format is None and weights and "format" not in document.data:
        text = f"'weights' has none of the endings {', '.join(SUFFIXES)}"
        document.fault(document.value(("weights",)), text, "say what it is with 'format'")
    if format == "torch_export":
        at = document.value(("format",) if form.format else ("weights",))
        document.fault(at, f"torch_export {_NO_EXPORT}", _EXPORT_HELP)
    for key in ("runtime", "layout"):
        if key in given and getattr(form, key) and format != "onnx":
            document.fault(document.key((key,)), f"'{key}' is only for the format onnx")
    if "output" in given and format == "onnx" and isinstance(form.output, int):
        text = (
            f"'output': expected the name of an output of the graph, got the number {form.output}"
        )
        document.fault(
            document.value(("output",)), text, f"write a name in quotes: '{form.output}'"
        )
    if "state" in given and form.state and format not in ("state_dict", "safetensors", None):
        text = f"'state' is only for files of weights, not for {format}"
        document.fault(document.key(("state",)), text)
    if isinstance(form.state, State) and form.state.key and format == "safetensors":
        text = "'key' is only for checkpoints: a safetensors file holds one state dict"
        document.fault(document.key(("state", "key")), text)
    return format


def _preset(form: Keys, document: Document, format: Format | None) -> dict[str, Any]:
    """Return architecture, crop, colour, mean, std and similarity, noting which are missing."""
    name, at = form.architecture, document.value(("architecture",))
    if name is None and format == "dlib":
        name = "dlib_resnet"
    known = ARCHITECTURES.get(name or "")
    if format in STATE_FORMATS and name is None and "architecture" not in document.data:
        document.fault(
            document.value(("weights",)),
            f"{format} holds weights and no network: the key 'architecture' is missing",
            f"give module:factory or one of {', '.join(ARCHITECTURES)}",
        )
    elif format not in STATE_FORMATS and format is not None and name is not None:
        text = f"'architecture' is only for files of weights: {format} holds the network"
        document.fault(document.key(("architecture",)), text)
    elif name is not None and not known and not _OWN_CODE.fullmatch(name):
        near = suggestion(name, ARCHITECTURES) or f"known: {', '.join(ARCHITECTURES)}"
        document.fault(at, f"no architecture {describe(name)}, and no module:factory", near)
    elif format == "dlib" and name != "dlib_resnet":
        document.fault(at, f"expected 'dlib_resnet' for the format dlib, got {describe(name)}")
    if form.output is not None and known:
        text = f"'output' is for networks of your own: {name} has one output"
        document.fault(document.key(("output",)), text)
    preset: dict[str, Any] = {"architecture": name}
    for key in _PRESET:
        preset[key] = getattr(form, key)
        if preset[key] is None and known:
            preset[key] = getattr(known, key)
    missing = [key for key in _PRESET if preset[key] is None and key not in document.data]
    if missing and (name is None or _OWN_CODE.fullmatch(name)):
        text = f"missing: {', '.join(missing)}; no architecture of the catalogue gives them"
        document.fault(document.value(()), text)
    return preset


def _fit_channels(preset: dict[str, Any], document: Document) -> None:
    """Give mean and std one number a channel, noting what does not go with the colour."""
    name, colour = preset["architecture"], preset["colour"]
    if colour == "grey" and name in ARCHITECTURES:
        text = f"{name} takes three channels: expected RGB or BGR, got 'grey'"
        document.fault(document.value(("colour",)), text)
    elif colour is not None:
        n = channels_of(colour)
        for key in ("mean", "std"):
            given = preset[key]
            if not isinstance(given, tuple | list):  # it could not be read, which is noted
                continue
            if len(given) not in (1, n):
                text = f"'{key}': expected a number for the one channel of grey, got three"
                document.fault(document.value((key,)), text)
            preset[key] = given * n if len(given) == 1 else given


def _check_threshold(form: Keys, similarity: SimilarityKind | None, document: Document) -> None:
    threshold = form.operating_threshold
    if threshold is None:
        return
    fault = threshold_fault(similarity, threshold) if similarity else ""
    if fault:
        at = document.value(("operating_threshold",))
        document.fault(at, f"'operating_threshold': {fault}")
    if not form.threshold_set_by and "threshold_set_by" not in document.data:
        text = "'threshold_set_by' is missing: say on which data and by which rule"
        document.fault(document.key(("operating_threshold",)), text)
