"""What changed between two runs: each cell judged beside the same cell of the earlier run.

A pure function of the two runs and of the margins. Limits of a suite that compare with an earlier
run decide by their own intervals, as in a run. Whatever else is compared is many questions at once,
so only what is still worse after Holm's correction is called worse.
"""

from collections import Counter
from collections.abc import Sequence

from fxeval.errors import EvidenceError, StoreError
from fxeval.records.changes import Became, Change, Comparison, Finding, Side
from fxeval.records.earlier import EarlierRun
from fxeval.records.hardware import hardware_class
from fxeval.records.judged import Regressions
from fxeval.records.schema import CellResult, Record
from fxeval.records.stored_run import StoredRun
from fxeval.statistics.cell_changes import BASE, CellPair, Found, Margins
from fxeval.statistics.holm import regressions_of

__all__ = ["Margins", "compared"]

_WORST_FIRST: tuple[Became, ...] = (
    "worse", "undecided", "not_compared", "not_worse", "better", "same",
)  # fmt: skip
_SAID = {
    "worse": "got worse", "undecided": "undecided", "not_compared": "not compared",
    "not_worse": "not worse", "better": "better", "same": "the same",
}  # fmt: skip


def compared(
    before: StoredRun,
    after: StoredRun,
    margins: Margins = Margins(),  # noqa: B008  (it is frozen)
    *,
    names: tuple[str, str] | None = None,
) -> list[Comparison]:
    """Compare two runs, row by row.

    Args:
        before: The earlier run.
        after: The later one.
        margins: By how much it may be worse.
        names: How readers call the two; None = as their folders are called.

    Returns:
        One comparison for each suite of the later run, then one for each that the earlier run
        alone has, which is undecided.

    Raises:
        EvidenceError: If a margin is of a metric that the later run does not have.
        StoreError: If a run lacks rows of a cell.
    """
    _check(after, margins)
    called = names or (before.folder.resolve().name, after.folder.resolve().name)
    for run, name in zip((before, after), called, strict=True):
        _check_rows(run, name)
    suites = {one.suite.name: one for one in reversed([*before.records.values()])}
    earlier, found = EarlierRun(BASE, before), []
    for record in after.records.values():
        rows = after.by_cell(record.suite.name)
        pairs = [
            CellPair(record, cell, rows.get((cell.id, cell.attempt), []), earlier, margins)
            for cell in record.cells
        ]
        found.append(_comparison(suites.get(record.suite.name), pairs, record, called))
    later = {one.suite.name for one in after.records.values()}
    gone = [one for name, one in suites.items() if name not in later]
    return found + [_gone(record, called) for record in gone]


def _check(after: StoredRun, margins: Margins) -> None:
    """Refuse margins of metrics that nothing has."""
    cells = [cell for record in after.records.values() for cell in record.cells]
    known = sorted({limit.metric for cell in cells for limit in cell.asked})
    strange = [name for name in margins.within if name and name not in known]
    if strange:
        raise EvidenceError(
            f"within {strange[0]}: expected a metric that the later run has limits on "
            f"({', '.join(known) or 'it has none'}), got another one."
        )


def _check_rows(run: StoredRun, name: str) -> None:
    """Refuse a run of which a part of the rows is lost: what is left may be the better part."""
    for record in run.records.values():
        rows = run.by_cell(record.suite.name)
        for cell in record.cells:
            n_found = len(rows.get((cell.id, cell.attempt), []))
            if cell.refusal is None and n_found != cell.n_pairs:
                raise StoreError(
                    f"{name}: cell {cell.id}: expected {cell.n_pairs} rows, got {n_found}. Keep "
                    "all files rows*.jsonl of a run together."
                )


