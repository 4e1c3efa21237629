"""Did anything get worse? Holm's correction for the many questions of one run.

A single comparison with an earlier run fails by chance in 2.5 % of the runs in which nothing
changed; of 20 independent ones, some fails in 40 %. Holm's procedure bounds the probability of any
false alarm, whatever the dependence of the comparisons. Cells are not corrected: that all of them
must pass is an intersection-union test, which keeps its level.
"""

from collections.abc import Sequence

from fxeval.records.judged import Figures, LimitResult, Regression, Regressions
from fxeval.records.schema import CellResult

METHOD = "Holm, one-sided"


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    The family-wise error is at most alpha if whatever has an adjusted p-value of at most alpha is
    rejected.

    >>> adjusted([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source:
        Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
        of Statistics 6.
    """
    n = len(p_values)
    found, reached = [0.0] * n, 0.0
    for rank, place in enumerate(sorted(range(n), key=lambda at: p_values[at])):
        reached = max(reached, min(1.0, (n - rank) * p_values[place]))
        found[place] = reached
    return found


def regressions_of(cells: Sequence[CellResult]) -> Regressions | None:
    """Return which comparisons with an earlier run got worse; None if nothing was compared.

    The family is every ``not_worse_than`` over a population of the cells, at every condition, for
    which the earlier run has values. A limit over a list has no p-value and is not part of it.
    """
    tested = [
        (cell, limit, limit.p_opposite)
        for cell in cells
        for limit in cell.limits
        if limit.not_worse_than is not None and limit.p_opposite is not None
    ]
    if not tested:
        return None
    # One-sided at half of what the cells' intervals leave out; of several, the strictest.
    level = round(min((1.0 - cell.confidence) / 2.0 for cell, _, _ in tested), 12)
    corrected = adjusted([p for _, _, p in tested])
    entries = [
        Regression(
            cell=cell.id,
            metric=limit.metric,
            under=limit.under,
            text=limit.text,
            p_value=p,
            adjusted=one,
            is_worse=one <= level,
            headroom=headroom_of(limit),
        )
        for (cell, limit, p), one in zip(tested, corrected, strict=True)
    ]
    n_worse = sum(entry.is_worse for entry in entries)
    n_known = sum(
        entry.is_worse and limit.acknowledged is not None
        for entry, (_, limit, _) in zip(entries, tested, strict=True)
    )
    known = f"; {n_known} of them acknowledged" if n_known else ""
    said = (
        f"{n_worse} of {len(entries)} comparisons with an earlier run got worse (Holm, "
        f"{level:.3g} one-sided{known}). The cells are decided by their own intervals: that all "
        "must pass is an intersection-union test, which needs no correction"
    )
    named = {one.baseline.model_dump_json(): one.baseline for one in cells if one.baseline}
    return Regressions(
        method=METHOD, level=level, text=said, tested=entries, baselines=[*named.values()]
    )


def headroom_of(limit: LimitResult) -> Figures | None:
    """Return the headroom of a judged limit ``not_worse_than``; None of any other.

    A limit passes when the whole interval of its headroom is at least 0.
    """
    least, found = limit.region[0], limit.estimate
    if limit.not_worse_than is None or least is None or found is None:
        return None
    ends = {name: getattr(found, name) for name in ("value", "low", "high")}
    return found.model_copy(
        update={name: None if end is None else end - least for name, end in ends.items()}
    )
