"""Stability: other draws, noise and small shifts; it says nothing alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fxeval.engine.nearby_rows import SIGMA, moved, nearby_pairs
from fxeval.functional.map_spread import entropy, gini
from fxeval.metrics.deletion_insertion import Parameters as DeletionParameters
from fxeval.metrics.stability import Parameters
from fxeval.results import RowState
from fxeval.statistics.limits import AtLeast, AtMost, BetterThan
from fxeval.tests.subjects import make_pairs
from fxeval.tests.toy_world import Occlusion, People, measured

KIND = "stability.repetition"
FEW = Parameters(draws=3, noisy=2, steps=4)
STABLE = [
    AtLeast("draw_correlation", at_least=0.9),
    AtMost("draw_area_spread", at_most=0.05, over="list"),
    AtLeast("noise_correlation", at_least=0.9),
    AtLeast("half_pixel_correlation", at_least=0.9),
]


def run(explainer=None, limits=(), parameters=FEW, **more):
    more.setdefault("source", People(32) if limits else People(6))
    return measured(KIND, parameters, explainer=explainer, limits=limits, **more)


def values(rows, metric):
    return np.array([row.measured[0].values[metric] for row in rows], dtype=float)


class Noise:
    """Another map at each draw, whatever it is asked about."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        drawn = generator.random(tuple(probes.shape[-2:]))
        return torch.from_numpy(drawn).float().expand(len(probes), -1, -1)


class Centre:
    def explain(self, model, probes, references, *, contrast=None, generator):
        place = torch.arange(probes.shape[-1]) - (probes.shape[-1] - 1) / 2
        bump = (-(place[:, None] ** 2 + place**2) / 32).exp()
        return bump.expand(len(probes), -1, -1).clone()


class Constant:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.full_like(probes[:, 0], 0.5)


class Brightness:
    """The picture itself: it moves along with the image, pixel by pixel."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return probes.mean(1)


class Fragile:
    """An order that the last bits of the image decide."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return ((probes.sum(1) * 255).round() * 0.618034) % 1.0


def test_a_map_without_randomness_repeats_exactly_and_at_no_cost():
    result, rows = run()
    assert set(values(rows, "draw_correlation")) == {1.0}
    assert set(values(rows, "draw_area_spread")) == {0.0}
    assert not any("seed" in one.side for one in result.explaining)


def test_noise_repeats_by_chance_only():
    result, rows = run(Noise(), STABLE)
    # 256 pixels: the standard error of a pair's correlation is 0.06, of two of them 0.045.
    assert abs(np.median(values(rows, "draw_correlation"))) < 0.2
    assert values(rows, "draw_area_spread").min() > 0.0
    assert result.verdict.outcome == "fail"
    # All versions have the draws of the row, so a noise explainer looks stable but for these.
    assert set(values(rows, "noise_correlation")) == {1.0}


def test_an_order_that_the_last_bits_decide_is_not_stable_under_noise():
    result, rows = run(Fragile(), STABLE)
    assert set(values(rows, "draw_correlation")) == {1.0}
    assert np.median(values(rows, "noise_correlation")) < 0.3
    assert result.verdict.outcome == "fail"


def test_a_map_that_moves_with_the_image_correlates_once_it_is_moved_back():
    _, moving = run(Brightness())
    _, staying = run(Centre())
    assert values(moving, "pixel_correlation").min() > 1 - 1e-9
    assert values(staying, "pixel_correlation").max() < 0.999


def test_stability_alone_passes_the_centre_and_faithfulness_stops_it():
    """It never stands alone: a picture of the centre is as stable as can be."""
    result, rows = run(Centre(), STABLE)
    assert result.verdict.outcome == "pass"
    assert set(values(rows, "noise_correlation")) == {1.0}
    limits = [BetterThan("deletion_auc", better_than="control.random_blobs")]
    parameters = DeletionParameters(steps=4, controls=("random_blobs",))
    judged, _ = measured(
        "faithfulness.deletion_insertion", parameters, explainer=Centre(), limits=limits,
        source=People(32),
    )  # fmt: skip
    assert judged.verdict.outcome != "pass"


def test_constant_maps_are_perfectly_stable_and_stopped_by_their_state():
    result, rows = run(Constant(), STABLE)
    for metric in ("draw_correlation", "noise_correlation", "pixel_correlation", "map_entropy"):
        assert set(values(rows, metric)) == {1.0}
    assert set(values(rows, "map_gini")) == {0.0}
    assert all(one.verdict.outcome == "pass" for one in result.limits)
    assert result.verdict.outcome == "fail"
    assert "are degenerate" in result.verdict.reason


