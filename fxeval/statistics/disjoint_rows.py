"""How many rows of a list have no person in common.

Where a list shows no error, its figures do not vary, and nothing says how far they may lie from
those of all people but the number of independent trials: rows that share nobody. Sixty people are
in thirty nonmated rows that share nobody, and a comparison of a mated with a nonmated row takes
three people.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.list_figures import parts_of

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Disjoint:
    """Numbers of independent trials in a list.

    Attributes:
        mated: Mated rows of different people.
        nonmated: Nonmated rows that share nobody.
        comparisons: Comparisons of a mated with a nonmated row that share nobody.
    """

    mated: int
    nonmated: int
    comparisons: int


def disjoint_rows(is_mated: NDArray[np.bool_], identities: IntArray) -> Disjoint:
    """Count rows that share nobody, greedily: those of people with few nonmated rows first.

    The largest possible numbers can be a little higher. They depend on the rows' people alone.

    Args:
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.

    >>> people = np.array([[0, 0], [1, 1], [2, 3], [4, 5], [2, 4]])
    >>> disjoint_rows(np.array([True, True, False, False, False]), people)
    Disjoint(mated=2, nonmated=2, comparisons=2)
    """
    columns = identities.reshape(len(identities), -1)
    people, owner, row = parts_of(identities)
    degree = np.bincount(owner[~is_mated[row]], minlength=len(people))
    number = np.searchsorted(people, columns)
    rows = np.unique(np.sort(number[~is_mated], axis=1), axis=0)
    rows = rows[np.argsort(degree[rows].sum(1), kind="stable")]
    mated = np.unique(number[is_mated])
    mated = mated[np.argsort(degree[mated], kind="stable")]
    return Disjoint(len(mated), _matched(rows), _matched(rows, mated))


def _matched(rows: IntArray, mated: IntArray | None = None) -> int:
    """Return how many rows share nobody, each also with a mated row of its own if any are given."""
    used: set[int] = set()
    found, supply = 0, [] if mated is None else mated.tolist()[::-1]  # the next one is the last
    for pair in rows.tolist():
        if not used.isdisjoint(pair):
            continue
        if mated is not None:
            while supply and supply[-1] in used:
                supply.pop()
            other = next((m for m in reversed(supply) if m not in used and m not in pair), None)
            if other is None:
                continue
            used.add(other)
        used.update(pair)
        found += 1
    return found
