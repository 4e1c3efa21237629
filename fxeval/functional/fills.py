"""What removed pixels are replaced with: the fills that come with fxeval, and those of plug-ins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Protocol, get_args

import torch
from pydantic import AfterValidator, WithJsonSchema
from torch import Tensor

from fxeval.contracts import Fill, Images
from fxeval.errors import FillContractError, FxevalError
from fxeval.functional.fill_images import fill_images
from fxeval.functional.perturbations import DONOR
from fxeval.functional.road import Road
from fxeval.redaction import of_user_code
from fxeval.strict.forms import one_of


class FillFunction(Protocol):
    """Replaces removed pixels, from the image alone or from what is left of it.

    Example:
        >>> class MeanOfTheRest:
        ...     def prepare(self, images):
        ...         return images
        ...
        ...     def apply(self, images, prepared, removed):
        ...         kept = (~removed)[:, None]
        ...         count = kept.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        ...         mean = (images * kept).sum(dim=(2, 3), keepdim=True) / count
        ...         return torch.where(kept, images, mean)
        >>> images, removed = torch.tensor([0.2, 0.6]).expand(1, 3, 1, 2), torch.tensor([[[1, 0]]])
        >>> MeanOfTheRest().apply(images, images, removed.bool())[0, 0]
        tensor([[0.6000, 0.6000]])
    """

    def prepare(self, images: Images) -> Tensor:
        """Compute, once an image, what does not depend on the pixels that are removed.

        Args:
            images: (N, 3, H, W) floating in [0, 1].

        Returns:
            (N, ...), a row for each image.
        """

    def apply(self, images: Images, prepared: Tensor, removed: Tensor) -> Images:
        """Return the images without their removed pixels.

        A row depends on nothing but the same row of the arguments, and kept pixels stay bit for
        bit as they are.

        Args:
            images: (B, 3, H, W) floating in [0, 1].
            prepared: (B, ...), their rows of what ``prepare`` returned.
            removed: (B, H, W) bool.

        Returns:
            (B, 3, H, W), a new tensor of the images' dtype.
        """


@dataclass(frozen=True)
class _OfTheImage:
    """A fill that depends on the image alone (:func:`fill_images`)."""

    name: Fill

    def prepare(self, images: Images) -> Tensor:
        return fill_images(images, self.name)

    def apply(self, images: Images, prepared: Tensor, removed: Tensor) -> Images:
        return replaced(images, prepared, removed)


def replaced(images: Images, by: Images, removed: Tensor) -> Images:
    """Return (B, 3, H, W) images with their removed pixels, (B, H, W) bool, from other images."""
    # lerp returns its end points exactly at weights 0 and 1, and on a CPU it takes a quarter of the
    # time of torch.where, whose loop branches on every pixel of an order without pattern.
    return torch.lerp(images, by, removed[:, None].to(images.dtype))


OF_THE_IMAGE: tuple[str, ...] = get_args(Fill)
"""Fills that depend on the image alone: what replaces a pixel is the same whatever is removed."""

SHIPPED_FILLS: Mapping[str, FillFunction] = MappingProxyType(
    {**{name: _OfTheImage(name) for name in get_args(Fill)}, "road": Road()}
)

_added: dict[str, FillFunction] = {}


def fills() -> Mapping[str, FillFunction]:
    """Return all fills by name."""
    return {**SHIPPED_FILLS, **_added}


def add_fills(more: Mapping[str, FillFunction]) -> None:
    """Make the fills of a plug-in known, in place of those that were added before.

    Raises:
        FxevalError: If a name is taken, or is no name, or the object is no fill.
    """
    for name, fill in more.items():
        if name in SHIPPED_FILLS or name == DONOR:
            raise FxevalError(f"fill '{name}': expected a new name, got that of a shipped fill.")
        if not isinstance(name, str) or not name.isidentifier():
            raise FxevalError(f"fill {name!r:.60}: expected a name of letters, digits and '_'.")
        methods = (getattr(fill, one, None) for one in ("prepare", "apply"))
        if isinstance(fill, type) or not all(map(callable, methods)):
            raise FxevalError(
                f"fill '{name}': expected an object with prepare(images) and apply(images, "
                f"prepared, removed), got {type(fill).__name__}."
            )
    _added.clear()
    _added.update(more)


def prepared(name: str, fill: FillFunction, images: Images) -> Tensor:
    """Return what a fill computes once an image.

    Raises:
        FillContractError: If the fill of a plug-in raises, or does not return a row for each image.
    """
    if fill is SHIPPED_FILLS.get(name):
        return fill.prepare(images)
    found: object = _asked(name, "prepare", lambda: fill.prepare(images))
    if not isinstance(found, Tensor) or not found.ndim or len(found) != len(images):
        raise FillContractError(
            f"fill '{name}': expected {len(images)} rows from prepare, got {_form(found)}."
        )
    return found


def applied(
    name: str, fill: FillFunction, images: Images, prepared: Tensor, removed: Tensor
) -> Images:
    """Return the images without their removed pixels.

    Raises:
        FillContractError: If the fill of a plug-in raises, returns another shape or dtype or values
            that are not finite, or changes a pixel that is kept.
    """
    if fill is SHIPPED_FILLS.get(name):
        return fill.apply(images, prepared, removed)
    found: object = _asked(name, "apply", lambda: fill.apply(images, prepared, removed))
    if not isinstance(found, Tensor) or (found.shape, found.dtype) != (images.shape, images.dtype):
        expected = f"{tuple(images.shape)} {images.dtype}"
        raise FillContractError(
            f"fill '{name}': expected {expected} from apply, got {_form(found)}."
        )
    if not bool(found.isfinite().all()):
        raise FillContractError(f"fill '{name}': expected finite values, got NaN or infinity.")
    if not bool(((found == images) | removed[:, None]).all()):
        raise FillContractError(f"fill '{name}': expected kept pixels as they were, got others.")
    return found


def _asked(name: str, method: str, call: Callable[[], Tensor]) -> Tensor:
    """Call a fill of a plug-in; its fault must not be taken for the model's."""
    try:
        return call()
    except Exception as error:  # user code may raise anything
        if "out of memory" in str(error).lower():  # a smaller batch may do
            raise
        said = f"fill '{name}': {method} raised"
        raise FillContractError(
            f"{said} {type(error).__name__}: {error}", public=f"{said} {of_user_code(error)}"
        ) from error


