"""Whether a metric puts maps of known worth in their order: it must, before it may judge.

Four maps are known: an oracle, the oracle blurred, a random map and the oracle turned over. A
metric that does not tell each of them from the next worse one, on the same rows, cannot tell an
explainer from another either. A step between two maps must show what a limit ``better_than`` asks.

Source:
    Black pixels rank an oracle before its inverse where white ones turn the order over and blur
    sees no difference (``docs/method.md``); Hedström et al. 2023 (MetaQuantus) on judging metrics.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from fxeval.records.schema import CellPlan, Row
from fxeval.records.self_checks import KnownMap, SelfCheck, Step
from fxeval.results import FIGURES, Estimate, Metric, Outcome, RowState
from fxeval.seeding import generator_of
from fxeval.statistics.estimate import Law, Sample, paired
from fxeval.statistics.limit import in_words
from fxeval.statistics.limits import BetterThan
from fxeval.statistics.settling import detectable
from fxeval.statistics.table import FloatArray, Key, Table, law_of
from fxeval.statistics.verdict import MIN_IDENTITIES, judge

KNOWN_MAPS = ("oracle", "blurred_oracle", "random", "inverse")
"""Maps of known worth, from the best to the worst."""

SPLITS = 200
"""Halvings of the people over which the reliability is averaged."""

MOST_UNSOLVED = 0.1
"""Share of the twins that a model may decide wrongly: else their parts are not its evidence."""

_OF_HALVES: Mapping[str, Callable[..., FloatArray]] = {"mean": np.mean, "median": np.median}

NETWORKS_OWN = frozenset({"evaluator"})
"""Axes of conditions that name a network: what is found on the planted one holds for any."""


def is_enough(unsolved: int, n: int) -> bool:
    """Say whether a model solves so many of n twins that maps can be checked on them.

    >>> is_enough(4, 40), is_enough(5, 40)
    (True, False)
    """
    return unsolved <= MOST_UNSOLVED * n


@dataclass(frozen=True)
class Ground:
    """What a metric was checked on.

    Attributes:
        question: What the metric asks of an image.
        on: The network and the faces, in words.
        names: The map of a row's measurements, such as ``control.inverse``, by the known map.
    """

    question: Literal["likeness", "margin"]
    on: str
    names: Mapping[str, str]


def self_checks(plan: CellPlan, rows: Sequence[Row], ground: Ground) -> list[SelfCheck]:
    """Say of each metric under each condition whether it puts the known maps in their order.

    Args:
        plan: Kind, metrics and confidence; its limits play no part.
        rows: With the values of all known maps, in any order.
        ground: What was measured.

    Returns:
        One entry a metric and condition, in the order of the metrics. Metrics that decide nothing
        have none.

    Raises:
        ValueError: If a known map has no name.
    """
    if missing := [one for one in KNOWN_MAPS if one not in ground.names]:
        raise ValueError(f"self-check: expected the names of all known maps, got no {missing[0]}.")
    table = Table(plan, sorted(rows, key=lambda row: (row.row, row.identities)))
    oracle = ground.names[KNOWN_MAPS[0]]
    return [
        _Checked(table, metric, under, ground).entry(plan.kind)
        for metric in table.metrics.values()
        if not metric.information_only
        for map_, under, one in table.series
        if (map_, one.name) == (oracle, metric.name)
    ]


def not_checked(
    kind: str, metric: str, under: Mapping[str, str | float], ground: Ground, reason: str
) -> SelfCheck:
    """Return the entry of a metric that nothing was measured of."""
    return SelfCheck(
        kind=kind,
        metric=metric,
        under=dict(under),
        question=ground.question,
        on=ground.on,
        fitness="not_checked",
        reason=reason,
    )


@dataclass(frozen=True, eq=False)
class _Checked:
    """One metric under one condition."""

    table: Table
    metric: Metric
    under: Key
    ground: Ground

    def entry(self, kind: str) -> SelfCheck:
        """Return what the record says."""
        under = {axis: value for axis, value in self.under if axis not in NETWORKS_OWN}
        reason = self._why_not_checked()
        if reason:
            return not_checked(kind, self.metric.name, under, self.ground, reason)
        steps = [*self._steps()]
        wrong = [step for step, _ in steps if not step.holds]
        together = self._together()
        return SelfCheck(
            kind=kind,
            metric=self.metric.name,
            under=under,
            question=self.ground.question,
            on=self.ground.on,
            maps=self._maps(),
            steps=[step for step, _ in steps],
            fitness="unfit" if wrong else "fit",
            reason=self._why_unfit(wrong),
            reliability=self._reliability(),
            detectable=_largest([far for _, far in steps]),
            n_rows=int(np.isfinite(together).sum()),
            n_identities=self._n_people(together),
        )

    def _values(self, known: str) -> FloatArray:
        return self.table.values(self.metric.name, self.ground.names[known], self.under)

    def _together(self) -> FloatArray:
        """Return (N,) values that are finite on the rows with a value of every known map."""
        total: FloatArray = np.sum([self._values(known) for known in KNOWN_MAPS], axis=0)
        return total

    def _n_people(self, values: FloatArray) -> int:
        return len(np.unique(self.table.identities[np.isfinite(values)]))

    def _why_not_checked(self) -> str:
        """Return why these rows cannot say whether the metric is fit; "" if they can."""
        if self.metric.statistic == "ratio":
            return "a ratio of two means has no value of a row that could be compared"
        together = self._together()
        if self.ground.question == "margin":
            left_out, n = self._left_out(self.ground.names[KNOWN_MAPS[0]]), len(together)
            if not is_enough(left_out, n):
                return (
                    f"the model decides {(n - left_out) / n:.0%} of the twins rightly; expected at "
                    f"least {1 - MOST_UNSOLVED:.0%}"
                )
        objection = self.table.objection(self.metric, self.under)
        if objection is not None:
            return objection
        if not np.isfinite(together).any():
            return f"no row has a value of all known maps on {self.ground.on}"
        people = self._n_people(together)
        if people < MIN_IDENTITIES:
            return f"expected at least {MIN_IDENTITIES} people, got {people}"
        return ""

    def _left_out(self, map_: str) -> int:
        return self.table.states(self.metric.name, map_, self.under)[RowState.EXCLUDED]

    def _maps(self) -> list[KnownMap]:
        law = self.table.law(self.metric)
        asked = [(self.table.sample(self._values(known)), law) for known in KNOWN_MAPS]
        return [
            KnownMap(map=known, value=one.value, low=one.low, high=one.high)
            for known, one in zip(KNOWN_MAPS, self.table.estimated(asked), strict=True)
        ]

    def _steps(self) -> Iterator[tuple[Step, float]]:
        """Yield the step from each map to the next worse one, and what it could have shown."""
        steps = [*pairwise(KNOWN_MAPS)]
        asked = [self._improvement(*step) for step in steps]
        found = self.table.estimated(asked)
        for (better, worse), (_, law), one in zip(steps, asked, found, strict=True):
            limit = BetterThan(self.metric.name, better_than=f"control.{worse}")
            step = Step(
                better=better,
                worse=worse,
                value=one.value,
                low=one.low,
                high=one.high,
                holds=judge(limit, one).outcome is Outcome.PASS,
            )
            yield step, detectable(one, law, limit.region()) if _is_a_number(one) else math.nan

    def _improvement(self, better: str, worse: str) -> tuple[Sample, Law]:
        own, other = self._values(better), self._values(worse)
        if self.metric.statistic in FIGURES:
            sample = self.table.improvement_of_figures(own, other, self.metric)
            return sample, law_of(self.metric)
        edges = BetterThan(self.metric.name, better_than=f"control.{worse}").edges(self.metric)
        sample = self.table.sample(paired(own, other, self.metric.better))
        return sample, law_of(self.metric, edges)

    def _why_unfit(self, wrong: Sequence[Step]) -> str:
        """Return the first step that does not hold, in words."""
        if not wrong:
            return ""
        step = wrong[0]
        subject = f"{self.metric.name}{in_words(dict(self.under))} does not put"
        better, worse = (name.replace("_", " ") for name in (step.better, step.worse))
        ends = [math.nan if one is None else one for one in (step.value, step.low, step.high)]
        value, low, high = ends
        shown = f"{value:.3g} [{low:.3g}, {high:.3g}]"
        if math.isnan(low) and math.isnan(high):
            shown = f"{value:.3g} without an interval"
        return f"{subject} {better} before {worse}: expected a difference above 0, got {shown}"

    def _reliability(self) -> float | None:
        """Return how far the means of the maps agree between halves of the people.

        Pearson's correlation over the maps, stepped up by Spearman and Brown to all people where it
        is positive, and averaged over the halvings in which both halves tell any maps apart.
        """
        if self.metric.statistic not in _OF_HALVES:
            return None  # a figure needs the whole list
        middle, whole = _OF_HALVES[self.metric.statistic], np.isfinite(self._together())
        values = np.stack([self._values(known)[whole] for known in KNOWN_MAPS], axis=1)
        owners = self.table.identities[whole]
        people, group = np.unique(owners, return_inverse=True)
        if owners.ndim == 1:  # one line a person; rows of two people stay as they are
            values = np.stack([middle(values[group == one], axis=0) for one in range(len(people))])
            owners = people
        found = []
        for turn in range(SPLITS):
            order = generator_of("self_check_halves", turn).permutation(len(people))
            is_first = np.isin(owners, people[order[: len(people) // 2]]).reshape(len(owners), -1)
            halves = [half.all(axis=1) for half in (is_first, ~is_first)]
            if not all(half.any() for half in halves):
                continue
            first, second = (middle(values[half], axis=0) for half in halves)
            if np.ptp(first) > 0.0 and np.ptp(second) > 0.0:
                r = float(np.corrcoef(first, second)[0, 1])
                found.append(2.0 * r / (1.0 + r) if r > 0.0 else r)
        return min(1.0, float(np.mean(found))) if found else None


def _is_a_number(estimate: Estimate) -> bool:
    return math.isfinite(estimate.value) and estimate.n_pairs > 0


def _largest(values: Sequence[float]) -> float | None:
    """Return the largest number; None if one is missing: then nobody knows the largest."""
    return max(values) if values and all(math.isfinite(one) for one in values) else None
