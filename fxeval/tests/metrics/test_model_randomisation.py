"""The check must tell a map that follows the weights from one that doesn't."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fxeval.contracts import RowState, SaliencyMaps
from fxeval.functional.map_patterns import intersection_over_union, patterns
from fxeval.functional.map_structure import hog_similarity, ssim
from fxeval.hooks.layer_groups import LayerGroup
from fxeval.metrics.model_randomisation import METRICS, Parameters, measure
from fxeval.results import Outcome
from fxeval.run import redrawing
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.redrawn import network_objection
from fxeval.suite.cells import Use
from fxeval.tests.evidence import evidence_of, series_of
from fxeval.tests.rounding import FLOAT64, assert_rounded
from fxeval.tests.subjects import ConvNet, make_pairs
from fxeval.tests.toy_world import Occlusion, People, cell_of, measured, model

N = 40


def maps_of(seed, *, states=()):
    maps = torch.rand(N, 8, 8, generator=torch.Generator().manual_seed(seed))
    return SaliencyMaps(maps, None, tuple(states))


def run(before, *after, spread=0.5, share=1.0):
    evidence = evidence_of(
        make_pairs(N), maps={"probe": before}, after=after, spread=spread, share=share
    )
    ledger = measure(evidence, Parameters(redraws=len(after)))
    rows = ledger.rows("cell")
    objection = network_objection(ledger.networks, rows)
    return objection, {metric: one for (metric, *_), one in series_of(ledger).items()}, rows


def values_of(evidence, **parameters):
    """Values by metric and condition, and the ledger."""
    ledger = measure(evidence, Parameters(**parameters))
    found = {(metric, *under): one.values for (metric, _, *under), one in series_of(ledger).items()}
    return found, ledger


def test_the_values_are_spearmans_correlations_pair_by_pair():
    before, after = maps_of(1), maps_of(2)
    _, series, rows = run(before, after)
    expected = [
        spearmanr(one.flatten(), two.flatten()).statistic
        for one, two in zip(before.positive, after.positive, strict=True)
    ]
    signed = series["rank_correlation_fully_randomised"].values
    absolute = series["absolute_rank_correlation_fully_randomised"].values
    # Correlations are sums of 64 products, as large together as 1.
    assert_rounded(signed, expected, terms=64, scale=1, unit=FLOAT64)
    assert_rounded(absolute, np.abs(expected), terms=64, scale=1, unit=FLOAT64)
    assert len(rows) == N


def test_several_redraws_are_averaged():
    before = maps_of(1)
    _, series, _ = run(before, before, SaliencyMaps(-before.positive))
    assert series["rank_correlation_fully_randomised"].values.tolist() == [0.0] * N
    assert series["absolute_rank_correlation_fully_randomised"].values.tolist() == [1.0] * N


def test_a_constant_map_counts_as_a_random_order():
    flat = SaliencyMaps(torch.zeros(N, 8, 8), None, (RowState.DEGENERATE_MAP,) * N)
    objection, series, _ = run(flat, maps_of(2))
    values = series["rank_correlation_fully_randomised"].values
    assert np.isfinite(values).all()
    assert abs(np.median(values)) < 0.1
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.DEGENERATE_MAP}
    assert objection is None


@pytest.mark.parametrize(("flat", "objects"), [(8, False), (9, True)])
def test_many_constant_maps_of_the_redrawn_network_teach_nothing(flat, objects):
    after = maps_of(2, states=[RowState.DEGENERATE_MAP] * flat + [RowState.OK] * (N - flat))
    objection, series, _ = run(maps_of(1), after)
    assert (objection is not None) == objects
    if objects:
        assert objection.outcome is Outcome.INCONCLUSIVE
    assert set(series["rank_correlation_fully_randomised"].states) == {RowState.OK}


def test_a_collapsed_network_makes_the_check_invalid():
    objection, _, _ = run(maps_of(1), maps_of(2), spread=1e-5)
    assert objection.outcome is Outcome.INVALID
    assert "collapsed" in objection.reason


def test_a_broken_map_before_or_after_has_no_value():
    before = maps_of(1, states=[RowState.EXPLAINER_RAISED] + [RowState.OK] * (N - 1))
    after = maps_of(2, states=[RowState.OK, RowState.NAN_MAP] + [RowState.OK] * (N - 2))
    after.positive[1] = torch.nan
    _, series, _ = run(before, after)
    one = series["absolute_rank_correlation_fully_randomised"]
    assert np.flatnonzero(np.isnan(one.values)).tolist() == [0, 1]
    assert one.states[:3] == (RowState.EXPLAINER_RAISED, RowState.NAN_MAP, RowState.OK)


def test_a_network_that_keeps_its_weights_makes_the_check_invalid():
    objection, _, _ = run(maps_of(1), maps_of(2), share=0.4)
    assert objection.outcome is Outcome.INVALID
    assert "only 40% of the parameters" in objection.reason


LARGE = torch.rand(4, N, 24, 24, generator=torch.Generator().manual_seed(9))
GROUPS = tuple(LayerGroup(name, (name,), 10, 0) for name in ("fc", "conv2", "conv1"))
RANKED = "rank_correlation_partly_randomised"


def test_every_similarity_is_that_of_the_two_maps():
    before, after = (SaliencyMaps(maps) for maps in LARGE[:2])
    found, _ = values_of(
        evidence_of(make_pairs(N), maps={"probe": before}, after=[after]), fraction=0.1
    )
    one, other = before.positive, after.positive
    assert found["ssim_fully_randomised",] == pytest.approx(ssim(one, other), abs=1e-12)
    edges = hog_similarity(one, other)
    assert found["hog_correlation_fully_randomised",] == pytest.approx(edges, abs=1e-12)
    tops = [patterns(maps, 0.1, None) for maps in (one, other)]  # no two pixels tie
    overlap = intersection_over_union(*tops)
    assert found["top_overlap_fully_randomised",] == pytest.approx(overlap, abs=1e-12)
    assert not {key for key in found if "partly" in key[0] or "draw" in key[0]}


def test_each_mode_compares_with_the_networks_of_its_steps():
    before, whole, fc, both = (SaliencyMaps(maps) for maps in LARGE)
    flipped = SaliencyMaps(-before.positive)
    evidence = evidence_of(
        make_pairs(N),
        maps={"probe": before},
        after=[whole],
        partly={
            "fc": fc, "conv2 to fc": both, "conv2": before, "conv1": flipped,
            "conv1 to conv2": before,
        },
        groups=GROUPS,
        share=0.1,
    )  # fmt: skip
    modes = ("cascading_top_down", "cascading_bottom_up", "independent")
    found, ledger = values_of(evidence, modes=modes, similarities=("rank_correlation",))

    def correlations(maps):
        pairs = zip(before.positive, maps.positive, strict=True)
        return [spearmanr(one.flatten(), two.flatten()).statistic for one, two in pairs]

    expected = {
        ("cascading_top_down", 1): fc, ("cascading_top_down", 2): both,
        ("cascading_top_down", 3): whole, ("cascading_bottom_up", 1): flipped,
        ("cascading_bottom_up", 2): before, ("cascading_bottom_up", 3): whole,
        ("independent", 1): fc, ("independent", 2): before, ("independent", 3): flipped,
    }  # fmt: skip
    assert {key[1:] for key in found if key[0] == RANKED} == set(expected)
    for under, maps in expected.items():
        assert found[RANKED, *under] == pytest.approx(correlations(maps), abs=1e-9)
    absolute = found["absolute_rank_correlation_partly_randomised", "independent", 3]
    assert absolute.tolist() == [1.0] * N
    # Each network is met once, whichever modes share it, and a small share is no objection.
    names = [network.name for network in ledger.networks]
    assert len(names) == len(set(names)) == 6
    whole_alone = [one for one in ledger.networks if not one.layers]
    others = [one for one in ledger.networks if one.layers]
    rows = ledger.rows("cell")
    assert network_objection(others, rows) is None
    assert network_objection(whole_alone, rows).outcome is Outcome.INVALID


def test_a_collapsed_step_is_an_objection_and_constant_maps_of_one_are_not():
    before, whole = (SaliencyMaps(maps) for maps in LARGE[:2])
    flat = SaliencyMaps(torch.zeros(N, 24, 24), None, (RowState.DEGENERATE_MAP,) * N)
    for spread, expected in ((0.5, None), (1e-5, Outcome.INVALID)):
        evidence = evidence_of(
            make_pairs(N), maps={"probe": before}, after=[whole], partly={"fc": flat},
            groups=[GROUPS[0], GROUPS[2]], spread=spread,
        )  # fmt: skip
        found, ledger = values_of(evidence, modes=("cascading_top_down",))
        objection = network_objection(ledger.networks, ledger.rows("cell"))
        assert (objection and objection.outcome) == expected
        assert np.isfinite(found["ssim_partly_randomised", "cascading_top_down", 1]).all()


def test_maps_of_other_identities_are_the_floor():
    before = SaliencyMaps(LARGE[0])
    evidence = evidence_of(make_pairs(N), maps={"probe": before}, after=[before])
    found, _ = values_of(evidence)
    floor = found["rank_correlation_of_other_identities",]
    everyone = [
        [spearmanr(a.flatten(), b.flatten()).statistic for b in before.positive]
        for a in before.positive[:6]
    ]
    for row, value in enumerate(floor[:6]):
        others = [one for place, one in enumerate(everyone[row]) if place != row]
        assert min(abs(value - one) for one in others) < 1e-9
    # Whatever the network is, the map of a mean face is that of everybody.
    mean = SaliencyMaps(before.positive[:1].expand(N, -1, -1).clone())
    found, _ = values_of(evidence_of(make_pairs(N), maps={"probe": mean}, after=[before]))
    assert found["rank_correlation_of_other_identities",].tolist() == [1.0] * N
    assert abs(np.median(found["rank_correlation_fully_randomised",])) < 0.1


def test_a_list_of_one_person_has_no_floor():
    pairs = make_pairs(3)
    same = replace(
        pairs,
        probe_identity=torch.zeros(3, dtype=int),
        reference_identity=torch.zeros(3, dtype=int),
    )
    maps = SaliencyMaps(LARGE[0, :3])
    found, ledger = values_of(evidence_of(same, maps={"probe": maps}, after=[maps]))
    assert not [key for key in found if "other_identities" in key[0]]
    assert len(ledger.rows("cell")) == 3


def test_another_draw_is_the_ceiling_and_asked_for_at_that_draw():
    before, again = (SaliencyMaps(maps) for maps in LARGE[:2])
    evidence = evidence_of(make_pairs(N), maps={"probe": before}, after=[before])

    class Drawing:
        def maps(self, rows, subject, explainer, draw=0):
            return again if draw == 1 else before

    evidence = replace(evidence, engine=Drawing())
    found, _ = values_of(evidence, another_draw=True)
    expected = ssim(before.positive, again.positive)
    assert found["ssim_of_another_draw",] == pytest.approx(expected, abs=1e-12)
    assert found["ssim_fully_randomised",] == pytest.approx([1.0] * N)
    assert "ssim_of_another_draw" not in {key[0] for key in values_of(evidence)[0]}
    better = {one.name: one.better for one in METRICS}
    assert better["ssim_of_another_draw"] == "higher"
    assert better["ssim_of_other_identities"] == better["ssim_fully_randomised"] == "lower"


class FirstLayer:
    """Reads the weights of the first layer alone, and the image: a map that is half an edge."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return model.module.conv1(probes).abs().mean(1).detach().repeat_interleave(
            2, 1).repeat_interleave(2, 2)  # fmt: skip


