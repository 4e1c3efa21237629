"""Benjamini and Hochberg's correction, for tables that nobody decides by."""

from collections.abc import Sequence


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values, in the order given.

    Of those of at most q, the expected share of false ones is at most q, if the tests are
    independent or positively dependent. That is a promise for exploring; a gate needs Holm's
    (:mod:`fxeval.statistics.holm`).

    >>> adjusted([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]

    Source:
        Benjamini and Hochberg 1995, "Controlling the False Discovery Rate", Journal of the Royal
        Statistical Society B 57.
    """
    n = len(p_values)
    found, reached = [1.0] * n, 1.0
    for rank, place in enumerate(sorted(range(n), key=lambda at: -p_values[at])):
        reached = min(reached, p_values[place] * n / (n - rank))
        found[place] = reached
    return found
