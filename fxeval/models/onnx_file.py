"""ONNX bytes -> a graph that has been looked at, before any runtime is given it.

Runtimes are large C++ programs that trust their input: a tensor may name a file of this machine, a
few bytes may announce terabytes or functions that call each other 2^60 times. What can be known
without running anything is asked for first, in an order in which each step can afford the next.
"""

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from fxeval.contracts import Embeddings
from fxeval.errors import ModelContractError
from fxeval.strict_yaml import brief

Library: TypeAlias = Any
"""``onnx`` and its like, imported when an ONNX file is met."""

Proto: TypeAlias = Any
"""A message of onnx's, or a list of them."""

MAX_BYTES = 1 << 30
"""Largest file read; the largest face networks, IResNet-200, have 450 MB."""

MAX_FIELDS = 1_000_000
"""Most protobuf fields of a file; a network of 1,000 nodes has about 20,000."""

MAX_LOOSE_BYTES = 64 << 20
"""Most bytes in fields that are neither messages nor the plain values of tensors."""

MAX_NODES = 100_000
"""Most nodes of a graph with its functions written out."""

MAX_ELEMENTS = 1 << 29
"""Most numbers in all tensors that one image leaves on its way; 2 GiB in float32."""

_OLDEST_ONNX = (1, 21)  # CVE-2026-27489, CVE-2026-34446
_STANDARD = frozenset({"", "ai.onnx"})
_EXPORT = "Export the network again, float32, channels first, with a dynamic batch."


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A graph from one batch of images to embeddings.

    Attributes:
        proto: The ``onnx.ModelProto``: checked, without unknown fields, functions written out,
            with one output.
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
        ModelContractError: If it is missing or too old to be given strangers' files.
    """
    try:
        onnx = importlib.import_module("onnx")
        for part in ("checker", "inliner", "numpy_helper", "shape_inference"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise missing("onnx") from error
    if tuple(int(part) for part in onnx.__version__.split(".")[:2]) < _OLDEST_ONNX:
        raise ModelContractError(
            f"onnx 1.21 or newer expected, got {onnx.__version__}, which follows links out of a "
            "model's folder. Update it: pip install -U onnx"
        )
    return onnx


def missing(library: str) -> ModelContractError:
    """Return the error of a library that is not installed."""
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
        ModelContractError: If it is no ONNX file, keeps tensors elsewhere, wants operators that
            are not ONNX's own, holds NaN, is too large in any sense, or does not take such images.
    """
    onnx = onnx_library()
    if len(data) > MAX_BYTES:
        raise ModelContractError(
            f"{where}: an ONNX file of at most {MAX_BYTES} bytes expected, got {len(data)}."
        )
    try:
        _scan(memoryview(data), onnx.ModelProto.DESCRIPTOR, where)
        proto = onnx.ModelProto.FromString(data)
        proto.DiscardUnknownFields()
        _check_tensors(proto, where, onnx)
        _check_operators(proto, where)
        onnx.checker.check_model(proto)
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        _keep_output(proto.graph, where, output)
        found = _described(proto, where, size)
        _check_sizes(found, where, size, onnx)
    except ModelContractError:
        raise
    except Exception as error:  # parsers of strangers' bytes raise anything
        raise ModelContractError(
            f"{where}: no ONNX model that can be used: {reason(error)}. {_EXPORT}"
        ) from error
    return found


def flat(output: Tensor) -> Embeddings:
    """Return (N, D, 1, 1) outputs as (N, D); others as they are."""
    return output.flatten(1) if output.ndim > 2 and max(output.shape[2:]) == 1 else output


def reason(error: BaseException) -> str:
    """Return the first lines of a library's message, cut and fit for a terminal."""
    return f"{type(error).__name__}: {printable(str(error)[:2000], 300)}"


