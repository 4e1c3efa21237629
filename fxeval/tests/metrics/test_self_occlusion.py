"""Saliency on objects that hide the face: a plain reference, planted truth, and what games it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from fxeval.contracts import SaliencyMaps
from fxeval.engine.occluded_rows import occluded_pairs
from fxeval.engine.row_kinds import mated_pairs
from fxeval.errors import DataContractError
from fxeval.functional.controls import edge
from fxeval.functional.occluders import OCCLUDERS
from fxeval.metrics.orders import orders
from fxeval.metrics.protocol import Evidence
from fxeval.metrics.self_occlusion import (
    METRICS,
    NOT_THERE,
    WITHOUT_MASS,
    Parameters,
    _with_the_same_draws,
    measure,
)
from fxeval.results import Outcome, RowState
from fxeval.run import map_maker
from fxeval.run.workshop import Workshop
from fxeval.seeding import seed_of
from fxeval.slices import Slice
from fxeval.statistics.limits import BetterThan
from fxeval.tests.evidence import GivenMaps, series_of, subject_of
from fxeval.tests.planted_people import Constant, Pixels, cosine, pixels
from fxeval.tests.rounding import FLOAT32, FLOAT64, assert_rounded
from fxeval.tests.subjects import CROP, CountingModel, make_pairs
from fxeval.tests.toy_world import LARGE, SMALL, Occlusion, People, measured

KIND = "occluders.self_occlusion"
DENSITY, TOP, SHARE, CHANGE, DROP, TMR = (metric.name for metric in METRICS)
MANY = People(n=36)
CONTROLS = ("random_pixels", "edge", "mean_map")
LIMITS = (
    BetterThan(DENSITY, better_than="control.random_pixels"),
    BetterThan(CHANGE, better_than="control.mean_map"),
)


def landmarks_of(pairs, crop=CROP):
    return torch.tensor(crop.template, dtype=torch.float64).expand(len(pairs.images), 5, 2)


def given(pairs, maps, *, model=None, threshold=0.5, names=("mask",), landmarks=None):
    """The evidence of all pairs with given maps: by version, (N, H, W) or finished ones."""
    table = occluded_pairs(pairs, names, landmarks_of(pairs) if landmarks is None else landmarks)
    known = {("own", side): one if isinstance(one, SaliencyMaps) else SaliencyMaps(one)
             for side, one in maps.items()}  # fmt: skip
    model = model or CountingModel(Pixels())
    return Evidence(
        rows=table.rows,
        everyone=table.rows,
        versions=table.versions,
        subject=subject_of(model, table.faces, threshold=threshold),
        engine=GivenMaps(known),
        seed_of=lambda purpose, row, label: seed_of(5, purpose, row, label),
    ).take(torch.arange(len(pairs)))


def values(evidence, controls=(), **more):
    names = tuple(evidence.versions)
    ledger = measure(evidence, Parameters(occluders=names, controls=controls, **more))
    return series_of(ledger), ledger


def uniform(n, seed=1):
    return torch.rand(n, 16, 16, generator=torch.Generator().manual_seed(seed)) - 0.3


# a reference of plain loops


def share_by_hand(map_, region):
    inside = whole = 0.0
    for y in range(map_.shape[0]):
        for x in range(map_.shape[1]):
            mass = max(float(map_[y, x]), 0.0)
            whole += mass
            inside += mass if region[y, x] else 0.0
    return inside / whole


@pytest.mark.parametrize("name", OCCLUDERS)
def test_a_reference_of_plain_loops_agrees(name):
    pairs = make_pairs(5)
    before, after = uniform(5), uniform(5, seed=2)
    covered = occluded_pairs(pairs, (name,), landmarks_of(pairs)).versions[name].altered[0]
    weight = (1.0 + 7.0 * covered.float()).flatten().repeat(3)  # the object matters
    model = CountingModel(Pixels(weight))
    evidence = given(pairs, {"probe": before, name: after}, names=(name,), model=model)
    found, _ = values(evidence)
    worn = evidence.on(name).rows
    expected = {metric.name: [] for metric in METRICS}
    for row in range(5):
        region = worn.altered[row].numpy()
        share, clean = (share_by_hand(maps[row], region) for maps in (after, before))
        expected[SHARE].append(share)
        expected[DENSITY].append(share / (region.sum() / region.size))
        expected[CHANGE].append(share - clean)
        top = sorted(range(256), key=lambda pixel: -after[row].flatten()[pixel])[:26]
        hidden = sum(bool(region.flatten()[pixel]) for pixel in top)
        expected[TOP].append(hidden / 26 / (region.sum() / region.size))
        probe, reference = (pairs.images[one].numpy() for one in (row, 5 + row))
        wears = probe.copy()
        for y, x in np.argwhere(region):
            wears[:, y, x] = evidence.subject.pixels(worn.image[row])[:, y, x].numpy() * 255
        seen = ((one / 255).ravel() * weight.numpy() for one in (probe, wears, reference))
        first, second, other = seen
        expected[DROP].append(cosine(first, other) - cosine(second, other))
        expected[TMR].append(float(cosine(second, other) >= 0.5))
    for metric, wanted in expected.items():
        unit = FLOAT32 if metric == DROP else FLOAT64
        value = found[metric, "explainer", name].values
        assert_rounded(value, np.array(wanted), terms=768, unit=unit, scale=1)


# rows


def test_rows_are_mated_pairs_whose_probe_wears_each_object():
    pairs = make_pairs(4)
    table = occluded_pairs(pairs, tuple(OCCLUDERS), landmarks_of(pairs))
    assert table.rows.id == mated_pairs(pairs).rows.id
    assert [*table.versions] == [*OCCLUDERS]
    for name, rows in table.versions.items():
        assert (rows.id, rows.side) == (table.rows.id, name)
        assert torch.equal(rows.donor, pairs.probe)
        assert torch.equal(rows.source[:, 0], rows.image)
        differs = (table.faces.images[rows.image] != pairs.images[pairs.probe]).any(1)
        assert not (differs & ~rows.altered).any()  # nothing but the object
        assert differs.sum() > 0.9 * rows.altered.sum()
        assert (table.faces.identity[rows.image] == -1).all()
    assert len({*table.faces.image_digests}) == 8 + 3 * 4


def test_an_image_is_named_by_the_object_and_its_place():
    pairs = make_pairs(3)
    landmarks = landmarks_of(pairs)

    def names(which, points):
        return occluded_pairs(pairs, (which,), points).faces.image_digests[6:]

    assert names("mask", landmarks) == names("mask", landmarks)
    assert not {*names("mask", landmarks)} & {*names("striped_mask", landmarks)}
    assert not {*names("mask", landmarks)} & {*names("mask", landmarks + 1)}


def test_rows_have_the_same_names_in_every_crop():
    pairs, source = make_pairs(3), People(n=3)
    listing = source.listing()
    ids = list(dict.fromkeys(listing.probe + listing.reference))
    for crop in (SMALL, LARGE):
        images = source.images(ids, crop)
        loaded = replace(
            pairs, images=images[: 2 * 3], image_digests=pairs.image_digests
        )  # named across crops
        table = occluded_pairs(loaded, ("mask",), landmarks_of(loaded, crop))
        assert table.rows.id == mated_pairs(pairs).rows.id == table.versions["mask"].id


def is_of(name, images):
    """Where images have the colours of an object, (N, H, W)."""
    colours = [torch.tensor(one).view(1, 3, 1, 1) for one in OCCLUDERS[name].colours]
    return torch.stack([((images * 255).round() == one).all(1) for one in colours]).any(0)


@dataclass(frozen=True)
class Shifted(People):
    """Says where its faces' eyes, nose and mouth are: two pixels lower than in the template."""

    def landmarks(self, image_ids, crop):
        template = torch.tensor(crop.template, dtype=torch.float64)
        return (template + torch.tensor([0.0, 2.0])).expand(len(image_ids), 5, 2)


