"""Face-recognition networks, and the architectures of the shipped ones."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Class of the network, and (height, width) of its crop; strings, so that this loads no torch.
SHIPPED: Mapping[str, tuple[str, tuple[int, int]]] = MappingProxyType(
    {
        "dlib_resnet": ("fxeval.models.dlib_resnet:DlibResNet", (150, 150)),
        "mini_resnet": ("fxeval.models.mini_resnet:MiniResNet", (112, 112)),
    }
)


def architecture(id: str) -> "nn.Module":
    """Return a shipped network without weights, on the ``meta`` device.

    Raises:
        KeyError: If there is no such network.
    """
    import torch

    module, _, name = SHIPPED[id][0].partition(":")
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network: nn.Module = getattr(importlib.import_module(module), name)()
    return network
