"""How evenly a map is spread over its pixels: entropy and Gini coefficient."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxeval.contracts import Maps


def entropy(maps: Maps) -> NDArray[np.float64]:
    """Return Shannon's entropy of each map less its minimum, as a share of an even map's.

    >>> entropy(torch.tensor([[[0.0, 1.0, 1.0, 0.0]], [[2.0, 2.0, 2.0, 2.0]]])).tolist()
    [0.5, 1.0]

    Args:
        maps: (N, H, W) real.

    Returns:
        (N,) in [0, 1]: 1 for an even map, also a constant one; 0 if one pixel holds everything. NaN
        where a value is not finite.
    """
    mass = _masses(maps)
    found = -torch.special.xlogy(mass, mass).sum(dim=1) / max(np.log(mass.shape[1]), 1e-300)
    return _numpy(found.clamp(0.0, 1.0))


def gini(maps: Maps) -> NDArray[np.float64]:
    """Return the Gini coefficient of each map less its minimum.

    >>> gini(torch.tensor([[[0.0, 1.0, 1.0, 0.0]], [[2.0, 2.0, 2.0, 2.0]]])).tolist()
    [0.5, 0.0]

    Args:
        maps: (N, H, W) real.

    Returns:
        (N,) in [0, 1): 0 for an even map, also a constant one; 1 - 1/n if one of n pixels holds
        everything. NaN where a value is not finite.
    """
    mass = _masses(maps).sort(dim=1).values
    n = mass.shape[1]
    weights = 2.0 * torch.arange(1, n + 1, dtype=mass.dtype, device=mass.device) - n - 1.0
    return _numpy(((mass * weights).sum(dim=1) / n).clamp(0.0, 1.0))


def _masses(maps: Maps) -> Tensor:
    """Return (N, n) shares of each pixel, which sum to 1; even where the map is constant."""
    flat = maps.flatten(1).double()
    above = flat - flat.amin(dim=1, keepdim=True)
    # Scaled first: sums of huge values overflow, and those of tiny ones are no sums.
    above = above / torch.where(above.amax(dim=1, keepdim=True) > 0, above.amax(1, True), 1.0)
    total = above.sum(dim=1, keepdim=True)
    even = torch.full_like(above, 1.0 / above.shape[1])
    return torch.where(total == 0.0, even, above / total)


def _numpy(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.cpu().numpy()
    return found
