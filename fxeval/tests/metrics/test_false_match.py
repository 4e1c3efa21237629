"""False matches by a picture that two people have in common: what each map of it is worth."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fxeval.contracts import PairListing, SaliencyMaps
from fxeval.engine.false_match_rows import false_matches as of_rows
from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import DataContractError, EvidenceError
from fxeval.functional.fill_images import fill_images
from fxeval.metrics import CATALOGUE
from fxeval.metrics.false_match import DROP, REJECTED, Parameters, measure
from fxeval.metrics.protocol import Evidence
from fxeval.results import RowState
from fxeval.run.workshop import Workshop
from fxeval.seeding import seed_of
from fxeval.slices import Slice
from fxeval.statistics.limits import AtLeast, BetterThan
from fxeval.tests.evidence import GivenMaps, series_of, subject_of
from fxeval.tests.planted_people import SIDE, Constant, Pixels, Planted, cosine, digest, pixels
from fxeval.tests.rounding import assert_rounded
from fxeval.tests.subjects import CountingModel, make_pairs
from fxeval.tests.toy_world import SMALL, measured
from fxeval.verification.measured import measure_list

KIND = "occluders.false_match"
N = 40
CONTROLS = (
    "random_pixels", "random_blobs", "centre", "mean_map", "shuffled_identity", "unoccluded",
)  # fmt: skip
PARAMETERS = Parameters(fractions=(0.1,), controls=CONTROLS, repeats=2)


def sticker_of(who):
    """Return the square of the sticker in the first image of two people: none of their own."""
    taken = {
        one
        for person in (who // 2 * 2, who // 2 * 2 + 1)
        for one in (person % 16, (person + 9) % 16)
    }
    free = [square for square in range(16) if square not in taken]
    square = free[who // 2 * 5 % len(free)]
    return square // 4 * SIDE, square % 4 * SIDE


@dataclass(frozen=True)
class Stickers(Planted):
    """People of four images; two and two wear the same bright sticker in their first image."""

    n: int = N
    images_each: int = 4
    alone: bool = False

    def listing(self):
        mated = [(f"{who}-{a}", f"{who}-{b}") for who in range(self.n) for a, b in ((0, 1), (2, 3))]
        if self.alone:
            mated = [pair for pair in mated if pair[0].endswith("-0")]
        one, other = zip(*mated, strict=True)
        people = tuple(image.split("-")[0] for image in one)
        return PairListing(one, other, (True,) * len(mated), people, people)

    def images(self, image_ids, crop):
        found = super().images(image_ids, crop).numpy()
        for row, image_id in enumerate(image_ids):
            who, image = map(int, image_id.split("-"))
            if image == 0:
                y, x = sticker_of(who)
                drawn = np.random.default_rng([99, who // 2]).permutation(3 * SIDE**2)
                sticker = np.where(drawn < 36, 255, 20).astype(np.uint8)
                found[row, :, y : y + SIDE, x : x + SIDE] = sticker.reshape(3, SIDE, SIDE)
        return torch.from_numpy(found)


class Truth:
    """What both images have in common."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return (probes * references).sum(1)


