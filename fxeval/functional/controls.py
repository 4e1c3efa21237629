"""Controls: maps whose right answer is known, which an explainer has to beat (or be unlike)."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from fxeval.contracts import Images, Maps
from fxeval.errors import EvidenceError
from fxeval.functional.map_similarity import norm01
from fxeval.seeding import generator_of

LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R BT.601


@dataclass(frozen=True, eq=False)
class ControlInputs:
    """Inputs of controls; the control of a row never depends on the batch that it is in.

    Attributes:
        probes: (N, 3, H, W) in [0, 1].
        row_seeds: One per row, drawn for (suite, row) and nothing else.
        identities: One per row, of the probe.
        maps: (N, H, W) of the explainer, over the whole list; needed by ``mean_map`` and
            ``inverse`` only.
    """

    probes: Images
    row_seeds: Sequence[int]
    identities: Sequence[int]
    maps: Maps | None = None


@dataclass(frozen=True)
class Control:
    """A control and whether it must be made anew for each explainer.

    Attributes:
        title: The name in words.
        depends_on_explainer: False = one set of maps serves every explainer and cell of a list.
        make: From the inputs to (N, H, W) float32 maps.
    """

    title: str
    depends_on_explainer: bool
    make: Callable[[ControlInputs], Maps]


def control_maps(name: str, inputs: ControlInputs) -> Maps:
    """Return (N, H, W) float32 maps of a control, larger = more important.

    Raises:
        EvidenceError: If there is no such control, or it cannot be made from these inputs.
    """
    if name not in CONTROLS:
        raise EvidenceError(f"unknown control '{name}'. Known: {', '.join(CONTROLS)}.")
    return CONTROLS[name].make(inputs)


def random_pixels(row_seeds: Sequence[int], size: tuple[int, int]) -> Maps:
    """Return i.i.d. uniform pixels in [0, 1)."""
    draws = [generator_of("random_pixels", seed).random(size) for seed in row_seeds]
    return _stacked([torch.from_numpy(draw) for draw in draws], size)


def random_blobs(row_seeds: Sequence[int], size: tuple[int, int]) -> Maps:
    """Return white noise blurred with sigma = H / 10: random, but as smooth as real maps.

    The Gaussian is cut at ceil(3 sigma); the border is reflected without repeating the edge.
    """
    sigma = size[0] / 10
    rows, columns = (blur_matrix(length, sigma) for length in size)
    noise = (generator_of("random_blobs", seed).standard_normal(size) for seed in row_seeds)
    # One product per row: a batched one may round differently with the size of the batch.
    return _stacked([rows @ torch.from_numpy(white) @ columns.T for white in noise], size)


def random_rectangle(row_seeds: Sequence[int], size: tuple[int, int]) -> Maps:
    """Return maps whose k most salient pixels are a rectangle, for every k: one whole area.

    A rectangle of the image's own proportions grows, line of pixels by line, until it fills the
    image. A point that is drawn decides on which side: it lies at the same share of the rectangle
    as of the room that is left. So every place that a rectangle of any one size can have, wholly
    inside the image, is equally likely. A line is filled from its left or upper end: the k most
    salient pixels lack less than one line of being a whole rectangle. No two pixels tie.
    """
    maps = []
    for seed in row_seeds:
        points = generator_of("random_rectangle", seed).random(2).tolist()
        y, x = (_joining(length, at) for length, at in zip(size, points, strict=True))
        # A row before a column where both are due, as in square images.
        order = torch.maximum(y[:, None], x + 1e-9).flatten().argsort(stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        maps.append((1 - rank.double() / len(order)).view(size))
    return _stacked(maps, size)


def centre(n: int, size: tuple[int, int]) -> Maps:
    """Return n times a Gaussian around ((H - 1) / 2, (W - 1) / 2) with sigma = H / 4, peak <= 1.

    >>> centre(1, (3, 3))[0].argmax()
    tensor(4)
    """
    sigma = size[0] / 4
    rows, columns = (
        torch.exp(-((torch.arange(length, dtype=torch.float64) - (length - 1) / 2) ** 2)
                  / (2 * sigma**2)) for length in size
    )  # fmt: skip
    return torch.outer(rows, columns).float().expand(n, *size).clone()


def luma(images: Images) -> Maps:
    """Return the luma of images by BT.601 (0.299 R + 0.587 G + 0.114 B), (N, H, W) float64."""
    weights = torch.tensor(LUMA, dtype=torch.float64, device=images.device)
    return torch.einsum("c,nchw->nhw", weights, images.double())


def edge(probes: Images) -> Maps:
    """Return the Sobel magnitude of the luma: an edge detector knows no model.

    The border is reflected without repeating the edge, so H and W must be at least 2.

    Source:
        The control of Adebayo et al. 2018, sec. 5.
    """
    grey = luma(probes)
    grey = torch.nn.functional.pad(grey[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
    across = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    down = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    return torch.hypot(across[:, :, 2:] - across[:, :, :-2], down[:, 2:] - down[:, :-2]).float()


def mean_map(
    maps: Maps, identities: Sequence[int], without: Sequence[Collection[int]] | None = None
) -> Maps:
    """Return, for each row, the mean of the explainer's maps over all other identities.

    An explainer that does not beat it explains faces in general, not this pair. Maps are scaled to
    [0, 1] first; constant maps and maps with NaN or infinity are left out.

    Args:
        maps: (N, H, W) over the whole list.
        identities: One per row.
        without: For each of n rows, the identities that are not among the others; None = its own,
            for each row of the list.

    Returns:
        (n, H, W).

    Raises:
        EvidenceError: If some row has no usable map of another identity.
    """
    if without is None:
        without = [(identity,) for identity in identities]
    scaled, usable = norm01(maps)
    names, group = torch.unique(torch.tensor(identities, device=maps.device), return_inverse=True)
    sums = scaled.new_zeros((len(names), *maps.shape[1:])).index_add_(0, group, scaled)
    counts = scaled.new_zeros(len(names)).index_add_(0, group, usable.double())
    places = {name: place for place, name in enumerate(names.tolist())}
    apart = [sorted(places[name] for name in {*some} if name in places) for some in without]
    others = counts.sum() - scaled.new_tensor([float(counts[some].sum()) for some in apart])
    if not bool((others > 0).all()):
        raise EvidenceError(
            f"control mean_map: {int((others == 0).sum())} of {len(apart)} rows have no "
            "usable map of another identity. It needs maps that are not constant from at least two "
            "identities."
        )
    total = sums.sum(dim=0)
    means = [(total - sums[some].sum(0)) / n for some, n in zip(apart, others, strict=True)]
    return _stacked(means, (maps.shape[1], maps.shape[2]))


def shuffled_identity(
    maps: Maps, identities: Sequence[int], of: Sequence[int], row_seeds: Sequence[int]
) -> Maps:
    """Return, for some rows, the explainer's map of another person, drawn by the row's seed.

    An explainer that does not beat it draws what faces have in common, or nothing at all. Constant
    maps and maps with NaN or infinity are not drawn.

    Args:
        maps: (N, H, W) over the whole list.
        identities: One per row of the list.
        of: n rows of the list.
        row_seeds: One for each of these.

    Returns:
        (n, H, W).

    Raises:
        EvidenceError: If some row has no usable map of another identity.
    """
    own = [(identities[row],) for row in of]
    drawn = drawn_from_others(norm01(maps)[1].tolist(), identities, own, row_seeds)
    return maps[drawn].float()


def drawn_from_others(
    is_usable: Sequence[bool], identities: Sequence[int], without: Sequence[Collection[int]],
    row_seeds: Sequence[int],
) -> Tensor:  # fmt: skip
    """Return, for each of n rows, the place of a map of another person, drawn by the row's seed.

    Args:
        is_usable: Whether each of N maps has an order; no other is drawn.
        identities: One per map.
        without: For each row, the identities that are not drawn from.
        row_seeds: One per row.

    Returns:
        (n,) int64.

    Raises:
        EvidenceError: If some row has no usable map of another identity.
    """
    chosen = []
    for row, (some, seed) in enumerate(zip(without, row_seeds, strict=True)):
        others = [
            other
            for other, identity in enumerate(identities)
            if identity not in some and is_usable[other]
        ]
        if not others:
            raise EvidenceError(
                f"control shuffled_identity: row {row} of {len(without)} has no usable map of "
                "another identity. It needs maps that are not constant from at least two "
                "identities."
            )
        chosen.append(others[seed % len(others)])
    return torch.tensor(chosen, dtype=torch.int64)


def inverse(maps: Maps) -> Maps:
    """Return minus the map: the least important pixels come first."""
    return -maps.float()


def blur_matrix(length: int, sigma: float) -> Tensor:
    """Return the (length, length) matrix that blurs a column with reflected ends, float64."""
    radius = math.ceil(3 * sigma)
    steps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(steps.double() ** 2) / (2 * sigma**2))
    source = (torch.arange(length)[:, None] + steps).abs()
    # Reflection 3 2 1 | 0 1 2 3 | 2 1 0, repeated for images narrower than the kernel.
    period = max(1, 2 * (length - 1))
    source = source % period
    source = torch.minimum(source, period - source)
    matrix = torch.zeros((length, length), dtype=torch.float64)
    return matrix.scatter_add_(1, source, (weights / weights.sum()).expand(length, -1))


def _joining(length: int, at: float) -> Tensor:
    """Return (length,) the share of an image's lines that are in a growing interval with each one.

    Args:
        length: Number of lines.
        at: Where the interval of any length lies: 0 = at the start, nearly 1 = at the end.
    """
    sizes = torch.arange(1, length + 1)
    first = torch.minimum((at * (length + 1 - sizes).double()).floor().long(), length - sizes)
    is_before = first < torch.cat([first[:1] + 1, first[:-1]])
    joins = torch.where(is_before, first, first + sizes - 1)
    return torch.empty(length, dtype=torch.float64).scatter_(0, joins, sizes.double() / length)


def _stacked(maps: list[Tensor], size: tuple[int, int]) -> Maps:
    return torch.stack(maps).float() if maps else torch.empty((0, *size))


def _of_the_explainer(inputs: ControlInputs) -> Maps:
    if inputs.maps is None:
        raise EvidenceError("controls mean_map and inverse need the maps of an explainer.")
    return inputs.maps


def _size(inputs: ControlInputs) -> tuple[int, int]:
    return (inputs.probes.shape[2], inputs.probes.shape[3])


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        "random_pixels": Control(
            "Random pixels", False, lambda given: random_pixels(given.row_seeds, _size(given))
        ),
        "random_blobs": Control(
            "Random blobs", False, lambda given: random_blobs(given.row_seeds, _size(given))
        ),
        "random_rectangle": Control(
            "Random rectangle",
            False,
            lambda given: random_rectangle(given.row_seeds, _size(given)),
        ),
        "centre": Control(
            "Centre of the crop", False, lambda given: centre(len(given.probes), _size(given))
        ),
        "edge": Control("Edges of the image", False, lambda given: edge(given.probes)),
        "mean_map": Control(
            "Mean map of other identities", True,
            lambda given: mean_map(_of_the_explainer(given), given.identities),
        ),
        "shuffled_identity": Control(
            "Map of another identity",
            True,
            lambda given: shuffled_identity(
                _of_the_explainer(given),
                given.identities,
                range(len(given.identities)),
                given.row_seeds,
            ),
        ),
        "inverse": Control(
            "The map turned over", True, lambda given: inverse(_of_the_explainer(given))
        ),
    }
)  # fmt: skip
