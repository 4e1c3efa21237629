"""Restoring what a map points at: what the truth gets, noise, one map for all, and no threshold."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fxeval.contracts import SaliencyMaps
from fxeval.metrics.patch_replacement import FMR, FNMR, METRICS, WRONG, Parameters
from fxeval.seeding import generator_of
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.tests.planted_people import Constant, Planted, cosine, digest, pixels
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.toy_world import SMALL, measured

KIND = "occluders.patch_replacement"
FRACTIONS = (0.1, 0.3, 0.6)
PEOPLE = Planted(40, 2)
CONTROLS = ("random_pixels", "random_blobs", "inverse", "oracle", "unrestored", "unpatched")
PARAMETERS = Parameters(patches=20, patch_size=28, fractions=FRACTIONS, controls=CONTROLS)
RAMP = torch.arange(256.0).view(16, 16) * 1e-5


@dataclass(frozen=True)
class Truth:
    """Where the two images agree speaks for the similarity, where they differ against it."""

    is_signed: bool = True

    def explain(self, model, probes, references, *, contrast=None, generator):
        agree = (probes * references).sum(1) + RAMP
        differ = (probes - references).square().sum(1)
        return SaliencyMaps(agree, differ if self.is_signed else None)


class Noise:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.stack([_noise_of(one) for one in probes])


def _noise_of(image):
    seed = int.from_bytes(bytes.fromhex(digest(image.numpy())[:8]), "big")
    return torch.from_numpy(np.random.default_rng(seed).random((16, 16))).float()


class OneForAll:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return RAMP.expand(len(probes), 16, 16).clone()


class Broken:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.full_like(probes[:, 0], torch.nan)


def run(explainer, parameters=PARAMETERS, **more):
    more.setdefault("source", PEOPLE)
    more.setdefault("network", pixels())
    return measured(KIND, parameters, explainer=explainer, **more)


def values(rows, metric, map_="explainer", **under):
    """Return the values of a metric by row, NaN where a map has none."""
    return {
        row.row: np.nan if one.values[metric.name] is None else one.values[metric.name]
        for row in rows
        for one in row.measured
        if one.map == map_ and one.under == under and metric.name in one.values
    }


def mean(rows, metric, map_="explainer", **under):
    return float(np.mean([*values(rows, metric, map_, **under).values()]))


# A reference of plain loops: one pair at a time, one pixel after the other.


@dataclass
class Pair:
    probe: np.ndarray
    reference: np.ndarray
    patched: np.ndarray
    is_mated: bool
    row: str


def pairs_of(source, seed=5):
    """Yield every pair with its patched probe."""
    listing = source.listing()
    ids = sorted({*listing.probe, *listing.reference})
    faces = dict(zip(ids, source.images(ids, SMALL).numpy(), strict=True))
    names = sorted(faces, key=lambda one: digest(faces[one]))
    for probe, reference in zip(listing.probe, listing.reference, strict=True):
        row = f"{digest(faces[probe])[:12]}-{digest(faces[reference])[:12]}"
        draws = generator_of(seed, "patches", row)
        columns = draws.integers(0, 12, 20)
        ends = draws.integers(4, 16, 20)
        is_mated = probe.split("-")[0] == reference.split("-")[0]
        shown = faces[reference]
        if is_mated:
            others = [one for one in names if one.split("-")[0] != probe.split("-")[0]]
            place = int(generator_of(seed, "patches of", row).integers(len(others)))
            shown = faces[others[place]]
        patched = faces[probe].copy()
        for column, end in zip(columns, ends, strict=True):
            for y in range(end - 4, end):
                for x in range(column, column + 4):
                    patched[:, y, x] = shown[:, y, x]
        yield Pair(faces[probe], faces[reference], patched, is_mated, row)


def similarity(one, other):
    return cosine(*(image.astype(np.float64).ravel() / 255 for image in (one, other)))


def restored(pair, fraction, threshold=0.5):
    """Restore a fraction of one pair in the order of the true map, and say whether it is wrong."""
    probe, reference = (image.astype(np.float32) / 255 for image in (pair.patched, pair.reference))
    map_ = (probe * reference).sum(0) + RAMP.numpy() - ((probe - reference) ** 2).sum(0)
    accepted = similarity(pair.patched, pair.reference) >= threshold
    order = np.argsort(-map_.ravel() if accepted else map_.ravel(), kind="stable")
    image = pair.patched.copy()
    for pixel in order[: int(np.floor(fraction * 256 + 0.5))]:
        image[:, pixel // 16, pixel % 16] = pair.probe[:, pixel // 16, pixel % 16]
    return float((similarity(image, pair.reference) >= threshold) != pair.is_mated)


@pytest.fixture(scope="module")
def truth():
    return run(Truth(), limits=LIMITS)


LIMITS = (
    BetterThan(FNMR.name, better_than="control.random_pixels", under={"fraction": 0.3}),
    BetterThan(FMR.name, better_than="control.random_blobs", under={"fraction": 0.3}),
    BetterThan(WRONG.name, better_than="control.random_pixels"),
    AtMost(WRONG.name, at_most=0.2),
)


def test_it_is_what_plain_loops_find(truth):
    _, rows = truth
    pairs = {pair.row: pair for pair in pairs_of(PEOPLE)}
    assert {row.row for row in rows} == pairs.keys()
    for fraction in FRACTIONS:
        for metric, is_mated in ((FNMR, True), (FMR, False)):
            found = values(rows, metric, fraction=fraction)
            assert found == {
                row: restored(pair, fraction)
                for row, pair in pairs.items()
                if pair.is_mated == is_mated
            }
    areas = values(rows, WRONG)
    points = [0.0, *FRACTIONS, 1.0]
    for row, found in areas.items():
        wrong = [1.0, *(restored(pairs[row], fraction) for fraction in FRACTIONS), 0.0]
        expected = sum(
            (b - a) * (one + two) / 2
            for a, b, one, two in zip(points, points[1:], wrong, wrong[1:], strict=False)
        )
        assert_rounded(np.array([found]), np.array([expected]), terms=4)


def test_the_area_is_of_the_pairs_whose_right_decision_the_patches_turned(truth):
    _, rows = truth
    turned = {
        pair.row
        for pair in pairs_of(PEOPLE)
        if (similarity(pair.patched, pair.reference) >= 0.5) != pair.is_mated
        if (similarity(pair.probe, pair.reference) >= 0.5) == pair.is_mated
    }
    assert values(rows, WRONG).keys() == turned
    assert 20 < len(turned) < len(rows)


def test_the_truth_is_better_than_random_orders_and_its_inverse_is_worse(truth):
    cell, rows = truth
    assert [one.verdict.outcome for one in cell.limits] == ["pass"] * 4
    for fraction in FRACTIONS[:2]:
        for metric in (FNMR, FMR):
            found, noise, worst = (
                mean(rows, metric, of, fraction=fraction)
                for of in ("explainer", "control.random_pixels", "control.inverse")
            )
            assert found < noise <= worst
    # Given: the clean pairs, the patched ones, and what knowing the patches is worth.
    for metric in (FNMR, FMR):
        for fraction in FRACTIONS:
            oracle, clean, patched = (
                mean(rows, metric, f"control.{of}", fraction=fraction)
                for of in ("oracle", "unpatched", "unrestored")
            )
            assert clean <= oracle <= patched
            assert clean < 0.2 < patched
        assert oracle == clean  # 60 % of the pixels: all patches


@pytest.mark.parametrize("explainer", [Noise(), OneForAll(), Constant(0.5)])
def test_maps_that_know_nothing_pass_no_limit(explainer):
    cell, rows = run(explainer, limits=LIMITS)
    assert cell.verdict.outcome != "pass"
    assert not any(one.verdict.outcome == "pass" for one in cell.limits)
    if isinstance(explainer, Constant):
        assert f"{len(rows)} of {len(rows)} saliency maps are degenerate" in cell.verdict.reason


def test_evidence_against_the_similarity_decides_what_a_rejected_pair_gets_back(truth):
    _, rows = truth
    _, unsigned = run(Truth(is_signed=False))
    for fraction in FRACTIONS[:2]:
        signed_, without = (mean(of, FNMR, fraction=fraction) for of in (rows, unsigned))
        assert signed_ < without


def test_a_model_without_a_threshold_has_no_values_and_the_reason(truth):
    cell, rows = run(Truth(), network=pixels(threshold=None), limits=LIMITS)
    assert cell.verdict.outcome not in ("pass", "fail")
    assert not any(one.verdict.outcome in ("pass", "fail") for one in cell.limits)
    assert "declares no operating threshold" in " ".join(cell.remarks)
    assert all(
        value is None for row in rows for one in row.measured for value in one.values.values()
    )


def test_a_broken_map_leaves_the_controls_their_values(truth):
    cell, rows = run(Broken(), limits=LIMITS)
    assert cell.verdict.outcome == "fail"
    assert all(np.isnan([*values(rows, FMR, fraction=0.1).values()]))
    for map_ in CONTROLS:
        if map_ != "inverse":
            own = values(rows, FMR, f"control.{map_}", fraction=0.1)
            assert own == values(truth[1], FMR, f"control.{map_}", fraction=0.1)


def test_a_list_without_nonmated_pairs_says_that_nobody_can_be_falsely_accepted():
    @dataclass(frozen=True)
    class Mated(Planted):
        def listing(self):
            listing = super().listing()
            return listing.take([row for row, mated in enumerate(listing.is_mated) if mated])

    cell, rows = run(Truth(), source=Mated(), limits=LIMITS[1:2])
    assert all(row.is_mated for row in rows)
    assert cell.limits[0].verdict.outcome not in ("pass", "fail")
    assert "no nonmated pairs: patch_fmr has no value" in " ".join(cell.remarks)


def test_every_metric_is_a_decision():
    assert all(metric.is_decision for metric in METRICS)
