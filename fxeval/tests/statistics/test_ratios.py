"""The ratio of two means, against Fieller's closed form and against a plain search."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.errors import SuiteError
from fxeval.metrics import add_metrics, model_randomisation
from fxeval.records.judged import LimitEntry, MetricEntry
from fxeval.records.schema import CellFacts, CellPlan, Measured, Repeatability, Row
from fxeval.results import Metric, Outcome
from fxeval.seeding import generator_of
from fxeval.statistics.crossed import crossed
from fxeval.statistics.estimate import Denominator, Law, Sample, estimate, tails
from fxeval.statistics.intervals import chosen, interval
from fxeval.statistics.results import results_of
from fxeval.statistics.skew_t import reaches
from fxeval.strict.yaml_file import parsed
from fxeval.suite.load import KnownIds, planned

OWN = Denominator("effect of its own map", "rate", -1.0, 1.0, 0.02)
RATE = Law("ratio", "rate", -1.0, 1.0, OWN)
LIGHT = Law("ratio", "light", -math.inf, math.inf, Denominator(kind="light"))
HEAVY = Law("ratio", "heavy", -math.inf, math.inf, Denominator(kind="heavy"))


def of(numerators, denominators, identities=None):
    people = np.arange(len(numerators)) if identities is None else identities
    return Sample(np.array(numerators, float), people, None, np.array(denominators, float))


def outcomes(G=60, share=0.6, alike=0.8, seed="outcomes"):
    """Whether the evaluator's own map rejects a pair, and whether another one does."""
    rng = generator_of(seed)
    own = (rng.random(G) < share).astype(float)
    return np.where(rng.random(G) < alike, own, rng.random(G) < 0.3).astype(float), own


def skewed(G=60):
    rng = generator_of("skewed")
    below = 1.0 + 0.5 * rng.exponential(size=G)
    return 0.7 * below + 0.4 * rng.exponential(size=G), below


def ends(found):
    return found.low, found.high


def test_symmetric_values_have_fiellers_interval_in_closed_form():
    one, two = (generator_of("closed", name).normal(size=20) for name in "ab")
    # Each value with its mirror image: no mean of any combination is skewed.
    N = np.concatenate([0.8 + 0.3 * one, 0.8 - 0.3 * one])
    M = np.concatenate([1.1 + 0.2 * (one + two), 1.1 - 0.2 * (one + two)])
    found = estimate(of(N, M), LIGHT, 0.95)
    q = float(reaches(40, np.array(0.0), 0.96)[0])
    (vn, c), (_, vm) = np.cov(N, M) * q**2 / 40
    roots = np.roots([M.mean() ** 2 - vm, -2 * (N.mean() * M.mean() - c), N.mean() ** 2 - vn])
    assert found.value == N.mean() / M.mean()
    assert ends(found) == pytest.approx(sorted(roots), rel=1e-9)
    assert found.method.startswith(
        "Fieller's interval: the ratios at which the mean of (numerator - ratio * denominator) may "
        "be 0 by skewness-corrected t at 96 % over 40 identities"
    )
    spread = np.std(N - found.value * M, ddof=1) / M.mean()
    assert found.spread == pytest.approx(spread)


def contains_0(sample, law, ratio):
    """Whether the interval of one mean contains 0: the definition, ratio by ratio."""
    N, M, below = sample.values, sample.others, law.denominator
    far = [ratio * edge for edge in (below.low, below.high)]
    kind = law.kind
    level = chosen(N - N.mean() / M.mean() * M, kind)[0]
    kind = "rate" if math.isnan(level) else "heavy" if level > 0.98 else kind
    found = interval(N - ratio * M, kind, law.low - max(far), law.high - min(far))
    return not (found.low > 0.0 or found.high < 0.0)


