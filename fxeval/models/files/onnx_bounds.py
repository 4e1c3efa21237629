"""Limits on the content and cost of an ONNX file, checked without running anything."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from fxeval.errors import ModelContractError
from fxeval.strict.text import brief

Library: TypeAlias = Any
"""A module such as ``onnx``, which is imported only when an ONNX file is read."""

Proto: TypeAlias = Any
"""A message of the library ``onnx``, or a list of messages."""

MAX_BYTES = 1 << 30
"""Largest file read; the largest face networks, IResNet-200, have 450 MB."""

MAX_FIELDS = 500_000
"""Most protobuf fields in a file; a network of 1,000 nodes has about 20,000."""

MAX_LOOSE_BYTES = 64 << 20
"""Most bytes in fields that are neither messages nor the plain values of tensors."""

MAX_NODES = 100_000
"""Most nodes in a graph after its functions are inlined."""

MAX_ELEMENTS = 1 << 29
"""Most numbers in all intermediate tensors of the smallest batch; 2 GiB in float32."""

STANDARD = frozenset({"", "ai.onnx"})
_KINDS = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64", 16: "bfloat16"}


def reason(error: BaseException) -> str:
    """Return a library's error message, shortened and safe for a terminal."""
    return f"{type(error).__name__}: {printable(str(error)[:2000], 300)}"


