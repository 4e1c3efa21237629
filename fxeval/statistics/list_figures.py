"""AUC, EER and TMR at FMR of a whole list of mated and nonmated rows, and without each identity.

No row has a value of its own in them, so identities cannot be averaged. What one identity adds is
seen by leaving out every row that it has a part in; intervals follow from these values
(``fxeval.statistics.list_intervals``).

N rows, G identities, T distinct values. Larger values are those of mated rows.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fxeval.statistics.units import check_finite

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

RATE_OF: Mapping[str, float] = {
    f"tmr_at_fmr_{name}": rate
    for name, rate in (("1e-1", 1e-1), ("1e-2", 1e-2), ("1e-3", 1e-3), ("1e-4", 1e-4))
}
"""The false match rate of each true match rate."""

LIST_FIGURES: tuple[str, ...] = ("auc", "eer", *RATE_OF)


def allowed_false_matches(rate: float, n_nonmated: FloatArray) -> FloatArray:
    """Return how many nonmated rows may be accepted; rate * n may be rounded to below a whole."""
    allowed: FloatArray = np.floor(rate * n_nonmated + 1e-9)
    return allowed


def value_of(name: str, values: FloatArray, is_mated: BoolArray) -> float:
    """Return a figure of the whole list.

    ``auc``: how often a mated row has the larger value of a mated and a nonmated one; ties count
    half. ``eer``: the mean of FMR and FNMR at that value of the list at which they differ least, of
    two such values the larger. ``tmr_at_fmr_x``: the share of mated rows above the last value at
    which more than a share x of the nonmated rows are accepted.

    Args:
        name: One of :data:`LIST_FIGURES`.
        values: (N,) finite.
        is_mated: (N,).

    Raises:
        ValueError: If the name is unknown, a kind of rows is missing, or a value is not finite.

    >>> value_of("auc", np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]))
    0.75
    """
    lists = _Lists(values, is_mated, np.zeros((len(values), 0), np.int64))
    return float(lists.figure(name)[-1])


def without_each(
    name: str, values: FloatArray, is_mated: BoolArray, identities: IntArray
) -> FloatArray:
    """Return a figure of the list without each of its identities.

    One sort of the rows and one of the identities' own rows serve all G lists: LFW's 6,000 pairs of
    4,281 people take some 15 ms.

    Args:
        name: One of :data:`LIST_FIGURES`.
        values: (N,) finite.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.

    Returns:
        (G,) in the ascending order of the identities; NaN where no mated or no nonmated row is
        left.

    Raises:
        ValueError: As :func:`value_of`; also if the identities have another length.
    """
    return _Lists(values, is_mated, identities).figure(name)[:-1]


def difference_without_each(
    name: str, values: FloatArray, others: FloatArray, is_mated: BoolArray, identities: IntArray
) -> tuple[float, FloatArray]:
    """Return the difference of a figure of two columns of the same rows, and without each identity.

    Args:
        name: One of :data:`LIST_FIGURES`.
        values: (N,) finite.
        others: (N,) finite, of the same rows: a control, another explainer, an earlier run.
        is_mated: (N,).
        identities: (N,), or (N, 2) if a row belongs to two.

    Returns:
        Figure of the values minus figure of the others, and (G,) the same without each identity.
    """
    one, two = (_Lists(column, is_mated, identities).figure(name) for column in (values, others))
    return float(one[-1] - two[-1]), one[:-1] - two[:-1]


def parts_of(identities: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return who has a part in which row.

    Args:
        identities: (N,), or (N, C) if a row belongs to several; one named twice counts once.

    Returns:
        (G,) the distinct identities, ascending; (P,) their numbers from 0, one for each part that
        an identity has in a row; (P,) the rows.
    """
    columns = identities.reshape(len(identities), -1)
    people, number = np.unique(columns, return_inverse=True)
    number = number.reshape(columns.shape).astype(np.int64)
    is_first = np.ones(columns.shape, bool)
    for column in range(1, columns.shape[1]):
        is_first[:, column] = (number[:, :column] != number[:, column, None]).all(1)
    row, column_of = np.nonzero(is_first)
    return people, number[row, column_of], row.astype(np.int64)


