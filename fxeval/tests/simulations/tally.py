"""Counts of a simulation: how often was the truth missed, and how sure is that?"""

import math
from dataclasses import dataclass

import numpy as np

from fxeval.tests.simulations.naive import BoolArray


@dataclass(frozen=True)
class Tally:
    """What many runs at the boundary came to: the line is the truth, so each miss is an error.

    Attributes:
        runs: Number of runs.
        above: In how many the whole interval lay above the truth (a limit "at least" passes).
        below: In how many it lay below (a limit "at most" passes).
        flips: Of pairs of runs, in how many one passed and the other failed.
        pairs: Number of those pairs.
    """

    runs: int
    above: int
    below: int
    flips: int
    pairs: int

    @property
    def false_pass(self) -> float:
        """Share of runs in which the worse of the two one-sided limits passed falsely."""
        return max(self.above, self.below) / self.runs

    @property
    def coverage(self) -> float:
        """Share of runs whose interval contained the truth."""
        return 1.0 - (self.above + self.below) / self.runs

    def exceeds(self, allowed: float) -> bool:
        """Return whether false passes are more than 3 standard errors above a share."""
        return self.false_pass > allowed + 3.0 * standard_error(allowed, self.runs)

    def undercovers(self, promised: float) -> bool:
        """Return whether the coverage is more than 3 standard errors below a share."""
        return self.coverage < promised - 3.0 * standard_error(promised, self.runs)


def standard_error(share: float, runs: int) -> float:
    """Return the standard error of a share counted in independent runs.

    >>> round(standard_error(0.025, 4000), 5)
    0.00247
    """
    return math.sqrt(share * (1.0 - share) / runs)


def tally(above: BoolArray, below: BoolArray) -> Tally:
    """Count; one half of the runs is compared with the other for verdicts that flip."""
    half = len(above) // 2
    first, second = slice(half), slice(half, 2 * half)
    flips = (above[first] & below[second]) | (below[first] & above[second])
    return Tally(len(above), int(np.sum(above)), int(np.sum(below)), int(np.sum(flips)), half)


def worst(found: list[Tally]) -> Tally:
    """Return the one with the most false passes."""
    return max(found, key=lambda one: one.false_pass)