def test_the_correlations_and_areas_are_those_of_plain_loops():
    """Draws, and maps of noisy images, compared by scipy."""

    class Drawn(Occlusion):
        def explain(self, model, probes, references, *, contrast=None, generator):
            maps = super().explain(model, probes, references, generator=generator)
            drawn = torch.from_numpy(generator.random(tuple(maps.shape[1:]))).float()
            return maps + 0.1 * maps.std() * drawn

    seen = []

    class Watching(Drawn):
        def explain(self, model, probes, references, **more):
            maps = super().explain(model, probes, references, **more)
            seen.append((probes.clone(), maps.clone()))
            return maps

    _, rows = run(Watching(), parameters=Parameters(draws=2, noisy=1, steps=2), source=People(2))
    by_image = {}
    for probes, maps in seen:
        for probe, map_ in zip(probes, maps, strict=True):
            by_image.setdefault(probe.numpy().tobytes(), []).append(map_)
    # Of each clean image there are maps of two draws at least, those of one draw alike.
    found = []
    for maps in by_image.values():
        others = [one for one in maps[1:] if not torch.equal(one, maps[0])]
        found += [spearmanr(maps[0].flatten(), one.flatten()).statistic for one in others]
    for value in values(rows, "draw_correlation"):
        assert np.abs(np.array(found) - value).min() < 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.floats(-300, 300))
def test_entropy_and_gini_are_those_of_plain_loops(seed, height, width, exponent):
    maps = np.random.default_rng(seed).normal(size=(2, height, width)) * 10.0**exponent
    n = height * width
    for map_, ours, theirs in zip(
        maps, entropy(torch.from_numpy(maps)), gini(torch.from_numpy(maps)), strict=True
    ):
        above = (map_ - map_.min()).ravel()
        even = above.max() == 0
        mass = np.full(n, 1 / n) if even else above / above.max() / (above / above.max()).sum()
        shannon = -sum(p * np.log(p) for p in mass if p > 0) / np.log(n) if n > 1 else 0.0
        unequal = sum(abs(p - q) for p in mass for q in mass) / (2 * n)
        assert abs(ours - shannon) < 1e-9
        assert abs(theirs - unequal) < 1e-9


def test_entropy_and_gini_do_not_depend_on_scale_and_offset():
    maps = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for figure in (entropy, gini):
        assert np.allclose(figure(maps * 7 + 3), figure(maps), atol=1e-9)
    peak = torch.zeros(1, 4, 5)
    peak[0, 1, 2] = 2.0
    assert (entropy(peak).item(), round(gini(peak).item(), 12)) == (0.0, 0.95)


def test_the_versions_are_nearly_the_same_images():
    pairs = make_pairs()
    table = nearby_pairs(pairs, 5, 3)
    clean = table.faces.images[table.rows.image].long()
    assert list(table.versions) == ["noise 1", "noise 2", "noise 3", "half a pixel", "one pixel"]
    noise = torch.stack(
        [table.faces.images[table.versions[f"noise {i}"].image].long() for i in (1, 2, 3)]
    )
    inside = (clean > 12) & (clean < 243)
    change = (noise - clean)[:, inside].double()
    # Rounding adds 1/12 to the variance of 4.
    assert abs(float(change.std()) - (SIGMA**2 + 1 / 12) ** 0.5) < 0.1
    assert not torch.equal(noise[0], noise[1])
    one = table.faces.images[table.versions["one pixel"].image].long()
    assert torch.equal(one[..., 1:], clean[..., :-1])
    assert torch.equal(one[..., 0], clean[..., 0])
    half = table.faces.images[table.versions["half a pixel"].image].long()
    assert torch.equal(half, (one + clean + 1) // 2)
    again = nearby_pairs(pairs, 5, 3)
    assert torch.equal(again.faces.images, table.faces.images)
    assert not torch.equal(nearby_pairs(pairs, 6, 3).faces.images, table.faces.images)
    assert len({*table.faces.image_digests}) == len(table.faces.image_digests)


def test_moved_images_of_one_column_stay():
    image = torch.randint(0, 256, (1, 3, 4, 1), dtype=torch.uint8)
    assert torch.equal(moved(image, halves=1), image)
    assert torch.equal(moved(image, halves=2), image)


def test_a_broken_map_of_one_version_is_no_value():
    class Refusing(Occlusion):
        def explain(self, model, probes, references, **more):
            maps = super().explain(model, probes, references, **more)
            maps[(probes * 255).sum((1, 2, 3)).round() % 2 == 1] = torch.nan
            return maps

    _, rows = run(Refusing())
    assert any(row.state is RowState.NAN_MAP for row in rows)
    for row in rows:
        broken = row.state is RowState.NAN_MAP
        assert all((value is None) == broken for value in row.measured[0].values.values())


@pytest.mark.parametrize("wrong", [{"draws": 1}, {"noisy": 0}, {"steps": 0}, {"fill": "no"}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Parameters(**wrong)