class OfThePerson:
    """Where the person in the probe is recognised: all of their images show it."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = torch.rand(probes[:, 0].shape, generator=torch.Generator().manual_seed(3)) * 0.01
        faces = {digest((one * 255).round().to(torch.uint8).numpy()): who for one, who in FACES}
        for row, probe in enumerate(probes):
            who = faces[digest((probe * 255).round().to(torch.uint8).numpy())]
            for y, x in Stickers().places(who):
                maps[row, y : y + SIDE, x : x + SIDE] += 1.0
        return maps


class Noise:
    def explain(self, model, probes, references, *, contrast=None, generator):
        seeds = [int(digest(one.numpy())[:8], 16) for one in probes]
        return torch.stack(
            [torch.from_numpy(np.random.default_rng(one).random((16, 16))).float() for one in seeds]
        )


class Broken:
    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.full_like(probes[:, 0], torch.nan)


IDS = [f"{who}-{image}" for who in range(N) for image in range(4)]
PICTURES = dict(zip(IDS, Stickers().images(IDS, SMALL), strict=True))
FACES = [(PICTURES[f"{who}-{image}"].float() / 255, who) for who in range(N) for image in range(4)]
LIMITS = (
    BetterThan(REJECTED.name, better_than="control.random_blobs", under={"fill": "donor"}),
    BetterThan(DROP.name, better_than="control.mean_map", under={"fill": "donor"}),
    AtLeast(REJECTED.name, at_least=0.5, under={"fill": "donor"}),
)


def run(explainer, parameters=PARAMETERS, **more):
    more.setdefault("source", Stickers())
    more.setdefault("network", pixels())
    return measured(KIND, parameters, explainer=explainer, **more)


def values(rows, metric, map_="explainer", fill="donor", fraction=0.1):
    return {
        row.row: np.nan if one.values[metric.name] is None else one.values[metric.name]
        for row in rows
        for one in row.measured
        if one.map == map_ and one.under == {"fill": fill, "fraction": fraction}
        if metric.name in one.values
    }


def mean(*asked, **more):
    return float(np.mean([*values(*asked, **more).values()]))


@pytest.fixture(scope="module")
def truth():
    return run(Truth(), limits=LIMITS)


# A reference of plain loops.


def similarity(one, other):
    return cosine(*(np.asarray(image, dtype=np.float64).ravel() for image in (one, other)))


def false_matches():
    """Return (probe, reference) of all false matches, each person once as the probe."""
    every = []
    for one in IDS:
        for two in IDS:
            if one.split("-")[0] == two.split("-")[0] or digest_of(one) > digest_of(two):
                continue
            value = similarity(PICTURES[one], PICTURES[two])
            if value >= 0.5:
                every.append((value, one, two))
    used, chosen = set(), []
    for _, one, two in sorted(every, reverse=True):
        for probe, reference in ((one, two), (two, one)):
            if probe.split("-")[0] not in used:
                used.add(probe.split("-")[0])
                chosen.append((probe, reference))
                break
    return chosen


def digest_of(image_id):
    return digest(PICTURES[image_id].numpy())


def replaced(probe, reference, fill, donor):
    """Replace a tenth of a probe, one pixel after the other, in the order of the true map."""
    face, other = (PICTURES[one].float() / 255 for one in (probe, reference))
    by = {
        "black": torch.zeros_like(face),
        "blur": fill_images(face[None], "blur")[0],
        "donor": PICTURES[donor or probe].float() / 255,
    }[fill]
    order = np.argsort(-(face * other).sum(0).numpy().ravel(), kind="stable")
    image = face.clone()
    for pixel in order[:26].tolist():
        image[:, pixel // 16, pixel % 16] = by[:, pixel // 16, pixel % 16]
    return similarity(face, other), similarity(image, other)


def test_rows_and_values_are_those_of_plain_loops(truth):
    _, rows = truth
    pairs = {f"{digest_of(a)[:12]}-{digest_of(b)[:12]}": (a, b) for a, b in false_matches()}
    assert {row.row for row in rows} == pairs.keys()
    assert len(rows) >= N // 2
    assert not any(row.is_mated for row in rows)
    for fill in ("blur", "black"):
        dropped, rejected = (values(rows, metric, fill=fill) for metric in (DROP, REJECTED))
        for row, (probe, reference) in pairs.items():
            before, after = replaced(probe, reference, fill, "")
            assert_rounded(np.array([dropped[row]]), np.array([before - after]), terms=768)
            assert rejected[row] == float(after < 0.5)
    for row, (probe, reference) in pairs.items():
        found = values(rows, DROP)[row]
        donors = [one for one in IDS if one.split("-")[0] == probe.split("-")[0] and one != probe]
        drops = [np.subtract(*replaced(probe, reference, "donor", one)) for one in donors]
        assert min(abs(found - drop) for drop in drops) < 1e-5


def test_the_map_that_knows_the_likeness_makes_the_decision_fall(truth):
    cell, rows = truth
    assert [one.verdict.outcome for one in cell.limits] == ["pass"] * 3
    assert mean(rows, REJECTED, fill="black") == 1.0
    assert mean(rows, REJECTED) > 0.9
    for control in ("random_pixels", "random_blobs", "mean_map", "centre"):
        assert mean(rows, REJECTED, f"control.{control}") < 0.5
    assert mean(rows, REJECTED, "control.unoccluded") == 0.0
    assert mean(rows, DROP, "control.unoccluded") == 0.0


@pytest.mark.parametrize("explainer", [Noise(), OfThePerson(), Constant(0.5)])
def test_maps_of_nothing_or_of_the_person_pass_no_limit(explainer, truth):
    cell, rows = run(explainer, limits=LIMITS)
    assert cell.verdict.outcome != "pass"
    assert not any(one.verdict.outcome == "pass" for one in cell.limits)
    assert mean(rows, REJECTED) < 0.5 * mean(truth[1], REJECTED)


def test_a_broken_map_leaves_the_controls_their_values(truth):
    cell, rows = run(Broken(), limits=LIMITS)
    assert cell.verdict.outcome == "fail"
    assert np.isnan([*values(rows, REJECTED).values()]).all()
    own = values(rows, REJECTED, "control.random_blobs")
    assert own == values(truth[1], REJECTED, "control.random_blobs")


def test_people_with_one_image_have_no_value_under_the_fill_of_a_donor():
    """A picture of the reference cannot give pixels: it is another person's."""

    @dataclass(frozen=True)
    class Few(Stickers):
        def listing(self):
            listing = super().listing()
            people = [f"{number}" for number in range(len(listing))]
            return PairListing(
                listing.probe,
                listing.reference[1:] + listing.reference[:1],
                (False,) * len(people),
                tuple(people),
                tuple(f"{number}r" for number in range(len(people))),
            )

    with pytest.raises(EvidenceError, match="its false matches are not known"):
        run(Truth(), source=Few())
    cell, rows = run(Truth(), source=Sparse(), limits=LIMITS[:2])
    assert "have no value under the fill 'donor': the list has no other image" in cell.remarks[-1]
    assert 0 < len(values(rows, REJECTED)) < len(rows)
    assert len(values(rows, REJECTED, fill="black")) == len(rows)


