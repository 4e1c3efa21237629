"""Converts fxeval's images, RGB in [0, 1], into the input that a network was trained on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fxeval.contracts import Colour, Embeddings, Images
from fxeval.errors import ModelContractError


@dataclass(frozen=True)
class Preprocessing:
    """The input of a network: x = (255 * image - mean) / std, channels in its own order.

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
            raise ModelContractError(f"expected colour RGB or BGR, got {self.colour!r}.")
        values = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, values)):
            raise ModelContractError(
                f"expected mean and std of three finite numbers in 0 to 255, got {self.mean} and "
                f"{self.std}."
            )
        if min(self.std) <= 0:
            raise ModelContractError(f"expected std above 0, got {self.std}.")


class InputNormalisation(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> the same shape, as a network expects it; no parameters.

    Its buffers are not persistent, so that the keys of published weights stay unchanged.
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
    """User code's network, as ``network``, with its preprocessing in front.

    If the network returns several tensors (AdaFace: embedding and norm), the first is used.
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
