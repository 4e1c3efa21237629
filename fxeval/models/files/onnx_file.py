"""ONNX bytes -> a graph that is checked before any runtime gets it.

Runtimes are large C++ programs that trust their input: a tensor may refer to a local file, and a
few bytes may declare terabytes, or functions that call each other 2^60 times. Everything that can
be checked without running the graph is checked first, and each check makes the next one affordable.
"""

import importlib
from dataclasses import dataclass

from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.errors import ModelContractError
from fxeval.hooks.outputs import OutputName
from fxeval.models.files.onnx_bounds import (
    MAX_BYTES,
    Library,
    Proto,
    check_operators,
    check_sizes,
    check_tensors,
    messages,
    printable,
    reason,
    scan,
    shape_of,
    stored_in,
)
from fxeval.models.files.onnx_layout import Expected, ImageInput, image_input
from fxeval.models.outputs import which_output

_OLDEST_ONNX = (1, 21)  # CVE-2026-27489, CVE-2026-34446
_EXPORT = "Export the network again, float32, channels first, with a dynamic batch."
_SCALED_BY_BATCH = "DynamicQuantizeLinear"


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A graph from one batch of images to embeddings.

    Attributes:
        proto: The ``onnx.ModelProto``: checked, without unknown fields, with functions inlined and
            one output.
        images: How it takes its images.
        output: Name of the output with the embeddings.
        opset: Version of the operators.
        alone: Why images are embedded one at a time although the graph takes more; "" = they
            are not.
        stored: Types of the weights if they are not all float32, else "".
    """

    proto: Proto
    images: ImageInput
    output: str
    opset: int
    alone: str = ""
    stored: str = ""

    @property
    def batch(self) -> int | None:
        """Number of images that are embedded at once; None = any."""
        return self.images.batch or (1 if self.alone else None)


def onnx_library() -> Library:
    """Import ``onnx``.

    Raises:
        ModelContractError: If it is missing, or too old to read untrusted files.
    """
    try:
        onnx = importlib.import_module("onnx")
        for part in ("checker", "inliner", "numpy_helper", "shape_inference"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise missing("onnx") from error
    if tuple(int(part) for part in onnx.__version__.split(".")[:2]) < _OLDEST_ONNX:
        raise ModelContractError(
            f"expected onnx 1.21 or newer, got {onnx.__version__}, which follows links out of a "
            "model's folder. Update it: pip install -U onnx"
        )
    return onnx


def missing(library: str) -> ModelContractError:
    """Return the error for a library that is not installed."""
    return ModelContractError(
        f"models in ONNX need '{library}', which is not installed. Install it: "
        "pip install fxeval[onnx]"
    )


def read_onnx(data: bytes, where: str, expected: Expected) -> OnnxFile:
    """Parse and check an ONNX file.

    Args:
        data: The whole file.
        where: Its path, for messages.
        expected: What the card says about it.

    Raises:
        ModelContractError: If it is not an ONNX file, stores tensors elsewhere, uses operators
            outside the ONNX standard, contains NaN, exceeds a limit, or does not take such images.
    """
    onnx = onnx_library()
    if len(data) > MAX_BYTES:
        raise ModelContractError(
            f"{where}: expected an ONNX file of at most {MAX_BYTES} bytes, got {len(data)}."
        )
    try:
        scan(memoryview(data), onnx.ModelProto.DESCRIPTOR, where)
        proto = onnx.ModelProto.FromString(data)
        proto.DiscardUnknownFields()
        check_tensors(proto, where, onnx)
        check_operators(proto, where)
        onnx.checker.check_model(proto)
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        _keep_output(proto.graph, where, expected.output)
        found = _described(proto, where, expected)
        shape = found.images.shape(expected.preprocessing.channels, expected.size)
        check_sizes(proto, (found.images.name, shape), where, onnx)
    except ModelContractError:
        raise
    except Exception as error:  # a parser of untrusted bytes can raise anything
        raise ModelContractError(
            f"{where}: expected a usable ONNX model, got one that fails: {reason(error)}. {_EXPORT}"
        ) from error
    return found


def flat(output: Tensor) -> Embeddings:
    """Return (N, D, 1, 1) outputs as (N, D), and other outputs unchanged."""
    return output.flatten(1) if output.ndim > 2 and max(output.shape[2:]) == 1 else output


def _keep_output(graph: Proto, where: str, wanted: str | None) -> None:
    """Keep one output and the nodes that lead to it."""
    known = [one.name for one in graph.output]
    shapes: dict[OutputName, str] = {
        printable(one.name): shape_of(
            [
                d.dim_value if d.HasField("dim_value") else None
                for d in one.type.tensor_type.shape.dim
            ]
        )
        for one in graph.output
    }
    if (wanted is None and len(set(known)) != 1) or (wanted is not None and wanted not in known):
        raise ModelContractError(f"{where}: {which_output(shapes, wanted)}")
    name = wanted or known[0]
    needed = {name}
    # Nodes are in topological order, so backwards each comes after all nodes that use its outputs.
    for at in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[at].output):
            del graph.node[at]
            continue
        within = (one for one in messages(graph.node[at]) if one.DESCRIPTOR.name == "NodeProto")
        needed.update(value for one in within for value in one.input)
    for at in reversed(range(len(known))):  # a file may list one output several times
        if known[at] != name or name in known[:at]:
            del graph.output[at]


def _described(proto: Proto, where: str, expected: Expected) -> OnnxFile:
    """Check that the graph takes the images of the card, and describe it."""
    graph = proto.graph
    images = image_input(graph, where, expected)
    kinds = {one.op_type for one in graph.node}
    if any(
        one.name == "training_mode" and one.i
        for node in graph.node
        if node.op_type == "BatchNormalization"
        for one in node.attribute
    ):
        raise ModelContractError(
            f"{where}: the graph was exported in training mode, in which batch normalisation mixes "
            "the images of a batch. Call network.eval() and export it again."
        )
    alone = ""
    if _SCALED_BY_BATCH in kinds:
        alone = f"{_SCALED_BY_BATCH} takes its scale from the whole batch"
    opset = next(one.version for one in proto.opset_import if not one.domain)
    return OnnxFile(proto, images, graph.output[0].name, opset, alone, stored_in(graph))
