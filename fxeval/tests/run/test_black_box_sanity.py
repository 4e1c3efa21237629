"""Sanity of the maps of black boxes, for which a random network of ours stands in."""

from dataclasses import dataclass, replace

import pytest
import torch

from fxeval.functional.randomisation import embedding_spread
from fxeval.metrics import impostor_swap, model_randomisation, two_sided
from fxeval.records.schema import CellFacts, CellPlan
from fxeval.run.foreign_network import foreign
from fxeval.run.row_measuring import RowMeasuring
from fxeval.statistics.limits import AtLeast, AtMost
from fxeval.statistics.results import results_of
from fxeval.tests.subjects import CountingModel
from fxeval.tests.toy_world import SMALL, Occlusion, People, measured, model

LIMITS = (
    AtLeast("repeat", at_least=-0.9),
    AtLeast("change", at_least=-1.9),
    AtLeast("nudge", at_least=0.5),
)


class Box(CountingModel):
    """The toy network behind an interface."""

    def __init__(self):
        super().__init__(None, name="a", crop=SMALL)
        self._inner = model()

    def embed(self, images):
        return self._inner.embed(images)


@dataclass(frozen=True)
class Enough(People):
    n: int = 30


def swap(limits=LIMITS, **more):
    return measured(
        "sanity.two_sided", two_sided.Parameters(redraws=2), limits=limits, network=Box(),
        source=Enough(), explainer=Occlusion(8), **more,
    )  # fmt: skip


def test_a_black_box_passes_in_words_of_its_own_and_without_a_nudge():
    result, rows = swap()
    assert [one.name for one in result.networks] == [
        "foreign random network 1", "foreign random network 2",
    ]  # fmt: skip
    assert {one.made for one in result.networks} == {"foreign"}
    assert result.verdict.outcome == "pass"
    assert "black box: the map is not that of any network with this crop" in result.verdict.reason
    assert any("stands in for the black box" in note for note in result.notes)
    (nudge,) = (one for one in result.limits if one.metric == "nudge")
    assert (nudge.verdict.outcome, nudge.estimate) == ("unsupported", None)
    assert "does not apply to a black box" in nudge.verdict.reason
    # The same verdict from the rows and the record alone.
    plan = CellPlan(**{name: getattr(result, name) for name in CellPlan.model_fields})
    facts = CellFacts(**{name: getattr(result, name) for name in CellFacts.model_fields})
    assert results_of(plan, facts, rows) == result


def test_a_limit_that_does_not_apply_is_no_pass():
    result, _ = swap(limits=LIMITS[2:])
    assert result.verdict.outcome == "inconclusive"
    assert "no critical limit applies: nudge: does not apply" in result.verdict.reason


def test_the_other_checks_of_sanity_work_on_a_black_box():
    limits = (AtMost("absolute_rank_correlation_fully_randomised", at_most=0.99),)
    result, _ = measured(
        "sanity.model_randomisation", model_randomisation.Parameters(), limits=limits,
        network=Box(), source=Enough(), explainer=Occlusion(8),
    )  # fmt: skip
    # Its metrics decide nothing, even where no suite was there to refuse a critical limit.
    assert result.verdict.outcome == "information"
    assert [limit.verdict.outcome for limit in result.limits] == ["pass"]
    assert any("black box" in note for note in result.notes)
    result, _ = measured(
        "sanity.impostor_swap", impostor_swap.Parameters(), limits=LIMITS[:1], network=Box(),
        source=Enough(), explainer=Occlusion(8),
    )  # fmt: skip
    assert result.verdict.outcome == "pass"
    assert "black box" not in result.verdict.reason  # it needs no other network
    assert not result.networks


def test_a_foreign_network_has_the_size_of_embedding_and_weights_of_its_own():
    images = torch.rand(8, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    state = torch.random.get_rng_state()
    one, again, other = (foreign(images, 6, 5, index) for index in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        found = [net(images) for net in (one, again, other)]
    assert found[0].shape == (8, 6)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    assert embedding_spread(found[0]) > 1e-3


class Drawing(Occlusion):
    """Occlusion with a little noise from the generator, the same for every pair."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = super().explain(model, probes, references, generator=generator)
        noise = torch.from_numpy(generator.random(probes.shape[-2:])).float()
        return maps + 0.02 * noise


def test_one_seed_decides_as_the_check_draws_a_second_bank(monkeypatch):
    result, _ = measured(
        "sanity.two_sided", two_sided.Parameters(redraws=1), limits=LIMITS[:1], source=Enough(),
        explainer=Drawing(8),
    )  # fmt: skip
    assert result.repeatability.depends_on_seed
    assert result.draws_itself
    assert result.verdict.outcome == "pass"
    assert "(1 seed)" in result.verdict.reason
    assert any("conditional on its draws at 1 seed" in note for note in result.notes)
    (seed,) = (one for one in result.estimates if one.metric == "repeat_seed")
    assert -1 < seed.value < 1
    # Another check of the same explainer at one seed decides nothing.
    limits = (AtMost("absolute_rank_correlation_fully_randomised", at_most=0.99),)
    other, _ = measured(
        "sanity.model_randomisation", model_randomisation.Parameters(), limits=limits,
        explainer=Drawing(8), source=Enough(),
    )  # fmt: skip
    assert [limit.verdict.outcome for limit in other.limits] == ["inconclusive"]


def test_networks_are_drawn_once_for_all_groups(monkeypatch):
    asked = []
    rows = RowMeasuring.rows

    def counted(self, group):
        subject = self._prepared.evidence.subject
        redraw = subject.redraw

        def noted(wanted):
            asked.append(wanted)
            return redraw(wanted)

        if not asked:
            object.__setattr__(subject, "redraw", noted)
        return rows(self, group)

    monkeypatch.setattr(RowMeasuring, "rows", counted)
    measured("sanity.two_sided", two_sided.Parameters(redraws=2), source=Enough(n=20))
    assert len(asked) == 3


@pytest.mark.parametrize("kind", ["sanity.two_sided", "sanity.impostor_swap"])
def test_given_maps_are_refused(kind):
    from fxeval.errors import UnsupportedError
    from fxeval.traits import ExplainerTraits

    class Given(Occlusion):
        traits = ExplainerTraits(maps_are_given=True)

    protocol = two_sided if kind == "sanity.two_sided" else impostor_swap
    with pytest.raises(UnsupportedError, match="do not change with other pictures"):
        measured(kind, protocol.Parameters(), explainer=Given(), source=replace(Enough(), n=5))
