"""Occlusion by each image's own map, against random places: a plain reference, and controls."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fxeval.contracts import ExplainerTraits, SaliencyMaps
from fxeval.errors import ModelContractError
from fxeval.functional.ranking import count
from fxeval.metrics import CATALOGUE
from fxeval.metrics.guided_occlusion import METRICS, Parameters, measure
from fxeval.results import Outcome
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.suite.cells import Use
from fxeval.tests import planted_people as plain
from fxeval.tests.evidence import evidence_of, subject_of
from fxeval.tests.planted_people import SQUARE, Constant, Knowing, Pixels, Planted, pixels
from fxeval.tests.rounding import FLOAT32, assert_rounded
from fxeval.tests.subjects import CountingModel, make_pairs
from fxeval.tests.toy_world import People, Ramp, cell_of, measured, model

KIND = "faithfulness.guided_occlusion"
DROP, AREA = (metric.name for metric in METRICS)
RANDOM = ("random_pixels", "random_blobs")
BETTER = tuple(BetterThan(DROP, better_than=f"control.{name}") for name in RANDOM)


def counting(weight):
    return CountingModel(Pixels(weight))


def run(explainer, *, limits=BETTER, **parameters):
    given = {"fractions": (SQUARE,), **parameters}
    return measured(
        KIND, Parameters(**given), explainer=explainer, source=Planted(), network=pixels(),
        limits=limits,
    )  # fmt: skip


def values(rows, metric, map_="explainer", evaluator="a", fraction=SQUARE):
    return {
        row.row: one.values[metric]
        for row in rows
        for one in row.measured
        if (one.map, one.under["evaluator"], one.under["fraction"]) == (map_, evaluator, fraction)
    }


@pytest.mark.parametrize("compared_with", ["reference", "itself"])
@pytest.mark.parametrize("side", ["probe", "reference"])
def test_a_reference_of_plain_loops_agrees(side, compared_with):
    result, rows = run(Knowing(), side=side, compared_with=compared_with)
    source, model, listing = Planted(), pixels(), Planted().listing()
    found, area = values(rows, DROP), values(rows, AREA)
    assert set(area.values()) == {16 / 256}
    expected = []
    for probe, reference, is_mated in plain.pairs_of(listing):
        if not is_mated:
            continue
        faces = {id: source.images([id], model.crop)[0].numpy() for id in (probe, reference)}
        changed, other = (probe, reference) if side == "probe" else (reference, probe)
        given = torch.from_numpy(faces[changed]).float()[None] / 255
        map_ = Knowing().explain(None, given, given, generator=None)[0].double().numpy()
        hidden = plain.occluded(faces[changed], map_, SQUARE, 0.0)
        against = other if compared_with == "reference" else changed
        one = plain.compared(faces, (against, changed, True), hidden, model)
        expected.append(one.drop)
    assert len(found) == len(expected) == 72
    both = np.array([sorted(found.values()), sorted(expected)])
    assert_rounded(both[0], both[1], terms=768, unit=FLOAT32, scale=1)
    [one] = [e for e in result.estimates if (e.metric, e.map) == (DROP, "explainer")]
    assert one.value == pytest.approx(np.mean(expected))


def test_planted_truth_passes_and_the_area_is_the_same_for_all():
    result, rows = run(Knowing())
    assert [limit.verdict.outcome for limit in result.limits] == [Outcome.PASS] * 2
    for name in RANDOM:
        assert set(values(rows, AREA, f"control.{name}").values()) == {16 / 256}
    assert np.mean([*values(rows, DROP).values()]) > 0.5


@pytest.mark.parametrize("explainer", [Constant(), Constant(1.0), Ramp()], ids=str)
def test_a_map_that_knows_nothing_is_better_than_no_random_one(explainer):
    result, _ = run(explainer)
    assert Outcome.PASS not in [limit.verdict.outcome for limit in result.limits]


def test_random_places_are_drawn_ten_times_a_pair():
    assert Parameters().repeats == 10
    assert (Parameters().fractions, Parameters().fills) == ((0.01,), ("black",))
    assert Parameters().controls == RANDOM

    def spread(repeats):
        _, rows = run(Constant(), repeats=repeats, limits=(), controls=("random_pixels",))
        return np.std([*values(rows, DROP, "control.random_pixels").values()])

    assert spread(10) < 0.6 * spread(1)


def test_the_pixels_of_each_size_are_those_of_the_specification():
    assert [count(0.01, n * n) for n in (112, 150, 160)] == [125, 225, 256]


def test_the_map_of_the_cells_model_is_carried_to_the_evaluators():
    """The explainer's square is right for one model; the other looks nowhere but at the frame."""
    pairs = make_pairs(6)
    blind = torch.ones(768)
    blind.view(3, 16, 16)[:, 4:8, 4:8] = 0

    def subject(name, weight):
        return subject_of(counting(weight), pairs.faces(), threshold=0.5, name=name)

    maps = torch.zeros(6, 16, 16)
    maps[:, 4:8, 4:8] = 1.0
    given = evidence_of(
        pairs, counting(1 - blind + 1e-3), maps={"probe": SaliencyMaps(maps)},
        threshold=0.5,
    )  # fmt: skip
    other = subject("blind", blind)
    given = replace(given, others={"evaluators": [other]})
    ledger = measure(given, Parameters(fractions=(SQUARE,), controls=()))
    rows = ledger.rows("cell")
    own = [*values(rows, DROP, evaluator="own").values()]
    carried = [*values(rows, DROP, evaluator="blind").values()]
    assert min(own) > 0.2
    assert np.abs(carried).max() < 1e-6  # its embedding holds nothing of the square
    assert {one.under["evaluator"] for row in rows for one in row.measured} == {"own", "blind"}


