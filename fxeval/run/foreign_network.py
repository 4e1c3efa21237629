"""A random network of ours in the place of a black box whose weights can't be re-drawn.

A map that would be the same on this network is not about the black box. That the map depends on the
black box's own weights, beyond what any network with this crop would give, can't be shown so.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fxeval.contracts import Embeddings, FaceModel, Images, model_traits
from fxeval.errors import UnsupportedError
from fxeval.functional.randomisation import randomise
from fxeval.models.networks.mini_resnet import MiniResNet

_SIDE = 112  # rows and columns of the images that the network takes


class Resized(nn.Module):
    """A network behind a resize: (N, 3, H, W) images of any size -> (N, D).

    Args:
        network: Takes images of 112 x 112 pixels.

    Example:
        >>> Resized(MiniResNet(8)).eval()(torch.zeros(2, 3, 40, 30)).shape
        torch.Size([2, 8])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Embeddings:
        """Embed images."""
        if images.shape[-2:] != (_SIDE, _SIDE):
            images = interpolate(
                images, (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True
            )
        embeddings: Embeddings = self.network(images)
        return embeddings


def has_weights(model: FaceModel) -> bool:
    """Say whether a model's weights can be reached: it has a module, and layers to hook."""
    return model.module is not None and model_traits(model).has_layers


def foreign(calibration: Tensor, dimensions: int, suite_seed: int, index: int) -> nn.Module:
    """Return a random network: the architecture of ``mini_resnet``, its weights drawn.

    Args:
        calibration: (N, 3, H, W) float32 in [0, 1], crops of the black box, N >= 2; the batch-norm
            statistics are estimated from them.
        dimensions: Size of an embedding.
        suite_seed: The suite's seed.
        index: Number of the network, from 0.
    """
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation, which is re-drawn
        network = Resized(MiniResNet(dimensions))
    return randomise(network.to(calibration.device), calibration, suite_seed, index)


def check_weights(model: FaceModel, kind: str, how: str) -> None:
    """Refuse a model whose weights can't be reached, where a kind of check must change them.

    Raises:
        UnsupportedError: Saying that they can't be changed so.
    """
    if has_weights(model):
        return
    what = "it is a black box" if model.module is None else "its layers can't be reached"
    raise UnsupportedError(
        f"model '{model.name}': {what}, so its weights can't be {how}. Leave {kind} out for it."
    )
