"""The key with which a suite asks that its metrics are checked first."""

import pytest

from fxeval.errors import SuiteError
from fxeval.suite.load import load
from fxeval.suite.plan import cells
from fxeval.suite.recognition import shipped_suites
from fxeval.tests.suite.test_load import GOOD, KNOWN


def loaded(folder, text, name="s.yaml"):
    (folder / name).write_text(text)
    return load(folder / name, KNOWN)


def test_nothing_is_checked_unless_the_suite_asks(tmp_path):
    suite = loaded(tmp_path, GOOD)
    assert not suite.self_check
    assert not any(cell.self_check for cell in cells(suite))


def test_all_cells_know_that_the_suite_asks(tmp_path):
    suite = loaded(tmp_path, GOOD + "self_check: true\n")
    assert suite.self_check
    assert all(cell.self_check for cell in cells(suite))


def test_the_key_changes_the_digest_and_leaves_that_of_older_suites(tmp_path):
    plain, off, on = (
        loaded(tmp_path, GOOD + more).digest
        for more in ("", "self_check: false\n", "self_check: true\n")
    )
    assert plain == off != on


@pytest.mark.parametrize(("own", "expected"), [("", True), ("self_check: false\n", False)])
def test_a_suite_takes_the_key_from_the_one_that_it_extends(tmp_path, own, expected):
    loaded(tmp_path, GOOD + "self_check: true\n", "base.yaml")
    suite = loaded(tmp_path, f"fxeval: 1\nsuite: mine\nextends: base.yaml\n{own}")
    assert suite.self_check is expected


@pytest.mark.parametrize("value", ["1", "yes", "'true'", "[true]"])
def test_only_true_and_false_are_an_answer(tmp_path, value):
    with pytest.raises(SuiteError, match="'self_check' must be true or false"):
        loaded(tmp_path, f"{GOOD}self_check: {value}\n")


@pytest.mark.parametrize("name", ["certification-level-1", "certification-level-2"])
def test_the_suites_that_certify_ask(name):
    assert "\nself_check: true\n" in shipped_suites()[name].read_text()