def _form(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{tuple(found.shape)} {found.dtype}"
    return type(found).__name__


def removed_pixels(ranks: Tensor, first: Tensor, last: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels have a rank in [first, last).

    Deletion of the k most salient pixels is [0, k), their insertion into the filled image [k, n),
    retention likewise. Every row has its own order and counts, so one batch can mix pairs, steps
    and maps.

    Args:
        ranks: (B, H * W) integer, from :func:`fxeval.functional.ranking.ranks`.
        first: (B,) integer, first rank to remove.
        last: (B,) integer, the rank after the last one to remove.
        size: (H, W).

    Returns:
        (B, H, W) bool.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    rows = len(ranks)
    if ranks.shape != (rows, size[0] * size[1]) or {first.shape, last.shape} != {(rows,)}:
        raise ValueError(
            f"removed_pixels: expected ranks ({rows}, {size[0] * size[1]}), first and last "
            f"({rows},), got {tuple(ranks.shape)}, {tuple(first.shape)} and {tuple(last.shape)}."
        )
    if any(part.dtype.is_floating_point for part in (ranks, first, last)):
        raise ValueError("removed_pixels: expected integer ranks, first and last.")
    # Bounds of another integer type would make every comparison promote all ranks.
    low, high = first.to(ranks.dtype)[:, None], last.to(ranks.dtype)[:, None]
    return (ranks >= low).logical_and_(ranks < high).view(rows, *size)


def _known(name: str) -> str:
    return one_of(name, fills())


_SCHEMA: dict[str, Any] = {"enum": list(SHIPPED_FILLS), "type": "string"}
FillName = Annotated[str, AfterValidator(_known), WithJsonSchema(_SCHEMA)]
"""The name of a fill, as a field of a check's parameters."""


def _known_or_donor(name: str) -> str:
    return one_of(name, [*fills(), DONOR])


FillOrDonorName = Annotated[
    str,
    AfterValidator(_known_or_donor),
    WithJsonSchema({"enum": [*SHIPPED_FILLS, DONOR], "type": "string"}),
]
"""The same, or ``DONOR``, where rows have donors."""
