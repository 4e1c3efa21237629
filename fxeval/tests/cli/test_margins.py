"""What may stand after --within."""

import pytest

from fxeval.cli.margins import margins_of
from fxeval.cli.usage import WRONG_USAGE, WrongUsage


@pytest.mark.parametrize(
    ("texts", "margins"),
    [
        ([], {}),
        (["0.02"], {"": {"absolute": 0.02}}),
        (["5%"], {"": {"relative": 0.05}}),
        (["0"], {"": {"absolute": 0.0}}),
        (["deletion_auc=5%", "1e-3"],
         {"deletion_auc": {"relative": 0.05}, "": {"absolute": 0.001}}),
    ],
)  # fmt: skip
def test_a_margin_is_an_amount_or_a_share_of_one_metric_or_of_all(texts, margins):
    found = margins_of(texts, "list")
    assert found.within == margins
    assert found.over == "list"


@pytest.mark.parametrize(
    "text", ["", "x", "-0.1", "nan", "inf", "-5%", "%", "a=", "deletion_auc", "a=b", "5 %%", "1,5"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(WrongUsage, match="expected an amount of at least 0") as caught:
        margins_of([text], "suite")
    assert caught.value.exit_code == WRONG_USAGE


@pytest.mark.parametrize("texts", [["0.1", "5%"], ["a=1", "a=2"]])
def test_two_margins_for_one_thing_are_refused(texts):
    with pytest.raises(WrongUsage, match="have a margin already"):
        margins_of(texts, "suite")