def test_steps_tell_which_layers_a_map_depends_on():
    kind = "sanity.model_randomisation"
    modes = ("cascading_top_down", "cascading_bottom_up", "independent")
    parameters = Parameters(modes=modes, steps=3, similarities=("rank_correlation",))

    def medians(explainer):
        _, rows = measured(kind, parameters, explainer=explainer)
        found = {}
        for row in rows:
            for one in row.measured:
                if one.under:
                    key = one.under["mode"], int(one.under["step"])
                    found.setdefault(key, []).append(one.values[RANKED])
        return {key: float(np.median(values)) for key, values in found.items()}

    shallow = medians(FirstLayer())
    for untouched in (("cascading_top_down", 1), ("cascading_top_down", 2), ("independent", 1),
                      ("independent", 2)):  # fmt: skip
        assert shallow[untouched] == 1.0
    for changed in (("cascading_top_down", 3), ("cascading_bottom_up", 1), ("independent", 3)):
        assert shallow[changed] < 0.99
    deep = medians(Occlusion())
    assert deep["cascading_top_down", 1] < 0.99
    assert deep["independent", 1] == deep["cascading_top_down", 1]
    assert deep["cascading_top_down", 3] == deep["cascading_bottom_up", 3]


def test_every_module_may_be_a_step():
    parameters = Parameters(
        modes=("independent",), layers="modules", similarities=("rank_correlation",)
    )
    result, _ = measured("sanity.model_randomisation", parameters, explainer=FirstLayer())
    assert [one.layers for one in result.networks] == ["fc", "conv2", "prelu", "bn1", "conv1"]
    found = {one.under["step"]: one.value for one in result.estimates if one.metric == RANKED}
    assert [found[step] for step in (1, 2, 3, 4)] == [1.0] * 4
    assert found[5] < 0.99


