"""Acknowledged regressions: what they let pass, what they never do, and when they are an error."""

import pytest

from fxeval.records.judged import Acknowledgement
from fxeval.records.schema import CellFacts
from fxeval.statistics.holm import regressions_of
from fxeval.tests.statistics.judged_cells import BLACK, BLUR, STEADY, cell, metric, spread

LIMIT = {"not_worse_than": "baseline", "within": {"absolute": 0.01}}
WHERE = "baselines/acknowledged.yaml:3:5"
OWN = spread(0.3)


def known(until="2027-01-31", **more):
    return Acknowledgement(
        **{"metric": "m", "reason": "blurs more", "until": until, "where": WHERE, **more}
    )


def judged(*asked, gain=-0.05, name="baseline", acknowledged=(), expired=(), under=(BLUR,)):
    """A cell whose explainer is worse by 0.05 than in an earlier run; lower is better."""
    gains = gain if isinstance(gain, tuple) else (gain,) * len(under)
    values = {("explainer", one): OWN for one in under}
    for one, by in zip(under, gains, strict=True):
        values[name, one] = OWN + by + spread(0.0, by=0.005)[::-1]
    facts = CellFacts(repeatability=STEADY, acknowledged=[*acknowledged], expired=[*expired])
    return cell(asked or [LIMIT], values, facts=facts)


def test_without_an_acknowledgement_a_regression_fails():
    assert judged().verdict.outcome == "fail"


def test_an_acknowledged_regression_passes_and_says_so_everywhere():
    found = judged(acknowledged=[known(by="Ann")])
    assert found.verdict.outcome == "pass"
    assert found.verdict.reason.endswith("; acknowledged until 2027-01-31 by Ann: blurs more")
    (limit,) = found.limits
    assert limit.verdict.outcome == "fail"
    assert limit.verdict.reason == found.verdict.reason
    assert limit.acknowledged == known(by="Ann")
    worse = regressions_of([found])
    assert [one.is_worse for one in worse.tested] == [True]
    assert (
        "1 of 1 comparisons with an earlier run got worse (Holm, 0.025 one-sided; 1 of them "
        in (worse.text)
    )


def test_the_other_limits_of_the_cell_decide():
    found = judged(LIMIT, {"at_most": 0.1}, acknowledged=[known()])
    assert found.verdict.outcome == "fail"
    assert "acknowledged" not in found.verdict.reason
    found = judged(LIMIT, {"at_most": 0.3}, acknowledged=[known()])
    assert found.verdict.outcome == "inconclusive"
    found = judged(LIMIT, {"at_most": 0.9}, acknowledged=[known()])
    assert found.verdict.outcome == "pass"
    assert "acknowledged until" in found.verdict.reason


def test_an_equivalence_can_be_acknowledged_too():
    asked = {"equivalent_to": "baseline", "within": {"absolute": 0.01}}
    assert judged(asked).verdict.outcome == "fail"
    assert judged(asked, acknowledged=[known()]).verdict.outcome == "pass"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"not_worse_than": "base", "within": {"absolute": 0.01}}, "base"),
        ({"at_most": 0.1}, "baseline"),
        ({"better_than": "control.centre"}, "control.centre"),
    ],
)
def test_only_what_compares_with_the_baseline_can_be_acknowledged(asked, name):
    found = judged(asked, name=name, acknowledged=[known()])
    assert found.verdict.outcome == "fail"
    assert found.limits[0].acknowledged is None
    assert f"{WHERE}: no limit on m compares with the baseline" in found.notes


def test_another_metric_is_not_acknowledged():
    assert judged(acknowledged=[known(metric="n")]).verdict.outcome == "fail"


def test_one_that_passes_again_makes_the_cell_invalid_and_names_its_place():
    found = judged(gain=0.0, acknowledged=[known()])
    assert found.limits[0].verdict.outcome == "pass"
    assert found.verdict.outcome == "invalid"
    assert found.verdict.reason == (
        f"acknowledged regression passes again: m: remove it from {WHERE}"
    )
    assert judged(gain=0.0).verdict.outcome == "pass"


def test_an_undecided_comparison_stays_undecided():
    found = judged(gain=-0.01, acknowledged=[known()])
    assert found.limits[0].verdict.outcome == "inconclusive"
    assert found.verdict.outcome == "inconclusive"
    assert found.limits[0].acknowledged is None


def test_an_acknowledgement_is_about_its_condition_alone():
    about = known(under={"fill": "blur"})
    both = judged(gain=(-0.05, -0.05), under=(BLUR, BLACK), acknowledged=[about])
    assert both.verdict.outcome == "fail"
    assert {one.under["fill"]: one.acknowledged is not None for one in both.limits} == {
        "blur": True, "black": False,
    }  # fmt: skip
    assert judged(gain=(-0.05, 0.0), under=(BLUR, BLACK), acknowledged=[about]).verdict.outcome == (
        "pass"
    )
    again = judged(gain=(0.0, -0.05), under=(BLUR, BLACK), acknowledged=[about])
    assert again.verdict.outcome == "invalid"
    nowhere = judged(acknowledged=[known(under={"fill": "white"})])
    assert nowhere.verdict.outcome == "fail"
    assert any(one.startswith(f"{WHERE}: no limit on m") for one in nowhere.notes)


def test_one_about_several_conditions_is_done_with_when_all_of_them_pass():
    some = judged(gain=(-0.05, 0.0), under=(BLUR, BLACK), acknowledged=[known()])
    assert some.verdict.outcome == "pass"
    every = judged(gain=(0.0, 0.0), under=(BLUR, BLACK), acknowledged=[known()])
    assert every.verdict.outcome == "invalid"


def test_an_expired_one_changes_nothing_and_is_named():
    old = known(until="2026-01-31")
    found = judged(expired=[old])
    assert found.verdict.outcome == "fail"
    assert f"its acknowledgement expired on 2026-01-31 ({WHERE})" in found.verdict.reason
    note = f"the acknowledgement of m expired on 2026-01-31: remove it from {WHERE}"
    assert note in found.notes
    found = judged(gain=0.0, expired=[old])
    assert found.verdict.outcome == "pass"
    assert "expired" not in found.verdict.reason
    assert note in found.notes


def test_a_regression_of_a_broken_explainer_is_not_covered():
    def broken(rows):
        return [row.model_copy(update={"state": "nan_map", "reason": "NaN"}) for row in rows]

    values = {"explainer": OWN, "baseline": OWN - 0.05 + spread(0.0, by=0.005)[::-1]}
    facts = CellFacts(repeatability=STEADY, acknowledged=[known()])
    found = cell([LIMIT], values, facts=facts, rows=broken)
    assert found.verdict.outcome == "fail"
    assert "have no usable saliency map" in found.verdict.reason


def test_for_information_a_fail_decides_nothing_with_or_without():
    for acknowledged in ([], [known()]):
        facts = CellFacts(repeatability=STEADY, acknowledged=acknowledged)
        values = {"explainer": OWN, "baseline": OWN - 0.05}
        found = cell([{**LIMIT, "severity": "info"}], values, facts=facts, of=metric())
        assert found.verdict.outcome == "information"
