"""Converts fxeval's images, RGB in [0, 1], into the input that a network was trained on."""

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from fxeval.contracts import Colour, Embeddings, Images
from fxeval.errors import ModelContractError
from fxeval.hooks.outputs import OutputName
from fxeval.models.outputs import chosen

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in a grey image: ITU-R BT.601, as OpenCV and Pillow compute it."""


def channels_of(colour: Colour) -> int:
    """Return how many channels a network sees: 1 for grey, else 3."""
    return 1 if colour == "grey" else 3


def mismatch(channels: int, colour: Colour) -> str:
    """Return the message for a network that sees another number of channels than its colour."""
    right = "grey" if channels == 1 else "RGB' or 'colour: BGR"
    return (
        f"the network takes {channels} channel{'s'[: channels > 1]}, and the colour {colour} gives "
        f"{channels_of(colour)}. Write 'colour: {right}' into the card."
    )


@dataclass(frozen=True)
class Preprocessing:
    """The input of a network: x = (255 * image - mean) / std, channels in its own order.

    Attributes:
        colour: Order of the channels that the network sees, or ``grey``: one channel, 0.299 R +
            0.587 G + 0.114 B, which is not rounded.
        mean: Per channel in that order, in 0 to 255.
        std: Per channel in that order, in 0 to 255, more than 0.
    """

    colour: Colour = "RGB"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if self.colour not in get_args(Colour):
            raise ModelContractError(f"expected colour RGB, BGR or grey, got {self.colour!r}.")
        n, values = self.channels, (*self.mean, *self.std)
        if (len(self.mean), len(self.std)) != (n, n) or not all(map(math.isfinite, values)):
            count = "one finite number" if n == 1 else "three finite numbers"
            raise ModelContractError(
                f"expected mean and std of {count} in 0 to 255 for the colour {self.colour}, got "
                f"{self.mean} and {self.std}."
            )
        if min(self.std) <= 0:
            raise ModelContractError(f"expected std above 0, got {self.std}.")

    @property
    def channels(self) -> int:
        """How many channels the network sees."""
        return channels_of(self.colour)


class InputNormalisation(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] -> (N, C, H, W), as a network expects it; no parameters.

    C is 1 for grey networks, else 3. The buffers are not persistent, so that the keys of published
    weights stay unchanged.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.colour = preprocessing.colour
        std = torch.tensor(preprocessing.std, dtype=torch.float64).reshape(1, -1, 1, 1)
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64).reshape(1, -1, 1, 1)
        self.register_buffer("scale", (255 / std).float(), persistent=False)
        self.register_buffer("shift", (mean / std).float(), persistent=False)
        if self.colour == "grey":
            self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Images) -> Tensor:
        """Reorder and normalise."""
        if self.colour == "BGR":
            images = images.flip(1)
        elif self.colour == "grey":
            images = (images * self.luma).sum(1, keepdim=True)
        return images * self.scale - self.shift


class Preprocessed(nn.Module):
    """User code's network, as ``network``, with its preprocessing in front.

    If the network returns several values, ``output`` says which are the embeddings. A network that
    has its own preprocessing gets None.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing | None,
        output: OutputName | None = None,
    ) -> None:
        super().__init__()
        self.normalisation = InputNormalisation(preprocessing) if preprocessing else nn.Identity()
        self.network = network
        self.output = output

    def forward(self, images: Images) -> Embeddings:
        """Embed (N, 3, H, W) RGB images in [0, 1]; returns (N, D)."""
        return chosen(self.network(self.normalisation(images)), self.output)
