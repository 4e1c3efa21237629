"""Maps of two networks that learnt a list, with its labels and with permuted ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import fxeval
from fxeval.contracts import RowState, SaliencyMaps
from fxeval.errors import UnsupportedError
from fxeval.functional.map_structure import ssim
from fxeval.metrics.data_randomisation import METRICS, Parameters, measure
from fxeval.metrics.protocol import Student
from fxeval.records.schema import Taught
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import AtMost
from fxeval.statistics.results import results_of
from fxeval.suite.cells import Use
from fxeval.tests.black_boxes import BlackBox
from fxeval.tests.evidence import GivenMaps, evidence_of, series_of
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.subjects import make_pairs
from fxeval.tests.toy_world import SMALL, Occlusion, People, Ramp, cell_of, model
from fxeval.traits import ExplainerTraits

N = 12
RESIDUAL, SIGNED, ABSOLUTE, STRUCTURE = (metric.name for metric in METRICS)


def maps_of(seed, *, states=(), side=16):
    maps = torch.rand(N, side, side, generator=torch.Generator().manual_seed(seed))
    return SaliencyMaps(maps, None, tuple(states))


def run(true, permuted):
    """Measure given maps of the two networks."""
    evidence = evidence_of(make_pairs(N))
    of = {}

    def train(wanted):
        known = Taught(
            name=wanted.label, labels=wanted.labels, accuracy=1.0, epochs=3,
            budget=wanted.epochs, n_images=2 * N, n_identities=N, unchanged=0.0,
        )  # fmt: skip
        subject = replace(evidence.subject, name=wanted.label)
        of[wanted.label, "probe"] = {"true": true, "permuted": permuted}[wanted.labels]
        return Student(subject, known)

    given = replace(evidence, subject=replace(evidence.subject, train=train), engine=GivenMaps(of))
    ledger = measure(given, Parameters(epochs=7))
    return ledger, {metric: one for (metric, *_), one in series_of(ledger).items()}


def cells(one):
    """Pool a map of 14 x 14 pixels to 28 x 28 cells: each pixel is four of them."""
    tall = np.repeat(np.repeat(one, 2, axis=0), 2, axis=1)
    return np.round((tall - tall.min()) / (tall.max() - tall.min()), 9)


def test_the_values_are_those_of_a_plain_loop():
    true, permuted = maps_of(1, side=14), maps_of(2, side=14)
    ledger, series = run(true, permuted)
    pairs = [*zip(true.positive.double(), permuted.positive.double(), strict=True)]
    expected = [spearmanr(one.flatten(), two.flatten()).statistic for one, two in pairs]
    assert_rounded(series[SIGNED].values, expected, terms=196, scale=1, unit=FLOAT64)
    assert_rounded(series[ABSOLUTE].values, np.abs(expected), terms=196, scale=1, unit=FLOAT64)
    small = [[cells(one.double().numpy()) for one in maps.positive] for maps in (true, permuted)]
    for row in range(N):  # each pair is of a person of its own
        others = [other for other in range(N) if other != row]
        left = [
            np.round(of[row] - sum(of[other] for other in others) / len(others), 7) for of in small
        ]
        rho = abs(spearmanr(left[0].ravel(), left[1].ravel()).statistic)
        assert series[RESIDUAL].values[row] == pytest.approx(rho, abs=1e-6)
    structure = ssim(true.positive, permuted.positive)
    np.testing.assert_array_equal(series[STRUCTURE].values, structure)
    assert [one.labels for one in ledger.taught] == ["true", "permuted"]
    assert {one.budget for one in ledger.taught} == {7}


def test_an_inverted_map_is_unchanged_once_the_sign_is_dropped():
    true = maps_of(1)
    _, series = run(true, SaliencyMaps(1 - true.positive, None, ()))
    assert np.allclose(series[SIGNED].values, -1)
    assert np.allclose(series[ABSOLUTE].values, 1)
    assert np.allclose(series[RESIDUAL].values, 1)


def test_the_same_map_for_everybody_has_no_residual_but_is_unchanged():
    same = SaliencyMaps(maps_of(1).positive[:1].expand(N, 16, 16).clone(), None, ())
    _, series = run(same, same)
    assert series[RESIDUAL].values.tolist() == [0.0] * N  # nothing is of this face: no evidence
    assert series[SIGNED].values.tolist() == [1.0] * N
    assert np.allclose(series[STRUCTURE].values, 1)


@pytest.mark.parametrize("labels", ["true", "permuted"])
def test_a_constant_map_counts_as_a_random_order_and_is_a_fault_of_the_first_alone(labels):
    flat = SaliencyMaps(torch.zeros(N, 16, 16), None, (RowState.DEGENERATE_MAP,) * N)
    given = (flat, maps_of(2)) if labels == "true" else (maps_of(2), flat)
    ledger, series = run(*given)
    assert abs(np.median(series[SIGNED].values)) < 0.2
    assert np.isfinite(series[SIGNED].values).all()
    assert series[RESIDUAL].values.tolist() == series[STRUCTURE].values.tolist() == [0.0] * N
    rows = ledger.rows("cell")
    state = RowState.DEGENERATE_MAP if labels == "true" else RowState.OK
    assert {row.state for row in rows} == set(series[SIGNED].states) == {state}


def test_a_broken_map_of_either_network_has_no_value():
    true = maps_of(1, states=[RowState.EXPLAINER_RAISED] + [RowState.OK] * (N - 1))
    permuted = maps_of(2, states=[RowState.OK, RowState.NAN_MAP] + [RowState.OK] * (N - 2))
    permuted.positive[1] = torch.nan
    _, series = run(true, permuted)
    for name in (RESIDUAL, SIGNED, ABSOLUTE, STRUCTURE):
        assert np.flatnonzero(np.isnan(series[name].values)).tolist() == [0, 1]
        assert series[name].states[:2] == (RowState.EXPLAINER_RAISED, RowState.NAN_MAP)


def test_maps_that_are_too_small_have_no_structure_and_say_so():
    ledger, series = run(maps_of(1, side=8), maps_of(2, side=8))
    assert set(series[STRUCTURE].states) == {RowState.EXCLUDED}
    assert np.isfinite(series[RESIDUAL].values).all()
    assert ledger.remarks == [f"{STRUCTURE}: no values: maps have sides of 11 pixels at least"]


# In a toy world: 16 x 16 pixels, 24 people of four images each.

WORLD = People(24)
LIMITS = [AtMost(name, at_most=0.4, severity="info") for name in (RESIDUAL, ABSOLUTE)]


@pytest.fixture(scope="module")
def workshop():
    return Workshop(batch_size=16, emit=lambda rows: None, progress=lambda *_: None)


def cell(workshop, explainer=None, epochs=60, network=None, source=WORLD):
    """Measure one cell; explainers have names of their own, so that none gets another's maps."""
    explainer, rows = explainer or Occlusion(), []
    workshop.emit = rows.extend
    asked = replace(
        cell_of("sanity.data_randomisation", Parameters(epochs=epochs), LIMITS),
        explainer=Use(type(explainer).__name__.lower()),
    )
    result = measure_cell(asked, Subjects(network or model(), explainer, source), workshop)
    return result, {one.metric: one for one in result.estimates}, rows


