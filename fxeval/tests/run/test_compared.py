"""What a cell is compared with on its own rows: other explainers, and earlier runs."""

from dataclasses import dataclass

import pytest
import torch

from fxeval.contracts import ExplainerTraits, PairListing
from fxeval.errors import ExplainerContractError, FxevalError
from fxeval.metrics import CATALOGUE, add_metrics
from fxeval.results import Outcome, RowState
from fxeval.run.workshop import Workshop
from fxeval.statistics.limits import BetterThan
from fxeval.tests.protocols import KINDS, retention
from fxeval.tests.run.test_seeds import Explain, masks
from fxeval.tests.toy_world import People, Ramp, measured, model

KIND = "faithfulness.deletion_insertion"
RANDOMISATION = "sanity.model_randomisation"
PARAMETERS = CATALOGUE[KIND].Parameters(steps=2, fills=("mean",), controls=("centre", "inverse"))


@dataclass(frozen=True)
class Refusing(Ramp):
    def unsupported(self, model):
        return "it asks for a transformer"


@dataclass(frozen=True)
class Demanding(Ramp):
    def explain(self, model, probes, references, *, contrast=None, generator):
        raise ExplainerContractError("explainer 'x': expected a layer, got none.")


@dataclass(frozen=True)
class Vandal(Ramp):
    def explain(self, model, probes, references, *, contrast=None, generator):
        with torch.no_grad():
            model.module.fc.weight.mul_(0)
        return super().explain(model, probes, references, generator=generator)


@dataclass(frozen=True)
class Given(Ramp):
    traits = ExplainerTraits(maps_are_given=True)


def of(rows, map_):
    return [one for row in rows for one in row.measured if one.map == map_]


def test_another_explainer_has_the_values_of_its_own_cell():
    alone, own = measured(KIND, PARAMETERS, explainer=Ramp())
    result, rows = measured(KIND, PARAMETERS, compared={"ramp": Ramp()})
    _, without = measured(KIND, PARAMETERS)
    assert [one.values for one in of(rows, "explainer:ramp")] == [
        one.values for one in of(own, "explainer")
    ]
    assert [one.curves for one in of(rows, "explainer:ramp")] == [
        one.curves for one in of(own, "explainer")
    ]
    for row, plain in zip(rows, without, strict=True):
        assert row.measured[:-1] == plain.measured
        assert (row.state, row.diagnostics, row.thumbnail) == (
            plain.state, plain.diagnostics, plain.thumbnail,
        )  # fmt: skip
    assert "probe, ramp" in {one.side for one in result.explaining}
    assert alone.verdict.outcome is not None


def test_its_maps_are_shared_with_its_own_cell():
    other = Explain(lambda probes, generator, me: probes.mean(1))
    workshop, network = Workshop(batch_size=16, emit=list, progress=print), model()
    for _ in range(2):
        measured(KIND, PARAMETERS, compared={"other": other}, workshop=workshop, network=network)
    assert other.sizes == [16, 4, 4, 4]


def test_an_explainer_that_draws_is_compared_at_each_seed():
    _, rows = measured(KIND, PARAMETERS, compared={"drawn": Explain(masks)}, seeds=3)
    assert {one.seed for one in of(rows, "explainer")} == {0}
    assert {one.seed for one in of(rows, "explainer:drawn")} == {0, 1, 2}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Refusing(), "other cannot explain a: it asks for a transformer"),
        (Demanding(), "explainer 'x': expected a layer, got none."),
        (FxevalError("captum is not installed"), "captum is not installed"),
        (None, "expected an object with explain"),
    ],
)
def test_an_explainer_that_cannot_explain_the_model_is_left_out_and_the_cell_is_measured(
    other, reason
):
    result, rows = measured(KIND, PARAMETERS, compared={"other": other})
    (said,) = [text for text in result.remarks if text.startswith("explainer:other: no values: ")]
    assert reason in said
    assert not of(rows, "explainer:other")
    assert all(row.state is RowState.OK for row in rows)
    assert result.refusal is None
    assert [row.measured for row in rows] == [row.measured for row in measured(KIND, PARAMETERS)[1]]


def test_given_maps_cannot_be_compared_where_the_network_is_drawn_again():
    result, rows = measured(
        RANDOMISATION, CATALOGUE[RANDOMISATION].Parameters(), compared={"given": Given()}
    )
    (said,) = [text for text in result.remarks if text.startswith("explainer:given: no values: ")]
    assert "do not change with a re-drawn one" in said
    assert not of(rows, "explainer:given")
    assert len(of(rows, "explainer")) == 20


def test_broken_maps_of_another_explainer_are_its_own():
    def every_other(probes, generator, me):
        maps = probes.mean(1)
        maps[(probes.sum((1, 2, 3)) * 100).long() % 2 == 0] = torch.nan
        return maps

    result, rows = measured(KIND, PARAMETERS, compared={"other": Explain(every_other)})
    states = [one.states["deletion_auc"] for one in of(rows, "explainer:other")]
    values = [one.values["deletion_auc"] for one in of(rows, "explainer:other")]
    assert {*states} == {RowState.OK, RowState.NAN_MAP}
    assert [value is None for value in values] == [s is RowState.NAN_MAP for s in states]
    assert all(row.state is RowState.OK and row.reason == "" for row in rows)
    assert not result.problems


def test_an_explainer_that_changes_the_model_changes_no_value_of_the_others():
    _, rows = measured(KIND, PARAMETERS, compared={"vandal": Vandal()})
    _, plain = measured(KIND, PARAMETERS)
    assert {one.states["deletion_auc"] for one in of(rows, "explainer:vandal")} == {
        RowState.MODEL_CHANGED
    }
    assert of(rows, "explainer") == of(plain, "explainer")
    assert of(rows, "control.inverse") == of(plain, "control.inverse")


@dataclass(frozen=True)
class Crossed(People):
    """Pairs of a person's images, and as many of two people."""

    def listing(self):
        names = tuple(str(who) for who in range(self.n))
        others = (*names[1:], names[0])
        return PairListing(
            probe=tuple(f"{who}-0" for who in names) * 2,
            reference=tuple(f"{who}-1" for who in (*names, *others)),
            is_mated=(True,) * self.n + (False,) * self.n,
            probe_identity=names * 2,
            reference_identity=(*names, *others),
        )


def test_a_row_says_whether_it_is_mated_and_keeps_its_two_identities():
    add_metrics(KINDS)
    try:
        _, rows = measured("toy.retention_of_pairs", retention.Parameters(), source=Crossed(5))
    finally:
        add_metrics({})
    assert sorted(row.is_mated for row in rows) == [False] * 5 + [True] * 5
    for row in rows:
        one, two = row.identities
        assert (one == two) is row.is_mated


def test_a_limit_whose_other_explainer_cannot_explain_the_model_is_inconclusive_and_says_why():
    limits = [
        BetterThan("deletion_auc", better_than="explainer:other"),
        BetterThan("deletion_auc", better_than="explainer:ramp", severity="info"),
    ]
    others = {"other": Refusing(), "ramp": Ramp()}
    result, _ = measured(KIND, PARAMETERS, compared=others, limits=limits)
    of_other, of_ramp = result.limits
    assert of_other.verdict.outcome is result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "other cannot explain a: it asks for a transformer" in result.verdict.reason
    assert of_ramp.estimate is not None
