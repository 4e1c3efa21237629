"""Occlusion by maps of a person: goldens, a plain reference, planted truth, and what games it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fxeval.metrics.occlusion_generalisability import METRICS, Parameters
from fxeval.results import Outcome
from fxeval.statistics.limits import AtMost, BetterThan
from fxeval.tests import planted_people as plain
from fxeval.tests.planted_people import SQUARE, Constant, Knowing, Planted, pixels
from fxeval.tests.rounding import FLOAT32, assert_rounded
from fxeval.tests.toy_world import Ramp, measured

KIND = "generalisability.occlusion"
TMR, ACCURACY, EER, DROP, AREA = (metric.name for metric in METRICS)
FEW = Planted(n=12)
CONTROLS = ("random_pixels", "random_blobs", "mean_map", "shuffled_identity")
BETTER = tuple(BetterThan(TMR, better_than=f"control.{name}") for name in CONTROLS)


def run(explainer, *, source=None, limits=BETTER, model=None, **parameters):
    given = {"fractions": (SQUARE,), **parameters}
    return measured(
        KIND, Parameters(**given), explainer=explainer, source=source or Planted(),
        network=model or pixels(), limits=limits,
    )  # fmt: skip


def series(rows, metric, map_="explainer", **under):
    """The values of a metric by row, of the rows that have one."""
    return {
        row.row: one.values[metric]
        for row in rows
        for one in row.measured
        if one.map == map_ and metric in one.values and under.items() <= one.under.items()
    }


def figure(result, metric, map_="explainer", **under):
    [found] = [
        one
        for one in result.estimates
        if (one.metric, one.map) == (metric, map_) and under.items() <= one.under.items()
    ]
    return found


def difference(result, metric, control):
    [found] = [one for one in result.differences if (one.metric, one.control) == (metric, control)]
    return found


def outcomes(result):
    return [limit.verdict.outcome for limit in result.limits]


@pytest.fixture(scope="module")
def knowing():
    return run(Knowing())


# a reference of plain loops


def reference_of(source, model, *, explain, side="reference", fraction=SQUARE, colour=0.0, most=5):
    """What the plain loops find of every pair, by row."""
    listing = source.listing()
    ids = dict.fromkeys(listing.probe + listing.reference)
    crop = model.crop
    faces = {id: source.images([id], crop)[0].numpy() for id in ids}
    found = {}
    for probe, reference, is_mated in plain.pairs_of(listing):
        if side == "probe":
            probe, reference = reference, probe
        person = reference.split("-")[0]
        others = plain.others_of(faces, person, {probe, reference}, most)
        if len(others) < 2:
            continue
        map_ = plain.map_of(faces, others, explain)
        hidden = plain.occluded(faces[reference], map_, fraction, colour)
        one = plain.compared(faces, (probe, reference, is_mated), hidden, model)
        found[one.row] = one
    return found


def knowing_map(image):
    given = torch.from_numpy(image).float()[None] / 255
    return Knowing().explain(None, given, given, generator=None)[0].double().numpy()


@pytest.mark.parametrize("side", ["probe", "reference"])
@pytest.mark.parametrize(("fill", "colour"), [("black", 0.0), ("white", 1.0)])
def test_a_reference_of_plain_loops_agrees_in_every_metric(side, fill, colour):
    source = FEW
    model = pixels(seed=3, threshold=0.6)
    fractions = (0.02, SQUARE)
    result, rows = run(
        Knowing(), source=source, model=model, side=side, fills=(fill,), fractions=fractions
    )
    for fraction in fractions:
        expected = reference_of(
            source, model, explain=knowing_map, side=side, fraction=fraction, colour=colour
        )
        assert {row.row for row in rows} == set(expected)
        mated = {row for row, one in expected.items() if one.is_mated}
        assert {row.row for row in rows if row.is_mated} == mated
        under = {"fraction": fraction}
        for metric, of in ((DROP, "drop"), (EER, "similarity")):
            found = series(rows, metric, **under)
            wanted = {row: getattr(one, of) for row, one in expected.items()}
            if metric == DROP:
                wanted = {row: wanted[row] for row in mated}
            assert found.keys() == wanted.keys()
            both = np.array([(found[row], wanted[row]) for row in wanted])
            assert_rounded(both[:, 0], both[:, 1], terms=768, unit=FLOAT32, scale=1)
        for metric, of in ((TMR, "accepted"), (ACCURACY, "right"), (AREA, "area")):
            found = series(rows, metric, **under)
            wanted = {row: float(getattr(one, of)) for row, one in expected.items()}
            if metric == TMR:
                wanted = {row: wanted[row] for row in mated}
            if metric == AREA:  # a pixel may have had the fill's colour before
                k = max(1, int(fraction * 256 + 0.5))
                assert set(found.values()) == {k / 256}
                assert all(value <= k / 256 for value in wanted.values())
                continue
            assert found == wanted
        one = figure(result, TMR, **under)
        assert one.value == pytest.approx(np.mean([expected[row].accepted for row in mated]))
        right = [one.right for one in expected.values()]
        assert figure(result, ACCURACY, **under).value == pytest.approx(np.mean(right))
        scores = [one.similarity for one in expected.values()]
        wanted = plain.equal_error_rate(scores, [one.is_mated for one in expected.values()])
        assert figure(result, EER, **under).value == pytest.approx(wanted)


def test_what_is_left_unoccluded_is_the_clean_list(knowing):
    _, rows = knowing
    for row in rows:
        [clean] = [one for one in row.measured if one.map == "control.unoccluded"]
        assert (clean.values[AREA], clean.values[ACCURACY]) == (0, 1)
        assert (clean.values.get(DROP, 0), clean.values.get(TMR, 1)) == (0, 1)
        assert (TMR in clean.values) == (DROP in clean.values) == row.is_mated
        assert (clean.values[EER] >= 0.5) == row.is_mated


# planted truth, and maps that know nothing


def test_planted_truth_passes_against_every_control(knowing):
    result, rows = knowing
    assert outcomes(result) == [Outcome.PASS] * len(BETTER), result.limits
    assert figure(result, TMR).value == pytest.approx(1 / 9)  # those with a second square
    assert figure(result, TMR, "control.unoccluded").value == 1
    # Rejected nonmated pairs are right.
    assert figure(result, ACCURACY).value == pytest.approx((1 / 9 + 1) / 2)
    assert figure(result, TMR, "control.random_pixels").value == 1
    assert result.n_pairs == len(rows) == 4 * 36
    assert sum(row.is_mated for row in rows) == 2 * 36


@dataclass(frozen=True)
class Noise:
    seed: int = 0

    def explain(self, model, probes, references, *, contrast=None, generator):
        drawn = np.random.default_rng([self.seed, int(generator.integers(2**32))])
        return torch.from_numpy(drawn.random(tuple(probes[:, 0].shape)))


@dataclass(frozen=True)
class ByPlace:
    """The same map for everybody: where most squares are not."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        line = torch.exp(-((torch.arange(16.0) - 7.5) ** 2) / 32)
        return torch.outer(line, line * 1.01).expand(len(probes), 16, 16)


