"""Known truth on twins: values by hand and by slow loops, maps that must pass and must fail."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import cosine_similarity as cosine

from fxeval.contracts import ExplainerTraits
from fxeval.engine.forward_pool import ForwardPool
from fxeval.engine.selection import digests_of
from fxeval.errors import DataContractError
from fxeval.functional.controls import centre, edge
from fxeval.functional.ranking import count, ranks
from fxeval.metrics import CATALOGUE
from fxeval.metrics.known_truth import Posed, solved_remark
from fxeval.metrics.orders import Order
from fxeval.metrics.truth_localisation import METRICS, _located
from fxeval.results import Outcome, RowState
from fxeval.run.workshop import Workshop
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.toy_world import SMALL, Occlusion, People, Twinned, measured, model

LOCALISATION, FLIP = "truth.localisation", "truth.flip"
JUDGED, PAIR = {"question": "discriminative"}, {"question": "pairwise"}
CONTROLS = ("random_pixels", "random_blobs", "centre", "oracle", "blurred_oracle", "inverse_oracle")
LIMITS = {
    LOCALISATION: [
        BetterThan("top_precision", better_than=f"control.{name}", under=JUDGED)
        for name in ("random_blobs", "centre")
    ],
    FLIP: [
        BetterThan("flip_share", better_than=f"control.{name}", under=JUDGED)
        for name in ("random_blobs", "centre")
    ],
}

TAKES = ExplainerTraits(takes_contrast=True)


@dataclass(frozen=True, eq=False)
class Given:
    """Maps by a function of probes, mates and nonmates; None in their place without a contrast."""

    make: object
    traits: ExplainerTraits = TAKES
    seen: list = field(default_factory=list)

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.seen.append(contrast is not None)
        return self.make(probes, references, contrast).float()


def part_of(probes, mates, nonmates):
    """The part itself: here, and in no other list, it lies at the same place in mate and probe."""
    if nonmates is None:
        return probes.mean(1)
    return (mates - nonmates).abs().sum(1) + 0.01 * probes.mean(1)


KNOWN = {
    "part": part_of,
    "inverse": lambda *given: -part_of(*given),
    "centre": lambda probes, *_: centre(len(probes), SMALL.size) + 1e-4 * probes.mean(1),
    "edge": lambda probes, *_: edge(probes),
    "constant": lambda probes, *_: torch.ones_like(probes[:, 0]),
    "noise": lambda probes, *_: (probes * 1e4).sum(1).sin(),
}


def truth(kind, make="part", *, people=32, limits=None, **more):
    more.setdefault("explainer", Given(KNOWN[make]))
    given = {"controls": more.pop("controls", CONTROLS), **more.pop("parameters", {})}
    if kind == FLIP:
        given.setdefault("steps", 8)
    parameters = CATALOGUE[kind].Parameters(**given)
    limits = LIMITS[kind] if limits is None else limits
    source = more.pop("source", Twinned(People(people)))
    return measured(kind, parameters, source=source, limits=limits, **more)


def estimates(result):
    return {(one.metric, one.map): one.value for one in result.estimates if one.under == JUDGED}


@pytest.mark.parametrize("kind", [LOCALISATION, FLIP])
def test_the_part_passes(kind):
    result, rows = truth(kind)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert len(rows) == 64
    assert any("solves 64 of 64 triplets (100%)" in note for note in result.notes)


@pytest.mark.parametrize("kind", [LOCALISATION, FLIP])
@pytest.mark.parametrize("make", ["inverse", "centre", "edge", "constant", "noise"])
def test_a_map_that_knows_nothing_of_the_part_does_not_pass(kind, make):
    result, _ = truth(kind, make)
    assert result.verdict.outcome is Outcome.FAIL or (
        make != "constant" and result.verdict.outcome is Outcome.INCONCLUSIVE
    )
    assert result.verdict.outcome is not Outcome.PASS


def test_a_mask_of_all_parts_beats_the_centre_and_not_the_mean_map():
    """It never looks at the nonmate: it shows what all faces have, and so does its mean map."""

    def all_parts(probes, *_):
        maps = 0.01 * probes.mean(1)
        maps[:, :8, :8] += 1
        maps[:, 8:, 8:] += 1
        return maps

    mean_map = BetterThan("top_precision", better_than="control.mean_map", under=JUDGED)
    limits = [*LIMITS[LOCALISATION], mean_map]
    controls = (*CONTROLS, "mean_map")
    result, _ = truth(LOCALISATION, explainer=Given(all_parts), limits=limits, controls=controls)
    outcomes = [one.verdict.outcome for one in result.limits]
    assert outcomes[:2] == [Outcome.PASS, Outcome.PASS]
    assert outcomes[2] is not Outcome.PASS
    assert result.verdict.outcome is not Outcome.PASS
    sound = estimates(truth(LOCALISATION, limits=limits, controls=controls)[0])
    both = (sound["top_precision", name] for name in ("explainer", "control.mean_map"))
    assert next(both) - next(both) > 0.3


@pytest.mark.parametrize("kind", [LOCALISATION, FLIP])
def test_the_known_maps_come_out_in_their_order(kind):
    result, _ = truth(kind)
    found = estimates(result)
    metrics = {
        LOCALISATION: [("top_precision", 1), ("pixel_auc", 1), ("energy_in_part", 1)],
        FLIP: [("flip_share", 1), ("flip_area", 1), ("region_swap_fraction", -1)],
    }[kind]
    for metric, sign in metrics:
        oracle, blurred, random, inverse = (
            sign * found[metric, f"control.{name}"]
            for name in ("oracle", "blurred_oracle", "random_pixels", "inverse_oracle")
        )
        assert oracle >= blurred > random > inverse, metric


def test_an_explainer_without_contrast_never_passes_and_its_maps_are_shown():
    """Even if it knew the part by other means: the question was not put to it."""
    blind = Given(lambda probes, *_: probes.mean(1), traits=ExplainerTraits())
    result, rows = truth(LOCALISATION, explainer=blind)
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "takes no contrast" in result.verdict.reason
    assert {one.verdict.outcome for one in result.limits} == {Outcome.UNSUPPORTED}
    assert {tuple(one.under.items()) for row in rows for one in row.measured} == {
        tuple(PAIR.items())
    }
    assert any(one.map == "explainer" and one.under == PAIR for one in result.estimates)
    assert not any(blind.seen)


def test_an_explainer_that_needs_a_contrast_is_asked_one_question():
    needy = Given(KNOWN["part"], traits=ExplainerTraits(needs={"contrast"}))
    result, rows = truth(LOCALISATION, explainer=needy)
    assert result.verdict.outcome is Outcome.PASS
    assert all(needy.seen)
    assert {tuple(one.under.items()) for row in rows for one in row.measured} == {
        tuple(JUDGED.items())
    }
    assert any("question pairwise: no values" in note for note in result.notes)


def test_a_limit_that_compares_with_an_explainer_without_contrast_stays_open():
    blind = Given(lambda probes, *_: probes.mean(1), traits=ExplainerTraits())
    limits = [
        *LIMITS[LOCALISATION],
        BetterThan("top_precision", better_than="explainer:blind", under=JUDGED),
    ]
    result, _ = truth(LOCALISATION, limits=limits, compared={"blind": blind})
    outcomes = [one.verdict.outcome for one in result.limits]
    assert outcomes == [Outcome.PASS, Outcome.PASS, Outcome.INCONCLUSIVE]
    assert "takes no contrast" in result.limits[2].verdict.reason


def test_maps_with_and_without_a_contrast_are_told_apart_and_shared():
    """One workshop: both kinds share their maps, and other checks get those without a contrast."""
    rows = []
    workshop = Workshop(batch_size=16, emit=rows.extend, progress=lambda *_: None)
    explainer, source = Given(KNOWN["part"]), Twinned(People(6))
    more = {"explainer": explainer, "source": source, "workshop": workshop, "limits": []}
    truth(LOCALISATION, **more)
    asked = len(explainer.seen)
    assert {*explainer.seen} == {True, False}
    truth(FLIP, **more)
    assert len(explainer.seen) == asked
    parameters = CATALOGUE["faithfulness.deletion_insertion"].Parameters(steps=2)
    measured("faithfulness.deletion_insertion", parameters, explainer=explainer, source=source,
             workshop=workshop)  # fmt: skip
    assert not any(explainer.seen[asked:])
    assert len(explainer.seen) > asked


def test_a_list_without_twins_is_a_clear_error():
    with pytest.raises(
        DataContractError, match=r"expected triplets whose probes have twins.*rendered_twins"
    ):
        truth(LOCALISATION, source=People())


@pytest.mark.parametrize("found", [None, "ids", [], ["0-0+"], [1] * 20])
def test_a_source_that_names_no_twins_is_a_clear_error(found):
    class Hostile(Twinned):
        def twins_of(self, probes, nonmates):
            return found

    with pytest.raises(DataContractError, match=r"twins_of\(probes, nonmates\): expected 20 ids"):
        truth(LOCALISATION, source=Hostile())


def test_triplets_that_the_model_does_not_solve_have_no_value_and_are_counted():
    """The twins of two people are their probes: nothing turns the decision."""

    @dataclass(frozen=True)
    class Some(Twinned):
        def twins_of(self, probes, nonmates):
            return [one if one.startswith(("0-", "1-")) else f"{one}+" for one in probes]

    for kind in (LOCALISATION, FLIP):
        result, rows = truth(kind, source=Some(People(32)))
        void = [
            row for row in rows
            if all(value is None for one in row.measured for value in one.values.values())
        ]  # fmt: skip
        assert len(void) == 4
        assert {state for row in void for one in row.measured for state in one.states.values()} == {
            RowState.EXCLUDED
        }
        assert any("solves 60 of 64 triplets (94%)" in note for note in result.notes)
        assert result.verdict.outcome is Outcome.PASS


@pytest.mark.parametrize("kind", [LOCALISATION, FLIP])
@pytest.mark.parametrize("unsolved", [8, 20, 40], ids=["88%", "69%", "38%"])
def test_a_model_that_solves_less_than_nine_in_ten_is_not_one_to_check_maps_on(kind, unsolved):
    """The true map does not pass there, though enough triplets with values are left."""

    @dataclass(frozen=True)
    class Few(Twinned):
        def twins_of(self, probes, nonmates):
            return [one if n < unsolved else f"{one}+" for n, one in enumerate(probes)]

    result, _ = truth(kind, source=Few(People(32)))
    assert any(note.startswith("not checked on this model") for note in result.notes)
    assert result.verdict.outcome is Outcome.INVALID, result.verdict.reason
    assert "the model does not solve their triplets; at most 10% may" in result.verdict.reason


def test_the_remark_says_how_many_are_solved():
    assert solved_remark(np.array([True] * 9 + [False])).startswith("the model solves 9 of 10")
    assert solved_remark(np.array([True] * 8 + [False] * 2)).startswith("not checked on this model")


def posed_of(maps, part, seeds):
    """An order of given maps, as ``measure`` makes it; the part of every row is given."""
    n = len(maps)
    order = Order("explainer", np.arange(n), ranks(maps, seeds), (RowState.OK,) * n, maps)
    evidence = SimpleNamespace(rows=SimpleNamespace(altered=part))
    return Posed(evidence, order, (JUDGED,))


def test_golden_numbers_of_one_map():
    """Ten pixels, three in the part, at ranks 0, 2 and 5."""
    maps = torch.tensor([[[9.0, 8.0, 7.0, 6.0, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0]]])
    part = torch.zeros(1, 2, 5, dtype=torch.bool)
    part.view(-1)[[0, 2, 5]] = True
    (found,) = _located(posed_of(maps, part, [0]), 0.3)
    # Of the top three, two; before pixels of the part come 0 + 1 + 3 of 21 pairs; 9 + 7 + 4 of 45.
    expected = [2 / 3, 1.0, 1 - 4 / 21, 20 / 45, (20 / 45) / 0.3]
    assert found.tolist() == pytest.approx(expected, abs=1e-15)
    assert [one.name for one in METRICS] == [
        "top_precision", "pointing_hit", "pixel_auc", "energy_in_part", "energy_over_area",
    ]  # fmt: skip


@given(st.integers(0, 2**32))
def test_a_slow_loop_finds_the_same(seed):
    draws = np.random.default_rng(seed)
    maps = torch.from_numpy(draws.permutation(48).reshape(1, 6, 8)).float()
    part = torch.from_numpy(draws.random((1, 6, 8)) < draws.uniform(0.05, 0.9))
    part[0, 0, 0], part[0, 5, 7] = True, False
    (found,) = _located(posed_of(maps, part, [seed]), 0.1)
    value = {(y, x): float(maps[0, y, x]) for y in range(6) for x in range(8)}
    inside = [place for place in value if part[0][place]]
    outside = [place for place in value if not part[0][place]]
    top = sorted(value, key=value.__getitem__, reverse=True)[: count(0.1, 48)]
    wins = sum(value[one] > value[other] for one in inside for other in outside)
    energy = sum(value[one] for one in inside) / sum(value.values())
    expected = [
        sum(place in inside for place in top) / len(top),
        float(top[0] in inside),
        wins / (len(inside) * len(outside)),
        energy,
        energy / (len(inside) / 48),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 2**32), st.sampled_from(["cube", "exp", "scaled"]))
def test_a_monotone_change_of_the_scale_changes_nothing_but_the_energy(seed, how):
    draws = np.random.default_rng(seed)
    maps = torch.from_numpy(draws.integers(-6, 6, (3, 5, 5))).double()
    part = torch.from_numpy(draws.random((3, 5, 5)) < 0.4)
    turned = {"cube": maps**3, "exp": maps.exp(), "scaled": 7 * maps - 3}[how]
    one, other = (_located(posed_of(some, part, [1, 2, 3]), 0.2) for some in (maps, turned))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])


def test_a_part_that_is_nothing_or_everything_has_no_curve():
    maps = torch.arange(8.0).reshape(1, 2, 4)
    for part in (torch.zeros(1, 2, 4, dtype=torch.bool), torch.ones(1, 2, 4, dtype=torch.bool)):
        (found,) = _located(posed_of(maps, part, [0]), 0.5)
        assert np.isnan(found[2])


def test_the_flip_is_that_of_pictures_made_pixel_by_pixel():
    """Every picture is made and embedded by a loop; halving ends where the decision turns."""
    source, network, steps = Twinned(People(4)), model(), 8
    scattered = (torch.arange(256) * 97 % 256).view(1, 16, 16).float()  # no ties: one order
    explainer = Given(lambda probes, *_: scattered.expand(len(probes), 16, 16))
    _, rows = truth(FLIP, explainer=explainer, source=source, limits=[], controls=(),
                    parameters={"steps": steps, "fraction": 0.3})  # fmt: skip
    listing = source.listing()
    pool = ForwardPool(batch_size=16)
    found = {
        row.row: one.values
        for row in rows for one in row.measured
        if one.map == "explainer" and one.under == JUDGED
    }  # fmt: skip
    assert len(found) == 8
    for probe, mate in zip(listing.probe, listing.reference, strict=True):
        ids = [probe, mate, f"{mate}+", f"{probe}+"]
        images = source.images(ids, SMALL)
        values = found["-".join(digest[:12] for digest in digests_of(images)[:3])]
        p, m, n, twin = images.float() / 255
        rank = ranks(scattered, [0])[0].view(16, 16)
        pictures = torch.stack([torch.where(rank < k, twin, p) for k in range(257)])
        e = pool.embed_images(network, torch.cat([pictures, m[None], n[None]])).double()
        margins = cosine(e[:-2], e[-2:-1]) - cosine(e[:-2], e[-1:])
        share = ((margins[0] - margins) / (margins[0] - margins[-1])).tolist()
        curve = [share[i * 256 // steps] for i in range(steps + 1)]
        area = sum((a + b) / 2 for a, b in pairwise(curve)) / steps
        assert values["flip_share"] == pytest.approx(share[count(0.3, 256)], abs=1e-3)
        assert values["flip_area"] == pytest.approx(area, abs=1e-3)
        k = round(values["region_swap_fraction"] * 256)
        assert margins[k] < 0 <= margins[k - 1]
        first = next(step for step in range(steps + 1) if margins[step * 256 // steps] < 0)
        assert (first - 1) * 256 // steps < k <= first * 256 // steps


def test_pictures_that_are_the_same_are_embedded_once():
    """Once all of the part is the twin's, nothing more is asked of the network."""
    workshop = Workshop(batch_size=16, emit=lambda rows: None, progress=lambda *_: None)
    truth(FLIP, controls=("oracle",), explainer=Given(KNOWN["part"]), limits=[], people=4,
          workshop=workshop, parameters={"steps": 64})  # fmt: skip
    orders, rows = 3, 8  # of the map for each question, and of the oracle
    assert workshop.forwards < orders * rows * 64 / 2


def test_the_answer_to_the_other_question_decides_nothing():
    """A limit under ``pairwise`` is shown and has no part in the verdict."""
    hard = replace(AtLeast("top_precision", at_least=0.99, under=PAIR), severity="info")
    result, _ = truth(LOCALISATION, limits=[*LIMITS[LOCALISATION], hard])
    assert [one.verdict.outcome for one in result.limits][2] is Outcome.FAIL
    assert result.verdict.outcome is Outcome.PASS


def test_values_do_not_depend_on_the_size_of_batches():
    """Of 16 images or fewer: all such batches are filled up to 16."""
    for kind in (LOCALISATION, FLIP):
        found = [truth(kind, people=5, limits=[], batch=size)[1] for size in (16, 7)]
        for one, other in zip(*found, strict=True):
            values = [
                [value for some in row.measured for value in some.values.values()]
                for row in (one, other)
            ]
            assert values[0] == pytest.approx(values[1], abs=1e-4, nan_ok=True)


def test_occlusion_answers_the_margin():
    """A sound explainer of the toy world finds the part as well."""
    result, _ = truth(LOCALISATION, explainer=Occlusion())
    found = estimates(result)
    assert found["top_precision", "explainer"] > found["top_precision", "control.random_blobs"]