@dataclass(frozen=True)
class Sparse(Stickers):
    """Every second person has one image, in a nonmated pair."""

    def listing(self):
        listing = super().listing()
        kept = [row for row, who in enumerate(listing.probe_identity) if int(who) % 2]
        mated = listing.take(kept)
        single = [f"{who}-0" for who in range(0, self.n, 2)]
        other = [f"{who + 1}-1" for who in range(0, self.n, 2)]
        return PairListing(
            (*mated.probe, *single),
            (*mated.reference, *other),
            (*mated.is_mated, *[False] * len(single)),
            (*mated.probe_identity, *[one.split("-")[0] for one in single]),
            (*mated.reference_identity, *[one.split("-")[0] for one in other]),
        )


def test_a_model_that_accepts_nobody_else_is_refused():
    with pytest.raises(EvidenceError, match="accepts none of 12,480 comparisons"):
        run(Truth(), network=pixels(threshold=0.85))


def test_a_model_without_a_threshold_is_refused():
    with pytest.raises(EvidenceError, match="declares no operating threshold"):
        run(Truth(), network=pixels(threshold=None))


def test_values_are_the_same_whatever_the_size_of_a_batch(truth):
    _, rows = run(Truth(), limits=LIMITS, batch=5)
    ours, theirs = ({row.row: row.measured for row in some} for some in (rows, truth[1]))
    assert ours.keys() == theirs.keys()
    for name, found in ours.items():
        for one, other in zip(found, theirs[name], strict=True):
            assert (one.map, one.under, one.states) == (other.map, other.under, other.states)