def _comparison(
    before: Record | None, pairs: Sequence[CellPair], record: Record, names: tuple[str, str]
) -> Comparison:
    found: list[Found] = []
    judged: list[CellResult] = []
    partners: list[str | None] = []
    for pair in pairs:
        some, partner = pair.found()
        found += some
        partners.append(partner)
        limits = [one.limit for one in some if one.limit is not None and one.change.decides]
        judged.append(pair.cell.model_copy(update={"limits": limits}))
    regressions = _in_words(regressions_of(judged))
    changes = _settled(found, regressions)
    changes.sort(key=lambda one: (not one.decides, _WORST_FIRST.index(one.outcome)))
    only_before = [c.id for c in before.cells if c.id not in partners] if before else []
    only_after = [
        pair.cell.id for pair, partner in zip(pairs, partners, strict=True) if partner is None
    ]
    outcome, reason = _finding(changes, only_before)
    return Comparison(
        suite=record.suite.name,
        before=None if before is None else _side(before, names[0]),
        after=_side(record, names[1]),
        changes=changes,
        only_before=only_before,
        only_after=only_after,
        regressions=regressions,
        outcome=outcome,
        reason=reason,
    )


def _gone(record: Record, names: tuple[str, str]) -> Comparison:
    return Comparison(
        suite=record.suite.name,
        before=_side(record, names[0]),
        after=None,
        changes=[],
        only_before=[cell.id for cell in record.cells],
        only_after=[],
        regressions=None,
        outcome="undecided",
        reason=f"the later run has no record of the suite {record.suite.name}",
    )


def _settled(found: Sequence[Found], regressions: Regressions | None) -> list[Change]:
    """Return the changes, of which those are worse that still are among so many."""
    tested = iter(regressions.tested if regressions is not None else ())
    changes = []
    for one in found:
        change, limit = one.change, one.limit
        is_tested = (
            change.decides
            and limit is not None
            and limit.not_worse_than is not None
            and limit.p_opposite is not None
        )
        if is_tested and regressions is not None:
            entry = next(tested)
            updates: dict[str, object] = {"adjusted": entry.adjusted}
            if change.outcome == "worse" and not one.is_of_suite and not entry.is_worse:
                n = len(regressions.tested)
                updates["outcome"] = "undecided"
                updates["reason"] = (
                    f"{change.reason}; of {n} comparisons, one is as bad as this by chance too "
                    f"often (p {entry.adjusted:.2g} after Holm, at most {regressions.level:.3g})"
                )
            change = change.model_copy(update=updates)
        changes.append(change)
    return changes


def _in_words(found: Regressions | None) -> Regressions | None:
    """Return the family of comparisons with a sentence about a comparison of two runs."""
    if found is None:
        return None
    n_worse = sum(one.is_worse for one in found.tested)
    said = (
        f"{n_worse} of {len(found.tested)} comparisons over a population got worse after Holm's "
        f"correction (any false alarm: {found.level:.3g}); limits of the suite that compare with "
        "an earlier run decide by their own intervals"
    )
    return found.model_copy(update={"text": said})


def _finding(changes: Sequence[Change], gone: Sequence[str]) -> tuple[Finding, str]:
    """Return what all changes that decide say together; without any, nothing can be said."""
    deciding = [one for one in changes if one.decides]
    counts = Counter(one.outcome for one in deciding)
    listed = [f"{counts[one]} {_SAID[one]}" for one in _WORST_FIRST if counts[one]]
    listed += [f"{len(gone)} gone"] if gone else []
    n = f"{len(deciding)} change{'s' * (len(deciding) != 1)}"
    tally = f"of {n}, {', '.join(listed) or 'none was made'}"
    if counts["worse"]:
        cells = [*dict.fromkeys(one.cell for one in deciding if one.outcome == "worse")]
        more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
        return "worse", f"worse in {', '.join(cells[:3])}{more}; {tally}"
    if counts["undecided"] or counts["not_compared"] or gone or not deciding:
        return "undecided", f"nothing is shown to be worse, and not all is known; {tally}"
    return "not_worse", f"nothing is worse than its margin; {tally}"


def _side(record: Record, name: str) -> Side:
    environment = record.environment
    return Side(
        name=name,
        run=record.run.id,
        suite=record.suite.digest,
        fxeval=environment.fxeval,
        commit=environment.commit,
        dirty=environment.dirty,
        started=record.run.started,
        hardware_class=hardware_class(environment),
    )