@pytest.mark.parametrize(
    ("sample", "law"),
    [
        (of(*outcomes()), RATE),
        (of(*outcomes(30, 0.9, 0.95)), RATE),
        (of(*outcomes(200, 0.2, 0.5)), RATE),
        (of(*outcomes(100)), LIGHT),
        (of(*skewed()), LIGHT),
        (of(*skewed()), HEAVY),
        (of(-skewed()[0], skewed()[1]), HEAVY),
    ],
)
def test_the_interval_is_every_ratio_at_which_the_mean_may_be_0(sample, law):
    found = estimate(sample, law, 0.95)
    assert found.value == pytest.approx(sample.values.mean() / sample.others.mean())
    width = found.high - found.low
    assert found.low < found.value < found.high
    within = np.linspace(found.low + 1e-7 * width, found.high - 1e-7 * width, 41)
    assert all(contains_0(sample, law, float(one)) for one in within)
    steps = width * np.array([1e-7, 0.01, 0.1, 1.0, 10.0])
    beyond = [*(found.low - steps), *(found.high + steps)]
    assert not any(contains_0(sample, law, float(one)) for one in beyond)


@pytest.mark.parametrize(
    ("sample", "law"), [(of(*outcomes()), RATE), (of(*skewed()), LIGHT), (of(*skewed()), HEAVY)]
)
def test_p_values_agree_with_the_interval_at_every_confidence(sample, law):
    lines = np.linspace(0.2, 2.0, 19)
    p = [tails(sample, law, float(line)) for line in lines]
    for confidence in (0.5, 0.8, 0.95, 0.999):
        found = estimate(sample, law, confidence)
        tail = (1.0 - confidence) / 2.0
        for line, (above, below) in zip(lines, p, strict=True):
            assert (above <= tail) == (found.low >= line), (confidence, line)
            assert (below <= tail) == (found.high <= line), (confidence, line)


def test_rows_of_one_person_count_as_one():
    N, M = outcomes(40)
    twice = np.repeat(np.arange(40), np.arange(40) % 3 + 1)
    one, many = estimate(of(N, M), RATE, 0.95), estimate(of(N[twice], M[twice], twice), RATE, 0.95)
    assert (many.value, *ends(many)) == pytest.approx((one.value, *ends(one)))
    assert (many.n_pairs, many.n_identities) == (len(twice), 40)


def test_rows_of_two_people_are_counted_by_pseudo_values():
    first, second = np.triu_indices(30, 1)
    kept = (second - first) % 29 < 5
    people = np.stack([first, second], axis=1)[kept]
    rng = generator_of("crossed ratio")
    effect = rng.normal(size=30)
    M = 1.0 + 0.2 * effect[people].sum(axis=1) + 0.3 * rng.normal(size=len(people))
    N = 0.8 * M + 0.1 * effect[people[:, 0]] + 0.2 * rng.normal(size=len(people))
    found = estimate(of(N, M, people), LIGHT, 0.95)
    assert found.value == pytest.approx(N.mean() / M.mean())
    assert "one pseudo-value for each of two identities" in found.method

    def low_and_high(ratio):
        rest = interval(crossed(N - ratio * M, *people.T), "light")
        return float(rest.low), float(rest.high)

    assert low_and_high(found.low)[0] == pytest.approx(0.0, abs=1e-9)
    assert low_and_high(found.high)[1] == pytest.approx(0.0, abs=1e-9)
    decisions = of((N > 0.7).astype(float), (M > 0.5).astype(float), people)
    by_rate = estimate(decisions, RATE, 0.95)
    assert "skewness-corrected t at 99 %" in by_rate.method  # pseudo-values have no edges
    assert by_rate.low < by_rate.value < by_rate.high


@settings(deadline=None, max_examples=15)
@given(st.floats(0.01, 100.0), st.sampled_from([0, 1, 2]), st.integers(0, 5))
def test_a_scaled_numerator_scales_the_ratio_and_its_ends(factor, which, seed):
    N, M = outcomes(35, seed=f"scaled {seed}")
    law = (RATE, LIGHT, HEAVY)[which]
    scaled = Law("ratio", law.kind, factor * law.low, factor * law.high, law.denominator)
    one, two = estimate(of(N, M), law, 0.95), estimate(of(factor * N, M), scaled, 0.95)
    expected = [factor * number for number in (one.value, one.low, one.high, one.spread)]
    assert [two.value, two.low, two.high, two.spread] == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )


