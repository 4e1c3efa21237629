"""What is asked for of many runs."""

import pytest

from fxeval.errors import StoreError
from fxeval.records.series import Wanted


def test_what_is_not_named_may_be_anything():
    assert Wanted().named() == {}
    assert Wanted(suite="s", hardware_class="h", last=3).named() == {
        "suite": "s",
        "hardware_class": "h",
    }


@pytest.mark.parametrize("last", [0, -1])
def test_at_least_one_run_is_asked_for(last):
    with pytest.raises(StoreError, match="at least 1, got"):
        Wanted(last=last)