class _Lists:
    """The list without each identity, and, last, the whole list: L = G + 1 lists at once.

    Threshold k, from 0 to T, accepts the values from the k-th on.
    """

    def __init__(self, values: FloatArray, is_mated: BoolArray, identities: IntArray) -> None:
        _check(values, is_mated, identities)
        distinct, place = np.unique(values, return_inverse=True)
        people, owner, row = parts_of(identities)
        self._last = len(distinct)
        self._mated, self._nonmated = (
            _Rows(place[kind], owner[kind[row]], place[row[kind[row]]], len(people), self._last)
            for kind in (is_mated, ~is_mated)
        )

    def figure(self, name: str) -> FloatArray:
        """Return (L,) a figure of each list; NaN where it has rows of one kind only."""
        if name not in LIST_FIGURES:
            raise ValueError(f"list figure: expected one of {LIST_FIGURES}, got {name!r}.")
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {"auc": self._auc, "eer": self._eer}.get(name, lambda: self._tmr(name))()
        usable = (self._mated.n > 0) & (self._nonmated.n > 0)
        return np.where(usable, found, np.nan)

    def _auc(self) -> FloatArray:
        mated, nonmated = self._mated, self._nonmated
        # Twice the number of mated above nonmated rows, so that ties count one: whole numbers.
        wins = nonmated.below_of(mated.place)
        lost = nonmated.below_of(mated.own_place)
        others = 2 * len(mated.place) - mated.below_of(nonmated.own_place)
        both = nonmated.own_below(mated.owner, mated.own_place)
        kept = np.full(len(mated.n), float(wins.sum()))
        for owner, parts in (
            (mated.owner, lost), (nonmated.owner, others), (mated.owner, -both),
        ):  # fmt: skip
            kept -= np.bincount(owner, parts, len(kept))
        return kept / (2.0 * mated.n * nonmated.n)

    def _eer(self) -> FloatArray:
        mated, nonmated = self._mated, self._nonmated

        def counts(k: IntArray) -> tuple[FloatArray, FloatArray]:
            return nonmated.n - nonmated.below(k), mated.below(k)

        def gap(k: IntArray) -> FloatArray:
            alarms, misses = counts(k)
            return alarms * mated.n - misses * nonmated.n

        # The gap falls with k, strictly wherever a value is left in the list.
        after = self._first_not(lambda k: gap(k) > 0)
        accepts_any = mated.n - mated.below(after) + nonmated.n - nonmated.below(after) > 0
        chosen = np.where(accepts_any & (-gap(after) <= gap(after - 1)), after, after - 1)
        alarms, misses = counts(chosen)
        rates: FloatArray = alarms / nonmated.n + misses / mated.n
        return rates / 2

    def _tmr(self, name: str) -> FloatArray:
        mated, nonmated = self._mated, self._nonmated
        allowed = allowed_false_matches(RATE_OF[name], nonmated.n)
        chosen = self._first_not(lambda k: nonmated.n - nonmated.below(k) > allowed)
        rate: FloatArray = 1 - mated.below(chosen) / mated.n
        return rate

    def _first_not(self, holds: Callable[[IntArray], BoolArray]) -> IntArray:
        """Return (L,) the first threshold at which something that holds at 0 no longer does."""
        low = np.zeros(len(self._mated.n), np.int64)
        high = np.full(len(low), self._last, np.int64)
        while (high - low > 1).any():
            middle = (low + high) // 2
            still = holds(middle)
            low, high = np.where(still, middle, low), np.where(still, high, middle)
        return high


class _Rows:
    """The rows of one kind, those of each identity among them.

    Args:
        place: (n,) place of each row's value among the distinct ones.
        owner: (P,) identity of each part.
        own_place: (P,) place of the part's row.
        n_people: G.
        n_places: T.

    Attributes:
        place, owner, own_place: As given, owners in ascending order, places ascending in each.
        n: (L,) float64, rows that each list is left with.
    """

    def __init__(
        self, place: IntArray, owner: IntArray, own_place: IntArray, n_people: int, n_places: int
    ) -> None:
        keys = np.sort(owner * (n_places + 1) + own_place)
        self.place, self._keys, self._step = place, keys, n_places + 1
        self.owner, self.own_place = keys // self._step, keys % self._step
        self._up_to = np.concatenate([[0], np.bincount(place, minlength=n_places).cumsum()])
        self._lists = np.arange(n_people + 1)
        self._starts = np.searchsorted(keys, self._lists * self._step)
        own = np.bincount(self.owner, minlength=n_people + 1)
        self.n: FloatArray = (len(place) - own).astype(np.float64)

    def below(self, k: IntArray) -> FloatArray:
        """Return (L,) how many rows of each list lie below its threshold."""
        own = np.searchsorted(self._keys, self._lists * self._step + k) - self._starts
        found: FloatArray = (self._up_to[k] - own).astype(np.float64)
        return found

    def below_of(self, places: IntArray) -> IntArray:
        """Return twice how many rows of the whole list lie below places, those at them once."""
        found: IntArray = self._up_to[places] + self._up_to[places + 1]
        return found

    def own_below(self, owner: IntArray, places: IntArray) -> IntArray:
        """Return the same of the rows of one identity each."""
        keys = owner * self._step + places
        ends = np.searchsorted(self._keys, keys) + np.searchsorted(self._keys, keys + 1)
        found: IntArray = ends - 2 * self._starts[owner]
        return found


def _check(values: FloatArray, is_mated: BoolArray, identities: IntArray) -> None:
    if values.ndim != 1 or not len(values) == len(is_mated) == len(identities):
        raise ValueError(
            f"list figure: expected values, is_mated and identities of one length, got "
            f"{values.shape}, {is_mated.shape} and {identities.shape}."
        )
    check_finite("list figure", values)
    n_mated = int(is_mated.sum())
    if not 0 < n_mated < len(values):
        raise ValueError(
            f"list figure: expected mated and nonmated rows, got {n_mated} and "
            f"{len(values) - n_mated}."
        )
