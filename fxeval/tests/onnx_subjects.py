"""ONNX files whose right answers are known, damaged ones, and a missing library."""

import importlib.machinery
import io
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fxeval.contracts import Crop
from fxeval.models.files.onnx_model import OnnxFacts
from fxeval.models.preprocessing import Preprocessing

SIZE = (16, 16)
CROP = Crop("tiny", SIZE, ())
RAW = Preprocessing("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
UNIT = Preprocessing("RGB", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))

# name -> crop in golden.npz, preprocessing, layer for a CAM (channels, side)
REAL = {
    "mobileface_v2": ("arcface112", RAW, {"_plus7": (128, 4)}),
    "mobileface_v3": ("arcface112", RAW, {"_plus3": (128, 4)}),
    "mobilenetv2_se_ov0095": (
        "ov128",
        Preprocessing("BGR", RAW.mean, RAW.std),
        {"655": (512, 8), "652": (128, 8)},
    ),
    "mobilenetv1_hse_vggface2": (
        "zoom224",
        Preprocessing("BGR", (103.939, 116.779, 123.68), RAW.std),
        {"conv_pw_13_relu_Relu6": (1024, 7)},
    ),
}


def facts(runtime: str = "onnxruntime", crop: Crop = CROP, **changes) -> OnnxFacts:
    given = {
        "name": "some",
        "crop": crop,
        "preprocessing": UNIT,
        "similarity": "cosine",
        "operating_threshold": 0.3,
        "digest": "0" * 64,
    }
    return OnnxFacts(**(given | {"runtime": runtime} | changes))


def real(data_root: Path, name: str) -> tuple[bytes, OnnxFacts, torch.Tensor, np.ndarray]:
    """The file, its facts, eight real crops in [0, 1], and the embeddings they must get."""
    crop, preprocessing, _ = REAL[name]
    golden = np.load(data_root / "weights" / "golden.npz", allow_pickle=False)
    images = torch.from_numpy(golden[f"crop_{crop}"].transpose(0, 3, 1, 2).copy()).float() / 255
    size = (images.shape[2], images.shape[3])
    data = (data_root / "weights" / f"{name}.onnx").read_bytes()
    known = facts(crop=Crop(crop, size, ()), preprocessing=preprocessing, name=name)
    return data, known, images, golden[f"emb_{name}"]


def exported(network: nn.Module, size: tuple[int, int], *, batch: int | None = None) -> bytes:
    """A network as PyTorch writes it; by the old exporter, as the new one needs more packages."""
    stream = io.BytesIO()
    dynamic = None if batch else {"images": {0: "n"}, "embedding": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(),
            (torch.rand(batch or 2, 3, *size, generator=torch.Generator().manual_seed(0)),),
            stream,
            input_names=["images"],
            output_names=["embedding"],
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
    return stream.getvalue()


def weight(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).normal(0, 0.3, shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def small(edit: Callable[[onnx.ModelProto], None] = lambda proto: None) -> onnx.ModelProto:
    """A graph of a few operators of every sort, with 328 weights; (n, 3, 16, 16) -> (n, 5)."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], name="/c.1/Conv", strides=[2, 2], pads=[1] * 4),
        node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["bn"], name="bn"),
        node("PRelu", ["bn", "slope"], ["p"], name="forward"),
        node("MaxPool", ["p"], ["mp"], kernel_shape=[2, 2]),
        node("Pad", ["mp", "pads"], ["pd"], name="/bn"),
        node("GlobalAveragePool", ["pd"], ["gp"]),
        node("Mul", ["pd", "gp"], ["m"]),
        node("Clip", ["m", "low", "high"], ["cl"]),
        node("ReduceMean", ["cl"], ["rm"], axes=[2], keepdims=0),
        node("Reshape", ["rm", "shape"], ["r"]),
        node("Gemm", ["r", "w2", "b2"], ["e"], transB=1),
    ]
    var = numpy_helper.from_array(np.linspace(0.5, 1.5, 4, dtype=np.float32), "var")
    stored = [
        *(weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("gamma", 4), weight("beta", 4)),
        *(weight("mean", 4), var, weight("slope", 4, 1, 1), weight("w2", 5, 32), weight("b2", 5)),
        numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(np.float32(-1), "low"),
        numpy_helper.from_array(np.float32(6), "high"),
        numpy_helper.from_array(np.array([0, -1]), "shape"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *SIZE])],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["n", 5])],
        stored,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    edit(proto)
    return proto


NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 16, 17, 255, 2**16, 2**31, 2**40, 2**63 - 1)
OPERATORS = sorted({one.name for one in onnx.defs.get_all_schemas() if not one.domain})


def mutated(seed: int) -> bytes:
    """The small file with one to three of its fields changed, so that it still parses."""
    draw, proto = Random(seed), small()
    for _ in range(draw.randint(1, 3)):
        try:
            _mutate(proto, draw)
        except (ValueError, IndexError, TypeError):  # nothing there to change
            continue
    return proto.SerializeToString()


def _mutate(proto: onnx.ModelProto, draw: Random) -> None:
    node, names = draw.choice(proto.graph.node), []
    for one in proto.graph.node:
        names += [*one.input, *one.output]
    attribute = draw.choice([*node.attribute, onnx.AttributeProto()])
    value = draw.choice((proto.graph.input[0], proto.graph.output[0]))
    number = draw.choice(NUMBERS)

    def change_a_number() -> None:
        if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = number
        else:
            attribute.i = number

    changes = [
        lambda: setattr(node, "op_type", draw.choice(OPERATORS)),
        lambda: node.input.__setitem__(draw.randrange(len(node.input)), draw.choice(names)),
        lambda: node.output.__setitem__(0, draw.choice(names)),
        lambda: proto.graph.node.remove(node),
        lambda: proto.graph.node.append(node),
        change_a_number,
        lambda: setattr(attribute, "type", draw.randrange(14)),
        lambda: setattr(draw.choice(value.type.tensor_type.shape.dim), "dim_value", number),
        lambda: setattr(proto.opset_import[0], "version", draw.choice((*NUMBERS, *range(5, 28)))),
        *[lambda: _mutate_tensor(proto.graph.initializer, draw)] * 4,
    ]
    draw.choice(changes)()


def _mutate_tensor(stored, draw: Random) -> None:
    tensor = draw.choice(stored)
    kind = draw.randrange(4)
    if kind == 0:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(NUMBERS)
    elif kind == 1:
        tensor.data_type = draw.randrange(26)
    elif kind == 2:
        shape = [draw.choice((0, 1, 2, 3, 4, 5, 16)) for _ in range(draw.randrange(6))]
        tensor.CopyFrom(weight(tensor.name, *shape))
    else:
        values = np.array([draw.choice(NUMBERS) for _ in range(draw.randrange(9))])
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.int64), tensor.name))


def stand_in_for_torchvision(monkeypatch) -> None:
    """Let onnx2torch be imported: it asks torchvision for two operators of detectors only."""

    def absent(*_args, **_kwargs):
        raise NotImplementedError("only real torchvision does this")

    modules = [types.ModuleType(name) for name in ("torchvision", "torchvision.ops")]
    for module in modules:
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    modules[0].ops = modules[1]
    for name in ("box_convert", "nms", "roi_align"):
        setattr(modules[1], name, absent)