@settings(deadline=None, max_examples=15)
@given(st.floats(0.01, 100.0), st.booleans())
def test_the_unit_of_both_does_not_matter(factor, is_light):
    N, M = skewed(40)
    law = LIGHT if is_light else HEAVY
    one, two = estimate(of(N, M), law, 0.95), estimate(of(factor * N, factor * M), law, 0.95)
    assert (two.value, *ends(two)) == pytest.approx((one.value, *ends(one)), rel=1e-6)


# --- nothing to compare with


@pytest.mark.parametrize(
    ("hits", "shown"),
    [
        (0, "(0 [-0.0881, 0.0881], at least 0.02 needed)"),
        (1, "(0.0167 [-0."),
        (2, "(0.0333 [-0."),
    ],
)
def test_a_denominator_that_may_be_0_leaves_no_interval(hits, shown):
    M = np.zeros(60 if hits else 40)
    M[:hits] = 1.0
    found = estimate(of(np.ones(len(M)), M), RATE, 0.95)
    assert math.isnan(found.value) == (hits < 2)
    assert np.isnan(ends(found)).all()
    assert found.method.startswith(f"effect of its own map is too near 0 {shown}")
    assert found.method.endswith("so there is nothing to compare with")
    above, below = tails(of(np.ones(len(M)), M), RATE, 1.0)
    assert min(above, below) > 0.025


def test_a_negative_denominator_has_no_ratio():
    N, M = skewed()
    found = estimate(of(N, -M), LIGHT, 0.95)
    assert math.isnan(found.value)
    assert "nothing to compare with" in found.method


def test_equal_outcomes_are_no_proof_that_the_ratio_is_1():
    _, own = outcomes(60)
    found = estimate(of(own, own), RATE, 0.95)
    assert found.value == 1.0
    assert found.low < 0.9 < 1.1 < found.high
    without_effect = estimate(of(0.0 * own, own), RATE, 0.95)
    assert without_effect.value == 0.0
    assert without_effect.low < -0.05 < 0.05 < without_effect.high


def test_values_over_themselves_are_1_where_they_cannot_be_equal_by_chance():
    N, M = skewed()
    found = estimate(of(M, M), LIGHT, 0.95)
    assert (found.value, *ends(found)) == (1.0, 1.0, 1.0)
    assert found.method == "every numerator equals its denominator: no interval"
    assert tails(of(M, M), LIGHT, 0.9) == (0.0, 1.0)
    assert tails(of(M, M), LIGHT, 1.1) == (1.0, 0.0)
    assert math.isnan(estimate(of(0 * M, 0 * M), LIGHT, 0.95).low)
    assert estimate(of(N, M), LIGHT, 0.95).low < 1.0


def test_a_few_other_outcomes_are_as_wide_beside_the_estimate_as_at_it():
    own = np.repeat([1.0, 0.0], 30)
    other = own.copy()
    other[0] = 0.0  # one pair of 60; N - r * M has many values at every r but 1 and 0
    found = estimate(of(other, own), Law("ratio", "light", -1.0, 1.0, OWN), 0.95)
    assert "Gaffke" in found.method
    assert found.high - found.low > 0.2


def test_a_ratio_needs_both_columns():
    with pytest.raises(ValueError, match="a ratio needs others, the denominators, got none"):
        estimate(Sample(np.ones(30), np.arange(30)), RATE, 0.95)
    with pytest.raises(ValueError, match="expected values from -1 to 1, got 2"):
        estimate(of(np.ones(30), np.full(30, 2.0)), RATE, 0.95)


# --- in a cell

BELOW = MetricEntry(
    name="own_effect", title="Effect of its own map", unit="share", better="higher",
    range=(-1.0, 1.0), statistic="mean", source="s", meaning="m", kind="rate",
)  # fmt: skip
INDEX = MetricEntry(
    name="index", title="Index", unit="ratio", better="higher", range=(-1.0, 1.0),
    statistic="ratio", source="s", meaning="m", kind="rate", denominator="own_effect",
    least_denominator=0.02,
)  # fmt: skip
STEADY = Repeatability(n_rows=4, repeats=True, depends_on_seed=False, change=0.0)


