"""The parts of a record about limits and estimates: what was asked, and what was found."""

from typing import Literal, Self

from pydantic import model_validator

from fxeval.records.form import Count, Form, Number, Under, VerdictEntry
from fxeval.results import Better, Judge, Over, RowState, Severity, Statistic, ValueKind


class MetricEntry(Form):
    """A metric as declared when it was measured; null where an older version did not state it.

    Attributes:
        denominator: Of a ratio, the metric whose mean divides; else empty.
        least_denominator: Of a ratio, the mean of the denominator below which there is nothing to
            compare with.
        constant_allowed: Largest share of the rows that may have a constant map under a condition
            that the value needs; null = a cell fails with more than 1 % constant maps.
        void_if: Why rows can be without a value though their maps are sound; too many of them make
            the metric unfit.
        void_share: Largest share of such rows, 0 to 1.
        information_only: Why its values decide nothing; empty where a limit on it may decide.
    """

    name: str
    title: str
    unit: str
    better: Better
    range: tuple[Number, Number] | None
    statistic: Statistic
    source: str
    meaning: str
    is_decision: bool = False
    kind: ValueKind = "heavy"
    denominator: str = ""
    least_denominator: float = 0.0
    constant_allowed: Number = None
    void_if: str = ""
    void_share: float = 0.2
    information_only: str = ""


class Acknowledgement(Form):
    """A regression that people know of and accept until a day.

    Attributes:
        metric: Of the limits that it is about.
        under: The conditions of those limits; {} = all.
        reason: Why it is accepted.
        until: Last day, as YYYY-MM-DD.
        by: Who accepts it; may be empty.
        where: ``file:line:column`` of the entry.
    """

    metric: str
    under: Under = {}
    reason: str
    until: str
    by: str = ""
    where: str


class LimitEntry(Form):
    """A limit with the keys of the suite.

    Attributes:
        under: The conditions to which it applies; {} = all.
        over: Whether it is about all people like those of the list, or about this list.
        judge: How it is judged over the conditions that it does not pin.
        slice: The column in each of whose slices it is judged; empty = over all rows.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    better_than: str | None = None
    by: dict[Literal["absolute", "relative"], float] = {}
    under: Under = {}
    severity: Severity = "critical"
    where: str = ""
    not_worse_than: str | None = None
    equivalent_to: str | None = None
    within: dict[Literal["absolute", "relative"], float] = {}
    over: Over = "population"
    judge: Judge = "each"
    slice: str = ""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        forms = ("at_most", "at_least", "better_than", "not_worse_than", "equivalent_to")
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected one of {', '.join(forms)}, got {found}")
        if self.by and self.better_than is None:
            raise ValueError(f"expected 'by' only with better_than, got it with {given[0]}")
        if self.within and given[0] not in ("not_worse_than", "equivalent_to"):
            raise ValueError(
                f"expected 'within' only with not_worse_than and equivalent_to, got it with "
                f"{given[0]}"
            )
        return self


class Figures(Form):
    """An estimate with its interval."""

    value: Number
    low: Number
    high: Number
    confidence: float
    n_pairs: Count
    n_identities: Count
    method: str
    effective_identities: Number = None
    largest_share: Number = None


class SeedSpread(Form):
    """The values of one estimate with differently seeded maps.

    Attributes:
        values: One for each seed.
        sd: Their standard deviation (ddof 1); null with one seed.
        worst: Index of the seed that decides.
    """

    values: list[Number]
    sd: Number
    worst: Count


class LimitResult(LimitEntry):
    """A limit judged under one condition, which ``under`` gives with all its axes.

    Of a limit with a ``slice``, ``under`` gives the column and its word as well.

    Attributes:
        text: The limit in words.
        line: The number that the interval must clear; null where it must lie between two.
        estimate: Estimate of the values that decide; null if no row has one.
        region: Where the whole interval must lie, [from, to]; null = no end.
        p_value: One-sided probability of values as good as these or better if the truth lay on the
            line; null where the method has none. At most 0.025 in a pass, at 95 %.
        p_opposite: Likewise, of values as bad as these or worse; at most 0.025 in a fail.
        detectable: Smallest distance of the truth from the line that this list shows with a
            probability of 0.8.
        settles: What would settle an inconclusive verdict, such as "about 340 more identities".
        hangs_on_one: Whether the verdict is another one without some single identity.
        seeds: The values with differently seeded maps; null if there is one.
        acknowledged: Why a fail is accepted: it then counts as a warning; null if it is not.
    """

    text: str
    line: Number
    verdict: VerdictEntry
    estimate: Figures | None
    region: tuple[Number, Number] = (None, None)
    p_value: Number = None
    p_opposite: Number = None
    detectable: Number = None
    settles: str = ""
    hangs_on_one: bool | None = None
    seeds: SeedSpread | None = None
    acknowledged: Acknowledgement | None = None


class UsedBaseline(Form):
    """The named baseline that a cell was compared with.

    Attributes:
        name: Its name.
        run: The run that it names.
        set_on: Day on which it was moved to that run.
        days: Whole days from then to this run.
        reason: Why it was moved; may be empty.
    """

    name: str
    run: str
    set_on: str
    days: int
    hardware_class: str
    reason: str = ""


class SliceEntry(Form):
    """A column by whose words the results of a cell are told apart.

    Attributes:
        edges: The numbers that part those of the column; [] = every value is a word.
    """

    column: str
    edges: list[float] = []


class EstimateEntry(Figures):
    """An estimate of one metric of one map under one condition, or in one slice under it.

    Attributes:
        seed_sd: Standard deviation over seeds; null if there is one. The estimate is of the rows'
            means over the seeds.
    """

    metric: str
    map: str
    under: Under
    states: dict[RowState, Count]
    seed_sd: Number = None


class Difference(Figures):
    """The explainer's paired improvement over a control; positive = the explainer is better.

    Attributes:
        control: Name of the control, or of what else is compared with, such as ``explainer:rise``.
    """

    metric: str
    control: str
    under: Under
    seed_sd: Number = None


class Band(Form):
    """A mean curve with its interval at every point, shortened for drawing."""

    kind: str
    map: str
    under: Under
    fraction: list[Number]
    similarity: list[Number]
    low: list[Number]
    high: list[Number]


class Regression(Form):
    """One comparison with an earlier run.

    Attributes:
        cell: Id of the cell.
        text: The limit in words.
        p_value: One-sided probability of values as bad as these or worse if the explainer were
            worse by the margin.
        adjusted: The same, corrected for the number of comparisons.
        is_worse: Whether it got worse by more than the margin, after the correction.
        headroom: What may still get lost: the paired improvement plus the margin, in the metric's
            unit; null in older records.
    """

    cell: str
    metric: str
    under: Under
    text: str
    p_value: float
    adjusted: float
    is_worse: bool
    headroom: Figures | None = None


class Regressions(Form):
    """Whether anything got worse since an earlier run, over all comparisons of a run together.

    Attributes:
        method: How the p-values are corrected.
        level: Probability of any false alarm that the correction allows.
        text: The finding in words, and what is not corrected.
        tested: All comparisons over a population; their number is the size of the family.
        baselines: The named baselines that cells were compared with, each once.
    """

    method: str
    level: float
    text: str
    tested: list[Regression]
    baselines: list[UsedBaseline] = []
