"""The choice among configurations: on one half of the people, reported on the other."""

from typing import Any

import numpy as np
import pytest

from fxeval.records.judged import LimitEntry, MetricEntry
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Measured, Row
from fxeval.records.selection import Configuration, Selects
from fxeval.results import Outcome, RowState
from fxeval.statistics.judging import judged
from fxeval.statistics.results import limit_of, results_of
from fxeval.statistics.selected import judged_under
from fxeval.statistics.selection import chosen
from fxeval.statistics.table import Table

BLOBS, GIVEN = "control.random_blobs", "control.as_given"
BETTER = {"metric": "drop", "better_than": BLOBS}


def metric(name: str, better: str = "higher", **more: Any) -> MetricEntry:
    keys = {
        "name": name, "title": name, "unit": "u", "better": better, "range": (-2.0, 2.0),
        "statistic": "mean", "source": "s", "meaning": "m", "kind": "light", **more,
    }  # fmt: skip
    return MetricEntry(**keys)


DROP, RATE = metric("drop"), metric("rate", "lower", range=(0.0, 1.0), kind="rate")


def plan_of(*asked: dict[str, Any], by: tuple[str, ...] = ("drop",), **more: Any) -> CellPlan:
    keys: dict[str, Any] = {
        "id": "c[m-own-p]", "check": "c", "kind": "k", "why": "", "where": "s.yaml:1:1",
        "model": "m", "explainer": "own", "pairs": "p", "parameters": {}, "confidence": 0.95,
        "on_inconclusive": "fail", "metrics": [DROP, RATE],
        "asked": [LimitEntry(**one) for one in asked],
        "selects": Selects(axes=["layer", "objective"], by=[*by]),
    }  # fmt: skip
    return CellPlan(**{**keys, **more})


def under_of(name: str) -> dict[str, str | float]:
    layer, _, objective = name.partition("/")
    return {"layer": layer, "objective": objective or "cos"}


def rows_of(
    own: dict[str, Any], shared: dict[str, Any], *, states: dict[str, RowState] | None = None,
    people: Any = None, fills: tuple[str, ...] = ("black",),
) -> list[Row]:  # fmt: skip
    """Make rows, the even people in the selection half.

    Args:
        own: By configuration ``layer/objective``: values of ``drop``, or values by metric.
        shared: By map, likewise; under no configuration.
        states: Of all maps of a configuration.
        people: The person of each row.
        fills: The values are the same under each.
    """

    def by_metric(values: Any) -> dict[str, Any]:
        return values if isinstance(values, dict) else {"drop": values}

    n = len(next(iter(by_metric(next(iter({**own, **shared}.values()))).values())))
    who = np.arange(n) if people is None else np.asarray(people)
    rows = []
    for row in range(n):
        half = "report" if who[row] % 2 else "selection"
        found = []
        for name, values in {**own, **shared}.items():
            state = (states or {}).get(name, RowState.OK)
            for fill in fills:
                settings = under_of(name) if name in own else {}
                some = {key: float(one[row]) for key, one in by_metric(values).items()}
                found.append(
                    Measured.model_construct(
                        map="explainer" if name in own else name,
                        under={**settings, "fill": fill, "half": half},
                        values={k: None if np.isnan(v) else v for k, v in some.items()},
                        states=dict.fromkeys(some, state), curves={}, seed=0,
                    )
                )  # fmt: skip
        rows.append(
            Row(cell="c[m-own-p]", row=f"r{row:04}", identities=[int(who[row])], state="ok",
                measured=found)
        )  # fmt: skip
    return rows


def tried(*names: str, **same: str) -> CellFacts:
    """Return facts of configurations; ``b="a"``: b gives the same maps as a."""
    return CellFacts(
        configurations=[
            Configuration(
                under=under_of(name), same_as=under_of(same[name]) if name in same else None
            )
            for name in names
        ]
    )