def cell(columns, *asked, metrics=(INDEX, BELOW), facts=None):
    """Judge a cell of rows with (numerator, denominator) for each map, evaluator and seed."""
    plan = CellPlan(
        id="c[m-own-p]", check="c", kind="k", why="", where="s.yaml:1:1", model="m",
        explainer="own", pairs="p", parameters={}, confidence=0.95, on_inconclusive="fail",
        metrics=[*metrics], asked=[LimitEntry(metric="index", **one) for one in asked],
    )  # fmt: skip
    n = len(next(iter(columns.values()))[0])
    rows = [
        Row(
            cell=plan.id, row=f"r{place:04}", state="ok", identities=[place],
            measured=[
                Measured(
                    map=map_, under={"evaluator": evaluator}, seed=seed,
                    values={"index": one[place], "own_effect": two[place]},
                    states={"index": "ok", "own_effect": "ok"},
                )
                for (map_, evaluator, seed), (one, two) in columns.items()
            ],
        )
        for place in range(n)
    ]  # fmt: skip
    return results_of(plan, facts or CellFacts(repeatability=STEADY), rows)


def test_limits_on_a_ratio_are_decided_by_its_interval():
    columns = outcomes(200)
    found = cell(
        {("explainer", "b", 0): columns, ("control.random_pixels", "b", 0): columns},
        {"at_least": 0.5}, {"at_most": 0.5}, {"at_least": 0.9}, {"at_least": 0.5, "over": "list"},
    )  # fmt: skip
    expected = estimate(of(*columns), RATE, 0.95)
    [entry, *_] = [one for one in found.estimates if one.metric == "index"]
    assert (entry.value, entry.low, entry.high) == (expected.value, *ends(expected))
    assert [one.verdict.outcome for one in found.limits] == [
        Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS
    ]  # fmt: skip
    assert found.limits[0].p_value <= 0.025 < found.limits[2].p_value
    assert found.limits[0].hangs_on_one is False
    assert found.limits[2].settles.startswith("about ")
    assert 0.0 < found.limits[0].detectable < 0.5
    assert {one.metric for one in found.differences} == {"own_effect"}


def test_a_limit_that_holds_with_one_person_alone_says_so():
    N, M = outcomes(60)
    low = estimate(of(N, M), RATE, 0.95).low
    assert cell({("explainer", "b", 0): (N, M)}, {"at_least": low - 1e-6}).limits[0].hangs_on_one


def test_nothing_to_compare_with_is_inconclusive_in_words_and_never_a_pass():
    N, M = np.ones(60), np.zeros(60)
    M[0] = 1.0
    found = cell(
        {("explainer", "b", 0): (N, M)},
        {"at_least": 0.5}, {"at_most": 5.0}, {"at_least": 0.5, "over": "list"},
    )  # fmt: skip
    for limit in found.limits:
        assert limit.verdict.outcome is Outcome.INCONCLUSIVE
        assert "Effect of its own map is too near 0 (0.0167 [" in limit.verdict.reason
        assert "so there is nothing to compare with" in limit.verdict.reason
        assert limit.verdict.reason.startswith("index (evaluator b): no value: ")
    [entry] = [one for one in found.estimates if one.metric == "index"]
    assert (entry.value, entry.low, entry.high, entry.n_pairs) == (None, None, None, 60)


def test_a_shuffled_map_is_not_taken_for_one_that_transfers():
    _, own = outcomes(120)
    none = (generator_of("shuffled").random(120) < 0.1).astype(float)  # it rejects hardly anybody
    [limit] = cell({("explainer", "b", 0): (none, own)}, {"at_least": 0.5}).limits
    assert limit.verdict.outcome is Outcome.FAIL


def test_rows_without_one_of_both_values_do_not_count():
    N, M = (one.tolist() for one in outcomes(60))
    N[3], M[7] = None, None
    [entry] = [
        one for one in cell({("explainer", "b", 0): (N, M)}).estimates if one.metric == "index"
    ]
    kept = [place for place in range(60) if place not in (3, 7)]
    expected = sum(N[one] for one in kept) / sum(M[one] for one in kept)
    assert (entry.n_pairs, entry.value) == (58, pytest.approx(expected))


