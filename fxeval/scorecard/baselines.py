"""Baselines in words: what they name, what a run has in reserve against them, what moved."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from fxeval.records.acknowledged import Known
from fxeval.records.baseline_moves import Move
from fxeval.records.baselines import Baseline, Pointer, days_between
from fxeval.records.schema import Record
from fxeval.scorecard.wording import condition, counted, interval, visible
from fxeval.statistics.headroom import Headroom

SHOWN = 30
"""Most lines of one kind."""


def compared_lines(record: Mapping[str, Any], most: int) -> list[str]:
    """Return what a record says of the baselines that it was compared with.

    Args:
        record: A record as plain data.
        most: Most comparisons whose headroom is given, those with the least.

    Returns:
        A sentence on the run and the age of each baseline, then one on each headroom; nothing where
        no named baseline was compared with.
    """
    found = record.get("regressions") or {"baselines": [], "tested": []}
    if not found["baselines"]:
        return []
    ages = [
        f"baseline {one['name']}: run {one['run']}, set on {one['set_on']}, "
        f"{counted(one['days'], 'day')} before this run"
        + (f": {one['reason']}" if one["reason"] else "")
        for one in found["baselines"]
    ]
    rooms = [one for one in found["tested"] if (one["headroom"] or {}).get("low") is not None]
    rooms.sort(key=lambda one: one["headroom"]["low"])
    return ages + [
        f"headroom {interval(one['headroom'], 0.0)}, {one['cell']}: {one['text']}"
        f"{condition(one['under'])}"
        for one in rooms[:most]
    ]


def baseline_lines(baseline: Baseline, today: date) -> list[str]:
    """Return a baseline with the run of each hardware class, its age and its suites."""
    lines = [f"baseline {baseline.name}"]
    for hardware_class, pointer in baseline.pointers.items():
        days = days_between(pointer.set_on, today.isoformat())
        commit = f", commit {pointer.commit[:12]}" if pointer.commit else ""
        lines += [
            f"  {hardware_class}",
            f"    run {pointer.run} of fxeval {pointer.fxeval}{commit}, in {pointer.folder}",
            f"    set on {pointer.set_on}, {counted(days, 'day')} ago"
            + (f": {pointer.reason}" if pointer.reason else ""),
            f"    suites: {_suites(pointer)}",
        ]
    return [visible(line) for line in lines]


def _suites(pointer: Pointer) -> str:
    return ", ".join(f"{one.suite} ({one.digest[:12]})" for one in pointer.suites)


def headroom_lines(found: Sequence[Headroom], name: str, run: str) -> list[str]:
    """Return what a run has in reserve against a baseline, the least first, and what to do.

    Args:
        found: The limits that compare with the baseline.
        name: Of the baseline.
        run: The run, as the user named it.
    """
    if not found:
        return ["headroom: no limit of the run compares with 'baseline'"]
    ordered = sorted(found, key=_reserve)
    lines = [f"headroom of {run} above what '{name}' still accepts, least first"]
    for one in ordered[:SHOWN]:
        figures = one.room if one.room is not None else one.improvement
        kind = "headroom" if one.room is not None else "difference"
        shown = (
            f"{kind} {interval(figures.model_dump())}".replace("−", "-")
            if figures is not None
            else one.verdict.reason
        )
        better = ", shown better" if one.is_better() else ""
        said = f"{one.cell}: {one.text}{condition(one.under)}: {shown}{better}"
        lines.append(f"  {one.verdict.outcome.upper():13}{said}")
    if len(ordered) > SHOWN:
        lines.append(f"  and {len(ordered) - SHOWN:,} more")
    lines.append(_advice(found, name, run))
    return [visible(line) for line in lines]


def _advice(found: Sequence[Headroom], name: str, run: str) -> str:
    better = sum(one.is_better() for one in found)
    worse = sum(one.verdict.outcome == "fail" for one in found)
    if worse:
        return f"{worse} of {len(found)} comparisons failed: the baseline stays where it is"
    if better:
        return (
            f"{better} of {len(found)} comparisons are shown better and none failed: to keep what "
            f"was gained, fxeval baseline set {name} {run}"
        )
    return "nothing is shown better: there is no reason to move the baseline"


def _reserve(one: Headroom) -> float:
    low = one.room.low if one.room is not None else None
    return float("-inf") if low is None else low


def acknowledged_lines(found: Sequence[tuple[Known, str]]) -> list[str]:
    """Return the acknowledged regressions with their states."""
    return [
        visible(
            f"acknowledged, {state}: {one.suite}: {one.cell}: {one.entry.metric}"
            f"{condition(one.entry.under)}, until {one.entry.until}"
            f"{f' by {one.entry.by}' if one.entry.by else ''}: {one.entry.reason} "
            f"({one.entry.where})"
        )
        for one, state in found
    ]


def move_lines(move: Move, before: Mapping[str, Record], after: Mapping[str, Record]) -> list[str]:
    """Return what moved: the runs, the suites, and the values of the explainers.

    Args:
        move: The move.
        before: The records of the run before, by suite; {} if they are not there any more.
        after: The records of the run now, by suite.
    """
    now, then = move.after, move.before
    lines = [f"baseline {move.path.stem} for {move.hardware_class}"]
    if then is None:
        lines.append("  from nothing")
    else:
        lines.append(f"  from run {then.run}, set on {then.set_on}")
    lines.append(f"  to   run {now.run}, in {now.folder}")
    lines += [f"  suite {one} is no longer part of it" for one in move.lost_suites()]
    if then is not None and then.run != now.run and not before:
        lines.append("  the files of the run before are not there: no values are compared")
    changed = [line for suite, record in after.items() for line in _changes(suite, before, record)]
    lines += changed[:SHOWN]
    if len(changed) > SHOWN:
        lines.append(f"  and {len(changed) - SHOWN:,} more values changed")
    return [visible(line) for line in lines]


def _changes(suite: str, before: Mapping[str, Record], after: Record) -> list[str]:
    """Return a line for each value of an explainer that changed; the order of the cells is kept."""
    if suite not in before:
        return []
    known = {
        (cell.id, one.metric, tuple(sorted(one.under.items()))): one.value
        for cell in before[suite].cells
        for one in cell.estimates
        if one.map == "explainer"
    }
    lines = []
    for cell in after.cells:
        for one in cell.estimates:
            was = known.get((cell.id, one.metric, tuple(sorted(one.under.items()))))
            if one.map == "explainer" and was is not None and was != one.value:
                said = f"{cell.id}: {one.metric}{condition(one.under)}"
                lines.append(
                    f"  {said}: {was:.6g} -> {'none' if one.value is None else f'{one.value:.6g}'}"
                )
    return lines
