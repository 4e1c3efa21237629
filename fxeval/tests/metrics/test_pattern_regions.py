"""Regions of people's maps: a plain reference, what is not known, what noise and games get."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fxeval.contracts import Faces, LabelMaps, SaliencyMaps
from fxeval.engine.pattern_rows import MOST_EXPLAINED
from fxeval.metrics.kept import Kept
from fxeval.metrics.pattern_regions import DENSITY, METRICS, SHARE, VARIATION, Parameters, measure
from fxeval.metrics.protocol import Evidence, Rows, averaged
from fxeval.metrics.questions import Likeness
from fxeval.results import Outcome, RowState
from fxeval.seeding import seed_of
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.evidence import series_of, subject_of
from fxeval.tests.toy_world import People, measured

SIZE = (12, 10)
NAMES = ("background", "left_eye", "right_eye", "nose", "scar")
REGIONS = ("eyes", "nose", "scar", "left_eye")
LABELS_OF = {"eyes": (1, 2), "nose": (3,), "scar": (4,), "left_eye": (1,)}
FRACTIONS = (0.1, 1.0)


def maps_of(values, absent=()) -> SaliencyMaps:
    states = ["ok" if one.isfinite().all() else "nan_map" for one in values]
    states = ["degenerate_map" if one.min() == one.max() else state
              for one, state in zip(values, states, strict=True)]  # fmt: skip
    states = ["excluded" if row in absent else one for row, one in enumerate(states)]
    return SaliencyMaps(values, None, tuple(map(RowState, states)), ("",) * len(states))


@dataclass
class Each:
    """An engine whose maps of the first images, the second ones and so on are there."""

    sets: tuple[SaliencyMaps, ...]

    def maps_each(self, rows, subject):
        return self.sets

    def maps(self, rows, subject, explainer, draw=0):
        there = [
            [place for place, one in enumerate(self.sets) if one.states[row] != "excluded"]
            for row in range(len(rows))
        ]
        n = len(rows)
        joined = SaliencyMaps(
            torch.cat([one.positive for one in self.sets]), None,
            sum((one.states for one in self.sets), ()), ("why",) * (n * len(self.sets)),
        )  # fmt: skip
        return averaged(joined, [[place * n + row for place in some]
                                 for row, some in enumerate(there)])  # fmt: skip


def labels(n, seed=1) -> torch.Tensor:
    return torch.randint(-1, 5, (n, *SIZE), generator=torch.Generator().manual_seed(seed))


def noise(*shape, seed=1):
    return torch.rand((*shape, *SIZE), generator=torch.Generator().manual_seed(seed))


def evidence_of(values, known=None, *, names=NAMES, few=(), source="", seed=5) -> Evidence:
    """People with given maps of E images, (E, N, H, W); those who are ``few`` have one less."""
    e, n = values.shape[:2]
    images = torch.arange(e * n).view(e, n).T.clone()
    images[list(few), -1] = -1
    faces = Faces("made", torch.zeros(e * n, 3, *SIZE, dtype=torch.uint8), ("",) * (e * n),
                  torch.arange(n).repeat(e))  # fmt: skip
    rows = Rows(
        kind="people", id=tuple(f"{row}" for row in range(n)), image=images[:, 0], source=images,
        against=images, identities=torch.arange(n)[:, None],
        is_mated=torch.ones(n, dtype=torch.bool), question=Likeness(images[:, :1]),
    )  # fmt: skip
    known = labels(e * n) if known is None else known
    subject = replace(
        subject_of(None, faces), labels=lambda which: LabelMaps(names, known[which], source)
    )
    sets = tuple(maps_of(one, few if place == e - 1 else ()) for place, one in enumerate(values))
    return Evidence(
        rows=rows, everyone=rows, subject=subject, engine=Each(sets),
        seed_of=lambda *what: seed_of(seed, *what),
    ).take(torch.arange(n))  # fmt: skip


def found_in(evidence, **parameters):
    given = {"regions": REGIONS, "fractions": FRACTIONS, "controls": (), **parameters}
    return series_of(measure(evidence, Parameters(**given)))


def plain_share(map_, labelled, region, fraction):
    map_ = np.asarray(map_, dtype=np.float64)
    inside = np.isin(labelled, LABELS_OF[region])
    if fraction == 1.0:
        scaled = (map_ - map_.min()) / (map_.max() - map_.min())
        return scaled[inside].sum() / scaled.sum()
    k = math.floor(fraction * map_.size + 0.5)
    top = sorted(range(map_.size), key=lambda pixel: -map_.ravel()[pixel])[:k]
    return sum(bool(inside.ravel()[pixel]) for pixel in top) / k


def test_a_reference_of_plain_loops_agrees():
    values, known = noise(3, 4) ** 3, labels(12)
    found = found_in(evidence_of(values, known, few=(2,)))
    for row in range(4):
        images = [0, 1] if row == 2 else [0, 1, 2]
        for region in REGIONS:
            for fraction in FRACTIONS:
                shares = [
                    plain_share(values[e, row], known[4 * e + row].numpy(), region, fraction)
                    for e in images
                ]
                areas = [
                    np.isin(known[4 * e + row].numpy(), LABELS_OF[region]).mean() for e in images
                ]
                expected = {
                    SHARE: np.mean(shares),
                    DENSITY: np.mean(np.divide(shares, areas)),
                    VARIATION: np.std(shares, ddof=1) / np.mean(shares),
                }
                for metric, value in expected.items():
                    ours = found[metric.name, "explainer", region, fraction]
                    assert ours.values[row] == pytest.approx(value, rel=1e-9)
                    assert ours.states[row] == "ok"


def test_noise_has_a_density_of_one_everywhere_and_so_has_a_constant_map():
    for values in (noise(4, 30), noise(4, 30) * 0 + 0.5):
        found = found_in(evidence_of(values), controls=("random_pixels",))
        for region in REGIONS:
            for map_ in ("explainer", "control.random_pixels"):
                ours = found[DENSITY.name, map_, region, 1.0]
                assert ours.values.mean() == pytest.approx(1.0, abs=0.05)
                if map_ == "explainer" and not values.std():
                    assert {*ours.states} == {"degenerate_map"}


def test_a_map_of_the_nose_has_it_all():
    known = labels(12)
    values = (known == 3).float().view(3, 4, *SIZE)
    found = found_in(evidence_of(values, known), regions=("nose", "eyes"))
    assert found[SHARE.name, "explainer", "nose", 1.0].values == pytest.approx([1.0] * 4)
    assert found[SHARE.name, "explainer", "eyes", 1.0].values.tolist() == [0.0] * 4
    assert found[VARIATION.name, "explainer", "nose", 1.0].values == pytest.approx([0.0] * 4)
    never = found[VARIATION.name, "explainer", "eyes", 1.0]  # a mean of 0 does not vary
    assert np.isnan(never.values).all()
    assert {*never.states} == {"excluded"}


def test_an_image_whose_parts_are_not_known_is_left_out_and_counted():
    values, known = noise(3, 4), labels(12)
    known[4] = -1  # the second image of the first person
    known[[1, 5, 9]] = -1  # all of the second person
    evidence = evidence_of(values, known, source="drawn at random")
    ledger = measure(evidence, Parameters(regions=REGIONS, fractions=(1.0,), controls=("centre",)))
    assert ledger.remarks == [
        "4 of 12 images have no labels: what their maps rest on is not known, and they have no "
        "part in the values",
        "regions: drawn at random",
    ]
    found = series_of(ledger)
    for map_ in ("explainer", "control.centre"):
        ours = found[SHARE.name, map_, "nose", 1.0]
        assert ours.states == ("ok", "excluded", "ok", "ok")
        assert np.isnan(ours.values).tolist() == [False, True, False, False]
    shares = [plain_share(values[e, 0], known[4 * e].numpy(), "nose", 1.0) for e in (0, 2)]
    ours = found[SHARE.name, "explainer", "nose", 1.0].values[0]
    assert ours == pytest.approx(np.mean(shares), rel=1e-9)


def test_a_region_that_an_image_does_not_show_has_no_share_and_no_density_there():
    values, known = noise(2, 2), labels(4)
    known[0][known[0] == 3] = 0
    known[[1, 3]] = torch.where(known[[1, 3]] == 3, 0, known[[1, 3]])
    found = found_in(evidence_of(values, known), regions=("nose",))
    share = found[SHARE.name, "explainer", "nose", 1.0].values
    seen = plain_share(values[1, 0], known[2].numpy(), "nose", 1.0)
    assert share.tolist() == [pytest.approx(seen / 2, rel=1e-9), 0.0]
    density = found[DENSITY.name, "explainer", "nose", 1.0]
    assert density.values[0] == pytest.approx(seen / (known[2] == 3).double().mean().item())
    assert density.states == ("ok", "excluded")


def test_a_region_that_the_label_maps_do_not_know_has_no_value_and_is_named():
    evidence = evidence_of(noise(2, 3))
    ledger = measure(evidence, Parameters(regions=("hair", "nose"), fractions=(1.0,), controls=()))
    assert ledger.remarks == [
        "region hair: no values: the label maps have no such part or group; they have: "
        "background, left_eye, right_eye, nose, scar, eyes"
    ]
    found = series_of(ledger)
    for metric in METRICS:
        ours = found[metric.name, "explainer", "hair", 1.0]
        assert np.isnan(ours.values).all()
        assert {*ours.states} == {"excluded"}
    assert {*found[SHARE.name, "explainer", "nose", 1.0].states} == {"ok"}


def test_label_maps_of_other_rows_are_never_taken_for_these():
    kept, values = Kept(), noise(2, 3)
    for seed in (1, 2, 3):
        evidence = replace(evidence_of(values, labels(6, seed)), kept=kept)
        alone = evidence_of(values, labels(6, seed))
        for key, found in found_in(evidence).items():
            assert found.values.tolist() == found_in(alone)[key].values.tolist()


def test_a_broken_map_breaks_its_person_and_nobody_else():
    values = noise(3, 4)
    values[1, 2, 0, 0] = math.nan
    found = found_in(evidence_of(values), controls=("mean_map", "centre"))
    ours = found[SHARE.name, "explainer", "nose", 1.0]
    assert ours.states == ("ok", "ok", "nan_map", "ok")
    assert np.isnan(ours.values).tolist() == [False, False, True, False]
    for control in ("control.mean_map", "control.centre"):
        assert np.isfinite(found[SHARE.name, control, "nose", 1.0].values).all()


def test_the_controls_of_others_are_of_others_and_need_them():
    """Every person's maps are a point that says whose they are."""
    values, known = torch.zeros(2, 3, *SIZE), torch.zeros(6, *SIZE, dtype=torch.int64)
    for row in range(3):
        values[:, row, row, 0] = 1.0
        known[:, row, 0] = row + 1  # left eye, right eye, nose
    everyone = evidence_of(values, known)
    regions = ("left_eye", "right_eye", "nose")
    found = found_in(everyone, regions=regions, controls=("mean_map", "shuffled_identity"))
    for row, region in enumerate(regions):
        for control, share in (("mean_map", 0.5), ("shuffled_identity", None)):
            ours = found[SHARE.name, f"control.{control}", region, 1.0].values
            assert ours[row] == 0.0
            others = [ours[other] for other in range(3) if other != row]
            assert share is None or others == [share] * 2
            assert {*others} <= {0.0, 0.5, 1.0}
    alone = found_in(evidence_of(noise(2, 1)), controls=("mean_map", "shuffled_identity"))
    for control in ("mean_map", "shuffled_identity"):
        assert {*alone[SHARE.name, f"control.{control}", "nose", 1.0].states} == {"excluded"}


