"""Face models in ONNX as black boxes, with embeddings computed by ONNX Runtime."""

import importlib
import os
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fxeval.contracts import Crop, Embeddings, Images, ModelTraits, SimilarityKind
from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_bounds import Library, reason
from fxeval.models.files.onnx_file import OnnxFile, flat, missing
from fxeval.models.files.onnx_layout import Expected, ImageInput
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

Runtime = Literal["auto", "onnxruntime", "onnx2torch"]

MIXED = 1e-4
"""Least difference by which a batch changes an entry, as a fraction of the largest one."""

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


@dataclass(frozen=True)
class OnnxFacts:
    """Facts about a face model that are not in its file.

    Attributes:
        name: Id shown in reports.
        crop: The crop that the network expects.
        preprocessing: Preprocessing that the graph does not do itself.
        similarity: ``cosine`` or ``neg_l2``.
        operating_threshold: Native similarity from which the model says match, or None.
        digest: SHA-256 of the file as hex.
        output: Name of the output with the embeddings; None = there is only one.
        runtime: ``onnxruntime``: a black box. ``onnx2torch``: a PyTorch module with gradients.
            ``auto``: onnx2torch if its translation can be had and agrees, else onnxruntime.
        layout: ``NCHW`` or ``NHWC``; None = as the graph says.
    """

    name: str
    crop: Crop
    preprocessing: Preprocessing
    similarity: SimilarityKind
    operating_threshold: float | None
    digest: str
    output: str | None = None
    runtime: Runtime = "auto"
    layout: str | None = None

    @property
    def expected(self) -> Expected:
        """What the graph must fit."""
        return Expected(self.crop.size, self.preprocessing, self.output, self.layout)


@dataclass(frozen=True, eq=False)
class OnnxFaceModel:
    """A face model run by ONNX Runtime on the CPU, as a black box.

    Attributes:
        name: Id shown in reports.
        crop: The crop that the network expects.
        similarity: ``cosine`` or ``neg_l2``.
        operating_threshold: Native similarity from which the model says match, or None.
        digest: SHA-256 of the file as hex.
        normalisation: Preprocessing that the graph does not do itself.
        session: Session of ONNX Runtime.
        images: How the graph takes its images.
        batch: Number of images that are embedded at once; None = any.
        output: Name of the output with the embeddings.
        traits: Name and version of the runtime.
        module: None.
    """

    name: str
    crop: Crop
    similarity: SimilarityKind
    operating_threshold: float | None
    digest: str
    normalisation: InputNormalisation
    session: Library
    images: ImageInput
    batch: int | None
    output: str
    traits: ModelTraits
    module: nn.Module | None = None

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the CPU.

        Raises:
            ModelContractError: If the runtime fails.
        """
        with torch.inference_mode():
            pixels = self.normalisation(images.to("cpu", torch.float32))
        try:
            parts = pixels.split(self.batch or max(len(pixels), 1))
            return flat(torch.cat([self._run(some) for some in parts]))
        except Exception as error:  # ONNX Runtime does not export its error classes
            raise ModelContractError(
                f"model '{self.name}': ONNX Runtime cannot embed {tuple(images.shape)} images: "
                f"{reason(error)}."
            ) from error

    def _run(self, pixels: Tensor) -> Tensor:
        """Run the graph for at most one batch, which is filled up with its last image."""
        n = len(pixels)
        if self.batch is not None and n < self.batch:
            pixels = torch.cat([pixels, pixels[-1:].expand(self.batch - n, -1, -1, -1)])
        if self.images.channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        if self.images.dtype == "uint8":
            pixels = pixels.clamp(0, 255).round()
        given = {self.images.name: pixels.numpy().astype(self.images.dtype, order="C")}
        found = self.session.run([self.output], given)[0]
        return torch.from_numpy(found[:n]).float()


def black_box(file: OnnxFile, where: str, facts: OnnxFacts) -> OnnxFaceModel:
    """Load a checked graph into ONNX Runtime.

    Args:
        file: Graph from :func:`fxeval.models.files.onnx_file.read_onnx`.
        where: Its path, for messages.
        facts: Facts that are not in the file.

    Raises:
        ModelContractError: If ONNX Runtime is missing or refuses the graph.
    """
    session, version = _session(file, where)
    box = OnnxFaceModel(
        name=facts.name,
        crop=facts.crop,
        similarity=facts.similarity,
        operating_threshold=facts.operating_threshold,
        digest=facts.digest,
        normalisation=InputNormalisation(facts.preprocessing),
        session=session,
        images=file.images,
        batch=file.batch,
        output=file.output,
        traits=ModelTraits(),
    )
    alone = file.alone
    if _mixes_a_batch(box, where):
        alone = "the embedding of an image depends on the other images in its batch"
        box = replace(box, batch=1)
    notes = [f"onnxruntime {version}"]
    notes += [f"one image at a time, because {alone}"] if alone else []
    notes += [f"the weights are stored in {file.stored}"] if file.stored else []
    return replace(box, traits=ModelTraits(runtime="; ".join(notes)))


def _mixes_a_batch(box: OnnxFaceModel, where: str) -> bool:
    """Say whether an image is embedded otherwise in a batch of any size than alone.

    Graphs that quantise by the range of their values do so over the whole batch, so the second
    image has another range.

    Raises:
        ModelContractError: If an image is embedded otherwise each time.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *box.crop.size, generator=generator)
    images[1] *= 0.1
    try:
        together = box.embed(images)
        alone, again = (torch.cat([box.embed(one[None]) for one in images]) for _ in range(2))
    except (ModelContractError, RuntimeError):  # reported when the model is checked
        return False
    if alone.shape != again.shape or not alone.numel():
        return False
    bound = MIXED * float(alone.abs().max())
    if float((alone - again).abs().max()) > bound:
        raise ModelContractError(
            f"{where}: an image has other embeddings at every call, as of a graph that draws "
            "random numbers. Call network.eval() and export it again."
        )
    return together.shape == alone.shape and float((together - alone).abs().max()) > bound


def onnx_runtime() -> Library:
    """Import ONNX Runtime without its telemetry: fxeval uses no network.

    Raises:
        ModelContractError: If it is not installed.
    """
    # Recent builds for Linux and macOS send usage data, and keep an id of the machine in the home
    # folder, unless this is set at the first import; the decision holds for the whole process.
    before = os.environ.get(_NO_TELEMETRY)
    os.environ[_NO_TELEMETRY] = "1"
    try:
        library = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise missing("onnxruntime") from error
    finally:
        if before is None:
            del os.environ[_NO_TELEMETRY]
        else:
            os.environ[_NO_TELEMETRY] = before
    library.disable_telemetry_events()  # where user code imported it first
    return library


def _session(file: OnnxFile, where: str) -> tuple[Library, str]:
    """Give ONNX Runtime the checked graph, not the file that it came from."""
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # fatal only: errors are raised as exceptions
    # Threads that spin while they wait would take the cores from torch's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(
            file.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime does not export its error classes
        raise ModelContractError(
            f"{where}: ONNX Runtime {onnxruntime.__version__} refuses the graph (opset "
            f"{file.opset}): {reason(error)}."
        ) from error
    return session, onnxruntime.__version__