def test_further_models_of_a_check_are_asked_and_an_absent_one_passes_nothing():
    written = []
    workshop = Workshop(batch_size=16, emit=written.extend, progress=lambda *_: None)
    limits = [AtLeast(DROP, at_least=0.2, under={"evaluator": name}) for name in ("a", "b", "c")]
    cell = replace(
        cell_of(KIND, Parameters(fractions=(SQUARE,)), limits),
        further={"evaluators": (Use("b"), Use("c"))},
    )
    others = {"b": pixels("b", seed=1), "c": ModelContractError("model 'c': no weights")}
    subjects = Subjects(pixels("a"), Knowing(), Planted(), {"evaluators": others})
    result = measure_cell(cell, subjects, workshop)
    own, other, absent = result.limits
    assert [one.verdict.outcome for one in (own, other)] == [Outcome.PASS] * 2
    assert absent.verdict.outcome is Outcome.INVALID
    assert "evaluator c: no values: " in absent.verdict.reason
    first, second, none = (values(written, DROP, evaluator=name) for name in ("a", "b", "c"))
    assert first.keys() == second.keys() == none.keys()
    assert first != second
    assert set(none.values()) == {None}


@dataclass(frozen=True)
class Bright:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return probes.mean(1)


def test_rows_do_not_depend_on_the_batch():
    def rows(batch):
        return measured(
            KIND, Parameters(fractions=(0.01, 0.1)), explainer=Bright(), source=Planted(n=6),
            network=pixels(), batch=batch,
        )[1]  # fmt: skip

    assert rows(1) == rows(5) == rows(64)  # to the last bit


@pytest.mark.parametrize(
    "given",
    [
        {"compared_with": "anybody"}, {"side": "both"}, {"repeats": 21}, {"fractions": (2,)},
        {"evaluators": ()}, {"evaluators": ("a", "a")}, {"legacy_percentile": True},
        {"controls": ("random_pixels", "random_pixels")},
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters_are_refused(given):
    with pytest.raises(ValidationError):
        Parameters(**given)


@dataclass(frozen=True)
class Unnamed(People):
    """People in a list that names no nonmates, so that they are drawn."""

    def listing(self):
        return replace(super().listing(), contrast=(), contrast_identity=())


@dataclass(frozen=True)
class Against:
    """Differs from the drawn nonmate."""

    traits = ExplainerTraits(needs=frozenset({"contrast"}))

    def explain(self, model, probes, references, *, contrast, generator):
        return (probes - contrast).abs().mean(1)


def test_maps_are_not_those_of_another_check_that_drew_other_nonmates():
    """Rows of a check on several models are named across crops, and nonmates drawn by the names."""
    network, explainer, source = model(), Against(), Unnamed()
    workshop = Workshop(batch_size=16, emit=list, progress=lambda *_: None)
    deletion = "faithfulness.deletion_insertion"
    asked = CATALOGUE[deletion].Parameters(steps=2, fills=("mean",), controls=())

    def of(kind, parameters, workshop):
        given = {"explainer": explainer, "source": source, "network": network}
        return measured(kind, parameters, workshop=workshop, **given)[1]

    alone = of(deletion, asked, None)
    of(KIND, Parameters(repeats=1), workshop)
    assert of(deletion, asked, workshop) == alone
