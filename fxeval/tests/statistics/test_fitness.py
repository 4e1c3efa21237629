"""Limits on metrics that do not tell known maps apart decide nothing, and say why."""

import pytest

from fxeval.records.schema import CellFacts
from fxeval.records.self_checks import Unfit
from fxeval.results import Outcome
from fxeval.statistics.fitness import meets
from fxeval.statistics.results import refused, results_of
from fxeval.tests.statistics.test_results import AUC, BLACK, BLUR, measured, plan, row

PASSED = {"metric": "auc", "at_most": 0.5}
WHY = "auc (black) does not put random before inverse"
UNFIT = Unfit(metric="auc", under=BLACK, reason=WHY)


def both_fills(black=0.2):
    """Rows of forty people under two fills, good under blur."""
    return [
        row(
            number,
            measured({"auc": 0.2 + 0.01 * (number % 2)}, under=BLUR),
            measured({"auc": black + 0.01 * (number % 2)}, under=BLACK),
        )
        for number in range(40)
    ]


def judged(*asked, unfit=(UNFIT,), rows=None, metrics=(AUC,)):
    facts = CellFacts(unfit=list(unfit))
    return results_of(plan(*asked, metrics=metrics), facts, rows or both_fills())


def outcomes(cell):
    return {one.under["fill"]: one.verdict.outcome.value for one in cell.limits}


def test_a_critical_limit_on_an_unfit_metric_makes_the_cell_invalid():
    cell = judged(PASSED)
    assert cell.verdict.outcome is Outcome.INVALID
    assert f"unfit here: {WHY}" in cell.verdict.reason
    assert outcomes(cell) == {"blur": "pass", "black": "invalid"}
    assert cell.limits[1].estimate is not None, "it is shown"


def test_without_an_unfit_metric_the_same_limit_passes():
    assert judged(PASSED, unfit=()).verdict.outcome is Outcome.PASS


def test_a_fail_on_an_unfit_metric_is_no_evidence_either():
    assert judged(PASSED, rows=both_fills(black=0.9)).verdict.outcome is Outcome.INVALID


def test_what_is_compared_with_something_absent_is_invalid_all_the_same():
    remarks = ["explainer:rise: no values: it needs attention"]
    facts = CellFacts(unfit=[Unfit(metric="auc", reason=WHY)], remarks=remarks)
    asked = plan({"metric": "auc", "better_than": "explainer:rise"}, metrics=(AUC,))
    cell = results_of(asked, facts, both_fills())
    assert {one.verdict.outcome for one in cell.limits} == {Outcome.INVALID}
    assert {one.p_opposite for one in cell.limits} == {None}, "no regression is counted on it"


@pytest.mark.parametrize("judge", ["worst", "mean"])
@pytest.mark.parametrize(("under", "outcome"), [({}, "invalid"), (BLUR, "pass")])
def test_the_worst_or_the_mean_rests_on_all_that_is_left_open(judge, under, outcome):
    # The worst is under blur, where the metric is fit: it still was chosen among both.
    rows = both_fills(black=0.1)
    cell = judged({**PASSED, "judge": judge, "under": under}, rows=rows)
    assert cell.verdict.outcome.value == outcome


def test_a_limit_that_pins_another_condition_is_judged():
    cell = judged({**PASSED, "under": BLUR})
    assert cell.verdict.outcome is Outcome.PASS
    assert not any("unfit" in one for one in cell.notes)


def test_another_metric_is_judged():
    other = AUC.model_copy(update={"name": "other"})
    assert judged(PASSED, unfit=[Unfit(metric="other", reason="why")], metrics=(AUC, other)
                  ).verdict.outcome is Outcome.PASS  # fmt: skip


def test_unfit_under_any_condition_is_unfit_everywhere():
    cell = judged({**PASSED, "under": BLUR}, unfit=[Unfit(metric="auc", reason="why")])
    assert cell.verdict.outcome is Outcome.INVALID


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_limit_that_decides_nothing_is_shown_with_a_note(severity):
    cell = judged({**PASSED, "under": BLUR}, {**PASSED, "under": BLACK, "severity": severity})
    assert cell.verdict.outcome is Outcome.PASS
    assert outcomes(cell) == {"blur": "pass", "black": "pass"}
    assert [one for one in cell.notes if WHY in one] == [
        f"auc is unfit here, and what is said of it is for information: {WHY}"
    ]


def test_a_metric_for_information_alone_decides_nothing_anyhow():
    known = AUC.model_copy(update={"information_only": "it counts"})
    cell = judged(PASSED, metrics=(known,))
    assert outcomes(cell) == {"blur": "pass", "black": "pass"}


def test_a_refused_cell_keeps_what_was_found():
    assert refused(judged(PASSED), "why").unfit == [UNFIT]


def test_pinned_conditions_meet_where_no_axis_differs():
    assert meets({"fill": "blur"}, {"fraction": 0.05})
    assert not meets({"fill": "blur", "fraction": 0.1}, {"fill": "blur", "fraction": 0.05})