def test_kinds_of_rows_of_one_run_do_not_take_each_others_pairs(truth):
    """Mated pairs, patched pairs and false matches of one list, in one run."""
    network = pixels()
    workshop = Workshop(batch_size=16, emit=lambda rows: None, progress=lambda *_: None)
    for kind, n in (
        ("faithfulness.guided_occlusion", 2 * N),
        ("occluders.patch_replacement", 2 * N),
        (KIND, len(truth[1])),
        ("faithfulness.guided_occlusion", 2 * N),
    ):
        parameters = CATALOGUE[kind].Parameters(fractions=(0.1,), controls=())
        _, rows = measured(
            kind,
            parameters,
            explainer=Truth(),
            source=Stickers(),
            network=network,
            workshop=workshop,
        )
        assert len(rows) == n


def test_two_thresholds_of_a_model_have_their_own_false_matches(truth):
    few = run(Truth(), network=pixels(threshold=0.72))[1]
    assert 0 < len(few) < len(truth[1])
    assert {row.row for row in few} < {row.row for row in truth[1]}


@dataclass(frozen=True)
class Posed(Stickers):
    """A list with a column of its pairs, and images with a pose."""

    def listing(self):
        listing = super().listing()
        scenes = tuple("indoors" if row % 2 else "outdoors" for row in range(len(listing)))
        return replace(listing, attributes={"scene": scenes})

    def attributes(self, image_ids):
        return {"pose": [f"pose {int(one[-1]) % 2}" for one in image_ids]}


def test_a_false_match_has_the_word_of_its_probe_and_none_of_a_pair_of_the_list(truth):
    _, rows = run(Truth(), source=Posed(), slices=[Slice("pose")])
    poses = {
        f"{digest_of(probe)[:12]}-{digest_of(reference)[:12]}": f"pose {int(probe[-1]) % 2}"
        for probe, reference in false_matches()
    }
    assert {row.row: row.slices["pose"] for row in rows} == poses
    with pytest.raises(DataContractError, match="rows of this kind"):
        run(Truth(), source=Posed(), slices=[Slice("scene")])


def test_false_matches_of_fused_embeddings_are_not_those_of_the_cell():
    fused = measure_list(pixels(), Planted(), ForwardPool(), flip_fusion=True)
    assert fused.verified is not None
    assert fused.alike is None
    plain = measure_list(pixels(), Stickers(), ForwardPool(), flip_fusion=True)
    assert plain.verified is None  # a list of mated pairs: its stand-in is not fused
    assert plain.alike is not None


def test_a_pair_that_rounding_leaves_just_rejected_has_a_drop_and_no_decision():
    table, model = of_rows(make_pairs(4)), CountingModel(Pixels())
    subject = subject_of(model, table.faces)
    clean = subject.clean()[table.rows.image]
    cosines = table.rows.question.answer(subject, torch.arange(4), clean).double()
    lowest = int(cosines.argmin())
    threshold = float(cosines.sort().values[:2].mean())
    evidence = Evidence(
        rows=table.rows,
        everyone=table.rows,
        subject=subject_of(model, table.faces, threshold=threshold),
        engine=GivenMaps({("own", "probe"): SaliencyMaps(torch.rand(4, 16, 16))}),
        seed_of=lambda purpose, row, label: seed_of(5, purpose, row, label),
    ).take(torch.arange(4))
    asked = Parameters(fractions=(0.1,), fills=("black",), controls=("unoccluded",))
    found = series_of(measure(evidence, asked))
    for map_ in ("explainer", "control.unoccluded"):
        rejected, drop = (found[one.name, map_, "black", 0.1] for one in (REJECTED, DROP))
        excluded = [state is RowState.EXCLUDED for state in rejected.states]
        assert np.isnan(rejected.values).tolist() == excluded
        assert [*np.flatnonzero(excluded)] == [lowest]
        assert np.isfinite(drop.values).all()


def test_the_same_picture_under_another_name_gives_no_pixels():
    pairs = make_pairs(3)
    others = pairs.reference[[1, 2, 0]]
    digests = list(pairs.image_digests)
    digests[int(others[0])] = digests[int(pairs.probe[0])]
    pairs = replace(pairs, sources=others[:, None], image_digests=tuple(digests))
    assert of_rows(pairs).rows.donor.tolist() == [int(pairs.probe[0]), *others[1:].tolist()]