def printable(text: str, length: int = 60) -> str:
    """Return a text from a file on one line, cut, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return brief(line) if length == 60 else line[:length]


def _scan(data: memoryview, descriptor: Proto, where: str) -> None:
    """Count what a parser would have to make, along the tags alone.

    An empty message has two bytes in a file and hundreds in memory, so this comes before parsing.
    """
    fields, loose, ahead = 0, 0, [(0, len(data), descriptor)]
    while ahead:
        at, end, message = ahead.pop()
        known = message.fields_by_number
        while at < end:
            tag, at = _varint(data, at, end)
            fields += 1
            wire, field = tag & 7, known.get(tag >> 3)
            length = {1: 8, 5: 4}.get(wire, 0)
            if wire in (0, 2):
                number, at = _varint(data, at, end)
                length = number if wire == 2 else 0
            elif wire not in (1, 5):
                raise _no_onnx(where, f"wire type {wire} at byte {at}")
            if length > end - at:
                raise _no_onnx(where, f"truncated or damaged at byte {at}")
            if wire == 2 and field is not None and field.message_type is not None:
                ahead.append((at, at + length, field.message_type))
            elif field is None or field.name not in ("raw_data", "float_data"):
                loose += length
            at += length
            if fields > MAX_FIELDS or loose > MAX_LOOSE_BYTES:
                raise ModelContractError(
                    f"{where}: an ONNX file with at most {MAX_FIELDS} fields, and "
                    f"{MAX_LOOSE_BYTES} bytes beside its tensors, expected, got more."
                )


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[at : min(end, at + 10)], strict=False):
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError(f"truncated or damaged at byte {at}")


def _no_onnx(where: str, fault: str) -> ModelContractError:
    return ModelContractError(f"{where}: an ONNX file expected ({fault}). Fetch it again.")


def _messages(message: Proto) -> Iterator[Proto]:
    """Yield a message and all messages in it, graphs in attributes and functions too."""
    ahead = [message]
    while ahead:
        one = ahead.pop()
        yield one
        for field, value in one.ListFields():
            if field.message_type is not None:
                ahead.extend(value if hasattr(value, "extend") else [value])


def _check_tensors(proto: Proto, where: str, onnx: Library) -> None:
    """Refuse tensors that are not in the file, are sparse, or are not finite."""
    for one in _messages(proto):
        kind = one.DESCRIPTOR.name
        if kind == "SparseTensorProto":
            raise ModelContractError(
                f"{where}: dense tensors expected, got a sparse one, '{printable(one.values.name)}'"
                ", whose size on the way is not that in the file. Export it dense."
            )
        if kind != "TensorProto":
            continue
        name = printable(one.name) or "(no name)"
        if one.data_location == onnx.TensorProto.EXTERNAL or one.external_data:
            raise ModelContractError(
                f"{where}: tensor '{name}' is kept in another file, which is not read. Save the "
                "model in one file: onnx.save(model, path, save_as_external_data=False)."
            )
        values = onnx.numpy_helper.to_array(one)
        if values.dtype.kind not in "iubOSU" and not np.isfinite(values.astype(np.float32)).all():
            bad = int((~np.isfinite(values.astype(np.float32))).sum())
            if values.size > 1 or np.isnan(values).any():  # a bound of Clip may be infinite
                raise ModelContractError(
                    f"{where}: {bad} of {values.size} values of tensor '{name}' are NaN or "
                    "infinite. Export the weights again."
                )


def _check_operators(proto: Proto, where: str) -> None:
    """Refuse operators that are not ONNX's own, loops, and graphs that grow beyond bounds."""
    versions = [one.version for one in proto.opset_import if one.domain in _STANDARD]
    if len(versions) != 1:
        raise ModelContractError(
            f"{where}: one version of ONNX's operators (opset) expected, got {versions}. {_EXPORT}"
        )
    for one in proto.opset_import:
        one.domain = "" if one.domain in _STANDARD else one.domain
    functions = {_key(one, one.name): one.node for one in proto.functions}
    for one in _messages(proto):
        if one.DESCRIPTOR.name != "NodeProto" or _key(one, one.op_type) in functions:
            continue
        if one.domain == "ai.onnx":
            one.domain = ""  # two spellings of one thing
        if one.domain:
            raise ModelContractError(
                f"{where}: ONNX's own operators expected, got '{printable(one.op_type)}' of "
                f"'{printable(one.domain)}'. Export without custom operators."
            )
        if one.op_type == "Loop":
            raise ModelContractError(
                f"{where}: a graph that certainly ends expected, got the operator 'Loop'. Export "
                "it unrolled."
            )
    if _written_out(proto.graph.node, functions, where) > MAX_NODES:
        raise ModelContractError(f"{where}: at most {MAX_NODES} nodes expected, got more.")


_Key: TypeAlias = tuple[str, str, str]


def _key(one: Proto, name: str) -> _Key:
    """Return what tells functions apart: domain, name, overload."""
    return one.domain, name, one.overload


