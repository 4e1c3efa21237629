"""Every form of a limit, judged at its boundary as a run judges it: rows, estimate, verdict."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fxeval.results import EXPLAINER, Metric, Outcome, Statistic, ValueKind
from fxeval.seeding import generator_of
from fxeval.statistics.estimate import Law, Sample, estimates
from fxeval.statistics.limits import (
    AtLeast,
    AtMost,
    BetterThan,
    EquivalentTo,
    Limit,
    NotWorseThan,
)
from fxeval.statistics.verdict import judge
from fxeval.tests.simulations.crossed import (
    CROSSED_NORMAL,
    CrossedPopulation,
    ScoreList,
    crossed_rate,
    draw_pairs,
)
from fxeval.tests.simulations.designs import Design, draw_rows
from fxeval.tests.simulations.laws import FloatArray, Population, beta, normal, rate
from fxeval.tests.simulations.tally import Tally, tally

Columns = Mapping[str, FloatArray]
Source = Callable[[Design, np.random.Generator, int], Iterator[tuple[Columns, Sample]]]
"""Draws runs: the values of each map, and a sample with their identities."""

PASS, FAIL = Outcome.PASS, Outcome.FAIL

_AT_ONCE = 250


@dataclass(frozen=True)
class Form:
    """A limit whose truth lies on its line.

    Attributes:
        limit: The limit.
        metric: The metric that it is about.
        source: Draws the values.
        rows: What a row is, if not one person's.
    """

    limit: Limit
    metric: Metric
    source: Source
    rows: str = ""

    @property
    def name(self) -> str:
        """The limit in words, and what its values are."""
        about = [self.metric.statistic, self.metric.kind, *([self.rows] if self.rows else [])]
        return f"{self.limit.text()} ({', '.join(about)})"


def simulate_form(form: Form, design: Design, runs: int) -> Tally:
    """Judge many lists: ``above`` counts false passes, ``below`` false fails."""
    rng = generator_of("simulations", form.name, str(design))
    edges = form.limit.edges(form.metric) if form.metric.statistic == "mean" else form.metric.range
    law = Law(form.metric.statistic, form.metric.kind, *edges)
    found: list[Outcome] = []
    samples: list[Sample] = []
    for columns, sample in form.source(design, rng, runs):
        values = form.limit.rows(columns.__getitem__, form.metric)
        samples.append(Sample(values, sample.identities, sample.is_mated))
        if len(samples) == _AT_ONCE or len(found) + len(samples) == runs:
            judged = estimates(samples, [law] * len(samples), 0.95)
            found += [judge(form.limit, one).outcome for one in judged]
            samples = []
    passed, failed = (np.array([one is which for one in found]) for which in (PASS, FAIL))
    return tally(passed, failed)


def metric(
    kind: ValueKind, range_: tuple[float, float] = (0.0, 1.0), statistic: Statistic = "mean"
) -> Metric:
    return Metric("area", "area", "", "lower", range_, statistic, "", "", kind=kind)


def alone(population: Population) -> Source:
    """The explainer's values alone."""
    return beside({EXPLAINER: population})


def beside(populations: Mapping[str, Population]) -> Source:
    """The values of several maps on the same rows."""

    def source(
        design: Design, rng: np.random.Generator, runs: int
    ) -> Iterator[tuple[Columns, Sample]]:
        for _ in range(runs):
            sizes = design.draw_sizes(rng, 1)
            rows = [draw_rows(one, design, rng, 1, sizes) for one in populations.values()]
            values, identities = next(rows[0].runs())
            columns = dict(zip(populations, (one.values for one in rows), strict=True))
            yield columns, Sample(values, identities)

    return source


def of_pairs(population: CrossedPopulation) -> Source:
    """Values of pairs of two people, 20 for each."""

    def source(
        design: Design, rng: np.random.Generator, runs: int
    ) -> Iterator[tuple[Columns, Sample]]:
        G = design.identities
        for _ in range(runs):
            first, second = draw_pairs(rng, G, 10 * G)
            values = population.draw(rng, 1, G, first, second)[0]
            yield {EXPLAINER: values}, Sample(values, np.stack((first, second), 1))

    return source


def of_scores(distance: float) -> Source:
    """Similarities of a verification list: 3 mated rows of each person, 5 nonmated ones."""

    def source(
        design: Design, rng: np.random.Generator, runs: int
    ) -> Iterator[tuple[Columns, Sample]]:
        scores = ScoreList(design.identities, 3, 5 * design.identities, distance)
        for values, identities in scores.draw(rng, runs):
            yield {EXPLAINER: values}, Sample(values, identities, scores.is_mated())

    return source


LOW, HIGH = beta(3, 9, "light"), beta(4, 8, "light")  # means 1/4 and 1/3
LIGHT, RATE = metric("light"), metric("rate")
MEDIAN = metric("light", (-np.inf, np.inf), "median")
AUC = ScoreList(50, 3, 250, 2.0).truth("auc")
GAP = {"absolute": HIGH.mean - LOW.mean}

FORMS = (
    Form(AtMost("area", at_most=LOW.mean), LIGHT, alone(LOW)),
    Form(AtLeast("area", at_least=LOW.mean), LIGHT, alone(LOW)),
    Form(AtMost("area", at_most=0.2), RATE, alone(rate(0.2))),
    Form(AtLeast("area", at_least=0.95), RATE, alone(rate(0.95))),
    Form(AtMost("area", at_most=0.0), MEDIAN, alone(normal())),
    Form(
        BetterThan("area", better_than="control.centre", by=GAP), LIGHT,
        beside({EXPLAINER: LOW, "control.centre": HIGH}),
    ),
    Form(
        BetterThan("area", better_than="control.centre", by={"relative": 0.25}), LIGHT,
        beside({EXPLAINER: LOW, "control.centre": HIGH}),
    ),
    Form(BetterThan("area", better_than="control.centre"), RATE,
         beside({EXPLAINER: rate(0.2), "control.centre": rate(0.2)})),
    Form(
        NotWorseThan("area", not_worse_than="baseline", within=GAP), LIGHT,
        beside({EXPLAINER: HIGH, "baseline": LOW}),
    ),
    Form(
        NotWorseThan("area", not_worse_than="baseline", within={"relative": 1 / 3}), LIGHT,
        beside({EXPLAINER: HIGH, "baseline": LOW}),
    ),
    Form(
        EquivalentTo("area", equivalent_to="base", within=GAP), LIGHT,
        beside({EXPLAINER: HIGH, "base": LOW}),
    ),
    Form(
        EquivalentTo("area", equivalent_to="control.centre", within=GAP), LIGHT,
        beside({EXPLAINER: LOW, "control.centre": HIGH}),
    ),
    Form(AtLeast("area", at_least=0.0), metric("light", (-np.inf, np.inf)),
         of_pairs(CROSSED_NORMAL), "pairs of two people"),
    Form(AtMost("area", at_most=0.05), RATE, of_pairs(crossed_rate(0.05)), "pairs of two people"),
    Form(AtLeast("area", at_least=AUC), metric("light", statistic="auc"), of_scores(2.0)),
)  # fmt: skip