def noise(seed: int, n: int, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return configurations and blobs that are all equally good."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0.1, 0.05, (count, n))
    blobs = rng.normal(0.1, 0.05, (5, n)).mean(axis=0)  # of five draws
    return {f"layer{one}": values for one, values in enumerate(own)}, {BLOBS: blobs}


def plain_choice(rows: list[Row], names: list[str]) -> str:
    """Choose by a plain loop: the mean over people of their mean, largest first."""
    best, best_value = "", -np.inf
    for name in names:
        of_person: dict[int, list[float]] = {}
        for row in rows:
            for one in row.measured:
                if one.under["half"] == "selection" and one.under.get("layer") == name:
                    of_person.setdefault(row.identities[0], []).append(one.values["drop"])
        value = float(np.mean([np.mean(values) for values in of_person.values()]))
        if value > best_value + 1e-12:
            best, best_value = name, value
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_that_of_a_plain_loop(seed):
    own, shared = noise(seed, 60, 7)
    people = np.random.default_rng(seed).integers(0, 20, 60)
    rows = rows_of(own, shared, people=people, fills=("black", "mean"))
    found = chosen(plan_of(), CellFacts(), rows).selection
    assert found.selected == under_of(plain_choice(rows, [*own]))


def test_only_the_selection_half_chooses():
    """Whatever the report half holds, the choice stays."""
    own, shared = noise(3, 60, 5)
    before = chosen(plan_of(), CellFacts(), rows_of(own, shared)).selection
    for values in own.values():
        values[1::2] = np.random.default_rng(9).normal(0.5, 0.3, 30)
    after = chosen(plan_of(), CellFacts(), rows_of(own, shared)).selection
    assert before.selected == after.selected
    assert before.selection == after.selection
    assert before.report != after.report


def test_the_order_of_the_rows_changes_nothing():
    own, shared = noise(4, 60, 5)
    rows = rows_of(own, shared)
    plan = plan_of(BETTER)
    assert results_of(plan, CellFacts(), rows) == results_of(plan, CellFacts(), rows[::-1])


@pytest.mark.parametrize("second", ["b", "c"])
def test_the_next_metric_breaks_a_tie_and_then_the_order_of_the_suite(second):
    n = 40
    rate = np.tile([0.0, 0.0, 1.0, 1.0], 10)
    better = {"b": 0.3, "c": 0.2} if second == "b" else {"b": 0.2, "c": 0.3}
    own = {
        "a": {"rate": rate, "drop": np.full(n, 0.1)},
        # The same share of other people: the sums differ in their last digits.
        "b": {"rate": rate[::-1], "drop": np.full(n, better["b"])},
        "c": {"rate": np.roll(rate, 1)[::-1], "drop": np.full(n, better["c"])},
    }
    plan = plan_of(by=("rate", "drop"))
    assert chosen(plan, CellFacts(), rows_of(own, {})).selection.selected == under_of(second)
    for values in own.values():
        values["drop"] = np.full(n, 0.1)
    assert chosen(plan, CellFacts(), rows_of(own, {})).selection.selected == under_of("a")


def test_a_constant_map_is_never_chosen_over_one_that_works():
    """Even if its random order happens to look best."""
    rng = np.random.default_rng(0)
    own = {"flat": rng.normal(0.5, 0.01, 80), "works": rng.normal(0.2, 0.01, 80)}
    shared = {BLOBS: rng.normal(0.1, 0.01, 80)}
    rows = rows_of(own, shared, states={"flat": RowState.DEGENERATE_MAP})
    result = results_of(plan_of(BETTER), CellFacts(), rows)
    assert result.selection.selected == under_of("works")
    assert result.verdict.outcome is Outcome.PASS
    assert "degenerate" in next(one.unfit for one in result.selection.candidates if one.unfit)


def test_a_cell_of_constant_maps_alone_fails():
    own, shared = {"flat": np.full(80, 0.5)}, {BLOBS: np.full(80, 0.1)}
    rows = rows_of(own, shared, states={"flat": RowState.DEGENERATE_MAP})
    result = results_of(plan_of(BETTER), CellFacts(), rows)
    assert result.verdict.outcome is Outcome.FAIL
    assert "80 of 80 saliency maps are degenerate" in result.verdict.reason
    assert "every configuration is unfit" in result.selection.reason


def test_a_configuration_without_a_value_is_never_chosen():
    own = {"none": np.full(60, np.nan), "some": np.full(60, 0.01)}
    found = chosen(plan_of(), CellFacts(), rows_of(own, {})).selection
    assert found.selected == under_of("some")
    nothing = chosen(plan_of(), CellFacts(), rows_of({"none": np.full(60, np.nan)}, {})).selection
    assert nothing.selected is None
    assert nothing.reason == "no configuration has a value of drop on the selection half"


def test_nothing_chosen_passes_nothing():
    rows = rows_of({"none": np.full(60, np.nan)}, {BLOBS: np.full(60, 0.1)})
    result = results_of(plan_of(BETTER), CellFacts(), rows)
    assert result.verdict.outcome is Outcome.INVALID


def test_where_the_deciding_metric_has_no_value_the_next_decides_and_the_reason_says_so():
    nothing = np.full(60, np.nan)
    own = {
        "a": {"rate": nothing, "drop": np.full(60, 0.1)},
        "b": {"rate": nothing, "drop": np.full(60, 0.3)},
    }
    found = chosen(plan_of(by=("rate", "drop")), CellFacts(), rows_of(own, {})).selection
    assert (found.metric, found.selected) == ("drop", under_of("b"))
    assert found.reason.endswith("; rate has no value there")


def planted(n: int = 80) -> tuple[dict[str, Any], dict[str, Any]]:
    own, shared = noise(5, n, 8)
    own["layer3"] = own["layer3"] + 0.1
    return own, shared


def test_the_right_configuration_is_found_and_passes_on_the_report_half():
    own, shared = planted()
    result = results_of(plan_of(BETTER), CellFacts(), rows_of(own, shared))
    found, (limit,) = result.selection, result.limits
    assert found.selected == under_of("layer3")
    assert (found.report_rank, found.n_tried, found.n_distinct) == (1, 8, 8)
    assert found.n_identities == {"selection": 40, "report": 40}
    assert limit.under == {"configuration": "selected", "fill": "black", "half": "report"}
    assert limit.verdict.outcome is result.verdict.outcome is Outcome.PASS
    own_report = own["layer3"][1::2]
    assert found.report.value == pytest.approx(own_report.mean())
    assert limit.estimate.value == pytest.approx((own_report - shared[BLOBS][1::2]).mean())
    assert found.optimism == pytest.approx(own["layer3"][::2].mean() - own_report.mean())


def test_fewer_than_30_people_in_the_report_half_pass_nothing():
    own, shared = planted(58)
    result = results_of(plan_of(BETTER), CellFacts(), rows_of(own, shared))
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "too few identities (29 of at least 30)" in result.verdict.reason


def test_a_limit_may_name_a_configuration_and_then_judges_that_on_the_report_half():
    own, shared = planted()
    asked = {**BETTER, "under": under_of("layer0")}
    (limit,) = results_of(plan_of(asked), CellFacts(), rows_of(own, shared)).limits
    assert limit.under == {**under_of("layer0"), "fill": "black", "half": "report"}
    expected = (own["layer0"] - shared[BLOBS])[1::2].mean()
    assert limit.estimate.value == pytest.approx(expected)
    assert limit.verdict.outcome is not Outcome.PASS


def test_a_limit_that_names_a_configuration_with_the_maps_of_another_has_its_values():
    own, shared = planted()
    facts = tried(*own, "layer3/arc_pair(m=0.3)", **{"layer3/arc_pair(m=0.3)": "layer3"})
    asked = [{**BETTER, "under": under_of("layer3/arc_pair(m=0.3)")}, BETTER]
    result = results_of(plan_of(*asked), facts, rows_of(own, shared))
    named, usual = result.limits
    assert named.estimate == usual.estimate
    assert (result.selection.n_tried, result.selection.n_distinct) == (9, 8)
    assert result.selection.candidates[0].same == [under_of("layer3/arc_pair(m=0.3)")]


def test_a_refused_configuration_is_listed_and_a_limit_that_names_it_says_why():
    own, shared = planted()
    refused = Configuration(under=under_of("gone"), refused="no layer 'gone'")
    facts = CellFacts(configurations=[*tried(*own).configurations, refused])
    plan = plan_of({**BETTER, "under": under_of("gone")})
    result = results_of(plan, facts, rows_of(own, shared))
    assert result.selection.refused == [refused]
    assert result.verdict.outcome is Outcome.INVALID
    assert result.verdict.reason.endswith("no layer 'gone'")
    part = plan_of({**BETTER, "under": {"layer": under_of("gone")["layer"]}})
    assert results_of(part, facts, rows_of(own, shared)).verdict.reason.endswith("no layer 'gone'")


def test_better_than_the_explainer_as_given_is_a_limit():
    own, shared = planted()
    asked = {"metric": "drop", "better_than": GIVEN}
    for given, passes in ((own["layer0"], True), (own["layer3"], False)):
        rows = rows_of(own, {**shared, GIVEN: given})
        result = results_of(plan_of(asked), CellFacts(), rows)
        assert (result.verdict.outcome is Outcome.PASS) is passes, result.verdict.reason
        assert result.selection.as_given_report.value == pytest.approx(given[1::2].mean())


def test_a_cell_that_chooses_nothing_stays_as_it_was():
    own, shared = planted()
    rows = rows_of(own, shared)
    plan = plan_of({**BETTER, "under": under_of("layer3")}, selects=None)
    assert chosen(plan, CellFacts(), rows).rows is rows
    result = results_of(plan, CellFacts(), rows)
    assert result.selection is None
    assert {limit.under["half"] for limit in result.limits} == {"selection", "report"}


def test_a_record_says_the_same_after_it_was_written():
    own, shared = planted()
    rows = rows_of(own, shared)
    result = results_of(plan_of(BETTER), tried(*own), rows)
    assert CellResult.model_validate_json(result.model_dump_json()) == result


@pytest.fixture(scope="module")
def simulated() -> dict[str, Any]:
    """60 cells of 24 configurations that are no better than blobs, on 80 people."""
    plan = plan_of(BETTER, {**BETTER, "under": {"half": "selection"}})
    passes, gaps, shared_gaps = {"selection": 0, "report": 0}, [], []
    for seed in range(60):
        own, shared = noise(1000 + seed, 80, 24)
        choice = chosen(plan, CellFacts(), rows_of(own, shared))
        asked = [limit_of(judged_under(plan, one)) for one in plan.asked]
        for limit in judged(asked, Table(plan, choice.rows), "own", None):
            passes[limit.under["half"]] += limit.verdict.outcome is Outcome.PASS
        gaps.append(choice.selection.optimism)
        shared_gaps.append(choice.selection.shared_gap)
    return {"passes": passes, "gaps": np.array(gaps), "shared": np.array(shared_gaps)}


def test_the_best_of_many_useless_configurations_looks_better_where_it_was_chosen(simulated):
    gaps = simulated["gaps"]
    assert gaps.mean() > 5 * gaps.std(ddof=1) / np.sqrt(len(gaps))
    shared = simulated["shared"]
    assert abs(shared.mean()) < 3 * shared.std(ddof=1) / np.sqrt(len(shared))


def test_useless_configurations_hardly_ever_pass_on_the_report_half(simulated):
    assert simulated["passes"]["report"] <= 3


def test_judged_on_the_half_that_chose_useless_configurations_pass_far_more_often(simulated):
    """The control that must fail: this is why the report half decides."""
    assert simulated["passes"]["selection"] >= 10
