"""Gradients through ONNX networks: a translation by onnx2torch, compared with ONNX Runtime."""

import importlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fxeval.contracts import Embeddings, Images, ModelTraits
from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_bounds import Library, Proto, printable, reason
from fxeval.models.files.onnx_file import OnnxFile, flat
from fxeval.models.files.onnx_layout import ImageInput
from fxeval.models.files.onnx_model import OnnxFaceModel, OnnxFacts
from fxeval.models.loading import TorchFaceModel, check_loaded
from fxeval.models.preprocessing import InputNormalisation, Preprocessing

AGREEMENT = 1e-4
"""Largest difference from ONNX Runtime, as a fraction of the length of the longest embedding."""

_INSTALL = "pip install onnx2torch torchvision, or ask for the black box with runtime: onnxruntime"


@dataclass(frozen=True, eq=False)
class ConvertedFaceModel(TorchFaceModel):
    """A face model whose module was translated from ONNX; its traits name the translator."""


class ConvertedNetwork(nn.Module):
    """A translated graph, ``network``, with its preprocessing in front.

    Layers are named after the graph's nodes: ``network.<node>``, with outer slashes removed and
    anything but ASCII letters and digits replaced by ``_``. The layer of a node without name is
    ``<operator>_<place>``.
    """

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, images: ImageInput, takes_one: bool
    ) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.network = network
        self.images = images
        self.takes_one = takes_one

    def forward(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) RGB images in [0, 1]; returns (N, D)."""
        pixels = self.normalisation(images)
        if self.images.channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        if self.images.dtype != "float32":
            pixels = pixels.to(getattr(torch, self.images.dtype))
        if not self.takes_one:
            return flat(self.network(pixels)).to(images.dtype)
        found = torch.cat([self.network(pixel) for pixel in pixels.split(1)])
        return flat(found).to(images.dtype)


class NoTranslationError(ModelContractError):
    """onnx2torch gives no network, or another one.

    Attributes:
        reason: The reason alone.
    """

    def __init__(self, where: str, reason: str, help: str = "") -> None:
        help = help or "Use the black box: set 'runtime: onnxruntime'."
        super().__init__(f"{where}: {reason}. {help}")
        self.reason = reason


def unknown_operators(file: OnnxFile, where: str) -> list[str]:
    """Return the operators of a graph that onnx2torch does not know, sorted."""
    known = _library(where).node_converters
    found = set()
    for node in file.proto.graph.node:
        try:
            known.get_converter(operation_type=node.op_type, version=file.opset, domain=node.domain)
        except NotImplementedError:
            found.add(printable(node.op_type))
    return sorted(found)


def converted(
    file: OnnxFile, where: str, facts: OnnxFacts, box: OnnxFaceModel
) -> ConvertedFaceModel:
    """Translate a graph into a PyTorch module and compare its embeddings with ONNX Runtime's.

    Raises:
        NoTranslationError: If onnx2torch is missing, does not know an operator, or gives a network
            with other embeddings.
    """
    if file.images.dtype == "uint8":
        raise NoTranslationError(
            where, "the graph takes whole numbers (uint8), through which no gradient flows"
        )
    unknown = unknown_operators(file, where)
    if unknown:
        listed = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if unknown[5:] else "")
        raise NoTranslationError(where, f"onnx2torch does not know {listed} of opset {file.opset}")
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            network = _library(where).convert(_renamed(file.proto))
        _own_weights(network)
    except Exception as error:  # onnx2torch can raise anything for an untrusted graph
        raise NoTranslationError(
            where, f"onnx2torch cannot translate the graph: {reason(error)}"
        ) from error
    differences = []
    # Most graphs declared for one image also work for a batch. A batch is tried first, because
    # hooks need layers that run once for all images.
    for takes_one in (False, True)[: 1 + (box.batch == 1)]:
        module = ConvertedNetwork(network, facts.preprocessing, file.images, takes_one).eval()
        model = ConvertedFaceModel(
            name=facts.name,
            crop=facts.crop,
            module=module,
            similarity=facts.similarity,
            operating_threshold=facts.operating_threshold,
            digest=facts.digest,
            traits=ModelTraits(
                has_layers=not takes_one,
                runtime=f"onnx2torch {version('onnx2torch')}"
                + (f"; the weights are stored in {file.stored}" if file.stored else ""),
            ),
        )
        differences.append(_difference(model, box))
        if differences[-1] <= AGREEMENT:
            check_loaded(model)
            return model
    raise NoTranslationError(
        where,
        f"onnx2torch's translation differs from ONNX Runtime by {min(differences):.1e} of the "
        f"longest embedding; at most {AGREEMENT:g} is allowed",
    )


def _own_weights(network: nn.Module) -> None:
    """Turn all weights into parameters, including slopes of PReLU and factors of products.

    The translator stores weights that do not belong to a convolution as buffers, which a
    randomisation of the network would leave unchanged.
    """
    for part in network.modules():
        if isinstance(part, _BatchNorm):
            continue
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point() and buffer.numel() > 1:
                delattr(part, name)
                part.register_parameter(name, nn.Parameter(buffer))


def _difference(model: ConvertedFaceModel, box: OnnxFaceModel) -> float:
    """Return the largest difference of embeddings over four images, relative to the longest one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 3, *model.crop.size, generator=generator)
    images = torch.cat([noise, torch.full_like(noise[:1], 0.5)])
    expected = box.embed(images)
    try:
        found = model.embed(images)
    except Exception:  # the graph has shapes that only fit one image
        return float("inf")
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.norm(dim=1).max())


def _library(where: str) -> Library:
    """Import onnx2torch with all its operators, two of which need torchvision."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("onnx2torch.node_converters")
            return importlib.import_module("onnx2torch")
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        raise NoTranslationError(
            where,
            f"onnx2torch and torchvision cannot be imported ({reason(error)})",
            f"Install them: {_INSTALL}.",
        ) from error


def _renamed(proto: Proto) -> Proto:
    """Return a copy in which all nodes have names that are valid in a module and in a suite.

    The translator generates Python code from the names, so it must not get those of the file.
    """
    copy = type(proto)()
    copy.CopyFrom(proto)
    for node, name in zip(copy.graph.node, layer_names(copy.graph.node), strict=True):
        node.name = name
    return copy


def layer_names(nodes: Sequence[Proto]) -> list[str]:
    """Return a unique name for every node, made of ASCII letters, digits and ``_``.

    >>> from types import SimpleNamespace as Node
    >>> layer_names([Node(name="/a/b.0/Conv", op_type="Conv"), Node(name="", op_type="Add")])
    ['a_b_0_Conv', 'Add_1']
    """
    empty = torch.fx.GraphModule(nn.Module(), torch.fx.Graph())  # its attributes are taken names
    taken = {"initializers", "input_1"}
    names = []
    for place, node in enumerate(nodes):
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", node.name[:200].strip("/"))
        name = plain or f"{node.op_type}_{place}"
        if name in taken or hasattr(empty, name):
            name = f"{name}_{place}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names
