"""Explainers that draw: whether they repeat, and their values at several seeds."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fxeval.contracts import ExplainerTraits, SaliencyMaps
from fxeval.engine.inputs import Comparison
from fxeval.engine.repetition import SAME, repeated
from fxeval.errors import ExplainerContractError
from fxeval.metrics import CATALOGUE
from fxeval.models.black_box import EmbeddingFunction
from fxeval.results import RowState
from fxeval.run.row_measuring import OF_THE_MAPS, with_controls
from fxeval.run.workshop import Workshop
from fxeval.tests.toy_world import Occlusion, People, Ramp, measured, model

KIND = "faithfulness.deletion_insertion"
FEW = CATALOGUE[KIND].Parameters(steps=2, fills=("mean",))
RANDOMISATION = "sanity.model_randomisation"


@dataclass
class Explain:
    """An explainer made of a function of (probes, generator, the explainer)."""

    function: Any
    kept: dict = field(default_factory=dict)
    sizes: list = field(default_factory=list)

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.sizes.append(len(probes))
        return self.function(probes, generator, self)


def drawn(generator, probes, *shape):
    return torch.from_numpy(generator.random((*shape, *probes.shape[-2:]))).float()


def masks(probes, generator, me):
    """One drawn map for all pairs of a call, as with a mask bank."""
    return drawn(generator, probes, 1) * probes.mean(1)


def each_row(probes, generator, me):
    return drawn(generator, probes, len(probes))


def of_torch(probes, generator, me):
    return torch.rand(probes.shape[-2:]) * probes.mean(1)


def of_numpy(probes, generator, me):
    return torch.from_numpy(np.random.rand(*probes.shape[-2:])).float() * probes.mean(1)  # noqa: NPY002


def clock(probes, generator, me):
    return masks(probes, np.random.default_rng(time.perf_counter_ns()), me)


def counter(probes, generator, me):
    me.kept["calls"] = me.kept.get("calls", 0) + 1
    return masks(probes, np.random.default_rng(me.kept["calls"]), me)


def its_own(probes, generator, me):
    return masks(probes, me.kept.setdefault("own", np.random.default_rng()), me)


def of_the_first_call(probes, generator, me):
    return masks(probes, me.kept.setdefault("first", generator), me)


def by_identity(probes, generator, me):
    """Remember answers by the object: the engine never hands one over twice."""
    if id(probes) not in me.kept:
        me.kept[id(probes)] = probes, masks(probes, np.random.default_rng(), me)
    return me.kept[id(probes)][1]


def by_content(probes, generator, me):
    """Remember noise by the content of each image."""
    digests = [probe.numpy().tobytes() for probe in probes]
    for digest in digests:
        me.kept.setdefault(digest, torch.from_numpy(np.random.default_rng().random((16, 16))))
    return torch.stack([me.kept[digest] for digest in digests]).float()


def the_first_rows_only(probes, generator, me):
    me.kept.setdefault("first", probes.sum((1, 2, 3)))
    is_first = torch.isin(probes.sum((1, 2, 3)), me.kept["first"][:2])
    noise = masks(probes, np.random.default_rng(), me)
    return torch.where(is_first[:, None, None], probes.mean(1), noise)


def scaled_by_its_group(probes, generator, me):
    maps = probes.mean(1)
    return maps / maps.max()


def counted_places(probes, generator, me):
    return probes.mean(1) + torch.arange(len(probes))[:, None, None] * probes[:, 0]


def flickering(probes, generator, me):
    me.kept["calls"] = me.kept.get("calls", 0) + 1
    return probes.mean(1) * (torch.nan if me.kept["calls"] > 2 else 1)


def grey(probes, generator, me):
    return probes.mean(1)


def nearly_flat(probes, generator, me):
    """Constant but for rounding, which the calls before decide."""
    me.kept["calls"] = me.kept.get("calls", 0) + 1
    return 1 + 1e-7 * masks(probes, np.random.default_rng(me.kept["calls"]), me)


GROUP, OWN = "Draw once for all pairs", "Draw from the generator that explain() is given"


@pytest.mark.parametrize(
    ("function", "repeats", "depends", "advice"),
    [
        (grey, True, False, ""),
        (masks, True, True, ""),
        (of_torch, True, True, ""),
        (of_numpy, True, True, ""),
        (each_row, False, True, GROUP),
        (scaled_by_its_group, False, False, GROUP),
        (counted_places, False, False, GROUP),
        (clock, False, True, OWN),
        (counter, False, True, OWN),
        (its_own, False, True, OWN),
        (of_the_first_call, False, True, OWN),
        (by_identity, False, True, OWN),
        (the_first_rows_only, False, True, OWN),
        (flickering, False, False, "a map was nan_map that had been ok"),
        # Fixed noise, which has to beat the controls like any other map.
        (by_content, True, False, ""),
        # Its range is rounding itself, so the change is small; another seed is asked to be sure.
        (nearly_flat, True, True, ""),
    ],
)  # fmt: skip
def test_what_is_found_of_an_explainer_before_any_verdict(function, repeats, depends, advice):
    explainer = Explain(function)
    result, rows = measured(KIND, FEW, explainer=explainer, seeds=3)
    found = result.repeatability
    assert (found.repeats, found.depends_on_seed, found.n_rows) == (repeats, depends, 4)
    assert advice in found.reason
    assert bool(found.reason) is not repeats
    if repeats:
        assert found.change <= SAME
    seeds = {one.seed for row in rows for one in row.measured}
    assert seeds == ({0, 1, 2} if repeats and depends else {0})


def test_the_cost_of_asking_again_is_shown_beside_that_of_the_maps():
    result, _ = measured(KIND, FEW, seeds=3)
    made, again = result.explaining
    assert (made.side, made.n_maps, again.side, again.n_maps) == ("probe", 20, "probe, again", 8)
    assert made.forwards == 20 * 18  # probes, references and 16 squares
    assert again.forwards == 8 * 18
    assert again.seconds > 0


def test_cells_share_what_was_found_and_each_shows_it():
    explainer, workshop = Explain(masks), Workshop(batch_size=16, emit=list, progress=print)
    network = model()
    results = [
        measured(kind, parameters, explainer=explainer, seeds=2, workshop=workshop, network=network)
        for kind, parameters in (
            (KIND, FEW), (RANDOMISATION, CATALOGUE[RANDOMISATION].Parameters()), (KIND, FEW)
        )
    ]  # fmt: skip
    one, two, three = [result.repeatability for result, _ in results]
    assert one == two == three
    trained, redrawn = 2 * [16, 4], 2 * [16, 4]  # at two seeds
    assert sorted(explainer.sizes) == sorted([*trained, 4, 4, *redrawn])
    assert all(cost.was_shared for cost in results[2][0].explaining)
    assert [row.measured for row in results[0][1]] == [row.measured for row in results[2][1]]


def test_seed_0_has_the_values_of_one_seed_and_the_others_have_the_controls_of_the_maps_alone():
    parameters = FEW.model_copy(
        update={"controls": ("random_pixels", "centre", "mean_map", "inverse"), "side": "both"}
    )
    _, alone = measured(KIND, parameters, explainer=Explain(masks))
    result, rows = measured(KIND, parameters, explainer=Explain(masks), seeds=3)
    for one, several in zip(alone, rows, strict=True):
        by_seed = [[m for m in several.measured if m.seed == seed] for seed in range(3)]
        assert by_seed[0] == one.measured
        assert several.model_copy(update={"measured": []}) == one.model_copy(
            update={"measured": []}
        )
        for values in by_seed[1:]:
            own = {"explainer", "control.mean_map", "control.inverse"}
            assert {m.map for m in values} == own
            first = {m.map: m.values for m in by_seed[0]}
            assert all(m.values != first[m.map] for m in values)
    assert result.repeatability.n_rows == 8  # probes and references
    assert {one.side for one in result.explaining} == {
        f"{side}{more}" for side in ("probe", "reference")
        for more in ("", ", again", ", seed 1", ", seed 2")
    }  # fmt: skip


def test_values_do_not_depend_on_batches_groups_or_other_rows():
    parameters = CATALOGUE[RANDOMISATION].Parameters(redraws=2)
    several = [
        measured(RANDOMISATION, parameters, explainer=Explain(masks), seeds=3, batch=batch)[1]
        for batch in (16, 5)
    ]
    fewer = measured(
        RANDOMISATION, parameters, explainer=Explain(masks), source=People(4), seeds=3
    )[1]
    assert len(fewer) == 8
    for rows in several:
        assert len(rows) == 20
        for row in rows:
            assert [one.seed for one in row.measured] == [0, 1, 2]
    for one, other in zip(*several, strict=True):
        for a, b in zip(one.measured, other.measured, strict=True):
            assert a.values == pytest.approx(b.values, abs=1e-6)


def test_the_same_masks_are_drawn_before_and_after_the_weights_are_drawn_again():
    met: dict[str, list[float]] = {}

    @dataclass
    class Watched:
        def explain(self, model, probes, references, *, contrast=None, generator):
            of = "trained" if model.digest == network.digest else "re-drawn"
            drawn = float(generator.random())
            met.setdefault(of, []).append(drawn)
            return probes.mean(1) * drawn + probes[:, 0] * (1 - drawn)

    network = model()
    parameters = CATALOGUE[RANDOMISATION].Parameters()
    measured(RANDOMISATION, parameters, explainer=Watched(), seeds=3, network=network)
    assert len(set(met["re-drawn"])) == 3
    assert set(met["re-drawn"]) == set(met["trained"])


def test_a_row_has_the_worst_state_of_its_seeds():
    def breaks(probes, generator, me):
        drawn = generator.random()
        me.kept.setdefault("first", drawn)
        maps = masks(probes, generator, me)
        if drawn != me.kept["first"]:
            maps[probes[:, 0, 0, 0] > probes[:, 0, 0, 0].median()] = torch.nan
        return maps

    _, rows = measured(KIND, FEW, explainer=Explain(breaks), seeds=2)
    broken = [row for row in rows if row.state is RowState.NAN_MAP]
    assert 0 < len(broken) < len(rows)
    for row in broken:
        assert row.reason.startswith("seed 1: ")
        assert row.thumbnail is not None
        by_seed = {one.seed: one.values["deletion_auc"] for one in row.measured}
        assert by_seed[0] is not None
        assert by_seed[1] is None


def test_given_maps_repeat_without_a_forward_pass():
    @dataclass
    class Given:
        traits = ExplainerTraits(maps_are_given=True)

        def explain(self, model, probes, references, *, contrast=None, generator):
            return probes.mean(1)

    result, rows = measured(KIND, FEW, explainer=Given(), seeds=3)
    found = result.repeatability
    assert (found.repeats, found.depends_on_seed) == (True, False)
    assert all(cost.forwards == 0 for cost in result.explaining)
    assert {one.seed for row in rows for one in row.measured} == {0}


def test_an_explainer_that_never_returns_a_map_is_not_asked_again():
    explainer = Explain(lambda probes, generator, me: probes.mean(1) * torch.nan)
    result, _ = measured(KIND, FEW, explainer=explainer, seeds=3)
    assert result.repeatability is None
    assert explainer.sizes == [16, 4]


def test_a_model_that_answers_differently_each_time_is_not_blamed_on_the_explainer():
    network, noise = model(), np.random.default_rng(0)

    def answer(images):
        found = network.embed(images)
        return found + torch.from_numpy(noise.normal(0, 1e-4, found.shape)).float()

    box = EmbeddingFunction("a", network.crop, answer, "cosine", "1", 0.9)
    result, rows = measured(KIND, FEW, network=box, explainer=Occlusion(side=8), seeds=2)
    assert result.repeatability is None
    (said,) = [text for text in result.remarks if "repeats its maps" in text]
    assert "occlusion" in said
    assert "the model's own answers differ by up to" in said
    assert {one.seed for row in rows for one in row.measured} == {0, 1}


def test_a_refusal_of_pairs_that_were_explained_before_is_no_repetition():
    def refuse(asked):
        raise ExplainerContractError("explainer 'x': enough of it")

    explained = Ramp().explain(None, torch.rand(3, 3, 16, 16), None, generator=None)
    maps = SaliencyMaps(explained, None, (RowState.OK,) * 3, ("",) * 3)
    places = torch.arange(3)
    found = repeated(refuse, Comparison(None, ("a", "b", "c"), places, places), maps, 0)
    assert not found.repeats
    assert found.change is None
    assert "it refused pairs: explainer 'x': enough of it" in found.reason


@dataclass(frozen=True)
class One(People):
    def listing(self):
        return super().listing().take([0])


def test_a_single_pair_can_be_asked_again():
    result, _ = measured(KIND, FEW, explainer=Explain(clock), source=One(), seeds=3)
    assert not result.repeatability.repeats
    assert result.repeatability.n_rows == 1


def test_controls_of_the_maps_are_kept_and_parameters_without_controls_are_as_they_were():
    of_the_maps = {"as_given", "inverse", "mean_map", "positive_map", "shuffled_identity"}
    assert of_the_maps == OF_THE_MAPS
    randomisation = CATALOGUE[RANDOMISATION].Parameters()
    assert with_controls(randomisation, ()) is randomisation
    assert with_controls(FEW, ()) is FEW


def test_more_sets_of_maps_than_are_kept_are_made_once_in_a_cell():
    explainer = Explain(masks)
    parameters = CATALOGUE[RANDOMISATION].Parameters(redraws=6)
    result, _ = measured(RANDOMISATION, parameters, explainer=explainer, seeds=3)
    assert len(explainer.sizes) == 2 * (1 + 6) * 3 + 2  # 21 sets of two groups, and a few again
    assert len(result.explaining) == 22
