"""The part of a record about a choice among configurations, made on one half of the people.

The choice follows from the plan, the facts and the rows (``fxeval.statistics.selection``).
"""

from typing import Annotated

from pydantic import Field

from fxeval.records.form import Count, Form, Number, Under
from fxeval.records.judged import Figures


class Selects(Form):
    """What a cell chooses among, and by what.

    Attributes:
        axes: The axes whose values make a configuration, such as layer and objective.
        by: The metrics that choose: the first decides, the next breaks its ties.
    """

    axes: Annotated[list[str], Field(min_length=1)]
    by: Annotated[list[str], Field(min_length=1)]


class Configuration(Form):
    """A configuration that was tried, as it was found when it was measured.

    Attributes:
        under: Its settings, axis by axis.
        same_as: Settings of an earlier configuration that gives every row the same map, so that its
            values are those of that one; null if its maps are its own.
        refused: Why it could not be measured; empty if it was.
    """

    under: Under
    same_as: Under | None = None
    refused: str = ""


class Candidate(Form):
    """A configuration with maps of its own, and how it fared on each half.

    Attributes:
        under: Its settings.
        same: Settings of the other configurations that give the same maps.
        selection: Its value on the half that chooses; null if no row has one.
        report: Its value on the other half, which had no part in the choice; likewise.
        unfit: Why it is chosen only if all are unfit, such as constant maps; empty if it is fit.
    """

    under: Under
    same: list[Under] = []
    selection: Figures | None = None
    report: Figures | None = None
    unfit: str = ""


class Selection(Form):
    """The choice among a cell's configurations.

    A value is that of the first deciding metric, the mean over the cell's other conditions (fills
    and fractions).

    Attributes:
        metric: The metric whose value on the selection half decides.
        ties: The metrics that break ties, in this order; then the order of the suite decides.
        n_tried: Number of configurations that were tried, the refused ones among them.
        n_distinct: Number of those with maps of their own.
        n_rows: Number of rows with a value of the explainer, by half.
        n_identities: Number of people of these rows, by half.
        selected: Settings of the chosen one; null if none has a value.
        reason: The choice in words, or why there is none.
        selection: The chosen one's value on the half that chose it: too good, as it won there.
        report: Its value on the other half, which decides.
        optimism: How much better it is on the half that chose it; positive = looks better there.
        shared_gap: The same, averaged over all candidates: what the halves differ by anyway.
        report_rank: Its place among the candidates on the report half, 1 = best.
        as_given_selection: Value of the explainer as the suite gives it, on the selection half.
        as_given_report: The same on the report half.
        candidates: All with maps of their own, best on the selection half first.
        refused: Those that could not be measured.
    """

    metric: str
    ties: list[str] = []
    n_tried: Count
    n_distinct: Count
    n_rows: dict[str, Count] = {}
    n_identities: dict[str, Count] = {}
    selected: Under | None = None
    reason: str
    selection: Figures | None = None
    report: Figures | None = None
    optimism: Number = None
    shared_gap: Number = None
    report_rank: Annotated[int, Field(ge=1)] | None = None
    as_given_selection: Figures | None = None
    as_given_report: Figures | None = None
    candidates: list[Candidate] = []
    refused: list[Configuration] = []
