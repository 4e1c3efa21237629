"""How far float32 rounding may carry a result from the exact one, from the arithmetic alone.

A tolerance found by trial on one processor fails on the next: instruction sets and thread counts
change the order of sums, and with it the rounding. The bound here depends on the computation:

    |found - expected| <= SURE * sqrt(terms) * unit roundoff * condition * scale

* ``terms``: how many rounded terms the longest chain of sums has. Rounding errors are independent
  enough to grow with its square root (Higham and Mary, "A new approach to probabilistic rounding
  error analysis", SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4).
* ``condition``: how much larger the summed numbers are than the result that is left of them, or,
  for a whole network, what ``condition_of`` measures.
* ``scale``: the largest value of what is compared, such as a map: its small values are sums of
  large terms, and carry the rounding of those.

A bound that could hide an error of a thousandth is refused, whatever the values.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FLOAT32 = 2.0**-24  # unit roundoff: half the distance from 1 to the next number
FLOAT64 = 2.0**-53
SURE = 6.0  # exceeded with a probability of about exp(-SURE**2 / 2), one in 65 million, per value
PLANTED = 1e-3  # an error of this share of the scale must be seen


def allowance(terms: float, condition: float = 1.0, unit: float = FLOAT32) -> float:
    """Return the share of the scale that rounding may change.

    >>> f"{allowance(100):.1e}"
    '3.6e-06'
    """
    return SURE * math.sqrt(terms) * unit * condition


def terms_of(module: nn.Module, passes: int = 1) -> int:
    """Count the products behind one output of a network, layer by layer.

    ``passes`` is 2 where a gradient comes back through the same layers.
    """
    weights = [one for one in module.parameters() if one.dim() > 1]
    return passes * sum(one[0].numel() for one in weights)


def condition_of(
    compute: Callable[..., Any], *inputs: Tensor, module: nn.Module | None = None, draws: int = 5
) -> float:
    """Return how many times a relative change of the inputs is larger in the result.

    ``compute`` is the reference in float64, a function of the inputs (and of the weights of
    ``module``, which is in float64 too). Inputs and weights are shaken by independent relative
    changes of up to 1e-7; both changes are measured against the largest value, the result's largest
    change over the draws counts, and it is never taken for less than 1.
    """
    step, generator = 1e-7, torch.Generator().manual_seed(0)
    weights = [] if module is None else [one for one in module.parameters() if one.dim() > 0]
    kept = [one.detach().clone() for one in weights]

    def shaken(value: Tensor) -> Tensor:
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
        return value.double() * (1 + step * (2 * noise - 1))

    exact = _array(compute(*(one.double() for one in inputs)))
    changes = []
    try:
        for _ in range(draws):
            with torch.no_grad():
                for one, before in zip(weights, kept, strict=True):
                    one.copy_(shaken(before))
            changes.append(np.abs(_array(compute(*map(shaken, inputs))) - exact).max())
    finally:
        with torch.no_grad():
            for one, before in zip(weights, kept, strict=True):
                one.copy_(before)
    largest = float(np.abs(exact).max())
    return max(1.0, float(max(changes)) / (step * largest)) if largest else 1.0


def assert_rounded(
    found: Any,
    expected: Any,
    *,
    terms: float,
    condition: float = 1.0,
    scale: float | None = None,
    unit: float = FLOAT32,
) -> None:
    """Fail where ``found`` is further from ``expected`` than rounding can carry it.

    ``scale`` is the largest expected value, unless the terms were larger and it is known how large.
    """
    ours, exact = _array(found), _array(expected)
    assert ours.shape == exact.shape, f"expected shape {exact.shape}, got {ours.shape}"
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(ours[~finite], exact[~finite])
    ours, exact = ours[finite], exact[finite]
    if not exact.size:
        return
    largest = float(np.abs(exact).max())
    scale = largest if scale is None else scale
    share = allowance(terms, condition, unit)
    if share * scale > PLANTED / 4 * largest:
        raise ValueError(
            f"rounding may change {share * scale:.1e} of {largest:.1e}: an error of a thousandth "
            "could hide in it. Compare in float64, or compare what is better conditioned"
        )
    error = np.abs(ours - exact)
    _log(float(error.max()), share * scale)
    worst = int(error.argmax())
    assert error[worst] <= share * scale, (
        f"expected {exact[worst]:.9g}, got {ours[worst]:.9g}: off by {error[worst]:.2e} at the "
        f"{worst}th value; rounding may change {share * scale:.2e} (scale {scale:.3g}, "
        f"{terms:.0f} terms, condition {condition:.3g}). {int((error > share * scale).sum())} of "
        f"{error.size} values are off"
    )


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def _log(error: float, allowed: float) -> None:
    """Note how much of the bound was used, where ``FXEVAL_ROUNDING_LOG`` names a file."""
    path = os.environ.get("FXEVAL_ROUNDING_LOG")
    if path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
        line = json.dumps({"test": test, "error": error, "allowed": allowed})
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