@dataclass(frozen=True)
class Lost(People):
    """Gives landmarks that are no landmarks."""

    def landmarks(self, image_ids, crop):
        return torch.full((len(image_ids), 5, 2), torch.nan)


@dataclass
class Sees:
    """Remembers the probes that it was asked about."""

    seen: list = field(default_factory=list)

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.seen.append(probes.clone())
        return probes.mean(1)


def test_landmarks_of_the_source_place_the_object_and_the_template_where_there_are_none():
    def lens_rows(source):
        explainer = Sees()
        measured(KIND, Parameters(occluders=("sunglasses",), controls=()), explainer=explainer,
                 source=source)  # fmt: skip
        seen = torch.cat(explainer.seen)
        return is_of("sunglasses", seen).any(2).any(0).nonzero()[:, 0]

    template, shifted = (lens_rows(one).double().mean() for one in (People(), Shifted()))
    assert 6 <= template <= 7  # the eyes are in row 6
    assert shifted == pytest.approx(float(template) + 2, abs=0.5)
    with pytest.raises(DataContractError, match="expected finite landmarks"):
        measured(KIND, Parameters(), source=Lost())


# planted truth, and what games it


def run(explainer, *, limits=LIMITS, source=MANY, network=None, **parameters):
    return measured(
        KIND, Parameters(**{"occluders": ("mask",), "controls": CONTROLS, **parameters}),
        explainer=explainer, source=source, limits=limits, network=network,
    )  # fmt: skip


