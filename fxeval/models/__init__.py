"""Face-recognition networks: architectures that a model card may name, and the shipped models.

Importing this loads no torch.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from fxeval.models.preprocessing import Preprocessing

_Three = tuple[float, float, float]
_HALF: _Three = (127.5, 127.5, 127.5)
_IMAGENET_MEAN: _Three = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_STD: _Three = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclass(frozen=True)
class Architecture:
    """A network without weights, and the input that its published weights expect.

    Attributes:
        factory: ``module:callable``, which takes no argument or ``preprocessing``.
        crop: A name in ``fxeval.datasets.faces.alignment.CROPS``.
        summary: Short description.
        source: Paper and code that it follows.
        colour: Order of the channels that the network sees.
        mean: Per channel in that order, in 0 to 255.
        std: Per channel in that order, in 0 to 255.
        similarity: ``cosine`` or ``neg_l2``.
        ignore: Prefixes of keys in published weights that do not belong to the embedding.
    """

    factory: str
    crop: str
    summary: str
    source: str
    colour: str = "RGB"
    mean: _Three = _HALF
    std: _Three = _HALF
    similarity: str = "cosine"
    ignore: tuple[str, ...] = ()


def _iresnet(depth: int) -> Architecture:
    return Architecture(
        f"fxeval.models.networks.iresnet:iresnet{depth}",
        "arcface112",
        f"IResNet-{depth} of ArcFace",
        "Deng et al., CVPR 2019; insightface, recognition/arcface_torch",
    )


def _adaface(depth: int) -> Architecture:
    return Architecture(
        f"fxeval.models.networks.adaface_ir:adaface_ir{depth}",
        "arcface112",
        f"IR-{depth} of AdaFace",
        "Kim, Jain, Liu, CVPR 2022; mk-minchul/AdaFace",
        colour="BGR",
    )


_EDGEFACES = ("xxs", "xs", "xs_gamma_06", "s_gamma_05", "base")


def _edgeface(size: str) -> Architecture:
    return Architecture(
        f"fxeval.models.networks.edgeface:edgeface_{size}",
        "arcface112",
        f"EdgeFace ({size}): EdgeNeXt, convolutions and attention across channels",
        "George et al., TBIOM 2024; otroshi/edgeface",
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "mini_resnet": Architecture(
            "fxeval.models.networks.mini_resnet:MiniResNet",
            "arcface112",
            "a small residual network, for rendered faces",
            "after IResNet (Duta et al., ICPR 2020)",
        ),
        "mini_inception": Architecture(
            "fxeval.models.networks.mini_inception:MiniInception",
            "arcface112",
            "a small inception-residual network, for rendered faces",
            "after Inception-ResNet (Szegedy et al., AAAI 2017)",
        ),
        "mini_mobile": Architecture(
            "fxeval.models.networks.mini_mobile:MiniMobile",
            "arcface112",
            "a small depth-wise network, for rendered faces",
            "after MobileFaceNet (Chen et al., CCBR 2018)",
        ),
        "mini_vit": Architecture(
            "fxeval.models.networks.mini_vit:MiniViT",
            "arcface112",
            "a small vision transformer with register tokens, for rendered faces",
            "after ViT (Dosovitskiy et al., ICLR 2021); Darcet et al., ICLR 2024",
        ),
        "mini_patch": Architecture(
            "fxeval.models.networks.mini_patch:MiniPatch",
            "arcface112",
            "a small network whose similarity is a sum over patches, for rendered faces",
            "after RRFNet (Ozturk et al., arXiv:2510.10753)",
        ),
        "dlib_resnet": Architecture(
            "fxeval.models.networks.dlib_resnet:DlibResNet",
            "dlib150",
            "dlib's face-recognition ResNet, 29 convolutions",
            "Davis King, dlib, face recognition model v1",
            mean=(122.782, 117.001, 104.298),
            std=(256.0, 256.0, 256.0),
            similarity="neg_l2",
        ),
        **{f"iresnet{depth}": _iresnet(depth) for depth in (18, 34, 50, 100)},
        **{f"adaface_ir{depth}": _adaface(depth) for depth in (18, 50, 101)},
        "arcface_mbf": Architecture(
            "fxeval.models.networks.arcface_mbf:arcface_mbf",
            "arcface112",
            "MobileFaceNet of ArcFace",
            "Chen et al., CCBR 2018; insightface, recognition/arcface_torch",
        ),
        "inception_resnet_v1": Architecture(
            "fxeval.models.networks.inception_resnet:inception_resnet_v1",
            "facenet160",
            "Inception-ResNet v1 of FaceNet",
            "Schroff et al., CVPR 2015; timesler/facenet-pytorch",
            std=(128.0, 128.0, 128.0),
            ignore=("logits.",),
        ),
        **{f"edgeface_{size}": _edgeface(size) for size in _EDGEFACES},
        "mobilefacenet_ms1m": Architecture(
            "fxeval.models.networks.mobilefacenet:mobilefacenet_ms1m",
            "arcface112",
            "MobileFaceNet with ReLU6",
            "Chen et al., CCBR 2018; foamliu/MobileFaceNet",
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
        ),
    }
)
"""Architectures that a model card may name."""

SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "dlib_resnet": "dlib_resnet",
        "edgeface_xs": "edgeface_xs",
        "edgeface_xxs": "edgeface_xxs",
        "mini_inception": "mini_inception",
        "mini_mobile": "mini_mobile",
        "mini_patch": "mini_patch",
        "mini_resnet": "mini_resnet",
        "mini_vit": "mini_vit",
        "mobilefacenet_ms1m": "mobilefacenet_ms1m",
    }
)
"""Architecture of each shipped model whose layers are known without its weights."""


def build(factory: str, preprocessing: "Preprocessing | None" = None) -> "nn.Module":
    """Return a network with the weights that its constructor draws; keeps the global RNG state.

    Args:
        factory: ``module:callable``.
        preprocessing: Passed to a factory that takes it; None = the factory's own.
    """
    module, _, name = factory.partition(":")
    return construct(getattr(importlib.import_module(module), name), preprocessing)


def construct(
    make: "Callable[..., nn.Module]", preprocessing: "Preprocessing | None"
) -> "nn.Module":
    """Call a factory as :func:`build` does."""
    import torch

    given = {"preprocessing": preprocessing} if preprocessing and takes_preprocessing(make) else {}
    with torch.random.fork_rng(devices=[]):  # constructors draw weights from the global generator
        network: nn.Module = make(**given)
    return network


def takes_preprocessing(factory: object) -> bool:
    """Say whether a factory has a parameter ``preprocessing``."""
    try:
        return callable(factory) and "preprocessing" in inspect.signature(factory).parameters
    except ValueError:  # some built-in callables have no signature
        return False


def architecture(name: str) -> "nn.Module":
    """Return a network from the catalogue without weights, on the ``meta`` device.

    Raises:
        KeyError: If there is no such architecture.
    """
    import torch

    with torch.device("meta"):
        return build(ARCHITECTURES[name].factory)
