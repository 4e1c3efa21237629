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
)

_OLDEST_ONNX = (1, 21)  # CVE-2026-27489, CVE-2026-34446
_EXPORT = "Export the network again, float32, channels first, with a dynamic batch."


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A graph from one batch of images to embeddings.

    Attributes:
        proto: The ``onnx.ModelProto``: checked, without unknown fields, with functions inlined and
            one output.
        input: Name of the image input, (N, 3, H, W) float32.
        output: Name of the output with the embeddings.
        takes_one: The graph takes exactly one image at a time.
        opset: Version of the operators.
    """

    proto: Proto
    input: str
    output: str
    takes_one: bool
    opset: int


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


def read_onnx(
    data: bytes, where: str, size: tuple[int, int], output: str | None = None
) -> OnnxFile:
    """Parse and check an ONNX file.

    Args:
        data: The whole file.
        where: Its path, for messages.
        size: (height, width) of the images it will be given.
        output: Name of the output with the embeddings; None = the first.

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
        _keep_output(proto.graph, where, output)
        found = _described(proto, where, size)
        check_sizes(proto, found.input, size, where, onnx)
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
    name = known[0] if wanted is None and known else wanted
    if name not in known:
        listed = ", ".join(f"'{printable(one)}'" for one in known[:8]) or "none"
        raise ModelContractError(
            f"{where}: expected an output '{printable(name or '')}', got {listed}."
        )
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


def _described(proto: Proto, where: str, size: tuple[int, int]) -> OnnxFile:
    """Check that the graph takes images of the given size, and describe it."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}  # old files list weights as inputs, too
    inputs = [one for one in graph.input if one.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(printable(one.name) for one in inputs[:5]) or "none"
        raise ModelContractError(
            f"{where}: expected one input, the images, got {len(inputs)} ({names}). {_EXPORT}"
        )
    (image,) = inputs
    tensor = image.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    shown = f"{_type_name(tensor.elem_type)} {shape_of(dims)} in '{printable(image.name)}'"
    if tensor.elem_type != 1 or len(dims) != 4:
        raise ModelContractError(
            f"{where}: expected images as float32 (N, 3, H, W), got {shown}. {_EXPORT}"
        )
    batch, channels, height, width = dims
    if channels not in (3, None) or (channels is None and width == 3):
        kind = "channels last" if width == 3 else f"{channels} channels"
        raise ModelContractError(
            f"{where}: expected three channels first, (N, 3, H, W), got {shown}: {kind}. {_EXPORT}"
        )
    if batch not in (None, 1):
        raise ModelContractError(
            f"{where}: expected a batch of any size, or of one image, got {shown}. {_EXPORT}"
        )
    if (height or size[0], width or size[1]) != size:
        raise ModelContractError(
            f"{where}: expected images of the crop's {size[0]} x {size[1]} pixels, got {shown}. "
            "Name the crop that the network was trained on."
        )
    opset = next(one.version for one in proto.opset_import if not one.domain)
    return OnnxFile(proto, image.name, graph.output[0].name, batch == 1, opset)


def _type_name(elem_type: int) -> str:
    return {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64"}.get(
        elem_type, f"type {elem_type}"
    )