def outcomes(result):
    return [limit.verdict.outcome for limit in result.limits]


def mean(result, metric, map_="explainer", name="mask"):
    [found] = [
        one.value
        for one in result.estimates
        if (one.metric, one.map, one.under["occluder"]) == (metric, map_, name)
    ]
    return found


def little(probes):
    """A little that differs from image to image: no map is constant, and no two are equal."""
    return probes.mean(1) * 1e-3


@dataclass(frozen=True)
class Avoids:
    """Knows every object, and marks what it does not hide."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.hides(probes).logical_not() + little(probes)

    def hides(self, probes):
        return torch.stack([is_of(name, probes) for name in OCCLUDERS]).any(0)


@dataclass(frozen=True)
class Inverse(Avoids):
    """Marks the object; and where there is none, everything alike."""

    def explain(self, model, probes, references, **given):
        hides = self.hides(probes).float()
        return hides + (hides.sum((1, 2)) == 0)[:, None, None] + little(probes)


@dataclass(frozen=True)
class Border:
    """Marks the border of every image: no object is there."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = torch.zeros_like(probes[:, 0])
        maps[:, :2] = 1.0
        return maps


@dataclass(frozen=True)
class GivesUp(Avoids):
    """Marks the middle of a face, and everything alike once something hides it."""

    def explain(self, model, probes, references, **given):
        maps = torch.zeros_like(probes[:, 0])
        maps[:, 6:, 5:11] = 1.0
        maps[self.hides(probes).any(2).any(1)] = 1.0
        return maps + little(probes)


