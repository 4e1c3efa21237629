"""Which metrics put explainers in the order of known truth: Kendall's tau-b, with intervals.

For each model, the explainers are ranked by their mean value of a metric and by that of a metric of
known truth; tau-b is turned so that positive means agreement, whatever is better. The pooled figure
is the mean of the models' taus.

The interval reaches over the middle 95 % of 2000 resamples of the people (percentiles); truth and
metric have lists of their own, which are resampled independently. **The explainers are fixed**: the
interval says how the figure would change with other people, not with other explainers. That is what
``chance`` is for, the share of random orders of the same explainers that agree as strongly.

Percentiles, because they err towards "cannot be told": a resample adds as much noise to the means
as the list has, so the taus of resamples lie nearer to 0 than that of the list. In a simulation
(12 explainers, 20 or 40 people) unrelated rankings were said to agree in at most 1.3 % of the runs,
and with a correction of that bias in 3 to 15 %; the acceleration of BCa is not defined for a
statistic that moves in steps. The price: where explainers are hard to tell apart, the interval lies
below the agreement of the rankings over all people. It is no promise about the size of tau.

Source:
    Kendall 1945, "The Treatment of Ties in Ranking Problems", Biometrika 33. Efron and Tibshirani
    1993, "An Introduction to the Bootstrap", chapter 13 (percentiles). Hall and Miller 2009, "Using
    the Bootstrap to Quantify the Authority of an Empirical Ranking", Annals of Statistics 37 (what
    resamples of rankings can and cannot show).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fxeval.errors import EvidenceError, FxevalError
from fxeval.records.schema import Record, Row
from fxeval.statistics.explainer_means import RESAMPLES, Means, Quantity, means_of
from fxeval.statistics.fitness import meets
from fxeval.statistics.rankings import chance_of, tau_b

FloatArray = NDArray[np.float64]
Word: TypeAlias = Literal["agrees", "disagrees", "cannot be told"]

FEWEST = 5
"""Fewest explainers whose rankings are compared: four agree fully by chance once in 24 times."""
CHANCE = 0.05
"""Largest share of random orders with which an agreement supports a metric."""
CONFIDENCE = 0.95
TRUTH = "truth."
"""How kinds of check begin whose metrics know the truth."""


@dataclass(frozen=True)
class Agreement:
    """How far a metric ranks explainers as known truth does.

    Attributes:
        truth: The metric of known truth.
        quantity: The metric that is compared with it.
        model: Name; "" = the mean over all models.
        tau: Kendall's tau-b, -1 to 1, positive = agreement; NaN if there is none.
        low: Of its interval.
        high: Of its interval.
        chance: Share of random orders of the explainers that agree as strongly, on the same side.
        explainers: Those that both rank, sorted; of the mean over models those of any model.
        n_models: Models that have a tau.
        n_people: People of the metric's list and of the truth's; the fewest of any model.
        reason: Why there is no tau; "" if there is one.
    """

    truth: Quantity
    quantity: Quantity
    model: str
    tau: float
    low: float
    high: float
    chance: float
    explainers: tuple[str, ...]
    n_models: int
    n_people: tuple[int, int]
    reason: str = ""

    @property
    def word(self) -> Word:
        """The verdict: ``agrees`` if the whole interval is above 0."""
        if self.low > 0.0:
            return "agrees"
        return "disagrees" if self.high < 0.0 else "cannot be told"

    @property
    def is_supported(self) -> bool:
        """Whether it agrees, and random orders of the explainers seldom agree as strongly."""
        return self.word == "agrees" and self.chance <= CHANCE


@dataclass(frozen=True)
class AgreementTable:
    """The agreement of every metric with every condition of one metric of known truth.

    Attributes:
        agreements: The mean over models of each metric, strongest first, then its models.
        remarks: What could not be compared, and why.
    """

    agreements: tuple[Agreement, ...]
    remarks: tuple[str, ...]

    def pooled(self) -> list[Agreement]:
        """Return the means over models."""
        return [one for one in self.agreements if not one.model]

    @property
    def is_told(self) -> bool:
        """Whether any metric could be compared."""
        return any(math.isfinite(one.tau) for one in self.agreements)


def agreements_of(
    runs: Sequence[tuple[str, Record, Sequence[Row]]],
    truth: str,
    metrics: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> AgreementTable:
    """Compare the rankings of explainers by metrics with those by known truth.

    Args:
        runs: Name, record and rows of each; together they hold the values of the same explainers.
        truth: A metric of a kind that begins with ``truth.``.
        metrics: Names of the metrics to compare; () = all others.
        resamples: Resamples of the people.

    Raises:
        EvidenceError: If no run has a metric of known truth.
        FxevalError: If the truth or a metric that is named is not there.
        StoreError: As ``explainer_means.means_of``.
    """
    means, remarks = means_of(runs, resamples)
    quantities = list(dict.fromkeys(quantity for quantity, _ in means))
    truths = [
        one
        for one in quantities
        if one.metric == truth and one.kind.startswith(TRUTH) and _is_judged(one, runs)
    ]
    known = sorted({one.metric for one in quantities if one.kind.startswith(TRUTH)})
    if not known:
        raise EvidenceError(
            f"agreement: expected a run with checks of a kind {TRUTH}*, got none. Name a run of "
            "such a suite as well."
        )
    every = {one.metric for one in quantities}
    absent = [name for name in metrics if name not in every]
    if not truths:
        raise FxevalError(
            f"agreement: expected a metric of known truth, {' or '.join(known)}, got {truth!r}."
        )
    if absent:
        raise FxevalError(
            f"agreement: expected metrics of these runs, got {', '.join(map(repr, absent))}. They "
            f"have {', '.join(sorted(every))}."
        )
    models = sorted({model for _, model in means})
    found: list[Agreement] = []
    for one in truths:
        others = [q for q in quantities if q != one and (not metrics or q.metric in metrics)]
        groups = [_compared(means, one, other, models) for other in others]
        groups.sort(key=lambda group: (math.isnan(group[0].tau), -group[0].tau))
        found += [line for group in groups for line in group]
    return AgreementTable(tuple(found), (*remarks, *_unshared(means, truths, models)))


def _is_judged(truth: Quantity, runs: Sequence[tuple[str, Record, Sequence[Row]]]) -> bool:
    """Say whether some limit of a check of known truth is about this condition.

    A kind may measure others beside it, which have no known answer.
    """
    asked = [
        limit.under
        for _, record, _ in runs
        for cell in record.cells
        if cell.kind == truth.kind
        for limit in cell.asked
    ]
    return not asked or any(meets(under, dict(truth.under)) for under in asked)


@dataclass(frozen=True, eq=False)
class _Both:
    """Metric and truth on one model.

    Attributes:
        names: Explainers that both rank, sorted.
        n_people: Of the metric's list and of the truth's.
        values: (1 + R, E) of the metric, larger = better; of the whole list first.
        truth: (1 + R, E) of the truth.
    """

    names: tuple[str, ...]
    n_people: tuple[int, int]
    values: FloatArray
    truth: FloatArray

    def taus(self) -> FloatArray:
        """Return (1 + R,) taus; of a resample without an order 0, of a list without one NaN."""
        found = tau_b(self.values, self.truth)
        found[1:] = np.nan_to_num(found[1:])
        return found

    def of_list(self) -> tuple[list[str], FloatArray, FloatArray]:
        """Return the explainers and both rankings of the whole list."""
        return [*self.names], self.values[0], self.truth[0]

    def why_not(self) -> str:
        """Return why there is no tau; "" if there is one."""
        if len(self.names) < FEWEST:
            return f"{len(self.names)} explainers have both values, fewer than {FEWEST}"
        if not math.isfinite(tau_b(self.values[:1], self.truth[:1])[0]):
            return "all explainers have one value by the metric, or by the truth"
        return ""


def _both(metric: Means, truth: Means) -> _Both:
    names = tuple(sorted({*metric.explainers} & {*truth.explainers}))
    n_people = (metric.n_people, truth.n_people)
    return _Both(names, n_people, metric.directed(names), truth.directed(names))


def _compared(
    means: Mapping[tuple[Quantity, str], Means], truth: Quantity, quantity: Quantity,
    models: Sequence[str],
) -> list[Agreement]:  # fmt: skip
    """Return the agreement over all models, then on each that has both."""
    both = {
        model: _both(means[quantity, model], means[truth, model])
        for model in models
        if (quantity, model) in means and (truth, model) in means
    }
    reasons = {model: one.why_not() for model, one in both.items()}
    told = {model: one for model, one in both.items() if not reasons[model]}
    lines = []
    for model, one in [*both.items(), ("", None)]:
        some = {model: one} if one is not None else told
        reason = reasons[model] if one is not None else "" if told else _joined(reasons)
        low, high, tau, chance = _figures(list(told.values()) if one is None else [one], reason)
        people = [each.n_people for each in some.values()]
        names = {name for each in some.values() for name in each.names}
        lines.append(
            Agreement(
                truth=truth,
                quantity=quantity,
                model=model,
                tau=tau,
                low=low,
                high=high,
                chance=chance,
                explainers=tuple(sorted(names)),
                n_models=0 if reason else len(some),
                n_people=(
                    min((one for one, _ in people), default=0),
                    min((two for _, two in people), default=0),
                ),
                reason=reason,
            )
        )
    return [lines[-1], *lines[:-1]]


def _joined(reasons: Mapping[str, str]) -> str:
    """Return why no model has a tau."""
    return "; ".join(dict.fromkeys(reasons.values())) or "no model has both values"


def _figures(some: Sequence[_Both], reason: str) -> tuple[float, float, float, float]:
    """Return low, high, the mean tau and chance over some models; NaN if there is a reason."""
    if reason:
        return math.nan, math.nan, math.nan, math.nan
    drawn = np.mean([one.taus() for one in some], axis=0)
    tau = float(drawn[0])
    ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    low, high = np.quantile(drawn[1:], ends, method="inverted_cdf")
    chance = chance_of([one.of_list() for one in some])
    return min(float(low), tau), max(float(high), tau), tau, chance


def _unshared(
    means: Mapping[tuple[Quantity, str], Means], truths: Sequence[Quantity], models: Sequence[str]
) -> list[str]:
    """Say which explainers only the truth, or only other metrics, have on a model."""
    found: dict[str, None] = {}
    for model in models:
        known = {name for one in truths if (one, model) in means
                 for name in means[one, model].explainers}  # fmt: skip
        others = {name for (one, of), each in means.items() if of == model and one not in truths
                  for name in each.explainers}  # fmt: skip
        if not known:
            found[f"{model} has no value of the truth: it takes no part"] = None
            continue
        for name in sorted(known ^ others):
            lacks = "any other metric" if name in known else f"{truths[0].metric}, the truth"
            found[f"{name} on {model} has no value of {lacks}: it is not ranked"] = None
    return [*found]
