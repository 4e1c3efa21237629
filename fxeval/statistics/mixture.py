"""Acceptance under occlusion as a mixture: a sign of masks that cover whole faces.

Where a generator's masks cover the whole face of some people and nothing of the others, every
evaluator rejects the former and accepts the latter as ever, whatever its architecture. The share of
pairs that it accepts is then ``p * clean + (1 - p) * c``, with one p for each generator and c near
0. Masks of an honest area meet each evaluator's own weaknesses, and fit this less well.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fxeval.records.transfers import MixtureFit

FloatArray = NDArray[np.float64]

SMALL_ERROR = 0.01
"""Root mean squared residual below which the mixture counts as a description of the values."""

SMALL_REST = 0.1
"""Acceptance up to which an evaluator counts as rejecting whoever is not untouched."""

MOST_UNTOUCHED = 0.9
"""Share of untouched pairs below which a generator counts as making evaluators reject."""

LARGE_AREA = 1.5
"""How many times the area asked for a mask may cover before its area is in question."""

_MOST_TURNS = 20_000
_STILL = 1e-15
_LEAST_EVALUATORS = 3


def mixture_of(accepted: FloatArray, clean: FloatArray) -> MixtureFit | str:
    """Fit the mixture by alternating least squares.

    ``clean - accepted`` is the product of 1 - p and clean - c, so both are known up to one factor.
    It is chosen so that the sum of the squares of c is least, with every p in [0, 1].

    Args:
        accepted: (G, E) share of mated pairs that each evaluator accepts; NaN where unknown.
        clean: (E,) the same with nothing occluded; NaN where unknown.

    Returns:
        The fit, or why there is none.
    """
    lost = clean - accepted
    known = np.isfinite(lost)
    n_generators, n_evaluators = (int(known.any(axis=axis).sum()) for axis in (1, 0))
    if n_generators < 2 or n_evaluators < _LEAST_EVALUATORS:
        return (
            f"no mixture: {n_generators} generators and {n_evaluators} evaluators with values, "
            f"expected at least 2 and {_LEAST_EVALUATORS}"
        )
    if known.sum() < n_generators + n_evaluators:
        return f"no mixture: {known.sum()} values are too few to fit it"
    weight = known.astype(np.float64)
    lost = np.where(known, lost, 0.0)
    touched = np.maximum(lost.sum(axis=1), 0.0) / np.maximum(weight.sum(axis=1), 1.0)
    if not touched.any():
        return "no mixture: no generator's maps make the evaluators reject more pairs"
    touched, fall = _factors(lost, weight, touched)
    seen = weight[touched > 0.0].any(axis=0)
    scale = float(fall @ np.where(seen, clean, 0.0)) / float(fall @ fall)
    scale = max(scale, float(touched.max()))
    touched, fall = touched / scale, fall * scale
    error = np.where(known, lost - np.outer(touched, fall), 0.0)[known]
    spread = float(((accepted[known] - accepted[known].mean()) ** 2).sum())
    return MixtureFit(
        untouched=np.where(known.any(axis=1), 1.0 - touched, math.nan).tolist(),
        remaining=np.where(seen, clean - fall, math.nan).tolist(),
        rmse=math.sqrt(float((error**2).mean())),
        largest_error=float(np.abs(error).max()),
        explained=1.0 - float((error**2).sum()) / spread if spread > 0.0 else None,
        n_values=int(known.sum()),
    )


def mixture_text(fit: MixtureFit, generators: Sequence[str]) -> str:
    """Say in words what a fit found."""
    shares = [
        f"{name} {share:.0%}"
        for name, share in zip(generators, fit.untouched, strict=True)
        if share is not None
    ]
    rest = [one for one in fit.remaining if one is not None]
    of = "" if fit.explained is None else f", {fit.explained:.2%} of the variance"
    return (
        f"a mixture fits the {fit.n_values} acceptances with an RMSE of {fit.rmse:.4f} (largest "
        f"error {fit.largest_error:.3f}{of}): of the pairs, untouched are {', '.join(shares)}; of "
        f"the others the evaluators accept {min(rest):.2f} to {max(rest):.2f}"
    )


def area_warning(
    fit: MixtureFit, accepted: FloatArray, clean: FloatArray, area: FloatArray, fraction: float
) -> str:
    """Return a warning if the values look like an artefact of the masks' area; "" if not.

    Args:
        fit: The mixture.
        accepted: (G, E) as in :func:`mixture_of`.
        clean: (E,) likewise.
        area: (G, E) share of the pixels that was occluded; NaN where it was not measured.
        fraction: Share that was asked for.
    """
    share, rest = (np.array(one, dtype=np.float64) for one in (fit.untouched, fit.remaining))
    rejects = share < MOST_UNTOUCHED
    if rejects.sum() < 2 or not bool((np.abs(rest[np.isfinite(rest)]) <= SMALL_REST).all()):
        return ""
    error = accepted - (np.outer(share, clean) + np.outer(1.0 - share, rest))
    found = error[rejects][np.isfinite(error[rejects])]
    if max(fit.rmse, float(np.sqrt((found**2).mean()))) >= SMALL_ERROR:
        return ""
    covered = area[rejects]
    largest = float(covered[np.isfinite(covered)].max(initial=0.0))
    if np.isfinite(covered).all() and largest <= LARGE_AREA * fraction:
        return ""  # the masks are as large as asked: whatever this is, it is no such artefact
    least, most = float(share[rejects].min()), float(share[rejects].max())
    measured = f" Up to {largest:.3g} of the pixels were occluded." if largest else ""
    return (
        f"mask area artefact? Of each generator's pairs a fixed share is untouched ({least:.0%} to "
        f"{most:.0%}), and every evaluator alike rejects the others (RMSE {fit.rmse:.4f}). Masks "
        f"that cover the whole face of some people, and nothing of others, look like this; asked "
        f"for was a fraction of {fraction:g}.{measured}"
    )


def _factors(
    lost: FloatArray, weight: FloatArray, touched: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the (G,) and (E,) factors nearest to the known values; the first are not negative."""
    before: FloatArray = np.zeros(lost.shape)
    fall: FloatArray = np.zeros(lost.shape[1])
    for _ in range(_MOST_TURNS):
        fall = _ratio(touched @ lost, (touched**2) @ weight)
        touched = np.maximum(_ratio(lost @ fall, weight @ (fall**2)), 0.0)
        product = np.outer(touched, fall)
        if np.abs(product - before).max() <= _STILL:
            break
        before = product
    return touched, fall


def _ratio(one: FloatArray, two: FloatArray) -> FloatArray:
    return np.divide(one, two, out=np.zeros_like(one), where=two > 0.0)
