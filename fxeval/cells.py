"""A cell, the unit of evaluation: what a suite asks, and the words of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True)
class Use:
    """A subject as a suite names it.

    Attributes:
        id: Of the fixture.
        params: Set in the suite.
        where: ``file:line:column``.
        alias: Another name in this suite, so that one fixture can be used with several settings.
    """

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    alias: str | None = None

    @property
    def name(self) -> str:
        """The name in reports: the alias if there is one."""
        return self.alias or self.id


@dataclass(frozen=True)
class Metric:
    """A quantity under a condition, and what it means.

    Attributes:
        name: Quantity and condition, for example ``deletion_auc``.
        title: The name in words.
        unit: Of the value.
        better: Which direction is better for the explainer.
        statistic: What of the rows the interval is about.
        source: Paper and section.
        meaning: One sentence for the reader of a scorecard.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    statistic: Literal["mean", "median"]
    source: str
    meaning: str


@dataclass(frozen=True)
class Limit:
    """What an interval must clear.

    Attributes:
        metric: Name of the metric.
        form: ``at_most``, ``at_least`` or ``better_than``.
        bound: The number of ``at_most`` and ``at_least``; None otherwise.
        control: Name of the control of ``better_than``; None otherwise.
        by_absolute: Margin in the metric's unit, >= 0.
        by_relative: Margin as a fraction of the control's value, >= 0.
        fill: The fill it is about; None = every fill of the check.
        severity: ``critical`` decides the cell, ``warning`` and ``info`` are shown.
        where: ``file:line:column`` in the suite.
    """

    metric: str
    form: Literal["at_most", "at_least", "better_than"]
    bound: float | None = None
    control: str | None = None
    by_absolute: float = 0.0
    by_relative: float = 0.0
    fill: str | None = None
    severity: Literal["critical", "warning", "info"] = "critical"
    where: str = ""


@dataclass(frozen=True)
class Verification:
    """What a suite asks of a model before it is explained.

    Attributes:
        flip_fusion: Fuse an image's embedding with that of its mirror image.
        operating_threshold: ``vendor``, the model's own, or the name of one that is measured
            (``fxeval.verification.THRESHOLDS``).
        limits: Figures that must hold; of the forms ``at_least`` and ``at_most``.
        models: Names of the models it is about; None = all.
    """

    flip_fusion: bool = False
    operating_threshold: str = "vendor"
    limits: tuple[Limit, ...] = ()
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Cell:
    """One check x model x explainer x pair list: one pytest test.

    Attributes:
        id: ``check[model-explainer-pairs]``, unique in the suite.
        suite: Name of the suite.
        check: Id of the check in the suite.
        kind: What is measured, for example ``faithfulness.deletion_insertion``.
        why: The suite's sentence on why it matters.
        model: The face model.
        explainer: The explainer.
        pairs: The pair list.
        n: Number of mated pairs to measure; None = all.
        parameters: The kind's validated parameters object (``fxeval.metrics.<kind>.Parameters``).
        limits: What must hold.
        seed: The suite's seed.
        confidence: Two-sided confidence of the intervals.
        on_inconclusive: What an undecided interval does to the test: ``fail`` or ``warn``.
        on_unsupported: What an explainer that cannot explain this kind of model does to the test:
            ``fail`` or ``skip``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        where: ``file:line:column`` of the check.
        verification: What is asked of the model before it is explained.
    """

    id: str
    suite: str
    check: str
    kind: str
    why: str
    model: Use
    explainer: Use
    pairs: Use
    n: int | None
    parameters: Any
    limits: tuple[Limit, ...]
    seed: int
    confidence: float
    on_inconclusive: Literal["fail", "warn"]
    on_unsupported: Literal["fail", "skip"]
    device: str
    where: str
    verification: Verification = Verification()


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided interval.

    ``low`` and ``high`` are NaN where no interval can be given (fewer than two identities).
    """

    value: float
    low: float
    high: float
    confidence: float
    n_pairs: int
    n_identities: int
    method: str


class Outcome(StrEnum):
    """The four verdicts, and ``unsupported``: not asked of this model, by the suite's own word."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Verdict:
    """An outcome and the sentence that justifies it."""

    outcome: Outcome
    reason: str
