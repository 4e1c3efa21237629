"""What a suite may demand of its models before they are explained."""

import pytest

from fxeval.errors import SuiteError
from fxeval.suite.load import KnownIds, load
from fxeval.suite.plan import cells
from fxeval.tests.suite.test_load import GOOD
from fxeval.verification.demands import Verification

KNOWN = KnownIds(frozenset({"net", "acme_net"}), frozenset({"cam"}), frozenset({"faces"}))
ASKED = """\
verification:
  operating_threshold: tau_eer
  limits:
    - {metric: verification_accuracy, at_least: 0.97}
    - {metric: verification_eer, at_most: 0.05}
  models: [acme-net]
"""
BOTH = GOOD.replace("models: [net]", "models: [net, acme-net]")


def loaded(tmp_path, asked, base=BOTH):
    path = tmp_path / "suite.yaml"
    path.write_text(base.replace("checks:\n", asked + "checks:\n"))
    return load(path, KNOWN)


def test_demands_reach_the_cells_of_the_models_they_are_about(tmp_path):
    suite = loaded(tmp_path, ASKED)
    of = {cell.model.name: cell.verification for cell in cells(suite)}
    assert of["net"] == Verification()
    asked = of["acme_net"]
    assert (asked.operating_threshold, asked.flip_fusion) == ("tau_eer", False)
    first, second = asked.limits
    assert (first.metric, first.form, first.at_least) == ("verification_accuracy", "at_least", 0.97)
    assert (second.form, second.at_most) == ("at_most", 0.05)
    assert first.where.endswith("suite.yaml:11:7")
    everyone = loaded(tmp_path, ASKED.replace("  models: [acme-net]\n", ""))
    assert {cell.verification.operating_threshold for cell in cells(everyone)} == {"tau_eer"}


def test_a_suite_that_demands_nothing_keeps_the_digest_it_had_before_demands_were(tmp_path):
    suite = loaded(tmp_path, "", base=GOOD)
    assert suite.digest == "2ea2fa1fd58471e8339ee353f54203612e4d6b6661d17c10e172488480d2d696"
    assert suite.verification is None


def test_every_demand_is_in_the_digest_and_its_place_is_not(tmp_path):
    texts = [
        "", "verification: {}\n", "verification: {floor: none}\n", ASKED,
        ASKED.replace("0.97", "0.96"),
        ASKED.replace("tau_eer", "tau_acc"), ASKED.replace("acme-net", "net"),
        ASKED.replace("operating_threshold: tau_eer", "flip_fusion: true"),
    ]  # fmt: skip
    digests = {loaded(tmp_path, text).digest for text in texts}
    assert len(digests) == len(texts)
    assert loaded(tmp_path, "# a comment\n" + ASKED).digest in digests


@pytest.mark.parametrize(
    ("before", "after", "place", "words"),
    [
        ("operating_threshold", "threshold", "9:3", "unknown key 'threshold'"),
        ("tau_eer", "tau_fmr", "9:24", "'operating_threshold' must be 'vendor', 'tau_acc'"),
        ("verification_eer", "eer", "12:16", "'metric' must be 'verification_accuracy'"),
        ("at_least: 0.97", "at_least: 97", "11:49", "must be at most 1, got 97"),
        (
            "at_least: 0.97",
            "at_most: 0.97",
            "11:7",
            "expected exactly at_least, as higher is better",
        ),
        ("at_most: 0.05", "at_least: 0.05", "12:7", "expected exactly at_most, as lower is better"),
        (
            ", at_least: 0.97",
            "",
            "11:7",
            "expected exactly at_least, as higher is better, got none",
        ),
        (", at_least: 0.97", ", at_least: 0.9, at_most: 1", "11:7", "got at_most and at_least"),
        ("[acme-net]", "[acme]", "13:12", "no check has a model 'acme'; there are: net, acme_net"),
        ("[acme-net]", "[]", "13:11", "needs 1 or more entries"),
        ("tau_eer\n", "tau_eer\n  flip_fusion: true\n", "9:24", "the cells, which do not fuse"),
        ("tau_eer\n", "tau_eer\n  flip_fusion: 1\n", "10:16", "must be true or false"),
    ],
)
def test_every_mistake_is_named_at_its_place(tmp_path, before, after, place, words):
    with pytest.raises(SuiteError) as caught:
        loaded(tmp_path, ASKED.replace(before, after))
    assert f"suite.yaml:{place}: error: " in str(caught.value)
    assert words in str(caught.value)
