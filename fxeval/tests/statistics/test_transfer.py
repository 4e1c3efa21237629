"""Transfer matrices from the cells of a record, and the mixture that betrays masks of wrong area.

The table is that of the poster on generalisability and transferability: Grad-CAM++, CPLFW, 1 % of
black pixels.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import least_squares

from fxeval.records.form import VerdictEntry
from fxeval.records.judged import EstimateEntry, MetricEntry
from fxeval.records.reading import load_record, read_record
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Measured, Row
from fxeval.records.writing import dump
from fxeval.results import Outcome
from fxeval.seeding import generator_of
from fxeval.statistics.mixture import area_warning, mixture_of
from fxeval.statistics.results import rederived, results_of
from fxeval.statistics.transfer import KIND, transfers_of
from fxeval.tests import records

MODELS = ("IR50_I", "FN_C", "FN_V", "IR100", "IR18", "IR50", "IR50_S")
POSTER = np.array(
    [
        [0.759, 0.898, 0.936, 0.935, 0.935, 0.765, 0.852],
        [0.284, 0.337, 0.332, 0.392, 0.351, 0.284, 0.326],
        [0.042, 0.075, 0.051, 0.147, 0.081, 0.052, 0.077],
        [0.112, 0.161, 0.146, 0.232, 0.173, 0.120, 0.158],
        [0.142, 0.195, 0.181, 0.261, 0.209, 0.150, 0.189],
        [0.122, 0.176, 0.162, 0.244, 0.188, 0.132, 0.170],
        [0.761, 0.898, 0.936, 0.934, 0.934, 0.766, 0.852],
    ]
)
# Two of the generators change nothing: theirs are very probably the clean rates.
CLEAN = (POSTER[0] + POSTER[6]) / 2
TOUCHING = POSTER[1:6]
UNKNOWN = np.full((7, 7), math.nan)

METRICS = [
    MetricEntry(
        name=name, title=name, unit="share", better="lower", range=(-2.0, 2.0), statistic="mean",
        source="s", meaning="m",
    )
    for name in ("occlusion_tmr", "occlusion_cosine_drop", "transfer_index", "occlusion_area")
]  # fmt: skip


def entry(metric, map_, evaluator, value, *, fraction=0.01, method="by hand", n=100, **more):
    known = value is not None and not math.isnan(value)
    return EstimateEntry(
        metric=metric, map=map_, value=value if known else None,
        low=value - 0.05 if known else None, high=value + 0.05 if known else None,
        confidence=0.95, n_pairs=n, n_identities=n, method=method, states={},
        under={"evaluator": evaluator, "fill": "black", "fraction": fraction, **more},
    )  # fmt: skip


def cell(model, entries, *, outcome=Outcome.PASS, kind=KIND, check="t", remarks=()):
    return CellResult(
        id=f"{check}[{model}-cam-p]", check=check, kind=kind, why="", where="s.yaml:1:1",
        model=model, explainer="cam", pairs="p", parameters={}, confidence=0.95,
        on_inconclusive="fail", metrics=METRICS, asked=[], n_pairs=100, n_identities=100,
        verdict=VerdictEntry(outcome=outcome, reason="because"), estimates=entries,
        remarks=list(remarks),
    )  # fmt: skip


def cells(accepted=POSTER, clean=CLEAN, models=MODELS, area=None):
    return [
        cell(
            generator,
            [
                one
                for j, evaluator in enumerate(models)
                for one in (
                    entry("occlusion_tmr", "explainer", evaluator, accepted[i][j]),
                    entry("occlusion_tmr", "control.unoccluded", evaluator, clean[j]),
                    entry("occlusion_tmr", "control.random_pixels", evaluator, clean[j] - 0.01),
                    *(
                        []
                        if area is None
                        else [entry("occlusion_area", "explainer", evaluator, area)]
                    ),
                )
            ],
        )
        for i, generator in enumerate(models)
    ]


# --- the matrix


def test_the_posters_table_comes_back_with_its_means():
    [found] = transfers_of(cells())
    assert (found.check, found.explainer, found.pairs) == ("t", "cam", "p")
    assert (found.fill, found.fraction) == ("black", 0.01)
    assert tuple(found.generators) == tuple(found.evaluators) == MODELS
    assert found.clean == pytest.approx(CLEAN)
    table = found.table("occlusion_tmr")
    assert np.array(table.values) == pytest.approx(POSTER)
    assert np.array(table.low) == pytest.approx(POSTER - 0.05)
    means = (table.mean, table.mean_with_self, table.mean_without_self)
    assert [round(one, 3) for one in means] == [0.380, 0.367, 0.382]
    assert table.row_means == pytest.approx(POSTER.mean(axis=1))
    assert table.column_means == pytest.approx(POSTER.mean(axis=0))
    rest = POSTER - np.diag(np.diag(POSTER))
    assert table.row_means_without_self == pytest.approx(rest.sum(axis=1) / 6)
    assert table.column_means_without_self == pytest.approx(rest.sum(axis=0) / 6)
    expected = stats.spearmanr(POSTER, axis=1).statistic
    assert np.array(table.agreement) == pytest.approx(expected)
    assert found.controls[0].map == "control.random_pixels"
    assert found.controls[0].tmr == pytest.approx(CLEAN - 0.01)
    assert found.controls[0].cosine_drop == [None] * 7
    assert found.remarks == []
    assert found.table("transfer_index") is None


def test_one_generators_acceptance_is_a_constant_share_of_the_clean_one():
    assert [f"{one:.3f}" for one in TOUCHING[0] / CLEAN] == [
        "0.374", "0.375", "0.355", "0.419", "0.376", "0.371", "0.383"
    ]  # fmt: skip


def test_each_check_fill_and_fraction_has_its_matrix_and_slices_have_none():
    some = cells()
    more = [entry("occlusion_tmr", "explainer", one, 0.5, fraction=0.05) for one in MODELS]
    of_some = [entry("occlusion_tmr", "explainer", "IR50", 0.1, age="old")]
    some[0] = some[0].model_copy(update={"estimates": [*some[0].estimates, *more, *of_some]})
    another = cell("a", [entry("occlusion_tmr", "explainer", "a", 0.5)], check="u")
    elsewhere = cell("a", [entry("occlusion_tmr", "explainer", "a", 0.5)], kind="other.kind")
    found = transfers_of([*some, another, elsewhere])
    assert [(one.check, one.fraction) for one in found] == [("t", 0.01), ("t", 0.05), ("u", 0.01)]
    assert found[1].table("occlusion_tmr").values[0] == [0.5] * 7
    assert found[1].table("occlusion_tmr").values[1] == [None] * 7
    assert transfers_of([elsewhere]) == []


def test_what_is_missing_is_null_and_said():
    accepted = POSTER[:3, :3].copy()
    accepted[1, 2] = math.nan
    some = cells(accepted, CLEAN[:3], MODELS[:3])
    refused = cell("IR100", [], outcome=Outcome.UNSUPPORTED)
    index = entry("transfer_index", "explainer", "FN_V", None, method="nothing to compare with")
    some[0] = some[0].model_copy(
        update={
            "estimates": [
                *some[0].estimates,
                index,
                entry("occlusion_tmr", "explainer", "gone", None, n=0, method="no row has a value"),
            ],
            "remarks": ["evaluator gone: no values: it has no threshold"],
        }
    )
    run_no_more = ["t[IR18-cam-p]", "t[IR18-other-p]", "u[IR18-cam-p]"]
    [found] = transfers_of([*some, refused], run_no_more)
    assert found.generators == [*MODELS[:3], "IR100"]
    assert found.evaluators == [*MODELS[:3], "gone"]
    table = found.table("occlusion_tmr")
    assert table.values[1][2] is None
    assert table.values[3] == [None] * 4
    assert (table.row_means[3], table.column_means[3]) == (None, None)
    assert table.row_means[1] == pytest.approx(POSTER[1, :2].mean())
    assert table.agreement[0][1] is None  # two evaluators have no order
    assert table.agreement[0][2] == pytest.approx(0.5)
    assert found.clean[3] is None
    assert "IR100 as a generator: unsupported: because" in found.remarks
    assert "t[IR18-cam-p]: not run" in found.remarks
    assert not any("other" in one or "u[" in one for one in found.remarks)
    assert "no occlusion_tmr of FN_C on FN_V: by hand" in found.remarks
    assert "no transfer_index of IR50_I on FN_V: nothing to compare with" in found.remarks
    assert (
        "no occlusion_tmr, transfer_index of IR50_I on gone: evaluator gone: no values: it has no "
        "threshold"
    ) in found.remarks
    assert "gone: no acceptance was measured with nothing occluded" in found.remarks


def test_cells_with_other_rows_are_pointed_out():
    some = cells()
    other = [
        one.model_copy(update={"value": 0.5})
        if (one.map, one.under["evaluator"]) == ("control.unoccluded", "FN_C")
        else one
        for one in some[3].estimates
    ]
    some[3] = some[3].model_copy(update={"estimates": other})
    [found] = transfers_of(some)
    assert found.clean[1] == pytest.approx(0.898)  # its own cell's
    assert found.remarks == [
        "FN_C: the cells have other rows, and with nothing occluded it accepts 0.5 to 0.898 of them"
    ]


def test_a_record_judged_again_has_the_same_matrices():
    plan = CellPlan(**{key: getattr(cell("a", []), key) for key in CellPlan.model_fields})
    rows = [
        Row(
            cell=plan.id, row=f"r{place:02}", state="ok", identities=[place],
            measured=[
                Measured(
                    map=map_, under={"evaluator": evaluator, "fill": "black", "fraction": 0.01},
                    values={"occlusion_tmr": float(place % divisor > 0)},
                    states={"occlusion_tmr": "ok"},
                )
                for map_, divisor in (("explainer", 2), ("control.unoccluded", 9))
                for evaluator in "abc"
            ],
        )
        for place in range(18)
    ]  # fmt: skip
    judged = results_of(plan, CellFacts(), rows)
    example = load_record(Path(records.__file__).parent / "example_v2.json")
    record = example.model_copy(update={"cells": [judged], "transfers": transfers_of([judged])})
    assert record.transfers[0].table("occlusion_tmr").values == [[0.5] * 3]
    assert record.transfers[0].clean == pytest.approx([8 / 9] * 3)
    again = read_record(json.loads(dump(record)))
    assert again.transfers == record.transfers
    assert rederived(again.model_copy(update={"transfers": []}), rows).transfers == record.transfers
    assert load_record(Path(records.__file__).parent / "example_v2.json").transfers == []


@pytest.mark.parametrize(("rows", "expected"), [
    ([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]], 1.0),
    ([[0.1, 0.2, 0.3], [0.7, 0.6, 0.5]], -1.0),
    ([[0.1, 0.2, 0.3], [0.5, 0.5, 0.5]], None),
    ([[0.1, 0.2], [0.5, 0.6]], None),
])  # fmt: skip
def test_generators_agree_as_far_as_they_rank_evaluators_alike(rows, expected):
    models = MODELS[: len(rows[0])]
    some = cells([*rows, *rows][: len(models)], CLEAN[: len(models)], models)
    [found] = transfers_of(some)
    assert found.table("occlusion_tmr").agreement[0][1] == (
        None if expected is None else pytest.approx(expected)
    )


# --- the mixture


def residuals(fit, accepted, clean):
    p, c = np.array(fit.untouched), np.array(fit.remaining)
    return np.outer(p, clean) + np.outer(1.0 - p, c) - accepted


def test_the_posters_table_is_a_mixture():
    fit = mixture_of(TOUCHING, CLEAN)
    assert (round(fit.rmse, 4), round(fit.largest_error, 3)) == (0.0035, 0.013)
    assert (round(fit.explained, 4), fit.n_values) == (0.9985, 35)
    error = residuals(fit, TOUCHING, CLEAN)
    assert fit.rmse == pytest.approx(np.sqrt((error**2).mean()))
    # The published analysis lies on the same ridge: 1 - p and clean - c times one factor.
    published = np.array([0.369, 0.072, 0.169, 0.206, 0.184])
    factor = (1.0 - published) / (1.0 - np.array(fit.untouched))
    assert np.ptp(factor) < 0.002
    rest = CLEAN - (CLEAN - np.array(fit.remaining)) / factor.mean()
    assert rest.round(3)[3] == 0.086  # IR100
    assert (np.delete(rest, 3).min().round(3), np.delete(rest, 3).max().round(3)) == (-0.016, 0.017)
    assert np.abs(np.array(fit.untouched) - published).max() < 0.015
    assert np.abs(fit.remaining).max() < 0.1


def test_the_fit_is_the_least_squares_of_another_solver():
    rng = generator_of("mixture")
    for _ in range(5):
        clean = rng.uniform(0.7, 1.0, 5)
        accepted = clean * rng.uniform(0.2, 1.0, (4, 5))
        accepted[0, 1] = math.nan
        known = np.isfinite(accepted)
        fit = mixture_of(accepted, clean)

        def error(x, accepted=accepted, clean=clean, known=known):
            model = np.outer(x[:4], clean) + np.outer(1.0 - x[:4], x[4:])
            return (model - accepted)[known]

        bounds = ([0.0] * 4 + [-10.0] * 5, [1.0] * 4 + [10.0] * 5)
        starts = [np.full(9, 0.4), np.array([0.6] * 4 + [0.1] * 5)]
        best = min(
            (least_squares(error, one, bounds=bounds, xtol=1e-14, ftol=1e-14) for one in starts),
            key=lambda one: one.cost,
        )
        assert fit.rmse == pytest.approx(np.sqrt(2.0 * best.cost / known.sum()), rel=1e-5)
        assert residuals(fit, accepted, clean)[known] == pytest.approx(best.fun, abs=1e-5)
        assert all(0.0 <= one <= 1.0 for one in fit.untouched)


def test_planted_shares_come_back():
    clean, share = np.array([0.9, 0.8, 0.95, 0.7]), np.array([0.2, 0.5, 1.0])
    fit = mixture_of(np.outer(share, clean), clean)
    assert fit.untouched == pytest.approx(share)
    assert fit.remaining == pytest.approx(np.zeros(4), abs=1e-12)
    assert fit.rmse == pytest.approx(0.0, abs=1e-12)
    rejected = mixture_of(np.zeros((3, 4)), clean)  # every face is covered
    assert rejected.untouched == pytest.approx(np.zeros(3), abs=1e-12)
    assert rejected.explained is None


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        (TOUCHING[:1], "no mixture: 1 generators and 7 evaluators with values"),
        (TOUCHING[:, :2], "no mixture: 5 generators and 2 evaluators with values"),
        (np.tile(CLEAN, (3, 1)), "no mixture: no generator's maps make the evaluators reject more"),
        (np.array([[0.1, 0.2, math.nan], [0.1, math.nan, 0.3]]), "no mixture: 4 values are too"),
    ],
)
def test_no_mixture_is_fitted_to_too_little(accepted, words):
    assert mixture_of(accepted, CLEAN[: accepted.shape[1]]).startswith(words)


# --- the warning


def test_the_posters_table_is_warned_of():
    [found] = transfers_of(cells())
    assert found.warning.startswith(
        "mask area artefact? Of each generator's pairs a fixed share is untouched (9% to 38%), and "
        "every evaluator alike rejects the others (RMSE 0.0030)."
    )
    assert found.mixture.n_values == 49
    assert found.mixture_text.startswith("a mixture fits the 49 acceptances with an RMSE of 0.0030")
    assert "untouched are IR50_I 100%, FN_C 38%, FN_V 9%" in found.mixture_text


def test_masks_of_the_area_that_was_asked_for_are_no_artefact():
    [exact] = transfers_of(cells(area=0.0102))
    assert exact.warning == ""
    assert exact.mixture is not None
    [whole] = transfers_of(cells(area=0.63))
    assert "asked for was a fraction of 0.01. Up to 0.63 of the pixels" in whole.warning


def covered(G, E, n, rng):
    """Whole faces are covered, of another share of the people for each generator."""
    ability = rng.uniform(0.75, 0.98, E)
    clean = rng.random((n, E)) < ability
    share = rng.uniform(0.2, 0.8, G)
    accepted = [(clean & (rng.random(n) >= one)[:, None]).mean(axis=0) for one in share]
    return np.array(accepted), clean.mean(axis=0)


def honest(G, E, n, rng):
    """Each map costs each evaluator what it needs of it."""
    clean = rng.uniform(0.75, 0.98, E)
    need = rng.lognormal(-0.5, 0.5, (1, E)) * rng.lognormal(0.0, 0.3, (G, E))
    accepted = clean * np.exp(-need * rng.uniform(0.2, 1.5, (G, 1)))
    return rng.binomial(n, accepted) / n, clean


@pytest.mark.parametrize(("world", "least", "most"), [(covered, 0.95, 1.0), (honest, 0.0, 0.0)])
def test_whole_faces_are_told_from_honest_masks(world, least, most):
    rng = generator_of("worlds", world.__name__)
    fired = []
    for _ in range(60):
        accepted, clean = world(5, 6, 3000, rng)
        fit = mixture_of(accepted, clean)
        fired.append(bool(area_warning(fit, accepted, clean, np.full((5, 6), math.nan), 0.01)))
    assert least <= np.mean(fired) <= most


@pytest.mark.parametrize("accepted", [
    np.tile(CLEAN, (3, 1)) * np.array([[0.99], [0.97], [0.95]]),  # nobody is rejected to speak of
    np.tile(CLEAN, (3, 1)) * np.array([[0.3], [1.0], [1.0]]),  # a single generator fits anything
    np.outer([0.2, 0.5, 0.7], CLEAN) + np.outer([0.8, 0.5, 0.3], [0.0, 0.3] * 3 + [0.0]),
])  # fmt: skip
def test_a_mixture_alone_is_no_artefact(accepted):
    fit = mixture_of(accepted, CLEAN)
    assert fit.rmse < 0.01
    assert area_warning(fit, accepted, CLEAN, UNKNOWN[:3], 0.01) == ""
