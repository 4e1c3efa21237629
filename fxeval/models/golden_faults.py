"""What makes a model's embeddings differ from its vendor's: the normalisation or the precision."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fxeval.contracts import Colour, FaceModel, Images
from fxeval.models.preprocessing import LUMA, Preprocessing

_N = 2
"""Number of images that are embedded again for each other normalisation."""

_TIMES_BETTER = 20
"""How many times nearer another normalisation must come to be the fault."""

_ALIKE = 0.999
"""Least cosine of embeddings that differ by precision; swapped colours give less."""

# Of ImageNet, VGGFace2 and none; in the order R, G, B, for pixels of 0 to 255.
_MEANS = ((127.5,) * 3, (0.0,) * 3, (123.675, 116.28, 103.53), (131.0912, 103.8827, 91.4953))
_STDS = ((127.5,) * 3, (128.0,) * 3, (255.0,) * 3, (1.0,) * 3, (58.395, 57.12, 57.375))


def diagnosis(
    model: FaceModel, given: Preprocessing, images: Images, wanted: Tensor, at_most: float
) -> str:
    """Say why embeddings differ from the wanted ones, and what to do.

    Args:
        model: Loaded with the given normalisation.
        given: Normalisation of the card.
        images: (N, 3, H, W) float32 RGB in [0, 1].
        wanted: (N, D) float64, the vendor's embeddings, not equal to the model's.
        at_most: Largest difference of an entry that is allowed.
    """
    images, wanted = images[:_N], wanted[:_N]
    found = _embedded(model, images)
    if not bool(torch.isfinite(found).all() and torch.isfinite(wanted).all()):
        return "One of them is NaN or infinite."
    now = float((found - wanted).abs().max())
    tried = [(_difference(model, _fed(images, given, other), wanted), _changes(given, other))
             for other in _others(given)]  # fmt: skip
    tried.append((_difference(model, images.flip(3), wanted), "mirrored images"))
    best, change = min(tried)
    if best <= at_most:
        return f"With {change} they agree: correct the card, or make the golden embeddings again."
    if best * _TIMES_BETTER <= now:
        return (
            f"With {change} they differ by {best:.2g} alone: correct the card, or make the golden "
            "embeddings again."
        )
    return _by_direction(found, wanted)


def _by_direction(found: Tensor, wanted: Tensor) -> str:
    cosine = float(torch.cosine_similarity(found, wanted).min())
    if cosine < _ALIKE:
        return (
            "Check colour, mean, std and architecture of the card: no common normalisation makes "
            f"them agree (cosine {cosine:.3f})."
        )
    least = f"cosine {min(cosine, 0.999999):.6f} or more"
    ratio = float((found.norm(dim=1) / wanted.norm(dim=1)).median())
    if not 0.99 < ratio < 1.01:
        return (
            f"They point the same way ({least}), and the model's are "
            f"{ratio:.3g} times as long: the golden embeddings must be what the network returns, "
            "not normalised."
        )
    return (
        f"They point the same way ({least}): the colours are right, and the "
        "rest is precision, such as float16 or another runtime, or a slightly other mean or std. "
        "If it is precision, raise 'at_most' of 'golden'."
    )


def _embedded(model: FaceModel, images: Images) -> Tensor:
    return model.embed(images).cpu().double()


def _difference(model: FaceModel, images: Images, wanted: Tensor) -> float:
    difference = float((_embedded(model, images) - wanted).abs().max())
    return difference if difference == difference else float("inf")  # NaN


def _others(given: Preprocessing) -> Iterator[Preprocessing]:
    """Yield the given normalisation with another colour, mean or std, common ones."""
    if given.channels == 1:
        means = {given.mean, *((one[0],) for one in _MEANS[:2])}
        stds = {given.std, *((one[0],) for one in _STDS[:4])}
        colours: tuple[Colour, ...] = ("grey",)
    else:
        means, stds, colours = {given.mean, *_MEANS}, {given.std, *_STDS}, ("RGB", "BGR")
    for colour, mean, std in itertools.product(colours, sorted(means), sorted(stds)):
        order = slice(None, None, -1 if colour == "BGR" else 1)
        other = replace(
            given,
            colour=colour,
            mean=mean if mean == given.mean else mean[order],
            std=std if std == given.std else std[order],
        )
        if other != given:
            yield other


def _fed(images: Images, given: Preprocessing, other: Preprocessing) -> Images:
    """Return images that the given normalisation turns into what the other makes of the images.

    They are not pixels: they may lie outside [0, 1].
    """

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)

    order: dict[Colour, Callable[[Tensor], Tensor]] = {
        "RGB": lambda one: one,
        "BGR": lambda one: one.flip(1),
        "grey": lambda one: (one * column(LUMA)).sum(1, keepdim=True),
    }
    seen = (255 * order[other.colour](images.double()) - column(other.mean)) / column(other.std)
    pixels = (seen * column(given.std) + column(given.mean)) / 255
    back = pixels.flip(1) if given.colour == "BGR" else pixels
    return back.expand(-1, 3, -1, -1).float()


def _changes(given: Preprocessing, other: Preprocessing) -> str:
    """Return the lines of a card that make the other normalisation of the given one."""
    lines = []
    for key in ("colour", "mean", "std"):
        value = getattr(other, key)
        if value == getattr(given, key):
            continue
        if isinstance(value, tuple):
            numbers = value[:1] if len(set(value)) == 1 else value
            shown = ", ".join(f"{one:g}" for one in numbers)
            value = shown if len(numbers) == 1 else f"[{shown}]"
        lines.append(f"'{key}: {value}'")
    return " and ".join(lines)
