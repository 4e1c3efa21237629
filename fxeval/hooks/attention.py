"""Sees the attention matrices of a network at work, in whatever form it computes them.

Fused kernels never hold the matrix. While a network is watched, PyTorch computes its own attention
step by step instead (``F.scaled_dot_product_attention``, ``nn.MultiheadAttention``,
``nn.TransformerEncoderLayer``), and every softmax is seen, one written by hand included.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import nan, prod

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from fxeval.contracts import Embeddings, Images
from fxeval.errors import ExplainerContractError
from fxeval.hooks.layer_info import LayerInfo
from fxeval.hooks.readings import Reading, check_reading, declared
from fxeval.hooks.recording import at_work

_SOFTMAXES = ("aten::_softmax", "aten::_safe_softmax")
_HIDING = (
    "aten::_scaled_dot_product_", "aten::_native_multi_head_attention", "aten::_masked_softmax",
    "aten::_transformer_encoder_layer_fwd", "aten::_flash_attention_forward",
    "aten::_efficient_attention_forward",
)  # fmt: skip
_LEAST = 4  # tokens, of 2 x 2 places


class NoAttentionError(ExplainerContractError):
    """Raised if a network has no attention among all tokens, or hides it."""


@dataclass(frozen=True, eq=False)
class Attention:
    """One softmax of one image.

    Attributes:
        layer: Name of the innermost module at work, or "".
        weights: Its output. Of attention among T tokens it is (1, heads, T, T) or (heads, T, T),
            and each row sums to 1.
        is_last: It sums to 1 along the last dimension.
    """

    layer: str
    weights: Tensor
    is_last: bool

    @property
    def matrices(self) -> Tensor:
        """The weights as (heads, T, T)."""
        return self.weights.flatten(0, -3)

    @property
    def is_square(self) -> bool:
        """Whether each of its matrices is square, and large enough for tokens."""
        shape = self.weights.shape
        return len(shape) > 2 and shape[-1] == shape[-2] >= _LEAST

    @property
    def is_windowed(self) -> bool:
        """Whether one image has several groups of matrices, as windows have."""
        return self.weights.ndim > 3 and prod(self.weights.shape[:-3]) > 1


@dataclass(frozen=True, eq=False)
class Watched:
    """What one image's forward pass showed.

    Attributes:
        softmaxes: In order.
        hidden: Layer and operation of attention that no matrix is seen of.
        embeddings: (1, D).
    """

    softmaxes: tuple[Attention, ...]
    hidden: tuple[tuple[str, str], ...]
    embeddings: Embeddings


@dataclass(frozen=True)
class Emptied:
    """Rows of one softmax that are replaced by a value; by zeros, these tokens attend to nothing.

    Attributes:
        softmax: Its number.
        rows: Which rows.
        value: In their place.
    """

    softmax: int
    rows: slice
    value: float = 0.0


def watch(module: nn.Module, image: Images, emptied: Emptied | None = None) -> Watched:
    """Run a borrowed network on one image without gradients, and keep its softmaxes.

    One image at a time: where heads and images share a dimension, nothing tells their order.

    Args:
        module: In eval mode.
        image: (1, 3, H, W), on the module's device. The module may write to it.
        emptied: Rows to replace.
    """
    with _step_by_step(), torch.no_grad():
        mode = _Softmaxes(emptied)
        with at_work(module, mode.names), mode:
            embeddings = module(image)
    return Watched(tuple(mode.found), tuple(mode.hidden), embeddings)


def among_tokens(explainer: str, seen: Watched) -> list[int]:
    """Return which softmaxes are attention among all tokens.

    Raises:
        NoAttentionError: If none is, or if there is also attention of another kind.
    """
    if seen.hidden:
        layer, operation = seen.hidden[0]
        raise NoAttentionError(
            f"{explainer}: {_at(layer)} computes attention by {operation}, which keeps no matrix. "
            "Let the network call F.scaled_dot_product_attention without choosing a kernel."
        )
    found = [number for number, one in enumerate(seen.softmaxes) if one.is_square and one.is_last]
    if not found:
        raise NoAttentionError(
            f"{explainer}: the model shows no attention: no softmax in its forward pass gives "
            "(heads, T, T) weights of T tokens. Use an explainer for networks of any kind, such as "
            "gradcam or srise."
        )
    for number in found:
        one = seen.softmaxes[number]
        if one.is_windowed:
            raise NoAttentionError(
                f"{explainer}: {_at(one.layer)} attends within windows ({_shape(one)} weights for "
                "one image). Its matrices do not say how tokens of different windows mix, so they "
                "cannot be multiplied."
            )
    _check_alike(explainer, seen.softmaxes, seen.softmaxes[found[0]])
    return found


def reading_of(
    explainer: str, tokens: int, layers: Sequence[LayerInfo], size: tuple[int, int],
    reading: str | None,
) -> Reading:  # fmt: skip
    """Return which tokens are places of the image.

    Args:
        explainer: Its id, for the messages.
        tokens: T of the attention.
        layers: Of the network (:func:`fxeval.hooks.layers.layers_of`).
        size: (H, W) of the image.
        reading: As declared, such as ``tokens 8x8``; None = as layers of T tokens are read.

    Raises:
        NoAttentionError: If no layer of T tokens is read as a map.
        ExplainerContractError: If it cannot be read as declared.
    """
    check_reading(reading, "attention", explainer)
    if reading is not None:
        read = declared(reading, (1, tokens, 1), size)
        if isinstance(read, str):
            raise ExplainerContractError(f"{explainer}: the attention {read}.")
        return read
    maps = [one.reading for one in layers if one.runs and one.found.reading is not None]
    for one in maps:
        if one.order == "tokens" and one.in_front + one.height * one.width == tokens:
            return one
    for one in maps:
        if one.height * one.width == tokens:
            return Reading("tokens", one.height, one.width)
    raise NoAttentionError(
        f"{explainer}: the attention is among {tokens}, and no layer gives that many tokens of "
        "which a probe shows that they are places of the image; attention among channels is of "
        "this kind. If they are places, declare their grid, such as 'reading: tokens 8x8'."
    )


def rows_in_use(
    explainer: str, module: nn.Module, image: Images, last: int, reading: Reading
) -> list[int]:
    """Return the tokens whose output of the last attention the embedding depends on.

    Each token in front, and all places together, in turn attend to nothing.

    Args:
        explainer: Its id, for the message.
        module: Borrowed, in eval mode.
        image: (1, 3, H, W) on the module's device.
        last: Which softmax is the last attention.
        reading: Of the tokens.

    Raises:
        NoAttentionError: If the embedding depends on none.
    """
    places = slice(reading.in_front, reading.in_front + reading.height * reading.width)
    groups = [slice(front, front + 1) for front in range(reading.in_front)] + [places]
    plain = watch(module, image.clone()).embeddings
    used: list[int] = []
    for rows in groups:
        if not torch.equal(watch(module, image.clone(), Emptied(last, rows)).embeddings, plain):
            used.extend(range(rows.start, rows.stop))
    if not used:
        raise NoAttentionError(
            f"{explainer}: the embedding does not depend on the last attention of the model, so "
            "its rows say nothing of the embedding."
        )
    return used


def check_sequence(
    explainer: str, module: nn.Module, image: Images, numbers: Sequence[int]
) -> None:
    """Check that each attention depends on the one before, as those of successive layers do.

    Heads that are computed one by one, or branches side by side, must not be multiplied. Each
    attention in turn is replaced by NaN, which reaches whatever depends on it.

    Args:
        explainer: Its id, for the message.
        module: Borrowed, in eval mode.
        image: (1, 3, H, W) on the module's device.
        numbers: Which softmaxes are attention among all tokens, in order.

    Raises:
        NoAttentionError: If one does not depend on the one before.
    """
    for before, after in pairwise(numbers):
        try:
            seen = watch(module, image.clone(), Emptied(before, slice(None), nan)).softmaxes
            is_reached = bool(seen[after].weights.isnan().any())
        except Exception:  # a network that refuses NaN, or goes another way with it, depends on it
            continue
        if not is_reached:
            raise NoAttentionError(
                f"{explainer}: attention at {_at(seen[after].layer)} does not depend on that at "
                f"{_at(seen[before].layer)}, so they are heads or branches side by side, whose "
                "matrices cannot be multiplied. Compute all heads of a layer in one softmax."
            )


def _check_alike(explainer: str, softmaxes: Sequence[Attention], first: Attention) -> None:
    """Check that no softmax is attention of another kind than the first attention.

    Raises:
        NoAttentionError: If one is.
    """
    tokens = first.weights.shape[-1]
    for one in softmaxes:
        side, rows = one.weights.shape[-1], one.weights.shape[-2:-1]
        if one.weights.ndim < 3:
            continue
        if one.is_square and side == tokens and not one.is_last:
            raise NoAttentionError(
                f"{explainer}: {_at(one.layer)} has {_shape(one)} weights whose rows do not sum to "
                "1. Only attention whose softmax is over the last dimension can be multiplied."
            )
        if not one.is_last:
            continue
        if one.is_square and side != tokens:
            raise NoAttentionError(
                f"{explainer}: {_at(first.layer)} attends among {tokens} tokens "
                f"and {_at(one.layer)} among {side}. Matrices of different sizes cannot be "
                "multiplied."
            )
        if not one.is_square and side == tokens:
            raise NoAttentionError(
                f"{explainer}: {_at(one.layer)} attends from {rows[0]} to {tokens} tokens, as "
                "attention pooling does. Only attention among all tokens can be multiplied."
            )


class _Softmaxes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the output of every softmax, and what hides one."""

    def __init__(self, emptied: Emptied | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[tuple[str, nn.Module]] = []
        self.found: list[Attention] = []
        self.hidden: list[tuple[str, str]] = []
        self._emptied = emptied

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:  # fmt: skip
        result = func(*args, **(kwargs or {}))
        operation = func._schema.name
        layer = self.names[-1][0] if self.names else ""
        if operation in _SOFTMAXES:
            assert isinstance(result, Tensor)
            if self._emptied is not None and self._emptied.softmax == len(self.found):
                result[..., self._emptied.rows, :] = self._emptied.value
            dim = args[1] if len(args) > 1 else (kwargs or {}).get("dim")
            is_last = dim in (-1, result.ndim - 1)
            # A copy: a network may write into the weights, as dropout in place does.
            self.found.append(Attention(layer, result.clone(), is_last))
        elif operation.startswith(_HIDING):
            self.hidden.append((layer, operation.removeprefix("aten::")))
        return result


@contextmanager
def _step_by_step() -> Iterator[None]:
    """Have PyTorch compute attention by a product, a softmax and a product while open."""
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)


def _at(layer: str) -> str:
    return f"layer '{layer}'" if layer else "the model itself"


def _shape(one: Attention) -> str:
    return " x ".join(map(str, one.weights.shape))
