"""A model is measured over the whole list, a few images at a time, and decides who is judged."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxeval.contracts import CardFacts, FaceModel, ModelTraits, PairListing
from fxeval.engine.forward_pool import ForwardPool
from fxeval.errors import DataContractError, ModelContractError
from fxeval.functional.similarity import similarity
from fxeval.models.cards import Claim
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import FORMS, AtLeast
from fxeval.suite.cells import Use
from fxeval.tests.run.test_workshop import CELL, Mean
from fxeval.tests.slow_figures import auc, k_fold_accuracy
from fxeval.tests.subjects import CROP, ConvNet, CountingModel
from fxeval.tests.verification.test_figures import made
from fxeval.verification import measured as measuring
from fxeval.verification.claims import entry_of, model_card, remarks_of
from fxeval.verification.demands import Verification
from fxeval.verification.figures import Figure, measure
from fxeval.verification.measured import ThresholdModel, measure_list


@dataclass
class People:
    """n people with three images each: two mated pairs and two nonmated ones per person."""

    n: int = 40
    name: str = "people"
    banner: str | None = None
    fold: bool = False
    missing: tuple[str, ...] = ()
    most: int = 0

    def listing(self):
        rows = []
        for i in range(self.n):
            j, k = (i + 1) % self.n, (i + 7) % self.n
            rows += [(f"{i}a", f"{i}b"), (f"{i}a", f"{j}b"), (f"{i}b", f"{i}c"), (f"{i}c", f"{k}c")]
        one, two = ([row[side][:-1] for row in rows] for side in (0, 1))
        return PairListing(
            tuple(row[0] for row in rows), tuple(row[1] for row in rows),
            tuple(a == b for a, b in zip(one, two, strict=True)), tuple(one), tuple(two),
            set_aside=tuple("wrong label" if row < 8 else "" for row in range(len(rows))),
            fold=tuple(row // 4 % 5 for row in range(len(rows))) if self.fold else (),
        )  # fmt: skip

    def images(self, image_ids, crop):
        bad = [image_id for image_id in image_ids if image_id in self.missing]
        if bad:
            raise DataContractError(f"images cannot be used:\n  {bad}: unreadable.")
        self.most = max(self.most, len(image_ids))
        faces = []
        for image_id in image_ids:
            who = np.random.default_rng(int(image_id[:-1])).normal(128, 50, (3, *crop.size))
            noise = np.random.default_rng([int(image_id[:-1]), ord(image_id[-1])])
            faces.append((who + noise.normal(0, 25, who.shape)).clip(0, 255).astype(np.uint8))
        return torch.from_numpy(np.stack(faces))


def net(**change):
    return CountingModel(ConvNet().eval(), **change)


def by_hand(model, source, embed=None):
    """Similarities of the listed pairs, one image after the other."""
    listing = source.listing()
    embed = embed or model.embed
    found = [
        similarity(
            model.similarity, *(embed(source.images([i], CROP).float() / 255) for i in (one, two))
        )
        for one, two in zip(listing.probe, listing.reference, strict=True)
    ]
    return torch.cat(found).numpy(), np.array(listing.is_mated)


@pytest.fixture
def pool():
    return ForwardPool(batch_size=16)


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("fold", [False, True])
def test_the_figures_are_those_of_the_pairs_one_by_one(pool, kind, fold):
    source, model = People(fold=fold), net(similarity=kind, operating_threshold=-0.5)
    found = measure_list(model, source, pool)
    values, mated = by_hand(net(similarity=kind), source)
    folds = np.array(source.listing().fold) if fold else None
    expected = k_fold_accuracy(kind, values, mated, folds=folds)
    figures = found.verified.figures
    assert figures["verification_accuracy"].value == pytest.approx(expected.mean, abs=1e-9)
    assert figures["verification_auc"].value == pytest.approx(auc(values, mated), abs=1e-9)
    assert found.verified.n_folds == (5 if fold else 10)
    assert (found.verified.n_mated, found.verified.n_nonmated) == (80, 80)
    assert found.verified.thresholds["vendor"].fmr.value == (values[~mated] >= -0.5).mean()


def test_a_list_of_triplets_is_verified_by_mates_and_the_nonmates_it_names(pool):
    class Triplets(People):
        def listing(self):
            people = [str(i) for i in range(self.n)]
            others = [str((i + 1) % self.n) for i in range(self.n)]
            return PairListing(
                tuple(f"{i}a" for i in people), tuple(f"{i}b" for i in people),
                (True,) * self.n, tuple(people), tuple(people),
                contrast=tuple(f"{i}c" for i in others), contrast_identity=tuple(others),
            )  # fmt: skip

    found = measure_list(CountingModel(ConvNet().eval()), Triplets(), pool)
    assert found.n_images == 3 * 40
    assert (found.verified.n_mated, found.verified.n_nonmated) == (40, 40)


def test_each_image_is_embedded_once_and_a_few_are_in_memory_at_a_time(pool, monkeypatch):
    monkeypatch.setattr(measuring, "IMAGES_AT_ONCE", 50)
    source, model, told = People(), net(), []
    found = measure_list(model, source, pool, progress=lambda *at: told.append(at))
    assert found.forwards == found.n_images == 120
    assert sum(model.batches) == 3 * 48 + 16  # batches are filled up
    assert source.most == 50
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (160, 160)
    assert 0 < told[0][0] < 160


def test_flip_fusion_adds_the_mirror_image_and_is_named(pool):
    model = net()

    def fused(images):
        one, two = model.embed(images), model.embed(images.flip(-1))
        return torch.nn.functional.normalize(one + two, dim=1)

    values, mated = by_hand(model, People(), fused)
    found = measure_list(model, People(), pool, flip_fusion=True)
    plain = measure_list(model, People(), pool)
    assert found.forwards == 240
    got = found.verified.figures["verification_auc"].value
    assert got == pytest.approx(auc(values, mated), abs=1e-9)
    assert got != plain.verified.figures["verification_auc"].value
    assert "mirror" in judged(found, model)["protocol"]
    assert "no flip fusion" in judged(plain, model)["protocol"]
    refused = measure_list(net(similarity="neg_l2"), People(), pool, flip_fusion=True)
    assert refused.reason == "flip fusion needs unit embeddings, and this model compares raw ones"


@pytest.mark.parametrize(
    ("source", "words", "forwards"),
    [
        (People(29), "29 identities, at least 30 needed", 0),
        (People(missing=("3a",)), "the data cannot be used; the output of the run says why", 0),
        (
            People(60, missing=("59c",)),
            "the data cannot be used; the output of the run says why",
            128,
        ),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_no_figures(pool, source, words, forwards):
    found = measure_list(net(), source, pool)
    assert found.verified is None
    assert (found.reason, found.forwards) == (words, forwards)
    assert ("unreadable" in found.fault) == ("data" in words)
    entry = judged(found, net())
    assert not entry["measured"]
    assert entry["figures"] == entry["thresholds"] == []
    if not found.fault:
        assert entry["objections"] == []
        assert entry["floor"]["verdict"]["reason"] == f"not checked: {words}"
    else:  # no evidence is never a pass, and it is the list that is to be repaired
        [reason] = entry["objections"]
        assert "the list cannot be read: the data cannot be used" in reason


def test_a_model_that_fails_on_an_image_of_the_list_is_at_fault(pool):
    class Picky(CountingModel):
        def embed(self, images):
            found = super().embed(images)
            return torch.where(images.mean((1, 2, 3))[:, None] > 0.505, torch.nan, found)

    with pytest.raises(ModelContractError, match="NaN"):
        measure_list(Picky(ConvNet().eval()), People(), pool)


def test_a_run_measures_a_model_and_a_list_once_and_counts_it_to_no_cell():
    workshop = Workshop(batch_size=16, emit=lambda *a: None, progress=lambda *a: None)
    model = net()
    cell = replace(CELL, pairs=Use("people"))
    for change in (
        {}, {"explainer": Use("other")}, {"seed": 2}, {"n": 30},
        {"verification": Verification(operating_threshold="tau_eer")},
        {"verification": Verification(limits=(AtLeast("verification_auc", at_least=0.0),))},
    ):  # fmt: skip
        workshop.prepare(replace(cell, **change), Subjects(model, Mean(), People()))
        entry = workshop.subjects["models"]["tiny"]["verification"]
        assert (entry["model"], entry["pairs"], entry["pair_list"]) == ("tiny", "people", "people")
    admitted = Workshop(batch_size=16, emit=lambda *a: None, progress=lambda *a: None)
    admitted.prepare(cell, Subjects(model, Mean(), People()))
    admission = admitted.verifying.forwards - 120  # of three sets of pairs, by seed and number
    assert workshop.verifying.forwards == 120 + 3 * admission
    assert workshop.forwards == 0
    fused = replace(cell, verification=Verification(flip_fusion=True))
    workshop.prepare(fused, Subjects(model, Mean(), People()))
    assert workshop.verifying.forwards == 120 + 3 * admission + 240
    workshop.prepare(replace(cell, pairs=Use("more")), Subjects(model, Mean(), People(50)))
    assert workshop.verifying.forwards == 120 + 3 * admission + 240 + 150 + admission


def test_explainers_are_handed_the_threshold_the_suite_chose_and_maps_are_made_anew():
    workshop = Workshop(batch_size=16, emit=lambda *a: None, progress=lambda *a: None)
    model, seen = net(operating_threshold=0.9956), []

    class Watching(Mean):
        def explain(self, model, probes, references, *, contrast=None, generator):
            seen.append(model.operating_threshold)
            return probes.mean(1)

    cell = replace(CELL, pairs=Use("people"), n=30)
    for rule in ("vendor", "tau_eer", "vendor"):
        asked = replace(cell, verification=Verification(operating_threshold=rule))
        evidence = workshop.prepare(asked, Subjects(model, Watching(), People())).evidence
        evidence.engine.maps(evidence.everyone, evidence.subject, None)
        known = workshop.subjects["models"]["tiny"]["verification"]["operating_threshold"]["value"]
        assert evidence.subject.operating_threshold == known
    tau = seen[-1]
    # Two groups of pairs, and a few of them at two seeds again, under either threshold once.
    assert seen == [0.9956] * 4 + [tau] * 4
    assert tau != 0.9956


# --- claims and demands


def carded(*claims):
    model = net()
    card = CardFacts(claims=claims, threshold_set_by="the vendor's own data", licence="none")
    model.traits = ModelTraits(card=card)
    return model


def judged(measured, model, **asked):
    return entry_of(measured, model, ("people", "folk"), Verification(**asked))


@pytest.fixture(scope="module")
def measured():
    """Of 100 mated pairs: with fewer, an equal error rate has no interval."""
    return measure_list(net(), People(50), ForwardPool(batch_size=16))


def claim(metric, value, within=0.003, pairs="people", **of):
    return Claim(pairs=pairs, metric=metric, value=value, within=within, **of)


def test_a_claim_of_the_population_holds_only_if_the_whole_interval_clears_it(measured):
    accuracy = measured.verified.figures["verification_accuracy"]
    eer = measured.verified.figures["verification_eer"]
    assert accuracy.high < 1
    gap = 1e-9
    for one, outcome in {
        claim("verification_accuracy", accuracy.low + 0.01 - gap, 0.01): "pass",
        claim("verification_accuracy", accuracy.low + 0.01 + gap, 0.01): "inconclusive",
        claim("verification_accuracy", accuracy.value, 0.001): "inconclusive",
        claim("verification_accuracy", accuracy.high + 0.01 - gap, 0.01): "inconclusive",
        claim("verification_accuracy", accuracy.high + 0.01 + gap, 0.01): "invalid",
        claim("verification_accuracy", 0.0): "pass",  # better than claimed is no breach
        claim("verification_eer", eer.high - 0.01 + gap, 0.01): "pass",
        claim("verification_eer", eer.low - 0.01 + gap, 0.01): "inconclusive",
        claim("verification_eer", eer.low - 0.01 - gap, 0.01): "invalid",
        claim("verification_eer", 0.5): "pass",
        claim("tmr_at_fmr_1e-3", 1.0): "inconclusive",
        claim("verification_accuracy", 0.0, pairs="others"): "inconclusive",
        claim("verification_accuracy", 1.0, pairs="folk"): "invalid",
    }.items():
        entry = judged(measured, carded(one))
        verdict = entry["claims"][0]["verdict"]
        assert verdict["outcome"] == outcome, one
        assert entry["objections"] == ([verdict["reason"]] if outcome == "invalid" else [])


@given(
    st.sampled_from(["verification_accuracy", "verification_auc", "verification_eer"]),
    st.floats(0, 1),
    st.floats(1e-6, 0.1),
)
def test_a_claim_that_is_shown_lies_within_its_margin_for_sure(measured, metric, value, within):
    figure = measured.verified.figures[metric]
    [shown] = judged(measured, carded(claim(metric, value, within)))["claims"]
    worst = value - figure.low if metric != "verification_eer" else figure.high - value
    assert (shown["verdict"]["outcome"] == "pass") == (worst <= within + 1e-12) or math.isclose(
        worst, within
    )
    this = claim(metric, value, within, of="list", list_digest=measured.list_digest)
    [shown] = judged(measured, carded(this))["claims"]
    gap = abs(figure.value - value)
    assert (shown["verdict"]["outcome"] == "pass") == (gap <= within) or math.isclose(gap, within)


def test_a_claim_of_a_list_is_bound_to_its_digest_and_never_to_its_name(measured):
    accuracy, this = measured.verified.figures["verification_accuracy"].value, measured.list_digest
    other = "sha256:" + "0" * 64

    def verdict(value, **of):
        one = claim("verification_accuracy", value, 0.001, of="list", **of)
        entry = judged(measured, carded(one))
        [found] = entry["claims"]
        assert (found["verdict"]["outcome"] == "invalid") == bool(entry["objections"])
        return found["verdict"]["outcome"], found["verdict"]["reason"]

    assert verdict(accuracy, list_digest=this)[0] == "pass"
    assert verdict(accuracy, list_digest=this, pairs="renamed")[0] == "pass"
    for wrong in (accuracy - 0.0011, accuracy + 0.0011):  # no sampling explains a better value
        outcome, reason = verdict(wrong, list_digest=this)
        assert outcome == "invalid"
        assert "0.0011 beyond it, which no sampling explains" in reason
    for value in (accuracy, 0.1):
        outcome, reason = verdict(value, list_digest=other)
        assert outcome == "inconclusive"
        assert reason == (
            f"cannot be told: the claim is about the list {other}, and the digest of this one is "
            f"{this}"
        )
    outcome, reason = verdict(accuracy)
    assert outcome == "inconclusive"
    assert reason.endswith(f"If it is about this list, add list_digest: {this}")
    outcome, reason = verdict(accuracy, list_digest=this, protocol="flip_fusion")
    assert outcome == "inconclusive"
    assert reason == "cannot be told: its protocol is flip_fusion, and this one is plain"
    assert verdict(0.1, list_digest=other, pairs="others")[1] == "not checked: it is about others"


def test_what_is_not_shown_is_said_in_the_cells(measured):
    accuracy = measured.verified.figures["verification_accuracy"]
    elsewhere = claim("verification_auc", 0.9, pairs="lfw_view2")
    untold = claim("verification_accuracy", accuracy.high)
    entry = judged(measured, carded(untold, elsewhere, claim("verification_accuracy", 0.1)))
    [remark] = remarks_of(entry)
    assert remark.startswith(
        f"claim of the card, verification_accuracy {accuracy.high:g} within 0.003, of the "
        "population: cannot be told: model counting on people: verification accuracy "
    )
    assert remark.endswith("a part of the interval clears that, a part does not")


def test_the_reasons_of_claims_hold_the_figures_or_say_why_nothing_was_checked(measured):
    false = claim("verification_accuracy", 0.999)
    short = claim("tmr_at_fmr_1e-3", 0.9)
    elsewhere = claim("verification_auc", 0.9, pairs="lfw_view2")
    entry = judged(measured, carded(false, short, elsewhere))
    reasons = [one["verdict"]["reason"] for one in entry["claims"]]
    accuracy = measured.verified.figures["verification_accuracy"]
    assert reasons[0] == (
        f"model counting on people: verification accuracy {accuracy.value:.4f} "
        f"[{accuracy.low:.4f}, {accuracy.high:.4f}], its card claims 0.999 within 0.003 of the "
        "population: the whole interval lies below that"
    )
    assert reasons[1] == "not checked: too few nonmated pairs: 100, at least 1,000 needed"
    assert reasons[2] == "not checked: it is about lfw_view2"
    assert entry["operating_threshold"]["set_by"] == "the vendor's own data"
    unmeasured = replace(measured, verified=None, reason="the list has no nonmated pairs")
    [of_nothing] = judged(unmeasured, carded(false))["claims"]
    assert of_nothing["verdict"] == {
        "outcome": "inconclusive", "reason": "not checked: the list has no nonmated pairs",
    }  # fmt: skip


def test_a_rate_from_few_comparisons_shows_no_claim_of_the_population(measured):
    found = measured.verified
    sure = replace(found, figures={**found.figures, "tmr_at_fmr_1e-2": Figure(0.99, 0.98, 1.0)})
    few = replace(measured, verified=replace(sure, n_nonmated=2999))
    enough = replace(measured, verified=replace(sure, n_nonmated=3000))
    one = claim("tmr_at_fmr_1e-2", 0.95)
    assert judged(enough, carded(one))["claims"][0]["verdict"]["outcome"] == "pass"
    verdict = judged(few, carded(one))["claims"][0]["verdict"]
    assert verdict["outcome"] == "inconclusive"
    assert "2,999 nonmated pairs, at least 3,000 needed to show this rate" in verdict["reason"]


# --- the floor


class Guessing(CountingModel):
    """Its embeddings depend on the image, not on the person in it."""

    def embed(self, images):
        seeds = [int(image.double().sum() * 1e4) % 2**32 for image in images]
        found = [np.random.default_rng(seed).normal(0, 1, 8) for seed in seeds]
        return torch.from_numpy(np.stack(found)).float()


class Mated(People):
    """The mated pairs alone."""

    def listing(self):
        found = super().listing()
        return found.take([row for row, mated in enumerate(found.is_mated) if mated])


@pytest.mark.parametrize("source", [People(), Mated()])
def test_a_model_that_guesses_is_invalid_whatever_its_card_claims(pool, source):
    model = Guessing(None)
    found = measure_list(model, source, pool)
    one = claim("verification_accuracy", 0.4, 0.1)
    model.traits = ModelTraits(card=CardFacts(claims=(one,)))
    entry = judged(found, model)
    [reason] = entry["objections"]
    assert reason.startswith(
        "model counting on people: it does not tell mated from nonmated pairs: area under the ROC "
        "curve 0."
    )
    for word in ("colour order", "input range", "crop", "verification: {floor: none}"):
        assert word in reason
    assert ("the list has no nonmated pairs" in reason) == (not entry["measured"])
    off = judged(found, model, floor="none")
    assert off["objections"] == []
    assert remarks_of(off)[-1] == (
        "whether the model tells mated from nonmated pairs: switched off by the suite "
        "(verification: {floor: none})"
    )


@pytest.mark.parametrize(("n_people", "outcome"), [(30, "inconclusive"), (60, "pass")])
def test_a_list_too_short_for_any_model_is_not_the_model_s_fault(pool, n_people, outcome):
    """Of 30 people at most ten comparisons share nobody: even no error shows an AUC of 0.69."""

    pairs = made(n_people, 2 * n_people)
    perfect = replace(pairs, similarities=np.where(pairs.is_mated, 0.9, 0.1))
    verified = measure(perfect, resamples=5)
    found = judged(replace(measure_list(net(), People(29), pool), verified=verified), net())
    assert found["objections"] == []
    verdict = found["floor"]["verdict"]
    assert verdict["outcome"] == outcome
    if outcome == "inconclusive":
        assert verdict["reason"] == (
            "cannot be told: model counting on people: area under the ROC curve 1.0000 "
            f"[{verified.figures['verification_auc'].low:.4f}, 1.0000], expected an interval from "
            f"0.7 up; the list has {verified.n_disjoint} comparisons of pairs that share nobody, "
            "too few for any model. Take a list with more people"
        )
    noise = np.random.default_rng(0).normal(size=len(pairs.similarities))
    guess = measure(replace(pairs, similarities=noise), resamples=5)
    guessing = judged(replace(measure_list(net(), People(29), pool), verified=guess), net())
    assert guessing["floor"]["verdict"]["outcome"] == "invalid"


def test_a_suite_s_own_limits_take_the_place_of_the_floor(pool):
    found = measure_list(Guessing(None), People(), pool)
    limit = AtLeast("verification_accuracy", at_least=0.2, where="s.yaml:3:5")
    entry = judged(found, net(), limits=(limit,))
    assert entry["objections"] == []
    assert entry["floor"]["verdict"]["reason"] == "not checked: the suite has limits of its own"


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (0.999999, "rejects nearly every mated pair of this list: FNMR 1.0000"),
        (-1.0, "accepts nearly every nonmated pair of this list: FMR 1.0000 [0.8316, 1.0000]"),
        (0.9956, ""),
    ],
)
@pytest.mark.parametrize("kind", [People, Mated])
def test_a_threshold_that_decides_nothing_is_said_to(pool, threshold, words, kind):
    model = net(operating_threshold=threshold)
    entry = judged(measure_list(model, kind(), pool), model)
    assert entry["objections"] == []
    fault = entry["operating_threshold"]["fault"]
    assert words in fault if words else fault == ""


# --- thresholds of all comparisons


def test_a_threshold_at_a_rate_is_set_by_all_comparisons_or_not_at_all(pool):
    model, source = net(), People()
    found = measure_list(model, source, pool)
    assert (found.n_crossed, set(found.crossed)) == (120 * 117 // 2, {"tau_fmr_1e-2"})
    used = judged(found, model, operating_threshold="tau_fmr_1e-2")
    assert used["objections"] == []
    at = used["operating_threshold"]
    ids = [f"{i}{letter}" for i in range(40) for letter in "abc"]
    embeddings = model.embed(source.images(ids, CROP).float() / 255)
    pairs = [(a, b) for a in range(120) for b in range(a) if a // 3 != b // 3]
    one, two = (torch.tensor(side) for side in zip(*pairs, strict=True))
    values = similarity("cosine", embeddings[one], embeddings[two]).numpy()
    assert (values >= at["value"]).sum() <= 70 < (values >= at["value"] - 1e-6).sum()
    assert at["low"] <= at["value"] <= at["high"]
    assert "all 7,020 comparisons of different people" in at["set_by"]
    [entry] = used["crossed_thresholds"]
    assert entry["fmr"]["value"] == pytest.approx(70 / 7020)


def test_a_demand_must_be_cleared_by_the_whole_interval(measured):
    accuracy = measured.verified.figures["verification_accuracy"]
    eer = measured.verified.figures["verification_eer"]
    for metric, form, bound, is_met in (
        ("verification_accuracy", "at_least", accuracy.low, True),
        ("verification_accuracy", "at_least", accuracy.value, False),
        ("verification_eer", "at_most", eer.high, True),
        ("verification_eer", "at_most", eer.value, False),
        ("tmr_at_fmr_1e-3", "at_least", 0.0, False),
    ):
        limit = FORMS[form](metric, where="s.yaml:3:5", **{form: bound})
        entry = judged(measured, net(), limits=(limit,))
        [found] = entry["limits"]
        assert found["verdict"]["outcome"] == ("pass" if is_met else "invalid"), (metric, bound)
        assert bool(entry["objections"]) != is_met
        assert "s.yaml:3:5" in found["verdict"]["reason"]
    assert "too few nonmated pairs: 100" in entry["objections"][0]


def test_a_figure_without_an_interval_meets_no_demand_and_breaks_no_claim(measured):
    found = measured.verified
    of_one_person = Figure(0.99, math.nan, math.nan)
    figures = {**found.figures, "verification_auc": of_one_person}
    measured = replace(measured, verified=replace(found, figures=figures))
    limit = AtLeast("verification_auc", at_least=0.5, where="s.yaml:3:5")
    entry = judged(measured, carded(claim("verification_auc", 1.0)), limits=(limit,))
    assert entry["claims"][0]["verdict"]["outcome"] == "inconclusive"
    [reason] = entry["objections"]
    assert reason.endswith(
        ": it has no finite interval; the suite demands at least 0.5 (s.yaml:3:5)"
    )


def test_the_operating_threshold_is_the_model_s_or_one_that_was_measured(measured):
    vendor = judged(measured, net())["operating_threshold"]
    assert (vendor["rule"], vendor["value"], vendor["low"]) == ("vendor", 0.5, None)
    eer = judged(measured, net(), operating_threshold="tau_eer")["operating_threshold"]
    known = measured.verified.thresholds["tau_eer"].similarity
    assert (eer["value"], eer["low"], eer["high"]) == (known.value, known.low, known.high)
    entry = judged(measured, net(), operating_threshold="tau_fmr_1e-3")
    assert entry["objections"] == [
        "model counting on people: the suite sets the operating threshold by tau_fmr_1e-3, which "
        "was not measured: a false match rate of 0.001 needs at least 30,000 comparisons of "
        "different people, and the 150 images of this list give 11,025. Take a longer list or a "
        "higher rate"
    ]


def test_a_model_with_another_threshold_is_the_model_in_all_else():
    model = net()
    other = ThresholdModel(model, 0.25)
    assert isinstance(other, FaceModel)
    assert other.operating_threshold == 0.25
    for name in ("name", "crop", "similarity", "digest", "module"):
        assert getattr(other, name) is getattr(model, name)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(other.embed(images), model.embed(images))


def test_a_report_says_what_a_card_says():
    assert model_card(net()) is None
    assert model_card(carded())["licence"] == "none"
    assert model_card(carded())["golden"] is None
