"""The scorecard says how well the models verify, all that the record says and nothing else."""

import copy
import doctest

import pytest

from fxeval.contracts import CardFacts, ModelTraits
from fxeval.models.cards import Claim
from fxeval.records.writing import plain
from fxeval.scorecard import render, terminal_summary, verification_rows
from fxeval.statistics.limits import AtMost
from fxeval.tests.scorecard.test_scorecard import EXAMPLE, FIRST, Reader
from fxeval.tests.subjects import ConvNet, CountingModel
from fxeval.tests.verification.test_figures import made
from fxeval.verification.claims import entry_of
from fxeval.verification.demands import Verification
from fxeval.verification.figures import measure
from fxeval.verification.measured import Measured

EVIL = "<script>alert(1)</script>"


CARD = CardFacts(
    threshold_set_by=f"a guess {EVIL}",
    claims=(
        Claim(pairs="people", metric="verification_accuracy", value=0.5, within=0.003),
        Claim(pairs="people", metric="verification_auc", value=0.9999, within=1e-4),
        Claim(pairs="people", metric="tmr_at_fmr_1e-3", value=0.9, within=0.003),
        Claim(pairs="lfw_view2", metric="verification_eer", value=0.01, within=0.003),
    ),
)


@pytest.fixture(scope="module")
def record():
    model = CountingModel(ConvNet(), name="carded")
    model.traits = ModelTraits(card=CARD)
    good = Measured(measure(made(), 0.5, resamples=50), "", False, 300, 300, 1.25)
    none = Measured(None, f"the list has no nonmated pairs {EVIL}", False)
    nobody = entry_of(none, model, ("few",), Verification())
    limits = (AtMost("verification_eer", at_most=0.001, where="s.yaml:9:5"),)
    asked = Verification(operating_threshold="tau_acc", limits=limits)
    record = copy.deepcopy(EXAMPLE)
    record["verification"] = [
        plain({"model": "carded", "pairs": "many", **entry_of(good, model, ("people",), asked)}),
        plain({"model": "other", "pairs": "few", **nobody}),
    ]
    record["subjects"]["pairs"]["rendered"]["card"] = {
        "root_digest": "5" * 64, "n_images": 240, "licence": f"none {EVIL}", "may_show": True,
        "failures": {"no face was found": 3},
    }  # fmt: skip
    record["subjects"]["models"]["mini_resnet"]["card"] = {
        "digest": "d" * 64, "code": None, "licence": "", "source": "somewhere",
        "preprocessing": {
            "colour": "BGR", "mean": [104, 117, 104], "std": [57.120000000000005, 58, 1],
        },
        "trained_on": "rendered faces",
        "threshold_set_by": "equal error rate", "runtime": "ort 1.2",
        "golden": {"state": "agrees", "n_images": 8, "largest": 2e-5, "at_most": 1e-4},
    }  # fmt: skip
    record["subjects"]["models"]["mini_resnet"]["tags"] = {
        "training_data": "mixed", "family": "inception",
    }  # fmt: skip
    return record


@pytest.fixture(scope="module")
def html(record):
    return render(record)


def test_every_figure_stands_in_the_table_with_its_interval(record, html):
    text = Reader(html).section("verification")
    first = record["verification"][0]
    for figure in first["figures"]:
        if figure["metric"] == "tmr_at_fmr_1e-2":  # 200 nonmated pairs
            assert (
                f"{figure['value']:.4f} at most {figure['high']:.4f}, no lower end: 200 nonmated "
                "pairs, at least 500 needed"
            ) in text
        elif figure["value"] is not None:
            assert f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]" in text, (
                figure
            )
    assert "none too few nonmated pairs: 200, at least 1,000 needed" in text
    assert "TMR at FMR 0.0001" not in text  # no list is long enough
    assert "not measured: the list has no nonmated pairs" in text
    for one in first["thresholds"]:
        assert f"{one['fmr']['value']:.4f} [{one['fmr']['low']:.4f}, " in text
    assert first["protocol"] in text
    assert f"{first['operating_threshold']['value']:.4f}" in text
    assert "best accuracy on this list" in text


def test_every_claim_and_demand_stands_there_with_verdict_and_reason(record, html):
    text = Reader(html).section("verification")
    words = ("not met", "shown", "refuted", "not checked", "met")
    for word in words:
        assert f"{word} carded on many, " in text
    for entry in record["verification"]:
        for one in (*entry["limits"], *entry["claims"]):
            assert " ".join(one["verdict"]["reason"].split()) in text
    assert "suite: EER at most 0.001" in text
    assert "card: AUC 0.9999 within 0.0001, of the population" in text


def test_the_cards_of_model_and_data_are_shown(html):
    text = Reader(html).section("subjects")
    for words in (
        "set by equal error rate",
        "normalisation BGR, (x − (104, 117, 104)) / (57.12, 58, 1), x from 0 to 255",
        "d" * 12,
        "runtime ort 1.2", "agrees on 8 images", "licence not stated", "source somewhere",
        "trained on rendered faces", "pictures may be shown yes", "3 images: no face was found",
        "240 images",
        "tags training data: mixed, family: inception",
    ):  # fmt: skip
        assert words in text, words


def test_no_text_of_a_card_or_a_reason_becomes_markup(html):
    assert EVIL not in html
    assert html.count("<script") == 1  # the embedded record


def test_the_terminal_has_one_line_per_model_and_pair_list(record):
    lines = [line for line in terminal_summary(record) if line.startswith("verifies")]
    assert len(lines) == 2
    assert lines[0].startswith("verifies  carded on many: accuracy 0.")
    assert "suite: EER at most 0.001: not met" in lines[0]
    assert "card: AUC 0.9999 within 0.0001, of the population: refuted" in lines[0]
    assert "1 claim or demand held" in lines[0]
    assert lines[1].startswith("verifies  other on few: not measured: the list has no nonmated")
    assert all(line.isprintable() for line in lines)


def test_claims_about_other_lists_are_counted_on_the_terminal_and_named_on_the_page(record):
    other = copy.deepcopy(record)
    claim = copy.deepcopy(other["verification"][0]["claims"][0])
    claim |= {"pairs": "elsewhere", "metric": "verification_auc", "value": 0.75, "of": "list"}
    claim["verdict"] = {"outcome": "inconclusive", "reason": "not checked: it is about elsewhere"}
    other["verification"][0]["claims"] += [claim, claim]
    line = next(one for one in terminal_summary(other) if one.startswith("verifies"))
    assert line.endswith("; 3 claims about other lists")  # the EER of the card is, too
    assert "0.75" not in line
    assert "1 claim or demand held" in line
    text = Reader(render(other)).section("verification")
    assert "card: AUC 0.75 within" in text
    assert ", on elsewhere" in text


def test_a_record_made_before_models_were_verified_is_shown_without():
    assert "verification" not in FIRST
    old = render(FIRST)
    assert "How well the models verify" not in old
    assert 'href="#verification"' not in old
    assert verification_rows.lines(FIRST) == []
    assert not [line for line in terminal_summary(FIRST) if line.startswith("verifies")]


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(verification_rows).failed == 0
    assert (
        verification_rows.golden_text({"state": "not_checked"})
        == "not checked: the file is missing"
    )