def _written_out(graph: Proto, functions: Mapping[_Key, Proto], where: str) -> int:
    """Count nodes with every call of a function replaced by its body."""
    sizes: dict[_Key, int] = {}
    open_: list[_Key] = []

    def size(nodes: Proto) -> int:
        return sum(map(of_node, nodes))

    def of_node(node: Proto) -> int:
        within = sum(
            size(inner.node)
            for attribute in node.attribute
            for inner in ([attribute.g] if attribute.HasField("g") else [*attribute.graphs])
        )
        key = _key(node, node.op_type)
        if key not in functions:
            return 1 + within
        if key not in sizes:
            if key in open_ or len(open_) > 30:
                raise ModelContractError(
                    f"{where}: function '{printable(node.op_type)}' calls itself, or functions are "
                    "nested more than 30 deep. Export without functions."
                )
            open_.append(key)
            sizes[key] = min(size(functions[key]), MAX_NODES + 1)
            open_.pop()
        return sizes[key] + within

    return size(graph)


def _keep_output(graph: Proto, where: str, wanted: str | None) -> None:
    """Keep one output and the nodes that lead to it."""
    known = [one.name for one in graph.output]
    name = known[0] if wanted is None and known else wanted
    if name not in known:
        listed = ", ".join(f"'{printable(one)}'" for one in known[:8]) or "none"
        raise ModelContractError(
            f"{where}: an output '{printable(name or '')}' expected, the graph has {listed}."
        )
    needed = {name}
    for at in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[at].output):
            del graph.node[at]
            continue
        within = (one for one in _messages(graph.node[at]) if one.DESCRIPTOR.name == "NodeProto")
        needed.update(value for one in within for value in one.input)
    for at in reversed(range(len(known))):
        if known[at] != name or name in known[:at]:
            del graph.output[at]


def _described(proto: Proto, where: str, size: tuple[int, int]) -> OnnxFile:
    """Hold the graph's input against images of a size."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}  # old versions list them as inputs
    inputs = [one for one in graph.input if one.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(printable(one.name) for one in inputs[:5]) or "none"
        raise ModelContractError(
            f"{where}: one input, the images, expected, got {len(inputs)} ({names}). {_EXPORT}"
        )
    (image,) = inputs
    tensor = image.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    shown = f"{_type_name(tensor.elem_type)} {_shape(dims)} in '{printable(image.name)}'"
    if tensor.elem_type != 1 or len(dims) != 4:
        raise ModelContractError(
            f"{where}: images as float32 (N, 3, H, W) expected, got {shown}. {_EXPORT}"
        )
    batch, channels, height, width = dims
    if channels not in (3, None) or (channels is None and width == 3):
        kind = "channels last" if width == 3 else f"{channels} channels"
        raise ModelContractError(
            f"{where}: three channels first, (N, 3, H, W), expected, got {shown}: {kind}. {_EXPORT}"
        )
    if batch not in (None, 1):
        raise ModelContractError(
            f"{where}: any number of images at a time, or one, expected, got {shown}. {_EXPORT}"
        )
    if (height or size[0], width or size[1]) != size:
        raise ModelContractError(
            f"{where}: images of the crop's {size[0]} x {size[1]} pixels expected, got {shown}. "
            "Name the crop that the network was trained on."
        )
    opset = next(one.version for one in proto.opset_import if not one.domain)
    return OnnxFile(proto, image.name, graph.output[0].name, batch == 1, opset)


def _type_name(elem_type: int) -> str:
    return {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64"}.get(
        elem_type, f"type {elem_type}"
    )


def _shape(dims: list[int | None]) -> str:
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims[:8])})"


def _check_sizes(found: OnnxFile, where: str, size: tuple[int, int], onnx: Library) -> None:
    """Infer the shapes for one image, and refuse a graph that would fill the memory.

    What follows from computed values stays unknown: propagating values is itself a way to fill it.
    """
    graph = found.proto.graph
    graph.ClearField("value_info")  # annotations; a stranger's may lie
    shape = next(one for one in graph.input if one.name == found.input).type.tensor_type.shape
    declared = type(shape)()
    declared.CopyFrom(shape)
    for dim, number in zip(shape.dim, (1, 3, *size), strict=True):
        dim.dim_value = number
    try:
        inferred = onnx.shape_inference.infer_shapes(found.proto, check_type=True, strict_mode=True)
    finally:
        shape.CopyFrom(declared)
    total = 0
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        total += math.prod(dims)
        if total > MAX_ELEMENTS:
            raise ModelContractError(
                f"{where}: at most {MAX_ELEMENTS} numbers on the way of one image expected, got "
                f"more at '{printable(value.name)}' {_shape(list(dims))}."
            )