@pytest.mark.parametrize(
    "explainer", [Constant(), Constant(0.5), Noise(), Ramp(), ByPlace()], ids=str
)
def test_a_map_that_knows_nothing_of_the_person_is_better_than_no_control(explainer):
    result, _ = run(explainer)
    assert Outcome.PASS not in outcomes(result), result.limits
    assert result.verdict.outcome is not Outcome.PASS


def test_a_constant_map_occludes_what_a_random_one_does():
    result, rows = run(Constant())
    areas = series(rows, AREA)
    assert set(areas.values()) == {16 / 256}
    found = difference(result, DROP, "random_pixels")
    assert found.low <= 0 <= found.high
    assert result.verdict.outcome is Outcome.FAIL
    assert "saliency maps are degenerate" in result.verdict.reason


# identity


def test_a_map_of_another_person_is_worse_where_everybody_differs_elsewhere(knowing):
    result, _ = knowing
    own, other = (figure(result, TMR, map_) for map_ in ("explainer", "control.shuffled_identity"))
    assert own.value < 0.12
    assert other.value > 0.9  # one person in sixteen has the same square
    assert difference(result, TMR, "shuffled_identity").low > 0.6
    assert not [note for note in result.notes if "identity" in note]


def test_where_everybody_differs_in_one_place_it_is_as_good_and_the_notes_say_so():
    result, _ = run(Knowing(), source=Planted(in_one_place=True))
    shuffled = outcomes(result)[CONTROLS.index("shuffled_identity")]
    assert shuffled is not Outcome.PASS
    assert outcomes(result)[:2] == [Outcome.PASS] * 2  # it knows more than chance
    [note] = [note for note in result.notes if "identity" in note]
    found = difference(result, TMR, "shuffled_identity")
    assert note == (
        "identity is not seen to matter to these maps here: by no metric is the map of another "
        "person worse (black, fraction 0.0625), such as occlusion_tmr with a difference of "
        f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
    )
    assert found.low <= 0


# rows


def test_the_evaluated_images_have_no_part_in_the_map():
    """A map of the very image would know its noise: the brightest square of others does not."""

    @dataclass(frozen=True)
    class Seen:
        images: list

        def explain(self, model, probes, references, *, contrast=None, generator):
            self.images.extend(map(plain.digest, (probes * 255).round().byte().numpy()))
            return probes.mean(1)

    source, seen = FEW, Seen([])
    _, rows = run(seen, source=source, limits=())
    used = set(seen.images)
    assert len(used) == 48  # every image makes the map of the other pair's person
    for row in rows:
        assert set(row.row.split("-")) <= {one[:12] for one in used}
    listing = source.listing()
    faces = {id: source.images([id], pixels().crop)[0].numpy() for id in listing.probe}
    assert len({plain.digest(face) for face in faces.values()}) == len(faces)