def test_every_seed_is_judged_and_the_estimate_is_of_the_means_over_them():
    columns = {("explainer", "b", seed): outcomes(100, seed=f"seed {seed}") for seed in range(3)}
    depends = STEADY.model_copy(update={"depends_on_seed": True})
    found = cell(columns, {"at_least": 0.4}, facts=CellFacts(repeatability=depends))
    ratios = [N.mean() / M.mean() for N, M in columns.values()]
    assert found.limits[0].seeds.values == pytest.approx(ratios)
    assert found.limits[0].estimate.value == pytest.approx(min(ratios))
    N, M = (np.mean([one[part] for one in columns.values()], axis=0) for part in (0, 1))
    [entry] = [one for one in found.estimates if one.metric == "index"]
    assert entry.value == pytest.approx(N.mean() / M.mean())
    assert entry.seed_sd == pytest.approx(np.std(ratios, ddof=1))


def test_no_row_has_a_ratio_to_compare():
    columns = outcomes(60)
    asked = {"better_than": "control.random_pixels"}
    of_maps = {("explainer", "b", 0): columns, ("control.random_pixels", "b", 0): columns}
    [limit] = cell(of_maps, asked).limits
    assert limit.verdict.outcome is Outcome.INVALID
    assert "index is a ratio of two means" in limit.verdict.reason


def test_values_beyond_the_denominators_range_are_a_fault_of_the_ratio_too():
    N, M = outcomes(60)
    [limit] = cell({("explainer", "b", 0): (N, 3.0 * M)}, {"at_least": 0.1}).limits
    assert limit.verdict.outcome is Outcome.INVALID
    assert "own_effect: 3 in row r" in limit.verdict.reason


@pytest.mark.parametrize("denominator", ["", "index", "else"])
def test_a_ratio_names_another_metric_of_its_cell(denominator):
    columns = {("explainer", "b", 0): outcomes(60)}
    wrong = INDEX.model_copy(update={"denominator": denominator})
    with pytest.raises(ValueError, match="metric index: expected a denominator among the cell's"):
        cell(columns, metrics=(wrong, BELOW))
    stray = BELOW.model_copy(update={"denominator": "index"})
    with pytest.raises(ValueError, match="and none if it is not, got 'index'"):
        cell(columns, metrics=(INDEX, stray))


# --- in a suite


@pytest.fixture
def ratios():
    """A kind with a ratio, beside those that are shipped."""
    module = ModuleType("acme_transfer")
    vars(module).update(
        {key: getattr(model_randomisation, key) for key in ("ROWS", "Parameters", "measure")},
        METRICS=[Metric(**one.model_dump()) for one in (INDEX, BELOW)],
    )
    add_metrics({"acme.transfer": module})
    yield
    add_metrics({})


def suite(limit):
    text = (
        "fxeval: 1\nsuite: s\nmodels: [any]\nexplainers: [any]\npairs: [any]\n"
        f"checks:\n  - id: c\n    kind: acme.transfer\n    limits:\n      - {limit}\n"
    )
    known = KnownIds(*(frozenset({"any"}),) * 3)
    return planned(parsed(text.encode(), Path("s.yaml")), Path("s.yaml"), known)


@pytest.mark.usefixtures("ratios")
@pytest.mark.parametrize(
    "form",
    [
        "not_worse_than: baseline, within: {absolute: 0.1}",
        "equivalent_to: baseline, within: {absolute: 0.1}",
    ],
)
def test_a_suite_that_compares_ratios_is_refused(form):
    with pytest.raises(SuiteError) as caught:
        suite(f"{{metric: index, {form}}}")
    assert (
        "index is a ratio of two means, and no row has one of its own that could be compared; "
        f"expected at_most or at_least, got {form.split(':')[0]}"
    ) in str(caught.value)


@pytest.mark.usefixtures("ratios")
def test_a_ratio_may_exceed_the_range_of_its_numerator():
    assert suite("{metric: index, at_most: 1.2}")
    assert suite("{metric: index, at_least: 0.5}")