def test_random_maps_are_drawn_anew_for_each_image():
    same = labels(1).expand(30, *SIZE)
    found = found_in(
        evidence_of(noise(3, 10), same), controls=("random_pixels", "random_blobs", "centre")
    )
    for control in ("random_pixels", "random_blobs"):
        assert found[VARIATION.name, f"control.{control}", "nose", 1.0].values.min() > 0
    still = found[VARIATION.name, "control.centre", "nose", 1.0].values
    assert still == pytest.approx([0.0] * 10, abs=1e-12)  # the smallest variation is no merit


def test_the_largest_variation_is_that_of_a_share_in_one_image_alone():
    assert VARIATION.range == (0.0, MOST_EXPLAINED**0.5)
    known = torch.zeros(4, *SIZE, dtype=torch.int64)
    known[:, :6] = 3
    values = noise(4, 1) * 1e-9
    values[0, 0, :6] += 1
    values[1:, 0, 6:] += 1
    found = found_in(evidence_of(values, known), regions=("nose",), fractions=(0.1,))
    assert found[VARIATION.name, "explainer", "nose", 0.1].values == pytest.approx([2.0])


# Verdicts of whole cells: in these people's images a brow, a nose and a mouth are a third each.


@dataclass(frozen=True)
class OfRows:
    """Looks at the first rows of the image, the more the higher, with a little of the image."""

    share: float = 1 / 3

    def explain(self, model, probes, references, *, contrast=None, generator):
        rows = torch.arange(probes.shape[-2]) < self.share * probes.shape[-2]
        return rows[:, None].float() + 0.1 * probes.mean(1)