def test_two_explainers_share_every_copy_of_the_network(monkeypatch):
    built = []
    real = redrawing.randomise

    def counted(*given):
        built.append(given[3:])
        return real(*given)

    monkeypatch.setattr(redrawing, "randomise", counted)
    kind = "sanity.model_randomisation"
    parameters = Parameters(modes=("full", "cascading_top_down"), steps=2)

    def run():
        built.clear()
        workshop = Workshop(batch_size=16, emit=lambda *_: None, progress=lambda *_: None)
        network, source = model(), People(n=4)
        for name, explainer in (("fine", Occlusion()), ("coarse", Occlusion(side=8))):
            cell = replace(cell_of(kind, parameters), explainer=Use(name))
            result = measure_cell(cell, Subjects(network, explainer, source), workshop)
            assert len(result.networks) == 2  # the last of two steps is the whole
            assert result.states == {"ok": 8}
        return len(built)

    assert run() == 2
    # Where the memory holds one alone, those of the second explainer are built again.
    monkeypatch.setattr(redrawing, "KEPT_BYTES", 1)
    assert run() == 4


def test_the_facts_about_a_redrawn_network_are_recorded():
    kind = "sanity.model_randomisation"
    parameters = Parameters(modes=("full", "independent"), steps=3)
    result, _ = measured(kind, parameters)
    whole, fc, conv2, conv1 = result.networks
    assert (whole.layers, fc.layers, conv2.layers) == ("", "fc", "conv2")
    assert conv1.layers == "conv1 to prelu"
    total = sum(one.numel() for one in ConvNet().parameters())
    assert fc.redrawn_share == pytest.approx((8 * 64 * 8 + 8) / total)
    assert whole.redrawn_share == 1.0
    assert whole.kept == fc.kept == []
    assert whole.buffers_share == 1.0  # means, variances and the number of batches
    assert whole.auc_pairs == 20
    assert 0.0 <= whole.auc <= 1.0
    notes = " ".join(result.notes)
    assert "100.0% of the parameters and 100.0% of the buffers changed, embedding" in notes
    assert "re-drawn network 1 (fc):" in notes
    assert f"with an AUC of {whole.auc:.2f}" in notes
