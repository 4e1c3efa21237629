"""Face models in ONNX as black boxes, with embeddings computed by ONNX Runtime."""

import importlib
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fxeval.contracts import Crop, Embeddings, Images, ModelTraits, SimilarityKind
from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_bounds import Library, reason
from fxeval.models.files.onnx_file import OnnxFile, flat, missing
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

Runtime = Literal["auto", "onnxruntime", "onnx2torch"]

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
        output: Name of the output with the embeddings; None = the first.
        runtime: ``onnxruntime``: a black box. ``onnx2torch``: a PyTorch module with gradients.
            ``auto``: onnx2torch if it can be imported and knows all operators, else onnxruntime.
    """

    name: str
    crop: Crop
    preprocessing: Preprocessing
    similarity: SimilarityKind
    operating_threshold: float | None
    digest: str
    output: str | None = None
    runtime: Runtime = "auto"


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
        takes_one: The graph takes exactly one image at a time.
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
    takes_one: bool
    output: str
    traits: ModelTraits
    module: nn.Module | None = None

    def embed(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) images in [0, 1]; returns (N, D) float32 on the CPU.

        Raises:
            ModelContractError: If the runtime fails.
        """
        with torch.inference_mode():
            pixels = self.normalisation(images.to("cpu", torch.float32)).contiguous().numpy()
        (image,) = self.session.get_inputs()
        batches = [pixels[i : i + 1] for i in range(len(pixels))] if self.takes_one else [pixels]
        try:
            found = [self.session.run([self.output], {image.name: some})[0] for some in batches]
        except Exception as error:  # ONNX Runtime does not export its error classes
            raise ModelContractError(
                f"model '{self.name}': ONNX Runtime cannot embed {tuple(images.shape)} images: "
                f"{reason(error)}."
            ) from error
        return flat(torch.cat([torch.from_numpy(some) for some in found]))


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
    return OnnxFaceModel(
        name=facts.name,
        crop=facts.crop,
        similarity=facts.similarity,
        operating_threshold=facts.operating_threshold,
        digest=facts.digest,
        normalisation=InputNormalisation(facts.preprocessing),
        session=session,
        takes_one=file.takes_one,
        output=file.output,
        traits=ModelTraits(runtime=f"onnxruntime {version}"),
    )


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