def verdicts(explainer, *limits, **parameters):
    given = Parameters(**{"regions": ("brow", "nose", "mouth"), "fractions": (0.1,), **parameters})
    result, _ = measured("patterns.regions", given, explainer=explainer, source=People(n=40),
                         limits=limits)  # fmt: skip
    return [limit.verdict for limit in result.limits], result


def test_a_map_of_the_brow_is_denser_there_than_controls_and_less_dense_elsewhere():
    brow, nose = ({"region": name, "fraction": 0.1} for name in ("brow", "nose"))
    found, _ = verdicts(
        OfRows(),
        AtLeast(DENSITY.name, at_least=2.0, under=brow),
        BetterThan(DENSITY.name, better_than="control.random_blobs", under=brow),
        BetterThan(DENSITY.name, better_than="control.centre", under=brow),
        AtLeast(SHARE.name, at_least=0.2, under=nose),
        BetterThan(DENSITY.name, better_than="control.mean_map", under=brow),
    )
    assert [one.outcome for one in found[:4]] == [
        Outcome.PASS, Outcome.PASS, Outcome.PASS, Outcome.FAIL,
    ]  # fmt: skip
    # The same for everybody: no better than the mean map of other people.
    assert found[4].outcome is not Outcome.PASS


def test_noise_is_denser_nowhere():
    class Noise:
        def explain(self, model, probes, references, *, contrast=None, generator):
            return torch.from_numpy(generator.random(tuple(probes[:, 0].shape)))

    found, _ = verdicts(
        Noise(),
        *(AtLeast(DENSITY.name, at_least=1.2, under={"region": name}) for name in
          ("brow", "nose", "mouth")),
    )  # fmt: skip
    assert Outcome.PASS not in [one.outcome for one in found]


def test_a_limit_on_a_region_that_is_not_known_is_invalid():
    limit = AtLeast(SHARE.name, at_least=0.1, under={"region": "hair"})
    (found,), result = verdicts(OfRows(), limit, regions=("hair", "nose"), controls=())
    assert found.outcome is Outcome.INVALID
    assert result.verdict.outcome is Outcome.INVALID
    assert any(note.startswith("region hair: no values") for note in result.notes)


@pytest.mark.parametrize(
    "given",
    [{"regions": ()}, {"regions": ("",)}, {"regions": ("nose", "nose")}, {"fractions": (0,)},
     {"controls": ("image",)}, {"fills": ("blur",)}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(ValidationError):
        Parameters(**given)
