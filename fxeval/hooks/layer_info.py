"""What is known of one module of a network and of its output."""

import re
from dataclasses import dataclass, field, replace

from torch import nn

from fxeval.contracts import MapLayer
from fxeval.hooks.evidence import Found
from fxeval.hooks.readings import Reading

_SHORTCUT = re.compile(r"downsample|shortcut|skip")


@dataclass(frozen=True)
class LayerInfo:
    """A module of a network, and its output.

    Attributes:
        name: As in ``module.named_modules()``.
        kind: Name of its class.
        channels: Of its feature map; 0 if its output is no map of the image.
        height: In pixels, or 0.
        width: In pixels, or 0.
        runs: How often it runs in a forward pass; its name identifies one layer only if this is 1.
        is_convolution: It is an ``nn.Conv2d``.
        is_shortcut: It is a 1 x 1 convolution with downsample, shortcut or skip in its name.
        has_children: It is built of other modules.
        cuts_patches: It is a convolution whose kernels do not overlap, of at least 2 x 2 pixels.
        shape: Of its output, with the number of images; () if that is not one tensor.
        size: (H, W) of the images.
        found: How its output is read, or why it is no map.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    runs: int
    is_convolution: bool
    is_shortcut: bool
    has_children: bool
    cuts_patches: bool = False
    shape: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    found: Found = field(default_factory=lambda: Found(None))

    @property
    def reading(self) -> Reading:
        """How its output is read as a map; only if it is one."""
        assert self.found.reading is not None
        return self.found.reading

    def holds(self, pixels: int) -> bool:
        """Say whether it runs once and its map is at least that many pixels high and wide."""
        return self.runs == 1 and min(self.height, self.width) >= pixels

    def may_be_meant(self, pixels: int) -> bool:
        """Say whether a rule or a default may mean it.

        A layer of tokens may if the embedding depends on its places, and if it is a norm or built
        of other modules: parts of a block, such as attention, are no state of the network.
        """
        if not self.holds(pixels):
            return False
        is_state = self.has_children or "norm" in self.kind.lower()
        return self.reading.order != "tokens" or (is_state and self.found.is_felt)

    def read_as(self, reading: Reading) -> "LayerInfo":
        """Return the layer with another reading."""
        return replace(
            self, channels=reading.channels(self.shape), height=reading.height,
            width=reading.width, found=replace(self.found, reading=reading, fault=""),
        )  # fmt: skip

    def as_entry(self) -> MapLayer:
        """Return what a record tells of it."""
        grid = (self.height, self.width)
        return MapLayer(self.name, self.shape[1:], self.reading.order, grid)

    def sized(self) -> str:
        """Say the size of its map, with its reading if that is not channels first."""
        if self.reading.order == "channels_first":
            return f"{self.height} x {self.width}"
        return self.reading.spoken()


def idle(name: str, part: nn.Module) -> LayerInfo:
    """Return what is known of a module that has not run."""
    is_convolution = isinstance(part, nn.Conv2d)
    is_small = isinstance(part, nn.Conv2d) and tuple(part.kernel_size) == (1, 1)
    return LayerInfo(
        name, type(part).__name__, 0, 0, 0, 0,
        is_convolution=is_convolution,
        is_shortcut=is_small and _SHORTCUT.search(name) is not None,
        has_children=next(part.children(), None) is not None,
        cuts_patches=isinstance(part, nn.Conv2d)
        and tuple(part.kernel_size) == tuple(part.stride)
        and not is_small,
    )  # fmt: skip