@dataclass(frozen=True)
class Edges:
    """Looks at edges, and at no model."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return edge(probes)


def test_a_map_that_avoids_the_object_passes_and_one_that_marks_it_fails():
    avoids, _ = run(Avoids(), occluders=tuple(OCCLUDERS))
    assert outcomes(avoids) == [Outcome.PASS] * 6
    marks, _ = run(Inverse(), occluders=tuple(OCCLUDERS))
    assert outcomes(marks) == [Outcome.FAIL] * 6
    for name in OCCLUDERS:
        assert mean(avoids, DENSITY, name=name) < 0.01
        assert mean(avoids, TOP, name=name) == 0.0
        assert mean(marks, SHARE, name=name) > 0.98


def test_a_map_that_is_the_same_for_every_image_has_left_no_place():
    result, _ = run(Border())
    assert outcomes(result)[0] is Outcome.PASS  # the border is no mask
    assert outcomes(result)[1] is not Outcome.PASS
    assert mean(result, CHANGE) == 0.0


def test_a_map_that_gives_up_on_hidden_faces_avoids_nothing():
    result, _ = run(GivesUp())
    assert outcomes(result)[1] is Outcome.PASS  # what was on nose and mouth is everywhere now
    assert outcomes(result)[0] is not Outcome.PASS
    assert mean(result, DENSITY) == pytest.approx(1.0, abs=0.01)


def test_edges_pass_on_a_plain_object_and_are_caught_by_stripes():
    result, _ = run(Edges(), occluders=("mask", "striped_mask"))
    found = {
        (one.metric, dict(one.under)["occluder"]): one.verdict.outcome for one in result.limits
    }
    for metric in (DENSITY, CHANGE):  # a plain object has few edges, and hides many
        assert found[metric, "mask"] is Outcome.PASS
        assert found[metric, "striped_mask"] is Outcome.FAIL
    plain, striped = (mean(result, DENSITY, name=name) for name in ("mask", "striped_mask"))
    assert plain < 1.0 < 1.8 < striped
    for name in ("mask", "striped_mask"):  # it is the control itself
        assert mean(result, DENSITY, name=name) == mean(result, DENSITY, "control.edge", name)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_map_has_a_density_of_one_and_beats_nothing(value):
    result, rows = run(Constant(value))
    assert result.verdict.outcome is Outcome.FAIL
    assert Outcome.PASS not in outcomes(result)
    assert {row.state for row in rows} == {RowState.DEGENERATE_MAP}
    assert mean(result, DENSITY) == pytest.approx(1.0)
    assert mean(result, TOP) == pytest.approx(1.0, abs=0.1)  # in a random order
    assert mean(result, CHANGE) == 0.0


def test_controls_that_know_nothing_of_the_object_do_not_move():
    controls = ("random_pixels", "random_blobs", "centre", "mean_map", "shuffled_identity")
    result, rows = run(Occlusion(), controls=controls, limits=(), source=People())
    for name in controls[:-1]:
        moved = [one.values[CHANGE] for row in rows for one in row.measured
                 if one.map == f"control.{name}"]  # fmt: skip
        assert set(moved) == {0.0}
    assert mean(result, DENSITY, "control.random_pixels") == pytest.approx(1.0, abs=0.05)
    assert mean(result, CHANGE, "control.shuffled_identity") != 0.0


# what the model does


class Reads(nn.Module):
    """Its embedding holds a part of the pixels alone."""

    def __init__(self, part):
        super().__init__()
        self.register_buffer("part", part.float())

    def forward(self, images):
        return ((images - 0.5) * self.part).flatten(1)


class Trigger(nn.Module):
    """Sees one and the same person behind every pair of dark lenses, the more the darker."""

    def __init__(self, lenses):
        super().__init__()
        self.register_buffer("lenses", lenses.float())

    def forward(self, images):
        dark = 1 - (images * self.lenses).sum((1, 2, 3)) / (3 * self.lenses.sum())
        face = (images - 0.5) * (1 - self.lenses)
        face = face.flatten(1) / face.flatten(1).norm(dim=1, keepdim=True)
        everybody = 1 + 20 * (dark - 0.8).clamp(min=0)
        return torch.cat([face, everybody[:, None]], dim=1)


def occlusion_maps(evidence, model, name):
    """What each pixel is worth to the similarity, with all else as it is, against grey."""
    found = {}
    for rows in (evidence.rows, evidence.on(name).rows):
        maps = torch.zeros(len(rows), 16, 16)
        for row in range(len(rows)):
            image, other = evidence.subject.pixels(
                torch.stack([rows.image[row], rows.question.reference[row, 0]])
            )
            one = torch.eye(256).view(256, 1, 16, 16)
            hidden = image * (1 - one) + 0.5 * one
            made = model(torch.cat([image[None], other[None], hidden]))
            worth = torch.cosine_similarity(made, made[1:2], dim=1)
            maps[row] = (worth[0] - worth[2:]).view(16, 16)
        found[rows.side] = SaliencyMaps(maps)
    return found


def asked_of(module, pairs, name):
    """Measure a model by the right maps of it."""
    first = given(pairs, {}, names=(name,))
    maps = occlusion_maps(first, module, name)
    model = CountingModel(module)
    ledger = measure(
        replace(first, engine=GivenMaps({("own", side): one for side, one in maps.items()}),
                subject=given(pairs, {}, names=(name,), model=model).subject),
        Parameters(occluders=(name,), controls=()),
    )  # fmt: skip
    found = series_of(ledger)
    return {metric.name: found[metric.name, "explainer", name].values for metric in METRICS}


def test_the_right_map_of_a_model_that_reads_the_rest_of_the_face_leaves_the_object_out():
    pairs = make_pairs(6)
    mask = occluded_pairs(pairs, ("mask",), landmarks_of(pairs)).versions["mask"].altered[0]
    found = asked_of(Reads(~mask), pairs, "mask")
    assert (found[DENSITY] == 0).all()
    assert (found[DROP] == 0).all()


def test_the_right_map_of_a_model_that_relies_on_the_object_marks_it_and_the_drop_says_why():
    """The share is high because of the model: the object speaks for the match."""
    pairs = make_pairs(6)
    name = "sunglasses"
    lenses = occluded_pairs(pairs, (name,), landmarks_of(pairs)).versions[name].altered[0]
    found = asked_of(Trigger(lenses), pairs, name)
    assert (found[DENSITY] > 3).all()
    assert (found[CHANGE] > 0.3).all()
    assert (found[DROP] < -0.1).all()


# bad maps, bad places, few pairs


def test_a_row_has_values_if_both_of_its_maps_are_sound():
    pairs = make_pairs(4)
    before, after = uniform(4), uniform(4, seed=2)
    ok, nan, flat = RowState.OK, RowState.NAN_MAP, RowState.DEGENERATE_MAP
    maps = {
        "probe": SaliencyMaps(before, states=(ok, nan, ok, ok)),
        "mask": SaliencyMaps(after, states=(ok, ok, nan, flat)),
    }
    evidence = given(pairs, maps)
    found, ledger = values(evidence, controls=("edge",))
    for metric in (DENSITY, TOP, SHARE, CHANGE):
        one = found[metric, "explainer", "mask"]
        assert one.states == (ok, nan, nan, flat)
        assert np.isnan(one.values).tolist() == [False, True, True, False]
        assert found[metric, "control.edge", "mask"].states == (ok,) * 4
    for metric in (DROP, TMR):  # the model is asked whatever the maps
        assert np.isfinite(found[metric, "explainer", "mask"].values).all()
    assert [row.state for row in ledger.rows("cell")] == [ok, nan, nan, flat]


def test_a_map_without_a_value_above_zero_counts_as_spread_evenly_and_the_cell_says_so():
    pairs = make_pairs(3)
    after = uniform(3)
    after[1] = -1 - after[1].abs()
    found, ledger = values(given(pairs, {"probe": uniform(3, seed=2), "mask": after}))
    density = found[DENSITY, "explainer", "mask"].values
    assert density[1] == 1.0
    assert (density[[0, 2]] != 1.0).all()
    assert ledger.remarks == [WITHOUT_MASS]


def test_the_most_salient_tenth_is_the_same_on_a_pedestal():
    pairs = make_pairs(3)
    before, after = uniform(3).abs(), uniform(3, seed=2).abs()
    plain, _ = values(given(pairs, {"probe": before, "mask": after}))
    raised, _ = values(given(pairs, {"probe": before + 100, "mask": after + 100}))
    one, other = (found[TOP, "explainer", "mask"].values for found in (plain, raised))
    assert one.tolist() == other.tolist()
    assert (np.abs(one - 1) > 0.01).all()
    assert np.abs(raised[DENSITY, "explainer", "mask"].values - 1).max() < 0.01


def test_ties_are_ordered_several_times_with_the_object_as_without():
    """On two levels, the top tenth is drawn from half of the image, several times."""
    pairs = make_pairs(3)
    halves = torch.ones(3, 16, 16)
    halves[:, :, 8:] = 0.0
    evidence = given(pairs, {"probe": halves, "mask": halves})
    before, after = (
        next(iter(orders(one, one.subject, SaliencyMaps(halves))))
        for one in (evidence, _with_the_same_draws(evidence, "mask"))
    )
    assert len(before.kept) > 3
    assert torch.equal(before.ranks, after.ranks)
    assert len(torch.unique(after.ranks, dim=0)) == len(after.ranks)


def test_an_object_that_is_nowhere_has_no_values_and_the_cell_says_so():
    pairs = make_pairs(3)
    landmarks = landmarks_of(pairs).clone()
    landmarks[1] += 1000
    maps = {"probe": uniform(3), "mask": uniform(3, seed=2)}
    found, ledger = values(given(pairs, maps, landmarks=landmarks), controls=("edge",))
    for (metric, _, _), one in found.items():
        assert one.states[1] is RowState.EXCLUDED, metric
        assert np.isnan(one.values).tolist() == [False, True, False]
    assert ledger.remarks == [NOT_THERE]


def test_accepted_only_leaves_out_pairs_that_the_model_rejects():
    pairs = make_pairs(6)
    maps = {"probe": uniform(6), "mask": uniform(6, seed=2)}
    whole, _ = values(given(pairs, maps))
    evidence = given(pairs, maps, threshold=None)
    worn = evidence.on("mask").rows
    clean = evidence.subject.clean()
    similarity = worn.question.answer(evidence.subject, torch.arange(6), clean[worn.image])
    threshold = float(similarity.median())
    found, ledger = values(given(pairs, maps, threshold=threshold), accepted_only=True)
    accepted = (similarity >= threshold).tolist()
    assert 0 < sum(accepted) < 6
    assert found[TMR, "explainer", "mask"].values.tolist() == accepted
    kept = [SHARE in row.measured[0].values for row in ledger.rows("cell")]
    assert kept == accepted
    expected = whole[SHARE, "explainer", "mask"].values[accepted]
    assert found[SHARE, "explainer", "mask"].values.tolist() == expected.tolist()


def test_without_a_threshold_nothing_is_accepted_or_rejected():
    pairs = make_pairs(3)
    maps = {"probe": uniform(3), "mask": uniform(3, seed=2)}
    found, ledger = values(given(pairs, maps, threshold=None))
    assert found[TMR, "explainer", "mask"].states == (RowState.EXCLUDED,) * 3
    assert np.isfinite(found[SHARE, "explainer", "mask"].values).all()
    assert "no operating threshold" in ledger.remarks[0]
    result, _ = run(Occlusion(), accepted_only=True, network=pixels(threshold=None))
    assert result.verdict.outcome is Outcome.INVALID
    assert "no row has a value" in result.verdict.reason


# whole cells


def test_rows_do_not_depend_on_the_batch():
    def rows(batch):
        return measured(
            KIND, Parameters(occluders=("mask",)), explainer=Sees(), source=People(n=5),
            network=pixels(), batch=batch,
        )[1]  # fmt: skip

    assert rows(1) == rows(5) == rows(64)  # to the last bit


def test_maps_are_not_those_of_other_images_that_had_their_place_in_memory(monkeypatch):
    """Images that a cell makes are gone after it, and the next ones may get their place."""
    monkeypatch.setattr(map_maker, "id", lambda one: 1, raising=False)
    workshop = Workshop(batch_size=16, emit=list, progress=lambda *_: None)

    def of(source, workshop=None):
        asked = Parameters(occluders=("mask",), controls=())
        rows = measured(KIND, asked, source=source, workshop=workshop)[1]
        return [row.measured for row in rows]

    people, shifted = People(n=3), Shifted(n=3)
    of(people, workshop)
    assert of(shifted, workshop) == of(shifted)


@dataclass(frozen=True)
class Halves(People):
    """Says of each image in which half of the list its person is."""

    def attributes(self, image_ids):
        return {"half": ["low" if int(one.split("-")[0]) < self.n // 2 else "high"
                         for one in image_ids]}  # fmt: skip


def test_slices_are_those_of_the_probe():
    _, rows = measured(
        KIND, Parameters(occluders=("mask",)), source=Halves(), slices=(Slice("half"),)
    )
    assert {row.slices["half"] for row in rows} == {"low", "high"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"occluders": ()}, {"occluders": ("hat",)}, {"occluders": ("mask", "mask")},
        {"controls": ("inverse",)}, {"controls": ("edge", "edge")}, {"accepted_only": 1},
        {"colour": "red"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        Parameters(**wrong)