def test_rows_do_not_depend_on_the_batch():
    def rows(batch):
        parameters = Parameters(fractions=(0.01, SQUARE), fills=("black", "random"))
        return measured(
            KIND, parameters, explainer=Knowing(), source=FEW, network=pixels(), batch=batch
        )[1]

    assert rows(1) == rows(64) == rows(7)  # to the last bit


def test_what_a_list_decides_is_of_one_draw_and_means_over_draws_are_of_all():
    """A mean over draws is neither right nor wrong, and means of similarities spread less."""
    once, often = (
        run(Knowing(), limits=(), controls=("random_pixels",), repeats=repeats)[1]
        for repeats in (1, 6)
    )
    for metric, is_of_one in ((ACCURACY, True), (EER, True), (DROP, False)):
        one, all_ = (series(rows, metric, "control.random_pixels") for rows in (once, often))
        assert (one == all_) is is_of_one, metric


def test_of_more_images_no_more_than_asked_make_a_map():
    result, _ = run(Knowing(), source=Planted(n=12, images_each=7), generation_images=3, limits=())
    assert figure(result, TMR).value < 0.2


def test_people_with_too_few_other_images_are_counted_as_left_out():
    @dataclass(frozen=True)
    class Mixed(Planted):
        def listing(self):
            found = super().listing()
            kept = [
                row
                for row, id in enumerate(found.probe)
                if int(id.split("-")[0]) >= 6 or id.endswith("-0")
            ]
            return found.take(kept)

    result, rows = run(Knowing(), source=Mixed(n=12), limits=())
    assert any("pairs of the list can't be measured" in note for note in result.notes)
    assert len(rows) < 4 * 12


def test_a_model_without_a_threshold_has_drops_but_no_decisions():
    result, _ = run(Knowing(), source=FEW, model=pixels(threshold=None))
    assert {limit.verdict.outcome for limit in result.limits} == {Outcome.INVALID}
    assert any("declares no operating threshold" in note for note in result.notes)
    assert figure(result, DROP).value > 0.5


# the artefact


def zero(**more):
    limit = AtMost(TMR, at_most=0.5, severity="info")
    return run(Constant(), source=FEW, limits=(limit,), fractions=(0.01,), **more)


MODELS = {"alike": pixels("alike"), "other": pixels("other", seed=5, threshold=0.935)}


def test_by_percentile_a_zero_map_occludes_everything_and_every_model_rejects_alike():
    values = {}
    for name, model in MODELS.items():
        result, rows = zero(model=model, legacy_percentile=True)
        assert set(series(rows, AREA).values()) == {1.0}
        values[name] = series(rows, TMR)
        assert figure(result, TMR).value == 0
        assert result.verdict.outcome is not Outcome.PASS
        [remark] = [note for note in result.notes if "legacy_percentile" in note]
        assert "say nothing about the maps" in remark
    assert values["alike"] == values["other"]


def test_exactly_k_pixels_of_a_zero_map_leave_every_model_its_own_answer():
    clean = {}
    for name, model in MODELS.items():
        result, rows = zero(model=model)
        assert set(series(rows, AREA).values()) == {3 / 256}
        clean[name] = figure(result, TMR).value
    assert clean["alike"] == 1
    assert 0 < clean["other"] < 1


def test_by_percentile_a_map_without_ties_occludes_about_the_fraction():
    _, rows = run(Knowing(), source=FEW, limits=(), legacy_percentile=True)
    assert set(series(rows, AREA).values()) <= {16 / 256, 17 / 256}
    _, exact = run(Knowing(), source=FEW, limits=())
    assert series(rows, TMR) == series(exact, TMR)


def test_a_demonstration_passes_nothing():
    info = tuple(replace(one, severity="info") for one in BETTER)
    result, _ = run(Knowing(), limits=info, legacy_percentile=True)
    assert outcomes(result) == [Outcome.PASS] * len(BETTER)
    assert result.verdict.outcome is Outcome.INFORMATION
    assert result.verdict.reason == "no limit decides: information only"


# parameters


@pytest.mark.parametrize(
    "given",
    [
        {"fractions": ()},
        {"fractions": (0.0,)},
        {"fractions": (1.5,)},
        {"fractions": (0.01, 0.01)},
        {"fills": ("tartan",)},
        {"controls": ("nobody",)},
        {"generation_images": 1},
        {"generation_images": 21},
        {"repeats": 0},
        {"side": "both"},
        {"legacy_percentile": "yes"},
        {"legacy_percentile": 1},
        {"map": "mean"},
    ],
    ids=str,
)
def test_bad_parameters_are_refused(given):
    with pytest.raises(ValidationError):
        Parameters(**given)