def printable(text: str, length: int = 60) -> str:
    """Return text from a file on one line, shortened, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return brief(line) if length == 60 else line[:length]


def shape_of(dims: list[int | None]) -> str:
    """Return a shape as text, with ``?`` for unknown sizes."""
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims[:8])})"


def scan(data: memoryview, descriptor: Proto, where: str) -> None:
    """Count the objects that a parser would create, by following the protobuf tags alone.

    An empty message takes two bytes in a file but hundreds in memory, so this must precede parsing.
    """
    schemas: dict[str, dict[int, tuple[str, Proto]]] = {}
    fields, loose, ahead = 0, 0, [(0, len(data), descriptor)]
    while ahead:
        at, end, message = ahead.pop()
        if message.name not in schemas:
            schemas[message.name] = {
                number: (field.name, field.message_type)
                for number, field in message.fields_by_number.items()
            }
        schema = schemas[message.name]
        while at < end:
            tag, at = _varint(data, at, end)
            fields += 1
            # Wire types: 0 varint, 1 and 5 fixed 8 and 4 bytes, 2 length-delimited.
            wire, (name, inner) = tag & 7, schema.get(tag >> 3, ("", None))
            length = {1: 8, 5: 4}.get(wire, 0)
            if wire in (0, 2):
                number, at = _varint(data, at, end)
                length = number if wire == 2 else 0
            elif wire not in (1, 5):
                raise _no_onnx(where, f"wire type {wire} at byte {at}")
            if length > end - at:
                raise _no_onnx(where, f"truncated or damaged at byte {at}")
            # A stack instead of recursion, which a file could nest too deep.
            if wire == 2 and inner is not None and length:
                ahead.append((at, at + length, inner))
            elif name not in ("raw_data", "float_data"):
                loose += length
            at += length
            if fields > MAX_FIELDS or loose > MAX_LOOSE_BYTES:
                raise ModelContractError(
                    f"{where}: expected an ONNX file with at most {MAX_FIELDS} fields and "
                    f"{MAX_LOOSE_BYTES} bytes besides its tensors, got more."
                )


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"truncated or damaged at byte {at}")


def _no_onnx(where: str, fault: str) -> ModelContractError:
    return ModelContractError(f"{where}: expected an ONNX file ({fault}). Download it again.")


def messages(message: Proto) -> Iterator[Proto]:
    """Yield a message and all messages in it, including graphs in attributes and functions."""
    ahead = [message]
    while ahead:
        one = ahead.pop()
        yield one
        for field, value in one.ListFields():
            if field.message_type is not None:
                ahead.extend(value if hasattr(value, "extend") else [value])


def check_tensors(proto: Proto, where: str, onnx: Library) -> None:
    """Refuse tensors that are stored outside the file, sparse, or not finite."""
    for one in messages(proto):
        kind = one.DESCRIPTOR.name
        if kind == "SparseTensorProto":
            raise ModelContractError(
                f"{where}: expected dense tensors, got the sparse '{printable(one.values.name)}', "
                "which can be much larger in memory than in the file. Export it as dense."
            )
        if kind != "TensorProto":
            continue
        name = printable(one.name) or "(no name)"
        if one.data_location == onnx.TensorProto.EXTERNAL or one.external_data:
            raise ModelContractError(
                f"{where}: tensor '{name}' is stored in another file, which is not read. Save the "
                "model as one file: onnx.save(model, path, save_as_external_data=False)."
            )
        values = onnx.numpy_helper.to_array(one)
        if values.dtype.kind in "iubOSU":
            continue
        # bfloat16, float8 and the like are not NumPy types of their own; float32 holds them all.
        numbers = values if values.dtype.kind in "fc" else values.astype(np.float32)
        bad = int((~np.isfinite(numbers)).sum())
        is_bound = numbers.size == 1 and not np.isnan(numbers).any()  # Clip's bound may be infinite
        if bad and not is_bound:
            raise ModelContractError(
                f"{where}: {bad} of {numbers.size} values of tensor '{name}' are NaN or "
                "infinite. Export the weights again."
            )


def check_operators(proto: Proto, where: str) -> None:
    """Refuse operators outside the ONNX standard, loops, and graphs that become too large."""
    versions = [one.version for one in proto.opset_import if one.domain in STANDARD]
    if len(versions) != 1:
        raise ModelContractError(
            f"{where}: expected one version of the ONNX operators (opset), got {versions}. "
            "Export the network again."
        )
    for one in proto.opset_import:  # "" and "ai.onnx" both name the standard domain
        one.domain = "" if one.domain in STANDARD else one.domain
    functions = {_key(one, one.name): one.node for one in proto.functions}
    for one in messages(proto):
        if one.DESCRIPTOR.name != "NodeProto" or _key(one, one.op_type) in functions:
            continue
        if one.domain == "ai.onnx":
            one.domain = ""
        if one.domain:
            help = "Export without custom operators."
            if one.domain == "com.microsoft":
                help = (
                    "ONNX Runtime's optimiser and quantiser write such. Give the file from before "
                    "the optimiser; quantise with quant_format=QuantFormat.QDQ."
                )
            raise ModelContractError(
                f"{where}: expected standard ONNX operators, got '{printable(one.op_type)}' of "
                f"'{printable(one.domain)}'. {help}"
            )
        if one.op_type in ("Loop", "Scan", "SequenceMap"):
            raise ModelContractError(
                f"{where}: expected a graph without loops, got the operator '{one.op_type}'. "
                "Export it unrolled."
            )
    if _written_out(proto.graph.node, functions, where) > MAX_NODES:
        raise ModelContractError(f"{where}: expected at most {MAX_NODES} nodes, got more.")


_Key: TypeAlias = tuple[str, str, str]


def _key(one: Proto, name: str) -> _Key:
    """Return what identifies a function: domain, name, overload."""
    return one.domain, name, one.overload


def _written_out(graph: Proto, functions: Mapping[_Key, Proto], where: str) -> int:
    """Count the nodes after every function call is replaced by the function's body.

    Functions that call each other can multiply to more nodes than any memory holds, so their sizes
    are computed and not the graph itself.
    """
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
            if len(open_) > 30:
                raise ModelContractError(
                    f"{where}: function '{printable(node.op_type)}' calls itself, or functions are "
                    "nested more than 30 deep. Export without functions."
                )
            open_.append(key)
            sizes[key] = min(size(functions[key]), MAX_NODES + 1)
            open_.pop()
        return sizes[key] + within

    return size(graph)


def stored_in(graph: Proto) -> str:
    """Return the types of a graph's weights if they are not all float32, else ""."""
    kinds = {_KINDS.get(one.data_type, "") for one in graph.initializer if len(one.dims) > 1} - {""}
    return "" if kinds <= {"float32"} else " and ".join(sorted(kinds))


def check_sizes(
    proto: Proto, images: tuple[str, tuple[int, ...]], where: str, onnx: Library
) -> None:
    """Infer the shapes for images of a name and shape, and refuse a graph that would fill memory.

    Shapes that depend on computed values stay unknown, because propagating values could itself fill
    the memory.
    """
    graph = proto.graph
    graph.ClearField("value_info")  # shapes that the file claims, which may be wrong
    shape = next(one for one in graph.input if one.name == images[0]).type.tensor_type.shape
    declared = type(shape)()
    declared.CopyFrom(shape)
    for dim, number in zip(shape.dim, images[1], strict=True):
        dim.dim_value = number
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    finally:
        shape.CopyFrom(declared)
    total = 0
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        total += math.prod(dims)
        if total > MAX_ELEMENTS:
            raise ModelContractError(
                f"{where}: expected at most {MAX_ELEMENTS} numbers in the intermediate tensors of "
                f"the smallest batch, got more at '{printable(value.name)}' {shape_of(list(dims))}."
            )
