"""The format of a comparison of two runs: what changed in each cell, and what that decides."""

from typing import Literal, TypeAlias

from fxeval.records.form import Count, Form, Number, Under
from fxeval.records.judged import Figures, Regressions
from fxeval.results import Better, Outcome, Over

Became: TypeAlias = Literal["same", "better", "not_worse", "worse", "undecided", "not_compared"]
"""What became of a metric. ``same``: every shared row is equal. ``better``: the interval of the
paired improvement lies wholly above 0. ``not_worse``: shown to be worse by no more than the margin.
``worse``: shown to be worse by more. ``undecided``: neither is shown. ``not_compared``: there is
nothing to compare with."""

Finding: TypeAlias = Literal["not_worse", "worse", "undecided"]
"""What a comparison finds over all changes that decide."""


class Side(Form):
    """One of the two runs.

    Attributes:
        name: As a reader calls it, such as the name of its folder or a branch.
        run: Its id.
        suite: Digest of its suite.
        fxeval: Version of fxeval.
        commit: Of the code under test; null if it is not known.
        dirty: Whether that code had changes that were not committed.
        started: When it started, in ISO 8601.
        hardware_class: See :func:`fxeval.records.hardware.hardware_class`.
    """

    name: str
    run: str
    suite: str
    fxeval: str
    commit: str | None
    dirty: bool | None
    started: str
    hardware_class: str


class Change(Form):
    """What became of one metric of one cell under one condition, or of the cell as a whole.

    Attributes:
        cell: Id of the cell in the later run.
        metric: Name of the metric; empty = the cell as a whole, whose maps are missing or which
            could not be compared.
        under: The condition, with the slice if there is one.
        text: The limit that decides, in words; empty of a cell as a whole.
        within: The margin; {} = 0.
        over: Whether the change is about all people like those of the list, or about this list.
        decides: Whether it counts; a metric that is shown for information does not.
        before: The earlier value, over the rows that take part.
        after: The later value, over the same rows.
        improvement: The paired improvement, positive where the later run is better.
        reason: Why the outcome is what it is.
        p_worse: One-sided probability of values as bad as these or worse if the later run were
            worse by the margin.
        adjusted: The same after Holm's correction for all comparisons.
        n_rows: Rows that both runs have.
        rows_before: Rows of the earlier run; rows_after: of the later one.
        verdict_before: Outcome of the cell in the earlier run; null if it is not there.
        verdict_after: In the later run.
    """

    cell: str
    check: str
    kind: str
    model: str
    explainer: str
    pairs: str
    metric: str
    title: str
    unit: str
    better: Better
    under: Under
    text: str
    within: dict[Literal["absolute", "relative"], float]
    over: Over
    decides: bool
    before: Figures | None
    after: Figures | None
    improvement: Figures | None
    outcome: Became
    reason: str
    p_worse: Number = None
    adjusted: Number = None
    n_rows: Count
    rows_before: Count
    rows_after: Count
    verdict_before: Outcome | None
    verdict_after: Outcome | None


class Comparison(Form):
    """Two runs of one suite.

    Attributes:
        suite: Name of the suite.
        before: The earlier run; null if it has no record of the suite.
        after: The later one; likewise.
        changes: Of all cells of the later run, worst first.
        only_before: Cells that the earlier run alone has.
        only_after: Cells that the later run alone has.
        regressions: All comparisons over a population, corrected for their number; null if there
            is none.
        outcome: ``worse`` if any change that decides is; else ``undecided`` if any is undecided or
            not compared, or none was compared; else ``not_worse``.
        reason: The outcome in one sentence.
    """

    comparison: Literal[1] = 1
    suite: str
    before: Side | None
    after: Side | None
    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    regressions: Regressions | None
    outcome: Finding
    reason: str
