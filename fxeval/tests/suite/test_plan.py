"""Plans: which cells a suite asks for, and in which order."""

from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.metrics.model_randomisation import Parameters
from fxeval.statistics.limits import AtMost
from fxeval.suite import plan
from fxeval.suite.cells import Use
from fxeval.suite.plan import Check, Subject, Suite, cells

LIMIT = AtMost("rank_correlation_fully_randomised", at_most=0.4, where="s.yaml:9:9")


def subjects(*names, n=None, **params):
    return tuple(Subject(name, Use(name, params, "s.yaml:2:1"), n) for name in names)


def check(id="sane", **changes):
    return Check(
        **{
            "id": id,
            "kind": "sanity.model_randomisation",
            "why": "because",
            "parameters": Parameters(redraws=2),
            "limits": (LIMIT,),
            "models": subjects("net"),
            "explainers": subjects("cam"),
            "pairs": subjects("faces", n=40),
            "marks": (),
            "where": "s.yaml:4:5",
            **changes,
        }
    )


def suite(*checks):
    return Suite(
        path=Path("s.yaml"),
        name="base",
        title="Base",
        seed=7,
        device="cuda:1",
        confidence=0.9,
        on_inconclusive="warn",
        on_unsupported="skip",
        checks=checks,
        formats=("html",),
        digest="0" * 64,
    )


def test_a_cell_carries_all_that_its_suite_says():
    [cell] = cells(suite(check()))
    assert cell.id == "sane[net-cam-faces]"
    assert (cell.suite, cell.check, cell.kind) == ("base", "sane", "sanity.model_randomisation")
    assert (cell.why, cell.where, cell.n) == ("because", "s.yaml:4:5", 40)
    assert (cell.model.id, cell.explainer.id, cell.pairs.id) == ("net", "cam", "faces")
    assert cell.parameters == Parameters(redraws=2)
    assert cell.limits == (LIMIT,)
    assert (cell.seed, cell.device, cell.confidence) == (7, "cuda:1", 0.9)
    assert (cell.on_inconclusive, cell.on_unsupported) == ("warn", "skip")


def test_all_cells_of_a_model_come_together_in_the_order_of_the_file():
    one = check("one", models=subjects("b", "a"), explainers=subjects("x", "y"))
    two = check("two", models=subjects("a", "c", "b"), pairs=subjects("p", "q"))
    assert [cell.id for cell in cells(suite(one, two))] == [
        "one[b-x-faces]", "one[b-y-faces]", "two[b-cam-p]", "two[b-cam-q]",
        "one[a-x-faces]", "one[a-y-faces]", "two[a-cam-p]", "two[a-cam-q]",
        "two[c-cam-p]", "two[c-cam-q]",
    ]  # fmt: skip


def test_a_model_with_other_parameters_is_another_model():
    one = check("one", models=(*subjects("net"), Subject("net_2", Use("net", {"depth": 2}))))
    two = check("two", models=one.models)
    assert [cell.id for cell in cells(suite(one, two))] == [
        "one[net-cam-faces]", "two[net-cam-faces]", "one[net_2-cam-faces]", "two[net_2-cam-faces]"
    ]  # fmt: skip


def test_ids_are_unique_where_one_explainer_comes_twice():
    explainers = (*subjects("srise"), Subject("srise_corrected", Use("srise", {"corrected": True})))
    planned = cells(suite(check("one", explainers=explainers), check("two", explainers=explainers)))
    assert len({cell.id for cell in planned}) == len(planned) == 4
    assert [cell.explainer.params for cell in planned[:2]] == [{}, {"corrected": True}]


def test_a_plan_too_large_to_run_is_refused_before_it_is_made(monkeypatch):
    many = subjects(*(f"s{number}" for number in range(1000)))
    huge = suite(check(models=many, explainers=many, pairs=many))
    with pytest.raises(SuiteError, match=r"^s.yaml:4:5: error: .* 1000000000 cells, more than"):
        cells(huge)
    monkeypatch.setattr(plan, "MAX_CELLS", 1)
    assert len(cells(suite(check()))) == 1
    with pytest.raises(SuiteError, match="2 cells, more than 1"):
        cells(suite(check("one"), check("two")))
