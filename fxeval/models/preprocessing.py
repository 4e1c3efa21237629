"""From the images of fxeval, RGB in [0, 1], to what a network was trained on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fxeval.contracts import Colour, Embeddings, Images
from fxeval.errors import ModelContractError


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pixels: x = (255 * image - mean) / std, channels in its own order.

    Attributes:
        colour: Order of the channels that the network sees.
        mean: Per channel in that order, in 0 to 255.
        std: Per channel in that order, in 0 to 255, more than 0.
    """

    colour: Colour = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if self.colour not in ("RGB", "BGR"):
            raise ModelContractError(f"colour RGB or BGR expected, got {self.colour!r}.")
        values = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, values)):
            raise ModelContractError(
                f"mean and std of three finite numbers in 0 to 255 expected, got {self.mean} and "
                f"{self.std}."
            )
        if min(self.std) <= 0:
            raise ModelContractError(f"std of more than 0 expected, got {self.std}.")


class InputNormalisation(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> the same shape, as a network wants it; no parameters.

    Its buffers are in no state dict: the keys of published weights stay what they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.is_bgr = preprocessing.colour == "BGR"
        std = torch.tensor(preprocessing.std, dtype=torch.float64).reshape(1, 3, 1, 1)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).reshape(1, 3, 1, 1)
        self.register_buffer("scale", (255 / std).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)

    def forward(self, images: Images) -> Tensor:
        """Reorder and normalise."""
        if self.is_bgr:
            images = images.flip(1)
        return images * self.scale - self.shift


class Preprocessed(nn.Module):
    """A network that knows nothing of fxeval, with its preprocessing in front: ``network.`` is it.

    A network that returns several things (AdaFace: embedding and norm) gives the first.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing)
        self.network = network

    def forward(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) RGB images in [0, 1]; returns (N, D)."""
        output = self.network(self.normalisation(images))
        embeddings: Embeddings = output[0] if isinstance(output, tuple | list) else output
        return embeddings
