"""How an ONNX graph takes its images: order of the axes, channels, type of the numbers, batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_bounds import Proto, printable, shape_of
from fxeval.models.preprocessing import Preprocessing, mismatch

TYPES = {1: "float32", 2: "uint8", 10: "float16", 11: "float64"}
"""Types of images that a graph may take, by their number in ONNX."""

_OTHER_TYPES = {3: "int8", 6: "int32", 7: "int64", 16: "bfloat16"}
_EXPORT = "Export the network again, float32, channels first, with a dynamic batch."
# What these return has its axes where the images have theirs.
_KEEPS_AXES = frozenset(
    {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Identity", "Mul",
     "Pad", "QuantizeLinear", "Relu", "Sub"}
)  # fmt: skip
_CHANNELS_FIRST = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "ConvInteger", "GlobalAveragePool",
     "GlobalMaxPool", "InstanceNormalization", "MaxPool", "QLinearConv"}
)  # fmt: skip
_TRANSPOSED = {(0, 3, 1, 2): "NHWC", (0, 2, 3, 1): "NCHW"}
"""Layout of the images that a transposition with these axes takes first."""


@dataclass(frozen=True)
class ImageInput:
    """The images that a graph takes.

    Attributes:
        name: Name of the input.
        channels_last: (N, H, W, C) instead of (N, C, H, W).
        dtype: ``float32``, ``float16``, ``float64``, or ``uint8`` for whole numbers from 0 to 255.
        batch: Number of images that the graph takes at once; None = any.
    """

    name: str
    channels_last: bool
    dtype: str
    batch: int | None

    def shape(self, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the smallest batch."""
        image = (*size, channels) if self.channels_last else (channels, *size)
        return (self.batch or 1, *image)


@dataclass(frozen=True)
class Expected:
    """What a card says about a graph.

    Attributes:
        size: (height, width) of the images it will be given.
        preprocessing: Preprocessing that the graph does not do itself.
        output: Name of the output with the embeddings; None = there is only one.
        layout: ``NCHW`` or ``NHWC``; None = as the graph says.
    """

    size: tuple[int, int]
    preprocessing: Preprocessing
    output: str | None = None
    layout: str | None = None


def image_input(graph: Proto, where: str, expected: Expected) -> ImageInput:
    """Describe the image input of a graph.

    Args:
        graph: The graph.
        where: Path of its file, for messages.
        expected: What the card says.

    Raises:
        ModelContractError: If there are several inputs, or this one does not take such images.
    """
    value = _only_input(graph, where)
    tensor = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    kind = (TYPES | _OTHER_TYPES).get(tensor.elem_type, f"type {tensor.elem_type}")
    shown = f"{kind} {shape_of(dims)} in '{printable(value.name)}'"
    if tensor.elem_type not in TYPES or len(dims) != 4:
        raise ModelContractError(
            f"{where}: expected images (N, 3, H, W) as float32, float16, float64 or uint8, got "
            f"{shown}. {_EXPORT}"
        )
    uses = _uses(graph, value.name)
    preprocessing, size = expected.preprocessing, expected.size
    implied = _layout(dims)
    if expected.layout and implied and expected.layout != implied:
        raise ModelContractError(
            f"{where}: the card says 'layout: {expected.layout}', and the shape says {implied}: "
            f"got {shown}. Remove 'layout' from the card."
        )
    layout = expected.layout or implied or uses.layout
    if layout is None:
        raise ModelContractError(
            f"{where}: neither the shape nor the first operators say where the channels are, got "
            f"{shown}. Write 'layout: NCHW' (channels first) or 'layout: NHWC' (channels last) "
            "into the card."
        )
    is_last = layout == "NHWC"
    batch, channels, height, width = (dims[i] for i in ((0, 3, 1, 2) if is_last else (0, 1, 2, 3)))
    channels = uses.channels if channels is None else channels
    _check_channels(where, shown, channels, preprocessing)
    if (height or size[0], width or size[1]) != size:
        raise ModelContractError(
            f"{where}: expected images of the crop's {size[0]} x {size[1]} pixels, got {shown}. "
            "Name the crop that the network was trained on."
        )
    if kind == "uint8" and {*preprocessing.mean, *(one - 1 for one in preprocessing.std)} != {0}:
        raise ModelContractError(
            f"{where}: the graph takes pixels as whole numbers from 0 to 255, got {shown}, and the "
            "card normalises them. Write 'mean: 0' and 'std: 1' into the card."
        )
    return ImageInput(value.name, is_last, kind, batch)


def _only_input(graph: Proto, where: str) -> Proto:
    stored = {tensor.name for tensor in graph.initializer}  # old files list weights as inputs, too
    inputs = [one for one in graph.input if one.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(printable(one.name) for one in inputs[:5]) or "none"
        raise ModelContractError(
            f"{where}: expected one input, the images, got {len(inputs)} ({names}). {_EXPORT}"
        )
    return inputs[0]


def _layout(dims: list[int | None]) -> str | None:
    """Return the layout that a shape implies; None if it implies none."""
    first, last = dims[1], dims[3]
    if (first in (1, 3)) != (last in (1, 3)):
        return "NCHW" if first in (1, 3) else "NHWC"
    if first in (None, 1, 3) and last in (None, 1, 3):
        return None
    return "NHWC" if last is None else "NCHW"  # the other axis is too long for channels


def _check_channels(
    where: str, shown: str, channels: int | None, preprocessing: Preprocessing
) -> None:
    if channels in (None, preprocessing.channels):
        return
    if channels in (1, 3):
        raise ModelContractError(
            f"{where}: {mismatch(channels, preprocessing.colour)} Its input is {shown}."
        )
    raise ModelContractError(
        f"{where}: expected images of one or three channels, got {channels} in {shown}. {_EXPORT}"
    )


class _Uses(NamedTuple):
    """What the first operators say about the images.

    Attributes:
        layout: Order of the axes; None if they say nothing, or not all the same.
        channels: Number of channels that the first convolution takes; None if there is none.
    """

    layout: str | None
    channels: int | None


def _uses(graph: Proto, name: str) -> _Uses:
    stored = {tensor.name: tensor.dims for tensor in graph.initializer}
    images, moved = {name}, set[str]()  # like the images, and channels first whatever those are
    layouts, channels = set[str | None](), set[int]()
    for node in graph.node:  # in topological order
        is_image, is_moved = (not held.isdisjoint(node.input) for held in (images, moved))
        if node.op_type in _KEEPS_AXES and is_image | is_moved:
            (images if is_image else moved).update(node.output[:1])
        elif node.op_type in _CHANNELS_FIRST and is_image | is_moved:
            layouts |= {"NCHW"} if is_image else set()
            weight: Sequence[int] = stored.get(node.input[1], ()) if len(node.input) > 1 else ()
            if node.op_type == "Conv" and len(weight) == 4:
                group = next((one.i for one in node.attribute if one.name == "group"), 1)
                channels.add(weight[1] * group)
        elif is_image:
            axes = next((tuple(one.ints) for one in node.attribute if one.name == "perm"), ())
            layouts.add(_TRANSPOSED.get(axes) if node.op_type == "Transpose" else None)
            moved |= {*node.output} if layouts == {"NHWC"} else set()
    return _Uses(
        layouts.pop() if len(layouts) == 1 else None,
        channels.pop() if len(channels) == 1 else None,
    )
