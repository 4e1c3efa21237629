"""Change points by PELT, with the library ruptures (extra ``trend``)."""

import numpy as np

from fxeval.errors import StoreError
from fxeval.statistics.steps import FEWEST, FloatArray

PENALTY = 3.0
"""Times ln n: what a further level must save of the squared residuals, in units of the noise."""

MOST = 500
"""Most values that are looked at, the last ones."""


def change_points(values: FloatArray, scale: float) -> list[int]:
    """Return the indices at which PELT lets a new level begin.

    The cost is that of squared deviations from the mean of each level, in units of the noise; a
    level has at least 3 values, and a further one costs 3 ln n.

    Args:
        values: (n,) finite values.
        scale: Standard deviation of their noise; 0 = they repeat.

    Raises:
        StoreError: If ruptures is not installed.

    Source:
        Killick, Fearnhead and Eckley 2012, "Optimal Detection of Changepoints With a Linear
        Computational Cost", Journal of the American Statistical Association 107.

    Example:
        >>> change_points(np.array([1.0] * 6 + [3.0] * 6), scale=0.1)
        [6]
    """
    try:
        from ruptures import KernelCPD
    except ImportError:
        raise StoreError(
            'change points need the library ruptures. Install it with: pip install "fxeval[trend]"'
        ) from None
    start = max(0, len(values) - MOST)
    part = values[start:]
    if len(part) < 2 * FEWEST or np.ptp(part) == 0:
        return []
    unit = max(scale, 1e-7 * float(np.abs(part).max()))
    scaled = (part - np.median(part)) / unit
    # With the linear kernel, the cost is that of squared deviations from the mean.
    fitted = KernelCPD(kernel="linear", min_size=FEWEST, jump=1).fit(scaled[:, None])
    ends = fitted.predict(pen=PENALTY * float(np.log(len(part))))
    return [start + int(end) for end in ends[:-1]]