def test_both_networks_are_trained_once_and_the_record_says_how_far_they_came(workshop):
    result, values, rows = cell(workshop)
    for one in result.taught:
        assert one.accuracy >= 0.99
        assert one.epochs < one.budget == 60
        assert (one.n_images, one.n_identities) == (96, 24)
    true, permuted = result.taught
    assert true.unchanged == 1.0
    assert permuted.unchanged < 0.2
    assert any("the question is about the explainer" in note for note in result.notes)
    assert values[ABSOLUTE].value < 0.6  # the planted explainer follows what was learnt
    trained = sum(2 * 96 * one.epochs for one in result.taught)
    assert result.forwards > trained
    again, _, _ = cell(workshop, Ramp())
    assert again.taught == result.taught
    assert again.forwards < trained  # not trained again
    assert results_of(result, result, rows).verdict == result.verdict


def test_a_map_that_does_not_read_the_network_is_unchanged(workshop):
    _, values, _ = cell(workshop, Ramp())
    assert values[SIGNED].value == 1.0
    assert values[STRUCTURE].value == pytest.approx(1.0)
    assert values[RESIDUAL].value < 0.4  # of such a map this alone says nothing


def test_nothing_is_passed_as_all_is_information(workshop):
    for explainer in (Occlusion(), Ramp()):
        result, _, _ = cell(workshop, explainer)
        assert result.verdict.outcome == "information"
        assert result.verdict.reason == "no limit decides: information only"
        assert all(metric.information_only for metric in result.metrics)


def test_networks_that_did_not_learn_are_the_reason(workshop):
    result, _, _ = cell(workshop, epochs=1)
    assert result.verdict.outcome == "information"
    assert "of its labels after 1 epochs (at least 99% needed)" in result.verdict.reason


def test_too_few_people_are_the_reason():
    workshop = Workshop(batch_size=16, emit=lambda rows: None, progress=lambda *_: None)
    result, _, _ = cell(workshop, source=People(10))
    assert "learnt the faces of 10 people (at least 20 needed)" in result.verdict.reason


def test_a_black_box_gets_the_same_values(workshop):
    _, expected, _ = cell(workshop)
    result, found, _ = cell(workshop, network=BlackBox(model().embed, crop=SMALL))
    assert [one.accuracy for one in result.taught] == [1.0, 1.0]
    assert {name: one.value for name, one in found.items()} == {
        name: one.value for name, one in expected.items()
    }


def test_given_maps_are_not_asked_to_follow_another_network(workshop):
    class Given(Ramp):
        traits = ExplainerTraits(maps_are_given=True)

    with pytest.raises(UnsupportedError, match="do not change with a network that is trained"):
        cell(workshop, Given())


@pytest.mark.slow
def test_on_the_bundled_faces_both_sets_of_labels_are_learnt(tmp_path):
    class Centre:
        def explain(self, model, probes, references, *, contrast=None, generator):
            side = torch.arange(112.0) - 55.5
            map_ = torch.exp(-(side[:, None] ** 2 + side**2) / 1568)
            return map_.expand(len(probes), 112, 112).clone()

    for explainer, unchanged in (("gradcam", False), ("gradient", False), (Centre(), True)):
        record = fxeval.evaluate(
            "mini_resnet", explainer, "rendered", check="sanity.data_randomisation", n=40,
            reports=tmp_path,
        )  # fmt: skip
        (found,) = record.cells
        assert all(one.accuracy >= 0.99 for one in found.taught)
        values = {one.metric: one.value for one in found.estimates}
        assert (values[ABSOLUTE] > 0.9) == unchanged
