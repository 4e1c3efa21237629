"""Limits of a kind that judges one of its conditions are about that one, if they pin none."""

import re

import pytest

from fxeval.errors import SuiteError
from fxeval.suite.load import load
from fxeval.tests.suite.test_load import KNOWN

SUITE = """\
fxeval: 1
suite: known
models: [net]
explainers: [cam]
pairs: [{use: faces, n: 40}]
checks:
  - id: truth
    kind: truth.localisation
    limits:
      - {metric: top_precision, better_than: control.centre%s}
"""


def loaded(tmp_path, more=""):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE % more)
    (check,) = load(path, KNOWN).checks
    return check.limits[0]


def test_a_limit_is_about_the_judged_question_unless_it_says_otherwise(tmp_path):
    assert loaded(tmp_path).under == {"question": "discriminative"}
    assert loaded(tmp_path, ", under: {question: discriminative}").under == {
        "question": "discriminative"
    }
    assert loaded(tmp_path, ", severity: warning").under == {"question": "discriminative"}


@pytest.mark.parametrize("severity", ["", ", severity: critical", ", severity: warning"])
def test_a_limit_on_the_other_question_may_not_decide(tmp_path, severity):
    with pytest.raises(SuiteError) as error:
        loaded(tmp_path, f", under: {{question: pairwise}}{severity}")
    assert re.search(
        r"suite.yaml:10:\d+: error: 'question: pairwise' is information: which pixels.*"
        r"expected 'severity: info', got ",
        str(error.value),
    )


def test_for_information_it_may_be_asked(tmp_path):
    limit = loaded(tmp_path, ", under: {question: pairwise}, severity: info")
    assert limit.under == {"question": "pairwise"}
    assert limit.severity == "info"


def test_an_unknown_question_is_refused(tmp_path):
    with pytest.raises(SuiteError, match="no question 'both'"):
        loaded(tmp_path, ", under: {question: both}")
